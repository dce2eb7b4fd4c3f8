//! ProverPool: a set of equal worker pods, one pool for each shape of machine.

// each column has a type, and many have the same one
#![allow(clippy::duplicated_attributes)]

use super::conditions::Condition;
use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A set of equal worker pods, one pool for each shape of machine. The operator makes and deletes its pods as the
/// proving jobs of its scope need them.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "arborist.dev",
    version = "v1alpha1",
    kind = "ProverPool",
    plural = "proverpools",
    shortname = "pp",
    category = "arborist",
    namespaced,
    derive = "PartialEq",
    status = "ProverPoolStatus",
    validation = Rule::new("size(self.metadata.name) <= 40")
        .message("metadata.name: at most 40 characters, so that the names of its pods fit"),
    scale(
        spec_replicas_path = ".spec.scaling.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Cores", type_ = "string", json_path = ".spec.template.resources.cpu"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".spec.template.resources.memory"),
    printcolumn(name = "Wanted", type_ = "integer", json_path = ".status.wanted"),
    printcolumn(name = "Busy", type_ = "integer", json_path = ".status.busy"),
    printcolumn(name = "Idle", type_ = "integer", json_path = ".status.idle"),
    printcolumn(name = "Starting", type_ = "integer", json_path = ".status.starting"),
    printcolumn(
        name = "Unschedulable",
        type_ = "integer",
        json_path = ".status.unschedulable",
        priority = 1
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.scaling) || !has(self.scaling.budgetPerHour) || (has(self.pricePerHour) && self.pricePerHour.matches('[1-9]'))")
    .message("scaling.budgetPerHour: needs a pricePerHour above 0"))]
pub struct ProverPoolSpec {
    /// Kinds of proof that this pool's workers make: `vm`, `kernel`, `base`, `merge`, `root`; empty: all that fit its
    /// machines. Whether they fit is the operator's to check, since its circuit profile says what a proof needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub circuits: Vec<CircuitKind>,
    /// Namespaces whose jobs this pool's workers may prove beside those of its own namespace; `*` is all. The operator's
    /// settings have to allow it in the place of the jobs' namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63), regex(pattern = r"^(\*|[a-z0-9]([a-z0-9-]*[a-z0-9])?)$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub job_namespaces: Vec<String>,
    /// What makes the proofs; must be what the operator serves.
    #[serde(default)]
    pub backend: Backend,
    /// What each worker's pod is like.
    pub template: WorkerTemplate,
    /// `OnDemand`: its machines stay until they are given back; `Spot`: they may be taken away at any time.
    #[serde(default)]
    pub capacity_type: CapacityType,
    /// What one pod costs an hour, e.g. `1.53`, in any currency that all pools share. Cheaper pools go first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 13), regex(pattern = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"))]
    pub price_per_hour: Option<String>,
    /// Among pools of one price the higher goes first.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// How many pods there are.
    #[serde(default)]
    pub scaling: Scaling,
}

/// Exactly one kind of volume is set.
const VOLUMES_HAVE_ONE_KIND: &str = "self.all(v, [has(v.configMap), has(v.csi), has(v.downwardAPI), has(v.emptyDir), \
    has(v.ephemeral), has(v.image), has(v.persistentVolumeClaim), has(v.projected), has(v.secret)].filter(is, is).size() == 1)";

/// All keys of a map are good keys of labels.
const LABEL_KEYS: &str = "self.all(k, !format.qualifiedName().validate(k).hasValue())";

/// A kind of proof in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CircuitKind {
    /// A public call's execution.
    Vm,
    /// Public kernel: one for each call, in sequence.
    Kernel,
    /// Base rollup: one for each transaction.
    Base,
    /// Merge rollup.
    Merge,
    /// Root rollup.
    Root,
}

/// Whether machines stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CapacityType {
    /// They stay until they are given back.
    #[default]
    OnDemand,
    /// They may be taken away at short notice.
    Spot,
}

/// What makes proofs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type != 'Process' || has(self.process)")
    .message("backend.process: must be set with type Process"))]
#[x_kube(validation = Rule::new("self.type == 'Process' || !has(self.process)")
    .message("backend.process: allowed with type Process only"))]
#[x_kube(validation = Rule::new("self.type == 'Fake' || !has(self.fake)")
    .message("backend.fake: allowed with type Fake only"))]
pub struct Backend {
    /// `Plonky2`: the embedded circuits; `Process`: a program in the worker's image or on a volume; `Fake`: delays and
    /// hashes, for trials of everything but proving.
    #[serde(default, rename = "type")]
    pub type_: BackendType,
    /// Settings of type Process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessBackend>,
    /// Settings of type Fake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fake: Option<FakeBackend>,
}

