//! The artifact store that an operator serves, over TLS and by its own client.

#[path = "../../artifacts/tests/mock_s3/mod.rs"]
mod mock_s3;

use arborist_artifacts::faults::{Failure, Fault, Operation, Plan};
use arborist_artifacts::{ArtifactStore, Created, StoreError, StoreOptions};
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::proof_object::{input_key, proof_key};
use arborist_operator::store::http::{Access, Key, Limits, Right, router};
use arborist_operator::tls_serve::serve;
use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use mock_s3::{Fault as S3Fault, Manners, MockS3, Rule};
use reqwest::{Client, Method, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const LEASED: TaskId = TaskId([1; 32]);
const OTHER: TaskId = TaskId([2; 32]);
const CHILD: TaskId = TaskId([3; 32]);
const DEADLINE: Duration = Duration::from_secs(30);

/// `worker` may write the proof of its one lease and read that and one child, `operator` everything.
struct Sessions;

impl Access for Sessions {
    fn may_read(&self, token: &str, key: &Key) -> Right {
        match (token, key) {
            ("worker", Key::Proof(CHILD)) => Right::Granted,
            _ => self.may_write(token, key),
        }
    }

    fn may_write(&self, token: &str, key: &Key) -> Right {
        match (token, key) {
            ("operator" | "other", _) | ("worker", Key::Proof(LEASED)) => Right::Granted,
            ("worker", _) => Right::Forbidden,
            _ => Right::Unknown,
        }
    }
}

struct Server {
    url: String,
    ca_pem: Vec<u8>,
    below: ArtifactStore,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn nothing_fails() -> Plan {
    Arc::new(|_, _| Fault::None)
}

impl Server {
    async fn start(plan: Plan, limits: Limits) -> Self {
        let below = ArtifactStore::open("memory:///", &StoreOptions::default()).unwrap();
        Self::over(below, plan, limits).await
    }

    async fn over(below: ArtifactStore, plan: Plan, limits: Limits) -> Self {
        let _chosen_before = rustls::crypto::ring::default_provider().install_default();
        let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(pair.signing_key.serialize_der().into());
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let routes = router(below.with_faults(plan), Arc::new(Sessions), limits);
        let task = tokio::spawn(serve(listener, Some(Arc::new(config)), routes, stop.clone()));
        Self { url, ca_pem: pair.cert.pem().into_bytes(), below, stop, task }
    }

    fn client(&self, token: &str) -> ArtifactStore {
        let options = StoreOptions {
            token: Some(token.to_owned()),
            ca_pem: Some(self.ca_pem.clone()),
            ..StoreOptions::default()
        };
        ArtifactStore::open(&self.url, &options).unwrap()
    }

    fn raw(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let ca = reqwest::Certificate::from_pem(&self.ca_pem).unwrap();
        let client = Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
        client.request(method, format!("{}{path}", self.url))
    }
}

#[tokio::test]
async fn a_worker_creates_its_proof_once_and_reads_what_its_lease_needs() {
    let server = Server::start(nothing_fails(), Limits::default()).await;
    let worker = server.client("worker");
    let proof = Bytes::from(vec![5; 5_000_000]);
    assert_eq!(worker.get_proof(&LEASED).await.unwrap(), None);
    assert_eq!(worker.head(&proof_key(&LEASED)).await.unwrap(), None);
    assert_eq!(worker.create_proof(&LEASED, proof.clone()).await.unwrap(), Created::New);
    let other = Bytes::from_static(b"other");
    assert_eq!(worker.create_proof(&LEASED, other.clone()).await.unwrap(), Created::Exists);
    assert_eq!(worker.get_proof(&LEASED).await.unwrap(), Some(proof.clone()));
    assert_eq!(worker.head(&proof_key(&LEASED)).await.unwrap(), Some(5_000_000));
    assert_eq!(server.below.get_proof(&LEASED).await.unwrap(), Some(proof));
    let operator = server.client("operator");
    assert_eq!(operator.create_proof(&OTHER, Bytes::new()).await.unwrap(), Created::New);
    assert_eq!(operator.create_proof(&CHILD, Bytes::new()).await.unwrap(), Created::New);
    assert_eq!(worker.get_proof(&CHILD).await.unwrap(), Some(Bytes::new()));
    for refused in [worker.get_proof(&OTHER).await.map(drop), worker.head(&proof_key(&OTHER)).await.map(drop)]
    {
        assert!(matches!(refused, Err(StoreError::Denied { .. })), "{refused:?}");
    }
    let hash = operator.put_input(Bytes::from_static(b"block")).await.unwrap();
    assert_eq!(operator.put_input(Bytes::from_static(b"block")).await.unwrap(), hash);
    assert_eq!(operator.get_input(&hash).await.unwrap().unwrap(), "block");
    let refused = worker.get_input(&hash).await.unwrap_err().to_string();
    assert!(refused.contains("what its own leases need"), "{refused}");
}

#[tokio::test]
async fn a_bucket_is_reached_through_the_operator_and_its_faults_are_told() {
    let bucket = MockS3::start(Manners::default()).await;
    let server = Server::over(bucket.store(), nothing_fails(), Limits::default()).await;
    let worker = server.client("worker");
    let proof = Bytes::from(vec![5; 200_000]);
    assert_eq!(worker.create_proof(&LEASED, proof.clone()).await.unwrap(), Created::New);
    assert_eq!(worker.create_proof(&LEASED, Bytes::new()).await.unwrap(), Created::Exists);
    assert_eq!(worker.get_proof(&LEASED).await.unwrap(), Some(proof));
    assert_eq!(worker.head(&proof_key(&LEASED)).await.unwrap(), Some(200_000));
    assert_eq!(worker.get_proof(&CHILD).await.unwrap(), None);
    assert!(matches!(worker.get_proof(&OTHER).await, Err(StoreError::Denied { .. })));
    for (status, code, expected) in [
        (400, "ExpiredToken", "Unavailable"),
        (403, "AccessDenied", "Unavailable"),
        (404, "NoSuchBucket", "Unavailable"),
    ] {
        bucket.no_rules();
        bucket.rule(Rule::new(Method::GET, S3Fault::Answer(status, code)));
        let error = worker.get_proof(&LEASED).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{code} became {error:?}");
    }
}

#[tokio::test]
async fn nobody_gets_at_more_than_allowed() {
    let server = Server::start(nothing_fails(), Limits::default()).await;
    let denied = |result: Result<Created, StoreError>, says: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    };
    let worker = server.client("worker");
    denied(worker.create_proof(&OTHER, Bytes::new()).await, "its own leases");
    let input = input_key(&ArtifactHash::of(b""));
    denied(worker.create(&input, Bytes::new()).await, "its own leases");
    let stranger = server.client("nobody");
    denied(stranger.create_proof(&LEASED, Bytes::new()).await, "log in again");
    assert!(matches!(stranger.get_proof(&LEASED).await, Err(StoreError::Denied { .. })));
    assert!(matches!(stranger.head(&input).await, Err(StoreError::Denied { .. })));
    stranger.set_token("worker".to_owned());
    assert_eq!(stranger.get_proof(&LEASED).await.unwrap(), None);
    for result in [worker.delete(&input).await, worker.list("proofs").try_collect::<Vec<_>>().await.map(drop)]
    {
        assert!(matches!(result, Err(StoreError::Other { .. })), "{result:?}");
    }
    let bare = server.raw(Method::GET, &format!("/artifacts/{input}")).send().await.unwrap();
    assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(bare.headers()["www-authenticate"], "Bearer");
    let kept: Vec<_> = server.below.list("").try_collect().await.unwrap();
    assert_eq!(kept, [], "something was written all the same");
}

#[tokio::test]
async fn requests_that_are_not_right_are_refused() {
    let limits = Limits { max_object_bytes: 1000, ..Limits::default() };
    let server = Server::start(nothing_fails(), limits).await;
    let proof = format!("/artifacts/{}", proof_key(&LEASED));
    let input = format!("/artifacts/{}", input_key(&ArtifactHash::of(b"abc")));
    let big = vec![0; 1001];
    let upper = proof_key(&TaskId([0xab; 32])).replace("ab", "AB");
    let cases: Vec<(Method, String, Vec<u8>, u16)> = vec![
        (Method::PUT, proof.clone(), big, 413),
        (Method::PUT, proof.clone(), vec![0; 1000], 201),
        (Method::PUT, input.clone(), b"abd".to_vec(), 422),
        (Method::PUT, input.clone(), b"abc".to_vec(), 201),
        (Method::PUT, input.clone(), b"abc".to_vec(), 409),
        (Method::PUT, format!("/artifacts/{upper}"), vec![], 400),
        (Method::PUT, "/artifacts/journal/segment-0000000000000000".into(), vec![], 400),
        (Method::PUT, "/artifacts/proofs/short".into(), vec![], 400),
        (Method::PUT, "/artifacts/proofs/%2e%2e/x".into(), vec![], 400),
        (Method::GET, "/artifacts/proofs/..%2f..%2fetc%2fpasswd".into(), vec![], 400),
        (Method::GET, "/artifacts/quarantine/proofs/x.1".into(), vec![], 400),
        (Method::GET, format!("{proof}/x"), vec![], 400),
        (Method::GET, "/artifacts/".into(), vec![], 404),
        (Method::GET, format!("/artifacts/{}", proof_key(&OTHER)), vec![], 404),
        (Method::DELETE, proof.clone(), vec![], 405),
        (Method::POST, proof.clone(), vec![], 405),
    ];
    for (method, path, body, expected) in cases {
        let request = server.raw(method.clone(), &path).bearer_auth("operator");
        let response = request.body(body).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        assert_eq!(status, expected, "{method} {path}: {text}");
        assert!(status == 404 || status == 405 || text.ends_with('\n'), "{method} {path}: `{text}`");
    }
    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 100]))).take(50);
    let request = server.raw(Method::PUT, &proof).bearer_auth("operator");
    let response = request.body(reqwest::Body::wrap_stream(endless)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::LENGTH_REQUIRED);
    let kept: Vec<_> = server.below.list("").try_collect().await.unwrap();
    assert_eq!(kept.len(), 2, "{kept:?}");
}

