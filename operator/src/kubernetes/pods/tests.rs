use super::record::WorkerPod;
use super::watch::Reader;
use super::*;
use arborist_core::profile::Needs;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn pod(namespace: &str, name: &str, uid: &str, spec: Value, status: Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid, "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"arborist.dev/pool": "vm", "arborist.dev/template": "abc"},
            "ownerReferences": [owner()],
            "managedFields": [{"manager": "arborist", "operation": "Apply"}],
        },
        "spec": spec,
        "status": status,
    })
}

/// The pool that controls the pods.
fn owner() -> Value {
    json!({
        "apiVersion": "arborist.dev/v1alpha1", "kind": "ProverPool", "name": "vm", "uid": POOL_UID, "controller": true,
        "blockOwnerDeletion": false,
    })
}

const POOL_UID: &str = "4c1f6d1e-2f0e-4a55-8a3a-6a9c3c1be0aa";

fn read(value: Value) -> WorkerPod {
    serde_json::from_value(value).unwrap()
}

fn record(spec: Value, status: Value) -> PodRecord {
    read(pod("prod", "vm-abcde", "u1", spec, status)).record().unwrap()
}

fn plain(name: &str, uid: &str) -> WorkerPod {
    read(pod("prod", name, uid, json!({}), json!({})))
}

#[test]
fn a_new_pod_is_reduced() {
    let found = record(json!({}), json!({"phase": "Pending"}));
    assert_eq!((found.worker(), found.namespace(), found.name()), ("prod/vm-abcde", "prod", "vm-abcde"));
    assert_eq!((&*found.pool, &*found.uid, &*found.template), ("vm", "u1", "abc"));
    assert_eq!((&*found.pool_uid, found.capacity), (POOL_UID, None));
    assert_eq!((found.phase, found.created, found.deleting), (Phase::Pending, 1_767_225_600, false));
    assert_eq!((&found.scheduling, &found.waiting, &found.ended), (&Scheduling::Pending, &None, &None));
}

#[test]
fn a_pod_of_no_pool_is_not_kept() {
    let mut value = pod("prod", "x", "u", json!({}), json!({}));
    value["metadata"]["labels"] = json!({});
    assert_eq!(read(value).record(), Err(Stranger::NoPool));
}

#[test]
fn only_the_pool_that_the_label_names_makes_a_pod_a_worker() {
    type Spoil = fn(&mut Value);
    let cases: [(&str, Spoil, bool); 10] =
        [
            ("as the operator makes it", |_| {}, true),
            ("of another version", |owners| owners[0]["apiVersion"] = json!("arborist.dev/v1"), true),
            (
                "with another owner beside",
                |owners| {
                    owners.as_array_mut().unwrap().insert(0, json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u", "controller": false,
        }))
                },
                true,
            ),
            ("no owner", |owners| *owners = json!([]), false),
            ("none at all", |owners| *owners = Value::Null, false),
            ("owned, not controlled", |owners| owners[0]["controller"] = json!(false), false),
            (
                "not said to be controlled",
                |owners| _ = owners[0].as_object_mut().unwrap().remove("controller"),
                false,
            ),
            ("of another pool", |owners| owners[0]["name"] = json!("rollup"), false),
            ("of another kind", |owners| owners[0]["kind"] = json!("ProvingJob"), false),
            ("of another group", |owners| owners[0]["apiVersion"] = json!("apps/v1"), false),
        ];
    for (case, spoil, taken) in cases {
        let mut value = pod("prod", "x", "u", json!({}), json!({}));
        spoil(&mut value["metadata"]["ownerReferences"]);
        let wanted = if taken { Ok(()) } else { Err(Stranger::NotControlled) };
        assert_eq!(read(value).record().map(|_| ()), wanted, "{case}");
    }
}

