//! What goes into the engine and what comes out.

use super::{Depth, Done, Finding, Held, KnownProof, Mac, PreparedJob, Reason, WorkerSpec};
use crate::circuit::{Circuit, Kind};
use crate::ids::{ArtifactHash, TaskId};
use crate::profile::Needs;
use crate::system::ProofSystem;
use crate::tree::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Milliseconds since 1970 in production, since anything else in a simulation. Always passed in.
pub type Millis = u64;

/// A job, numbered by the shell; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u32);

/// One login of a worker, numbered by the shell; a worker that comes back is another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

/// A lease's fencing token: grows with every lease, across restarts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence(pub u64);

/// Where a job's tree comes from; enough to build it again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A block file in the artifact store, under the hash of its bytes.
    Block(ArtifactHash),
    /// A block made up from a seed.
    Synthetic {
        /// Number of public calls of each transaction.
        calls: Vec<u8>,
        /// Blocks of one seed share their tasks.
        seed: u64,
    },
}

/// What a user asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Number of the job.
    pub id: JobId,
    /// Its name, for people.
    pub name: String,
    /// The tenant whose job it is: only workers that serve it prove its tasks. Empty where there are no tenants.
    pub namespace: String,
    /// Its tree.
    pub source: Source,
    /// Chain.
    pub chain_id: u64,
    /// Block number.
    pub block_number: u64,
    /// Who is to be paid: 32 bytes that the root proof states.
    pub prover_id: [u8; 32],
    /// When it has to be proven; after that the job fails. Without one it never does.
    pub deadline: Option<Millis>,
    /// Higher goes first among jobs whose deadlines allow it.
    pub priority: i32,
    /// Nothing new is leased while set; what runs goes on.
    pub suspended: bool,
}

