//! `arborist block`: make, check and describe block files.

mod check;
mod new;
mod schema;

use super::CliError;
use super::input::read_bounded;
use arborist_core::block::{Block, BlockError, MAX_BLOCK_BYTES, MAX_TRANSACTIONS};
use arborist_core::profile::Profile;
use clap::Subcommand;
use std::path::Path;

pub use new::sample;

/// What to do with a block file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a sample block with real private proofs
    New(new::Args),
    /// Check a block file: format, chain of states, private proofs
    Check(check::Args),
    /// Print the JSON schema of a block file
    Schema,
}

/// Runs a subcommand of `arborist block`.
///
/// # Errors
/// See [`CliError`].
pub fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::New(args) => new::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Schema => schema::run(),
    }
}

/// Reads a block file and checks all that can be checked without the circuits.
///
/// # Errors
/// One line that names the file, the field and what is allowed.
pub fn read(path: &Path) -> Result<(Vec<u8>, Block), CliError> {
    let json = read_bounded(path, "a block file in JSON", MAX_BLOCK_BYTES)?;
    let profile = Profile::local();
    let wrong = |source| CliError::Block { file: path.to_owned(), source };
    let block = Block::parse(&json, usize::from(profile.max_calls)).map_err(wrong)?;
    if block.profile != profile.circuits {
        let name: String = block.profile.chars().take(80).collect();
        return Err(wrong(BlockError {
            field: "profile".into(),
            problem: format!("`{name}`, allowed is `{}`", profile.circuits),
        }));
    }
    Ok((json, block))
}

/// [`read`], and verifies every private proof.
///
/// # Errors
/// One line that names the file, the field and what is allowed.
pub fn read_checked(path: &Path) -> Result<(Vec<u8>, Block), CliError> {
    let (json, block) = read(path)?;
    arborist_circuits::check_block(&block)
        .map_err(|source| CliError::Block { file: path.to_owned(), source })?;
    Ok((json, block))
}

/// How many calls each transaction of a made-up block has.
#[derive(Debug, Clone, clap::Args)]
pub struct ShapeArgs {
    /// How many transactions
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=MAX_TRANSACTIONS as i64))]
    pub transactions: u32,
    /// Public calls of each transaction, e.g. 2; several numbers are taken in turn, e.g. 0,1,2,3
    #[arg(long, value_delimiter = ',', default_value = "2",
          value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_CALLS)))]
    pub calls: Vec<u8>,
    /// Seed of everything made up
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The chain the block belongs to
    #[arg(long, default_value_t = 1)]
    pub chain_id: u64,
    /// The block's number
    #[arg(long, default_value_t = 1)]
    pub block_number: u64,
}

/// The most calls of a transaction in the embedded profile.
const MAX_CALLS: u8 = 7;

impl ShapeArgs {
    /// The number of calls of each transaction, in order.
    pub fn calls_of_each(&self) -> Vec<u8> {
        self.calls.iter().copied().cycle().take(self.transactions as usize).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_taken_in_turn() {
        let args = ShapeArgs { transactions: 5, calls: vec![0, 1, 2], seed: 0, chain_id: 1, block_number: 1 };
        assert_eq!(args.calls_of_each(), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn the_option_allows_what_the_profile_allows() {
        assert_eq!(MAX_CALLS, Profile::local().max_calls);
    }
}
