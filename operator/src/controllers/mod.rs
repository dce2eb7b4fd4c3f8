//! Controllers: they bring the cluster to what ProverPools and ProvingJobs say.
//!
//! Each is a folder of five steps, run in this order by its `mod.rs`: `dereference` (reads), `validate` (raw spec to
//! checked types), `build` (pure: what is to be), `apply` (writes), `update_status` (one write, then events).
//! Decisions are pure functions; only the first, fourth and fifth step see the client.

pub mod proverpool;
pub mod provingjob;

use crate::dispatch::Dispatcher;
use crate::kubernetes::{Metrics, Trust};
use crate::tenants::Tenants;
use arborist_core::profile::Profile;
use arborist_system::watchdog::Watchdog;
use ed25519_dalek::SigningKey;
use kube::runtime::events::Recorder;
use kube::{Api, Client, Resource};
use std::sync::Arc;
use std::time::Duration;

/// The Kubernetes objects that this operator serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All namespaces.
    Cluster,
    /// One namespace; an operator of several runs its controllers once for each.
    Namespace(String),
}

impl Scope {
    /// The API of a namespaced kind in this scope.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// How the operator was installed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's own namespace: Lease, certificates, keys.
    pub namespace: String,
    /// What it serves.
    pub scopes: Vec<Scope>,
    /// The Service that workers connect to.
    pub service: String,
    /// The port of the dispatcher.
    pub dispatch_port: u16,
    /// The worker's image when a pool names none.
    pub worker_image: String,
    /// The image's pull policy when a pool names none.
    pub worker_image_pull_policy: Option<String>,
    /// Secrets to pull images with.
    pub worker_image_pull_secrets: Vec<String>,
    /// A Secret in the pools' namespaces whose keys become environment of the workers: a bucket's credentials.
    pub store_credentials_secret: Option<String>,
    /// The backend of all workers: `plonky2`, `process` or `fake`.
    pub backend: String,
    /// Circuits, and what a proof needs.
    pub profile: Profile,
    /// Blocks are fetched from, and reports sent to, loopback and link-local addresses too. Whoever may write a
    /// ProvingJob names those addresses: on a cluster the node's metadata service must stay out of reach.
    pub allow_local_addresses: bool,
    /// What each namespace may have, and whose pools may prove whose jobs.
    pub tenants: Arc<Tenants>,
}

impl Settings {
    /// Where workers connect, `HOST:PORT`.
    pub fn dispatch_address(&self) -> String {
        format!("{}:{}", self.service_host(), self.dispatch_port)
    }

    /// The Service's name as pods of other namespaces resolve it.
    pub fn service_host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

/// What all reconcilers share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The engine's shell.
    pub dispatcher: Dispatcher,
    /// How the operator was installed.
    pub settings: Settings,
    /// Events go out through this one.
    pub recorder: Recorder,
    /// Signs reports of completion.
    pub report_key: Arc<SigningKey>,
    /// The certificates that workers trust: a namespace needs them before its first pod.
    pub trust: Arc<Trust>,
    /// Reconciles, pods, pools and jobs are counted here.
    pub metrics: Arc<Metrics>,
    /// Visits that don't end are noticed here.
    pub watchdog: Watchdog,
    /// What the ProvingJobs' controllers of all scopes share.
    pub jobs: provingjob::Memory,
}

impl Context {
    /// A context with empty memory.
    pub fn new(
        client: Client,
        dispatcher: Dispatcher,
        settings: Settings,
        recorder: Recorder,
        report_key: Arc<SigningKey>,
        trust: Arc<Trust>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (jobs, watchdog) = (provingjob::Memory::default(), Watchdog::default());
        Self { client, dispatcher, settings, recorder, report_key, trust, metrics, watchdog, jobs }
    }
}

/// A visit of an object that takes longer is stuck: all that it asks for is bounded by less.
const VISIT: Duration = Duration::from_secs(15 * 60);

/// How a reconcile ended, when nothing went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is as it should be; look again after so long, or when something changes.
    Applied(Option<Duration>),
    /// It waits for something; look again after so long.
    Waiting {
        /// One of [`crate::api::conditions::reason`].
        reason: &'static str,
        /// When to look again.
        again: Duration,
    },
    /// There is nothing to do, ever, unless the object is edited.
    Settled,
}
