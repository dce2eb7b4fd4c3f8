//! Transaction by transaction: feeds the small machines early where the pools are balanced.

use crate::tree::{NodeId, Shape};

/// The earlier the node's last transaction stands in the block, the earlier; joins before leaves.
pub fn key(shape: &Shape, node: NodeId) -> u32 {
    let (first, count) = shape.range(node);
    first + count - 1
}
