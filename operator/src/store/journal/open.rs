//! Opening: read what is there, then claim the next segment.

use super::block::{self, Codec, Identity, Kind, Put, put_segment};
use super::writer::JournalHandle;
use super::{JournalError, JournalKey, JournalOptions};
use arborist_artifacts::{ArtifactStore, Created, StoreError, with_retry};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tracing::{error, info, warn};

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
    pub(super) codec: Codec,
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
    /// Objects in the folder, named as a journal's, that no operator with this key has written: somebody
    /// writes there who should not. They were not read.
    pub foreign: usize,
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
    /// Something was read whose seal holds.
    ours: bool,
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
    /// [`JournalError::MissingHistory`], [`JournalError::OtherKey`], or the store's.
    pub async fn open(
        store: &ArtifactStore,
        key: &JournalKey,
        options: JournalOptions,
    ) -> Result<(Journal, Recovered), JournalError> {
        let nonce: [u8; 16] = rand::random();
        let codec = Codec::new(&options.prefix, key);
        let known_key = knows_key(store, &codec, &options).await?;
        for _ in 0..MAX_TRIES {
            let Some(seen) = look(store, &codec, &options).await? else { continue };
            check_key(store, &options, known_key, &seen)?;
            check_history(store, &options, &seen)?;
            let identity = Identity { epoch: seen.top_epoch + 1, nonce };
            let (claimed, codec) = (seen.next, codec.clone());
            let journal =
                Journal { store: store.clone(), codec, options: options.clone(), identity, claimed };
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
                put_segment(&self.store, &self.codec, self.identity, number, &[])
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
        let found = list(&self.store, &self.codec, &self.options, self.claimed + 1).await?;
        if found.snapshots.iter().any(|number| *number >= self.claimed) {
            return Ok(Verdict::StartOver);
        }
        let Some(&first) = found.segments.first() else { return Ok(Verdict::Claimed) };
        let key = self.codec.path(Kind::Segment, first);
        let bytes = with_retry(self.options.patience, || self.store.get(&key)).await?;
        let block = bytes.and_then(|bytes| self.codec.decode(Kind::Segment, first, &bytes).ok());
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
    if recovered.foreign > 0 {
        error!(
            objects = recovered.foreign,
            prefix = options.prefix,
            store = store.name(),
            "journal: somebody else writes into its folder; what is not an operator's is left alone"
        );
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

/// Whether the journal's key is ours, as far as its object says: the first to open the journal writes it.
async fn knows_key(
    store: &ArtifactStore,
    codec: &Codec,
    options: &JournalOptions,
) -> Result<bool, StoreError> {
    let (path, ours) = (codec.key_path(), codec.key_id());
    let look = || async {
        if store.create(&path, ours.clone()).await? == Created::New {
            return Ok(true);
        }
        Ok(store.get(&path).await?.is_some_and(|found| found == ours))
    };
    match with_retry(options.patience, look).await {
        Err(StoreError::TooLarge { .. }) => Ok(false),
        known => known,
    }
}

/// A journal of another key is not to be written to. But anybody may have written the object that says so:
/// what carries our seal says more.
fn check_key(
    store: &ArtifactStore,
    options: &JournalOptions,
    known: bool,
    seen: &Seen,
) -> Result<(), JournalError> {
    if known {
        return Ok(());
    }
    let prefix = format!("{} in {}", options.prefix, store.name());
    if !seen.ours {
        return Err(JournalError::OtherKey { prefix });
    }
    error!(
        prefix,
        "journal: its object `key` names another operator key, and its segments carry this one's seal"
    );
    Ok(())
}

/// What a listing gave, lowest first.
#[derive(Default)]
struct Listed {
    segments: Vec<u64>,
    snapshots: Vec<u64>,
    foreign: usize,
}

/// Lists all snapshots, and the segments from a number on.
async fn list(
    store: &ArtifactStore,
    codec: &Codec,
    options: &JournalOptions,
    from: u64,
) -> Result<Listed, StoreError> {
    let after = codec.before(Kind::Segment, from);
    let sort = |mut listed: Listed, path: String| {
        if let Some(number) = codec.number(Kind::Segment, &path) {
            // a store that does not know where to begin begins at the start
            listed.segments.extend(Some(number).filter(|number| *number >= from));
        } else if let Some(number) = codec.number(Kind::Snapshot, &path) {
            listed.snapshots.push(number);
        } else {
            listed.foreign += usize::from(path > after);
        }
        std::future::ready(Ok(listed))
    };
    let listing = || {
        let paths = store.list_after(&options.prefix, &after).map_ok(|entry| entry.key);
        paths.try_fold(Listed::default(), &sort)
    };
    let mut listed = with_retry(options.patience, listing).await?;
    listed.segments.sort_unstable();
    listed.snapshots.sort_unstable();
    Ok(listed)
}

/// Reads the newest whole snapshot and what follows; `None` when something was deleted meanwhile.
async fn look(
    store: &ArtifactStore,
    codec: &Codec,
    options: &JournalOptions,
) -> Result<Option<Seen>, JournalError> {
    let mut seen = Seen::default();
    let covered = read_snapshot(store, codec, options, &mut seen).await?;
    let from = covered.map_or(0, |covered| covered + 1);
    let listed = list(store, codec, options, from).await?;
    seen.recovered.foreign = listed.foreign;
    let mut segments = stream::iter(listed.segments)
        .map(|number| async move {
            let key = codec.path(Kind::Segment, number);
            let bytes = with_retry(options.patience, || store.get(&key)).await;
            (number, key, bytes)
        })
        .buffered(READS_AT_ONCE);
    seen.next = from;
    while let Some((number, key, bytes)) = segments.next().await {
        if number.saturating_sub(seen.next) > MAX_HOLES as u64 {
            let reason = format!("segments {} to {} are not there", seen.next, number - 1);
            let prefix = format!("{} in {}", options.prefix, store.name());
            return Err(JournalError::MissingHistory { prefix, reason });
        }
        seen.holes.extend(seen.next..number);
        seen.next = number + 1;
        match bytes {
            Ok(Some(bytes)) => seen.take_segment(codec, number, key, &bytes),
            Ok(None) => return Ok(None),
            Err(error @ StoreError::TooLarge { .. }) => {
                seen.recovered.damage.push(Damage { key, reason: error.to_string() });
            }
            Err(error) => return Err(error.into()),
        }
    }
    let holes = seen.holes.iter().map(|hole| Damage {
        key: codec.path(Kind::Segment, *hole),
        reason: "the segment is not there".into(),
    });
    seen.recovered.damage.extend(holes);
    Ok(Some(seen))
}

/// Finds the newest whole snapshot and returns the last segment that it covers.
async fn read_snapshot(
    store: &ArtifactStore,
    codec: &Codec,
    options: &JournalOptions,
    seen: &mut Seen,
) -> Result<Option<u64>, JournalError> {
    // snapshots sort after all segments
    let numbers = list(store, codec, options, u64::MAX).await?.snapshots;
    for number in numbers.iter().rev() {
        let key = codec.path(Kind::Snapshot, *number);
        let reason = match with_retry(options.patience, || store.get(&key)).await {
            Ok(Some(bytes)) => match codec.decode(Kind::Snapshot, *number, &bytes) {
                Ok(block) => {
                    seen.top_epoch = block.identity.epoch;
                    seen.recovered.snapshot = Some(block.body);
                    seen.ours = true;
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
    fn take_segment(&mut self, codec: &Codec, number: u64, key: String, bytes: &Bytes) {
        self.recovered.segments_read += 1;
        let block = codec.decode(Kind::Segment, number, bytes);
        self.ours |= block.is_ok();
        let read = block.and_then(|block| Ok((block.identity.epoch, block::records(&block.body)?)));
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
