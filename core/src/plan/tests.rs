use super::*;
use crate::circuit::Kind;
use proptest::prelude::*;

const VM: Needs = Needs { cores: 32, memory_mib: 64 << 10 };
const SMALL: Needs = Needs { cores: 8, memory_mib: 16 << 10 };

fn demand(kind: Kind, needs: Needs, running: u32, ready: u32, soon: u32) -> Demand {
    Demand { namespace: "p".into(), kind, needs, running, ready, soon }
}

fn pool(name: &str, capacity: Needs) -> PoolView {
    PoolView {
        name: name.into(),
        kinds: KindSet::ALL,
        serves: Serves::only(["p"]),
        capacity,
        price_micros: 0,
        priority: 0,
        scaling: Scaling::Deadline { min: 0, max: 100, budget: None },
        quota: None,
        pods: Pods::default(),
    }
}

fn between(min: u32, max: u32) -> Scaling {
    Scaling::Deadline { min, max, budget: None }
}

fn vm() -> PoolView {
    PoolView { kinds: KindSet::of(Kind::Vm), ..pool("p/vm", VM) }
}

fn rollup() -> PoolView {
    PoolView { kinds: KindSet::ALL.without(KindSet::of(Kind::Vm)), ..pool("p/rollup", SMALL) }
}

fn pods(demand: &[Demand], pools: &[PoolView]) -> Vec<u32> {
    wanted(demand, pools).iter().map(|wanted| wanted.pods).collect()
}

fn because(demand: &[Demand], pools: &[PoolView]) -> String {
    wanted(demand, pools)[0].because.to_string()
}

#[test]
fn each_class_gets_its_pods() {
    let block = [
        demand(Kind::Vm, VM, 10, 30, 6),
        demand(Kind::Kernel, SMALL, 0, 8, 4),
        demand(Kind::Base, SMALL, 1, 0, 0),
    ];
    assert_eq!(pods(&block, &[vm(), rollup()]), [46, 13]);
    assert_eq!(pods(&[], &[vm(), rollup()]), [0, 0]);
}

/// The autoscaler that looked at the pending queue only and scaled to zero in a tree's last levels.
#[test]
fn what_runs_keeps_its_pods_when_nothing_is_pending() {
    let last_levels = [demand(Kind::Merge, SMALL, 4, 0, 0)];
    assert_eq!(pods(&last_levels, &[vm(), rollup()]), [0, 4]);
    let root = [demand(Kind::Root, SMALL, 1, 0, 0)];
    assert_eq!(pods(&root, &[vm(), rollup()]), [0, 1]);
}

#[test]
fn what_is_ready_soon_gets_its_pods_before_it_is_ready() {
    assert_eq!(pods(&[demand(Kind::Base, SMALL, 0, 0, 7)], &[vm(), rollup()]), [0, 7]);
}

#[test]
fn several_small_tasks_share_a_large_machine() {
    let kernels = [demand(Kind::Kernel, SMALL, 0, 9, 0)];
    assert_eq!(pods(&kernels, &[pool("p/large", VM)]), [3]);
    let both = [demand(Kind::Kernel, SMALL, 0, 9, 0), demand(Kind::Vm, VM, 0, 2, 0)];
    assert_eq!(pods(&both, &[pool("p/large", VM)]), [5]);
    // memory decides where cores do not
    let fat = Needs { cores: 1, memory_mib: 30 << 10 };
    assert_eq!(pods(&[demand(Kind::Base, fat, 0, 4, 0)], &[pool("p/large", VM)]), [2]);
}

#[test]
fn room_left_by_large_tasks_is_used_before_pods_are_made() {
    let double = Needs { cores: 64, memory_mib: 128 << 10 };
    let block = [demand(Kind::Vm, VM, 0, 3, 0), demand(Kind::Kernel, SMALL, 0, 5, 0)];
    // two double machines hold the three vm proofs and four kernels
    assert_eq!(pods(&block, &[pool("p/double", double), rollup()]), [2, 1]);
}

