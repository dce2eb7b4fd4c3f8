//! What is remembered between two visits of a job. Nothing is lost with it: after a restart sources are fetched and
//! reports sent again, which both ends know for the same.

use super::Guarded;
use super::deadline::left;
use super::status::is_over;
use super::submits::Submits;
use crate::api::conditions::cut;
use crate::api::{ProvingJob, ReportReceipt};
use crate::controllers::Scope;
use crate::report::backoff::pause;
use crate::report::{MAX_ANSWER, ReportError};
use arborist_core::engine::JobId;
use arborist_core::ids::TaskId;
use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// Sources fetched at once, until their trees are in the books: each may be held in memory whole …
const FETCHES: usize = 4;
/// … and of one namespace, so that its servers, however slow, leave turns to the others.
const FETCHES_OF_NAMESPACE: usize = 2;
/// Blocks from ConfigMaps, of 1 MiB at most, taken in at once: they don't wait for servers.
const SMALL: usize = 4;
/// A source of a wrong hash is fetched so often before that is final: an error page or half a file may have come.
const MISMATCHES: u32 = 3;
/// The pauses in between are those after so many more failures: a minute or so together.
const MISMATCH_PAUSE: u32 = 5;
/// A report that could not be sent so often in a row, a minute or two together, counts as tried from then on: else what
/// lasts would keep a job past its deadline for ever, and only the log would say why.
const LASTING: u32 = 8;
/// Synthetic blocks made at once: each takes 5 CPU seconds a transaction.
const MAKING: usize = 1;

/// What the controllers of all scopes remember between two visits of a job.
pub struct Memory {
    jobs: Mutex<HashMap<String, Entry>>,
    quarantined: Mutex<HashMap<JobId, String>>,
    listed: Mutex<Vec<(Scope, Store<Guarded>)>>,
    /// Roots that a deleted job named.
    released: Mutex<HashSet<TaskId>>,
    /// Blocks from before a submit until their tree is remembered here: a tree just submitted is wanted though no
    /// status says so yet.
    pub(super) submits: Submits,
    pub(super) fetches: Arc<Semaphore>,
    /// By namespace.
    fetches_of: Mutex<HashMap<String, Arc<Semaphore>>>,
    pub(super) small: Arc<Semaphore>,
    pub(super) making: Arc<Semaphore>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            jobs: Mutex::default(),
            quarantined: Mutex::default(),
            listed: Mutex::default(),
            released: Mutex::default(),
            submits: Submits::default(),
            fetches: Arc::new(Semaphore::new(FETCHES)),
            fetches_of: Mutex::default(),
            small: Arc::new(Semaphore::new(SMALL)),
            making: Arc::new(Semaphore::new(MAKING)),
        }
    }
}

#[derive(Default)]
struct Entry {
    known: Known,
    work: Option<AbortHandle>,
    latest: Option<Latest>,
    /// Visits that failed since the last that did not.
    failures: u32,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            work.abort();
        }
    }
}

/// A job as the API server answered last. A watch may be behind it by several writes: after an outage of the API server it
/// pauses for seconds before it begins anew.
struct Latest {
    /// The versions that it is known to replace, oldest first, from the one that the watch was seen at. As many as
    /// were written since: few, for a watch that stands still is begun anew within minutes.
    replaces: Vec<String>,
    job: Arc<ProvingJob>,
    /// When this process wrote its status last.
    written: Option<Timestamp>,
}

/// What background work found out about a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known {
    /// Something is under way.
    pub working: bool,
    /// What it has to wait for before it can go on.
    pub waits: Option<String>,
    /// The root's task of the tree submitted by this process.
    pub root: Option<TaskId>,
    /// Why the last try to submit failed.
    pub failure: Option<Failure>,
    /// The tree whose result this process has written down, or found written down.
    pub published: Option<TaskId>,
    /// The report that had been written down is gone.
    pub report_lost: bool,
    /// By target.
    pub deliveries: BTreeMap<String, Delivery>,
}

/// Why a job was not submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub reason: &'static str,
    pub message: String,
    /// The generation of the spec that it is about.
    pub generation: i64,
    pub attempts: u32,
    /// How many of them, the last ones, failed for this reason.
    pub in_a_row: u32,
    /// When it is tried again; `None`: not before the job is edited.
    pub next: Option<Timestamp>,
}

