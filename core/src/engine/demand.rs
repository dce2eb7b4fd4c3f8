//! What machines are wanted for: what runs, what is ready, and what will be ready soon.

use super::table::Job;
use super::{Engine, Millis, TaskState};
use crate::circuit::Kind;
use crate::profile::Needs;
use hashbrown::HashSet;

/// Tasks of one kind that ask for one class of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The kind.
    pub kind: Kind,
    /// What each of them asks for now: after an OOM more than others of its kind.
    pub needs: Needs,
    /// Leased, whether they run or are queued at a worker.
    pub running: u32,
    /// Could start now.
    pub ready: u32,
    /// Will be ready within the time asked for, if everything ready starts now; those that wait
    /// for a backoff to pass too.
    pub soon: u32,
}

/// What is never ready: a child of it is quarantined.
const NEVER: u32 = u32::MAX;

#[derive(Clone, Copy, Default)]
struct Row {
    running: u32,
    ready: u32,
    soon: u32,
}

/// A walk over the trees from the leaves up. Times are milliseconds from now.
struct Walk<'a> {
    engine: &'a Engine,
    within: u32,
    /// Kind by class.
    rows: Vec<Row>,
    /// Tasks of several places that were counted, by the first bytes of their ids; unused while no
    /// task can stand at two places.
    counted: Option<HashSet<u64>>,
}

impl Engine {
    /// What all jobs that are proven now ask for; each task counts once, whatever jobs share it.
    /// Quarantined tasks and what waits for them ask for nothing. Looks at every task of these jobs.
    pub fn demand(&self, within: Millis) -> Vec<Demand> {
        let jobs: Vec<&Job> = self.jobs.ranked().iter().map(|slot| &self.jobs[*slot]).collect();
        let doubles = jobs.len() > 1 || jobs.iter().any(|job| !job.tree.index.doubles().is_empty());
        let mut walk = Walk {
            engine: self,
            within: u32::try_from(within).unwrap_or(NEVER).min(NEVER - 1),
            rows: vec![Row::default(); Kind::ALL.len() * self.classes.len()],
            counted: doubles.then(HashSet::new),
        };
        for job in jobs {
            walk.job(job);
        }
        let mut demand = vec![];
        for kind in Kind::ALL {
            for (class, needs) in self.classes.iter().enumerate() {
                let Row { running, ready, soon } = walk.rows[kind.index() * self.classes.len() + class];
                if running + ready + soon > 0 {
                    demand.push(Demand { kind, needs: *needs, running, ready, soon });
                }
            }
        }
        demand
    }
}

impl Walk<'_> {
    /// Children come before their parents, so one pass suffices. A kind that is done is passed over.
    fn job(&mut self, job: &Job) {
        let (shape, calls) = (job.shape(), job.shape().total_calls());
        let bases = 2 * calls;
        let medians = Kind::ALL.map(|kind| self.engine.durations.median(kind, 0));
        let open = |kind: Kind| job.counts[kind.index()].done < job.counts[kind.index()].total;
        let mut ready_at = vec![0u32; shape.total() as usize];
        let mut one = |kind: Kind, node: u32, parent: Option<u32>| {
            let end = self.task(job, kind, node, ready_at[node as usize], medians[kind.index()]);
            if let Some(parent) = parent {
                let above = &mut ready_at[parent as usize];
                *above = (*above).max(end);
            }
        };
        if open(Kind::Vm) {
            (0..calls).for_each(|node| one(Kind::Vm, node, Some(node + calls)));
        }
        if open(Kind::Kernel) {
            let mut node = calls;
            for tx in 0..shape.transactions() {
                let last = node + u32::from(shape.calls(tx));
                while node < last {
                    one(Kind::Kernel, node, Some(if node + 1 == last { bases + tx } else { node + 1 }));
                    node += 1;
                }
            }
        }
        let joins = bases + shape.transactions();
        let root = shape.root().0;
        let parent = |node| shape.parent(crate::tree::NodeId(node)).map(|parent| parent.0);
        if open(Kind::Base) {
            (bases..joins).for_each(|node| one(Kind::Base, node, parent(node)));
        }
        if open(Kind::Merge) {
            (joins..root).for_each(|node| one(Kind::Merge, node, parent(node)));
        }
        one(Kind::Root, root, None);
    }

    /// Counts a task; when it will be done.
    fn task(&mut self, job: &Job, kind: Kind, node: u32, ready_at: u32, median: u32) -> u32 {
        match job.state_of(node) {
            TaskState::Done => 0,
            TaskState::Failed => NEVER,
            TaskState::Ready => {
                self.count(job, kind, node, |row| row.ready += 1);
                median
            }
            TaskState::Leased => {
                self.count(job, kind, node, |row| row.running += 1);
                self.rest(job.word(node), kind)
            }
            TaskState::Delayed => {
                let until = job.extra(node).map_or(0, |extra| extra.until);
                self.later(job, kind, node, clamp(until.saturating_sub(self.engine.now)), median)
            }
            TaskState::Waiting => self.later(job, kind, node, ready_at, median),
        }
    }

    fn later(&mut self, job: &Job, kind: Kind, node: u32, ready_at: u32, median: u32) -> u32 {
        if ready_at > self.within {
            // Nothing above it is ready within the time either.
            return NEVER;
        }
        self.count(job, kind, node, |row| row.soon += 1);
        ready_at.saturating_add(median)
    }

    /// How long a leased task still takes: what is left of the median, of its faster copy.
    fn rest(&self, slot: u32, kind: Kind) -> u32 {
        let engine = self.engine;
        let copies = std::iter::once(slot).chain(engine.leases[slot].twin);
        let rest = copies.map(|slot| {
            let lease = &engine.leases[slot];
            let cores = engine.workers[lease.worker].capacity.cores;
            let run = lease.started.map_or(0, |started| engine.now.saturating_sub(started));
            Millis::from(engine.durations.median(kind, cores)).saturating_sub(run)
        });
        rest.min().map_or(0, clamp)
    }

    fn count(&mut self, job: &Job, kind: Kind, node: u32, add: impl FnOnce(&mut Row)) {
        if job.is_shared(node)
            && let Some(counted) = &mut self.counted
        {
            let id = &job.tree.ids[node as usize].0;
            let head = u64::from_le_bytes(std::array::from_fn(|place| id[place]));
            if !counted.insert(head) {
                return;
            }
        }
        let class = usize::from(job.class(node));
        add(&mut self.rows[kind.index() * self.engine.classes.len() + class]);
    }
}

fn clamp(millis: Millis) -> u32 {
    u32::try_from(millis).unwrap_or(NEVER).min(NEVER - 1)
}
