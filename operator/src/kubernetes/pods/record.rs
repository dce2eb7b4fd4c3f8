//! One worker pod, reduced to what decides something.

use super::LABEL_TEMPLATE;
use super::capacity::Resources;
use crate::api::conditions::cut;
use crate::api::{LABEL_POOL, ProverPool};
use arborist_core::profile::Needs;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The container that the worker is in; others are injected by whoever does so in the cluster.
const CONTAINER: &str = "worker";
/// The most bytes kept of a message.
const MAX_TEXT: usize = 160;
/// … and of the scheduler's, which says of every group of nodes why not.
const MAX_SCHEDULER: usize = 300;

/// A worker pod: what decides about it, in a few hundred bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRecord {
    /// `<namespace>/<name>`, as the engine knows its worker.
    worker: Box<str>,
    /// Length of the namespace.
    namespace: u16,
    /// Its uid: a pod made anew under the same name has another.
    pub uid: Box<str>,
    /// Its pool's name.
    pub pool: Box<str>,
    /// The uid of its pool: one made anew under the same name has another.
    pub pool_uid: Box<str>,
    /// What its spec lets the worker use; `None` when that says nothing.
    pub capacity: Option<Needs>,
    /// Its node; `None` before it is scheduled.
    pub node: Option<Box<str>>,
    /// Hash of the template it was made from.
    pub template: Box<str>,
    /// Its phase.
    pub phase: Phase,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// It is being deleted.
    pub deleting: bool,
    /// Its condition Ready.
    pub ready: bool,
    /// Its node is not heard: the pod is not Ready though its container was when last heard.
    pub node_lost: bool,
    /// Whether it has a node.
    pub scheduling: Scheduling,
    /// Why its container does not run.
    pub waiting: Option<Box<Waiting>>,
    /// How often its container was started again.
    pub restarts: u32,
    /// How its container last ended.
    pub ended: Option<Box<Ended>>,
    /// Why it failed before its container ran: the kubelet refused it, or evicted it while it pulled the image.
    pub rejected: Option<Box<str>>,
}

/// Why a pod with a worker's labels is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// It names no pool.
    #[error("has no label {LABEL_POOL}")]
    NoPool,
    /// No ProverPool controls it, or another one than its label says.
    #[error("is not controlled by the ProverPool that its label {LABEL_POOL} names")]
    NotControlled,
    /// The API server did not say what every pod has.
    #[error("has no name or uid")]
    Nameless,
}

/// A pod's phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers run yet.
    Pending,
    /// On its node.
    Running,
    /// Over, all containers with exit code 0.
    Succeeded,
    /// Over: evicted, its node was shut down, or its container failed for good.
    Failed,
}

impl Phase {
    /// Whether it never runs again.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Whether a pod has a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheduling {
    /// The scheduler has not looked at it.
    Pending,
    /// No node has room for it, or the right labels; what the scheduler says.
    Unschedulable(Arc<str>),
    /// It has one.
    Scheduled,
}

/// Why a container does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which kind of trouble.
    pub why: Waits,
    /// Its image.
    pub image: Box<str>,
    /// What the kubelet says.
    pub message: Box<str>,
}

/// Kinds of trouble with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// It ended again and again.
    CrashLoop,
    /// Its image can't be pulled.
    Image,
    /// The pod names a Secret or ConfigMap that is not there, or the runtime refuses it.
    Config,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The kernel killed it for using more memory than it may.
    pub out_of_memory: bool,
    /// Its exit code.
    pub exit_code: i32,
    /// When, in seconds since 1970.
    pub finished: i64,
}