#[tokio::test]
async fn the_client_learns_what_ails_the_store_below() {
    for (failure, expected, status) in [
        (Failure::Full, "Full", 507),
        (Failure::Unavailable, "Unavailable", 503),
        (Failure::Denied, "Unavailable", 500),
    ] {
        let plan: Plan = Arc::new(move |operation, _| match operation {
            Operation::Create => Fault::Before(failure),
            _ => Fault::None,
        });
        let server = Server::start(plan, Limits::default()).await;
        let error = server.client("worker").create_proof(&LEASED, Bytes::new()).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{failure:?} became {error:?}");
        assert!(!error.to_string().contains("memory:"), "the operator's store is named: {error}");
        let path = format!("/artifacts/{}", proof_key(&LEASED));
        let response = server.raw(Method::PUT, &path).bearer_auth("worker").body("").send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
    }
}

#[tokio::test]
async fn more_requests_than_fit_into_memory_wait_for_each_other() {
    let limits = Limits { max_object_bytes: 1 << 20, memory_bytes: 2 << 20, ..Limits::default() };
    let server = Server::start(nothing_fails(), limits).await;
    let operator = server.client("operator");
    let tasks: Vec<TaskId> = (0..16).map(|i| TaskId([i; 32])).collect();
    let body = Bytes::from(vec![1; 1 << 20]);
    let puts = tasks.iter().map(|task| operator.create_proof(task, body.clone()));
    for created in join_all(puts).await {
        assert_eq!(created.unwrap(), Created::New);
    }
    for got in join_all(tasks.iter().map(|task| operator.get_proof(task))).await {
        assert_eq!(got.unwrap().unwrap(), body);
    }
}

