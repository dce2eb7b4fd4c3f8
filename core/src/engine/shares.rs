//! How the machines are shared between namespaces: the cores that a namespace's leases take follow its weight. What
//! one does not use others take; priorities count inside a namespace alone.
//!
//! A machine that falls free goes to the namespace that has the fewest cores for its weight. Where a weight asks for a
//! part of a task at a time, that alone would round the same way for ever, so what a namespace had too little or too
//! much of lately counts as well, up to one task.

use super::tenants::Tenants;
use super::{Engine, Millis};
use crate::circuit::Kind;
use std::collections::BTreeMap;

/// What a namespace has of the machines, and had.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    weight: u32,
    /// Cores of its leases.
    cores: u64,
    /// What it had too little of until `since`, in milliseconds of a core; below zero what it had too much of.
    owed: f64,
    since: Millis,
    /// [`Pace::each`] then.
    each: f64,
}

/// How fast all namespaces together use machines.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Cores of all leases.
    cores: u64,
    /// Weights of the namespaces that want machines.
    weights: u64,
    /// What was due to each unit of weight until `since`, in milliseconds of a core.
    each: f64,
    since: Millis,
    /// So far back counts what a namespace had: the longest that a proof usually takes.
    memory: Millis,
    /// Cores of the largest task: the most that counts of it.
    most: u16,
}

impl Pace {
    pub(crate) fn new(most: u16) -> Self {
        Self { most, ..Self::default() }
    }

    fn each_at(&self, now: Millis) -> f64 {
        let passed = now.saturating_sub(self.since) as f64;
        self.each + passed * self.cores as f64 / self.weights.max(1) as f64
    }

    fn go_on(&mut self, now: Millis) {
        (self.each, self.since) = (self.each_at(now), now);
    }

    pub(crate) fn go_on_with(&mut self, weights: u64, now: Millis) {
        self.go_on(now);
        self.weights = weights;
    }

    pub(crate) fn remember(&mut self, memory: Millis) {
        self.memory = memory;
    }
}

impl Usage {
    pub(crate) fn new(weight: u32, pace: &Pace, now: Millis) -> Self {
        Self { weight, cores: 0, owed: 0.0, since: now, each: pace.each_at(now) }
    }

    pub(crate) fn cores(&self) -> u64 {
        self.cores
    }

    fn owed_at(&self, pace: &Pace, now: Millis) -> f64 {
        let due = f64::from(self.weight) * (pace.each_at(now) - self.each);
        let had = now.saturating_sub(self.since) as f64 * self.cores as f64;
        let most = f64::from(pace.most) * pace.memory.max(1) as f64;
        (self.owed + due - had).clamp(-most, most)
    }

    fn go_on(&mut self, pace: &Pace, now: Millis) {
        (self.owed, self.since, self.each) = (self.owed_at(pace, now), now, pace.each_at(now));
    }

    /// The less, the sooner it is its turn: the cores it has less those owed to it, for each unit of weight.
    pub(crate) fn level(&self, pace: &Pace, now: Millis) -> f64 {
        let owed = self.owed_at(pace, now) / pace.memory.max(1) as f64;
        (self.cores as f64 - owed) / f64::from(self.weight.max(1))
    }
}

impl Tenants {
    /// A lease of so many cores began, or was made a namespace's.
    pub(crate) fn take(&mut self, tenant: u32, cores: u16, now: Millis) {
        self.count(tenant, now, |had| had + u64::from(cores));
    }

    /// A lease of so many cores ended, or was made another namespace's.
    pub(crate) fn give_back(&mut self, tenant: u32, cores: u16, now: Millis) {
        self.count(tenant, now, |had| had - u64::from(cores));
    }

    fn count(&mut self, tenant: u32, now: Millis, change: impl Fn(u64) -> u64) {
        let (usage, pace) = self.usage(tenant);
        pace.go_on(now);
        usage.go_on(pace, now);
        (usage.cores, pace.cores) = (change(usage.cores), change(pace.cores));
    }

    /// Other namespaces want machines than did before; these did not, so they are owed nothing.
    pub(crate) fn begin(&mut self, fresh: Vec<u32>, now: Millis) {
        for tenant in fresh {
            let (usage, pace) = self.usage(tenant);
            usage.go_on(pace, now);
            usage.owed = 0.0;
        }
        let active = self.active().to_vec();
        let weights = active.into_iter().map(|tenant| u64::from(self.usage(tenant).0.weight)).sum();
        self.go_on_with(weights, now);
    }

    /// Changes a namespace's weight.
    pub(crate) fn weigh(&mut self, tenant: u32, weight: u32, now: Millis) {
        let (usage, pace) = self.usage(tenant);
        pace.go_on(now);
        usage.go_on(pace, now);
        usage.weight = weight;
    }
}

impl Engine {
    /// Namespaces that want machines, whose turn it is first.
    pub(crate) fn in_turn(&self) -> Vec<u32> {
        let tenants = &self.tenants;
        if let [only] = tenants.active() {
            return vec![*only];
        }
        let mut all: Vec<(f64, &str, u32)> = tenants
            .active()
            .iter()
            .map(|tenant| (tenants.level(*tenant, self.now), tenants.name(*tenant), *tenant))
            .collect();
        all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1)));
        all.into_iter().map(|(.., tenant)| tenant).collect()
    }

    /// How long proofs take says how far back counts what a namespace had.
    pub(crate) fn remember_shares(&mut self) {
        let longest = Kind::ALL.iter().map(|kind| self.durations.median(*kind, 0)).max();
        self.tenants.remember(Millis::from(longest.unwrap_or_default()));
    }

    /// New weights; a namespace that is not named weighs 1.
    pub(crate) fn set_shares(&mut self, shares: BTreeMap<String, u32>) {
        self.config.shares = shares;
        for tenant in self.tenants.numbers() {
            let weight = self.config.share(self.tenants.name(tenant));
            self.tenants.weigh(tenant, weight, self.now);
        }
        self.tenants.begin(vec![], self.now);
    }
}
