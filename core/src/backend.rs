//! What makes proofs, seen from outside: a request, a result, and the ways it can fail.
//!
//! Implementations: `plonky2` in `arborist-circuits`; `process` and `fake` in `arborist-worker`.

use crate::circuit::Circuit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Public inputs: elements of the backend's field as integers, at most 2^64 − 1 each.
/// What stands at which place is the profile's: see `arborist-circuits`' `statement`.
pub type PublicInputs = Vec<u64>;

/// A proof with what is needed to check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The backend's own encoding, public inputs not included.
    pub bytes: Vec<u8>,
    /// What the proof states.
    pub public_inputs: PublicInputs,
    /// BLAKE3 of the verification key the proof claims to be made for.
    pub vk_hash: [u8; 32],
}

/// One proof to make.
#[derive(Debug, Clone)]
pub struct ProveRequest {
    /// The circuit.
    pub circuit: Circuit,
    /// What the result has to state. Empty where the job has no statements (synthetic blocks).
    pub public_inputs: PublicInputs,
    /// Inputs that are no proofs of this tree, in the circuit's order: `vm` takes the call's JSON,
    /// `kernel/1` and a `base` without calls take the sender's private proof; others none.
    pub inputs: Vec<Vec<u8>>,
    /// Child proofs in the circuit's order: `kernel/K` takes \[kernel/K−1 if K > 1, vm\], `base` the
    /// last kernel if there is one, `merge` and `root` \[left, right\] (`root/0`: the base).
    pub children: Vec<Child>,
    /// How many threads the proof may use.
    pub threads: usize,
    /// Set when the lease is revoked or the worker stops; a long computation looks at it.
    pub cancel: Cancel,
}

/// A child proof and the circuit that made it.
#[derive(Debug, Clone)]
pub struct Child {
    /// Which circuit's verification key it has to satisfy.
    pub circuit: Circuit,
    /// The proof.
    pub proof: Proof,
}

/// A flag that asks a running proof to stop.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks to stop; can't be taken back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the proof should stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a proof was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProveError {
    /// Child number `index` is bad: its maker, not this worker, is at fault.
    #[error("child {index} ({circuit}) is refused: {reason}")]
    BadChild {
        /// Its place in [`ProveRequest::children`].
        index: usize,
        /// Its circuit.
        circuit: Circuit,
        /// What was wrong with it.
        reason: String,
    },
    /// An input (call, private proof) is bad; no worker could prove it.
    #[error("input {index} is refused: {reason}")]
    BadInput {
        /// Its place in [`ProveRequest::inputs`].
        index: usize,
        /// What was wrong with it.
        reason: String,
    },
    /// The proof ran out of memory: it needs a larger machine.
    #[error("out of memory")]
    OutOfMemory,
    /// The proof ran longer than it may.
    #[error("ran longer than {0} s")]
    TimedOut(u64),
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Why a proof is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The verification key is not the pinned one of the circuit.
    #[error("verification key of {circuit} is not the pinned one")]
    WrongKey {
        /// The circuit whose key was expected.
        circuit: Circuit,
    },
    /// Not even a proof.
    #[error("malformed proof of {circuit}: {reason}")]
    Malformed {
        /// The circuit.
        circuit: Circuit,
        /// What was wrong with it.
        reason: String,
    },
    /// Well formed, but it does not prove its public inputs.
    #[error("proof of {circuit} does not verify: {reason}")]
    Invalid {
        /// The circuit.
        circuit: Circuit,
        /// What the verifier said.
        reason: String,
    },
}

/// A system that makes and checks proofs. Calls block; run them outside an async executor.
pub trait Backend: Send + Sync {
    /// The backend's name, as in `--backend`.
    fn name(&self) -> &'static str;

    /// The most bytes a proof may have; larger ones are refused.
    fn max_proof_bytes(&self) -> usize;

    /// Makes a proof. It is not to be trusted until [`Backend::verify`] says so.
    fn prove(&self, request: &ProveRequest) -> Result<Proof, ProveError>;

    /// Checks a proof against the pinned verification key of `circuit` and its own public inputs.
    fn verify(&self, circuit: Circuit, proof: &Proof) -> Result<(), VerifyError>;
}
