//! When a job will be done, from counts alone.

use super::table::Job;
use super::{Engine, JobId, JobState, Millis};
use crate::circuit::{Kind, KindSet};
use crate::profile::Needs;

/// How many tasks with these needs fit into so much.
fn slots(needs: Needs, capacity: Needs) -> u64 {
    let cores = u64::from(capacity.cores) / u64::from(needs.cores.max(1));
    cores.min(u64::from(capacity.memory_mib) / u64::from(needs.memory_mib.max(1)))
}

/// How much of a machine one task takes, another one being 1.
fn weight(of: Needs, unit: Needs) -> f64 {
    let cores = f64::from(of.cores) / f64::from(unit.cores.max(1));
    cores.max(f64::from(of.memory_mib) / f64::from(unit.memory_mib.max(1)))
}

/// What is left of a job, by kind.
struct Rest {
    medians: [Millis; 5],
    open: [u32; 5],
    /// Joins on the way from a base to the root, the root aside.
    height: u32,
    max_calls: u8,
}

impl Rest {
    fn of(engine: &Engine, job: &Job) -> Self {
        let levels = u32::BITS - job.shape().transactions().saturating_sub(1).leading_zeros();
        Self {
            medians: Kind::ALL.map(|kind| Millis::from(engine.durations.median(kind, 0))),
            open: job.counts.map(|counts| counts.total - counts.done),
            height: levels.saturating_sub(1),
            max_calls: job.max_calls,
        }
    }

    fn open_kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| self.open[kind.index()] > 0)
    }

    /// Milliseconds of all open tasks of a kind.
    fn work(&self, kind: Kind) -> f64 {
        f64::from(self.open[kind.index()]) * self.medians[kind.index()] as f64
    }

    /// Milliseconds of the longest path through a kind that may remain.
    fn path(&self, kind: Kind) -> Millis {
        let open = self.open[kind.index()];
        let steps = match kind {
            Kind::Kernel => open.min(u32::from(self.max_calls)),
            Kind::Merge => (u32::BITS - open.leading_zeros()).min(self.height),
            Kind::Vm | Kind::Base | Kind::Root => open.min(1),
        };
        self.medians[kind.index()] * Millis::from(steps)
    }

    /// Milliseconds of the shortest path through a kind.
    fn tail(&self, kind: Kind) -> Millis {
        if kind == Kind::Kernel { self.medians[kind.index()] } else { self.path(kind) }
    }
}

/// What is left of a job if it has all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remaining {
    /// Until it is done.
    pub(crate) millis: Millis,
    /// For so long it needs the machines that are short; they do nothing else meanwhile.
    pub(crate) work: Millis,
}

impl Remaining {
    fn allow(&mut self, other: &Self) {
        (self.millis, self.work) = (self.millis.max(other.millis), self.work.max(other.work));
    }
}

impl Engine {
    /// When a job will be done if it has all workers that are connected now, by the wall clock; `None` while it is suspended, while something of it fits on no
    /// worker that takes its kind, while a task of it is quarantined, when it is over, or unknown. Looks at counts only:
    ///
    /// now + max(P, max over kinds k of W(k) + A(k)), where durations are the learned medians and
    /// - P is the longest path that may remain: the steps of every open kind one after the other (of
    ///   `kernel` the most calls of a transaction, of `merge` the tree's height, or the bits of the
    ///   number of open ones if that is less),
    /// - W(k) is the open work of k and of all kinds that need at least as much, over what the machines that serve the
    ///   job and take and fit any of these can run of k at once; or, if that is longer, the same of those of them alone
    ///   that only workers that take k too take, over the machines that take and fit k,
    /// - A(k) is the shortest path through the open kinds that only come after all that W(k) counts.
    pub fn estimate(&self, id: JobId) -> Option<Millis> {
        let slot = self.jobs.slot(id)?;
        match self.jobs[slot].state {
            JobState::Proving => Some(self.clock.shown(self.now + self.remaining(slot)?.millis)),
            JobState::Checking => Some(self.clock.shown(self.now)),
            JobState::Complete | JobState::Failed { .. } | JobState::Cancelled => None,
        }
    }

    /// See [`Engine::estimate`].
    pub(crate) fn remaining(&self, slot: u32) -> Option<Remaining> {
        let job = &self.jobs[slot];
        if job.spec.suspended || job.counts.iter().any(|count| count.failed > 0) {
            return None;
        }
        let (rest, namespace) = (Rest::of(self, job), job.spec.namespace.as_str());
        let path: Millis = rest.open_kinds().map(|kind| rest.path(kind)).sum();
        let mut longest = Remaining { millis: path, work: 0 };
        for kind in rest.open_kinds() {
            let needs = self.config.profile.needs(kind);
            if self.slots(needs, KindSet::of(kind), namespace) == 0 {
                return None;
            }
            let as_large = |other: &Kind| weight(needs, self.config.profile.needs(*other)) <= 1.0;
            let only_there = |other: &Kind| {
                self.workers.takers_of(*other, namespace).all(|takers| takers.kinds.contains(kind))
            };
            let group: KindSet = rest.open_kinds().filter(as_large).collect();
            let own: KindSet = group.iter().filter(only_there).collect();
            longest.allow(&self.group_millis(&rest, needs, group, (group, namespace)));
            if own != group {
                longest.allow(&self.group_millis(&rest, needs, own, (KindSet::of(kind), namespace)));
            }
        }
        Some(longest)
    }

    /// How long the open tasks of a group take machines that take one of `kinds` of a namespace, of which each fits
    /// so much at once, and what comes after them.
    fn group_millis(
        &self,
        rest: &Rest,
        unit: Needs,
        group: KindSet,
        (kinds, namespace): (KindSet, &str),
    ) -> Remaining {
        let weigh = |other: Kind| rest.work(other) * weight(self.config.profile.needs(other), unit);
        let work: f64 = group.iter().map(weigh).sum();
        let after = rest.open_kinds().filter(|other| group.iter().all(|of| of.index() < other.index()));
        let after: Millis = after.map(|other| rest.tail(other)).sum();
        let work = (work / self.slots(unit, kinds, namespace).max(1) as f64) as Millis;
        Remaining { millis: work + after, work }
    }

    /// How many tasks with these needs all workers that take one of these kinds of a namespace can run together.
    fn slots(&self, needs: Needs, kinds: KindSet, namespace: &str) -> u64 {
        let takes = |t: &&super::Takers| t.serves.contains(namespace) && !t.kinds.and(kinds).is_empty();
        let takers = self.workers.takers().iter().filter(takes);
        let shapes = takers.flat_map(|takers| &takers.shapes);
        shapes.map(|(capacity, shape)| slots(needs, *capacity) * u64::from(shape.workers)).sum()
    }
}
