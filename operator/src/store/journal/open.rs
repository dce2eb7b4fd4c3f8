//! Opening: read what is there, then claim the next segment.

use super::block::{self, Identity, Kind, Put, put_segment};
use super::writer::JournalHandle;
use super::{JournalError, JournalOptions};
use arborist_artifacts::{ArtifactStore, Entry, StoreError, with_retry};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tracing::{info, warn};

/// Segments read at once.
const READS_AT_ONCE: usize = 32;
/// How often an opener starts over when others open too.
const MAX_TRIES: u32 = 64;
/// More missing segments than this are no accident.
const MAX_HOLES: usize = 1000;

/// A journal that this process has claimed and not yet written to.
#[derive(Debug)]
pub struct Journal {
    pub(super) store: ArtifactStore,
    pub(super) options: JournalOptions,
    pub(super) identity: Identity,
    /// The number of the segment that claims it.
    pub(super) claimed: u64,
}

/// What a journal held when it was opened.
#[derive(Debug, Default, Clone)]
pub struct Recovered {
    /// The newest whole snapshot.
    pub snapshot: Option<Bytes>,
    /// The records since, oldest first.
    pub records: Vec<Bytes>,
    /// The epoch of this opening; each is higher than all before.
    pub epoch: u64,
    /// How many segments were read.
    pub segments_read: usize,
    /// What could not be read: nothing unless a disk or a person has damaged it.
    pub damage: Vec<Damage>,
}

/// An object of the journal that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What one look at the journal gave.
#[derive(Default)]
struct Seen {
    recovered: Recovered,
    /// The highest epoch met.
    top_epoch: u64,
    /// The segment that follows the last.
    next: u64,
    holes: Vec<u64>,
    /// Snapshots are there, and none is whole.
    no_whole_snapshot: bool,
}

enum Verdict {
    Claimed,
    StartOver,
}

impl Journal {
    /// Reads the journal and takes it over: whoever wrote to it before is fenced. Costs one snapshot and the
    /// segments since it.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] when another opens it at the same time and wins,
    /// [`JournalError::MissingHistory`], or the store's.
    pub async fn open(
        store: &ArtifactStore,
        options: JournalOptions,
    ) -> Result<(Journal, Recovered), JournalError> {
        let nonce: [u8; 16] = rand::random();
        for _ in 0..MAX_TRIES {
            let Some(seen) = look(store, &options).await? else { continue };
            check_history(store, &options, &seen)?;
            let identity = Identity { epoch: seen.top_epoch + 1, nonce };
            let claimed = seen.next;
            let journal = Journal { store: store.clone(), options: options.clone(), identity, claimed };
            let Verdict::Claimed = journal.claim(&seen.holes).await? else { continue };
            let Verdict::Claimed = journal.verify().await? else { continue };
            let recovered = Recovered { epoch: identity.epoch, ..seen.recovered };
            report(store, &options, &recovered);
            return Ok((journal, recovered));
        }
        Err(JournalError::Contended { tries: MAX_TRIES })
    }

    /// Starts the writer.
    pub fn start(self) -> JournalHandle {
        JournalHandle::start(self)
    }

    /// Takes the holes and then the next number.
    async fn claim(&self, holes: &[u64]) -> Result<Verdict, JournalError> {
        for number in holes.iter().copied().chain([self.claimed]) {
            let put = with_retry(self.options.patience, || {
                put_segment(&self.store, &self.options.prefix, self.identity, number, &[])
            });
            if let Put::Taken { .. } = put.await? {
                return Ok(Verdict::StartOver);
            }
        }
        Ok(Verdict::Claimed)
    }

    /// Looks whether the claim really is the log's end. It is not if this process slept between looking and
    /// claiming for so long that the number it took had been used and deleted.
    async fn verify(&self) -> Result<Verdict, JournalError> {
        let prefix = &self.options.prefix;
        let after = Kind::Segment.key(prefix, self.claimed);
        let mut later = Vec::new();
        for entry in list_after(&self.store, &self.options, &after).await? {
            if Kind::Snapshot.number(prefix, &entry.key).is_some_and(|n| n >= self.claimed) {
                return Ok(Verdict::StartOver);
            }
            later.extend(Kind::Segment.number(prefix, &entry.key).filter(|n| *n > self.claimed));
        }
        let Some(first) = later.into_iter().min() else { return Ok(Verdict::Claimed) };
        let key = Kind::Segment.key(prefix, first);
        let bytes = with_retry(self.options.patience, || self.store.get(&key)).await?;
        let block = bytes.and_then(|bytes| block::decode(Kind::Segment, first, &bytes).ok());
        match block {
            Some(block) if block.identity.epoch > self.identity.epoch => {
                Err(JournalError::Fenced { by: block.identity.epoch })
            }
            _ => Ok(Verdict::StartOver),
        }
    }
}