#[test]
fn machines_that_stay_anyway_take_small_tasks() {
    let working =
        PoolView { pods: Pods { staying: 2, present: 2, ..Default::default() }, ..pool("p/vm", VM) };
    let kernels = [demand(Kind::Kernel, SMALL, 2, 7, 0)];
    assert_eq!(pods(&kernels, &[working.clone(), rollup()]), [2, 1]);
    // once they have nothing left to do they no longer count
    assert_eq!(pods(&kernels, &[pool("p/vm", VM), PoolView { price_micros: 0, ..rollup() }]), [0, 9]);
    let minimum = PoolView { scaling: between(2, 9), ..pool("p/vm", VM) };
    assert_eq!(pods(&kernels, &[minimum, rollup()]), [2, 1]);
    let fixed = PoolView { scaling: Scaling::Fixed(2), ..working };
    assert_eq!(pods(&kernels, &[fixed, rollup()]), [2, 1]);
}

#[test]
fn pools_are_filled_by_price_for_a_task_then_priority_size_and_name() {
    let kernels = [demand(Kind::Kernel, SMALL, 0, 4, 0)];
    let priced = |name, capacity, price_micros| PoolView { price_micros, ..pool(name, capacity) };
    for (large, small, filled) in [
        // four tasks go on a large pod: 1.53 for four is less than 0.40 for one
        (1_530_000, 400_000, [1, 0]),
        (1_530_000, 380_000, [0, 4]),
        (1_600_000, 400_000, [0, 4]), // equal: the smaller machine
    ] {
        let pools = [priced("a", VM, large), priced("b", SMALL, small)];
        assert_eq!(pods(&kernels, &pools), filled, "{large} {small}");
    }
    let preferred = PoolView { priority: 1, ..priced("a", VM, 1_600_000) };
    assert_eq!(pods(&kernels, &[preferred, priced("b", SMALL, 400_000)]), [1, 0]);
    assert_eq!(pods(&kernels, &[priced("b", SMALL, 0), priced("a", SMALL, 0)]), [0, 4]);
}

#[test]
fn bounds_hold_and_what_does_not_fit_goes_on() {
    let block = [demand(Kind::Vm, VM, 0, 10, 0)];
    let spot = PoolView { scaling: between(0, 4), ..pool("a/spot", VM) };
    let other = PoolView { price_micros: 1, ..pool("a/vm", VM) };
    let found = wanted(&block, &[spot, other]);
    assert_eq!((found[0].pods, found[0].denied, found[1].pods), (4, 6, 6));
    assert_eq!(found[0].because.bound, Bound::Maximum { pods: 4, denied: 6 });
    assert!(found.iter().all(|wanted| wanted.starved.is_none()));
    let poor =
        PoolView { scaling: Scaling::Deadline { min: 5, max: 9, budget: Some(3) }, ..pool("a/vm", VM) };
    assert_eq!(pods(&block, std::slice::from_ref(&poor)), [3]);
    assert_eq!(pods(&[], &[poor]), [3], "the budget bounds the minimum too");
}

#[test]
fn a_fixed_pool_has_what_its_user_says() {
    for replicas in [0, 3, 50] {
        let fixed = PoolView { scaling: Scaling::Fixed(replicas), ..pool("p/vm", VM) };
        for ready in [0, 10] {
            assert_eq!(pods(&[demand(Kind::Vm, VM, 0, ready, 0)], std::slice::from_ref(&fixed)), [replicas]);
        }
    }
}

