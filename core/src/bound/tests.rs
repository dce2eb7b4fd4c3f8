use super::*;
use crate::circuit::KindSet;
use crate::order::Between;
use crate::profile::{Needs, Profile};
use crate::sim::Plan;
use proptest::prelude::*;
use std::collections::HashMap;

fn rfp() -> Costs {
    Costs::from(&Profile::rfp()).in_proofs()
}

/// `vm` and small proofs that can't run on each other's machines.
fn apart() -> Costs {
    let small = rfp().needs[1];
    Costs { needs: [Needs { cores: 4, memory_mib: 64 << 10 }, small, small, small, small], ..rfp() }
}

fn pools(costs: &Costs, vm: u32, small: u32) -> [Pool; 2] {
    [Pool::of_all_kinds(vm, costs.needs[0]), Pool::of_all_kinds(small, costs.needs[1])]
}

/// The shortest schedule of unit tasks, by trying every set of ready tasks in every round.
fn optimum(shape: &Shape, costs: &Costs, vm: u32, small: u32) -> u64 {
    let fits = |large: u32, others: u32| {
        let shared = if costs.needs[1].fit_into(&costs.needs[0]) > 0 { 4 } else { 0 };
        large <= vm && others <= small + shared * (vm - large)
    };
    let all = (1u32 << shape.total()) - 1;
    let vm_tasks = (1u32 << shape.total_calls()) - 1;
    let below = |id: NodeId| shape.children(id).as_slice().iter().fold(0, |set, c| set | 1u32 << c.0);
    let below: Vec<u32> = shape.nodes().map(below).collect();
    let (mut states, mut rounds) = (HashMap::from([(0u32, ())]), 0);
    while !states.contains_key(&all) {
        rounds += 1;
        let mut next = HashMap::new();
        for done in states.into_keys() {
            let open = (0..shape.total()).filter(|n| done >> n & 1 == 0 && below[*n as usize] & !done == 0);
            let ready = open.fold(0u32, |set, n| set | 1 << n);
            let mut chosen = ready;
            while chosen != 0 {
                if fits((chosen & vm_tasks).count_ones(), (chosen & !vm_tasks).count_ones()) {
                    next.insert(done | chosen, ());
                }
                chosen = (chosen - 1) & ready;
            }
        }
        states = next;
    }
    rounds
}

#[test]
fn bounds_known_by_hand() {
    let ten = Costs { millis: [40, 10, 20, 5, 5], ..rfp() };
    for (calls, costs, vm, small, expected) in [
        (vec![1u8], rfp(), 1, 1, 4),
        (vec![2; 1_024], rfp(), 2_000, 5_000, 14),
        (vec![0; 8], rfp(), 0, 1, 15),
        // 3 machines' room for 8 bases, and 3 joins after any of them.
        (vec![0; 8], rfp(), 0, 3, 3 + 3),
        (vec![2; 61_440], apart(), 1_024, 2_048, 120 + 17),
        (vec![2; 65_536], apart(), 1_024, 2_048, 128 + 18),
        // One after the other: four calls on one machine, then kernel, base, two joins.
        (vec![1; 4], ten, 1, 0, 4 * 40 + 10 + 20 + 2 * 5),
    ] {
        let shape = Shape::new(&calls, 7).unwrap();
        let bound = lower_bound(&shape, &pools(&costs, vm, small), &costs);
        assert_eq!(bound, Some(expected), "{} transactions on {vm}+{small}", calls.len());
    }
}

#[test]
fn what_fits_nowhere_has_no_bound() {
    let shape = Shape::new(&[1, 0], 7).unwrap();
    assert_eq!(lower_bound(&shape, &pools(&rfp(), 0, 9), &rfp()), None);
    assert_eq!(lower_bound(&shape, &[], &rfp()), None);
    let no_calls = Shape::new(&[0, 0], 7).unwrap();
    assert_eq!(lower_bound(&no_calls, &pools(&rfp(), 0, 9), &rfp()), Some(2), "nobody needs a large machine");
}

#[test]
fn shared_machines_are_not_counted_twice() {
    // 64 vm proofs take 16 rounds of all four machines; 64 + 64 + 63 small ones 12 more.
    let shape = Shape::new(&[1; 64], 7).unwrap();
    let bound = lower_bound(&shape, &pools(&rfp(), 4, 0), &rfp()).unwrap();
    assert!(bound >= 16 + 12, "{bound}");
}

