//! ProvingJob: one block's proof tree.

// each column has a type, and many have the same one
#![allow(clippy::duplicated_attributes)]

use super::CircuitKind;
use super::conditions::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// One block to prove, before its deadline if it has one. The tree of its proofs lives in the operator, not here.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "arborist.dev",
    version = "v1alpha1",
    kind = "ProvingJob",
    plural = "provingjobs",
    shortname = "pj",
    category = "arborist",
    namespaced,
    derive = "PartialEq",
    status = "ProvingJobStatus",
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("metadata.name: at most 63 characters"),
    printcolumn(name = "Block", type_ = "integer", json_path = ".spec.blockNumber"),
    printcolumn(name = "Txs", type_ = "integer", json_path = ".status.transactions"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.estimatedCompletion", priority = 1),
    printcolumn(name = "Deadline", type_ = "string", json_path = ".status.deadline"),
    printcolumn(
        name = "Complete",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Complete\")].status"
    ),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Complete\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.deadline) || !has(self.deadlineSeconds)")
    .message("deadline, deadlineSeconds: at most one of them may be set"))]
#[x_kube(validation = Rule::new("has(self.reportTo) == has(oldSelf.reportTo) && (!has(self.reportTo) || self.reportTo == oldSelf.reportTo)")
    .message("reportTo: can't be changed; make another job"))]
pub struct ProvingJobSpec {
    /// Chain of the block.
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("chainId: can't be changed; make another job"))]
    pub chain_id: i64,
    /// Number of the block.
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("blockNumber: can't be changed; make another job"))]
    pub block_number: i64,
    /// Who is to be credited: `0x` and 64 hex digits, or a name, of which the hash is taken. The root proof states it.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[ -~]+$"))]
    #[x_kube(validation = Rule::new("!self.startsWith('0x') || self.matches('^0x[0-9a-fA-F]{64}$')")
        .message("proverId: after 0x must come 64 hex digits; anything else is a name"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("proverId: can't be changed; make another job"))]
    pub prover_id: String,
    /// Where the block comes from.
    #[x_kube(validation = Rule::new("self == oldSelf").message("source: can't be changed; make another job"))]
    pub source: Source,
    /// The circuits, with their version; must be what the operator serves.
    #[serde(default = "default_profile")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("circuitProfile: can't be changed; make another job"))]
    pub circuit_profile: String,
    /// When the block must be proven; after that the job fails. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// The same, in seconds after the job was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31536000))]
    pub deadline_seconds: Option<i64>,
    /// Higher goes first among jobs whose deadlines allow it. May be changed.
    #[serde(default)]
    #[schemars(range(min = -1000000, max = 1000000))]
    pub priority: i32,
    /// Nothing new is started while set; what runs goes on. May be changed.
    #[serde(default)]
    pub suspend: bool,
    /// The job is deleted so long after it is over; never, if left out. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315360000))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// Who is told when the block is proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub report_to: Vec<ReportTarget>,
}

fn default_profile() -> String {
    arborist_core::profile::MINI_ROLLUP.to_owned()
}

/// Where a block comes from: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.uri) ? 1 : 0) + (has(self.configMap) ? 1 : 0) + (has(self.synthetic) ? 1 : 0) == 1")
    .message("source: exactly one of uri, configMap and synthetic must be set"))]
pub struct Source {
    /// A block file somewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<UriSource>,
    /// A block file in a ConfigMap of the job's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
    /// A block made up, for trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<SyntheticSource>,
}

/// A block file somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UriSource {
    /// http://, https://, s3://, gs:// or az://, without a user name or password.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^[^ ]+$"))]
    #[x_kube(validation = Rule::new("self.matches('^(https?|s3|gs|az)://.')")
        .message("source.uri.url: must start with http://, https://, s3://, gs:// or az://"))]
    #[x_kube(validation = Rule::new("!self.matches('^[^/]*//[^/?#]*@')")
        .message("source.uri.url: must not hold a user name or password, since all who may read the job would read them"))]
    pub url: String,
    /// SHA-256 of its bytes, 64 hex digits.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: String,
}

/// A block file in a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// Its name, in the job's namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The key, of `data` or `binaryData`.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn default_key() -> String {
    "block.json".into()
}

/// A block made up from a seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyntheticSource {
    /// Number of transactions. With real circuits the operator makes their private proofs itself: at most 16 then.
    #[schemars(range(min = 1, max = 61440))]
    pub transactions: i32,
    /// Public calls of each.
    #[serde(default = "default_calls")]
    #[schemars(range(min = 0, max = 7))]
    pub calls_per_transaction: i32,
    /// Blocks of one seed share their proofs.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub seed: i64,
}

fn default_calls() -> i32 {
    2
}

/// Who is told when the block is proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportTarget {
    /// A name for it, for the status.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// A Secret of the job's namespace with `url`, and perhaps `authorization` (the header's value) and `ca.crt`.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub secret_name: String,
}

/// Where a job stands. Below 2 kB whatever the block's size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProvingJobStatus {
    /// The generation of the spec that this is about.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub observed_generation: i64,
    /// Transactions of the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub transactions: Option<i64>,
    /// Proofs done of all, e.g. `7/11`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// Percent of the proofs that are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// Proofs by kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into()]))]
    pub counts: Vec<LevelCounts>,
    /// When it must be proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// When it will be, at its present speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_completion: Option<Time>,
    /// When it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was over: complete or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The root's task, 64 hex digits: under this name the engine knows the tree, and the store its proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub root_task: Option<String>,
    /// The root proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_proof: Option<RootProof>,
    /// Who proved how much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Attribution>,
    /// What the report's targets said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["target".into()]))]
    pub reports: Vec<ReportReceipt>,
    /// Accepted, Proving, AtRisk, Proven, Reported, Complete, Failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Proofs of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LevelCounts {
    /// The kind.
    pub kind: CircuitKind,
    /// All.
    #[schemars(range(min = 0))]
    pub total: i64,
    /// Made.
    #[schemars(range(min = 0))]
    pub done: i64,
    /// Being made.
    #[schemars(range(min = 0))]
    pub running: i64,
    /// Could be made now.
    #[schemars(range(min = 0))]
    pub ready: i64,
    /// Failed too often.
    #[schemars(range(min = 0))]
    pub failed: i64,
}

/// A proven block's root proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RootProof {
    /// Where it lies in the artifact store.
    #[schemars(length(max = 300))]
    pub uri: String,
    /// ConfigMap of the job's namespace with `root.proof` and `public.json`, all that `arborist verify` needs.
    #[schemars(length(max = 253))]
    pub config_map: String,
    /// SHA-256 of the proof object, 64 hex digits.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// Its size.
    #[schemars(range(min = 0))]
    pub bytes: i64,
}

/// Who proved how much; the whole record goes to the report's targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attribution {
    /// Workers that made at least one proof that counts.
    #[schemars(range(min = 0))]
    pub workers: i64,
    /// Core seconds of all proofs.
    #[schemars(range(min = 0))]
    pub core_seconds: i64,
}

/// What a report's target said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportReceipt {
    /// Name of the target in the spec.
    #[schemars(length(min = 1, max = 63))]
    pub target: String,
    /// Attempts so far.
    #[schemars(range(min = 0))]
    pub attempts: i32,
    /// When it took the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Time>,
    /// What it answered: its receipt, or its last error.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub answer: String,
}
