//! One lease from the inside: is its proof there already, are its children good, prove, check, seal.
//! What blocks is here; what waits is in [`crate::tasks`].

use crate::backend::{CheckError, Job, Prover, Usage};
use arborist_core::backend::{Cancel, Child, Proof, ProveError, ProveRequest};
use arborist_core::circuit::{Circuit, Kind};
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::proof_object::{Maker, ProofObject};
use arborist_core::wire::{self, Completed, Reason};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Why a lease ended without a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason:?}: {text}")]
pub struct Refusal {
    /// As the dispatcher counts it.
    pub reason: Reason,
    /// For people.
    pub text: String,
    /// With [`Reason::MissingChild`]: which. With [`Reason::BadChild`]: whose proof is bad. The lease's own task when it is the proof that
    /// was in the store already.
    pub child: Option<TaskId>,
}

impl Refusal {
    /// A failure that names no child.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), child: None }
    }

    /// The proof of `child` is bad and has to be made again.
    pub fn bad_child(child: TaskId, text: String) -> Self {
        Self { reason: Reason::BadChild, text, child: Some(child) }
    }

    /// There is no proof of `child`: it has to be made again, and nobody is to blame.
    pub fn missing_child(child: TaskId, text: String) -> Self {
        Self { reason: Reason::MissingChild, text, child: Some(child) }
    }
}

/// What a proof in the store must be: its circuit, and what it states (empty: not checked).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The task.
    pub task: TaskId,
    /// The circuit.
    pub circuit: Circuit,
    /// The public inputs; empty in jobs without statements.
    pub public_inputs: Vec<u64>,
}

/// A lease whose fields make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The fencing token.
    pub fence: u64,
    /// What to prove.
    pub expected: Expected,
    /// Inputs in the circuit's order.
    pub inputs: Vec<ArtifactHash>,
    /// Children in the circuit's order.
    pub children: Vec<Expected>,
    /// Cores and memory it may use.
    pub needs: crate::slots::Share,
    /// How long it may run.
    pub limit: Option<Duration>,
    /// Seed of the fake backend.
    pub seed: u64,
}

impl Lease {
    /// Reads a lease off the wire.
    ///
    /// # Errors
    /// The field that makes no sense; the dispatcher speaks another protocol or is broken.
    pub fn read(lease: &wire::Lease) -> Result<Self, String> {
        let hashes = lease.inputs.iter().map(|h| ArtifactHash::from_slice(h).ok_or("an input hash"));
        let children = lease.children.iter().map(|c| expected(&c.task, c.kind, c.param, &c.public_inputs));
        Ok(Self {
            fence: lease.fence,
            expected: expected(&lease.task, lease.kind, lease.param, &lease.public_inputs)?,
            inputs: hashes.collect::<Result<_, _>>()?,
            children: children.collect::<Result<_, _>>()?,
            needs: crate::slots::Share { cores: lease.cores, memory_mib: lease.memory_mib },
            limit: (lease.limit_millis > 0).then(|| Duration::from_millis(lease.limit_millis.into())),
            seed: lease.seed,
        })
    }
}

fn expected(task: &[u8], kind: u32, param: u32, public_inputs: &[u64]) -> Result<Expected, String> {
    let kind = Kind::from_index(kind as usize).ok_or_else(|| format!("kind {kind}"))?;
    let param = u8::try_from(param).map_err(|_| format!("circuit {kind}/{param}"))?;
    Ok(Expected {
        task: TaskId::from_slice(task).ok_or("a task id that is not 32 bytes")?,
        circuit: Circuit::new(kind, param),
        public_inputs: public_inputs.to_vec(),
    })
}

/// What a lease needs from the store.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The inputs, checked against their hashes.
    pub inputs: Vec<Bytes>,
    /// The children's sealed proofs, unchecked.
    pub children: Vec<Bytes>,
}

/// A proof ready to be stored and reported.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The proof object.
    pub object: Bytes,
    /// What to report once it is stored.
    pub completed: Completed,
}

/// Who this worker is, as it signs its proofs.
pub struct Identity {
    /// The worker's name.
    pub worker: String,
    /// The machine's name.
    pub node: String,
    /// Made at start, never stored.
    pub key: SigningKey,
}

/// Opens and checks a proof object. The inner error says why the proof is bad.
///
/// # Errors
/// Whether it is good can't be said.
pub fn check(
    prover: &dyn Prover,
    expected: &Expected,
    object: &[u8],
    cancel: &Cancel,
) -> Result<Result<Proof, String>, Refusal> {
    let opened = match ProofObject::open(&expected.task, object) {
        Ok(opened) => opened,
        Err(bad) => return Ok(Err(bad.to_string())),
    };
    if opened.circuit != expected.circuit {
        return Ok(Err(format!("it is a proof of {}, not of {}", opened.circuit, expected.circuit)));
    }
    if let Err(text) = states(&opened.proof, expected) {
        return Ok(Err(text));
    }
    match prover.verify(expected.circuit, &opened.proof, cancel) {
        Ok(()) => Ok(Ok(opened.proof)),
        Err(CheckError::Bad(bad)) => Ok(Err(bad.to_string())),
        Err(CheckError::Unable(text)) => Err(Refusal::new(Reason::Error, text)),
    }
}

