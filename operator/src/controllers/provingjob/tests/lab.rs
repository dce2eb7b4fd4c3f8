//! A dispatcher with a store in memory, a fake API server, and a controller that is visited by hand.

use super::fake_api::FakeApi;
use crate::api::conditions::{Status, reason};
use crate::api::{ProvingJob, ProvingJobStatus};
use crate::controllers::provingjob::fixtures::spec;
use crate::controllers::provingjob::{Clock, Controller, Guarded, visit};
use crate::controllers::{Context, Outcome, Scope, Settings};
use crate::dispatch::{Dispatcher, FakeRoots, Options, Quota, StaticToken};
use crate::egress::Reach;
use crate::kubernetes::{Metrics, Trust};
use crate::report::HttpReporter;
use arborist_artifacts::{ArtifactStore, StoreOptions};
use arborist_circuits::prover_word;
use arborist_core::engine::{JobId, JobSpec, JobState, PreparedJob, Source};
use arborist_core::fake_proof;
use arborist_core::ids::TaskId;
use arborist_core::profile::Profile;
use arborist_core::proof_object::{Maker, ProofObject};
use arborist_core::tree::Leaves;
use ed25519_dalek::SigningKey;
use futures::channel::mpsc;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::core::DeserializeGuard;
use kube::runtime::events::{Recorder, Reporter as Source_};
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Nothing takes longer than this unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Lab {
    pub api: FakeApi,
    pub dispatcher: Dispatcher,
    pub store: ArtifactStore,
    pub me: Arc<Controller>,
    pub client: Client,
    pub start: Timestamp,
    /// Seconds since the start.
    elapsed: Arc<AtomicI64>,
    backend: &'static str,
    _state: TempDir,
}

impl Lab {
    pub async fn new() -> Self {
        Self::of("fake").await
    }

    pub async fn of(backend: &'static str) -> Self {
        Self::tuned(backend, |_| {}).await
    }

    /// Whose namespaces may have so much each.
    pub async fn with_quota(quota: Quota) -> Self {
        Self::tuned("fake", |options| options.quotas.each = quota).await
    }

    async fn tuned(backend: &'static str, tune: impl FnOnce(&mut Options)) -> Self {
        let (api, client) = FakeApi::start();
        let state = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open("memory:///", &StoreOptions::default()).unwrap();
        let login = Arc::new(StaticToken::new("a token of the tests"));
        let mut options = Options::new(state.path().to_owned(), Profile::rfp(), login);
        options.engine.profile.backend = backend.into();
        options.roots = Arc::new(FakeRoots);
        options.store_url = "memory:///".into();
        tune(&mut options);
        let dispatcher = Dispatcher::start(options, store.clone()).await.unwrap();
        let start = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
        let elapsed = Arc::new(AtomicI64::new(0));
        let me = controller(&dispatcher, &client, backend, clock(start, &elapsed));
        Self { api, dispatcher, store, me, client, start, elapsed, backend, _state: state }
    }

    /// The operator died and is back, with its books and without its memory.
    pub fn restart(&mut self) {
        let clock = clock(self.start, &self.elapsed);
        self.me = controller(&self.dispatcher, &self.client, self.backend, clock);
    }

    /// A job as a user applies it: `more` than the least spec.
    pub fn apply(&self, name: &str, more: Value) {
        let object = json!({
            "apiVersion": "arborist.dev/v1alpha1", "kind": "ProvingJob",
            "metadata": {
                "name": name, "namespace": "rollup", "uid": format!("uid-of-{name}"), "generation": 1,
                "creationTimestamp": self.start.to_string(),
            },
            "spec": spec(more),
        });
        self.api.put("provingjobs", object);
    }

    /// An edit of its spec.
    pub fn edit(&self, name: &str, field: &str, value: Value) {
        let mut object = self.api.get(&format!("provingjobs/{name}")).unwrap();
        object["spec"][field] = value;
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
        self.api.put("provingjobs", object);
    }

    pub fn job(&self, name: &str) -> ProvingJob {
        serde_json::from_value(self.api.get(&format!("provingjobs/{name}")).unwrap()).unwrap()
    }

    pub fn status(&self, name: &str) -> ProvingJobStatus {
        self.job(name).status.unwrap_or_default()
    }

    /// A condition as "True Reason".
    pub fn condition(&self, name: &str, type_: &str) -> String {
        let status = self.status(name);
        let found = status.conditions.iter().find(|c| c.type_ == type_);
        found.map_or("none".into(), |c| {
            let value = match c.status {
                Status::True => "True",
                Status::False => "False",
                Status::Unknown => "Unknown",
            };
            format!("{value} {}", c.reason)
        })
    }

    pub fn message(&self, name: &str, type_: &str) -> String {
        let status = self.status(name);
        status.conditions.into_iter().find(|c| c.type_ == type_).unwrap().message
    }

    /// A visit so many seconds after the start, and the end of the work that it began.
    pub async fn visit(&self, name: &str, after: i64) -> Outcome {
        self.visit_as(name, self.job(name), after).await
    }

    /// A visit of the job as a watch that may be behind has it.
    pub async fn visit_as(&self, name: &str, seen: ProvingJob, after: i64) -> Outcome {
        let outcome = self.look_at(seen, after).await;
        self.until_idle(name).await;
        outcome
    }

    /// A visit alone: what it began goes on.
    pub async fn look_at(&self, seen: ProvingJob, after: i64) -> Outcome {
        self.at(after);
        let now = (self.me.clock)();
        let visit = visit(&self.me, Arc::new(seen), now);
        tokio::time::timeout(PATIENCE, visit).await.expect("the visit ends").unwrap()
    }

