//! Reading and writing artifacts for a lease: what can be retried is retried, what can't becomes the
//! reason the lease fails with.

use crate::attempt::Refusal;
use arborist_artifacts::{ArtifactStore, Created, StoreError};
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::wire::Reason;
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// How long reads are retried before the lease fails with `STORE_UNAVAILABLE`: longer than a request takes that got onto
/// a connection where nothing comes back.
pub const READ_PATIENCE: Duration = Duration::from_secs(45);

/// How long a store may refuse a write before the lease fails: a session's token takes a moment to change.
const REFUSED_PATIENCE: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The largest object a worker reads, in bytes.
pub const MAX_OBJECT_BYTES: u64 = 64 << 20;

/// Which store to use now; it comes with the dispatcher's welcome.
pub type StoreHandle = tokio::sync::watch::Receiver<Option<ArtifactStore>>;

async fn current(store: &StoreHandle) -> Result<ArtifactStore, StoreError> {
    store.borrow().clone().ok_or_else(|| StoreError::Unavailable {
        action: "open".into(),
        reason: "the dispatcher has not named a store yet".into(),
    })
}

fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
}

/// Whether the same call may succeed later. A denial may be that of a session that is being renewed.
fn may_pass(error: &StoreError) -> bool {
    error.is_retryable() || matches!(error, StoreError::Denied { .. })
}

async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    call: impl FnMut() -> F,
) -> Result<T, StoreError> {
    let end = Instant::now() + READ_PATIENCE;
    call.retry(pauses()).when(|error| may_pass(error) && Instant::now() < end).await
}

fn refusal_of(error: &StoreError, damaged: impl FnOnce(String) -> Refusal) -> Refusal {
    match error {
        StoreError::Corrupt { .. } | StoreError::TooLarge { .. } => damaged(error.to_string()),
        // whatever else ails the store, or this machine's way to it, is not the task's
        _ => Refusal::new(Reason::StoreUnavailable, error.to_string()),
    }
}

/// A task's sealed proof; `None` when there is none.
///
/// # Errors
/// The store does not answer for [`READ_PATIENCE`], or what is there can't be read: then the task is
/// named as the bad child.
pub async fn proof(store: &StoreHandle, task: TaskId) -> Result<Option<Bytes>, Refusal> {
    let read = || async move { current(store).await?.get_proof(&task).await };
    patiently(read).await.map_err(|error| refusal_of(&error, |text| Refusal::bad_child(task, text)))
}

/// The sealed proof of a child.
///
/// # Errors
/// As [`proof`]; a child that is not there is named as missing, to be made again.
pub async fn child(store: &StoreHandle, task: TaskId) -> Result<Bytes, Refusal> {
    proof(store, task)
        .await?
        .ok_or_else(|| Refusal::missing_child(task, "it is not in the artifact store".into()))
}

/// An input, checked against its hash.
///
/// # Errors
/// The store does not answer for [`READ_PATIENCE`]; the input is missing or not what its hash says.
pub async fn input(store: &StoreHandle, hash: ArtifactHash) -> Result<Bytes, Refusal> {
    let read = || async move { current(store).await?.get_input(&hash).await };
    let bad = |text: String| Refusal::new(Reason::BadInput, text);
    patiently(read)
        .await
        .map_err(|error| refusal_of(&error, bad))?
        .ok_or_else(|| bad(format!("input {hash} is not in the artifact store")))
}

/// Puts a sealed proof, trying for as long as the store may come back: the caller stops it when the
/// lease is lost.
///
/// # Errors
/// The store refuses for good.
pub async fn put(store: &StoreHandle, task: TaskId, sealed: Bytes) -> Result<Created, Refusal> {
    let refused_end = Instant::now() + REFUSED_PATIENCE;
    let write = || {
        let sealed = sealed.clone();
        async move { current(store).await?.create_proof(&task, sealed).await }
    };
    let again = |error: &StoreError| match error {
        error if error.is_retryable() => true,
        StoreError::Oversized { .. } => false,
        _ => Instant::now() < refused_end,
    };
    let note =
        |error: &StoreError, pause| tracing::warn!(%task, %error, ?pause, "the proof waits for the store");
    write.retry(pauses()).when(again).notify(note).await.map_err(|error| match error {
        StoreError::Oversized { .. } => Refusal::new(Reason::Oversize, error.to_string()),
        _ => Refusal::new(Reason::StoreUnavailable, error.to_string()),
    })
}
