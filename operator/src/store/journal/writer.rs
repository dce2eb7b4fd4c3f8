//! Writing: records gather in memory, and one task puts them into the store.

use super::block::{self, Codec, Identity, Kind, Put, put_segment};
use super::clean::{self, Cleaned};
use super::open::Journal;
use super::{JournalError, JournalOptions};
use arborist_artifacts::{ArtifactStore, Created, StoreError, with_retry};
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, warn};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

type Waiter = oneshot::Sender<Result<u64, JournalError>>;

/// Records that go into one segment.
struct Chunk {
    body: Vec<u8>,
    /// How many records were appended up to its end, since the start.
    end: u64,
    since: Instant,
}

struct State {
    /// What records are added to.
    open: Option<Chunk>,
    /// What is to be written as it is, oldest first.
    sealed: VecDeque<Chunk>,
    appended: u64,
    durable: u64,
    /// The last segment this writer has put.
    last_segment: u64,
    lag_bytes: usize,
    /// Those who wait until so many records are durable.
    waiters: Vec<(u64, Waiter)>,
    /// Why nothing more is taken.
    over: Option<JournalError>,
    last_error: Option<String>,
    /// Since when the oldest record that is on its way to the store waits.
    writing_since: Option<Instant>,
}

struct Shared {
    store: ArtifactStore,
    codec: Codec,
    options: JournalOptions,
    identity: Identity,
    state: Mutex<State>,
    wake: Notify,
    fenced: watch::Sender<Option<u64>>,
}

/// The way to an open journal; clones share it. When the last is dropped the writer stops at once, as in
/// a crash: call [`JournalHandle::close`] first to keep what was appended.
#[derive(Clone)]
pub struct JournalHandle {
    shared: Arc<Shared>,
    stop: Arc<DropGuard>,
}

impl fmt::Debug for JournalHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalHandle(epoch {})", self.epoch())
    }
}

/// A point in the sequence of records: all appended before [`JournalHandle::cut`] and none after.
#[derive(Debug)]
#[must_use]
pub struct Cut(oneshot::Receiver<Result<u64, JournalError>>);

impl Cut {
    /// Waits until all records before the cut are durable, and returns the last segment with any.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] or [`JournalError::Closed`]: then they may or may not be durable.
    pub async fn durable(self) -> Result<u64, JournalError> {
        self.0.await.unwrap_or(Err(JournalError::Closed))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, why: JournalError) {
        let mut state = self.lock();
        state.over.get_or_insert(why.clone());
        state.open = None;
        state.sealed.clear();
        for (_, waiter) in state.waiters.drain(..) {
            let _nobody_waits = waiter.send(Err(why.clone()));
        }
    }
}

impl JournalHandle {
    pub(super) fn start(journal: Journal) -> Self {
        let state = State {
            open: None,
            sealed: VecDeque::new(),
            appended: 0,
            durable: 0,
            last_segment: journal.claimed,
            lag_bytes: 0,
            waiters: Vec::new(),
            over: None,
            last_error: None,
            writing_since: None,
        };
        let shared = Arc::new(Shared {
            store: journal.store,
            codec: journal.codec,
            options: journal.options,
            identity: journal.identity,
            state: Mutex::new(state),
            wake: Notify::new(),
            fenced: watch::Sender::new(None),
        });
        let stop = CancellationToken::new();
        let (writer, stopped) = (shared.clone(), stop.clone());
        tokio::spawn(async move {
            let why = tokio::select! {
                biased;
                () = stopped.cancelled() => JournalError::Closed,
                by = write_all(&writer, journal.claimed + 1) => JournalError::Fenced { by },
            };
            writer.end(why);
        });
        Self { shared, stop: Arc::new(stop.drop_guard()) }
    }

    /// The epoch of this opening.
    pub fn epoch(&self) -> u64 {
        self.shared.identity.epoch
    }

