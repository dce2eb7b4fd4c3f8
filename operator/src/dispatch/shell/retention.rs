//! What is deleted of jobs that are over: a pure decision, and the deleting.

use super::core::Core;
use super::past::PastError;
use super::{Dispatcher, Inner};
use crate::dispatch::net::SendBuffers;
use arborist_artifacts::StoreError;
use arborist_core::engine::{Event, JobId, JobState, Millis, PreparedJob, Source};
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::proof_object::{input_key, proof_key};
use arborist_core::tree::{Leaves, NodeId};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::RwLockWriteGuard;

/// How often a look is taken at jobs that are over.
const LOOK: Duration = Duration::from_secs(30);
/// Tasks whose proofs are deleted between two looks at whether another job needs them.
const BATCH: usize = 1000;

/// Root proofs that somebody names; `None` while that is not known.
pub(super) type NamedRoots = dyn Fn() -> Option<HashSet<TaskId>> + Send + Sync;

impl Dispatcher {
    /// From now on the proofs of these roots stay when their trees are deleted, and nothing is deleted while they are
    /// not known (`None`).
    pub fn keep_roots(&self, named: impl Fn() -> Option<HashSet<TaskId>> + Send + Sync + 'static) {
        *self.inner.named.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(named));
    }

    /// Deletes the proof of a root that nobody names any more, unless a tree in the books has it: then it goes with
    /// that tree. Whether it did.
    ///
    /// # Errors
    /// The store does not delete it.
    pub async fn release_root(&self, root: &TaskId) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let in_the_books = || inner.room.look(|core| core.engine.find(root).is_some());
        // most are, and no submit has to wait for that
        if in_the_books() || inner.journal.confirm().await.is_err() {
            return Ok(false);
        }
        let _no_submit = inner.deleting.write().await;
        if in_the_books() {
            return Ok(false);
        }
        inner.store.delete(&proof_key(root)).await.map(|()| true)
    }
}

/// Whether a job's time is up.
fn is_due(state: &JobState, ended_for: Option<Millis>, keep: Millis) -> bool {
    let over = match state {
        JobState::Complete | JobState::Failed { .. } | JobState::Cancelled => true,
        JobState::Proving | JobState::Checking => false,
    };
    over && ended_for.is_some_and(|millis| millis >= keep)
}

/// Of a job's tasks and inputs, the keys to delete: those that no other job has. After a reorg another job
/// may take an input that it shares with no task of this one.
fn keys_to_delete(tree: &PreparedJob, nodes: &[u32], others: &Others) -> Vec<String> {
    let mut keys = vec![];
    for &node in nodes {
        let task = tree.ids[node as usize];
        keys.extend((!others.tasks.contains(&task)).then(|| proof_key(&task)));
        let input = tree.leaves.inputs(&tree.shape, NodeId(node));
        keys.extend(input.filter(|hash| !others.inputs.contains(hash)).map(|hash| input_key(&hash)));
    }
    keys
}

