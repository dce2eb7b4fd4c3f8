//! Visits while the API server refuses, fails, is slow to tell, or has others who write.

use super::fixtures::*;
use super::rounds::{PODS, STATUS, Stage, condition, until};
use crate::controllers::proverpool::build::Built;
use crate::controllers::proverpool::{apply, reconcile};
use crate::kubernetes::testing::{Mood, status};
use arborist_core::engine::WorkerState;
use http::Method;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_refusal_is_told_and_tried_again_later_one_at_a_time() {
    let stage = Stage::new(json!({}));
    stage.demand(0, 100);
    let quota = "exceeded quota: prod, requested: pods=1, used: pods=10, limited: pods=10";
    stage.api.answer(Method::POST, PODS, move |_| {
        let (code, mut body) = status(403, "Forbidden");
        body["message"] = json!(quota);
        (code, body)
    });
    stage.round().await;
    let tries = stage.api.count(Method::POST, PODS);
    assert!((1..=32).contains(&tries), "those in flight: {tries}");
    let found = stage.round_with_status().await;
    assert_eq!(stage.api.count(Method::POST, PODS), tries, "not before the pause is over");
    let (status, reason, message) = condition(&found, "Ready");
    assert_eq!((status, reason), ("False", "PodCreationFailed"));
    assert!(message.contains(quota), "{message}");
    assert_eq!(condition(&found, "CapacityLimited").1, "PodCreationFailed");
    assert_eq!(condition(&found, "Starved").1, "AllPoolsLimited");
    // an edit of the pool may be what was missing
    let mut stage = stage;
    stage.pool.metadata.generation = Some(2);
    stage.round().await;
    assert!(stage.api.count(Method::POST, PODS) > tries);
}

/// A scheduler that knows less than the kubelets, or a device that a node has lost: each pod fails within a second.
#[tokio::test]
async fn pods_that_nodes_refuse_are_tried_one_at_a_time_and_told_of() {
    let stage = Stage::new(json!({}));
    stage.demand(0, 100);
    let refuse = |names: &[String]| {
        names.iter().for_each(|name| stage.tell(name, on_node(), refused("not enough cpu")));
    };
    // as if the pause were over
    let pause_over = || {
        stage.shop.fleet.with(&key("vm"), |memory| memory.rejections.not_before = Some(Instant::now()));
    };
    stage.round().await;
    refuse(&stage.made());
    for tries in 1..=3 {
        stage.round().await;
        let made = stage.made();
        assert_eq!(made.len(), 99 + tries, "nothing is made at once");
        assert_eq!(stage.api.count(Method::DELETE, PODS), made.len(), "those that failed are cleared away");
        for name in &made {
            stage.shop.book.tell_gone(&format!("prod/{name}"));
        }
        pause_over();
        stage.round().await;
        stage.round().await;
        assert_eq!(stage.made().len(), 100 + tries, "one, and what becomes of it is waited for");
        refuse(&stage.made()[99 + tries..]);
    }
    stage.round().await;
    let found = stage.round_with_status().await;
    let text =
        "0 of 12 workers; pods fail before their worker runs: OutOfcpu: Pod was rejected: not enough cpu";
    for (type_, is) in [("Ready", "False"), ("CapacityLimited", "True")] {
        assert_eq!(condition(&found, type_), (is, "PodRejected", text));
    }
    assert_eq!(condition(&found, "Starved").1, "AllPoolsLimited");
    assert!(serde_json::to_vec(&found).unwrap().len() < 2_000);
    // one that comes up ends it
    pause_over();
    stage.round().await;
    let tried = stage.made().pop().unwrap();
    stage.tell(&tried, on_node(), running());
    stage.round().await;
    stage.tell_worker(&tried, 1);
    stage.round().await;
    assert!(stage.made().len() > 190, "{}", stage.made().len());
}

