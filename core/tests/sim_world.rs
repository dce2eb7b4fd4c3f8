//! The engine in its simulated world: operators killed, workers crashing, networks failing.

mod engine_world;

use arborist_core::circuit::KindSet;
use arborist_core::profile::Profile;
use arborist_core::sim::{Durations, Faults, Group, Network, Outcome, Rng, Scenario, run};

fn rfp_groups(vm: u32, small: u32, prefetch: u16) -> Vec<Group> {
    let profile = Profile::rfp();
    vec![
        Group { count: vm, capacity: profile.needs[0], kinds: KindSet::ALL, prefetch },
        Group { count: small, capacity: profile.needs[1], kinds: KindSet::ALL, prefetch },
    ]
}

const ROUGH: Durations =
    Durations { sigma: 0.2, slow_proofs: 0.02, slow_factor: 8.0, slow_workers: 0.1, slow_worker_factor: 3.0 };

const BAD_NETWORK: Network =
    Network { delay: (1, 400), reorder: true, duplicated: 0.05, lost_assignments: 0.02, undelivered: 0.02 };

/// A small block and workers drawn from a seed.
fn small(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed);
    let transactions = rng.between(1, 8);
    let calls = (0..transactions).map(|_| rng.between(0, 3) as u8).collect();
    let (vm, others) = (rng.between(1, 4) as u32, rng.between(0, 5) as u32);
    let groups = rfp_groups(vm, others, rng.between(0, 2) as u16);
    let mut scenario = Scenario::new(seed, calls, Profile::rfp(), groups);
    scenario.durations = ROUGH;
    scenario.check_every = 1;
    scenario
}

fn sound(seed: u64, scenario: &Scenario) -> Outcome {
    let outcome = run(scenario).unwrap();
    assert!(outcome.is_sound(), "seed {seed}: {outcome:#?}\n{scenario:?}");
    outcome
}

#[test]
fn a_thousand_kills_of_the_operator_lose_and_repeat_nothing() {
    let (mut kills, mut seed) = (0, 0);
    while kills < 1_000 {
        let mut scenario = small(seed);
        scenario.faults.operator_kills = 6;
        kills += sound(seed, &scenario).operator_kills;
        seed += 1;
    }
}

#[test]
fn crashes_partitions_and_a_bad_network_lose_and_repeat_nothing() {
    for seed in 0..u64::from(engine_world::runs(150)) {
        let mut scenario = small(1_000_000 + seed);
        scenario.network = BAD_NETWORK;
        scenario.faults =
            Faults { operator_kills: 2, worker_crashes: 3, partitions: 3, errors: 0.02, vanish: 0.0 };
        sound(seed, &scenario);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    for seed in 0..20 {
        let mut scenario = small(2_000_000 + seed);
        scenario.network = BAD_NETWORK;
        scenario.faults =
            Faults { operator_kills: 2, worker_crashes: 2, partitions: 2, errors: 0.02, vanish: 0.0 };
        let first = run(&scenario).unwrap();
        assert_eq!(first, run(&scenario).unwrap());
        scenario.seed += 1;
        assert_ne!(first.trace_hash, run(&scenario).unwrap().trace_hash);
    }
}

/// 1,024 transactions of two calls on 128 + 256 workers, proofs spread by a tenth: makespan and
/// machine time of several seeds together.
fn large(durations: Durations, backup_percent: u32) -> (u64, u64) {
    let outcomes = (0..6).map(|seed| {
        let mut scenario = Scenario::new(seed, vec![2; 1_024], Profile::rfp(), rfp_groups(128, 256, 0));
        scenario.durations = durations;
        scenario.config.backup_percent = backup_percent;
        let outcome = run(&scenario).unwrap();
        assert!(outcome.is_sound(), "{outcome:?}");
        outcome
    });
    outcomes.fold((0, 0), |(time, work), o| (time + o.makespan.unwrap_or(u64::MAX / 8), work + o.work))
}

#[test]
fn slow_proofs_cost_little() {
    let clean = Durations { sigma: 0.1, ..Durations::EXACT };
    let slow = Durations { slow_proofs: 0.01, slow_factor: 8.0, ..clean };
    let (time, _) = large(clean, 150);
    let (with_copies, work) = large(slow, 150);
    let (without, work_without) = large(slow, 0);
    let ratio = with_copies as f64 / time as f64;
    assert!(ratio <= 1.08, "{ratio}");
    assert!(without as f64 / time as f64 >= 1.4, "without copies it has to hurt");
    assert!(work as f64 <= 1.02 * work_without as f64, "copies may not cost more than they save");
}

#[test]
fn what_is_left_of_the_workers_finishes_the_block() {
    let mut scenario = Scenario::new(1, vec![2; 256], Profile::rfp(), rfp_groups(32, 64, 1));
    scenario.faults.vanish = 0.5;
    let outcome = sound(1, &scenario);
    let ratio = outcome.makespan.unwrap() as f64 / outcome.lower_bound as f64;
    assert!((1.05..1.5).contains(&ratio), "{ratio}");
}
