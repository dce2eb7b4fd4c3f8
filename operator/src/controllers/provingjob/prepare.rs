//! From a job's source to a tree in the engine's books. Takes from milliseconds to minutes, so it runs beside the
//! visits.

use super::memory::{Again, Found};
use super::orphans;
use super::source::{self, reason_of};
use super::validate::{CheckedSource, Validated};
use super::{Controller, JOB_PREFIX};
use crate::api::conditions::reason;
use crate::dispatch::{PastError, SubmitError, SubmitRequest, SubmitSource};
use crate::egress::Reach;
use crate::intake::{BlockFile, Fetched, Held, SourceError, Turn};
use arborist_circuits::{MAX_CALLS, sample_block};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Why a job did not come into the books.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PrepareError {
    /// The source can't be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is another file than the job's.
    #[error("the source has SHA-256 {found}, the job says {wanted}")]
    Hash {
        /// What the bytes hash to.
        found: String,
        /// What the spec says.
        wanted: String,
    },
    /// It is no block that can be proven.
    #[error("{0}")]
    BadBlock(String),
    /// The dispatcher did not take it.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The operator is stopping, or something in it crashed.
    #[error("{0}")]
    Interrupted(&'static str),
}

impl PrepareError {
    /// The condition's reason, and whether it is worth trying again.
    pub(super) const fn verdict(&self) -> (&'static str, Again) {
        match self {
            Self::Source(error @ SourceError::Unavailable(_)) => (reason_of(error), Again::Always),
            Self::Source(error @ SourceError::Bad(_)) => (reason_of(error), Again::Never),
            // an error page, or half a file, may have come
            Self::Hash { .. } => (reason::SOURCE_HASH_MISMATCH, Again::Few),
            Self::BadBlock(_) => (reason::BAD_BLOCK, Again::Never),
            Self::Submit(
                SubmitError::Store(_)
                | SubmitError::Unchecked(_)
                | SubmitError::Past(PastError::Store(_) | PastError::NotNow { .. }),
            ) => (reason::STORE_UNAVAILABLE, Again::Always),
            Self::Submit(SubmitError::Quota(_)) => (reason::QUOTA_EXCEEDED, Again::Always),
            Self::Submit(SubmitError::NoObject { .. }) => (reason::SOURCE_UNAVAILABLE, Again::Always),
            Self::Submit(SubmitError::Stopped | SubmitError::Crashed) | Self::Interrupted(_) => {
                (reason::PENDING, Again::Always)
            }
            Self::Submit(_) => (reason::BAD_BLOCK, Again::Never),
        }
    }
}

/// Brings a job's tree into the engine's books. The same block for the same prover is the same tree, so that doing
/// it twice does no harm.
pub(super) async fn prepare(me: &Controller, job: &Validated) -> Found {
    match submit(me, job).await {
        Ok(found) => found,
        Err(error) => {
            let (reason, again) = error.verdict();
            tracing::info!(job = %job.full_name(), %error, ?again, "not submitted");
            Found::NotSubmitted { reason, message: error.to_string(), generation: job.generation, again }
        }
    }
}

async fn submit(me: &Controller, job: &Validated) -> Result<Found, PrepareError> {
    // its turns end with the submit: until then the block is held in memory
    let (source, _turns) = material(me, job).await?;
    let (chain_id, number, prover) = (job.chain_id, job.block_number, job.prover.word.0);
    // until the tree is remembered, or it would look like one that nobody wants
    let _remembered = me.ctx.jobs.submits.begin(orphans::Block { chain_id, number, prover });
    let request = SubmitRequest {
        name: format!("{JOB_PREFIX}{}", job.full_name()),
        namespace: job.namespace.clone(),
        source,
        chain_id: job.chain_id,
        block_number: job.block_number,
        prover_id: job.prover.word.0,
        deadline: job.deadline.map(super::deadline::millis),
        priority: job.priority,
        suspended: job.suspended,
    };
    let dispatcher = &me.ctx.dispatcher;
    let id = dispatcher.submit(request).await?;
    let root = dispatcher.root_task(id).ok_or(PrepareError::Interrupted("the tree was dropped at once"))?;
    let found = Found::Submitted(root);
    // here, not by the caller: within the guard
    me.remember(&job.uid, Found::Submitted(root));
    Ok(found)
}

/// Turns at fetching and making blocks.
pub(super) type Turns = Vec<OwnedSemaphorePermit>;

pub(super) async fn material(
    me: &Controller,
    job: &Validated,
) -> Result<(SubmitSource, Turns), PrepareError> {
    let memory = &me.ctx.jobs;
    let stopping = |_| PrepareError::Interrupted("the operator is stopping");
    match &job.source {
        CheckedSource::Synthetic { calls, seed } => {
            Ok((SubmitSource::Synthetic { calls: calls.clone(), seed: *seed }, vec![]))
        }
        CheckedSource::Made { calls, seed } => {
            let turn = memory.making.clone().acquire_owned().await.map_err(stopping)?;
            let (calls, seed) = (calls.clone(), *seed);
            let (chain_id, block_number) = (job.chain_id, job.block_number);
            let file = off_the_loop(vec![turn], move || {
                let bad = |e: &dyn std::fmt::Display| PrepareError::BadBlock(e.to_string());
                let made = sample_block(&calls, chain_id, block_number, seed, |_| {}).map_err(|e| bad(&e))?;
                let json = serde_json::to_vec(&made.block).map_err(|e| bad(&e))?;
                let hashes = made.block.transactions.iter().map(|t| t.private_proof);
                let objects = hashes.zip(made.private_proofs.into_iter().map(Bytes::from)).collect();
                let objects = Arc::new(Held { place: "the sample", objects });
                BlockFile::read(json.into(), MAX_CALLS, objects, None).map_err(|e| bad(&e))
            });
            // what is made is small: the next one may be made while this one is submitted
            Ok((SubmitSource::Block(Arc::new(file.await?.0)), vec![]))
        }
        source => {
            let mut turns = vec![];
            let wanted = match source {
                CheckedSource::ConfigMap { .. } => vec![memory.small.clone()],
                // the namespace's first: who waits for it holds no turn that others could have
                _ => vec![memory.fetches_of(&job.namespace), memory.fetches.clone()],
            };
            for wanted in wanted {
                turns.push(wanted.acquire_owned().await.map_err(stopping)?);
            }
            fetched(me, job, source, turns).await
        }
    }
}

async fn fetched(
    me: &Controller,
    job: &Validated,
    source: &CheckedSource,
    turns: Turns,
) -> Result<(SubmitSource, Turns), PrepareError> {
    let waits = |why: Option<String>| me.waits(job, why);
    let turn = Turn { budget: me.ctx.dispatcher.intake(), waits: &waits };
    let reach = Reach::of(me.ctx.settings.allow_local_addresses);
    let Fetched { json, reserved, objects } =
        source::fetch(source, &job.namespace, &me.ctx.client, reach, &turn).await?;
    let wanted = match source {
        CheckedSource::Uri { sha256, .. } => Some(*sha256),
        _ => None,
    };
    let max_calls = me.ctx.dispatcher.max_calls();
    let read = move || {
        if let Some(wanted) = wanted {
            let found: [u8; 32] = Sha256::digest(&json).into();
            if found != wanted {
                let (found, wanted) = (hex::encode(found), hex::encode(wanted));
                return Err(PrepareError::Hash { found, wanted });
            }
        }
        let file = BlockFile::read(json, max_calls, objects, Some(reserved));
        file.map_err(|error| PrepareError::BadBlock(error.to_string()))
    };
    let (file, turns) = off_the_loop(turns, read).await?;
    Ok((SubmitSource::Block(Arc::new(file)), turns))
}

/// Runs work that takes long on a thread of its own. It can't be stopped there, so its turn goes with it: jobs that
/// come and go don't pile work up. The turn comes back with the result.
async fn off_the_loop<T: Send + 'static>(
    turns: Turns,
    work: impl FnOnce() -> Result<T, PrepareError> + Send + 'static,
) -> Result<(T, Turns), PrepareError> {
    let crashed = PrepareError::Interrupted("reading or making the block crashed");
    let on_turn = move || work().map(|done| (done, turns));
    tokio::task::spawn_blocking(on_turn).await.unwrap_or(Err(crashed))
}
