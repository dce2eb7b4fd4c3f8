//! The embedded circuits, proven in this process.
//!
//! Their memory can't be capped per proof: a process is what the kernel counts and kills. A proof that
//! takes too much takes the worker with it; the dispatcher sees a lost worker, and who runs the worker
//! sees why. A proof under way can't be interrupted either: it ends some seconds after it is asked to.

use super::{CheckError, Job, Made, Prover};
use crate::usage::Meter;
use arborist_core::backend::{Backend, Cancel, Proof, ProveError};
use arborist_core::circuit::Circuit;
use arborist_core::profile::MINI_ROLLUP;

/// A backend that proves on this process's threads.
pub struct InProcess<B> {
    backend: B,
    circuits: &'static str,
    meter: Meter,
}

impl InProcess<arborist_circuits::Plonky2> {
    /// The embedded circuits.
    pub fn plonky2() -> Self {
        Self::new(arborist_circuits::Plonky2::new(), MINI_ROLLUP)
    }
}

impl<B: Backend> InProcess<B> {
    /// A backend that proves the circuits of this name.
    pub fn new(backend: B, circuits: &'static str) -> Self {
        Self { backend, circuits, meter: Meter::default() }
    }
}

impl<B: Backend> Prover for InProcess<B> {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn circuits(&self) -> &str {
        self.circuits
    }

    fn max_proof_bytes(&self) -> usize {
        self.backend.max_proof_bytes()
    }

    fn prove(&self, job: &Job) -> Result<Made, ProveError> {
        let cores = u32::try_from(job.request.threads).unwrap_or(u32::MAX);
        let (proof, usage) = self.meter.measure(cores, || self.backend.prove(&job.request));
        Ok(Made { proof: proof?, usage })
    }

    fn verify(&self, circuit: Circuit, proof: &Proof, _: &Cancel) -> Result<(), CheckError> {
        Ok(self.backend.verify(circuit, proof)?)
    }
}
