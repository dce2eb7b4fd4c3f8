//! Deleting what no restart needs.

use super::block::{Codec, HEADER_BYTES, Kind};
use super::{JournalError, JournalOptions};
use arborist_artifacts::{ArtifactStore, Entry, StoreError, with_retry};
use futures::TryStreamExt;
use std::time::{Duration, SystemTime};

/// How many whole snapshots are always kept.
const SNAPSHOTS_KEPT: usize = 2;
/// Objects deleted in one call.
const BATCH: usize = 1000;

/// What a clean-up has deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Segments deleted.
    pub segments: usize,
    /// Snapshots deleted.
    pub snapshots: usize,
}

pub(super) async fn clean(
    store: &ArtifactStore,
    codec: &Codec,
    options: &JournalOptions,
) -> Result<Cleaned, JournalError> {
    let Some(kept) = oldest_kept_snapshot(store, codec, options).await? else {
        return Ok(Cleaned::default());
    };
    let now = SystemTime::now();
    let mut cleaned = Cleaned::default();
    let mut doomed = Vec::new();
    let mut listing = store.list(&options.prefix);
    while let Some(entry) = listing.try_next().await? {
        if let Some(number) = codec.number(Kind::Segment, &entry.key) {
            if number > kept || !is_old(&entry, now, segment_retention(&entry, options)) {
                continue;
            }
            cleaned.segments += 1;
        } else if let Some(number) = codec.number(Kind::Snapshot, &entry.key) {
            if number >= kept || !is_old(&entry, now, options.retention) {
                continue;
            }
            cleaned.snapshots += 1;
        } else {
            continue;
        }
        doomed.push(entry.key);
        if doomed.len() == BATCH {
            store.delete_all(std::mem::take(&mut doomed)).await?;
        }
    }
    store.delete_all(doomed).await?;
    Ok(cleaned)
}

/// A claim, the only segment without a record, is what stops its predecessor: it stays long.
fn segment_retention(entry: &Entry, options: &JournalOptions) -> Duration {
    if entry.bytes <= HEADER_BYTES as u64 { options.claim_retention } else { options.retention }
}

/// A clock that runs behind the store's only keeps things longer.
fn is_old(entry: &Entry, now: SystemTime, retention: Duration) -> bool {
    now.duration_since(entry.modified).is_ok_and(|age| age >= retention)
}

/// The older of the newest two snapshots that are whole; `None` when there are fewer.
async fn oldest_kept_snapshot(
    store: &ArtifactStore,
    codec: &Codec,
    options: &JournalOptions,
) -> Result<Option<u64>, StoreError> {
    let before = codec.before(Kind::Snapshot, 0);
    let entries = store.list_after(&options.prefix, &before);
    let mut numbers: Vec<u64> = entries
        .try_filter_map(|entry| std::future::ready(Ok(codec.number(Kind::Snapshot, &entry.key))))
        .try_collect()
        .await?;
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let mut whole = 0;
    for number in numbers {
        let key = codec.path(Kind::Snapshot, number);
        let bytes = match with_retry(options.patience, || store.get(&key)).await {
            Ok(bytes) => bytes,
            Err(StoreError::TooLarge { .. }) => continue,
            Err(error) => return Err(error),
        };
        whole += usize::from(bytes.is_some_and(|b| codec.decode(Kind::Snapshot, number, &b).is_ok()));
        if whole == SNAPSHOTS_KEPT {
            return Ok(Some(number));
        }
    }
    Ok(None)
}
