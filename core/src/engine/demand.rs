//! What machines are wanted for: what runs, what is ready, and what will be ready soon.

use super::table::Job;
use super::{Engine, Millis, TaskState};
use crate::circuit::Kind;
use crate::profile::Needs;
use crate::tree::NodeId;
use hashbrown::HashSet;
use std::collections::BTreeMap;

/// Tasks of one namespace and kind that ask for one class of machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Whose they are; of several that share a task the one whose job goes first.
    pub namespace: String,
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

/// Later than all that can be asked for.
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
    /// Kind by class, of each namespace.
    rows: BTreeMap<&'a str, Vec<Row>>,
    /// Tasks of several places that were counted, by the first bytes of their ids; unused while no
    /// task can stand at two places.
    counted: Option<HashSet<u64>>,
}

/// One job's tree while it is walked over.
struct Tree<'a> {
    job: &'a Job,
    medians: [u32; 5],
    /// When the last of a task's open children that are done in time will be.
    ready_at: Vec<u32>,
    /// How many of them there are.
    reached: Vec<u8>,
}

impl Engine {
    /// What all jobs that are proven now ask for, by namespace; each task counts once, whatever jobs share it.
    /// Quarantined tasks and what waits for them ask for nothing. Looks at every task of these jobs.
    pub fn demand(&self, within: Millis) -> Vec<Demand> {
        let jobs: Vec<&Job> = self.jobs.ranked().iter().map(|slot| &self.jobs[*slot]).collect();
        let doubles = jobs.len() > 1 || jobs.iter().any(|job| !job.tree.index.doubles().is_empty());
        let mut walk = Walk {
            engine: self,
            within: u32::try_from(within).unwrap_or(NEVER).min(NEVER - 1),
            rows: BTreeMap::new(),
            counted: doubles.then(HashSet::new),
        };
        for job in jobs {
            walk.job(job);
        }
        let mut demand = vec![];
        for (namespace, rows) in walk.rows {
            for kind in Kind::ALL {
                for (class, needs) in self.classes.iter().enumerate() {
                    let Row { running, ready, soon } = rows[kind.index() * self.classes.len() + class];
                    if running + ready + soon > 0 {
                        let namespace = namespace.to_owned();
                        demand.push(Demand { namespace, kind, needs: *needs, running, ready, soon });
                    }
                }
            }
        }
        demand
    }
}

impl<'a> Walk<'a> {
    /// Children come before their parents, so one pass suffices. A kind that is done is passed over, and
    /// so is what stands above tasks that will not be done in time.
    fn job(&mut self, job: &'a Job) {
        let calls = job.shape().total_calls();
        let open = |kind: Kind| job.counts[kind.index()].done < job.counts[kind.index()].total;
        let mut tree = Tree {
            medians: Kind::ALL.map(|kind| self.engine.durations.median(kind, 0)),
            ready_at: vec![0; job.shape().total() as usize],
            reached: vec![0; job.shape().total() as usize],
            job,
        };
        if open(Kind::Vm) {
            (0..calls).for_each(|node| self.task(&mut tree, Kind::Vm, node, || Some(node + calls)));
        }
        if open(Kind::Kernel) {
            self.kernels(&mut tree);
        }
        self.joins(&mut tree);
    }

    fn kernels(&mut self, tree: &mut Tree<'a>) {
        let shape = tree.job.shape();
        let mut node = shape.total_calls();
        let bases = 2 * node;
        for tx in 0..shape.transactions() {
            let end = node + u32::from(shape.calls(tx));
            while node < end {
                let parent = if node + 1 == end { bases + tx } else { node + 1 };
                self.task(tree, Kind::Kernel, node, || Some(parent));
                node += 1;
            }
        }
    }

    /// Bases, and joins of perfect subtrees level by level, then the right edge: see [`Shape`](crate::tree::Shape).
    fn joins(&mut self, tree: &mut Tree<'a>) {
        let shape = tree.job.shape();
        let root = shape.root().0;
        let parent = |node| shape.parent(NodeId(node)).map(|parent| parent.0);
        let (mut node, mut width) = (2 * shape.total_calls(), shape.transactions());
        let joins = node + width;
        while width > 0 {
            let above = node + width;
            for place in 0..width {
                let paired = place < width / 2 * 2;
                let kind = match node {
                    node if node == root => Kind::Root,
                    node if node < joins => Kind::Base,
                    _ => Kind::Merge,
                };
                self.task(tree, kind, node, || if paired { Some(above + place / 2) } else { parent(node) });
                node += 1;
            }
            width /= 2;
        }
        for node in node..=root {
            let kind = if node == root { Kind::Root } else { Kind::Merge };
            self.task(tree, kind, node, || parent(node));
        }
    }

    /// Counts a task that is not done, and tells its parent if it will be done in time.
    fn task(&mut self, tree: &mut Tree<'a>, kind: Kind, node: u32, parent: impl FnOnce() -> Option<u32>) {
        let job = tree.job;
        let (index, median) = (node as usize, tree.medians[kind.index()]);
        let end = match job.state_of(node) {
            TaskState::Done | TaskState::Failed => return,
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
            TaskState::Waiting if tree.reached[index] < job.pending(node) => return,
            TaskState::Waiting => self.later(job, kind, node, tree.ready_at[index], median),
        };
        if end <= self.within
            && let Some(parent) = parent()
        {
            let above = &mut tree.ready_at[parent as usize];
            *above = (*above).max(end);
            tree.reached[parent as usize] += 1;
        }
    }

    /// A task that is ready later on, maybe in time; when it will be done.
    fn later(&mut self, job: &'a Job, kind: Kind, node: u32, ready_at: u32, median: u32) -> u32 {
        if ready_at <= self.within {
            self.count(job, kind, node, |row| row.soon += 1);
        }
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

    fn count(&mut self, job: &'a Job, kind: Kind, node: u32, add: impl FnOnce(&mut Row)) {
        if job.is_shared(node)
            && let Some(counted) = &mut self.counted
        {
            let id = &job.tree.ids[node as usize].0;
            let head = u64::from_le_bytes(std::array::from_fn(|place| id[place]));
            if !counted.insert(head) {
                return;
            }
        }
        let (class, classes) = (usize::from(job.class(node)), self.engine.classes.len());
        let empty = || vec![Row::default(); Kind::ALL.len() * classes];
        let rows = self.rows.entry(&job.spec.namespace).or_insert_with(empty);
        add(&mut rows[kind.index() * classes + class]);
    }
}

fn clamp(millis: Millis) -> u32 {
    u32::try_from(millis).unwrap_or(NEVER).min(NEVER - 1)
}
