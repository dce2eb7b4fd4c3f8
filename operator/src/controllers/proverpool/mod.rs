//! The controller of ProverPools: as many worker pods as the jobs can use, where there is room for them.
//!
//! The plan ([`planner`]) decides for all pools together how many pods each should have; a visit ([`reconcile`]) brings
//! one pool there. Pods are known from the pod book, workers from the engine: neither asks the API server.

mod apply;
mod build;
mod census;
mod decide;
mod dereference;
mod findings;
mod fleet;
mod losses;
mod memory;
mod planner;
mod pod;
#[cfg(test)]
mod tests;
mod update_status;
mod validate;
mod workforce;

use self::census::Moment;
use self::fleet::Fleet;
use self::planner::Desk;
use self::validate::PoolKey;
use self::workforce::Workforce;
use super::{Context, Outcome, Scope, Settings, VISIT};
use crate::api::ProverPool;
use crate::api::conditions::reason;
use crate::kubernetes::patience;
use crate::kubernetes::pods::{Change, PodBook};
use crate::kubernetes::{Gate, Metrics, Trust};
use arborist_system::watchdog::Watchdog;
use futures::StreamExt;
use kube::Client;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::Recorder;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A pool that may not be readable: one that another version wrote holds up no other.
type Guarded = DeserializeGuard<ProverPool>;

/// A visit that waits for the plan comes again after so long; the plan calls for it sooner.
const PLAN_WAIT: Duration = Duration::from_secs(5);
/// The longest pause after visits that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What all visits share.
struct Shop {
    client: Client,
    settings: Settings,
    recorder: Recorder,
    trust: Option<Arc<Trust>>,
    metrics: Option<Arc<Metrics>>,
    watchdog: Watchdog,
    workforce: Arc<dyn Workforce>,
    gate: Gate,
    book: PodBook,
    fleet: Fleet,
    /// Pods being made and deleted.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Serves the ProverPools of all scopes until `stop`. The book is kept by [`watch`](crate::kubernetes::pods::watch), one for each scope.
///
/// The leader runs it, once for all scopes: pools of different namespaces serve the same jobs. While `gate`, the client's,
/// is closed pods are left as they are. When it returns nothing of it writes any more.
pub async fn run(ctx: Arc<Context>, pods: PodBook, gate: Gate, stop: CancellationToken) {
    let shop = Arc::new(Shop {
        client: ctx.client.clone(),
        settings: ctx.settings.clone(),
        recorder: ctx.recorder.clone(),
        trust: Some(ctx.trust.clone()),
        metrics: Some(ctx.metrics.clone()),
        watchdog: ctx.watchdog.clone(),
        workforce: Arc::new(ctx.dispatcher.clone()),
        gate,
        book: pods,
        fleet: Fleet::default(),
        tasks: TaskTracker::new(),
        stop: stop.clone(),
    });
    serve(&shop).await;
    shop.tasks.close();
    shop.tasks.wait().await;
}

async fn serve(shop: &Arc<Shop>) {
    let scopes = shop.settings.scopes.clone();
    let news = shop.book.subscribe();
    let (desks, controllers): (Vec<_>, Vec<_>) = scopes.iter().map(|scope| control(shop, scope)).unzip();
    let plan = async {
        let ready = async {
            // a plan that did not know of a pod would have it made once more
            shop.book.synced(scopes.len()).await;
            for desk in &desks {
                let _ = desk.store.wait_until_ready().await;
            }
        };
        tokio::select! {
            () = ready => {}
            () = shop.stop.cancelled() => return,
        }
        losses::sweep(&*shop.workforce, &shop.book, &scopes);
        planner::run(shop.clone(), desks, shop.stop.clone()).await;
    };
    tokio::join!(hear(shop.clone(), news), futures::future::join_all(controllers), plan);
}

/// Tells the engine at once of pods that end, and the plan of all that changes.
async fn hear(shop: Arc<Shop>, mut news: UnboundedReceiver<Change>) {
    loop {
        let change = tokio::select! {
            Some(change) = news.recv() => change,
            () = shop.stop.cancelled() => return,
        };
        if let Some(pod) = change.pod() {
            let losses = losses::losses(&change, jiff::Timestamp::now());
            if let Some(metrics) = &shop.metrics {
                let kills = losses.iter().filter(|loss| matches!(loss, losses::Loss::OutOfMemory(_))).count();
                metrics.memory_kills.inc_by(kills as u64);
            }
            losses::tell(&*shop.workforce, pod.worker(), losses);
        }
        shop.fleet.wake.notify_one();
    }
}

/// A scope's controller, and what the plan needs of it.
fn control(shop: &Arc<Shop>, scope: &Scope) -> (Desk, impl Future<Output = ()> + use<>) {
    let (visit, mut visits) = tokio::sync::mpsc::unbounded_channel();
    let api = scope.api::<Guarded>(&shop.client);
    let controller = Controller::new(api, patience::watches()).trigger_backoff(patience::of_watches());
    let desk = Desk { scope: scope.clone(), store: controller.store(), visit };
    let visits = futures::stream::poll_fn(move |task| visits.poll_recv(task));
    let stop = shop.stop.clone();
    let stream = controller
        .reconcile_on(visits)
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(visit_pool, again_after_error, shop.clone());
    let serve = stream.for_each(|ended| async {
        if let Err(error) = ended {
            tracing::debug!(%error, "a visit of a pool failed");
        }
    });
    (desk, serve)
}

/// Why a visit failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the status of {namespace}/{name} was not written")]
    Status { namespace: String, name: String, source: kube::Error },
}

