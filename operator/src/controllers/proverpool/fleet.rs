//! All pools together: what each should have is decided in one place, since several may serve one class of tasks.

use super::census::{Census, Counts, Moment, Rules, Workers};
use super::memory::{Planned, PoolMemory, Prepared};
use super::pod::Template;
use super::validate::{self, PoolKey, ValidPool};
use super::workforce::Workforce;
use crate::api::ProverPool;
use crate::controllers::Settings;
use crate::kubernetes::pods::PodBook;
use arborist_core::engine::WorkerBrief;
use arborist_core::plan::{self, PoolView, Quota, Wanted};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Tasks that will be ready within a start's time count; of longer starts only so much, or pods would wait for
/// their tasks for long.
const HORIZON: Duration = Duration::from_secs(300);

/// What is shared by the visits of all pools.
#[derive(Default)]
pub(super) struct Fleet {
    state: Mutex<State>,
    /// Something has changed that the plan depends on.
    pub(super) wake: Notify,
}

#[derive(Default)]
pub(super) struct State {
    /// The engine's workers at the last plan.
    pub(super) workers: Arc<Workers>,
    pub(super) pools: HashMap<PoolKey, PoolMemory>,
}

/// What a pass of the plan found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pass {
    /// Pools to visit.
    pub(super) visit: Vec<PoolKey>,
    /// Nothing is to be done until something changes.
    pub(super) settled: bool,
    /// Pods by state, and wanted, of all pools.
    pub(super) totals: Totals,
}

/// Over all pools.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) idle: u32,
    pub(super) busy: u32,
    pub(super) draining: u32,
    pub(super) starting: u32,
    pub(super) stuck: u32,
    pub(super) wanted: u32,
}

impl Fleet {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of a pool; made when there is nothing yet.
    pub(super) fn with<R>(&self, key: &PoolKey, act: impl FnOnce(&mut PoolMemory) -> R) -> R {
        act(self.lock().pools.entry(key.clone()).or_default())
    }

    /// A pool's spec checked, and its template.
    pub(super) fn prepare(&self, key: &PoolKey, pool: &ProverPool, settings: &Settings) -> Arc<Prepared> {
        self.lock().prepare(key, pool, settings)
    }

    /// Decides anew how many pods each pool should have.
    pub(super) fn plan(
        &self,
        pools: &[(PoolKey, Arc<ProverPool>)],
        workforce: &dyn Workforce,
        book: &PodBook,
        settings: &Settings,
        now: Moment,
    ) -> Pass {
        // asked before the lock is taken: the engine has one of its own
        let workers: Workers = workforce.workers().into_iter().map(named).collect();
        let Look { seen, horizon, moved } = self.lock().look(pools, Arc::new(workers), book, settings, now);
        moved.iter().for_each(|worker| workforce.log_in_anew(worker));
        let demand = workforce.demand(horizon);
        let views: Vec<PoolView> = seen.iter().map(|seen| seen.view.clone()).collect();
        let wanted = plan::wanted(&demand, &views);
        let mut pass = self.lock().publish(seen, wanted, now);
        pass.settled &= demand.is_empty();
        pass
    }
}

/// A worker under its name.
fn named(mut worker: WorkerBrief) -> (String, WorkerBrief) {
    (std::mem::take(&mut worker.name), worker)
}

/// A pool as the plan sees it.
struct Seen {
    key: PoolKey,
    generation: i64,
    view: PoolView,
    census: Census,
}

/// All pools at one moment.
struct Look {
    seen: Vec<Seen>,
    /// Tasks that will be ready within this time count.
    horizon: Duration,
    /// Workers whose pool serves others than when they logged in.
    moved: Vec<String>,
}

impl State {
    fn prepare(&mut self, key: &PoolKey, pool: &ProverPool, settings: &Settings) -> Arc<Prepared> {
        let memory = self.pools.entry(key.clone()).or_default();
        let (uid, generation) = (&pool.metadata.uid, pool.metadata.generation);
        if let Some(known) = memory.prepared.as_ref().filter(|p| p.uid == *uid && p.generation == generation)
        {
            return known.clone();
        }
        if memory.prepared.as_ref().is_some_and(|prepared| prepared.uid != *uid) {
            // a pool made anew under the same name
            *memory = PoolMemory::default();
        }
        let (valid, template) = match validate::run(pool, settings) {
            Ok(valid) => {
                let template = Template::new(&valid, settings);
                (Some(valid), Ok(template))
            }
            Err(why) => (validate::without_pods(pool, settings), Err(why)),
        };
        if memory.prepared.is_some() {
            // an edit may be what was missing
            memory.refusals.clear();
            memory.rejections.clear();
            memory.limited_until = None;
        }
        memory.startups.recall(pool.status.as_ref().map_or(0, |status| status.startup_seconds));
        let prepared = Arc::new(Prepared { uid: uid.clone(), generation, pool: valid, template });
        memory.prepared = Some(prepared.clone());
        prepared
    }

