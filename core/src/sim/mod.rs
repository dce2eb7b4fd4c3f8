//! Simulation in virtual time: how long a block takes on given machines in a given order, and the
//! whole world around the engine with its faults. Nothing here knows what time it is.

mod bitset;
mod machines;
mod pools;
mod schedule;

pub use pools::{Classes, Costs, Pool};
pub use schedule::{Plan, Schedule};
