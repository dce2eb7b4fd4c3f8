//! What goes wrong in the simulated world, and the reckoning at the end.

use super::World;
use crate::engine::{Event, Gone, JobState, Session};
use crate::sim::operator::JOB;
use crate::sim::queue::{Fault, What, Wire};
use crate::sim::scenario::Outcome;

impl World<'_> {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.trace(7, fault as u64);
        match fault {
            Fault::KillOperator => self.kill_operator(),
            Fault::CrashWorker => self.crash_worker(),
            Fault::Partition => self.partition(),
            Fault::Vanish => self.vanish(),
        }
    }

    fn kill_operator(&mut self) {
        if self.operator.engine.is_none() {
            return;
        }
        self.outcome.operator_kills += 1;
        // Of the segment being written some, all or nothing is durable.
        let written = self.rng.between(0, 40) as usize;
        self.operator.kill(written);
        self.operator_life += 1;
        self.tick_at = None;
        self.links.clear();
        for worker in 0..self.workers.len() {
            if self.workers[worker].session.take().is_some() {
                let at = self.now + self.rng.between(10, 1_000);
                self.queue.add(at, What::Connect { worker, life: self.workers[worker].life });
            }
        }
        let up = self.now + self.rng.between(100, 5_000);
        self.queue.add(up, What::OperatorUp);
    }

    pub(super) fn operator_up(&mut self) {
        self.trace(8, 0);
        match self.operator.start(self.now, &self.store) {
            Ok(events) => events.into_iter().for_each(|event| self.tell(event)),
            Err(reason) => {
                self.outcome.violations.push(format!("restart at {} ms: {reason}", self.now));
                self.ended = Some(self.now);
            }
        }
    }

    /// A worker that is alive, if there is one.
    fn pick(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..self.workers.len()).filter(|w| self.workers[*w].alive).collect();
        let last = alive.len().checked_sub(1)?;
        Some(alive[self.rng.between(0, last as u64) as usize])
    }

    fn crash_worker(&mut self) {
        let Some(worker) = self.pick() else { return };
        let how = self.rng.between(0, 2);
        self.kill_worker(worker, [Some(Gone::Dead), Some(Gone::Disconnected), None][how as usize]);
        let back = self.now + self.rng.between(500, 40_000);
        self.queue.add(back, What::Revives { worker, life: self.workers[worker].life });
    }

    /// The process dies; the operator hears of it in this way, or not at all.
    fn kill_worker(&mut self, worker: usize, heard: Option<Gone>) {
        let session = self.workers[worker].session;
        for task in self.workers[worker].die() {
            self.stopped(Some(task));
        }
        self.wires[worker] = Wire::default();
        if let (Some(session), Some(gone)) = (session, heard) {
            let after = if gone == Gone::Dead { self.rng.between(100, 1_000) } else { 1 };
            self.later(after, Event::Left(Session(session), gone));
        }
    }

    /// A worker can't be reached for a while. Either both sides notice that the connection is gone,
    /// or all that is sent arrives when the way is open again.
    fn partition(&mut self) {
        let Some(worker) = self.pick() else { return };
        let lease = self.scenario.config.lease;
        self.workers[worker].cut_until = self.now + self.rng.between(lease / 10, 2 * lease);
        if self.rng.chance(0.5) {
            return;
        }
        if let Some(session) = self.workers[worker].session.take() {
            self.links.remove(&session);
            self.later(1, Event::Left(Session(session), Gone::Disconnected));
            self.queue.add(self.now + 10, What::Connect { worker, life: self.workers[worker].life });
        }
    }

    fn vanish(&mut self) {
        for worker in 0..self.workers.len() {
            if self.rng.chance(self.scenario.faults.vanish) && self.workers[worker].alive {
                self.kill_worker(worker, Some(Gone::Dead));
            }
        }
    }

    /// What came of it all.
    pub(super) fn finish(mut self) -> Outcome {
        for worker in 0..self.workers.len() {
            for task in self.workers[worker].die() {
                self.stopped(Some(task));
            }
        }
        self.outcome.double_counted = self.operator.double_counted;
        let total = self.outcome.tasks;
        let Some(engine) = &self.operator.engine else {
            self.outcome.lost = total;
            return self.outcome;
        };
        let view = engine.job(JOB);
        let counted = view.as_ref().map_or(0, |v| v.counts.iter().map(|c| c.done).sum::<u32>());
        let complete = view.is_some_and(|v| v.state == JobState::Complete);
        self.outcome.makespan = self.ended.filter(|_| complete);
        let in_store = self.store.len() as u32;
        self.outcome.lost = (total - counted.min(total)).max(total - in_store.min(total));
        // Every proof has one maker in the final report, or none at all.
        let shares = engine.report(JOB).map_or(0, |r| r.shares.iter().flat_map(|s| s.proofs).sum::<u32>());
        self.outcome.double_counted += shares.saturating_sub(total) + counted.saturating_sub(total);
        self.outcome
    }
}
