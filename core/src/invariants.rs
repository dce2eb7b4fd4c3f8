//! What must be true of the engine after every step.

use crate::circuit::Kind;
use crate::engine::{At, Engine, Job, JobState, TaskState, Worker, fits};
use crate::profile::Needs;
use crate::tree::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Collects what is wrong.
#[derive(Default)]
struct Checker(Vec<Violation>);

impl Checker {
    fn expect(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Violation(text()));
        }
    }
}

impl Engine {
    /// Checks all books against each other. Looks at everything: for tests and for the curious.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn check(&self) -> Result<(), Vec<Violation>> {
        let mut checker = Checker::default();
        for (slot, job) in self.jobs.iter() {
            check_states(&mut checker, job);
            check_counts(&mut checker, job);
            check_heaps(&mut checker, job);
            self.check_places(&mut checker, slot, job);
        }
        self.check_leases(&mut checker);
        self.check_workers(&mut checker);
        self.check_nothing_forgotten(&mut checker);
        if checker.0.is_empty() { Ok(()) } else { Err(checker.0) }
    }

    /// Tasks and leases know each other, and copies of a task agree.
    fn check_places(&self, c: &mut Checker, slot: u32, job: &Job) {
        for node in 0..job.shape().total() {
            let (at, state) = (At { job: slot, node }, job.state_of(node));
            let leases: Vec<u32> = self.leases_of(at).collect();
            self.check_index(c, at);
            c.expect((state == TaskState::Leased) != leases.is_empty(), || {
                format!("{at:?}: {state:?} and {leases:?}")
            });
            for lease in leases {
                let same = self.leases.iter().any(|(s, l)| s == lease && self.id(l.at) == self.id(at));
                c.expect(same, || format!("{at:?}: lease {lease} is of another task"));
            }
            for copy in self.open_copies(at).as_slice() {
                let other = self.jobs[copy.job].state_of(copy.node);
                c.expect(job.is_done(node) || other == state, || {
                    format!("{at:?} is {state:?} but {copy:?} is {other:?}")
                });
            }
            if job.is_shared(node) && job.is_done(node) {
                self.check_done_copies(c, at);
            }
        }
    }

    /// A task is found by its id, and known to be shared if it stands elsewhere too. Looked at in turn: this would
    /// take longer than all the rest.
    fn check_index(&self, c: &mut Checker, at: At) {
        const IN_TURN: u64 = 16;
        if !(self.now + u64::from(at.node)).is_multiple_of(IN_TURN) {
            return;
        }
        let places = self.places(&self.id(at));
        c.expect(places.contains(&at), || format!("{at:?} is not found by its id"));
        let shared = self.jobs[at.job].is_shared(at.node);
        c.expect(places.len() < 2 || shared, || format!("{at:?} is at {places:?} too"));
    }

    /// A proof counts everywhere, but where it is not needed any more it may be missing elsewhere.
    fn check_done_copies(&self, c: &mut Checker, at: At) {
        let job = &self.jobs[at.job];
        let parent = job.shape().parent(NodeId(at.node));
        let above = parent.map_or(job.state == JobState::Complete, |p| job.is_done(p.0));
        let open = self.open_copies(at).as_slice().len();
        c.expect(above || open == 0, || format!("{at:?} is done, {open} copies of it are not"));
    }

    fn check_leases(&self, c: &mut Checker) {
        for (slot, lease) in self.leases.iter() {
            let job = &self.jobs[lease.at.job];
            c.expect(job.state == JobState::Proving, || {
                format!("lease {slot} of a job that is {:?}", job.state)
            });
            c.expect(self.leases_of(lease.at).any(|s| s == slot), || {
                format!("lease {slot} without its task")
            });
            let worker = &self.workers[lease.worker];
            let list = if lease.started.is_some() { &worker.running } else { &worker.queue };
            c.expect(worker.is_present() && list.contains(&slot), || {
                format!("lease {slot} without its worker")
            });
            let kind = job.kind(lease.at.node);
            c.expect(worker.kinds.contains(kind), || {
                format!("lease {slot}: {} takes {}, not {kind}", worker.name, worker.kinds)
            });
            let namespace = &job.spec.namespace;
            c.expect(worker.serves.contains(namespace), || {
                format!("lease {slot}: {} serves {}, not {namespace:?}", worker.name, worker.serves)
            });
            if let Some(twin) = lease.twin {
                c.expect(self.leases[twin].twin == Some(slot), || {
                    format!("lease {slot}: twin {twin} has another")
                });
                c.expect(self.leases[twin].worker != lease.worker, || {
                    format!("both copies at one worker: {slot}")
                });
            }
        }
        for (since, fence, slot) in &self.slow {
            let same = self.leases.is(*slot, *fence) && self.leases[*slot].started == Some(*since);
            c.expect(same, || format!("slow lease {slot} is gone"));
        }
    }

    fn check_workers(&self, c: &mut Checker) {
        let mut held = 0;
        for (index, worker) in self.workers.iter() {
            let (mut cores, mut memory) = (0u64, 0u64);
            for slot in &worker.running {
                let needs = self.classes[usize::from(self.leases[*slot].class)];
                (cores, memory) = (cores + u64::from(needs.cores), memory + u64::from(needs.memory_mib));
            }
            let Needs { cores: has_cores, memory_mib } = worker.capacity;
            c.expect(cores <= u64::from(has_cores) && memory <= u64::from(memory_mib), || {
                format!("{}: {cores} cores and {memory} MiB in use", worker.name)
            });
            let used = (u64::from(worker.used.cores), u64::from(worker.used.memory_mib));
            c.expect(used == (cores, memory), || format!("{}: {used:?} in the books", worker.name));
            c.expect(worker.idle_since <= self.now, || format!("{}: idle from later on", worker.name));
            let queued = worker.queue.len();
            c.expect(queued <= usize::from(worker.prefetch), || format!("{}: {queued} queued", worker.name));
            for slot in &worker.queue {
                let needs = self.classes[usize::from(self.leases[*slot].class)];
                c.expect(!fits(needs, worker.free()), || format!("{}: queued {slot} could run", worker.name));
            }
            for slot in worker.running.iter().chain(&worker.queue) {
                held += 1;
                c.expect(self.leases[*slot].worker == index, || {
                    format!("{}: lease {slot} is another's", worker.name)
                });
            }
        }
        let mut cores: BTreeMap<u32, u64> = BTreeMap::new();
        for (_, lease) in self.leases.iter() {
            let (tenant, taken) = self.share_of(lease);
            *cores.entry(tenant).or_default() += u64::from(taken);
        }
        for tenant in self.tenants.numbers() {
            let (counted, taken) = (cores.get(&tenant).copied().unwrap_or(0), self.tenants.cores(tenant));
            c.expect(counted == taken, || {
                format!("{:?}: {counted} cores counted, {taken} in the books", self.tenants.name(tenant))
            });
        }
        c.expect(held == self.leases.len(), || {
            format!("{held} leases at workers, {} in all", self.leases.len())
        });
    }

    /// No task is ready while a worker that could take it is free.
    fn check_nothing_forgotten(&self, c: &mut Checker) {
        for slot in self.jobs.ranked() {
            let job = &self.jobs[*slot];
            for node in (0..job.shape().total()).filter(|n| job.state_of(*n) == TaskState::Ready) {
                let class = job.class(node);
                let worker = if job.picky.contains(node) {
                    self.picky_worker(At { job: *slot, node }, class)
                } else {
                    let needs = self.classes[usize::from(class)];
                    let want = (job.kind(node), job.spec.namespace.as_str());
                    let takes = |w: &Worker| w.takes_leases() && w.takes(want.0, want.1);
                    let free =
                        |w: &Worker| takes(w) && !w.is_held() && !w.is_on_probe() && fits(needs, w.free());
                    self.workers.iter().find(|(_, w)| free(w)).map(|(index, _)| index)
                };
                let name = worker.map(|w| self.workers[w].name.clone());
                c.expect(worker.is_none(), || {
                    format!("job {slot} node {node} is ready and {name:?} is free")
                });
            }
        }
    }
}

