use super::*;
use crate::circuit::KindSet;
use crate::order::POLICIES;
use crate::profile::{Needs, Profile};
use proptest::prelude::*;

fn plan<'a>(shape: &'a Shape, vm: u32, small: u32, costs: &Costs) -> Plan<'a> {
    Plan::new(shape, &pools(vm, small, costs), costs)
}

fn pools(vm: u32, small: u32, costs: &Costs) -> [Pool; 2] {
    [(vm, costs.needs[0]), (small, costs.needs[1])]
        .map(|(count, capacity)| Pool::of_all_kinds(count, capacity))
}

/// Small trees done by hand, in proofs.
#[test]
fn makespans_known_by_hand() {
    let costs = Costs::from(&Profile::rfp()).in_proofs();
    for (calls, vm, small, expected) in [
        (&[1u8][..], 1, 0, 4),
        (&[0], 1, 1, 2),
        (&[2], 1, 1, 5),
        (&[2], 2, 0, 5),
        (&[1, 1], 2, 2, 4),
        (&[1, 1], 1, 0, 5),
        (&[0; 8], 0, 1, 15),
        (&[0; 8], 1, 0, 2 + 1 + 1 + 1),
    ] {
        let shape = Shape::new(calls, 7).unwrap();
        let run = plan(&shape, vm, small, &costs).run(&POLICIES[0], u64::MAX).unwrap();
        assert_eq!(run.makespan, expected, "{calls:?} on {vm}+{small}");
        assert_eq!(run.busy.iter().sum::<u64>(), u64::from(shape.total()));
    }
}

/// Calls, machines by size and kinds, proofs one after the other.
type Case<'a> = (&'a [u8], &'a [(u32, Needs, &'a str)], Option<u64>);

#[test]
fn machines_run_only_what_they_take() {
    let costs = Costs::from(&Profile::rfp()).in_proofs();
    let [large, small, ..] = costs.needs;
    let rollup = "kernel,base,merge,root";
    let cases: [Case; 10] = [
        // idle, the large one would run four of the small ones at once
        (&[0; 8], &[(1, large, "vm"), (1, small, rollup)], Some(15)),
        (&[0; 8], &[(1, large, "vm,base"), (1, small, rollup)], Some(9)),
        (&[2], &[(1, large, "vm"), (1, small, rollup)], Some(5)),
        (&[1; 4], &[(1, large, "vm"), (2, small, rollup)], Some(1 + 3 + 1 + 1 + 1 + 1)),
        (&[1; 4], &[(4, large, "vm"), (1, small, rollup)], Some(1 + 4 + 4 + 3)),
        (&[1; 4], &[(4, large, "vm"), (1, small, "kernel"), (1, small, "base,merge,root")], Some(2 + 7)),
        (&[1; 4], &[(4, large, "vm"), (4, small, "kernel"), (1, small, "base,merge,root")], Some(2 + 7)),
        // nobody takes what is left
        (&[1], &[(1, large, "vm"), (9, small, "kernel,base,merge")], None),
        (&[1], &[(9, large, "kernel,base,merge,root"), (9, small, "vm")], None),
        (&[0], &[(1, large, "vm"), (1, small, "base,root")], Some(2)),
    ];
    for (calls, machines, expected) in cases {
        let shape = Shape::new(calls, 7).unwrap();
        let pool = |(count, capacity, kinds): &(u32, Needs, &str)| Pool {
            count: *count,
            capacity: *capacity,
            kinds: kinds.parse().unwrap(),
        };
        let pools: Vec<Pool> = machines.iter().map(pool).collect();
        let run = Plan::new(&shape, &pools, &costs).run(&POLICIES[1], u64::MAX);
        assert_eq!(run.map(|run| run.makespan), expected, "{calls:?} on {machines:?}");
    }
}

#[test]
fn a_limit_and_missing_machines_end_a_run() {
    let costs = Costs::from(&Profile::rfp());
    let shape = Shape::new(&[1, 2, 0], 7).unwrap();
    let all = plan(&shape, 1, 1, &costs).run(&POLICIES[0], u64::MAX).unwrap();
    assert_eq!(plan(&shape, 1, 1, &costs).run(&POLICIES[0], all.makespan), Some(all));
    assert_eq!(plan(&shape, 1, 1, &costs).run(&POLICIES[0], all.makespan - 1), None);
    assert_eq!(plan(&shape, 0, 9, &costs).run(&POLICIES[0], u64::MAX), None);
}

#[test]
fn slow_proofs_count_with_their_own_duration() {
    let costs = Costs::from(&Profile::rfp());
    let shape = Shape::new(&[1, 1], 7).unwrap();
    let slow = |node: NodeId, kind: Kind| costs.millis[kind.index()] * if node.0 == 1 { 8 } else { 1 };
    let run = plan(&shape, 2, 2, &costs).run_with(&POLICIES[0], u64::MAX, slow).unwrap();
    assert_eq!((run.makespan, run.busy[0]), (330_000, 270_000));
}

