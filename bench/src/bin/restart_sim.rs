//! Kills of the operator in virtual time: what is lost, counted twice or proven again, and whether a
//! seed gives the same run twice. Only the run time depends on the machine it runs on.

use anyhow::{Result, ensure};
use arborist_core::circuit::KindSet;
use arborist_core::profile::Profile;
use arborist_core::sim::{Durations, Faults, Group, Network, Outcome, Rng, Scenario, run};
use clap::Parser;
use std::time::Instant;

/// Seeded kills of the operator in the simulated world.
#[derive(Parser)]
struct Args {
    /// Blocks to run; each is run twice to compare the traces.
    #[arg(long, default_value_t = 250)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Kills of the operator planned in each run.
    #[arg(long, default_value_t = 6)]
    kills: u32,
    /// Also simulate the largest block, once.
    #[arg(long)]
    largest: bool,
}

#[derive(Default)]
struct Sums {
    runs: u64,
    unfinished: u64,
    kills: u64,
    tasks: u64,
    made: u64,
    beside: u64,
    found: u64,
    lost: u64,
    double: u64,
    repeated: u64,
    violations: u64,
    same_trace: u64,
}

impl Sums {
    fn add(&mut self, outcome: &Outcome, same_trace: bool) {
        self.runs += 1;
        self.unfinished += u64::from(outcome.makespan.is_none());
        self.kills += u64::from(outcome.operator_kills);
        self.tasks += u64::from(outcome.tasks);
        self.made += u64::from(outcome.made);
        self.beside += u64::from(outcome.beside);
        self.found += u64::from(outcome.found);
        self.lost += u64::from(outcome.lost);
        self.double += u64::from(outcome.double_counted);
        self.repeated += u64::from(outcome.repeated);
        self.violations += outcome.violations.len() as u64;
        self.same_trace += u64::from(same_trace);
    }

    fn print(&self) {
        println!(
            "blocks {}, unfinished {}, kills of the operator {}",
            self.runs, self.unfinished, self.kills
        );
        println!("tasks {}, proofs made {}", self.tasks, self.made);
        println!("  beside another copy that was done first {}", self.beside);
        println!("  leases answered from the store {}", self.found);
        println!(
            "lost {}, counted twice {}, finished proofs made again {}",
            self.lost, self.double, self.repeated
        );
        println!("broken invariants {}", self.violations);
        println!("same trace when run again: {} of {}", self.same_trace, self.runs);
    }

    fn is_sound(&self) -> bool {
        let wrong = self.unfinished + self.lost + self.double + self.repeated + self.violations;
        wrong == 0 && self.same_trace == self.runs
    }
}

fn main() -> Result<()> {
    let (args, start) = (Args::parse(), Instant::now());
    let mut sums = Sums::default();
    for seed in args.first_seed..args.first_seed + args.seeds {
        let scenario = scenario(seed, args.kills);
        let outcome = run(&scenario)?;
        let same = run(&scenario)? == outcome;
        if !outcome.is_sound() || !same {
            println!("seed {seed}: {outcome:?}");
        }
        sums.add(&outcome, same);
    }
    sums.print();
    if args.largest {
        largest()?;
    }
    println!("run time {:.1} s", start.elapsed().as_secs_f64());
    ensure!(sums.is_sound(), "something was lost, counted twice, made again or not the same");
    Ok(())
}

/// A block of up to 40 transactions on a few workers; every second one with other faults, too.
fn scenario(seed: u64, kills: u32) -> Scenario {
    let mut rng = Rng::new(seed);
    let transactions = rng.log_between(1, 40);
    let calls = (0..transactions).map(|_| rng.between(0, 4) as u8).collect();
    let mut scenario = Scenario::new(seed, calls, Profile::rfp(), groups(&mut rng));
    scenario.durations = Durations {
        sigma: 0.2,
        slow_proofs: 0.02,
        slow_factor: 8.0,
        slow_workers: 0.1,
        slow_worker_factor: 3.0,
    };
    scenario.check_every = 1;
    scenario.faults.operator_kills = kills;
    if seed.is_multiple_of(2) {
        scenario.network = Network {
            delay: (1, 400),
            reorder: true,
            duplicated: 0.05,
            lost_assignments: 0.02,
            undelivered: 0.02,
        };
        scenario.faults =
            Faults { operator_kills: kills, worker_crashes: 3, partitions: 3, errors: 0.02, vanish: 0.0 };
    }
    scenario
}

fn groups(rng: &mut Rng) -> Vec<Group> {
    let needs = Profile::rfp().needs;
    let prefetch = rng.between(0, 2) as u16;
    vec![
        Group { count: rng.between(1, 6) as u32, capacity: needs[0], kinds: KindSet::ALL, prefetch },
        Group { count: rng.between(0, 10) as u32, capacity: needs[1], kinds: KindSet::ALL, prefetch },
    ]
}

/// How fast the largest block is simulated: 61,440 transactions, balanced workers, ten kills.
fn largest() -> Result<()> {
    let needs = Profile::rfp().needs;
    let group = |count, capacity| Group { count, capacity, kinds: KindSet::ALL, prefetch: 1 };
    let groups = vec![group(1_024, needs[0]), group(2_048, needs[1])];
    let mut scenario = Scenario::new(1, vec![2; 61_440], Profile::rfp(), groups);
    scenario.durations = Durations { sigma: 0.1, ..Durations::EXACT };
    scenario.faults.operator_kills = 10;
    let start = Instant::now();
    let outcome = run(&scenario)?;
    let (real, hours) = (start.elapsed().as_secs_f64(), outcome.makespan.unwrap_or(0) as f64 / 3_600_000.0);
    println!(
        "61,440 x 2 calls, {} kills: {hours:.2} h in {real:.1} s: {:.2} simulated hours a second, target 0.1, wanted 1",
        outcome.operator_kills,
        hours / real
    );
    ensure!(outcome.is_sound(), "{outcome:?}");
    Ok(())
}
