//! A plug-in of the process backend, from its own side: reads requests, writes results. The reference
//! plug-in `arborist-plugin-hash` is [`serve`] with [`prove`] and [`verify`], and nothing else; its
//! proofs are those of [`arborist_core::fake_proof`].

use crate::backend::process::contract::{
    CONTRACT, Info, ProofFile, ProveRequest, ProveResult, REQUEST_FILE, RESULT_FILE, VerifyRequest, exit,
    read_hash, read_public_inputs, write_public_inputs,
};
use arborist_core::backend::Proof;
use arborist_core::circuit::Circuit;
use arborist_core::fake_proof;
use arborist_core::profile::MINI_ROLLUP;
use arborist_system::{errln, outln};
use serde::de::DeserializeOwned;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// The most bytes a proof of the reference plug-in may have.
pub const MAX_PROOF_BYTES: u64 = 32_768;
/// The size of its proofs.
const PROOF_BYTES: usize = 1_000;

/// What a plug-in is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Say who you are.
    Info,
    /// Make a proof in this job folder.
    Prove(PathBuf),
    /// Check the proof in this job folder.
    Verify(PathBuf),
}

impl Call {
    /// Reads the command line behind the plug-in's own arguments.
    pub fn read(args: &[String]) -> Option<Self> {
        match args {
            [info] if info == "info" => Some(Self::Info),
            [prove, folder] if prove == "prove" => Some(Self::Prove(folder.into())),
            [verify, folder] if verify == "verify" => Some(Self::Verify(folder.into())),
            _ => None,
        }
    }
}

/// Ends this process when the worker is gone: then nobody holds the other end of stdin.
pub fn end_with_the_worker() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while let Ok(1..) = std::io::stdin().read(&mut byte) {}
        std::process::exit(1);
    });
}

/// Prints what `info` has to print.
pub fn print_info() {
    let info = Info {
        contract: CONTRACT,
        name: "arborist-plugin-hash".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        circuits: MINI_ROLLUP.into(),
        max_proof_bytes: MAX_PROOF_BYTES,
    };
    outln!("{}", serde_json::json!(info));
}

/// Reads `request.json`.
///
/// # Errors
/// It is missing or not the request expected.
pub fn read_request<T: DeserializeOwned>(folder: &Path) -> Result<T, String> {
    let json = fs::read(folder.join(REQUEST_FILE)).map_err(|error| format!("{REQUEST_FILE}: {error}"))?;
    serde_json::from_slice(&json).map_err(|error| format!("{REQUEST_FILE}: {error}"))
}

/// Makes the proof of a request, in memory.
///
/// # Errors
/// The request makes no sense or a file is missing.
pub fn make(folder: &Path, request: &ProveRequest) -> Result<Proof, String> {
    if request.contract != CONTRACT {
        return Err(format!("contract {} is not spoken here, only {CONTRACT}", request.contract));
    }
    let circuit: Circuit = request.circuit.parse().map_err(|error| format!("{error}"))?;
    let public_inputs = read_public_inputs(&request.public_inputs)?;
    let read = |name: &String| fs::read(folder.join(name)).map_err(|error| format!("{name}: {error}"));
    let inputs: Vec<Vec<u8>> = request.inputs.iter().map(read).collect::<Result<_, _>>()?;
    let children = request.children.iter().map(|child| read_proof(folder, child).map(|(_, proof)| proof));
    let children: Vec<Proof> = children.collect::<Result<_, _>>()?;
    let children: Vec<&Proof> = children.iter().collect();
    Ok(fake_proof::prove(circuit, &public_inputs, &inputs, &children, PROOF_BYTES))
}

fn read_proof(folder: &Path, file: &ProofFile) -> Result<(Circuit, Proof), String> {
    let bytes = fs::read(folder.join(&file.proof)).map_err(|error| format!("{}: {error}", file.proof))?;
    let public_inputs = read_public_inputs(&file.public_inputs)?;
    let circuit = file.circuit.parse().map_err(|error| format!("{error}"))?;
    Ok((circuit, Proof { bytes, public_inputs, vk_hash: read_hash(&file.vk_hash)? }))
}

/// Writes the proof, and the result last: where it is, the proof is whole.
///
/// # Errors
/// The output folder can't be written.
pub fn write_result(output: &Path, proof: &Proof, start: Instant) -> Result<(), String> {
    let result = ProveResult {
        contract: CONTRACT,
        proof: "proof".into(),
        public_inputs: write_public_inputs(&proof.public_inputs),
        vk_hash: hex::encode(proof.vk_hash),
        seconds: Some(start.elapsed().as_secs_f64()),
        peak_rss_bytes: None,
        tool_version: Some(env!("CARGO_PKG_VERSION").into()),
    };
    let json = serde_json::to_vec(&result).map_err(|error| error.to_string())?;
    fs::write(output.join("proof"), &proof.bytes)
        .and_then(|()| fs::write(output.join(RESULT_FILE), json))
        .map_err(|error| format!("{}: {error}", output.display()))
}

/// Does what `prove` has to do.
///
/// # Errors
/// Anything that keeps it from it.
pub fn prove(folder: &Path) -> Result<(), String> {
    let start = Instant::now();
    let request: ProveRequest = read_request(folder)?;
    let proof = make(folder, &request)?;
    write_result(&folder.join(&request.output), &proof, start)
}

/// Does what `verify` has to do. `Ok(Err(_))`: the proof is bad.
///
/// # Errors
/// Anything that keeps it from saying.
pub fn verify(folder: &Path) -> Result<Result<(), String>, String> {
    let request: VerifyRequest = read_request(folder)?;
    if request.contract != CONTRACT {
        return Err(format!("contract {} is not spoken here, only {CONTRACT}", request.contract));
    }
    let (circuit, proof) = read_proof(folder, &request.proof)?;
    Ok(fake_proof::verify(circuit, &proof).map_err(|error| error.to_string()))
}

/// A whole plug-in: reads the call, does it, says the exit code.
pub fn serve(args: &[String]) -> ExitCode {
    let outcome = match Call::read(args) {
        None => Err("usage: arborist-plugin-hash info | prove FOLDER | verify FOLDER".to_owned()),
        Some(Call::Info) => {
            print_info();
            return ExitCode::SUCCESS;
        }
        Some(Call::Prove(folder)) => {
            end_with_the_worker();
            prove(&folder).map(Ok)
        }
        Some(Call::Verify(folder)) => {
            end_with_the_worker();
            verify(&folder)
        }
    };
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(text)) => {
            errln!("{text}");
            ExitCode::from(exit::INVALID as u8)
        }
        Err(text) => {
            errln!("{text}");
            ExitCode::FAILURE
        }
    }
}
