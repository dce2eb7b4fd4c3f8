//! Proofs that lie in the store though the books don't know them: made before a crash and not
//! journaled any more, or for a job that was dropped since.
//!
//! Nothing rests on finding all of them: a worker looks for its task's proof before it makes one.

use arborist_artifacts::{ArtifactStore, StoreError};
use arborist_core::engine::{KnownProof, PreparedJob};
use arborist_core::ids::TaskId;
use arborist_core::order::Policy;
use arborist_core::proof_object::{ProofObject, proof_key};
use arborist_core::text::echo;
use arborist_core::tree::NodeId;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Questions to the store at once.
const PARALLEL: usize = 64;
/// Tasks asked for between two looks at the clock.
const BATCH: usize = 256;
/// So many tasks in a row without a proof, in the order in which they are leased, end the search: what
/// was leased before a crash stood at the front.
const MISSES: usize = 1024;
/// Tasks that are tried to see whether a tree was begun before.
const SAMPLE: u32 = 48;

/// Where a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing more is to be found, as far as one can tell.
    Through,
    /// The time was up.
    OutOfTime,
}

/// The tasks of a tree whose children are done, in the order in which they would be leased.
pub(super) struct Search<'a> {
    tree: &'a PreparedJob,
    policy: &'static Policy,
    done: Vec<bool>,
    ready: BinaryHeap<Reverse<(u32, u32)>>,
    misses: usize,
}

impl<'a> Search<'a> {
    /// `done` by node number.
    pub(super) fn new(tree: &'a PreparedJob, policy: &'static Policy, done: Vec<bool>) -> Self {
        let mut search = Self { tree, policy, done, ready: BinaryHeap::new(), misses: 0 };
        let ready: Vec<_> =
            tree.shape.nodes().filter(|n| search.is_ready(*n)).map(|n| search.entry(n)).collect();
        search.ready = ready.into();
        search
    }

    fn entry(&self, node: NodeId) -> Reverse<(u32, u32)> {
        Reverse(((self.policy.key)(&self.tree.shape, node), node.0))
    }

    fn is_ready(&self, node: NodeId) -> bool {
        let children = self.tree.shape.children(node);
        !self.done[node.index()] && children.as_slice().iter().all(|child| self.done[child.index()])
    }

    /// The next tasks to ask for.
    fn batch(&mut self) -> Vec<NodeId> {
        let limit = BATCH.min(MISSES.saturating_sub(self.misses));
        std::iter::from_fn(|| self.ready.pop()).take(limit).map(|Reverse((_, node))| NodeId(node)).collect()
    }

    fn found(&mut self, node: NodeId) {
        self.done[node.index()] = true;
        self.misses = 0;
        if let Some(parent) = self.tree.shape.parent(node)
            && self.is_ready(parent)
        {
            let entry = self.entry(parent);
            self.ready.push(entry);
        }
    }

    /// Looks for proofs from the leaves up until nothing new turns up or the time is over; `take` gets them.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn run(
        &mut self,
        store: &ArtifactStore,
        until: Option<Instant>,
        mut take: impl FnMut(Vec<KnownProof>),
    ) -> Result<Ended, StoreError> {
        loop {
            let batch = self.batch();
            if batch.is_empty() {
                return Ok(Ended::Through);
            }
            self.misses += batch.len();
            let tree = self.tree;
            let mut answers = stream::iter(batch)
                .map(|node| async move { Ok((node, known(store, &tree.ids[node.index()]).await?)) })
                .buffer_unordered(PARALLEL);
            let mut proofs = vec![];
            let mut nodes = vec![];
            while let Some((node, proof)) = answers.try_next().await? {
                if let Some(proof) = proof {
                    nodes.push(node);
                    proofs.push(proof);
                }
            }
            drop(answers);
            nodes.into_iter().for_each(|node| self.found(node));
            if !proofs.is_empty() {
                take(proofs);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Ended::OutOfTime);
            }
        }
    }
}

/// Whether a new job's tree was begun before: its root, then some tasks from all over it.
///
/// # Errors
/// The store's.
pub(super) async fn begun(store: &ArtifactStore, tree: &PreparedJob) -> Result<bool, StoreError> {
    let total = tree.shape.total();
    let step = total.div_ceil(SAMPLE).max(1);
    let sample = (0..total).step_by(step as usize).chain([tree.shape.root().0]);
    let mut heads = stream::iter(sample)
        .map(|node| async move { store.head(&proof_key(&tree.ids[node as usize])).await })
        .buffer_unordered(PARALLEL);
    while let Some(found) = heads.try_next().await? {
        if found.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A task's proof in the store, if its envelope holds; one that is torn or forged is moved aside.
///
/// # Errors
/// The store's.
pub(super) async fn known(store: &ArtifactStore, task: &TaskId) -> Result<Option<KnownProof>, StoreError> {
    let key = proof_key(task);
    if store.head(&key).await?.is_none() {
        return Ok(None);
    }
    let object = match store.get_proof(task).await {
        Err(error @ (StoreError::TooLarge { .. } | StoreError::Corrupt { .. })) => {
            tracing::warn!(%task, %error, "what lies at a proof's place is moved aside");
            store.move_aside(&key, &error.to_string()).await?;
            return Ok(None);
        }
        object => object?,
    };
    let Some(object) = object else { return Ok(None) };
    match ProofObject::open(task, &object) {
        Ok(opened) => Ok(Some(KnownProof {
            task: *task,
            // whoever can write to the store can write anything there
            worker: echo(&opened.maker.worker),
            millis: opened.maker.millis,
            cpu_millis: opened.maker.cpu_millis,
            proof_bytes: opened.proof.bytes.len().try_into().unwrap_or(u32::MAX),
        })),
        Err(error) => {
            tracing::warn!(%task, %error, "what lies at a proof's place is moved aside");
            store.move_aside(&key, &error.to_string()).await?;
            Ok(None)
        }
    }
}
