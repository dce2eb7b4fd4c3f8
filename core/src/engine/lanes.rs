//! Queues in which tasks of a kind that nobody takes don't stand in the way of others.

use crate::circuit::{Kind, KindSet};
use std::collections::VecDeque;

/// A queue with a lane for each kind: those of some kinds can be seen in the order they came, as if
/// there were no others.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    next: u64,
    lanes: [VecDeque<(u64, T)>; 5],
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { next: 0, lanes: Default::default() }
    }
}

impl<T: Copy> Lanes<T> {
    pub(crate) fn push(&mut self, kind: Kind, item: T) {
        self.lanes[kind.index()].push_back((self.next, item));
        self.next += 1;
    }

    /// The first of these kinds to have come, with its kind.
    pub(crate) fn front(&self, kinds: KindSet) -> Option<(Kind, T)> {
        let fronts = kinds.iter().filter_map(|kind| Some((kind, self.lanes[kind.index()].front()?)));
        fronts.min_by_key(|(_, (number, _))| *number).map(|(kind, (_, item))| (kind, *item))
    }

    /// The last of these kinds to have come, with its kind.
    pub(crate) fn back(&self, kinds: KindSet) -> Option<(Kind, T)> {
        let backs = kinds.iter().filter_map(|kind| Some((kind, self.lanes[kind.index()].back()?)));
        backs.max_by_key(|(_, (number, _))| *number).map(|(kind, (_, item))| (kind, *item))
    }

    pub(crate) fn pop_front(&mut self, kind: Kind) {
        self.lanes[kind.index()].pop_front();
    }

    pub(crate) fn pop_back(&mut self, kind: Kind) {
        self.lanes[kind.index()].pop_back();
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.lanes.iter_mut().for_each(|lane| lane.retain(|(_, item)| keep(item)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_together_are_one_queue() {
        let kinds = [Kind::Vm, Kind::Merge, Kind::Vm, Kind::Root, Kind::Merge];
        let mut lanes = Lanes::default();
        kinds.iter().enumerate().for_each(|(place, kind)| lanes.push(*kind, place));
        let of = |kinds: &[Kind]| kinds.iter().copied().collect::<KindSet>();
        for (set, front, back) in [
            (KindSet::ALL, Some((Kind::Vm, 0)), Some((Kind::Merge, 4))),
            (of(&[Kind::Merge, Kind::Root]), Some((Kind::Merge, 1)), Some((Kind::Merge, 4))),
            (of(&[Kind::Vm, Kind::Root]), Some((Kind::Vm, 0)), Some((Kind::Root, 3))),
            (of(&[Kind::Kernel]), None, None),
            (KindSet::NONE, None, None),
        ] {
            assert_eq!((lanes.front(set), lanes.back(set)), (front, back), "{set}");
        }
        lanes.retain(|place| *place != 2);
        lanes.pop_front(Kind::Vm);
        lanes.pop_back(Kind::Merge);
        assert_eq!((lanes.front(KindSet::ALL), lanes.len()), (Some((Kind::Merge, 1)), 2));
    }
}