impl Inner {
    /// Deletes jobs whose time is up until the dispatcher stops.
    pub(super) async fn keep_clean(self: Arc<Self>) {
        let Some(keep) = self.options.retention else { return };
        loop {
            tokio::time::sleep(LOOK.min(keep)).await;
            if self.named().is_none() {
                continue;
            }
            for job in self.due(keep.as_millis() as Millis) {
                match self.delete_job(job).await {
                    Ok(Some(deleted)) => tracing::info!(job = job.0, deleted, "a finished job was deleted"),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(job = job.0, %error, "a finished job left objects in the store");
                    }
                }
            }
        }
    }

    /// The roots whose proofs stay; none if nobody ever named any.
    fn named(&self) -> Option<HashSet<TaskId>> {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        named.map_or_else(|| Some(HashSet::new()), |named| named())
    }

    fn due(&self, keep: Millis) -> Vec<JobId> {
        self.room.look(|core| {
            let due = |id: &JobId| {
                let counts = core.engine.counts(*id);
                counts.is_some_and(|(_, state)| is_due(state, core.engine.ended_for(*id), keep))
            };
            core.engine.jobs().filter(due).collect()
        })
    }

    /// Drops a job from the books, for good, and only then deletes its proofs and inputs: a crash in between
    /// leaves objects that nobody needs, never a job without its block. Returns how many objects went; `None`
    /// if the job goes on after all.
    ///
    /// # Errors
    /// The store's; or the block of a job is not to be read now, and its time comes again.
    async fn delete_job(&self, id: JobId) -> Result<Option<usize>, PastError> {
        let tree = match self.tree_of(id).await {
            // what it made can't be named any more, and stays
            Err(error @ PastError::Lost { .. }) => {
                tracing::warn!(job = id.0, %error, "its proofs stay in the store");
                None
            }
            tree => Some(tree?),
        };
        if !self.forget_for_good(id).await {
            return Ok(None);
        }
        let Some(tree) = tree.flatten() else { return Ok(Some(0)) };
        let nodes: Vec<u32> = tree.shape.nodes().map(|node| node.0).collect();
        let root = tree.ids[tree.shape.root().index()];
        let root_key = proof_key(&root);
        let mut deleted = 0;
        let mut others = Others::default();
        for batch in nodes.chunks(BATCH) {
            // a submit that counts on objects in the store is let through first or waits
            let _no_submit = self.refresh(&mut others, &tree).await?;
            let mut keys = keys_to_delete(&tree, batch, &others);
            self.room.look(|core| keys.retain(|key| !stands(core, key)));
            // asked now that the tree is out of the books: who lets go of its name later deletes it
            if keys.contains(&root_key) && self.named().is_none_or(|named| named.contains(&root)) {
                keys.retain(|key| *key != root_key);
            }
            deleted += keys.len();
            self.store.delete_all(keys).await?;
        }
        let _no_submit = self.refresh(&mut others, &tree).await?;
        if let Source::Block(hash) = &tree.spec.source
            && !self.has_source(&tree.spec.source)
        {
            self.store.delete(&input_key(hash)).await?;
            deleted += 1;
        }
        Ok(Some(deleted))
    }

    /// A job's tree, built again if it was dropped. `None` for a job that is not in the books.
    async fn tree_of(&self, id: JobId) -> Result<Option<Arc<PreparedJob>>, PastError> {
        if let Some(tree) = self.room.look(|core| core.engine.prepared_job(id).cloned()) {
            return Ok(Some(tree));
        }
        match self.request_of(id) {
            Some(request) => Ok(Some(Arc::new(self.rebuild(request).await?.job))),
            None => Ok(None),
        }
    }

    /// Whether the job is out of the books, durably, and no other operator has taken them over.
    async fn forget_for_good(&self, id: JobId) -> bool {
        {
            let _no_submit = self.deleting.write().await;
            let gone = self.room.drive(&mut SendBuffers::default(), |core, now| {
                // the engine keeps a job that goes on
                core.event(now, Event::Forget(id));
                core.publish(id);
                core.engine.counts(id).is_none()
            });
            if !gone {
                return false;
            }
        }
        self.durable().await.is_ok() && self.journal.confirm().await.is_ok()
    }

    /// Whether a job in the books is made from this block.
    fn has_source(&self, source: &Source) -> bool {
        self.room.look(|core| {
            let mut specs = core.engine.jobs().filter_map(|id| core.engine.spec(id));
            specs.any(|spec| spec.source == *source)
        })
    }

    /// Brings what other jobs need of a tree up to date, and keeps submits out from then on. Jobs that were dropped of
    /// late and share proofs are built again, one at a time; the others are looked up in the books.
    async fn refresh(
        &self,
        others: &mut Others,
        tree: &PreparedJob,
    ) -> Result<RwLockWriteGuard<'_, ()>, PastError> {
        loop {
            let guard = self.deleting.write().await;
            let (trees, past) = self.room.look(|core| {
                let engine = &core.engine;
                let trees: Vec<_> = engine.jobs().filter_map(|id| engine.prepared_job(id).cloned()).collect();
                let past = engine.past_borrowers().into_iter().find(|id| !others.past.contains(id));
                (trees, past)
            });
            let same = trees.len() == others.trees.len()
                && trees.iter().zip(&others.trees).all(|(a, b)| Arc::ptr_eq(a, b));
            if !same {
                others.inputs = trees.iter().flat_map(|tree| inputs_of(tree)).collect();
                others.trees = trees;
            }
            let Some((id, request)) = past.and_then(|id| Some((id, self.request_of(id)?))) else {
                return Ok(guard);
            };
            drop(guard);
            others.past.insert(id);
            let own = others.own.get_or_insert_with(|| tree.ids.iter().copied().collect());
            match self.rebuild(request).await {
                Ok(past) => others.tasks.extend(past.job.ids.iter().filter(|id| own.contains(*id))),
                // nobody can take it up again either
                Err(error @ PastError::Lost { .. }) => {
                    tracing::warn!(%error, "what it shares with a job that is deleted is not kept");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether a key is that of a proof whose task stands in a job of the books.
fn stands(core: &Core, key: &str) -> bool {
    let task = key.strip_prefix("proofs/").and_then(|id| id.parse().ok());
    task.is_some_and(|task: TaskId| core.engine.find(&task).is_some())
}

/// What other jobs need of a tree that is deleted.
#[derive(Default)]
struct Others {
    /// Trees in the books when it was looked last; their tasks are looked up there.
    trees: Vec<Arc<PreparedJob>>,
    inputs: HashSet<ArtifactHash>,
    /// Jobs without trees that were looked at.
    past: HashSet<JobId>,
    /// The tree's own tasks, once a job without a tree may have some of them too.
    own: Option<HashSet<TaskId>>,
    /// Those of them that one has.
    tasks: HashSet<TaskId>,
}

fn inputs_of(tree: &PreparedJob) -> Vec<ArtifactHash> {
    match &tree.leaves {
        Leaves::Block { calls, private_proofs, .. } => [&calls[..], private_proofs].concat(),
        Leaves::Synthetic { .. } => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_core::engine::JobSpec;
    use arborist_core::profile::Profile;

    #[test]
    fn only_jobs_that_are_over_for_long_enough_are_due() {
        let failed = JobState::Failed { why: String::new() };
        for (state, ended_for, expected) in [
            (JobState::Complete, Some(900), true),
            (JobState::Complete, Some(899), false),
            (JobState::Complete, None, false),
            (failed, Some(1_000), true),
            (JobState::Cancelled, Some(1_000), true),
            (JobState::Proving, Some(1_000), false),
            (JobState::Checking, Some(1_000), false),
        ] {
            assert_eq!(is_due(&state, ended_for, 900), expected, "{state:?} {ended_for:?}");
        }
    }

    #[test]
    fn what_another_job_needs_stays() {
        let (call, private) = (ArtifactHash([1; 32]), ArtifactHash([2; 32]));
        let spec = JobSpec {
            id: JobId(1),
            name: "j".into(),
            namespace: String::new(),
            source: Source::Block(ArtifactHash([3; 32])),
            chain_id: 1,
            block_number: 1,
            prover_id: [0; 32],
            deadline: None,
            priority: 0,
            suspended: false,
        };
        let leaves =
            Leaves::Block { calls: vec![call], private_proofs: vec![private], states: vec![[0; 32]] };
        let tree = PreparedJob::new(spec, &[1], leaves, &Profile::rfp()).unwrap();
        let proof = |node: usize| proof_key(&tree.ids[node]);
        let keys = |others: &Others| keys_to_delete(&tree, &[0, 1, 2, 3], others);
        let all = [proof(0), input_key(&call), proof(1), input_key(&private), proof(2), proof(3)];
        assert_eq!(keys(&Others::default()), all);
        let others = Others {
            tasks: [tree.ids[0]].into(),
            inputs: inputs_of(&tree).into_iter().collect(),
            ..Others::default()
        };
        assert_eq!(keys(&others), [proof(1), proof(2), proof(3)]);
    }
}
