//! A pool's pod, as it is sent to the API server. Pure.

use super::validate::{MOUNT, PoolKey, ValidPool, backend_name};
use crate::api::{
    Backend, CapacityType, LABEL_MANAGED_BY, LABEL_POOL, MANAGER, ProverPool, PullPolicy, TOKEN_AUDIENCE,
    WorkerTemplate,
};
use crate::controllers::Settings;
use crate::kubernetes::pods::{LABEL_NAME, LABEL_TEMPLATE};
use crate::kubernetes::{CA_CONFIG_MAP, CA_KEY};
use arborist_core::circuit::KindSet;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, ContainerPort, EmptyDirVolumeSource, EnvFromSource, EnvVar,
    EnvVarSource, HTTPGetAction, KeyToPath, LocalObjectReference, ObjectFieldSelector, Pod,
    PodSecurityContext, PodSpec, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
    SecretEnvSource, SecurityContext, ServiceAccountTokenProjection, TopologySpreadConstraint, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use std::collections::BTreeMap;

/// The label that says whether a pod's machine may be taken away: spend and interruptions can be told apart by it.
pub(super) const CAPACITY_TYPE: &str = "arborist.dev/capacity-type";
/// The operator's own volumes.
pub(super) const VOLUMES: [&str; 2] = ["arborist", "tmp"];
/// The token is renewed by the kubelet at 80 % of this; a worker reads it anew at each login.
const TOKEN_SECONDS: i64 = 3600;
/// Where the kubelet asks whether a worker goes on.
const HEALTH_PORT: i32 = 7703;
/// The user of the worker's image.
const USER: i64 = 65532;
/// What a worker keeps of its termination grace to say goodbye: its last results are stored and told, then its process
/// ends. With less the kubelet kills it in the middle of that.
const FAREWELL_SECONDS: i64 = 7;
/// Node autoscalers leave these pods alone: which pod goes is the operator's choice, since it knows what they do.
const KEEP: [(&str, &str); 2] =
    [("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"), ("karpenter.sh/do-not-disrupt", "true")];

/// The labels by which the operator knows its pods.
const OURS: [&str; 4] = [LABEL_MANAGED_BY, LABEL_NAME.0, LABEL_POOL, LABEL_TEMPLATE];

/// A pool's pod without a name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    pod: Pod,
    /// Differs when anything about the pod does.
    pub(super) hash: String,
}

impl Template {
    /// What the pods of a pool are like.
    pub(super) fn new(pool: &ValidPool, settings: &Settings) -> Self {
        let metadata = ObjectMeta {
            namespace: Some(pool.key.namespace.clone()),
            labels: Some(labels(pool)),
            annotations: Some(annotations(&pool.template)),
            owner_references: Some(vec![owner(pool)]),
            ..Default::default()
        };
        let mut pod = Pod { metadata, spec: Some(pod_spec(pool, settings)), status: None };
        // maps are ordered, so equal pods are equal bytes
        let bytes = serde_json::to_vec(&pod).unwrap_or_default();
        let hash = blake3::hash(&bytes).to_hex()[..10].to_owned();
        pod.metadata.labels.get_or_insert_default().insert(LABEL_TEMPLATE.into(), hash.clone());
        Self { pod, hash }
    }

    /// A pod of this name.
    pub(super) fn named(&self, name: &str) -> Pod {
        let mut pod = self.pod.clone();
        pod.metadata.name = Some(name.to_owned());
        pod
    }

    /// What a pod that was made of it lacks of what makes it the pool's: others may have a hand in it.
    pub(super) fn lacking(&self, made: &ObjectMeta) -> Option<String> {
        let asked = &self.pod.metadata;
        let label =
            |meta: &ObjectMeta, key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
        if let Some(key) = OURS.into_iter().find(|key| label(made, key) != label(asked, key)) {
            return Some(format!("label {key}"));
        }
        let controller = |meta: &ObjectMeta| {
            let mut owners = meta.owner_references.iter().flatten();
            owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
        };
        (controller(made) != controller(asked)).then(|| "metadata.ownerReferences".to_owned())
    }
}

/// A name for a new pod: the pool's, and five characters without vowels, so that they spell nothing.
pub(super) fn random_name(pool: &PoolKey) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let letter = || char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
    let end: String = std::iter::repeat_with(letter).take(5).collect();
    format!("{}-{end}", pool.name)
}

/// The labels that tell a pool's pods from all others.
pub(super) fn selector(pool: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL_NAME.0.into(), LABEL_NAME.1.into()), (LABEL_POOL.into(), pool.into())])
}

