//! The state as its owner keeps it: a sparse Merkle tree of 65,536 slots.

use crate::field::{self, F};
use arborist_core::block::STATE_DEPTH;
use plonky2::field::types::Field;
use std::collections::HashMap;

/// The state tree; a slot never written holds zero.
pub(crate) struct StateTree {
    values: HashMap<u16, [F; 4]>,
    /// Nodes that are not [`StateTree::empty`], by level from the leaves up and place in the level.
    nodes: HashMap<(usize, u16), [F; 4]>,
    /// The node of an untouched subtree, by level.
    empty: Vec<[F; 4]>,
}

impl StateTree {
    /// All slots zero.
    pub(crate) fn new() -> Self {
        let mut empty = vec![field::leaf([F::ZERO; 4])];
        for level in 0..STATE_DEPTH {
            empty.push(field::parent(empty[level], empty[level]));
        }
        Self { values: HashMap::new(), nodes: HashMap::new(), empty }
    }

    fn node(&self, level: usize, place: u16) -> [F; 4] {
        self.nodes.get(&(level, place)).copied().unwrap_or(self.empty[level])
    }

    /// The state root.
    pub(crate) fn root(&self) -> [F; 4] {
        self.node(STATE_DEPTH, 0)
    }

    /// A slot's value.
    pub(crate) fn value(&self, slot: u16) -> [F; 4] {
        self.values.get(&slot).copied().unwrap_or([F::ZERO; 4])
    }

    /// A slot's Merkle siblings from the leaf up.
    pub(crate) fn siblings(&self, slot: u16) -> Vec<[F; 4]> {
        (0..STATE_DEPTH).map(|level| self.node(level, (slot >> level) ^ 1)).collect()
    }

    /// Writes a slot.
    pub(crate) fn set(&mut self, slot: u16, value: [F; 4]) {
        self.values.insert(slot, value);
        let mut node = field::leaf(value);
        for level in 0..STATE_DEPTH {
            let place = slot >> level;
            self.nodes.insert((level, place), node);
            let sibling = self.node(level, place ^ 1);
            node = if place & 1 == 0 { field::parent(node, sibling) } else { field::parent(sibling, node) };
        }
        self.nodes.insert((STATE_DEPTH, 0), node);
    }
}
