//! Simulation in virtual time: how long a block takes on given machines in a given order, and the
//! whole world around the engine with its faults. Nothing here knows what time it is.

mod bitset;
pub mod grid;
mod machines;
mod pools;
mod rng;
mod schedule;

pub use pools::{Classes, Costs, Pool};
pub use rng::{Rng, mix};
pub use schedule::{Plan, Schedule};
