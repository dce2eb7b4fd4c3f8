//! Who gets what. After every event: ready tasks to free workers, then to queues of busy ones, then
//! queued tasks to idle workers, then second copies of slow ones.

use super::leases::Tell;
use super::table::At;
use super::{Engine, Millis, Takers, TaskState, fits};
use crate::order::{Between, POLICIES};
use crate::tree::NodeId;

/// A queued lease goes to an idle worker when it would wait longer than this, or has.
pub(crate) const STEAL_MILLIS: Millis = 100;

/// Candidates looked at in one step when queued or slow leases are given away.
const LOOK: usize = 16;

/// Where a task would go.
#[derive(Debug, Clone, Copy)]
enum Room {
    /// To a worker that can start it.
    Now,
    /// Into the queue of a busy worker.
    Queue,
}

impl Engine {
    pub(crate) fn dispatch(&mut self) {
        self.steal_at = None;
        if self.workers.any_free() {
            self.assign_probes();
            self.start_backups(true);
            self.assign_picky();
            self.assign_ready();
        }
        while self.workers.any_room() && self.prefetch_one() {}
        if self.workers.any_free() {
            self.steal();
            self.start_backups(false);
            self.hedge();
            if self.replace_slow_copies() {
                // Room came where the slow copies ran.
                self.dispatch();
            }
        }
    }

    /// A worker that failed often gets one task to try. One of a job and kind without failures says whether it is the
    /// worker's fault; one of a job that nobody can prove would send it to rest again, while others wait for it.
    fn assign_probes(&mut self) {
        for worker in self.workers.probes() {
            if let Some(at) = self.probe(worker) {
                self.assign(at, worker, false);
            }
        }
    }

    /// The first task that this worker could run of the first job that has one, kinds in trouble aside.
    fn probe(&mut self, worker: u32) -> Option<At> {
        let (free, takes) = (self.workers[worker].free(), self.workers[worker].kinds);
        (0..self.jobs.ranked().len()).find_map(|place| {
            let slot = self.jobs.ranked()[place];
            if !self.workers[worker].serves.contains(&self.jobs[slot].spec.namespace) {
                return None;
            }
            let kinds = takes.without(self.jobs[slot].in_trouble);
            let classes = (0..self.classes.len() as u8).rev();
            let mut fitting = classes.filter(|class| fits(self.classes[usize::from(*class)], free));
            let entry = fitting.find_map(|class| self.jobs[slot].head(class, kinds))?;
            Some(At { job: slot, node: entry as u32 })
        })
    }

    /// Ready tasks to workers that can run them now, each to the smallest one.
    fn assign_ready(&mut self) {
        while self.workers.any_free() {
            let Some((at, worker)) = self.choose(Room::Now) else { return };
            self.assign(at, worker, false);
        }
    }

    fn prefetch_one(&mut self) -> bool {
        let Some((at, worker)) = self.choose(Room::Queue) else { return false };
        self.assign(at, worker, true);
        true
    }

    /// The worker of these kinds (by their place among all takers) that would take this task, which is of
    /// this class.
    fn taker(&self, place: usize, at: At, class: u8, room: Room) -> Option<u32> {
        let takers = &self.workers.takers()[place];
        match room {
            Room::Now => takers.free_for(self.classes[usize::from(class)]).next(),
            Room::Queue => {
                let want = self.want(at);
                let millis = self.durations.median(want.0, 0);
                (Millis::from(millis) < self.config.prefetch_below)
                    .then(|| self.workers.best_room(takers, class, want, &self.classes))
                    .flatten()
            }
        }
    }

