//! The block file: what the sequencer hands over and what is proven.
//!
//! JSON, version 2, written by `arborist block new` and described by `docs/block.schema.json`: a manifest that names
//! the private proofs, objects of their own, by their hashes. Checking the format and the chain of states is here; what
//! the field elements mean is the circuits' affair.

mod expect;
mod read;
#[cfg(test)]
mod tests;

use crate::ids::ArtifactHash;
use crate::text::echo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Read;

/// The version of the format this code reads and writes.
pub const BLOCK_VERSION: u32 = 2;

/// The largest block file accepted, in bytes (512 MiB). With two calls a transaction 61,440 transactions take 185 MB.
pub const MAX_BLOCK_BYTES: u64 = 512 << 20;

/// The most transactions a block may have.
pub const MAX_TRANSACTIONS: usize = 1 << 16;

/// The most bytes a private proof may have (1 MiB); those of the embedded circuits have 134,800.
pub const MAX_PRIVATE_PROOF_BYTES: u64 = 1 << 20;

/// Depth of the state tree: 65,536 slots.
pub const STATE_DEPTH: usize = 16;

/// The largest number that is a field element: 2^64 − 2^32.
const MAX_ELEMENT: u64 = u64::MAX - (1 << 32) + 1;

/// 32 bytes as 64 lower-case hex digits: four field elements of 8 bytes, little endian each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
pub struct Word(pub [u8; 32]);

impl Word {
    /// Reads 64 hexadecimal digits in lower case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(Self(bytes))
    }
}

impl TryFrom<String> for Word {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{}` is not 64 hexadecimal digits in lower case", echo(&text));
        Self::parse(&text).ok_or_else(wrong)
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Block {
    /// Version of this format: 2.
    #[schemars(range(min = 2, max = 2))]
    pub version: u32,
    /// The circuit profile, e.g. `mini-rollup-v1`.
    #[schemars(length(min = 1, max = 64))]
    pub profile: String,
    /// The chain the block belongs to.
    #[schemars(range(max = 18_446_744_069_414_584_320_u64))]
    pub chain_id: u64,
    /// The block's number on that chain.
    #[schemars(range(max = 18_446_744_069_414_584_320_u64))]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Transaction {
    /// The transaction's hash, unique in the block.
    pub hash: Word,
    /// The BLAKE3 hash of the sender's private proof, an object of its own.
    #[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
    pub private_proof: ArtifactHash,
    /// Public calls in their order, 0 to the profile's maximum.
    pub calls: Vec<Call>,
}

/// One public call: it reads a slot of the state, runs on its arguments, writes the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
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

fn too_long(bytes: u64) -> BlockError {
    wrong("file", format!("{bytes} bytes, allowed are at most {MAX_BLOCK_BYTES}"))
}

impl Block {
    /// Reads and checks a block file for a profile that allows `max_calls` calls a transaction.
    ///
    /// # Errors
    /// The first thing wrong with it, by field.
    pub fn parse(json: &[u8], max_calls: usize) -> Result<Self, BlockError> {
        if json.len() as u64 > MAX_BLOCK_BYTES {
            return Err(too_long(json.len() as u64));
        }
        let block = read::block_in(json, max_calls)?;
        block.validate(max_calls)?;
        Ok(block)
    }

    /// The same from a stream: of the file's text nothing is kept.
    ///
    /// # Errors
    /// The first thing wrong with it, by field; also when it is longer than a block file may be, or can't be read.
    pub fn read(file: impl Read, max_calls: usize) -> Result<Self, BlockError> {
        Self::read_at_most(file, max_calls, MAX_BLOCK_BYTES)
    }

    fn read_at_most(file: impl Read, max_calls: usize, max_bytes: u64) -> Result<Self, BlockError> {
        let mut file = file.take(max_bytes + 1);
        let block = read::block_of(&mut file, max_calls);
        if file.limit() == 0 {
            let problem = format!("more than {max_bytes} bytes, the most a block file may have");
            return Err(wrong("file", problem));
        }
        let block = block?;
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
        read::call_in(json).map_err(|BlockError { field, problem }| {
            let field = if field == expect::FILE { "call".into() } else { format!("call.{field}") };
            BlockError { field, problem }
        })
    }

    /// The key of [`Call::to_input`] in the artifact store.
    pub fn input_hash(&self) -> ArtifactHash {
        ArtifactHash::of(&self.to_input())
    }
}
