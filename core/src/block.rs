//! The block file: what the sequencer hands over and what is proven.
//!
//! JSON, version 1, written by `arborist block new` and described by `docs/block.schema.json`.
//! Checking the format and the chain of states is here; what the field elements mean is the
//! circuits' affair.

use crate::ids::ArtifactHash;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The version of the format this code reads and writes.
pub const BLOCK_VERSION: u32 = 1;

/// The largest block file accepted, in bytes (512 MiB: some 2,900 transactions with their private proofs).
pub const MAX_BLOCK_BYTES: u64 = 512 << 20;

/// The most transactions a block may have.
pub const MAX_TRANSACTIONS: usize = 1 << 16;

/// Depth of the state tree: 65,536 slots.
pub const STATE_DEPTH: usize = 16;

/// 32 bytes as 64 hex digits: four field elements of 8 bytes, little endian each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
pub struct Word(pub [u8; 32]);

impl TryFrom<String> for Word {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(|_| {
            format!("`{}` is not 64 hexadecimal digits", text.chars().take(80).collect::<String>())
        })?;
        Ok(Self(bytes))
    }
}

impl From<Word> for String {
    fn from(word: Word) -> String {
        hex::encode(word.0)
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A block to prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// The circuit profile, e.g. `mini-rollup-v1`.
    #[schemars(length(min = 1, max = 64))]
    pub profile: String,
    /// The chain the block belongs to.
    pub chain_id: u64,
    /// The block's number on that chain.
    pub block_number: u64,
    /// Root of the state tree before the first call.
    pub state_before: Word,
    /// Root of the state tree after the last call.
    pub state_after: Word,
    /// The block's transactions in their order, 1 to 65,536.
    #[schemars(length(min = 1, max = 65_536))]
    pub transactions: Vec<Transaction>,
}

/// One transaction: the sender's private proof and its public calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// The transaction's hash, unique in the block.
    pub hash: Word,
    /// The sender's private proof, base64.
    pub private_proof: String,
    /// Public calls in their order, 0 to the profile's maximum.
    pub calls: Vec<Call>,
}

/// One public call: it reads a slot of the state, runs on its arguments, writes the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The slot, 0 to 65,535.
    pub slot: u16,
    /// The arguments.
    pub args: Word,
    /// The slot's value before.
    pub old_value: Word,
    /// The slot's Merkle siblings before, from the leaf up; 16 of them.
    #[schemars(length(min = 16, max = 16))]
    pub siblings: Vec<Word>,
    /// State root before.
    pub state_before: Word,
    /// State root after.
    pub state_after: Word,
}

/// What is wrong with a block file: one line that names the field and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BlockError {
    /// Path of the field, e.g. `transactions[3].calls[1].state_before`.
    pub field: String,
    /// What stands there and what is allowed.
    pub problem: String,
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> BlockError {
    BlockError { field: field.into(), problem: problem.into() }
}

impl Block {
    /// Reads and checks a block file for a profile that allows `max_calls` calls a transaction.
    ///
    /// # Errors
    /// The first thing wrong with it, by field.
    pub fn parse(json: &[u8], max_calls: usize) -> Result<Self, BlockError> {
        if json.len() as u64 > MAX_BLOCK_BYTES {
            return Err(wrong(
                "file",
                format!("{} bytes, allowed are at most {MAX_BLOCK_BYTES}", json.len()),
            ));
        }
        let version = serde_json::from_slice::<VersionOnly>(json)
            .map_err(|e| wrong("file", format!("not a block in JSON: {e}")))?
            .version;
        if version != BLOCK_VERSION {
            return Err(wrong("version", format!("{version}, allowed is {BLOCK_VERSION}")));
        }
        let block: Self = serde_json::from_slice(json).map_err(|e| wrong("file", e.to_string()))?;
        block.validate(max_calls)?;
        Ok(block)
    }

    /// Checks everything that can be checked without the circuits.
    ///
    /// # Errors
    /// The first thing wrong, by field.
    pub fn validate(&self, max_calls: usize) -> Result<(), BlockError> {
        let count = self.transactions.len();
        if !(1..=MAX_TRANSACTIONS).contains(&count) {
            return Err(wrong(
                "transactions",
                format!("{count} of them, allowed are 1 to {MAX_TRANSACTIONS}"),
            ));
        }
        let mut seen = HashMap::with_capacity(count);
        let mut state = ("state_before".to_owned(), self.state_before);
        for (t, transaction) in self.transactions.iter().enumerate() {
            let field = format!("transactions[{t}]");
            if let Some(first) = seen.insert(transaction.hash, t) {
                return Err(wrong(
                    format!("{field}.hash"),
                    format!(
                        "{} stands already at transactions[{first}]; hashes must differ",
                        transaction.hash
                    ),
                ));
            }
            if transaction.calls.len() > max_calls {
                return Err(wrong(
                    format!("{field}.calls"),
                    format!("{} of them, the profile allows at most {max_calls}", transaction.calls.len()),
                ));
            }
            transaction.validate_calls(&field, &mut state)?;
        }
        let (field, after) = state;
        if after != self.state_after {
            return Err(wrong(
                "state_after",
                format!("{}, but {field} leaves {after}; states must chain", self.state_after),
            ));
        }
        Ok(())
    }

    /// State roots before and after each transaction, in order.
    pub fn transaction_states(&self) -> Vec<(Word, Word)> {
        let mut state = self.state_before;
        let after = |t: &Transaction, before| t.calls.last().map_or(before, |c: &Call| c.state_after);
        self.transactions
            .iter()
            .map(|t| {
                let before = state;
                state = after(t, before);
                (before, state)
            })
            .collect()
    }
}

impl Transaction {
    fn validate_calls(&self, field: &str, state: &mut (String, Word)) -> Result<(), BlockError> {
        for (c, call) in self.calls.iter().enumerate() {
            let field = format!("{field}.calls[{c}]");
            if call.siblings.len() != STATE_DEPTH {
                return Err(wrong(
                    format!("{field}.siblings"),
                    format!("{} of them, allowed are {STATE_DEPTH}", call.siblings.len()),
                ));
            }
            if call.state_before != state.1 {
                return Err(wrong(
                    format!("{field}.state_before"),
                    format!("{}, but {} is {}; states must chain", call.state_before, state.0, state.1),
                ));
            }
            *state = (format!("{field}.state_after"), call.state_after);
        }
        Ok(())
    }

    /// The private proof's bytes.
    ///
    /// # Errors
    /// When it is not base64; `index` is the transaction's place, for the field's name.
    pub fn private_proof_bytes(&self, index: usize) -> Result<Vec<u8>, BlockError> {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD
            .decode(&self.private_proof)
            .map_err(|e| wrong(format!("transactions[{index}].private_proof"), format!("not base64: {e}")))
    }
}

impl Call {
    /// The call as it is put into the artifact store for the worker that proves it: its JSON.
    pub fn to_input(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`Call::to_input`] wrote.
    ///
    /// # Errors
    /// When it is no call; the text names the field.
    pub fn from_input(json: &[u8]) -> Result<Self, BlockError> {
        serde_json::from_slice(json).map_err(|e| wrong("call", e.to_string()))
    }

    /// The key of [`Call::to_input`] in the artifact store.
    pub fn input_hash(&self) -> ArtifactHash {
        ArtifactHash::of(&self.to_input())
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}