#[test]
fn the_workers_container_says_what_it_may_use_and_how_it_is() {
    let (worker, other) =
        (json!({"limits": {"cpu": "32", "memory": "64Gi"}}), json!({"limits": {"cpu": "1"}}));
    let spec = json!({"containers": [
        {"name": "injected", "resources": other},
        {"name": "worker", "resources": worker},
    ]});
    let status = json!({"containerStatuses": [
        {"name": "injected", "restartCount": 9},
        {"name": "worker", "restartCount": 2},
    ]});
    let found = record(spec, status);
    assert_eq!(found.capacity, Some(Needs { cores: 32, memory_mib: 64 << 10 }));
    assert_eq!(found.restarts, 2);
    let unbounded = json!({"containers": [{"name": "worker"}]});
    assert_eq!(record(unbounded, json!({})).capacity, None);
}

#[test]
fn scheduling_is_read() {
    let unscheduled = |reason: &str| {
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": "0/2 nodes"});
        record(json!({}), json!({"conditions": [condition]})).scheduling
    };
    assert_eq!(unscheduled("Unschedulable"), Scheduling::Unschedulable("0/2 nodes".into()));
    assert_eq!(unscheduled("SchedulingGated"), Scheduling::Pending);
    assert_eq!(record(json!({"nodeName": "n1"}), json!({})).scheduling, Scheduling::Scheduled);
}

#[test]
fn trouble_with_containers_is_read() {
    let waiting = |reason: &str| {
        let container = json!({"image": "reg/w:1", "state": {"waiting": {"reason": reason, "message": "m"}}});
        record(json!({}), json!({"containerStatuses": [container]})).waiting.map(|waiting| waiting.why)
    };
    for (reason, why) in [
        ("CrashLoopBackOff", Some(Waits::CrashLoop)),
        ("ErrImagePull", Some(Waits::Image)),
        ("ImagePullBackOff", Some(Waits::Image)),
        ("ErrImageNeverPull", Some(Waits::Image)),
        ("CreateContainerConfigError", Some(Waits::Config)),
        ("ContainerCreating", None),
        ("PodInitializing", None),
    ] {
        assert_eq!(waiting(reason), why, "{reason}");
    }
}

#[test]
fn one_death_has_one_name_whether_the_container_runs_again_or_not() {
    let died =
        json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:01:00Z"}});
    let now = record(json!({}), json!({"containerStatuses": [{"state": died, "restartCount": 0}]}));
    let later = record(
        json!({}),
        json!({"containerStatuses": [{"state": {"running": {}}, "lastState": died, "restartCount": 1}]}),
    );
    assert_eq!(now.out_of_memory().as_deref(), Some("u1/1767225660"));
    assert_eq!(now.out_of_memory(), later.out_of_memory());
    assert_eq!(later.restarts, 1);
    let other = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
    let other = record(json!({}), json!({"containerStatuses": [{"state": other}]}));
    assert_eq!((other.out_of_memory(), other.ended.unwrap().exit_code), (None, 1));
}

#[test]
fn a_lost_node_shows_in_a_container_that_is_ready_in_a_pod_that_is_not() {
    // the kubelet gives a reason; the node controller leaves the one of a pod that was ready, which is none
    for (pod_ready, reason, container_ready, lost) in [
        ("True", None, true, false),
        ("False", None, false, false),
        ("False", None, true, true),
        ("False", Some(""), true, true),
        ("Unknown", None, true, true),
        ("False", Some("ContainersNotReady"), true, false),
        ("False", Some("ReadinessGatesNotReady"), true, false),
    ] {
        let status = json!({
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": pod_ready, "reason": reason}],
            "containerStatuses": [{"ready": container_ready}],
        });
        let found = record(json!({"nodeName": "n"}), status).node_lost;
        assert_eq!(found, lost, "{pod_ready} {reason:?} {container_ready}");
    }
}