/// How a report to a target goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    pub attempts: u32,
    pub delivered_at: Option<Timestamp>,
    pub answer: String,
    /// It was refused for good under this generation of the spec.
    pub refused: Option<i64>,
    /// Not tried before then.
    pub next: Option<Timestamp>,
    /// How often in a row it could not even be sent.
    pub unsent: u32,
}

impl Delivery {
    fn of(receipt: &ReportReceipt) -> Self {
        Self {
            attempts: receipt.attempts.try_into().unwrap_or(0),
            delivered_at: receipt.delivered_at.as_ref().map(|time| time.0),
            answer: receipt.answer.clone(),
            ..Self::default()
        }
    }

    /// As it stands in a status.
    pub fn receipt(&self, target: &str) -> ReportReceipt {
        ReportReceipt {
            target: target.to_owned(),
            attempts: self.attempts.try_into().unwrap_or(i32::MAX),
            delivered_at: self.delivered_at.map(Time),
            answer: self.answer.clone(),
        }
    }
}

/// What came of background work.
#[derive(Debug)]
pub(super) enum Found {
    /// The tree is in the engine's books.
    Submitted(TaskId),
    /// It is not.
    NotSubmitted { reason: &'static str, message: String, generation: i64, again: Again },
    /// A report was taken, or not.
    Sent { target: String, generation: i64, result: Result<String, ReportError> },
    /// A report could not even be sent: no attempt, unless that lasts.
    NotSent { target: String, why: String },
    /// The report that had been written down is not there any more.
    ReportLost,
}

/// Whether what failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    /// A few times; then it is final.
    Few,
    Always,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Scopes whose jobs are not all known yet, one line each; the operator is ready when there is none.
    pub fn pending(&self, scopes: &[Scope]) -> Vec<String> {
        let listed = lock(&self.listed);
        let known = |scope: &Scope| {
            listed.iter().any(|(s, store)| s == scope && store.wait_until_ready().now_or_never().is_some())
        };
        scopes
            .iter()
            .filter(|scope| !known(scope))
            .map(|scope| format!("ProvingJobs of {scope:?} are not listed yet"))
            .collect()
    }

    pub(super) fn add_scope(&self, scope: Scope, store: Store<Guarded>) {
        let mut listed = lock(&self.listed);
        listed.retain(|(known, _)| *known != scope);
        listed.push((scope, store));
    }

    /// All jobs of all scopes; `None` while they are not all known.
    pub(super) fn all_jobs(&self, scopes: &[Scope]) -> Option<Vec<Arc<Guarded>>> {
        self.pending(scopes).is_empty().then(|| self.listed_jobs())
    }

    /// The jobs known by now.
    pub(super) fn listed_jobs(&self) -> Vec<Arc<Guarded>> {
        lock(&self.listed).iter().flat_map(|(_, store)| store.state()).collect()
    }

