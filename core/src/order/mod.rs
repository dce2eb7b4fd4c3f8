//! Orders in which ready tasks may be taken. A policy is one file with one public function; which
//! one a job follows is chosen by simulating them all: none is best for every block and pool.

use crate::tree::{NodeId, Shape};

mod level_first;
mod longest_path;
mod transaction_first;

/// An order: ready tasks with the smallest key are taken first; ties go to the smaller node number.
#[derive(Clone, Copy)]
pub struct Policy {
    /// Its name in reports.
    pub name: &'static str,
    /// The key of a node.
    pub key: fn(&Shape, NodeId) -> u32,
}

/// All orders. The first is what a job follows until one is chosen.
pub const POLICIES: &[Policy] = &[
    Policy { name: "longest-path", key: longest_path::key },
    Policy { name: "level-first", key: level_first::key },
    Policy { name: "transaction-first", key: transaction_first::key },
];
