//! `arborist block check`: is a block file what it should be, and are its private proofs there?

use crate::cli::CliError;
use crate::cli::progress::Progress;
use crate::cli::serve::BackendName;
use crate::intake::Folder;
use arborist_core::block::{Block, BlockError};
use arborist_core::ids::ArtifactHash;
use arborist_system::{errln, outln};
use clap::Args as ClapArgs;
use std::path::PathBuf;
use std::sync::Mutex;

/// Options of `arborist block check`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The block file
    file: PathBuf,
    /// The folder with the private proofs, each named by its hash [default: `objects` beside the file]
    #[arg(long)]
    objects: Option<PathBuf>,
    /// What is to prove it: with process and fake of the private proofs only the hashes are checked
    #[arg(long, value_enum, default_value = "plonky2")]
    backend: BackendName,
}

/// Fewer private proofs are checked before anybody wonders how long it takes.
const MANY: usize = 100;
/// Faults that are told one by one.
const MAX_TOLD: usize = 50;

/// Checks format, chain of states and every private proof. All but the last fault are told on standard error.
///
/// # Errors
/// The last thing wrong with the file, by field.
pub fn run(args: &Args) -> Result<(), CliError> {
    let block = super::stream(&args.file)?;
    let folder = args.objects.clone().map_or_else(|| Folder::beside(&args.file), Folder);
    let faults = match args.backend {
        BackendName::Plonky2 => faults(&block, &folder),
        BackendName::Process | BackendName::Fake => Ok(faults_of_hashes(&block, &folder)),
    };
    tell(args, faults.unwrap_or_else(|fault| vec![fault]))?;
    let calls: usize = block.transactions.iter().map(|t| t.calls.len()).sum();
    outln!(
        "{}: valid. Block {} of chain {}, {} transactions with {calls} public calls, profile {}.",
        args.file.display(),
        block.block_number,
        block.chain_id,
        block.transactions.len(),
        block.profile,
    );
    Ok(())
}

fn faults(block: &Block, folder: &Folder) -> Result<Vec<BlockError>, BlockError> {
    let progress = Mutex::new((0, progress(block)));
    let faults = arborist_circuits::faults_of_block(block, |t| {
        let proof = super::private_proof(block, folder, t);
        if let Ok(mut progress) = progress.lock() {
            progress.0 += 1;
            let done = progress.0;
            progress.1.iter_mut().for_each(|progress| progress.set(done));
        }
        proof
    });
    if let Ok((_, Some(progress))) = progress.into_inner() {
        progress.done();
    }
    faults
}

fn faults_of_hashes(block: &Block, folder: &Folder) -> Vec<BlockError> {
    let mut progress = progress(block);
    let mut faults = vec![];
    for (t, transaction) in block.transactions.iter().enumerate() {
        match super::private_proof(block, folder, t).map(|bytes| ArtifactHash::of(&bytes)) {
            Ok(hash) if hash == transaction.private_proof => {}
            Ok(hash) => faults.push(BlockError {
                field: format!("transactions[{t}].private_proof"),
                problem: format!("{}, but the object has the hash {hash}", transaction.private_proof),
            }),
            Err(fault) => faults.push(fault),
        }
        progress.iter_mut().for_each(|progress| progress.set(t as u64 + 1));
    }
    progress.into_iter().for_each(Progress::done);
    faults
}

fn progress(block: &Block) -> Option<Progress> {
    let total = block.transactions.len();
    (total >= MANY).then(|| Progress::start("private proofs checked", total as u64))
}

fn tell(args: &Args, mut faults: Vec<BlockError>) -> Result<(), CliError> {
    let wrong = |source| CliError::Block { file: args.file.clone(), source };
    let more = faults.len().saturating_sub(MAX_TOLD);
    faults.truncate(MAX_TOLD);
    if more > 0 {
        let problem = format!("{more} more faults like these");
        faults.push(BlockError { field: "transactions".into(), problem });
    }
    let Some(last) = faults.pop() else { return Ok(()) };
    for fault in faults {
        errln!("error: {}", wrong(fault).one_line());
    }
    Err(wrong(last))
}
