//! One job's books: a byte of state and five words a task, in columns; no task is an object.

use super::demand::Answers;
use super::extra::Extra;
use super::ready::{Picky, Ready};
use super::{Counts, JobSpec, JobState, JobView, Millis, PreparedJob, TaskState};
use crate::circuit::{Kind, KindSet};
use crate::ids::TaskId;
use crate::order::POLICIES;
use crate::tree::{NodeId, Shape};
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeMap;
use std::sync::Arc;

/// No worker known as the maker of a proof.
pub(crate) const NO_MAKER: u32 = super::Record::NOBODY;

/// A place in the books: job by slot, node by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) job: u32,
    pub(crate) node: u32,
}

const STATE: u8 = 0b0000_0111;
const PENDING: u8 = 0b0001_1000;
const PENDING_ONE: u8 = 0b0000_1000;
const SHARED: u8 = 0b0010_0000;
const FOUND: u8 = 0b0100_0000;
const EXTRA: u8 = 0b1000_0000;

const STATES: [TaskState; 8] = [
    TaskState::Waiting,
    TaskState::Ready,
    TaskState::Delayed,
    TaskState::Leased,
    TaskState::Done,
    TaskState::Failed,
    TaskState::Failed,
    TaskState::Failed,
];

/// What is written down when a proof is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proven {
    pub(crate) maker: u32,
    pub(crate) millis: u32,
    pub(crate) cpu_millis: u32,
    pub(crate) proof_bytes: u32,
    pub(crate) found: bool,
    pub(crate) at: Millis,
}

impl Proven {
    /// Not needed any more: what it was for is done.
    pub(crate) fn implied(at: Millis) -> Self {
        Self { maker: NO_MAKER, millis: 0, cpu_millis: 0, proof_bytes: 0, found: true, at }
    }
}

/// Tasks of one kind that need one class of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wants {
    pub(crate) running: u32,
    pub(crate) ready: u32,
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) spec: JobSpec,
    /// Number of its namespace.
    pub(crate) tenant: u32,
    pub(crate) tree: Arc<PreparedJob>,
    pub(crate) state: JobState,
    /// Of another proof system than the engine's: kept, but nothing of it is leased or checked.
    pub(crate) is_foreign: bool,
    pub(crate) submitted: Millis,
    pub(crate) ended: Option<Millis>,
    pub(crate) policy: usize,
    pub(crate) counts: [Counts; 5],
    /// Tasks not done.
    pub(crate) open: u32,
    /// The most calls of one transaction.
    pub(crate) max_calls: u8,
    /// The shell was asked to check the root.
    pub(crate) asked: bool,
    /// It was asked to check a root proof that is not counted any more, and its answer is yet to come.
    pub(crate) asked_before: bool,
    pub(crate) at_risk: bool,
    /// It will not make its deadline, whatever is done: others of its priority go first.
    pub(crate) hopeless: bool,
    /// When it is likely to be done, with what goes before it.
    pub(crate) expected: Option<Millis>,
    /// When its chances were looked at.
    pub(crate) risk_checked: Option<Millis>,
    /// Kinds of which a task failed, and none was proven since: what is tried there tells little about a worker.
    pub(crate) in_trouble: KindSet,
    /// Class of each kind's needs.
    kind_class: [u8; 5],
    flags: Box<[u8]>,
    /// Wall time of a task that is done; the lease's slot of one that is leased.
    word: Box<[u32]>,
    maker: Box<[u32]>,
    /// When it was done, in milliseconds after the job's submission.
    end: Box<[u32]>,
    cpu: Box<[u32]>,
    bytes: Box<[u32]>,
    /// A bit a task: its proof was seen in the store.
    seen: Box<[u64]>,
    pub(super) ready: Ready,
    pub(crate) picky: Picky,
    pub(crate) extra: BTreeMap<u32, Extra>,
    /// What is ready and runs, by class and kind.
    pub(super) wants: Vec<[Wants; 5]>,
    /// Tasks that stand there under a class other than their kind's.
    classed: HashMap<u32, u8>,
    /// Tasks that wait for their backoff to pass.
    pub(super) delayed: u32,
    /// Grows whenever a task's state changes.
    pub(super) version: u64,
    pub(super) answers: Answers,
    /// Some of its tasks stand or stood elsewhere too.
    shares: bool,
    /// Everybody who is or was named as the maker of one of its proofs.
    pub(crate) made_by: HashSet<u32>,
}

