//! What a complete job is worth when somebody asks for it again: its root proof is looked at, and made again if it is
//! lost or bad. The journal says that it was good once.

use super::roots::{RootCheck, RootProblem};
use super::submit::{Built, SubmitError, not_revived};
use super::{Dispatcher, Inner, JobError, Progress};
use arborist_artifacts::{StoreError, with_retry};
use arborist_circuits::Statements;
use arborist_core::backend::PublicInputs;
use arborist_core::circuit::Circuit;
use arborist_core::engine::{JobId, JobSpec, JobState, PreparedJob};
use arborist_core::ids::TaskId;
use arborist_core::proof_object::{ProofObject, proof_key};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a store that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a proof has to be.
#[derive(Debug, Clone)]
pub(super) struct WantedProof {
    pub task: TaskId,
    pub circuit: Circuit,
    /// What it has to state; `None` in a job without statements.
    pub states: Option<PublicInputs>,
}

impl WantedProof {
    /// Of a job's root.
    fn of(job: &PreparedJob, statements: Option<&Statements>) -> Option<Self> {
        let root = job.shape.root();
        let task = *job.ids.get(root.index())?;
        Some(Self { task, circuit: job.shape.circuit(root), states: statements.map(Statements::root) })
    }

    /// Everything about a proof's object that needs no backend.
    pub fn open(&self, object: &[u8]) -> Result<ProofObject, RootProblem> {
        let bad = |text: String| Err(RootProblem::Bad(text));
        match ProofObject::open(&self.task, object) {
            Err(error) => bad(error.to_string()),
            Ok(opened) if opened.circuit != self.circuit => {
                bad(format!("it is a proof of {}, not of {}", opened.circuit, self.circuit))
            }
            Ok(opened)
                if self.states.as_ref().is_some_and(|wanted| *wanted != opened.proof.public_inputs) =>
            {
                bad("it states something else than this block".into())
            }
            Ok(opened) => Ok(opened),
        }
    }
}

impl Dispatcher {
    /// Takes a job up again with new attempts: one that was cancelled or has failed, the quarantined tasks of one that goes
    /// on, and one that is complete if its root proof is lost or bad. Durable when this returns.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn revive(&self, id: JobId) -> Result<(), JobError> {
        let view = self.job(id).ok_or(JobError::Unknown(id))?;
        if let Some(job) = self.other_system(id) {
            return Err(JobError::OtherSystem { job: Box::new(job), here: Box::new(self.system().clone()) });
        }
        let inner = &self.inner;
        if view.state != JobState::Complete {
            inner.check_revival(id).await?;
            inner.restore_before(id).await;
            inner.revive(id).await?;
            return inner.durable().await.map_err(|_| JobError::Stopped);
        }
        let _kept = inner.deleting.read().await;
        // who asks for it again does not ask for yesterday
        let deadline = view.spec.deadline.filter(|deadline| *deadline > self.now());
        let built = inner.rebuild((JobSpec { deadline, ..view.spec }, self.system().clone())).await?;
        inner.recheck(id, built).await.map_err(|error| match error {
            SubmitError::Quota(error) => JobError::Quota(error),
            error => JobError::NotNow(error.to_string()),
        })?;
        inner.durable().await.map_err(|_| JobError::Stopped)
    }

    /// Whether these bytes are a valid proof of the job's root, wherever they were read.
    ///
    /// # Errors
    /// What is wrong with them, or why that can't be said.
    pub async fn verify_root(&self, id: JobId, object: Bytes) -> Result<(), RootProblem> {
        self.inner.verify(self.inner.wanted_root(id).await?, object).await
    }
}

impl Inner {
    async fn wanted_root(&self, id: JobId) -> Result<WantedProof, RootProblem> {
        let wanted = self.room.look(|core| {
            let statements = core.jobs.get(&id).and_then(|entry| entry.statements.clone());
            WantedProof::of(core.engine.prepared_job(id)?, statements.as_deref())
        });
        if let Some(wanted) = wanted {
            return Ok(wanted);
        }
        let unknown = || RootProblem::Bad("the job is not in the books any more".into());
        let request = self.request_of(id).ok_or_else(unknown)?;
        let built = self.rebuild(request).await.map_err(|error| RootProblem::Unable(error.to_string()))?;
        WantedProof::of(&built.job, built.statements.as_deref()).ok_or_else(unknown)
    }

    /// What the proof of a job's root in the store is worth.
    pub(super) async fn root_verdict(&self, id: JobId) -> Result<(), RootProblem> {
        self.verify_stored(self.wanted_root(id).await?).await
    }

    async fn verify_stored(&self, wanted: WantedProof) -> Result<(), RootProblem> {
        let object = with_retry(PATIENCE, || self.store.get_proof(&wanted.task)).await;
        let object = object.map_err(|error| match error {
            StoreError::TooLarge { .. } | StoreError::Corrupt { .. } => RootProblem::Bad(error.to_string()),
            error => RootProblem::Unable(error.to_string()),
        })?;
        self.verify(wanted, object.ok_or(RootProblem::Missing)?).await
    }

    async fn verify(&self, wanted: WantedProof, object: Bytes) -> Result<(), RootProblem> {
        let roots = self.options.roots.clone();
        let check = tokio::task::spawn_blocking(move || {
            let opened = wanted.open(&object)?;
            let (task, circuit) = (&wanted.task, wanted.circuit);
            roots.verify(RootCheck { task, circuit, proof: &opened.proof, object: &object })
        });
        check.await.unwrap_or_else(|_| Err(RootProblem::Bad("the verifier crashed on it".into())))
    }

    pub(super) fn is_complete(&self, id: JobId) -> bool {
        self.room.look(|core| matches!(core.engine.counts(id), Some((_, JobState::Complete))))
    }

    /// Looks at the root proof of a complete job. One that is lost or bad is made again: the job is taken in anew under
    /// its number, and all its other proofs are found in the store. Nobody is charged: the proof was good when it was made.
    pub(super) async fn recheck(self: &Arc<Self>, id: JobId, built: Built) -> Result<(), SubmitError> {
        let began = Instant::now();
        let _one_at_a_time = self.rechecking.lock().await;
        let wanted = WantedProof::of(&built.job, built.statements.as_deref());
        let Some(wanted) = wanted.filter(|_| self.is_complete(id)) else { return Ok(()) };
        let why = match self.verify_stored(wanted.clone()).await {
            Ok(()) => return Ok(()),
            Err(RootProblem::Unable(text)) => return Err(SubmitError::Unchecked(text)),
            Err(problem) => problem,
        };
        // it goes on as a new one would
        self.check_revival(id).await.map_err(not_revived)?;
        tracing::warn!(job = id.0, task = %wanted.task, %why, "the root proof of a complete job is made again");
        if let RootProblem::Bad(text) = &why {
            let reason = format!("{text}\nfound when the job was asked for again\n");
            let key = proof_key(&wanted.task);
            with_retry(PATIENCE, || self.store.move_aside(&key, &reason)).await?;
            self.metrics.quarantined.inc();
        }
        let bytes = self.put_within_quota(&built.job, built.file).await?;
        let found = self.proofs_made_before(&built.job).await?;
        self.enter(Some(id), (built.job, bytes), built.statements, found, began)?;
        // nobody may be listening
        let _ = self.progress.send(Progress::RootLost(id, why.to_string()));
        self.reorder.notify_one();
        Ok(())
    }
}