    /// The turns at fetching sources that a namespace has.
    pub(super) fn fetches_of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut all = lock(&self.fetches_of);
        // those that nobody holds or waits for are whole
        all.retain(|_, turns| Arc::strong_count(turns) > 1);
        let whole = || Arc::new(Semaphore::new(FETCHES_OF_NAMESPACE));
        all.entry(namespace.to_owned()).or_insert_with(whole).clone()
    }

    /// What is known of a job. What its status says of reports comes in at the first look.
    pub(super) fn known(&self, uid: &str, receipts: &[ReportReceipt]) -> Known {
        let mut jobs = lock(&self.jobs);
        let known = &mut jobs.entry(uid.to_owned()).or_default().known;
        for receipt in receipts {
            known.deliveries.entry(receipt.target.clone()).or_insert_with(|| Delivery::of(receipt));
        }
        known.clone()
    }

    /// The root's task of a job's tree, if this process submitted it.
    pub(super) fn root(&self, uid: &str) -> Option<TaskId> {
        lock(&self.jobs).get(uid).and_then(|entry| entry.known.root)
    }

    /// Notes that something is under way, unless something is already.
    pub(super) fn begin(&self, uid: &str, start: impl FnOnce() -> AbortHandle) {
        let mut jobs = lock(&self.jobs);
        let entry = jobs.entry(uid.to_owned()).or_default();
        if !entry.known.working {
            entry.known.working = true;
            entry.work = Some(start());
        }
    }

    /// Notes what that which is under way waits for, if anything.
    pub(super) fn waits(&self, uid: &str, why: Option<String>) {
        if let Some(entry) = lock(&self.jobs).get_mut(uid).filter(|entry| entry.known.working) {
            entry.known.waits = why;
        }
    }

    /// Notes what came of it. A job that is gone meanwhile is not remembered again.
    pub(super) fn end(&self, uid: &str, found: Found, now: Timestamp) {
        let mut jobs = lock(&self.jobs);
        let Some(entry) = jobs.get_mut(uid) else { return };
        (entry.known.working, entry.known.waits, entry.work) = (false, None, None);
        note(&mut entry.known, found, now, rand::random());
    }

    /// Notes that what was under way was stopped.
    pub(super) fn let_go(&self, uid: &str) {
        if let Some(entry) = lock(&self.jobs).get_mut(uid) {
            (entry.known.working, entry.known.waits, entry.work) = (false, None, None);
        }
    }

    /// Notes a visit that failed; how many did so in a row.
    pub(super) fn failed(&self, uid: &str) -> u32 {
        let mut jobs = lock(&self.jobs);
        let entry = jobs.entry(uid.to_owned()).or_default();
        entry.failures = entry.failures.saturating_add(1);
        entry.failures
    }

    /// Notes a visit that did not fail.
    pub(super) fn succeeded(&self, uid: &str) {
        if let Some(entry) = lock(&self.jobs).get_mut(uid) {
            entry.failures = 0;
        }
    }

    /// Notes that the result of this tree is written down (again).
    pub(super) fn published(&self, uid: &str, root: Option<TaskId>) {
        let mut jobs = lock(&self.jobs);
        let known = &mut jobs.entry(uid.to_owned()).or_default().known;
        (known.published, known.report_lost) = (root, false);
    }

    /// Whether that was noted and is so, as far as is known.
    pub(super) fn is_published(&self, uid: &str, root: Option<TaskId>) -> bool {
        root.is_some() && lock(&self.jobs).get(uid).is_some_and(|entry| entry.known.published == root)
    }

    /// The job as it was answered last, if the version at hand is one that it replaces.
    pub(super) fn freshest(&self, job: &Arc<ProvingJob>) -> Arc<ProvingJob> {
        let mut jobs = lock(&self.jobs);
        let latest =
            job.metadata.uid.as_ref().and_then(|uid| jobs.get_mut(uid)).and_then(|e| e.latest.as_mut());
        let Some(latest) = latest else { return job.clone() };
        let at_hand = job.resource_version();
        if latest.job.resource_version() == at_hand {
            latest.replaces.clear();
            return job.clone();
        }
        match latest.replaces.iter().rposition(|version| Some(version) == at_hand.as_ref()) {
            Some(at) => {
                // a watch does not go back
                latest.replaces.drain(..at);
                latest.job.clone()
            }
            None => job.clone(),
        }
    }

    pub(super) fn last_write(&self, uid: &str) -> Option<Timestamp> {
        lock(&self.jobs).get(uid)?.latest.as_ref()?.written
    }

    /// Notes a job as the API server answered it; `from` is the version that it replaces, `written` when its status
    /// was written by this answer.
    pub(super) fn answered(&self, from: &ProvingJob, after: ProvingJob, written: Option<Timestamp>) {
        let (Some(uid), Some(from)) = (from.uid(), from.resource_version()) else { return };
        let mut jobs = lock(&self.jobs);
        let latest = &mut jobs.entry(uid).or_default().latest;
        let before = latest.take();
        let written = written.or_else(|| before.as_ref().and_then(|before| before.written));
        let mut replaces = match before {
            Some(before) if before.job.resource_version().as_ref() == Some(&from) => before.replaces,
            _ => vec![],
        };
        replaces.push(from);
        *latest = Some(Latest { replaces, job: Arc::new(after), written });
    }

    /// Forgets the jobs that are gone, and stops what is under way for them.
    pub(super) fn forget_gone(&self) {
        // no job can enter its list and be remembered between the two
        let mut jobs = lock(&self.jobs);
        let listed: HashSet<_> = self.listed_jobs().iter().filter_map(|job| job.uid()).collect();
        jobs.retain(|uid, _| listed.contains(uid));
    }

    /// Notes that a job that named this root was deleted.
    pub(super) fn note_released(&self, root: TaskId) {
        lock(&self.released).insert(root);
    }

    /// The roots noted so since the last call.
    pub(super) fn take_released(&self) -> HashSet<TaskId> {
        std::mem::take(&mut *lock(&self.released))
    }

    pub(super) fn quarantined(&self, job: JobId) -> Option<String> {
        lock(&self.quarantined).get(&job).cloned()
    }

    pub(super) fn note_quarantined(&self, job: JobId, why: String) {
        lock(&self.quarantined).insert(job, why);
    }

    /// Forgets reasons of trees that are not in the engine's books any more.
    pub(super) fn keep_quarantined(&self, known: &[JobId]) {
        lock(&self.quarantined).retain(|job, _| known.contains(job));
    }

    /// The jobs of a tree that are not over.
    pub(super) fn jobs_of(&self, root: &TaskId) -> Vec<Arc<Guarded>> {
        let hex = root.to_string();
        let mut jobs = self.listed_jobs();
        jobs.retain(|job| {
            let Ok(job) = &job.0 else { return false };
            let status = job.status.as_ref();
            job.metadata.deletion_timestamp.is_none()
                && status.is_some_and(|status| status.root_task.as_ref() == Some(&hex))
                && !is_over(job)
        });
        jobs
    }
}

