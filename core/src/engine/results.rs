//! Proofs that are done, and what that opens.

use super::leases::Tell;
use super::retries::BAD_PROOFS;
use super::table::{At, NO_MAKER, Proven};
use super::{
    Command, Done, Engine, JobState, KnownProof, MOST_NAME, Millis, Reason, Record, Session, TaskState,
    Worker, WorkerState, bounded,
};
use crate::circuit::KindSet;
use crate::tree::NodeId;

impl Engine {
    /// A worker reports a proof.
    pub(crate) fn completed(&mut self, session: Session, done: &Done) {
        let Some(worker) = self.workers.by_session(session) else { return };
        self.hear(worker);
        if self.workers[worker].state == WorkerState::Barred {
            return;
        }
        let slot = self.leases.by_fence(done.fence.0).filter(|slot| {
            let lease = &self.leases[*slot];
            lease.worker == worker && self.id(lease.at) == done.task
        });
        let Some(slot) = slot else { return self.claim(worker, done) };
        let done = self.plausible(slot, done);
        let at = self.leases[slot].at;
        if self.end_lease(slot) {
            self.take_back_all(at, Tell::Finished);
        }
        self.count(at, worker, &done);
    }

    /// What a worker says of its proof, with no more time than has passed since it got the lease, and no more CPU time
    /// than its cores had in that. One that it had before this engine knew of it may have run as long as is allowed.
    fn plausible(&self, slot: u32, done: &Done) -> Done {
        let lease = &self.leases[slot];
        let (kind, cores) =
            (self.jobs[lease.at.job].kind(lease.at.node), self.workers[lease.worker].capacity.cores);
        let passed = self.now.saturating_sub(lease.assigned);
        let adopted = lease.started.is_some_and(|started| started < lease.assigned);
        let before = if adopted { self.limit(kind, cores) } else { 0 };
        bounded_times(done, passed + before, cores)
    }

    /// A place where this task is not done, in a job that goes on if there is one.
    pub(crate) fn open_place(&self, task: &crate::ids::TaskId) -> Option<At> {
        let places = self.places(task).into_iter();
        let open = places.filter(|at| !self.jobs[at.job].is_done(at.node));
        open.min_by_key(|at| self.jobs[at.job].state != JobState::Proving)
    }

    fn count(&mut self, at: At, worker: u32, done: &Done) {
        let Worker { maker, node, capacity, .. } = self.workers[worker];
        let proven = Proven {
            maker: if done.found { NO_MAKER } else { maker },
            millis: done.millis,
            cpu_millis: done.cpu_millis,
            proof_bytes: done.proof_bytes,
            found: done.found,
            at: self.now,
        };
        if !done.found {
            self.machine_proved(node);
            let kind = self.jobs[at.job].kind(at.node);
            self.durations.learn(kind, capacity.cores, done.millis);
            let job = &mut self.jobs[at.job];
            job.in_trouble = job.in_trouble.without(KindSet::of(kind));
            self.refute(at, node);
        }
        self.finish(at, &proven);
        match done.found {
            true => self.vouch(done.task, maker),
            false => self.look_for(done.task),
        }
    }

    /// Proofs that lie in the store already.
    pub(crate) fn known(&mut self, proofs: &[KnownProof]) {
        for proof in proofs {
            let places = self.places(&proof.task);
            self.mark_seen(&proof.task);
            let open = places.iter().find(|at| !self.jobs[at.job].is_done(at.node)).copied();
            // Done without a maker: found by a worker, or only not needed any more.
            let is_nameless = |at: &At| {
                let job = &self.jobs[at.job];
                job.is_done(at.node) && job.proven(at.node).maker == NO_MAKER
            };
            let nameless: Vec<At> = places.iter().copied().filter(is_nameless).collect();
            if open.is_none() && nameless.is_empty() {
                continue;
            }
            let proven = Proven {
                maker: self.maker_number(&bounded(proof.worker.clone(), MOST_NAME), None, 0),
                millis: proof.millis,
                cpu_millis: proof.cpu_millis,
                proof_bytes: proof.proof_bytes,
                found: true,
                at: self.now,
            };
            if let Some(at) = open {
                self.take_back_all(at, Tell::Finished);
                self.finish(at, &proven);
                self.mark_seen(&proof.task);
            }
            for at in nameless {
                self.jobs[at.job].write(at.node, &proven);
                let record = self.done_record(at, &proven);
                self.out.push(Command::Amend(record));
            }
        }
    }

    fn done_record(&self, at: At, p: &Proven) -> Record {
        Record::Done {
            job: self.jobs[at.job].spec.id,
            node: at.node,
            maker: p.maker,
            millis: p.millis,
            cpu_millis: p.cpu_millis,
            proof_bytes: p.proof_bytes,
            found: p.found,
            at: p.at,
        }
    }

