//! Whole visits against an API server that stores what it is given: plan, steps, status.

use super::fixtures::*;
use crate::api::ProverPool;
use crate::controllers::Outcome;
use crate::controllers::proverpool::census::Moment;
use crate::controllers::proverpool::fleet::{Fleet, Pass};
use crate::controllers::proverpool::{Shop, reconcile, serve};
use crate::kubernetes::pods::PodBook;
use crate::kubernetes::testing::FakeApi;
use crate::kubernetes::{Gate, Trust};
use arborist_core::circuit::Kind;
use arborist_core::engine::WorkerState;
use http::Method;
use kube::runtime::events::{Recorder, Reporter};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) const PODS: &str = "/api/v1/namespaces/prod/pods";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/prod/events";
pub(super) const STATUS: &str = "/apis/arborist.dev/v1alpha1/namespaces/prod/proverpools/vm/status";

/// One pool, the API server and the engine.
pub(super) struct Stage {
    pub(super) api: FakeApi,
    pub(super) force: Arc<FakeForce>,
    pub(super) shop: Arc<Shop>,
    pub(super) pool: ProverPool,
    /// Pods that were made.
    made: Arc<Mutex<Vec<Value>>>,
}

impl Stage {
    pub(super) fn new(spec: Value) -> Self {
        let (api, force) = (FakeApi::default(), Arc::new(FakeForce::default()));
        let made: Arc<Mutex<Vec<Value>>> = Arc::default();
        let log = made.clone();
        api.answer(Method::POST, PODS, move |body| {
            log.lock().unwrap().push(body.clone());
            (201, body.clone())
        });
        let client = api.client();
        let reporter = Reporter { controller: "arborist".into(), instance: None };
        let shop = Arc::new(Shop {
            client: client.clone(),
            settings: settings(),
            recorder: Recorder::new(client.clone(), reporter),
            trust: Some(Arc::new(Trust::new(client, "certificates".into()))),
            watchdog: Default::default(),
            metrics: None,
            workforce: force.clone(),
            gate: open_gate(),
            book: PodBook::default(),
            fleet: Fleet::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let pool = pool("vm", spec);
        api.put(STATUS, serde_json::to_value(&pool).unwrap());
        Self { api, force, shop, pool, made }
    }

    pub(super) fn plan(&self) -> Pass {
        let pools = vec![(key("vm"), Arc::new(self.pool.clone()))];
        self.shop.fleet.plan(
            &pools,
            &*self.force,
            &self.shop.book,
            &self.shop.settings,
            Moment::now(&*self.force),
        )
    }

    /// A visit, and all that it sets going.
    pub(super) async fn visit(&self) -> Outcome {
        let outcome = reconcile(&self.pool, &self.shop).await.unwrap();
        self.settle().await;
        outcome
    }

    pub(super) async fn settle(&self) {
        self.shop.tasks.close();
        self.shop.tasks.wait().await;
        self.shop.tasks.reopen();
    }

    pub(super) async fn round(&self) -> Outcome {
        self.plan();
        self.visit().await
    }

    /// A visit whose status is written however short ago the last one was.
    pub(super) async fn round_with_status(&self) -> Value {
        self.shop.fleet.with(&key("vm"), |memory| {
            let earlier = Instant::now().checked_sub(Duration::from_secs(60));
            if let (Some(written), Some(earlier)) = (&mut memory.written, earlier) {
                written.when = earlier;
            }
        });
        self.round().await;
        self.api.get(STATUS).unwrap()["status"].clone()
    }

    pub(super) fn demand(&self, running: u32, ready: u32) {
        self.force.lock().demand = vec![demand(Kind::Vm, VM, running, ready)];
    }

    pub(super) fn made(&self) -> Vec<String> {
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.made.lock().unwrap().iter().map(name).collect()
    }

    /// The watch tells of a pod that has the pool's present template.
    pub(super) fn tell(&self, name: &str, spec: Value, status: Value) {
        let pod = pod("vm", name, &template_of(&self.pool), spec, status);
        self.api.put(&format!("{PODS}/{name}"), pod.clone());
        self.shop.book.tell_of(pod);
    }

    /// A pod whose worker is logged in; idle for long when it has no lease.
    pub(super) fn tell_worker(&self, name: &str, leases: u32) {
        self.tell(name, on_node(), running());
        let idle_since = (leases == 0).then(|| at(0));
        self.force.lock().workers.push(worker(name, WorkerState::Live, leases, idle_since));
    }

    /// Names of the pods there are.
    pub(super) fn there(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| self.api.get(&format!("{PODS}/{name}")).is_some()).collect()
    }

    /// As the watch would tell of it.
    pub(super) fn hear_of_the_pool(&mut self) {
        self.pool = serde_json::from_value(self.api.get(STATUS).unwrap()).unwrap();
    }

    pub(super) fn requests_but_of_status(&self) -> usize {
        self.requests() - self.api.count(Method::PATCH, STATUS) - self.api.count(Method::POST, EVENTS)
    }

    fn requests(&self) -> usize {
        let methods = [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE];
        methods.into_iter().map(|method| self.api.count(method, "/")).sum()
    }
}

fn open_gate() -> Gate {
    let gate = Gate::default();
    gate.open_until(tokio::time::Instant::now() + Duration::from_secs(86400));
    gate
}

pub(super) fn condition<'a>(status: &'a Value, type_: &str) -> (&'a str, &'a str, &'a str) {
    let all = status["conditions"].as_array().unwrap();
    let found = all.iter().find(|condition| condition["type"] == type_).unwrap();
    let text = |field: &str| found[field].as_str().unwrap();
    (text("status"), text("reason"), text("message"))
}

