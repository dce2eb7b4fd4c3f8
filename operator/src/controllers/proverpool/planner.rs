//! Decides when the plan is made anew: when pods or pools change, and every second while there is work or something
//! moves. Nothing is asked of the API server here.

use super::census::Moment;
use super::fleet::Totals;
use super::validate::PoolKey;
use super::{Guarded, Shop};
use crate::api::ProverPool;
use crate::api::conditions::{is_true, pool as condition};
use crate::controllers::Scope;
use crate::kubernetes::{Metrics, Trust};
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Work that becomes ready is seen after so long.
const TICK: Duration = Duration::from_secs(1);
/// Changes that come together are taken together: a start of thousands of pods is thousands of events.
const COALESCE: Duration = Duration::from_millis(100);
/// At rest the plan is made anew after so many ticks all the same, in case something happened that nobody told.
const AT_REST: u32 = 15;

/// The pools of a scope, and the controller that visits them.
pub(super) struct Desk {
    pub(super) scope: Scope,
    pub(super) store: Store<Guarded>,
    pub(super) visit: UnboundedSender<ObjectRef<Guarded>>,
}

/// Makes plans until `stop`.
pub(super) async fn run(shop: Arc<Shop>, desks: Vec<Desk>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut settled_for = 0;
    loop {
        let woken = tokio::select! {
            () = shop.fleet.wake.notified() => true,
            _ = tick.tick() => false,
            () = stop.cancelled() => return,
        };
        if !woken && (1..AT_REST).contains(&settled_for) && shop.workforce.demand(Duration::ZERO).is_empty() {
            settled_for += 1;
            continue;
        }
        if let Some(trust) = &shop.trust {
            serve_namespaces(trust, &desks);
        }
        let pools: Vec<_> = desks.iter().flat_map(|desk| pools(&desk.store)).collect();
        let pass = shop.fleet.plan(
            &pools,
            &*shop.workforce,
            &shop.book,
            &shop.settings,
            Moment::now(&*shop.workforce),
        );
        settled_for = u32::from(pass.settled);
        if let Some(metrics) = &shop.metrics {
            count(metrics, &pools, &pass.totals);
        }
        for key in pass.visit {
            visit(&desks, &key);
        }
        // a rate, not a wait: what comes meanwhile is seen by the next pass
        tokio::time::sleep(COALESCE).await;
    }
}

/// Tells which namespaces have pools: also of those that can't be read, whose workers are to trust this operator too.
fn serve_namespaces(trust: &Trust, desks: &[Desk]) {
    let pools: Vec<_> = desks.iter().flat_map(|desk| desk.store.state()).collect();
    trust.serves(pools.iter().filter_map(|pool| pool.meta().namespace.as_deref()));
}

/// The pools of a scope that can be read and stay.
fn pools(store: &Store<Guarded>) -> Vec<(PoolKey, Arc<ProverPool>)> {
    let known = store.state().into_iter().filter_map(|guarded| {
        let pool = guarded.0.as_ref().ok()?;
        let stays = pool.metadata.deletion_timestamp.is_none();
        Some((PoolKey::of(pool).filter(|_| stays)?, Arc::new(pool.clone())))
    });
    known.collect()
}

fn visit(desks: &[Desk], key: &PoolKey) {
    let serves = |desk: &&Desk| match &desk.scope {
        Scope::Cluster => true,
        Scope::Namespace(namespace) => *namespace == key.namespace,
    };
    if let Some(desk) = desks.iter().find(serves) {
        // without a receiver the controller is stopping
        let _ = desk.visit.send(ObjectRef::new(&key.name).within(&key.namespace));
    }
}

fn count(metrics: &Metrics, pools: &[(PoolKey, Arc<ProverPool>)], totals: &Totals) {
    let states = [
        ("idle", totals.idle),
        ("busy", totals.busy),
        ("draining", totals.draining),
        ("starting", totals.starting),
        ("stuck", totals.stuck),
    ];
    for (state, pods) in states {
        metrics.pods.with_label_values(&[state]).set(pods.into());
    }
    metrics.pods_wanted.set(totals.wanted.into());
    for type_ in condition::ALL {
        let says = |pool: &ProverPool| pool.status.as_ref().is_some_and(|s| is_true(&s.conditions, type_));
        let pools = pools.iter().filter(|(_, pool)| says(pool)).count();
        metrics.pools.with_label_values(&[type_]).set(i64::try_from(pools).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn pools_count_under_each_condition_that_is_true() {
        let pool = |name: &str, conditions: Value| {
            let pool = json!({
                "apiVersion": "arborist.dev/v1alpha1", "kind": "ProverPool",
                "metadata": {"name": name, "namespace": "prod"},
                "spec": {"circuits": ["vm"], "template": {"resources": {"cpu": "1", "memory": "1Gi"}}},
                "status": {"conditions": conditions},
            });
            let pool: ProverPool = serde_json::from_value(pool).unwrap();
            (PoolKey::of(&pool).unwrap(), Arc::new(pool))
        };
        let says = |type_: &str, status: &str| {
            json!({
                "type": type_, "status": status, "reason": "R", "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let pools = [
            pool("a", json!([says("Ready", "True"), says("Scaling", "True"), says("Starved", "False")])),
            pool("b", json!([says("Ready", "True"), says("Scaling", "Unknown")])),
            pool("new", json!([])),
        ];
        let metrics = Metrics::new().unwrap();
        count(&metrics, &pools, &Totals { wanted: 3, ..Totals::default() });
        for (condition, expected) in [("Ready", 2), ("Scaling", 1), ("Starved", 0), ("CapacityLimited", 0)] {
            let line = format!("arborist_pools{{condition=\"{condition}\"}} {expected}");
            assert!(metrics.text().lines().any(|l| l == line), "{line}\n{}", metrics.text());
        }
        count(&metrics, &pools[1..], &Totals::default());
        assert!(metrics.text().contains("arborist_pools{condition=\"Scaling\"} 0"), "a pool that went");
    }
}
