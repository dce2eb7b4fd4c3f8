//! What a restart does with the journal's records: what was done when they were written, while no worker is there.

use super::books::is_over;
use super::names::Maker;
use super::rebuild::Rebuilding;
use super::retries::BAD_PROOFS;
use super::table::{At, Proven};
use super::{Engine, Fence, JobId, JobState, Millis, Reason, Record, RestoreError};

impl Engine {
    /// Takes in one record. One of a job that is not in the books is passed over.
    pub(super) fn replay(
        &mut self,
        record: Record,
        rebuilding: &mut Rebuilding<'_>,
    ) -> Result<(), RestoreError> {
        match record {
            Record::Submitted(spec, system, at) if !self.jobs.knows(spec.id) => {
                self.now = self.now.max(at);
                let entered = rebuilding.enter(self, (spec, system), at, None)?;
                entered.into_iter().for_each(|(slot, shared)| self.take_up(slot, shared));
            }
            Record::Submitted(..) => {}
            Record::State(job, JobState::Proving, at) => self.replay_revived(job, at, rebuilding)?,
            Record::State(job, state, at) => self.replay_state(job, state, at),
            Record::Maker { number, name, node, cores } => self.replay_maker(number, name, &node, cores),
            Record::Suspected { maker, times } => self.suspect(maker, times),
            Record::FencesTo(Fence(to)) => self.reserve_fences(to),
            Record::Clock { from, ahead } => {
                self.now = self.now.max(from);
                self.clock.remember(from, ahead);
            }
            Record::Done { job, node, maker, millis, cpu_millis, proof_bytes, found, at } => {
                let proven = Proven { maker, millis, cpu_millis, proof_bytes, found, at };
                self.place(job, node).into_iter().for_each(|at| self.replay_done(at, &proven));
            }
            Record::Charged { job, node, reason, attempts, worker, fence } => {
                let machine = worker.and_then(|maker| self.makers.get(maker as usize)).map(|made| made.node);
                let why = "failed before the last restart";
                if let Some(at) = self.place(job, node) {
                    let failed = machine.filter(|_| fence.0 > 0);
                    failed.into_iter().for_each(|node| self.note_failed(at, node, fence.0));
                    self.charge(at, reason, attempts, machine, why);
                }
            }
            Record::GivenUp { job, node } => {
                self.place(job, node).into_iter().for_each(|at| self.give_up(at));
            }
            Record::Reopened { job, node, attempts, maker, suspected, at } => {
                self.now = self.now.max(at);
                self.place(job, node).into_iter().for_each(|at| self.replay_reopened(at, attempts, maker));
                maker.into_iter().for_each(|maker| self.suspect(maker, suspected));
            }
            Record::Changed { job, suspended, deadline, priority } => {
                let spec = match self.jobs.slot(job) {
                    Some(slot) => Some(&mut self.jobs[slot].spec),
                    None => self.jobs.past_mut(job).map(|past| &mut past.view.spec),
                };
                if let Some(spec) = spec {
                    (spec.suspended, spec.deadline, spec.priority) = (suspended, deadline, priority);
                }
            }
            Record::Forgotten(job) => {
                self.last_job = self.last_job.max(job.0);
                self.jobs.remove_past(job);
                self.jobs.slot(job).into_iter().for_each(|slot| self.drop_job(slot));
            }
        }
        Ok(())
    }

    fn place(&self, job: JobId, node: u32) -> Option<At> {
        let slot = self.jobs.slot(job).filter(|slot| node < self.jobs[*slot].shape().total())?;
        Some(At { job: slot, node })
    }

    pub(super) fn replay_maker(&mut self, number: u32, name: String, node: &str, cores: u16) {
        let node = self.node_number(node);
        let before = self.makers[number as usize].clone();
        self.makers.set(number, Maker { name, node, cores, ..before });
    }

    fn replay_done(&mut self, at: At, proven: &Proven) {
        self.now = self.now.max(proven.at);
        if !proven.found && !self.jobs[at.job].is_done(at.node) {
            let cores = self.makers.get(proven.maker as usize).map_or(0, |made| made.cores);
            let (name, kind) = (self.jobs[at.job].tree.system.name(), self.jobs[at.job].kind(at.node));
            self.durations_of(&name).learn(kind, cores, proven.millis);
        }
        self.finish(at, proven);
    }

    fn replay_reopened(&mut self, at: At, attempts: u8, maker: Option<u32>) {
        self.reopen_unsealed(at);
        let machine = maker.and_then(|maker| self.makers.get(maker as usize)).map(|made| made.node);
        let before = self.jobs[at.job].extra(at.node).map_or(0, |extra| extra.attempts[BAD_PROOFS]);
        // A lost one is charged to nobody.
        if attempts > before {
            self.charge(at, Reason::BadProof, attempts, machine, "bad proof before the last restart");
        }
    }

    /// A job goes on. Without a tree it needs one again.
    fn replay_revived(
        &mut self,
        job: JobId,
        at: Millis,
        rebuilding: &mut Rebuilding<'_>,
    ) -> Result<(), RestoreError> {
        self.now = self.now.max(at);
        self.trust_all();
        if let Some(slot) = self.jobs.slot(job) {
            self.go_on_with(slot);
        } else if let Some(past) = self.jobs.remove_past(job) {
            let (total, submitted) = (past.total(), past.view.submitted);
            let request = (past.view.spec, past.system);
            let entered = rebuilding.enter(self, request, submitted, Some(total))?;
            entered.into_iter().for_each(|(slot, shared)| self.take_up(slot, shared));
        }
        Ok(())
    }

    /// A job ended.
    fn replay_state(&mut self, job: JobId, state: JobState, at: Millis) {
        self.now = self.now.max(at);
        let Some(slot) = self.jobs.slot(job) else { return };
        let over = is_over(&state);
        (self.jobs[slot].state, self.jobs[slot].ended) = (state, over.then_some(at));
        if over {
            self.rank();
            self.drop_old_trees();
        }
    }
}
