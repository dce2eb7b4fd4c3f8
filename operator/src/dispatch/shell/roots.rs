//! The operator's own check of a finished job's root proof.

use arborist_core::backend::{Proof, VerifyError};
use arborist_core::circuit::Circuit;
use arborist_core::fake_proof;
use arborist_core::ids::TaskId;
use arborist_core::text::echo;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A root proof to check. Envelope, signature and public inputs hold already.
#[derive(Debug, Clone, Copy)]
pub struct RootCheck<'a> {
    /// The root's task.
    pub task: &'a TaskId,
    /// The root's circuit.
    pub circuit: Circuit,
    /// The proof.
    pub proof: &'a Proof,
    /// The proof as it lies in the store.
    pub object: &'a [u8],
}

/// Why a root proof did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootProblem {
    /// The proof is bad: it is moved aside and made again.
    #[error("{0}")]
    Bad(String),
    /// There is none.
    #[error("the proof is not in the artifact store")]
    Missing,
    /// It could not be checked; it is tried again later.
    #[error("the root proof could not be checked: {0}")]
    Unable(String),
}

/// Checks root proofs. Blocks; called outside async executors and the engine's lock.
pub trait RootVerifier: Send + Sync + 'static {
    /// # Errors
    /// What is wrong with it.
    fn verify(&self, root: RootCheck<'_>) -> Result<(), RootProblem>;
}

/// The embedded circuits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plonky2Roots;

impl RootVerifier for Plonky2Roots {
    fn verify(&self, root: RootCheck<'_>) -> Result<(), RootProblem> {
        use arborist_core::backend::Backend;
        said(arborist_circuits::Plonky2.verify(root.circuit, root.proof))
    }
}

/// Proofs of the fake backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct FakeRoots;

impl RootVerifier for FakeRoots {
    fn verify(&self, root: RootCheck<'_>) -> Result<(), RootProblem> {
        said(fake_proof::verify(root.circuit, root.proof))
    }
}

fn said(verdict: Result<(), VerifyError>) -> Result<(), RootProblem> {
    verdict.map_err(|error| RootProblem::Bad(error.to_string()))
}

/// A program that is started with `verify --circuit C --task ID --object -`, reads the proof object on its standard input and
/// says by its exit code: 0 valid, 1 invalid (why: on stderr), anything else not checked. As `arborist-worker` does. It gets
/// the very bytes that were checked before.
#[derive(Debug, Clone)]
pub struct ProgramRoots {
    /// The program.
    pub program: PathBuf,
    /// Arguments between `verify` and the ones above, e.g. `--backend process --plugin P`.
    pub args: Vec<String>,
}

impl RootVerifier for ProgramRoots {
    fn verify(&self, root: RootCheck<'_>) -> Result<(), RootProblem> {
        let unable = |what: &str, error: std::io::Error| RootProblem::Unable(format!("{what}: {error}"));
        let mut child = Command::new(&self.program)
            .arg("verify")
            .args(&self.args)
            .args(["--circuit", &root.circuit.to_string(), "--task", &root.task.to_string(), "--object", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| unable(&self.program.display().to_string(), e))?;
        let mut stdin = child.stdin.take();
        let output = std::thread::scope(|scope| {
            // one that ends before it has read all says by its exit code why
            scope.spawn(move || stdin.as_mut().map(|stdin| stdin.write_all(root.object)));
            child.wait_with_output()
        });
        let output = output.map_err(|e| unable(&self.program.display().to_string(), e))?;
        let said = echo(String::from_utf8_lossy(&output.stderr).trim());
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1) => Err(RootProblem::Bad(said)),
            _ => Err(RootProblem::Unable(format!("{}: {said}", output.status))),
        }
    }
}
