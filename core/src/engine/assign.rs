//! Who gets what. After every event: ready tasks, and second copies that go before them, to free workers, then ready
//! tasks to queues of busy ones, then queued tasks to idle workers, then other second copies.

use super::ready::Alike;
use super::table::At;
use super::{Engine, Millis, Takers, fits};
use crate::circuit::Kind;
use crate::order::{Between, POLICIES};
use crate::tree::NodeId;
use hashbrown::HashMap;
use std::cmp::Reverse;

/// Slow leases of a job looked at in one step.
const LOOK: usize = 16;

/// Where a task would go.
#[derive(Debug, Clone, Copy)]
enum Room {
    /// To a worker that can start it.
    Now,
    /// Into the queue of a busy worker.
    Queue,
}

/// What a worker is given.
#[derive(Debug, Clone, Copy)]
enum What {
    /// A ready task.
    Task,
    /// A second copy of the task of this lease.
    Copy(u32),
}

/// What goes next, and where to.
#[derive(Debug, Clone, Copy)]
struct Pick {
    at: At,
    worker: u32,
    what: What,
}

impl Engine {
    pub(crate) fn dispatch(&mut self) {
        self.steal_at = None;
        loop {
            if self.workers.any_free() {
                self.assign_probes();
                self.assign_ready();
            }
            if !self.prefetch() {
                break;
            }
        }
        if self.workers.any_free() {
            self.steal();
            self.start_backups();
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
        self.jobs_in_turn().into_iter().find_map(|slot| {
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

    /// What is ready to workers that can run it now, each to the smallest one.
    fn assign_ready(&mut self) {
        let slow = self.slow_candidates();
        while self.workers.any_free() {
            let Some(Pick { at, worker, what }) = self.choose(Room::Now, &slow) else { return };
            match what {
                What::Task => self.assign(at, worker, false),
                What::Copy(slot) => self.back_up(slot, worker),
            }
        }
    }

    /// Ready tasks to the queues of busy workers, until one that was queued there gives way: it is ready again, and may
    /// run elsewhere at once. Says whether one did.
    fn prefetch(&mut self) -> bool {
        while self.workers.any_room()
            && let Some(Pick { at, worker, .. }) = self.choose(Room::Queue, &[])
        {
            let gave_way = self.give_way(worker, at.job);
            self.assign(at, worker, true);
            if gave_way {
                return true;
            }
        }
        self.displace_queued()
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
    fn class_head(&mut self, job: u32, class: u8, room: Room, open: &[usize]) -> Option<(u64, u32)> {
        let mut first: Option<(u64, u32)> = None;
        for &place in open {
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

    /// What goes first of all that a worker can take, and that worker: of the namespace whose turn it is, there of the
    /// job with the highest priority, then of one that can be met, then with least slack, then the oldest; in it a
    /// second copy that goes before all that is ready, then tasks that failed somewhere, then by the job's order,
    /// mostly large tasks first, so that machines that only they need go to them.
    fn choose(&mut self, room: Room, slow: &[u32]) -> Option<Pick> {
        let has_room = |(_, takers): &(usize, &Takers)| match room {
            Room::Now => takers.any_free(),
            Room::Queue => takers.any_room(),
        };
        let open = self.workers.takers().iter().enumerate().filter(has_room);
        // mostly those of one machine that fell free: the others are not asked for each namespace and job
        let open: Vec<usize> = open.map(|(place, _)| place).collect();
        if let [only] = *self.tenants.active() {
            return self.choose_of(only, room, slow, &open);
        }
        self.in_turn().into_iter().find_map(|tenant| self.choose_of(tenant, room, slow, &open))
    }

    fn choose_of(&mut self, tenant: u32, room: Room, slow: &[u32], open: &[usize]) -> Option<Pick> {
        let serves = |place: &usize| self.workers.takers()[*place].serves.contains(self.tenants.name(tenant));
        if !open.iter().any(serves) {
            return None;
        }
        let mut best: Option<((bool, i64), Pick)> = None;
        let mut priority = None;
        for place in 0..self.tenants.ranked(tenant).len() {
            let slot = self.tenants.ranked(tenant)[place];
            let own = self.jobs[slot].spec.priority;
            if best.is_some() && priority != Some(own) {
                break;
            }
            let Some((pick, slack)) = self.job_pick(slot, room, slow, open) else { continue };
            let key = (self.jobs[slot].hopeless, slack);
            if best.is_none_or(|(least, _)| key < least) {
                (best, priority) = (Some((key, pick)), Some(own));
            }
        }
        best.map(|(_, pick)| pick)
    }

    /// What of a job goes first of all that a worker can take, and its slack.
    fn job_pick(&mut self, job: u32, room: Room, slow: &[u32], open: &[usize]) -> Option<(Pick, i64)> {
        let head = self.job_head(job, room, open);
        let special = match room {
            Room::Now => self.urgent_copy(job, slow).or_else(|| self.picky_pick(job)),
            Room::Queue => None,
        };
        match (special, head) {
            (Some(pick), head) => {
                let slack = self.slack(pick.at);
                Some((pick, head.map_or(slack, |(_, _, least)| least.min(slack))))
            }
            (None, Some((node, worker, slack))) => {
                Some((Pick { at: At { job, node }, worker, what: What::Task }, slack))
            }
            (None, None) => None,
        }
    }

    /// The task of a job that goes first of those that a worker can take, that worker, and the least
    /// slack of all heads that can be taken: deadline less the remaining path, in milliseconds.
    fn job_head(&mut self, slot: u32, room: Room, open: &[usize]) -> Option<(u32, u32, i64)> {
        let single = self.tenants.ranked(self.jobs[slot].tenant).len() == 1;
        let by_key = POLICIES[self.jobs[slot].policy].between == Between::ByKey;
        let mut found: Option<(u64, u32, i64)> = None;
        for class in (0..self.classes.len() as u8).rev() {
            let Some((entry, worker)) = self.class_head(slot, class, room, open) else { continue };
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

    /// The task of a job to go first of those that failed somewhere: to another machine as long as there is one that
    /// could take it. Where nobody takes one of a group nobody takes the others.
    fn picky_pick(&mut self, job: u32) -> Option<Pick> {
        if self.jobs[job].picky.is_empty() {
            return None;
        }
        let mut groups: Vec<(Reverse<u8>, u64, Alike)> = vec![];
        for class in 0..self.classes.len() as u8 {
            for kind in Kind::ALL {
                if !self.is_free_for(job, class, kind) {
                    continue;
                }
                let picky = &mut self.jobs[job].picky;
                for group in picky.look(class, kind) {
                    groups.extend(picky.first(&group).map(|first| (Reverse(class), first, group)));
                }
            }
        }
        groups.sort_unstable();
        groups.into_iter().find_map(|(_, entry, group)| {
            let at = At { job, node: entry as u32 };
            Some(Pick { at, worker: self.picky_worker(at, group.class)?, what: What::Task })
        })
    }

    /// Whether a worker could run a task of a job, class and kind now.
    fn is_free_for(&self, job: u32, class: u8, kind: Kind) -> bool {
        let needs = self.classes[usize::from(class)];
        let mut takers = self.workers.takers_of(kind, &self.jobs[job].spec.namespace);
        takers.any(|takers| takers.free_for(needs).next().is_some())
    }

    /// Machines that a task does not go to as long as there are others.
    pub(crate) fn avoided(&self, at: At) -> Vec<u32> {
        self.jobs[at.job].extra(at.node).map_or(vec![], |extra| extra.avoided(self.now))
    }

    /// The worker that may run a ready task now that failed on some machines before.
    pub(crate) fn picky_worker(&self, at: At, class: u8) -> Option<u32> {
        let (needs, want) = (self.classes[usize::from(class)], self.want(at));
        let avoid = &self.avoided(at)[..];
        // Not to those that fail everything: they are always idle, and would use up its attempts.
        let sound = |node: u32| !avoid.contains(&node) && !self.workers.is_on_trial(node);
        if self.workers.any_on_trial() && self.workers.could_on(needs, want, sound) {
            return self.workers.best_of(needs, want, |index| sound(self.workers[index].node));
        }
        let other = self.workers.best(needs, want, avoid);
        if other.is_none() && !self.workers.could(needs, want, avoid) {
            // All have had it fail: it goes to who had so least often.
            let extra = self.jobs[at.job].extra(at.node);
            let times = |index: u32| extra.map_or(0, |extra| extra.times_at(self.workers[index].node));
            return self.workers.best_by(needs, want, times);
        }
        other
    }

    /// Leases that are slow and could have a second copy now, the longest running first: of each job a few.
    fn slow_candidates(&self) -> Vec<u32> {
        let mut of: HashMap<u32, usize> = HashMap::new();
        let may = |slot: &u32| {
            let at = self.leases[*slot].at;
            let (kind, namespace) = self.want(at);
            let free = self.workers.takers_of(kind, namespace).any(Takers::any_free);
            let seen = of.entry(at.job).or_default();
            *seen += usize::from(free && !self.is_suspended(*slot));
            free && !self.is_suspended(*slot) && *seen <= LOOK
        };
        self.slow.iter().map(|(.., slot)| *slot).filter(may).collect()
    }

    /// The second copy of a slow task of a job where the job's order puts the task before all that is ready, as so much
    /// may wait for it.
    fn urgent_copy(&mut self, job: u32, slow: &[u32]) -> Option<Pick> {
        slow.iter().find_map(|slot| {
            let lease = self.leases[*slot];
            let started = lease.started.filter(|_| lease.fence != 0 && lease.at.job == job)?;
            if !self.slow.contains(&(started, lease.fence, *slot)) {
                return None;
            }
            let (kind, namespace) = self.want(lease.at);
            let rivals = self.workers.rivals(kind, namespace);
            let job = &mut self.jobs[job];
            let (entry, class) = (job.entry(lease.at.node), job.class(lease.at.node));
            if job.head(class, rivals).is_none_or(|head| head < entry) {
                return None;
            }
            let worker = self.copy_worker(*slot)?;
            Some(Pick { at: lease.at, worker, what: What::Copy(*slot) })
        })
    }

    /// Second copies of slow tasks to workers for whom nothing is ready.
    fn start_backups(&mut self) {
        if self.slow.is_empty() {
            return;
        }
        let slow = self.slow_candidates();
        for job in self.jobs_in_turn() {
            for slot in &slow {
                if self.leases[*slot].at.job == job
                    && let Some(worker) = self.copy_worker(*slot)
                {
                    self.back_up(*slot, worker);
                }
            }
        }
    }

    /// The worker that may run a second copy of a lease's task now: on another machine, if there is one.
    fn copy_worker(&self, slot: u32) -> Option<u32> {
        let lease = self.leases[slot];
        // Another copy may have run out of memory: then this one needs a larger machine.
        let (needs, want) = (self.needs(lease.at), self.want(lease.at));
        let mut avoid = vec![self.workers[lease.worker].node];
        avoid.extend(self.avoided(lease.at));
        let other = self.workers.best(needs, want, &avoid);
        let same = || {
            let may = |w: u32| w != lease.worker && !avoid[1..].contains(&self.workers[w].node);
            self.workers.best_of(needs, want, may)
        };
        other.or_else(same)
    }
}
