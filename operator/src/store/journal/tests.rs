//! The journal over memory and folders, with crashes, lost answers and several operators at once.

use super::block::{self, Codec, HEADER_BYTES, Identity, Kind};
use super::*;
use arborist_artifacts::faults::{Failure, Fault, Operation, Plan};
use arborist_artifacts::{ArtifactStore, Created, StoreOptions};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Notify;
use tokio::time::timeout;

mod damage;
mod forged;
mod random;

fn memory() -> ArtifactStore {
    ArtifactStore::open("memory:///", &StoreOptions::default()).unwrap()
}

fn options() -> JournalOptions {
    JournalOptions { interval: Duration::from_millis(1), retention: Duration::ZERO, ..Default::default() }
}

fn key() -> JournalKey {
    JournalKey::new([7; 32])
}

fn codec() -> Codec {
    Codec::new("journal", &key())
}

async fn open(store: &ArtifactStore) -> (JournalHandle, Recovered) {
    let (journal, recovered) = Journal::open(store, &key(), options()).await.unwrap();
    (journal.start(), recovered)
}

fn texts(records: &[Bytes]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.to_vec()).unwrap()).collect()
}

async fn keys(store: &ArtifactStore) -> Vec<String> {
    let mut keys: Vec<String> = store.list("journal").map_ok(|entry| entry.key).try_collect().await.unwrap();
    keys.retain(|path| *path != codec().key_path());
    keys.sort();
    keys
}

fn segment(number: u64) -> String {
    codec().path(Kind::Segment, number)
}

/// Creates of segments and snapshots with one of these numbers in turn (1 = the first) fail so.
fn create_fails(at: std::ops::RangeInclusive<u32>, fault: Fault) -> Plan {
    let count = AtomicU32::new(0);
    Arc::new(move |operation, path| {
        let counts = operation == Operation::Create && path != codec().key_path();
        let due = counts && at.contains(&(count.fetch_add(1, Ordering::SeqCst) + 1));
        if due { fault.clone() } else { Fault::None }
    })
}

