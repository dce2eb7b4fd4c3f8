//! Workers that come, are heard, fall silent, drain and go.

use super::workers::Worker;
use super::{Engine, Fence, Gone, Held, Session, WorkerSpec, WorkerState, adoption};
use crate::profile::Needs;
use std::cmp::Reverse;
use std::collections::HashSet;

/// Leases that may be on their way to a worker, or results on their way back, beyond those it can hold.
const UNDER_WAY: usize = 64;

impl Engine {
    /// The most leases that a worker can have to do with: as many as it runs and queues at once, as many again that it
    /// finished and was not told so, and some that are under way. One that names more names what it can't hold: the
    /// rest is passed over.
    pub fn most_leases(&self, capacity: Needs, prefetch: u16) -> usize {
        let at_once = |class: &Needs| {
            let cores = u32::from(capacity.cores) / u32::from(class.cores.max(1));
            cores.min(capacity.memory_mib / class.memory_mib.max(1)) as usize
        };
        let runs = self.classes.iter().map(at_once).max().unwrap_or_default();
        2 * (runs + usize::from(prefetch)) + UNDER_WAY
    }

    /// A login. What the worker holds from before goes on under its fences.
    pub(crate) fn joined(&mut self, session: Session, spec: &WorkerSpec, held: &[Held]) {
        if self.workers.by_session(session).is_some() {
            return;
        }
        let held = &held[..held.len().min(self.most_leases(spec.capacity, spec.prefetch))];
        // A worker of which no machine is known is one itself.
        let machine = if spec.node.is_empty() { &spec.name } else { &spec.node };
        let before = self.workers.by_name(&spec.name);
        let same = before.filter(|w| {
            let worker = &self.workers[*w];
            let alike = worker.capacity == spec.capacity && worker.kinds == spec.kinds;
            alike && worker.serves == spec.serves && self.nodes[worker.node as usize] == *machine
        });
        let node = self.node_number(machine);
        let maker = self.maker_number(&spec.name, Some(machine), spec.capacity.cores);
        let worker = if let Some(worker) = same {
            self.workers.rename(worker, session);
            self.workers[worker].prefetch = spec.prefetch;
            let ran = self.running_at(worker);
            self.drop_unheld(worker, held);
            if held.is_empty() {
                // A process that lives names what it runs.
                self.process_ended(spec.name.clone(), maker, ran);
            }
            worker
        } else {
            before.into_iter().for_each(|old| self.drop_worker(old, "replaced by another of its name"));
            let key = adoption::key_of(&self.config.lease_key, &spec.name, machine);
            self.workers.insert(session, spec, (node, maker, key), self.now)
        };
        if !held.is_empty() {
            self.process_lives(&spec.name);
        }
        let state = if self.is_barred(worker) { WorkerState::Barred } else { WorkerState::Live };
        let rests = self.machines.rests(node, self.now);
        let Worker { heard, drains, .. } = &mut self.workers[worker];
        (*heard, *drains) = (self.now, false);
        (self.workers[worker].state, self.workers[worker].rests) = (state, rests);
        self.workers.reindex(worker);
        self.workers[worker].armed = false;
        self.arm(worker);
        held.iter().for_each(|held| self.adopt(worker, held));
        self.promote(worker);
        self.shorten_queue(worker);
    }

    /// Leases that the worker does not name at login are lost: it is the one who knows.
    fn drop_unheld(&mut self, worker: u32, held: &[Held]) {
        let named: HashSet<u64> =
            held.iter().filter(|held| self.was_given(worker, held)).map(|held| held.fence.0).collect();
        let mut lost = self.leases_at(worker);
        lost.retain(|(fence, ..)| !named.contains(fence));
        self.lose_these(&lost, "forgotten by its worker");
    }

    /// Loses leases that are still there. What runs is told by the caller: what was queued behind it starts
    /// in the books as room comes, and never ran.
    fn lose_these(&mut self, lost: &[(u64, u32, bool)], why: &'static str) {
        for (fence, slot, ran) in lost {
            if self.leases.is(*slot, *fence) {
                self.lose(*slot, *ran, why);
            }
        }
    }

    /// Any sign of life.
    pub(crate) fn hear(&mut self, worker: u32) {
        self.workers[worker].heard = self.now;
        if !self.workers[worker].armed {
            // It was taken for dead.
            let name = self.workers[worker].name.clone();
            self.process_lives(&name);
        }
        if self.workers[worker].state == WorkerState::Silent {
            self.workers[worker].state = WorkerState::Live;
            self.workers.reindex(worker);
        }
        self.arm(worker);
    }