fn report(store: &ArtifactStore, options: &JournalOptions, recovered: &Recovered) {
    for Damage { key, reason } in &recovered.damage {
        warn!(key, store = store.name(), "journal: {reason}; what it held is lost");
    }
    info!(
        prefix = options.prefix,
        epoch = recovered.epoch,
        segments = recovered.segments_read,
        records = recovered.records.len(),
        snapshot_bytes = recovered.snapshot.as_ref().map_or(0, Bytes::len),
        "journal opened"
    );
}

fn check_history(store: &ArtifactStore, options: &JournalOptions, seen: &Seen) -> Result<(), JournalError> {
    let reason = if seen.no_whole_snapshot && !seen.holes.is_empty() {
        format!("no snapshot is whole, and segment {} is not there", seen.holes[0])
    } else if seen.holes.len() > MAX_HOLES {
        format!("{} segments are not there, the first is {}", seen.holes.len(), seen.holes[0])
    } else {
        return Ok(());
    };
    Err(JournalError::MissingHistory { prefix: format!("{} in {}", options.prefix, store.name()), reason })
}

async fn list_after(
    store: &ArtifactStore,
    options: &JournalOptions,
    after: &str,
) -> Result<Vec<Entry>, StoreError> {
    with_retry(options.patience, || store.list_after(&options.prefix, after).try_collect()).await
}

/// Reads the newest whole snapshot and what follows; `None` when something was deleted meanwhile.
async fn look(store: &ArtifactStore, options: &JournalOptions) -> Result<Option<Seen>, JournalError> {
    let mut seen = Seen::default();
    let covered = read_snapshot(store, options, &mut seen).await?;
    let from = covered.map_or(0, |covered| covered + 1);
    let after = match covered {
        Some(covered) => Kind::Segment.key(&options.prefix, covered),
        None => Kind::Segment.before_all(&options.prefix),
    };
    let entries = list_after(store, options, &after).await?;
    let mut numbers: Vec<u64> =
        entries.iter().filter_map(|entry| Kind::Segment.number(&options.prefix, &entry.key)).collect();
    numbers.sort_unstable();
    let mut segments = stream::iter(numbers)
        .map(|number| async move {
            let key = Kind::Segment.key(&options.prefix, number);
            let bytes = with_retry(options.patience, || store.get(&key)).await;
            (number, key, bytes)
        })
        .buffered(READS_AT_ONCE);
    seen.next = from;
    while let Some((number, key, bytes)) = segments.next().await {
        let Some(bytes) = bytes? else { return Ok(None) };
        if number.saturating_sub(seen.next) > MAX_HOLES as u64 {
            let reason = format!("segments {} to {} are not there", seen.next, number - 1);
            let prefix = format!("{} in {}", options.prefix, store.name());
            return Err(JournalError::MissingHistory { prefix, reason });
        }
        seen.holes.extend(seen.next..number);
        seen.next = number + 1;
        seen.take_segment(number, key, &bytes);
    }
    let holes = seen.holes.iter().map(|hole| Damage {
        key: Kind::Segment.key(&options.prefix, *hole),
        reason: "the segment is not there".into(),
    });
    seen.recovered.damage.extend(holes);
    Ok(Some(seen))
}

/// Finds the newest whole snapshot and returns the last segment that it covers.
async fn read_snapshot(
    store: &ArtifactStore,
    options: &JournalOptions,
    seen: &mut Seen,
) -> Result<Option<u64>, JournalError> {
    let entries = list_after(store, options, &Kind::Snapshot.before_all(&options.prefix)).await?;
    let mut numbers: Vec<u64> =
        entries.iter().filter_map(|entry| Kind::Snapshot.number(&options.prefix, &entry.key)).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    for number in &numbers {
        let key = Kind::Snapshot.key(&options.prefix, *number);
        let reason = match with_retry(options.patience, || store.get(&key)).await {
            Ok(Some(bytes)) => match block::decode(Kind::Snapshot, *number, &bytes) {
                Ok(block) => {
                    seen.top_epoch = block.identity.epoch;
                    seen.recovered.snapshot = Some(block.body);
                    return Ok(Some(*number));
                }
                Err(reason) => reason.to_owned(),
            },
            Ok(None) => continue,
            Err(error @ StoreError::TooLarge { .. }) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        seen.recovered.damage.push(Damage { key, reason });
    }
    seen.no_whole_snapshot = !numbers.is_empty();
    Ok(None)
}

impl Seen {
    fn take_segment(&mut self, number: u64, key: String, bytes: &Bytes) {
        self.recovered.segments_read += 1;
        let read = block::decode(Kind::Segment, number, bytes)
            .and_then(|block| Ok((block.identity.epoch, block::records(&block.body)?)));
        match read {
            // a writer that was fenced already: nobody was told that this is durable
            Ok((epoch, _)) if epoch < self.top_epoch => {}
            Ok((epoch, records)) => {
                self.top_epoch = epoch;
                self.recovered.records.extend(records);
            }
            Err(reason) => self.recovered.damage.push(Damage { key, reason: reason.into() }),
        }
    }
}