/// A task's state follows from its children's.
fn check_states(c: &mut Checker, job: &Job) {
    for node in job.shape().nodes() {
        let open = job.shape().children(node).as_slice().iter().filter(|n| !job.is_done(n.0)).count();
        let (state, pending) = (job.state_of(node.0), usize::from(job.pending(node.0)));
        c.expect(open == pending, || format!("{node:?}: {open} children open, {pending} in the books"));
        let right = match state {
            TaskState::Waiting => open > 0,
            TaskState::Failed => true,
            TaskState::Ready | TaskState::Delayed | TaskState::Leased | TaskState::Done => open == 0,
        };
        c.expect(right, || format!("{node:?} is {state:?} with {open} children open"));
    }
}

fn check_counts(c: &mut Checker, job: &Job) {
    let mut counts = [crate::engine::Counts::default(); 5];
    let mut open = 0;
    for node in 0..job.shape().total() {
        let count = &mut counts[job.kind(node).index()];
        count.total += 1;
        match job.state_of(node) {
            TaskState::Done => count.done += 1,
            TaskState::Leased => count.running += 1,
            TaskState::Ready => count.ready += 1,
            TaskState::Failed => count.failed += 1,
            TaskState::Waiting | TaskState::Delayed => {}
        }
        open += u32::from(!job.is_done(node));
    }
    for kind in Kind::ALL {
        let (mut ready, mut running) = (0, 0);
        job.wanted(kind).for_each(|wants| (ready, running) = (ready + wants.ready, running + wants.running));
        let count = counts[kind.index()];
        c.expect((ready, running) == (count.ready, count.running), || {
            format!("{kind}: {ready} ready and {running} running are wanted, there are {count:?}")
        });
    }
    c.expect(counts == job.counts, || format!("{counts:?} counted, {:?} in the books", job.counts));
    c.expect(open == job.open, || format!("{open} open, {} in the books", job.open));
    let checked = !matches!(job.state, JobState::Checking) || open == 0;
    c.expect(checked && !(job.state == JobState::Proving && open == 0), || {
        format!("{:?} with {open} open", job.state)
    });
}

/// Every ready task is listed once where it is looked for.
fn check_heaps(c: &mut Checker, job: &Job) {
    let heaps: Vec<[BTreeSet<u32>; 5]> =
        (0..job.classes()).map(|class| Kind::ALL.map(|kind| job.heap(class, kind).collect())).collect();
    for node in 0..job.shape().total() {
        let class = job.class(node);
        let avoids = job.extra(node).is_some_and(crate::engine::Extra::is_picky);
        let listed = if avoids {
            job.picky.contains(node)
        } else {
            heaps[usize::from(class)][job.kind(node).index()].contains(&node)
        };
        let ready = job.state_of(node) == TaskState::Ready;
        c.expect(!ready || listed, || format!("node {node} is ready and not listed"));
        c.expect(ready || !avoids || !listed, || format!("node {node} is listed and not ready"));
    }
}
