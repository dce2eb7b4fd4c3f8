use super::*;
use crate::kubernetes::pods;
use crate::kubernetes::testing::{FakeApi, Mood, status};
use arborist_core::engine::Serves;
use arborist_core::profile::Needs;
use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// The only worker: pod `prod/vm-1` with the uid `u1`.
fn pod() -> Value {
    json!({
        "metadata": {
            "name": "vm-1", "namespace": "prod", "uid": "u1", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"arborist.dev/pool": "vm", "arborist.dev/template": "abc"},
            "ownerReferences": [{
                "apiVersion": "arborist.dev/v1alpha1", "kind": "ProverPool", "name": "vm", "uid": "pool-1",
                "controller": true,
            }],
        },
        "spec": {
            "nodeName": "node-a",
            "containers": [{"name": "worker", "resources": {"limits": {"cpu": "32", "memory": "64Gi"}}}],
        },
        "status": {"phase": "Running"},
    })
}

async fn book(pods: Value) -> PodBook {
    let api = FakeApi::default();
    let list =
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "9"}, "items": pods});
    api.answer(Method::GET, "/api/v1/pods", move |_| (200, list.clone()));
    let (book, stop) = (PodBook::default(), CancellationToken::new());
    let watch = tokio::spawn(pods::watch(api.client(), Scope::Cluster, book.clone(), |_| {}, stop.clone()));
    book.synced(1).await;
    stop.cancel();
    watch.await.unwrap();
    book
}

/// What the API server says of a good token of the pod.
fn good() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["arborist"],
        "user": {
            "username": "system:serviceaccount:prod:default",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["vm-1"],
                "authentication.kubernetes.io/pod-uid": ["u1"],
            },
        },
    })
}

fn reviews(api: &FakeApi, status: Value) {
    api.answer(Method::POST, REVIEWS, move |review| {
        assert_eq!(review["spec"]["audiences"], json!(["arborist"]));
        assert!(review["spec"]["token"].is_string());
        let mut answer = review.clone();
        answer["status"] = status.clone();
        (201, answer)
    });
}

fn login(api: &FakeApi, scopes: Vec<Scope>, book: PodBook) -> TokenReviewLogin {
    TokenReviewLogin::new(api.client(), scopes, book, Arc::new(Metrics::new().unwrap()))
}

#[tokio::test]
async fn a_pods_token_is_its_workers_and_the_node_is_the_clusters_word() {
    let api = FakeApi::default();
    reviews(&api, good());
    for scopes in [vec![Scope::Cluster], vec![Scope::Namespace("a".into()), Scope::Namespace("prod".into())]]
    {
        let login = login(&api, scopes, book(json!([pod()])).await);
        let identity = Login::check(&login, "token").await.unwrap();
        assert_eq!(identity.worker.as_deref(), Some("prod/vm-1"));
        assert_eq!(identity.node.as_deref(), Some("node-a"));
        assert_eq!(identity.capacity, Some(Needs { cores: 32, memory_mib: 64 << 10 }));
        assert!(!identity.draining);
        assert_eq!(identity.subject, "system:serviceaccount:prod:default");
    }
}