/// A webhook may take away what makes a pod the pool's: nobody would find it then, or delete it.
#[tokio::test]
async fn pods_that_are_not_made_as_they_were_asked_for_are_deleted_and_told_of() {
    type Spoil = fn(&mut Value);
    let cases: [(Spoil, &str); 4] = [
        (|metadata| metadata["ownerReferences"] = Value::Null, "metadata.ownerReferences"),
        (|metadata| metadata["ownerReferences"][0]["uid"] = json!("another"), "metadata.ownerReferences"),
        (|metadata| metadata["labels"] = json!({}), "label app.kubernetes.io/managed-by"),
        (|metadata| metadata["labels"]["arborist.dev/pool"] = json!("another"), "label arborist.dev/pool"),
    ];
    for (spoil, lacking) in cases {
        let stage = Stage::new(json!({}));
        stage.demand(0, 100);
        stage.api.answer(Method::POST, PODS, move |body| {
            let mut made = body.clone();
            spoil(&mut made["metadata"]);
            (201, made)
        });
        stage.round().await;
        let tries = stage.api.count(Method::POST, PODS);
        assert!((1..=32).contains(&tries), "those in flight: {tries}");
        assert_eq!(stage.api.count(Method::DELETE, PODS), tries, "{lacking}");
        assert_eq!(stage.shop.book.of_pool("prod", "vm").expected, 0, "{lacking}");
        let found = stage.round_with_status().await;
        assert_eq!(stage.api.count(Method::POST, PODS), tries, "not before the pause is over");
        let (status, reason, message) = condition(&found, "Ready");
        assert_eq!((status, reason), ("False", "PodCreationFailed"));
        assert!(message.contains(&format!("made without {lacking}, which a webhook took")), "{message}");
        assert!(serde_json::to_vec(&found).unwrap().len() < 2_000);
    }
}

/// What others add to a pod is theirs.
#[tokio::test]
async fn pods_to_which_a_webhook_adds_are_the_pools_all_the_same() {
    let stage = Stage::new(json!({}));
    stage.demand(0, 3);
    stage.api.answer(Method::POST, PODS, |body| {
        let mut made = body.clone();
        made["metadata"]["labels"]["kueue.x-k8s.io/managed"] = json!("true");
        made["metadata"]["finalizers"] = json!(["kueue.x-k8s.io/managed"]);
        let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"});
        made["metadata"]["ownerReferences"].as_array_mut().unwrap().insert(0, other);
        (201, made)
    });
    stage.round().await;
    assert_eq!(stage.shop.book.of_pool("prod", "vm").expected, 3);
    assert_eq!(stage.api.count(Method::DELETE, PODS), 0);
}

#[tokio::test]
async fn a_name_that_is_taken_and_an_answer_that_is_lost_are_no_end() {
    let stage = Stage::new(json!({}));
    stage.demand(0, 2);
    stage.api.answer(Method::POST, PODS, |_| status(409, "AlreadyExists"));
    stage.round().await;
    assert_eq!(stage.shop.book.of_pool("prod", "vm").expected, 0, "another name is tried");
    stage.api.answer(Method::POST, PODS, |_| status(504, "Timeout"));
    stage.round().await;
    assert_eq!(stage.shop.book.of_pool("prod", "vm").expected, 2, "they may have been made");
    let busy = Stage::new(json!({}));
    busy.demand(0, 2);
    busy.api.answer(Method::POST, PODS, |_| status(503, "ServiceUnavailable"));
    busy.round().await;
    assert_eq!(busy.shop.book.of_pool("prod", "vm").expected, 2, "so may these");
}

/// One create in a hundred that fails must not move the rest to a dearer pool.
#[tokio::test]
async fn a_try_that_fails_by_the_servers_fault_limits_a_pool_only_when_others_fail_too() {
    // code, pods that may have been made all the same, whether no more are counted on after the first and the third
    let cases = [
        (403, 0, [true, true]),
        (422, 0, [true, true]),
        (429, 0, [false, true]),
        (500, 1, [false, true]),
        (503, 1, [false, true]),
        (504, 1, [false, true]),
    ];
    for (code, unanswered, limited) in cases {
        let stage = Stage::new(json!({}));
        stage.demand(0, 1);
        stage.api.answer(Method::POST, PODS, move |_| status(code, "Failed"));
        let fails = async || {
            stage.round().await;
            let is_limited = stage.shop.fleet.with(&key("vm"), |memory| memory.is_limited(Instant::now()));
            (stage.shop.book.of_pool("prod", "vm").expected, is_limited)
        };
        assert_eq!(fails().await, (unanswered, limited[0]), "{code}");
        for _ in 0..2 {
            // as if the pause were over
            stage.shop.fleet.with(&key("vm"), |memory| memory.refusals.not_before = Some(Instant::now()));
            stage.demand(0, 1 + u32::try_from(stage.shop.book.of_pool("prod", "vm").expected).unwrap());
            fails().await;
        }
        assert_eq!(stage.api.count(Method::POST, PODS), 3, "{code}");
        assert_eq!(fails().await.1, limited[1], "{code}");
        let found = stage.round_with_status().await;
        assert_eq!(condition(&found, "CapacityLimited").1, "PodCreationFailed", "{code}");
        assert_eq!(
            condition(&found, "Starved").1,
            "AllPoolsLimited",
            "{code}: what may have been made is no room"
        );
    }
}