/// On every tree of up to 10 tasks and a few machines: never above the optimum, and equal to it
/// in nearly all cases.
#[test]
fn equals_the_optimum_of_nearly_all_small_trees() {
    let blocks: &[&[u8]] = &[
        &[0],
        &[1],
        &[2],
        &[3],
        &[4],
        &[0, 0],
        &[0, 1],
        &[1, 1],
        &[1, 2],
        &[2, 0],
        &[3, 0],
        &[0, 0, 0],
        &[1, 0, 1],
        &[1, 1, 0],
        &[2, 0, 0],
        &[0, 0, 0, 0],
        &[1, 0, 0, 0],
        &[0, 0, 1, 0],
        &[0, 0, 0, 0, 0],
    ];
    let (mut cases, mut equal) = (0, 0);
    for (calls, costs) in blocks.iter().flat_map(|b| [(b, rfp()), (b, apart())]) {
        let shape = Shape::new(calls, 7).unwrap();
        for (vm, small) in [(1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (3, 1)] {
            let bound = lower_bound(&shape, &pools(&costs, vm, small), &costs).unwrap();
            let optimum = optimum(&shape, &costs, vm, small);
            assert!(bound <= optimum, "{calls:?} on {vm}+{small}: bound {bound}, optimum {optimum}");
            cases += 1;
            equal += u32::from(bound == optimum);
        }
    }
    assert!(equal * 100 >= cases * 97, "equal in {equal} of {cases}");
}

fn needs() -> impl Strategy<Value = Needs> {
    (1u16..=6, 1u32..=6).prop_map(|(cores, memory_mib)| Needs { cores, memory_mib })
}

/// Half of the machines take all kinds.
fn kinds() -> impl Strategy<Value = KindSet> {
    prop_oneof![Just(KindSet::ALL), (1u32..32).prop_map(|bits| KindSet::from_bits(bits).unwrap())]
}

proptest! {
    /// Whatever the needs, durations, machines and order: no schedule is shorter.
    #[test]
    fn no_order_beats_the_bound(
        calls in prop::collection::vec(0u8..=5, 1..60),
        needs in prop::array::uniform5(needs()),
        millis in prop::array::uniform5(1u32..40),
        machines in prop::collection::vec((1u32..6, needs(), kinds()), 1..4),
        salt in any::<u32>(),
    ) {
        let shape = Shape::new(&calls, 7).unwrap();
        let pool = |(count, n, kinds): (u32, Needs, KindSet)| {
            Pool { count, capacity: Needs { cores: n.cores * 2, memory_mib: n.memory_mib * 2 }, kinds }
        };
        let pools: Vec<Pool> = machines.into_iter().map(pool).collect();
        let costs = Costs { needs, millis };
        let plan = Plan::new(&shape, &pools, &costs);
        let bound = lower_bound(&shape, &pools, &costs);
        for salt in [salt, salt ^ 0x55aa, salt ^ 0x1234_5678] {
            let random = |_: &Shape, id: NodeId| (id.0 ^ salt).wrapping_mul(0x9e37_79b9).rotate_left(11);
            let between = if salt & 1 == 0 { Between::LargeFirst } else { Between::ByKey };
            let millis_of = |_, kind: Kind| millis[kind.index()];
            let run = plan.run_in_order(random, between, u64::MAX, millis_of);
            prop_assert_eq!(run.is_some(), bound.is_some());
            if let (Some(run), Some(bound)) = (run, bound) {
                prop_assert!(bound <= run.makespan, "bound {}, makespan {}", bound, run.makespan);
            }
        }
    }

    #[test]
    fn groups_hold_every_task_with_its_head_and_tail(calls in prop::collection::vec(0u8..=7, 1..200)) {
        let shape = Shape::new(&calls, 7).unwrap();
        let groups = Groups::new(&shape, &rfp(), &Classes::new(&rfp().needs, &[])).0;
        let mut expected: HashMap<(usize, u64, u64), u64> = HashMap::new();
        for id in shape.nodes() {
            let class = usize::from(shape.kind(id) == Kind::Vm);
            let place = (class, u64::from(shape.head(id)), u64::from(shape.remaining(id)) - 1);
            *expected.entry(place).or_default() += 1;
        }
        let found = groups.iter().map(|g| ((g.class, g.head, g.tail), g.count)).collect();
        prop_assert_eq!(expected, found);
    }
}
