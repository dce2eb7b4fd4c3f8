//! Inputs that the store has lost, and the block itself, are put again when work on a job begins anew: at a submit
//! of the same block, at revive and resume, and after a start.

use super::Inner;
use super::resolve;
use crate::intake::BlockFile;
use arborist_artifacts::{ArtifactStore, StoreError};
use arborist_core::engine::{JobId, JobState, PreparedJob, Source, TaskState, Unresolved};
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::proof_object::input_key;
use arborist_core::tree::NodeId;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Inputs looked for, or written, at once.
const PARALLEL: usize = 32;
/// Nodes asked for in one look at the engine.
const BATCH: usize = 1024;
/// How long a revive or resume waits for lost inputs to be put again.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why lost inputs were not put again.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRestored {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Block(String),
}

/// What a job needs of the store that is no proof.
struct Needed {
    tree: Arc<PreparedJob>,
    /// Of tasks that are not done.
    inputs: HashSet<ArtifactHash>,
    /// Of tasks that were given up: not only whether they are there is looked at, but what they are.
    doubted: HashSet<ArtifactHash>,
}

impl Inner {
    /// Puts what the open tasks of a job need and the store has lost. Best effort: a task whose input is lost for
    /// good says so itself.
    pub(super) async fn restore_inputs(&self, job: JobId, given: Option<Arc<BlockFile>>) {
        match self.try_restore(job, given).await {
            Ok(0) => {}
            Ok(restored) => {
                tracing::warn!(
                    job = job.0,
                    restored,
                    "inputs were lost from the store: they are there again"
                );
            }
            Err(error) => tracing::warn!(job = job.0, %error, "lost inputs can't be put again"),
        }
    }

    /// As [`Inner::restore_inputs`], before something is done that needs them. A store that does not answer is not
    /// waited for: it goes on beside.
    pub(super) async fn restore_before(self: &Arc<Self>, job: JobId) {
        let (done, restored) = oneshot::channel();
        let inner = self.clone();
        self.spawn(async move {
            inner.restore_inputs(job, None).await;
            // nobody waits any more
            let _ = done.send(());
        });
        let _late_or_stopped = timeout(PATIENCE, restored).await;
    }

    /// How many were put again. `given` is the block file, if it is at hand.
    async fn try_restore(&self, job: JobId, given: Option<Arc<BlockFile>>) -> Result<usize, NotRestored> {
        let Some(needed) = self.needed(job) else { return Ok(0) };
        let mut gone = lost(&self.store, &needed.inputs, Look::There).await?;
        gone.extend(lost(&self.store, &needed.doubted, Look::Sound).await?);
        if let (Source::Block(block), Some(_)) = (&needed.tree.spec.source, &given) {
            // the next start needs it
            gone.extend(lost(&self.store, &HashSet::from([*block]), Look::There).await?);
        }
        if gone.is_empty() {
            return Ok(0);
        }
        let file = match given {
            Some(given) => Some(given),
            None => self.stored_file(&needed.tree).await?,
        };
        let Some(file) = file else { return Ok(0) };
        let (found, of) = (file.clone(), gone.clone());
        let found = tokio::task::spawn_blocking(move || inputs_of(&found, &of));
        let found = found.await.map_err(|error| NotRestored::Block(error.to_string()))?;
        let put = stream::iter(found).map(|input| put_again(self.store.clone(), file.clone(), input));
        let put: Vec<bool> = put.buffer_unordered(PARALLEL).try_collect().await?;
        let restored = put.iter().filter(|put| **put).count();
        if restored < gone.len() {
            let text = format!(
                "{} inputs are lost from the store; private proofs have to be sent again with their block",
                gone.len() - restored
            );
            return Err(NotRestored::Block(text));
        }
        Ok(restored)
    }

    /// The file of a job's block, which has to be in the store.
    async fn stored_file(&self, tree: &PreparedJob) -> Result<Option<Arc<BlockFile>>, NotRestored> {
        let Source::Block(hash) = &tree.spec.source else { return Ok(None) };
        let bytes = self.store.head(&input_key(hash)).await?.unwrap_or(0);
        let reserved = self.intake.reserve(bytes).await;
        let reserved = reserved.map_err(|error| NotRestored::Block(error.to_string()))?;
        let (spec, profile) = (&tree.spec, &self.options.engine.profile);
        let loaded = resolve::load(&self.store, &spec.source, spec.prover_id, profile, Some(reserved)).await;
        let (_, file) = loaded.map_err(|error| match error {
            Unresolved::Lost(text) | Unresolved::NotNow(text) => NotRestored::Block(text),
        })?;
        Ok(file.map(Arc::new))
    }

