//! `arborist block check`: is a block file what it should be?

use crate::cli::CliError;
use arborist_system::outln;
use clap::Args as ClapArgs;
use std::path::PathBuf;

/// Options of `arborist block check`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The block file
    file: PathBuf,
}

/// Checks format, chain of states and every private proof.
///
/// # Errors
/// The first thing wrong with the file, by field.
pub fn run(args: &Args) -> Result<(), CliError> {
    let (json, block) = super::read_checked(&args.file)?;
    let calls: usize = block.transactions.iter().map(|t| t.calls.len()).sum();
    outln!(
        "{}: valid. Block {} of chain {}, {} transactions with {calls} public calls, profile {}, {} bytes.",
        args.file.display(),
        block.block_number,
        block.chain_id,
        block.transactions.len(),
        block.profile,
        json.len(),
    );
    Ok(())
}
