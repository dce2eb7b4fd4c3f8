//! Transactions start one after the other, each call of a transaction a fixed distance behind the
//! call before: small machines are fed from the start, and the last `vm` proofs made are last calls,
//! with little left to do after them. Small machines never make a proof that could wait before one
//! that can't.

use super::{LONGEST, longest_path};
use crate::tree::{Node, NodeId, Shape};

/// `vm` proofs in block order, one with one more proof between it and the root as if it stood
/// T / `SHARE` transactions earlier; the others by longest path.
///
/// With a share above T that is the order of transactions, with 1 nearly that of levels.
pub fn key<const SHARE: u32>(shape: &Shape, node: NodeId) -> u32 {
    match shape.node(node) {
        Node::Vm { tx, .. } => {
            tx + shape.transactions() / SHARE * LONGEST.saturating_sub(shape.remaining(node))
        }
        _ => longest_path::key(shape, node),
    }
}
