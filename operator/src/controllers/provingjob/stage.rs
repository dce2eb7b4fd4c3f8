//! Where a job stands: one of a few stages, from what was read.

use super::deadline::{millis, time};
use super::dereference::{Seen, Tree};
use super::memory::Delivery;
use super::status::{FAILED_FOR_GOOD, proven};
use super::validate::{Invalid, Validated};
use super::waits::unfit;
use crate::api::ProvingJobStatus;
use crate::api::conditions::{job as condition, reason};
use arborist_core::engine::{Counts, JobState};
use arborist_core::profile::Profile;
use k8s_openapi::jiff::Timestamp;

/// A reason, and what it means for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Why {
    pub reason: &'static str,
    pub message: String,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// The spec can't be worked on.
    Refused(Why),
    /// The source is being fetched or made, and the tree submitted.
    Preparing(String),
    /// That failed and is tried again.
    Waiting(Why),
    /// That failed for good.
    Unusable(Why),
    /// The tree is in the engine's books.
    Proving(Proving),
    /// All proofs are made and the root's is being verified.
    Checking,
    /// The root is verified.
    Proven(Reporting),
    /// The deadline passed before.
    Late(String),
}

/// How the proving goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proving {
    /// Proofs are being made; what else is to be said.
    Running(String),
    /// No worker can take what is ready.
    Workers(String),
    /// It is not to go on.
    Suspended(String),
    /// Nothing goes on but proofs that failed too often.
    Quarantined(String),
}

/// How the result is handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reporting {
    /// The result is not written down yet.
    Unpublished(Why),
    /// It is, and nobody is to be told.
    NoTargets,
    /// Targets are being told.
    Sending(String),
    /// A target did not take the report; tried again.
    Failing(String),
    /// A target refused it for good, or the deadline passed before it took it.
    Refused(String),
    /// All targets have taken it.
    Delivered(String),
}

impl Stage {
    /// The stage of a job whose spec can't be worked on.
    pub(super) fn refused(invalid: Invalid) -> Self {
        Self::Refused(Why { reason: invalid.reason, message: invalid.message })
    }

    /// Whether the job is over: complete or failed, until somebody edits it.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Refused(why) => why.reason == reason::INVALID_SPEC,
            Self::Unusable(_) | Self::Late(_) => true,
            Self::Proven(reporting) => {
                matches!(reporting, Reporting::NoTargets | Reporting::Refused(_) | Reporting::Delivered(_))
            }
            Self::Preparing(_) | Self::Waiting(_) | Self::Proving(_) | Self::Checking => false,
        }
    }
}

/// Where a valid job stands.
pub(super) fn decide(
    job: &Validated,
    status: &ProvingJobStatus,
    seen: &Seen,
    profile: &Profile,
    now: Timestamp,
) -> Stage {
    let passed = job.deadline.is_some_and(|deadline| deadline <= now);
    let tree = seen.tree.as_ref();
    if proven(status) && !seen.known.report_lost {
        return Stage::Proven(reporting(job, seen, now));
    }
    if proven(status) || tree.is_some_and(|tree| in_time(tree, job.deadline)) {
        return Stage::Proven(publishing(job, seen, now));
    }
    if passed {
        return Stage::Late(lateness(status, seen));
    }
    match tree {
        Some(tree) if tree.view.state == JobState::Checking => Stage::Checking,
        Some(tree) => Stage::Proving(proving(job, seen, tree, profile)),
        None => not_submitted(job, seen),
    }
}

/// Whether the tree was proven before the job's own deadline: another job's may have been later.
fn in_time(tree: &Tree, deadline: Option<Timestamp>) -> bool {
    let ended = tree.view.ended.unwrap_or(0);
    tree.view.state == JobState::Complete && deadline.is_none_or(|deadline| ended <= millis(deadline))
}

fn lateness(status: &ProvingJobStatus, seen: &Seen) -> String {
    let said = status.conditions.iter().find(|c| c.type_ == condition::FAILED);
    match (&seen.tree, &seen.known.failure) {
        (Some(tree), _) => match &tree.view.state {
            JobState::Failed { why } => why.clone(),
            JobState::Complete => {
                format!("proven only at {}, after the deadline", time(tree.view.ended.unwrap_or(0)))
            }
            _ => {
                let sum = |of: fn(&Counts) -> u32| tree.view.counts.iter().map(of).sum::<u32>();
                let (done, total) = (sum(|c| c.done), sum(|c| c.total));
                format!("the deadline passed with {} of {total} proofs missing", total - done)
            }
        },
        // the books are kept for a while only: what was said then still holds
        (None, _) if said.is_some_and(|c| c.reason == reason::DEADLINE_EXCEEDED) => {
            said.map(|c| c.message.clone()).unwrap_or_default()
        }
        (None, Some(failure)) => {
            format!("the deadline passed before the block could be taken in: {}", failure.message)
        }
        (None, None) => "the deadline passed before the block was taken in".into(),
    }
}