    /// Sets the clock to so many seconds after the start.
    pub fn at(&self, after: i64) {
        self.elapsed.store(after, Ordering::SeqCst);
    }

    /// Waits for the end of the work that a visit began.
    pub async fn until_idle(&self, name: &str) {
        let uid = self.job_uid(name);
        until("the work beside the visits ends", || {
            (!self.me.ctx.jobs.known(&uid, &[]).working).then_some(())
        })
        .await;
    }

    fn job_uid(&self, name: &str) -> String {
        format!("uid-of-{name}")
    }

    /// Visits until nothing is asked of the API server any more.
    pub async fn settle(&self, name: &str, after: i64) -> Vec<String> {
        let mut log = vec![];
        for _ in 0..12 {
            let version = self
                .api
                .get(&format!("provingjobs/{name}"))
                .map(|o| o["metadata"]["resourceVersion"].clone());
            if version.is_none() {
                return log;
            }
            self.visit(name, after).await;
            let new = self.api.take_log();
            if new.is_empty() {
                return log;
            }
            log.extend(new);
        }
        panic!("it never settles: {log:#?}");
    }

    /// What the API server is asked in a visit that has nothing to do: nothing.
    pub async fn assert_silence(&self, name: &str, after: i64) {
        self.api.take_log();
        self.visit(name, after).await;
        assert_eq!(self.api.take_log(), Vec::<String>::new());
    }

    /// The tree that the least spec's synthetic block makes.
    pub fn tree(&self) -> PreparedJob {
        let spec = JobSpec {
            id: JobId(0),
            name: "t".into(),
            namespace: "rollup".into(),
            source: Source::Synthetic { calls: vec![2, 2], seed: 7 },
            chain_id: 5,
            block_number: 9,
            prover_id: prover_word("alice").0,
            deadline: None,
            priority: 0,
            suspended: false,
        };
        let profile = Profile { backend: self.backend.into(), ..Profile::rfp() };
        PreparedJob::new(spec, &[2, 2], Leaves::Synthetic { seed: 7 }, &profile).unwrap()
    }

    /// Puts all proofs of the least spec's tree into the store: once it is submitted, it is proven.
    pub async fn prove_all(&self) -> TaskId {
        let tree = self.tree();
        let maker = Maker {
            worker: "rollup-1".into(),
            node: "n".into(),
            finished_unix_ms: 1,
            millis: 10,
            cpu_millis: 2_000,
        };
        for node in tree.shape.nodes() {
            let (task, circuit) = (tree.ids[node.index()], tree.shape.circuit(node));
            let proof = fake_proof::prove(circuit, &[], &[], &[], 500);
            let sealed = ProofObject::seal(task, circuit, &proof, &maker, &SigningKey::from_bytes(&[9; 32]));
            self.store.create_proof(&task, sealed.into()).await.unwrap();
        }
        tree.ids[tree.shape.root().index()]
    }

    /// Waits until the only tree in the books is in this state.
    pub async fn until_state(&self, wanted: JobState) -> JobId {
        until("the tree's state", || {
            let job = self.dispatcher.jobs().into_iter().next()?;
            (std::mem::discriminant(&job.state) == std::mem::discriminant(&wanted)).then_some(job.spec.id)
        })
        .await
    }

    /// Makes all jobs of the API server known as the watch would.
    pub fn list(&self) {
        let (reader, mut writer) = reflector::store::<Guarded>();
        writer.apply_watcher_event(&Event::Init);
        for (key, object) in &self.api.state().objects {
            if key.starts_with("provingjobs/") {
                let job = serde_json::from_value(object.clone()).unwrap();
                writer.apply_watcher_event(&Event::InitApply(DeserializeGuard(Ok(job))));
            }
        }
        writer.apply_watcher_event(&Event::InitDone);
        self.me.ctx.jobs.add_scope(Scope::Cluster, reader);
        // a store without its writer is still read
        drop(writer);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.me.stop.cancel();
    }
}

pub fn settings(backend: &str) -> Settings {
    Settings {
        namespace: "arborist".into(),
        scopes: vec![Scope::Cluster],
        service: "arborist".into(),
        dispatch_port: 7700,
        worker_image: "worker".into(),
        worker_image_pull_policy: None,
        worker_image_pull_secrets: vec![],
        store_credentials_secret: None,
        backend: backend.into(),
        profile: Profile::rfp(),
        allow_local_addresses: true,
        tenants: Default::default(),
    }
}

pub fn context(dispatcher: &Dispatcher, client: &Client, backend: &str) -> Arc<Context> {
    let reporter = Source_ { controller: "arborist".into(), instance: Some("test".into()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let key = Arc::new(SigningKey::from_bytes(&[7; 32]));
    let trust = Arc::new(Trust::new(client.clone(), "a certificate".into()));
    let metrics = Arc::new(Metrics::new().unwrap());
    Arc::new(Context::new(
        client.clone(),
        dispatcher.clone(),
        settings(backend),
        recorder,
        key,
        trust,
        metrics,
    ))
}

fn clock(start: Timestamp, elapsed: &Arc<AtomicI64>) -> Clock {
    let elapsed = elapsed.clone();
    Box::new(move || start + SignedDuration::from_secs(elapsed.load(Ordering::SeqCst)))
}

fn controller(dispatcher: &Dispatcher, client: &Client, backend: &str, clock: Clock) -> Arc<Controller> {
    let (trigger, _) = mpsc::unbounded();
    Arc::new(Controller {
        ctx: context(dispatcher, client, backend),
        reporter: Arc::new(HttpReporter::new(Reach::Everything)),
        trigger,
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        clock,
    })
}

/// Waits for a state, not for a time.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What a wait looks like from outside.
pub fn is_waiting(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Waiting { reason, .. } if *reason == reason::PENDING)
}
