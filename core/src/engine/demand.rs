//! What machines are wanted for: what runs, what is ready, and what will be ready soon.

use super::soon::{NEVER, Pass};
use super::table::Job;
use super::{Engine, JobId, Millis};
use crate::circuit::Kind;
use crate::profile::Needs;
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

/// Trees are gone over until they have so many tasks; for the others what was found before counts. See
/// docs/performance.md for what a task costs.
const MOST_LOOKED_AT: u32 = 1 << 16;

/// Answers kept of each job, for different times asked for.
const ANSWERS: usize = 2;

/// What is asked for of one kind and class.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Row {
    pub(super) running: u32,
    pub(super) ready: u32,
    pub(super) soon: u32,
}

impl Row {
    pub(super) fn add(&mut self, more: Self) {
        self.running += more.running;
        self.ready += more.ready;
        self.soon += more.soon;
    }

    fn at_least(&mut self, other: Self) {
        self.running = self.running.max(other.running);
        self.ready = self.ready.max(other.ready);
        self.soon = self.soon.max(other.soon);
    }
}

/// Kind by class, of each namespace.
pub(super) type Rows = BTreeMap<String, Vec<Row>>;

/// What an answer rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    job: JobId,
    version: u64,
    medians: [u32; 5],
    /// The time, if something of the job runs or waits for a time.
    at: Option<Millis>,
}

/// What a pass over some jobs found.
#[derive(Debug)]
struct Answer {
    within: u32,
    basis: Vec<Basis>,
    /// The number of the pass that found it.
    pass: u64,
    rows: Rows,
}

/// What is known of a job's demand, or of that of all that share tasks.
#[derive(Debug, Default)]
pub(crate) struct Answers(RefCell<Vec<Answer>>);

impl Answers {
    /// The pass that found what is asked for, 0 if none did, and whether it would find the same now.
    fn known(&self, within: u32, basis: &[Basis]) -> (u64, bool) {
        let answers = self.0.borrow();
        let found = answers.iter().find(|answer| answer.within == within);
        found.map_or((0, false), |found| (found.pass, found.basis == basis))
    }

    fn keep(&self, answer: Answer) {
        let mut answers = self.0.borrow_mut();
        answers.retain(|other| other.within != answer.within);
        if answers.len() >= ANSWERS {
            answers.remove(0);
        }
        answers.push(answer);
    }

    /// What was found last, if possible for this time.
    fn look<T>(&self, within: u32, read: impl FnOnce(&Answer) -> T) -> Option<T> {
        let answers = self.0.borrow();
        answers.iter().find(|answer| answer.within == within).or(answers.last()).map(read)
    }
}

/// A pass that was begun.
#[derive(Debug)]
struct Begun {
    within: u32,
    basis: Vec<Basis>,
    together: bool,
    pass: Pass,
}

/// What is known of all demand.
#[derive(Debug, Default)]
pub(crate) struct Known {
    passes: Cell<u64>,
    /// One for each time asked for.
    begun: RefCell<Vec<Begun>>,
    /// Of jobs that share tasks.
    together: Answers,
}

