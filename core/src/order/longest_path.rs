//! Longest remaining path first (Hu 1961): optimal for in-trees of unit tasks on equal machines.

use crate::tree::{NodeId, Shape};

/// The more proofs remain from the node to the root, the earlier.
pub fn key(shape: &Shape, node: NodeId) -> u32 {
    u32::MAX - shape.remaining(node)
}
