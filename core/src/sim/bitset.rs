//! A set of small numbers whose smallest is found at once: the ready tasks by rank.

/// 64-ary tree of bits over `0 .. capacity`.
#[derive(Debug, Clone)]
pub(super) struct RankSet {
    /// `levels[0]` has a bit for each number; a bit of `levels[i + 1]` says that the word of
    /// `levels[i]` is not empty.
    levels: Vec<Vec<u64>>,
}

impl RankSet {
    pub(super) fn new(capacity: usize) -> Self {
        let mut levels = vec![];
        let mut size = capacity.max(1);
        loop {
            size = size.div_ceil(64);
            levels.push(vec![0; size]);
            if size == 1 {
                return Self { levels };
            }
        }
    }

    pub(super) fn insert(&mut self, rank: u32) {
        let mut place = rank as usize;
        for level in &mut self.levels {
            let word = &mut level[place / 64];
            let was_empty = *word == 0;
            *word |= 1 << (place % 64);
            if !was_empty {
                return;
            }
            place /= 64;
        }
    }

    pub(super) fn first(&self) -> Option<u32> {
        let mut place = 0;
        for level in self.levels.iter().rev() {
            let word = level[place];
            if word == 0 {
                return None;
            }
            place = place * 64 + word.trailing_zeros() as usize;
        }
        Some(place as u32)
    }

    pub(super) fn remove(&mut self, rank: u32) {
        let mut place = rank as usize;
        for level in &mut self.levels {
            let word = &mut level[place / 64];
            *word &= !(1 << (place % 64));
            if *word != 0 {
                return;
            }
            place /= 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_an_ordered_set(
            capacity in 1u32..10_000,
            steps in prop::collection::vec((any::<bool>(), any::<u32>()), 0..300),
        ) {
            let (mut set, mut model) = (RankSet::new(capacity as usize), BTreeSet::new());
            for (insert, rank) in steps {
                let rank = rank % capacity;
                if insert {
                    set.insert(rank);
                    model.insert(rank);
                } else {
                    set.remove(rank);
                    model.remove(&rank);
                }
                prop_assert_eq!(set.first(), model.first().copied());
            }
        }
    }
}
