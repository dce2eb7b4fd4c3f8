//! The first step: what is known of a pool now. Nothing is asked of the API server: the watch has told.

use super::Shop;
use super::census::{Census, Moment, Rules};
use super::memory::Planned;
use super::pod::Template;
use super::validate::{Invalid, ValidPool};
use std::collections::HashSet;
use std::time::Duration;

/// See the module.
pub(super) struct Seen {
    /// Why the spec can't be built, if it can't.
    pub(super) invalid: Option<Invalid>,
    pub(super) census: Census,
    pub(super) planned: Planned,
    /// The most that were wanted lately.
    pub(super) lately: u32,
    pub(super) deleted: HashSet<Box<str>>,
    /// The last deletion failed.
    pub(super) delete_failed: bool,
    /// So many pods may be made now.
    pub(super) allowed: u32,
    /// What the API server says when it makes no pods.
    pub(super) refusal: Option<String>,
    /// What a kubelet said when pods failed again and again before their worker ran.
    pub(super) rejection: Option<String>,
    pub(super) limited: bool,
    /// Median of the measured starts, in seconds.
    pub(super) startup: Option<u32>,
    pub(super) grace: Duration,
}

/// `None` while no plan was made for the present spec.
pub(super) fn run(
    shop: &Shop,
    pool: &ValidPool,
    template: &Result<Template, Invalid>,
    now: Moment,
) -> Option<Seen> {
    let mut state = shop.fleet.lock();
    let workers = state.workers.clone();
    let memory = state.pools.get_mut(&pool.key)?;
    let planned = memory.planned.clone().filter(|planned| planned.generation == pool.generation)?;
    let hash = template.as_ref().ok().map(|template| &*template.hash);
    let rules = Rules { template: hash, grace: memory.grace(pool), delay: pool.scale_down_delay };
    // after the plan's: a pod that was made since is in the book, in one way or the other
    let pods = shop.book.of_pool(&pool.key.namespace, &pool.key.name);
    let census = Census::take(pods, &workers, &memory.absent, &rules, now);
    Some(Seen {
        invalid: template.as_ref().err().cloned(),
        planned,
        lately: memory.window.most(now.instant, pool.scale_down_delay),
        deleted: memory.deleted.clone(),
        delete_failed: memory.delete_failed,
        allowed: memory.allowed(census.coming(), now.instant),
        refusal: memory.refusals.message().map(str::to_owned),
        rejection: memory.rejections.message().map(str::to_owned),
        limited: memory.is_limited(now.instant),
        startup: memory.startups.median(),
        grace: rules.grace,
        census,
    })
}
