//! What takes too long: second copies of slow tasks, an end to endless ones.

use super::lanes::Lanes;
use super::leases::Tell;
use super::table::At;
use super::{Command, Config, Engine, Lease, Millis, Notice, Reason};
use crate::circuit::Kind;
use crate::durations::{Durations, MIN_SAMPLES};
use crate::profile::Needs;
use std::collections::VecDeque;

/// Running leases of one kind on one class of machine in the order they started: what they may take
/// is the same for all, so only the first has to be looked at. Entries may be stale.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    backup: VecDeque<(Millis, u32, u64)>,
    limit: VecDeque<(Millis, u32, u64)>,
}

/// Copies started of a task's first lease, one after the other, before it is left to itself.
pub(crate) const MAX_COPIES: u8 = 3;

/// The last tasks of a job, one in so many, are made twice where machines are idle: nothing is left
/// to be done meanwhile, and each of them would hold up all that follows.
const HEDGED_PART: u32 = 50;

/// … if at least one in so many proofs was slow.
const SLOW_PART: u64 = 1_000;

/// Leases of the last tasks, which get a second copy as soon as a machine is idle.
#[derive(Debug, Default)]
pub(crate) struct Hedges {
    /// (slot, fence); entries may be stale.
    waiting: Lanes<(u32, u64)>,
    /// (slot, fence) of second copies that are slow themselves; entries may be stale.
    slow_copies: VecDeque<(u32, u64)>,
    /// Leases that ran too long so far.
    slow: u64,
}

impl Hedges {
    /// A job left the books.
    pub(crate) fn forget(&mut self, job: u32) {
        self.waiting.forget(job);
    }
}

/// Since when a lease runs.
type Runs = fn(&Lease) -> Option<Millis>;

/// The same, as far as that is known here: of one from before, its worker alone knows when it began.
fn known_since(lease: &Lease) -> Option<Millis> {
    lease.started.map(|started| started.max(lease.assigned))
}

/// How long a proof runs before a second copy pays. The spread counts too, so that proofs that are
/// slow in the ordinary way are not copied.
fn patience(config: &Config, durations: &Durations, kind: Kind, cores: u16) -> Option<Millis> {
    let seen = |kind| durations.samples(kind, 0) >= MIN_SAMPLES;
    if config.backup_percent == 0 {
        return None;
    }
    if kind == Kind::Root && !seen(kind) {
        // There is one a block, and all waits for it: judged by merges, as much longer as was guessed.
        let [root, merge] =
            [kind, Kind::Merge].map(|k| Millis::from(config.profile.first_millis[k.index()]).max(1));
        return patience(config, durations, Kind::Merge, cores).map(|p| p * root.max(merge) / merge);
    }
    if !seen(kind) {
        return None;
    }
    let median = Millis::from(durations.expected(kind, cores));
    let spread = Millis::from(durations.p95(kind, cores)).min(2 * median);
    Some((median * Millis::from(config.backup_percent) / 100).max(spread).max(config.backup_floor))
}

impl Engine {
    /// Starts to watch a lease that runs since `started`.
    pub(crate) fn watch(&mut self, kind: Kind, cores: u16, started: Millis, slot: u32) {
        let (leases, lease) = (&self.leases, self.leases[slot]);
        let watched = self.watched.entry((kind.index() as u8, cores)).or_default();
        let known = started.max(lease.assigned);
        for (queue, since) in [(&mut watched.backup, started), (&mut watched.limit, known)] {
            if queue.len() > 2 * leases.len() + 64 {
                queue.retain(|(_, slot, fence)| leases.is(*slot, *fence));
            }
            // An adopted lease started before others that are here already.
            let later = queue.iter().rev().take_while(|(other, ..)| *other > since).count();
            queue.insert(queue.len() - later, (since, slot, lease.fence));
        }
    }

    /// Longest a proof may run, in milliseconds.
    pub(crate) fn limit(&self, kind: Kind, cores: u16) -> Millis {
        let learned = self.durations.expected(kind, cores);
        (Millis::from(learned) * Millis::from(self.config.limit_factor)).max(self.config.limit_floor)
    }

