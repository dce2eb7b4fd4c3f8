//! What stands at which place of a proof's public inputs. One definition for values and for targets.

use arborist_core::circuit::Circuit;

/// Public inputs of `vm`: 12 elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VmInputs<T> {
    /// State root before the call.
    pub before: [T; 4],
    /// State root after the call.
    pub after: [T; 4],
    /// Hash of slot and arguments.
    pub call_hash: [T; 4],
}

/// Public inputs of `kernel/K` and of the private proof, `kernel/0`: 21 elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelInputs<T> {
    /// State root before the transaction's first call; zero in a private proof.
    pub before: [T; 4],
    /// State root after its latest call; zero in a private proof.
    pub after: [T; 4],
    /// The transaction's hash.
    pub tx_hash: [T; 4],
    /// Running hash over all calls that the sender asked for.
    pub calls_commit: [T; 4],
    /// Running hash over the calls executed so far.
    pub acc: [T; 4],
    /// How many calls were executed so far.
    pub count: T,
}

/// Public inputs of `base` and `merge/H`: 13 elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RangeInputs<T> {
    /// State root before the range's first transaction.
    pub before: [T; 4],
    /// State root after its last.
    pub after: [T; 4],
    /// Commitment to its transactions.
    pub commitment: [T; 4],
    /// How many transactions.
    pub count: T,
}

/// Public inputs of `root/H`: 19 elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RootInputs<T> {
    /// The block's number.
    pub block_number: T,
    /// Its chain.
    pub chain_id: T,
    /// All its transactions.
    pub range: RangeInputs<T>,
    /// Who proved it.
    pub prover_id: [T; 4],
}

fn words<T: Copy, const N: usize>(slice: &[T]) -> Option<[[T; 4]; N]> {
    let (chunks, rest) = slice.as_chunks::<4>();
    rest.is_empty().then_some(chunks)?.try_into().ok()
}

impl<T: Copy> VmInputs<T> {
    pub(crate) fn read(slice: &[T]) -> Option<Self> {
        let [before, after, call_hash] = words(slice)?;
        Some(Self { before, after, call_hash })
    }

    pub(crate) fn to_vec(self) -> Vec<T> {
        [self.before, self.after, self.call_hash].concat()
    }
}

impl<T: Copy> KernelInputs<T> {
    pub(crate) fn read(slice: &[T]) -> Option<Self> {
        let (count, rest) = slice.split_last()?;
        let [before, after, tx_hash, calls_commit, acc] = words(rest)?;
        Some(Self { before, after, tx_hash, calls_commit, acc, count: *count })
    }

    pub(crate) fn to_vec(self) -> Vec<T> {
        let mut out = [self.before, self.after, self.tx_hash, self.calls_commit, self.acc].concat();
        out.push(self.count);
        out
    }
}

impl<T: Copy> RangeInputs<T> {
    pub(crate) fn read(slice: &[T]) -> Option<Self> {
        let (count, rest) = slice.split_last()?;
        let [before, after, commitment] = words(rest)?;
        Some(Self { before, after, commitment, count: *count })
    }

    pub(crate) fn to_vec(self) -> Vec<T> {
        let mut out = [self.before, self.after, self.commitment].concat();
        out.push(self.count);
        out
    }
}

impl<T: Copy> RootInputs<T> {
    pub(crate) fn read(slice: &[T]) -> Option<Self> {
        let ([block_number, chain_id], rest) = slice.split_first_chunk::<2>()?;
        let (range, prover_id) = rest.split_last_chunk::<4>()?;
        Some(Self {
            block_number: *block_number,
            chain_id: *chain_id,
            range: RangeInputs::read(range)?,
            prover_id: *prover_id,
        })
    }

    pub(crate) fn to_vec(self) -> Vec<T> {
        let mut out = vec![self.block_number, self.chain_id];
        out.extend(self.range.to_vec());
        out.extend(self.prover_id);
        out
    }
}

/// Names and lengths of a circuit's public inputs, in their order.
pub(crate) const fn fields(circuit: Circuit) -> &'static [(&'static str, usize)] {
    match circuit {
        Circuit::Vm => &[("state before", 4), ("state after", 4), ("call hash", 4)],
        Circuit::Kernel { .. } => &[
            ("state before", 4),
            ("state after", 4),
            ("transaction hash", 4),
            ("commitment to the calls", 4),
            ("hash of the calls so far", 4),
            ("count of calls", 1),
        ],
        Circuit::Base | Circuit::Merge { .. } => &[
            ("state before", 4),
            ("state after", 4),
            ("transactions' commitment", 4),
            ("count of transactions", 1),
        ],
        Circuit::Root { .. } => &[
            ("block number", 1),
            ("chain id", 1),
            ("state before", 4),
            ("state after", 4),
            ("transactions' commitment", 4),
            ("count of transactions", 1),
            ("prover id", 4),
        ],
    }
}

/// How many public inputs a circuit has.
pub(crate) fn length(circuit: Circuit) -> usize {
    fields(circuit).iter().map(|(_, length)| length).sum()
}

/// A field's value for people: a number, or a word as block files write it.
pub(crate) fn show(value: &[u64]) -> String {
    match value {
        [number] => number.to_string(),
        _ => value.iter().map(|v| hex::encode(v.to_le_bytes())).collect(),
    }
}