#[tokio::test]
async fn a_server_of_another_authority_gets_no_token() {
    let server = Server::start(nothing_fails(), Limits::default()).await;
    let stranger = Server::start(nothing_fails(), Limits::default()).await;
    let options = StoreOptions {
        token: Some("worker".into()),
        ca_pem: Some(server.ca_pem.clone()),
        ..StoreOptions::default()
    };
    let client = ArtifactStore::open(&stranger.url, &options).unwrap();
    let error = client.get_proof(&LEASED).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_stopped_server_answers_what_is_under_way_and_nothing_more() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let arrived = Arc::new(tokio::sync::Notify::new());
    let (held, seen) = (gate.clone(), arrived.clone());
    let plan: Plan = Arc::new(move |operation, _| {
        if operation != Operation::Create {
            return Fault::None;
        }
        seen.notify_one();
        Fault::Wait(held.clone())
    });
    let server = Server::start(plan, Limits::default()).await;
    let worker = server.client("worker");
    let under_way = tokio::spawn({
        let worker = worker.clone();
        async move { worker.create_proof(&LEASED, Bytes::from_static(b"proof")).await }
    });
    timeout(DEADLINE, arrived.notified()).await.unwrap();
    server.stop.cancel();
    gate.notify_one();
    assert_eq!(under_way.await.unwrap().unwrap(), Created::New);
    timeout(DEADLINE, server.task).await.unwrap().unwrap();
    assert!(matches!(worker.get_proof(&LEASED).await, Err(StoreError::Unavailable { .. })));
}