    /// How long a proof runs before a second copy pays; `None` while too little is known.
    fn patience(&self, kind: Kind, cores: u16) -> Option<Millis> {
        patience(&self.config, &self.durations, kind, cores)
    }

    /// Looks for leases that run too long.
    pub(crate) fn check_running(&mut self) {
        let mut over = vec![];
        for (&(kind, cores), watched) in &mut self.watched {
            let Some(kind) = Kind::from_index(usize::from(kind)) else { continue };
            let leases = &self.leases;
            let due = |queue: &mut VecDeque<(Millis, u32, u64)>, after: Millis, runs: Runs| {
                let (since, slot, fence) = *queue.front()?;
                // A lease that was lost and adopted again may stand here twice, and may be queued now.
                let runs = leases.is(slot, fence) && runs(&leases[slot]) == Some(since);
                (!runs || since.saturating_add(after) <= self.now).then(|| {
                    queue.pop_front();
                    (since, slot, fence, runs)
                })
            };
            let expected = Millis::from(self.durations.expected(kind, cores));
            let limit = (expected * Millis::from(self.config.limit_factor)).max(self.config.limit_floor);
            while let Some((_, slot, fence, runs)) = due(&mut watched.limit, limit, known_since) {
                over.extend(runs.then_some((slot, fence)));
            }
            let patience = patience(&self.config, &self.durations, kind, cores).unwrap_or(Millis::MAX);
            while let Some((since, slot, fence, runs)) =
                due(&mut watched.backup, patience, |lease| lease.started)
            {
                if !runs {
                    continue;
                }
                self.hedges.slow += 1;
                match leases[slot].twin {
                    None => _ = self.slow.insert((since, fence, slot)),
                    Some(twin) if leases[twin].fence < fence => {
                        self.hedges.slow_copies.push_back((slot, fence));
                    }
                    Some(_) => {}
                }
            }
        }
        self.watched.retain(|_, watched| !watched.backup.is_empty() || !watched.limit.is_empty());
        for (slot, fence) in over {
            if self.leases.is(slot, fence) {
                self.over_limit(slot);
            }
        }
    }

    /// Copies that are slow as well make room for others on a third machine. A task's first lease is
    /// never stopped, so one that takes long wherever it runs is done in the end.
    /// Says whether any did.
    pub(crate) fn replace_slow_copies(&mut self) -> bool {
        let mut replaced = false;
        for _ in 0..self.hedges.slow_copies.len() {
            let Some((slot, fence)) = self.hedges.slow_copies.pop_front() else { break };
            let twin = self.leases.is(slot, fence).then(|| self.leases[slot].twin).flatten();
            let Some(first) = twin.filter(|first| self.leases[*first].copies < MAX_COPIES) else { continue };
            if self.is_suspended(slot) {
                self.hedges.slow_copies.push_back((slot, fence));
                continue;
            }
            let lease = self.leases[slot];
            let mut avoid = self.avoided(lease.at);
            avoid.extend([first, slot].map(|slot| self.workers[self.leases[slot].worker].node));
            if let Some(worker) = self.workers.best(self.needs(lease.at), self.want(lease.at), &avoid) {
                self.take_back(slot, Tell::Stop);
                self.back_up(first, worker);
                replaced = true;
            } else {
                self.hedges.slow_copies.push_back((slot, fence));
            }
        }
        replaced
    }

    /// A lease's other copy ended without a result: if it is slow it may have another.
    pub(crate) fn alone_again(&mut self, slot: u32) {
        let lease = self.leases[slot];
        let kind = self.jobs[lease.at.job].kind(lease.at.node);
        let patience = self.patience(kind, self.workers[lease.worker].capacity.cores);
        let slow = lease.started.zip(patience).filter(|(started, patience)| started + patience <= self.now);
        if let Some((started, _)) = slow.filter(|_| lease.copies < MAX_COPIES) {
            self.slow.insert((started, lease.fence, slot));
        }
    }