/// Why a worker is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Its connection closed: its leases are kept until they expire, it may come back.
    Disconnected,
    /// Its machine or process is known to be dead: its leases return at once.
    Dead,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A new job. The same again is ignored: submit is idempotent. Another of a number that is taken is not entered
    /// either, and [`Notice::NumberTaken`] says so; [`Engine::next_job`](super::Engine::next_job) is free.
    Submit(Box<PreparedJob>),
    /// The order to follow from now on, chosen by simulation.
    Order {
        /// The job.
        job: JobId,
        /// Index into [`crate::order::POLICIES`].
        policy: usize,
    },
    /// Stop working on a job; its proofs stay. A cancelled job can be revived.
    Cancel(JobId),
    /// Take a cancelled or failed job up again with new retries; no worker is suspected any more.
    Revive(JobId),
    /// As [`Event::Revive`], of a job whose tree was dropped ([`Command::TreeDropped`]): with the tree, built anew
    /// from its request. All its tasks are open; what lies in the store is told by [`Event::Known`].
    ReviveWith(Box<PreparedJob>),
    /// Drop a finished, failed or cancelled job from the books.
    Forget(JobId),
    /// Suspend or resume.
    Suspend(JobId, bool),
    /// Move the deadline.
    Deadline(JobId, Option<Millis>),
    /// Change the priority.
    Priority(JobId, i32),
    /// The wall clock shows this, in milliseconds since 1970: it is not the clock that is handed in with each event, or
    /// was set.
    Wall(Millis),
    /// Weights of namespaces from now on; one that is not named weighs 1.
    Shares(BTreeMap<String, u32>),
    /// Proofs of these tasks were found in the artifact store: they are done.
    Known(Vec<KnownProof>),
    /// A worker logged in. A session of the same name ends; leases it still holds are adopted.
    Joined {
        /// The new session.
        session: Session,
        /// The worker.
        worker: WorkerSpec,
        /// What it holds from before.
        held: Vec<Held>,
    },
    /// A worker that leaves logged in: as [`Event::Joined`], and [`Event::Draining`] in the same step, so that
    /// nothing is given to it in between.
    JoinedToLeave {
        /// The new session.
        session: Session,
        /// The worker.
        worker: WorkerSpec,
        /// What it holds from before.
        held: Vec<Held>,
    },
    /// A worker is gone.
    Left(Session, Gone),
    /// The kernel killed a worker's process because its memory was used up: what it ran when its session
    /// ended, a short while ago or shortly after this, is charged as [`Reason::OutOfMemory`].
    OutOfMemory {
        /// The worker's name.
        worker: String,
        /// Names this death: told twice it counts once.
        incident: String,
    },
    /// A worker says that it takes nothing new.
    Draining(Session),
    /// A worker is to get nothing new, until it logs in anew: what it runs goes on, what is queued
    /// at it goes elsewhere.
    Drain(Session),
    /// A worker is alive and holds these leases; one that it does not name and that was delivered
    /// a heartbeat ago is lost.
    Heartbeat(Session, Vec<Fence>),
    /// A proof is done.
    Completed(Session, Done),
    /// A lease ended without a proof.
    Failed {
        /// Who says so.
        session: Session,
        /// The task.
        task: TaskId,
        /// The fence it was leased under.
        fence: Fence,
        /// Why.
        reason: Reason,
        /// For people.
        text: String,
    },
    /// An assignment could not be sent: it returns at once, charged to nobody.
    Undelivered(Session, Fence),
    /// The root proof was checked by the operator; `Err` says why it is bad.
    RootChecked(JobId, Result<(), String>),
    /// The operator looked at a proof, as [`Command::CheckProof`] asked.
    ProofChecked {
        /// The task.
        task: TaskId,
        /// What it found.
        finding: Finding,
    },
    /// Time passed.
    Tick,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Send a lease to a worker.
    Assign(Session, Assignment),
    /// Tell a worker to stop and drop a lease.
    Revoke(Session, Fence),
    /// Append to the journal.
    Persist(Record),
    /// Append to the journal as well: who made a proof whose task was done before. Not one more result.
    Amend(Record),
    /// A proof in the store is bad: move it aside with its maker's name.
    Quarantine {
        /// The task whose proof it is.
        task: TaskId,
        /// Who made it, if known.
        worker: Option<String>,
        /// What is wrong with it.
        text: String,
    },
    /// All proofs are made; check the root's and answer with [`Event::RootChecked`].
    CheckRoot(JobId),
    /// Look at a proof in the store and answer with [`Event::ProofChecked`], within 10 s: without an answer it counts as
    /// one that can't be checked. At most 64 are asked for at once, and no task twice.
    CheckProof {
        /// A job that has the task.
        job: JobId,
        /// Its node there.
        node: NodeId,
        /// The task.
        task: TaskId,
        /// How closely.
        depth: Depth,
    },
    /// A job came to an end.
    JobEnded(JobId, JobState),
    /// A job that is over has no tree any more: its request, counts and report stay.
    TreeDropped {
        /// The job.
        job: JobId,
        /// How many tasks its tree had.
        tasks: u32,
    },
    /// For logs and events.
    Notice(Notice),
}

/// A lease as it goes out; the shell adds inputs and statements from the job's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The job it is done for.
    pub job: JobId,
    /// The node of its tree.
    pub node: NodeId,
    /// Its id.
    pub task: TaskId,
    /// Fencing token.
    pub fence: Fence,
    /// The circuit.
    pub circuit: Circuit,
    /// What it may use.
    pub needs: Needs,
    /// Longest it may run.
    pub limit: Millis,
    /// Shown again when the worker comes back with the lease.
    pub mac: Mac,
}