#[test]
fn what_a_limited_pool_can_not_have_goes_to_the_next_and_a_few_pods_go_on_trying() {
    let block = [demand(Kind::Vm, VM, 4, 36, 0)];
    let limited = Pods { staying: 4, present: 4, arriving: 2, waiting: 0, limited: true };
    let spot = PoolView { pods: limited, ..pool("a/spot", VM) };
    let other = PoolView { price_micros: 1, ..pool("a/vm", VM) };
    let found = wanted(&block, &[spot.clone(), other]);
    assert_eq!((found[0].pods, found[1].pods), (6 + 4, 34));
    assert_eq!(found[0].because.bound, Bound::Probing { probes: 4, denied: 34 });
    // the trying ends with the demand, and at the maximum
    assert_eq!(pods(&[demand(Kind::Vm, VM, 4, 0, 0)], std::slice::from_ref(&spot)), [4]);
    assert_eq!(pods(&block, &[PoolView { scaling: between(0, 7), ..spot }]), [7]);
}

/// Their nodes may be on the way: an autoscaler needs minutes for a large machine.
#[test]
fn pods_that_wait_for_a_node_go_on_waiting_as_long_as_they_could_be_used() {
    let view = |waiting, limited| {
        let pods = Pods { staying: 4, present: 4, arriving: 2, waiting, limited };
        [PoolView { pods, ..pool("a/spot", VM) }, PoolView { price_micros: 1, ..pool("a/vm", VM) }]
    };
    // vm proofs, pods that wait, pods wanted of either pool
    for (ready, waiting, expected) in [
        (40, 34, [40, 34]),
        (40, 20, [26, 34]),
        (40, 3, [10, 34]),
        (10, 34, [10, 4]),
        (6, 34, [6, 0]),
        (200, 150, [100, 100]),
    ] {
        let block = [demand(Kind::Vm, VM, 0, ready, 0)];
        assert_eq!(pods(&block, &view(waiting, true)), expected, "{ready} {waiting}");
        assert_eq!(pods(&block, &view(waiting, false))[0], ready.min(100), "a pool that is not limited");
    }
    let found = wanted(&[demand(Kind::Vm, VM, 0, 40, 0)], &view(20, true));
    assert_eq!(found[0].because.bound, Bound::Probing { probes: 20, denied: 34 });
}

#[test]
fn probes_are_few() {
    for (denied, tried) in [(0, 0), (1, 1), (2, 2), (10, 2), (40, 5), (128, 16), (10_000, 16)] {
        assert_eq!(probes(denied), tried, "{denied}");
    }
}

#[test]
fn who_can_not_be_served_is_told_why() {
    let block = [demand(Kind::Vm, VM, 0, 46, 0)];
    let stuck = Pods { limited: true, ..Default::default() };
    let none = PoolView { scaling: between(0, 0), ..vm() };
    let cases: [(&[PoolView], &str); 6] = [
        (
            &[pool("p/rollup", SMALL)],
            "46 vm proofs wait: each needs 32 cores and 64Gi, and the largest machine of a pool that takes them has \
             8 cores and 16Gi",
        ),
        (&[rollup()], "46 vm proofs wait: no pool's spec.circuits has vm"),
        (
            &[PoolView { pods: stuck, ..vm() }],
            "46 vm proofs wait: no pod of a pool that fits (32 cores and 64Gi) can be had",
        ),
        (
            std::slice::from_ref(&none),
            "46 vm proofs wait: each needs 32 cores and 64Gi, and the pools that fit may have no pods",
        ),
        (&[PoolView { pods: Pods { arriving: 1, ..stuck }, ..vm() }], ""),
        (&[vm(), PoolView { pods: stuck, ..vm() }], ""),
    ];
    for (pools, text) in cases {
        let found = wanted(&block, pools)[0].starved.map(|starved| starved.to_string());
        assert_eq!(found.unwrap_or_default(), text);
    }
    let two = wanted(&block, &[none, rollup()]);
    assert!(two[0].starved.is_some() && two[1].starved.is_none(), "only the pools concerned are told");
}

#[test]
fn a_class_that_grew_after_an_oom_asks_for_the_larger_machine() {
    let block = [demand(Kind::Kernel, SMALL, 0, 3, 0), demand(Kind::Kernel, VM, 0, 1, 0)];
    let found = wanted(&block, &[rollup()]);
    assert_eq!(found[0].pods, 3);
    assert!(found[0].starved.is_some_and(|starved| starved.tasks == 1));
    assert_eq!(pods(&block, &[rollup(), pool("p/large", VM)]), [3, 1]);
}

