//! What `arborist prove` proves: a block file, a sample block kept in the output folder, or a made-up tree.

use super::args::Args;
use crate::cli::CliError;
use crate::cli::block::{self, ShapeArgs};
use crate::cli::serve::BackendName;
use crate::cli::submit::request;
use crate::dispatch::{SubmitRequest, SubmitSource};
use crate::intake::BlockFile;
use arborist_circuits::{Published, Statements};
use arborist_system::errln;
use std::path::PathBuf;
use std::sync::Arc;

/// A block to prove, and what its root will state.
pub struct Subject {
    /// The request for it.
    pub request: SubmitRequest,
    /// Public calls of each transaction.
    pub calls: Vec<u8>,
    /// What is to be published; `None` for a made-up tree.
    pub statement: Option<Published>,
}

impl Subject {
    /// Reads, makes or makes up the block.
    ///
    /// # Errors
    /// A bad block file, by field; or the sample can't be made or written.
    pub fn find(args: &Args) -> Result<Self, CliError> {
        match &args.block {
            Some(file) => Self::of_block(args, block::read_checked(file, args.backend)?),
            None if args.backend == BackendName::Fake => {
                let shape = &args.shape;
                let calls = shape.calls_of_each();
                let source = SubmitSource::Synthetic { calls: calls.clone(), seed: shape.seed };
                let request = request(source, shape.chain_id, shape.block_number, &args.prover);
                Ok(Self { request, calls, statement: None })
            }
            None => Self::of_block(args, sample(args)?),
        }
    }

    fn of_block(args: &Args, file: BlockFile) -> Result<Self, CliError> {
        let block = file.block();
        let statements = Statements::new(block, args.prover.word)
            .map_err(|e| CliError::failed("the block's statement", e))?;
        let calls = block.transactions.iter().map(|t| t.calls.len() as u8).collect();
        let (chain_id, block_number) = (block.chain_id, block.block_number);
        let source = SubmitSource::Block(Arc::new(file));
        let request = request(source, chain_id, block_number, &args.prover);
        Ok(Self { calls, request, statement: Some(statements.published()) })
    }
}

/// The sample block of these options. It is kept: private proofs differ from run to run, and going on with a block
/// needs the very same ones.
fn sample(args: &Args) -> Result<BlockFile, CliError> {
    let file = sample_file(args);
    if file.exists() {
        return block::read_checked(&file, args.backend);
    }
    block::sample(&args.shape, &file)?;
    errln!("sample block: {}", file.display());
    block::read(&file)
}

fn sample_file(args: &Args) -> PathBuf {
    let ShapeArgs { transactions, calls, seed, chain_id, block_number } = &args.shape;
    let options = format!("{transactions} {calls:?} {seed} {chain_id} {block_number}");
    let name = blake3::hash(options.as_bytes()).to_hex();
    args.out.join(format!("sample-block-{}.json", &name[..8]))
}