    /// A task without leases is done, wherever it stands.
    pub(crate) fn finish(&mut self, at: At, proven: &Proven) {
        let record = self.done_record(at, proven);
        self.out.push(Command::Persist(record));
        for copy in self.copies(at).as_slice() {
            let job = &mut self.jobs[copy.job];
            match job.is_done(copy.node) {
                false => self.finish_copy(*copy, proven),
                // Not needed there, or found: now its maker is known.
                true if job.proven(copy.node).maker == NO_MAKER => job.write(copy.node, proven),
                true => {}
            }
        }
    }

    fn finish_copy(&mut self, at: At, proven: &Proven) {
        if self.jobs[at.job].pending(at.node) > 0 {
            self.close_below(at, proven.at);
        }
        let job = &mut self.jobs[at.job];
        if job.is_done(at.node) {
            return;
        }
        job.write(at.node, proven);
        job.set_seen(at.node, false);
        job.set_state(at.node, TaskState::Done);
        if let Some(parent) = job.shape().parent(NodeId(at.node))
            && job.child_done(parent.0)
            && job.state_of(parent.0) == TaskState::Waiting
        {
            job.set_state(parent.0, TaskState::Ready);
        }
        if job.open == 0 {
            self.all_done(at.job);
        }
    }

    /// A proof is done though some of its children are not: this job does not need them any more.
    fn close_below(&mut self, at: At, now: Millis) {
        let mut above = vec![at];
        while let Some(parent) = above.pop() {
            let children = self.jobs[parent.job].shape().children(NodeId(parent.node));
            for child in children.as_slice() {
                let child = At { job: parent.job, node: child.0 };
                if self.jobs[child.job].is_done(child.node) {
                    continue;
                }
                self.free_of_leases(child);
                let job = &mut self.jobs[child.job];
                job.write(child.node, &Proven::implied(now));
                job.set_state(child.node, TaskState::Done);
                job.child_done(parent.node);
                above.push(child);
            }
        }
    }

    /// Ends the leases that run for this very place; if others want the task they get them.
    fn free_of_leases(&mut self, at: At) {
        for slot in self.leases_of(at).collect::<Vec<_>>() {
            if self.leases[slot].at.job != at.job || self.hand_over(slot) {
                continue;
            }
            if !self.take_back(slot, Tell::Stop) {
                self.set_open(at, TaskState::Ready);
            }
        }
    }

    pub(crate) fn all_done(&mut self, slot: u32) {
        let job = &mut self.jobs[slot];
        if job.state == JobState::Proving {
            job.state = JobState::Checking;
            self.ask_for_root(slot);
        }
    }

    /// Has a job's root proof checked, if it is time. Who runs another proof system can't check it.
    pub(crate) fn ask_for_root(&mut self, slot: u32) {
        let job = &mut self.jobs[slot];
        if job.state == JobState::Checking && !job.asked && !job.asked_before && !job.is_foreign {
            job.asked = true;
            self.out.push(Command::CheckRoot(job.spec.id));
        }
    }

    /// A proof that had been counted is bad: wherever its parent is not done yet it is open again. `by`
    /// are the machines that say so; `None` is the operator itself.
    /// Returns false if there is no such place.
    pub(crate) fn reopen(&mut self, at: At, text: &str, by: Option<&[u32]>) -> bool {
        let Some((first, _)) = self.unsealed(at).first().copied() else { return false };
        let maker = self.jobs[first.job].proven(first.node).maker;
        let task = self.id(first);
        let worker = self.maker_name(maker).map(str::to_owned);
        self.out.push(Command::Quarantine { task, worker, text: text.to_owned() });
        self.reopen_charged(at, text, by);
        true
    }

    /// A proof that had been counted is not in the store. If it was seen there it is lost, which is charged to
    /// nobody; else it was never made.
    pub(crate) fn reopen_missing(&mut self, at: At, by: Option<&[u32]>) {
        let counted = self.unsealed(at);
        if counted.iter().any(|(_, seen)| *seen) {
            return self.reopen_lost(at);
        }
        self.reopen_charged(at, "it is not in the store, where nobody has seen it", by);
    }

    fn reopen_charged(&mut self, at: At, text: &str, by: Option<&[u32]>) {
        let counted = self.unsealed(at);
        let Some((first, _)) = counted.first().copied() else { return };
        let payer = self.answerable(first);
        self.forget_words(&self.id(first));
        self.reopen_unsealed(first);
        self.charge_bad_proof(first, payer, text, by);
    }

