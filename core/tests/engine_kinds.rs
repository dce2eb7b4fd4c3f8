//! Workers that take some kinds of proof only: whatever gives a task away keeps to that, and what nobody takes
//! is in nobody's way.

mod engine_world;

use arborist_core::circuit::{Kind, KindSet};
use arborist_core::engine::*;
use arborist_core::profile::{Needs, Profile};
use engine_world::*;

/// As many small machines in one.
fn times(count: u16) -> Needs {
    Needs { cores: SMALL.cores * count, memory_mib: SMALL.memory_mib * u32::from(count) }
}

fn login(session: u64, name: u64, kinds: &str, capacity: Needs, prefetch: u16, held: Vec<Held>) -> Event {
    let kinds = if kinds == "all" { KindSet::ALL } else { kinds.parse().unwrap() };
    let worker = WorkerSpec { kinds, ..worker(&format!("w{name}"), &format!("n{name}"), capacity, prefetch) };
    Event::Joined { session: Session(session), worker, held }
}

fn join(world: &mut World, session: u64, kinds: &str, capacity: Needs, prefetch: u16) -> Vec<Command> {
    world.on(login(session, session, kinds, capacity, prefetch, vec![]))
}

/// All `vm`s go before all else, so that they head what is ready.
fn vm_first(world: &mut World, calls: &[u8]) {
    world.submit(spec(1, calls, 1));
    world.on(Event::Order { job: JobId(1), policy: 1 });
}

fn kinds_of(leases: &[(u64, Assignment)], session: u64) -> Vec<Kind> {
    leases.iter().filter(|(to, _)| *to == session).map(|(_, lease)| kind(lease)).collect()
}

#[test]
fn a_block_is_proven_by_workers_that_take_different_kinds() {
    let cases: [&[&str]; 5] = [
        &["vm", "kernel", "base", "merge", "root"],
        &["vm,kernel", "kernel,base", "base,merge,root"],
        &["root", "vm,kernel,base,merge"],
        &["all", "kernel", "merge"],
        &["vm,merge", "kernel,root", "base", "all"],
    ];
    for kinds in cases {
        for prefetch in 0..3 {
            let mut world = World::flat();
            let mut commands = world.submit(spec(1, &[2, 0, 3, 1, 1], 1));
            for (session, kinds) in kinds.iter().enumerate() {
                commands.extend(join(&mut world, session as u64, kinds, SMALL, prefetch));
            }
            // That nobody gets what it does not take is checked after each event.
            drain(&mut world, commands);
            assert_eq!(world.state(1), JobState::Complete, "{kinds:?} {prefetch}");
        }
    }
}

#[test]
fn what_nobody_takes_waits_and_is_told() {
    let mut world = World::flat();
    world.submit(spec(1, &[1, 1], 1));
    let fits_none = |world: &World, node| world.view(1, node).waits == Some(Waits::NoFittingWorker(SMALL));
    assert_eq!(assigned(&join(&mut world, 1, "kernel,base,merge", LARGE, 2)), []);
    assert!(fits_none(&world, 0));
    let told = |commands: &[Command], kind, ready| {
        let wanted = Notice::NoFittingWorker { namespace: String::new(), kind, needs: SMALL, ready };
        notices(commands).iter().filter(|notice| **notice == wanted).count()
    };
    assert_eq!(told(&world.after(1), Kind::Vm, 2), 1);
    assert_eq!(notices(&world.after(1)), [], "once");
    assert_eq!(world.engine.estimate(JobId(1)), None);
    let demand = world.engine.demand(0);
    assert_eq!((demand.len(), demand[0].kind, demand[0].ready), (1, Kind::Vm, 2));

    let commands = join(&mut world, 2, "vm", LARGE, 0);
    assert_eq!(kinds_of(&assigned(&commands), 2), [Kind::Vm; 2]);
    drain(&mut world, commands);
    assert_eq!(world.done(1), 6);
    assert!(fits_none(&world, 6), "a root is taken by none");
    assert_eq!(told(&world.after(1), Kind::Root, 1), 1);
    let commands = join(&mut world, 3, "all", SMALL, 0);
    drain(&mut world, commands);
    assert_eq!(world.state(1), JobState::Complete);
}

