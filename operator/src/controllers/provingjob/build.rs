//! Step 3: what is to be done and shown. Pure.

use super::deadline::left;
use super::dereference::{Seen, Tree, id_of};
use super::memory::{Delivery, until};
use super::publish::{Publication, publication};
use super::stage::{Proving, Reporting, Stage, decide, is_lost};
use super::validate::{Invalid, Validated};
use super::wishes::{Change, Wish, changes, together};
use crate::api::{Attribution, ProvingJob, ReportReceipt, ReportTarget, RootProof};
use arborist_core::engine::{Counts, JobId};
use arborist_core::ids::TaskId;
use arborist_core::profile::Profile;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// How often a job's counts are looked at while proofs are made …
const LOOK: Duration = Duration::from_secs(2);
/// … and while it waits: what ends the waiting calls for a visit of its own.
const LOOK_WAITING: Duration = Duration::from_secs(5);
/// Background work calls for a visit when it ends; should that get lost, this is soon enough.
const LOOK_WORKING: Duration = Duration::from_secs(30);

/// What is to be done and shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Built {
    /// What the engine is told.
    pub changes: Vec<(JobId, Change)>,
    /// What is begun beside the visits.
    pub start: Option<Start>,
    /// What is written down of a proven block.
    pub publish: Option<Publication>,
    /// The job's time after its end is over.
    pub delete: bool,
    /// What is shown if all of this succeeds.
    pub picture: Picture,
    /// When to look again, if nothing happens before.
    pub again: Option<Duration>,
}

/// Work that takes longer than a visit.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Start {
    /// Get the block and submit it.
    Prepare(Box<Validated>),
    /// Tell a target.
    Deliver { job: Box<Validated>, target: ReportTarget, root: TaskId },
}

/// What the status is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    pub stage: Stage,
    pub deadline: Option<Timestamp>,
    pub root: Option<TaskId>,
    /// Counts by kind; `None`: not in the books (any more).
    pub counts: Option<[Counts; 5]>,
    /// When it will be done, if that can be said.
    pub estimate: Option<Timestamp>,
    /// Newly written down.
    pub published: Option<(RootProof, Attribution)>,
    pub reports: Vec<ReportReceipt>,
}

/// A job whose spec can't be worked on. What of it is in the engine's books goes to its end.
pub(super) fn refused(object: &ProvingJob, invalid: Invalid, now: Timestamp) -> Built {
    let stage = Stage::refused(invalid);
    let ttl =
        object.spec.ttl_seconds_after_finished.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    let left = expires(object, &stage, ttl, now);
    let status = object.status.clone().unwrap_or_default();
    Built {
        changes: vec![],
        start: None,
        publish: None,
        delete: left == Some(Duration::ZERO),
        again: left,
        picture: Picture {
            stage,
            deadline: status.deadline.map(|time| time.0),
            root: status.root_task.as_ref().and_then(|hex| hex.parse().ok()),
            counts: None,
            estimate: None,
            published: None,
            reports: status.reports,
        },
    }
}

/// What is to be done for a valid job.
///
/// # Errors
/// What a proven block leaves can't be written as JSON.
pub(super) fn build(
    object: &ProvingJob,
    job: &Validated,
    seen: &Seen,
    profile: &Profile,
    now: Timestamp,
) -> Result<Built, serde_json::Error> {
    let status = object.status.clone().unwrap_or_default();
    let stage = decide(job, &status, seen, profile, now);
    let publish = match (&stage, &seen.evidence, &seen.tree) {
        (Stage::Proven(_), Some(Ok(evidence)), Some(tree)) => {
            Some(publication(object, job, &tree.view, evidence)?)
        }
        _ => None,
    };
    let start = start(job, &stage, seen, publish.is_some(), now);
    let expires = expires(object, &stage, job.ttl, now);
    Ok(Built {
        changes: seen.tree.as_ref().map(|tree| tell(job, &stage, tree, seen)).unwrap_or_default(),
        again: again(job, &stage, seen, start.is_some(), now).into_iter().chain(expires).min(),
        delete: expires == Some(Duration::ZERO),
        picture: Picture {
            deadline: job.deadline,
            root: seen.root,
            counts: seen.tree.as_ref().map(|tree| tree.view.counts),
            estimate: seen.tree.as_ref().and_then(|tree| tree.estimate).map(super::deadline::time),
            published: publish.as_ref().map(|p| (p.root_proof.clone(), p.attribution.clone())),
            reports: receipts(job, seen),
            stage,
        },
        start,
        publish,
    })
}

