//! Trees that nobody wants any more are cancelled: their jobs were deleted. There is no finalizer, so a deletion never
//! waits for the operator.

use super::Controller;
use super::dereference::block_of;
use super::orphans::{Tree, Wanted, orphans};
use super::status::is_over;
use super::validate::{Served, validate};
use crate::api::ProvingJob;
use crate::api::conditions::{is_true, job as condition};
use crate::controllers::Context;
use arborist_core::ids::TaskId;
use kube::ResourceExt;
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::Notify;

/// Deletions call for a look; should one be missed, this is soon enough. The gauge of jobs is as old.
const EVERY: Duration = Duration::from_secs(15);

/// Looks after each deletion, and from time to time, until the controller stops.
pub(super) async fn keep(me: &Controller, deleted: &Notify) {
    loop {
        tokio::select! {
            () = me.stop.cancelled() => return,
            () = deleted.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
        collect(me).await;
    }
}

/// Cancels the trees that no job of any scope wants; nothing as long as not all jobs are known. The proofs stay until
/// the dispatcher's retention, which also takes the trees out of the books; the root's stays as long as a job names it.
pub(super) async fn collect(me: &Controller) {
    let (memory, dispatcher) = (&me.ctx.jobs, &me.ctx.dispatcher);
    memory.forget_gone();
    let look = memory.submits.look().await;
    let Some(jobs) = memory.all_jobs(&me.ctx.settings.scopes) else { return };
    let readable = || jobs.iter().filter_map(|job| job.0.as_ref().ok());
    count(me, readable());
    if readable().count() < jobs.len() {
        // it may want any tree
        tracing::warn!(
            "a ProvingJob can't be read: no tree is cancelled as unwanted until it is edited or deleted"
        );
        return;
    }
    release(me, readable()).await;
    let wanted = wanted(me, readable());
    let views = dispatcher.jobs();
    memory.keep_quarantined(&views.iter().map(|view| view.spec.id).collect::<Vec<_>>());
    let trees: Vec<Tree> = views
        .into_iter()
        .filter_map(|view| {
            let spec = view.spec;
            let block = super::orphans::Block {
                chain_id: spec.chain_id,
                number: spec.block_number,
                prover: spec.prover_id,
            };
            let root = dispatcher.root_task(spec.id)?;
            let (name, namespace) = (spec.name, spec.namespace);
            Some(Tree { id: spec.id, name, namespace, root, block, state: view.state })
        })
        .collect();
    for id in orphans(&trees, &wanted) {
        // asked at the last moment: between this and the cancelling nothing is waited for
        if trees.iter().any(|tree| tree.id == id && look.has_met(&tree.block)) {
            continue;
        }
        match dispatcher.cancel(id).await {
            Ok(()) => tracing::info!(job = id.0, "cancelled: no ProvingJob wants it any more"),
            Err(error) => tracing::warn!(job = id.0, %error, "a tree that nobody wants was not cancelled"),
        }
    }
}

/// Deletes the root proofs that only deleted jobs named. What still is in the books goes with its tree.
async fn release<'a>(me: &Controller, jobs: impl Iterator<Item = &'a ProvingJob>) {
    let named = roots_of(jobs);
    for root in me.ctx.jobs.take_released().difference(&named) {
        match me.ctx.dispatcher.release_root(root).await {
            Ok(true) => {
                tracing::info!(root = %root, "the root proof was deleted: no ProvingJob names it any more")
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(root = %root, %error, "a root proof that nobody names was not deleted");
                me.ctx.jobs.note_released(*root);
            }
        }
    }
}

/// The roots that jobs name in their status; `None` while not all jobs are known or readable.
pub(super) fn named(ctx: &Context) -> Option<HashSet<TaskId>> {
    let jobs = ctx.jobs.all_jobs(&ctx.settings.scopes)?;
    let readable = jobs.iter().map(|job| job.0.as_ref().ok()).collect::<Option<Vec<_>>>()?;
    Some(roots_of(readable.into_iter()))
}

fn roots_of<'a>(jobs: impl Iterator<Item = &'a ProvingJob>) -> HashSet<TaskId> {
    jobs.filter_map(root_of).collect()
}

/// The root that a job names in its status.
pub(super) fn root_of(job: &ProvingJob) -> Option<TaskId> {
    job.status.as_ref()?.root_task.as_ref()?.parse().ok()
}

/// Brings the gauge of jobs by state up to date.
fn count<'a>(me: &Controller, jobs: impl Iterator<Item = &'a ProvingJob>) {
    let mut counts = [0; STATES.len()];
    jobs.for_each(|job| counts[state(job)] += 1);
    for (name, count) in STATES.into_iter().zip(counts) {
        me.ctx.metrics.jobs.with_label_values(&[name]).set(count);
    }
}

const STATES: [&str; 5] = ["pending", "proving", "reporting", "complete", "failed"];

fn state(job: &ProvingJob) -> usize {
    let conditions = job.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let steps = [condition::FAILED, condition::COMPLETE, condition::PROVEN, condition::ACCEPTED];
    steps.iter().position(|type_| is_true(conditions, type_)).map_or(0, |step| STATES.len() - 1 - step)
}

fn wanted<'a>(me: &Controller, jobs: impl Iterator<Item = &'a ProvingJob>) -> Wanted {
    let mut wanted = Wanted::default();
    let settings = &me.ctx.settings;
    let served = Served { circuits: &settings.profile.circuits, backend: &settings.backend };
    for job in jobs.filter(|job| job.metadata.deletion_timestamp.is_none() && !is_over(job)) {
        let in_status = root_of(job);
        let in_memory = job.uid().and_then(|uid| me.ctx.jobs.root(&uid));
        let namespace = || job.namespace().unwrap_or_default();
        wanted.roots.extend(in_status.into_iter().chain(in_memory).map(|root| (namespace(), root)));
        if in_status.or(in_memory).is_none()
            && let Ok(valid) = validate(job, &served)
        {
            let block = block_of(job, valid.prover.word.0);
            wanted.blocks.extend(block.map(|block| (namespace(), block)));
        }
    }
    wanted
}
