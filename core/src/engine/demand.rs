//! What machines are wanted for: what runs, what is ready, and what will be ready soon.

use super::table::Job;
use super::{Engine, Millis, TaskState};
use crate::circuit::Kind;
use crate::profile::Needs;
use crate::tree::NodeId;
use hashbrown::HashSet;
use std::cell::{Cell, RefCell};
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

/// Trees are walked over until they have so many tasks, oldest news first; for the others what was found before counts.
const MOST_WALKED: u32 = 1 << 18;

/// Jobs that share tasks and have more tasks than that are walked over together once in so many milliseconds: one for
/// so many tasks, and at most so long.
const PACE: (Millis, Millis) = (75, 30_000);

/// Answers kept of each job, for different times asked for.
const ANSWERS: usize = 2;

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    running: u32,
    ready: u32,
    soon: u32,
}

/// What an answer rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    version: u64,
    medians: [u32; 5],
    /// The time, if something of the job runs or waits for a time.
    at: Option<Millis>,
}

/// What will be ready soon of a job, by kind and class.
#[derive(Debug)]
struct Answer {
    within: u32,
    basis: Basis,
    /// The how manyeth walk found it.
    walk: u64,
    soon: Vec<u32>,
}

/// What is known of a job's demand.
#[derive(Debug, Default)]
pub(crate) struct Answers(RefCell<Vec<Answer>>);

/// Kind by class, of each namespace.
type Rows = BTreeMap<String, Vec<Row>>;

/// What is asked for by jobs that share tasks.
#[derive(Debug)]
struct Together {
    within: u32,
    basis: Vec<(u32, Basis)>,
    at: Millis,
    rows: Rows,
}

