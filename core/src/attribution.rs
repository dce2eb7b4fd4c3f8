//! Who proved what.

use crate::circuit::Kind;
use crate::engine::Share;
use std::collections::BTreeMap;

/// Sums up proofs, given as (kind, worker, wall time in milliseconds), by worker: most proofs first,
/// then by name. Every proof counts for the one worker that made it.
pub fn shares<'a>(proofs: impl IntoIterator<Item = (Kind, &'a str, u32)>) -> Vec<Share> {
    let mut by_worker: BTreeMap<&str, Share> = BTreeMap::new();
    for (kind, worker, millis) in proofs {
        let new = || Share { worker: worker.to_owned(), proofs: [0; 5], millis: 0 };
        let share = by_worker.entry(worker).or_insert_with(new);
        share.proofs[kind.index()] += 1;
        share.millis += u64::from(millis);
    }
    let mut shares: Vec<_> = by_worker.into_values().collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.proofs.iter().sum::<u32>()));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_are_summed_by_worker_and_the_busiest_comes_first() {
        let proofs = [(Kind::Vm, "b", 5), (Kind::Root, "a", 7), (Kind::Vm, "b", 6), (Kind::Base, "c", 1)];
        let shares = shares(proofs);
        let names: Vec<_> = shares.iter().map(|s| s.worker.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
        assert_eq!((shares[0].proofs, shares[0].millis), ([2, 0, 0, 0, 0], 11));
    }
}