    /// Takes stock of all pools.
    fn look(
        &mut self,
        pools: &[(PoolKey, Arc<ProverPool>)],
        workers: Arc<Workers>,
        book: &PodBook,
        settings: &Settings,
        now: Moment,
    ) -> Look {
        self.pools.retain(|key, _| pools.iter().any(|(known, _)| known == key));
        let (mut seen, mut horizon, mut moved) = (vec![], Duration::ZERO, vec![]);
        for (key, pool) in pools {
            let prepared = self.prepare(key, pool, settings);
            let Some(valid) = &prepared.pool else { continue };
            let template = prepared.template.as_ref().ok().map(|template| &*template.hash);
            let Some(memory) = self.pools.get_mut(key) else { continue };
            moved.extend(book.pool_lives(&key.namespace, &key.name, &valid.uid, &valid.serves));
            let pods = book.of_pool(&key.namespace, &key.name);
            memory.note(&pods, &workers, now);
            let grace = memory.grace(valid);
            let rules = Rules { template, grace, delay: valid.scale_down_delay };
            let census = Census::take(pods, &workers, &memory.absent, &rules, now);
            if census.counts.stuck > 0 {
                memory.limited_until = Some(now.instant + grace);
            }
            horizon = horizon.max(memory.startup(valid));
            let view = view(valid, &census, memory, now);
            seen.push(Seen { key: key.clone(), generation: valid.generation, view, census });
        }
        self.workers = workers;
        Look { seen, horizon: horizon.min(HORIZON), moved }
    }

    /// Remembers what is wanted, and says which pools are to be visited.
    fn publish(&mut self, seen: Vec<Seen>, wanted: Vec<Wanted>, now: Moment) -> Pass {
        let mut pass = Pass { settled: true, ..Pass::default() };
        for (seen, wanted) in seen.into_iter().zip(wanted) {
            let Some(memory) = self.pools.get_mut(&seen.key) else { continue };
            pass.totals.add(&seen.census.counts, seen.census.expected, wanted.pods);
            memory.window.add(now.instant, wanted.pods);
            let mut hasher = DefaultHasher::new();
            let limited = memory.is_limited(now.instant);
            (seen.census.counts, seen.census.expected, limited).hash(&mut hasher);
            (memory.refusals.streak, memory.rejections.streak).hash(&mut hasher);
            (wanted.pods, wanted.denied, wanted.because.to_string(), seen.generation).hash(&mut hasher);
            wanted.starved.map(|starved| starved.to_string()).hash(&mut hasher);
            let visit_for = hasher.finish();
            let at_rest = at_rest(&seen.census, wanted.pods);
            memory.planned = Some(Planned { generation: seen.generation, wanted });
            if visit_for != memory.visited_for || !at_rest {
                memory.visited_for = visit_for;
                pass.visit.push(seen.key);
            }
            pass.settled &= at_rest && !limited;
        }
        pass
    }
}

/// Whether time alone changes nothing about a pool: as many pods as wanted, none of them on its way.
fn at_rest(census: &Census, wanted: u32) -> bool {
    let counts = &census.counts;
    let moving =
        counts.arriving + counts.pending + counts.stuck + counts.draining + counts.gone + counts.outdated;
    census.have() == wanted && moving == 0 && census.expected == 0
}

fn view(pool: &ValidPool, census: &Census, memory: &PoolMemory, now: Moment) -> PoolView {
    let counts = &census.counts;
    // a refusal says nothing of the pods that were made before it
    let (coming, waiting) = match memory.lacks_nodes(now.instant) {
        true => (0, counts.nodeless),
        // of what it does not answer nothing may come
        false if memory.refusals.is_away() => (counts.pending, 0),
        false => (counts.pending + census.expected, 0),
    };
    PoolView {
        name: format!("{}/{}", pool.key.namespace, pool.key.name),
        kinds: pool.kinds,
        serves: pool.serves.clone(),
        capacity: pool.capacity,
        price_micros: pool.price_micros,
        priority: pool.priority,
        scaling: pool.scaling,
        quota: pool.quota.map(|pods| Quota { tenant: pool.key.namespace.clone(), pods }),
        pods: plan::Pods {
            staying: counts.present() - counts.removable,
            present: counts.present(),
            arriving: counts.arriving + coming,
            waiting,
            limited: memory.is_limited(now.instant),
        },
    }
}

impl Totals {
    fn add(&mut self, counts: &Counts, expected: u32, wanted: u32) {
        self.idle += counts.idle;
        self.busy += counts.busy;
        self.draining += counts.draining;
        self.starting += counts.arriving + counts.pending + expected;
        self.stuck += counts.stuck;
        self.wanted += wanted;
    }
}