#[test]
fn workers_of_one_shape_are_told_apart_by_their_kinds() {
    let mut world = World::flat();
    for (session, kinds) in ["vm", "kernel,base", "vm", "all"].iter().enumerate() {
        join(&mut world, session as u64, kinds, SMALL, 0);
    }
    let shown = |view: &ClassView| (view.kinds.to_string(), view.workers, view.idle);
    let shown: Vec<_> = world.engine.capacity().iter().map(shown).collect();
    let wanted = [("vm", 2, 2), ("kernel,base", 1, 1), ("vm,kernel,base,merge,root", 1, 1)];
    assert_eq!(shown, wanted.map(|(kinds, workers, idle)| (kinds.to_owned(), workers, idle)));
}

#[test]
fn the_head_of_what_is_ready_bars_none_that_do_not_take_it() {
    for (prefetch, queued) in [(0, 0), (1, 1)] {
        let mut world = World::flat();
        vm_first(&mut world, &[1; 8]);
        let vms = assigned(&join(&mut world, 1, "vm", times(2), 0));
        assert_eq!(kinds_of(&vms, 1), [Kind::Vm; 2]);
        assert_eq!(assigned(&join(&mut world, 2, "kernel,root", SMALL, prefetch)), []);
        let next: Vec<_> =
            vms.iter().flat_map(|(session, vm)| assigned(&world.complete(*session, vm))).collect();
        assert_eq!(kinds_of(&next, 1), [Kind::Vm; 2], "four are ready before the kernels");
        assert_eq!(kinds_of(&next, 2), vec![Kind::Kernel; 1 + queued]);
    }
}

#[test]
fn narrow_workers_are_taken_first() {
    let mut world = World::flat();
    join(&mut world, 1, "all", SMALL, 0);
    join(&mut world, 2, "vm,kernel", SMALL, 0);
    join(&mut world, 3, "vm", SMALL, 0);
    join(&mut world, 4, "vm", LARGE, 0);
    let leases = assigned(&world.submit(spec(1, &[1; 4], 1)));
    assert_eq!(leases.iter().map(|(session, _)| *session).collect::<Vec<_>>(), [3, 2, 1, 4]);
}

#[test]
fn a_long_proof_at_the_head_keeps_only_queues_of_its_takers_empty() {
    let profile = Profile { needs: [SMALL; 5], first_millis: [30_000, 100, 100, 100, 100], ..Profile::rfp() };
    for (kinds, queued) in [("all", 0), ("vm,kernel", 0), ("kernel", 2)] {
        let mut world = World::new(Config { backup_percent: 0, ..Config::new(profile.clone()) });
        vm_first(&mut world, &[1; 12]);
        let vms = assigned(&join(&mut world, 1, "vm", times(4), 0));
        world.now += 30_000;
        for (session, lease) in vms {
            let done = Done { millis: 30_000, ..done(lease.task, lease.fence) };
            world.on(Event::Completed(Session(session), done));
        }
        // Four kernels are ready, and so are four `vm`s.
        join(&mut world, 2, kinds, SMALL, 2);
        let view = world.engine.workers().remove(1);
        assert_eq!((view.running, view.prefetched), (1, queued), "{kinds}");
    }
}

#[test]
fn only_what_an_idle_worker_takes_moves_to_it() {
    let mut world = World::flat();
    vm_first(&mut world, &[1; 4]);
    let vms = assigned(&join(&mut world, 1, "vm", times(2), 0));
    world.now += 1_000;
    vms.iter().for_each(|(session, vm)| _ = world.complete(*session, vm));
    // One runs, and behind it a `vm` is no more: kernels are queued, then bases as they get ready.
    let own = assigned(&join(&mut world, 2, "kernel,base", SMALL, 3));
    assert_eq!(kinds_of(&own, 2), [Kind::Kernel; 2]);
    world.now += 1_000;
    world.complete(2, &own[0].1);
    let queued: Vec<_> = world.engine.workers().iter().map(|view| view.prefetched).collect();
    assert_eq!(queued, [0, 1], "a kernel runs, a base is queued");
    assert_eq!(
        assigned(&join(&mut world, 3, "kernel,merge,root", SMALL, 0)),
        [],
        "nothing of theirs is queued"
    );
    let moved = assigned(&join(&mut world, 4, "base", SMALL, 0));
    assert_eq!(kinds_of(&moved, 4), [Kind::Base]);
}

