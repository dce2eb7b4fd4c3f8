//! Taking a block in.

use super::core::JobEntry;
use super::lookup::{self, Ended, Search};
use super::past::PastError;
use super::quotas::{OverQuota, Takes};
use super::resolve::{self, BadBlock, Material};
use super::{Dispatcher, Inner, JobError, Progress};
use crate::dispatch::net::SendBuffers;
use crate::intake::BlockFile;
use arborist_artifacts::StoreError;
use arborist_core::engine::{Event, JobId, JobSpec, JobState, KnownProof, Millis, PreparedJob, Source};
use arborist_core::ids::ArtifactHash;
use arborist_core::order::POLICIES;
use arborist_core::system::ProofSystem;
use arborist_core::tree::BadShape;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a submit looks for proofs made before; what it misses the workers find.
const LOOKUP: Duration = Duration::from_secs(5);

/// Where a new job's tree comes from.
#[derive(Debug, Clone)]
pub enum SubmitSource {
    /// A block file.
    Block(Arc<BlockFile>),
    /// A block made up from a seed.
    Synthetic {
        /// Public calls of each transaction.
        calls: Vec<u8>,
        /// Blocks of one seed share their tasks.
        seed: u64,
    },
}

/// A block to prove.
#[derive(Debug, Clone)]
pub struct SubmitRequest {
    /// For people.
    pub name: String,
    /// The tenant whose job it is: a DNS label, or nothing where there are no tenants.
    pub namespace: String,
    /// The block.
    pub source: SubmitSource,
    /// Chain; a block file's must be the same.
    pub chain_id: u64,
    /// Block number; a block file's must be the same.
    pub block_number: u64,
    /// Who is to be paid.
    pub prover_id: [u8; 32],
    /// When it has to be proven, milliseconds since 1970.
    pub deadline: Option<Millis>,
    /// Higher goes first.
    pub priority: i32,
    /// Nothing is leased until it is resumed.
    pub suspended: bool,
}

/// Why a block was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The block file is bad.
    #[error(transparent)]
    BadBlock(#[from] BadBlock),
    /// The tree can't be built.
    #[error(transparent)]
    BadShape(#[from] BadShape),
    /// The request and the block file differ.
    #[error("{field}: the block says {block}, asked for is {asked}")]
    Differs {
        /// The field.
        field: &'static str,
        /// What the block file says.
        block: u64,
        /// What was asked for.
        asked: u64,
    },
    /// The namespace is none.
    #[error("namespace: `{0}`, allowed are 1 to 63 of a-z, 0-9 and -, neither first nor last a -")]
    BadNamespace(String),
    /// Its namespace has as much in the books as it may have: later it may be taken.
    #[error(transparent)]
    Quota(#[from] OverQuota),
    /// The artifact store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No prover of this proof system could ever prove it.
    #[error(
        "synthetic: a made-up block has no inputs, so the fake backend alone can prove it; proofs are made by {0} here"
    )]
    Unprovable(ProofSystem),
    /// Whether the root proof of a complete job still holds could not be found out.
    #[error("the root proof made before could not be checked: {0}")]
    Unchecked(String),
    /// A private proof can't be had: it may be there later.
    #[error("{field}: {problem}")]
    NoObject {
        /// The field that names it.
        field: String,
        /// Where it was looked for, and what was found.
        problem: String,
    },
    /// The same block is in the books, was stopped, and can't be taken up again.
    #[error(transparent)]
    Past(#[from] PastError),
    /// Building the tree crashed.
    #[error("the block's tree could not be built")]
    Crashed,
    /// The dispatcher has stopped, or was fenced.
    #[error("the dispatcher has stopped")]
    Stopped,
}

/// A job built and ready to be handed to the engine.
pub(super) struct Built {
    pub job: PreparedJob,
    pub statements: Option<Arc<arborist_circuits::Statements>>,
    pub file: Option<Arc<BlockFile>>,
}

impl Dispatcher {
    /// Takes a block in and returns its job; durable when this returns. The same block for the same prover
    /// is the same job within a namespace: one that was cancelled or has failed is taken up again, with this deadline; quarantined tasks get
    /// new attempts; and of one that is complete the root proof is checked, and made again if it is lost or bad.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, request: SubmitRequest) -> Result<JobId, SubmitError> {
        let began = Instant::now();
        let inner = &self.inner;
        let profile = inner.options.engine.profile.clone();
        let deadline = request.deadline;
        let built = tokio::task::spawn_blocking(move || build(request, &profile));
        let built = built.await.map_err(|_| SubmitError::Crashed)??;
        // what is counted on in the store must not be deleted until the books say that it is needed
        let kept = inner.deleting.read().await;
        if let Some(job) = inner.known_job(&built.job) {
            if inner.is_complete(job) {
                inner.recheck(job, built).await?;
                drop(kept);
                return inner.take_up_again(job, deadline, None).await;
            }
            if !inner.is_stopped_and_bare(job) {
                inner.restore_inputs(job, built.file).await;
                drop(kept);
                return inner.take_up_again(job, deadline, None).await;
            }
            drop(kept);
            return inner.take_up_again(job, deadline, Some(built)).await;
        }
        let bytes = inner.put_within_quota(&built.job, built.file).await?;
        let found = inner.proofs_made_before(&built.job).await?;
        let _one_at_a_time = inner.submitting.lock().await;
        if let Some(job) = inner.known_job(&built.job) {
            drop(kept);
            return inner.take_up_again(job, deadline, None).await;
        }
        let job = inner.enter(None, (built.job, bytes), built.statements, found, began)?;
        drop(kept);
        inner.durable().await.map_err(|_| SubmitError::Stopped)?;
        // nobody may be listening
        let _ = inner.progress.send(Progress::Submitted(job));
        inner.reorder.notify_one();
        Ok(job)
    }
}

