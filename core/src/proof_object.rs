//! A proof as it lies in the artifact store: the durable record that its task is done.
//!
//! Layout: the magic `ARBPRF01`, a 4-byte little-endian length, that many bytes of a protobuf
//! [`ProofHeader`], then the proof's bytes. The header names the task,
//! the maker and the payload's BLAKE3 hash, and carries the maker's Ed25519 signature over all
//! of it, so a torn or forged object is told apart from a good one without asking anybody.

use crate::backend::Proof;
use crate::circuit::{Circuit, Kind};
use crate::ids::TaskId;
use crate::wire::ProofHeader;
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use prost::Message;

const MAGIC: &[u8; 8] = b"ARBPRF01";
const MAX_HEADER: usize = 64 << 10;

/// The key of a task's proof in the artifact store.
pub fn proof_key(task: &TaskId) -> String {
    format!("proofs/{task}")
}

/// The key of an input in the artifact store.
pub fn input_key(hash: &crate::ids::ArtifactHash) -> String {
    format!("inputs/{hash}")
}

/// Who made a proof, where, when and at what cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    /// The worker's name.
    pub worker: String,
    /// The machine it ran on.
    pub node: String,
    /// When the proof was finished, milliseconds since 1970.
    pub finished_unix_ms: u64,
    /// Wall time of the proof in milliseconds.
    pub millis: u32,
    /// CPU time of the proof in milliseconds, all threads.
    pub cpu_millis: u32,
}

/// A proof object taken apart; its signature and payload hash hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofObject {
    /// The task it is for.
    pub task: TaskId,
    /// The circuit that made it.
    pub circuit: Circuit,
    /// The proof.
    pub proof: Proof,
    /// Who made it.
    pub maker: Maker,
    /// The maker's public key.
    pub maker_key: [u8; 32],
}

/// Why bytes are no proof object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// Shorter than it says, or no header.
    #[error("truncated or not a proof object: {0}")]
    Torn(&'static str),
    /// The payload is not what the header names.
    #[error("payload hash differs from the header's")]
    WrongPayload,
    /// The signature does not fit.
    #[error("the maker's signature does not hold")]
    WrongSignature,
    /// A proof, but for another task.
    #[error("it is the proof of task {found}, not of {expected}")]
    WrongTask {
        /// The task asked for.
        expected: String,
        /// The task it names.
        found: String,
    },
}

impl ProofObject {
    /// Signs and writes a proof.
    pub fn seal(task: TaskId, circuit: Circuit, proof: &Proof, maker: &Maker, key: &SigningKey) -> Vec<u8> {
        let mut header = ProofHeader {
            task: task.0.to_vec(),
            kind: circuit.kind().index() as u32,
            param: u32::from(circuit.param()),
            worker: maker.worker.clone(),
            node: maker.node.clone(),
            finished_unix_ms: maker.finished_unix_ms,
            millis: maker.millis,
            cpu_millis: maker.cpu_millis,
            public_inputs: proof.public_inputs.clone(),
            vk_hash: proof.vk_hash.to_vec(),
            payload_blake3: blake3::hash(&proof.bytes).as_bytes().to_vec(),
            payload_bytes: proof.bytes.len() as u64,
            maker_key: key.verifying_key().to_bytes().to_vec(),
            signature: Vec::new(),
        };
        header.signature = key.sign(&header.encode_to_vec()).to_bytes().to_vec();
        let header = header.encode_to_vec();
        let mut out = Vec::with_capacity(12 + header.len() + proof.bytes.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&(header.len() as u32).to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&proof.bytes);
        out
    }

    /// Reads a proof object for `task` and checks hash and signature.
    ///
    /// # Errors
    /// What is wrong with it. Whether the proof itself is valid is the backend's to say.
    pub fn open(task: &TaskId, bytes: &[u8]) -> Result<Self, BadObject> {
        let (header, payload) = Self::split(bytes)?;
        let signed = ProofHeader { signature: Vec::new(), ..header.clone() };
        let key: [u8; 32] =
            header.maker_key.as_slice().try_into().map_err(|_| BadObject::Torn("maker key"))?;
        let signature = Signature::from_slice(&header.signature).map_err(|_| BadObject::Torn("signature"))?;
        VerifyingKey::from_bytes(&key)
            .and_then(|k| k.verify(&signed.encode_to_vec(), &signature))
            .map_err(|_| BadObject::WrongSignature)?;
        if blake3::hash(payload).as_bytes()[..] != header.payload_blake3[..] {
            return Err(BadObject::WrongPayload);
        }
        let found = TaskId::from_slice(&header.task).ok_or(BadObject::Torn("task id"))?;
        if found != *task {
            return Err(BadObject::WrongTask { expected: task.to_string(), found: found.to_string() });
        }
        let kind = Kind::from_index(header.kind as usize).ok_or(BadObject::Torn("kind"))?;
        let param = u8::try_from(header.param).map_err(|_| BadObject::Torn("circuit"))?;
        Ok(Self {
            task: found,
            circuit: Circuit::new(kind, param),
            proof: Proof {
                bytes: payload.to_vec(),
                public_inputs: header.public_inputs,
                vk_hash: header.vk_hash.as_slice().try_into().map_err(|_| BadObject::Torn("vk hash"))?,
            },
            maker: Maker {
                worker: header.worker,
                node: header.node,
                finished_unix_ms: header.finished_unix_ms,
                millis: header.millis,
                cpu_millis: header.cpu_millis,
            },
            maker_key: key,
        })
    }

    fn split(bytes: &[u8]) -> Result<(ProofHeader, &[u8]), BadObject> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(BadObject::Torn("no magic"))?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(BadObject::Torn("no header"))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_HEADER || rest.len() < length {
            return Err(BadObject::Torn("header cut off"));
        }
        let (header, payload) = rest.split_at(length);
        let header = ProofHeader::decode(header).map_err(|_| BadObject::Torn("header"))?;
        if payload.len() as u64 != header.payload_bytes {
            return Err(BadObject::Torn("payload cut off"));
        }
        Ok((header, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> (TaskId, Vec<u8>) {
        let task = TaskId([7; 32]);
        let proof = Proof { bytes: vec![1; 500], public_inputs: vec![1, u64::MAX], vk_hash: [3; 32] };
        let maker =
            Maker { worker: "w".into(), node: "n".into(), finished_unix_ms: 5, millis: 6, cpu_millis: 7 };
        let key = SigningKey::from_bytes(&[9; 32]);
        (task, ProofObject::seal(task, Circuit::Merge { height: 3 }, &proof, &maker, &key))
    }

    #[test]
    fn what_was_sealed_opens() {
        let (task, bytes) = sealed();
        let object = ProofObject::open(&task, &bytes).unwrap();
        assert_eq!(object.circuit, Circuit::Merge { height: 3 });
        assert_eq!(object.proof.public_inputs, [1, u64::MAX]);
        assert_eq!(object.maker.worker, "w");
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let (task, bytes) = sealed();
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 0x40;
            assert!(ProofObject::open(&task, &bad).is_err(), "byte {i} changed");
            assert!(ProofObject::open(&task, &bytes[..i]).is_err(), "cut at {i}");
        }
    }

    #[test]
    fn a_proof_of_another_task_is_refused() {
        let (_, bytes) = sealed();
        assert!(matches!(ProofObject::open(&TaskId([8; 32]), &bytes), Err(BadObject::WrongTask { .. })));
    }
}
