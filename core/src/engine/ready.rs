//! A job's ready tasks, in its order: those that any machine may take, and those that avoid some.

use super::table::Job;
use super::{Millis, TaskState};
use crate::circuit::{Kind, KindSet};
use hashbrown::HashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound::{Excluded, Unbounded};

/// Entries that an empty heap keeps room for.
const SPARE: usize = 1 << 10;

/// Groups of a class and kind that are looked at in one step; if there are more, the next step goes on behind them.
const LOOK: usize = 64;

/// Ready tasks that are alike to those who look for a worker: of one class and kind, to be kept from the same machines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Alike {
    pub(crate) class: u8,
    pub(crate) kind: u8,
    /// Machines to be avoided.
    pub(crate) avoid: Vec<u32>,
    /// Machines to be avoided until then.
    pub(crate) spared: Vec<(u32, Millis)>,
}

/// Ready tasks that avoid some machines. What asks for one looks at groups, not at tasks.
#[derive(Debug, Default)]
pub(crate) struct Picky {
    groups: BTreeMap<Alike, BTreeSet<u64>>,
    /// Where each of them stands.
    at: HashMap<u32, (Alike, u64)>,
    /// The last group that was looked at of a class and kind that has too many.
    looked: Option<Alike>,
}

impl Picky {
    pub(crate) fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    pub(crate) fn contains(&self, node: u32) -> bool {
        self.at.contains_key(&node)
    }

    /// Lists a task: `entry` is its key above its node.
    fn insert(&mut self, group: Alike, entry: u64) {
        self.remove(entry as u32);
        self.at.insert(entry as u32, (group.clone(), entry));
        self.groups.entry(group).or_default().insert(entry);
    }

    fn remove(&mut self, node: u32) {
        let Some((group, entry)) = self.at.remove(&node) else { return };
        if let Some(entries) = self.groups.get_mut(&group) {
            entries.remove(&entry);
            if entries.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// The first task of a group: its key above its node.
    pub(crate) fn first(&self, group: &Alike) -> Option<u64> {
        self.groups.get(group).and_then(BTreeSet::first).copied()
    }

    /// Groups of a class and kind, at most a few; others the next time.
    pub(crate) fn look(&mut self, class: u8, kind: Kind) -> Vec<Alike> {
        let kind = kind.index() as u8;
        let lowest = Alike { class, kind, avoid: vec![], spared: vec![] };
        let same = |group: &&Alike| (group.class, group.kind) == (class, kind);
        let of = |from: Alike| self.groups.range((Excluded(from), Unbounded)).map(|(group, _)| group);
        let after = self.looked.clone().filter(|last| same(&last)).unwrap_or(lowest.clone());
        let mut groups: Vec<Alike> = of(after.clone()).take_while(same).take(LOOK).cloned().collect();
        if groups.len() < LOOK && after != lowest {
            let more =
                of(lowest).take_while(|group| same(group) && **group <= after).take(LOOK - groups.len());
            groups.extend(more.cloned().collect::<Vec<_>>());
        }
        if groups.len() == LOOK {
            self.looked = groups.last().cloned();
        }
        groups
    }

    /// A task of a class and of these kinds.
    pub(crate) fn any_of(&self, class: u8, kinds: KindSet) -> Option<u64> {
        kinds.iter().find_map(|kind| {
            let kind = kind.index() as u8;
            let lowest = Alike { class, kind, avoid: vec![], spared: vec![] };
            let (group, entries) = self.groups.range(lowest..).next()?;
            if (group.class, group.kind) == (class, kind) { entries.first().copied() } else { None }
        })
    }

    /// The first tasks of all groups, with their class and kind.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (u8, Kind, u64)> {
        let head = |(group, entries): (&Alike, &BTreeSet<u64>)| {
            Some((group.class, Kind::from_index(usize::from(group.kind))?, *entries.first()?))
        };
        self.groups.iter().filter_map(head)
    }
}

/// Ready tasks of a job.
#[derive(Debug)]
pub(super) struct Ready {
    /// Those that any machine may take, by class and kind: policy key above node number. May hold stale entries.
    heaps: Vec<[BinaryHeap<Reverse<u64>>; 5]>,
}

impl Ready {
    pub(super) fn new(classes: usize) -> Self {
        Self { heaps: vec![Default::default(); classes] }
    }

    pub(super) fn bytes(&self) -> usize {
        self.heaps.iter().flatten().map(|h| 8 * h.capacity()).sum()
    }
}

impl Job {
    fn avoids(&self, node: u32) -> Option<Alike> {
        let extra = self.extra(node).filter(|extra| extra.is_picky())?;
        let (mut avoid, mut spared) = (extra.nodes.clone(), extra.spared.clone());
        avoid.sort_unstable();
        spared.sort_unstable();
        Some(Alike { class: self.class(node), kind: self.kind(node).index() as u8, avoid, spared })
    }

