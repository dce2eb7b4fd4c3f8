//! The job folder: written for one call of the plug-in, read once, gone afterwards.

use super::contract::{
    CONTRACT, ProofFile, ProveRequest, ProveResult, REQUEST_FILE, RESULT_FILE, VerifyRequest, read_hash,
    read_public_inputs, write_public_inputs,
};
use crate::backend::Job;
use arborist_core::backend::Proof;
use arborist_core::circuit::Circuit;
use arborist_system::private;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const OUTPUT: &str = "out";
const MAX_RESULT_BYTES: u64 = 1 << 20;

/// A job folder; removed when dropped.
#[derive(Debug)]
pub(super) struct Folder(TempDir);

impl Folder {
    /// In the scratch folder, for this user alone; one that was cleaned away meanwhile is made again.
    fn new(scratch: &Path) -> io::Result<Self> {
        private::make_folder(scratch)?;
        tempfile::Builder::new().prefix("job-").tempdir_in(scratch).map(Self)
    }

    /// A folder with everything that `prove` needs.
    pub fn for_prove(
        scratch: &Path,
        circuits: &str,
        job: &Job,
        pinned: Option<[u8; 32]>,
    ) -> io::Result<Self> {
        let folder = Self::new(scratch)?;
        let request = &job.request;
        for name in ["inputs", "children", OUTPUT] {
            fs::create_dir(folder.path().join(name))?;
        }
        let mut inputs = vec![];
        for (i, input) in request.inputs.iter().enumerate() {
            inputs.push(folder.write(format!("inputs/{i}"), input)?);
        }
        let mut children = vec![];
        for (i, child) in request.children.iter().enumerate() {
            children.push(folder.proof(format!("children/{i}"), child.circuit, &child.proof)?);
        }
        let deadline = job.limit.and_then(|limit| SystemTime::now().checked_add(limit));
        folder.request(&ProveRequest {
            contract: CONTRACT,
            action: "prove".into(),
            task: job.task.to_string(),
            circuits: circuits.to_owned(),
            kind: request.circuit.kind().to_string(),
            circuit: request.circuit.to_string(),
            vk_hash: pinned.map(hex::encode),
            public_inputs: write_public_inputs(&request.public_inputs),
            inputs,
            children,
            output: OUTPUT.into(),
            threads: request.threads,
            memory_mib: Some(job.memory_mib).filter(|mib| *mib > 0),
            deadline_unix_ms: deadline
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                .and_then(|since| u64::try_from(since.as_millis()).ok()),
        })?;
        Ok(folder)
    }

    /// A folder with everything that `verify` needs.
    pub fn for_verify(
        scratch: &Path,
        circuits: &str,
        circuit: Circuit,
        proof: &Proof,
        pinned: Option<[u8; 32]>,
    ) -> io::Result<Self> {
        let folder = Self::new(scratch)?;
        let proof = folder.proof("proof".into(), circuit, proof)?;
        folder.request(&VerifyRequest {
            contract: CONTRACT,
            action: "verify".into(),
            circuits: circuits.to_owned(),
            kind: circuit.kind().to_string(),
            proof,
            vk_hash: pinned.map(hex::encode),
        })?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: String, bytes: &[u8]) -> io::Result<String> {
        fs::write(self.path().join(&name), bytes)?;
        Ok(name)
    }

    fn proof(&self, name: String, circuit: Circuit, proof: &Proof) -> io::Result<ProofFile> {
        Ok(ProofFile {
            circuit: circuit.to_string(),
            proof: self.write(name, &proof.bytes)?,
            vk_hash: hex::encode(proof.vk_hash),
            public_inputs: write_public_inputs(&proof.public_inputs),
        })
    }

    fn request(&self, request: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(request)?;
        self.write(REQUEST_FILE.into(), &json).map(|_| ())
    }

    /// What the plug-in left. Of a proof larger than `max_proof_bytes` only a byte more than that is
    /// read, so that its size can be refused like any other.
    pub fn result(&self, max_proof_bytes: usize) -> Result<Proof, String> {
        let output = self.path().join(OUTPUT);
        let json = read_bounded(&output.join(RESULT_FILE), MAX_RESULT_BYTES)
            .map_err(|error| format!("{RESULT_FILE}: {error}"))?;
        let wrong = |problem: String| format!("{RESULT_FILE}: {problem}");
        let result: ProveResult = serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))?;
        if result.contract != CONTRACT {
            return Err(wrong(format!("contract {}, expected {CONTRACT}", result.contract)));
        }
        let proof = proof_path(&output, &result.proof).map_err(wrong)?;
        let bytes = read_bounded(&proof, max_proof_bytes as u64)
            .map_err(|error| format!("the proof `{}`: {error}", result.proof))?;
        tracing::debug!(
            seconds = result.seconds,
            peak_rss_bytes = result.peak_rss_bytes,
            tool_version = result.tool_version,
            "the plug-in's own account"
        );
        Ok(Proof {
            bytes,
            public_inputs: read_public_inputs(&result.public_inputs).map_err(wrong)?,
            vk_hash: read_hash(&result.vk_hash).map_err(wrong)?,
        })
    }
}

/// A plain name in the output folder: nothing outside it is ever read.
fn proof_path(output: &Path, name: &str) -> Result<PathBuf, String> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err("`proof` must be the name of a file in the output folder".into());
    }
    Ok(output.join(name))
}

/// At most one byte more than `max` of a regular file: no link, no pipe that would never end.
fn read_bounded(file: &Path, max: u64) -> io::Result<Vec<u8>> {
    if !fs::symlink_metadata(file)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = vec![];
    File::open(file)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
