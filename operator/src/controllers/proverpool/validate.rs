//! The second step: from what a user wrote to what can be built.

use crate::api::{
    Backend, BackendType, BadQuantity, CapacityType, CircuitKind, LABEL_MANAGED_BY, LABEL_POOL, ProverPool,
    ScalingMode, WorkerTemplate, parse_cores, parse_duration, parse_memory_mib, parse_price_micros,
};
use crate::controllers::Settings;
use crate::kubernetes::pods::{LABEL_NAME, LABEL_TEMPLATE};
use arborist_core::circuit::{Kind, KindSet};
use arborist_core::engine::Serves;
use arborist_core::plan::Scaling;
use arborist_core::profile::{Needs, Profile};
use std::time::Duration;

/// The longest name of a pool: its pods have six characters more, and it is a label's value.
const MAX_NAME: usize = 57;
/// Where the worker's token and certificates are mounted.
pub(super) const MOUNT: &str = "/var/run/arborist";

/// Instead of a time in a spec that can't be read.
const UNREADABLE: Duration = Duration::from_secs(60);

/// A pool's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PoolKey {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl PoolKey {
    /// A pool's key; `None` for an object that no API server would send.
    pub(super) fn of(pool: &ProverPool) -> Option<Self> {
        Some(Self { namespace: pool.metadata.namespace.clone()?, name: pool.metadata.name.clone()? })
    }
}

/// A pool that can be built.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ValidPool {
    pub(super) key: PoolKey,
    pub(super) uid: String,
    pub(super) generation: i64,
    /// Kinds that it takes.
    pub(super) kinds: KindSet,
    /// Whose jobs its workers prove.
    pub(super) serves: Serves,
    /// The most pods that all pools of its namespace may have together.
    pub(super) quota: Option<u32>,
    pub(super) capacity: Needs,
    pub(super) price_micros: u64,
    pub(super) priority: i32,
    pub(super) scaling: Scaling,
    /// How long a pod takes to its first proof, until it was measured.
    pub(super) startup: Duration,
    pub(super) scale_down_delay: Duration,
    pub(super) capacity_type: CapacityType,
    pub(super) backend: Backend,
    pub(super) template: WorkerTemplate,
}

