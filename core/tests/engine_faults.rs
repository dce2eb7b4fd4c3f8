//! Random trees, workers and faults, with every invariant checked after every step: whatever
//! happens, in the end every job is proven and every task counts once.

mod engine_storm;
mod engine_world;

use arborist_core::engine::*;
use engine_storm::Storm;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn blocks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(0u8..=3, 1..7), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: engine_world::runs(48), ..ProptestConfig::default() })]

    #[test]
    fn every_block_is_proven_whatever_happens(seed: u64, blocks in blocks(), workers in 1u64..7) {
        let mut storm = Storm::new(seed, &blocks, workers);
        storm.run();
        for job in &storm.jobs {
            let counts = storm.world.engine.job(JobId(*job)).unwrap().counts;
            prop_assert!(counts.iter().all(|c| c.done == c.total && c.failed == 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: engine_world::runs(48), ..ProptestConfig::default() })]

    #[test]
    fn every_block_is_proven_by_workers_that_take_different_kinds(
        seed: u64, blocks in blocks(), workers in 1u64..7,
    ) {
        let mut storm = Storm::new(seed, &blocks, workers);
        storm.kinds = true;
        storm.run();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: engine_world::runs(48), ..ProptestConfig::default() })]

    #[test]
    fn every_block_of_every_namespace_is_proven_whatever_clocks_show(
        seed: u64, blocks in blocks(), workers in 1u64..7, kinds: bool,
    ) {
        let mut storm = Storm::of_namespaces(seed, &blocks, workers, &["a", "b", ""]);
        (storm.kinds, storm.clocks) = (kinds, true);
        storm.run();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: engine_world::runs(48), ..ProptestConfig::default() })]

    #[test]
    fn every_block_is_proven_though_trees_of_stopped_jobs_are_dropped(
        seed: u64, blocks in blocks(), workers in 1u64..7, kept in 0u32..30,
    ) {
        let mut storm = Storm::keeping(kept, seed, &blocks, workers);
        storm.run();
        for job in &storm.jobs {
            let counts = storm.world.engine.job(JobId(*job)).unwrap().counts;
            prop_assert!(counts.iter().all(|c| c.done == c.total && c.failed == 0));
        }
    }
}

/// Storms that once broke something.
#[test]
fn storms_of_the_past_are_weathered() {
    let past: [(u64, &[&[u8]], u64); 3] = [
        (18_125_440_650_086_741_041, &[&[2, 2, 3, 0], &[1, 2, 0, 1, 3], &[1, 3, 1, 1, 0, 2]], 3),
        (4_582_274_211_960_418_478, &[&[1, 0], &[0, 0, 2, 3]], 2),
        (7_132_496_033_950_492_034, &[&[1, 3, 3, 0], &[3, 0, 2, 3, 0], &[3, 2, 1, 2]], 5),
    ];
    for (seed, blocks, workers) in past {
        let blocks: Vec<_> = blocks.iter().map(|calls| calls.to_vec()).collect();
        let mut storm = Storm::new(seed, &blocks, workers);
        // They were found before there was a cluster, and only so are they the same.
        storm.cluster = false;
        storm.run();
    }
}

#[test]
fn the_same_seed_gives_the_same_commands() {
    let blocks = [vec![2, 0, 1, 3], vec![2, 0, 1, 1]];
    for seed in 0..4 {
        let traces: Vec<_> = (0..2).map(|_| Storm::new(seed, &blocks, 5).run()).collect();
        assert_eq!(traces[0], traces[1]);
    }
    assert_ne!(Storm::new(1, &blocks, 5).run(), Storm::new(2, &blocks, 5).run());
}

/// The storm is worth something only if it rains: all that can happen has happened in some run.
#[test]
fn everything_that_can_happen_happens() {
    let blocks = [vec![2, 0, 1, 3, 1], vec![2, 0, 1, 1], vec![1, 1]];
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..40 {
        let mut storm = Storm::new(seed, &blocks, 4 + seed % 4);
        storm.run();
        storm.seen.into_iter().for_each(|(what, times)| *seen.entry(what).or_default() += times);
    }
    let wanted = [
        "restart",
        "OutOfMemory",
        "Revoke Session",
        "Quarantine TaskId",
        "Persist Charged",
        "Persist Reopened",
        "Notice LeaseLost",
        "Notice LateResult",
        "Notice Suspected",
        "Notice Backup",
        "Notice NoFittingWorker",
        "JobEnded JobId",
        "CheckRoot JobId",
    ];
    let missing: Vec<_> = wanted.iter().filter(|what| !seen.keys().any(|k| k.starts_with(**what))).collect();
    assert!(missing.is_empty(), "{missing:?} of {seen:#?}");
}