impl PodRecord {
    /// The engine's name of its worker: `<namespace>/<name>`.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.worker[..usize::from(self.namespace)]
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.worker[usize::from(self.namespace) + 1..]
    }

    /// `<namespace>/<pool>`.
    pub(super) fn pool_key(&self) -> String {
        format!("{}/{}", self.namespace(), self.pool)
    }

    /// Whether it has a node.
    pub fn is_scheduled(&self) -> bool {
        self.scheduling == Scheduling::Scheduled
    }

    /// Names the last death of its container by lack of memory, and nothing else.
    pub fn out_of_memory(&self) -> Option<String> {
        let ended = self.ended.as_ref().filter(|ended| ended.out_of_memory)?;
        Some(format!("{}/{}", self.uid, ended.finished))
    }

    /// About what it takes, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let texts = [&*self.worker, &*self.uid, &*self.pool, &*self.pool_uid, &*self.template];
        let waiting =
            self.waiting.as_ref().map_or(0, |w| size_of::<Waiting>() + w.image.len() + w.message.len());
        let unschedulable = match &self.scheduling {
            Scheduling::Unschedulable(text) => text.len(),
            _ => 0,
        };
        let ended = self.ended.as_ref().map_or(0, |_| size_of::<Ended>());
        let node = self.node.as_ref().map_or(0, |node| node.len());
        let rejected = self.rejected.as_ref().map_or(0, |text| text.len());
        let texts = texts.map(str::len).iter().sum::<usize>();
        size_of::<Self>() + texts + waiting + ended + unschedulable + node + rejected
    }
}

/// A pod as the API server sends it, of which nothing is read but what a [`PodRecord`] needs: most of a pod's JSON
/// is never allocated.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkerPod {
    #[serde(deserialize_with = "slim")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    #[serde(default)]
    containers: Vec<ContainerSpec>,
}

#[derive(Debug, Clone, Deserialize)]
struct ContainerSpec {
    name: String,
    #[serde(default)]
    resources: Resources,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    conditions: Vec<PodCondition>,
    container_statuses: Vec<Container>,
}

#[derive(Debug, Clone, Deserialize)]
struct PodCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    image: String,
    ready: bool,
    restart_count: i32,
    state: State,
    last_state: State,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<WaitingState>,
    running: Option<IgnoredAny>,
    terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct WaitingState {
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated {
    exit_code: i32,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    started_at: Option<Time>,
    #[serde(default)]
    finished_at: Option<Time>,
}

/// Metadata without what takes most room: managed fields and annotations.
fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        labels: Option<BTreeMap<String, String>>,
        owner_references: Option<Vec<OwnerReference>>,
    }
    let slim = Slim::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        labels: slim.labels,
        owner_references: slim.owner_references,
        ..Default::default()
    })
}

impl Resource for WorkerPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl WorkerPod {
    /// What is kept of it.
    ///
    /// # Errors
    /// Why it is no pool's.
    pub(super) fn record(&self) -> Result<PodRecord, Stranger> {
        let meta = &self.metadata;
        let (Some(namespace), Some(name), Some(uid)) = (&meta.namespace, &meta.name, &meta.uid) else {
            return Err(Stranger::Nameless);
        };
        let label =
            |label: &str| meta.labels.as_ref().and_then(|labels| labels.get(label)).map(String::as_str);
        let pool = label(LABEL_POOL).ok_or(Stranger::NoPool)?;
        let owner = self.owner(pool).ok_or(Stranger::NotControlled)?;
        let containers = &self.spec.containers;
        let spec = containers.iter().find(|container| container.name == CONTAINER);
        let statuses = &self.status.container_statuses;
        let container = statuses.iter().find(|status| status.name == CONTAINER).or(statuses.first());
        Ok(PodRecord {
            worker: format!("{namespace}/{name}").into(),
            namespace: u16::try_from(namespace.len()).map_err(|_| Stranger::Nameless)?,
            uid: uid.as_str().into(),
            pool: pool.into(),
            pool_uid: owner.uid.as_str().into(),
            capacity: spec.and_then(|container| container.resources.capacity()),
            node: self.spec.node_name.as_deref().map(Into::into),
            template: label(LABEL_TEMPLATE).unwrap_or_default().into(),
            phase: self.phase(),
            created: meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            deleting: meta.deletion_timestamp.is_some(),
            ready: self.condition("Ready").is_some_and(|c| c.status == "True"),
            node_lost: self.node_lost(container),
            scheduling: self.scheduling(),
            waiting: container.and_then(waiting).map(Box::new),
            restarts: container.map_or(0, |c| u32::try_from(c.restart_count).unwrap_or(0)),
            ended: container.and_then(ended).map(Box::new),
            rejected: self.rejected(container),
        })
    }

