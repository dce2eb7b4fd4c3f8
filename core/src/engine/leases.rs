//! Leases: who has which task, since when, under which fence.

use super::adoption::mac;
use super::table::At;
use super::workers::{Lost, fits};
use super::{Assignment, Command, Engine, Fence, JobState, Millis, Notice, Reason, Record, TaskState};
use crate::profile::Needs;
use crate::tree::NodeId;
use hashbrown::HashMap;
use std::ops::{Index, IndexMut};

/// Fences reserved at a time in the journal.
const FENCE_BLOCK: u64 = 1 << 20;

/// A task that so many workers were lost with is charged for it.
const MAX_LOST: u32 = 5;

/// A lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    /// Fencing token; 0 is an empty slot.
    pub(crate) fence: u64,
    /// The place it is done for.
    pub(crate) at: At,
    pub(crate) worker: u32,
    pub(crate) class: u8,
    pub(crate) assigned: Millis,
    /// `None` while it is queued at its worker.
    pub(crate) started: Option<Millis>,
    /// The other copy of the same task.
    pub(crate) twin: Option<u32>,
    /// Second copies started of it.
    pub(crate) copies: u8,
}

/// All leases.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    slab: Vec<Lease>,
    vacant: Vec<u32>,
    by_fence: HashMap<u64, u32>,
}

impl Index<u32> for Leases {
    type Output = Lease;
    fn index(&self, slot: u32) -> &Lease {
        &self.slab[slot as usize]
    }
}

impl IndexMut<u32> for Leases {
    fn index_mut(&mut self, slot: u32) -> &mut Lease {
        &mut self.slab[slot as usize]
    }
}

impl Leases {
    pub(crate) fn len(&self) -> usize {
        self.slab.len() - self.vacant.len()
    }

    pub(crate) fn by_fence(&self, fence: u64) -> Option<u32> {
        self.by_fence.get(&fence).copied()
    }

    /// Whether the slot still holds the lease it held.
    pub(crate) fn is(&self, slot: u32, fence: u64) -> bool {
        self.slab.get(slot as usize).is_some_and(|l| l.fence == fence)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Lease)> {
        self.slab.iter().enumerate().filter(|(_, l)| l.fence != 0).map(|(i, l)| (i as u32, l))
    }

    fn insert(&mut self, lease: Lease) -> u32 {
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.slab[slot as usize] = lease;
                slot
            }
            None => {
                self.slab.push(lease);
                self.slab.len() as u32 - 1
            }
        };
        self.by_fence.insert(lease.fence, slot);
        slot
    }

    fn remove(&mut self, slot: u32) -> Lease {
        let lease = self.slab[slot as usize];
        self.slab[slot as usize].fence = 0;
        self.by_fence.remove(&lease.fence);
        self.vacant.push(slot);
        lease
    }
}

/// What a lost or revoked lease's worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    /// Nothing: it does not hold the lease, or may go on with it.
    Nothing,
    /// To stop; its result would still count.
    Stop,
    /// To stop: the task is done.
    Finished,
}

impl Engine {
    fn next_fence(&mut self) -> u64 {
        // Far ahead of what is given out, so that the record is durable long before it matters.
        if self.next_fence + FENCE_BLOCK / 2 > self.fences_to {
            self.fences_to = self.next_fence + FENCE_BLOCK;
            self.out.push(Command::Persist(Record::FencesTo(Fence(self.fences_to))));
        }
        self.next_fence += 1;
        self.next_fence - 1
    }

    /// Leases a task: it runs at once, or is queued at the worker.
    pub(crate) fn assign(&mut self, at: At, worker: u32, queued: bool) {
        let slot = self.send(at, worker, queued);
        self.own(at, slot);
        self.consider_hedge(slot);
    }

    /// Makes a lease and sends it.
    pub(crate) fn send(&mut self, at: At, worker: u32, queued: bool) -> u32 {
        let fence = self.next_fence();
        let started = (!queued).then_some(self.now);
        let slot = self.enter_lease(at, worker, fence, started, self.now);
        let lease = self.leases[slot];
        let job = &self.jobs[at.job];
        let (node, kind) = (NodeId(at.node), job.kind(at.node));
        let assignment = Assignment {
            job: job.spec.id,
            node,
            task: job.tree.ids[node.index()],
            fence: Fence(fence),
            circuit: job.shape().circuit(node),
            needs: self.classes[usize::from(lease.class)],
            limit: self.limit(kind, self.workers[worker].capacity.cores),
            mac: mac(&self.workers[worker].key, fence, &job.tree.ids[node.index()]),
        };
        self.out.push(Command::Assign(self.workers[worker].session, assignment));
        slot
    }

