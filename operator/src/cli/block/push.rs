//! `arborist block push`: a block file and its private proofs into the artifact store.

use crate::cli::CliError;
use crate::cli::input::read_bounded;
use crate::cli::progress::Progress;
use crate::intake::Folder;
use arborist_artifacts::{ArtifactStore, StoreError, StoreOptions, with_retry};
use arborist_core::block::{Block, BlockError, MAX_BLOCK_BYTES};
use arborist_core::ids::ArtifactHash;
use arborist_core::proof_object::input_key;
use arborist_system::{errln, outln};
use bytes::Bytes;
use clap::Args as ClapArgs;
use futures::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Options of `arborist block push`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The block file
    file: PathBuf,
    /// The artifact store that the operator uses: file://, s3://, gs:// or az://
    #[arg(long)]
    store: String,
    /// The folder with the private proofs, each named by its hash [default: `objects` beside the file]
    #[arg(long)]
    objects: Option<PathBuf>,
    /// Private proofs sent at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
}

/// How long a store that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends what the store has not yet, the block file last, and prints where that lies: `url` and `sha256`, as in
/// `spec.source.uri` of a ProvingJob. What was sent stays: the same command goes on after an interruption.
///
/// # Errors
/// The file or a private proof is not what it should be, or the store fails.
pub fn run(args: &Args) -> Result<(), CliError> {
    let json = Bytes::from(read_bounded(&args.file, "a block file in JSON", MAX_BLOCK_BYTES)?);
    let block = super::parse(&args.file, &json)?;
    let store = open(&args.store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("start the runtime", e))?;
    let sent = runtime.block_on(push(args, &store, block, json.clone()))?;
    let key = input_key(&ArtifactHash::of(&json));
    errln!("{sent} private proofs sent, the others were there");
    outln!("url: {}/{key}\nsha256: {}", args.store.trim_end_matches('/'), hex::encode(Sha256::digest(&json)));
    Ok(())
}

fn open(url: &str) -> Result<ArtifactStore, CliError> {
    let usage = |problem: String| CliError::Usage { option: "--store", problem };
    if url.starts_with("http") {
        return Err(usage(format!("`{url}`, allowed are file://, s3://, gs:// and az://")));
    }
    ArtifactStore::open(url, &StoreOptions::default()).map_err(|error| usage(error.to_string()))
}

async fn push(args: &Args, store: &ArtifactStore, block: Block, json: Bytes) -> Result<u64, CliError> {
    let folder = args.objects.clone().map_or_else(|| Folder::beside(&args.file), Folder);
    let total = block.transactions.len();
    let (block, folder) = (Arc::new(block), Arc::new(folder));
    let mut progress = Progress::start("private proofs in the store", total as u64);
    let (mut done, mut sent) = (0, 0);
    let mut sending = stream::iter(0..total)
        .map(|t| send(store.clone(), block.clone(), folder.clone(), t))
        .buffer_unordered(args.parallel.into());
    while let Some(is_new) = sending.try_next().await.map_err(|error| error.of(args))? {
        done += 1;
        sent += u64::from(is_new);
        progress.set(done);
    }
    drop(sending);
    progress.done();
    let put = with_retry(PATIENCE, || store.put_input(json.clone())).await;
    put.map_err(|error| CliError::failed("send the block file", error))?;
    Ok(sent)
}

enum NotSent {
    Bad(BlockError),
    Store(StoreError),
}

impl NotSent {
    fn of(self, args: &Args) -> CliError {
        match self {
            Self::Bad(source) => CliError::Block { file: args.file.clone(), source },
            Self::Store(error) => CliError::failed("send a private proof", error),
        }
    }
}

/// Whether it was not there before.
async fn send(
    store: ArtifactStore,
    block: Arc<Block>,
    folder: Arc<Folder>,
    t: usize,
) -> Result<bool, NotSent> {
    let hash = block.transactions[t].private_proof;
    let key = input_key(&hash);
    if with_retry(PATIENCE, || store.head(&key)).await.map_err(NotSent::Store)?.is_some() {
        return Ok(false);
    }
    let bytes = super::private_proof(&block, &folder, t).map_err(NotSent::Bad)?;
    let found = ArtifactHash::of(&bytes);
    if found != hash {
        let problem = format!("{hash}, but the object has the hash {found}");
        let field = format!("transactions[{t}].private_proof");
        return Err(NotSent::Bad(BlockError { field, problem }));
    }
    let bytes = Bytes::from(bytes);
    with_retry(PATIENCE, || store.put_input(bytes.clone())).await.map_err(NotSent::Store)?;
    Ok(true)
}
