//! Who leads: one Lease in the operator's namespace, with the rules of client-go's leader election (expiry by the
//! standby's own clock, every write bound to the version read) and two of our own: a leader that can't reach the
//! API server pauses instead of ending, and a process takes over at once from an earlier one of its own pod.
//! `docs/decisions/0006-leader.md` says why.

mod decide;
#[cfg(test)]
mod tests;

pub use decide::{Course, Identity, Record, Seen, Stopped, Timing, Watched, course, may_take};

use super::client::causes;
use super::{Gate, LEASE, Metrics};
use crate::api::{LABEL_MANAGED_BY, MANAGER};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// One process's part in the election.
pub struct Election {
    api: Api<Lease>,
    us: Identity,
    timing: Timing,
    gate: Gate,
    metrics: Arc<Metrics>,
    start: Instant,
    /// The Lease as we last wrote it, while it is ours.
    held: Option<Lease>,
    /// When the request began that renewed it last.
    renewed: Instant,
}

/// Why the Lease could not be written.
enum Refusal {
    /// Somebody else wrote it meanwhile, or it is gone.
    Outdated,
    /// Anything else.
    Failed(String),
}

impl Election {
    /// `client` must let writes of the Lease pass whoever leads; `gate` is opened while this process does.
    pub fn new(
        client: Client,
        namespace: &str,
        us: Identity,
        timing: Timing,
        gate: Gate,
        metrics: Arc<Metrics>,
    ) -> Self {
        let now = Instant::now();
        let api = Api::namespaced(client, namespace);
        Self { api, us, timing, gate, metrics, start: now, held: None, renewed: now }
    }

    /// Stands by until this process leads. `trouble` hears why the Lease can't be read or written, and `None` when
    /// it can again.
    pub async fn acquire(&mut self, trouble: impl Fn(Option<String>)) {
        let mut watched: Option<Watched> = None;
        let mut leader = None;
        loop {
            match self.look().await {
                Err(error) => trouble(Some(error)),
                Ok(lease) => {
                    let record = lease.as_ref().map(record);
                    let now = self.start.elapsed();
                    let seen = record.clone().unwrap_or_default();
                    let state = Watched::after(watched.as_ref(), &seen, now, self.timing);
                    let take = may_take(record.as_ref(), &state, &self.us, now);
                    watched = Some(state);
                    if leader.as_ref() != Some(&seen.holder) {
                        tracing::info!(leader = seen.holder.as_deref().unwrap_or("nobody"), "standing by");
                        leader = Some(seen.holder);
                    }
                    match take {
                        false => trouble(None),
                        true => match self.write(lease).await {
                            Ok(()) => return self.elected(&trouble),
                            // another standby was faster
                            Err(Refusal::Outdated) => trouble(None),
                            Err(Refusal::Failed(error)) => trouble(Some(error)),
                        },
                    }
                }
            }
            sleep(jittered(self.timing.look_every())).await;
        }
    }

    fn elected(&self, trouble: &impl Fn(Option<String>)) {
        trouble(None);
        self.metrics.elected.inc();
        tracing::info!(identity = self.us.name(), "elected: this operator leads");
    }

    /// Keeps the Lease until this process must not lead any more; it then must write nothing and end. `fenced` is
    /// cancelled when another has taken the journal. Dropping this stops the renewals: then [`Election::release`].
    pub async fn keep(&mut self, fenced: &CancellationToken) -> Stopped {
        let mut paused = false;
        let mut next = self.timing.renew_every();
        loop {
            let mut until = Instant::now() + next;
            if !paused {
                // the gate closes by itself then: log and gauge are to say so
                until = until.min(self.renewed + self.timing.writes_for());
            }
            tokio::select! {
                () = fenced.cancelled() => {}
                () = sleep_until(until) => {}
            }
            let seen = match fenced.is_cancelled() {
                true => Seen::Unknown,
                false => self.renew().await,
            };
            let course = course(&seen, self.renewed.elapsed(), fenced.is_cancelled(), self.timing);
            self.metrics.leader.set(i64::from(course == Course::Lead));
            match course {
                Course::Stop(why) => {
                    self.gate.close();
                    self.held = None;
                    return why;
                }
                Course::Lead if paused => tracing::info!("the Lease is renewed: this operator leads again"),
                Course::Pause if !paused => tracing::warn!(
                    "the Lease can't be renewed: nothing is written to the API server until it is; workers are served on"
                ),
                Course::Lead | Course::Pause => {}
            }
            paused = course == Course::Pause;
            next = if seen == Seen::Ours { self.timing.renew_every() } else { self.timing.look_every() };
        }
    }