fn column(count: u32) -> Box<[u32]> {
    vec![0; count as usize].into()
}

impl Job {
    /// A job whose tasks are all open; [`Job::rebuild`] has to follow.
    pub(crate) fn new(
        tree: Arc<PreparedJob>,
        tenant: u32,
        kind_class: [u8; 5],
        classes: usize,
        now: Millis,
    ) -> Self {
        let total = tree.shape.total();
        let calls = (0..tree.shape.transactions()).map(|tx| tree.shape.calls(tx));
        Self {
            max_calls: calls.max().unwrap_or(0),
            spec: tree.spec.clone(),
            tenant,
            state: JobState::Proving,
            is_foreign: false,
            submitted: now,
            ended: None,
            policy: 0,
            counts: [Counts::default(); 5],
            open: total,
            asked: false,
            asked_before: false,
            at_risk: false,
            hopeless: false,
            expected: None,
            risk_checked: None,
            in_trouble: KindSet::NONE,
            kind_class,
            flags: vec![0; total as usize].into(),
            word: column(total),
            maker: column(total),
            end: column(total),
            cpu: column(total),
            bytes: column(total),
            seen: vec![0; (total as usize).div_ceil(64)].into(),
            ready: Ready::new(classes),
            picky: Picky::default(),
            extra: BTreeMap::new(),
            wants: vec![Default::default(); classes],
            classed: HashMap::new(),
            delayed: 0,
            version: 0,
            answers: Answers::default(),
            shares: false,
            made_by: HashSet::new(),
            tree,
        }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.tree.shape
    }

    pub(crate) fn root_id(&self) -> TaskId {
        self.tree.ids[self.shape().root().index()]
    }

    /// What can be seen of it.
    pub(crate) fn view(&self) -> JobView {
        JobView {
            spec: self.spec.clone(),
            state: self.state.clone(),
            counts: self.counts,
            submitted: self.submitted,
            ended: self.ended,
            policy: self.policy,
        }
    }

    /// Tasks that are done, and their proofs.
    pub(crate) fn done(&self) -> impl Iterator<Item = (u32, Proven)> {
        (0..self.shape().total()).filter(|node| self.is_done(*node)).map(|node| (node, self.proven(node)))
    }

    /// Whether some of its tasks stand elsewhere too, or their proofs were there before.
    pub(crate) fn is_borrowed(&self) -> bool {
        (0..self.shape().total())
            .any(|node| self.is_shared(node) || self.is_done(node) && self.is_found(node))
    }

    pub(crate) fn kind(&self, node: u32) -> Kind {
        self.tree.shape.kind(NodeId(node))
    }

    pub(crate) fn state_of(&self, node: u32) -> TaskState {
        STATES[usize::from(self.flags[node as usize] & STATE)]
    }

    pub(crate) fn is_done(&self, node: u32) -> bool {
        self.flags[node as usize] & STATE == TaskState::Done as u8
    }

    pub(crate) fn pending(&self, node: u32) -> u8 {
        (self.flags[node as usize] & PENDING) / PENDING_ONE
    }

    pub(crate) fn is_shared(&self, node: u32) -> bool {
        self.flags[node as usize] & SHARED != 0
    }

    pub(crate) fn shares(&self) -> bool {
        self.shares
    }

    pub(crate) fn set_shared(&mut self, node: u32) {
        self.shares = true;
        self.flags[node as usize] |= SHARED;
    }

    pub(crate) fn is_found(&self, node: u32) -> bool {
        self.flags[node as usize] & FOUND != 0
    }

    /// Whether the operator saw the task's proof in the store.
    pub(crate) fn is_seen(&self, node: u32) -> bool {
        self.seen[node as usize / 64] >> (node % 64) & 1 == 1
    }

    pub(crate) fn set_seen(&mut self, node: u32, seen: bool) {
        let bit = 1 << (node % 64);
        let word = &mut self.seen[node as usize / 64];
        *word = if seen { *word | bit } else { *word & !bit };
    }

    pub(crate) fn extra(&self, node: u32) -> Option<&Extra> {
        if self.flags[node as usize] & EXTRA == 0 { None } else { self.extra.get(&node) }
    }

