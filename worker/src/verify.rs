//! `arborist-worker verify`: one proof object, by the backend that made it.

use crate::artifacts::MAX_OBJECT_BYTES;
use crate::backend::{CheckError, Prover};
use arborist_core::backend::Cancel;
use arborist_core::circuit::Circuit;
use arborist_core::ids::TaskId;
use arborist_core::proof_object::{self, ProofObject};
use std::io::Read;
use std::path::Path;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The proof holds. Exit code 0.
    Valid {
        /// What it states.
        public_inputs: Vec<u64>,
    },
    /// It does not. Exit code 1.
    Invalid(String),
    /// Can't be said. Exit code 2.
    Unknown(String),
}

/// Reads a proof object, `-` from standard input.
fn read(object: &Path) -> std::io::Result<Vec<u8>> {
    if object != Path::new("-") {
        return std::fs::read(object);
    }
    let mut bytes = vec![];
    // one byte more than any object has: what is cut off is no whole object
    std::io::stdin().take(MAX_OBJECT_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks the proof object in a file: envelope and signature, circuit, and the proof itself. `task` is
/// checked too if given.
pub fn verify(prover: &dyn Prover, circuit: Circuit, object: &Path, task: Option<TaskId>) -> Verdict {
    let bytes = match read(object) {
        Ok(bytes) => bytes,
        Err(error) => return Verdict::Unknown(format!("{}: {error}", object.display())),
    };
    let opened = match task {
        Some(task) => ProofObject::open(&task, &bytes),
        None => proof_object_of_any_task(&bytes),
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(bad) => return Verdict::Invalid(bad.to_string()),
    };
    if opened.circuit != circuit {
        return Verdict::Invalid(format!("it is a proof of {}, not of {circuit}", opened.circuit));
    }
    match prover.verify(circuit, &opened.proof, &Cancel::default()) {
        Ok(()) => Verdict::Valid { public_inputs: opened.proof.public_inputs },
        Err(CheckError::Bad(bad)) => Verdict::Invalid(bad.to_string()),
        Err(CheckError::Unable(text)) => Verdict::Unknown(text),
    }
}

/// Opens an object as the proof of whichever task it names.
fn proof_object_of_any_task(bytes: &[u8]) -> Result<ProofObject, proof_object::BadObject> {
    match ProofObject::open(&TaskId([0; 32]), bytes) {
        // everything else was checked before: only the name is left
        Err(proof_object::BadObject::WrongTask { found, .. }) => match found.parse() {
            Ok(task) => ProofObject::open(&task, bytes),
            Err(_) => Err(proof_object::BadObject::Torn("task id")),
        },
        other => other,
    }
}
