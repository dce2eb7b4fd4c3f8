//! What `arborist prove` proves: a block file, here or at a URL, a sample block kept in the output folder, or a made-up tree.

use super::args::Args;
use crate::cli::CliError;
use crate::cli::block::{self, Elsewhere, Named, ShapeArgs};
use crate::cli::serve::BackendName;
use crate::cli::submit::request;
use crate::dispatch::{SubmitRequest, SubmitSource};
use crate::intake::{BlockFile, Budget, DEFAULT_BYTES};
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

/// A block to prove that may have to be fetched yet.
pub enum Found {
    /// It is at hand.
    Here(Box<Subject>),
    /// It is at a URL.
    Elsewhere(Elsewhere),
}

impl Found {
    /// Reads, makes or makes up the block, if it need not be fetched.
    ///
    /// # Errors
    /// A bad block file, by field; or the sample can't be made or written.
    pub fn find(args: &Args) -> Result<Self, CliError> {
        let here = match &args.block {
            Some(place) => match place.find(args.sha256, args.backend)? {
                Named::Here(file) => Subject::of_block(args, file),
                Named::Elsewhere(elsewhere) => return Ok(Self::Elsewhere(elsewhere)),
            },
            None if args.backend == BackendName::Fake => {
                let shape = &args.shape;
                let calls = shape.calls_of_each();
                let source = SubmitSource::Synthetic { calls: calls.clone(), seed: shape.seed };
                let request = request(source, shape.chain_id, shape.block_number, &args.prover);
                Ok(Subject { request, calls, statement: None })
            }
            None => Subject::of_block(args, sample(args)?),
        };
        here.map(|subject| Self::Here(Box::new(subject)))
    }

    /// Fetches the block, if it has to be; `waits` is told why that has to wait.
    ///
    /// # Errors
    /// It can't be had now, is another file, or no block that can be proven.
    pub async fn fetch(self, args: &Args, waits: impl Fn(String) + Send + Sync) -> Result<Subject, CliError> {
        match self {
            Self::Here(subject) => Ok(*subject),
            Self::Elsewhere(elsewhere) => {
                let file = elsewhere.fetch(&Budget::new(DEFAULT_BYTES), waits).await?;
                Subject::of_block(args, file)
            }
        }
    }
}

impl Subject {
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