    pub(crate) fn extra_mut(&mut self, node: u32) -> &mut Extra {
        self.flags[node as usize] |= EXTRA;
        self.extra.entry(node).or_default()
    }

    /// The class of machine a task needs.
    pub(crate) fn class(&self, node: u32) -> u8 {
        let own = self.extra(node).and_then(|e| e.class);
        own.unwrap_or(self.kind_class[self.kind(node).index()])
    }

    /// The lease's slot of a leased task, the wall time of a finished one.
    pub(crate) fn word(&self, node: u32) -> u32 {
        self.word[node as usize]
    }

    pub(crate) fn set_word(&mut self, node: u32, word: u32) {
        self.word[node as usize] = word;
    }

    pub(crate) fn proven(&self, node: u32) -> Proven {
        let n = node as usize;
        Proven {
            maker: self.maker[n],
            millis: self.word[n],
            cpu_millis: self.cpu[n],
            proof_bytes: self.bytes[n],
            found: self.is_found(node),
            at: self.submitted + Millis::from(self.end[n]),
        }
    }

    /// Writes a proof down, whatever the task's state; the state itself is the caller's.
    pub(crate) fn write(&mut self, node: u32, p: &Proven) {
        let n = node as usize;
        let end = p.at.saturating_sub(self.submitted).min(u64::from(u32::MAX)) as u32;
        (self.word[n], self.maker[n], self.end[n]) = (p.millis, p.maker, end);
        (self.cpu[n], self.bytes[n]) = (p.cpu_millis, p.proof_bytes);
        self.flags[n] = self.flags[n] & !FOUND | if p.found { FOUND } else { 0 };
        if p.maker != NO_MAKER {
            self.made_by.insert(p.maker);
        }
    }

    /// What is ready and runs of a kind, by class.
    pub(crate) fn wanted(&self, kind: Kind) -> impl Iterator<Item = &Wants> {
        self.wants.iter().map(move |kinds| &kinds[kind.index()])
    }

    fn counter(&mut self, kind: Kind, state: TaskState) -> Option<&mut u32> {
        let counts = &mut self.counts[kind.index()];
        match state {
            TaskState::Ready => Some(&mut counts.ready),
            TaskState::Leased => Some(&mut counts.running),
            TaskState::Done => Some(&mut counts.done),
            TaskState::Failed => Some(&mut counts.failed),
            TaskState::Waiting | TaskState::Delayed => None,
        }
    }

    /// Moves a task to another state, with counters and heaps.
    pub(crate) fn set_state(&mut self, node: u32, state: TaskState) {
        let (old, kind) = (self.state_of(node), self.kind(node));
        self.version += 1;
        self.want(node, kind, old, false);
        self.counter(kind, old).into_iter().for_each(|n| *n = n.saturating_sub(1));
        self.counter(kind, state).into_iter().for_each(|n| *n += 1);
        self.open = self.open.saturating_sub(u32::from(state == TaskState::Done));
        self.open += u32::from(old == TaskState::Done);
        let flags = &mut self.flags[node as usize];
        *flags = *flags & !STATE | state as u8;
        self.want(node, kind, state, true);
        if old == TaskState::Ready {
            self.unpick(node);
        }
        if state == TaskState::Ready {
            self.push_ready(node);
        }
    }

    /// Counts a task that enters or leaves a state among what is wanted. It leaves under the class that it entered
    /// under.
    fn want(&mut self, node: u32, kind: Kind, state: TaskState, enters: bool) {
        let change = |count: &mut u32| *count = if enters { *count + 1 } else { count.saturating_sub(1) };
        match state {
            TaskState::Delayed => change(&mut self.delayed),
            TaskState::Ready | TaskState::Leased => {
                let own = self.kind_class[kind.index()];
                let class = match enters {
                    true => self.class(node),
                    false if self.classed.is_empty() => own,
                    false => self.classed.remove(&node).unwrap_or(own),
                };
                if enters && class != own {
                    self.classed.insert(node, class);
                }
                let wants = &mut self.wants[usize::from(class)][kind.index()];
                change(if state == TaskState::Ready { &mut wants.ready } else { &mut wants.running });
            }
            TaskState::Waiting | TaskState::Done | TaskState::Failed => {}
        }
    }

