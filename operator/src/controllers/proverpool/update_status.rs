//! The fifth step: one write of the status, at most every two seconds and only when it says something new; then an event
//! for each condition that flipped.

use super::Shop;
use super::apply::Applied;
use super::dereference::Seen;
use super::findings;
use super::memory::Written;
use super::pod::selector;
use super::validate::{PoolKey, ValidPool};
use crate::api::conditions::{Condition, MAX_MESSAGE, Status, cut, merge, pool as types};
use crate::api::{MANAGER, ProverPool, ProverPoolStatus};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource};
use serde_json::json;
use std::time::{Duration, Instant};

/// Two writes of one status are so far apart.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest `wantedBecause`.
const MAX_BECAUSE: usize = 300;

/// Writes what is so after `applied`. Returns after what time there is more to write, if there is.
pub(super) async fn run(
    shop: &Shop,
    pool: &ProverPool,
    valid: &ValidPool,
    seen: &Seen,
    applied: &Applied,
) -> Result<Option<Duration>, kube::Error> {
    let old = latest(shop, &valid.key, pool);
    let status = status(valid, seen, applied, &old, jiff::Timestamp::now());
    write(shop, pool, &valid.key, old, status).await
}

/// The status as it is: what was written last while the watch has not told of that, else what the watch tells, which
/// others may have changed.
fn latest(shop: &Shop, key: &PoolKey, pool: &ProverPool) -> ProverPoolStatus {
    let told = version(pool);
    let is_newer = |written: &&Written| written.version.is_none() || told < written.version;
    let written = shop
        .fleet
        .with(key, |memory| memory.written.as_ref().filter(is_newer).map(|written| written.status.clone()));
    let mut status = written.unwrap_or_else(|| pool.status.clone().unwrap_or_default());
    // others' conditions stay theirs, and the order is ours
    let of = |type_: &&str| status.conditions.iter().find(|condition| condition.type_ == **type_).cloned();
    status.conditions = types::ALL.iter().filter_map(of).collect();
    status
}

/// A pool's version. Versions of one object can be compared: the API server counts.
fn version(pool: &ProverPool) -> Option<u64> {
    pool.metadata.resource_version.as_ref()?.parse().ok()
}

/// What is so.
pub(super) fn status(
    valid: &ValidPool,
    seen: &Seen,
    applied: &Applied,
    old: &ProverPoolStatus,
    now: jiff::Timestamp,
) -> ProverPoolStatus {
    let counts = &seen.census.counts;
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let labels: Vec<String> =
        selector(&valid.key.name).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let absent = counts.arriving + counts.pending + counts.stuck;
    let starting = absent - counts.unschedulable + seen.census.expected + applied.created;
    ProverPoolStatus {
        observed_generation: valid.generation,
        replicas: number(counts.there()),
        selector: labels.join(","),
        wanted: number(seen.planned.wanted.pods),
        wanted_because: match &seen.invalid {
            None => cut(&seen.planned.wanted.because.to_string(), MAX_BECAUSE),
            Some(_) => "0: the spec can't be built".into(),
        },
        starting: number(starting),
        idle: number(counts.idle),
        busy: number(counts.busy),
        draining: number(counts.draining),
        unschedulable: number(counts.unschedulable),
        startup_seconds: seen.startup.map_or(old.startup_seconds, number),
        conditions: merge(
            &old.conditions,
            &types::ALL,
            &findings::findings(valid, seen),
            valid.generation,
            now,
        ),
    }
}

async fn write(
    shop: &Shop,
    pool: &ProverPool,
    key: &PoolKey,
    old: ProverPoolStatus,
    status: ProverPoolStatus,
) -> Result<Option<Duration>, kube::Error> {
    let last = shop.fleet.with(key, |memory| memory.written.as_ref().map(|written| written.when));
    if status == old && (last.is_some() || pool.status.is_some()) {
        return Ok(None);
    }
    if let Some(wait) = last.and_then(|last| PAUSE.checked_sub(last.elapsed())).filter(|wait| !wait.is_zero())
    {
        return Ok(Some(wait));
    }
    let api: Api<ProverPool> = Api::namespaced(shop.client.clone(), &key.namespace);
    let patch = json!({
        "apiVersion": ProverPool::api_version(&()),
        "kind": ProverPool::kind(&()),
        // not that of a pool made anew under the same name
        "metadata": {"uid": pool.metadata.uid},
        "status": status,
    });
    let how = PatchParams::apply(MANAGER).force();
    let after = api.patch_status(&key.name, &how, &Patch::Apply(patch)).await?;
    let written = Written { status: status.clone(), when: Instant::now(), version: version(&after) };
    shop.fleet.with(key, |memory| memory.written = Some(written));
    for event in events(&old.conditions, &status) {
        // an event tells of what the status says anyway: one that is lost is no reason to fail
        if let Err(error) = shop.recorder.publish(&event, &pool.object_ref(&())).await {
            tracing::debug!(%error, "an event was not taken");
        }
    }
    Ok(None)
}

/// An event for each condition that flipped, or is bad for another reason than before.
fn events(old: &[Condition], status: &ProverPoolStatus) -> Vec<Event> {
    let before = |type_: &str| old.iter().find(|condition| condition.type_ == type_);
    let told = status.conditions.iter().filter_map(|now| {
        let before = before(&now.type_);
        let flipped = before.map_or(Status::Unknown, |before| before.status) != now.status;
        let other_reason = before.is_some_and(|before| before.reason != now.reason);
        let bad = is_bad(now);
        // that all is well at the beginning is no news; that pods are made is
        let first = before.is_none_or(|before| before.status == Status::Unknown);
        let scales = now.type_ == types::SCALING && now.status == Status::True;
        let news = if bad { flipped || other_reason } else { flipped && (scales || !first) };
        (news && now.status != Status::Unknown).then(|| event(now, bad, &status.wanted_because))
    });
    told.collect()
}

fn is_bad(condition: &Condition) -> bool {
    let starts = condition.reason == crate::api::conditions::reason::STARTING;
    match condition.type_.as_str() {
        types::READY => condition.status == Status::False && !starts,
        types::STARVED | types::CAPACITY_LIMITED => condition.status == Status::True,
        _ => false,
    }
}

fn event(condition: &Condition, bad: bool, because: &str) -> Event {
    let scaling = condition.type_ == types::SCALING && condition.status == Status::True;
    let note =
        if scaling { format!("{}; wanted {because}", condition.message) } else { condition.message.clone() };
    Event {
        type_: if bad { EventType::Warning } else { EventType::Normal },
        reason: condition.reason.clone(),
        note: Some(cut(&note, 2 * MAX_MESSAGE)).filter(|note| !note.is_empty()),
        action: condition.type_.clone(),
        secondary: None,
    }
}
