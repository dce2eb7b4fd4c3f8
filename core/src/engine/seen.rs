//! What can be seen of the engine: jobs, tasks, workers, reports.

use super::api::{JobId, JobSpec, JobState, Millis, Session};
use super::codec::BadBytes;
use crate::backend::PublicInputs;
use crate::circuit::{Circuit, KindSet};
use crate::ids::TaskId;
use crate::profile::Needs;
use serde::{Deserialize, Serialize};

/// Counts of a kind of task in a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// All.
    pub total: u32,
    /// Proven.
    pub done: u32,
    /// Leased.
    pub running: u32,
    /// Could start now.
    pub ready: u32,
    /// Quarantined.
    pub failed: u32,
}

/// What can be seen of a job at any time, in O(1).
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// The request as it stands.
    pub spec: JobSpec,
    /// Its state.
    pub state: JobState,
    /// By [`Kind::index`](crate::circuit::Kind::index).
    pub counts: [Counts; 5],
    /// When it was submitted.
    pub submitted: Millis,
    /// When it ended.
    pub ended: Option<Millis>,
    /// Order it follows: index into [`crate::order::POLICIES`].
    pub policy: usize,
}

/// One row of a job's report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct KindReport {
    /// vm, kernel, base, merge, root.
    pub kind: String,
    /// Tasks.
    pub count: u32,
    /// Of these: found in the store and not proven for this job.
    pub reused: u32,
    /// Mean wall time of those proven, seconds.
    pub mean_seconds: f64,
    /// 95th percentile of it.
    pub p95_seconds: f64,
    /// CPU seconds in all.
    pub cpu_seconds: f64,
    /// Bytes in all.
    pub bytes: u64,
    /// Attempts that failed and were charged.
    pub retries: u32,
}

/// Who proved how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The worker.
    pub worker: String,
    /// Proofs by [`Kind::index`](crate::circuit::Kind::index).
    pub proofs: [u32; 5],
    /// Wall time of them in milliseconds.
    pub millis: u64,
}

/// One step of the path that decided when the job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStep {
    /// The circuit.
    pub circuit: String,
    /// The task.
    pub task: TaskId,
    /// Who proved it.
    pub worker: String,
    /// Waited between its children's end and its start, milliseconds.
    pub waited_millis: u64,
    /// Wall time of the proof, milliseconds.
    pub millis: u64,
}

/// Everything worth keeping of a finished job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// By kind.
    pub kinds: Vec<KindReport>,
    /// From submit to end, seconds.
    pub makespan_seconds: f64,
    /// Who proved what, most proofs first.
    pub shares: Vec<Share>,
    /// From a leaf to the root.
    pub critical_path: Vec<PathStep>,
}

/// A node's proof and statement as children of a task see it; filled in by the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildRef {
    /// Its task.
    pub task: TaskId,
    /// Its circuit.
    pub circuit: Circuit,
    /// What it has to state; empty without statements.
    pub public_inputs: PublicInputs,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Not all of its children are done.
    Waiting,
    /// Could start now.
    Ready,
    /// Failed and waits a little before it is tried again.
    Delayed,
    /// A worker has it.
    Leased,
    /// Proven.
    Done,
    /// Quarantined: nobody is asked until its job is revived.
    Failed,
}

/// Why a task is not being proven right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// For so many children.
    Children(u8),
    /// Until then: its last attempt failed.
    Backoff(Millis),
    /// Its job is suspended.
    Suspended,
    /// Its job has ended.
    JobEnded,
    /// Its job's proofs are made by another proof system than this engine's.
    OtherSystem(String),
    /// No connected worker is large enough and takes its kind.
    NoFittingWorker(Needs),
    /// All workers that fit are busy.
    Busy(Needs),
    /// Workers that fit are only on machines where it failed before, so many, or are busy.
    AvoidsNodes(u32),
    /// A worker has it, but has not started it yet.
    Queued,
    /// Quarantined: attempts charged and the last failure.
    Quarantined(u32, String),
}

/// What can be seen of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// Its state.
    pub state: TaskState,
    /// Attempts charged since it was last renewed.
    pub attempts: u32,
    /// Why it is not being proven; `None` when it runs or is done.
    pub waits: Option<Waits>,
    /// Who has it (a backup copy included) or, when done, who made it if that is known.
    pub workers: Vec<String>,
    /// Wall time of the proof once done.
    pub millis: Option<u32>,
}

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Takes leases.
    Live,
    /// Takes nothing new.
    Draining,
    /// Connected, but silent or unreachable: takes nothing new until it is heard.
    Silent,
    /// Not connected; its leases wait for it until they expire.
    Disconnected,
    /// Failed too often in a row: takes nothing new for some seconds.
    Resting,
    /// Made too many bad proofs: takes nothing new.
    Barred,
}

/// What can be seen of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its session.
    pub session: Session,
    /// Its name.
    pub name: String,
    /// The machine it runs on.
    pub node: String,
    /// What it has in all.
    pub capacity: Needs,
    /// Leases that count as running.
    pub running: u32,
    /// Leases queued at it.
    pub prefetched: u32,
    /// Its state.
    pub state: WorkerState,
}

/// As much of a worker as is needed to decide whether it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerBrief {
    /// Its name.
    pub name: String,
    /// The machine it runs on.
    pub node: String,
    /// What it has in all.
    pub capacity: Needs,
    /// Its state; a worker that is [`WorkerState::Live`] is busy while it holds leases, else idle.
    pub state: WorkerState,
    /// Leases it holds, queued ones included.
    pub leases: u32,
    /// Since when it holds none: since its last lease ended, or it logged in.
    pub idle_since: Option<Millis>,
}

/// Workers of one capacity that take the same kinds of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassView {
    /// What each has.
    pub capacity: Needs,
    /// Kinds that each takes.
    pub kinds: KindSet,
    /// How many take leases.
    pub workers: u32,
    /// Of these: without any lease.
    pub idle: u32,
    /// Free cores of all of them.
    pub free_cores: u64,
    /// Free memory of all of them.
    pub free_memory_mib: u64,
}

/// Why the engine's state could not be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The snapshot is cut off or not one.
    #[error("snapshot: {0}")]
    Snapshot(#[from] BadBytes),
    /// A record is cut off or not one.
    #[error("record {index} of the journal: {reason}")]
    Record {
        /// Its place among the records given.
        index: usize,
        /// What is wrong with it.
        reason: BadBytes,
    },
    /// A job's tree can't be built now.
    #[error("job {name} ({}): {reason}", id.0)]
    Job {
        /// The job.
        id: JobId,
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// Why what a job's tree is built from can't be had after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// For good: the job is left out of the books.
    Lost(String),
    /// It may be there: nothing is restored until that is known.
    NotNow(String),
}
