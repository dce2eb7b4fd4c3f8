//! First fit of tasks on pods. Pods of a pool that have the same room left are counted, not listed, so that the work
//! grows with kinds and pools and not with pods or tasks.

use super::{Because, Bound, PoolView, Quota, Scaling, Share, Wanted, probes};
use crate::engine::Demand;
use crate::profile::Needs;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// How many tasks go into this room.
pub(super) fn slots(room: Needs, task: Needs) -> u32 {
    let by_cores = u32::from(room.cores) / u32::from(task.cores.max(1));
    by_cores.min(room.memory_mib / task.memory_mib.max(1))
}

/// The pods of a pool that can be counted on.
pub(super) fn room(pool: &PoolView) -> u32 {
    let limit = pool.scaling.limit();
    if pool.pods.limited { limit.min(pool.pods.present.saturating_add(pool.pods.arriving)) } else { limit }
}

/// How many pods each tenant with a quota may still have.
pub(super) struct Left<'a>(BTreeMap<&'a str, u32>);

impl<'a> Left<'a> {
    pub(super) fn new(pools: &'a [PoolView]) -> Self {
        let mut left = BTreeMap::new();
        for Quota { tenant, pods } in pools.iter().filter_map(|pool| pool.quota.as_ref()) {
            let least = left.entry(tenant.as_str()).or_insert(*pods);
            *least = (*least).min(*pods);
        }
        Self(left)
    }

    /// Takes up to so many pods for a pool; how many it got.
    fn take(&mut self, pool: &PoolView, pods: u32) -> u32 {
        let Some(left) = pool.quota.as_ref().and_then(|quota| self.0.get_mut(quota.tenant.as_str())) else {
            return pods;
        };
        let taken = pods.min(*left);
        *left -= taken;
        taken
    }

    /// Gives pods back that were not used.
    fn give_back(&mut self, pool: &PoolView, pods: u32) {
        if let Some(left) = pool.quota.as_ref().and_then(|quota| self.0.get_mut(quota.tenant.as_str())) {
            *left += pods;
        }
    }
}

/// Used pods with the same room left.
struct Group {
    free: Needs,
    pods: u32,
}

/// A pool while tasks are placed.
pub(super) struct Pool<'a> {
    view: &'a PoolView,
    /// Used pods that have room left.
    groups: Vec<Group>,
    /// Pods that are there anyway and are not used yet.
    standing: u32,
    /// Pods that could be made.
    more: u32,
    used: u32,
    denied: u32,
    /// As much of the minimum as the tenant's quota allows.
    floor: u32,
    /// The tenant's quota kept it from having more.
    capped: bool,
    shares: Vec<Share>,
}

impl<'a> Pool<'a> {
    pub(super) fn new(view: &'a PoolView, left: &mut Left<'_>) -> Self {
        let (room, floor) = (room(view), view.scaling.floor());
        let wished = floor.max(view.pods.staying).min(room);
        let standing = left.take(view, wished);
        Self {
            view,
            groups: vec![],
            standing,
            more: room - wished,
            used: 0,
            denied: 0,
            floor: if standing < wished { floor.min(standing) } else { floor },
            capped: standing < floor.min(room),
            shares: vec![],
        }
    }

    /// Places up to `tasks` on pods that are used or there anyway; how many are left.
    fn fill(&mut self, row: &Demand, mut tasks: u32) -> u32 {
        self.groups.sort_by_key(|group| group.free);
        let groups = std::mem::take(&mut self.groups);
        for group in groups {
            tasks -= self.fill_pods(row, tasks, group);
        }
        let standing = Group { free: self.view.capacity, pods: self.standing };
        let before = self.used;
        let placed = self.open(row, tasks, standing);
        self.standing -= self.used - before;
        tasks - placed
    }

    /// Places up to `tasks` on pods that would have to be made; how many are left.
    fn grow(&mut self, row: &Demand, tasks: u32, quota: &mut Left<'_>) -> u32 {
        let before = self.used;
        let pods = quota.take(self.view, self.more);
        let placed = self.open(row, tasks, Group { free: self.view.capacity, pods });
        let opened = self.used - before;
        quota.give_back(self.view, pods - opened);
        let left = tasks - placed;
        self.capped |= left > 0 && pods < self.more;
        self.more -= opened;
        self.denied = self.denied.saturating_add(left.div_ceil(slots(self.view.capacity, row.needs).max(1)));
        left
    }