#[test]
fn a_pod_that_failed_before_its_worker_ran_says_why() {
    let no_room = "Pod was rejected: Node didn't have enough resource: cpu, requested: 32000, used: 900, capacity: 32000";
    let refused = |containers: Value| json!({"phase": "Failed", "reason": "OutOfcpu", "message": no_room, "containerStatuses": containers});
    let terminated = |state: Value| json!([{"name": "worker", "state": {"terminated": state}}]);
    let unknown = json!({"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": null});
    let ran = json!({"exitCode": 137, "startedAt": "2026-01-01T00:00:05Z"});
    let other_ran = json!([{"name": "injected", "state": {"running": {}}}, {"name": "worker", "state": {}}]);
    let why = format!("OutOfcpu: {no_room}");
    for (status, rejected) in [
        (refused(json!([])), Some(&*why)),
        (refused(terminated(unknown.clone())), Some(&*why)),
        (
            refused(json!([{"name": "worker", "state": {"waiting": {"reason": "ContainerCreating"}}}])),
            Some(&*why),
        ),
        (refused(other_ran), Some(&*why)),
        (json!({"phase": "Failed", "reason": "Evicted"}), Some("Evicted")),
        (json!({"phase": "Failed"}), Some("Failed")),
        (refused(terminated(ran.clone())), None),
        (refused(json!([{"name": "worker", "state": {"running": {}}}])), None),
        (refused(json!([{"name": "worker", "restartCount": 1, "state": {"terminated": unknown}}])), None),
        (refused(json!([{"name": "worker", "lastState": {"terminated": ran}}])), None),
        (json!({"phase": "Pending", "reason": "OutOfcpu"}), None),
        (json!({"phase": "Succeeded"}), None),
    ] {
        assert_eq!(record(json!({}), status.clone()).rejected.as_deref(), rejected, "{status}");
    }
}

#[test]
fn a_record_is_small_whatever_the_pod_says() {
    let node = json!({"nodeName": "ip-10-0-123-45.eu-central-1.compute.internal"});
    let uid = "0b0f2f5e-7a0c-4ac5-9d7e-cf7e4f3a1d7b";
    let running = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let usual = read(pod("proving", "vm-abcde", uid, node, running)).record().unwrap();
    assert!(usual.bytes() <= 350, "{}", usual.bytes());
    let long = "x".repeat(10_000);
    let status = json!({
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": long}],
        "containerStatuses": [{"image": long, "state": {"waiting": {"reason": "ErrImagePull", "message": long}}}],
    });
    let worst = read(pod("proving", "vm-abcde", uid, json!({}), status)).record().unwrap();
    assert!(worst.bytes() <= 1_050, "{}", worst.bytes());
    let refused = json!({"phase": "Failed", "reason": long, "message": long});
    let refused = read(pod("proving", "vm-abcde", uid, json!({}), refused)).record().unwrap();
    assert!(refused.bytes() <= 500, "{}", refused.bytes());
}

fn reader(book: &PodBook, scope: Scope) -> Reader {
    Reader { scope, book: book.clone(), listing: None, synced: false }
}

