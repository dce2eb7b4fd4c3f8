//! The process backend: a program of the user's own makes and checks the proofs. The contract is
//! docs/process-backend.md; the worker trusts nothing the program says.

pub mod contract;
mod group;
mod job;

use super::{CheckError, Job, Made, Prover, Usage};
use arborist_core::backend::{Cancel, Proof, ProveError, VerifyError};
use arborist_core::circuit::Circuit;
use arborist_core::ids::ArtifactHash;
use arborist_core::system::plugin_keys;
use arborist_system::private::Scratch;
use contract::{CONTRACT, Info, exit};
pub use group::kill_all;
use group::{End, Limits, Ran};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long `info` may take.
const INFO_LIMIT: Duration = Duration::from_secs(30);
/// How long one `verify` may take.
const VERIFY_LIMIT: Duration = Duration::from_secs(300);
/// The most bytes that a plug-in may declare for a proof: what a worker can read again as a child.
const MAX_DECLARED_BYTES: u64 = crate::artifacts::MAX_OBJECT_BYTES / 2;

/// Why a plug-in can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It does not run or says nothing that can be understood.
    #[error("the plug-in {plugin}: {problem}")]
    Unusable {
        /// Its path.
        plugin: String,
        /// What is wrong.
        problem: String,
    },
    /// The file of verification keys can't be used.
    #[error("the key file {file}: {problem}")]
    Keys {
        /// Its path.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// No job folders can be made.
    #[error("the folder for job folders, {folder}: {error}")]
    Folder {
        /// Its path.
        folder: String,
        /// What the system said.
        error: io::Error,
    },
}

/// Which plug-in to use and how.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// The program.
    pub plugin: PathBuf,
    /// Arguments before the command.
    pub args: Vec<String>,
    /// JSON file: circuit → verification key hash.
    pub keys: Option<PathBuf>,
    /// Where job folders are made; `None` is the system's temporary folder.
    pub work_dir: Option<PathBuf>,
}

/// The process backend.
#[derive(Debug)]
pub struct Process {
    settings: ProcessSettings,
    info: Info,
    keys: BTreeMap<String, [u8; 32]>,
    /// Job folders are made in it; it goes with this process, however that ends.
    scratch: Scratch,
}

impl Process {
    /// Asks the plug-in who it is and reads the pinned keys.
    ///
    /// # Errors
    /// It does not run, speaks another version of the contract, or the key file is unusable.
    pub fn open(settings: ProcessSettings) -> Result<Self, PluginError> {
        let unusable = |problem: String| PluginError::Unusable {
            plugin: settings.plugin.display().to_string(),
            problem,
        };
        let cancel = Cancel::default();
        let limits = Limits { deadline: Some(Instant::now() + INFO_LIMIT), memory_mib: 0, cancel: &cancel };
        let mut command = Command::new(&settings.plugin);
        command.args(&settings.args).arg("info");
        let ran = group::run(command, &limits).map_err(|error| unusable(error.to_string()))?;
        if ran.end != End::Exited(0) {
            return Err(unusable(format!("`info` {}", ran.describe())));
        }
        let info: Info = serde_json::from_slice(&ran.stdout)
            .map_err(|error| unusable(format!("`info` printed {error}")))?;
        if info.contract != CONTRACT {
            return Err(unusable(format!("it speaks contract {}, this worker {CONTRACT}", info.contract)));
        }
        if !(1..=MAX_DECLARED_BYTES).contains(&info.max_proof_bytes) {
            return Err(unusable(format!("max_proof_bytes must be 1 to {MAX_DECLARED_BYTES}")));
        }
        let keys = match &settings.keys {
            Some(file) => contract::read_keys(file)
                .map_err(|problem| PluginError::Keys { file: file.display().to_string(), problem })?,
            None => BTreeMap::new(),
        };
        let parent = settings.work_dir.clone().unwrap_or_else(std::env::temp_dir);
        let scratch = Scratch::make(&parent)
            .map_err(|error| PluginError::Folder { folder: parent.display().to_string(), error })?;
        tracing::info!(name = info.name, version = info.version, circuits = info.circuits, "plug-in");
        Ok(Self { settings, info, keys, scratch })
    }

