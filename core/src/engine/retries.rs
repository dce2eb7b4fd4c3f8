//! Leases that end without a proof: what is charged, what is tried again, when and where.

use super::leases::Tell;
use super::table::{At, Extra};
use super::{
    Command, Engine, Fence, Millis, Notice, Reason, Record, Session, TaskState, Worker, WorkerState,
};
use crate::circuit::KindSet;
use crate::ids::TaskId;
use crate::profile::Needs;
use crate::tree::NodeId;
use std::cmp::Reverse;

/// Reasons that are charged and counted apart.
pub(crate) const CHARGES: usize = 7;

/// Where bad proofs are counted among them.
pub(crate) const BAD_PROOFS: usize = 3;

/// A worker that made so many bad proofs gets no more leases.
pub(crate) const SUSPICIONS: u8 = 3;

/// First and longest wait after a charged failure, in milliseconds; it doubles.
const BACKOFF: (Millis, Millis) = (1_000, 30_000);

/// A worker that failed so often in a row rests: one that fails at once is always idle, so it would get
/// every task there is, while those that work are busy. Then it gets one task at a time, until it proves one.
pub(crate) const FAILURES: u8 = 3;

/// First and longest wait after a failure that nobody is charged for.
const SOFT_BACKOFF: (Millis, Millis) = (250, 8_000);

/// Index into [`Extra::attempts`]; `None` for what is charged to nobody.
pub(crate) const fn charge_index(reason: Reason) -> Option<usize> {
    match reason {
        Reason::Error => Some(0),
        Reason::OutOfMemory => Some(1),
        Reason::TimedOut => Some(2),
        Reason::BadProof => Some(BAD_PROOFS),
        Reason::Oversize => Some(4),
        Reason::BadChild(_) | Reason::MissingChild(_) => Some(5),
        Reason::BadInput => Some(6),
        Reason::StoreUnavailable | Reason::HandedBack => None,
    }
}

const fn text_of(reason: Reason) -> &'static str {
    match reason {
        Reason::Error => "error",
        Reason::OutOfMemory => "out of memory",
        Reason::TimedOut => "timed out",
        Reason::BadProof => "bad proof",
        Reason::Oversize => "proof too large",
        Reason::BadChild(_) => "bad child",
        Reason::MissingChild(_) => "missing child",
        Reason::BadInput => "bad input",
        Reason::StoreUnavailable => "store unavailable",
        Reason::HandedBack => "handed back",
    }
}

impl Engine {
    /// A worker reports that a lease ended without a proof.
    pub(crate) fn failed(
        &mut self,
        session: Session,
        task: &TaskId,
        fence: Fence,
        reason: Reason,
        text: String,
    ) {
        let Some(worker) = self.workers.by_session(session) else { return };
        self.hear(worker);
        self.workers[worker].lost.retain(|lost| lost.fence != fence.0);
        let slot = self.leases.by_fence(fence.0).filter(|slot| {
            let lease = &self.leases[*slot];
            lease.worker == worker && self.id(lease.at) == *task
        });
        // Of a lease that was lost before the failure is of no more interest.
        let Some(slot) = slot else { return };
        let (at, maker) = (self.leases[slot].at, self.workers[worker].maker);
        let leaves = self.workers[worker].drains;
        let at_own_key = [Reason::BadChild(*task), Reason::MissingChild(*task)].contains(&reason);
        if !at_own_key {
            self.count_failure(worker, reason);
        }
        let known = reason == Reason::OutOfMemory && self.asks_for_more(at, self.leases[slot].class);
        let goes_on = if self.leases.is(slot, fence.0) {
            self.end_lease(slot)
        } else {
            // It failed before it was started, and went with all that was queued at a worker that rests now.
            self.jobs[at.job].state_of(at.node) == TaskState::Leased
        };
        match reason {
            Reason::HandedBack | Reason::StoreUnavailable if goes_on => {}
            Reason::HandedBack if leaves => self.set_open(at, TaskState::Ready),
            Reason::HandedBack | Reason::StoreUnavailable => self.delay_softly(at, text),
            Reason::BadChild(own) if own == *task => self.garbage_at_own_key(at, text, goes_on),
            Reason::MissingChild(own) if own == *task && goes_on => {}
            Reason::MissingChild(own) if own == *task => self.delay_softly(at, text),
            Reason::BadChild(child) | Reason::MissingChild(child) => {
                self.blame(at, reason, &child, maker, text, goes_on);
            }
            _ if known && goes_on => {}
            _ if known => self.set_open(at, TaskState::Ready),
            _ => self.charge_and_settle(at, reason, maker, text, goes_on),
        }
    }

