//! Which jobs can make their deadlines as things are.
//!
//! A job has to wait for what goes before it: all of higher priority in its namespace, and of the same priority what has
//! less slack and can be met itself. Other namespaces take their shares for as long as they have work.

use super::estimate::Remaining;
use super::{Command, Engine, JobId, JobState, Millis, Notice};

/// How often the jobs' chances are looked at, in milliseconds; those of new ones at the next tick.
const RISK_EVERY: Millis = 1_000;

/// A namespace's part of the machines.
#[derive(Debug, Clone, Copy)]
struct Part {
    weight: u64,
    weights: u64,
    /// For so long the others keep all machines busy.
    others: Millis,
}

impl Part {
    /// How long what needs all machines for so long takes this namespace.
    fn stretched(self, work: Millis) -> Millis {
        let alone = u128::from(work) * u128::from(self.weights) / u128::from(self.weight.max(1));
        work.saturating_add(self.others).min(Millis::try_from(alone).unwrap_or(Millis::MAX))
    }
}

/// A job of which it is asked whether it can be met.
#[derive(Debug, Clone, Copy)]
struct Case {
    slot: u32,
    priority: i32,
    /// By the engine's time.
    deadline: Option<Millis>,
    remaining: Option<Remaining>,
}

impl Case {
    fn work(&self) -> Millis {
        self.remaining.map_or(0, |remaining| remaining.work)
    }

    /// When it would have to be begun; jobs without a deadline last.
    fn latest_start(&self) -> Millis {
        let millis = self.remaining.map_or(0, |remaining| remaining.millis);
        self.deadline.map_or(Millis::MAX, |deadline| deadline.saturating_sub(millis))
    }

    /// How long it takes with so much work before it.
    fn needs(&self, ahead: Millis, part: Part) -> Option<Millis> {
        let Remaining { millis, work } = self.remaining?;
        Some(part.stretched(ahead.saturating_add(work)).saturating_add(millis.saturating_sub(work)))
    }
}

impl Engine {
    /// Looks at the chances of all jobs: says which will not make their deadlines, and when they will again, and puts
    /// those that can't be met behind others of their priority.
    pub(crate) fn check_risks(&mut self) {
        let is_new = |slot: &u32| self.jobs[*slot].risk_checked.is_none();
        let fresh = self.jobs.ranked().iter().any(is_new);
        if !fresh && self.risks_checked.is_some_and(|at| at + RISK_EVERY > self.now) {
            return;
        }
        self.risks_checked = Some(self.now);
        let tenants = self.tenants.active().to_vec();
        let cases: Vec<Vec<Case>> =
            tenants.iter().map(|tenant| self.cases(self.tenants.ranked(*tenant))).collect();
        let works: Vec<Millis> = cases.iter().map(|cases| cases.iter().map(Case::work).sum()).collect();
        let weight = |tenant: &u32| u64::from(self.config.share(self.tenants.name(*tenant)));
        let weights: Vec<u64> = tenants.iter().map(weight).collect();
        let (all, sum): (Millis, u64) = (works.iter().sum(), weights.iter().sum());
        for ((cases, work), weight) in cases.into_iter().zip(works).zip(weights) {
            self.judge(&cases, Part { weight, weights: sum, others: all - work });
        }
        self.judge_others();
    }

    fn cases(&self, slots: &[u32]) -> Vec<Case> {
        let case = |slot: &u32| {
            let spec = &self.jobs[*slot].spec;
            let remaining = self.remaining(*slot);
            let deadline = spec.deadline.map(|deadline| self.clock.of_wall(deadline));
            Case { slot: *slot, priority: spec.priority, deadline, remaining }
        };
        slots.iter().map(case).collect()
    }

    /// When a job will be done with what goes before it, by the wall clock; as [`Engine::estimate`] while that was not
    /// looked at.
    pub fn forecast(&self, id: JobId) -> Option<Millis> {
        let alone = self.estimate(id)?;
        let job = &self.jobs[self.jobs.slot(id)?];
        let expected = job.expected.filter(|_| job.state == JobState::Proving);
        Some(expected.map_or(alone, |expected| alone.max(self.clock.shown(expected))))
    }

    /// Jobs of one namespace, highest priority first.
    fn judge(&mut self, cases: &[Case], part: Part) {
        let mut ahead: Millis = 0;
        for group in cases.chunk_by(|a, b| a.priority == b.priority) {
            let mut group = group.to_vec();
            // those that could be met so far stay before the others, or two would take turns and miss both
            group.sort_by_key(|case| (self.jobs[case.slot].hopeless, case.latest_start()));
            let mut hopeless = vec![];
            for case in group {
                let needed = case.needs(ahead, part);
                if self.is_hopeless(&case, needed) {
                    hopeless.push(case);
                } else {
                    ahead = ahead.saturating_add(case.work());
                    self.tell(&case, needed, false);
                }
            }
            for case in hopeless {
                let needed = case.needs(ahead, part);
                ahead = ahead.saturating_add(case.work());
                self.tell(&case, needed, true);
            }
        }
    }

    /// Jobs that lease nothing: what is suspended is late if it stays so, and a root is being checked.
    fn judge_others(&mut self) {
        let ongoing = |state: &JobState| matches!(state, JobState::Proving | JobState::Checking);
        let rests = self.jobs.iter().filter(|(_, job)| {
            ongoing(&job.state) && (job.spec.suspended || job.state == JobState::Checking)
        });
        let rests: Vec<u32> = rests.map(|(slot, _)| slot).collect();
        for case in self.cases(&rests) {
            let needed = case.remaining.map(|remaining| remaining.millis);
            self.tell(&case, needed, false);
        }
    }

    /// Whether a job is far from being met. To come back it needs no more than there is, so that it does not go back
    /// and forth.
    fn is_hopeless(&self, case: &Case, needed: Option<Millis>) -> bool {
        let Some(deadline) = case.deadline else { return false };
        let left = deadline.saturating_sub(self.now);
        let was = self.jobs[case.slot].hopeless;
        needed.is_none_or(|needed| if was { needed > left } else { needed / 5 * 4 > left })
    }

    /// Writes down what became of a job's chances, and says so when it changed. To come back from being at risk it
    /// needs a tenth to spare.
    fn tell(&mut self, case: &Case, needed: Option<Millis>, hopeless: bool) {
        let now = self.now;
        let job = &mut self.jobs[case.slot];
        (job.risk_checked, job.hopeless) = (Some(now), hopeless);
        job.expected = needed.map(|needed| now.saturating_add(needed));
        let Some(deadline) = case.deadline else { return };
        let needed = if job.at_risk { needed.map(|needed| needed + needed / 10) } else { needed };
        let at_risk = needed.is_none_or(|needed| now.saturating_add(needed) > deadline);
        if at_risk != job.at_risk {
            job.at_risk = at_risk;
            self.out.push(Command::Notice(Notice::AtRisk(job.spec.id, at_risk)));
        }
    }
}
