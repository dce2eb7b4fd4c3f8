//! The proof tree of a block by arithmetic: no node is an object.
//!
//! Transactions are leaves of a binary tree shaped as in RFC 6962: of n transactions the largest
//! power of two below n goes left, the rest right. So there are exactly T − 1 joins whatever T is
//! (no padding proofs are needed), the longest path is ceil(log2 T), and a perfect subtree over
//! transactions [k·2^h, (k+1)·2^h) is the same in every block that starts alike: after a reorg of
//! the tail the front's proofs are reused.
//!
//! A block with C calls over T transactions has 2·C + T + (T − 1) tasks; with N calls each that is
//! T·(2N+2) − 1. A block of one transaction has one more: its root over the lone base.

mod ids;
mod shape;
#[cfg(test)]
mod tests;

pub use ids::{Leaves, RootBinding, task_ids};
pub use shape::{BadShape, Children, Node, NodeId, Shape};