    /// The task is leased, by this lease, wherever it stands.
    pub(crate) fn own(&mut self, at: At, slot: u32) {
        for copy in self.open_copies(at).as_slice() {
            let job = &mut self.jobs[copy.job];
            job.set_state(copy.node, TaskState::Leased);
            job.set_word(copy.node, slot);
        }
    }

    /// Writes a lease into the books of its worker and the watch over slow ones; the task's are for
    /// [`Engine::own`], or the lease is linked to its twin.
    pub(crate) fn enter_lease(
        &mut self,
        at: At,
        worker: u32,
        fence: u64,
        started: Option<Millis>,
        assigned: Millis,
    ) -> u32 {
        let class = self.jobs[at.job].class(at.node);
        let lease = Lease { fence, at, worker, class, assigned, started, twin: None, copies: 0 };
        let slot = self.leases.insert(lease);
        match started {
            Some(started) => self.start(slot, started),
            None => {
                self.workers[worker].queue.push(slot);
                self.list_queued(slot);
            }
        }
        let (tenant, cores) = self.share_of(&lease);
        self.tenants.take(tenant, cores, self.now);
        self.workers.reindex(worker);
        slot
    }

    /// Lists a queued lease where others that could start it at once look.
    pub(crate) fn list_queued(&mut self, slot: u32) {
        let Lease { at, class, assigned, fence, .. } = self.leases[slot];
        let kind = self.jobs[at.job].kind(at.node);
        self.queued[usize::from(class)].push(at.job, kind, (assigned, slot, fence));
        self.compact_queued(class);
    }

    fn compact_queued(&mut self, class: u8) {
        let queued = &mut self.queued[usize::from(class)];
        if queued.len() > 2 * self.leases.len() + 64 {
            queued.retain(|(_, slot, fence)| {
                self.leases.is(*slot, *fence) && self.leases[*slot].started.is_none()
            });
        }
    }

    fn start(&mut self, slot: u32, started: Millis) {
        let lease = &mut self.leases[slot];
        lease.started = Some(started);
        let (lease, needs) = (*lease, self.classes[usize::from(lease.class)]);
        let worker = &mut self.workers[lease.worker];
        worker.held_for = None;
        worker.used.cores = worker.used.cores.saturating_add(needs.cores);
        worker.used.memory_mib = worker.used.memory_mib.saturating_add(needs.memory_mib);
        worker.running.push(slot);
        worker.largest = worker.largest.max(lease.class);
        let cores = worker.capacity.cores;
        let kind = self.jobs[lease.at.job].kind(lease.at.node);
        self.watch(kind, cores, started, slot);
    }

    /// Takes a lease out of the books. The task is left as it is; the answer says whether another
    /// copy of it goes on. What was queued behind it starts.
    pub(crate) fn end_lease(&mut self, slot: u32) -> bool {
        let lease = self.leases.remove(slot);
        let (tenant, cores) = self.share_of(&lease);
        self.tenants.give_back(tenant, cores, self.now);
        let needs = self.classes[usize::from(lease.class)];
        let worker = &mut self.workers[lease.worker];
        if let Some(started) = lease.started {
            worker.running.retain(|s| *s != slot);
            worker.used.cores = worker.used.cores.saturating_sub(needs.cores);
            worker.used.memory_mib = worker.used.memory_mib.saturating_sub(needs.memory_mib);
            worker.largest = worker.running.iter().map(|s| self.leases[*s].class).max().unwrap_or(0);
            self.slow.remove(&(started, lease.fence, slot));
        } else {
            worker.queue.retain(|s| *s != slot);
        }
        if worker.is_idle() {
            worker.idle_since = self.now;
        }
        if let Some(twin) = lease.twin {
            self.leases[twin].twin = None;
            self.alone_again(twin);
            for copy in self.open_copies(lease.at).as_slice() {
                self.jobs[copy.job].set_word(copy.node, twin);
            }
        }
        self.promote(lease.worker);
        lease.twin.is_some()
    }

    /// Starts queued leases that fit now, in their order.
    pub(crate) fn promote(&mut self, worker: u32) {
        let mut place = 0;
        while let Some(&slot) = self.workers[worker].queue.get(place) {
            let needs: Needs = self.classes[usize::from(self.leases[slot].class)];
            if fits(needs, self.workers[worker].free()) {
                self.workers[worker].queue.remove(place);
                self.start(slot, self.now);
            } else {
                place += 1;
            }
        }
        self.workers.reindex(worker);
    }