    /// The task of a job and class that goes first of those that a worker can take, and the smallest such
    /// worker. Workers of other kinds have other heads: what nobody takes keeps nobody waiting.
    fn class_head(&mut self, job: u32, class: u8, room: Room) -> Option<(u64, u32)> {
        let mut first: Option<(u64, u32)> = None;
        for place in 0..self.workers.takers().len() {
            let takers = &self.workers.takers()[place];
            if !takers.serves.contains(&self.jobs[job].spec.namespace) {
                continue;
            }
            let kinds = takers.kinds;
            let Some(entry) = self.jobs[job].head(class, kinds) else { continue };
            let at = At { job, node: entry as u32 };
            let Some(worker) = self.taker(place, at, class, room) else { continue };
            let key = |(entry, worker): (u64, u32)| (entry, self.workers[worker].capacity);
            if first.is_none_or(|found| key((entry, worker)) < key(found)) {
                first = Some((entry, worker));
            }
        }
        first
    }

    /// The ready task to go first of those that a worker can take, and that worker: of the job with
    /// the highest priority, then with least slack, then the oldest; in it by the job's order, mostly
    /// large tasks first, so that machines that only they need go to them.
    fn choose(&mut self, room: Room) -> Option<(At, u32)> {
        let mut best: Option<(i64, At, u32)> = None;
        let mut priority = None;
        for place in 0..self.jobs.ranked().len() {
            let slot = self.jobs.ranked()[place];
            let own = self.jobs[slot].spec.priority;
            if best.is_some() && priority != Some(own) {
                break;
            }
            let Some((node, worker, slack)) = self.job_head(slot, room) else { continue };
            if best.is_none_or(|(least, ..)| slack < least) {
                (best, priority) = (Some((slack, At { job: slot, node }, worker)), Some(own));
            }
        }
        best.map(|(_, at, worker)| (at, worker))
    }

    /// The task of a job that goes first of those that a worker can take, that worker, and the least
    /// slack of all heads that can be taken: deadline less the remaining path, in milliseconds.
    fn job_head(&mut self, slot: u32, room: Room) -> Option<(u32, u32, i64)> {
        let single = self.jobs.ranked().len() == 1;
        let by_key = POLICIES[self.jobs[slot].policy].between == Between::ByKey;
        let mut found: Option<(u64, u32, i64)> = None;
        for class in (0..self.classes.len() as u8).rev() {
            let Some((entry, worker)) = self.class_head(slot, class, room) else { continue };
            let slack = if single { 0 } else { self.slack(At { job: slot, node: entry as u32 }) };
            found = Some(match found {
                Some((first, taker, least)) if !by_key || first < entry => (first, taker, least.min(slack)),
                Some((.., least)) => (entry, worker, least.min(slack)),
                None => (entry, worker, slack),
            });
            if single && !by_key {
                break;
            }
        }
        found.map(|(entry, worker, slack)| (entry as u32, worker, slack))
    }

    /// When a task has to start so that its job can still make its deadline.
    pub(crate) fn slack(&self, at: At) -> i64 {
        let job = &self.jobs[at.job];
        let Some(deadline) = job.spec.deadline else { return i64::MAX };
        let step = self.durations.median(job.kind(at.node), 0);
        let path = i64::from(job.shape().remaining(NodeId(at.node))) * i64::from(step);
        i64::try_from(deadline).unwrap_or(i64::MAX - 1).saturating_sub(path)
    }

    /// Tasks that failed somewhere: to another machine as long as there is one that could take it.
    fn assign_picky(&mut self) {
        for place in 0..self.jobs.ranked().len() {
            let job = self.jobs.ranked()[place];
            if self.jobs[job].picky.is_empty() {
                continue;
            }
            let entries: Vec<_> = self.jobs[job].picky.iter().rev().copied().collect();
            for (class, entry) in entries {
                let at = At { job, node: entry as u32 };
                // A copy in this very job may have been leased a moment ago.
                if self.jobs[job].state_of(at.node) == TaskState::Ready
                    && let Some(worker) = self.picky_worker(at, class)
                {
                    self.assign(at, worker, false);
                }
            }
        }
    }

