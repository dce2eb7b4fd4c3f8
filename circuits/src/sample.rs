//! Making blocks, for trials and tests, and checking any block as the circuits would.

use crate::field::{self, F};
use crate::kernel::{self, MAX_CALLS, Order};
use crate::private::{self, PrivateProof};
use crate::state::StateTree;
use crate::statement::Statements;
use crate::vm;
use arborist_core::backend::ProveError;
use arborist_core::block::{BLOCK_VERSION, Block, BlockError, Call, MAX_TRANSACTIONS, Transaction, Word};
use arborist_core::profile::MINI_ROLLUP;
use base64::Engine;
use plonky2::field::types::Field;
use rayon::prelude::*;

/// How many slots of a sample's state hold something before the block.
const FILLED_SLOTS: usize = 64;

/// Why no sample was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// A block has 1 to 65,536 transactions.
    #[error("{0} transactions, allowed are 1 to {MAX_TRANSACTIONS}")]
    Transactions(usize),
    /// The circuits allow 7 calls.
    #[error("transaction {transaction} has {calls} calls, the profile allows at most {MAX_CALLS}")]
    Calls {
        /// Its place in the block.
        transaction: usize,
        /// Its calls.
        calls: u8,
    },
    /// A number that can't stand in a proof.
    #[error(transparent)]
    Number(#[from] BlockError),
    /// A private proof failed.
    #[error("private proof: {0}")]
    Private(#[from] ProveError),
}

/// Pseudo-random values from a seed: the same seed, the same values, on every machine.
struct Values(blake3::OutputReader);

impl Values {
    fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("arborist mini-rollup-v1 sample block");
        hasher.update(&seed.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill(&mut out);
        out
    }

    fn word(&mut self) -> [F; 4] {
        field::from_word(&field::reduced(self.bytes())).unwrap_or([F::ZERO; 4])
    }

    fn slot(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }
}

/// Makes a valid block with `calls[t]` random calls in transaction t, on a random state.
///
/// States, calls and hashes follow from the seed alone; the private proofs are randomised, so their bytes differ
/// from run to run. Each takes about 5 CPU seconds; `progress` is told the number of transactions done.
///
/// # Errors
/// When the shape or a number is not allowed.
pub fn sample_block(
    calls: &[u8],
    chain_id: u64,
    block_number: u64,
    seed: u64,
    mut progress: impl FnMut(usize),
) -> Result<Block, SampleError> {
    if !(1..=MAX_TRANSACTIONS).contains(&calls.len()) {
        return Err(SampleError::Transactions(calls.len()));
    }
    if let Some((transaction, calls)) = calls.iter().enumerate().find(|(_, n)| **n > MAX_CALLS) {
        return Err(SampleError::Calls { transaction, calls: *calls });
    }
    let mut values = Values::new(seed);
    let mut state = StateTree::new();
    let filled: Vec<u16> = (0..FILLED_SLOTS).map(|_| values.slot()).collect();
    for slot in &filled {
        let value = values.word();
        state.set(*slot, value);
    }
    let mut block = Block {
        version: BLOCK_VERSION,
        profile: MINI_ROLLUP.to_owned(),
        chain_id,
        block_number,
        state_before: field::to_word(state.root()),
        state_after: field::to_word(state.root()),
        transactions: Vec::with_capacity(calls.len()),
    };
    check_numbers(&block)?;
    for (done, count) in calls.iter().enumerate() {
        let transaction = sample_transaction(&mut values, &mut state, &filled, *count)?;
        block.transactions.push(transaction);
        progress(done + 1);
    }
    block.state_after = field::to_word(state.root());
    Ok(block)
}

fn sample_transaction(
    values: &mut Values,
    state: &mut StateTree,
    filled: &[u16],
    count: u8,
) -> Result<Transaction, ProveError> {
    let mut commit = [F::ZERO; 4];
    let mut calls = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        // Every other call touches a slot that others touch too.
        let pick = values.slot();
        let slot = if pick & 1 == 0 { filled[usize::from(pick) % filled.len()] } else { values.slot() };
        let args = values.word();
        commit = kernel::add_call(commit, vm::call_hash(slot, args));
        calls.push(sample_call(state, slot, args));
    }
    let nonce = F::from_noncanonical_u64(u64::from_le_bytes(values.bytes()));
    let order = Order { secret: values.word(), nonce, calls_commit: commit };
    Ok(Transaction {
        hash: field::to_word(order.tx_hash()),
        private_proof: base64::engine::general_purpose::STANDARD.encode(private::make(&order)?),
        calls,
    })
}

fn sample_call(state: &mut StateTree, slot: u16, args: [F; 4]) -> Call {
    let (old, state_before) = (state.value(slot), field::to_word(state.root()));
    let siblings = state.siblings(slot).into_iter().map(field::to_word).collect();
    state.set(slot, vm::run(old, args));
    Call {
        slot,
        args: field::to_word(args),
        old_value: field::to_word(old),
        siblings,
        state_before,
        state_after: field::to_word(state.root()),
    }
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> BlockError {
    BlockError { field: field.into(), problem: problem.into() }
}

fn check_numbers(block: &Block) -> Result<(), BlockError> {
    for (name, value) in [("chain_id", block.chain_id), ("block_number", block.block_number)] {
        if field::element(value).is_none() {
            return Err(wrong(name, format!("{value}, allowed is up to 2^64 - 2^32")));
        }
    }
    Ok(())
}

/// Checks all that the circuits would refuse: valid field elements, Merkle paths, what each call leaves, and every
/// private proof (about 7 ms each, spread over the current thread pool). Format and chaining of states, which
/// [`Block::validate`] checks, are checked too.
///
/// # Errors
/// The first thing wrong, by field.
pub fn check_block(block: &Block) -> Result<(), BlockError> {
    if block.profile != MINI_ROLLUP {
        return Err(wrong("profile", format!("`{}`, these circuits are {MINI_ROLLUP}", block.profile)));
    }
    block.validate(usize::from(MAX_CALLS))?;
    check_numbers(block)?;
    Statements::new(block, Word([0; 32]))?;
    let transactions = block.transactions.par_iter().enumerate();
    match transactions.find_map_first(|(t, transaction)| check_transaction(t, transaction).err()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn check_transaction(index: usize, transaction: &Transaction) -> Result<(), BlockError> {
    let at = format!("transactions[{index}]");
    let mut commit = [F::ZERO; 4];
    for (c, call) in transaction.calls.iter().enumerate() {
        let (_, inputs) = vm::execute(&format!("{at}.calls[{c}]"), call)?;
        commit = kernel::add_call(commit, inputs.call_hash);
    }
    let field = format!("{at}.private_proof");
    let bytes = transaction.private_proof_bytes(index)?;
    let private = PrivateProof::open(&bytes).map_err(|problem| wrong(field.clone(), problem))?;
    let hash = field::to_word(private.tx_hash);
    if hash != transaction.hash {
        return Err(wrong(field, format!("it is of transaction {hash}, not of {}", transaction.hash)));
    }
    if private.calls_commit != commit {
        return Err(wrong(field, "it asks for other calls than the transaction has"));
    }
    Ok(())
}
