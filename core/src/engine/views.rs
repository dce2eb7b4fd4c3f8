//! What can be seen of the engine from outside.

use super::table::At;
use super::workers::Want;
use super::{
    ClassView, Counts, Done, Engine, JobId, JobSpec, JobState, JobView, Millis, PreparedJob, Serves, Session,
    TaskState, TaskView, Waits, WorkerBrief, WorkerState, WorkerView,
};
use crate::circuit::KindSet;
use crate::durations::Durations;
use crate::ids::TaskId;
use crate::profile::Needs;
use crate::system::ProofSystem;
use crate::tree::{Leaves, NodeId, Shape};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Engine {
    /// A job as it stands.
    pub fn job(&self, id: JobId) -> Option<JobView> {
        let view = match self.jobs.past(id) {
            Some(past) => past.view.clone(),
            None => self.jobs[self.jobs.slot(id)?].view(),
        };
        let wall = |at| self.clock.wall(at);
        Some(JobView { submitted: wall(view.submitted), ended: view.ended.map(wall), ..view })
    }

    /// A number that no job has or had, also before a restart.
    pub fn next_job(&self) -> JobId {
        JobId(self.last_job.saturating_add(1))
    }

    /// How long ago a job ended, by the engine's time.
    pub fn ended_for(&self, id: JobId) -> Option<Millis> {
        let ended = match self.jobs.past(id) {
            Some(past) => past.view.ended?,
            None => self.jobs[self.jobs.slot(id)?].ended?,
        };
        Some(self.now.saturating_sub(ended))
    }

    /// All jobs in the books, by number.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.jobs.ids().into_iter()
    }

    /// A job's request as it stands.
    pub fn spec(&self, id: JobId) -> Option<&JobSpec> {
        match self.jobs.past(id) {
            Some(past) => Some(&past.view.spec),
            None => self.jobs.slot(id).map(|slot| &self.jobs[slot].spec),
        }
    }

    /// Jobs whose trees were dropped and of whose proofs some may be those of other jobs too.
    pub fn past_borrowers(&self) -> Vec<JobId> {
        let borrowers = self.jobs.all_past().filter(|past| past.borrowed);
        borrowers.map(|past| past.view.spec.id).collect()
    }

    /// The proof system of a job that is of another than this engine's: it is kept, and nothing of it is leased.
    pub fn other_system(&self, id: JobId) -> Option<&ProofSystem> {
        self.system_of(id).filter(|system| **system != self.system)
    }

    /// The proof system of a job.
    pub fn system_of(&self, id: JobId) -> Option<&ProofSystem> {
        match self.jobs.past(id) {
            Some(past) => Some(&past.system),
            None => self.jobs.slot(id).map(|slot| &self.jobs[slot].tree.system),
        }
    }

    /// Counts and state of a job without its request, which may be large.
    pub fn counts(&self, id: JobId) -> Option<([Counts; 5], &JobState)> {
        match self.jobs.past(id) {
            Some(past) => Some((past.view.counts, &past.view.state)),
            None => self.jobs.slot(id).map(|slot| (self.jobs[slot].counts, &self.jobs[slot].state)),
        }
    }

    /// The namespace of a job.
    pub fn namespace(&self, id: JobId) -> Option<&str> {
        self.spec(id).map(|spec| spec.namespace.as_str())
    }

    /// A job's tree and what its leaves are made from, while it has its tree.
    pub fn prepared(&self, id: JobId) -> Option<(&Shape, &Leaves)> {
        self.prepared_job(id).map(|tree| (&tree.shape, &tree.leaves))
    }

    /// A job's tree to keep, while it has one ([`Command::TreeDropped`](super::Command::TreeDropped)). Its request is
    /// as it was at first; [`Engine::job`] has it as it is.
    pub fn prepared_job(&self, id: JobId) -> Option<&Arc<PreparedJob>> {
        Some(&self.jobs[self.jobs.slot(id)?].tree)
    }

    /// The root's task of a job.
    pub fn root_task(&self, id: JobId) -> Option<TaskId> {
        match self.jobs.past(id) {
            Some(past) => Some(past.root),
            None => self.jobs.slot(id).map(|slot| self.jobs[slot].root_id()),
        }
    }

    /// A place where a task stands: in a job that goes on and needs it, if there is one. Of jobs whose trees were
    /// dropped only the roots are known.
    pub fn find(&self, task: &TaskId) -> Option<(JobId, NodeId)> {
        let at = self.open_place(task).or_else(|| self.places(task).first().copied());
        let Some(at) = at else { return self.past_root(task) };
        Some((self.jobs[at.job].spec.id, NodeId(at.node)))
    }

    /// Whether a session may write the proof of a task: it has the lease, or had it and the task is
    /// open, so that a late result can count.
    pub fn holds(&self, session: Session, task: &TaskId) -> bool {
        let Some(worker) = self.workers.by_session(session) else { return false };
        let Some(at) = self.open_place(task) else { return false };
        self.leases_of(at).any(|slot| self.leases[slot].worker == worker)
            || self.workers[worker].lost.iter().any(|lost| lost.task == *task)
    }

    /// Where the tasks stand that a session has leases of, or had and may still hand in: what these are made from
    /// is what it needs to read.
    pub fn held_places(&self, session: Session) -> impl Iterator<Item = (JobId, NodeId)> {
        let worker = self.workers.by_session(session).map(|worker| &self.workers[worker]);
        let leased = worker.into_iter().flat_map(|w| w.running.iter().chain(&w.queue));
        let lost = worker.into_iter().flat_map(|w| &w.lost).filter_map(|lost| self.open_place(&lost.task));
        let places = leased.map(|slot| self.leases[*slot].at).chain(lost);
        places.map(|at| (self.jobs[at.job].spec.id, NodeId(at.node)))
    }

    /// Whether a result would be counted: its task is in the books and open.
    pub fn wants(&self, done: &Done) -> bool {
        self.open_place(&done.task).is_some()
    }

    /// A task as it stands, and why it waits. Of a job whose tree was dropped only the root is known.
    pub fn task(&self, id: JobId, node: NodeId) -> Option<TaskView> {
        if let Some(past) = self.jobs.past(id) {
            return past.root_view(node);
        }
        let slot = self.jobs.slot(id).filter(|slot| node.0 < self.jobs[*slot].shape().total())?;
        let (job, at) = (&self.jobs[slot], At { job: slot, node: node.0 });
        let state = job.state_of(node.0);
        let proven = (state == TaskState::Done).then(|| job.proven(node.0));
        let mut workers: Vec<_> =
            self.leases_of(at).map(|l| self.workers[self.leases[l].worker].name.clone()).collect();
        workers.extend(proven.and_then(|p| self.maker_name(p.maker)).map(str::to_owned));
        Some(TaskView {
            state,
            attempts: job.extra(node.0).map_or(0, super::Extra::charged),
            waits: self.waits(at),
            workers,
            millis: proven.map(|p| p.millis),
        })
    }

    fn waits(&self, at: At) -> Option<Waits> {
        let job = &self.jobs[at.job];
        let state = job.state_of(at.node);
        match (&job.state, state) {
            (_, TaskState::Done) => return None,
            (_, TaskState::Leased) => {
                let queued = self.leases_of(at).all(|slot| self.leases[slot].started.is_none());
                return queued.then_some(Waits::Queued);
            }
            (JobState::Proving | JobState::Checking, _) => {}
            _ => return Some(Waits::JobEnded),
        }
        let extra = job.extra(at.node);
        Some(match state {
            TaskState::Waiting => Waits::Children(job.pending(at.node)),
            TaskState::Delayed => Waits::Backoff(self.clock.shown(extra.map_or(0, |e| e.until))),
            TaskState::Failed => Waits::Quarantined(
                extra.map_or(0, |e| e.charged()),
                extra.map(|e| e.why.clone()).unwrap_or_default(),
            ),
            _ if job.is_foreign => Waits::OtherSystem(job.tree.system.to_string()),
            _ if job.spec.suspended => Waits::Suspended,
            _ => self.waits_for_worker(
                self.classes[usize::from(job.class(at.node))],
                self.want(at),
                &extra.map_or(vec![], |e| e.avoided(self.now)),
            ),
        })
    }

    fn waits_for_worker(&self, needs: Needs, want: Want<'_>, avoid: &[u32]) -> Waits {
        match () {
            () if !self.workers.could(needs, want, &[]) && !self.workers.could_later(needs, want, &[]) => {
                Waits::NoFittingWorker(needs)
            }
            () if avoid.is_empty() => Waits::Busy(needs),
            () => Waits::AvoidsNodes(avoid.len() as u32),
        }
    }

    /// Workers that take leases, by capacity, smallest first, and by the kinds they take. Looks at every worker.
    pub fn capacity(&self) -> Vec<ClassView> {
        self.capacity_of(|_| true)
    }

    /// The same of those workers alone that serve a namespace.
    pub fn capacity_for(&self, namespace: &str) -> Vec<ClassView> {
        self.capacity_of(|serves| serves.contains(namespace))
    }

    fn capacity_of(&self, which: impl Fn(&Serves) -> bool) -> Vec<ClassView> {
        let mut classes: BTreeMap<(Needs, KindSet), ClassView> = BTreeMap::new();
        for (_, worker) in self.workers.iter().filter(|(_, w)| w.takes_leases() && which(&w.serves)) {
            let (capacity, kinds) = (worker.capacity, worker.kinds);
            let empty = ClassView { capacity, kinds, workers: 0, idle: 0, free_cores: 0, free_memory_mib: 0 };
            let class = classes.entry((capacity, kinds)).or_insert(empty);
            class.workers += 1;
            class.idle += u32::from(worker.running.is_empty() && worker.queue.is_empty());
            class.free_cores += u64::from(worker.free().cores);
            class.free_memory_mib += u64::from(worker.free().memory_mib);
        }
        classes.into_values().collect()
    }

    /// All workers in the books, by name.
    pub fn workers(&self) -> Vec<WorkerView> {
        let view = |(_, worker): (u32, &super::workers::Worker)| WorkerView {
            session: worker.session,
            name: worker.name.clone(),
            node: self.nodes[worker.node as usize].clone(),
            capacity: worker.capacity,
            running: worker.running.len() as u32,
            prefetched: worker.queue.len() as u32,
            state: worker.shown_state(),
        };
        let mut all: Vec<_> = self.workers.iter().map(view).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// All workers in the books, in no particular order: some microseconds for each hundred.
    pub fn worker_states(&self) -> Vec<WorkerBrief> {
        let brief = |(_, worker): (u32, &super::workers::Worker)| WorkerBrief {
            name: worker.name.clone(),
            node: self.nodes[worker.node as usize].clone(),
            capacity: worker.capacity,
            state: worker.shown_state(),
            leases: (worker.running.len() + worker.queue.len()) as u32,
            idle_since: worker.is_idle().then(|| self.clock.shown(worker.idle_since)),
        };
        self.workers.iter().map(brief).collect()
    }

    /// The session of a worker in the books, connected or not, and whether it holds no lease.
    pub fn session_of(&self, worker: &str) -> Option<(Session, bool)> {
        let worker = &self.workers[self.workers.by_name(worker)?];
        Some((worker.session, worker.is_idle()))
    }

    /// The job of a namespace that has this task as its root; of several the newest.
    pub fn find_root(&self, namespace: &str, root: &TaskId) -> Option<JobId> {
        let of_namespace = |id: &&JobId| self.spec(**id).is_some_and(|spec| spec.namespace == namespace);
        self.jobs.of_root(root).iter().rev().find(of_namespace).copied()
    }

    /// State of a session's worker.
    pub fn worker_state(&self, session: Session) -> Option<WorkerState> {
        self.workers.by_session(session).map(|worker| self.workers[worker].shown_state())
    }

    /// How many leases there are, queued ones included.
    pub fn leased(&self) -> usize {
        self.leases.len()
    }

    /// What has been learned about durations.
    pub fn learned(&self) -> &Durations {
        &self.durations
    }

    /// The request the engine was made with.
    pub fn config(&self) -> &super::Config {
        &self.config
    }

    /// Tasks of a job that are not done: after a restart their proofs may lie in the store. None of a job whose tree
    /// was dropped.
    pub fn open_tasks(&self, id: JobId) -> Vec<TaskId> {
        let Some(slot) = self.jobs.slot(id) else { return vec![] };
        let job = &self.jobs[slot];
        let open = (0..job.shape().total()).filter(|node| !job.is_done(*node));
        open.map(|node| job.tree.ids[node as usize]).collect()
    }

    /// Memory that a job with its tree takes, its leaves' inputs aside, divided by its tasks.
    pub fn bytes_per_task(&self, id: JobId) -> Option<f64> {
        let slot = self.jobs.slot(id)?;
        Some(self.jobs[slot].bytes_per_task() + self.places.bytes_per_task())
    }

    /// Worker that made a finished proof, if known.
    pub fn maker(&self, id: JobId, node: NodeId) -> Option<&str> {
        let slot = self.jobs.slot(id).filter(|slot| node.0 < self.jobs[*slot].shape().total())?;
        let job = &self.jobs[slot];
        if job.is_done(node.0) { self.maker_name(job.proven(node.0).maker) } else { None }
    }
}