    /// Ends a lease from our side and tells its worker. The task is left as it is.
    pub(crate) fn take_back(&mut self, slot: u32, tell: Tell) -> bool {
        let lease = self.leases[slot];
        let task = self.id(lease.at);
        let worker = &mut self.workers[lease.worker];
        if tell != Tell::Nothing {
            self.out.push(Command::Revoke(worker.session, Fence(lease.fence)));
        }
        if tell != Tell::Finished {
            let revoked = tell == Tell::Stop;
            worker.remember(Lost { fence: lease.fence, task, started: lease.started, revoked });
        }
        self.end_lease(slot)
    }

    /// A lease ended without a result and without blame: its task is ready again.
    /// `ran`: it was not only queued.
    pub(crate) fn lose(&mut self, slot: u32, ran: bool, why: &'static str) {
        let lease = self.leases[slot];
        let (task, worker) = (self.id(lease.at), self.workers[lease.worker].name.clone());
        self.out.push(Command::Notice(Notice::LeaseLost { task, worker, why }));
        if self.take_back(slot, Tell::Nothing) {
            return;
        }
        if ran && self.is_deadly(lease.at, self.workers[lease.worker].node) {
            let maker = self.workers[lease.worker].maker;
            self.note_failed(lease.at, self.workers[lease.worker].node, lease.fence);
            let text = format!("{MAX_LOST} workers died or fell silent while they ran it");
            return self.charge_and_settle(lease.at, Reason::Error, maker, text, false);
        }
        self.set_open(lease.at, TaskState::Ready);
    }

    /// Counts a lease lost while it ran. One is nobody's fault; a task that takes worker after worker with it
    /// is at fault itself, and would go on for ever.
    fn is_deadly(&mut self, at: At, node: u32) -> bool {
        let (all, counted) = self.jobs[at.job].extra_mut(at.node).note_lost(node);
        // One machine alone does not make a task deadly while there are others.
        let deadly = counted >= MAX_LOST || all >= MAX_LOST && !self.another_could(at, &[node]);
        if deadly {
            self.jobs[at.job].extra_mut(at.node).lost.clear();
        }
        deadly
    }

    /// Both copies of a leased task, or the one there is.
    pub(crate) fn leases_of(&self, at: At) -> impl Iterator<Item = u32> + use<> {
        let job = &self.jobs[at.job];
        let first = (job.state_of(at.node) == TaskState::Leased).then(|| job.word(at.node));
        first.into_iter().chain(first.and_then(|slot| self.leases[slot].twin))
    }

    /// Ends all leases of a task that runs.
    pub(crate) fn take_back_all(&mut self, at: At, tell: Tell) {
        while let Some(slot) = self.leases_of(at).last() {
            if !self.take_back(slot, tell) {
                break;
            }
        }
    }

    /// A job gives up its leases: other jobs that hold the task take them over, else they end.
    pub(crate) fn hand_over_leases(&mut self, job: u32, revoke: bool) {
        let mut slots: Vec<_> =
            self.leases.iter().filter(|(_, l)| l.at.job == job).map(|(slot, l)| (l.fence, slot)).collect();
        slots.sort_unstable();
        for (fence, slot) in slots {
            if self.leases.is(slot, fence) && !self.hand_over(slot) && revoke {
                let at = self.leases[slot].at;
                if !self.take_back(slot, Tell::Stop) {
                    self.set_open(at, TaskState::Ready);
                }
            }
        }
    }

    /// Makes a lease that of another job that wants its task, of a namespace that the worker serves; false if there
    /// is none.
    pub(crate) fn hand_over(&mut self, slot: u32) -> bool {
        let (at, worker) = (self.leases[slot].at, self.leases[slot].worker);
        let serves = &self.workers[worker].serves;
        let wants = |copy: &At| {
            let job = &self.jobs[copy.job];
            let served = serves.contains(&job.spec.namespace);
            copy.job != at.job && job.state == JobState::Proving && served
        };
        let copies = self.open_copies(at);
        let wanted = copies.as_slice().iter().filter(|c| wants(c));
        let next = wanted.min_by_key(|c| self.jobs[c.job].spec.suspended).copied();
        next.into_iter().for_each(|next| self.move_lease(slot, next));
        next.is_some()
    }
}
