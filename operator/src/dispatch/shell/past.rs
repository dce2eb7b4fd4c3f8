//! Jobs whose trees were dropped when they were over: what needs a tree builds it again, outside the engine's lock.

use super::resolve::{self, Material};
use super::submit::Built;
use super::{Inner, JobError};
use crate::dispatch::net::SendBuffers;
use crate::intake::BlockFile;
use arborist_artifacts::{StoreError, with_retry};
use arborist_core::engine::{Event, JobId, JobSpec, JobState, PreparedJob, Source, Unresolved};
use arborist_core::proof_object::input_key;
use arborist_core::system::ProofSystem;
use std::sync::Arc;
use std::time::Duration;

/// How long a store that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the tree of a job that is over can't be built again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    /// What it is built from is gone, or not what it was: the block has to be submitted again.
    #[error("job {name}: its tree can't be built again: {reason}")]
    Lost {
        /// The job's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// What it is built from can't be had now.
    #[error("job {name}: its tree can't be built now: {reason}")]
    NotNow {
        /// The job's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The artifact store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn lost(spec: &JobSpec, reason: impl Into<String>) -> PastError {
    PastError::Lost { name: spec.name.clone(), reason: reason.into() }
}

impl Inner {
    /// What a job's tree is built from, and its block's file, within the budget of all intake.
    pub(super) async fn material_of(
        &self,
        spec: &JobSpec,
    ) -> Result<(Material, Option<BlockFile>), PastError> {
        let profile = &self.options.engine.profile;
        let not_now = |reason: String| PastError::NotNow { name: spec.name.clone(), reason };
        let reserved = match &spec.source {
            Source::Synthetic { .. } => None,
            Source::Block(hash) => {
                let key = input_key(hash);
                let bytes = with_retry(PATIENCE, || self.store.head(&key)).await?.unwrap_or(0);
                Some(self.intake.reserve(bytes).await.map_err(|error| not_now(error.to_string()))?)
            }
        };
        let loaded = resolve::load(&self.store, &spec.source, spec.prover_id, profile, reserved).await;
        loaded.map_err(|error| match error {
            Unresolved::Lost(reason) => lost(spec, reason),
            Unresolved::NotNow(reason) => not_now(reason),
        })
    }

    /// What a job's tree is built from, beside its block.
    pub(super) fn request_of(&self, id: JobId) -> Option<(JobSpec, ProofSystem)> {
        self.room.look(|core| Some((core.engine.spec(id)?.clone(), core.engine.system_of(id)?.clone())))
    }

    /// Builds a job's tree from its request. Some hundred milliseconds for the largest block.
    pub(super) async fn rebuild(&self, (spec, system): (JobSpec, ProofSystem)) -> Result<Built, PastError> {
        let (Material { calls, leaves, statements, .. }, file) = self.material_of(&spec).await?;
        let (max_calls, request) = (self.options.engine.profile.max_calls, spec.clone());
        let build = move || PreparedJob::of_system(request, &calls, leaves, max_calls, system);
        match tokio::task::spawn_blocking(build).await {
            Ok(Ok(job)) => Ok(Built { job, statements, file: file.map(Arc::new) }),
            Ok(Err(error)) => Err(lost(&spec, error.to_string())),
            Err(_) => Err(lost(&spec, "building it crashed")),
        }
    }

    /// Whether a job was cancelled or has failed, and its tree was dropped.
    pub(super) fn is_stopped_and_bare(&self, id: JobId) -> bool {
        self.room.look(|core| {
            let state = core.engine.counts(id).map(|(_, state)| state);
            let stopped = matches!(state, Some(JobState::Cancelled | JobState::Failed { .. }));
            stopped && core.engine.prepared_job(id).is_none()
        })
    }

    /// Takes a cancelled or failed job up again, with its tree if that was dropped. Durable later on.
    pub(super) async fn revive(self: &Arc<Self>, id: JobId) -> Result<(), JobError> {
        if let Some(request) = self.request_of(id).filter(|_| self.is_stopped_and_bare(id)) {
            return self.revive_with(id, self.rebuild(request).await?).await;
        }
        if self.stopping.is_cancelled() {
            return Err(JobError::Stopped);
        }
        self.room.drive(&mut SendBuffers::default(), |core, now| {
            core.engine.counts(id).ok_or(JobError::Unknown(id))?;
            self.options.quotas.check_again(core, id)?;
            core.event(now, Event::Revive(id));
            core.publish(id);
            Ok(())
        })
    }

    /// Takes a job whose tree was dropped up again.
    pub(super) async fn revive_with(self: &Arc<Self>, id: JobId, built: Built) -> Result<(), JobError> {
        let Built { job: mut tree, statements, file } = built;
        tree.spec.id = id;
        let root = self.room.look(|core| core.engine.root_task(id));
        if root.is_some_and(|root| tree.ids.last() != Some(&root)) {
            return Err(lost(&tree.spec, "it is another tree now; submit the block again").into());
        }
        // what is counted on in the store must not be deleted until the books say that it is needed
        let _kept = self.deleting.read().await;
        if self.options.quotas.bounds_bytes(&tree.spec.namespace) {
            let bytes = self.bytes_of_tree(&tree).await.map_err(PastError::Store)?;
            self.note_input_bytes(id, bytes);
            self.room.look(|core| self.options.quotas.check_again(core, id))?;
        }
        // another job may have let go of some since
        if let Some(file) = file {
            let name = tree.spec.name.clone();
            let put = self.put_inputs(file).await;
            put.map_err(|error| PastError::NotNow { name, reason: error.to_string() })?;
        }
        let found = self.proofs_made_before(&tree).await.map_err(PastError::Store)?;
        if self.stopping.is_cancelled() {
            return Err(JobError::Stopped);
        }
        self.room.drive(&mut SendBuffers::default(), |core, now| {
            let Some(suspended) = core.engine.job(id).map(|view| view.spec.suspended) else {
                return Err(JobError::Unknown(id));
            };
            self.options.quotas.check_again(core, id)?;
            self.metrics.recovered.inc_by(found.len() as u64);
            if let Some(entry) = core.jobs.get_mut(&id) {
                entry.statements = statements;
            }
            // nothing is to be leased before the engine knows what is there
            core.event(now, Event::Suspend(id, suspended || !found.is_empty()));
            core.event(now, Event::ReviveWith(Box::new(tree)));
            core.event(now, Event::Known(found));
            core.event(now, Event::Suspend(id, suspended));
            core.publish(id);
            Ok(())
        })
    }
}