impl Engine {
    /// What all jobs that are proven now ask for, by namespace; each task counts once, whatever jobs share it.
    /// Quarantined tasks and what waits for them ask for nothing.
    ///
    /// What runs and is ready is counted all the time. For what will be ready soon, and for all that jobs ask for which
    /// share tasks, trees are gone over, some 65,000 tasks at a question: where more has changed, what is said is some
    /// questions old.
    pub fn demand(&self, within: Millis) -> Vec<Demand> {
        let within = u32::try_from(within).unwrap_or(NEVER).min(NEVER - 1);
        let jobs = self.jobs.ranked().iter().map(|slot| &self.jobs[*slot]);
        let (together, alone): (Vec<&Job>, Vec<&Job>) = jobs.partition(|job| job.shares());
        self.look_ahead(&together, &alone, within);
        let mut all = self.together(&together, within);
        for job in alone {
            let rows = all.entry(job.spec.namespace.clone()).or_insert_with(|| self.rows());
            rows.iter_mut().zip(self.asked_by(job, within)).for_each(|(row, more)| row.add(more));
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

    pub(super) fn rows(&self) -> Vec<Row> {
        vec![Row::default(); Kind::ALL.len() * self.classes.len()]
    }

    pub(super) fn medians(&self) -> [u32; 5] {
        Kind::ALL.map(|kind| self.durations.median(kind, 0))
    }

    fn basis(&self, job: &Job) -> Basis {
        let timed = job.counts.iter().any(|counts| counts.running > 0) || job.delayed > 0;
        let at = timed.then_some(self.now);
        Basis { job: job.spec.id, version: job.version, medians: self.medians(), at }
    }

    /// Goes on with the pass that was begun, then goes over what else may be answered otherwise now, first that of which
    /// the answer is oldest.
    fn look_ahead(&self, together: &[&Job], alone: &[&Job], within: u32) {
        let mut budget = MOST_LOOKED_AT;
        let begun = {
            let mut begun = self.demand.begun.borrow_mut();
            begun.iter().position(|begun| begun.within == within).map(|place| begun.remove(place))
        };
        if let Some(begun) = begun {
            self.go_on(begun, &mut budget);
        }
        let mut changed: Vec<(u64, bool, Vec<Basis>)> = vec![];
        let shared: Vec<Basis> = together.iter().map(|job| self.basis(job)).collect();
        if !shared.is_empty() {
            let (pass, same) = self.demand.together.known(within, &shared);
            changed.extend((!same).then_some((pass, true, shared)));
        }
        for job in alone {
            let basis = vec![self.basis(job)];
            let (pass, same) = job.answers.known(within, &basis);
            changed.extend((!same).then_some((pass, false, basis)));
        }
        changed.sort_by_key(|(pass, ..)| *pass);
        for (_, together, basis) in changed {
            if budget == 0 {
                return;
            }
            let jobs = basis.iter().map(|basis| basis.job).collect();
            self.go_on(
                Begun { within, basis, together, pass: Pass::new(within, jobs, together) },
                &mut budget,
            );
        }
    }

    fn go_on(&self, mut begun: Begun, budget: &mut u32) {
        let Some(rows) = begun.pass.go_on(self, budget) else {
            let mut all = self.demand.begun.borrow_mut();
            if all.len() >= ANSWERS {
                all.remove(0);
            }
            return all.push(begun);
        };
        self.demand.passes.set(self.demand.passes.get() + 1);
        let Begun { within, basis, together, .. } = begun;
        let job = basis.first().and_then(|basis| self.jobs.slot(basis.job)).map(|slot| &self.jobs[slot]);
        let answer = Answer { within, basis, pass: self.demand.passes.get(), rows };
        match job {
            _ if together => self.demand.together.keep(answer),
            Some(job) => job.answers.keep(answer),
            None => {}
        }
    }

    /// What a job asks for, whoever else wants the same.
    fn asked_by(&self, job: &Job, within: u32) -> Vec<Row> {
        let mut rows = self.rows();
        for (class, kinds) in job.wants.iter().enumerate() {
            for (kind, wants) in kinds.iter().enumerate() {
                let row = &mut rows[kind * self.classes.len() + class];
                (row.running, row.ready) = (wants.running, wants.ready);
            }
        }
        job.answers.look(within, |answer| {
            let soon = answer.rows.values().flatten();
            rows.iter_mut().zip(soon).for_each(|(row, found)| row.soon = found.soon);
        });
        rows
    }

    /// What jobs ask for that share tasks, or did so. Before they were all gone over it is the most that one of a
    /// namespace asks for.
    fn together(&self, jobs: &[&Job], within: u32) -> Rows {
        if jobs.is_empty() {
            return Rows::new();
        }
        self.demand.together.look(within, |answer| answer.rows.clone()).unwrap_or_else(|| {
            let mut all = Rows::new();
            for job in jobs {
                let rows = all.entry(job.spec.namespace.clone()).or_insert_with(|| self.rows());
                rows.iter_mut().zip(self.asked_by(job, within)).for_each(|(row, own)| row.at_least(own));
            }
            all
        })
    }
}
