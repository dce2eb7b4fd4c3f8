//! What will be ready soon: passes over the trees of open jobs from the leaves up, a part at a time, so that no question
//! takes long however large the trees are.

use super::demand::{Row, Rows};
use super::table::Job;
use super::{Engine, JobId, Millis, TaskState};
use crate::circuit::Kind;
use crate::tree::{NodeId, Shape};
use hashbrown::HashSet;

/// Later than all that can be asked for.
pub(super) const NEVER: u32 = u32::MAX;

/// What a shared task costs in a pass, one that is not being 1: its id is looked up.
const SHARED_COST: u32 = 4;

/// A pass over the trees of some jobs. Times are milliseconds from when it is asked.
#[derive(Debug)]
pub(super) struct Pass {
    within: u32,
    jobs: Vec<JobId>,
    /// Which of the jobs it is at.
    place: usize,
    tree: Option<Tree>,
    /// Tasks of several places that were counted, by the first bytes of their ids; unused where no task can stand at
    /// two places.
    counted: Option<HashSet<u64>>,
    rows: Rows,
}

/// One job's tree in a pass.
#[derive(Debug)]
struct Tree {
    next: Next,
    medians: [u32; 5],
    /// Kind by class.
    rows: Vec<Row>,
    /// When the last of a task's open children that are done in time will be.
    ready_at: Vec<u32>,
    /// How many of them there are.
    reached: Vec<u8>,
}

/// The next node of a tree: children come before their parents. Parents are found without a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Next {
    node: u32,
    /// Transactions whose kernels begin before this node, and where the last one's end.
    transactions: u32,
    kernels_end: u32,
    /// Of the level of bases or joins: its first node and how many it has; 0 on the right edge. See [`Shape`].
    level: (u32, u32),
}

impl Next {
    fn first(shape: &Shape) -> Self {
        let calls = shape.total_calls();
        let level = (2 * calls, shape.transactions());
        Self { node: 0, transactions: 0, kernels_end: calls, level }
    }

    fn kind(&self, shape: &Shape) -> Kind {
        let calls = shape.total_calls();
        match self.node {
            node if node < calls => Kind::Vm,
            node if node < 2 * calls => Kind::Kernel,
            node if node == shape.root().0 => Kind::Root,
            node if node < 2 * calls + shape.transactions() => Kind::Base,
            _ => Kind::Merge,
        }
    }

    /// The node's parent; the next one is next.
    fn parent(&mut self, shape: &Shape) -> Option<u32> {
        let (node, calls) = (self.node, shape.total_calls());
        self.node += 1;
        if node < calls {
            return Some(node + calls);
        }
        if node < 2 * calls {
            while self.kernels_end <= node {
                self.kernels_end += u32::from(shape.calls(self.transactions));
                self.transactions += 1;
            }
            let last = node + 1 == self.kernels_end;
            return Some(if last { 2 * calls + self.transactions - 1 } else { node + 1 });
        }
        while self.level.1 > 0 && node >= self.level.0 + self.level.1 {
            self.level = (self.level.0 + self.level.1, self.level.1 / 2);
        }
        let (first, width) = self.level;
        let place = node - first;
        match place < width / 2 * 2 {
            true => Some(first + width + place / 2),
            false => shape.parent(NodeId(node)).map(|parent| parent.0),
        }
    }
}

impl Pass {
    /// A pass over these jobs; `shared` if they may have tasks in common.
    pub(super) fn new(within: u32, jobs: Vec<JobId>, shared: bool) -> Self {
        let counted = shared.then(HashSet::new);
        Self { within, jobs, place: 0, tree: None, counted, rows: Rows::new() }
    }

    /// Goes on for about so many tasks at most, and counts them down. Gives what was found once all was gone over.
    pub(super) fn go_on(&mut self, engine: &Engine, budget: &mut u32) -> Option<Rows> {
        while let Some(id) = self.jobs.get(self.place) {
            let job = engine.jobs.slot(*id).map(|slot| &engine.jobs[slot]);
            if let Some(job) = job
                && !self.go_over(engine, job, budget)
            {
                return None;
            }
            if let Some((tree, job)) = self.tree.take().zip(job) {
                let all = self.rows.entry(job.spec.namespace.clone()).or_insert_with(|| engine.rows());
                all.iter_mut().zip(tree.rows).for_each(|(row, more)| row.add(more));
            }
            self.place += 1;
        }
        Some(std::mem::take(&mut self.rows))
    }