proptest! {
    /// Against a plain simulation that looks at every node in every step.
    #[test]
    fn agrees_with_a_plain_simulation(
        calls in prop::collection::vec(0u8..=4, 1..30),
        millis in prop::array::uniform5(1u32..9),
        small in 0u32..5,
        policy in 0..POLICIES.len(),
        salt in any::<u32>(),
    ) {
        let shape = Shape::new(&calls, 7).unwrap();
        let costs = Costs { millis, ..Costs::from(&Profile::rfp()) };
        let odd = |n: NodeId, k: Kind| millis[k.index()] + u32::from((n.0 ^ salt).is_multiple_of(5)) * 7;
        // One large machine: which of several equal ones is taken would matter later.
        let pools = pools(1, small, &costs);
        let fast = Plan::new(&shape, &pools, &costs).run_with(&POLICIES[policy], u64::MAX, odd);
        prop_assert_eq!(fast.map(|run| run.makespan), plain(&shape, &pools, &costs, policy, odd));
    }

    /// As before, on machines that take some kinds only: also when nobody takes some.
    #[test]
    fn agrees_with_a_plain_simulation_of_kinds(
        calls in prop::collection::vec(0u8..=4, 1..30),
        millis in prop::array::uniform5(1u32..9),
        large in 1u32..32,
        small in prop::collection::vec((1u32..4, 1u32..32), 0..4),
        policy in 0..POLICIES.len(),
        salt in any::<u32>(),
    ) {
        let shape = Shape::new(&calls, 7).unwrap();
        let costs = Costs { millis, ..Costs::from(&Profile::rfp()) };
        let odd = |n: NodeId, k: Kind| millis[k.index()] + u32::from((n.0 ^ salt).is_multiple_of(5)) * 7;
        let pool = |count, capacity, kinds| Pool { count, capacity, kinds: KindSet::from_bits(kinds).unwrap() };
        let small = small.iter().map(|(count, kinds)| pool(*count, costs.needs[1], *kinds));
        let pools: Vec<Pool> = small.chain([pool(1, costs.needs[0], large)]).collect();
        let fast = Plan::new(&shape, &pools, &costs).run_with(&POLICIES[policy], u64::MAX, odd);
        prop_assert_eq!(fast.map(|run| run.makespan), plain(&shape, &pools, &costs, policy, odd));
    }

    #[test]
    fn what_is_done_takes_no_time(
        calls in prop::collection::vec(0u8..=4, 1..30),
        picks in prop::collection::vec(any::<bool>(), 300),
    ) {
        let shape = Shape::new(&calls, 7).unwrap();
        let mut done = vec![false; shape.total() as usize];
        for id in shape.nodes() {
            let below = shape.children(id);
            done[id.index()] = below.as_slice().iter().all(|c| done[c.index()]) && picks[id.index() % 300];
        }
        let costs = Costs::from(&Profile::rfp());
        let rest = plan(&shape, 1, 0, &costs).without(|id| done[id.index()]);
        let run = rest.run(&POLICIES[0], u64::MAX).unwrap();
        let left = shape.nodes().filter(|id| !done[id.index()]).count() as u64;
        prop_assert_eq!(run.busy.iter().sum::<u64>(), left * 30_000);
    }
}

/// `None` when some task is taken by nobody.
fn plain(
    shape: &Shape,
    pools: &[Pool],
    costs: &Costs,
    policy: usize,
    duration: impl Fn(NodeId, Kind) -> u32,
) -> Option<u64> {
    let mut order: Vec<NodeId> = shape.nodes().collect();
    let large_first = POLICIES[policy].between == Between::LargeFirst;
    let later = |id: &NodeId| large_first && shape.kind(*id) != Kind::Vm;
    order.sort_by_key(|id| (later(id), (POLICIES[policy].key)(shape, *id), id.0));
    let mut ends: Vec<Option<u64>> = vec![None; order.len()];
    // (free cores, size of the machine, what it takes), and who runs where.
    let of_pool =
        |p: &Pool| (0..p.count).map(move |_| (p.capacity.cores, p.capacity.cores, p.kinds)).collect();
    let mut free: Vec<(u16, u16, KindSet)> = pools.iter().flat_map(|p| -> Vec<_> { of_pool(p) }).collect();
    let mut running: Vec<(u64, NodeId, usize)> = vec![];
    let mut now = 0;
    loop {
        for id in &order {
            let children = shape.children(*id);
            let done = |c: &NodeId| ends[c.index()].is_some_and(|end| end <= now);
            if ends[id.index()].is_some() || !children.as_slice().iter().all(done) {
                continue;
            }
            let Needs { cores, .. } = costs.needs[shape.kind(*id).index()];
            let takes = |m: &usize| free[*m].0 >= cores && free[*m].2.contains(shape.kind(*id));
            let fits = (0..free.len()).filter(takes);
            if let Some(machine) = fits.min_by_key(|m| (free[*m].1, free[*m].2, free[*m].0)) {
                free[machine].0 -= cores;
                let end = now + u64::from(duration(*id, shape.kind(*id)));
                ends[id.index()] = Some(end);
                running.push((end, *id, machine));
            }
        }
        now = running.iter().map(|r| r.0).min()?;
        for (_, id, machine) in running.extract_if(.., |r| r.0 <= now) {
            free[machine].0 += costs.needs[shape.kind(id).index()].cores;
        }
        if let Some(end) = ends[shape.root().index()] {
            return Some(end);
        }
    }
}
