//! The artifact store over an S3 that misbehaves.

mod mock_s3;

use arborist_artifacts::{Created, StoreError, with_retry};
use bytes::Bytes;
use futures::TryStreamExt;
use http::Method;
use mock_s3::{Fault, Manners, MockS3, Rule};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn kind(error: &StoreError) -> String {
    format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_a_store_answers_is_classed_by_its_code() {
    let mock = MockS3::start(Manners::default()).await;
    let store = mock.store();
    for (status, code, expected) in [
        (400, "ExpiredToken", "Unavailable"),
        (400, "RequestTimeout", "Unavailable"),
        (403, "RequestTimeTooSkewed", "Unavailable"),
        (503, "SlowDown", "Unavailable"),
        (403, "AccessDenied", "Denied"),
        (404, "NoSuchBucket", "NoBucket"),
        (400, "InvalidArgument", "Other"),
    ] {
        for method in [Method::PUT, Method::GET] {
            mock.no_rules();
            mock.rule(Rule::new(method.clone(), Fault::Answer(status, code)));
            let error = match method {
                Method::PUT => store.create("k", Bytes::new()).await.unwrap_err(),
                _ => store.get("k").await.unwrap_err(),
            };
            assert_eq!(kind(&error), expected, "{method} {status} {code}: {error}");
        }
        let listed = store.list("x").try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(kind(&listed), expected, "list {status} {code}: {listed}");
    }
    mock.no_rules();
    assert_eq!(store.get("k").await.unwrap(), None, "a key that is free is no error");
}

#[tokio::test]
async fn what_passes_is_tried_until_it_has_passed() {
    let mock = MockS3::start(Manners::default()).await;
    let store = mock.store();
    for (i, fault) in [
        Fault::Answer(400, "ExpiredToken"),
        Fault::Answer(400, "RequestTimeout"),
        Fault::Answer(503, "SlowDown"),
        Fault::Close,
    ]
    .into_iter()
    .enumerate()
    {
        for after in [false, true] {
            mock.no_rules();
            mock.rule(Rule { times: 2, after, ..Rule::new(Method::PUT, fault.clone()) });
            let key = format!("k/{i}/{after}");
            let created =
                with_retry(PATIENCE, || store.create(&key, Bytes::from_static(b"x"))).await.unwrap();
            // when the answer of a write that was done is lost, the next one finds it there
            assert_eq!(created, if after { Created::Exists } else { Created::New }, "{fault:?}");
            assert_eq!(store.get(&key).await.unwrap().unwrap(), "x");
        }
    }
}

#[tokio::test]
async fn a_store_that_does_not_know_conditional_puts_is_unfit_and_told_so_at_the_start() {
    let ignores = MockS3::start(Manners { ignores_condition: true, ..Manners::default() }).await;
    let error = ignores.store().check_conditional_create().await.unwrap_err();
    assert!(matches!(error, StoreError::Unfit { .. }), "{error:?}");
    for (status, code) in [(501, "NotImplemented"), (400, "NotImplemented"), (501, "")] {
        let mock = MockS3::start(Manners::default()).await;
        mock.rule(Rule { conditional: true, ..Rule::new(Method::PUT, Fault::Answer(status, code)) });
        let error = mock.store().check_conditional_create().await.unwrap_err();
        assert!(matches!(error, StoreError::Unfit { .. }), "{status} {code}: {error:?}");
        assert!(error.to_string().contains("If-None-Match"), "{error}");
    }
    let good = MockS3::start(Manners::default()).await;
    good.store().check_conditional_create().await.unwrap();
    let gone = MockS3::start(Manners::default()).await;
    gone.rule(Rule::new(Method::PUT, Fault::Answer(404, "NoSuchBucket")));
    let error = gone.store().check_conditional_create().await.unwrap_err();
    assert!(error.to_string().contains("bucket or container is not there"), "{error}");
}

#[tokio::test]
async fn a_store_that_begins_its_lists_at_the_start_is_served_right() {
    for ignores_start_after in [false, true] {
        for page in [2, 1000] {
            let mock = MockS3::start(Manners { page, ignores_start_after, ..Manners::default() }).await;
            let store = mock.store();
            for i in 0..7 {
                store.create(&format!("list/{i}"), Bytes::new()).await.unwrap();
            }
            let mut keys: Vec<_> =
                store.list_after("list", "list/3").map_ok(|entry| entry.key).try_collect().await.unwrap();
            keys.sort();
            assert_eq!(keys, ["list/4", "list/5", "list/6"], "pages of {page}");
        }
    }
}
