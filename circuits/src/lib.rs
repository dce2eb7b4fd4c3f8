//! x
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
pub use sample::{SampleError, check_block, sample_block};
pub use statement::Statements;
pub use verify::{MAX_PROOF_BYTES, Published, RootError, verify_root};

#[cfg(test)]
mod tests;
