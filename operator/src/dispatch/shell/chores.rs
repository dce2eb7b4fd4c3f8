//! What the engine asks for that takes time: checks of roots, proofs to move aside, things to tell.

use super::roots::RootProblem;
use super::{Inner, Progress};
use crate::dispatch::net::SendBuffers;
use arborist_artifacts::with_retry;
use arborist_core::engine::{Depth, Event, JobId, JobState, Notice};
use arborist_core::ids::TaskId;
use arborist_core::proof_object::proof_key;
use arborist_core::tree::NodeId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a store that does not answer is asked again before a chore starts over.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before a chore that could not be done is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// A command of the engine that is carried out beside the engine.
#[derive(Debug)]
pub(super) enum Chore {
    CheckRoot(JobId),
    CheckProof { job: JobId, node: NodeId, task: TaskId, depth: Depth },
    Quarantine { task: TaskId, worker: Option<String>, text: String },
    Ended(JobId, JobState),
    Notice(Notice),
}

impl Inner {
    /// Carries out chores until the dispatcher stops.
    pub(super) async fn do_chores(self: Arc<Self>, mut chores: mpsc::UnboundedReceiver<Chore>) {
        loop {
            let chore = tokio::select! {
                () = self.stopping.cancelled() => return,
                chore = chores.recv() => chore,
            };
            match chore {
                None => return,
                Some(Chore::CheckRoot(job)) => self.spawn(self.clone().check_root(job)),
                Some(Chore::CheckProof { job, node, task, depth }) => {
                    self.spawn(self.clone().check_proof(job, node, task, depth));
                }
                Some(Chore::Quarantine { task, worker, text }) => {
                    self.spawn(self.clone().quarantine(task, worker, text));
                }
                Some(Chore::Ended(job, state)) => self.ended(job, state),
                Some(Chore::Notice(notice)) => self.notice(notice),
            }
        }
    }

    /// Runs a task until it ends or the dispatcher stops.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks
            .spawn_on(async move { stopping.run_until_cancelled(task).await.unwrap_or(()) }, &self.runtime);
    }

    fn ended(&self, job: JobId, state: JobState) {
        tracing::info!(job = job.0, ?state, "a job has ended");
        self.room.tend(|core| core.publish(job));
        // nobody may be listening
        let _ = self.progress.send(Progress::Ended(job, state));
    }

    fn notice(&self, notice: Notice) {
        let m = &self.metrics;
        match &notice {
            Notice::LeaseLost { task, worker, why } => {
                m.leases_lost.inc();
                tracing::info!(%task, worker, why, "a lease was lost");
            }
            Notice::LateResult { task, worker, counted } => {
                m.late_results.with_label_values(&[if *counted { "yes" } else { "no" }]).inc();
                tracing::info!(%task, worker, counted, "a late result");
            }
            Notice::Backup { task, slow, copy } => {
                m.backups.inc();
                tracing::info!(%task, slow, copy, "a backup copy was started");
            }
            Notice::NoFittingWorker { namespace, kind, needs, ready } => tracing::warn!(
                namespace,
                %kind,
                ready,
                cores = needs.cores,
                memory_mib = needs.memory_mib,
                "ready tasks of a namespace fit no worker that serves it"
            ),
            Notice::Quarantined { .. } | Notice::Suspected { .. } => {
                tracing::warn!(?notice, "work is held up");
            }
            Notice::AtRisk(job, at_risk) => tracing::warn!(job = job.0, at_risk, "deadline"),
            Notice::NumberTaken { job, name } => {
                tracing::error!(job = job.0, name, "a job was not entered: its number is another's; a bug");
            }
            Notice::LeftOut { name, why, .. } => {
                m.left_out.inc();
                tracing::warn!(
                    job = name,
                    why,
                    "a job is left out of the books: it has to be submitted again"
                );
            }
        }
        // nobody may be listening
        let _ = self.progress.send(Progress::Notice(notice));
    }

    async fn quarantine(self: Arc<Self>, task: TaskId, worker: Option<String>, text: String) {
        let reason = format!("{text}\nmade by: {}\n", worker.as_deref().unwrap_or("not known"));
        let key = proof_key(&task);
        loop {
            match with_retry(PATIENCE, || self.store.move_aside(&key, &reason)).await {
                Ok(aside) => {
                    self.metrics.quarantined.inc();
                    tracing::warn!(%task, worker, text, aside, "a bad proof was moved aside");
                    return self.room.drive(&mut SendBuffers::default(), |core, _| core.let_go(&task));
                }
                Err(error) => tracing::warn!(%error, "a bad proof can't be moved aside yet"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn check_root(self: Arc<Self>, job: JobId) {
        loop {
            let verdict = match self.root_verdict(job).await {
                Ok(()) => Ok(()),
                Err(problem @ (RootProblem::Bad(_) | RootProblem::Missing)) => Err(problem.to_string()),
                Err(problem @ RootProblem::Unable(_)) => {
                    self.metrics.root_checks.with_label_values(&["unable"]).inc();
                    tracing::warn!(job = job.0, %problem, "trying again");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            let label = if verdict.is_ok() { "valid" } else { "invalid" };
            self.metrics.root_checks.with_label_values(&[label]).inc();
            self.room.drive(&mut SendBuffers::default(), |core, now| {
                core.event(now, Event::RootChecked(job, verdict));
                core.publish(job);
            });
            return;
        }
    }
}