fn not_submitted(job: &Validated, seen: &Seen) -> Stage {
    match seen.known.failure.as_ref().filter(|failure| failure.generation == job.generation) {
        Some(failure) => {
            let why = Why { reason: failure.reason, message: failure.message.clone() };
            // a try under way is no news: the reason stays until it succeeds
            if failure.next.is_some() { Stage::Waiting(why) } else { Stage::Unusable(why) }
        }
        None => {
            let waits = seen.known.waits.clone();
            Stage::Preparing(waits.unwrap_or_else(|| super::validate::what_is_fetched(&job.source)))
        }
    }
}

fn proving(job: &Validated, seen: &Seen, tree: &Tree, profile: &Profile) -> Proving {
    let counts = &tree.view.counts;
    let sum = |of: fn(&Counts) -> u32| counts.iter().map(of).sum::<u32>();
    let (running, ready, failed) = (sum(|c| c.running), sum(|c| c.ready), sum(|c| c.failed));
    // as the engine is told at this visit
    if job.suspended && seen.others.iter().all(|other| other.suspended) {
        return Proving::Suspended(format!(
            "spec.suspend is set: nothing new is started, {running} proofs still run"
        ));
    }
    let quarantined = (failed > 0).then(|| {
        let why = tree.quarantined.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!("{failed} proofs failed too often{why}; suspend and resume the job to have them tried again")
    });
    match (unfit(&job.namespace, counts, profile, &tree.workers), quarantined) {
        (_, Some(message)) if running == 0 && ready == 0 => Proving::Quarantined(message),
        (Some(unfit), _) if unfit.all => Proving::Workers(unfit.message),
        (Some(unfit), None) => Proving::Running(unfit.message),
        (_, Some(message)) => Proving::Running(message),
        (None, None) => Proving::Running(String::new()),
    }
}

fn publishing(job: &Validated, seen: &Seen, now: Timestamp) -> Reporting {
    let because = |reason, message: &str| Reporting::Unpublished(Why { reason, message: message.to_owned() });
    match &seen.evidence {
        // what is written down at this visit is what the status says after it
        Some(Ok(_)) => reporting(job, seen, now),
        Some(Err(problem)) => because(reason::STORE_UNAVAILABLE, problem),
        None if seen.known.report_lost => Reporting::Refused(
            "the report that was written down was deleted, and the tree is not in the operator's books any more".into(),
        ),
        None => because(reason::PENDING, "the result is being written down"),
    }
}

/// Whether a target will not be told any more: it refused, or the deadline passed after at least one attempt. While
/// a report is under way the deadline decides nothing: it may be taken at this moment.
pub(super) fn is_lost(delivery: &Delivery, job: &Validated, working: bool, now: Timestamp) -> bool {
    let passed = job.deadline.is_some_and(|deadline| deadline <= now);
    delivery.refused == Some(job.generation) || (passed && !working && delivery.attempts > 0)
}

fn reporting(job: &Validated, seen: &Seen, now: Timestamp) -> Reporting {
    if job.targets.is_empty() {
        return Reporting::NoTargets;
    }
    let of = |name: &str| seen.known.deliveries.get(name).cloned().unwrap_or_default();
    let all: Vec<_> = job.targets.iter().map(|target| (target.name.as_str(), of(&target.name))).collect();
    let names = |of: &[&(&str, Delivery)]| of.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let (told, open): (Vec<_>, Vec<_>) = all.iter().partition(|(_, d)| d.delivered_at.is_some());
    let (lost, open): (Vec<_>, Vec<_>) =
        open.into_iter().partition(|(_, d)| is_lost(d, job, seen.known.working, now));
    match (open.iter().find(|(_, d)| d.attempts > 0), lost.first()) {
        (Some((name, d)), _) => Reporting::Failing(format!("{name}: {}; it is tried again", d.answer)),
        (None, _) if !open.is_empty() => Reporting::Sending(format!("to {}", names(&open))),
        (None, Some((name, d))) if d.refused.is_some() => Reporting::Refused(format!("{name}: {}", d.answer)),
        (None, Some((name, d))) => Reporting::Refused(format!(
            "{name} had not taken the report when the deadline passed: {}",
            d.answer
        )),
        (None, None) => Reporting::Delivered(format!("taken by {}", names(&told))),
    }
}

/// Whether a job failed for a reason that only an edit can change, and was not edited since.
pub(super) fn is_settled(status: &ProvingJobStatus, generation: i64) -> bool {
    status.conditions.iter().any(|c| {
        c.type_ == condition::FAILED
            && c.status == crate::api::conditions::Status::True
            && c.observed_generation == generation
            && FAILED_FOR_GOOD.contains(&c.reason.as_str())
    })
}
