//! Step 1: everything that is read for a visit.

use super::Controller;
use super::memory::Known;
use super::orphans::Block;
use super::publish::Evidence;
use super::status::proven;
use super::waits::Shape;
use super::wishes::Wish;
use crate::api::ProvingJob;
use crate::cli::outputs::{PUBLIC_VERSION, PublicFile};
use arborist_core::engine::{JobId, JobState, JobView, Millis};
use arborist_core::ids::TaskId;
use kube::ResourceExt;

/// What was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The root's task, if the tree is or was in the engine's books.
    pub root: Option<TaskId>,
    /// The tree as it stands in the books.
    pub tree: Option<Tree>,
    /// What background work found.
    pub known: Known,
    /// What other jobs want of the same tree.
    pub others: Vec<Wish>,
    /// What a proven tree leaves; a text when it can't be read now. `None` when nothing is to be published.
    pub evidence: Option<Result<Evidence, String>>,
    /// The engine's time, not before the tree was looked at.
    pub engine_now: Millis,
}

/// A tree in the engine's books.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    pub view: JobView,
    /// When it will be done, in milliseconds since 1970, if that can be said.
    pub estimate: Option<Millis>,
    /// The shapes of the workers that take leases; only looked up while proofs are ready.
    pub workers: Vec<Shape>,
    /// Why a proof of it failed for the last time.
    pub quarantined: Option<String>,
}

/// Reads everything that a visit needs.
pub(super) async fn dereference(me: &Controller, job: &ProvingJob) -> Seen {
    let status = job.status.clone().unwrap_or_default();
    let uid = job.uid().unwrap_or_default();
    let known = me.ctx.jobs.known(&uid, &status.reports);
    // this process's own submit is newer than any status
    let root = known.root.or_else(|| status.root_task.as_ref().and_then(|hex| hex.parse().ok()));
    let namespace = job.namespace().unwrap_or_default();
    let tree = root.and_then(|root| tree(me, &namespace, &root));
    let complete = tree.as_ref().filter(|tree| tree.view.state == JobState::Complete);
    let wanted = !proven(&status) || known.report_lost;
    let evidence = match (complete, root) {
        (Some(tree), Some(root)) if wanted => Some(evidence(me, job, &tree.view, root).await),
        _ => None,
    };
    let others = root.map(|root| others(me, job, &root)).unwrap_or_default();
    Seen { root, tree, known, others, evidence, engine_now: me.ctx.dispatcher.now() }
}

fn tree(me: &Controller, namespace: &str, root: &TaskId) -> Option<Tree> {
    let dispatcher = &me.ctx.dispatcher;
    // one of another proof system says nothing about this operator's: the block is submitted anew
    let id = dispatcher.find_root(namespace, root).filter(|id| dispatcher.other_system(*id).is_none())?;
    let view = dispatcher.job(id)?;
    let ready = view.counts.iter().any(|kind| kind.ready > 0);
    let workers = if ready && view.state == JobState::Proving { shapes(me, namespace) } else { vec![] };
    Some(Tree { estimate: dispatcher.estimate(id), workers, quarantined: me.ctx.jobs.quarantined(id), view })
}

fn shapes(me: &Controller, namespace: &str) -> Vec<Shape> {
    me.ctx.dispatcher.capacity_for(namespace).iter().map(|class| (class.capacity, class.kinds)).collect()
}

/// What other jobs of the same namespace want of this tree; those of other namespaces have one of their own.
fn others(me: &Controller, own: &ProvingJob, root: &TaskId) -> Vec<Wish> {
    let jobs = me.ctx.jobs.jobs_of(root);
    let others = jobs.iter().filter_map(|job| job.0.as_ref().ok());
    others
        .filter(|job| job.uid() != own.uid() && job.namespace() == own.namespace())
        .map(|job| Wish {
            deadline: super::deadline::of(job).ok().flatten().map(super::deadline::millis),
            priority: job.spec.priority,
            suspended: job.spec.suspend,
        })
        .collect()
}

/// What a proven tree leaves.
async fn evidence(
    me: &Controller,
    job: &ProvingJob,
    view: &JobView,
    root: TaskId,
) -> Result<Evidence, String> {
    let (dispatcher, settings) = (&me.ctx.dispatcher, &me.ctx.settings);
    let proof = dispatcher.store().get_proof(&root).await.map_err(|e| e.to_string())?;
    let proof = proof.ok_or("the root proof is not in the artifact store any more")?;
    let statement = dispatcher.published(view.spec.id).await.map_err(|e| e.to_string())?;
    let name = (!job.spec.prover_id.starts_with("0x")).then(|| job.spec.prover_id.clone());
    let public = PublicFile {
        version: PUBLIC_VERSION,
        backend: settings.backend.clone(),
        circuits: settings.profile.circuits.clone(),
        keys: dispatcher.system().keys,
        task: root,
        prover: name,
        statement,
    };
    let base = dispatcher.store().name().trim_end_matches('/').to_owned();
    let shares = dispatcher.attribution(view.spec.id).unwrap_or_default();
    Ok(Evidence {
        uri: format!("{base}/{}", arborist_core::proof_object::proof_key(&root)),
        proof,
        public,
        shares,
    })
}

/// What a job proves, as the engine names it.
pub(super) fn block_of(job: &ProvingJob, prover: [u8; 32]) -> Option<Block> {
    let number = |n: i64| u64::try_from(n).ok();
    Some(Block { chain_id: number(job.spec.chain_id)?, number: number(job.spec.block_number)?, prover })
}

/// The engine's number of the tree.
pub(super) const fn id_of(tree: &Tree) -> JobId {
    tree.view.spec.id
}
