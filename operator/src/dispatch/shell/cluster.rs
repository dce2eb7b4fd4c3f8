//! What those who run machines ask and tell: how many are wanted, which may go, which are gone.

use super::Dispatcher;
use crate::dispatch::net::SendBuffers;
use arborist_core::engine::{Demand, Event, Gone, JobId, Millis, WorkerBrief};
use arborist_core::ids::TaskId;
use std::time::Duration;

impl Dispatcher {
    /// What all jobs that are proven now ask for, by kind and class of machine: what runs, what is ready, and
    /// what will be ready within this time if everything ready starts now. Empty when nothing is open;
    /// some milliseconds for the largest block.
    pub fn demand(&self, within: Duration) -> Vec<Demand> {
        self.inner.room.look(|core| core.engine.demand(millis(within)))
    }

    /// All workers, as briefly as it takes to decide which may go; in no particular order. One that is not
    /// connected and holds no lease is not in it.
    pub fn worker_states(&self) -> Vec<WorkerBrief> {
        self.inner.room.look(|core| core.engine.worker_states())
    }

    /// A worker's machine or process is gone for good: its leases return at once, also when its connection
    /// is closed already, and are charged to nobody. That it was told to leave is forgotten. A process that lives
    /// all the same logs in anew.
    pub fn worker_dead(&self, worker: &str) {
        let inner = &self.inner;
        if inner.stopping.is_cancelled() {
            return;
        }
        let peer = inner.room.drive(&mut SendBuffers::default(), |core, now| {
            core.leaving.remove(worker);
            let (session, _) = core.engine.session_of(worker)?;
            core.event(now, Event::Left(session, Gone::Dead));
            core.sessions.get(&session.0).map(|entry| entry.peer.clone())
        });
        if let Some(peer) = peer {
            tracing::info!(worker, "a worker is gone");
            peer.hang_up();
        }
    }

    /// A worker's connection is closed: it logs in anew within a second or so, and brings what it runs. For when what its
    /// login found is not so any more.
    pub fn log_in_anew(&self, worker: &str) {
        let peer = self.inner.room.look(|core| {
            let (session, _) = core.engine.session_of(worker)?;
            core.sessions.get(&session.0).map(|entry| entry.peer.clone())
        });
        if let Some(peer) = peer {
            tracing::info!(worker, "a worker is to log in anew");
            peer.hang_up();
        }
    }

    /// The kernel killed a worker's process because its memory was used up. Every task that the process ran
    /// is charged and asks for the next larger class of machine. What it ran is what was lost when the
    /// worker's session last ended, in the two minutes before this or the 30 s after; a session that goes
    /// on is not touched, as it may be of the process that came after. `incident` names this death: told
    /// twice it is charged once, as far as the last 65,536 are remembered and this operator was not
    /// started anew.
    pub fn worker_out_of_memory(&self, worker: &str, incident: &str) {
        let inner = &self.inner;
        if inner.stopping.is_cancelled() {
            return;
        }
        let event = Event::OutOfMemory { worker: worker.to_owned(), incident: incident.to_owned() };
        inner.room.drive(&mut SendBuffers::default(), |core, now| core.event(now, event));
    }

    /// Of the named workers those that hold no lease take nothing new from now on, also when they log in anew;
    /// returns them. The others are left as they are, and so are those that are not connected.
    ///
    /// Whoever calls this tells of each worker's end by [`Dispatcher::worker_dead`]: until then, or until this
    /// operator ends, its name is kept.
    pub fn drain_idle(&self, workers: &[String]) -> Vec<String> {
        let inner = &self.inner;
        if inner.stopping.is_cancelled() {
            return vec![];
        }
        inner.room.drive(&mut SendBuffers::default(), |core, now| {
            let mut drained = vec![];
            for worker in workers {
                if let Some((session, true)) = core.engine.session_of(worker) {
                    core.leaving.insert(worker.clone());
                    core.event(now, Event::Drain(session));
                    drained.push(worker.clone());
                }
            }
            drained
        })
    }

    /// A worker takes nothing new from now on, also when it logs in anew, until its end is told as after
    /// [`Dispatcher::drain_idle`]. What it runs goes on, what is queued at it goes elsewhere. Without effect for
    /// one that is not in the books.
    pub fn drain(&self, worker: &str) {
        let inner = &self.inner;
        if inner.stopping.is_cancelled() {
            return;
        }
        inner.room.drive(&mut SendBuffers::default(), |core, now| {
            if let Some((session, _)) = core.engine.session_of(worker) {
                core.leaving.insert(worker.to_owned());
                core.event(now, Event::Drain(session));
            }
        });
    }

    /// The job of a namespace that has this task as its root; of several the newest.
    pub fn find_root(&self, namespace: &str, root: &TaskId) -> Option<JobId> {
        self.inner.room.look(|core| core.engine.find_root(namespace, root))
    }

    /// When a job will be done with the workers that are connected now and what goes before it, in milliseconds since
    /// 1970; see [`Engine::forecast`](arborist_core::engine::Engine::forecast).
    pub fn estimate(&self, id: JobId) -> Option<Millis> {
        self.inner.room.look(|core| core.engine.forecast(id))
    }

    /// Who made how many of a job's proofs, and in how much CPU time (milliseconds): most proofs first. `None`
    /// for an unknown job. A millisecond or so for a large block.
    pub fn attribution(&self, id: JobId) -> Option<Vec<(String, u32, u64)>> {
        self.inner.room.look(|core| core.engine.attribution(id))
    }
}

fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}
