//! Conditions and their reasons. A condition keeps its transition time until its status flips.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest message written, in bytes: the whole status stays below 2 kB.
pub const MAX_MESSAGE: usize = 200;
/// The longest of one that has much to quote, of which there is at most one in a status.
pub const MAX_LONG_MESSAGE: usize = 420;

/// Types of a [`super::ProvingJob`]'s conditions.
pub mod job {
    /// The spec is valid, the source was fetched and checked, and the tree is in the engine's books.
    pub const ACCEPTED: &str = "Accepted";
    /// Proofs are being made, or could be if there were workers.
    pub const PROVING: &str = "Proving";
    /// At its present speed the job misses its deadline.
    pub const AT_RISK: &str = "AtRisk";
    /// All proofs are made and the root proof is verified.
    pub const PROVEN: &str = "Proven";
    /// Every report target has taken the result.
    pub const REPORTED: &str = "Reported";
    /// Proven, and reported if anybody was to be told. What `kubectl wait` is for.
    pub const COMPLETE: &str = "Complete";
    /// The job can't be proven any more.
    pub const FAILED: &str = "Failed";
    /// All of them, in the order shown.
    pub const ALL: [&str; 7] = [ACCEPTED, PROVING, AT_RISK, PROVEN, REPORTED, COMPLETE, FAILED];
}

/// Types of a [`super::ProverPool`]'s conditions.
pub mod pool {
    /// The pool's pods can be made and do work, or there is nothing to do.
    pub const READY: &str = "Ready";
    /// Pods are being added or removed.
    pub const SCALING: &str = "Scaling";
    /// There is work for this pool that no pod of any pool can take at present.
    pub const STARVED: &str = "Starved";
    /// The pool has fewer pods than wanted: a limit, or pods that can't be scheduled.
    pub const CAPACITY_LIMITED: &str = "CapacityLimited";
    /// All of them, in the order shown.
    pub const ALL: [&str; 4] = [READY, SCALING, STARVED, CAPACITY_LIMITED];
}

/// Reasons: CamelCase, the same words in conditions and events. docs/operate.md says what to do about each.
pub mod reason {
    // jobs
    /// Nothing is known yet.
    pub const PENDING: &str = "Pending";
    /// The spec breaks a rule that the API server can't check.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The source can't be fetched now; it is tried again.
    pub const SOURCE_UNAVAILABLE: &str = "SourceUnavailable";
    /// The source's bytes have another SHA-256 than the spec says.
    pub const SOURCE_HASH_MISMATCH: &str = "SourceHashMismatch";
    /// The source is no valid block file.
    pub const BAD_BLOCK: &str = "BadBlock";
    /// The circuit profile is not the one this operator serves.
    pub const UNKNOWN_PROFILE: &str = "UnknownProfile";
    /// The artifact store does not answer; it is tried again.
    pub const STORE_UNAVAILABLE: &str = "StoreUnavailable";
    /// Its namespace has as many open jobs, or tasks of such, as it may have; it waits for one to be over.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// The tree is in the engine's books.
    pub const SUBMITTED: &str = "Submitted";
    /// Proofs are being made.
    pub const RUNNING: &str = "Running";
    /// Work is ready, and no worker is connected that can take it.
    pub const WAITING_FOR_WORKERS: &str = "WaitingForWorkers";
    /// `spec.suspend` is set.
    pub const SUSPENDED: &str = "Suspended";
    /// The root proof is being verified.
    pub const CHECKING_ROOT: &str = "CheckingRoot";
    /// There is no deadline to miss.
    pub const NO_DEADLINE: &str = "NoDeadline";
    /// The estimated completion is before the deadline.
    pub const ON_TIME: &str = "OnTime";
    /// The estimated completion is after the deadline.
    pub const LATE: &str = "Late";
    /// Some task failed too often and waits for the job to be changed or resumed.
    pub const TASKS_QUARANTINED: &str = "TasksQuarantined";
    /// The root proof is verified.
    pub const ROOT_VERIFIED: &str = "RootVerified";
    /// Nobody is to be told.
    pub const NO_TARGETS: &str = "NoTargets";
    /// A report is being sent.
    pub const SENDING: &str = "Sending";
    /// A target did not take the report; it is tried again until the deadline.
    pub const REPORT_FAILED: &str = "ReportFailed";
    /// A target refused the report for good, or the deadline passed before it took it.
    pub const REPORT_REFUSED: &str = "ReportRefused";
    /// All targets have taken the report.
    pub const DELIVERED: &str = "Delivered";
    /// All is done.
    pub const DONE: &str = "Done";
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