/// Those that were made before a quota was used up start as if nothing had happened.
#[tokio::test]
async fn a_refusal_says_nothing_of_the_pods_that_were_made_before_it() {
    let stage = Stage::new(json!({}));
    stage.demand(0, 100);
    for number in 0..40 {
        stage.tell(&format!("pending-{number}"), json!({}), json!({}));
    }
    stage.api.answer(Method::POST, PODS, |_| status(403, "Forbidden"));
    stage.round().await;
    let found = stage.round_with_status().await;
    // an eighth of the sixty that are missing go on being tried
    assert_eq!((&found["wanted"], &found["starting"]), (&json!(47), &json!(40)));
    assert_eq!(condition(&found, "CapacityLimited").1, "PodCreationFailed");
    assert_eq!(condition(&found, "Starved").0, "False", "there is room for some");
}

/// A pod whose namespace lost the certificates stays `ContainerCreating` until they are there.
#[tokio::test(start_paused = true)]
async fn certificates_that_were_deleted_come_back_while_pods_start() {
    const MAP: &str = "/api/v1/namespaces/prod/configmaps/arborist-ca";
    let stage = Stage::new(json!({"scaling": {"min": 2}}));
    stage.tell("starts", on_node(), json!({"phase": "Pending"}));
    stage.tell("waits", json!({}), json!({}));
    stage.round().await;
    assert!(stage.api.get(MAP).is_some());
    stage.api.delete(MAP);
    let looks = stage.api.count(Method::GET, MAP);
    for (seconds, more) in [(30, 0), (31, 1), (1, 1), (60, 2)] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        stage.round().await;
        assert_eq!(stage.api.count(Method::GET, MAP), looks + more, "not at each visit");
        assert_eq!(stage.api.get(MAP).is_some(), more > 0);
    }
    assert_eq!(stage.api.count(Method::PATCH, MAP), 2);
}

#[tokio::test]
async fn requests_that_reach_nobody_make_nothing() {
    let stage = Stage::new(json!({}));
    stage.demand(0, 2);
    stage.plan();
    stage.api.set(Mood::Down);
    reconcile(&stage.pool, &stage.shop).await.unwrap_err();
    stage.settle().await;
    assert_eq!(stage.shop.book.of_pool("prod", "vm").expected, 0, "the certificates were not published");
    stage.api.set(Mood::Well);
    stage.shop.fleet.with(&key("vm"), |memory| memory.refusals.clear());
    stage.round().await;
    assert_eq!(stage.made().len(), 2);
}

/// The kubelet's news is slower than a worker's login.
#[tokio::test]
async fn a_pod_whose_worker_has_just_logged_in_is_not_deleted_unasked() {
    let mut stage = Stage::new(json!({"scaling": {"min": 3, "scaleDownDelay": "0s"}}));
    for name in ["pending", "proves", "waits"] {
        stage.tell(name, on_node(), json!({"phase": "Pending"}));
    }
    stage.pool = pool("vm", json!({"template": {"image": "new"}}));
    stage.pool.metadata.generation = Some(2);
    stage.plan();
    let workers = [worker("proves", WorkerState::Live, 1, None), worker("waits", WorkerState::Live, 0, None)];
    stage.force.lock().workers.extend(workers);
    stage.visit().await;
    assert_eq!(stage.there(&["pending", "proves", "waits"]), ["proves"]);
    assert_eq!(stage.force.lock().told, ["drained prod/waits"]);
}