    /// Sets the state without counters: [`Job::rebuild`] has to follow.
    pub(crate) fn set_raw(&mut self, node: u32, state: TaskState) {
        let flags = &mut self.flags[node as usize];
        *flags = *flags & !STATE | state as u8;
    }

    /// One more child is done; says whether it was the last.
    pub(crate) fn child_done(&mut self, node: u32) -> bool {
        let flags = &mut self.flags[node as usize];
        if *flags & PENDING == 0 {
            return false;
        }
        *flags -= PENDING_ONE;
        *flags & PENDING == 0
    }

    /// One more child is open.
    pub(crate) fn child_opened(&mut self, node: u32) {
        let flags = &mut self.flags[node as usize];
        if *flags & PENDING != PENDING {
            *flags += PENDING_ONE;
        }
    }

    /// Where a task stands in the job's order: key above node number.
    pub(crate) fn entry(&self, node: u32) -> u64 {
        let key = (POLICIES[self.policy].key)(&self.tree.shape, NodeId(node));
        u64::from(key) << 32 | u64::from(node)
    }

    /// Follows another order from now on.
    pub(crate) fn set_policy(&mut self, policy: usize) {
        self.policy = policy;
        self.refill();
    }

    /// Works out states, counters and heaps from which tasks are done or failed: after a submit or a
    /// restart. What stands below a finished proof counts as done; it is not needed any more.
    pub(crate) fn rebuild(&mut self) {
        let total = self.shape().total();
        if self.flags.iter().any(|f| f & STATE == TaskState::Done as u8) {
            self.close_below_done();
        }
        self.count_pending();
        self.counts = [Counts::default(); 5];
        (self.open, self.delayed, self.version) = (0, 0, self.version + 1);
        self.wants.fill(Default::default());
        self.classed.clear();
        for node in 0..total {
            let state = match (self.state_of(node), self.pending(node)) {
                (TaskState::Done, _) => TaskState::Done,
                (TaskState::Failed, _) => TaskState::Failed,
                (_, 0) => TaskState::Ready,
                _ => TaskState::Waiting,
            };
            self.set_raw(node, state);
            self.open += u32::from(state != TaskState::Done);
            let kind = self.kind(node);
            self.counts[kind.index()].total += 1;
            self.counter(kind, state).into_iter().for_each(|n| *n += 1);
            self.want(node, kind, state, true);
        }
        self.refill();
    }

    fn close_below_done(&mut self) {
        for node in (0..self.shape().root().0).rev() {
            if self.is_done(node) {
                continue;
            }
            let above = self.shape().parent(NodeId(node)).is_some_and(|p| self.is_done(p.0));
            if above {
                self.write(node, &Proven::implied(self.submitted));
                self.set_raw(node, TaskState::Done);
            }
        }
    }

    /// Number of children not done of every node, without asking the tree for each.
    fn count_pending(&mut self) {
        let calls = self.shape().total_calls() as usize;
        let bases = 2 * calls;
        let mut pending = vec![0u8; self.flags.len()];
        pending[calls..bases].fill(2);
        let transactions = self.shape().transactions();
        for tx in 0..transactions {
            let count = self.shape().calls(tx);
            if count > 0 {
                pending[self.shape().kernel(tx, 1).index()] = 1;
            }
            pending[bases + tx as usize] = u8::from(count > 0);
        }
        let joins = bases + transactions as usize;
        pending[joins..].fill(if transactions == 1 { 1 } else { 2 });
        for node in (0..self.shape().total()).filter(|n| self.is_done(*n)) {
            if let Some(parent) = self.shape().parent(NodeId(node)) {
                pending[parent.index()] -= 1;
            }
        }
        self.flags.iter_mut().zip(pending).for_each(|(f, p)| *f = (*f & !PENDING) | (p * PENDING_ONE));
    }

    /// Bytes this job takes, all in but for its leaves' inputs and the table of places, divided by its tasks.
    pub(crate) fn bytes_per_task(&self) -> f64 {
        let columns =
            5 * 4 * self.word.len() + self.flags.len() + 8 * self.seen.len() + 32 * self.tree.ids.capacity();
        let sorted = 4 * self.tree.sorted.capacity();
        let shape = 4 * (self.shape().transactions() as usize + 1);
        (columns + sorted + self.ready.bytes() + shape) as f64 / f64::from(self.shape().total())
    }
}