#[test]
fn reasons_read_well() {
    let vms = |count| [demand(Kind::Vm, VM, 0, count, 0)];
    let half = Needs { cores: 16, memory_mib: 32 << 10 };
    let cases: [(&[Demand], PoolView, &str); 8] = [
        (&[], vm(), "0: nothing to prove"),
        (&[], PoolView { scaling: between(2, 9), ..vm() }, "2: nothing to prove; the minimum is 2"),
        (&vms(1), vm(), "1: 1 vm proof runs, is ready or soon will be; 1 fits a pod"),
        (
            &[demand(Kind::Base, half, 6, 40, 0)],
            pool("p", VM),
            "23: 46 base proofs run, are ready or soon will be; 2 fit a pod",
        ),
        (
            &[demand(Kind::Kernel, SMALL, 5, 4, 0), demand(Kind::Base, SMALL, 1, 0, 0)],
            pool("p", VM),
            "3: 9 kernel (4 a pod), 1 base (4 a pod) proofs run, are ready or soon will be",
        ),
        (
            &vms(180),
            vm(),
            "100: 100 vm proofs run, are ready or soon will be; 1 fits a pod; 80 more could be used, the maximum is 100",
        ),
        (
            &vms(30),
            PoolView { pods: Pods { limited: true, present: 6, ..Default::default() }, ..vm() },
            "9: 6 vm proofs run, are ready or soon will be; 1 fits a pod; 24 more could be used and don't come up: 3 of \
             them go on trying",
        ),
        (&vms(9), PoolView { scaling: Scaling::Fixed(5), ..vm() }, "5: spec.scaling.replicas in mode Fixed"),
    ];
    for (demand, pool, text) in cases {
        assert_eq!(because(demand, &[pool]), text);
    }
}

#[test]
fn a_pool_grows_for_those_whom_it_serves_alone() {
    let of =
        |namespace: &str, tasks| Demand { namespace: namespace.into(), ..demand(Kind::Vm, VM, 0, tasks, 0) };
    let serving = |name, names: &[&str]| PoolView { serves: Serves::only(names.to_vec()), ..pool(name, VM) };
    let all = PoolView { serves: Serves::All, ..pool("z/vm", VM) };
    let block = [of("a", 3), of("b", 5)];
    for (pools, expected) in [
        (vec![serving("a/vm", &["a"])], vec![3]),
        (vec![serving("a/vm", &["a"]), serving("b/vm", &["b"])], vec![3, 5]),
        (vec![serving("a/vm", &["a", "b"])], vec![8]),
        (vec![serving("c/vm", &["c"])], vec![0]),
        (vec![serving("c/vm", &[]), all], vec![0, 8]),
    ] {
        assert_eq!(pods(&block, &pools), expected, "{pools:?}");
    }
    let told = wanted(&block[..1], &[serving("c/vm", &["c"])]);
    assert_eq!(told[0].starved, None, "what others want is not its to tell");
}

fn any_needs() -> impl Strategy<Value = Needs> {
    prop_oneof![Just(SMALL), Just(VM), Just(Needs { cores: 16, memory_mib: 60 << 10 })]
}

fn any_row() -> impl Strategy<Value = Demand> {
    (0..5_usize, any_needs(), 0..40_u32, 0..400_u32, 0..40_u32)
        .prop_map(|(kind, needs, running, ready, soon)| demand(Kind::ALL[kind], needs, running, ready, soon))
}

fn any_scaling() -> impl Strategy<Value = Scaling> {
    let deadline = (0..20_u32, 0..200_u32, proptest::option::of(0..50_u32));
    prop_oneof![
        (0..30_u32).prop_map(Scaling::Fixed),
        deadline.prop_map(|(min, more, budget)| Scaling::Deadline { min, max: min + more, budget }),
    ]
}

