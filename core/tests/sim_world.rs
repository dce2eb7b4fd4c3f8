//! The engine in its simulated world: operators killed, workers crashing, networks failing.

use arborist_core::profile::Profile;
use arborist_core::sim::{Durations, Faults, Group, Network, Outcome, Rng, Scenario, run};

fn rfp_groups(vm: u32, small: u32, prefetch: u16) -> Vec<Group> {
    let profile = Profile::rfp();
    vec![
        Group { count: vm, capacity: profile.needs[0], prefetch },
        Group { count: small, capacity: profile.needs[1], prefetch },
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
    for seed in 0..150 {
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