    /// Notes a lease of one of a job's last tasks.
    pub(crate) fn consider_hedge(&mut self, slot: u32) {
        let lease = self.leases[slot];
        let job = &self.jobs[lease.at.job];
        let finished: u64 = Kind::ALL.iter().map(|kind| self.durations.samples(*kind, 0)).sum();
        let pays = self.config.backup_percent > 0 && self.hedges.slow * SLOW_PART > finished;
        if pays && job.open.saturating_mul(HEDGED_PART) <= job.shape().total() {
            let kind = job.kind(lease.at.node);
            self.hedges.waiting.push(lease.at.job, kind, (slot, lease.fence));
        }
    }

    /// Second copies of a job's last tasks, to idle workers on other machines: for all workers of some kinds
    /// what waits longest comes first.
    pub(crate) fn hedge(&mut self) {
        if self.hedges.waiting.is_empty() {
            return;
        }
        for job in self.jobs_in_turn() {
            for place in 0..self.workers.takers().len() {
                while let Some((kind, (slot, fence))) = self.next_hedge(job, place) {
                    let alone = self.leases.is(slot, fence) && self.leases[slot].twin.is_none();
                    if alone && !self.is_suspended(slot) {
                        let lease = self.leases[slot];
                        let mut avoid = self.avoided(lease.at);
                        avoid.push(self.workers[lease.worker].node);
                        let best = self.workers.best(self.needs(lease.at), self.want(lease.at), &avoid);
                        let Some(worker) = best else { break };
                        self.back_up(slot, worker);
                    }
                    self.hedges.waiting.pop_front(job, kind);
                }
            }
        }
    }

    /// What waits longest for a second copy of all of a job that these workers take, by their place among all takers.
    fn next_hedge(&self, job: u32, place: usize) -> Option<(Kind, (u32, u64))> {
        let takers = self.workers.takers().get(place)?;
        let serves = takers.serves.contains(&self.jobs[job].spec.namespace);
        self.hedges.waiting.front(job, takers.kinds).filter(|_| serves)
    }

    /// What a task needs now.
    pub(crate) fn needs(&self, at: At) -> Needs {
        self.classes[usize::from(self.jobs[at.job].class(at.node))]
    }

    /// Whether a lease is that of a job for which nothing new is leased.
    pub(crate) fn is_suspended(&self, slot: u32) -> bool {
        self.jobs[self.leases[slot].at.job].spec.suspended
    }

    fn over_limit(&mut self, slot: u32) {
        let lease = self.leases[slot];
        let worker = &self.workers[lease.worker];
        let text = format!("ran longer than allowed on {}", worker.name);
        let maker = worker.maker;
        self.note_failed(lease.at, worker.node, lease.fence);
        self.count_failure(lease.worker, Reason::TimedOut);
        let goes_on = self.take_back(slot, Tell::Stop);
        self.charge_and_settle(lease.at, Reason::TimedOut, maker, text, goes_on);
    }

    /// When the next lease becomes slow or reaches its limit.
    pub(crate) fn next_slow(&self) -> Option<Millis> {
        let of = |(&(kind, cores), watched): (&(u8, u16), &Watched)| {
            let kind = Kind::from_index(usize::from(kind))?;
            let limit = watched.limit.front().map(|(since, ..)| since + self.limit(kind, cores));
            let first = watched.backup.front();
            let backup = first.and_then(|(since, ..)| Some(since + self.patience(kind, cores)?));
            limit.into_iter().chain(backup).min()
        };
        self.watched.iter().filter_map(of).min()
    }

    /// Starts a second copy of a lease's task at an idle worker: the first result wins.
    pub(crate) fn back_up(&mut self, slot: u32, worker: u32) {
        let lease = self.leases[slot];
        let copy = self.send(lease.at, worker, false);
        self.link(slot, copy);
        self.out.push(Command::Notice(Notice::Backup {
            task: self.id(lease.at),
            slow: self.workers[lease.worker].name.clone(),
            copy: self.workers[worker].name.clone(),
        }));
    }
}
