//! `arborist block new`: a sample block with real private proofs.

use super::ShapeArgs;
use crate::cli::CliError;
use crate::cli::input::write_whole;
use crate::cli::progress::Progress;
use arborist_core::block::{Block, MAX_BLOCK_BYTES};
use arborist_system::outln;
use clap::Args as ClapArgs;
use std::path::PathBuf;

/// Options of `arborist block new`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    shape: ShapeArgs,
    /// Where to write the block file
    #[arg(long)]
    out: PathBuf,
}

/// A transaction's private proof in the file, base64, rounded up; see `docs/block-format.md`.
const BYTES_PER_TRANSACTION: u64 = 185_000;

/// Makes the block and writes it.
///
/// # Errors
/// The block would be too large for a file, or the file can't be written.
pub fn run(args: &Args) -> Result<(), CliError> {
    let block = sample(&args.shape)?;
    let json = serde_json::to_vec(&block).map_err(|e| CliError::failed("write the block", e))?;
    write_whole(&args.out, &json)?;
    let calls: usize = block.transactions.iter().map(|t| t.calls.len()).sum();
    outln!(
        "{}: block {} of chain {}, {} transactions with {calls} public calls, {} bytes.",
        args.out.display(),
        block.block_number,
        block.chain_id,
        block.transactions.len(),
        json.len(),
    );
    Ok(())
}

/// Makes a sample block: one private proof a transaction, a few seconds each on one core.
///
/// # Errors
/// The block would be too large for a file, or the circuits refuse to make it.
pub fn sample(shape: &ShapeArgs) -> Result<Block, CliError> {
    let most = MAX_BLOCK_BYTES / BYTES_PER_TRANSACTION;
    if u64::from(shape.transactions) > most {
        return Err(CliError::Usage {
            option: "--transactions",
            problem: format!(
                "{}, allowed are 1 to {most}: a block file with private proofs has at most {MAX_BLOCK_BYTES} bytes",
                shape.transactions
            ),
        });
    }
    let mut progress = Progress::start("private proofs made", u64::from(shape.transactions));
    let block = arborist_circuits::sample_block(
        &shape.calls_of_each(),
        shape.chain_id,
        shape.block_number,
        shape.seed,
        |done| progress.set(done as u64),
    )
    .map_err(|e| CliError::failed("make the sample block", e))?;
    progress.done();
    Ok(block)
}
