//! The pure heart of Arborist: the proof tree, the engine that leases its tasks, the orders it may
//! follow, the simulator that judges them, and the messages workers and the dispatcher exchange.
//!
//! Nothing here reads a clock, opens a file or a socket, or spawns a thread: time and randomness
//! are passed in, decisions come out. The same code runs in production, in `arborist simulate`
//! and in the tests.
#![warn(missing_docs)]

pub mod backend;
pub mod block;
pub mod bound;
pub mod circuit;
pub mod durations;
pub mod engine;
pub mod fake_proof;
pub mod ids;
pub mod invariants;
pub mod order;
pub mod plan;
pub mod profile;
pub mod proof_object;
pub mod sim;
pub mod system;
pub mod text;
pub mod tree;
pub mod wire;
