//! What makes proofs, as the worker drives it: a backend with limits, measured.

pub mod fake;
pub mod plonky2;
pub mod process;

use arborist_core::backend::{Cancel, Proof, ProveError, ProveRequest, VerifyError};
use arborist_core::circuit::Circuit;
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::system::ProofSystem;
use std::time::Duration;

/// One proof to make, with the lease's terms.
#[derive(Debug, Clone)]
pub struct Job {
    /// The proof.
    pub request: ProveRequest,
    /// The task it is for.
    pub task: TaskId,
    /// The lease's fence: differs from attempt to attempt.
    pub fence: u64,
    /// Seed of the fake backend.
    pub seed: u64,
    /// Memory the proof may use, in MiB; 0 is without limit.
    pub memory_mib: u32,
    /// How long it may run from now on; `None` is without limit.
    pub limit: Option<Duration>,
}

/// What a proof took. A figure that is not known is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads or processes, in milliseconds.
    pub cpu_millis: u32,
    /// Peak resident memory in MiB.
    pub peak_mib: u32,
}

/// A proof as the backend handed it over: not to be trusted until [`Prover::verify`] says so.
#[derive(Debug, Clone)]
pub struct Made {
    /// The proof.
    pub proof: Proof,
    /// What it took.
    pub usage: Usage,
}

/// What came of checking a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The proof is bad; whoever made it is at fault.
    #[error(transparent)]
    Bad(#[from] VerifyError),
    /// Whether it is good could not be found out; its maker is not at fault.
    #[error("the proof could not be checked: {0}")]
    Unable(String),
}

/// A backend as the worker drives it. Calls block and are made on threads of their own.
pub trait Prover: Send + Sync {
    /// The backend's name, as in `--backend`.
    fn name(&self) -> &'static str;

    /// The circuits it can prove, e.g. `mini-rollup-v1`.
    fn circuits(&self) -> &str;

    /// What a plug-in's proofs are bound to: see [`arborist_core::system::plugin_keys`]. `None` where the circuits' name says
    /// it all.
    fn keys(&self) -> Option<ArtifactHash> {
        None
    }

    /// What its proofs are proofs of: those of another system never stand for them.
    fn system(&self) -> ProofSystem {
        ProofSystem {
            backend: self.name().to_owned(),
            circuits: self.circuits().to_owned(),
            keys: self.keys(),
        }
    }

    /// The most bytes a proof may have.
    fn max_proof_bytes(&self) -> usize;

    /// Makes a proof.
    ///
    /// # Errors
    /// Why it was not made; [`ProveError::Cancelled`] when asked to stop, also by the limit.
    fn prove(&self, job: &Job) -> Result<Made, ProveError>;

    /// Checks a proof against its circuit's verification key and its own public inputs.
    ///
    /// # Errors
    /// That it is bad, or that this can't be said.
    fn verify(&self, circuit: Circuit, proof: &Proof, cancel: &Cancel) -> Result<(), CheckError>;
}
