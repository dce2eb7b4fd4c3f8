//! What users do to jobs, and how jobs end.

use super::books::is_over;
use super::extra::Extra;
use super::leases::Tell;
use super::table::{At, Job, Proven};
use super::{Command, Engine, JobId, JobSpec, JobState, Millis, Notice, PreparedJob, Record, TaskState};
use crate::circuit::{Kind, KindSet};
use crate::order::POLICIES;
use crate::tree::NodeId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Engine {
    pub(crate) fn submit(&mut self, prepared: PreparedJob) {
        let id = prepared.spec.id;
        if self.jobs.knows(id) {
            let same = self.root_task(id).as_ref() == prepared.ids.last()
                && self.spec(id).is_some_and(|spec| spec.namespace == prepared.spec.namespace);
            if !same {
                let (job, name) = (id, prepared.spec.name.clone());
                self.out.push(Command::Notice(Notice::NumberTaken { job, name }));
            }
            return;
        }
        let record = Record::Submitted(prepared.spec.clone(), prepared.system.clone(), self.now);
        self.out.push(Command::Persist(record));
        let (slot, shared) = self.enter_job(prepared, self.now);
        self.take_up(slot, shared);
    }

    /// A job that was put into the books goes on from what is there of its tasks.
    pub(crate) fn take_up(&mut self, slot: u32, shared: Vec<u32>) {
        self.share(slot, shared);
        if self.jobs[slot].open == 0 {
            self.all_done(slot);
        }
    }

    /// Puts a job into the books, all its tasks open. Marks tasks that stand elsewhere too, here and there, and
    /// returns them.
    pub(crate) fn enter_job(&mut self, mut tree: PreparedJob, submitted: Millis) -> (u32, Vec<u32>) {
        let kind_class = Kind::ALL.map(|kind| self.class_of(self.config.profile.needs(kind)));
        let weight = self.config.share(&tree.spec.namespace);
        let tenant = self.tenants.enter(&tree.spec.namespace, weight, self.now);
        let sorted = std::mem::take(&mut tree.sorted);
        self.last_job = self.last_job.max(tree.spec.id.0);
        let mut job = Box::new(Job::new(Arc::new(tree), tenant, kind_class, self.classes.len(), submitted));
        job.is_foreign = job.tree.system != self.system;
        let slot = self.jobs.insert(job);
        let jobs = &self.jobs;
        let pairs = self.places.enter(slot, &sorted, |at| &jobs[at.job].tree.ids[at.node as usize]);
        let mut shared = vec![];
        for (node, there) in pairs {
            self.jobs[there.job].set_shared(there.node);
            self.jobs[slot].set_shared(node);
            shared.push(node);
            if there.job == slot {
                shared.push(there.node);
            }
        }
        shared.sort_unstable();
        shared.dedup();
        self.rank();
        (slot, shared)
    }

    /// Takes over how a new job's tasks stand that it has in common with others.
    fn share(&mut self, slot: u32, shared: Vec<u32>) {
        for node in &shared {
            let at = At { job: slot, node: *node };
            if let Some(proven) = self.proven_elsewhere(at) {
                let job = &mut self.jobs[slot];
                job.write(*node, &proven);
                job.set_raw(*node, TaskState::Done);
            }
        }
        self.jobs[slot].rebuild();
        for node in shared {
            self.join_open(At { job: slot, node });
        }
    }

    /// The proof of a shared task if it is done wherever else it stands.
    fn proven_elsewhere(&self, at: At) -> Option<Proven> {
        let copies = self.copies(at);
        let mut others = copies.as_slice().iter().filter(|c| c.job != at.job).peekable();
        let first = *others.peek()?;
        let all = others.all(|c| self.jobs[c.job].is_done(c.node));
        all.then(|| Proven { found: true, ..self.jobs[first.job].proven(first.node) })
    }

    /// Brings an open task of a new job to where it stands in others. What had been quarantined for
    /// them gets new attempts: a new request is a reason to try again.
    fn join_open(&mut self, at: At) {
        let copies = self.open_copies(at);
        let other = copies.as_slice().iter().find(|c| c.job != at.job).copied();
        let Some(other) = other.filter(|_| !self.jobs[at.job].is_done(at.node)) else { return };
        let extra = self.jobs[other.job].extra(other.node).cloned();
        if let Some(extra) = extra {
            *self.jobs[at.job].extra_mut(at.node) = extra;
        }
        match self.jobs[other.job].state_of(other.node) {
            TaskState::Leased => {
                let word = self.jobs[other.job].word(other.node);
                self.jobs[at.job].set_state(at.node, TaskState::Leased);
                self.jobs[at.job].set_word(at.node, word);
                self.own_orphans(at);
            }
            TaskState::Delayed => {
                let until = self.jobs[other.job].extra(other.node).map_or(0, |e| e.until);
                self.jobs[at.job].set_state(at.node, TaskState::Delayed);
                self.delayed.push(Reverse((until, at)));
            }
            TaskState::Failed => self.renew(at),
            TaskState::Ready => self.jobs[at.job].set_state(at.node, TaskState::Ready),
            TaskState::Waiting | TaskState::Done => {}
        }
    }

    /// Leases that no job that goes on stands behind become this place's.
    fn own_orphans(&mut self, at: At) {
        for slot in self.leases_of(at).collect::<Vec<_>>() {
            if self.jobs[self.leases[slot].at.job].state != JobState::Proving {
                self.move_lease(slot, at);
            }
        }
    }

    /// New attempts for a task, on any machine, of the class of its kind.
    pub(crate) fn renew(&mut self, at: At) {
        for copy in self.copies(at).as_slice() {
            let job = &mut self.jobs[copy.job];
            if job.extra(copy.node).is_none() {
                continue;
            }
            let state = job.state_of(copy.node);
            *job.extra_mut(copy.node) = Extra::default();
            match state {
                TaskState::Failed if job.pending(copy.node) > 0 => {
                    job.set_state(copy.node, TaskState::Waiting)
                }
                TaskState::Ready | TaskState::Failed | TaskState::Delayed => {
                    job.set_state(copy.node, TaskState::Ready);
                }
                TaskState::Waiting | TaskState::Leased | TaskState::Done => {}
            }
        }
    }

    pub(crate) fn renew_all(&mut self, slot: u32) {
        let troubled: Vec<u32> = self.jobs[slot].extra.keys().copied().collect();
        troubled.into_iter().for_each(|node| self.renew(At { job: slot, node }));
    }

    /// Sorts the jobs that may lease.
    pub(crate) fn rank(&mut self) {
        let leases = |job: &Job| job.state == JobState::Proving && !job.spec.suspended && !job.is_foreign;
        let mut ranked: Vec<u32> =
            self.jobs.iter().filter(|(_, j)| leases(j)).map(|(slot, _)| slot).collect();
        // By id already; the sort is stable.
        ranked.sort_by_key(|slot| Reverse(self.jobs[*slot].spec.priority));
        let mut of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        ranked.iter().for_each(|slot| of.entry(self.jobs[*slot].tenant).or_default().push(*slot));
        self.tenants.set_ranked(of, self.now);
        self.jobs.ranked = ranked;
    }

    pub(crate) fn order(&mut self, id: JobId, policy: usize) {
        if let Some(slot) = self.jobs.slot(id)
            && policy < POLICIES.len()
        {
            self.jobs[slot].set_policy(policy);
        }
    }

    pub(crate) fn change(&mut self, id: JobId, change: impl FnOnce(&mut JobSpec)) {
        let slot = self.jobs.slot(id);
        let spec = match slot {
            Some(slot) => Some(&mut self.jobs[slot].spec),
            None => self.jobs.past_mut(id).map(|past| &mut past.view.spec),
        };
        let Some(spec) = spec else { return };
        let set = |spec: &JobSpec| (spec.suspended, spec.deadline, spec.priority);
        let before = set(spec);
        change(spec);
        let (suspended, deadline, priority) = set(spec);
        if (suspended, deadline, priority) == before {
            return;
        }
        self.out.push(Command::Persist(Record::Changed { job: id, suspended, deadline, priority }));
        let Some(slot) = slot else { return };
        self.jobs[slot].risk_checked = None;
        self.rank();
        if suspended && !before.0 {
            self.hand_over_leases(slot, false);
            self.take_back_queued();
        }
    }

    /// Leases of suspended jobs that were handed out ahead would be started yet: they return.
    fn take_back_queued(&mut self) {
        let queued = |(_, lease): &(u32, &super::leases::Lease)| {
            lease.started.is_none() && self.jobs[lease.at.job].spec.suspended
        };
        let leases = self.leases.iter().filter(queued);
        let mut slots: Vec<_> = leases.map(|(slot, lease)| (lease.fence, slot, lease.at)).collect();
        slots.sort_unstable();
        for (fence, slot, at) in slots {
            let queued = self.leases.is(slot, fence) && self.leases[slot].started.is_none();
            if queued && !self.take_back(slot, Tell::Stop) {
                self.set_open(at, TaskState::Ready);
            }
        }
    }

    pub(crate) fn cancel(&mut self, id: JobId) {
        let Some(slot) = self.jobs.slot(id) else { return };
        if !is_over(&self.jobs[slot].state) {
            self.end_job(slot, JobState::Cancelled);
        }
    }

    /// Ends a job: its leases go to others that want their tasks or are revoked.
    fn end_job(&mut self, slot: u32, state: JobState) {
        let now = self.now;
        let job = &mut self.jobs[slot];
        (job.state, job.ended, job.asked) = (state.clone(), Some(now), false);
        self.job_ended = true;
        let id = job.spec.id;
        self.rank();
        self.hand_over_leases(slot, true);
        self.out.push(Command::Persist(Record::State(id, state.clone(), now)));
        self.out.push(Command::JobEnded(id, state));
    }

    pub(crate) fn revive(&mut self, id: JobId) {
        let Some(slot) = self.jobs.slot(id) else { return };
        if matches!(self.jobs[slot].state, JobState::Complete | JobState::Checking) {
            return;
        }
        self.out.push(Command::Persist(Record::State(id, JobState::Proving, self.now)));
        self.trust_all();
        self.go_on_with(slot);
    }

    /// A job goes on with new attempts.
    pub(crate) fn go_on_with(&mut self, slot: u32) {
        let job = &mut self.jobs[slot];
        (job.state, job.ended, job.asked, job.at_risk) = (JobState::Proving, None, false, false);
        (job.hopeless, job.risk_checked) = (false, None);
        self.rank();
        self.renew_all(slot);
        if self.jobs[slot].open == 0 {
            self.all_done(slot);
        }
    }

    pub(crate) fn forget(&mut self, id: JobId) {
        match self.jobs.slot(id) {
            Some(slot) if !is_over(&self.jobs[slot].state) => return,
            Some(slot) => self.drop_job(slot),
            None if self.jobs.remove_past(id).is_some() => {}
            None => return,
        }
        self.out.push(Command::Persist(Record::Forgotten(id)));
    }

    pub(crate) fn root_checked(&mut self, id: JobId, result: Result<(), String>) {
        let Some(slot) = self.jobs.slot(id) else { return };
        if std::mem::take(&mut self.jobs[slot].asked_before) {
            // Of a proof that is not counted any more.
            return self.ask_for_root(slot);
        }
        if self.jobs[slot].state != JobState::Checking {
            return;
        }
        self.jobs[slot].asked = false;
        match result {
            Ok(()) => self.end_job(slot, JobState::Complete),
            Err(text) => {
                let root = self.jobs[slot].shape().root().0;
                self.reopen(At { job: slot, node: root }, &text, None);
            }
        }
    }

    /// After a restart: jobs whose proofs are all made want their roots checked.
    pub(crate) fn ask_for_roots(&mut self) {
        for slot in self.jobs.by_id.values().copied().collect::<Vec<_>>() {
            self.ask_for_root(slot);
        }
    }

    pub(crate) fn check_deadlines(&mut self) {
        for slot in self.jobs.by_id.values().copied().collect::<Vec<_>>() {
            let job = &self.jobs[slot];
            if is_over(&job.state) {
                continue;
            }
            let Some(deadline) = job.spec.deadline else { continue };
            if deadline <= self.clock.shown(self.now) {
                let why = self.what_is_missing(slot);
                self.end_job(slot, JobState::Failed { why });
            }
        }
    }

    fn what_is_missing(&self, slot: u32) -> String {
        let job = &self.jobs[slot];
        if job.open == 0 {
            return "the deadline passed while the root proof was being checked".to_owned();
        }
        let kinds = Kind::ALL.iter().map(|kind| (kind, &job.counts[kind.index()]));
        let missing: Vec<_> = kinds
            .filter(|(_, c)| c.done < c.total)
            .map(|(kind, c)| format!("{} {kind}", c.total - c.done))
            .collect();
        let mut why = format!(
            "the deadline passed with {} of {} proofs missing: {}",
            job.open,
            job.shape().total(),
            missing.join(", ")
        );
        let failed = |n: &&u32| job.state_of(**n) == TaskState::Failed;
        if let Some(node) = job.extra.keys().find(failed) {
            let circuit = job.shape().circuit(NodeId(*node));
            let reason: String = job.extra[node].why.chars().take(200).collect();
            why += &format!("; {circuit} {} is quarantined: {reason}", job.tree.ids[*node as usize].short());
        } else if job.is_foreign {
            why += &format!("; its proofs are made by {}, here by {}", job.tree.system, self.system);
        } else if job.spec.suspended {
            why += "; the job was suspended";
        } else if self.workers.takers().is_empty() {
            why += "; no worker was connected";
        }
        why
    }

    /// Says when no worker takes ready tasks, as they fit none or for their kind or namespace; once, until one does
    /// again.
    pub(crate) fn check_unfit(&mut self) {
        let tenants: BTreeSet<u32> = self.jobs.ranked().iter().map(|slot| self.jobs[*slot].tenant).collect();
        self.unfit.retain(|(tenant, _), _| tenants.contains(tenant));
        for tenant in tenants {
            for class in 0..self.classes.len() as u8 {
                self.check_unfit_of(tenant, class);
            }
        }
    }

    fn check_unfit_of(&mut self, tenant: u32, class: u8) {
        let (needs, namespace) = (self.classes[usize::from(class)], self.tenants.name(tenant));
        let taken = |kind: &Kind| {
            let want = (*kind, namespace);
            self.workers.could(needs, want, &[]) || self.workers.could_later(needs, want, &[])
        };
        let unfit: KindSet = Kind::ALL.into_iter().filter(|kind| !taken(kind)).collect();
        let mut told = self.unfit.get(&(tenant, class)).copied().unwrap_or(KindSet::NONE).and(unfit);
        if self.first_of(tenant, class, unfit).is_none() {
            told = KindSet::NONE;
        }
        while let Some(at) = self.first_of(tenant, class, unfit.without(told)) {
            let kind = self.jobs[at.job].kind(at.node);
            // Where nothing fits, it is not for the kind.
            told = if unfit == KindSet::ALL { unfit } else { told.or(KindSet::of(kind)) };
            let own = |slot: &&u32| self.jobs[**slot].tenant == tenant;
            let jobs = self.jobs.ranked().iter().filter(own);
            let ready = jobs.map(|slot| self.jobs[*slot].counts[kind.index()].ready).sum();
            let namespace = self.tenants.name(tenant).to_owned();
            self.out.push(Command::Notice(Notice::NoFittingWorker { namespace, kind, needs, ready }));
        }
        self.unfit.insert((tenant, class), told);
    }

    /// A ready task of this class and these kinds, of the first job of a namespace that has one.
    fn first_of(&mut self, tenant: u32, class: u8, kinds: KindSet) -> Option<At> {
        if kinds.is_empty() {
            return None;
        }
        (0..self.jobs.ranked().len()).find_map(|place| {
            let slot = self.jobs.ranked()[place];
            let job = &mut self.jobs[slot];
            if job.tenant != tenant {
                return None;
            }
            let first = job.head(class, kinds).or_else(|| job.picky.any_of(class, kinds));
            first.map(|entry| At { job: slot, node: entry as u32 })
        })
    }
}