    /// Adds records. Cheap: they are copied into a buffer that a background task writes. They are durable
    /// once a later [`flush`](Self::flush) returns. All or none are taken.
    ///
    /// # Errors
    /// [`JournalError::Fenced`], [`JournalError::Backlog`], [`JournalError::Size`] for a record that is empty
    /// or larger than a segment, [`JournalError::Closed`].
    pub fn append<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<(), JournalError> {
        let options = &self.shared.options;
        let mut new_bytes = 0;
        for record in records.iter().map(AsRef::as_ref) {
            if record.is_empty() || record.len() > options.segment_bytes {
                return Err(JournalError::Size { bytes: record.len(), max_bytes: options.segment_bytes });
            }
            new_bytes += block::framed_bytes(record);
        }
        let mut state = self.shared.lock();
        state.check(new_bytes, options.max_lag_bytes)?;
        let mut wake = false;
        for record in records {
            wake |= state.push(record.as_ref(), options.segment_bytes);
        }
        drop(state);
        if wake {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Bytes that were appended and are not yet durable.
    pub fn lag_bytes(&self) -> usize {
        self.shared.lock().lag_bytes
    }

    /// What the store said last, while it fails; `None` while it works.
    pub fn last_error(&self) -> Option<String> {
        self.shared.lock().last_error.clone()
    }

    /// How long the oldest record that is not durable has been waiting for the store; next to nothing while it works.
    pub fn stalled_for(&self) -> Duration {
        self.shared.lock().writing_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits until all that was appended before this call is durable, without waiting for more to share
    /// its segment.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] or [`JournalError::Closed`]: then it may or may not be durable.
    pub async fn flush(&self) -> Result<(), JournalError> {
        self.cut().durable().await.map(|_segment| ())
    }

    /// Writes a segment even if there is nothing to write, and so makes sure that no other operator has
    /// taken over until now.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] or [`JournalError::Closed`].
    pub async fn confirm(&self) -> Result<(), JournalError> {
        {
            let mut state = self.shared.lock();
            state.check(0, usize::MAX)?;
            state.push(&[], self.shared.options.segment_bytes);
        }
        self.flush().await
    }

    /// Waits until another operator has taken over, and returns its epoch. It is noticed when a segment is
    /// written. Never returns when the journal is closed before.
    pub async fn fenced(&self) -> u64 {
        let mut fenced = self.shared.fenced.subscribe();
        match fenced.wait_for(Option::is_some).await.map(|by| *by) {
            Ok(Some(by)) => by,
            _ => std::future::pending().await,
        }
    }

    /// Marks this point in the sequence of records. To take a snapshot without holding a lock while it is
    /// encoded: cut and copy the state under the lock under which records are appended, then
    /// [`snapshot_at`](Self::snapshot_at).
    pub fn cut(&self) -> Cut {
        let (waiter, durable) = oneshot::channel();
        let mut state = self.shared.lock();
        if let Some(over) = &state.over {
            let _receiver_is_here = waiter.send(Err(over.clone()));
        } else if state.durable == state.appended {
            let _receiver_is_here = waiter.send(Ok(state.last_segment));
        } else {
            state.seal();
            let end = state.appended;
            state.waiters.push((end, waiter));
            self.shared.wake.notify_one();
        }
        Cut(durable)
    }

    /// Writes a snapshot: the state after all records appended before this **call** (not before the first
    /// poll), so call it under the lock under which records are appended. Returns the segment it covers.
    ///
    /// # Errors
    /// As [`snapshot_at`](Self::snapshot_at).
    pub fn snapshot(&self, state: Bytes) -> impl Future<Output = Result<u64, JournalError>> + Send + use<> {
        let (cut, handle) = (self.cut(), self.clone());
        async move { handle.snapshot_at(cut, state).await }
    }

    /// Writes a snapshot: the state after all records before the cut. The next opening starts from it.
    ///
    /// # Errors
    /// [`JournalError::Fenced`], [`JournalError::Closed`], [`JournalError::Size`], or the store's after
    /// [`JournalOptions::patience`]; the journal is as good as before.
    pub async fn snapshot_at(&self, cut: Cut, state: Bytes) -> Result<u64, JournalError> {
        let Shared { store, codec, options, identity, .. } = &*self.shared;
        let max_bytes = usize::try_from(store.max_object_bytes()).unwrap_or(usize::MAX) - block::HEADER_BYTES;
        if state.len() > max_bytes {
            return Err(JournalError::Size { bytes: state.len(), max_bytes });
        }
        let covered = cut.durable().await?;
        let key = codec.path(Kind::Snapshot, covered);
        let bytes = codec.encode(Kind::Snapshot, *identity, covered, &state);
        let created = with_retry(options.patience, || store.create(&key, bytes.clone())).await?;
        if created == Created::Exists {
            self.check_snapshot(&key, covered).await?;
        }
        Ok(covered)
    }

    /// A snapshot of the same segments says the same, unless it is damaged.
    async fn check_snapshot(&self, key: &str, covered: u64) -> Result<(), JournalError> {
        let Shared { store, codec, options, .. } = &*self.shared;
        let found = with_retry(options.patience, || store.get(key)).await?;
        let whole = found.is_some_and(|bytes| codec.decode(Kind::Snapshot, covered, &bytes).is_ok());
        if whole {
            return Ok(());
        }
        let reason = "a damaged snapshot has its place; the next one will have another".into();
        Err(StoreError::Corrupt { action: format!("create {key} in {}", store.name()), reason }.into())
    }

    /// Deletes what a restart needs no more: keeps the newest two whole snapshots, all segments after the
    /// older of them, and everything for the time of retention.
    ///
    /// # Errors
    /// The store's; the journal is as good as before.
    pub async fn clean(&self) -> Result<Cleaned, JournalError> {
        clean::clean(&self.shared.store, &self.shared.codec, &self.shared.options).await
    }

    /// Writes what was appended and stops; other handles are refused from then on.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] or [`JournalError::Closed`]: then it may or may not be durable.
    pub async fn close(self) -> Result<(), JournalError> {
        let flushed = self.flush().await;
        self.shared.end(JournalError::Closed);
        drop(self.stop);
        flushed
    }
}

impl State {
    fn check(&self, new_bytes: usize, max_bytes: usize) -> Result<(), JournalError> {
        if let Some(over) = &self.over {
            return Err(over.clone());
        }
        if self.lag_bytes > 0 && self.lag_bytes + new_bytes > max_bytes {
            return Err(JournalError::Backlog { lag_bytes: self.lag_bytes, max_bytes });
        }
        Ok(())
    }

    /// Adds a record; says whether the writer must be told.
    fn push(&mut self, record: &[u8], segment_bytes: usize) -> bool {
        let bytes = block::framed_bytes(record);
        let full = self.open.as_ref().is_some_and(|chunk| chunk.body.len() + bytes > segment_bytes);
        if full {
            self.seal();
        }
        self.appended += 1;
        self.lag_bytes += bytes;
        let first = self.open.is_none();
        let chunk =
            self.open.get_or_insert_with(|| Chunk { body: Vec::new(), end: 0, since: Instant::now() });
        block::push_record(&mut chunk.body, record);
        chunk.end = self.appended;
        first
    }

    fn seal(&mut self) {
        self.sealed.extend(self.open.take());
    }
}

/// Writes segments until fenced; returns the other's epoch.
async fn write_all(shared: &Shared, first: u64) -> u64 {
    let mut number = first;
    loop {
        let chunk = next_chunk(shared).await;
        shared.lock().writing_since = Some(chunk.since);
        match write(shared, &mut number, &chunk).await {
            Ok(()) => done(shared, number, &chunk),
            Err(by) => {
                error!(by, epoch = shared.identity.epoch, "another operator has taken over the journal");
                // before anybody can learn of it, nothing more may be taken
                shared.end(JournalError::Fenced { by });
                shared.fenced.send_replace(Some(by));
                return by;
            }
        }
        number += 1;
    }
}

async fn next_chunk(shared: &Shared) -> Chunk {
    loop {
        let due = {
            let mut state = shared.lock();
            if let Some(chunk) = state.sealed.pop_front() {
                return chunk;
            }
            let due = state.open.as_ref().map(|chunk| chunk.since + shared.options.interval);
            if due.is_some_and(|due| due <= Instant::now())
                && let Some(chunk) = state.open.take()
            {
                return chunk;
            }
            due
        };
        // a wake-up between the look and here is not lost: `Notify` keeps one
        match due {
            Some(due) => tokio::select! {
                () = shared.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            },
            None => shared.wake.notified().await,
        }
    }
}

/// Writes one segment, however long it takes. The body stays the same in all tries: one of them may have
/// landed though its answer was lost. Fails only when fenced, with the other's epoch.
async fn write(shared: &Shared, number: &mut u64, chunk: &Chunk) -> Result<(), u64> {
    let Shared { store, codec, identity, .. } = shared;
    let pauses = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times();
    let mut pause = pauses.build();
    loop {
        match put_segment(store, codec, *identity, *number, &chunk.body).await {
            Ok(Put::Done) => return Ok(()),
            Ok(Put::Taken { by: Some(by) }) if by >= identity.epoch => return Err(by),
            // the late write of somebody who was fenced, or one without a seal: readers skip it too
            Ok(Put::Taken { by }) => {
                if by.is_none() {
                    error!(
                        segment = *number,
                        "journal: a segment's place is taken by what no operator wrote"
                    );
                }
                *number += 1;
            }
            Err(error) => {
                warn!(%error, lag_bytes = chunk.body.len(), "journal: a segment could not be written");
                shared.lock().last_error = Some(error.to_string());
                tokio::time::sleep(pause.next().unwrap_or(LONGEST_PAUSE)).await;
            }
        }
    }
}

fn done(shared: &Shared, number: u64, chunk: &Chunk) {
    let mut state = shared.lock();
    state.durable = chunk.end;
    state.last_segment = number;
    state.lag_bytes = state.lag_bytes.saturating_sub(chunk.body.len());
    state.last_error = None;
    state.writing_since = None;
    for (end, waiter) in std::mem::take(&mut state.waiters) {
        if end <= chunk.end {
            let _nobody_waits = waiter.send(Ok(number));
        } else {
            state.waiters.push((end, waiter));
        }
    }
}