#[tokio::test]
async fn work_makes_pods_from_nothing() {
    let stage = Stage::new(json!({}));
    stage.demand(0, 3);
    assert_eq!(stage.round().await, Outcome::Applied(None));
    assert_eq!(stage.made().len(), 3);
    assert!(stage.api.get("/api/v1/namespaces/prod/configmaps/arborist-ca").is_some());
    let status = &stage.api.get(STATUS).unwrap()["status"];
    assert_eq!(
        (&status["wanted"], &status["starting"], &status["observedGeneration"]),
        (&json!(3), &json!(3), &json!(1))
    );
    assert_eq!(status["wantedBecause"], "3: 3 vm proofs run, are ready or soon will be; 1 fits a pod");
    assert_eq!(condition(status, "Scaling").1, "ScalingUp");
    assert_eq!(stage.api.count(Method::POST, EVENTS), 1);
}

#[tokio::test]
async fn a_watch_that_lags_makes_no_pod_twice() {
    let stage = Stage::new(json!({}));
    stage.demand(0, 3);
    for _ in 0..3 {
        stage.round().await;
    }
    let made = stage.made();
    assert_eq!(made.len(), 3);
    // it tells of one of them, then of another that is gone at once
    stage.tell(&made[0], json!({}), json!({}));
    stage.round().await;
    assert_eq!(stage.made().len(), 3);
    stage.tell(&made[1], json!({}), json!({}));
    stage.shop.book.tell_gone(&format!("prod/{}", made[1]));
    stage.round().await;
    assert_eq!(stage.made().len(), 4);
}

#[tokio::test]
async fn without_a_plan_for_the_present_spec_nothing_is_done() {
    let mut stage = Stage::new(json!({}));
    stage.demand(0, 3);
    assert!(matches!(stage.visit().await, Outcome::Waiting { .. }));
    stage.plan();
    stage.pool.metadata.generation = Some(2);
    assert!(matches!(stage.visit().await, Outcome::Waiting { .. }));
    assert_eq!(stage.requests(), 0);
}

