//! What every proof of a block has to state, worked out from the block alone.

use crate::field::{self, F};
use crate::kernel;
use crate::layout::{KernelInputs, RangeInputs, RootInputs, VmInputs};
use crate::merge;
use crate::verify::Published;
use crate::vm;
use arborist_core::backend::PublicInputs;
use arborist_core::block::{Block, BlockError, MAX_TRANSACTIONS, Word};
use plonky2::field::types::{Field, PrimeField64};

/// A call with what stands after it.
struct CallState {
    /// State root after it.
    after: [F; 4],
    /// Its hash.
    call_hash: [F; 4],
    /// Running hash over the transaction's calls up to it.
    acc: [F; 4],
}

/// The expected public inputs of every proof of a block. Built once in O(calls); each query is O(1), a range at
/// the right edge of the tree O(log transactions). About 100 bytes a call and 64 a transaction.
pub struct Statements {
    chain_id: F,
    block_number: F,
    prover_id: [F; 4],
    state_before: [F; 4],
    calls: Vec<CallState>,
    /// Number of calls before each transaction, and of all at the end.
    first_call: Vec<usize>,
    /// `commitments[k][i]`: over the 2^k transactions from i · 2^k on; `commitments[0]` are the transactions' hashes.
    commitments: Vec<Vec<[F; 4]>>,
}

impl Statements {
    /// Works out a block's statements for a prover ([`prover_word`](crate::prover_word) of its name).
    ///
    /// It takes the block's word for what its calls do: [`check_block`](crate::check_block) checks that.
    ///
    /// # Errors
    /// The first field that is no valid field element, or no or too many transactions.
    pub fn new(block: &Block, prover_id: Word) -> Result<Self, BlockError> {
        let count = block.transactions.len();
        if !(1..=MAX_TRANSACTIONS).contains(&count) {
            let problem = format!("{count} of them, allowed are 1 to {MAX_TRANSACTIONS}");
            return Err(BlockError { field: "transactions".into(), problem });
        }
        let mut calls = Vec::new();
        let mut first_call = vec![0];
        let mut hashes = Vec::with_capacity(count);
        for (t, transaction) in block.transactions.iter().enumerate() {
            hashes.push(vm::elements(format!("transactions[{t}].hash"), &transaction.hash)?);
            let mut acc = [F::ZERO; 4];
            for (c, call) in transaction.calls.iter().enumerate() {
                let at = format!("transactions[{t}].calls[{c}]");
                let after = vm::elements(format!("{at}.state_after"), &call.state_after)?;
                let args = vm::elements(format!("{at}.args"), &call.args)?;
                vm::check_elements(&at, call)?;
                let call_hash = vm::call_hash(call.slot, args);
                acc = kernel::add_call(acc, call_hash);
                calls.push(CallState { after, call_hash, acc });
            }
            first_call.push(calls.len());
        }
        Ok(Self {
            chain_id: number("chain_id", block.chain_id)?,
            block_number: number("block_number", block.block_number)?,
            prover_id: vm::elements("prover_id", &prover_id)?,
            state_before: vm::elements("state_before", &block.state_before)?,
            calls,
            first_call,
            commitments: commitments(hashes),
        })
    }

    /// The number of transactions.
    pub fn transactions(&self) -> usize {
        self.first_call.len() - 1
    }

    /// The state root before call number `call` of the block.
    fn state(&self, call: usize) -> [F; 4] {
        call.checked_sub(1).and_then(|c| self.calls.get(c)).map_or(self.state_before, |c| c.after)
    }

    /// The block's number of the transaction's call, from 0.
    fn call_index(&self, tx: usize, call: usize) -> Option<usize> {
        let index = self.first_call.get(tx)? + call;
        (index < *self.first_call.get(tx + 1)?).then_some(index)
    }