/// Why a pool can't be built. The text says what is wrong and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("the object has no namespace, name or uid")]
    Nameless,
    #[error(
        "metadata.name: {0} characters, at most {MAX_NAME} are allowed since its pods are named after it"
    )]
    LongName(usize),
    #[error("spec.{field}: {source}")]
    Quantity { field: &'static str, source: BadQuantity },
    #[error("spec.backend.type: {pool}, but this operator serves backend {operator}")]
    Backend { pool: &'static str, operator: String },
    #[error("spec.circuits: {kind} needs {}, the pool's pods have {}", machine(.needs), machine(.has))]
    TooSmall { kind: Kind, needs: Needs, has: Needs },
    #[error("spec.template.resources: {} are too small for every circuit; the least is {}", machine(.has), machine(.least))]
    FitsNothing { has: Needs, least: Needs },
    #[error("spec.scaling.budgetPerHour: needs spec.pricePerHour above 0")]
    BudgetWithoutPrice,
    #[error("spec.scaling: the budget pays for {pods} pods, fewer than min {min}")]
    BudgetBelowMin { pods: u32, min: u32 },
    #[error("spec.scaling: min {min} is above max {max}")]
    MinAboveMax { min: u32, max: u32 },
    #[error("spec.template.{field}: {name} is the operator's own")]
    Reserved { field: &'static str, name: String },
}

/// Cores and memory as a pool's spec has them.
pub(super) fn machine(needs: &Needs) -> String {
    let memory = match needs.memory_mib {
        mib if mib % 1024 == 0 => format!("{}Gi", mib / 1024),
        mib => format!("{mib}Mi"),
    };
    format!("{} cores and {memory}", needs.cores)
}

/// Checks what the API server can't.
pub(super) fn run(pool: &ProverPool, settings: &Settings) -> Result<ValidPool, Invalid> {
    let key = PoolKey::of(pool).ok_or(Invalid::Nameless)?;
    let uid = pool.metadata.uid.clone().ok_or(Invalid::Nameless)?;
    if key.name.len() > MAX_NAME {
        return Err(Invalid::LongName(key.name.len()));
    }
    let spec = &pool.spec;
    backend(spec.backend.type_, settings)?;
    let capacity = Needs {
        cores: quantity("template.resources.cpu", parse_cores(&spec.template.resources.cpu))?,
        memory_mib: quantity("template.resources.memory", parse_memory_mib(&spec.template.resources.memory))?,
    };
    let price = spec.price_per_hour.as_deref().map(parse_price_micros).transpose();
    let price = quantity("pricePerHour", price)?;
    reserved(&spec.template)?;
    Ok(ValidPool {
        kinds: kinds(&spec.circuits, capacity, &settings.profile)?,
        serves: settings.tenants.serves(&key.namespace, &spec.job_namespaces),
        quota: settings.tenants.limits(&key.namespace).pods,
        scaling: scaling(pool, price)?,
        startup: quantity("scaling.startupEstimate", parse_duration(&spec.scaling.startup_estimate))?,
        scale_down_delay: quantity("scaling.scaleDownDelay", parse_duration(&spec.scaling.scale_down_delay))?,
        key,
        uid,
        generation: pool.metadata.generation.unwrap_or_default(),
        capacity,
        price_micros: price.unwrap_or_default(),
        priority: spec.priority,
        capacity_type: spec.capacity_type,
        backend: spec.backend.clone(),
        template: spec.template.clone(),
    })
}

/// A pool whose spec can't be built, as one that may have no pods: those it has go once they have nothing to do.
pub(super) fn without_pods(pool: &ProverPool, settings: &Settings) -> Option<ValidPool> {
    let spec = &pool.spec;
    let duration = |text: &str| parse_duration(text).unwrap_or(UNREADABLE);
    Some(ValidPool {
        key: PoolKey::of(pool)?,
        uid: pool.metadata.uid.clone()?,
        generation: pool.metadata.generation.unwrap_or_default(),
        kinds: Default::default(),
        serves: settings.tenants.serves(pool.metadata.namespace.as_deref()?, &spec.job_namespaces),
        quota: None,
        capacity: Needs { cores: 0, memory_mib: 0 },
        price_micros: 0,
        priority: 0,
        scaling: Scaling::Deadline { min: 0, max: 0, budget: None },
        startup: duration(&spec.scaling.startup_estimate),
        scale_down_delay: duration(&spec.scaling.scale_down_delay),
        capacity_type: spec.capacity_type,
        backend: spec.backend.clone(),
        template: spec.template.clone(),
    })
}

fn quantity<T>(field: &'static str, result: Result<T, BadQuantity>) -> Result<T, Invalid> {
    result.map_err(|source| Invalid::Quantity { field, source })
}

/// A backend's name as workers and the operator have it.
pub(super) fn backend_name(type_: BackendType) -> &'static str {
    match type_ {
        BackendType::Plonky2 => "plonky2",
        BackendType::Process => "process",
        BackendType::Fake => "fake",
    }
}

fn backend(type_: BackendType, settings: &Settings) -> Result<(), Invalid> {
    let pool = backend_name(type_);
    if pool == settings.backend {
        return Ok(());
    }
    Err(Invalid::Backend { pool, operator: settings.backend.clone() })
}

fn kind(circuit: CircuitKind) -> Kind {
    match circuit {
        CircuitKind::Vm => Kind::Vm,
        CircuitKind::Kernel => Kind::Kernel,
        CircuitKind::Base => Kind::Base,
        CircuitKind::Merge => Kind::Merge,
        CircuitKind::Root => Kind::Root,
    }
}

/// The kinds listed, which must fit, or all: those that don't fit now are never placed there.
fn kinds(circuits: &[CircuitKind], has: Needs, profile: &Profile) -> Result<KindSet, Invalid> {
    let fits = |needs: Needs| needs.cores <= has.cores && needs.memory_mib <= has.memory_mib;
    let listed = circuits.iter().map(|circuit| kind(*circuit));
    if let Some(kind) = listed.clone().find(|kind| !fits(profile.needs(*kind))) {
        return Err(Invalid::TooSmall { kind, needs: profile.needs(kind), has });
    }
    if !profile.needs.iter().any(|needs| fits(*needs)) {
        let least = profile.needs.iter().copied().min().unwrap_or(has);
        return Err(Invalid::FitsNothing { has, least });
    }
    Ok(if circuits.is_empty() { KindSet::ALL } else { listed.collect() })
}

fn scaling(pool: &ProverPool, price: Option<u64>) -> Result<Scaling, Invalid> {
    let scaling = &pool.spec.scaling;
    let count = |count: i32| u32::try_from(count).unwrap_or_default();
    let budget = scaling.budget_per_hour.as_deref().map(parse_price_micros).transpose();
    let budget = match (quantity("scaling.budgetPerHour", budget)?, price) {
        (None, _) => None,
        (Some(_), None | Some(0)) => return Err(Invalid::BudgetWithoutPrice),
        (Some(budget), Some(price)) => Some(u32::try_from(budget / price).unwrap_or(u32::MAX)),
    };
    if scaling.mode == ScalingMode::Fixed {
        return Ok(Scaling::Fixed(count(scaling.replicas.unwrap_or_default())));
    }
    let (min, max) = (count(scaling.min), count(scaling.max));
    if min > max {
        return Err(Invalid::MinAboveMax { min, max });
    }
    if let Some(pods) = budget.filter(|pods| *pods < min) {
        return Err(Invalid::BudgetBelowMin { pods, min });
    }
    Ok(Scaling::Deadline { min, max, budget })
}

/// Names that the operator's own part of a pod has.
fn reserved(template: &WorkerTemplate) -> Result<(), Invalid> {
    let own = |field, name: &str| Err(Invalid::Reserved { field, name: name.to_owned() });
    let labels = [LABEL_MANAGED_BY, LABEL_NAME.0, LABEL_POOL, LABEL_TEMPLATE, super::pod::CAPACITY_TYPE];
    if let Some(label) = template.labels.keys().find(|label| labels.contains(&label.as_str())) {
        return own("labels", label);
    }
    if let Some(env) = template.env.iter().find(|env| env.name.starts_with("ARBORIST_")) {
        return own("env", &env.name);
    }
    if let Some(volume) =
        template.volumes.iter().find(|volume| super::pod::VOLUMES.contains(&volume.name.as_str()))
    {
        return own("volumes", &volume.name);
    }
    let path = |mount: &str| mount.trim_end_matches('/') == MOUNT || mount.starts_with(&format!("{MOUNT}/"));
    match template.volume_mounts.iter().find(|mount| path(&mount.mount_path)) {
        Some(mount) => own("volumeMounts", &mount.mount_path),
        None => Ok(()),
    }
}
