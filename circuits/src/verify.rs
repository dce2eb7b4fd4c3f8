//! Checking proofs. Nothing is built for it: keys and shapes come from the pinned file.

use crate::field::{self, C, D, InnerProof, prover_word};
use crate::keys::{Keys, Shape};
use crate::layout::{self, RangeInputs, RootInputs};
use crate::statement::Statements;
use arborist_core::backend::{Proof, PublicInputs, VerifyError};
use arborist_core::block::{Block, BlockError, MAX_TRANSACTIONS, Word};
use arborist_core::circuit::Circuit;
use plonky2::plonk::circuit_data::VerifierCircuitData;
use plonky2::util::serialization::{Buffer, Read, Write};
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The most bytes a proof may have. Proofs of the profile have 117,920 (`vm`) or 134,736.
pub const MAX_PROOF_BYTES: usize = 163_840;

/// A proof's bytes, without its public inputs.
pub(crate) fn encode(proof: &InnerProof) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAX_PROOF_BYTES);
    // Writing to a vector cannot fail; were it to, the proof would come out too short and be refused.
    let _ = out.write_proof(&proof.proof);
    out
}

/// Reads a proof and puts its public inputs back. Only the one canonical encoding is accepted.
pub(crate) fn decode(circuit: Circuit, bytes: &[u8], inputs: &[u64]) -> Result<InnerProof, VerifyError> {
    let malformed = |reason: String| VerifyError::Malformed { circuit, reason };
    if bytes.len() > MAX_PROOF_BYTES {
        let reason = format!("{} bytes, allowed are {MAX_PROOF_BYTES}", bytes.len());
        return Err(malformed(reason));
    }
    let wanted = layout::length(circuit);
    if inputs.len() != wanted {
        return Err(malformed(format!("{} public inputs, the circuit has {wanted}", inputs.len())));
    }
    let public_inputs = field::to_elements(inputs)
        .ok_or_else(|| malformed("a public input is not below 2^64 - 2^32 + 1".into()))?;
    let common = Keys::pinned().shape(Shape::of(circuit)).map_err(|e| malformed(e.to_string()))?;
    // The library asserts in debug builds that elements are canonical.
    let read = catch_unwind(AssertUnwindSafe(|| Buffer::new(bytes).read_proof::<_, C, D>(common)));
    let Ok(Ok(proof)) = read else {
        return Err(malformed("not an encoded proof of this shape".into()));
    };
    let proof = InnerProof { proof, public_inputs };
    if encode(&proof) != bytes {
        return Err(malformed("not the canonical encoding".into()));
    }
    Ok(proof)
}

/// Checks a decoded proof.
pub(crate) fn check(circuit: Circuit, proof: &InnerProof) -> Result<(), VerifyError> {
    let invalid = |reason: String| VerifyError::Invalid { circuit, reason };
    let keys = Keys::pinned();
    let data = VerifierCircuitData::<_, C, D> {
        verifier_only: keys.key(circuit).map_err(|e| invalid(e.to_string()))?.clone(),
        common: keys.shape(Shape::of(circuit)).map_err(|e| invalid(e.to_string()))?.clone(),
    };
    match catch_unwind(AssertUnwindSafe(|| data.verify(proof.clone()))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(invalid(one_line(&error))),
        Err(_) => Err(invalid("the verifier panicked".into())),
    }
}

/// Decodes and checks a proof as it stands in the artifact store.
pub(crate) fn open(circuit: Circuit, proof: &Proof) -> Result<InnerProof, VerifyError> {
    if Keys::pinned().hash(circuit) != Ok(proof.vk_hash) {
        return Err(VerifyError::WrongKey { circuit });
    }
    let inner = decode(circuit, &proof.bytes, &proof.public_inputs)?;
    check(circuit, &inner)?;
    Ok(inner)
}

/// The library's error on one line; its texts hold no secrets but may be long.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    error.to_string().replace('\n', " ").chars().take(200).collect()
}

/// What is published about a proven block: with the root proof, all that a verifier needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The chain.
    pub chain_id: u64,
    /// The block's number.
    pub block_number: u64,
    /// State root before the block.
    pub state_before: Word,
    /// State root after it.
    pub state_after: Word,
    /// Commitment to its transactions.
    pub transactions_commitment: Word,
    /// How many transactions it has.
    pub transactions: u64,
    /// Who proved it; see [`prover_word`].
    pub prover_id: Word,
}

/// Which check of a root proof failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// No block has that many transactions.
    #[error("{0} transactions are published, a block has 1 to {MAX_TRANSACTIONS}")]
    Count(u64),
    /// A published value can't stand in a proof.
    #[error("the published {0} is no valid field element")]
    NotAnElement(&'static str),
    /// The proof is about something else than what is published.
    #[error("{field}: the proof says {proof}, published is {published}")]
    Differs {
        /// The field.
        field: &'static str,
        /// What the proof says.
        proof: String,
        /// What is published.
        published: String,
    },
    /// The proof is not valid.
    #[error(transparent)]
    Proof(#[from] VerifyError),
}

/// ceil(log2(transactions)): the height of a range of that many, from 1 on.
pub fn height(transactions: u64) -> u8 {
    (u64::BITS - transactions.saturating_sub(1).leading_zeros()) as u8
}

impl Published {
    /// What is published about a block proven by the prover of this name.
    ///
    /// # Errors
    /// The block's field that is no valid element.
    pub fn of(block: &Block, prover_name: &str) -> Result<Self, BlockError> {
        Ok(Statements::new(block, prover_word(prover_name))?.published())
    }

    /// The root circuit of a block of this many transactions.
    ///
    /// # Errors
    /// When no block has that many.
    pub fn circuit(&self) -> Result<Circuit, RootError> {
        match usize::try_from(self.transactions) {
            Ok(1..=MAX_TRANSACTIONS) => Ok(Circuit::Root { height: height(self.transactions) }),
            _ => Err(RootError::Count(self.transactions)),
        }
    }

    /// The root's public inputs.
    ///
    /// # Errors
    /// The first value that is no valid field element.
    pub fn public_inputs(&self) -> Result<PublicInputs, RootError> {
        let number =
            |name: &'static str, value: u64| field::element(value).ok_or(RootError::NotAnElement(name));
        let word =
            |name: &'static str, value: &Word| field::from_word(value).ok_or(RootError::NotAnElement(name));
        let inputs = RootInputs {
            block_number: number("block number", self.block_number)?,
            chain_id: number("chain id", self.chain_id)?,
            range: RangeInputs {
                before: word("state before", &self.state_before)?,
                after: word("state after", &self.state_after)?,
                commitment: word("transactions' commitment", &self.transactions_commitment)?,
                count: number("count of transactions", self.transactions)?,
            },
            prover_id: word("prover id", &self.prover_id)?,
        };
        Ok(field::to_integers(&inputs.to_vec()))
    }
}

/// Checks a root proof against what is published: the whole work of an independent verifier.
///
/// # Errors
/// Which check failed.
pub fn verify_root(published: &Published, proof: &Proof) -> Result<(), RootError> {
    let circuit = published.circuit()?;
    let wanted = published.public_inputs()?;
    let mut at = 0;
    for (field, length) in layout::fields(circuit) {
        let range = at..at + length;
        at = range.end;
        let (found, wanted) = (proof.public_inputs.get(range.clone()).unwrap_or_default(), &wanted[range]);
        if found != wanted {
            let (proof, published) = (layout::show(found), layout::show(wanted));
            return Err(RootError::Differs { field, proof, published });
        }
    }
    open(circuit, proof)?;
    Ok(())
}
