//! Workers log in with a token that the kubelet made for their pod; the API server says whether it is good and whose,
//! and the pod book whether that is a worker.

use super::Metrics;
use super::client::causes;
use super::pods::PodBook;
use crate::api::TOKEN_AUDIENCE;
use crate::controllers::Scope;
use crate::dispatch::{Identity, Login, Refusal};
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Reviews under way at once.
const AT_ONCE: usize = 64;
/// A review takes so long at most; the dispatcher gives a login ten seconds.
const REVIEW_TIME: Duration = Duration::from_secs(5);
/// A review is not repeated for so long: a worker that comes back after a failover, and again because it was too
/// early, is asked about once.
const FRESH: Duration = Duration::from_secs(60);
/// While the API server does not answer, an earlier review counts for so long: proving goes on meanwhile. A token is
/// never good for longer than this after its end, and the pod book still says whether the pod is there.
const STALE: Duration = Duration::from_secs(600);
/// Reviews remembered.
const REMEMBERED: usize = 20_000;

const USER_PREFIX: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Checks tokens by TokenReview.
pub struct TokenReviewLogin {
    desk: Arc<Desk>,
    runtime: Handle,
}

struct Desk {
    api: Api<TokenReview>,
    scopes: Vec<Scope>,
    book: PodBook,
    metrics: Arc<Metrics>,
    places: Semaphore,
    reviewed: Mutex<HashMap<blake3::Hash, Reviewed>>,
}

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    user: String,
    namespace: String,
    pod: String,
    uid: String,
}

struct Reviewed {
    owner: Owner,
    at: Instant,
}

impl TokenReviewLogin {
    /// Lets in the workers of these scopes that are in the book. `client` must let writes pass whoever leads. To be
    /// called in the runtime that is to ask the API server.
    pub fn new(client: Client, scopes: Vec<Scope>, book: PodBook, metrics: Arc<Metrics>) -> Self {
        let (places, reviewed) = (Semaphore::new(AT_ONCE), Mutex::default());
        let desk = Desk { api: Api::all(client), scopes, book, metrics, places, reviewed };
        Self { desk: Arc::new(desk), runtime: Handle::current() }
    }
}

impl Login for TokenReviewLogin {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Refusal>> {
        if let Some(owner) = self.desk.remembered(&blake3::hash(token.as_bytes()), FRESH) {
            self.desk.count("cache");
            return Box::pin(std::future::ready(self.desk.check(&owner)));
        }
        // the dispatcher's own threads begin this, and there is no runtime on them
        let (desk, token) = (self.desk.clone(), token.to_owned());
        let asking = AbortOnDropHandle::new(self.runtime.spawn(async move {
            let owner = desk.owner(&token).await?;
            desk.check(&owner)
        }));
        Box::pin(async move {
            let internal = |_| Err(Refusal::for_now("internal", "the check of the token was broken off"));
            asking.await.unwrap_or_else(internal)
        })
    }
}

impl Desk {
    /// Whose token it is: from the API server, or from memory when it does not answer.
    async fn owner(&self, token: &str) -> Result<Owner, Refusal> {
        let key = blake3::hash(token.as_bytes());
        match self.review(token).await {
            Ok(status) => {
                self.count("api");
                let owner = owner(&status)?;
                self.remember(key, &owner);
                Ok(owner)
            }
            Err(error) => match self.remembered(&key, STALE) {
                Some(owner) => {
                    self.count("stale");
                    Ok(owner)
                }
                None => {
                    tracing::debug!(error, "a token can't be reviewed");
                    let text = "the API server can't be asked about the token now";
                    Err(Refusal::for_now("tokenreview-unavailable", text))
                }
            },
        }
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, String> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let asked = async {
            // the semaphore is never closed
            let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
            let how = PostParams::default();
            self.api.create(&how, &review).await.map_err(|error| causes(&error))
        };
        let answer = timeout(REVIEW_TIME, asked).await.map_err(|_| "no answer".to_owned())??;
        answer.status.ok_or_else(|| "an answer without a status".to_owned())
    }