    /// The reference to the pool of this name that controls it. Labels anybody may give to a pod; this the operator
    /// gives to those it makes, and the API server deletes a pod whose owner is not there.
    fn owner(&self, pool: &str) -> Option<&OwnerReference> {
        let group = |version: &str| version.split_once('/').is_some_and(|(g, _)| g == ProverPool::group(&()));
        let mut owners = self.metadata.owner_references.iter().flatten();
        // there is one controller at most
        let owner = owners.find(|owner| owner.controller == Some(true))?;
        let is_pool = group(&owner.api_version) && owner.kind == ProverPool::kind(&()) && owner.name == pool;
        is_pool.then_some(owner)
    }

    /// `<namespace>/<name>`.
    pub(super) fn worker(&self) -> String {
        let meta = &self.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}/{}", text(&meta.namespace), text(&meta.name))
    }

    fn condition(&self, type_: &str) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|condition| condition.type_ == type_)
    }

    fn phase(&self) -> Phase {
        match self.status.phase.as_deref() {
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            _ => Phase::Pending,
        }
    }

    /// The node controller sets Ready to False when it does not hear a node, and touches nothing else. The kubelet says
    /// why: another container, or a readiness gate, is not ready yet.
    fn node_lost(&self, container: Option<&Container>) -> bool {
        let unexplained = |c: &PodCondition| c.reason.as_deref().unwrap_or_default().is_empty();
        self.condition("Ready").is_some_and(|c| c.status != "True" && unexplained(c))
            && container.is_some_and(|c| c.ready)
    }

    fn rejected(&self, container: Option<&Container>) -> Option<Box<str>> {
        if self.phase() != Phase::Failed || container.is_some_and(has_run) {
            return None;
        }
        let Status { reason, message, .. } = &self.status;
        let reason = reason.as_deref().unwrap_or("Failed");
        let colon = if message.is_some() { ": " } else { "" };
        Some(short(Some(&format!("{reason}{colon}{}", message.as_deref().unwrap_or_default()))))
    }

    fn scheduling(&self) -> Scheduling {
        if self.spec.node_name.is_some() {
            return Scheduling::Scheduled;
        }
        match self.condition("PodScheduled") {
            Some(c) if c.status == "False" && c.reason.as_deref() == Some("Unschedulable") => {
                Scheduling::Unschedulable(shared(c.message.as_deref()))
            }
            _ => Scheduling::Pending,
        }
    }
}

fn short(text: Option<&str>) -> Box<str> {
    cut(text.unwrap_or_default(), MAX_TEXT).into()
}

/// What the scheduler says of one pod it mostly says of thousands, one after the other: such a text is kept once.
fn shared(text: Option<&str>) -> Arc<str> {
    static LATEST: Mutex<Option<Arc<str>>> = Mutex::new(None);
    let text = cut(text.unwrap_or_default(), MAX_SCHEDULER);
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*latest {
        Some(same) if **same == *text => same.clone(),
        _ => latest.insert(text.into()).clone(),
    }
}

fn waiting(container: &Container) -> Option<Waiting> {
    let state = container.state.waiting.as_ref()?;
    let why = match state.reason.as_deref()? {
        "CrashLoopBackOff" => Waits::CrashLoop,
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Waits::Image,
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => Waits::Config,
        _ => return None,
    };
    Some(Waiting { why, image: short(Some(&container.image)), message: short(state.message.as_deref()) })
}

/// Whether a container ever ran. One that never did may be told as terminated all the same, without a time.
fn has_run(container: &Container) -> bool {
    let ran = |state: &State| {
        state.running.is_some() || state.terminated.as_ref().is_some_and(|t| t.started_at.is_some())
    };
    container.restart_count > 0 || ran(&container.state) || ran(&container.last_state)
}

fn ended(container: &Container) -> Option<Ended> {
    let last = container.state.terminated.as_ref().or(container.last_state.terminated.as_ref())?;
    Some(Ended {
        out_of_memory: last.reason.as_deref() == Some("OOMKilled"),
        exit_code: last.exit_code,
        finished: last.finished_at.as_ref().map_or(0, |time| time.0.as_second()),
    })
}
