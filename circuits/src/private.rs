//! The sender's private proof, as it lies in a block: the transaction's hash, the hash over its calls, and the
//! proof that whoever made it knows the secret behind that hash.

use crate::compile::Targets;
use crate::field::{self, F, InnerProof};
use crate::kernel::{self, Order, PRIVATE};
use crate::prove;
use crate::verify;
use arborist_core::backend::{Cancel, ProveError};
use arborist_core::block::Word;

/// A private proof taken apart. Layout: transaction hash, hash over its calls (32 bytes each), proof.
pub(crate) struct PrivateProof {
    pub tx_hash: [F; 4],
    pub calls_commit: [F; 4],
    pub proof: InnerProof,
}

impl PrivateProof {
    /// Reads and verifies one; the error says what is wrong with it.
    pub(crate) fn open(bytes: &[u8]) -> Result<Self, String> {
        let torn = || "shorter than a private proof's header".to_owned();
        let (hash, rest) = bytes.split_first_chunk::<32>().ok_or_else(torn)?;
        let (commit, rest) = rest.split_first_chunk::<32>().ok_or_else(torn)?;
        let elements = |bytes: &[u8; 32]| {
            field::from_word(&Word(*bytes)).ok_or_else(|| "its header is no field elements".to_owned())
        };
        let (tx_hash, calls_commit) = (elements(hash)?, elements(commit)?);
        let inputs = field::to_integers(&kernel::private_inputs(tx_hash, calls_commit).to_vec());
        let proof = verify::decode(PRIVATE, rest, &inputs).map_err(|e| e.to_string())?;
        verify::check(PRIVATE, &proof).map_err(|e| e.to_string())?;
        Ok(Self { tx_hash, calls_commit, proof })
    }
}

/// Makes the private proof of an order, on the current thread pool.
pub(crate) fn make(order: &Order) -> Result<Vec<u8>, ProveError> {
    let proof = prove::run(PRIVATE, &Cancel::default(), |targets, w| match targets {
        Targets::Private(targets) => targets.assign(w, order),
        _ => anyhow::bail!("not the private proof's circuit"),
    })?;
    let mut out = field::to_word(order.tx_hash()).0.to_vec();
    out.extend(field::to_word(order.calls_commit).0);
    out.extend(verify::encode(&proof));
    Ok(out)
}