fn any_pods() -> impl Strategy<Value = Pods> {
    let any = (0..30_u32, 0..10_u32, 0..10_u32, 0..50_u32, any::<bool>());
    any.prop_map(|(staying, idle, arriving, waiting, limited)| Pods {
        staying,
        present: staying + idle,
        arriving,
        waiting,
        limited,
    })
}

fn any_kinds() -> impl Strategy<Value = KindSet> {
    (KindSet::NONE.bits()..=KindSet::ALL.bits()).prop_map(|bits| KindSet::from_bits(bits).unwrap())
}

prop_compose! {
    fn any_pool()(
        number in 0..1000_u32,
        kinds in any_kinds(),
        capacity in prop_oneof![any_needs(), Just(Needs { cores: 64, memory_mib: 256 << 10 })],
        price_micros in 0..5_u64,
        priority in -1..2_i32,
        scaling in any_scaling(),
        pods in any_pods(),
    ) -> PoolView {
        let serves = Serves::All;
        PoolView {
            name: format!("p/{number}"),
            kinds,
            serves,
            capacity,
            price_micros,
            priority,
            scaling,
            quota: None,
            pods,
        }
    }
}

fn fits(pool: &PoolView, row: &Demand) -> bool {
    pool.takes(row) && pack::slots(pool.capacity, row.needs) > 0
}

/// Cores that tasks placed on a pool take.
fn placed(wanted: &Wanted) -> u32 {
    wanted.because.shares.iter().map(|share| share.tasks).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn bounds_are_never_left(
        rows in proptest::collection::vec(any_row(), 0..8),
        pools in proptest::collection::vec(any_pool(), 0..6),
    ) {
        for (pool, wanted) in pools.iter().zip(wanted(&rows, &pools)) {
            let (floor, limit) = (pool.scaling.floor(), pool.scaling.limit());
            prop_assert!((floor..=limit).contains(&wanted.pods), "{floor} <= {} <= {limit}", wanted.pods);
            if let Scaling::Fixed(replicas) = pool.scaling {
                prop_assert_eq!(wanted.pods, replicas);
            }
            if rows.iter().all(|row| tasks(row) == 0 || !fits(pool, row)) {
                prop_assert_eq!(wanted.pods, floor, "nothing that it can do");
            }
            let start = format!("{}: ", wanted.pods);
            prop_assert!(wanted.because.to_string().starts_with(&start));
        }
    }

    /// What is placed on a pool goes on the pods it wants, in cores and memory.
    #[test]
    fn nothing_is_placed_twice_or_where_it_has_no_room(
        rows in proptest::collection::vec(any_row(), 0..8),
        pools in proptest::collection::vec(any_pool(), 0..6),
    ) {
        let found = wanted(&rows, &pools);
        let asked: u32 = rows.iter().map(tasks).sum();
        prop_assert!(found.iter().map(placed).sum::<u32>() <= asked);
        for (pool, wanted) in pools.iter().zip(&found) {
            let least = wanted.because.shares.iter().map(|share| f64::from(share.tasks) / f64::from(share.each));
            prop_assert!(least.fold(0.0, f64::max) <= f64::from(wanted.pods));
            let tries = probes(wanted.denied).max(wanted.denied.min(pool.pods.waiting));
            let useful = placed(wanted) + pool.scaling.floor() + tries;
            prop_assert!(wanted.pods <= useful, "no more pods than tasks, minimum and tries: {wanted:?}");
        }
    }

    /// More tasks of one class never mean fewer pods of any pool. (With several classes they can: a large machine
    /// made for a large task may have room for small ones that had machines of their own.)
    #[test]
    fn more_of_one_class_never_means_fewer_pods(
        row in any_row(),
        more in 1..200_u32,
        pools in proptest::collection::vec(any_pool(), 1..6),
    ) {
        let grown = Demand { ready: row.ready + more, ..row.clone() };
        let (less, grown) = (wanted(&[row], &pools), wanted(&[grown], &pools));
        for (less, grown) in less.iter().zip(&grown) {
            prop_assert!(less.pods <= grown.pods, "{less:?} {grown:?}");
        }
    }

    #[test]
    fn a_class_with_a_pool_that_can_have_pods_is_never_starved(
        rows in proptest::collection::vec(any_row(), 1..8),
        pools in proptest::collection::vec(any_pool(), 1..6),
    ) {
        let found = wanted(&rows, &pools);
        for starved in found.iter().filter_map(|wanted| wanted.starved) {
            let row = demand(starved.kind, starved.needs, 0, 0, 0);
            let able = pools.iter().find(|pool| fits(pool, &row) && pack::room(pool) > 0);
            prop_assert!(able.is_none(), "{starved} though {able:?}");
        }
        for row in rows.iter().filter(|row| tasks(row) > 0) {
            let fitting = || pools.iter().filter(|pool| fits(pool, row));
            if fitting().all(|pool| pack::room(pool) == 0) {
                prop_assert!(found.iter().any(|wanted| wanted.starved.is_some()), "nobody is told of {row:?}");
            }
        }
    }

    /// While no pool is at a limit everything has its place.
    #[test]
    fn all_is_placed_where_there_is_room(
        rows in proptest::collection::vec(any_row(), 0..8),
        pools in proptest::collection::vec(any_pool(), 1..6),
    ) {
        let pools: Vec<_> = pools
            .into_iter()
            .map(|pool| PoolView {
                scaling: between(pool.scaling.floor(), 10_000),
                pods: Pods { limited: false, ..pool.pods },
                ..pool
            })
            .collect();
        let able = rows.iter().filter(|row| pools.iter().any(|pool| fits(pool, row)));
        let asked: u32 = able.map(tasks).sum();
        prop_assert_eq!(wanted(&rows, &pools).iter().map(placed).sum::<u32>(), asked);
    }
}

