//! First calls of all transactions before second ones: transactions that stand low in the tree
//! start as early as the others, which uses machines that would wait for the higher ones.

use super::{level_first, longest_path};
use crate::tree::{Node, NodeId, Shape};

/// `vm` proofs call by call, the others level by level.
pub fn by_level(shape: &Shape, node: NodeId) -> u32 {
    match shape.node(node) {
        Node::Vm { call, .. } => u32::from(call) + 1,
        _ => level_first::key(shape, node),
    }
}

/// `vm` proofs in block order, each further call of a transaction as if it stood T / `SHARE`
/// transactions later; the others by longest path.
pub fn staggered<const SHARE: u32>(shape: &Shape, node: NodeId) -> u32 {
    match shape.node(node) {
        Node::Vm { tx, call } => tx + shape.transactions() / SHARE * u32::from(call),
        _ => longest_path::key(shape, node),
    }
}
