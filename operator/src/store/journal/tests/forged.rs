//! Somebody who may create objects in the bucket writes into the journal's folder.

use super::*;

/// As the one who attacks would seal: with another key, or with none that he has.
fn stranger() -> Codec {
    Codec::new("journal", &JournalKey::new([8; 32]))
}

fn high() -> Identity {
    Identity { epoch: 1 << 40, nonce: [9; 16] }
}

/// Everything that a stranger can think of at these numbers.
async fn forge(store: &ArtifactStore, numbers: std::ops::Range<u64>) {
    for number in numbers {
        for kind in [Kind::Segment, Kind::Snapshot] {
            let bytes = stranger().encode(kind, high(), number, b"");
            let guesses = [
                stranger().path(kind, number),
                codec().before(kind, number),
                format!("{}-", codec().before(kind, number)),
                format!("{}-{}", codec().before(kind, number), "0".repeat(32)),
            ];
            for path in guesses {
                assert_eq!(store.create(&path, bytes.clone()).await.unwrap(), Created::New);
            }
        }
    }
}

#[tokio::test]
async fn a_strangers_segment_of_a_higher_epoch_deposes_nobody() {
    let store = memory();
    let (leader, _) = open(&store).await;
    leader.append(&["1"]).unwrap();
    leader.flush().await.unwrap();
    // the next numbers too: the leader's own are not held up
    forge(&store, 0..50).await;
    leader.append(&["2"]).unwrap();
    leader.snapshot(Bytes::from_static(b"until 2")).await.unwrap();
    leader.append(&["3"]).unwrap();
    leader.flush().await.unwrap();
    leader.confirm().await.unwrap();
    let (next, recovered) = open(&store).await;
    assert_eq!((recovered.epoch, recovered.snapshot.unwrap().as_ref()), (2, &b"until 2"[..]));
    assert_eq!(texts(&recovered.records), ["3"]);
    assert_eq!(recovered.damage, [], "strangers' objects were not even read");
    assert!(recovered.foreign > 0);
    assert_eq!(leader.confirm().await, Err(JournalError::Fenced { by: next.epoch() }));
}

#[tokio::test]
async fn a_start_goes_past_whatever_a_stranger_has_put() {
    let store = memory();
    forge(&store, 0..3).await;
    forge(&store, u64::MAX - 1..u64::MAX).await;
    for name in
        ["segment-", "segment-zz", "segment-ffffffffffffffff", "snapshot-ffffffffffffffff", "x/segment-0"]
    {
        store.create(&format!("journal/{name}"), Bytes::new()).await.unwrap();
    }
    let (journal, recovered) = open(&store).await;
    assert_eq!((recovered.epoch, recovered.records.len(), recovered.damage.len()), (1, 0, 0));
    journal.append(&["1"]).unwrap();
    journal.close().await.unwrap();
    let (journal, recovered) = open(&store).await;
    assert_eq!((recovered.epoch, texts(&recovered.records)), (2, vec!["1".to_owned()]));
    for text in ["2", "3", "4"] {
        journal.append(&[text]).unwrap();
        journal.snapshot(Bytes::from(format!("until {text}"))).await.unwrap();
    }
    let foreign = async || {
        let named = |path: &String| {
            [Kind::Segment, Kind::Snapshot].iter().any(|kind| codec().number(*kind, path).is_some())
        };
        keys(&store).await.into_iter().filter(|path| !named(path)).count()
    };
    let before = foreign().await;
    assert_eq!(journal.clean().await.unwrap().snapshots, 1);
    assert_eq!(foreign().await, before, "what is not ours is not deleted");
    assert!(open(&store).await.1.foreign > 0);
}

/// Only who may delete too can have an object of the right name.
#[tokio::test]
async fn what_is_put_in_the_place_of_a_segment_is_no_more_than_damage() {
    let store = memory();
    let (leader, _) = open(&store).await;
    for text in ["1", "2"] {
        leader.append(&[text]).unwrap();
        leader.flush().await.unwrap();
    }
    let older = store.get(&segment(1)).await.unwrap().unwrap();
    let forged = stranger().encode(Kind::Segment, high(), 2, b"");
    for bytes in [forged.clone(), older] {
        store.delete(&segment(2)).await.unwrap();
        store.create(&segment(2), bytes).await.unwrap();
        let (_, recovered) = open(&copy_of(&store).await).await;
        assert_eq!((recovered.epoch, texts(&recovered.records)), (2, vec!["1".to_owned()]));
        assert_eq!(recovered.damage.len(), 1);
    }
    // one that waits where the leader writes next
    store.create(&segment(3), stranger().encode(Kind::Segment, high(), 3, b"")).await.unwrap();
    leader.append(&["3"]).unwrap();
    leader.flush().await.unwrap();
    let (next, recovered) = open(&store).await;
    assert_eq!(texts(&recovered.records), ["1", "3"]);
    assert_eq!(leader.confirm().await, Err(JournalError::Fenced { by: next.epoch() }));
}

#[tokio::test]
async fn a_journal_of_another_key_is_neither_read_nor_written() {
    let store = memory();
    let (journal, _) = open(&store).await;
    journal.append(&["1"]).unwrap();
    journal.close().await.unwrap();
    let before = keys(&store).await;
    let other = JournalKey::new([8; 32]);
    let error = Journal::open(&store, &other, options()).await.unwrap_err();
    assert!(matches!(error, JournalError::OtherKey { .. }), "{error:?}");
    assert!(error.to_string().contains("Start with that key"), "{error}");
    assert_eq!(keys(&store).await, before);
    assert_eq!(texts(&open(&store).await.1.records), ["1"]);
}

#[tokio::test]
async fn who_changes_the_key_object_does_not_stop_who_has_the_key() {
    let store = memory();
    let (journal, _) = open(&store).await;
    journal.append(&["1"]).unwrap();
    journal.close().await.unwrap();
    for forged in [Some(stranger().key_id()), Some(Bytes::new()), None] {
        store.delete(&codec().key_path()).await.unwrap();
        if let Some(forged) = forged {
            store.create(&codec().key_path(), forged).await.unwrap();
        }
        assert_eq!(texts(&open(&store).await.1.records), ["1"]);
    }
}
