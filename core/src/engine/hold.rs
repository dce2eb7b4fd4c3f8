//! Machines held free for a large task. Small tasks would fill each gap as it opens, and one that
//! needs the whole of a machine would wait for as long as there are any.

use super::table::At;
use super::{Engine, Millis, fits};
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
    /// Chooses the machines to be held: for the ready task that goes before all others, if it fits
    /// nowhere now and only smaller ones keep it out; one for each of its kind and job that is
    /// ready, those that will be free first.
    pub(crate) fn hold_machines(&mut self) {
        if self.held.chosen + CHOOSE_EVERY > self.now {
            return;
        }
        self.held.chosen = self.now;
        for worker in std::mem::take(&mut self.held.workers) {
            self.workers.hold(worker, None);
        }
        let Some((at, class)) = self.first_ready() else { return };
        let needs = self.classes[usize::from(class)];
        let avoid = self.jobs[at.job].extra(at.node).map_or(vec![], |extra| extra.nodes.clone());
        if class == 0 || self.workers.best(needs, &avoid).is_some() {
            return;
        }
        let kind = self.jobs[at.job].kind(at.node);
        let alike = self.jobs[at.job].counts[kind.index()].ready.max(1) as usize;
        let fitting = self.workers.iter().filter(|(_, w)| w.takes_leases() && fits(needs, w.capacity));
        let most = (fitting.count() / HELD_PART).max(1);
        let mut gaps: Vec<(Millis, u32)> = self
            .workers
            .iter()
            .filter(|(_, w)| w.takes_leases() && fits(needs, w.capacity) && !avoid.contains(&w.node))
            .filter(|(_, w)| w.largest < class)
            .map(|(index, _)| (self.fits_at(index, needs), index))
            .collect();
        gaps.sort_unstable();
        for (_, worker) in gaps.into_iter().take(alike.min(most)) {
            self.workers.hold(worker, Some(needs));
            self.held.workers.push(worker);
            self.empty_queue(worker);
        }
    }

    /// The ready task that would go first if there were room for all, and its class.
    fn first_ready(&mut self) -> Option<(At, u8)> {
        let mut first: Option<(i64, At, u8)> = None;
        let mut priority = None;
        for place in 0..self.jobs.ranked().len() {
            let job = self.jobs.ranked()[place];
            let own = self.jobs[job].spec.priority;
            if first.is_some() && priority != Some(own) {
                break;
            }
            let by_key = POLICIES[self.jobs[job].policy].between == Between::ByKey;
            let picky: Vec<(u8, u64)> = self.jobs[job].picky.iter().copied().collect();
            let heads = (0..self.classes.len() as u8).filter_map(|c| Some((c, self.jobs[job].head(c)?)));
            let all: Vec<(u8, u64)> = heads.chain(picky).collect();
            let head = if by_key {
                all.into_iter().min_by_key(|(_, entry)| *entry)
            } else {
                all.into_iter().max_by_key(|(class, entry)| (*class, std::cmp::Reverse(*entry)))
            };
            let Some((class, entry)) = head else { continue };
            let at = At { job, node: entry as u32 };
            let slack = self.slack(at);
            if first.is_none_or(|(least, ..)| slack < least) {
                (first, priority) = (Some((slack, at, class)), Some(own));
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
                let lease = &self.leases[*slot];
                let kind = self.jobs[lease.at.job].kind(lease.at.node);
                let median = self.durations.median(kind, worker.capacity.cores);
                let end = lease.started.unwrap_or(self.now) + Millis::from(median);
                (end, self.classes[usize::from(lease.class)])
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
}
