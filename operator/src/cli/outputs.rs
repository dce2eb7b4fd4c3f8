//! What a proven block leaves for others: `root.proof` and `public.json`. All a verifier needs.

use super::CliError;
use super::input::{part_of, read_bounded, write_whole};
use arborist_circuits::{Prover, Published};
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::text::echo;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The root proof's file in an output folder: the sealed object as it lies in the artifact store.
pub const ROOT_PROOF: &str = "root.proof";
/// The published inputs' file in an output folder.
pub const PUBLIC_JSON: &str = "public.json";
/// The version of `public.json` this code reads and writes.
pub const PUBLIC_VERSION: u32 = 1;

const MAX_PUBLIC_BYTES: u64 = 1 << 20;
const MAX_PROOF_BYTES: u64 = 16 << 20;

/// What is published beside a root proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicFile {
    /// Version of this format: 1.
    pub version: u32,
    /// What made the proof: `plonky2`, `process` or `fake`.
    pub backend: String,
    /// The circuits, e.g. `mini-rollup-v1`.
    pub circuits: String,
    /// What a plug-in's proofs are bound to, as `arborist-worker describe` says it; left out for other backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<ArtifactHash>,
    /// The root's task: under this name the proof lies in the artifact store.
    pub task: TaskId,
    /// The prover's name; `None` when only the id is known.
    pub prover: Option<String>,
    /// What the proof states; `None` for a block made up without inputs.
    pub statement: Option<Published>,
}

/// Where a root proof and its published inputs lie.
#[derive(Debug, Clone)]
pub struct Files {
    /// The proof.
    pub proof: PathBuf,
    /// The published inputs.
    pub public: PathBuf,
}

impl Files {
    /// The files of an output folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { proof: folder.join(ROOT_PROOF), public: folder.join(PUBLIC_JSON) }
    }

    /// Reads both.
    ///
    /// # Errors
    /// One is missing, too long, or the published inputs are malformed.
    pub fn read(&self) -> Result<(Vec<u8>, PublicFile), CliError> {
        let json = read_bounded(&self.public, "published inputs in JSON", MAX_PUBLIC_BYTES)?;
        let malformed = |problem: String| CliError::input(&self.public, problem);
        let version: VersionOnly =
            serde_json::from_slice(&json).map_err(|e| malformed(format!("file: {e}")))?;
        if version.version != PUBLIC_VERSION {
            return Err(malformed(format!("version: {}, allowed is {PUBLIC_VERSION}", version.version)));
        }
        let public: PublicFile =
            serde_json::from_slice(&json).map_err(|e| malformed(format!("file: {e}")))?;
        if let Some(prover) = public.prover.as_deref().filter(|name| !is_name(name)) {
            let problem =
                format!("prover: `{}`, allowed are 1 to 128 printable ASCII characters", echo(prover));
            return Err(malformed(problem));
        }
        Ok((read_bounded(&self.proof, "a root proof", MAX_PROOF_BYTES)?, public))
    }

    /// Removes what was being written when the process that wrote it was killed.
    pub fn remove_unfinished(&self) {
        for file in [self.unchecked(), part_of(&self.public)] {
            // what can't be removed is written over
            let _ = std::fs::remove_file(file);
        }
    }

    /// Where a proof lies until it is checked.
    fn unchecked(&self) -> PathBuf {
        let mut name = self.proof.file_name().unwrap_or_default().to_owned();
        name.push(".unchecked");
        self.proof.with_file_name(name)
    }

    /// Writes the proof beside its place and reads it back, to be checked before [`Draft::publish`].
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn draft(&self, proof: &[u8]) -> Result<Draft<'_>, CliError> {
        let path = self.unchecked();
        let fail = |e: std::io::Error| CliError::failed(format!("write {}", path.display()), e);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(proof)?;
            file.sync_all()
        });
        let mut draft = Draft { files: self, path: path.clone(), bytes: vec![] };
        written.map_err(fail)?;
        draft.bytes = std::fs::read(&path).map_err(fail)?;
        Ok(draft)
    }
}

/// A root proof in the output folder that was not checked yet; removed when it is dropped.
#[derive(Debug)]
pub struct Draft<'a> {
    files: &'a Files,
    path: PathBuf,
    /// What lies in the file.
    bytes: Vec<u8>,
}

impl Draft<'_> {
    /// What lies in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Puts the proof in its place, where an earlier one lies until then. The published inputs follow, so that they are
    /// never there without the proof.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn publish(self, public: &PublicFile) -> Result<(), CliError> {
        let json = serde_json::to_vec_pretty(public)
            .map_err(|e| CliError::failed("write the published inputs", e))?;
        let place = &self.files.proof;
        std::fs::rename(&self.path, place)
            .map_err(|e| CliError::failed(format!("write {}", place.display()), e))?;
        write_whole(&self.files.public, &json)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // published, it has another name by now
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a text is a prover's name, read as everywhere.
fn is_name(text: &str) -> bool {
    text.parse::<Prover>().is_ok_and(|prover| prover.name.is_some())
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_core::block::Word;

    fn public() -> PublicFile {
        PublicFile {
            version: PUBLIC_VERSION,
            backend: "plonky2".into(),
            circuits: "mini-rollup-v1".into(),
            keys: None,
            task: TaskId([1; 32]),
            prover: None,
            statement: Some(Published {
                chain_id: 5,
                block_number: 9,
                state_before: Word([2; 32]),
                state_after: Word([3; 32]),
                transactions_commitment: Word([4; 32]),
                transactions: 4,
                prover_id: Word([6; 32]),
            }),
        }
    }

    #[test]
    fn what_is_written_is_read_and_no_other_version() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::in_folder(folder.path());
        files.draft(b"proof").unwrap().publish(&public()).unwrap();
        assert_eq!(files.read().unwrap(), (b"proof".to_vec(), public()));
        drop(files.draft(b"a bad one").unwrap());
        assert_eq!(files.read().unwrap().0, b"proof", "only a checked one takes its place");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        files.draft(b"proof").unwrap().publish(&PublicFile { version: 2, ..public() }).unwrap();
        let error = files.read().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.one_line().contains("version: 2, allowed is 1"), "{}", error.one_line());
    }
}
