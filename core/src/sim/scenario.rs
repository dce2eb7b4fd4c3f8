//! What a simulated run consists of, and what came of it.

use super::pools::{Costs, Pool};
use crate::circuit::KindSet;
use crate::engine::{Config, Millis};
use crate::profile::{Needs, Profile};

/// Equal workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// How many, each on a machine of its own.
    pub count: u32,
    /// What each has.
    pub capacity: Needs,
    /// Kinds that each takes.
    pub kinds: KindSet,
    /// Leases each takes beyond what it can run at once.
    pub prefetch: u16,
}

/// How long proofs take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Durations {
    /// Spread: standard deviation of the logarithm.
    pub sigma: f64,
    /// Share of proofs that are slow, whoever makes them; another attempt is drawn anew.
    pub slow_proofs: f64,
    /// How many times longer these take.
    pub slow_factor: f64,
    /// Share of workers that are slow with everything.
    pub slow_workers: f64,
    /// How many times longer these take.
    pub slow_worker_factor: f64,
}

impl Durations {
    /// Every proof takes what the profile says.
    pub const EXACT: Self =
        Self { sigma: 0.0, slow_proofs: 0.0, slow_factor: 1.0, slow_workers: 0.0, slow_worker_factor: 1.0 };
}

/// The way between operator and workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// Shortest and longest time of a message, in milliseconds.
    pub delay: (Millis, Millis),
    /// Whether messages of a connection may overtake each other.
    pub reorder: bool,
    /// Share of messages to the operator that arrive twice.
    pub duplicated: f64,
    /// Share of assignments that are lost without a trace.
    pub lost_assignments: f64,
    /// Share of assignments that the operator finds it can't send.
    pub undelivered: f64,
}

impl Network {
    /// A good data centre: 1 ms, nothing lost.
    pub const GOOD: Self =
        Self { delay: (1, 1), reorder: false, duplicated: 0.0, lost_assignments: 0.0, undelivered: 0.0 };
}

/// What goes wrong, at times drawn from the seed over the time the block takes at least.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// The operator is killed; what its journal had not written yet is lost.
    pub operator_kills: u32,
    /// A worker's process is killed and comes back with nothing.
    pub worker_crashes: u32,
    /// A worker can't be reached for up to two leases' time and goes on proving.
    pub partitions: u32,
    /// Share of attempts that end with an error.
    pub errors: f64,
    /// Share of workers that vanish for good, half way through.
    pub vanish: f64,
}

/// A block, the workers and what happens to them. The same scenario always gives the same outcome.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Everything random is drawn from it.
    pub seed: u64,
    /// Number of public calls of each transaction.
    pub calls: Vec<u8>,
    /// The engine's settings, with the profile.
    pub config: Config,
    /// The workers.
    pub groups: Vec<Group>,
    /// How long proofs take.
    pub durations: Durations,
    /// The way between operator and workers.
    pub network: Network,
    /// What goes wrong.
    pub faults: Faults,
    /// Check the engine's invariants after every so many events; 0 is never.
    pub check_every: u32,
    /// End the run after so many times the lower bound (at least an hour).
    pub give_up_factor: u64,
}

impl Scenario {
    /// A block on workers where nothing goes wrong.
    pub fn new(seed: u64, calls: Vec<u8>, profile: Profile, groups: Vec<Group>) -> Self {
        Self {
            seed,
            calls,
            config: Config::new(profile),
            groups,
            durations: Durations::EXACT,
            network: Network::GOOD,
            faults: Faults::default(),
            check_every: 0,
            give_up_factor: 20,
        }
    }

    /// The workers as machines of pools.
    pub fn pools(&self) -> Vec<Pool> {
        let pool = |g: &Group| Pool { count: g.count, capacity: g.capacity, kinds: g.kinds };
        self.groups.iter().map(pool).collect()
    }

    /// What proofs need and take by the profile.
    pub fn costs(&self) -> Costs {
        Costs::from(&self.config.profile)
    }
}

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// From submission to the checked root, in milliseconds; `None` if it was given up.
    pub makespan: Option<Millis>,
    /// What the block takes at least on these workers without faults, in milliseconds.
    pub lower_bound: Millis,
    /// Tasks of the block.
    pub tasks: u32,
    /// Proofs made to their end.
    pub made: u32,
    /// Of these: made beside another copy that was done first. It had not been when they began.
    pub beside: u32,
    /// Finished proofs made again: begun or leased though the proof was in the store and the
    /// operator had been told so and believed it.
    pub repeated: u32,
    /// Leases answered by a proof that the worker found in the store.
    pub found: u32,
    /// Tasks without a proof in the store, or not counted, at the end.
    pub lost: u32,
    /// Tasks counted more than once.
    pub double_counted: u32,
    /// Invariants of the engine that did not hold, the first few.
    pub violations: Vec<String>,
    /// Machine time spent on proofs, finished or not, in milliseconds.
    pub work: Millis,
    /// Second copies started of slow proofs.
    pub backups: u32,
    /// Kills of the operator that took place.
    pub operator_kills: u32,
    /// Leases given out.
    pub leases: u32,
    /// Events handled.
    pub events: u64,
    /// Of all that happened, in order.
    pub trace_hash: u64,
}

impl Outcome {
    /// Nothing lost, nothing counted or made twice, the root proven, the engine's books in order.
    pub fn is_sound(&self) -> bool {
        let wrong = self.lost + self.double_counted + self.repeated;
        self.makespan.is_some() && wrong == 0 && self.violations.is_empty()
    }
}
