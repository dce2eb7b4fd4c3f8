//! The operator's own look at proofs that workers say are there, bad or gone.

use super::recheck::WantedProof;
use super::roots::{RootCheck, RootProblem};
use super::{Inner, lease};
use crate::dispatch::net::SendBuffers;
use arborist_artifacts::StoreError;
use arborist_core::engine::{Depth, Event, Finding, JobId, KnownProof};
use arborist_core::ids::TaskId;
use arborist_core::proof_object::proof_key;
use arborist_core::tree::NodeId;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// A look takes so long at most: less than the engine waits for it, so that no answer comes for a later question.
const LONGEST: Duration = Duration::from_secs(8);

/// Proofs that are verified at once, roots aside.
pub(super) const VERIFIED_AT_ONCE: usize = 2;

impl Inner {
    /// Looks at a proof and tells the engine.
    pub(super) async fn check_proof(self: Arc<Self>, job: JobId, node: NodeId, task: TaskId, depth: Depth) {
        let look = async {
            match depth {
                Depth::Presence => self.is_there(&task).await,
                Depth::Proof => self.is_valid(job, node, task).await,
            }
        };
        let finding = tokio::time::timeout(LONGEST, look).await;
        let finding = finding.unwrap_or_else(|_| Finding::Unknown("it took too long".into()));
        self.metrics.proof_checks.with_label_values(&[label(&finding)]).inc();
        if !matches!(finding, Finding::Valid(_) | Finding::Present(_) | Finding::Exists) {
            tracing::info!(%task, ?finding, "a proof that a worker spoke of");
        }
        self.room.drive(&mut SendBuffers::default(), |core, now| {
            core.event(now, Event::ProofChecked { task, finding });
        });
    }

    async fn is_there(&self, task: &TaskId) -> Finding {
        match self.store.head(&proof_key(task)).await {
            Ok(Some(_)) => Finding::Exists,
            Ok(None) => Finding::Missing,
            Err(error) => Finding::Unknown(error.to_string()),
        }
    }

    async fn is_valid(&self, job: JobId, node: NodeId, task: TaskId) -> Finding {
        let wanted = self.room.look(|core| {
            let shape = &core.engine.prepared_job(job)?.shape;
            let statements = core.jobs.get(&job).and_then(|entry| entry.statements.as_deref());
            let states = statements.map(|s| lease::stated(s, shape, node));
            Some(WantedProof { task, circuit: shape.circuit(node), states })
        });
        let Some(wanted) = wanted else {
            return Finding::Unknown("its job is not in the books any more".into());
        };
        match self.store.get_proof(&task).await {
            Ok(Some(object)) => self.verify_one(wanted, object).await,
            Ok(None) => Finding::Missing,
            Err(error @ (StoreError::TooLarge { .. } | StoreError::Corrupt { .. })) => {
                Finding::Bad(error.to_string())
            }
            Err(error) => Finding::Unknown(error.to_string()),
        }
    }

    async fn verify_one(&self, wanted: WantedProof, object: Bytes) -> Finding {
        let Ok(turn) = self.verifying.clone().acquire_owned().await else {
            return Finding::Unknown("the dispatcher stops".into());
        };
        let verifier = self.options.roots.clone();
        let verified = tokio::task::spawn_blocking(move || {
            // kept to the end, also when nobody waits for it any more
            let _turn = turn;
            let opened = match wanted.open(&object) {
                Ok(opened) => opened,
                Err(problem) => return Finding::Bad(problem.to_string()),
            };
            let known = KnownProof {
                task: wanted.task,
                worker: opened.maker.worker.clone(),
                millis: opened.maker.millis,
                cpu_millis: opened.maker.cpu_millis,
                proof_bytes: opened.proof.bytes.len().try_into().unwrap_or(u32::MAX),
            };
            let (task, circuit) = (&wanted.task, wanted.circuit);
            let check = RootCheck { task, circuit, proof: &opened.proof, object: &object };
            match verifier.verify(check) {
                Ok(()) => Finding::Valid(known),
                Err(problem @ (RootProblem::Bad(_) | RootProblem::Missing)) => {
                    Finding::Bad(problem.to_string())
                }
                Err(RootProblem::Unable(_)) => Finding::Present(known),
            }
        });
        verified.await.unwrap_or_else(|_| Finding::Unknown("the verifier crashed on it".into()))
    }
}

fn label(finding: &Finding) -> &'static str {
    match finding {
        Finding::Valid(_) => "valid",
        Finding::Present(_) | Finding::Exists => "present",
        Finding::Bad(_) => "bad",
        Finding::Missing => "missing",
        Finding::Unknown(_) => "unknown",
    }
}
