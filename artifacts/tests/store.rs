//! The store over a folder and in memory, and how failures look to its callers.

use arborist_artifacts::faults::{Failure, Fault, Operation, Plan};
use arborist_artifacts::{ArtifactStore, Created, StoreError, StoreOptions, with_retry};
use arborist_core::ids::{ArtifactHash, TaskId};
use bytes::Bytes;
use futures::TryStreamExt;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn memory() -> ArtifactStore {
    ArtifactStore::open("memory:///", &StoreOptions::default()).unwrap()
}

fn folder() -> (tempfile::TempDir, ArtifactStore) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/store", dir.path().display());
    let store = ArtifactStore::open(&url, &StoreOptions::default()).unwrap();
    (dir, store)
}

/// Plans the first `count` operations of one kind to fail.
fn first(count: u32, operation: Operation, fault: Fault) -> Plan {
    let left = AtomicU32::new(count);
    Arc::new(move |op, _| {
        let due = op == operation
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if due { fault.clone() } else { Fault::None }
    })
}

#[tokio::test]
async fn an_object_is_created_once_and_never_overwritten() {
    let (_dir, folder) = folder();
    for store in [memory(), folder] {
        let text = |s: &'static str| Bytes::from_static(s.as_bytes());
        assert_eq!(store.get("a/b").await.unwrap(), None);
        assert_eq!(store.head("a/b").await.unwrap(), None);
        assert_eq!(store.create("a/b", text("one")).await.unwrap(), Created::New);
        assert_eq!(store.create("a/b", text("two!")).await.unwrap(), Created::Exists);
        assert_eq!(store.get("a/b").await.unwrap(), Some(text("one")));
        assert_eq!(store.head("a/b").await.unwrap(), Some(3));
        store.check_conditional_create().await.unwrap();
        store.create("a/c", text("")).await.unwrap();
        store.create("d", text("")).await.unwrap();
        let mut keys: Vec<_> = store.list("a").map_ok(|e| e.key).try_collect().await.unwrap();
        keys.sort();
        assert_eq!(keys, ["a/b", "a/c"]);
        let keys: Vec<_> = store.list_after("a", "a/b").map_ok(|e| e.key).try_collect().await.unwrap();
        assert_eq!(keys, ["a/c"]);
        store.delete_all(vec!["a/b".into(), "none".into()]).await.unwrap();
        store.delete("a/b").await.unwrap();
        assert_eq!(store.get("a/b").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_folder_survives_being_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/a%20b/c", dir.path().display());
    let task = TaskId([1; 32]);
    let open = || ArtifactStore::open(&url, &StoreOptions::default()).unwrap();
    assert_eq!(open().create_proof(&task, Bytes::from_static(b"proof")).await.unwrap(), Created::New);
    assert_eq!(open().get_proof(&task).await.unwrap().unwrap(), "proof");
    assert!(dir.path().join("a b/c/proofs").is_dir());
}

#[test]
fn a_url_that_names_no_store_is_refused_with_what_is_allowed() {
    for (url, says) in [
        ("", "relative URL"),
        ("/var/lib", "relative URL"),
        ("ftp://host/x", "`ftp://` is unknown"),
        ("file://var/lib", "three slashes"),
        ("s3://", "bucket's name"),
        ("https://user:secret@host/", "host, port and path alone"),
    ] {
        let error = ArtifactStore::open(url, &StoreOptions::default()).unwrap_err();
        assert!(matches!(error, StoreError::BadUrl { .. }), "{url}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("s3://bucket/prefix"), "{url}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
    let options = StoreOptions {
        bucket_settings: vec![("aws_colour".into(), "red".into())],
        ..StoreOptions::default()
    };
    let error = ArtifactStore::open("s3://bucket", &options).unwrap_err().to_string();
    assert!(error.contains("`aws_colour` is no setting"), "{error}");
    let options = StoreOptions { ca_pem: Some(b"no certificate".to_vec()), ..StoreOptions::default() };
    let error = ArtifactStore::open("https://host", &options).unwrap_err().to_string();
    assert!(error.contains("CA"), "{error}");
}

#[test]
fn options_keep_secrets_out_of_logs() {
    let options = StoreOptions {
        token: Some("hunter2".into()),
        bucket_settings: vec![("aws_secret_access_key".into(), "hunter2".into())],
        ..StoreOptions::default()
    };
    assert!(!format!("{options:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_is_too_large_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { max_object_bytes: 4, ..StoreOptions::default() };
    let store = ArtifactStore::open(&format!("file://{}", dir.path().display()), &options).unwrap();
    store.create("small", Bytes::from_static(b"1234")).await.unwrap();
    store.create("large", Bytes::from_static(b"12345")).await.unwrap();
    assert_eq!(store.get("small").await.unwrap().unwrap(), "1234");
    let error = store.get("large").await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { bytes: 5, max_bytes: 4, .. }), "{error:?}");
    let aside = store.move_aside("large", "garbage").await.unwrap().unwrap();
    assert_eq!(store.head("large").await.unwrap(), None);
    assert_eq!(store.head(&aside).await.unwrap(), Some(0));
}

#[tokio::test]
async fn a_bad_object_is_moved_aside_with_its_reason() {
    let (_dir, store) = folder();
    for (n, body) in [(1, "bad"), (2, "worse")] {
        store.create("proofs/x", Bytes::from_static(body.as_bytes())).await.unwrap();
        let aside = store.move_aside("proofs/x", "does not verify; made by w7").await.unwrap().unwrap();
        assert_eq!(aside, format!("quarantine/proofs/x.{n}"));
        assert_eq!(store.get(&aside).await.unwrap().unwrap(), body);
        let reason = store.get(&format!("{aside}.reason")).await.unwrap().unwrap();
        assert_eq!(reason, "does not verify; made by w7");
        assert_eq!(store.head("proofs/x").await.unwrap(), None);
    }
    assert_eq!(store.move_aside("proofs/x", "").await.unwrap(), None);
}

#[tokio::test]
async fn moving_aside_goes_on_after_a_crash_between_its_steps() {
    let store = memory();
    store.create("k", Bytes::from_static(b"bad")).await.unwrap();
    let broken = store.with_faults(first(1, Operation::Delete, Fault::Before(Failure::Unavailable)));
    broken.move_aside("k", "r").await.unwrap_err();
    assert_eq!(broken.move_aside("k", "r").await.unwrap().unwrap(), "quarantine/k.1");
    let moved: Vec<_> = store.list("quarantine").try_collect().await.unwrap();
    assert_eq!(moved.len(), 2, "one object and one reason: {moved:?}");
}

#[tokio::test]
async fn inputs_are_checked_and_repaired() {
    let store = memory();
    let input = Bytes::from_static(b"a block");
    let hash = ArtifactHash::of(&input);
    let key = arborist_core::proof_object::input_key(&hash);
    assert_eq!(store.get_input(&hash).await.unwrap(), None);
    store.create(&key, Bytes::from_static(b"torn")).await.unwrap();
    assert!(matches!(store.get_input(&hash).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(store.put_input(input.clone()).await.unwrap(), hash);
    assert_eq!(store.get_input(&hash).await.unwrap(), Some(input.clone()));
    assert_eq!(store.put_input(input).await.unwrap(), hash);
    assert_eq!(store.get(&format!("quarantine/{key}.1")).await.unwrap().unwrap(), "torn");
}

#[tokio::test]
async fn a_lost_answer_is_no_lost_object() {
    let store = memory();
    let flaky = store.with_faults(first(2, Operation::Create, Fault::After(Failure::Unavailable)));
    let created = with_retry(Duration::from_secs(30), || flaky.create("k", Bytes::from_static(b"v"))).await;
    assert_eq!(created.unwrap(), Created::Exists);
    assert_eq!(store.get("k").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn only_what_may_pass_is_tried_again() {
    for (failure, tries) in [(Failure::Unavailable, 3), (Failure::Full, 3), (Failure::Denied, 1)] {
        let store = memory().with_faults(first(2, Operation::Create, Fault::Before(failure)));
        let tried = AtomicU32::new(0);
        let result = with_retry(Duration::from_secs(30), || {
            tried.fetch_add(1, Ordering::SeqCst);
            store.create("k", Bytes::new())
        })
        .await;
        assert_eq!(tried.load(Ordering::SeqCst), tries, "{failure:?}");
        assert_eq!(result.is_ok(), tries == 3, "{failure:?}: {result:?}");
    }
}

#[tokio::test]
async fn trying_again_ends() {
    let store = memory().with_faults(first(u32::MAX, Operation::Create, Fault::Before(Failure::Full)));
    let result = with_retry(Duration::from_millis(1), || store.create("k", Bytes::new())).await;
    assert!(matches!(result, Err(StoreError::Full { .. })), "{result:?}");
}

#[tokio::test]
async fn a_store_that_overwrites_is_unfit() {
    // it forgets what it has: each create succeeds, as in a store that ignores the condition
    let store = memory();
    let forgetful = store.clone();
    let plan: Plan = Arc::new(move |operation, key| {
        if operation == Operation::Create {
            let _gone = futures::executor::block_on(forgetful.delete(key));
        }
        Fault::None
    });
    let error = store.with_faults(plan).check_conditional_create().await.unwrap_err();
    assert!(matches!(error, StoreError::Unfit { .. }), "{error:?}");
    assert!(error.to_string().contains("If-None-Match"), "{error}");
}

#[tokio::test]
async fn a_folder_that_may_not_be_written_is_a_refusal() {
    // /proc takes no files from anybody, root included
    let Err(error) = ArtifactStore::open("file:///proc/arborist", &StoreOptions::default()) else {
        panic!("/proc took a folder");
    };
    assert!(error.to_string().contains("can't be made"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_told_apart() {
    // no disk of a test machine can be filled: a bucket that says so stands for it
    let (url, server) = answer_always("507 Insufficient Storage");
    let error = bucket(&url).create("k", Bytes::from_static(b"v")).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    drop(server);
}

#[tokio::test]
async fn a_buckets_answers_are_told_apart() {
    for (status, expected) in [
        ("401 Unauthorized", "Denied"),
        ("403 Forbidden", "Denied"),
        ("400 Bad Request", "Other"),
        ("404 Not Found", "Other"),
        ("429 Too Many Requests", "Unavailable"),
        ("503 Slow Down", "Unavailable"),
    ] {
        let (url, server) = answer_always(status);
        let error = bucket(&url).create("k", Bytes::from_static(b"v")).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{status}: {error:?}");
        drop(server);
    }
    // nobody listens there any more
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let error = bucket(&url).create("k", Bytes::from_static(b"v")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let operators = ArtifactStore::open(&url, &StoreOptions::default()).unwrap();
    let error = operators.create("k", Bytes::from_static(b"v")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
}

fn bucket(endpoint: &str) -> ArtifactStore {
    let settings = [
        ("aws_endpoint", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("aws_access_key_id", "id"),
        ("aws_secret_access_key", "key"),
    ];
    let options = StoreOptions {
        bucket_settings: settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
        ..StoreOptions::default()
    };
    ArtifactStore::open("s3://bucket/prefix", &options).unwrap()
}

/// A server that gives every request the same answer, for as long as the handle lives.
fn answer_always(status: &'static str) -> (String, Arc<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let alive = Arc::new(());
    let watch = Arc::downgrade(&alive);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), Some(_alive)) = (stream, watch.upgrade()) else { return };
            let mut request = [0; 4096];
            let _read = stream.read(&mut request);
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _written = stream.write_all(answer.as_bytes());
        }
    });
    (url, alive)
}
