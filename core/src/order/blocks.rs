//! The block's transactions in a few equal parts, one after the other: within a part leaves go by
//! longest path, so that only the last part leaves a tail.

use super::{LONGEST, longest_path};
use crate::tree::{Node, NodeId, Shape};

/// `vm` proofs in `PARTS` parts of the block; the others by longest path.
pub fn key<const PARTS: u32>(shape: &Shape, node: NodeId) -> u32 {
    match shape.node(node) {
        Node::Vm { tx, .. } => {
            let size = (shape.transactions() / PARTS).max(1);
            tx / size * LONGEST + LONGEST.saturating_sub(shape.remaining(node))
        }
        _ => longest_path::key(shape, node),
    }
}