fn tell(job: &Validated, stage: &Stage, tree: &Tree, seen: &Seen) -> Vec<(JobId, Change)> {
    if !matches!(stage, Stage::Proving(_) | Stage::Checking) {
        return vec![];
    }
    let mine = Wish {
        deadline: job.deadline.map(super::deadline::millis),
        priority: job.priority,
        suspended: job.suspended,
    };
    let changes = changes(&tree.view, together(mine, &seen.others), seen.engine_now);
    changes.into_iter().map(|change| (id_of(tree), change)).collect()
}

fn start(job: &Validated, stage: &Stage, seen: &Seen, publishing: bool, now: Timestamp) -> Option<Start> {
    if seen.known.working {
        return None;
    }
    match stage {
        Stage::Preparing(_) => Some(Start::Prepare(Box::new(job.clone()))),
        Stage::Waiting(_) => {
            let next = seen.known.failure.as_ref().and_then(|failure| failure.next);
            until(next, now).is_none().then(|| Start::Prepare(Box::new(job.clone())))
        }
        // the report is written down before it is sent
        Stage::Proven(Reporting::Sending(_) | Reporting::Failing(_)) if !publishing => {
            let due = |target: &&ReportTarget| {
                let delivery = seen.known.deliveries.get(&target.name).cloned().unwrap_or_default();
                is_open(&delivery, job, seen, now) && until(delivery.next, now).is_none()
            };
            let target = job.targets.iter().find(due)?.clone();
            Some(Start::Deliver { job: Box::new(job.clone()), target, root: seen.root? })
        }
        _ => None,
    }
}

fn is_open(delivery: &Delivery, job: &Validated, seen: &Seen, now: Timestamp) -> bool {
    delivery.delivered_at.is_none() && !is_lost(delivery, job, seen.known.working, now)
}

fn receipts(job: &Validated, seen: &Seen) -> Vec<ReportReceipt> {
    let told = |target: &ReportTarget| {
        let delivery = seen.known.deliveries.get(&target.name).filter(|d| d.attempts > 0)?;
        Some(delivery.receipt(&target.name))
    };
    job.targets.iter().filter_map(told).collect()
}

/// When to look again though nothing happens, other than at the job's expiry.
fn again(job: &Validated, stage: &Stage, seen: &Seen, started: bool, now: Timestamp) -> Option<Duration> {
    let working = (started || seen.known.working).then_some(LOOK_WORKING);
    let next = match stage {
        Stage::Refused(_) | Stage::Unusable(_) | Stage::Late(_) => return None,
        Stage::Proving(Proving::Running(_)) | Stage::Checking => Some(LOOK),
        Stage::Proving(_) => Some(LOOK_WAITING),
        Stage::Preparing(_) | Stage::Waiting(_) => {
            working.or_else(|| until(seen.known.failure.as_ref().and_then(|failure| failure.next), now))
        }
        Stage::Proven(Reporting::NoTargets | Reporting::Refused(_) | Reporting::Delivered(_)) => return None,
        Stage::Proven(Reporting::Unpublished(_)) => Some(LOOK_WAITING),
        Stage::Proven(Reporting::Sending(_) | Reporting::Failing(_)) => working.or_else(|| {
            let open = job.targets.iter().filter_map(|target| seen.known.deliveries.get(&target.name));
            open.filter(|d| is_open(d, job, seen, now)).filter_map(|d| until(d.next, now)).min()
        }),
    };
    let deadline = job.deadline.map(|deadline| left(deadline, now)).filter(|left| !left.is_zero());
    // what was due a moment ago is due in a moment
    Some(next.unwrap_or(LOOK)).into_iter().chain(deadline).min()
}

/// How long a job that is over is kept yet; nothing left means that it goes now. It goes only once its end stands
/// in its status.
fn expires(object: &ProvingJob, stage: &Stage, ttl: Option<Duration>, now: Timestamp) -> Option<Duration> {
    let finished = object.status.as_ref()?.finished_at.as_ref()?.0;
    let end = finished.checked_add(SignedDuration::try_from(ttl?).ok()?).ok()?;
    stage.is_over().then(|| left(end, now))
}

/// What is to be done for a job that is over and was not edited since: nothing, until its time after the end is over.
pub(super) fn time_left(object: &ProvingJob, now: Timestamp) -> Option<Duration> {
    let finished = object.status.as_ref()?.finished_at.as_ref()?.0;
    let ttl = SignedDuration::from_secs(object.spec.ttl_seconds_after_finished?);
    Some(left(finished.checked_add(ttl).ok()?, now))
}
