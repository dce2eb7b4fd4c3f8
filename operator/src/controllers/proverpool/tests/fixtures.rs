//! Pools, pods and workers for tests, and an engine that says what it is told to.

use crate::api::ProverPool;
use crate::controllers::proverpool::census::Moment;
use crate::controllers::proverpool::pod::Template;
use crate::controllers::proverpool::validate::{self, PoolKey, ValidPool};
use crate::controllers::proverpool::workforce::Workforce;
use crate::controllers::{Scope, Settings};
use crate::kubernetes::pods::{PodBook, PodRecord};
use arborist_core::circuit::Kind;
use arborist_core::engine::{Demand, Millis, WorkerBrief, WorkerState};
use arborist_core::profile::{Needs, Profile};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub const VM: Needs = Needs { cores: 32, memory_mib: 64 << 10 };
pub const SMALL: Needs = Needs { cores: 8, memory_mib: 16 << 10 };

pub fn settings() -> Settings {
    Settings {
        namespace: "arborist-system".into(),
        scopes: vec![Scope::Cluster],
        service: "arborist".into(),
        dispatch_port: 7700,
        worker_image: "registry.example/arborist-worker:1.2.3".into(),
        worker_image_pull_policy: None,
        worker_image_pull_secrets: vec![],
        store_credentials_secret: None,
        backend: "plonky2".into(),
        profile: Profile::rfp(),
        allow_local_addresses: false,
        tenants: Default::default(),
    }
}

/// A pool of machines for `vm` proofs in namespace `prod`, with changes to its spec.
pub fn pool(name: &str, spec: Value) -> ProverPool {
    let mut value = json!({
        "apiVersion": "arborist.dev/v1alpha1",
        "kind": "ProverPool",
        "metadata": {"name": name, "namespace": "prod", "uid": format!("uid-of-{name}"), "generation": 1},
        "spec": {
            "circuits": ["vm"],
            "template": {
                "resources": {"cpu": "32", "memory": "64Gi"},
                "nodeSelector": {"arborist.dev/worker-class": "vm"},
            },
        },
    });
    merge(&mut value["spec"], spec);
    serde_json::from_value(value).unwrap()
}

fn merge(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                merge(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new,
    }
}

pub fn key(name: &str) -> PoolKey {
    PoolKey { namespace: "prod".into(), name: name.into() }
}

pub fn valid(pool: &ProverPool) -> ValidPool {
    validate::run(pool, &settings()).unwrap()
}

/// The hash that pods of this pool have now.
pub fn template_of(pool: &ProverPool) -> String {
    Template::new(&valid(pool), &settings()).hash
}

/// A pod as the API server tells of it.
pub fn pod(pool: &str, name: &str, template: &str, spec: Value, status: Value) -> Value {
    let mut metadata = json!({
        "name": name, "namespace": "prod", "uid": format!("uid-of-{name}"),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"arborist.dev/pool": pool, "arborist.dev/template": template},
        "ownerReferences": [{
            "apiVersion": "arborist.dev/v1alpha1", "kind": "ProverPool", "name": pool,
            "uid": format!("uid-of-{pool}"), "controller": true,
        }],
    });
    if spec["deleting"] == json!(true) {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
    }
    json!({"metadata": metadata, "spec": spec, "status": status})
}

pub fn waiting(reason: &str, image: &str, message: &str) -> Value {
    let state = json!({"waiting": {"reason": reason, "message": message}});
    json!({"phase": "Pending", "containerStatuses": [{"image": image, "state": state}]})
}

pub fn unschedulable(message: &str) -> Value {
    let condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    json!({"phase": "Pending", "conditions": [condition]})
}

pub fn running() -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"ready": true}]})
}

/// Running, with a sidecar that is not ready yet.
pub fn with_slow_sidecar() -> Value {
    let condition = json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady"});
    json!({"phase": "Running", "conditions": [condition], "containerStatuses": [{"ready": true}]})
}

/// Running when its node was last heard.
pub fn unheard() -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [{"ready": true}]})
}

/// Evicted after its worker had run.
pub fn evicted() -> Value {
    let ended = json!({"exitCode": 137, "startedAt": "2026-01-01T00:00:05Z"});
    json!({"phase": "Failed", "reason": "Evicted", "containerStatuses": [{"state": {"terminated": ended}}]})
}

/// Refused by its node's kubelet.
pub fn refused(message: &str) -> Value {
    json!({"phase": "Failed", "reason": "OutOfcpu", "message": format!("Pod was rejected: {message}")})
}

pub fn on_node() -> Value {
    json!({"nodeName": "node-1"})
}

/// A record of a pool `vm`'s pod.
pub fn record(name: &str, template: &str, spec: Value, status: Value) -> Arc<PodRecord> {
    let book = PodBook::default();
    book.tell_of(pod("vm", name, template, spec, status));
    book.find("prod", name).unwrap()
}

/// The time of these tests, and later.
pub fn at(seconds: u64) -> Moment {
    thread_local! {
        static START: Instant = Instant::now();
    }
    let instant = START.with(|start| *start) + Duration::from_secs(seconds);
    // 2026-01-01
    let millis = (1_767_225_600 + seconds) * 1000;
    // the engine's clock need not be the machine's
    Moment { instant, millis, engine: millis + 7_000 }
}

/// A worker of a pod.
pub fn worker(pod: &str, state: WorkerState, leases: u32, idle_since: Option<Moment>) -> WorkerBrief {
    WorkerBrief {
        name: format!("prod/{pod}"),
        node: "node-1".into(),
        capacity: VM,
        state,
        leases,
        idle_since: idle_since.map(|moment| moment.engine),
    }
}

pub fn demand(kind: Kind, needs: Needs, running: u32, ready: u32) -> Demand {
    Demand { namespace: "prod".into(), kind, needs, running, ready, soon: 0 }
}

/// An engine that says what it is told to.
#[derive(Default)]
pub struct FakeForce(Mutex<Force>);

#[derive(Default)]
pub struct Force {
    pub demand: Vec<Demand>,
    pub workers: Vec<WorkerBrief>,
    /// What it was told.
    pub told: Vec<String>,
}

impl FakeForce {
    pub fn lock(&self) -> MutexGuard<'_, Force> {
        self.0.lock().unwrap()
    }
}

impl Workforce for FakeForce {
    fn now(&self) -> Millis {
        u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
    }

    fn demand(&self, _within: Duration) -> Vec<Demand> {
        self.lock().demand.clone()
    }

    fn workers(&self) -> Vec<WorkerBrief> {
        self.lock().workers.clone()
    }

    fn drain_idle(&self, workers: &[String]) -> Vec<String> {
        let mut force = self.lock();
        let mut drained = vec![];
        for worker in &mut force.workers {
            if workers.contains(&worker.name) && worker.leases == 0 {
                worker.state = WorkerState::Draining;
                drained.push(worker.name.clone());
            }
        }
        force.told.extend(drained.iter().map(|worker| format!("drained {worker}")));
        drained
    }

    fn drain(&self, worker: &str) {
        self.lock().told.push(format!("drain {worker}"));
    }

    fn log_in_anew(&self, worker: &str) {
        self.lock().told.push(format!("log in anew {worker}"));
    }

    fn dead(&self, worker: &str) {
        self.lock().told.push(format!("dead {worker}"));
    }

    fn out_of_memory(&self, worker: &str, incident: &str) {
        self.lock().told.push(format!("out of memory {worker} {incident}"));
    }
}
