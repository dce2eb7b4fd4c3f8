//! Decides when the plan is made anew: when pods or pools change, and every second while there is work or something
//! moves. Nothing is asked of the API server here.

use super::census::Moment;
use super::fleet::{Pass, Totals};
use super::validate::PoolKey;
use super::{Guarded, Shop};
use crate::api::ProverPool;
use crate::controllers::Scope;
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
        let pass = pass(&shop, &desks);
        settled_for = u32::from(pass.settled);
        count(&shop, &pass.totals);
        for key in pass.visit {
            visit(&desks, &key);
        }
        // a rate, not a wait: what comes meanwhile is seen by the next pass
        tokio::time::sleep(COALESCE).await;
    }
}

fn pass(shop: &Shop, desks: &[Desk]) -> Pass {
    let pools: Vec<(PoolKey, Arc<ProverPool>)> = desks.iter().flat_map(|desk| pools(&desk.store)).collect();
    shop.fleet.plan(&pools, &*shop.workforce, &shop.book, &shop.settings, Moment::now())
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

fn count(shop: &Shop, totals: &Totals) {
    let Some(metrics) = &shop.metrics else { return };
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
}