    /// `vm` of a transaction's call, both from 0. `None` when the block has none such.
    pub fn vm(&self, tx: usize, call: usize) -> Option<PublicInputs> {
        let index = self.call_index(tx, call)?;
        let CallState { after, call_hash, .. } = self.calls[index];
        let inputs = VmInputs { before: self.state(index), after, call_hash };
        Some(field::to_integers(&inputs.to_vec()))
    }

    /// `kernel/position` of a transaction; transactions from 0, positions from 1.
    pub fn kernel(&self, tx: usize, position: u8) -> Option<PublicInputs> {
        let call = usize::from(position).checked_sub(1)?;
        let index = self.call_index(tx, call)?;
        let CallState { after, acc, .. } = self.calls[index];
        let last = self.first_call[tx + 1] - 1;
        let inputs = KernelInputs {
            before: self.state(self.first_call[tx]),
            after,
            tx_hash: *self.commitments[0].get(tx)?,
            calls_commit: self.calls[last].acc,
            acc,
            count: F::from_canonical_u8(position),
        };
        Some(field::to_integers(&inputs.to_vec()))
    }

    /// `base` of a transaction, from 0.
    pub fn base(&self, tx: usize) -> Option<PublicInputs> {
        self.range(tx, 1)
    }

    /// `merge` (or, for one transaction, `base`) over `count` transactions from `first_tx` on, split as in
    /// RFC 6962.
    pub fn range(&self, first_tx: usize, count: usize) -> Option<PublicInputs> {
        self.range_inputs(first_tx, count).map(|inputs| field::to_integers(&inputs.to_vec()))
    }

    /// The root.
    pub fn root(&self) -> PublicInputs {
        let inputs = RootInputs {
            block_number: self.block_number,
            chain_id: self.chain_id,
            range: self.whole(),
            prover_id: self.prover_id,
        };
        field::to_integers(&inputs.to_vec())
    }

    /// What is published about the block.
    pub fn published(&self) -> Published {
        let range = self.whole();
        Published {
            chain_id: self.chain_id.to_canonical_u64(),
            block_number: self.block_number.to_canonical_u64(),
            state_before: field::to_word(range.before),
            state_after: field::to_word(range.after),
            transactions_commitment: field::to_word(range.commitment),
            transactions: range.count.to_canonical_u64(),
            prover_id: field::to_word(self.prover_id),
        }
    }

    fn whole(&self) -> RangeInputs<F> {
        self.inputs_unchecked(0, self.transactions())
    }

    fn range_inputs(&self, first: usize, count: usize) -> Option<RangeInputs<F>> {
        let end = first.checked_add(count)?;
        (count > 0 && end <= self.transactions()).then(|| self.inputs_unchecked(first, count))
    }

    fn inputs_unchecked(&self, first: usize, count: usize) -> RangeInputs<F> {
        RangeInputs {
            before: self.state(self.first_call[first]),
            after: self.state(self.first_call[first + count]),
            commitment: self.commitment(first, count),
            count: F::from_canonical_usize(count),
        }
    }

    fn commitment(&self, first: usize, count: usize) -> [F; 4] {
        if count.is_power_of_two() && first.is_multiple_of(count) {
            return self.commitments[count.trailing_zeros() as usize][first / count];
        }
        let left = split(count);
        merge::commit(self.commitment(first, left), self.commitment(first + left, count - left))
    }
}

/// How many of `count` > 1 transactions stand left: the largest power of two below it.
fn split(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

fn commitments(hashes: Vec<[F; 4]>) -> Vec<Vec<[F; 4]>> {
    let mut levels = vec![hashes];
    while let Some(last) = levels.last().filter(|l| l.len() > 1) {
        let (pairs, _) = last.as_chunks::<2>();
        levels.push(pairs.iter().map(|[left, right]| merge::commit(*left, *right)).collect());
    }
    levels
}

fn number(field: &str, value: u64) -> Result<F, BlockError> {
    field::element(value).ok_or_else(|| BlockError {
        field: field.into(),
        problem: format!("{value}, allowed is up to 2^64 - 2^32"),
    })
}
