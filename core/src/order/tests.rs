use super::*;
use crate::bound::lower_bound;
use crate::profile::Profile;
use crate::sim::{Costs, Plan, Pool};
use proptest::prelude::*;
use std::collections::HashSet;

fn rfp() -> Costs {
    Costs::from(&Profile::rfp())
}

fn pools(vm: u32, small: u32) -> [Pool; 2] {
    let needs = rfp().needs;
    [Pool::of_all_kinds(vm, needs[0]), Pool::of_all_kinds(small, needs[1])]
}

#[test]
fn names_are_distinct_and_keys_fit() {
    let names: HashSet<_> = POLICIES.iter().map(|p| p.name).collect();
    assert_eq!(names.len(), POLICIES.len());
    let largest = Shape::new(&vec![7; 65_536], 7).unwrap();
    let long = Shape::new(&[255, 0, 255], 255).unwrap();
    for policy in POLICIES {
        // A sum that overflows panics here.
        for id in largest.nodes().step_by(97) {
            (policy.key)(&largest, id);
        }
        assert!(long.nodes().all(|id| long.remaining(id) < LONGEST && (policy.key)(&long, id) < u32::MAX));
    }
}

/// (transactions, calls, vm machines, small machines): where the first policy alone is far off.
#[test]
fn the_choice_reaches_the_bound_where_single_orders_do_not() {
    for (transactions, calls, vm, small) in
        [(3_840, 2, 64, 128), (4_096, 2, 256, 512), (1_000, 3, 30, 60), (73, 2, 122, 67), (2_000, 1, 50, 75)]
    {
        let shape = Shape::new(&vec![calls; transactions], 7).unwrap();
        let choice = choose(&shape, &pools(vm, small), &rfp()).unwrap();
        let ratio = choice.makespan as f64 / choice.bound as f64;
        assert!(ratio <= 1.01, "{transactions} x {calls} on {vm}+{small}: {ratio} {choice:?}");
        let run = Plan::new(&shape, &pools(vm, small), &rfp()).run(&POLICIES[choice.policy], u64::MAX);
        assert_eq!(run.unwrap().makespan, choice.makespan);
    }
}

#[test]
fn a_balanced_pool_is_slow_by_longest_path_and_fast_as_chosen() {
    let shape = Shape::new(&[2; 3_840], 7).unwrap();
    let costs = rfp();
    // Machines that can't stand in for each other: few cores and much memory, and the reverse.
    let vm = crate::profile::Needs { cores: 4, memory_mib: 64 << 10 };
    let costs =
        Costs { needs: [vm, costs.needs[1], costs.needs[1], costs.needs[1], costs.needs[1]], ..costs };
    let pools = [Pool::of_all_kinds(64, vm), Pool::of_all_kinds(128, costs.needs[1])];
    let bound = lower_bound(&shape, &pools, &costs).unwrap();
    let ratio = |policy: usize| {
        let run = Plan::new(&shape, &pools, &costs).run(&POLICIES[policy], u64::MAX).unwrap();
        run.makespan as f64 / bound as f64
    };
    assert!(ratio(0) > 1.1, "{}", ratio(0));
    let choice = choose(&shape, &pools, &costs).unwrap();
    assert!(choice.makespan as f64 / bound as f64 <= 1.01, "{choice:?}");
}

#[test]
fn without_machines_for_a_kind_there_is_no_choice() {
    let shape = Shape::new(&[1, 2], 7).unwrap();
    assert_eq!(choose(&shape, &pools(0, 5), &rfp()), None);
    assert_eq!(choose(&shape, &[], &rfp()), None);
    assert!(choose(&shape, &pools(1, 0), &rfp()).is_some(), "large machines run small proofs");
}

proptest! {
    #[test]
    fn the_choice_is_the_best_of_all(
        calls in prop::collection::vec(0u8..=5, 1..80),
        vm in 1u32..20,
        small in 0u32..20,
        millis in prop::array::uniform5(1u32..50),
    ) {
        let shape = Shape::new(&calls, 7).unwrap();
        let (pools, costs) = (pools(vm, small), Costs { millis, ..rfp() });
        let choice = choose(&shape, &pools, &costs).unwrap();
        prop_assert!(choice.bound <= choice.makespan);
        let plan = Plan::new(&shape, &pools, &costs);
        for policy in POLICIES {
            let run = plan.run(policy, u64::MAX).unwrap();
            prop_assert!(run.makespan >= choice.makespan, "{} is better", policy.name);
        }
    }
}
