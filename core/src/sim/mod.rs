//! Simulation in virtual time: how long a block takes on given machines in a given order, and the
//! whole world around the engine with its faults. Nothing here knows what time it is.

mod bitset;
pub mod grid;

mod machines;
mod operator;
mod pools;
mod queue;
mod rng;
mod scenario;
mod schedule;
mod worker;
mod world;

pub use pools::{Classes, Costs, Pool};
pub use rng::{Rng, mix};
pub use scenario::{Durations, Faults, Group, Network, Outcome, Scenario};
pub use schedule::{Plan, Schedule};
pub use world::run;