#[test]
fn pools_of_one_tenant_share_its_quota_and_the_rest_goes_to_others() {
    let quota = |tenant: &str, pods| Some(Quota { tenant: tenant.into(), pods });
    let cheap = PoolView { price_micros: 1, quota: quota("a", 10), ..pool("a/cheap", SMALL) };
    let dear = PoolView { price_micros: 2, quota: quota("a", 10), ..pool("a/dear", SMALL) };
    let others = PoolView { price_micros: 3, ..pool("b/others", SMALL) };
    let work = |tasks| [demand(Kind::Base, SMALL, 0, tasks, 0)];
    let few = PoolView { scaling: between(0, 4), ..cheap.clone() };
    for (pools, tasks, expected) in [
        (vec![cheap.clone(), dear.clone()], 7, vec![7, 0]),
        (vec![cheap.clone(), dear.clone()], 25, vec![10, 0]),
        (vec![few.clone(), dear.clone()], 25, vec![4, 6]),
        (vec![few, dear.clone(), others.clone()], 25, vec![4, 6, 15]),
        // the minimum of one is kept free by the other, and none has more than the quota
        (vec![cheap.clone(), PoolView { scaling: between(3, 9), ..dear.clone() }], 25, vec![7, 3]),
        (vec![PoolView { scaling: Scaling::Fixed(20), ..cheap.clone() }, others], 0, vec![10, 0]),
        (vec![PoolView { quota: quota("a", 0), ..cheap.clone() }], 5, vec![0]),
    ] {
        assert_eq!(pods(&work(tasks), &pools), expected, "{tasks} for {pools:?}");
    }
    let capped = wanted(&work(25), std::slice::from_ref(&cheap));
    assert_eq!(capped[0].because.bound, Bound::Quota { pods: 10, denied: 15 });
    assert!(because(&work(25), &[cheap]).ends_with("the namespace's pools may have 10 pods together"));
}
