//! How the engine behaves.

use super::{Fence, Millis};
use crate::profile::{Needs, Profile};
use std::collections::BTreeMap;

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Circuits, needs and first durations.
    pub profile: Profile,
    /// A worker silent for so long loses its leases.
    pub lease: Millis,
    /// A task runs at most so long, at least (times the learned duration below).
    pub limit_floor: Millis,
    /// … and at most this many times the learned median.
    pub limit_factor: u32,
    /// Charged failures of one reason before a task is quarantined.
    pub max_attempts: u8,
    /// A backup copy starts when a task has run this many percent of the learned median; 0 = never.
    pub backup_percent: u32,
    /// … and at least so long: a proof of milliseconds is not worth a second one.
    pub backup_floor: Millis,
    /// Only tasks shorter than this (by the learned median) are leased ahead. A long one in a queue bars
    /// more urgent ones that get ready meanwhile, to save a hand-off of milliseconds.
    pub prefetch_below: Millis,
    /// Larger classes of machine, ascending: an OOM asks for the next one.
    pub classes: Vec<Needs>,
    /// How much of the machines each namespace gets while others want them too; one that is not named weighs 1.
    pub shares: BTreeMap<String, u32>,
    /// Jobs that are over keep their trees while they have so many tasks in all, those that ended last: they can be
    /// revived at once, and later jobs find what they have in common with them.
    pub kept_tasks: u32,
    /// The first fence to give out.
    pub first_fence: Fence,
    /// Leases carry a code made with it, by which a worker that comes back shows that they are its own. The
    /// next engine on the same journal has to have the same, or nothing that runs is adopted.
    pub lease_key: [u8; 32],
    /// Of the results that workers report, so many a second are looked for in the store at once; 0 = none.
    pub spot_checks: u32,
}

impl Config {
    /// The defaults of the operator for a profile.
    pub fn new(profile: Profile) -> Self {
        let mut classes = profile.needs.to_vec();
        classes.sort();
        classes.dedup();
        Self {
            profile,
            lease: 15_000,
            limit_floor: 600_000,
            limit_factor: 20,
            max_attempts: 5,
            backup_percent: 150,
            backup_floor: 1_000,
            prefetch_below: 2_000,
            classes,
            shares: BTreeMap::new(),
            kept_tasks: 1 << 19,
            first_fence: Fence(1),
            lease_key: [0; 32],
            spot_checks: 0,
        }
    }

    /// The weight of a namespace.
    pub fn share(&self, namespace: &str) -> u32 {
        self.shares.get(namespace).copied().unwrap_or(1).max(1)
    }

    /// Adds machines with twice and four times the memory of those that the profile asks for: a proof that was killed for
    /// its memory waits for one of them. For where somebody can provide them.
    #[must_use]
    pub fn with_larger_classes(mut self) -> Self {
        let larger =
            |times| move |own: &Needs| Needs { memory_mib: own.memory_mib.saturating_mul(times), ..*own };
        let needs = &self.profile.needs;
        self.classes.extend(needs.iter().map(larger(2)).chain(needs.iter().map(larger(4))));
        self.classes.sort_unstable();
        self.classes.dedup();
        self
    }
}