async fn visit_pool(guarded: Arc<Guarded>, shop: Arc<Shop>) -> Result<Action, Error> {
    let began = Instant::now();
    let _visit = shop.watchdog.watch("a visit of a ProverPool", VISIT);
    let ended = match &guarded.0 {
        Ok(pool) => reconcile(pool, &shop).await,
        Err(unreadable) => {
            let name = unreadable.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(pool = name, error = %unreadable.error, "a pool can't be read");
            Ok(Outcome::Settled)
        }
    };
    if let Some(metrics) = &shop.metrics {
        metrics.reconciled::<ProverPool, _>(began.elapsed(), &ended);
    }
    Ok(match ended? {
        Outcome::Applied(Some(again)) | Outcome::Waiting { again, .. } => Action::requeue(again),
        Outcome::Applied(None) | Outcome::Settled => Action::await_change(),
    })
}

/// Brings one pool to what is wanted of it.
async fn reconcile(pool: &ProverPool, shop: &Arc<Shop>) -> Result<Outcome, Error> {
    let Some(key) = PoolKey::of(pool) else { return Ok(Outcome::Settled) };
    // its pods go with it: they are its own
    if pool.metadata.deletion_timestamp.is_some() {
        shop.fleet.wake.notify_one();
        return Ok(Outcome::Settled);
    }
    let failed = |source| Error::Status { namespace: key.namespace.clone(), name: key.name.clone(), source };
    let prepared = shop.fleet.prepare(&key, pool, &shop.settings);
    let Some(valid) = &prepared.pool else { return Ok(Outcome::Settled) };
    let Some(seen) = dereference::run(shop, valid, &prepared.template, Moment::now(&*shop.workforce)) else {
        shop.fleet.wake.notify_one();
        return Ok(Outcome::Waiting { reason: reason::PENDING, again: PLAN_WAIT });
    };
    let built = build::run(valid, prepared.template.as_ref().ok(), &seen);
    let applied = apply::run(shop, &key, &prepared, built);
    if seen.census.counts.arriving + seen.census.counts.stuck > 0 {
        apply::renew_trust(shop, &key);
    }
    let again = update_status::run(shop, pool, valid, &seen, &applied).await.map_err(failed)?;
    shop.fleet.with(&key, |memory| memory.failures = 0);
    Ok(Outcome::Applied(again))
}

/// Visits that fail come again later each time. The plan goes on calling for the pool meanwhile when there is something to
/// do: pods don't wait for a status.
fn again_after_error(guarded: Arc<Guarded>, error: &Error, shop: Arc<Shop>) -> Action {
    let Error::Status { source, .. } = error;
    tracing::warn!(%error, %source, "a pool's status is written later");
    let failures = match guarded.0.as_ref().ok().and_then(PoolKey::of) {
        Some(key) => shop.fleet.with(&key, |memory| {
            memory.failures = memory.failures.saturating_add(1);
            memory.failures
        }),
        None => 1,
    };
    let pause = Duration::from_millis(500 << failures.min(7)).min(LONGEST_PAUSE);
    Action::requeue(pause.mul_f64(0.8 + 0.2 * rand::random::<f64>()))
}