/// Which backend makes the proofs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackendType {
    /// The embedded circuits.
    #[default]
    Plonky2,
    /// A program in the worker's image or on a volume.
    Process,
    /// Delays and hashes, for trials of everything but proving.
    Fake,
}

/// A program that proves: docs/process-backend.md.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessBackend {
    /// The program's path in the worker's container.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^/"))]
    pub plugin: String,
    /// Arguments that it gets before its command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1024)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub args: Vec<String>,
    /// Path of a JSON file with the verification key hash of each circuit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^/"))]
    pub keys: Option<String>,
}

/// How the fake backend behaves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FakeBackend {
    /// Mean time of a proof in milliseconds: `30` or `vm=30,merge=10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), regex(pattern = r"^[a-z0-9=,]+$"))]
    pub millis: Option<String>,
    /// Of 1,000 attempts, how many go wrong: `error=5,hang=1,oom=1,slow=10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), regex(pattern = r"^[a-z0-9=,]+$"))]
    pub faults: Option<String>,
}

/// What each worker's pod is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))")
    .message("template.volumeMounts: each name must be the name of one of template.volumes"))]
pub struct WorkerTemplate {
    /// The worker's image; left out: the one the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^ ]+$"))]
    pub image: Option<String>,
    /// When to pull the image, `Always`, `IfNotPresent` or `Never`; left out: as the operator was installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets to pull the image with, beside those the operator was installed with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// What a worker has: requests and limits of its container, and what the engine plans with.
    pub resources: WorkerResources,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that its pods put up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tolerations: Vec<Toleration>,
    /// Where its pods go, beside the node selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How its pods spread; the label selector, when it is left out, is the pool's own pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Priority class of its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Service account of its pods, for example with rights to a bucket; empty: `default`. Workers get no token for
    /// the API server from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Volumes for a backend's program and keys: of the kinds that PodSecurity's level `restricted` allows, and no
    /// projected tokens. The names arborist, tmp, and those that start with arborist- are the operator's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new(VOLUMES_HAVE_ONE_KIND)
        .message("template.volumes: each must have exactly one of configMap, csi, downwardAPI, emptyDir, ephemeral, image, persistentVolumeClaim, projected and secret"))]
    #[x_kube(validation = Rule::new("self.all(v, !v.name.startsWith('arborist-') && !(v.name in ['arborist', 'tmp']))")
        .message("template.volumes: arborist, tmp, and names that start with arborist- are the operator's"))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub volumes: Vec<Volume>,
    /// Where they are mounted in the worker's container. Below /var/run/arborist are the operator's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(m, !m.mountPath.contains('..') && !m.mountPath.contains('//'))")
        .message("template.volumeMounts: a mountPath must have no .. and no //"))]
    #[x_kube(validation = Rule::new("self.all(m, m.mountPath != '/var' && m.mountPath != '/var/run' && m.mountPath != '/var/run/arborist' && !m.mountPath.startsWith('/var/run/arborist/'))")
        .message("template.volumeMounts: no mountPath may be /var, /var/run, /var/run/arborist or below: the operator mounts there"))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".into()]))]
    pub volume_mounts: Vec<VolumeMount>,
    /// More environment of the worker's container, for example a bucket's credentials. Names that start with
    /// ARBORIST_ are the operator's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(e, !e.name.startsWith('ARBORIST_'))")
        .message("template.env: names that start with ARBORIST_ are the operator's"))]
    #[x_kube(validation = Rule::new("self.all(e, !has(e.value) || !has(e.valueFrom))")
        .message("template.env: at most one of value and valueFrom may be set"))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// More labels of its pods. The operator's own are arborist.dev/, app.kubernetes.io/managed-by and
    /// app.kubernetes.io/name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('arborist.dev/') && !(k in ['app.kubernetes.io/managed-by', 'app.kubernetes.io/name']))")
        .message("template.labels: arborist.dev/, app.kubernetes.io/managed-by and app.kubernetes.io/name are the operator's"))]
    #[x_kube(validation = Rule::new(LABEL_KEYS)
        .message("template.labels: a key must be a name of at most 63 characters, perhaps behind a DNS name and a slash"))]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// More annotations of its pods. Those of arborist.dev/ are the operator's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('arborist.dev/'))")
        .message("template.annotations: arborist.dev/ is the operator's"))]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
    /// Seconds that a worker has to finish its proof after it was asked to leave.
    #[serde(default = "default_grace")]
    #[schemars(range(min = 10, max = 3600))]
    pub termination_grace_period_seconds: i64,
}

