//! A simulated worker: holds leases, proves, keeps results until they are acknowledged.

use super::scenario::Group;
use crate::engine::{Assignment, Done, Fence, Held, Mac, Millis, Serves, WorkerSpec};
use crate::profile::Needs;

/// A lease at its worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub(super) assignment: Assignment,
    pub(super) started: Option<Millis>,
}

/// A worker process and its machine.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) spec: WorkerSpec,
    /// How many times longer everything takes here.
    pub(super) slowness: f64,
    /// Counts restarts of the process: what an earlier one had begun never ends.
    pub(super) life: u32,
    pub(super) alive: bool,
    /// The connection's session, seen from the worker.
    pub(super) session: Option<u64>,
    /// Cut off until then.
    pub(super) cut_until: Millis,
    pub(super) tasks: Vec<Task>,
    pub(super) unacknowledged: Vec<(Done, Mac)>,
    used: Needs,
}

impl Worker {
    pub(super) fn new(number: usize, group: &Group, slowness: f64) -> Self {
        let spec = WorkerSpec {
            name: format!("worker-{number}"),
            node: format!("node-{number}"),
            capacity: group.capacity,
            kinds: group.kinds,
            prefetch: group.prefetch,
            serves: Serves::All,
        };
        Self {
            spec,
            slowness,
            life: 0,
            alive: true,
            session: None,
            cut_until: 0,
            tasks: vec![],
            unacknowledged: vec![],
            used: Needs { cores: 0, memory_mib: 0 },
        }
    }

    /// Takes a lease in; one it has already is ignored.
    pub(super) fn take(&mut self, assignment: Assignment) {
        if self.tasks.iter().all(|task| task.assignment.fence != assignment.fence) {
            self.tasks.push(Task { assignment, started: None });
        }
    }

    /// The next lease that has room, marked as started.
    pub(super) fn start_next(&mut self, now: Millis) -> Option<Assignment> {
        let free = Needs {
            cores: self.spec.capacity.cores - self.used.cores,
            memory_mib: self.spec.capacity.memory_mib - self.used.memory_mib,
        };
        let task =
            self.tasks.iter_mut().find(|t| t.started.is_none() && t.assignment.needs.fit_into(&free) > 0)?;
        task.started = Some(now);
        let needs = task.assignment.needs;
        self.used.cores += needs.cores;
        self.used.memory_mib += needs.memory_mib;
        Some(task.assignment)
    }

    /// A lease and what it holds of the machine is given up.
    pub(super) fn remove(&mut self, fence: Fence) -> Option<Task> {
        let place = self.tasks.iter().position(|task| task.assignment.fence == fence)?;
        let task = self.tasks.remove(place);
        if task.started.is_some() {
            self.used.cores -= task.assignment.needs.cores;
            self.used.memory_mib -= task.assignment.needs.memory_mib;
        }
        Some(task)
    }

    /// The process dies: only the machine is left.
    pub(super) fn die(&mut self) -> Vec<Task> {
        self.alive = false;
        self.life += 1;
        self.session = None;
        self.unacknowledged.clear();
        self.used = Needs { cores: 0, memory_mib: 0 };
        std::mem::take(&mut self.tasks)
    }

    /// What it says it holds when it logs in: a result that nobody acknowledged is held, too.
    pub(super) fn held(&self, now: Millis) -> Vec<Held> {
        let tasks = self.tasks.iter().map(|task| Held {
            task: task.assignment.task,
            fence: task.assignment.fence,
            running: task.started.map(|at| now - at),
            mac: task.assignment.mac,
        });
        let done = self.unacknowledged.iter().map(|(done, mac)| Held {
            task: done.task,
            fence: done.fence,
            running: Some(Millis::from(done.millis)),
            mac: *mac,
        });
        tasks.chain(done).collect()
    }

    /// All leases it has, for its heartbeat.
    pub(super) fn fences(&self) -> Vec<Fence> {
        let tasks = self.tasks.iter().map(|task| task.assignment.fence);
        tasks.chain(self.unacknowledged.iter().map(|(done, _)| done.fence)).collect()
    }
}
