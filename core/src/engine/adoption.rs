//! Leases that a worker brings back: after its connection broke, after a restart of the operator, after it was
//! silent for too long.

use super::leases::Tell;
use super::stragglers::MAX_COPIES;
use super::table::At;
use super::workers::{Lost, Worker, fits};
use super::{Command, Engine, Fence, Held, JobState, Mac, Millis, TaskState, WorkerState};
use crate::ids::TaskId;

/// Work that is thrown away when a lease comes back whose proof began earlier elsewhere: so many milliseconds at
/// most. What runs longer goes on beside it.
const THROWN_AWAY: Millis = 5_000;

/// How a lease comes back.
#[derive(Debug, Clone, Copy)]
enum Back {
    /// As the task's only one.
    Alone,
    /// As a second copy beside this one.
    Beside(u32),
}

/// The key of the codes for one worker on one machine.
pub(crate) fn key_of(lease_key: &[u8; 32], name: &str, node: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(lease_key);
    for part in [name, node] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Says that a lease was given to the worker with this key.
pub(crate) fn mac(key: &[u8; 32], fence: u64, task: &TaskId) -> Mac {
    let mut lease = [0; 40];
    lease[..8].copy_from_slice(&fence.to_le_bytes());
    lease[8..].copy_from_slice(&task.0);
    let hash = blake3::keyed_hash(key, &lease);
    Mac(std::array::from_fn(|place| hash.as_bytes()[place]))
}

impl Engine {
    /// Whether a lease was given to this very worker on this very machine. Takes the same time whatever the
    /// answer is.
    pub(crate) fn was_given(&self, worker: u32, held: &Held) -> bool {
        let wanted = mac(&self.workers[worker].key, held.fence.0, &held.task);
        wanted.0.iter().zip(held.mac.0).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }

    /// A lease that a worker says it holds: it keeps it unless the task is done or someone else
    /// started earlier.
    pub(crate) fn adopt(&mut self, worker: u32, held: &Held) {
        if held.fence.0 == 0 || held.fence.0 >= self.next_fence || !self.was_given(worker, held) {
            // Never given out, or not to this one.
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

    pub(crate) fn revoke_unknown(&mut self, worker: u32, fence: Fence) {
        self.out.push(Command::Revoke(self.workers[worker].session, fence));
    }

    /// Gives a lease that is not in the books back to the worker that still works on it. If it can't
    /// have it the worker is told to stop; its result counts if the proof is in the store.
    pub(crate) fn readopt(&mut self, worker: u32, lost: Lost) {
        let at = self.open_place(&lost.task);
        let wanted = self.place_for(worker, &lost.task);
        let back = wanted.and_then(|at| Some((at, self.way_back(worker, at, &lost)?)));
        let Some((at, back)) = back else {
            self.revoke_unknown(worker, Fence(lost.fence));
            if at.is_some() {
                self.workers[worker].remember(Lost { revoked: true, ..lost });
            }
            return;
        };
        match back {
            Back::Alone => {
                self.take_back_all(at, Tell::Stop);
                let slot = self.enter_lease(at, worker, lost.fence, lost.started, self.now);
                self.own(at, slot);
            }
            Back::Beside(other) => {
                let slot = self.enter_lease(at, worker, lost.fence, lost.started, self.now);
                self.link(other, slot);
            }
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

    /// Two leases of one task become copies of each other.
    pub(crate) fn link(&mut self, first: u32, second: u32) {
        let lease = self.leases[first];
        lease.started.into_iter().for_each(|started| _ = self.slow.remove(&(started, lease.fence, first)));
        (self.leases[second].twin, self.leases[first].twin) = (Some(first), Some(second));
        self.leases[first].copies = lease.copies.saturating_add(1);
    }

    fn way_back(&self, worker: u32, at: At, lost: &Lost) -> Option<Back> {
        let job = &self.jobs[at.job];
        let own = &self.workers[worker];
        let room = match lost.started {
            Some(_) => fits(self.classes[usize::from(job.class(at.node))], own.free()),
            None => !job.spec.suspended && own.queue.len() < usize::from(own.prefetch),
        };
        // A lease that failed there is not taken up again by naming it.
        let failed = job.extra(at.node).is_some_and(|extra| {
            let last = extra.last_failed(own.node).is_some_and(|last| lost.fence <= last);
            last || lost.fence >= self.first_fence && extra.avoided(self.now).contains(&own.node)
        });
        let takes = own.kinds.contains(job.kind(at.node)) && own.state != WorkerState::Barred;
        if !room || failed || !takes {
            return None;
        }
        match job.state_of(at.node) {
            TaskState::Ready | TaskState::Delayed => Some(Back::Alone),
            TaskState::Leased => self.way_beside(worker, at, lost.started?),
            TaskState::Waiting | TaskState::Failed | TaskState::Done => None,
        }
    }

    /// Others have the task: what began earlier is done first, as likely as not.
    fn way_beside(&self, worker: u32, at: At, own: Millis) -> Option<Back> {
        let others: Vec<u32> = self.leases_of(at).collect();
        if others.iter().any(|slot| self.leases[*slot].worker == worker) {
            return None;
        }
        let running = || others.iter().filter_map(|slot| self.leases[*slot].started);
        match others[..] {
            _ if running().any(|other| other <= own) => None,
            _ if running().all(|other| self.now.saturating_sub(other) <= THROWN_AWAY) => Some(Back::Alone),
            [other] if self.leases[other].copies < MAX_COPIES => Some(Back::Beside(other)),
            _ => None,
        }
    }

    /// Leases of a worker, oldest first, and whether each runs.
    pub(crate) fn leases_at(&self, worker: u32) -> Vec<(u64, u32, bool)> {
        let Worker { running, queue, .. } = &self.workers[worker];
        let of = |slots: &[u32], runs| -> Vec<_> {
            slots.iter().map(|slot| (self.leases[*slot].fence, *slot, runs)).collect()
        };
        let mut leases = [of(running, true), of(queue, false)].concat();
        leases.sort_unstable();
        leases
    }
}
