//! Making blocks, for trials and tests, and checking any block as the circuits would.

use crate::field::{self, F};
use crate::kernel::{self, MAX_CALLS, Order};
use crate::private::{self, PrivateProof};
use crate::state::StateTree;
use crate::statement::Statements;
use crate::vm;
use arborist_core::backend::ProveError;
use arborist_core::block::{
    BLOCK_VERSION, Block, BlockError, Call, MAX_TRANSACTIONS, STATE_DEPTH, Transaction, Word,
};
use arborist_core::ids::ArtifactHash;
use arborist_core::profile::MINI_ROLLUP;
use arborist_core::text::echo;
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
    /// A private proof that was made could not be kept.
    #[error("{0}")]
    NotKept(String),
}

/// A block with its private proofs, in the transactions' order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The block, which names them by their hashes.
    pub block: Block,
    /// Their bytes.
    pub private_proofs: Vec<Vec<u8>>,
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
) -> Result<Sample, SampleError> {
    let mut private_proofs = vec![];
    let block = sample_each(calls, chain_id, block_number, seed, |proof| {
        private_proofs.push(proof);
        progress(private_proofs.len());
        Ok(())
    })?;
    Ok(Sample { block, private_proofs })
}

/// [`sample_block`], handing each private proof to `keep` as soon as it is made.
///
/// # Errors
/// When the shape or a number is not allowed; [`SampleError::NotKept`] as `keep` says.
pub fn sample_each(
    calls: &[u8],
    chain_id: u64,
    block_number: u64,
    seed: u64,
    mut keep: impl FnMut(Vec<u8>) -> Result<(), String>,
) -> Result<Block, SampleError> {
    let mut block = empty_block(calls, chain_id, block_number)?;
    let mut values = Values::new(seed);
    let mut state = StateTree::new();
    let filled: Vec<u16> = (0..FILLED_SLOTS).map(|_| values.slot()).collect();
    for slot in &filled {
        let value = values.word();
        state.set(*slot, value);
    }
    block.state_before = field::to_word(state.root());
    for count in calls {
        let (transaction, proof) = sample_transaction(&mut values, &mut state, &filled, *count)?;
        block.transactions.push(transaction);
        keep(proof).map_err(SampleError::NotKept)?;
    }
    block.state_after = field::to_word(state.root());
    Ok(block)
}

/// A block of the right form in which nothing can be proven but by stand-ins: states chain and hashes differ, and
/// that is all. Takes microseconds a call, where [`sample_block`] takes seconds. `private` says each private proof's hash.
///
/// # Errors
/// When the shape or a number is not allowed, or as `private` says.
pub fn made_up_block(
    calls: &[u8],
    chain_id: u64,
    block_number: u64,
    seed: u64,
    mut private: impl FnMut(usize) -> Result<ArtifactHash, String>,
) -> Result<Block, SampleError> {
    let mut block = empty_block(calls, chain_id, block_number)?;
    let mut values = Values::new(seed);
    block.state_before = field::to_word(values.word());
    let mut state = block.state_before;
    for (t, count) in calls.iter().enumerate() {
        let calls = (0..*count).map(|_| {
            let after = field::to_word(values.word());
            Call {
                slot: values.slot(),
                args: field::to_word(values.word()),
                old_value: field::to_word(values.word()),
                siblings: (0..STATE_DEPTH).map(|_| field::to_word(values.word())).collect(),
                state_before: std::mem::replace(&mut state, after),
                state_after: after,
            }
        });
        let calls = calls.collect();
        let hash = field::to_word(values.word());
        let private_proof = private(t).map_err(SampleError::NotKept)?;
        block.transactions.push(Transaction { hash, private_proof, calls });
    }
    block.state_after = state;
    Ok(block)
}

fn empty_block(calls: &[u8], chain_id: u64, block_number: u64) -> Result<Block, SampleError> {
    if !(1..=MAX_TRANSACTIONS).contains(&calls.len()) {
        return Err(SampleError::Transactions(calls.len()));
    }
    if let Some((transaction, calls)) = calls.iter().enumerate().find(|(_, n)| **n > MAX_CALLS) {
        return Err(SampleError::Calls { transaction, calls: *calls });
    }
    let block = Block {
        version: BLOCK_VERSION,
        profile: MINI_ROLLUP.to_owned(),
        chain_id,
        block_number,
        state_before: Word([0; 32]),
        state_after: Word([0; 32]),
        transactions: Vec::with_capacity(calls.len()),
    };
    check_numbers(&block)?;
    Ok(block)
}

fn sample_transaction(
    values: &mut Values,
    state: &mut StateTree,
    filled: &[u16],
    count: u8,
) -> Result<(Transaction, Vec<u8>), ProveError> {
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
    let proof = private::make(&order)?;
    let private_proof = ArtifactHash::of(&proof);
    Ok((Transaction { hash: field::to_word(order.tx_hash()), private_proof, calls }, proof))
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
/// private proof, which `private` gets by the transaction's place. About 7 ms a private proof and 1 ms a call, spread
/// over the current thread pool. Format and chaining of states, which [`Block::validate`] checks, are checked too.
///
/// # Errors
/// The first thing wrong, by field; or as `private` says.
pub fn check_block(
    block: &Block,
    private: impl Fn(usize) -> Result<Vec<u8>, BlockError> + Sync,
) -> Result<(), BlockError> {
    check_statements(block)?;
    let transactions = block.transactions.par_iter().enumerate();
    let checked = transactions.map(|(t, transaction)| check_transaction(t, transaction, &private(t)?));
    match checked.find_map_first(Result::err) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// [`check_block`], which goes on after a fault: the first of each transaction, in order.
///
/// # Errors
/// Something is wrong with the block as a whole.
pub fn faults_of_block(
    block: &Block,
    private: impl Fn(usize) -> Result<Vec<u8>, BlockError> + Sync,
) -> Result<Vec<BlockError>, BlockError> {
    check_statements(block)?;
    let transactions = block.transactions.par_iter().enumerate();
    let checked = transactions.map(|(t, transaction)| check_transaction(t, transaction, &private(t)?));
    Ok(checked.filter_map(Result::err).collect())
}

fn check_statements(block: &Block) -> Result<(), BlockError> {
    if block.profile != MINI_ROLLUP {
        return Err(wrong(
            "profile",
            format!("`{}`, these circuits are {MINI_ROLLUP}", echo(&block.profile)),
        ));
    }
    block.validate(usize::from(MAX_CALLS))?;
    Statements::new(block, Word([0; 32])).map(drop)
}

fn check_transaction(index: usize, transaction: &Transaction, private: &[u8]) -> Result<(), BlockError> {
    let at = format!("transactions[{index}]");
    let mut commit = [F::ZERO; 4];
    for (c, call) in transaction.calls.iter().enumerate() {
        let (_, inputs) = vm::execute(&format!("{at}.calls[{c}]"), call)?;
        commit = kernel::add_call(commit, inputs.call_hash);
    }
    let field = format!("{at}.private_proof");
    let found = ArtifactHash::of(private);
    if found != transaction.private_proof {
        return Err(wrong(
            field,
            format!("{}, but the object has the hash {found}", transaction.private_proof),
        ));
    }
    let private = PrivateProof::open(private).map_err(|problem| wrong(field.clone(), problem))?;
    let hash = field::to_word(private.tx_hash);
    if hash != transaction.hash {
        return Err(wrong(field, format!("it is of transaction {hash}, not of {}", transaction.hash)));
    }
    if private.calls_commit != commit {
        return Err(wrong(field, "it asks for other calls than the transaction has"));
    }
    Ok(())
}