    /// Sees to it that the worker's silence is noticed.
    fn arm(&mut self, worker: u32) {
        let Worker { heard, session, armed, .. } = &mut self.workers[worker];
        if !std::mem::replace(armed, true) {
            self.expiries.push(Reverse((*heard + self.config.lease, worker, *session)));
        }
    }

    /// A worker says which leases it holds.
    pub(crate) fn heartbeat(&mut self, session: Session, fences: &[Fence]) {
        let Some(worker) = self.workers.by_session(session) else { return };
        if self.workers[worker].state == WorkerState::Disconnected {
            return;
        }
        self.hear(worker);
        let Worker { capacity, prefetch, .. } = self.workers[worker];
        let fences = &fences[..fences.len().min(self.most_leases(capacity, prefetch))];
        let named: HashSet<u64> = fences.iter().map(|fence| fence.0).collect();
        let mut lost = self.leases_at(worker);
        lost.retain(|(fence, slot, _)| {
            let delivered = self.leases[*slot].assigned + self.config.lease < self.now;
            delivered && !named.contains(fence)
        });
        self.lose_these(&lost, "forgotten by its worker");
        let mut came_back = false;
        for fence in fences {
            let own = self.leases.by_fence(fence.0).is_some_and(|slot| self.leases[slot].worker == worker);
            if own {
                continue;
            }
            let lost = &mut self.workers[worker].lost;
            let known =
                lost.iter().position(|l| l.fence == fence.0 && !l.revoked).map(|place| lost.remove(place));
            match known {
                Some(lost) => {
                    self.readopt(worker, lost);
                    came_back = true;
                }
                None => self.revoke_unknown(worker, *fence),
            }
        }
        if came_back {
            // what had not begun may have room
            self.promote(worker);
        }
    }

    pub(crate) fn draining(&mut self, session: Session) {
        let Some(worker) = self.workers.by_session(session) else { return };
        self.hear(worker);
        self.starts_to_drain(worker);
    }

    /// A worker is to take nothing new, without its doing.
    pub(crate) fn drain(&mut self, session: Session) {
        let Some(worker) = self.workers.by_session(session) else { return };
        self.starts_to_drain(worker);
        self.empty_queue(worker);
    }

    fn starts_to_drain(&mut self, worker: u32) {
        let Worker { state, drains, .. } = &mut self.workers[worker];
        *drains = true;
        if !matches!(state, WorkerState::Barred | WorkerState::Disconnected) {
            *state = WorkerState::Draining;
        }
        self.workers.reindex(worker);
    }

    /// A connection ended, or the machine did.
    pub(crate) fn left(&mut self, session: Session, gone: Gone) {
        let Some(worker) = self.workers.by_session(session) else { return };
        let idle = self.workers[worker].is_idle();
        match gone {
            Gone::Dead => self.drop_worker(worker, "worker is dead"),
            Gone::Disconnected if idle || self.is_announced(worker) => {
                self.drop_worker(worker, "disconnected")
            }
            Gone::Disconnected => self.workers.gone(worker, gone),
        }
    }

    /// Takes a worker out of the books; its leases return.
    pub(crate) fn drop_worker(&mut self, worker: u32, why: &'static str) {
        let (name, maker) = (self.workers[worker].name.clone(), self.workers[worker].maker);
        let ran = self.running_at(worker);
        self.workers[worker].state = WorkerState::Disconnected;
        self.lose_all(worker, why);
        self.workers.remove(worker);
        self.process_ended(name, maker, ran);
    }

    fn lose_all(&mut self, worker: u32, why: &'static str) {
        let all = self.leases_at(worker);
        self.lose_these(&all, why);
    }

    /// Workers not heard for a lease's time lose their leases.
    pub(crate) fn expire(&mut self) {
        while let Some(&Reverse((at, index, session))) = self.expiries.peek()
            && at <= self.now
        {
            self.expiries.pop();
            if self.workers.by_session(session) != Some(index) {
                continue;
            }
            let worker = &mut self.workers[index];
            let due = worker.heard + self.config.lease;
            if due > self.now {
                self.expiries.push(Reverse((due, index, session)));
            } else if worker.state == WorkerState::Disconnected {
                self.drop_worker(index, "expired");
            } else {
                if worker.state == WorkerState::Live {
                    worker.state = WorkerState::Silent;
                }
                worker.armed = false;
                let (name, maker) = (worker.name.clone(), worker.maker);
                self.workers.reindex(index);
                let ran = self.running_at(index);
                self.lose_all(index, "expired");
                self.process_ended(name, maker, ran);
            }
        }
    }
}