    /// Counts a failure against the worker itself. From the third in a row on it rests after each, longer
    /// every time, and what is queued at it goes elsewhere. While it rests nothing is counted: what
    /// ran when the rest began says nothing new.
    pub(crate) fn count_failure(&mut self, worker: u32, reason: Reason) {
        let own = !matches!(reason, Reason::OutOfMemory | Reason::StoreUnavailable | Reason::HandedBack);
        if !own || self.workers[worker].rests {
            return;
        }
        let failures = self.workers[worker].failures.saturating_add(1);
        self.workers[worker].failures = failures;
        if failures < FAILURES {
            return;
        }
        let until = self.now + backoff(BACKOFF, u32::from(failures - FAILURES));
        self.resting.push(Reverse((until, worker, self.workers[worker].session)));
        self.workers[worker].rests = true;
        self.workers.try_out(worker, true);
        self.workers.reindex(worker);
        self.empty_queue(worker);
    }

    /// What is queued at a worker goes elsewhere.
    pub(crate) fn empty_queue(&mut self, worker: u32) {
        for slot in self.workers[worker].queue.clone() {
            let at = self.leases[slot].at;
            if self.leases[slot].started.is_none() && !self.take_back(slot, Tell::Stop) {
                self.set_open(at, TaskState::Ready);
            }
        }
    }

    /// Workers that have rested take leases again.
    pub(crate) fn end_rests(&mut self) {
        while let Some(&Reverse((until, worker, session))) = self.resting.peek()
            && until <= self.now
        {
            self.resting.pop();
            if self.workers.by_session(session) == Some(worker) {
                self.workers[worker].rests = false;
                self.workers.reindex(worker);
            }
        }
    }

    /// An assignment that was not sent. The worker gets nothing until it is heard again, or its
    /// leases would come and go for ever.
    pub(crate) fn undelivered(&mut self, session: Session, fence: Fence) {
        let Some(worker) = self.workers.by_session(session) else { return };
        let slot = self.leases.by_fence(fence.0).filter(|slot| self.leases[*slot].worker == worker);
        if self.workers[worker].state == WorkerState::Live {
            self.workers[worker].state = WorkerState::Silent;
            self.workers.reindex(worker);
        }
        if let Some(slot) = slot {
            let at = self.leases[slot].at;
            if !self.end_lease(slot) {
                self.set_open(at, TaskState::Ready);
            }
        }
    }

    /// Something lies at the task's own key that is no proof of it. It is moved aside and the task done
    /// again; its finder did nothing wrong, and who put it there nobody knows.
    fn garbage_at_own_key(&mut self, at: At, text: String, goes_on: bool) {
        self.out.push(Command::Quarantine { task: self.id(at), worker: None, text: text.clone() });
        if !goes_on {
            self.delay_softly(at, text);
        }
    }

    /// A child is bad, or lost: it is made again.
    fn blame(&mut self, at: At, reason: Reason, child: &TaskId, maker: u32, text: String, goes_on: bool) {
        let job = &self.jobs[at.job];
        let children = job.shape().children(NodeId(at.node));
        let found = children.as_slice().iter().find(|c| job.tree.ids[c.index()] == *child).copied();
        let Some(found) = found else {
            let text = format!("blamed a task that is no child of it: {text}");
            return self.charge_and_settle(at, Reason::Error, maker, text, goes_on);
        };
        if goes_on {
            self.take_back_all(at, Tell::Stop);
        }
        // The one who blames is charged too: one that always blames gets this task once only.
        self.charge_and_settle(at, reason, maker, text.clone(), false);
        let child = At { job: at.job, node: found.0 };
        if matches!(reason, Reason::MissingChild(_)) {
            return self.reopen_lost(child);
        }
        let by = self.makers.get(maker as usize).map(|m| m.node);
        self.reopen(child, &text, by);
    }

