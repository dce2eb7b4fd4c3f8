//! Workers that come, are heard, fall silent, drain and go.

use super::leases::Tell;
use super::retries::SUSPICIONS;
use super::table::At;
use super::workers::{Lost, Worker, fits};
use super::{
    Command, Engine, Fence, Gone, Held, JobState, Millis, Session, TaskState, WorkerSpec, WorkerState,
};
use crate::ids::TaskId;
use std::cmp::Reverse;

impl Engine {
    /// A login. What the worker holds from before goes on under its fences.
    pub(crate) fn joined(&mut self, session: Session, spec: &WorkerSpec, held: &[Held]) {
        if self.workers.by_session(session).is_some() {
            return;
        }
        let before = self.workers.by_name(&spec.name);
        let same = before.filter(|w| {
            let worker = &self.workers[*w];
            let alike = worker.capacity == spec.capacity && worker.kinds == spec.kinds;
            alike && worker.serves == spec.serves && self.nodes[worker.node as usize] == spec.node
        });
        let node = self.node_number(&spec.node);
        let maker = self.maker_number(&spec.name, Some(&spec.node), spec.capacity.cores);
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
            self.workers.insert(session, spec, node, maker, self.now)
        };
        if !held.is_empty() {
            self.process_lives(&spec.name);
        }
        let barred = self.makers[maker as usize].suspected >= SUSPICIONS;
        self.workers[worker].state = if barred { WorkerState::Barred } else { WorkerState::Live };
        self.workers[worker].heard = self.now;
        (self.workers[worker].rests, self.workers[worker].drains) = (false, false);
        self.workers.try_out(worker, false);
        self.workers.reindex(worker);
        self.workers[worker].armed = false;
        self.arm(worker);
        held.iter().for_each(|held| self.adopt(worker, held));
        self.promote(worker);
    }

    /// Leases that the worker does not name at login are lost: it is the one who knows.
    fn drop_unheld(&mut self, worker: u32, held: &[Held]) {
        let mut lost: Vec<_> = self.leases_at(worker);
        lost.retain(|(fence, _)| held.iter().all(|h| h.fence.0 != *fence));
        for (fence, slot) in lost {
            if self.leases.is(slot, fence) {
                self.lose(slot, "forgotten by its worker");
            }
        }
    }

    /// Leases of a worker, oldest first.
    fn leases_at(&self, worker: u32) -> Vec<(u64, u32)> {
        let worker = &self.workers[worker];
        let slots = worker.running.iter().chain(&worker.queue);
        let mut leases: Vec<_> = slots.map(|slot| (self.leases[*slot].fence, *slot)).collect();
        leases.sort_unstable();
        leases
    }

    /// A lease that a worker says it holds: it keeps it unless the task is done or someone else
    /// started earlier.
    fn adopt(&mut self, worker: u32, held: &Held) {
        if held.fence.0 == 0 || held.fence.0 >= self.next_fence {
            // Never given out.
            return self.revoke_unknown(worker, held.fence);
        }
        let started = held.running.map(|millis| self.now.saturating_sub(millis));
        if let Some(slot) = self.leases.by_fence(held.fence.0) {
            let lease = self.leases[slot];
            if lease.worker != worker || self.id(lease.at) != held.task {
                self.revoke_unknown(worker, held.fence);
            }
            return;
        }
        let lost = Lost { fence: held.fence.0, task: held.task, started, revoked: false };
        self.readopt(worker, lost);
    }

    fn revoke_unknown(&mut self, worker: u32, fence: Fence) {
        self.out.push(Command::Revoke(self.workers[worker].session, fence));
    }

    /// Gives a lease that is not in the books back to the worker that still works on it. If it can't
    /// have it the worker is told to stop; a result would count all the same.
    fn readopt(&mut self, worker: u32, lost: Lost) {
        let at = self.open_place(&lost.task);
        let wanted = self.place_for(worker, &lost.task);
        let taken = wanted.is_some_and(|at| self.may_adopt(worker, at, lost.started));
        if let Some(at) = wanted.filter(|_| taken) {
            self.take_back_all(at, Tell::Stop);
            let slot = self.enter_lease(at, worker, lost.fence, lost.started, self.now);
            self.own(at, slot);
            return;
        }
        self.revoke_unknown(worker, Fence(lost.fence));
        if at.is_some() {
            self.workers[worker].remember(Lost { revoked: true, ..lost });
        }
    }

    /// A place where this task is open, in a job that goes on and whose namespace the worker serves.
    fn place_for(&self, worker: u32, task: &TaskId) -> Option<At> {
        let serves = &self.workers[worker].serves;
        self.places(task).into_iter().find(|at| {
            let job = &self.jobs[at.job];
            let goes_on = job.state == JobState::Proving && !job.is_done(at.node);
            goes_on && serves.contains(&job.spec.namespace)
        })
    }

    fn may_adopt(&self, worker: u32, at: At, started: Option<Millis>) -> bool {
        let job = &self.jobs[at.job];
        let open = match job.state_of(at.node) {
            TaskState::Ready | TaskState::Delayed => true,
            TaskState::Leased => self.leases_of(at).all(|slot| {
                let other = self.leases[slot].started;
                started.is_some_and(|own| other.is_none_or(|other| own < other))
            }),
            TaskState::Waiting | TaskState::Failed | TaskState::Done => false,
        };
        let worker = &self.workers[worker];
        let room = match started {
            Some(_) => fits(self.classes[usize::from(job.class(at.node))], worker.free()),
            None => !job.spec.suspended && worker.queue.len() < usize::from(worker.prefetch),
        };
        open && room && worker.kinds.contains(job.kind(at.node)) && worker.state != WorkerState::Barred
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
        for (fence, slot) in self.leases_at(worker) {
            let delivered =
                self.leases.is(slot, fence) && self.leases[slot].assigned + self.config.lease < self.now;
            if delivered && !fences.contains(&Fence(fence)) {
                self.lose(slot, "forgotten by its worker");
            }
        }
        for fence in fences {
            let own = self.leases.by_fence(fence.0).is_some_and(|slot| self.leases[slot].worker == worker);
            if own {
                continue;
            }
            let lost = &mut self.workers[worker].lost;
            let known =
                lost.iter().position(|l| l.fence == fence.0 && !l.revoked).map(|place| lost.remove(place));
            match known {
                Some(lost) => self.readopt(worker, lost),
                None => self.revoke_unknown(worker, *fence),
            }
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
        for (fence, slot) in self.leases_at(worker) {
            if self.leases.is(slot, fence) {
                self.lose(slot, why);
            }
        }
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
