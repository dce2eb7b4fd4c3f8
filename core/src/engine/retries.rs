//! Leases that end without a proof: what is charged, what is tried again, when and where.

use super::extra::Extra;
use super::table::At;
use super::{
    Command, Engine, Fence, JobState, Millis, Notice, Reason, Record, Session, TaskState, WorkerState,
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

/// Where deaths for want of memory are.
const OUT_OF_MEMORY: usize = 1;

/// Where bad inputs are.
const BAD_INPUT: usize = CHARGES - 1;

/// A worker that made so many bad proofs gets no more leases.
pub(crate) const SUSPICIONS: u8 = 3;

/// Machines that have to say so before a task is given up, or gets a larger class.
const WORDS: usize = 2;

/// A machine that failed in a way that may not be the task's does not get it again for so long, in
/// milliseconds, if others could have it.
const SPARED: Millis = 60_000;

/// Bytes of a failure's text that are kept.
const MOST_TEXT: usize = 256;

/// First and longest wait after a charged failure, in milliseconds; it doubles.
const BACKOFF: (Millis, Millis) = (1_000, 30_000);

/// First and longest wait after a failure that nobody is charged for.
const SOFT_BACKOFF: (Millis, Millis) = (250, 8_000);

/// Index into [`Extra::attempts`]; `None` for what is charged to nobody.
pub(crate) const fn charge_index(reason: Reason) -> Option<usize> {
    match reason {
        Reason::Error => Some(0),
        Reason::OutOfMemory => Some(OUT_OF_MEMORY),
        Reason::TimedOut => Some(2),
        Reason::BadProof => Some(BAD_PROOFS),
        Reason::Oversize => Some(4),
        Reason::BadChild(_) | Reason::MissingChild(_) => Some(5),
        Reason::BadInput => Some(BAD_INPUT),
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
        let (leaves, node) = (self.workers[worker].drains, self.workers[worker].node);
        let barred = self.workers[worker].state == WorkerState::Barred;
        if !matches!(reason, Reason::HandedBack | Reason::StoreUnavailable) {
            self.note_failed(at, node, fence.0);
        }
        self.count_failure(worker, reason);
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
            Reason::HandedBack | Reason::StoreUnavailable => self.delay_softly(at, node, reason),
            Reason::MissingChild(own) if own == *task => {
                self.count_soft(node);
                if !goes_on {
                    self.delay_softly(at, node, reason);
                }
            }
            Reason::BadChild(_) | Reason::MissingChild(_) if barred => {
                if !goes_on {
                    self.delay_softly(at, node, reason);
                }
            }
            Reason::BadChild(child) | Reason::MissingChild(child) => {
                self.blame(at, reason, &child, maker, text, goes_on);
            }
            _ if known && goes_on => {}
            _ if known => self.set_open(at, TaskState::Ready),
            Reason::OutOfMemory => self.ran_out_of_memory(at, maker, text, goes_on),
            _ => self.charge_and_settle(at, reason, maker, text, goes_on),
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

    /// A child is said to be bad, or lost, or what lies at the task's own key to be no proof.
    fn blame(&mut self, at: At, reason: Reason, child: &TaskId, maker: u32, text: String, goes_on: bool) {
        let job = &self.jobs[at.job];
        if job.tree.ids[at.node as usize] == *child {
            return self.complain((at, at), reason, maker, text, goes_on);
        }
        let children = job.shape().children(NodeId(at.node));
        let found = children.as_slice().iter().find(|c| job.tree.ids[c.index()] == *child).copied();
        if let Some(found) = found {
            let about = At { job: at.job, node: found.0 };
            return self.complain((at, about), reason, maker, text, goes_on);
        }
        let text = format!("blamed a task that is no child of it: {text}");
        self.count_own(self.machine_of(maker));
        self.charge_and_settle(at, Reason::Error, maker, text, goes_on);
    }

    /// A worker says that a task ran out of memory. Another machine of its class is tried first; a larger class
    /// is for what did so on two, or time after time on the only one there is.
    fn ran_out_of_memory(&mut self, at: At, maker: u32, text: String, goes_on: bool) {
        let node = self.machine_of(maker);
        let larger = self.next_class(self.jobs[at.job].class(at.node)).is_some();
        let mut times = 0;
        for copy in self.copies(at).as_slice() {
            times = self.jobs[copy.job].extra_mut(copy.node).said(OUT_OF_MEMORY, node);
        }
        let said = self.jobs[at.job].extra(at.node).map_or(0, |e| e.machines(OUT_OF_MEMORY));
        let alone = !self.another_could(at, &[node]);
        if !larger || said >= WORDS || (alone && times >= self.config.max_attempts) {
            return self.charge_and_settle(at, Reason::OutOfMemory, maker, text, goes_on);
        }
        for copy in self.copies(at).as_slice() {
            self.jobs[copy.job].extra_mut(copy.node).avoid(node);
        }
        match goes_on {
            true => {}
            false if alone => self.delay(at, backoff(BACKOFF, u32::from(times) - 1)),
            false => self.set_open(at, TaskState::Ready),
        }
    }

    /// Whether a machine other than these could have a task, now or when it has rested, for any job that goes on.
    pub(crate) fn another_could(&self, at: At, nodes: &[u32]) -> bool {
        let needs = self.needs(at);
        let copies = self.open_copies(at);
        let mut wanted = copies.as_slice().iter().filter(|c| self.jobs[c.job].state == JobState::Proving);
        wanted.any(|copy| {
            let want = self.want(*copy);
            self.workers.could(needs, want, nodes) || self.workers.could_later(needs, want, nodes)
        })
    }

    /// A lease failed at a machine: it is not taken up again there, whoever names it.
    pub(crate) fn note_failed(&mut self, at: At, node: u32, fence: u64) {
        for copy in self.open_copies(at).as_slice() {
            self.jobs[copy.job].extra_mut(copy.node).note_failed(node, fence);
        }
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
        let extra = self.jobs[at.job].extra(at.node);
        let fence = extra.zip(node).and_then(|(extra, node)| extra.last_failed(node)).unwrap_or(0);
        let why = match text.is_empty() {
            true => text_of(reason).to_owned(),
            false => format!("{}: {}", text_of(reason), cut(&text)),
        };
        self.charge(at, reason, attempts, node, &why);
        self.out.push(Command::Persist(Record::Charged {
            job: self.jobs[at.job].spec.id,
            node: at.node,
            reason,
            attempts,
            worker: Some(maker),
            fence: Fence(fence),
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
            if let Some(node) = node {
                extra.avoid(node);
                extra.said(index, node);
            }
            why.clone_into(&mut extra.why);
            if reason == Reason::OutOfMemory {
                // What was said of the class before says nothing of the next.
                extra.words.retain(|word| usize::from(word.index) != OUT_OF_MEMORY);
                // From the count, so that all copies of a task have the same class.
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
        if self.gives_up(at, &extra) {
            let (id, node) = (job.spec.id, at.node);
            let notice = Notice::Quarantined {
                task: self.id(at),
                circuit: job.shape().circuit(NodeId(at.node)),
                job: job.spec.id,
                attempts: extra.charged(),
                why: extra.why,
            };
            self.out.push(Command::Notice(notice));
            self.out.push(Command::Persist(Record::GivenUp { job: id, node }));
            return self.give_up(at);
        }
        match reason {
            Reason::OutOfMemory | Reason::BadChild(_) | Reason::MissingChild(_) => {
                self.set_open(at, TaskState::Ready)
            }
            _ => self.delay(at, backoff(BACKOFF, extra.charged().saturating_sub(1))),
        }
    }

    /// Whether a task has used up its attempts: on two machines at least, or on the only one there is.
    fn gives_up(&self, at: At, extra: &Extra) -> bool {
        if extra.machines(BAD_INPUT) >= WORDS {
            return true;
        }
        let most = self.config.max_attempts;
        (0..CHARGES).filter(|index| extra.attempts[*index] >= most).any(|index| {
            let by_several = extra.spread(index) >= u32::from(most);
            by_several || !self.another_could(at, extra.most_failed(index).as_slice())
        })
    }

    /// A task is tried no more until it is renewed.
    pub(crate) fn give_up(&mut self, at: At) {
        self.set_open(at, TaskState::Failed);
    }

    /// A failure that may not be the task's: it waits a little, and goes to another machine if there is one.
    fn delay_softly(&mut self, at: At, node: u32, reason: Reason) {
        let soft = self.jobs[at.job].extra(at.node).map_or(0, |e| e.soft);
        for copy in self.open_copies(at).as_slice() {
            let extra = self.jobs[copy.job].extra_mut(copy.node);
            extra.soft = soft.saturating_add(1);
            text_of(reason).clone_into(&mut extra.why);
        }
        self.spare(at, node);
        self.delay(at, backoff(SOFT_BACKOFF, u32::from(soft)));
    }

    /// A machine does not get a task again for a while if others could have it.
    pub(crate) fn spare(&mut self, at: At, node: u32) {
        let until = self.now + SPARED;
        for copy in self.open_copies(at).as_slice() {
            self.jobs[copy.job].extra_mut(copy.node).spare(node, until);
        }
    }

    /// Ready again after a while, spread by up to as much again so that tasks that failed together
    /// do not come back together.
    fn delay(&mut self, at: At, wait: Millis) {
        let id = self.id(at).0;
        let random = u64::from_le_bytes([id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]]);
        let until = self.now + wait + random.wrapping_add(self.now) % (wait + 1);
        self.delay_until(at, until);
    }

    pub(crate) fn delay_until(&mut self, at: At, until: Millis) {
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
            let job = self.jobs.get(at.job);
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

    /// A counted proof turned out bad: who answers for it is suspected, once by each machine that says so or
    /// by the operator, and the task may be made only so often.
    pub(crate) fn charge_bad_proof(&mut self, at: At, maker: u32, text: &str, by: Option<&[u32]>) {
        let before = self.jobs[at.job].extra(at.node).map_or(0, |e| e.attempts[BAD_PROOFS]);
        let attempts = before.saturating_add(1);
        let known = self.makers.get(maker as usize).map(|made| made.node);
        let counts = match by {
            None => self.pay(maker, None),
            Some(machines) => machines.iter().filter_map(|by| self.pay(maker, Some(*by))).last(),
        };
        self.charge(at, Reason::BadProof, attempts, known, &format!("bad proof: {}", cut(text)));
        self.out.push(Command::Persist(Record::Reopened {
            job: self.jobs[at.job].spec.id,
            node: at.node,
            attempts,
            maker: known.map(|_| maker),
            suspected: self.makers.get(maker as usize).map_or(0, |made| made.suspected),
            at: self.now,
        }));
        self.settle(at, Reason::BadProof);
        if let Some(times) = counts {
            self.tell_suspected(maker, times);
        }
    }
}

/// As much of a text as is kept.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(MOST_TEXT)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

pub(crate) fn backoff((first, longest): (Millis, Millis), times: u32) -> Millis {
    first.saturating_mul(1 << times.min(20)).min(longest)
}