    /// Places tasks on pods that are not used yet; how many.
    fn open(&mut self, row: &Demand, tasks: u32, mut unused: Group) -> u32 {
        let needed = tasks.div_ceil(slots(unused.free, row.needs).max(1));
        unused.pods = unused.pods.min(needed);
        self.used += unused.pods;
        self.fill_pods(row, tasks, unused)
    }

    /// Places tasks on pods of one room, which are regrouped by the room left; how many.
    fn fill_pods(&mut self, row: &Demand, tasks: u32, group: Group) -> u32 {
        let each = slots(group.free, row.needs);
        if each == 0 || tasks == 0 {
            self.groups.extend(Some(group).filter(|group| group.pods > 0));
            return 0;
        }
        let full = (tasks / each).min(group.pods);
        let rest = if full < group.pods { tasks - full * each } else { 0 };
        let part = u32::from(rest > 0);
        let left = |tasks: u32| Needs {
            cores: group.free.cores - u16::try_from(tasks).unwrap_or(u16::MAX) * row.needs.cores,
            memory_mib: group.free.memory_mib - tasks * row.needs.memory_mib,
        };
        let groups = [(full, left(each)), (part, left(rest)), (group.pods - full - part, group.free)];
        self.groups.extend(
            groups.into_iter().filter(|(pods, _)| *pods > 0).map(|(pods, free)| Group { free, pods }),
        );
        self.share(row, full * each + rest);
        full * each + rest
    }

    fn share(&mut self, row: &Demand, tasks: u32) {
        let each = slots(self.view.capacity, row.needs);
        match self.shares.iter_mut().find(|share| share.kind == row.kind && share.each == each) {
            Some(share) => share.tasks += tasks,
            None => self.shares.push(Share { kind: row.kind, tasks, each }),
        }
    }

    pub(super) fn wanted(self) -> Wanted {
        let (floor, limit) = (self.floor, self.view.scaling.limit());
        let limited = self.view.pods.limited;
        let tries = probes(self.denied).max(self.denied.min(self.view.pods.waiting));
        let probing = if limited && !self.capped { tries.min(limit.saturating_sub(self.used)) } else { 0 };
        let pods = floor.max(self.used + probing);
        let quota = self.view.quota.as_ref().filter(|_| self.capped);
        let bound = match self.view.scaling {
            Scaling::Fixed(replicas) if let Some(quota) = quota => {
                Bound::Quota { pods: quota.pods, denied: replicas.saturating_sub(pods) }
            }
            Scaling::Deadline { .. } if let Some(quota) = quota => {
                Bound::Quota { pods: quota.pods, denied: self.denied }
            }
            Scaling::Fixed(_) => Bound::Fixed,
            Scaling::Deadline { .. } if limited && self.denied > 0 => {
                Bound::Probing { probes: pods.saturating_sub(self.used), denied: self.denied }
            }
            Scaling::Deadline { max, budget, .. } if self.denied > 0 => match budget {
                Some(budget) if budget < max => Bound::Budget { pods: budget, denied: self.denied },
                _ => Bound::Maximum { pods: max, denied: self.denied },
            },
            Scaling::Deadline { min, .. } if pods > self.used => Bound::Minimum(min),
            Scaling::Deadline { .. } => Bound::Demand,
        };
        let because = Because { pods, shares: self.shares, bound };
        Wanted { pods, because, denied: self.denied, starved: None }
    }
}

/// Places the tasks of a row.
pub(super) fn place(row: &Demand, pools: &mut [Pool], quota: &mut Left<'_>) {
    let fits = |pool: &Pool| pool.view.takes(row) && slots(pool.view.capacity, row.needs) > 0;
    let mut order: Vec<usize> = (0..pools.len()).filter(|index| fits(&pools[*index])).collect();
    order.sort_by(|a, b| cheaper(pools[*a].view, pools[*b].view, row.needs));
    let mut tasks = super::tasks(row);
    for index in &order {
        tasks = pools[*index].fill(row, tasks);
    }
    for index in &order {
        tasks = pools[*index].grow(row, tasks, quota);
    }
}

/// Which pool comes first for a task: by price for each task that goes on a pod, priority, size (the
/// smaller machine; without prices that is all there is to go by), name.
fn cheaper(a: &PoolView, b: &PoolView, task: Needs) -> Ordering {
    let price = |pool: &PoolView, other: &PoolView| {
        u128::from(pool.price_micros) * u128::from(slots(other.capacity, task))
    };
    let by_price = price(a, b).cmp(&price(b, a));
    let by_size = slots(a.capacity, task).cmp(&slots(b.capacity, task));
    by_price.then(b.priority.cmp(&a.priority)).then(by_size).then_with(|| a.name.cmp(&b.name))
}