#[tokio::test]
async fn only_drained_pods_are_deleted() {
    let stage = Stage::new(json!({}));
    for (name, leases) in [("busy", 2), ("idle", 0), ("takes-work", 0)] {
        stage.tell_worker(name, leases);
    }
    let told: Arc<Mutex<Vec<Value>>> = Arc::default();
    let log = told.clone();
    stage.api.answer(Method::DELETE, &format!("{PODS}/idle"), move |body| {
        log.lock().unwrap().push(body.clone());
        (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    });
    stage.plan();
    // between the plan and the visit a lease went out
    stage.force.lock().workers[2].leases = 1;
    stage.visit().await;
    assert_eq!(stage.force.lock().told, ["drained prod/idle"]);
    assert_eq!(told.lock().unwrap()[0]["preconditions"]["uid"], "uid-of-idle");
    assert_eq!(stage.there(&["busy", "takes-work"]), ["busy", "takes-work"]);
    // the watch has not told yet: it is not deleted again
    stage.round().await;
    assert_eq!(told.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn idle_pods_stay_for_the_delay() {
    let stage = Stage::new(json!({"scaling": {"scaleDownDelay": "9999999h"}}));
    stage.tell_worker("idle", 0);
    stage.round().await;
    assert_eq!((stage.there(&["idle"]).len(), stage.force.lock().told.len()), (1, 0));
}

#[tokio::test]
async fn a_pod_that_is_over_is_cleared_away_and_made_anew() {
    let stage = Stage::new(json!({"scaling": {"min": 1}}));
    stage.tell("evicted", on_node(), evicted());
    stage.round().await;
    assert_eq!((stage.there(&["evicted"]).len(), stage.made().len()), (0, 1));
}

/// Kueue keeps a pod with a finalizer until it has seen its end.
#[tokio::test]
async fn a_pod_that_is_over_and_held_by_a_finalizer_is_deleted_once() {
    let stage = Stage::new(json!({"scaling": {"min": 1}}));
    stage.tell_worker("works", 1);
    stage.tell("held", on_node(), json!({"phase": "Failed"}));
    stage.round().await;
    let deletions = || stage.api.count(Method::DELETE, PODS);
    assert_eq!(deletions(), 1);
    let deleting = json!({"nodeName": "node-1", "deleting": true});
    stage.tell("held", deleting, json!({"phase": "Failed"}));
    stage.round().await;
    stage.round().await;
    assert_eq!((deletions(), stage.made().len()), (1, 0));
    let pass = stage.plan();
    assert!(pass.settled && pass.visit.is_empty(), "nothing is left to do about it: {pass:?}");
}

#[tokio::test]
async fn a_sidecar_that_gets_ready_late_makes_no_pod_twice() {
    let stage = Stage::new(json!({"scaling": {"max": 4}}));
    stage.demand(0, 3);
    for _ in 0..3 {
        stage.round().await;
        for name in stage.made() {
            stage.tell(&name, on_node(), with_slow_sidecar());
        }
    }
    assert_eq!(stage.made().len(), 3);
}

#[tokio::test]
async fn pods_of_an_older_template_are_drained_first_and_replaced() {
    let mut stage = Stage::new(json!({"scaling": {"min": 2}}));
    stage.tell_worker("busy", 1);
    stage.tell_worker("idle", 0);
    stage.round().await;
    assert_eq!(stage.made().len(), 0);
    stage.pool = pool("vm", json!({"scaling": {"min": 2}, "template": {"image": "new"}}));
    stage.pool.metadata.generation = Some(2);
    stage.round().await;
    assert_eq!(stage.force.lock().told, ["drained prod/idle"]);
    assert_eq!(stage.there(&["busy", "idle"]), ["busy"]);
    stage.shop.book.tell_gone("prod/idle");
    stage.force.lock().workers.pop();
    stage.round().await;
    assert_eq!(stage.made().len(), 1);
    assert_eq!(stage.made.lock().unwrap()[0]["spec"]["containers"][0]["image"], "new");
}

#[tokio::test]
async fn a_fixed_pool_obeys_its_user() {
    let fixed =
        |replicas| json!({"scaling": {"mode": "Fixed", "replicas": replicas, "scaleDownDelay": "0s"}});
    let mut stage = Stage::new(fixed(2));
    stage.round().await;
    assert_eq!(stage.made().len(), 2, "whatever there is to do");
    for name in stage.made() {
        stage.tell(&name, json!({}), json!({}));
    }
    stage.pool = pool("vm", fixed(0));
    stage.pool.metadata.generation = Some(2);
    stage.round().await;
    assert_eq!(stage.api.count(Method::DELETE, PODS), 2);
}

#[tokio::test]
async fn pods_that_find_no_node_wait_on_as_long_as_there_is_work_and_no_more_are_made() {
    let stage = Stage::new(json!({"scaling": {"startupEstimate": "0s", "scaleDownDelay": "0s"}}));
    stage.demand(0, 40);
    stage.round().await;
    for name in stage.made() {
        stage.tell(&name, json!({}), unschedulable("0/3 nodes are available"));
    }
    // the grace is two seconds at least: as if they had waited
    stage.plan();
    stage.shop.fleet.with(&key("vm"), |memory| {
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        memory.absent = Arc::new(memory.absent.keys().map(|worker| (worker.clone(), long_ago)).collect());
    });
    let status = stage.round_with_status().await;
    assert_eq!(stage.api.count(Method::DELETE, PODS), 0, "their nodes may be on the way");
    assert_eq!((&status["wanted"], &status["unschedulable"]), (&json!(40), &json!(40)));
    let (is, reason, message) = condition(&status, "CapacityLimited");
    assert_eq!((is, reason), ("True", "Unschedulable"));
    assert!(message.contains("0/3 nodes are available"), "{message}");
    assert_eq!(condition(&status, "Starved").1, "AllPoolsLimited");
    stage.demand(0, 90);
    stage.round().await;
    assert_eq!(stage.made().len(), 40, "no more than wait already");
    stage.demand(0, 10);
    stage.round().await;
    assert_eq!(stage.api.count(Method::DELETE, PODS), 30, "there is less to do");
}

#[tokio::test]
async fn a_spec_that_can_not_be_built_is_told() {
    let stage = Stage::new(json!({"backend": {"type": "Fake"}}));
    assert_eq!(stage.round().await, Outcome::Applied(None));
    let status = &stage.api.get(STATUS).unwrap()["status"];
    let (is, reason, message) = condition(status, "Ready");
    assert_eq!((is, reason), ("False", "InvalidSpec"));
    assert_eq!(message, "spec.backend.type: fake, but this operator serves backend plonky2");
    assert_eq!((stage.made().len(), stage.api.count(Method::DELETE, PODS)), (0, 0));
}

/// They would cost money until somebody looks.
#[tokio::test]
async fn pods_of_a_spec_that_can_no_longer_be_built_prove_on_and_go_when_idle() {
    let mut stage = Stage::new(json!({"scaling": {"min": 3, "scaleDownDelay": "0s"}}));
    for (name, leases) in [("busy", 1), ("idle", 0)] {
        stage.tell_worker(name, leases);
    }
    stage.tell("pending", json!({}), json!({}));
    stage.demand(1, 9);
    stage.pool =
        pool("vm", json!({"scaling": {"min": 3, "scaleDownDelay": "0s"}, "backend": {"type": "Fake"}}));
    stage.pool.metadata.generation = Some(2);
    let status = stage.round_with_status().await;
    assert_eq!(condition(&status, "Ready").1, "InvalidSpec");
    assert_eq!((&status["wanted"], &status["busy"], &status["replicas"]), (&json!(0), &json!(1), &json!(3)));
    assert_eq!(stage.there(&["busy", "idle", "pending"]), ["busy"]);
    assert_eq!((stage.made().len(), &*stage.force.lock().told), (0, &["drained prod/idle".to_owned()][..]));
    stage.shop.book.tell_gone("prod/idle");
    stage.shop.book.tell_gone("prod/pending");
    stage.force.lock().workers.pop();
    let status = stage.round_with_status().await;
    assert_eq!((&status["replicas"], &status["observedGeneration"]), (&json!(1), &json!(2)), "counted anew");
}

#[tokio::test]
async fn a_status_is_written_when_it_is_news_and_not_too_often() {
    let stage = Stage::new(json!({}));
    stage.demand(0, 1);
    stage.round().await;
    assert_eq!(stage.api.count(Method::PATCH, STATUS), 1);
    stage.demand(0, 2);
    let Outcome::Applied(Some(again)) = stage.round().await else { panic!("there is more to write") };
    assert!(again <= Duration::from_secs(2));
    assert_eq!(stage.api.count(Method::PATCH, STATUS), 1);
    assert_eq!(stage.round_with_status().await["wanted"], 2);
}

#[tokio::test]
async fn silence() {
    let stage = Stage::new(json!({"scaling": {"min": 2}}));
    for name in ["one", "two"] {
        stage.tell_worker(name, 0);
    }
    stage.round().await;
    let first = stage.requests();
    assert!(first > 0);
    for _ in 0..5 {
        stage.round_with_status().await;
    }
    assert_eq!(stage.requests(), first, "nothing changes, so nothing is asked or told");
}

/// Waits until `is`, for ten seconds at most.
pub(super) async fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_whole_controller_makes_pods_for_work_and_tells_of_losses() {
    let stage = Stage::new(json!({}));
    let list = json!({
        "apiVersion": "arborist.dev/v1alpha1", "kind": "ProverPoolList", "metadata": {"resourceVersion": "1"},
        "items": [stage.pool, {"metadata": {"name": "unreadable", "namespace": "staging"}, "spec": 5}],
    });
    stage.api.answer(Method::GET, "/apis/arborist.dev/v1alpha1/proverpools", move |_| (200, list.clone()));
    stage.force.lock().workers.push(worker("of-a-pod-that-is-gone", WorkerState::Disconnected, 1, None));
    let serving = {
        let shop = stage.shop.clone();
        tokio::spawn(async move { serve(&shop).await })
    };
    stage.demand(0, 2);
    until("the pools are known", || stage.api.count(Method::GET, "/apis/arborist.dev") > 0).await;
    assert_eq!(stage.made().len(), 0, "no pod is made before all pods are known");
    stage.shop.book.tell_all();
    until("two pods are made", || stage.made().len() == 2).await;
    assert_eq!(stage.force.lock().told, ["dead prod/of-a-pod-that-is-gone"]);
    let trust = stage.shop.trust.as_ref().unwrap();
    assert_eq!(trust.spread_since(), None, "a namespace without new pods has not heard of this operator");
    trust.spread().await.unwrap();
    assert!(stage.api.get("/api/v1/namespaces/staging/configmaps/arborist-ca").is_some());
    assert!(trust.spread_since().is_some());
    stage.tell_worker("vm-a", 1);
    stage.shop.book.tell_gone("prod/vm-a");
    until("its loss is told", || stage.force.lock().told.contains(&"dead prod/vm-a".to_owned())).await;
    stage.shop.stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
}
