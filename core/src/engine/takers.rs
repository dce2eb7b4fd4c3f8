//! Workers that take the same kinds of proof of the same namespaces, and the indexes by which one of them is found.

use super::{Serves, fits};
use crate::circuit::{Kind, KindSet};
use crate::profile::Needs;
use std::collections::{BTreeMap, BTreeSet};

/// Where a worker stands in the indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Keys {
    pub(crate) free: Option<(Needs, Needs)>,
    pub(crate) room: Option<(Needs, u8, u16)>,
    pub(crate) counted: bool,
}

/// Workers of one capacity that take leases, by machine.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub(crate) workers: u32,
    pub(crate) nodes: BTreeMap<u32, u32>,
}

/// Workers that take leases, of these kinds and namespaces alone.
#[derive(Debug)]
pub(crate) struct Takers {
    pub(crate) kinds: KindSet,
    pub(crate) serves: Serves,
    /// Workers with free capacity by (capacity, free): the smallest worker that fits comes first, and
    /// of equal ones the fullest, so that whole machines stay whole.
    free: BTreeMap<(Needs, Needs), BTreeSet<u32>>,
    /// Workers that may queue more, by capacity and the largest class they run: fewest queued first.
    room: BTreeMap<(Needs, u8), BTreeSet<(u16, u32)>>,
    /// By capacity.
    pub(crate) shapes: BTreeMap<Needs, Shape>,
}

impl Takers {
    pub(crate) fn new(kinds: KindSet, serves: Serves) -> Self {
        Self { kinds, serves, free: BTreeMap::new(), room: BTreeMap::new(), shapes: BTreeMap::new() }
    }

    /// Whether they take tasks of this kind and namespace.
    pub(crate) fn take(&self, kind: Kind, namespace: &str) -> bool {
        self.kinds.contains(kind) && self.serves.contains(namespace)
    }

    /// Whether no worker that takes leases is of these.
    pub(crate) fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }

    pub(crate) fn any_free(&self) -> bool {
        !self.free.is_empty()
    }

    pub(crate) fn any_room(&self) -> bool {
        !self.room.is_empty()
    }

    /// Brings the indexes up to date after a worker of this capacity and machine changed.
    pub(crate) fn reindex(&mut self, index: u32, capacity: Needs, node: u32, (old, new): (Keys, Keys)) {
        if old.free != new.free {
            old.free.into_iter().for_each(|key| take_out(&mut self.free, key, &index));
            new.free.into_iter().for_each(|key| _ = self.free.entry(key).or_default().insert(index));
        }
        if old.room != new.room {
            if let Some((capacity, class, queued)) = old.room {
                take_out(&mut self.room, (capacity, class), &(queued, index));
            }
            if let Some((capacity, class, queued)) = new.room {
                self.room.entry((capacity, class)).or_default().insert((queued, index));
            }
        }
        if old.counted != new.counted {
            self.count(capacity, node, new.counted);
        }
    }

    fn count(&mut self, capacity: Needs, node: u32, more: bool) {
        let shape = self.shapes.entry(capacity).or_default();
        let of_node = shape.nodes.entry(node).or_default();
        if more {
            (shape.workers, *of_node) = (shape.workers + 1, *of_node + 1);
            return;
        }
        (shape.workers, *of_node) = (shape.workers.saturating_sub(1), of_node.saturating_sub(1));
        if *of_node == 0 {
            shape.nodes.remove(&node);
        }
        if shape.workers == 0 {
            self.shapes.remove(&capacity);
        }
    }

    /// Workers that can run this now, smallest first.
    pub(crate) fn free_for(&self, needs: Needs) -> impl Iterator<Item = u32> {
        let fitting = self.free.iter().filter(move |((_, free), _)| fits(needs, *free));
        fitting.flat_map(|(_, workers)| workers.iter().copied())
    }

    /// The smallest capacity that this fits into.
    pub(crate) fn home(&self, needs: Needs) -> Option<Needs> {
        self.shapes.keys().find(|capacity| fits(needs, **capacity)).copied()
    }

    /// The worker of this capacity with the fewest leases queued that runs one of these classes.
    pub(crate) fn room_at(&self, home: Needs, classes: impl Iterator<Item = u8>) -> Option<u32> {
        let sets = classes.filter_map(|class| self.room.get(&(home, class)));
        sets.filter_map(|set| set.first()).min().map(|(_, worker)| *worker)
    }

    /// Whether one of them could ever run this on a machine of these.
    pub(crate) fn could(&self, needs: Needs, may: impl Fn(u32) -> bool) -> bool {
        let mut fitting = self.shapes.iter().filter(|(capacity, _)| fits(needs, **capacity));
        fitting.any(|(_, shape)| shape.nodes.keys().any(|node| may(*node)))
    }
}

fn take_out<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: K, value: &V) {
    if let Some(set) = map.get_mut(&key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(&key);
        }
    }
}
