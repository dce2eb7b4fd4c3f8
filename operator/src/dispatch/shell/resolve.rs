//! From a block to what the engine and the workers need of it.

use arborist_artifacts::{ArtifactStore, StoreError, with_retry};
use arborist_circuits::Statements;
use arborist_core::block::{Block, BlockError, Word};
use arborist_core::engine::Source;
use arborist_core::profile::Profile;
use arborist_core::tree::Leaves;
use std::sync::Arc;
use std::time::Duration;

/// How long a store that does not answer is asked again at a start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A block, or what stands for one.
pub(super) struct Material {
    /// Public calls of each transaction.
    pub calls: Vec<u8>,
    pub leaves: Leaves,
    /// What has to lie in the artifact store, each under its hash.
    pub inputs: Vec<Vec<u8>>,
    pub statements: Option<Arc<Statements>>,
    /// Chain and block number of a real block.
    pub block: Option<(u64, u64)>,
}

/// Why a block can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBlock {
    /// Its file.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Made for other circuits.
    #[error("profile: `{found}`, allowed is `{wanted}`")]
    Profile {
        /// What the block says.
        found: String,
        /// What this dispatcher proves.
        wanted: String,
    },
}

/// Reads a block file and works out its leaves and statements. Takes seconds for a large one.
pub(super) fn of_block(json: &[u8], prover: [u8; 32], profile: &Profile) -> Result<Material, BadBlock> {
    let block = Block::parse(json, profile.max_calls.into())?;
    if block.profile != profile.circuits {
        return Err(BadBlock::Profile { found: block.profile, wanted: profile.circuits.clone() });
    }
    let (leaves, inputs) = Leaves::of_block(&block)?;
    let statements = Statements::new(&block, Word(prover))?;
    Ok(Material {
        calls: block.transactions.iter().map(|t| t.calls.len() as u8).collect(),
        leaves,
        inputs,
        statements: Some(Arc::new(statements)),
        block: Some((block.chain_id, block.block_number)),
    })
}

pub(super) fn synthetic(calls: &[u8], seed: u64) -> Material {
    let leaves = Leaves::Synthetic { seed };
    Material { calls: calls.to_vec(), leaves, inputs: vec![], statements: None, block: None }
}

/// Gets a job's material again after a restart.
///
/// # Errors
/// In a line: the block is gone from the store, damaged, or the store does not answer.
pub(super) async fn load(
    store: &ArtifactStore,
    source: &Source,
    prover: [u8; 32],
    profile: &Profile,
) -> Result<Material, String> {
    let hash = match source {
        Source::Synthetic { calls, seed } => return Ok(synthetic(calls, *seed)),
        Source::Block(hash) => *hash,
    };
    let text = |error: StoreError| error.to_string();
    let json = with_retry(PATIENCE, || store.get_input(&hash)).await.map_err(text)?;
    let json = json.ok_or_else(|| format!("its block {hash} is not in the artifact store"))?;
    let profile = profile.clone();
    tokio::task::spawn_blocking(move || of_block(&json, prover, &profile).map_err(|e| e.to_string()))
        .await
        .unwrap_or_else(|_| Err("reading its block crashed".into()))
}
