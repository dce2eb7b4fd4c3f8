//! Queues in which tasks that nobody takes don't stand in the way of others.

use crate::circuit::{Kind, KindSet};
use std::collections::{BTreeMap, VecDeque};

/// A queue with a lane for each job (by slot) and kind: those of some kinds of a job can be seen in the order they
/// came, as if there were no others.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    next: u64,
    /// None is empty.
    lanes: BTreeMap<(u32, Kind), VecDeque<(u64, T)>>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { next: 0, lanes: BTreeMap::new() }
    }
}

impl<T: Copy> Lanes<T> {
    pub(crate) fn push(&mut self, job: u32, kind: Kind, item: T) {
        self.lanes.entry((job, kind)).or_default().push_back((self.next, item));
        self.next += 1;
    }

    /// The first of these kinds of a job to have come, with its kind.
    pub(crate) fn front(&self, job: u32, kinds: KindSet) -> Option<(Kind, T)> {
        let lanes = kinds.iter().filter_map(|kind| Some((kind, self.lanes.get(&(job, kind))?.front()?)));
        lanes.min_by_key(|(_, (number, _))| *number).map(|(kind, (_, item))| (kind, *item))
    }

    /// The last of these kinds of a job to have come, with its kind.
    pub(crate) fn back(&self, job: u32, kinds: KindSet) -> Option<(Kind, T)> {
        let lanes = kinds.iter().filter_map(|kind| Some((kind, self.lanes.get(&(job, kind))?.back()?)));
        lanes.max_by_key(|(_, (number, _))| *number).map(|(kind, (_, item))| (kind, *item))
    }

    pub(crate) fn pop_front(&mut self, job: u32, kind: Kind) {
        self.pop(job, kind, VecDeque::pop_front);
    }

    pub(crate) fn pop_back(&mut self, job: u32, kind: Kind) {
        self.pop(job, kind, VecDeque::pop_back);
    }

    fn pop(&mut self, job: u32, kind: Kind, pop: impl Fn(&mut VecDeque<(u64, T)>) -> Option<(u64, T)>) {
        if let Some(queue) = self.lanes.get_mut(&(job, kind)) {
            pop(queue);
            if queue.is_empty() {
                self.lanes.remove(&(job, kind));
            }
        }
    }

    /// Jobs of which there are some.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = u32> {
        self.lanes.keys().map(|(job, _)| *job)
    }

    /// Drops all of a job.
    pub(crate) fn forget(&mut self, job: u32) {
        for kind in Kind::ALL {
            self.lanes.remove(&(job, kind));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
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

    #[test]
    fn lanes_of_a_job_together_are_one_queue() {
        let kinds = [Kind::Vm, Kind::Merge, Kind::Vm, Kind::Root, Kind::Merge];
        let mut lanes = Lanes::default();
        for (place, kind) in kinds.iter().enumerate() {
            lanes.push(7, *kind, place);
            lanes.push(8, Kind::Vm, 100 + place);
        }
        let of = |kinds: &[Kind]| kinds.iter().copied().collect::<KindSet>();
        for (set, front, back) in [
            (KindSet::ALL, Some((Kind::Vm, 0)), Some((Kind::Merge, 4))),
            (of(&[Kind::Merge, Kind::Root]), Some((Kind::Merge, 1)), Some((Kind::Merge, 4))),
            (of(&[Kind::Vm, Kind::Root]), Some((Kind::Vm, 0)), Some((Kind::Root, 3))),
            (of(&[Kind::Kernel]), None, None),
            (KindSet::NONE, None, None),
        ] {
            assert_eq!((lanes.front(7, set), lanes.back(7, set)), (front, back), "{set}");
        }
        lanes.retain(|place| *place != 2);
        lanes.pop_front(7, Kind::Vm);
        lanes.pop_back(7, Kind::Merge);
        assert_eq!((lanes.front(7, KindSet::ALL), lanes.len()), (Some((Kind::Merge, 1)), 7));
        lanes.forget(8);
        assert_eq!((lanes.front(8, KindSet::ALL), lanes.len()), (None, 2));
    }
}
