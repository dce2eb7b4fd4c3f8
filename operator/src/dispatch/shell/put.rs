//! What a block's tasks read, put into the artifact store.

use super::Inner;
use super::submit::SubmitError;
use crate::intake::BlockFile;
use arborist_core::block::MAX_PRIVATE_PROOF_BYTES;
use arborist_core::ids::ArtifactHash;
use arborist_core::proof_object::input_key;
use arborist_core::text::echo;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::HashSet;
use std::sync::Arc;

impl Inner {
    /// Sees to it that the artifact store has all that the block's tasks read, and the block file for the next start.
    /// What is missing is looked for before much is written.
    pub(super) async fn put_inputs(self: &Arc<Self>, file: Arc<BlockFile>) -> Result<(), SubmitError> {
        self.put_inputs_of(file, u64::MAX, |_| Ok(())).await.map(drop)
    }

    /// As [`Inner::put_inputs`], of a block whose file and private proofs are said to have so many bytes; each time there are
    /// more, `grown` is asked whether that may be. Returns how many there are.
    pub(super) async fn put_inputs_of(
        self: &Arc<Self>,
        file: Arc<BlockFile>,
        said: u64,
        grown: impl Fn(u64) -> Result<(), SubmitError>,
    ) -> Result<u64, SubmitError> {
        let transactions = file.block().transactions.len();
        let (mut seen, mut bytes) = (HashSet::new(), file.json().len() as u64);
        let mut proofs = stream::iter(0..transactions)
            .map(|transaction| self.clone().put_private_proof(file.clone(), transaction))
            .buffer_unordered(self.options.intake_parallel);
        while let Some((hash, length)) = proofs.try_next().await? {
            if seen.insert(hash) {
                bytes += length;
                if bytes > said {
                    grown(bytes)?;
                }
            }
        }
        drop(proofs);
        stream::iter(0..transactions)
            .map(|transaction| self.clone().put_calls(file.clone(), transaction))
            .buffer_unordered(self.options.intake_parallel)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await?;
        self.store.put_input(file.json().clone()).await?;
        Ok(bytes)
    }

    async fn put_calls(self: Arc<Self>, file: Arc<BlockFile>, transaction: usize) -> Result<(), SubmitError> {
        for call in &file.block().transactions[transaction].calls {
            self.store.put_input(call.to_input().into()).await?;
        }
        Ok(())
    }

    /// That it is there is all that is looked at: whoever needs it first verifies it. Returns its hash and length in bytes.
    async fn put_private_proof(
        self: Arc<Self>,
        file: Arc<BlockFile>,
        transaction: usize,
    ) -> Result<(ArtifactHash, u64), SubmitError> {
        let hash = file.block().transactions[transaction].private_proof;
        let missing = |problem: String| SubmitError::NoObject {
            field: format!("transactions[{transaction}].private_proof"),
            problem,
        };
        if let Some(bytes) = self.store.head(&input_key(&hash)).await? {
            return match bytes {
                0..=MAX_PRIVATE_PROOF_BYTES => Ok((hash, bytes)),
                _ => Err(missing(format!(
                    "the object {hash} in the artifact store has {bytes} bytes, allowed are at most \
                     {MAX_PRIVATE_PROOF_BYTES}"
                ))),
            };
        }
        let place = file.objects().place();
        match file.objects().get(hash).await {
            Ok(Some(bytes)) if ArtifactHash::of(&bytes) == hash => {
                let length = bytes.len() as u64;
                self.store.put_input(bytes).await?;
                Ok((hash, length))
            }
            Ok(Some(bytes)) => {
                let found = ArtifactHash::of(&bytes);
                Err(missing(format!("{hash}, but the object of this name in {place} has the hash {found}")))
            }
            Ok(None) if place.is_empty() => Err(missing(format!(
                "the object {hash} is not in the artifact store: `arborist block push` it first"
            ))),
            Ok(None) => {
                Err(missing(format!("the object {hash} is neither in the artifact store nor in {place}")))
            }
            Err(problem) => Err(missing(format!("the object {hash}: {}", echo(&problem)))),
        }
    }
}