    // pools
    /// Everything is as wanted.
    pub const AS_WANTED: &str = "AsWanted";
    /// Nothing to prove: the pool is scaled down.
    pub const NO_WORK: &str = "NoWork";
    /// Pods are being added.
    pub const SCALING_UP: &str = "ScalingUp";
    /// Pods are being removed.
    pub const SCALING_DOWN: &str = "ScalingDown";
    /// Pods start.
    pub const STARTING: &str = "Starting";
    /// Pods can't be scheduled: no node has room or the right labels.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// The worker's image can't be pulled.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// Workers crash again and again.
    pub const CRASH_LOOP: &str = "CrashLoop";
    /// Workers were killed for using more memory than they have.
    pub const OUT_OF_MEMORY: &str = "OutOfMemory";
    /// The worker's container can't be made: a Secret or ConfigMap that the pod names is not there.
    pub const CONTAINER_CONFIG_ERROR: &str = "ContainerConfigError";
    /// Workers run and don't log in.
    pub const NOT_LOGGED_IN: &str = "NotLoggedIn";
    /// The API server refuses to make pods: quota, admission, or rights.
    pub const POD_CREATION_FAILED: &str = "PodCreationFailed";
    /// Nodes refuse pods: their kubelets fail them before the worker runs.
    pub const POD_REJECTED: &str = "PodRejected";
    /// More pods are wanted than `spec.scaling.max` or the budget allows.
    pub const AT_MAXIMUM: &str = "AtMaximum";
    /// No pool's pods are large enough, or take such circuits.
    pub const NO_FITTING_POOL: &str = "NoFittingPool";
    /// All fitting pools are at their limits or can't be scheduled.
    pub const ALL_POOLS_LIMITED: &str = "AllPoolsLimited";
    /// The pool has what it wants.
    pub const ENOUGH_CAPACITY: &str = "EnoughCapacity";
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Status {
    /// It does.
    True,
    /// It does not.
    False,
    /// Not known yet.
    Unknown,
}

/// One condition, as Kubernetes has them, with bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition, CamelCase.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Z][A-Za-z]*$"))]
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether it holds: `True`, `False`, or `Unknown`.
    pub status: Status,
    /// Why, in one CamelCase word: docs/operate.md lists them all.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Z][A-Za-z]*$"))]
    pub reason: String,
    /// Why, for people: what waits for what, and what to do.
    #[schemars(length(max = 1024))]
    #[serde(default)]
    pub message: String,
    /// The generation of the spec that this is about.
    #[schemars(range(min = 0))]
    #[serde(default)]
    pub observed_generation: i64,
    /// When the status last flipped.
    pub last_transition_time: Time,
}

/// What a condition is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The condition's type.
    pub type_: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// One of [`reason`].
    pub reason: &'static str,
    /// For people; cut at `room` bytes.
    pub message: String,
    /// [`MAX_MESSAGE`], for most.
    pub room: usize,
}

impl Finding {
    /// A finding.
    pub fn new(
        type_: &'static str,
        status: Status,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { type_, status, reason, message: message.into(), room: MAX_MESSAGE }
    }
}

/// The conditions after `findings`: one for each type of `all`, in that order. A type without a finding keeps
/// what it says, or is Unknown. The transition time moves only when the status flips.
pub fn merge(
    old: &[Condition],
    all: &[&'static str],
    findings: &[Finding],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let of = |type_: &str| old.iter().find(|c| c.type_ == type_);
    let whole_second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    all.iter()
        .map(|type_| {
            let before = of(type_);
            let Some(finding) = findings.iter().find(|f| f.type_ == *type_) else {
                return before.cloned().unwrap_or_else(|| Condition {
                    type_: (*type_).to_owned(),
                    status: Status::Unknown,
                    reason: reason::PENDING.to_owned(),
                    message: String::new(),
                    observed_generation: generation,
                    last_transition_time: Time(whole_second),
                });
            };
            let same = before.filter(|c| c.status == finding.status);
            Condition {
                type_: (*type_).to_owned(),
                status: finding.status,
                reason: finding.reason.to_owned(),
                message: cut(&finding.message, finding.room),
                observed_generation: generation,
                last_transition_time: same.map_or(Time(whole_second), |c| c.last_transition_time.clone()),
            }
        })
        .collect()
}

/// Whether a condition of this type is True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == Status::True)
}

/// At most `max` bytes of a text, cut between characters, with an ellipsis when something is missing.
pub fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn every_type_is_there_from_the_first_visit_in_order() {
        let found = merge(&[], &job::ALL, &[], 3, at(10));
        assert_eq!(found.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), job::ALL);
        assert!(found.iter().all(|c| c.status == Status::Unknown && c.observed_generation == 3));
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let finding = |status, reason| Finding::new(job::PROVING, status, reason, "m");
        let first = merge(&[], &[job::PROVING], &[finding(Status::True, reason::RUNNING)], 1, at(10));
        let same =
            merge(&first, &[job::PROVING], &[finding(Status::True, reason::WAITING_FOR_WORKERS)], 2, at(20));
        assert_eq!(same[0].last_transition_time.0, at(10));
        assert_eq!((same[0].reason.as_str(), same[0].observed_generation), (reason::WAITING_FOR_WORKERS, 2));
        let flipped = merge(&same, &[job::PROVING], &[finding(Status::False, reason::SUSPENDED)], 2, at(30));
        assert_eq!(flipped[0].last_transition_time.0, at(30));
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        let long = "ö".repeat(300);
        let found = cut(&long, MAX_MESSAGE);
        assert!(found.len() <= MAX_MESSAGE && found.ends_with('…'), "{}", found.len());
    }
}