    pub(super) fn push_ready(&mut self, node: u32) {
        let (class, entry) = (self.class(node), self.entry(node));
        if let Some(group) = self.avoids(node) {
            return self.picky.insert(group, entry);
        }
        let kind = self.kind(node);
        let ready = self.counts[kind.index()].ready as usize;
        if self.ready.heaps[usize::from(class)][kind.index()].len() > 2 * ready + 64 {
            self.sweep(class, kind);
        }
        self.ready.heaps[usize::from(class)][kind.index()].push(Reverse(entry));
    }

    /// Drops stale and double entries of one class and kind.
    fn sweep(&mut self, class: u8, kind: Kind) {
        let heap = &mut self.ready.heaps[usize::from(class)][kind.index()];
        let mut entries = std::mem::take(heap).into_vec();
        entries.retain(|Reverse(e)| self.is_listed(*e as u32, class));
        entries.sort_unstable();
        entries.dedup();
        self.ready.heaps[usize::from(class)][kind.index()] = entries.into();
    }

    pub(super) fn unpick(&mut self, node: u32) {
        if !self.picky.is_empty() {
            self.picky.remove(node);
        }
    }

    /// Whether an entry of a class's heap still speaks of a ready task.
    fn is_listed(&self, node: u32, class: u8) -> bool {
        self.state_of(node) == TaskState::Ready
            && self.extra(node).is_none_or(|e| !e.is_picky())
            && self.class(node) == class
    }

    /// The first ready task of a class and of these kinds that any machine may take: its key above its node.
    pub(crate) fn head(&mut self, class: u8, kinds: KindSet) -> Option<u64> {
        loop {
            let heaps = &self.ready.heaps[usize::from(class)];
            let mut first: Option<(u64, Kind)> = None;
            for kind in kinds.iter() {
                if let Some(Reverse(entry)) = heaps[kind.index()].peek()
                    && first.is_none_or(|(least, _)| *entry < least)
                {
                    first = Some((*entry, kind));
                }
            }
            let (entry, kind) = first?;
            if self.is_listed(entry as u32, class) {
                return Some(entry);
            }
            let heap = &mut self.ready.heaps[usize::from(class)][kind.index()];
            heap.pop();
            if heap.is_empty() && heap.capacity() > SPARE {
                // All of its kind may be done: others want the room.
                *heap = BinaryHeap::new();
            }
        }
    }

    /// Nodes in the heap of a class and kind, stale ones too, for the invariant checker.
    pub(crate) fn heap(&self, class: usize, kind: Kind) -> impl Iterator<Item = u32> {
        self.ready.heaps[class][kind.index()].iter().map(|Reverse(entry)| *entry as u32)
    }

    pub(crate) fn classes(&self) -> usize {
        self.ready.heaps.len()
    }

    /// Fills the lists anew from the states.
    pub(super) fn refill(&mut self) {
        let mut entries: Vec<[Vec<Reverse<u64>>; 5]> = vec![Default::default(); self.classes()];
        self.picky = Picky::default();
        for node in 0..self.shape().total() {
            if self.state_of(node) != TaskState::Ready {
                continue;
            }
            let (class, entry) = (self.class(node), self.entry(node));
            match self.avoids(node) {
                Some(group) => self.picky.insert(group, entry),
                None => entries[usize::from(class)][self.kind(node).index()].push(Reverse(entry)),
            }
        }
        let heap = |mut entries: Vec<_>| {
            entries.shrink_to_fit();
            BinaryHeap::from(entries)
        };
        self.ready.heaps = entries.into_iter().map(|class| class.map(heap)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_are_alike_are_one_group_and_all_groups_have_their_turn() {
        let group = |class, kind: Kind, avoid: &[u32]| Alike {
            class,
            kind: kind.index() as u8,
            avoid: avoid.to_vec(),
            spared: vec![],
        };
        let mut picky = Picky::default();
        (0..1_000).for_each(|node| picky.insert(group(1, Kind::Vm, &[7]), node));
        picky.insert(group(1, Kind::Base, &[7]), 5_000);
        picky.insert(group(0, Kind::Vm, &[7]), 5_001);
        for _ in 0..3 {
            assert_eq!(picky.look(1, Kind::Vm), [group(1, Kind::Vm, &[7])]);
        }
        assert_eq!(picky.first(&group(1, Kind::Vm, &[7])), Some(0));
        assert_eq!(picky.heads().count(), 3);
        picky.insert(group(2, Kind::Vm, &[7]), 0);
        assert_eq!(picky.first(&group(1, Kind::Vm, &[7])), Some(1), "it moved");
        let many = LOOK as u32 * 5 / 2;
        (0..many).for_each(|n| picky.insert(group(3, Kind::Vm, &[n]), u64::from(10_000 + n)));
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let groups = picky.look(3, Kind::Vm);
            assert_eq!(groups.len(), LOOK);
            seen.extend(groups);
        }
        assert_eq!(seen.len() as u32, many);
        (10_000..10_000 + many).chain(0..1_000).chain([5_000, 5_001]).for_each(|node| picky.remove(node));
        assert!(picky.is_empty() && picky.groups.is_empty());
    }
}
