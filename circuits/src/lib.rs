//! The embedded backend: a mini rollup whose proofs all link to their neighbours, on plonky2 (Goldilocks field,
//! Poseidon hashes, `standard_recursion_config`). Profile `mini-rollup-v1`.
//!
//! # What a proof means
//! The state is a Merkle tree of 65,536 slots of four field elements. A public call reads a slot, runs a program on
//! its value and the call's arguments (a chain of 900 hashes stands for it), and writes the slot.
//! - `vm`: one call takes the state from one root to another.
//! - `kernel/0`, the private proof: its maker knows the secret behind the transaction, which asks for these calls.
//!   The sender makes it; it is an input of the block, not a task.
//! - `kernel/K`: verifies `kernel/K−1` and the K-th call's `vm`; states chain, call hashes accumulate. K is 1 to 7.
//! - `base`: verifies the last kernel of a transaction (or its private proof, if it makes no calls); the calls
//!   executed are all those it asks for. One key whatever the number of calls.
//! - `merge/H`: verifies two neighbouring ranges; states chain, the left part is full, so the tree has the shape
//!   of RFC 6962 whatever the number of transactions, and no padding.
//! - `root/H`: the last join, bound to block number, chain id and prover id.
//!
//! A root proof and what is [`Published`] suffice to verify a block: [`verify_root`]. That no transaction stands in
//! two blocks is not proven: the mini rollup has no nullifiers.
//!
//! # What it is not
//! - Zero knowledge is off: a rollup's nodes need soundness, not hiding. A private proof thus may leak its secret;
//!   use none that matters.
//! - Security is configured for 100 bits, conjectured.
//! - A `vm` proof has 117,920 bytes, all others 134,736: more than the 32 kB of Aztec's request for proposals, which
//!   plonky2 cannot meet. [`MAX_PROOF_BYTES`] is enforced.
//! - The circuits trust the pinned keys ([`keys`]): whoever replaces that file replaces what is proven.
//!
//! # What it costs
//! Measured by `cargo run --release -p arborist-circuits --example costs`, CPU seconds on a busy 2-core machine,
//! one thread:
//!
//! | circuit | rows | build | prove | verify | proof |
//! |---|---|---|---|---|---|
//! | `vm` | 2^10 | 0.4 s | 0.7-0.9 s | 4-6 ms | 117,920 B |
//! | private proof | 2^13 | one build and two proofs together 14 s | | | 134,736 B |
//! | `kernel/K`, `base`, `merge/H`, `root/H` | 2^13 | 1.6-3.3 s | 4.4-5.8 s | 5-22 ms | 134,736 B |
//!
//! A built circuit holds some 75 MiB; a process keeps the eight used last. Measured peaks, one proof at a time: 289 MiB
//! with one circuit kept, 711 MiB with six; so below 0.9 GiB with eight, and about 0.2 GiB for each further proof at
//! the same time.
//! Verifying builds nothing. [`Statements`] of 61,440 transactions with two calls each take 1.1 CPU s.
#![warn(missing_docs)]

mod base;
mod compile;
mod field;
mod kernel;
pub mod keys;
mod layout;
mod link;
mod merge;
mod pools;
mod private;
mod prove;
mod prover;
mod recursion;
mod root;
pub mod sample;
mod state;
pub mod statement;
pub mod verify;
mod vm;

pub use field::prover_word;
pub use kernel::MAX_CALLS;
pub use prove::Plonky2;
pub use prover::{BadProver, MAX_PROVER_CHARS, Prover};
pub use sample::{
    Sample, SampleError, check_block, faults_of_block, made_up_block, sample_block, sample_each,
};
pub use statement::Statements;
pub use verify::{MAX_PROOF_BYTES, Published, RootError, verify_root};

#[cfg(test)]
mod tests;