#[tokio::test]
async fn what_was_flushed_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let folder = format!("file://{}", dir.path().display());
    for store in [memory(), ArtifactStore::open(&folder, &StoreOptions::default()).unwrap()] {
        let (journal, recovered) = open(&store).await;
        assert_eq!((recovered.epoch, recovered.records.len()), (1, 0));
        journal.append(&["a", "b"]).unwrap();
        journal.flush().await.unwrap();
        journal.append(&["c"]).unwrap();
        journal.flush().await.unwrap();
        assert_eq!(journal.lag_bytes(), 0);
        drop(journal);
        let (journal, recovered) = open(&store).await;
        assert_eq!(texts(&recovered.records), ["a", "b", "c"]);
        assert_eq!((recovered.epoch, journal.epoch(), recovered.damage), (2, 2, vec![]));
        journal.append(&["d"]).unwrap();
        journal.close().await.unwrap();
        assert_eq!(texts(&open(&store).await.1.records), ["a", "b", "c", "d"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_seen_in_how_long_records_wait() {
    let hanging = Arc::new(Notify::new());
    let gate = hanging.clone();
    let (journal, _) = open(&memory().with_faults(create_fails(2..=2, Fault::Wait(gate)))).await;
    assert_eq!(journal.stalled_for(), Duration::ZERO);
    journal.append(&["a"]).unwrap();
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert!(journal.stalled_for() >= Duration::from_secs(69), "{:?}", journal.stalled_for());
    assert_eq!(journal.last_error(), None, "it has not even failed");
    hanging.notify_one();
    journal.flush().await.unwrap();
    assert_eq!(journal.stalled_for(), Duration::ZERO);
}

#[tokio::test]
async fn records_are_written_without_being_asked() {
    let store = memory();
    let (journal, _) = open(&store).await;
    journal.append(&["a"]).unwrap();
    let written = async {
        while journal.lag_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), written).await.unwrap();
    assert_eq!(texts(&open(&store).await.1.records), ["a"]);
}

#[tokio::test]
async fn records_share_segments_up_to_their_size() {
    let store = memory();
    let slow = JournalOptions { segment_bytes: 100, interval: Duration::from_secs(3600), ..options() };
    let (journal, _) = Journal::open(&store, &key(), slow.clone()).await.unwrap();
    let journal = journal.start();
    for record in 0..30_u8 {
        journal.append(&[[record; 21]]).unwrap();
    }
    journal.flush().await.unwrap();
    // four records of 25 bytes fill a segment of 100
    assert_eq!(keys(&store).await.len(), 1 + 8);
    let refused = |bytes| Err(JournalError::Size { bytes, max_bytes: 100 });
    assert_eq!(journal.append(&[[0; 101]]), refused(101));
    assert_eq!(journal.append(&[&[1][..], &[][..]]), refused(0));
    journal.flush().await.unwrap();
    let (_, recovered) = Journal::open(&store, &key(), slow).await.unwrap();
    let first: Vec<u8> = recovered.records.iter().map(|record| record[0]).collect();
    assert_eq!(first, (0..30).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_successor_fences_the_writer_before_it() {
    let store = memory();
    let (old, _) = open(&store).await;
    old.append(&["old"]).unwrap();
    old.flush().await.unwrap();
    let (new, recovered) = open(&store).await;
    assert_eq!(texts(&recovered.records), ["old"]);
    old.append(&["late"]).unwrap();
    let fenced = JournalError::Fenced { by: new.epoch() };
    assert_eq!(old.flush().await, Err(fenced.clone()));
    assert_eq!(timeout(Duration::from_secs(30), old.fenced()).await.unwrap(), new.epoch());
    assert_eq!(old.append(&["later"]), Err(fenced.clone()));
    assert_eq!(old.flush().await, Err(fenced.clone()));
    assert_eq!(old.confirm().await, Err(fenced.clone()));
    assert_eq!(old.snapshot(Bytes::from_static(b"late")).await, Err(fenced));
    new.append(&["new"]).unwrap();
    new.confirm().await.unwrap();
    assert_eq!(texts(&open(&store).await.1.records), ["old", "new"]);
}

#[tokio::test]
async fn an_idle_writer_learns_of_its_successor_when_it_asks() {
    let store = memory();
    let (old, _) = open(&store).await;
    old.confirm().await.unwrap();
    let (new, recovered) = open(&store).await;
    assert_eq!(recovered.records.len(), 0, "a confirmation is no record");
    assert_eq!(old.confirm().await, Err(JournalError::Fenced { by: new.epoch() }));
}

#[tokio::test]
async fn a_write_that_was_held_up_does_not_land_behind_the_successor() {
    let store = memory();
    let gate = Arc::new(Notify::new());
    // the second create is the first segment after the claim
    let held_up = store.with_faults(create_fails(2..=2, Fault::Wait(gate.clone())));
    let (old, _) = open(&held_up).await;
    old.append(&["late"]).unwrap();
    let flush = tokio::spawn({
        let old = old.clone();
        async move { old.flush().await }
    });
    let (new, _) = open(&store).await;
    new.append(&["new"]).unwrap();
    new.flush().await.unwrap();
    gate.notify_one();
    assert_eq!(flush.await.unwrap(), Err(JournalError::Fenced { by: new.epoch() }));
    assert_eq!(texts(&open(&store).await.1.records), ["new"]);
}

#[tokio::test]
async fn a_writer_long_out_of_touch_is_stopped_though_history_was_deleted() {
    let store = memory();
    let (old, _) = open(&store).await;
    let (new, _) = open(&store).await;
    for i in 0..4 {
        new.append(&[format!("{i}")]).unwrap();
        new.snapshot(Bytes::from(format!("state {i}"))).await.unwrap();
    }
    let cleaned = new.clean().await.unwrap();
    assert_eq!(cleaned, Cleaned { segments: 3, snapshots: 2 });
    old.append(&["late"]).unwrap();
    assert_eq!(old.flush().await, Err(JournalError::Fenced { by: new.epoch() }));
}

#[tokio::test]
async fn an_opener_that_slept_does_not_claim_a_deleted_number() {
    let store = memory();
    let gate = Arc::new(Notify::new());
    let (leader, _) = open(&store).await;
    let asleep = store.with_faults(create_fails(1..=1, Fault::Wait(gate.clone())));
    let opener = tokio::spawn(async move { Journal::open(&asleep, &key(), options()).await });
    tokio::task::yield_now().await;
    for i in 0..4 {
        leader.append(&[format!("{i}")]).unwrap();
        leader.snapshot(Bytes::from(format!("state {i}"))).await.unwrap();
    }
    leader.clean().await.unwrap();
    assert_eq!(store.head(&segment(1)).await.unwrap(), None, "the number the opener is about to claim");
    gate.notify_one();
    let (journal, recovered) = opener.await.unwrap().unwrap();
    assert_eq!(recovered.snapshot.unwrap(), "state 3");
    assert!(journal.claimed > 4, "it claimed {}", journal.claimed);
    leader.append(&["late"]).unwrap();
    assert_eq!(leader.flush().await, Err(JournalError::Fenced { by: recovered.epoch }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_openers_one_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let folder = format!("file://{}", dir.path().display());
    for round in 0..10 {
        let folder = ArtifactStore::open(&format!("{folder}/{round}"), &StoreOptions::default()).unwrap();
        for store in [memory(), folder] {
            race(&store).await;
        }
    }
}

/// Eight openers at once: each that gets in has its own epoch, and only the last one's records count.
async fn race(store: &ArtifactStore) {
    let openers = (0..8).map(|i| {
        let store = store.clone();
        tokio::spawn(async move {
            let (journal, recovered) = match Journal::open(&store, &key(), options()).await {
                Ok(opened) => opened,
                Err(JournalError::Fenced { .. }) => return None,
                Err(error) => panic!("{error}"),
            };
            let journal = journal.start();
            journal.append(&[format!("{i}")]).unwrap();
            let acknowledged = journal.flush().await.is_ok();
            Some((recovered.epoch, format!("{i}"), acknowledged, journal))
        })
    });
    let mut opened: Vec<_> = join_all(openers).await.into_iter().filter_map(Result::unwrap).collect();
    opened.sort_by_key(|(epoch, ..)| *epoch);
    opened.windows(2).for_each(|pair| assert_ne!(pair[0].0, pair[1].0, "one epoch twice"));
    let (last, older) = opened.split_last().unwrap();
    assert!(last.2, "the last opener could not write");
    for (epoch, _, _, journal) in older {
        let still = journal.confirm().await;
        assert!(matches!(still, Err(JournalError::Fenced { .. })), "epoch {epoch}: {still:?}");
    }
    let acknowledged: Vec<&str> = opened
        .iter()
        .filter(|(_, _, acknowledged, _)| *acknowledged)
        .map(|(_, id, ..)| id.as_str())
        .collect();
    assert_eq!(texts(&open(store).await.1.records), acknowledged);
}

#[tokio::test]
async fn opening_reads_the_snapshot_and_what_follows() {
    let store = memory();
    let (journal, _) = open(&store).await;
    let mut highest = 0;
    for i in 0..200 {
        journal.append(&[format!("{i}")]).unwrap();
        journal.flush().await.unwrap();
        if i % 20 == 19 {
            journal.snapshot(Bytes::from(format!("until {i}"))).await.unwrap();
            journal.append(&[format!("{i}+")]).unwrap();
            journal.flush().await.unwrap();
            // a look at what a restart would cost now; it takes nothing over
            let (_, probe) = Journal::open(&copy_of(&store).await, &key(), options()).await.unwrap();
            highest = highest.max(probe.segments_read);
            assert_eq!(probe.snapshot.unwrap(), format!("until {i}"));
            assert_eq!(texts(&probe.records), [format!("{i}+")]);
        }
    }
    assert_eq!(highest, 1, "segments read after any of the snapshots");
    drop(journal);
    let (journal, _) = open(&store).await;
    journal.append(&["more"]).unwrap();
    journal.flush().await.unwrap();
    let before = keys(&store).await.len();
    let cleaned = journal.clean().await.unwrap();
    assert_eq!(cleaned.snapshots, 8);
    assert_eq!(keys(&store).await.len(), before - cleaned.segments - cleaned.snapshots);
    let (_, recovered) = open(&store).await;
    assert_eq!(recovered.snapshot.unwrap(), "until 199");
    assert_eq!(texts(&recovered.records), ["199+", "more"]);
}

async fn copy_of(store: &ArtifactStore) -> ArtifactStore {
    let copy = memory();
    for key in keys(store).await {
        copy.create(&key, store.get(&key).await.unwrap().unwrap()).await.unwrap();
    }
    copy
}

#[tokio::test]
async fn a_snapshot_holds_what_came_before_its_call_and_nothing_after() {
    let store = memory();
    let (journal, _) = open(&store).await;
    journal.append(&["before"]).unwrap();
    let snapshot = journal.snapshot(Bytes::from_static(b"state"));
    journal.append(&["after"]).unwrap();
    journal.flush().await.unwrap();
    snapshot.await.unwrap();
    let (_, recovered) = open(&store).await;
    assert_eq!(
        (recovered.snapshot.unwrap().as_ref(), texts(&recovered.records)),
        (&b"state"[..], vec!["after".to_owned()])
    );
}

#[tokio::test]
async fn the_retention_keeps_young_objects_and_the_last_two_snapshots() {
    let store = memory();
    let keep = JournalOptions { retention: Duration::from_secs(3600), ..options() };
    let journal = Journal::open(&store, &key(), keep).await.unwrap().0.start();
    let one = |text: &'static str| Bytes::from_static(text.as_bytes());
    journal.append(&["1"]).unwrap();
    journal.snapshot(one("1")).await.unwrap();
    assert_eq!(journal.clean().await.unwrap(), Cleaned::default(), "one snapshot only");
    for text in ["2", "3"] {
        journal.append(&[text]).unwrap();
        journal.snapshot(one(text)).await.unwrap();
    }
    assert_eq!(journal.clean().await.unwrap(), Cleaned::default(), "all are young");
    drop(journal);
    let (journal, _) = open(&store).await;
    assert_eq!(journal.clean().await.unwrap(), Cleaned { segments: 2, snapshots: 1 });
    let claims = [segment(0), segment(4)];
    let kept: Vec<String> = keys(&store).await.into_iter().filter(|key| !claims.contains(key)).collect();
    assert_eq!(kept, [segment(3), codec().path(Kind::Snapshot, 2), codec().path(Kind::Snapshot, 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_long_loses_nothing() {
    for failure in [Failure::Unavailable, Failure::Full, Failure::Denied] {
        for fault in [Fault::Before(failure), Fault::After(failure)] {
            let store = memory();
            let (journal, _) = open(&store.with_faults(create_fails(2..=40, fault.clone()))).await;
            journal.append(&["a"]).unwrap();
            let first = journal.cut();
            while journal.last_error().is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            journal.append(&["b"]).unwrap();
            assert!(journal.lag_bytes() > 0);
            first.durable().await.unwrap();
            journal.flush().await.unwrap();
            assert_eq!((journal.last_error(), journal.lag_bytes()), (None, 0));
            assert_eq!(texts(&open(&store).await.1.records), ["a", "b"], "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_full_buffer_refuses_and_keeps_what_it_has() {
    let store = memory();
    let gate = Arc::new(Notify::new());
    let stuck = store.with_faults(create_fails(2..=2, Fault::Wait(gate.clone())));
    let small = JournalOptions { max_lag_bytes: 30, ..options() };
    let journal = Journal::open(&stuck, &key(), small).await.unwrap().0.start();
    journal.append(&["0123456789"]).unwrap();
    journal.append(&["0123456789"]).unwrap();
    let refused = journal.append(&["0123456789"]);
    assert_eq!(refused, Err(JournalError::Backlog { lag_bytes: 28, max_bytes: 30 }));
    gate.notify_one();
    journal.flush().await.unwrap();
    journal.append(&["0123456789"]).unwrap();
    journal.close().await.unwrap();
    assert_eq!(open(&store).await.1.records.len(), 3);
}

#[tokio::test]
async fn a_closed_journal_takes_nothing() {
    let store = memory();
    let (journal, _) = open(&store).await;
    let other = journal.clone();
    journal.append(&["a"]).unwrap();
    journal.close().await.unwrap();
    assert_eq!(other.append(&["b"]), Err(JournalError::Closed));
    assert_eq!(other.flush().await, Err(JournalError::Closed));
    assert_eq!(texts(&open(&store).await.1.records), ["a"]);
}