/// What the journal keeps. Encoded by [`Record::encode`]; a few bytes a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "records are encoded where they arise, and few are of jobs")]
pub enum Record {
    /// A job was submitted, its proofs to be made by this system.
    Submitted(JobSpec, ProofSystem, Millis),
    /// A proof is done.
    Done {
        /// Job and node of one place the task stands at; shared tasks are found by id.
        job: JobId,
        /// The node's number.
        node: u32,
        /// Who made it: a number of [`Record::Maker`], or [`Record::NOBODY`] while that is not known.
        maker: u32,
        /// Wall time.
        millis: u32,
        /// CPU time.
        cpu_millis: u32,
        /// Size.
        proof_bytes: u32,
        /// It was in the store already.
        found: bool,
        /// When.
        at: Millis,
    },
    /// A worker's name got this number, or its node or cores are others now.
    Maker {
        /// Its number.
        number: u32,
        /// Its name.
        name: String,
        /// The machine it runs on.
        node: String,
        /// Cores of its class, for learned durations; 0 if not known.
        cores: u16,
    },
    /// An attempt failed and was charged.
    Charged {
        /// Job.
        job: JobId,
        /// Node.
        node: u32,
        /// Why.
        reason: Reason,
        /// Attempts charged for this reason by now.
        attempts: u8,
        /// Who failed: number of its [`Record::Maker`].
        worker: Option<u32>,
        /// Its last fence; 0 if that is not known.
        fence: Fence,
    },
    /// A proof that had been counted was found bad: the task is open again.
    Reopened {
        /// Job.
        job: JobId,
        /// Node.
        node: u32,
        /// Attempts charged to the task as bad proofs by now.
        attempts: u8,
        /// Who made it, if known: number of its [`Record::Maker`].
        maker: Option<u32>,
        /// How often that worker has been suspected by now.
        suspected: u8,
        /// When: proofs made later are not meant.
        at: Millis,
    },
    /// Suspended, deadline and priority as they are now.
    Changed {
        /// Job.
        job: JobId,
        /// Suspended.
        suspended: bool,
        /// Deadline.
        deadline: Option<Millis>,
        /// Priority.
        priority: i32,
    },
    /// A job's state changed.
    State(JobId, JobState, Millis),
    /// A job was dropped from the books.
    Forgotten(JobId),
    /// Fences below this one have been given out.
    FencesTo(Fence),
    /// From this time of the engine's on the wall clock is ahead of it by so many milliseconds.
    Clock {
        /// The engine's time.
        from: Millis,
        /// The wall clock's time less the engine's.
        ahead: i64,
    },
    /// A task is tried no more until its job is revived.
    GivenUp {
        /// Job.
        job: JobId,
        /// Node.
        node: u32,
    },
    /// How often a worker was found to say what is not so, or to make bad proofs, by now.
    Suspected {
        /// Number of its [`Record::Maker`].
        maker: u32,
        /// How often.
        times: u8,
    },
}

impl Record {
    /// The maker of a proof that a worker found in the store; an [`Event::Known`] names it.
    pub const NOBODY: u32 = u32::MAX;
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Being proven (or suspended, or waiting for workers).
    Proving,
    /// All proofs made, the root's being checked.
    Checking,
    /// Proven and checked.
    Complete,
    /// Its deadline passed.
    Failed {
        /// What was missing.
        why: String,
    },
    /// Cancelled by its user; revivable.
    Cancelled,
}

/// Things worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A task gave up for now: nobody is asked again until its job is revived.
    Quarantined {
        /// The task.
        task: TaskId,
        /// Its circuit.
        circuit: Circuit,
        /// Its job.
        job: JobId,
        /// Attempts charged.
        attempts: u32,
        /// The last failure.
        why: String,
    },
    /// A lease was lost: expired, or its worker is dead.
    LeaseLost {
        /// The task.
        task: TaskId,
        /// Who had it.
        worker: String,
        /// Expired, dead, forgotten by its worker.
        why: &'static str,
    },
    /// A second copy of a slow task was started.
    Backup {
        /// The task.
        task: TaskId,
        /// Who is slow.
        slow: String,
        /// Who runs the copy.
        copy: String,
    },
    /// A result came for a lease that is not the worker's, or not any more. Counted if the task was open and
    /// its proof is in the store.
    LateResult {
        /// The task.
        task: TaskId,
        /// Who.
        worker: String,
        /// The task was open: it is done now.
        counted: bool,
    },
    /// A worker made a bad proof, or said what was found not to be so.
    Suspected {
        /// Who.
        worker: String,
        /// How often by now.
        times: u32,
    },
    /// Ready tasks of a namespace fit no worker that is connected, serves it and takes their kind.
    NoFittingWorker {
        /// Whose tasks they are; empty where there are no tenants.
        namespace: String,
        /// Kind of the tasks.
        kind: Kind,
        /// What one needs.
        needs: Needs,
        /// How many are ready.
        ready: u32,
    },
    /// The job can't make its deadline at its present speed, or can again.
    AtRisk(JobId, bool),
    /// A job was not entered, as another has its number.
    NumberTaken {
        /// The number.
        job: JobId,
        /// Name of the job that was not entered.
        name: String,
    },
    /// A restart left a job out of the books: what its tree was built from is lost.
    LeftOut {
        /// The number that it had.
        job: JobId,
        /// Its name.
        name: String,
        /// What is lost.
        why: String,
    },
}