/// What the engine keeps of a worker that it drained ends with its pod, also when that was faster.
#[tokio::test]
async fn a_pod_that_went_while_its_worker_was_drained_is_told_dead() {
    let stage = Stage::new(json!({}));
    for name in ["stays", "went", "anew"] {
        stage.tell_worker(name, 0);
    }
    let find = |name: &str| stage.shop.book.find("prod", name).unwrap();
    let retire = ["stays", "went", "anew"].map(find).to_vec();
    stage.shop.book.tell_gone("prod/went");
    let mut anew = stage.api.get(&format!("{PODS}/anew")).unwrap();
    anew["metadata"]["uid"] = json!("another");
    stage.shop.book.tell_of(anew);
    let prepared = stage.shop.fleet.prepare(&key("vm"), &stage.pool, &stage.shop.settings);
    let built = Built { create: vec![], stop_creating: false, delete: vec![], retire };
    let applied = apply::run(&stage.shop, &key("vm"), &prepared, built);
    stage.settle().await;
    assert_eq!(applied.deleted, 1);
    assert_eq!(stage.there(&["stays", "anew"]), ["anew"]);
    let mut told = stage.force.lock().told.clone();
    told.sort();
    assert_eq!(
        told,
        ["dead prod/anew", "dead prod/went", "drained prod/anew", "drained prod/stays", "drained prod/went"]
    );
}

#[tokio::test]
async fn no_worker_is_drained_while_its_pod_can_not_be_deleted() {
    let stage = Stage::new(json!({}));
    for name in ["idle", "idle-too"] {
        stage.tell_worker(name, 0);
    }
    stage.shop.gate.close();
    stage.round().await;
    assert_eq!(stage.force.lock().told, [""; 0], "this operator may not write");
    assert_eq!(stage.requests_but_of_status(), 0);
}

#[tokio::test]
async fn a_deletion_that_fails_ends_the_draining_until_one_succeeds() {
    let stage = Stage::new(json!({}));
    stage.tell_worker("idle", 0);
    stage.plan();
    stage.api.answer(Method::DELETE, &format!("{PODS}/idle"), |_| status(500, "InternalError"));
    reconcile(&stage.pool, &stage.shop).await.unwrap();
    let failed = || stage.shop.fleet.with(&key("vm"), |memory| memory.delete_failed);
    until("the deletion has failed", failed).await;
    stage.tell_worker("idle-too", 0);
    stage.plan();
    reconcile(&stage.pool, &stage.shop).await.unwrap();
    assert_eq!(stage.force.lock().told, ["drained prod/idle"]);
    stage.settle().await;
    stage.api.answer(Method::DELETE, &format!("{PODS}/idle"), |_| {
        (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    });
    stage.round().await;
    assert!(!failed());
    stage.round().await;
    assert_eq!(stage.there(&["idle-too"]).len(), 0);
}

#[tokio::test]
async fn a_status_that_somebody_changed_is_mended() {
    let mut stage = Stage::new(json!({}));
    stage.demand(0, 1);
    stage.round().await;
    let before = stage.pool.clone();
    stage.hear_of_the_pool();
    let settled = stage.round_with_status().await;
    let writes = stage.api.count(Method::PATCH, STATUS);
    // the watch lags: what was written counts
    (stage.pool.metadata.resource_version, stage.pool.status) = (Some("0".into()), before.status);
    stage.round_with_status().await;
    assert_eq!(stage.api.count(Method::PATCH, STATUS), writes);
    let mut edited = stage.api.get(STATUS).unwrap();
    edited["status"]["wanted"] = json!(77);
    let foreign = json!({"type": "Audited", "status": "True", "reason": "ByHand", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    edited["status"]["conditions"].as_array_mut().unwrap().insert(0, foreign);
    stage.api.put(STATUS, edited);
    stage.hear_of_the_pool();
    assert_eq!(stage.round_with_status().await["wanted"], settled["wanted"]);
    assert_eq!(stage.api.count(Method::PATCH, STATUS), writes + 1);
    // another's condition is no reason to write
    let mut audited = stage.api.get(STATUS).unwrap();
    audited["status"]["conditions"].as_array_mut().unwrap().reverse();
    stage.api.put(STATUS, audited);
    stage.hear_of_the_pool();
    stage.round_with_status().await;
    assert_eq!(stage.api.count(Method::PATCH, STATUS), writes + 1);
}

#[tokio::test]
async fn a_status_is_that_of_the_pool_it_was_made_for() {
    let stage = Stage::new(json!({}));
    let uids: Arc<Mutex<Vec<Value>>> = Arc::default();
    let log = uids.clone();
    stage.api.answer(Method::PATCH, STATUS, move |body| {
        log.lock().unwrap().push(body["metadata"]["uid"].clone());
        status(409, "Conflict")
    });
    stage.plan();
    reconcile(&stage.pool, &stage.shop).await.unwrap_err();
    assert_eq!(*uids.lock().unwrap(), ["uid-of-vm"]);
    assert!(stage.shop.fleet.with(&key("vm"), |memory| memory.written.is_none()));
}
