//! Leases queued at busy workers: what goes before them, and who could start them at once.

use super::lanes::Lanes;
use super::leases::Tell;
use super::table::At;
use super::{Engine, Millis, TaskState, Worker, fits};
use crate::circuit::{Kind, KindSet};
use std::collections::BTreeSet;

/// A queued lease goes to an idle worker when it would wait longer than this, or has.
pub(crate) const STEAL_MILLIS: Millis = 100;

/// Candidates looked at in one step.
const LOOK: usize = 16;

impl Engine {
    /// What is queued at a worker of less important jobs of the same namespace would be started before what comes
    /// now: it returns, to be queued behind it or elsewhere. Says whether there was any.
    pub(crate) fn give_way(&mut self, worker: u32, to: u32) -> bool {
        let (tenant, priority) = (self.jobs[to].tenant, self.jobs[to].spec.priority);
        if self.tenants.ranked(tenant).len() == 1 {
            return false;
        }
        let mut any = false;
        for slot in self.workers[worker].queue.clone() {
            let job = &self.jobs[self.leases[slot].at.job];
            if job.tenant == tenant && job.spec.priority < priority {
                self.unqueue(slot);
                any = true;
            }
        }
        any
    }

    /// A worker may want fewer leases queued than before: the last ones return.
    pub(crate) fn shorten_queue(&mut self, worker: u32) {
        let Worker { queue, prefetch, .. } = &self.workers[worker];
        let beyond: Vec<u32> = queue.iter().skip(usize::from(*prefetch)).copied().collect();
        beyond.into_iter().for_each(|slot| self.unqueue(slot));
    }

    /// A queued lease returns.
    fn unqueue(&mut self, slot: u32) {
        let at = self.leases[slot].at;
        if !self.take_back(slot, Tell::Stop) {
            self.set_open(at, TaskState::Ready);
        }
    }

    /// Where more important tasks of the same namespace are ready and no queue has room, one takes the place of less
    /// important ones. Says whether any did.
    pub(crate) fn displace_queued(&mut self) -> bool {
        let several = |tenant: &u32| self.tenants.ranked(*tenant).len() > 1;
        if !self.tenants.active().iter().any(several) {
            return false;
        }
        let lows = self.queued.iter().flat_map(Lanes::jobs).collect::<BTreeSet<u32>>();
        lows.into_iter().any(|low| self.displace_one(low))
    }

    fn displace_one(&mut self, low: u32) -> bool {
        let Some(job) = self.jobs.get(low) else { return false };
        let (tenant, priority) = (job.tenant, job.spec.priority);
        let ranked = self.tenants.ranked(tenant).iter().copied();
        let above: Vec<u32> = ranked
            .take_while(|slot| self.jobs[*slot].spec.priority > priority)
            .filter(|slot| self.jobs[*slot].counts.iter().any(|count| count.ready > 0))
            .collect();
        if above.is_empty() {
            return false;
        }
        for slot in self.queued_first(low) {
            let worker = self.leases[slot].worker;
            if !self.workers[worker].takes_leases() || self.workers[worker].is_held() {
                continue;
            }
            let found = above.iter().find_map(|high| self.queueable(*high, worker));
            if let Some(at) = found {
                self.give_way(worker, at.job);
                // What ran there may have ended with what was queued: it is no worse to be started at once.
                self.assign(at, worker, !fits(self.needs(at), self.workers[worker].free()));
                return true;
            }
        }
        false
    }

    /// The lease of each class and kind of a job that was queued first.
    fn queued_first(&mut self, job: u32) -> Vec<u32> {
        let mut found = vec![];
        for class in 0..self.classes.len() {
            for kind in Kind::ALL {
                while let Some((_, (_, slot, fence))) = self.queued[class].front(job, KindSet::of(kind)) {
                    if self.is_queued(job, slot, fence) {
                        found.push(slot);
                        break;
                    }
                    self.queued[class].pop_front(job, kind);
                }
            }
        }
        found
    }

