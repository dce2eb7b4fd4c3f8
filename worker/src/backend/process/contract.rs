//! The files and exit codes of docs/process-backend.md, version 1.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The version of the contract.
pub const CONTRACT: u32 = 1;

/// Exit codes of a plug-in beside 0. Anything else says only that it failed.
pub mod exit {
    /// `verify`: the proof is not valid. Not 1, which many languages exit with when they crash.
    pub const INVALID: i32 = 10;
    /// `prove`: no prover could prove this input.
    pub const BAD_INPUT: i32 = 11;
    /// `prove`: more memory is needed than the request allows.
    pub const OUT_OF_MEMORY: i32 = 12;
}

/// The name of the request in the job folder.
pub const REQUEST_FILE: &str = "request.json";
/// The name of the result in the output folder.
pub const RESULT_FILE: &str = "result.json";

/// What `info` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Version of the contract.
    pub contract: u32,
    /// The tool's name.
    pub name: String,
    /// The tool's version.
    pub version: String,
    /// The circuits it proves, e.g. `mini-rollup-v1`.
    pub circuits: String,
    /// The most bytes a proof may have.
    pub max_proof_bytes: u64,
}

/// `request.json` of `prove`. Paths are relative to the job folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveRequest {
    /// Version of the contract.
    pub contract: u32,
    /// `prove`.
    pub action: String,
    /// The task's id: 64 hex digits.
    pub task: String,
    /// The circuits' name.
    pub circuits: String,
    /// The kind of proof: `vm`, `kernel`, `base`, `merge` or `root`.
    pub kind: String,
    /// The circuit: `vm`, `kernel/K`, `base`, `merge/H` or `root/H`.
    pub circuit: String,
    /// The key hash the proof must carry, 64 hex digits; `null` where none is pinned.
    pub vk_hash: Option<String>,
    /// What the proof has to state, decimal; empty where the job does not say.
    pub public_inputs: Vec<String>,
    /// Files with the inputs, in the circuit's order.
    pub inputs: Vec<String>,
    /// The child proofs, in the circuit's order.
    pub children: Vec<ProofFile>,
    /// The folder for the result.
    pub output: String,
    /// Threads it may use.
    pub threads: usize,
    /// Memory it may use in MiB; `null` is without limit.
    pub memory_mib: Option<u32>,
    /// When it will be killed, milliseconds since 1970; `null` is without limit.
    pub deadline_unix_ms: Option<u64>,
}

/// `request.json` of `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Version of the contract.
    pub contract: u32,
    /// `verify`.
    pub action: String,
    /// The circuits' name.
    pub circuits: String,
    /// The kind of proof.
    pub kind: String,
    /// The proof to check.
    pub proof: ProofFile,
    /// The key hash it must carry; `null` where none is pinned.
    pub vk_hash: Option<String>,
}

/// A proof as a file with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofFile {
    /// The circuit that made it.
    pub circuit: String,
    /// The file, relative to the job folder.
    pub proof: String,
    /// The key hash it carries, 64 hex digits.
    pub vk_hash: String,
    /// What it states, decimal.
    pub public_inputs: Vec<String>,
}

/// `result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProveResult {
    /// Version of the contract.
    pub contract: u32,
    /// The proof's file in the output folder: a name without a path.
    pub proof: String,
    /// What it states, decimal, each below 2^64.
    pub public_inputs: Vec<String>,
    /// Its key hash, 64 hex digits.
    pub vk_hash: String,
    /// How long it took by the tool's own account; for the log.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Its peak memory by the tool's own account; for the log.
    #[serde(default)]
    pub peak_rss_bytes: Option<u64>,
    /// The tool's version; for the log.
    #[serde(default)]
    pub tool_version: Option<String>,
}

/// Public inputs as they are written: decimal text, for JSON numbers lose digits above 2^53.
pub fn write_public_inputs(inputs: &[u64]) -> Vec<String> {
    inputs.iter().map(u64::to_string).collect()
}

/// Reads what [`write_public_inputs`] wrote.
///
/// # Errors
/// One of them is no decimal number below 2^64.
pub fn read_public_inputs(texts: &[String]) -> Result<Vec<u64>, String> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|_| "a public input is no number below 2^64".into()))
        .collect()
}

/// Reads a key hash.
///
/// # Errors
/// It is not 64 hex digits.
pub fn read_hash(text: &str) -> Result<[u8; 32], String> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| "vk_hash is not 64 hexadecimal digits")?;
    Ok(hash)
}

/// Reads a key file: a JSON object from circuit to key hash.
///
/// # Errors
/// It can't be read, or an entry makes no sense.
pub fn read_keys(file: &Path) -> Result<BTreeMap<String, [u8; 32]>, String> {
    let json = std::fs::read(file).map_err(|error| error.to_string())?;
    let texts: BTreeMap<String, String> = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    let entry = |(circuit, hash): (String, String)| {
        let parsed: arborist_core::circuit::Circuit = circuit.parse().map_err(|e| format!("{e}"))?;
        Ok((parsed.to_string(), read_hash(&hash).map_err(|error| format!("{circuit}: {error}"))?))
    };
    texts.into_iter().map(entry).collect()
}