fn labels(pool: &ValidPool) -> BTreeMap<String, String> {
    let capacity_type = match pool.capacity_type {
        CapacityType::OnDemand => "on-demand",
        CapacityType::Spot => "spot",
    };
    let mut labels = pool.template.labels.clone();
    labels.extend(selector(&pool.key.name));
    labels.insert(LABEL_MANAGED_BY.into(), MANAGER.into());
    labels.insert(CAPACITY_TYPE.into(), capacity_type.into());
    labels
}

fn annotations(template: &WorkerTemplate) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from(KEEP.map(|(key, value)| (key.to_owned(), value.to_owned())));
    annotations.extend(template.annotations.clone());
    annotations
}

fn owner(pool: &ValidPool) -> OwnerReference {
    OwnerReference {
        api_version: ProverPool::api_version(&()).into(),
        kind: ProverPool::kind(&()).into(),
        name: pool.key.name.clone(),
        uid: pool.uid.clone(),
        controller: Some(true),
        // the pool may go at once: its pods follow
        block_owner_deletion: Some(false),
    }
}

fn pod_spec(pool: &ValidPool, settings: &Settings) -> PodSpec {
    let template = &pool.template;
    let some = |list: Vec<LocalObjectReference>| Some(list).filter(|list| !list.is_empty());
    PodSpec {
        containers: vec![container(pool, settings)],
        restart_policy: Some("Always".into()),
        termination_grace_period_seconds: Some(template.termination_grace_period_seconds),
        node_selector: Some(template.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: Some(template.tolerations.clone()).filter(|list| !list.is_empty()),
        affinity: template.affinity.clone(),
        topology_spread_constraints: spread(pool),
        priority_class_name: template.priority_class_name.clone(),
        service_account_name: template.service_account_name.clone(),
        automount_service_account_token: Some(false),
        // with thousands of services their variables alone keep a process from starting
        enable_service_links: Some(false),
        image_pull_secrets: some(pull_secrets(template, settings)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..Default::default() }),
            ..Default::default()
        }),
        volumes: Some(volumes(template)),
        ..Default::default()
    }
}

fn pull_secrets(template: &WorkerTemplate, settings: &Settings) -> Vec<LocalObjectReference> {
    let installed =
        settings.worker_image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    let mut all: Vec<LocalObjectReference> = vec![];
    for secret in template.image_pull_secrets.iter().cloned().chain(installed) {
        if !all.contains(&secret) {
            all.push(secret);
        }
    }
    all
}

/// The pool's own pods are what spreads where a constraint does not say, on the nodes that they put up with.
fn spread(pool: &ValidPool) -> Option<Vec<TopologySpreadConstraint>> {
    let constraints = pool.template.topology_spread_constraints.iter().cloned().map(|mut constraint| {
        constraint.label_selector.get_or_insert_with(|| LabelSelector {
            match_labels: Some(selector(&pool.key.name)),
            match_expressions: None,
        });
        constraint.node_taints_policy.get_or_insert_with(|| "Honor".into());
        constraint
    });
    Some(constraints.collect()).filter(|list: &Vec<_>| !list.is_empty())
}

/// There is no preStop hook: the worker takes SIGTERM as the request to drain, which also comes when a spot machine is
/// taken or a node is shut down, and a hook would only shorten its grace.
fn container(pool: &ValidPool, settings: &Settings) -> Container {
    let template = &pool.template;
    let policy = template.image_pull_policy.map(|policy| match policy {
        PullPolicy::Always => "Always".to_owned(),
        PullPolicy::IfNotPresent => "IfNotPresent".to_owned(),
        PullPolicy::Never => "Never".to_owned(),
    });
    let plugin_args = pool.backend.process.iter().flat_map(|process| &process.args);
    let args: Vec<String> = plugin_args.flat_map(|arg| ["--plugin-arg".to_owned(), arg.clone()]).collect();
    let secret = settings.store_credentials_secret.as_ref().map(|name| EnvFromSource {
        secret_ref: Some(SecretEnvSource { name: name.clone(), optional: Some(false) }),
        ..Default::default()
    });
    Container {
        name: "worker".into(),
        image: Some(template.image.clone().unwrap_or_else(|| settings.worker_image.clone())),
        image_pull_policy: policy.or_else(|| settings.worker_image_pull_policy.clone()),
        args: Some(args).filter(|args| !args.is_empty()),
        env: Some(env(pool, settings)),
        env_from: secret.map(|secret| vec![secret]),
        resources: Some(resources(template)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            ..Default::default()
        }),
        ports: Some(vec![ContainerPort {
            name: Some("health".into()),
            container_port: HEALTH_PORT,
            protocol: Some("TCP".into()),
            ..Default::default()
        }]),
        liveness_probe: Some(liveness()),
        // a worker's log may say why it ended when nothing else does
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(mounts(template)),
        ..Default::default()
    }
}