#[test]
fn a_lease_that_nobody_else_takes_does_not_hide_those_before_it() {
    let mut world = World::flat();
    vm_first(&mut world, &[1; 8]);
    let all = assigned(&join(&mut world, 1, "vm", times(4), 0));
    all.iter().for_each(|(session, vm)| _ = world.complete(*session, vm));
    // Kernels queue up, and then `vm`s after them once the first worker is gone.
    let own = assigned(&join(&mut world, 2, "kernel", SMALL, 3));
    assert_eq!(kinds_of(&own, 2), [Kind::Kernel; 4]);
    join(&mut world, 3, "vm", SMALL, 2);
    let own = assigned(&world.on(Event::Left(Session(1), Gone::Dead)));
    assert_eq!(kinds_of(&own, 3), [Kind::Vm; 3]);
    let moved = assigned(&join(&mut world, 4, "kernel", SMALL, 0));
    assert_eq!(kinds_of(&moved, 4), [Kind::Kernel]);
}

#[test]
fn second_copies_go_to_those_who_take_them() {
    // Kernels and `vm`s of a second each, then more `vm`s than are looked at in one step, and a kernel.
    let mut world = World::flat();
    vm_first(&mut world, &[1; 40]);
    let mut vms = assigned(&join(&mut world, 1, "vm", times(34), 0));
    assert_eq!(vms.len(), 34);
    world.after(1_000);
    for (session, vm) in vms.drain(..6) {
        world.complete(session, &vm);
    }
    let mut kernel = assigned(&join(&mut world, 2, "kernel", SMALL, 0)).remove(0).1;
    for _ in 0..5 {
        world.after(1_000);
        kernel = assigned(&world.complete(2, &kernel)).remove(0).1;
    }
    let fences: Vec<Fence> = vms.iter().map(|(_, vm)| vm.fence).collect();
    world.on(Event::Heartbeat(Session(1), fences));
    world.after(4_000);
    let copies = |commands: &[Command]| {
        notices(commands).iter().filter(|notice| matches!(notice, Notice::Backup { .. })).count()
    };
    assert_eq!(copies(&join(&mut world, 3, "root,merge", times(4), 0)), 0);
    let commands = join(&mut world, 4, "kernel,root", SMALL, 0);
    assert_eq!((copies(&commands), assigned(&commands)[0].1.task), (1, kernel.task), "behind 28 slow `vm`s");
    let commands = join(&mut world, 5, "vm", times(2), 0);
    assert_eq!((copies(&commands), kinds_of(&assigned(&commands), 5)), (2, vec![Kind::Vm; 2]));
}

#[test]
fn copies_of_the_last_tasks_go_to_those_who_take_them() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 24], 1));
    let mut root = assigned(&world.join(1, SMALL, 0))[0].1;
    while kind(&root) != Kind::Root {
        world.after(if world.done(1) == 20 { 10_000 } else { 1_000 });
        root = assigned(&world.complete(1, &root))[0].1;
    }
    assert_eq!(assigned(&join(&mut world, 2, "vm,kernel,base,merge", SMALL, 0)), []);
    let copy = assigned(&join(&mut world, 3, "merge,root", SMALL, 0));
    assert_eq!((copy.len(), copy[0].0, copy[0].1.task), (1, 3, root.task), "at once");
    // Both are slow: the copy goes to a third machine.
    world.after(4_000);
    for (session, fences) in [(1, vec![root.fence]), (2, vec![]), (3, vec![copy[0].1.fence])] {
        world.on(Event::Heartbeat(Session(session), fences));
    }
    assert_eq!(assigned(&join(&mut world, 4, "vm,merge", SMALL, 0)), []);
    let commands = join(&mut world, 5, "root", SMALL, 0);
    assert_eq!(revoked(&commands), [(3, copy[0].1.fence)]);
    assert_eq!(assigned(&commands)[0].0, 5);
}

