//! Transactions start one after the other, each step of a transaction a fixed distance behind the
//! step before: machines of every kind have work from the start, and the last `vm` proofs made are
//! last calls, with little left to do after them.

use super::LONGEST;
use crate::tree::{NodeId, Shape};

/// A proof with one more proof between it and the root counts as T / `SHARE` transactions earlier.
///
/// With a share above T this is the order of transactions, with a share of 1 nearly that of levels.
pub fn key<const SHARE: u32>(shape: &Shape, node: NodeId) -> u32 {
    let (first, count) = shape.range(node);
    let step = shape.transactions() / SHARE;
    first + count - 1 + step * LONGEST.saturating_sub(shape.remaining(node))
}