#[tokio::test]
async fn every_other_token_is_refused_with_a_cause() {
    type Spoil = fn(&mut Value);
    let cases: [(Spoil, &str, bool); 9] = [
        (|s| *s = json!({"authenticated": false, "error": "expired"}), "token", false),
        (
            |s| *s = json!({"error": "invalid bearer token, token audiences [\"x\"] is invalid"}),
            "token",
            false,
        ),
        (|s| s["audiences"] = json!([]), "audience", false),
        (|s| s["audiences"] = json!(["https://kubernetes.default.svc"]), "audience", false),
        (|s| s["user"]["username"] = json!("kubernetes-admin"), "not-a-pod", true),
        (|s| s["user"]["extra"] = json!({}), "not-a-pod", true),
        (|s| s["user"]["username"] = json!("system:serviceaccount:elsewhere:x"), "namespace", true),
        (
            |s| s["user"]["extra"]["authentication.kubernetes.io/pod-name"] = json!(["coordinator-0"]),
            "unknown-pod",
            false,
        ),
        (|s| s["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = json!(["u0"]), "pod-uid", false),
    ];
    let book = book(json!([pod()])).await;
    for (spoil, cause, permanent) in cases {
        let mut status = good();
        spoil(&mut status);
        let api = FakeApi::default();
        reviews(&api, status);
        let login = login(&api, vec![Scope::Namespace("prod".into())], book.clone());
        let refusal = Login::check(&login, "token").await.unwrap_err();
        assert_eq!((refusal.cause, refusal.permanent), (cause, permanent), "{}", refusal.text);
        assert!(!refusal.text.contains("token\""), "the token itself is not told");
    }
}

#[tokio::test]
async fn a_pod_that_is_being_deleted_logs_in_to_leave_and_one_that_is_over_does_not() {
    let api = FakeApi::default();
    reviews(&api, good());
    let check = |pod: Value| {
        let api = api.clone();
        async move {
            let login = login(&api, vec![Scope::Cluster], book(json!([pod])).await);
            Login::check(&login, "token").await
        }
    };
    let mut deleting = pod();
    deleting["metadata"]["deletionTimestamp"] = json!("2026-01-01T01:00:00Z");
    let identity = check(deleting.clone()).await.unwrap();
    assert!(identity.draining);
    assert_eq!(identity.worker.as_deref(), Some("prod/vm-1"));
    for (mut pod, phase) in [(pod(), "Failed"), (pod(), "Succeeded"), (deleting, "Failed")] {
        pod["status"]["phase"] = json!(phase);
        let refusal = check(pod).await.unwrap_err();
        assert_eq!((refusal.cause, refusal.permanent), ("pod-over", false), "{phase}");
    }
}

#[tokio::test]
async fn a_pod_that_no_living_pool_controls_is_refused_and_told_why() {
    let api = FakeApi::default();
    reviews(&api, good());
    let mut labelled = pod();
    labelled["metadata"]["ownerReferences"] = json!([]);
    let login_of = |book: PodBook| login(&api, vec![Scope::Cluster], book);
    let refusal = Login::check(&login_of(book(json!([labelled])).await), "token").await.unwrap_err();
    assert_eq!((refusal.cause, refusal.permanent), ("pod-owner", false));
    assert!(refusal.text.contains("prod/vm-1 is not controlled by the ProverPool"), "{}", refusal.text);
    let book = book(json!([pod()])).await;
    let login = login_of(book.clone());
    for (uid, taken) in [("pool-1", true), ("pool-2", false)] {
        book.pool_lives("prod", "vm", uid, &Serves::only(["prod"]));
        let answer = Login::check(&login, "token").await;
        assert_eq!(answer.as_ref().err().map(|refusal| refusal.cause), (!taken).then_some("pool-uid"));
        assert!(answer.err().is_none_or(|refusal| refusal.text.contains("another ProverPool vm")));
    }
}

#[tokio::test(start_paused = true)]
async fn one_review_serves_a_minute_and_ten_while_the_api_server_is_away() {
    let api = FakeApi::default();
    reviews(&api, good());
    let login = login(&api, vec![Scope::Cluster], book(json!([pod()])).await);
    let check = || Login::check(&login, "token");
    let asked = || api.count(Method::POST, REVIEWS);
    check().await.unwrap();
    check().await.unwrap();
    assert_eq!(asked(), 1, "remembered");
    Login::check(&login, "another").await.unwrap();
    assert_eq!(asked(), 2, "by token");
    tokio::time::advance(FRESH).await;
    check().await.unwrap();
    assert_eq!(asked(), 3, "asked again");
    for mood in [Mood::Down, Mood::Silent] {
        api.set(mood);
        tokio::time::advance(FRESH).await;
        check().await.unwrap();
        let refusal = Login::check(&login, "new").await.unwrap_err();
        assert_eq!((refusal.cause, refusal.permanent), ("tokenreview-unavailable", false), "{mood:?}");
    }
    tokio::time::advance(STALE).await;
    assert_eq!(check().await.unwrap_err().cause, "tokenreview-unavailable");
    api.set(Mood::Well);
    api.answer(Method::POST, REVIEWS, |_| status(403, "Forbidden"));
    assert_eq!(check().await.unwrap_err().cause, "tokenreview-unavailable");
    reviews(&api, good());
    check().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_not_remembered() {
    let api = FakeApi::default();
    reviews(&api, json!({"authenticated": false}));
    let login = login(&api, vec![Scope::Cluster], book(json!([pod()])).await);
    assert_eq!(Login::check(&login, "token").await.unwrap_err().cause, "token");
    reviews(&api, good());
    Login::check(&login, "token").await.unwrap();
}

#[tokio::test]
async fn a_thread_without_a_runtime_may_ask() {
    let api = FakeApi::default();
    reviews(&api, good());
    let login = Arc::new(login(&api, vec![Scope::Cluster], book(json!([pod()])).await));
    for _ in 0..2 {
        let login = login.clone();
        let (told, hears) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || told.send(futures::executor::block_on(Login::check(&*login, "token"))));
        assert!(hears.await.unwrap().is_ok());
    }
    assert_eq!(api.count(Method::POST, REVIEWS), 1, "the second one is remembered");
}