/// Whether a text is a namespace's name, as in Kubernetes.
fn is_namespace(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn build(request: SubmitRequest, profile: &arborist_core::profile::Profile) -> Result<Built, SubmitError> {
    if !request.namespace.is_empty() && !is_namespace(&request.namespace) {
        let shown: String = request.namespace.escape_debug().take(80).collect();
        return Err(SubmitError::BadNamespace(shown));
    }
    let (material, source, file) = match request.source {
        SubmitSource::Synthetic { .. } if profile.system().needs_inputs() => {
            return Err(SubmitError::Unprovable(profile.system()));
        }
        SubmitSource::Synthetic { calls, seed } => {
            (resolve::synthetic(&calls, seed), Source::Synthetic { calls, seed }, None)
        }
        SubmitSource::Block(file) => {
            let material = resolve::of_block(file.block(), request.prover_id, profile)?;
            (material, Source::Block(ArtifactHash::of(file.json())), Some(file))
        }
    };
    let Material { calls, leaves, statements, block: says } = material;
    if let Some((chain_id, block_number)) = says {
        for (field, block, asked) in
            [("chain_id", chain_id, request.chain_id), ("block_number", block_number, request.block_number)]
        {
            if block != asked {
                return Err(SubmitError::Differs { field, block, asked });
            }
        }
    }
    let spec = JobSpec {
        // numbered when it is entered
        id: JobId(0),
        name: request.name,
        namespace: request.namespace,
        source,
        chain_id: request.chain_id,
        block_number: request.block_number,
        prover_id: request.prover_id,
        deadline: request.deadline,
        priority: request.priority,
        suspended: request.suspended,
    };
    let job = PreparedJob::new(spec, &calls, leaves, profile)?;
    Ok(Built { job, statements, file })
}

impl Inner {
    /// The job of the same namespace that proves the same root.
    fn known_job(&self, job: &PreparedJob) -> Option<JobId> {
        let root = job.ids.last()?;
        self.room.look(|core| core.engine.find_root(&job.spec.namespace, root))
    }

    /// Whether there is room for a job that has so many bytes of inputs.
    pub(super) fn check_quota(&self, job: &PreparedJob, bytes: u64) -> Result<(), SubmitError> {
        let takes = Takes::of(job, bytes);
        Ok(self.room.look(|core| self.options.quotas.check(core, &job.spec.namespace, takes))?)
    }

    /// Puts what a new job reads into the store, if its namespace may have so much. Returns the bytes of its inputs; 0
    /// where nobody bounds them.
    ///
    /// # Errors
    /// Over the quota: nothing was put then, unless a private proof is longer than was said where it lies.
    pub(super) async fn put_within_quota(
        self: &Arc<Self>,
        job: &PreparedJob,
        file: Option<Arc<BlockFile>>,
    ) -> Result<u64, SubmitError> {
        let bounded = self.options.quotas.bounds_bytes(&job.spec.namespace);
        self.count_open(&job.spec.namespace).await?;
        let Some(file) = file else {
            self.check_quota(job, 0)?;
            return Ok(0);
        };
        // what needs no look at the store
        self.check_quota(job, file.json().len() as u64)?;
        if !bounded {
            self.put_inputs(file).await?;
            return Ok(0);
        }
        let bytes = self.bytes_of_file(&file).await?;
        self.check_quota(job, bytes)?;
        self.put_inputs_of(file, bytes, |more| self.check_quota(job, more)).await
    }

    async fn take_up_again(
        self: &Arc<Self>,
        job: JobId,
        deadline: Option<Millis>,
        built: Option<Built>,
    ) -> Result<JobId, SubmitError> {
        let stopped = |_| SubmitError::Stopped;
        let (ended, gave_up) = self.room.look(|core| match core.engine.counts(job) {
            Some((_, JobState::Cancelled | JobState::Failed { .. })) => (true, false),
            Some((counts, JobState::Proving)) => (false, counts.iter().any(|kind| kind.failed > 0)),
            _ => (false, false),
        });
        if ended {
            self.check_revival(job).await.map_err(not_revived)?;
            self.change(job, Event::Deadline(job, deadline)).map_err(stopped)?;
        }
        if ended || gave_up {
            let revived = match built.filter(|_| self.is_stopped_and_bare(job)) {
                Some(built) => self.revive_with(job, built).await,
                None => self.revive(job).await,
            };
            revived.map_err(not_revived)?;
        }
        self.durable().await.map_err(|_| SubmitError::Stopped)?;
        Ok(job)
    }

    /// Proofs of the tree that lie in the store: of a job that was dropped from the books, or whose journal
    /// was lost.
    pub(super) async fn proofs_made_before(&self, job: &PreparedJob) -> Result<Vec<KnownProof>, StoreError> {
        let mut found = vec![];
        if !lookup::begun(&self.store, job).await? {
            return Ok(found);
        }
        let root = &job.ids[job.shape.root().index()];
        let whole = lookup::known(&self.store, root).await?;
        let mut search = Search::new(job, &POLICIES[0], vec![false; job.ids.len()]);
        let ended =
            search.run(&self.store, Some(Instant::now() + LOOKUP), |proofs| found.extend(proofs)).await?;
        if ended == Ended::OutOfTime {
            tracing::info!(
                found = found.len(),
                "not all proofs made before were looked for; workers find the others"
            );
        }
        if found.iter().all(|proof| proof.task != *root) {
            found.extend(whole);
        }
        Ok(found)
    }

    /// Takes a tree, and the bytes of its inputs, into the books; in the place of the job `again`, which has ended, if
    /// there is one.
    pub(super) fn enter(
        &self,
        again: Option<JobId>,
        (mut job, bytes): (PreparedJob, u64),
        statements: Option<Arc<arborist_circuits::Statements>>,
        found: Vec<KnownProof>,
        began: Instant,
    ) -> Result<JobId, SubmitError> {
        if self.stopping.is_cancelled() {
            return Err(SubmitError::Stopped);
        }
        self.room.drive(&mut SendBuffers::default(), |core, now| {
            // under the lock: another may have come in since it was looked at
            self.options.quotas.check(core, &job.spec.namespace, Takes::of(&job, bytes))?;
            self.metrics.recovered.inc_by(found.len() as u64);
            let id = again.unwrap_or_else(|| core.engine.next_job());
            let before = again.and_then(|id| {
                core.event(now, Event::Forget(id));
                core.jobs.remove(&id)
            });
            let suspended = job.spec.suspended;
            job.spec.id = id;
            // nothing is to be leased before the engine knows what is there
            job.spec.suspended |= !found.is_empty();
            let state = before.map_or_else(|| watch::channel(JobState::Proving).0, |entry| entry.state);
            let (published, input_bytes) = (None, Some(bytes));
            let unleased_since = Some(began);
            core.jobs.insert(id, JobEntry { statements, published, state, input_bytes, unleased_since });
            core.event(now, Event::Submit(Box::new(job)));
            if !found.is_empty() {
                core.event(now, Event::Known(found));
                core.event(now, Event::Suspend(id, suspended));
            }
            core.publish(id);
            Ok(id)
        })
    }
}

/// Why a job that was submitted again was not taken up again.
pub(super) fn not_revived(error: JobError) -> SubmitError {
    match error {
        JobError::Past(error) => SubmitError::Past(error),
        JobError::Quota(error) => SubmitError::Quota(error),
        _ => SubmitError::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_dns_label() {
        for (text, good) in [
            ("a", true),
            ("team-1", true),
            ("0", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
            ("a.b", false),
            ("a b", false),
            ("ä", false),
            (&"a".repeat(63), true),
            (&"a".repeat(64), false),
        ] {
            assert_eq!(is_namespace(text), good, "{text:?}");
        }
    }
}
