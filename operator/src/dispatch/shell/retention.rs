//! What is deleted of jobs that are over: a pure decision, and the deleting.

use super::Inner;
use crate::dispatch::net::SendBuffers;
use arborist_artifacts::StoreError;
use arborist_core::engine::{Event, JobId, JobState, Millis, PreparedJob, Source};
use arborist_core::ids::TaskId;
use arborist_core::proof_object::{input_key, proof_key};
use arborist_core::tree::NodeId;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// How often a look is taken at jobs that are over.
const LOOK: Duration = Duration::from_secs(30);
/// Tasks whose proofs are deleted between two looks at whether another job needs them.
const BATCH: usize = 1000;

/// Whether a job's time is up.
fn is_due(state: &JobState, ended: Option<Millis>, keep: Millis, now: Millis) -> bool {
    let over = match state {
        JobState::Complete | JobState::Failed { .. } | JobState::Cancelled => true,
        JobState::Proving | JobState::Checking => false,
    };
    over && ended.is_some_and(|ended| ended.saturating_add(keep) <= now)
}

/// Of a job's tasks and inputs, the keys to delete; `needed` says of a task whether another job has it.
fn keys_to_delete(tree: &PreparedJob, nodes: &[u32], needed: impl Fn(u32) -> bool) -> Vec<String> {
    let mut keys = vec![];
    for &node in nodes.iter().filter(|node| !needed(**node)) {
        keys.push(proof_key(&tree.ids[node as usize]));
        // an input has one task that takes it, and goes with it
        keys.extend(tree.leaves.inputs(&tree.shape, NodeId(node)).map(|hash| input_key(&hash)));
    }
    keys
}

impl Inner {
    /// Deletes jobs whose time is up until the dispatcher stops.
    pub(super) async fn keep_clean(self: Arc<Self>) {
        let Some(keep) = self.options.retention else { return };
        loop {
            tokio::time::sleep(LOOK.min(keep)).await;
            for job in self.due(keep.as_millis() as Millis) {
                self.retiring.send_replace(Some(job));
                let deleted = self.delete_job(job).await;
                self.retiring.send_replace(None);
                match deleted {
                    Ok(deleted) => tracing::info!(job = job.0, deleted, "a finished job was deleted"),
                    Err(error) => tracing::warn!(job = job.0, %error, "a finished job can't be deleted yet"),
                }
            }
        }
    }

    fn due(&self, keep: Millis) -> Vec<JobId> {
        let now = self.room.clock.now();
        self.room.look(|core| {
            let due = |id: &JobId| {
                core.engine.job(*id).is_some_and(|view| is_due(&view.state, view.ended, keep, now))
            };
            core.engine.jobs().filter(due).collect()
        })
    }

    /// Deletes a job's proofs and inputs, then drops it from the books: after a crash in between it is done
    /// again. Returns how many objects went.
    async fn delete_job(&self, id: JobId) -> Result<usize, StoreError> {
        let Some(tree) = self.room.look(|core| core.engine.prepared_job(id).cloned()) else { return Ok(0) };
        let nodes: Vec<u32> = tree.shape.nodes().map(|node| node.0).collect();
        let mut deleted = 0;
        let mut others = Others::default();
        for batch in nodes.chunks(BATCH) {
            // a submit that counts on proofs in the store is let through first or waits
            let _no_submit = self.deleting.write().await;
            self.refresh(&mut others, id);
            let keys = keys_to_delete(&tree, batch, |node| others.tasks.contains(&tree.ids[node as usize]));
            deleted += keys.len();
            self.store.delete_all(keys).await?;
        }
        let _no_submit = self.deleting.write().await;
        self.refresh(&mut others, id);
        if let Source::Block(hash) = &tree.spec.source
            && !others.trees.iter().any(|other| other.spec.source == tree.spec.source)
        {
            self.store.delete(&input_key(hash)).await?;
            deleted += 1;
        }
        self.room.drive(&mut SendBuffers::default(), |core, now| {
            core.event(now, Event::Forget(id));
            core.publish(id);
        });
        Ok(deleted)
    }

    /// Brings what other jobs need up to date.
    fn refresh(&self, others: &mut Others, id: JobId) {
        let trees: Vec<_> = self.room.look(|core| {
            let ids = core.engine.jobs().filter(|other| *other != id);
            ids.filter_map(|other| core.engine.prepared_job(other).cloned()).collect()
        });
        let same = trees.len() == others.trees.len()
            && trees.iter().zip(&others.trees).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            others.tasks = trees.iter().flat_map(|tree| tree.ids.iter().copied()).collect();
            others.trees = trees;
        }
    }
}

/// The other jobs in the books and all their tasks.
#[derive(Default)]
struct Others {
    trees: Vec<Arc<PreparedJob>>,
    tasks: HashSet<TaskId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_core::engine::JobSpec;
    use arborist_core::profile::Profile;
    use arborist_core::tree::Leaves;

    #[test]
    fn only_jobs_that_are_over_for_long_enough_are_due() {
        let failed = JobState::Failed { why: String::new() };
        for (state, ended, expected) in [
            (JobState::Complete, Some(100), true),
            (JobState::Complete, Some(101), false),
            (JobState::Complete, None, false),
            (failed, Some(0), true),
            (JobState::Cancelled, Some(0), true),
            (JobState::Proving, Some(0), false),
            (JobState::Checking, Some(0), false),
        ] {
            assert_eq!(is_due(&state, ended, 900, 1000), expected, "{state:?} {ended:?}");
        }
    }

    #[test]
    fn what_another_job_needs_stays() {
        let source = Source::Synthetic { calls: vec![1], seed: 1 };
        let spec = JobSpec {
            id: JobId(1),
            name: "j".into(),
            source,
            chain_id: 1,
            block_number: 1,
            prover_id: [0; 32],
            deadline: None,
            priority: 0,
            suspended: false,
        };
        let tree = PreparedJob::new(spec, &[1], Leaves::Synthetic { seed: 1 }, &Profile::rfp()).unwrap();
        let keys = keys_to_delete(&tree, &[0, 1, 2, 3], |node| node == 1);
        let expected: Vec<_> = [0, 2, 3].map(|node: usize| proof_key(&tree.ids[node])).into();
        assert_eq!(keys, expected);
    }
}