    /// Counts a failure and decides what becomes of the task. `goes_on`: another copy of it runs.
    pub(crate) fn charge_and_settle(
        &mut self,
        at: At,
        reason: Reason,
        maker: u32,
        text: String,
        goes_on: bool,
    ) {
        let larger = self.next_class(self.jobs[at.job].class(at.node));
        let reason = if reason == Reason::OutOfMemory && larger.is_none() { Reason::Error } else { reason };
        let Some(index) = charge_index(reason) else { return };
        let before = self.jobs[at.job].extra(at.node).map_or(0, |e| e.attempts[index]);
        let attempts = before.saturating_add(1);
        let node = self.makers.get(maker as usize).map(|m| m.node);
        let why =
            if text.is_empty() { text_of(reason).to_owned() } else { format!("{}: {text}", text_of(reason)) };
        self.charge(at, reason, attempts, node, &why);
        self.out.push(Command::Persist(Record::Charged {
            job: self.jobs[at.job].spec.id,
            node: at.node,
            reason,
            attempts,
            worker: Some(maker),
        }));
        let job = &mut self.jobs[at.job];
        job.in_trouble = job.in_trouble.or(KindSet::of(job.kind(at.node)));
        if !goes_on {
            self.settle(at, reason);
        }
    }

    /// Writes a charge into the books of every copy; also what a restart does with its record.
    pub(crate) fn charge(&mut self, at: At, reason: Reason, attempts: u8, node: Option<u32>, why: &str) {
        let Some(index) = charge_index(reason) else { return };
        for copy in self.copies(at).as_slice() {
            let own = self.own_class(*copy);
            let extra = self.jobs[copy.job].extra_mut(copy.node);
            extra.attempts[index] = attempts;
            if let Some(node) = node.filter(|n| !extra.nodes.contains(n)) {
                extra.nodes.push(node);
            }
            why.clone_into(&mut extra.why);
            if reason == Reason::OutOfMemory {
                // From the count, not from the class before: a record may be read twice.
                let class = (0..attempts).try_fold(own, |class, _| self.next_class(class).ok_or(class));
                let class = class.unwrap_or_else(|largest| largest);
                self.jobs[copy.job].extra_mut(copy.node).class = Some(class);
            }
        }
    }

    fn own_class(&self, at: At) -> u8 {
        let needs = self.config.profile.needs(self.jobs[at.job].kind(at.node));
        self.class_of(needs)
    }

    pub(crate) fn class_of(&self, needs: Needs) -> u8 {
        self.classes.partition_point(|class| *class < needs) as u8
    }

    /// The smallest class with more memory and no fewer cores.
    fn next_class(&self, class: u8) -> Option<u8> {
        let now = self.classes[usize::from(class)];
        let larger = |c: &Needs| c.memory_mib > now.memory_mib && c.cores >= now.cores;
        let place =
            self.classes.iter().enumerate().filter(|(_, c)| larger(c)).min_by_key(|(_, c)| c.memory_mib);
        place.map(|(class, _)| class as u8)
    }

    /// What becomes of a task after a charge: quarantined, or ready again, at once or later.
    pub(crate) fn settle(&mut self, at: At, reason: Reason) {
        let job = &self.jobs[at.job];
        let extra = job.extra(at.node).cloned().unwrap_or_default();
        if self.is_exhausted(&extra) {
            let notice = Notice::Quarantined {
                task: self.id(at),
                circuit: job.shape().circuit(NodeId(at.node)),
                job: job.spec.id,
                attempts: extra.charged(),
                why: extra.why,
            };
            self.out.push(Command::Notice(notice));
            return self.set_open(at, TaskState::Failed);
        }
        match reason {
            Reason::OutOfMemory | Reason::BadChild(_) | Reason::MissingChild(_) => {
                self.set_open(at, TaskState::Ready)
            }
            _ => self.delay(at, backoff(BACKOFF, extra.charged().saturating_sub(1))),
        }
    }

    /// Whether a task has used up its attempts.
    pub(crate) fn is_exhausted(&self, extra: &Extra) -> bool {
        let bad_input = extra.attempts[CHARGES - 1] > 0;
        bad_input || extra.attempts.iter().any(|n| *n >= self.config.max_attempts)
    }

    fn delay_softly(&mut self, at: At, why: String) {
        let soft = self.jobs[at.job].extra(at.node).map_or(0, |e| e.soft);
        for copy in self.open_copies(at).as_slice() {
            let extra = self.jobs[copy.job].extra_mut(copy.node);
            extra.soft = soft.saturating_add(1);
            extra.why.clone_from(&why);
        }
        self.delay(at, backoff(SOFT_BACKOFF, u32::from(soft)));
    }

