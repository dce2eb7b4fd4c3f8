//! What is simulated when an order is chosen is what the engine does with workers that take some kinds only.

use arborist_core::circuit::KindSet;
use arborist_core::order::choose;
use arborist_core::profile::Profile;
use arborist_core::sim::{Group, Network, Pool, Scenario, run};
use arborist_core::tree::Shape;

/// What is not proving: logins, messages, the check of the root.
const ASIDE_MILLIS: u64 = 100;

/// Calls, workers by number, size and kinds, and whether it would be faster if all took all.
type Case<'a> = (&'a [u8], &'a [(u32, usize, &'a str)], bool);

fn scenario(calls: &[u8], workers: &[(u32, usize, &str)]) -> Scenario {
    let profile = Profile::rfp();
    let group = |(count, size, kinds): &(u32, usize, &str)| Group {
        count: *count,
        capacity: profile.needs[*size],
        kinds: kinds.parse().unwrap(),
        prefetch: 0,
    };
    let groups = workers.iter().map(group).collect();
    let mut scenario = Scenario::new(1, calls.to_vec(), profile.clone(), groups);
    scenario.network = Network { delay: (0, 0), ..Network::GOOD };
    scenario.config.backup_percent = 0;
    scenario
}

#[test]
fn the_engine_takes_as_long_as_was_simulated() {
    let (all, rollup) = ("vm,kernel,base,merge,root", "kernel,base,merge,root");
    let cases: [Case; 6] = [
        (&[2; 40], &[(6, 0, "vm"), (9, 1, rollup)], true),
        (&[1; 64], &[(16, 0, "vm"), (5, 1, rollup)], true),
        (&[0; 50], &[(30, 0, "vm"), (3, 1, rollup)], true),
        (&[3, 0, 1, 2, 2, 5, 0, 1], &[(2, 0, "vm"), (1, 1, "kernel"), (1, 1, "base,merge,root")], true),
        (&[2; 30], &[(4, 0, "vm"), (4, 1, "kernel"), (2, 1, "base"), (1, 1, "merge,root")], true),
        (&[2; 40], &[(6, 0, all), (9, 1, rollup)], false),
    ];
    for (calls, workers, faster) in cases {
        let scenario = scenario(calls, workers);
        let shape = Shape::new(calls, 7).unwrap();
        let (pools, costs) = (scenario.pools(), scenario.costs());
        let choice = choose(&shape, &pools, &costs).unwrap();
        let outcome = run(&scenario).unwrap();
        assert!(outcome.is_sound(), "{outcome:?}");
        let took = outcome.makespan.unwrap();
        assert!(
            (choice.makespan..=choice.makespan + ASIDE_MILLIS).contains(&took),
            "took {took} ms, simulated {choice:?}: {calls:?} on {workers:?}"
        );
        let of_all = |pool: &Pool| Pool { kinds: KindSet::ALL, ..*pool };
        let of_all = choose(&shape, &pools.iter().map(of_all).collect::<Vec<_>>(), &costs).unwrap();
        assert_eq!(of_all.makespan < choice.makespan, faster, "{of_all:?} {choice:?}");
    }
}
