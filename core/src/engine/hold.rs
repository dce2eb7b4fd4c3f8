//! Machines held free for a large task. Small tasks would fill each gap as it opens, and one that
//! needs the whole of a machine would wait for as long as there are any.

use super::table::At;
use super::{Engine, Millis, Serves, Worker, fits};
use crate::circuit::{Kind, KindSet};
use crate::order::{Between, POLICIES};
use crate::profile::Needs;

/// How often machines are chosen anew, in milliseconds.
const CHOOSE_EVERY: Millis = 1_000;

/// At most one of so many machines that a task fits on is held for it and its like.
const HELD_PART: usize = 4;

/// Machines that are held.
#[derive(Debug, Default)]
pub(crate) struct Held {
    workers: Vec<u32>,
    chosen: Millis,
}

impl Engine {
    /// Chooses the machines to be held, among those that take the same kinds of proof and namespaces: for the ready
    /// task that goes before all others of these, if it fits nowhere now and only smaller ones keep it out; one for each of its
    /// kind and job that is ready, those that will be free first.
    pub(crate) fn hold_machines(&mut self) {
        if self.held.chosen + CHOOSE_EVERY > self.now {
            return;
        }
        self.held.chosen = self.now;
        for worker in std::mem::take(&mut self.held.workers) {
            self.workers.hold(worker, None);
        }
        let mut held_for = vec![];
        let takers = self.workers.takers().iter();
        let takers: Vec<_> = takers.map(|takers| (takers.kinds, takers.serves.clone())).collect();
        for (place, takers) in takers.into_iter().enumerate() {
            if let Some((at, class)) = self.first_ready(place).filter(|(at, _)| !held_for.contains(at))
                && self.hold_some(at, class, &takers)
            {
                held_for.push(at);
            }
        }
    }

    /// Holds machines of these takers for a task and its like; says whether there were any to be held.
    fn hold_some(&mut self, at: At, class: u8, (kinds, serves): &(KindSet, Serves)) -> bool {
        let (needs, kind) = (self.classes[usize::from(class)], self.jobs[at.job].kind(at.node));
        let avoid = self.avoided(at);
        if class == 0 || self.workers.best(needs, self.want(at), &avoid).is_some() {
            return false;
        }
        let alike = self.jobs[at.job].counts[kind.index()].ready.max(1) as usize;
        let may = |w: &Worker| {
            w.takes_leases() && w.kinds == *kinds && w.serves == *serves && fits(needs, w.capacity)
        };
        let most = (self.workers.iter().filter(|(_, w)| may(w)).count() / HELD_PART).max(1);
        let mut gaps: Vec<(Millis, u32)> = self
            .workers
            .iter()
            .filter(|(_, w)| may(w) && !avoid.contains(&w.node) && w.largest < class)
            .map(|(index, _)| (self.fits_at(index, needs), index))
            .collect();
        gaps.sort_unstable();
        gaps.truncate(alike.min(most));
        for (_, worker) in &gaps {
            self.workers.hold(*worker, Some(needs));
            self.held.workers.push(*worker);
            self.empty_queue(*worker);
        }
        !gaps.is_empty()
    }

    /// The ready task that would go first if there were room for all, of those for workers of some kinds (by
    /// their place among all takers), and its class.
    fn first_ready(&mut self, place: usize) -> Option<(At, u8)> {
        let all = self.workers.takers();
        let kinds = all[place].kinds;
        // What is too large for them has others to wait for, if there are others.
        let fitting =
            |class: &u8| all.len() == 1 || all[place].home(self.classes[usize::from(*class)]).is_some();
        let classes: Vec<u8> = (0..self.classes.len() as u8).filter(fitting).collect();
        let serves = all[place].serves.clone();
        for tenant in self.in_turn() {
            if serves.contains(self.tenants.name(tenant))
                && let Some(first) = self.first_ready_of(tenant, kinds, &classes)
            {
                return Some(first);
            }
        }
        None
    }

    /// The same of one namespace, for machines of these classes.
    fn first_ready_of(&mut self, tenant: u32, kinds: KindSet, classes: &[u8]) -> Option<(At, u8)> {
        let mut first: Option<((bool, i64), At, u8)> = None;
        let mut priority = None;
        for place in 0..self.tenants.ranked(tenant).len() {
            let slot = self.tenants.ranked(tenant)[place];
            let job = &mut self.jobs[slot];
            let own = job.spec.priority;
            if first.is_some() && priority != Some(own) {
                break;
            }
            let by_key = POLICIES[job.policy].between == Between::ByKey;
            let fits = |(class, kind, _): &(u8, Kind, u64)| classes.contains(class) && kinds.contains(*kind);
            let picky = job.picky.heads().filter(fits).map(|(class, _, entry)| (class, entry));
            let picky: Vec<(u8, u64)> = picky.collect();
            let heads = classes.iter().filter_map(|class| Some((*class, job.head(*class, kinds)?)));
            let all: Vec<(u8, u64)> = heads.chain(picky).collect();
            let head = if by_key {
                all.into_iter().min_by_key(|(_, entry)| *entry)
            } else {
                all.into_iter().max_by_key(|(class, entry)| (*class, std::cmp::Reverse(*entry)))
            };
            let Some((class, entry)) = head else { continue };
            let (at, hopeless) = (At { job: slot, node: entry as u32 }, job.hopeless);
            let key = (hopeless, self.slack(at));
            if first.is_none_or(|(least, ..)| key < least) {
                (first, priority) = (Some((key, at, class)), Some(own));
            }
        }
        first.map(|(_, at, class)| (at, class))
    }

    /// When a worker is likely to have room for this if it gets nothing new.
    fn fits_at(&self, index: u32, needs: Needs) -> Millis {
        let worker = &self.workers[index];
        let mut ends: Vec<(Millis, Needs)> = worker
            .running
            .iter()
            .map(|slot| {
                let copies = std::iter::once(*slot).chain(self.leases[*slot].twin);
                let end = copies.map(|copy| self.ends_at(copy)).min().unwrap_or(self.now);
                (end, self.classes[usize::from(self.leases[*slot].class)])
            })
            .collect();
        ends.sort_unstable();
        let mut free = worker.free();
        for (end, used) in ends {
            free.cores += used.cores;
            free.memory_mib += used.memory_mib;
            if fits(needs, free) {
                return end;
            }
        }
        self.now
    }

    /// When a lease is likely to end: after the time that its kind takes, or that most of its kind take. One that has run
    /// longer than that is taken to need as long again as it has run, but no longer than it may.
    fn ends_at(&self, slot: u32) -> Millis {
        let lease = &self.leases[slot];
        let (kind, cores) =
            (self.jobs[lease.at.job].kind(lease.at.node), self.workers[lease.worker].capacity.cores);
        let started = lease.started.unwrap_or(self.now);
        let median = Millis::from(self.durations.median(kind, cores));
        let most = Millis::from(self.durations.p95(kind, cores)).max(median + median / 4);
        let ends = [median, most].map(|millis| started + millis);
        let as_long_again = self.now + self.now.saturating_sub(started);
        let at_most = (started + self.limit(kind, cores)).max(self.now);
        ends.into_iter().find(|end| *end > self.now).unwrap_or(as_long_again.min(at_most))
    }
}
