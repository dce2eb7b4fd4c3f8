//! Queues in which tasks that nobody takes don't stand in the way of others.

use super::tenants::Lane;
use std::collections::{BTreeMap, VecDeque};

/// A queue with a lane for each namespace and kind: those of some lanes can be seen in the order they came, as
/// if there were no others.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    next: u64,
    /// None is empty.
    lanes: BTreeMap<Lane, VecDeque<(u64, T)>>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { next: 0, lanes: BTreeMap::new() }
    }
}

impl<T: Copy> Lanes<T> {
    pub(crate) fn push(&mut self, lane: Lane, item: T) {
        self.lanes.entry(lane).or_default().push_back((self.next, item));
        self.next += 1;
    }

    /// The first of these lanes to have come, with its lane.
    pub(crate) fn front(&self, of: impl Fn(Lane) -> bool) -> Option<(Lane, T)> {
        let fronts = self.lanes.iter().filter_map(|(lane, queue)| Some((*lane, queue.front()?)));
        let first = fronts.filter(|(lane, _)| of(*lane)).min_by_key(|(_, (number, _))| *number);
        first.map(|(lane, (_, item))| (lane, *item))
    }

    /// The last of these lanes to have come, with its lane.
    pub(crate) fn back(&self, of: impl Fn(Lane) -> bool) -> Option<(Lane, T)> {
        let backs = self.lanes.iter().filter_map(|(lane, queue)| Some((*lane, queue.back()?)));
        let last = backs.filter(|(lane, _)| of(*lane)).max_by_key(|(_, (number, _))| *number);
        last.map(|(lane, (_, item))| (lane, *item))
    }

    pub(crate) fn pop_front(&mut self, lane: Lane) {
        self.pop(lane, VecDeque::pop_front);
    }

    pub(crate) fn pop_back(&mut self, lane: Lane) {
        self.pop(lane, VecDeque::pop_back);
    }

    fn pop(&mut self, lane: Lane, pop: impl Fn(&mut VecDeque<(u64, T)>) -> Option<(u64, T)>) {
        if let Some(queue) = self.lanes.get_mut(&lane) {
            pop(queue);
            if queue.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.values().map(VecDeque::len).sum()
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.lanes.retain(|_, queue| {
            queue.retain(|(_, item)| keep(item));
            !queue.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::Kind;

    #[test]
    fn lanes_together_are_one_queue() {
        let all = [(0, Kind::Vm), (0, Kind::Merge), (0, Kind::Vm), (1, Kind::Vm), (0, Kind::Merge)];
        let mut lanes = Lanes::default();
        all.iter().enumerate().for_each(|(place, lane)| lanes.push(*lane, place));
        type Of = fn(Lane) -> bool;
        let cases: [(&str, Of, Option<usize>, Option<usize>); 4] = [
            ("all", |_| true, Some(0), Some(4)),
            ("a kind", |(_, kind)| kind == Kind::Vm, Some(0), Some(3)),
            ("a namespace", |(tenant, _)| tenant == 1, Some(3), Some(3)),
            ("nothing", |(_, kind)| kind == Kind::Kernel, None, None),
        ];
        for (case, of, front, back) in cases {
            let found = |at: Option<usize>| at.map(|place| (all[place], place));
            assert_eq!((lanes.front(of), lanes.back(of)), (found(front), found(back)), "{case}");
        }
        lanes.retain(|place| *place != 2);
        lanes.pop_front((0, Kind::Vm));
        lanes.pop_back((0, Kind::Merge));
        assert_eq!((lanes.front(|_| true), lanes.len()), (Some(((0, Kind::Merge), 1)), 2));
    }
}
