//! Orders in which ready tasks may be taken. A policy is one public function; which one a job
//! follows is chosen by simulating them all ([`choose`]): none is best for every block and pool.

use crate::tree::{NodeId, Shape};

mod call_first;
mod choose;
mod feed;
mod level_first;
mod longest_path;
#[cfg(test)]
mod tests;
mod transaction_first;
mod wavefront;

pub use choose::{Choice, choose};

/// No path of a tree is longer than this many proofs.
const LONGEST: u32 = 512;

/// An order: ready tasks with the smallest key are taken first; ties go to the smaller node number.
#[derive(Clone, Copy)]
pub struct Policy {
    /// Its name in reports.
    pub name: &'static str,
    /// The key of a node.
    pub key: fn(&Shape, NodeId) -> u32,
}

/// All orders. The first is what a job follows until one is chosen; new ones are added at the end,
/// as journals name them by their place.
pub const POLICIES: &[Policy] = &[
    Policy { name: "longest-path", key: longest_path::key },
    Policy { name: "level-first", key: level_first::key },
    Policy { name: "transaction-first", key: transaction_first::key },
    Policy { name: "feed-16", key: feed::key::<16> },
    Policy { name: "wavefront-8", key: wavefront::key::<8> },
    Policy { name: "wavefront-32", key: wavefront::key::<32> },
    Policy { name: "call-first-by-path", key: call_first::by_path },
    Policy { name: "call-first-by-level", key: call_first::by_level },
    Policy { name: "feed-4", key: feed::key::<4> },
    Policy { name: "feed-64", key: feed::key::<64> },
    Policy { name: "call-staggered-8", key: call_first::staggered::<8> },
    Policy { name: "call-staggered-32", key: call_first::staggered::<32> },
    Policy { name: "wavefront-2", key: wavefront::key::<2> },
    Policy { name: "feed-32", key: feed::key::<32> },
];