fn names(book: &PodBook) -> Vec<String> {
    let mut names: Vec<_> = book.of_pool("prod", "vm").pods.iter().map(|pod| pod.name().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn changes_are_told_once() {
    let book = PodBook::default();
    let mut reader = reader(&book, Scope::Cluster);
    let first = reader.take(Event::Apply(plain("a", "u1")));
    assert!(matches!(&first[..], [Change { before: None, after: Some(pod) }] if pod.name() == "a"));
    assert!(reader.take(Event::Apply(plain("a", "u1"))).is_empty(), "nothing that counts has changed");
    // made anew under the same name: the old one is gone
    let anew = reader.take(Event::Apply(plain("a", "u2")));
    assert!(matches!(&anew[..], [Change { after: None, .. }, Change { before: None, .. }]), "{anew:?}");
    assert_eq!(&*book.find("prod", "a").unwrap().uid, "u2");
    assert_eq!(reader.take(Event::Delete(plain("a", "u2"))).len(), 1);
    assert!(book.is_empty() && book.find("prod", "a").is_none());
    assert!(reader.take(Event::Delete(plain("a", "u2"))).is_empty());
}

#[test]
fn a_whole_list_drops_what_it_does_not_have_in_its_own_scope_only() {
    let book = PodBook::default();
    let mut prod = reader(&book, Scope::Namespace("prod".into()));
    let mut other = reader(&book, Scope::Namespace("other".into()));
    other.take(Event::Apply(read(pod("other", "x", "u9", json!({}), json!({})))));
    for name in ["a", "b"] {
        prod.take(Event::Apply(plain(name, name)));
    }
    prod.take(Event::Init);
    prod.take(Event::InitApply(plain("b", "b")));
    assert_eq!(names(&book), ["a", "b"], "nothing is dropped before the list is whole");
    let gone = prod.take(Event::InitDone);
    assert!(matches!(&gone[..], [Change { before: Some(pod), after: None }] if pod.name() == "a"));
    assert_eq!((names(&book), book.len()), (vec!["b".into()], 2));
    assert_eq!(book.synced_scopes(), 1);
    drop(prod);
    assert_eq!(book.synced_scopes(), 0, "nobody watches it any more");
}

#[test]
fn strangers_are_remembered_by_name_and_forgotten_with_their_pods() {
    let book = PodBook::default();
    let mut reader = reader(&book, Scope::Cluster);
    let stranger = |name: &str| {
        let mut value = pod("prod", name, "u", json!({}), json!({}));
        value["metadata"]["ownerReferences"] = json!([]);
        read(value)
    };
    assert!(reader.take(Event::Apply(stranger("a"))).is_empty());
    assert_eq!((book.len(), book.stranger("prod/a")), (0, Some(Stranger::NotControlled)));
    reader.take(Event::Apply(plain("a", "u1")));
    assert_eq!((book.len(), book.stranger("prod/a")), (1, None), "it is controlled now");
    let gone = reader.take(Event::Apply(stranger("a")));
    assert!(matches!(&gone[..], [Change { before: Some(_), after: None }]), "it is no longer: {gone:?}");
    reader.take(Event::Delete(stranger("a")));
    assert_eq!(book.stranger("prod/a"), None);
    for name in ["b", "c"] {
        reader.take(Event::Apply(stranger(name)));
    }
    reader.take(Event::Init);
    reader.take(Event::InitApply(stranger("c")));
    reader.take(Event::InitDone);
    assert_eq!((book.stranger("prod/b"), book.stranger("prod/c")), (None, Some(Stranger::NotControlled)));
    for number in 0..2_000 {
        reader.take(Event::Apply(stranger(&format!("many-{number}"))));
    }
    assert_eq!(book.pages().strangers.len(), MAX_STRANGERS);
}

fn prod() -> Serves {
    Serves::only(["prod"])
}

#[test]
fn workers_are_named_whose_pool_serves_others_than_when_they_logged_in() {
    let book = PodBook::default();
    let mut reader = reader(&book, Scope::Cluster);
    reader.take(Event::Apply(plain("a", "u1")));
    let a = book.find("prod", "a").unwrap();
    assert_eq!(book.serves(&a), prod(), "nobody has told: its own namespace alone");
    let more = Serves::only(["prod", "team-a"]);
    for (serves, moved) in
        [(prod(), vec![]), (more.clone(), vec!["prod/a"]), (more, vec![]), (prod(), vec!["prod/a"])]
    {
        assert_eq!(book.pool_lives("prod", "vm", POOL_UID, &serves), moved, "{serves}");
        assert_eq!(book.serves(&a), serves);
    }
}

#[test]
fn pods_of_an_earlier_pool_of_the_same_name_are_not_the_present_ones() {
    let book = PodBook::default();
    let mut reader = reader(&book, Scope::Cluster);
    book.pool_lives("prod", "vm", "unknown: it has no pods", &prod());
    reader.take(Event::Apply(plain("a", "u1")));
    let a = book.find("prod", "a").unwrap();
    assert!(book.has_living_pool(&a), "nobody has said which pool lives");
    assert_eq!(names(&book), ["a"]);
    book.pool_lives("prod", "vm", POOL_UID, &prod());
    assert!(book.has_living_pool(&a));
    book.pool_lives("prod", "vm", "another", &prod());
    assert!(!book.has_living_pool(&a) && names(&book).is_empty());
    let mut value = pod("prod", "b", "u2", json!({}), json!({}));
    value["metadata"]["ownerReferences"][0]["uid"] = json!("another");
    reader.take(Event::Apply(read(value)));
    assert_eq!(names(&book), ["b"]);
    assert_eq!(book.len(), 2, "what becomes of the earlier one's is still told");
}

#[test]
fn a_pod_that_was_asked_for_counts_until_the_watch_tells_of_it() {
    let book = PodBook::default();
    let mut reader = reader(&book, Scope::Cluster);
    book.expect("prod", "vm", ["a", "b", "c"].map(str::to_owned));
    let count = || {
        let found = book.of_pool("prod", "vm");
        (found.pods.len(), found.expected)
    };
    assert_eq!(count(), (0, 3));
    reader.take(Event::Apply(plain("a", "u1")));
    book.made("prod", "vm", "a");
    assert_eq!(count(), (1, 2), "the answer after the watch's event expects nothing anew");
    book.refused("prod", "vm", "b");
    assert_eq!(count(), (1, 1));
    book.unanswered("prod", "vm", "c");
    assert_eq!(count(), (1, 1), "it may have been made");
    reader.take(Event::Apply(plain("c", "u3")));
    assert_eq!(count(), (2, 0));
}

#[test]
fn only_a_list_that_began_after_a_pod_was_made_can_say_that_it_is_gone() {
    let book = PodBook::default();
    let mut reader = reader(&book, Scope::Cluster);
    book.expect("prod", "vm", ["early", "late"].map(str::to_owned));
    book.made("prod", "vm", "early");
    reader.take(Event::Init);
    book.made("prod", "vm", "late");
    reader.take(Event::InitDone);
    assert_eq!(book.of_pool("prod", "vm").expected, 1, "`late` was made after the list began");
    reader.take(Event::Init);
    reader.take(Event::InitDone);
    assert_eq!(book.of_pool("prod", "vm").expected, 0);
}

/// An API server with two pages of pods, whose watch then tells that the first is gone.
async fn serve(mut handle: tower_test::mock::Handle<Request<Body>, Response<Body>>) -> Vec<String> {
    let mut asked = vec![];
    let list = |more: &str, pod: Value| json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "10", "continue": more}, "items": [pod]});
    let gone = json!({"type": "DELETED", "object": pod("prod", "a", "u1", json!({}), json!({}))});
    for answer in [
        list("next", pod("prod", "a", "u1", json!({}), json!({}))),
        list("", pod("prod", "b", "u2", json!({}), json!({}))),
        gone,
    ] {
        let (request, send) = handle.next_request().await.expect("a request");
        asked.push(request.uri().to_string());
        send.send_response(Response::new(Body::from(serde_json::to_vec(&answer).unwrap())));
    }
    // the watch has ended; what is asked next is not answered
    let _unanswered = handle.next_request().await;
    asked
}

