//! `arborist block`: make, check, send and describe block files.

mod check;
mod new;
mod place;
mod push;
mod schema;

use super::CliError;
use super::input::{open_bounded, read_bounded};
use super::serve::BackendName;
use crate::intake::{BlockFile, Folder};
use arborist_core::block::{Block, BlockError, MAX_BLOCK_BYTES, MAX_TRANSACTIONS};
use arborist_core::profile::Profile;
use arborist_core::text::echo;
use clap::Subcommand;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

pub use new::sample;
pub use place::{Elsewhere, Named, Place, Sha256Sum};

/// What to do with a block file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a sample block, its private proofs beside it
    New(new::Args),
    /// Check a block file: format, chain of states, private proofs
    Check(check::Args),
    /// Send a block file and its private proofs to the artifact store, and say where they lie
    Push(push::Args),
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
        Command::Push(args) => push::run(&args),
        Command::Schema => schema::run(),
    }
}

/// Reads a block file and checks all that can be checked without the circuits. Its private proofs are looked for beside it.
///
/// # Errors
/// One line that names the file, the field and what is allowed.
pub fn read(path: &Path) -> Result<BlockFile, CliError> {
    let json = read_bounded(path, "a block file in JSON", MAX_BLOCK_BYTES)?;
    let objects = Arc::new(Folder::beside(path));
    let file = BlockFile::read(json.into(), Profile::local().max_calls, objects, None);
    let file = file.map_err(|source| CliError::Block { file: path.to_owned(), source })?;
    check_profile(path, file.block())?;
    Ok(file)
}

/// [`read`], and, for the embedded backend, verifies every private proof: better now than after hours of proving.
///
/// # Errors
/// One line that names the file, the field and what is allowed.
pub fn read_checked(path: &Path, backend: BackendName) -> Result<BlockFile, CliError> {
    let file = read(path)?;
    if backend == BackendName::Plonky2 {
        let folder = Folder::beside(path);
        arborist_circuits::check_block(file.block(), |t| private_proof(file.block(), &folder, t))
            .map_err(|source| CliError::Block { file: path.to_owned(), source })?;
    }
    Ok(file)
}

/// A block from its file, of whose text nothing is held.
///
/// # Errors
/// One line that names the file, the field and what is allowed.
pub fn stream(path: &Path) -> Result<Block, CliError> {
    let file =
        BufReader::with_capacity(1 << 16, open_bounded(path, "a block file in JSON", MAX_BLOCK_BYTES)?);
    let block = Block::read(file, Profile::local().max_calls.into());
    let block = block.map_err(|source| CliError::Block { file: path.to_owned(), source })?;
    check_profile(path, &block)?;
    Ok(block)
}

fn parse(path: &Path, json: &[u8]) -> Result<Block, CliError> {
    let block = Block::parse(json, Profile::local().max_calls.into());
    let block = block.map_err(|source| CliError::Block { file: path.to_owned(), source })?;
    check_profile(path, &block)?;
    Ok(block)
}

fn check_profile(path: &Path, block: &Block) -> Result<(), CliError> {
    let profile = Profile::local();
    if block.profile == profile.circuits {
        return Ok(());
    }
    let source = BlockError {
        field: "profile".into(),
        problem: format!("`{}`, allowed is `{}`", echo(&block.profile), profile.circuits),
    };
    Err(CliError::Block { file: path.to_owned(), source })
}

/// A transaction's private proof from the folder of them.
fn private_proof(block: &Block, folder: &Folder, t: usize) -> Result<Vec<u8>, BlockError> {
    let hash = block.transactions[t].private_proof;
    let wrong = |problem: String| BlockError { field: format!("transactions[{t}].private_proof"), problem };
    let read = folder.read(&hash).map_err(|problem| wrong(echo(&problem)))?;
    let missing = || wrong(format!("there is no object {hash} in {}", folder.0.display()));
    read.map(Vec::from).ok_or_else(missing)
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