    /// Gives the Lease up if it is ours, so that a standby need not wait for its end. Nothing is written by this
    /// process after.
    ///
    /// # Errors
    /// The standby has to wait.
    pub async fn release(self) -> Result<(), String> {
        self.gate.close();
        self.metrics.leader.set(0);
        // a write that was cut off may have been done: what is there now counts
        let lease =
            self.look().await?.filter(|lease| record(lease).holder.as_deref() == Some(self.us.name()));
        let Some(mut lease) = lease else { return Ok(()) };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        match self.put(&lease).await {
            Ok(_) => Ok(()),
            Err(Refusal::Outdated) => Err("somebody else wrote the Lease".into()),
            Err(Refusal::Failed(error)) => Err(error),
        }
    }

    /// One try to renew.
    async fn renew(&mut self) -> Seen {
        let seen = self.try_renew().await;
        let result = match seen {
            Seen::Ours => "renewed",
            Seen::Others(_) => "lost",
            Seen::Nobodys | Seen::Unknown => "failed",
        };
        self.metrics.renewals.with_label_values(&[result]).inc();
        seen
    }

    async fn try_renew(&mut self) -> Seen {
        match self.write(self.held.clone()).await {
            Ok(()) => return Seen::Ours,
            Err(Refusal::Failed(error)) => {
                tracing::debug!(error, "the Lease was not renewed");
                return Seen::Unknown;
            }
            Err(Refusal::Outdated) => {}
        }
        let Ok(lease) = self.look().await else { return Seen::Unknown };
        let holder =
            lease.as_ref().and_then(|lease| record(lease).holder).filter(|holder| !holder.is_empty());
        match holder {
            Some(holder) if holder != self.us.name() => Seen::Others(holder),
            // ours: a lost answer, or somebody set a label; or nobody's: it was deleted
            holder => match self.write(lease).await {
                Ok(()) => Seen::Ours,
                Err(_) if holder.is_none() => Seen::Nobodys,
                Err(_) => Seen::Unknown,
            },
        }
    }

    /// The Lease as it is.
    async fn look(&self) -> Result<Option<Lease>, String> {
        match timeout(self.timing.patience(), self.api.get_opt(LEASE)).await {
            Ok(answer) => {
                answer.map_err(|error| format!("the Lease {LEASE} can't be read: {}", causes(&error)))
            }
            Err(_) => Err(format!("the Lease {LEASE} can't be read: no answer")),
        }
    }

    /// Makes the Lease ours, or renews it, if it still is what was read. On success writes may pass for a while.
    async fn write(&mut self, lease: Option<Lease>) -> Result<(), Refusal> {
        let began = Instant::now();
        let ours = self.ours(lease);
        let written = self.put(&ours).await?;
        self.held = Some(written);
        self.renewed = began;
        self.gate.open_until(began + self.timing.writes_for());
        self.metrics.leader.set(1);
        Ok(())
    }

    /// Writes a Lease that was read, or makes one that was not there.
    async fn put(&self, lease: &Lease) -> Result<Lease, Refusal> {
        let how = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let request = async {
            match lease.metadata.resource_version {
                Some(_) => self.api.replace(LEASE, &how, lease).await,
                None => self.api.create(&how, lease).await,
            }
        };
        match timeout(self.timing.patience(), request).await {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Err(Refusal::Outdated),
            Ok(Err(error)) => {
                Err(Refusal::Failed(format!("the Lease {LEASE} can't be written: {}", causes(&error))))
            }
            Err(_) => Err(Refusal::Failed(format!("the Lease {LEASE} can't be written: no answer"))),
        }
    }

    /// The Lease as it is to be while we lead.
    fn ours(&self, lease: Option<Lease>) -> Lease {
        let mut lease = lease.unwrap_or_else(|| {
            let mut lease = Lease::default();
            lease.metadata.name = Some(LEASE.to_owned());
            lease.metadata.labels = Some(BTreeMap::from([(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned())]));
            lease
        });
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.take().unwrap_or_default();
        let renews = before.holder_identity.as_deref() == Some(self.us.name());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.us.name().to_owned()),
            lease_duration_seconds: Some(whole_seconds(self.timing.lease)),
            acquire_time: before.acquire_time.filter(|_| renews).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!renews)),
            ..before
        });
        lease
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    Record {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty()),
        lasts: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// Rounded up: who reads it must not think that it ends earlier.
fn whole_seconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// Up to a fifth shorter, so that standbys don't look all at once.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.8 + 0.2 * rand::random::<f64>())
}