fn states(proof: &Proof, expected: &Expected) -> Result<(), String> {
    if expected.public_inputs.is_empty() || expected.public_inputs == proof.public_inputs {
        return Ok(());
    }
    let (found, wanted) = (&proof.public_inputs, &expected.public_inputs);
    if found.len() != wanted.len() {
        return Err(format!("it has {} public inputs, not {}", found.len(), wanted.len()));
    }
    let place = found.iter().zip(wanted).position(|(f, w)| f != w).unwrap_or(0);
    Err(format!("public input {place} is {}, not {}", found[place], wanted[place]))
}

/// What to report of a proof that was in the store before this lease.
pub fn found(lease: &Lease, proof: &Proof) -> Completed {
    Completed {
        fence: lease.fence,
        task: lease.expected.task.0.to_vec(),
        proof_bytes: u32::try_from(proof.bytes.len()).unwrap_or(u32::MAX),
        found: true,
        ..Default::default()
    }
}

/// Checks the children, proves, checks the proof as a step of its own, seals it. Blocks.
///
/// # Errors
/// The first thing that went wrong; [`Reason::Error`] with `cancelled` when `stop` was set.
pub fn prove(
    prover: &dyn Prover,
    identity: &Identity,
    lease: &Lease,
    fetched: Fetched,
    stop: &Cancel,
) -> Result<Sealed, Refusal> {
    let start = Instant::now();
    let children = checked_children(prover, lease, &fetched.children, stop)?;
    let job = Job {
        request: ProveRequest {
            circuit: lease.expected.circuit,
            public_inputs: lease.expected.public_inputs.clone(),
            inputs: fetched.inputs.into_iter().map(Vec::from).collect(),
            children,
            threads: lease.needs.cores.max(1) as usize,
            cancel: stop.clone(),
        },
        task: lease.expected.task,
        fence: lease.fence,
        seed: lease.seed,
        memory_mib: lease.needs.memory_mib,
        limit: lease.limit.map(|limit| limit.saturating_sub(start.elapsed())),
    };
    let made = prover.prove(&job).map_err(|error| refusal_of(&error, lease))?;
    accept(prover, lease, &made.proof, stop)?;
    Ok(seal(identity, lease, &made.proof, made.usage, start.elapsed()))
}

fn checked_children(
    prover: &dyn Prover,
    lease: &Lease,
    objects: &[Bytes],
    stop: &Cancel,
) -> Result<Vec<Child>, Refusal> {
    let mut children = Vec::with_capacity(objects.len());
    for (expected, object) in lease.children.iter().zip(objects) {
        let proof = check(prover, expected, object, stop)?
            .map_err(|text| Refusal::bad_child(expected.task, format!("{}: {text}", expected.circuit)))?;
        children.push(Child { circuit: expected.circuit, proof });
    }
    Ok(children)
}

fn refusal_of(error: &ProveError, lease: &Lease) -> Refusal {
    let reason = match error {
        ProveError::BadChild { index, .. } => {
            return match lease.children.get(*index) {
                Some(child) => Refusal::bad_child(child.task, error.to_string()),
                None => {
                    Refusal::new(Reason::Error, format!("the backend blames a child that is none: {error}"))
                }
            };
        }
        ProveError::BadInput { .. } => Reason::BadInput,
        ProveError::OutOfMemory => Reason::OutOfMemory,
        ProveError::TimedOut(_) => Reason::TimedOut,
        ProveError::Cancelled | ProveError::Failed(_) => Reason::Error,
    };
    Refusal::new(reason, error.to_string())
}

fn accept(prover: &dyn Prover, lease: &Lease, proof: &Proof, stop: &Cancel) -> Result<(), Refusal> {
    let max = prover.max_proof_bytes();
    if proof.bytes.len() > max {
        let text = format!("a proof of at least {} bytes; {} allows {max}", proof.bytes.len(), prover.name());
        return Err(Refusal::new(Reason::Oversize, text));
    }
    states(proof, &lease.expected).map_err(|text| Refusal::new(Reason::BadProof, text))?;
    prover.verify(lease.expected.circuit, proof, stop).map_err(|error| match error {
        CheckError::Bad(bad) => Refusal::new(Reason::BadProof, bad.to_string()),
        CheckError::Unable(text) => Refusal::new(Reason::Error, text),
    })
}

fn seal(identity: &Identity, lease: &Lease, proof: &Proof, usage: Usage, took: Duration) -> Sealed {
    let millis = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
    let finished = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let maker = Maker {
        worker: identity.worker.clone(),
        node: identity.node.clone(),
        finished_unix_ms: u64::try_from(finished.as_millis()).unwrap_or(u64::MAX),
        millis,
        cpu_millis: usage.cpu_millis,
    };
    let object = ProofObject::seal(lease.expected.task, lease.expected.circuit, proof, &maker, &identity.key);
    let completed = Completed {
        fence: lease.fence,
        task: lease.expected.task.0.to_vec(),
        millis,
        cpu_millis: usage.cpu_millis,
        peak_mib: usage.peak_mib,
        proof_bytes: u32::try_from(proof.bytes.len()).unwrap_or(u32::MAX),
        found: false,
    };
    Sealed { object: object.into(), completed }
}

#[cfg(test)]
mod tests;