    fn needed(&self, job: JobId) -> Option<Needed> {
        let (tree, open, failed) = self.room.look(|core| {
            let tree = core.engine.prepared_job(job)?.clone();
            let (counts, state) = core.engine.counts(job)?;
            let over = matches!(state, JobState::Complete);
            let failed = counts.iter().any(|count| count.failed > 0);
            (!over && matches!(tree.spec.source, Source::Block(_)))
                .then(|| (tree, core.engine.open_tasks(job), failed))
        })?;
        let open: HashSet<TaskId> = open.into_iter().collect();
        let of = |node: NodeId| tree.leaves.inputs(&tree.shape, node).into_iter();
        let nodes: Vec<NodeId> =
            tree.shape.nodes().filter(|node| open.contains(&tree.ids[node.index()])).collect();
        let inputs = nodes.iter().flat_map(|node| of(*node)).collect();
        let mut doubted = HashSet::new();
        if failed {
            for nodes in nodes.chunks(BATCH) {
                let given_up: Vec<NodeId> = self.room.look(|core| {
                    let failed = |node: &NodeId| {
                        core.engine.task(job, *node).is_some_and(|task| task.state == TaskState::Failed)
                    };
                    nodes.iter().copied().filter(failed).collect()
                });
                doubted.extend(given_up.into_iter().flat_map(of));
            }
        }
        Some(Needed { tree, inputs, doubted })
    }

    /// After a start, and beside it: what open jobs need.
    pub(super) async fn restore_all_inputs(self: Arc<Self>) {
        let open = |core: &super::core::Core| -> Vec<JobId> {
            let proving =
                |id: &JobId| core.engine.counts(*id).is_some_and(|(_, state)| *state == JobState::Proving);
            core.engine.jobs().filter(proving).collect()
        };
        for job in self.room.look(open) {
            self.restore_inputs(job, None).await;
        }
    }
}

/// How closely an input is looked at.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// Whether it is there.
    There,
    /// Whether it is what its hash says, too.
    Sound,
}

/// Those of the inputs that the store does not have.
async fn lost(
    store: &ArtifactStore,
    inputs: &HashSet<ArtifactHash>,
    look: Look,
) -> Result<HashSet<ArtifactHash>, StoreError> {
    let ask = |hash: ArtifactHash| async move {
        let there = match look {
            Look::There => store.head(&input_key(&hash)).await?.is_some(),
            Look::Sound => match store.get_input(&hash).await {
                Ok(found) => found.is_some(),
                Err(StoreError::Corrupt { .. } | StoreError::TooLarge { .. }) => false,
                Err(error) => return Err(error),
            },
        };
        Ok((!there).then_some(hash))
    };
    let answers = stream::iter(inputs.iter().copied()).map(ask).buffer_unordered(PARALLEL);
    answers.try_filter_map(|lost| std::future::ready(Ok(lost))).try_collect().await
}

/// An input, by where the block file says it.
#[derive(Debug, Clone, Copy)]
enum Input {
    File,
    Call { transaction: usize, call: usize },
    PrivateProof(ArtifactHash),
}

/// Which inputs of a block have these hashes, each once.
fn inputs_of(file: &BlockFile, hashes: &HashSet<ArtifactHash>) -> Vec<Input> {
    let mut open = hashes.clone();
    let mut found = vec![];
    if open.remove(&ArtifactHash::of(file.json())) {
        found.push(Input::File);
    }
    for (t, transaction) in file.block().transactions.iter().enumerate() {
        if open.remove(&transaction.private_proof) {
            found.push(Input::PrivateProof(transaction.private_proof));
        }
        for (c, call) in transaction.calls.iter().enumerate() {
            if open.remove(&call.input_hash()) {
                found.push(Input::Call { transaction: t, call: c });
            }
        }
    }
    found
}

/// Writes an input that is not there, or not as it should be; whether it was at hand.
async fn put_again(store: ArtifactStore, file: Arc<BlockFile>, input: Input) -> Result<bool, NotRestored> {
    let bytes = match input {
        Input::File => file.json().clone(),
        Input::Call { transaction, call } => {
            file.block().transactions[transaction].calls[call].to_input().into()
        }
        Input::PrivateProof(hash) => match file.objects().get(hash).await {
            Ok(Some(bytes)) if ArtifactHash::of(&bytes) == hash => bytes,
            Ok(_) => return Ok(false),
            Err(problem) => return Err(NotRestored::Block(problem)),
        },
    };
    store.put_input(bytes).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_artifacts::{Created, StoreOptions};
    use bytes::Bytes;

    #[tokio::test]
    async fn what_is_not_there_or_not_what_it_should_be_is_found_and_put_again() {
        let store = ArtifactStore::open("memory:///", &StoreOptions::default()).unwrap();
        let [sound, gone, bad] = ["sound", "gone", "bad"].map(|text| Bytes::from_static(text.as_bytes()));
        let hash = ArtifactHash::of;
        store.put_input(sound.clone()).await.unwrap();
        assert_eq!(store.create(&input_key(&hash(&bad)), "garbage".into()).await.unwrap(), Created::New);
        let all = HashSet::from([hash(&sound), hash(&gone), hash(&bad)]);
        assert_eq!(lost(&store, &all, Look::There).await.unwrap(), HashSet::from([hash(&gone)]));
        let found = lost(&store, &all, Look::Sound).await.unwrap();
        assert_eq!(found, HashSet::from([hash(&gone), hash(&bad)]));
        for input in [sound, gone, bad] {
            store.put_input(input).await.unwrap();
        }
        assert!(lost(&store, &all, Look::Sound).await.unwrap().is_empty());
    }
}
