//! The artifact store over a real S3 server.

mod weed;

use arborist_artifacts::{ArtifactStore, Created, StoreError};
use arborist_core::ids::TaskId;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;

#[tokio::test]
async fn a_real_s3_keeps_every_promise() {
    let Some(weed) = weed::Weed::start().await else { return };
    let store = weed.store("secret");
    store.check_conditional_create().await.unwrap();
    proofs_and_inputs(&store).await;
    races_have_one_winner(&store).await;
    listings_begin_where_told(&store).await;
    let error = weed.store("wrong").create("k", Bytes::new()).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}

async fn proofs_and_inputs(store: &ArtifactStore) {
    let task = TaskId([3; 32]);
    assert_eq!(store.get_proof(&task).await.unwrap(), None);
    let large = Bytes::from(vec![7; 9 << 20]);
    assert_eq!(store.create_proof(&task, large.clone()).await.unwrap(), Created::New);
    assert_eq!(store.create_proof(&task, Bytes::from_static(b"other")).await.unwrap(), Created::Exists);
    assert_eq!(store.get_proof(&task).await.unwrap(), Some(large));
    let key = arborist_core::proof_object::proof_key(&task);
    let aside = store.move_aside(&key, "does not verify").await.unwrap().unwrap();
    assert_eq!(store.head(&aside).await.unwrap(), Some(9 << 20));
    assert_eq!(store.get_proof(&task).await.unwrap(), None);
    let hash = store.put_input(Bytes::from_static(b"block")).await.unwrap();
    assert_eq!(store.get_input(&hash).await.unwrap().unwrap(), "block");
}

async fn races_have_one_winner(store: &ArtifactStore) {
    for round in 0..5 {
        let key = format!("race/{round}");
        let racers = (0..8).map(|i| store.create(&key, Bytes::from(format!("racer {i}"))));
        let mut winners = Vec::new();
        for (i, result) in join_all(racers).await.into_iter().enumerate() {
            match result {
                Ok(Created::New) => winners.push(i),
                Ok(Created::Exists) | Err(StoreError::Unavailable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(store.get(&key).await.unwrap().unwrap(), format!("racer {}", winners[0]));
    }
}

async fn listings_begin_where_told(store: &ArtifactStore) {
    for i in 0..5 {
        store.create(&format!("list/{i}"), Bytes::new()).await.unwrap();
    }
    let mut keys: Vec<_> =
        store.list_after("list", "list/2").map_ok(|entry| entry.key).try_collect().await.unwrap();
    keys.sort();
    assert_eq!(keys, ["list/3", "list/4"]);
    store.delete_all((0..5).map(|i| format!("list/{i}")).collect()).await.unwrap();
    let left: Vec<_> = store.list("list").try_collect().await.unwrap();
    assert_eq!(left, []);
}
