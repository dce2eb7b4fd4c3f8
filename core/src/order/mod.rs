//! Orders in which ready tasks may be taken. A policy is one public function; which one a job
//! follows is chosen by simulating them all ([`choose()`]): none is best for every block and pool.

use crate::tree::{NodeId, Shape};

mod blocks;
mod call_first;
mod choose;
mod feed;
mod level_first;
mod longest_path;
#[cfg(test)]
mod tests;
mod transaction_first;

pub use choose::{Choice, choose};

/// No path of a tree is longer than this many proofs.
const LONGEST: u32 = 512;

/// An order: of ready tasks of a class those with the smallest key are taken first; ties go to the
/// smaller node number.
#[derive(Clone, Copy)]
pub struct Policy {
    /// Its name in reports.
    pub name: &'static str,
    /// The key of a node.
    pub key: fn(&Shape, NodeId) -> u32,
    /// How tasks of different needs compare.
    pub between: Between,
}

/// Which of two ready tasks with different needs goes first where both could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// The larger one: a machine that only it needs is never filled with small ones first.
    LargeFirst,
    /// The one with the smaller key: where small proofs need the large machines, too, and on time.
    ByKey,
}

const fn large_first(name: &'static str, key: fn(&Shape, NodeId) -> u32) -> Policy {
    Policy { name, key, between: Between::LargeFirst }
}

const fn by_key(name: &'static str, key: fn(&Shape, NodeId) -> u32) -> Policy {
    Policy { name, key, between: Between::ByKey }
}

/// All orders. The first is what a job follows until one is chosen; new ones are added at the end,
/// as they are named by their place.
pub const POLICIES: &[Policy] = &[
    large_first("longest-path", longest_path::key),
    large_first("level-first", level_first::key),
    large_first("transaction-first", transaction_first::key),
    by_key("longest-path-by-key", longest_path::key),
    large_first("feed-16", feed::key::<16>),
    by_key("call-first-by-key", call_first::by_level),
    large_first("feed-4", feed::key::<4>),
    large_first("blocks-16", blocks::key::<16>),
    large_first("feed-8", feed::key::<8>),
    large_first("call-staggered-1", call_first::staggered::<1>),
    large_first("call-staggered-8", call_first::staggered::<8>),
    large_first("feed-64", feed::key::<64>),
    large_first("call-staggered-32", call_first::staggered::<32>),
];