/// What is known of all demand.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// What was asked for last.
    within: Cell<Option<u32>>,
    walks: Cell<u64>,
    together: RefCell<Option<Together>>,
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
    /// Quarantined tasks and what waits for them ask for nothing.
    ///
    /// What runs and is ready is counted all the time. For what will be ready soon trees are walked over, at most
    /// some 300,000 tasks, or one tree: where more has changed since, some of that is some questions old; and so is all
    /// that is asked for by very large jobs that share tasks.
    pub fn demand(&self, within: Millis) -> Vec<Demand> {
        let within = u32::try_from(within).unwrap_or(NEVER).min(NEVER - 1);
        self.demand.within.set(Some(within));
        let jobs = self.jobs.ranked().iter().map(|slot| (*slot, &self.jobs[*slot]));
        let (together, alone): (Vec<_>, Vec<_>) = jobs.partition(|(_, job)| job.shares());
        self.walk_some(alone.iter().map(|(_, job)| *job), within);
        let mut all = self.together(&together, within);
        for (_, job) in alone {
            let rows = all.entry(job.spec.namespace.clone()).or_insert_with(|| self.rows());
            self.add_job(job, within, rows);
        }
        let mut demand = vec![];
        for (namespace, rows) in all {
            for kind in Kind::ALL {
                for (class, needs) in self.classes.iter().enumerate() {
                    let Row { running, ready, soon } = rows[kind.index() * self.classes.len() + class];
                    if running + ready + soon > 0 {
                        let namespace = namespace.clone();
                        demand.push(Demand { namespace, kind, needs: *needs, running, ready, soon });
                    }
                }
            }
        }
        demand
    }

    fn rows(&self) -> Vec<Row> {
        vec![Row::default(); Kind::ALL.len() * self.classes.len()]
    }

    fn medians(&self) -> [u32; 5] {
        Kind::ALL.map(|kind| self.durations.median(kind, 0))
    }

    fn basis(&self, job: &Job) -> Basis {
        let timed = job.counts.iter().any(|counts| counts.running > 0) || job.delayed > 0;
        Basis { version: job.version, medians: self.medians(), at: timed.then_some(self.now) }
    }

    /// Walks over jobs of which something else may be said now, those first of which the news is oldest.
    fn walk_some<'a>(&self, jobs: impl Iterator<Item = &'a Job>, within: u32) {
        let mut changed: Vec<(u64, &Job)> = jobs
            .filter_map(|job| {
                let answers = job.answers.0.borrow();
                let last = answers.iter().find(|answer| answer.within == within);
                let same = last.is_some_and(|last| last.basis == self.basis(job));
                (!same).then_some((last.map_or(0, |last| last.walk), job))
            })
            .collect();
        changed.sort_by_key(|(walk, _)| *walk);
        let mut walked = 0u32;
        for (_, job) in changed {
            if walked >= MOST_WALKED {
                break;
            }
            walked = walked.saturating_add(job.shape().total());
            self.walk_over(job, within);
        }
    }

    /// A new job's demand is known from the start, if anybody asks for such things.
    pub(crate) fn note_demand(&self, slot: u32) {
        let job = &self.jobs[slot];
        if let Some(within) = self.demand.within.get().filter(|_| !job.shares()) {
            self.walk_over(job, within);
        }
    }

    fn walk_over(&self, job: &Job, within: u32) {
        let mut walk = Walk { engine: self, within, rows: BTreeMap::new(), counted: None };
        walk.job(job);
        self.demand.walks.set(self.demand.walks.get() + 1);
        let soon = walk.rows.values().flatten().map(|row| row.soon).collect();
        let answer = Answer { within, basis: self.basis(job), walk: self.demand.walks.get(), soon };
        let mut answers = job.answers.0.borrow_mut();
        answers.retain(|answer| answer.within != within);
        if answers.len() >= ANSWERS {
            answers.remove(0);
        }
        answers.push(answer);
    }

    /// Adds what a job asks for that shares nothing.
    fn add_job(&self, job: &Job, within: u32, rows: &mut [Row]) {
        for (class, kinds) in job.wants.iter().enumerate() {
            for (kind, wants) in kinds.iter().enumerate() {
                let row = &mut rows[kind * self.classes.len() + class];
                row.running += wants.running;
                row.ready += wants.ready;
            }
        }
        let answers = job.answers.0.borrow();
        let answer = answers.iter().find(|answer| answer.within == within).or(answers.last());
        let soon = answer.into_iter().flat_map(|answer| &answer.soon);
        rows.iter_mut().zip(soon).for_each(|(row, soon)| row.soon += soon);
    }

    /// What jobs ask for that share tasks, or did so.
    fn together(&self, jobs: &[(u32, &Job)], within: u32) -> Rows {
        let basis: Vec<(u32, Basis)> = jobs.iter().map(|(slot, job)| (*slot, self.basis(job))).collect();
        let tasks: u64 = jobs.iter().map(|(_, job)| u64::from(job.shape().total())).sum();
        let pace = if tasks > u64::from(MOST_WALKED) { (tasks / PACE.0).min(PACE.1) } else { 0 };
        let mut known = self.demand.together.borrow_mut();
        let good = |known: &&Together| {
            let same = known.within == within && known.basis == basis;
            same || known.at <= self.now && self.now < known.at + pace
        };
        if let Some(known) = known.as_ref().filter(good) {
            return known.rows.clone();
        }
        let counted = Some(HashSet::new());
        let mut walk = Walk { engine: self, within, rows: BTreeMap::new(), counted };
        jobs.iter().for_each(|(_, job)| walk.job(job));
        let rows: Rows =
            walk.rows.into_iter().map(|(namespace, rows)| (namespace.to_owned(), rows)).collect();
        *known = Some(Together { within, basis, at: self.now, rows: rows.clone() });
        rows
    }
}

impl<'a> Walk<'a> {
    /// Children come before their parents, so one pass suffices. A kind that is done is passed over, and
    /// so is what stands above tasks that will not be done in time.
    fn job(&mut self, job: &'a Job) {
        let calls = job.shape().total_calls();
        let open = |kind: Kind| job.counts[kind.index()].done < job.counts[kind.index()].total;
        let mut tree = Tree {
            medians: self.engine.medians(),
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