/// What the user asks for is what the worker gets: requests and limits are equal, so it is never throttled below nor killed
/// above what the engine plans with.
fn resources(template: &WorkerTemplate) -> ResourceRequirements {
    let quantities = BTreeMap::from([
        ("cpu".to_owned(), Quantity(template.resources.cpu.clone())),
        ("memory".to_owned(), Quantity(template.resources.memory.clone())),
    ]);
    ResourceRequirements { requests: Some(quantities.clone()), limits: Some(quantities), claims: None }
}

/// It fails when the worker's connection or its leases are stuck; not while the operator is away.
fn liveness() -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz".into()),
            port: IntOrString::String("health".into()),
            ..Default::default()
        }),
        initial_delay_seconds: Some(20),
        period_seconds: Some(20),
        timeout_seconds: Some(5),
        failure_threshold: Some(6),
        ..Default::default()
    }
}

fn env(pool: &ValidPool, settings: &Settings) -> Vec<EnvVar> {
    let value =
        |name: &str, value: String| EnvVar { name: name.into(), value: Some(value), value_from: None };
    let field = |name: &str, path: &str| EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.into(), api_version: None }),
            ..Default::default()
        }),
    };
    let grace = (pool.template.termination_grace_period_seconds - FAREWELL_SECONDS).max(1);
    let mut env = vec![
        field("ARBORIST_POD_NAMESPACE", "metadata.namespace"),
        field("ARBORIST_POD_NAME", "metadata.name"),
        value("ARBORIST_WORKER_NAME", "$(ARBORIST_POD_NAMESPACE)/$(ARBORIST_POD_NAME)".into()),
        field("ARBORIST_NODE", "spec.nodeName"),
        value("ARBORIST_CONNECT", settings.dispatch_address()),
        value("ARBORIST_CA_CERT", format!("{MOUNT}/{CA_KEY}")),
        value("ARBORIST_TOKEN_FILE", format!("{MOUNT}/token")),
        value("ARBORIST_CORES", pool.capacity.cores.to_string()),
        // all of it: the profile's needs include what the process itself takes, and a 64Gi pod takes a 64Gi task
        value("ARBORIST_MEMORY_MIB", pool.capacity.memory_mib.to_string()),
        value("ARBORIST_GRACE", grace.to_string()),
        value("ARBORIST_LOG_FORMAT", "json".into()),
        value("ARBORIST_HEALTH_ADDRESS", format!("[::]:{HEALTH_PORT}")),
        value("ARBORIST_BACKEND", backend_name(pool.backend.type_).into()),
    ];
    // without it a worker takes all
    if pool.kinds != KindSet::ALL {
        env.push(value("ARBORIST_KINDS", pool.kinds.to_string()));
    }
    env.extend(backend_env(&pool.backend).into_iter().map(|(name, setting)| value(name, setting)));
    env.extend(pool.template.env.iter().cloned());
    env
}

fn backend_env(backend: &Backend) -> Vec<(&'static str, String)> {
    let mut env = vec![];
    if let Some(process) = &backend.process {
        env.push(("ARBORIST_PLUGIN", process.plugin.clone()));
        env.extend(process.keys.clone().map(|keys| ("ARBORIST_PLUGIN_KEYS", keys)));
    }
    if let Some(fake) = &backend.fake {
        env.extend(fake.millis.clone().map(|millis| ("ARBORIST_FAKE_MILLIS", millis)));
        env.extend(fake.faults.clone().map(|faults| ("ARBORIST_FAKE_FAULTS", faults)));
    }
    env
}

fn volumes(template: &WorkerTemplate) -> Vec<Volume> {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(TOKEN_AUDIENCE.into()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".into(),
        }),
        ..Default::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: CA_CONFIG_MAP.into(),
            items: Some(vec![KeyToPath { key: CA_KEY.into(), path: CA_KEY.into(), mode: None }]),
            optional: Some(false),
        }),
        ..Default::default()
    };
    let [login, tmp] = VOLUMES.map(|name| Volume { name: name.into(), ..Default::default() });
    let projected = ProjectedVolumeSource { default_mode: None, sources: Some(vec![token, authority]) };
    let mut volumes = vec![
        Volume { projected: Some(projected), ..login },
        Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..tmp },
    ];
    volumes.extend(template.volumes.iter().cloned());
    volumes
}

fn mounts(template: &WorkerTemplate) -> Vec<VolumeMount> {
    let [login, tmp] = VOLUMES.map(|name| VolumeMount { name: name.into(), ..Default::default() });
    let mut mounts = vec![
        VolumeMount { mount_path: MOUNT.into(), read_only: Some(true), ..login },
        VolumeMount { mount_path: "/tmp".into(), ..tmp },
    ];
    // a user's own /tmp takes the place of ours
    mounts.retain(|mount| {
        template.volume_mounts.iter().all(|user| user.mount_path.trim_end_matches('/') != mount.mount_path)
    });
    mounts.extend(template.volume_mounts.iter().cloned());
    mounts
}