    /// The key hash that proofs of a circuit must carry, where one is pinned.
    fn pinned(&self, circuit: Circuit) -> Option<[u8; 32]> {
        self.keys.get(&circuit.to_string()).copied()
    }

    fn run(&self, action: &str, folder: &job::Folder, limits: &Limits<'_>) -> io::Result<Ran> {
        let mut command = Command::new(&self.settings.plugin);
        command.args(&self.settings.args).arg(action).arg(folder.path());
        group::run(command, limits)
    }
}

impl Prover for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn circuits(&self) -> &str {
        &self.info.circuits
    }

    fn keys(&self) -> Option<ArtifactHash> {
        Some(plugin_keys(&self.info.name, &self.info.version, &self.keys))
    }

    fn max_proof_bytes(&self) -> usize {
        self.info.max_proof_bytes as usize
    }

    fn prove(&self, job: &Job) -> Result<Made, ProveError> {
        let failed = |what: &str, error: String| ProveError::Failed(format!("{what}: {error}"));
        let pinned = self.pinned(job.request.circuit);
        let folder = job::Folder::for_prove(self.scratch.path(), &self.info.circuits, job, pinned)
            .map_err(|error| failed("the job folder", error.to_string()))?;
        let limits = Limits {
            deadline: job.limit.and_then(|limit| Instant::now().checked_add(limit)),
            memory_mib: job.memory_mib,
            cancel: &job.request.cancel,
        };
        let ran =
            self.run("prove", &folder, &limits).map_err(|error| failed("the plug-in", error.to_string()))?;
        match ran.end {
            End::Exited(0) => {}
            End::Exited(exit::BAD_INPUT) => {
                return Err(ProveError::BadInput { index: 0, reason: ran.describe() });
            }
            End::OutOfMemory | End::Exited(exit::OUT_OF_MEMORY) => return Err(ProveError::OutOfMemory),
            End::TimedOut => return Err(ProveError::TimedOut(job.limit.unwrap_or_default().as_secs())),
            End::Cancelled => return Err(ProveError::Cancelled),
            End::Exited(_) | End::Signalled(_) => return Err(failed("the plug-in", ran.describe())),
        }
        let proof = folder.result(self.max_proof_bytes()).map_err(ProveError::Failed)?;
        let usage = Usage { cpu_millis: ran.cpu_millis, peak_mib: ran.peak_mib };
        Ok(Made { proof, usage })
    }

    fn verify(&self, circuit: Circuit, proof: &Proof, cancel: &Cancel) -> Result<(), CheckError> {
        let unable = |what: &str, text: String| CheckError::Unable(format!("{what}: {text}"));
        let pinned = self.pinned(circuit);
        if pinned.is_some_and(|pinned| pinned != proof.vk_hash) {
            return Err(VerifyError::WrongKey { circuit }.into());
        }
        let folder =
            job::Folder::for_verify(self.scratch.path(), &self.info.circuits, circuit, proof, pinned)
                .map_err(|error| unable("the job folder", error.to_string()))?;
        let limits = Limits { deadline: Some(Instant::now() + VERIFY_LIMIT), memory_mib: 0, cancel };
        let ran =
            self.run("verify", &folder, &limits).map_err(|error| unable("the plug-in", error.to_string()))?;
        match ran.end {
            End::Exited(0) => Ok(()),
            End::Exited(exit::INVALID) => {
                Err(VerifyError::Invalid { circuit, reason: ran.complaint() }.into())
            }
            _ => Err(unable("the plug-in's verify", ran.describe())),
        }
    }
}

#[cfg(test)]
mod tests;
