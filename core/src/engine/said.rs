//! What workers say of leases, and what the operator finds of proofs.

use super::{Fence, Millis};
use crate::ids::TaskId;
use serde::{Deserialize, Serialize};

/// Says that a lease was given to one worker on one machine: made by the engine for each lease, sent back at a login,
/// and the same for every engine with that [`Config::lease_key`](super::Config::lease_key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mac(pub [u8; 16]);

/// A lease that a worker says it holds, at login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The task.
    pub task: TaskId,
    /// The fence it was leased under.
    pub fence: Fence,
    /// How long it has been running; `None` if not started.
    pub running: Option<Millis>,
    /// As it came with the lease: without it nothing is adopted.
    pub mac: Mac,
}

/// A finished proof as its worker reports it. The proof lies in the store already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The task.
    pub task: TaskId,
    /// The fence it was leased under.
    pub fence: Fence,
    /// Wall time of the proof.
    pub millis: u32,
    /// CPU time of the proof, all threads.
    pub cpu_millis: u32,
    /// Peak memory of the proof; 0 if not known.
    pub peak_mib: u32,
    /// Size of the proof.
    pub proof_bytes: u32,
    /// The proof was in the store already: nothing was proven, so nothing is learned from it.
    pub found: bool,
}

/// Why a lease ended without a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// The backend failed.
    Error,
    /// Out of memory: asks for the next larger class of machine when two machines say so.
    OutOfMemory,
    /// Ran longer than it may.
    TimedOut,
    /// A child's proof is bad. With the task's own id: what lies at its key in the store is no proof of it.
    /// Nothing comes of it before it is checked: see [`Command::CheckProof`](super::Command::CheckProof).
    BadChild(TaskId),
    /// A child's proof is not in the store. Checked as [`Reason::BadChild`].
    MissingChild(TaskId),
    /// An input is bad: final when two machines say so.
    BadInput,
    /// The proof did not verify.
    BadProof,
    /// The proof is larger than allowed.
    Oversize,
    /// The artifact store did not answer: charged to nobody; another machine is tried first.
    StoreUnavailable,
    /// Given back: the worker leaves. Charged to nobody.
    HandedBack,
}

/// What the operator found of a proof that it was asked to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is in the store and valid.
    Valid(KnownProof),
    /// It is in the store; whether it is valid can't be said here.
    Present(KnownProof),
    /// Something lies at its key; that was all that was asked.
    Exists,
    /// What lies at its key is no valid proof of the task.
    Bad(String),
    /// Nothing lies at its key.
    Missing,
    /// The store did not answer.
    Unknown(String),
}

/// How closely a proof is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Whether something lies at its key.
    Presence,
    /// Whether it is valid, as far as that can be said.
    Proof,
}

/// A proof found in the artifact store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownProof {
    /// The task.
    pub task: TaskId,
    /// Who made it.
    pub worker: String,
    /// Wall time of the proof.
    pub millis: u32,
    /// CPU time of the proof.
    pub cpu_millis: u32,
    /// Size of the proof.
    pub proof_bytes: u32,
}
