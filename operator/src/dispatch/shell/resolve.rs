//! From a block to what the engine and the workers need of it.

use crate::intake::{BlockFile, Nowhere, Reserved};
use arborist_artifacts::{ArtifactStore, StoreError, with_retry};
use arborist_circuits::Statements;
use arborist_core::block::{Block, BlockError, Word};
use arborist_core::engine::{Source, Unresolved};
use arborist_core::profile::Profile;
use arborist_core::text::echo;
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

/// Works out a block's leaves and statements. Takes a second for a large one.
pub(super) fn of_block(block: &Block, prover: [u8; 32], profile: &Profile) -> Result<Material, BadBlock> {
    if block.profile != profile.circuits {
        return Err(BadBlock::Profile { found: echo(&block.profile), wanted: profile.circuits.clone() });
    }
    let statements = Statements::new(block, Word(prover))?;
    Ok(Material {
        calls: block.transactions.iter().map(|t| t.calls.len() as u8).collect(),
        leaves: Leaves::of_block(block),
        statements: Some(Arc::new(statements)),
        block: Some((block.chain_id, block.block_number)),
    })
}

pub(super) fn synthetic(calls: &[u8], seed: u64) -> Material {
    let leaves = Leaves::Synthetic { seed };
    Material { calls: calls.to_vec(), leaves, statements: None, block: None }
}

/// Gets a job's material again from what the artifact store has of it, and its block file, which is held in what is
/// `reserved`: at a start, where one block is read after the other, in nothing.
///
/// # Errors
/// In a line: the block is gone from the store, damaged, or not one for these circuits; or the store does not answer.
pub(super) async fn load(
    store: &ArtifactStore,
    source: &Source,
    prover: [u8; 32],
    profile: &Profile,
    reserved: Option<Reserved>,
) -> Result<(Material, Option<BlockFile>), Unresolved> {
    let hash = match source {
        Source::Synthetic { calls, seed } => return Ok((synthetic(calls, *seed), None)),
        Source::Block(hash) => *hash,
    };
    let json = with_retry(PATIENCE, || store.get_input(&hash)).await.map_err(unread)?;
    let gone = || Unresolved::Lost(format!("its block {hash} is not in the artifact store"));
    let json = json.ok_or_else(gone)?;
    let profile = profile.clone();
    let read = move || -> Result<(Material, Option<BlockFile>), BadBlock> {
        let file = BlockFile::read(json, profile.max_calls, Arc::new(Nowhere), reserved)?;
        Ok((of_block(file.block(), prover, &profile)?, Some(file)))
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(material) => material.map_err(|error| Unresolved::Lost(error.to_string())),
        Err(error) if error.is_panic() => Err(Unresolved::Lost("reading its block crashed".into())),
        Err(_) => Err(Unresolved::NotNow("the process is ending".into())),
    }
}

/// An object that is there and not the block is lost; what else a store says may be different tomorrow.
fn unread(error: StoreError) -> Unresolved {
    match error {
        StoreError::Corrupt { .. } | StoreError::TooLarge { .. } => Unresolved::Lost(error.to_string()),
        _ => Unresolved::NotNow(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_damaged_is_lost() {
        let of = |make: fn(String, String) -> StoreError| make("get".into(), "no".into());
        for (error, lost) in [
            (of(|action, reason| StoreError::Corrupt { action, reason }), true),
            (of(|action, _| StoreError::TooLarge { action, bytes: 2, max_bytes: 1 }), true),
            (of(|action, reason| StoreError::Unavailable { action, reason }), false),
            (of(|action, reason| StoreError::Denied { action, reason }), false),
            (of(|action, reason| StoreError::Full { action, reason }), false),
            (of(|action, reason| StoreError::Other { action, reason }), false),
        ] {
            let text = error.to_string();
            let wanted = if lost { Unresolved::Lost(text) } else { Unresolved::NotNow(text) };
            assert_eq!(unread(error), wanted);
        }
    }
}
