//! How many pods each pool should have: a pure function of what is asked for and what is there.
//!
//! What is asked for is placed on pods first fit, from the largest tasks to the smallest. A task goes, in this order,
//! into room left on a pod that is used already, to a pod that is there anyway (the minimum, and pods that would
//! not be removed now), to a pod that would have to be made; among pools the one whose pods are cheapest for
//! the tasks of its kind comes first, then the higher priority, the smaller machine, the name. So machines that run are used up before
//! others are started, and a large machine that is there anyway takes small tasks too.
//!
//! A pool whose pods can't be scheduled or don't start counts with what it really has: the rest goes to the next pool
//! that fits. It goes on wanting a few pods ([`probes`]), since an autoscaler adds nodes only for pods
//! that wait for them; and all that wait already and could be used, since their nodes may be on the way.

mod because;
mod pack;
#[cfg(test)]
mod tests;

pub use because::{Because, Bound, Share, Starved, Why};

use crate::circuit::KindSet;
use crate::engine::{Demand, Serves};
use crate::profile::Needs;
use pack::Pool;

/// A pool: what its pods are, what is allowed, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolView {
    /// `<namespace>/<name>`; decides between pools that are equal in all else.
    pub name: String,
    /// Kinds that it takes.
    pub kinds: KindSet,
    /// Whose tasks it takes: only what these namespaces ask for counts for it.
    pub serves: Serves,
    /// What a pod has.
    pub capacity: Needs,
    /// What a pod costs an hour, in millionths; 0 when not known.
    pub price_micros: u64,
    /// Among pools of one price the higher goes first.
    pub priority: i32,
    /// What is allowed.
    pub scaling: Scaling,
    /// What its tenant may have, if there is a limit.
    pub quota: Option<Quota>,
    /// What is there.
    pub pods: Pods,
}

impl PoolView {
    /// Whether tasks of a row are for this pool, whatever they need.
    fn takes(&self, row: &Demand) -> bool {
        self.kinds.contains(row.kind) && self.serves.contains(&row.namespace)
    }
}

/// The most pods that all pools of a tenant may have together, their minima included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The tenant; pools that name the same one share.
    pub tenant: String,
    /// So many.
    pub pods: u32,
}

/// How many pods a pool may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// So many, whatever there is to do.
    Fixed(u32),
    /// As many as can be used, within bounds.
    Deadline {
        /// The fewest.
        min: u32,
        /// The most.
        max: u32,
        /// The most that the budget pays for.
        budget: Option<u32>,
    },
}

impl Scaling {
    /// The most pods that may be wanted.
    pub fn limit(self) -> u32 {
        match self {
            Self::Fixed(replicas) => replicas,
            Self::Deadline { max, budget, .. } => budget.map_or(max, |budget| budget.min(max)),
        }
    }

    /// The fewest; never more than the limit.
    pub fn floor(self) -> u32 {
        match self {
            Self::Fixed(replicas) => replicas,
            Self::Deadline { min, .. } => min.min(self.limit()),
        }
    }
}

/// What a pool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pods {
    /// Pods that would not be removed now: they work, or have been idle for a short while only.
    pub staying: u32,
    /// Pods whose worker is logged in.
    pub present: u32,
    /// Pods that are starting and can be counted on.
    pub arriving: u32,
    /// Pods that wait for a node and are not among those.
    pub waiting: u32,
    /// Some pods find no node, or don't start: what is neither present nor arriving can't be counted on.
    pub limited: bool,
}

/// How many pods a pool should have, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// So many.
    pub pods: u32,
    /// For people.
    pub because: Because,
    /// How many more would have been used, if they were allowed or could be had.
    pub denied: u32,
    /// Tasks that no pod of any pool can take, if this pool is concerned.
    pub starved: Option<Starved>,
}

/// How many pods a pool should have; one answer for each of `pools`, in their order.
///
/// Never fewer than the minimum nor more than the limit; none without demand beyond the minimum. The tenant's quota goes before
/// the minimum: of pools of one tenant those that come first get theirs.
pub fn wanted(demand: &[Demand], pools: &[PoolView]) -> Vec<Wanted> {
    let mut rows: Vec<&Demand> = demand.iter().filter(|row| tasks(row) > 0).collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.needs), row.kind, &row.namespace));
    let mut left = pack::Left::new(pools);
    let mut packed: Vec<Pool> = pools.iter().map(|pool| Pool::new(pool, &mut left)).collect();
    for row in &rows {
        pack::place(row, &mut packed, &mut left);
    }
    let mut all: Vec<Wanted> = packed.into_iter().map(Pool::wanted).collect();
    for row in &rows {
        starve(row, pools, &mut all);
    }
    all
}

/// All tasks of a row: what runs counts too, since at a tree's end everything that matters runs and nothing waits.
fn tasks(row: &Demand) -> u32 {
    row.running.saturating_add(row.ready).saturating_add(row.soon)
}

/// How many pods a pool goes on wanting for which there is no room, of so many that it would use, even if fewer wait:
/// an eighth, at least two, at most sixteen. Once a node comes they are scheduled, which makes room for as many again.
pub fn probes(denied: u32) -> u32 {
    denied.min((denied / 8).clamp(2, 16))
}

/// Tells the pools that are concerned when no pod of any pool can take the tasks of a row.
fn starve(row: &Demand, pools: &[PoolView], all: &mut [Wanted]) {
    let takes = |pool: &PoolView| pool.takes(row);
    let fits = |pool: &PoolView| takes(pool) && pack::slots(pool.capacity, row.needs) > 0;
    let why = if pools.iter().any(fits) {
        let mut fitting = pools.iter().filter(|pool| fits(pool));
        if fitting.any(|pool| pack::room(pool) > 0) {
            return;
        }
        let allowed = pools.iter().any(|pool| fits(pool) && pool.scaling.limit() > 0);
        if allowed { Why::Limited } else { Why::NoneAllowed }
    } else if let Some(largest) = pools.iter().filter(|pool| takes(pool)).map(|pool| pool.capacity).max() {
        Why::TooSmall { largest }
    } else {
        Why::NotTaken
    };
    let concerned = |pool: &PoolView| match why {
        Why::Limited | Why::NoneAllowed => fits(pool),
        Why::TooSmall { .. } => takes(pool),
        Why::NotTaken => pool.serves.contains(&row.namespace),
    };
    let starved = Starved { kind: row.kind, needs: row.needs, tasks: tasks(row), why };
    for (_, wanted) in pools.iter().zip(all).filter(|(pool, _)| concerned(pool)) {
        // rows come largest first: the one that is hardest to place is told of
        wanted.starved.get_or_insert(starved);
    }
}