/// Brings what is known up to date.
fn note(known: &mut Known, found: Found, now: Timestamp, jitter: f64) {
    let later = |attempts: u32| {
        let pause = SignedDuration::try_from(pause(attempts, jitter)).unwrap_or(SignedDuration::MAX);
        now.checked_add(pause).unwrap_or(Timestamp::MAX)
    };
    match found {
        Found::Submitted(root) => (known.root, known.failure) = (Some(root), None),
        Found::NotSubmitted { reason, message, generation, again } => {
            let before = known.failure.as_ref().filter(|f| f.generation == generation);
            let attempts = before.map_or(0, |f| f.attempts).saturating_add(1);
            let same = before.filter(|f| f.reason == reason);
            let in_a_row = same.map_or(0, |f| f.in_a_row).saturating_add(1);
            let next = match again {
                Again::Always => Some(later(attempts)),
                Again::Few if in_a_row < MISMATCHES => Some(later(in_a_row + MISMATCH_PAUSE)),
                Again::Few | Again::Never => None,
            };
            known.failure = Some(Failure { reason, message, generation, attempts, in_a_row, next });
        }
        Found::Sent { target, generation, result } => {
            let delivery = known.deliveries.entry(target).or_default();
            (delivery.attempts, delivery.unsent) = (delivery.attempts.saturating_add(1), 0);
            match result {
                Ok(answer) => {
                    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
                    (delivery.delivered_at, delivery.answer) = (Some(second), answer);
                }
                Err(error) => {
                    delivery.answer = cut(&error.to_string(), MAX_ANSWER);
                    delivery.refused = matches!(error, ReportError::Refused(_)).then_some(generation);
                    delivery.next = Some(later(delivery.attempts));
                }
            }
        }
        Found::NotSent { target, why } => {
            let delivery = known.deliveries.entry(target).or_default();
            delivery.unsent = delivery.unsent.saturating_add(1);
            if delivery.unsent >= LASTING {
                delivery.attempts = delivery.attempts.saturating_add(1);
                delivery.answer = cut(&why, MAX_ANSWER);
            }
            delivery.next = Some(later(delivery.unsent));
        }
        Found::ReportLost => (known.published, known.report_lost) = (None, true),
    }
}

/// How long until a time; `None` when it is there.
pub(super) fn until(next: Option<Timestamp>, now: Timestamp) -> Option<std::time::Duration> {
    next.map(|next| left(next, now)).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests;