    /// Goes on with a job's tree; says whether that is done.
    fn go_over(&mut self, engine: &Engine, job: &Job, budget: &mut u32) -> bool {
        let (shape, total) = (job.shape(), job.shape().total());
        let tree = match &mut self.tree {
            Some(tree) if tree.reached.len() == total as usize => tree,
            // The job is another now.
            Some(_) => return true,
            none => none.insert(Tree {
                next: Next::first(shape),
                medians: engine.medians(),
                rows: engine.rows(),
                ready_at: vec![0; total as usize],
                reached: vec![0; total as usize],
            }),
        };
        let done = Kind::ALL.map(|kind| job.counts[kind.index()].done == job.counts[kind.index()].total);
        let mut look = Look { engine, job, within: self.within, counted: &mut self.counted };
        while tree.next.node < total {
            // A kind that is done is passed over.
            let calls = shape.total_calls();
            if tree.next.node == 0 && done[Kind::Vm.index()] {
                tree.next.node = calls;
            }
            if tree.next.node == calls && done[Kind::Kernel.index()] {
                tree.next.node = 2 * calls;
            }
            if *budget == 0 {
                return false;
            }
            let shared = look.counted.is_some() && job.is_shared(tree.next.node);
            *budget = budget.saturating_sub(if shared { SHARED_COST } else { 1 });
            look.task(tree);
        }
        true
    }
}

/// A look at one job's tasks.
struct Look<'a> {
    engine: &'a Engine,
    job: &'a Job,
    within: u32,
    counted: &'a mut Option<HashSet<u64>>,
}

impl Look<'_> {
    /// Counts the next task if it is not done, and tells its parent if it will be done in time.
    fn task(&mut self, tree: &mut Tree) {
        let (job, node) = (self.job, tree.next.node);
        let kind = tree.next.kind(job.shape());
        let parent = tree.next.parent(job.shape());
        let (index, median) = (node as usize, tree.medians[kind.index()]);
        let end = match job.state_of(node) {
            TaskState::Done | TaskState::Failed => return,
            TaskState::Ready => {
                self.count(tree, kind, node, |row| row.ready += 1);
                median
            }
            TaskState::Leased => {
                self.count(tree, kind, node, |row| row.running += 1);
                self.rest(job.word(node), kind)
            }
            TaskState::Delayed => {
                let until = job.extra(node).map_or(0, |extra| extra.until);
                self.later(tree, kind, node, (clamp(until.saturating_sub(self.engine.now)), median))
            }
            TaskState::Waiting if tree.reached[index] < job.pending(node) => return,
            TaskState::Waiting => self.later(tree, kind, node, (tree.ready_at[index], median)),
        };
        if end <= self.within
            && let Some(parent) = parent
        {
            let above = &mut tree.ready_at[parent as usize];
            *above = (*above).max(end);
            tree.reached[parent as usize] += 1;
        }
    }

    /// A task that is ready later on, maybe in time; when it will be done.
    fn later(&mut self, tree: &mut Tree, kind: Kind, node: u32, (ready_at, median): (u32, u32)) -> u32 {
        if ready_at <= self.within {
            self.count(tree, kind, node, |row| row.soon += 1);
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

    fn count(&mut self, tree: &mut Tree, kind: Kind, node: u32, add: impl FnOnce(&mut Row)) {
        let job = self.job;
        if let Some(counted) = &mut self.counted
            && job.is_shared(node)
        {
            let id = &job.tree.ids[node as usize].0;
            let head = u64::from_le_bytes(std::array::from_fn(|place| id[place]));
            if !counted.insert(head) {
                return;
            }
        }
        let class = usize::from(job.class(node));
        add(&mut tree.rows[kind.index() * self.engine.classes.len() + class]);
    }
}

fn clamp(millis: Millis) -> u32 {
    u32::try_from(millis).unwrap_or(NEVER).min(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_of_a_tree_is_met_once_with_its_kind_and_parent() {
        for calls in [&[0][..], &[2], &[0, 0], &[1, 0, 3], &[2; 7], &[0, 1, 2, 3, 0, 0, 4, 1, 1, 2, 0]] {
            let shape = Shape::new(calls, 4).unwrap();
            let mut next = Next::first(&shape);
            for node in shape.nodes() {
                assert_eq!((next.node, next.kind(&shape)), (node.0, shape.kind(node)), "{calls:?}");
                let parent = next.parent(&shape);
                assert_eq!(parent, shape.parent(node).map(|parent| parent.0), "{calls:?} {node:?}");
            }
        }
    }
}