#[tokio::test]
async fn the_watch_lists_in_pages_by_label_and_tells_of_a_deletion() {
    let (service, handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let server = tokio::spawn(serve(handle));
    let (book, stop) = (PodBook::default(), CancellationToken::new());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut subscribed = book.subscribe();
    let watching = tokio::spawn(watch(
        Client::new(service, "default"),
        Scope::Namespace("prod".into()),
        book.clone(),
        move |change| _ = tell.send(change),
        stop.clone(),
    ));
    let expected = [("a", true), ("b", true), ("a", false)];
    for (name, there) in expected {
        let change = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
        assert_eq!((change.pod().unwrap().name(), change.after.is_some()), (name, there));
        assert_eq!(subscribed.recv().await.unwrap().pod().unwrap().name(), name);
    }
    book.synced(1).await;
    assert_eq!(names(&book), ["b"]);
    let asked = server.await.unwrap();
    stop.cancel();
    watching.await.unwrap();
    assert!(asked[0].starts_with("/api/v1/namespaces/prod/pods?"), "{asked:?}");
    assert!(
        asked[0].contains("limit=500") && asked[0].contains("labelSelector=app.kubernetes.io%2Fmanaged-by")
    );
    assert!(asked[1].contains("continue=next") && asked[2].contains("watch=true"), "{asked:?}");
    assert!(asked[2].contains("allowWatchBookmarks=true"), "{asked:?}");
}