    /// Ready again after a while, spread by up to as much again so that tasks that failed together
    /// do not come back together.
    fn delay(&mut self, at: At, wait: Millis) {
        let id = self.id(at).0;
        let random = u64::from_le_bytes([id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]]);
        let until = self.now + wait + random.wrapping_add(self.now) % (wait + 1);
        for copy in self.open_copies(at).as_slice() {
            let job = &mut self.jobs[copy.job];
            job.extra_mut(copy.node).until = until;
            self.delayed.push(Reverse((until, *copy)));
        }
        self.set_open(at, TaskState::Delayed);
    }

    /// Tasks whose wait is over are ready.
    pub(crate) fn end_backoffs(&mut self) {
        while let Some(&Reverse((until, at))) = self.delayed.peek()
            && until <= self.now
        {
            self.delayed.pop();
            let job = self.jobs.slots.get(at.job as usize).and_then(|slot| slot.as_deref());
            let waits = job.is_some_and(|job| {
                at.node < job.shape().total()
                    && job.state_of(at.node) == TaskState::Delayed
                    && job.extra(at.node).is_some_and(|e| e.until == until)
            });
            if waits {
                self.set_open(at, TaskState::Ready);
            }
        }
    }

    /// A counted proof turned out bad: its maker is suspected, once by each machine that says so, and
    /// the task may be made only so often.
    pub(crate) fn charge_bad_proof(&mut self, at: At, maker: u32, text: &str, by: Option<u32>) {
        let before = self.jobs[at.job].extra(at.node).map_or(0, |e| e.attempts[BAD_PROOFS]);
        let attempts = before.saturating_add(1);
        let mut counts = false;
        let known = self.makers.get_mut(maker as usize).map(|made| {
            counts = by.is_none_or(|by| !made.blamers.contains(&by));
            made.blamers.extend(by.filter(|_| counts));
            (made.node, made.suspected.saturating_add(u8::from(counts)))
        });
        self.charge(
            at,
            Reason::BadProof,
            attempts,
            known.map(|(node, _)| node),
            &format!("bad proof: {text}"),
        );
        self.out.push(Command::Persist(Record::Reopened {
            job: self.jobs[at.job].spec.id,
            node: at.node,
            attempts,
            maker: known.map(|_| maker),
            suspected: known.map_or(0, |(_, times)| times),
            at: self.now,
        }));
        self.settle(at, Reason::BadProof);
        if let Some((_, times)) = known.filter(|_| counts) {
            self.suspect(maker, times);
            let worker = self.makers[maker as usize].name.clone();
            self.out.push(Command::Notice(Notice::Suspected { worker, times: u32::from(times) }));
        }
    }

    /// Writes down how often a worker was suspected; beyond a few times it gets no more leases.
    pub(crate) fn suspect(&mut self, maker: u32, times: u8) {
        let Some(made) = self.makers.get_mut(maker as usize) else { return };
        made.suspected = times;
        let worker = self.workers.by_name(&made.name);
        if let Some(worker) = worker.filter(|_| times >= SUSPICIONS) {
            if self.workers[worker].state != WorkerState::Disconnected {
                self.workers[worker].state = WorkerState::Barred;
            }
            self.workers.reindex(worker);
        }
    }

    /// Nobody is suspected any more: workers that were barred take leases again.
    pub(crate) fn trust_all(&mut self) {
        for maker in &mut self.makers {
            (maker.suspected, maker.blamers) = (0, vec![]);
        }
        let barred = self.workers.iter().filter(|(_, w)| w.state == WorkerState::Barred);
        for worker in barred.map(|(index, _)| index).collect::<Vec<_>>() {
            let Worker { state, drains, armed, .. } = &mut self.workers[worker];
            *state = match (*drains, *armed) {
                (true, _) => WorkerState::Draining,
                (false, true) => WorkerState::Live,
                // It lost its leases to silence; nobody waits for it until it is heard.
                (false, false) => WorkerState::Silent,
            };
            self.workers.reindex(worker);
        }
    }
}

fn backoff((first, longest): (Millis, Millis), times: u32) -> Millis {
    first.saturating_mul(1 << times.min(20)).min(longest)
}
