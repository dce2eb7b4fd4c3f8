//! `arborist block new`: a sample block with its private proofs beside it.

use super::ShapeArgs;
use crate::cli::CliError;
use crate::cli::input::write_whole;
use crate::cli::progress::Progress;
use crate::intake::Folder;
use arborist_circuits::{SampleError, made_up_block, sample_each};
use arborist_core::block::{Block, MAX_PRIVATE_PROOF_BYTES};
use arborist_core::ids::ArtifactHash;
use arborist_system::outln;
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};

/// Options of `arborist block new`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    shape: ShapeArgs,
    /// Private proofs of so many random bytes, each different, e.g. random:134800: at once, and for the fake backend
    /// only. [default: real ones, some 5 CPU seconds each]
    #[arg(long, value_parser = random_bytes)]
    objects: Option<usize>,
    /// Where to write the block file; its private proofs go to the folder `objects` beside it
    #[arg(long)]
    out: PathBuf,
}

fn random_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.strip_prefix("random:").and_then(|bytes| bytes.parse().ok());
    let allowed = 16..=MAX_PRIVATE_PROOF_BYTES as usize;
    bytes
        .filter(|bytes| allowed.contains(bytes))
        .ok_or_else(|| format!("allowed is random:BYTES, 16 to {MAX_PRIVATE_PROOF_BYTES} of them"))
}

/// Makes the block and writes it.
///
/// # Errors
/// A number is not allowed, or the files can't be written.
pub fn run(args: &Args) -> Result<(), CliError> {
    let block = match args.objects {
        Some(bytes) => made_up(&args.shape, bytes, &args.out)?,
        None => sample(&args.shape, &args.out)?,
    };
    let calls: usize = block.transactions.iter().map(|t| t.calls.len()).sum();
    outln!(
        "{}: block {} of chain {}, {} transactions with {calls} public calls; private proofs in {}.",
        args.out.display(),
        block.block_number,
        block.chain_id,
        block.transactions.len(),
        Folder::beside(&args.out).0.display(),
    );
    Ok(())
}

/// Makes a sample block and writes it: one private proof a transaction, a few seconds each on one core.
///
/// # Errors
/// The circuits refuse to make it, or the files can't be written.
pub fn sample(shape: &ShapeArgs, file: &Path) -> Result<Block, CliError> {
    let mut objects = Objects::beside(file, "private proofs made", shape)?;
    let made = sample_each(&shape.calls_of_each(), shape.chain_id, shape.block_number, shape.seed, |proof| {
        objects.write(&proof).map(drop)
    });
    objects.progress.done();
    write(file, made)
}

fn made_up(shape: &ShapeArgs, bytes: usize, file: &Path) -> Result<Block, CliError> {
    let mut objects = Objects::beside(file, "random objects made", shape)?;
    let mut proof = vec![0; bytes];
    let calls = shape.calls_of_each();
    let made = made_up_block(&calls, shape.chain_id, shape.block_number, shape.seed, |t| {
        let mut hasher = blake3::Hasher::new_derive_key("arborist random private proof");
        hasher.update(&shape.seed.to_le_bytes()).update(&(t as u64).to_le_bytes());
        hasher.finalize_xof().fill(&mut proof);
        objects.write(&proof)
    });
    objects.progress.done();
    write(file, made)
}

fn write(file: &Path, made: Result<Block, SampleError>) -> Result<Block, CliError> {
    let block = made.map_err(|error| match error {
        SampleError::NotKept(why) => CliError::Failed(why),
        error => CliError::failed("make the sample block", error),
    })?;
    let json = serde_json::to_vec(&block).map_err(|e| CliError::failed("write the block", e))?;
    write_whole(file, &json)?;
    Ok(block)
}

/// The folder beside a block file, being filled.
struct Objects {
    folder: PathBuf,
    progress: Progress,
    done: u64,
}

impl Objects {
    fn beside(file: &Path, what: &'static str, shape: &ShapeArgs) -> Result<Self, CliError> {
        let Folder(folder) = Folder::beside(file);
        std::fs::create_dir_all(&folder)
            .map_err(|e| CliError::failed(format!("make the folder {}", folder.display()), e))?;
        Ok(Self { folder, progress: Progress::start(what, shape.transactions.into()), done: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<ArtifactHash, String> {
        let hash = ArtifactHash::of(bytes);
        write_whole(&self.folder.join(hash.to_string()), bytes).map_err(|error| error.to_string())?;
        self.done += 1;
        self.progress.set(self.done);
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::random_bytes;

    #[test]
    fn random_objects_have_a_size_that_a_private_proof_may_have() {
        assert_eq!(random_bytes("random:134800"), Ok(134_800));
        for bad in
            ["random:15", "random:1048577", "random", "134800", "random:-1", "random:99999999999999999999"]
        {
            assert!(random_bytes(bad).is_err(), "{bad}");
        }
    }
}