    /// The worker that may run a ready task now that failed on some machines before.
    pub(crate) fn picky_worker(&self, at: At, class: u8) -> Option<u32> {
        let (needs, want) = (self.classes[usize::from(class)], self.want(at));
        let avoid = self.jobs[at.job].extra(at.node).map_or(&[][..], |e| &e.nodes);
        // Not to those that fail everything: they are always idle, and would use up its attempts.
        let mut sound = avoid.to_vec();
        sound.extend(self.workers.nodes_on_trial());
        if sound.len() > avoid.len() && self.workers.could(needs, want, &sound) {
            return self.workers.best(needs, want, &sound);
        }
        let other = self.workers.best(needs, want, avoid);
        if other.is_none() && !self.workers.could(needs, want, avoid) {
            return self.workers.best(needs, want, &[]);
        }
        other
    }

    /// Queued leases to workers that could start them at once.
    fn steal(&mut self) {
        for class in (0..self.classes.len()).rev() {
            let needs = self.classes[class];
            loop {
                let Some(slot) = self.worth_stealing(class) else { break };
                let at = self.leases[slot].at;
                let Some(worker) = self.workers.best(needs, self.want(at), &[]) else { break };
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
    }

    /// Of the leases that a worker could start now, the one queued last when it would wait long, else the one that
    /// has waited long already.
    fn worth_stealing(&mut self, class: usize) -> Option<u32> {
        let needs = self.classes[class];
        for _ in 0..LOOK {
            let (lane, (_, slot, fence)) = self.queued[class].back(|lane| self.is_free_for(needs, lane))?;
            if !self.is_queued(slot, fence) {
                self.queued[class].pop_back(lane);
                continue;
            }
            if self.expected_wait(slot) >= STEAL_MILLIS {
                return Some(slot);
            }
            break;
        }
        for _ in 0..LOOK {
            let (lane, (since, slot, fence)) = self.queued[class].front(|lane| self.is_free_for(needs, lane))?;
            if !self.is_queued(slot, fence) {
                self.queued[class].pop_front(lane);
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

    /// Whether an entry of the queued leases still is one, of a job that may lease.
    fn is_queued(&self, slot: u32, fence: u64) -> bool {
        self.leases.is(slot, fence) && {
            let lease = &self.leases[slot];
            lease.started.is_none() && !self.jobs[lease.at.job].spec.suspended
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

    /// Second copies of slow tasks: where the job's order puts the task before all that are ready, as
    /// so much may wait for it (`urgent`); the others to workers for whom nothing is ready.
    fn start_backups(&mut self, urgent: bool) {
        let may = |slot: u32| {
            let (kind, namespace) = self.want(self.leases[slot].at);
            !self.is_suspended(slot) && self.workers.takers_of(kind, namespace).any(Takers::any_free)
        };
        let slow: Vec<_> = self.slow.iter().filter(|(.., slot)| may(*slot)).take(LOOK).copied().collect();
        for (_, _, slot) in slow {
            let lease = self.leases[slot];
            let (kind, namespace) = self.want(lease.at);
            let rivals = self.workers.rivals(kind, namespace);
            let job = &mut self.jobs[lease.at.job];
            let entry = job.entry(lease.at.node);
            // Another copy may have run out of memory: then this one needs a larger machine.
            let class = job.class(lease.at.node);
            let waits = urgent && job.head(class, rivals).is_none_or(|head| head < entry);
            if waits {
                continue;
            }
            let needs = self.classes[usize::from(class)];
            let slow_node = self.workers[lease.worker].node;
            let mut avoid = vec![slow_node];
            avoid.extend(self.jobs[lease.at.job].extra(lease.at.node).iter().flat_map(|e| &e.nodes));
            let want = self.want(lease.at);
            let other = self.workers.best(needs, want, &avoid);
            let same = || {
                let may = |w: u32| w != lease.worker && !avoid[1..].contains(&self.workers[w].node);
                self.workers.best_of(needs, want, may)
            };
            if let Some(worker) = other.or_else(same) {
                self.back_up(slot, worker);
            }
        }
    }
}
