//! Keeps the authority: made at the first start, read again before leading, rotated while leading.

use super::Trust;
use super::rotation::{Step, rotation};
use super::secret::{Content, TrustError};
use crate::kubernetes::client::causes;
use crate::kubernetes::secrets::{post, read_or_create};
use crate::kubernetes::{CA_SECRET, gate};
use crate::tls::Authority;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use prometheus::IntGauge;
use std::sync::Arc;
use std::time::Duration;

/// A step that failed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(60);

/// A new leader does nothing for so long: until the pools are known it is not known which namespaces have to hear of a
/// new authority.
const FIRST: Duration = Duration::from_secs(300);

/// The authority in the Secret, the one that signs, and the certificates that are published.
pub struct Keeper {
    api: Api<Secret>,
    authority: Arc<Authority>,
    trust: Arc<Trust>,
    /// When the one that signs ends, for people to see: seconds since 1970.
    end: IntGauge,
}

impl Keeper {
    /// Reads the Secret, or makes it. `open` is for the Secret now, `gated` for all that only a leader writes; `end` is set
    /// to when the authority that signs ends.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub async fn open(
        open: &Client,
        gated: &Client,
        namespace: &str,
        end: &IntGauge,
    ) -> Result<Self, TrustError> {
        let first = Api::namespaced(open.clone(), namespace);
        let secret =
            read_or_create(&first, CA_SECRET, || Ok::<_, TrustError>(Content::make()?.data())).await?;
        let content = Content::read(&secret)?;
        let authority = Arc::new(Authority::from_pem(&content.bundle(), &content.current.key)?);
        let trust = Arc::new(Trust::new(gated.clone(), content.bundle()));
        end.set(content.authorities()?.current.until.as_second());
        Ok(Self { api: Api::namespaced(gated.clone(), namespace), authority, trust, end: end.clone() })
    }

    /// What signs server certificates; it is replaced in place.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// What workers are told.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Reads the Secret again: while this process stood by, the leader may have rotated.
    ///
    /// # Errors
    /// See [`TrustError`]; then nothing changes.
    pub async fn refresh(&self) -> Result<(), TrustError> {
        self.take(&Content::read(&self.api.get(CA_SECRET).await?)?)
    }

    /// Rotates when it is time. Never ends; only a leader may run it.
    pub async fn keep(&self) {
        tokio::time::sleep(FIRST).await;
        loop {
            let pause = match self.step(Timestamp::now()).await {
                Ok(until) => {
                    until.duration_since(Timestamp::now()).unsigned_abs().max(Duration::from_secs(1))
                }
                Err(error) => {
                    let closed = matches!(&error, TrustError::Api(error) if gate::is_closed(error));
                    if !closed {
                        let namespace = self.trust.lacking();
                        tracing::warn!(
                            error = causes(&error),
                            namespace,
                            "the certificate authority can't be kept now"
                        );
                    }
                    AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Does what is to be done at `now`; until when there is nothing more to do.
    pub(super) async fn step(&self, now: Timestamp) -> Result<Timestamp, TrustError> {
        let mut secret = self.api.get(CA_SECRET).await?;
        let content = Content::read(&secret)?;
        self.take(&content)?;
        // one namespace that can't be reached must not keep the others from what comes next
        let spread = self.trust.spread().await;
        let step = rotation(now, &content.authorities()?, self.trust.spread_since());
        let next = match step {
            Step::Wait(until) => return spread.map(|()| until).map_err(TrustError::from),
            Step::Publish => content.publish(now)?,
            Step::Switch => content.switch(),
            Step::Forget => content.forget(),
        };
        if let (Step::Switch, Some(namespace)) = (step, self.trust.lacking()) {
            tracing::warn!(
                namespace,
                "the next certificate authority signs, though not all namespaces could be told"
            );
        }
        // replaced whole, if it still is what was read
        secret.data = Some(next.data());
        self.api.replace(CA_SECRET, &post(), &secret).await?;
        tracing::info!(?step, "the certificate authority rotates");
        self.take(&next)?;
        self.trust.spread().await?;
        Ok(now)
    }

    fn take(&self, content: &Content) -> Result<(), TrustError> {
        let bundle = content.bundle();
        if self.authority.ca_pem() != bundle {
            self.authority.replace(&bundle, &content.current.key)?;
            self.trust.set_bundle(bundle);
        }
        self.end.set(content.authorities()?.current.until.as_second());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::testing::{FakeApi, status};
    use http::Method;
    use jiff::ToSpan;
    use serde_json::Value;

    const SECRET: &str = "/api/v1/namespaces/ours/secrets/arborist-ca";
    const MAP: &str = "/api/v1/namespaces/theirs/configmaps/arborist-ca";

    async fn keeper(api: &FakeApi) -> Keeper {
        Keeper::open(&api.client(), &api.client(), "ours", &gauge()).await.unwrap()
    }

    fn gauge() -> IntGauge {
        IntGauge::new("end", "of the authority").unwrap()
    }

    fn published(api: &FakeApi) -> String {
        api.get(MAP).and_then(|map| Some(map["data"]["ca.crt"].as_str()?.to_owned())).unwrap()
    }

    #[tokio::test]
    async fn two_that_start_at_once_have_one_authority() {
        let api = FakeApi::default();
        let (a, b) = tokio::join!(keeper(&api), keeper(&api));
        assert_eq!(a.authority().ca_pem(), b.authority().ca_pem());
        assert_eq!(api.count(Method::POST, "/api/v1/namespaces/ours/secrets"), 2, "both tried");
    }

    #[tokio::test(start_paused = true)]
    async fn certificates_are_written_once_for_each_namespace_and_again_when_they_change() {
        let api = FakeApi::default();
        let keeper = keeper(&api).await;
        let trust = keeper.trust();
        assert_eq!(trust.spread_since(), None, "which namespaces have pools is not known yet");
        trust.serves([]);
        assert_eq!(trust.spread_since(), Some(Timestamp::UNIX_EPOCH), "none has");
        for _ in 0..3 {
            trust.ensure_bundle("theirs").await.unwrap();
        }
        assert_eq!(api.count(Method::PATCH, MAP), 1);
        assert_eq!(published(&api), trust.bundle());
        trust.set_bundle("another".into());
        assert_eq!(trust.spread_since(), None);
        trust.spread().await.unwrap();
        assert!(trust.spread_since().is_some());
        assert_eq!(published(&api), "another");
        assert_eq!(api.count(Method::PATCH, MAP), 2);
        let losses: [fn(&FakeApi); 2] = [|api| api.delete(MAP), |api| api.put(MAP, serde_json::json!({}))];
        for lost in losses {
            let before = trust.spread_since().unwrap();
            lost(&api);
            tokio::time::advance(Duration::from_secs(9)).await;
            trust.ensure_bundle("theirs").await.unwrap();
            assert!(api.get(MAP).is_none_or(|map| map["data"].is_null()), "it was there a short while ago");
            tokio::time::advance(Duration::from_secs(2)).await;
            trust.ensure_bundle("theirs").await.unwrap();
            assert_eq!(published(&api), "another", "somebody has deleted or emptied it");
            assert!(trust.spread_since().unwrap() > before, "its workers hear of it from now on");
        }
        let (since, writes) = (trust.spread_since(), api.count(Method::PATCH, MAP));
        tokio::time::advance(Duration::from_secs(3600)).await;
        trust.spread().await.unwrap();
        assert_eq!((trust.spread_since(), api.count(Method::PATCH, MAP)), (since, writes), "nothing is news");
        // a namespace that is gone does not hold anything up
        api.answer(Method::PATCH, MAP, |_| status(404, "NotFound"));
        trust.set_bundle("a third".into());
        trust.spread().await.unwrap();
        assert!(trust.spread_since().is_some());
    }

    #[tokio::test]
    async fn a_rotation_publishes_waits_signs_and_forgets() {
        let api = FakeApi::default();
        let keeper = keeper(&api).await;
        keeper.trust().serves(["theirs"]);
        let first = keeper.authority().ca_pem();
        let now = Timestamp::now();
        assert!(keeper.step(now).await.unwrap() > now, "nothing to do for months");
        assert_eq!(keeper.authority().ca_pem(), first);

        let time = now + (24 * 250).hours();
        keeper.step(time).await.unwrap();
        let both = published(&api);
        assert!(both.starts_with(&first) && both.len() > first.len(), "published before it signs");
        assert_eq!(keeper.step(time + 59.minutes()).await.unwrap(), whole(time) + 1.hour());
        assert!(published(&api).starts_with(&first), "the first one signs");

        let settled = time + 61.minutes();
        keeper.step(settled).await.unwrap();
        let turned = published(&api);
        assert!(
            !turned.starts_with(&first) && turned.ends_with(&first),
            "the next one signs, the first is trusted"
        );
        assert_eq!(keeper.authority().ca_pem(), turned);

        keeper.step(now + (24 * 367).hours()).await.unwrap();
        assert!(!published(&api).contains(&first), "it is over");
    }

    /// It is being deleted and never gone, or has no room for ConfigMaps.
    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_can_not_be_told_holds_nothing_up_for_ever() {
        let api = FakeApi::default();
        let keeper = keeper(&api).await;
        keeper.trust().serves(["refuses", "theirs"]);
        let refuses = "/api/v1/namespaces/refuses/configmaps/arborist-ca";
        api.answer(Method::PATCH, refuses, |_| status(403, "Forbidden"));
        let (first, now) = (keeper.authority().ca_pem(), Timestamp::now());
        let end = keeper.end.get();
        assert!((364..=366).contains(&((end - now.as_second()) / 86_400)), "{end}");
        let signs = async |day: i64| {
            tokio::time::advance(Duration::from_secs(60)).await;
            keeper.step(now + (24 * day).hours()).await.unwrap_err();
            keeper.authority().ca_pem().starts_with(&first)
        };
        assert!(signs(250).await, "published");
        assert_eq!(keeper.trust().lacking().as_deref(), Some("refuses"));
        assert!(published(&api).len() > first.len(), "the others know");
        assert!(signs(251).await && signs(330).await, "it has not been told");
        keeper.end.set(0);
        assert!(!signs(340).await, "the end is near");
        assert_ne!(keeper.end.get(), 0, "of the one that signs now");
    }

    #[tokio::test]
    async fn a_namespace_without_pools_is_not_waited_for() {
        let api = FakeApi::default();
        let keeper = keeper(&api).await;
        api.answer(Method::PATCH, MAP, |_| status(403, "Forbidden"));
        keeper.trust().serves(["theirs"]);
        let (first, time) = (keeper.authority().ca_pem(), Timestamp::now() + (24 * 250).hours());
        keeper.step(time).await.unwrap_err();
        keeper.trust().serves([]);
        keeper.step(time + 61.minutes()).await.unwrap();
        assert!(!keeper.authority().ca_pem().starts_with(&first));
    }

    fn whole(time: Timestamp) -> Timestamp {
        Timestamp::from_second(time.as_second()).unwrap()
    }

    #[tokio::test]
    async fn a_standby_takes_up_what_the_leader_did() {
        let api = FakeApi::default();
        let (leader, standby) = (keeper(&api).await, keeper(&api).await);
        leader.trust().serves([]);
        let time = Timestamp::now() + (24 * 250).hours();
        leader.step(time).await.unwrap();
        leader.step(time + 61.minutes()).await.unwrap();
        assert_ne!(standby.authority().ca_pem(), leader.authority().ca_pem());
        standby.refresh().await.unwrap();
        assert_eq!(standby.authority().ca_pem(), leader.authority().ca_pem());
        assert_eq!(standby.trust().bundle(), leader.trust().bundle());
    }

    #[tokio::test]
    async fn a_new_leader_that_made_no_pod_tells_the_namespaces_before_it_signs() {
        let api = FakeApi::default();
        let before = keeper(&api).await;
        before.trust().ensure_bundle("theirs").await.unwrap();
        let first = published(&api);
        let leader = keeper(&api).await;
        let time = Timestamp::now() + (24 * 250).hours();
        leader.step(time).await.unwrap();
        assert!(
            leader.step(time + 61.minutes()).await.unwrap() > time,
            "which namespaces have pools is not known"
        );
        assert!(leader.authority().ca_pem().starts_with(&first), "the first one signs");
        leader.trust().serves(["theirs"]);
        assert_eq!(leader.trust().spread_since(), None, "it has not been told");
        leader.trust().spread().await.unwrap();
        assert!(leader.trust().spread_since().is_some());
        assert!(published(&api).starts_with(&first) && published(&api).len() > first.len());
    }

    #[tokio::test]
    async fn who_read_an_old_secret_does_not_overwrite_it() {
        let api = FakeApi::default();
        let keeper = keeper(&api).await;
        let old: Value = api.get(SECRET).unwrap();
        api.put(SECRET, old.clone());
        api.answer(Method::GET, SECRET, move |_| (200, old.clone()));
        let error = keeper.step(Timestamp::now() + (24 * 250).hours()).await.unwrap_err();
        assert!(error.to_string().contains("Conflict"), "{error}");
    }
}