/// When the image is pulled: `Always`; `IfNotPresent`, when the node does not have it; `Never`, when all nodes have it.
/// Left out: as the operator was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Every time.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// The node has it.
    Never,
}

fn default_grace() -> i64 {
    40
}

/// What a worker has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerResources {
    /// Whole cores from 1 to 1024, e.g. `32`.
    #[x_kube(validation = Rule::new("int(self) <= 1024").message("resources.cpu: at most 1024 cores"))]
    #[schemars(length(min = 1, max = 4), regex(pattern = r"^[1-9][0-9]{0,3}$"))]
    pub cpu: String,
    /// Memory with Mi, Gi or Ti, at most 4Ti, e.g. `64Gi`.
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity('4Ti')) <= 0")
        .message("resources.memory: at most 4Ti"))]
    #[schemars(length(min = 3, max = 12), regex(pattern = r"^[1-9][0-9]{0,8}(Mi|Gi|Ti)$"))]
    pub memory: String,
}

/// How many pods there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max")
    .message("scaling.min: must not be above scaling.max"))]
#[x_kube(validation = Rule::new("self.mode != 'Fixed' || has(self.replicas)")
    .message("scaling.replicas: must be set with mode Fixed"))]
#[x_kube(validation = Rule::new("self.mode == 'Fixed' || !has(self.replicas)")
    .message("scaling.replicas: allowed with mode Fixed only; with mode Deadline the operator decides between min and max"))]
pub struct Scaling {
    /// `Deadline`: the operator decides, as many pods as the jobs can use, between min and max; `Fixed`: the user does,
    /// with `replicas`.
    #[serde(default)]
    pub mode: ScalingMode,
    /// The fewest pods in mode Deadline; without effect in mode Fixed.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub min: i32,
    /// The most pods in mode Deadline; without effect in mode Fixed.
    #[serde(default = "default_max")]
    #[schemars(range(min = 0, max = 10000))]
    pub max: i32,
    /// The pods in mode Fixed, and only there; `kubectl scale` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: Option<i32>,
    /// How long a pod takes from being made to its first proof, with the start of a machine for it, until it was
    /// measured, e.g. `120s`.
    #[serde(default = "default_startup")]
    #[schemars(length(min = 2, max = 8), regex(pattern = r"^[0-9]{1,7}[smh]$"))]
    pub startup_estimate: String,
    /// How long a pod has nothing to do before it is removed, e.g. `60s`.
    #[serde(default = "default_delay")]
    #[schemars(length(min = 2, max = 8), regex(pattern = r"^[0-9]{1,7}[smh]$"))]
    pub scale_down_delay: String,
    /// The most that the pool's pods may cost an hour together, in mode Deadline; needs `pricePerHour`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 13), regex(pattern = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"))]
    pub budget_per_hour: Option<String>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            mode: ScalingMode::default(),
            min: 0,
            max: default_max(),
            replicas: None,
            startup_estimate: default_startup(),
            scale_down_delay: default_delay(),
            budget_per_hour: None,
        }
    }
}

fn default_max() -> i32 {
    100
}

fn default_startup() -> String {
    "120s".into()
}

fn default_delay() -> String {
    "60s".into()
}

/// Who decides how many pods there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMode {
    /// The operator: as many as the jobs can use, between min and max.
    #[default]
    Deadline,
    /// The user: `replicas`.
    Fixed,
}

/// What a pool has. Below 2 kB.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProverPoolStatus {
    /// The generation of the spec that this is about.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub observed_generation: i64,
    /// Pods that are there and not being deleted.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Label selector of its pods, for the scale subresource.
    #[serde(default)]
    #[schemars(length(max = 400))]
    pub selector: String,
    /// Pods that the operator wants now.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub wanted: i32,
    /// Why it wants so many.
    #[serde(default)]
    #[schemars(length(max = 400))]
    pub wanted_because: String,
    /// Pods whose worker has not logged in yet.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub starting: i32,
    /// Pods whose worker has nothing to do.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub idle: i32,
    /// Pods whose worker proves.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub busy: i32,
    /// Pods whose worker takes nothing new, or that are being deleted.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub draining: i32,
    /// Pods that no node has room for.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub unschedulable: i32,
    /// Median of the seconds from a pod's making to its worker's login, as measured; 0: not yet.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub startup_seconds: i32,
    /// Ready, Scaling, Starved, CapacityLimited.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