    /// Whether that is a worker of ours, as far as is known now.
    fn check(&self, owner: &Owner) -> Result<Identity, Refusal> {
        let Owner { user, namespace, pod, uid } = owner;
        let served = self.scopes.iter().any(|scope| match scope {
            Scope::Cluster => true,
            Scope::Namespace(name) => name == namespace,
        });
        if !served {
            let text = format!("pod {namespace}/{pod}: this operator does not serve its namespace");
            return Err(Refusal::permanent("namespace", text));
        }
        // a pod that was just made may not be in the book yet
        let Some(record) = self.book.find(namespace, pod) else {
            if let Some(why) = self.book.stranger(&format!("{namespace}/{pod}")) {
                return Err(Refusal::for_now("pod-owner", format!("pod {namespace}/{pod} {why}")));
            }
            let text = format!("pod {namespace}/{pod} is not known as a worker of a pool");
            return Err(Refusal::for_now("unknown-pod", text));
        };
        if *record.uid != **uid {
            let text = format!("pod {namespace}/{pod}: the token is of another pod of this name");
            return Err(Refusal::for_now("pod-uid", text));
        }
        if !self.book.has_living_pool(&record) {
            let pool = &record.pool;
            let text =
                format!("pod {namespace}/{pod} is of another ProverPool {pool} than the one there is now");
            return Err(Refusal::for_now("pool-uid", text));
        }
        if record.phase.is_over() {
            return Err(Refusal::for_now("pod-over", format!("pod {namespace}/{pod} is over")));
        }
        Ok(Identity {
            subject: user.clone(),
            worker: Some(record.worker().to_owned()),
            node: record.node.as_deref().map(str::to_owned),
            capacity: record.capacity,
            serves: self.book.serves(&record),
            // until its grace is over it finishes what it runs, and whoever leads takes that in
            draining: record.deleting,
        })
    }

    fn remembered(&self, key: &blake3::Hash, most: Duration) -> Option<Owner> {
        let reviewed = self.lock();
        let found = reviewed.get(key).filter(|found| found.at.elapsed() < most)?;
        Some(found.owner.clone())
    }

    fn remember(&self, key: blake3::Hash, owner: &Owner) {
        let mut reviewed = self.lock();
        if reviewed.len() >= REMEMBERED {
            reviewed.retain(|_, found| found.at.elapsed() < FRESH);
        }
        if reviewed.len() < REMEMBERED {
            reviewed.insert(key, Reviewed { owner: owner.clone(), at: Instant::now() });
        }
    }

    fn count(&self, source: &str) {
        self.metrics.token_reviews.with_label_values(&[source]).inc();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<blake3::Hash, Reviewed>> {
        self.reviewed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a review says.
fn owner(status: &TokenReviewStatus) -> Result<Owner, Refusal> {
    if status.authenticated != Some(true) {
        // tokens are renewed by the kubelet, so the worker's next one may be good
        let why = status.error.as_deref().unwrap_or("it is not valid");
        let text = format!("the token was refused: {}", crate::api::conditions::cut(why, 300));
        return Err(Refusal::for_now("token", text));
    }
    // an API server that does not know audiences takes every token
    if !status.audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err(Refusal::for_now(
            "audience",
            format!("the token is not for the audience {TOKEN_AUDIENCE}"),
        ));
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix(USER_PREFIX).and_then(|rest| rest.split_once(':'));
    let extra = |key: &str| user.extra.as_ref().and_then(|extra| extra.get(key)?.first().cloned());
    match (account, extra(POD_NAME), extra(POD_UID)) {
        (Some((namespace, _)), Some(pod), Some(uid)) => {
            Ok(Owner { namespace: namespace.to_owned(), user: name.clone(), pod, uid })
        }
        _ => Err(Refusal::permanent("not-a-pod", "the token is not bound to a pod: mount a projected one")),
    }
}

#[cfg(test)]
mod tests;