    /// A proof that had been counted is lost: it is open again as after a bad one, charged to nobody.
    pub(crate) fn reopen_lost(&mut self, at: At) {
        let counted = self.unsealed(at);
        let Some((first, _)) = counted.first().copied() else { return };
        self.forget_words(&self.id(first));
        self.reopen_unsealed(first);
        self.out.push(Command::Persist(Record::Reopened {
            job: self.jobs[first.job].spec.id,
            node: first.node,
            attempts: self.jobs[first.job].extra(first.node).map_or(0, |e| e.attempts[BAD_PROOFS]),
            maker: None,
            suspected: 0,
            at: self.now,
        }));
        self.settle(first, Reason::MissingChild(self.id(first)));
    }

    /// The places where a proof is counted and what was made from it is not, and whether it was seen there.
    fn unsealed(&self, at: At) -> Vec<(At, bool)> {
        let copies = self.copies(at);
        let unsealed = copies.as_slice().iter().copied().filter(|copy| self.is_unsealed(*copy));
        unsealed.map(|copy| (copy, self.jobs[copy.job].is_seen(copy.node))).collect()
    }

    /// Done, and what was made from it is not: nothing hides that its proof is bad.
    pub(crate) fn is_unsealed(&self, at: At) -> bool {
        let job = &self.jobs[at.job];
        let parent = job.shape().parent(NodeId(at.node));
        let above = parent.map_or(job.state == JobState::Complete, |p| job.is_done(p.0));
        job.is_done(at.node) && !above
    }

    /// A proof is open again wherever nothing hides that it is bad.
    pub(crate) fn reopen_unsealed(&mut self, at: At) {
        self.unsealed(at).into_iter().for_each(|(copy, _)| self.reopen_copy(copy));
    }

    fn reopen_copy(&mut self, at: At) {
        if let Some(parent) = self.jobs[at.job].shape().parent(NodeId(at.node)) {
            let above = At { job: at.job, node: parent.0 };
            if self.jobs[at.job].state_of(parent.0) == TaskState::Leased {
                self.take_back_all(above, Tell::Stop);
                self.set_open(above, TaskState::Waiting);
            }
            let job = &mut self.jobs[at.job];
            job.child_opened(parent.0);
            if job.state_of(parent.0) != TaskState::Failed {
                job.set_state(parent.0, TaskState::Waiting);
            }
        }
        self.unsee(at);
        self.jobs[at.job].set_state(at.node, TaskState::Waiting);
        self.align_children(at);
        let job = &mut self.jobs[at.job];
        if job.pending(at.node) == 0 {
            job.set_state(at.node, TaskState::Ready);
        }
        if job.state == JobState::Checking {
            job.state = JobState::Proving;
            job.asked_before |= std::mem::take(&mut job.asked);
            self.rank();
        }
    }

    /// A proof that was seen was made from its children's: these were there, too.
    fn unsee(&mut self, at: At) {
        let job = &mut self.jobs[at.job];
        if job.is_seen(at.node) {
            let children = job.shape().children(NodeId(at.node));
            children.as_slice().iter().for_each(|child| job.set_seen(child.0, true));
            job.set_seen(at.node, false);
        }
    }

    /// A proof that hid that its children's were bad is gone: they are open here too if they are
    /// open elsewhere.
    fn align_children(&mut self, at: At) {
        let children = self.jobs[at.job].shape().children(NodeId(at.node));
        for child in children.as_slice() {
            let child = At { job: at.job, node: child.0 };
            if !self.jobs[child.job].is_done(child.node) {
                continue;
            }
            let Some(other) = self.open_copies(child).as_slice().first().copied() else { continue };
            let (state, word) =
                (self.jobs[other.job].state_of(other.node), self.jobs[other.job].word(other.node));
            let extra = self.jobs[other.job].extra(other.node).cloned();
            if let Some(extra) = extra {
                *self.jobs[child.job].extra_mut(child.node) = extra;
            }
            self.jobs[child.job].set_state(child.node, TaskState::Waiting);
            self.align_children(child);
            let job = &mut self.jobs[child.job];
            job.set_state(child.node, state);
            if state == TaskState::Leased {
                job.set_word(child.node, word);
            }
            job.child_opened(at.node);
        }
    }
}

/// A result with no more wall time than this, and no more CPU time than so many cores have in that.
pub(super) fn bounded_times(done: &Done, most: Millis, cores: u16) -> Done {
    let millis = done.millis.min(u32::try_from(most).unwrap_or(u32::MAX));
    let cpu_millis = done.cpu_millis.min(millis.saturating_mul(u32::from(cores.max(1))));
    Done { millis, cpu_millis, ..*done }
}
