//! How many bytes of inputs a job holds in the artifact store: its block file, and each private proof that it names, once.
//! Only where a namespace's quota bounds them: nobody else asks the store for so much.

use super::past::PastError;
use super::{Inner, JobError};
use crate::intake::BlockFile;
use arborist_artifacts::StoreError;
use arborist_core::engine::{JobId, JobState, PreparedJob, Source};
use arborist_core::ids::ArtifactHash;
use arborist_core::proof_object::input_key;
use arborist_core::tree::Leaves;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::HashSet;
use std::sync::Arc;

/// Inputs looked at at once.
const PARALLEL: usize = 32;

impl Inner {
    /// What a block that is to be taken in will hold. A private proof that is not in the store is asked for where its
    /// block file says, and counts nothing if nobody says how long it is: it is counted when it comes.
    pub(super) async fn bytes_of_file(&self, file: &BlockFile) -> Result<u64, StoreError> {
        let hashes: HashSet<ArtifactHash> =
            file.block().transactions.iter().map(|transaction| transaction.private_proof).collect();
        let size = |hash: ArtifactHash| async move {
            match self.store.head(&input_key(&hash)).await? {
                Some(bytes) => Ok::<_, StoreError>(bytes),
                None => Ok(file.objects().size(hash).await.unwrap_or(0)),
            }
        };
        let sizes = stream::iter(hashes).map(size).buffer_unordered(PARALLEL);
        sizes.try_fold(file.json().len() as u64, add).await
    }

    /// What the inputs that a tree names have in the store.
    pub(super) async fn bytes_of_tree(&self, tree: &PreparedJob) -> Result<u64, StoreError> {
        let mut hashes: HashSet<ArtifactHash> = match &tree.leaves {
            Leaves::Block { private_proofs, .. } => private_proofs.iter().copied().collect(),
            Leaves::Synthetic { .. } => HashSet::new(),
        };
        if let Source::Block(block) = &tree.spec.source {
            hashes.insert(*block);
        }
        let size =
            |hash: ArtifactHash| async move { Ok(self.store.head(&input_key(&hash)).await?.unwrap_or(0)) };
        stream::iter(hashes).map(size).buffer_unordered(PARALLEL).try_fold(0, add).await
    }

    /// Counts the open jobs of a namespace that were taken in before this process started.
    pub(super) async fn count_open(&self, namespace: &str) -> Result<(), StoreError> {
        if !self.options.quotas.bounds_bytes(namespace) {
            return Ok(());
        }
        let open = self.room.look(|core| {
            let of = |id: &JobId| {
                let state = core.engine.counts(*id).map(|(_, state)| state);
                matches!(state, Some(JobState::Proving | JobState::Checking))
                    && core.engine.namespace(*id) == Some(namespace)
            };
            core.engine.jobs().filter(of).collect::<Vec<_>>()
        });
        for id in open {
            self.count_inputs(id).await?;
        }
        Ok(())
    }

    /// Counts a job's inputs, if it has a tree and that was not done yet.
    async fn count_inputs(&self, id: JobId) -> Result<(), StoreError> {
        let tree: Option<Arc<PreparedJob>> = self.room.look(|core| {
            let unknown = core.jobs.get(&id).is_some_and(|entry| entry.input_bytes.is_none());
            core.engine.prepared_job(id).filter(|_| unknown).cloned()
        });
        let Some(tree) = tree else { return Ok(()) };
        let bytes = self.bytes_of_tree(&tree).await?;
        self.note_input_bytes(id, bytes);
        Ok(())
    }

    pub(super) fn note_input_bytes(&self, id: JobId, bytes: u64) {
        self.room.tend(|core| {
            if let Some(entry) = core.jobs.get_mut(&id) {
                entry.input_bytes = Some(bytes);
            }
        });
    }

    /// Whether a job may go on, as far as the quota of its namespace goes. Looked at once more when it does.
    pub(super) async fn check_revival(&self, id: JobId) -> Result<(), JobError> {
        let namespace = self.room.look(|core| core.engine.namespace(id).map(str::to_owned));
        let namespace = namespace.ok_or(JobError::Unknown(id))?;
        let counted = async {
            self.count_open(&namespace).await?;
            match self.options.quotas.bounds_bytes(&namespace) {
                true => self.count_inputs(id).await,
                false => Ok(()),
            }
        };
        counted.await.map_err(PastError::Store)?;
        Ok(self.room.look(|core| self.options.quotas.check_again(core, id))?)
    }
}

async fn add(sum: u64, bytes: u64) -> Result<u64, StoreError> {
    Ok(sum.saturating_add(bytes))
}