    /// The task of a job to go first of those that may be queued at a worker.
    fn queueable(&mut self, job: u32, worker: u32) -> Option<At> {
        let Worker { kinds, capacity, .. } = self.workers[worker];
        let short = |kind: &Kind| Millis::from(self.durations.median(*kind, 0)) < self.config.prefetch_below;
        let kinds: KindSet = kinds.iter().filter(short).collect();
        let mut classes = (0..self.classes.len() as u8).rev();
        classes.find_map(|class| {
            let fits = fits(self.classes[usize::from(class)], capacity);
            let entry = if fits { self.jobs[job].head(class, kinds) } else { None };
            entry.map(|entry| At { job, node: entry as u32 })
        })
    }

    /// Queued leases to workers that could start them at once.
    pub(crate) fn steal(&mut self) {
        if self.queued.iter().all(Lanes::is_empty) {
            return;
        }
        for job in self.jobs_in_turn() {
            for class in (0..self.classes.len()).rev() {
                self.steal_of(job, class);
            }
        }
    }

    fn steal_of(&mut self, job: u32, class: usize) {
        let needs = self.classes[class];
        while let Some(slot) = self.worth_stealing(job, class) {
            let at = self.leases[slot].at;
            let Some(worker) = self.workers.best(needs, self.want(at), &[]) else { return };
            if self.take_back(slot, Tell::Stop) {
                // A second copy of it runs elsewhere.
                continue;
            }
            if usize::from(self.jobs[at.job].class(at.node)) == class {
                self.assign(at, worker, false);
            } else {
                // It ran out of memory elsewhere meanwhile and needs a larger machine than this one.
                self.set_open(at, TaskState::Ready);
            }
        }
    }

    /// Of the leases of a job that a worker could start now, the one queued last when it would wait long, else the one
    /// that has waited long already.
    fn worth_stealing(&mut self, job: u32, class: usize) -> Option<u32> {
        let kinds = self.workers.free_kinds_for(self.classes[class], &self.jobs[job].spec.namespace);
        for _ in 0..LOOK {
            let (kind, (_, slot, fence)) = self.queued[class].back(job, kinds)?;
            if !self.is_queued(job, slot, fence) {
                self.queued[class].pop_back(job, kind);
                continue;
            }
            if self.expected_wait(slot) >= STEAL_MILLIS {
                return Some(slot);
            }
            break;
        }
        for _ in 0..LOOK {
            let (kind, (since, slot, fence)) = self.queued[class].front(job, kinds)?;
            if !self.is_queued(job, slot, fence) {
                self.queued[class].pop_front(job, kind);
                continue;
            }
            if since + STEAL_MILLIS <= self.now {
                return Some(slot);
            }
            let at = since + STEAL_MILLIS;
            self.steal_at = Some(self.steal_at.map_or(at, |earlier| earlier.min(at)));
            break;
        }
        None
    }

    /// Whether an entry of a job's queued leases still is one, and the job may lease.
    fn is_queued(&self, job: u32, slot: u32, fence: u64) -> bool {
        self.leases.is(slot, fence) && {
            let lease = &self.leases[slot];
            lease.started.is_none() && lease.at.job == job && !self.jobs[job].spec.suspended
        }
    }

    /// How long a queued lease is likely to wait for the oldest running one at its worker.
    fn expected_wait(&self, slot: u32) -> Millis {
        let worker = &self.workers[self.leases[slot].worker];
        let ends = worker.running.iter().filter_map(|running| {
            let lease = &self.leases[*running];
            let kind = self.jobs[lease.at.job].kind(lease.at.node);
            let median = self.durations.median(kind, worker.capacity.cores);
            lease.started.map(|started| started + Millis::from(median))
        });
        ends.min().unwrap_or(0).saturating_sub(self.now)
    }
}
