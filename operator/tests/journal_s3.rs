//! The journal over a real S3 server.

#[path = "../../artifacts/tests/weed/mod.rs"]
mod weed;

use arborist_artifacts::ArtifactStore;
use arborist_operator::store::journal::{Journal, JournalError, JournalKey, JournalOptions};
use bytes::Bytes;
use futures::future::join_all;
use std::time::Duration;

fn key() -> JournalKey {
    JournalKey::new([7; 32])
}

#[tokio::test]
async fn a_journal_on_s3_fences_and_loses_nothing() {
    let Some(weed) = weed::Weed::start().await else { return };
    let store = weed.store("secret");
    let options = JournalOptions { retention: Duration::ZERO, ..JournalOptions::default() };
    let (journal, recovered) = Journal::open(&store, &key(), options.clone()).await.unwrap();
    assert_eq!((recovered.epoch, recovered.records.len()), (1, 0));
    let old = journal.start();
    for i in 0..5 {
        old.append(&[format!("{i}")]).unwrap();
        old.flush().await.unwrap();
        if i < 3 {
            old.snapshot(Bytes::from(format!("until {i}"))).await.unwrap();
        }
    }
    let (journal, recovered) = Journal::open(&store, &key(), options.clone()).await.unwrap();
    assert_eq!(recovered.snapshot.unwrap(), "until 2");
    assert_eq!(recovered.records, ["3", "4"]);
    assert_eq!(recovered.segments_read, 2);
    let new = journal.start();
    old.append(&["late"]).unwrap();
    assert_eq!(old.flush().await, Err(JournalError::Fenced { by: 2 }));
    new.append(&["5"]).unwrap();
    let cleaned = new.clean().await.unwrap();
    assert_eq!((cleaned.segments, cleaned.snapshots), (2, 1));
    new.close().await.unwrap();
    let (_, recovered) = Journal::open(&store, &key(), options.clone()).await.unwrap();
    assert_eq!(recovered.records, ["3", "4", "5"]);
    for round in 0..5 {
        race(&store, format!("race/{round}")).await;
    }
}

/// Eight openers at once: each that gets in has an epoch of its own, and the last one can write.
async fn race(store: &ArtifactStore, prefix: String) {
    let options = JournalOptions { prefix, ..JournalOptions::default() };
    let key = key();
    let openers = (0..8).map(|_| Journal::open(store, &key, options.clone()));
    let mut opened = Vec::new();
    for result in join_all(openers).await {
        match result {
            Ok((journal, _)) => opened.push(journal.start()),
            Err(JournalError::Fenced { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    opened.sort_by_key(|journal| journal.epoch());
    let last = opened.pop().unwrap();
    last.append(&["mine"]).unwrap();
    last.flush().await.unwrap();
    for journal in opened {
        assert!(journal.epoch() < last.epoch(), "one epoch twice");
        let still = journal.confirm().await;
        assert!(matches!(still, Err(JournalError::Fenced { .. })), "epoch {}: {still:?}", journal.epoch());
    }
}
