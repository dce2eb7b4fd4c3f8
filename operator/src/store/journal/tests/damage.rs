//! What an opener finds that is damaged, missing, or was written by one that has been followed.

use super::*;

#[tokio::test]
async fn a_damaged_snapshot_gives_way_to_the_one_before() {
    for damage in ["torn", "flipped", "empty"] {
        let store = memory();
        let (journal, _) = open(&store).await;
        for text in ["1", "2", "3"] {
            journal.append(&[text]).unwrap();
            journal.snapshot(Bytes::from_static(text.as_bytes())).await.unwrap();
        }
        drop(journal);
        let key = codec().path(Kind::Snapshot, 3);
        let mut bytes = store.get(&key).await.unwrap().unwrap().to_vec();
        match damage {
            "torn" => bytes.truncate(HEADER_BYTES),
            "flipped" => bytes[HEADER_BYTES] ^= 1,
            _ => bytes.clear(),
        }
        store.delete(&key).await.unwrap();
        store.create(&key, bytes.into()).await.unwrap();
        let (journal, recovered) = open(&store).await;
        assert_eq!(recovered.snapshot.unwrap(), "2", "{damage}");
        assert_eq!(texts(&recovered.records), ["3"], "{damage}");
        assert_eq!(recovered.damage.len(), 1, "{damage}: {:?}", recovered.damage);
        // the damaged one does not count as one of the two that are kept
        journal.clean().await.unwrap();
        assert_eq!(texts(&open(&store).await.1.records), ["3"], "{damage}");
    }
}

#[tokio::test]
async fn a_damaged_segment_is_told_and_the_rest_read() {
    let store = memory();
    let (journal, _) = open(&store).await;
    for text in ["1", "2", "3"] {
        journal.append(&[text]).unwrap();
        journal.flush().await.unwrap();
    }
    drop(journal);
    store.delete(&segment(2)).await.unwrap();
    store.create(&segment(2), Bytes::from_static(b"ARBJSEG1 and noise")).await.unwrap();
    let (_, recovered) = open(&store).await;
    assert_eq!(texts(&recovered.records), ["1", "3"]);
    assert_eq!(recovered.damage[0].key, segment(2));
}

#[tokio::test]
async fn a_hole_is_claimed_so_that_nobody_can_fill_it() {
    let store = memory();
    let (journal, _) = open(&store).await;
    for text in ["1", "2", "3"] {
        journal.append(&[text]).unwrap();
        journal.flush().await.unwrap();
    }
    drop(journal);
    store.delete(&segment(2)).await.unwrap();
    let (_, recovered) = open(&store).await;
    assert_eq!(texts(&recovered.records), ["1", "3"]);
    assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
    let late = codec().encode(Kind::Segment, Identity { epoch: 1, nonce: [0; 16] }, 2, b"");
    assert_eq!(store.create(&segment(2), late).await.unwrap(), Created::Exists);
}

#[tokio::test]
async fn a_stale_writers_segment_is_not_read() {
    let store = memory();
    let (journal, _) = open(&store).await;
    drop(journal);
    let (journal, _) = open(&store).await;
    drop(journal);
    let mut body = Vec::new();
    block::push_record(&mut body, b"stale");
    let stale = codec().encode(Kind::Segment, Identity { epoch: 1, nonce: [0; 16] }, 2, &body);
    store.create(&segment(2), stale).await.unwrap();
    let (_, recovered) = open(&store).await;
    assert_eq!(recovered.records.len(), 0);
    assert_eq!(recovered.epoch, 3);
}

#[tokio::test]
async fn a_lost_beginning_is_refused() {
    let store = memory();
    let (journal, _) = open(&store).await;
    for text in ["1", "2", "3"] {
        journal.append(&[text]).unwrap();
        journal.snapshot(Bytes::from_static(text.as_bytes())).await.unwrap();
    }
    journal.clean().await.unwrap();
    drop(journal);
    for number in [2, 3] {
        let key = codec().path(Kind::Snapshot, number);
        store.delete(&key).await.unwrap();
        store.create(&key, Bytes::from_static(b"noise")).await.unwrap();
    }
    let error = Journal::open(&store, &key(), options()).await.unwrap_err();
    assert!(matches!(error, JournalError::MissingHistory { .. }), "{error:?}");
}

#[test]
fn every_changed_byte_and_every_cut_of_a_segment_is_noticed() {
    let mut body = Vec::new();
    ["one", "", "three"].iter().for_each(|record| block::push_record(&mut body, record.as_bytes()));
    let identity = Identity { epoch: 5, nonce: [9; 16] };
    let bytes = codec().encode(Kind::Segment, identity, 7, &body);
    let whole = codec().decode(Kind::Segment, 7, &bytes).unwrap();
    assert_eq!(whole.identity, identity);
    assert_eq!(texts(&block::records(&whole.body).unwrap()), ["one", "three"]);
    for at in 0..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[at] ^= 0x10;
        assert!(codec().decode(Kind::Segment, 7, &bad.into()).is_err(), "byte {at} changed");
        assert!(codec().decode(Kind::Segment, 7, &bytes.slice(..at)).is_err(), "cut at {at}");
    }
    assert!(codec().decode(Kind::Segment, 8, &bytes).is_err(), "another number");
    assert!(codec().decode(Kind::Snapshot, 7, &bytes).is_err(), "another kind");
    for cut in 1..body.len() {
        let records = block::records(&Bytes::from(body.clone()).slice(..cut));
        assert!(records.is_err() || records.unwrap().len() < 2, "body cut at {cut}");
    }
}