#[test]
fn a_failed_task_goes_elsewhere_only_where_it_is_taken() {
    for (other, expected) in [("kernel", 1), ("all", 2), ("vm", 2)] {
        let mut world = World::flat();
        let mut commands = join(&mut world, 1, "vm", SMALL, 0);
        commands.extend(world.submit(spec(1, &[1], 1)));
        let vm = assigned(&commands)[0].1;
        world.fail(1, &vm, Reason::Error);
        join(&mut world, 2, other, SMALL, 0);
        let again = world.alive(10_000);
        assert_eq!((again.len(), again[0].0), (1, expected), "{other}");
    }
}

#[test]
fn machines_are_held_for_what_they_take() {
    // Two machines that run four small proofs each, and a `vm` that needs a whole one.
    for (first, second, held) in
        [("all", "all", 1), ("all", "vm,base", 1), ("kernel,base,merge", "all", 1), ("base", "base", 0)]
    {
        let config = Config { lease: 3_600_000, backup_percent: 0, ..Config::new(Profile::rfp()) };
        let mut world = World::new(config);
        world.submit(spec(1, &[0; 40], 0));
        let mut leases = assigned(&join(&mut world, 1, first, LARGE, 0));
        leases.extend(assigned(&join(&mut world, 2, second, LARGE, 0)));
        assert_eq!(leases.len(), 8);
        world.submit(JobSpec { priority: 1, ..spec(2, &[1], 1) });
        world.after(2_000);
        let ends =
            |(session, lease): &(u64, Assignment)| assigned(&world.complete(*session, lease)).is_empty();
        let idle = leases.iter().step_by(4).map(ends).filter(|idle| *idle).count();
        assert_eq!(idle, held, "{first} {second}");
    }
}

#[test]
fn a_worker_that_comes_back_for_other_kinds_keeps_what_it_takes() {
    for (kinds, kept) in [("vm,kernel", [true, true]), ("kernel", [false, true]), ("root", [false, false])] {
        let mut world = World::flat();
        vm_first(&mut world, &[1; 2]);
        let vms = assigned(&join(&mut world, 1, "all", times(2), 0));
        let kernel = assigned(&world.complete(1, &vms[0].1)).remove(0).1;
        let leases = [vms[1].1, kernel];
        let held = leases.map(|lease| held(&lease, Some(1)));
        let commands = world.on(login(2, 1, kinds, times(2), 0, held.into()));
        let stopped: Vec<Fence> = revoked(&commands).into_iter().map(|(_, fence)| fence).collect();
        for (lease, kept) in leases.iter().zip(kept) {
            let state = if kept { TaskState::Leased } else { TaskState::Ready };
            assert_eq!(world.view(1, lease.node.0).state, state, "{kinds} {}", lease.circuit);
            assert_eq!(stopped.contains(&lease.fence), !kept, "{kinds} {}", lease.circuit);
        }
        // What was proven all the same counts.
        world.complete(2, &leases[0]);
        world.checked(leases[0].task, Finding::Valid(proof_of(leases[0].task, "w1")));
        assert_eq!(world.view(1, leases[0].node.0).state, TaskState::Done, "{kinds}");
    }
}

#[test]
fn the_estimate_counts_machines_that_take_a_kind() {
    // 64 bases of 30 s each on eight machines, five joins of 30 s after them and the root.
    let after_bases = 6 * 30_000;
    for (bases, others, millis) in [
        ("all", "all", 8 * 30_000),
        ("base", "kernel,merge,root", 16 * 30_000),
        ("base,merge", "merge,root", 16 * 30_000),
        ("base", "vm", 0),
    ] {
        let mut world = World::flat();
        for session in 0..8 {
            join(&mut world, session, if session < 4 { bases } else { others }, SMALL, 0);
        }
        world.submit(spec(1, &[0; 64], 1));
        let estimate = world.engine.estimate(JobId(1)).map(|at| at - world.now);
        match millis {
            0 => assert_eq!(estimate, None, "{bases} {others}"),
            _ => {
                let all = estimate.unwrap();
                assert!(
                    all >= millis && all <= millis + after_bases + 64 * 30_000,
                    "{bases} {others}: {all}"
                );
            }
        }
    }
}
