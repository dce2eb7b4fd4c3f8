//! What those who run machines ask and tell: demand, dead workers, drains, estimates.

mod engine_world;

use arborist_core::circuit::Kind;
use arborist_core::engine::*;
use arborist_core::profile::{Needs, Profile};
use arborist_core::tree::NodeId;
use engine_world::*;

const HUGE: Needs = Needs { cores: 32, memory_mib: 128 << 10 };

/// Proofs of 30 s; nobody is silent for too long; an OOM of a `vm` asks for twice the memory.
fn world() -> World {
    let mut config = Config { lease: 3_600_000, backup_percent: 0, ..Config::new(Profile::rfp()) };
    config.classes.push(HUGE);
    World::new(config)
}

type Rows = Vec<(Kind, Needs, [u32; 3])>;

fn demand(world: &World, within: Millis) -> Rows {
    let rows = world.engine.demand(within).into_iter();
    rows.map(|d| (d.kind, d.needs, [d.running, d.ready, d.soon])).collect()
}

fn oom(world: &mut World, worker: &str, incident: &str) -> Vec<Command> {
    world.on(Event::OutOfMemory { worker: worker.into(), incident: incident.into() })
}

fn join(world: &mut World, session: u64, name: &str, capacity: Needs) -> Vec<(u64, Assignment)> {
    let worker = worker(name, &format!("node-of-{name}"), capacity, 0);
    assigned(&world.on(Event::Joined { session: Session(session), worker, held: vec![] }))
}

#[test]
fn demand_is_what_runs_is_ready_and_will_be_ready() {
    type Setup = fn(&mut World);
    let two = |world: &mut World| {
        world.submit(spec(1, &[1, 1], 0));
    };
    let (vm, kernel, base, root) = (Kind::Vm, Kind::Kernel, Kind::Base, Kind::Root);
    let cases: Vec<(&str, Setup, Millis, Rows)> = vec![
        ("nothing", |_| {}, 1_000_000, vec![]),
        ("now", two, 0, vec![(vm, LARGE, [0, 2, 0])]),
        ("just not", two, 29_999, vec![(vm, LARGE, [0, 2, 0])]),
        ("one level", two, 30_000, vec![(vm, LARGE, [0, 2, 0]), (kernel, SMALL, [0, 0, 2])]),
        (
            "everything",
            two,
            90_000,
            vec![
                (vm, LARGE, [0, 2, 0]),
                (kernel, SMALL, [0, 0, 2]),
                (base, SMALL, [0, 0, 2]),
                (root, SMALL, [0, 0, 1]),
            ],
        ),
        (
            "one runs, 10 s of it are left",
            |world| {
                world.submit(spec(1, &[1, 1], 0));
                world.join(1, LARGE, 0);
                world.after(20_000);
            },
            10_000,
            vec![(vm, LARGE, [1, 1, 0]), (kernel, SMALL, [0, 0, 1])],
        ),
        (
            "a second call's kernel waits for both",
            |world| {
                world.submit(spec(1, &[2], 0));
                world.join(1, LARGE, 0);
            },
            30_000,
            vec![(vm, LARGE, [1, 1, 0]), (kernel, SMALL, [0, 0, 1])],
        ),
        (
            "it runs longer than proofs do",
            |world| {
                world.submit(spec(1, &[1], 0));
                world.join(1, LARGE, 0);
                world.after(50_000);
            },
            0,
            vec![(vm, LARGE, [1, 0, 0]), (kernel, SMALL, [0, 0, 1])],
        ),
        (
            "suspended",
            |world| _ = world.submit(JobSpec { suspended: true, ..spec(1, &[1, 1], 0) }),
            90_000,
            vec![],
        ),
        (
            "cancelled",
            |world| {
                world.submit(spec(1, &[1, 1], 0));
                world.on(Event::Cancel(JobId(1)));
            },
            90_000,
            vec![],
        ),
        (
            "shared by two jobs: only their roots differ",
            |world| {
                world.submit(spec(1, &[1, 1], 0));
                world.submit(JobSpec { prover_id: [9; 32], ..spec(2, &[1, 1], 0) });
                world.join(1, LARGE, 0);
            },
            90_000,
            vec![
                (vm, LARGE, [1, 1, 0]),
                (kernel, SMALL, [0, 0, 2]),
                (base, SMALL, [0, 0, 2]),
                (root, SMALL, [0, 0, 2]),
            ],
        ),
        (
            "two jobs that share nothing",
            |world| {
                world.submit(spec(1, &[1, 1], 0));
                world.submit(spec(2, &[1], 1));
            },
            0,
            vec![(vm, LARGE, [0, 3, 0])],
        ),
    ];
    for (what, setup, within, wanted) in cases {
        let mut world = world();
        setup(&mut world);
        assert_eq!(demand(&world, within), wanted, "{what}");
    }
}

#[test]
fn a_failed_task_is_wanted_after_its_backoff_larger_after_an_oom_and_not_in_quarantine() {
    let cases: [(Reason, u8, Millis, Rows); 4] = [
        (Reason::Error, 5, 0, vec![]),
        (Reason::Error, 5, 10_000, vec![(Kind::Vm, LARGE, [0, 0, 1])]),
        (Reason::OutOfMemory, 5, 0, vec![(Kind::Vm, HUGE, [0, 1, 0])]),
        (Reason::Error, 1, 1_000_000, vec![]),
    ];
    for (reason, max_attempts, within, wanted) in cases {
        let config = Config { max_attempts, ..world().engine.config().clone() };
        let mut world = World::new(config);
        world.submit(spec(1, &[1], 0));
        let lease = assigned(&world.join(1, LARGE, 0)).remove(0).1;
        if reason == Reason::OutOfMemory {
            world.join(2, LARGE, 0);
            let (session, again) = assigned(&world.fail(1, &lease, reason)).remove(0);
            assert_eq!((session, again.needs), (2, LARGE), "the first may be to blame itself");
            world.fail(2, &again, reason);
        } else {
            world.fail(1, &lease, reason);
        }
        assert_eq!(demand(&world, within), wanted, "{reason:?} of {max_attempts} within {within}");
    }
}

#[test]
fn a_task_with_two_copies_counts_once_and_its_faster_copy_decides() {
    let config = Config { backup_percent: 150, ..world().engine.config().clone() };
    let mut world = World::new(config);
    world.submit(spec(1, &[1; 20], 0));
    let mut lease = assigned(&world.join(1, LARGE, 0)).remove(0).1;
    for _ in 0..6 {
        world.now += 1_000;
        lease = assigned(&world.complete(1, &lease)).remove(0).1;
    }
    world.after(5_000);
    assert_eq!(demand(&world, 0)[0].2[0], 1);
    for session in 2..20 {
        world.join(session, LARGE, 0);
    }
    let copies = world.view(1, lease.node.0).workers.len();
    let running: u32 = demand(&world, 0).iter().filter(|row| row.0 == Kind::Vm).map(|row| row.2[0]).sum();
    let leased = world.engine.job(JobId(1)).unwrap().counts[0].running;
    assert_eq!((copies, running), (2, leased));
}

/// A `vm` task that runs at `w`.
fn running() -> (World, Assignment) {
    let mut world = world();
    world.submit(spec(1, &[1], 0));
    let lease = join(&mut world, 1, "w", LARGE).remove(0).1;
    (world, lease)
}

#[test]
fn a_dead_worker_gives_its_leases_back_at_once_connected_or_not() {
    for disconnected in [false, true] {
        let (mut world, lease) = running();
        if disconnected {
            world.on(Event::Left(Session(1), Gone::Disconnected));
            assert_eq!(world.view(1, lease.node.0).state, TaskState::Leased);
        }
        let (session, idle) = world.engine.session_of("w").unwrap();
        assert!(!idle);
        world.on(Event::Left(session, Gone::Dead));
        let view = world.view(1, lease.node.0);
        assert_eq!((view.state, view.attempts), (TaskState::Ready, 0));
        assert_eq!(world.engine.session_of("w"), None);
    }
}

#[test]
fn a_process_killed_for_its_memory_is_charged_in_whatever_order_it_is_told() {
    type Story = fn(&mut World);
    let left = |world: &mut World| _ = world.on(Event::Left(Session(1), Gone::Disconnected));
    let cases: [(&str, Story); 7] = [
        ("told after its connection closed", |world| {
            world.on(Event::Left(Session(1), Gone::Disconnected));
            oom(world, "w", "a");
        }),
        ("told before", |world| {
            oom(world, "w", "a");
            world.now += 2_000;
            world.on(Event::Left(Session(1), Gone::Disconnected));
        }),
        ("told before, and the machine is gone", |world| {
            oom(world, "w", "a");
            world.on(Event::Left(Session(1), Gone::Dead));
        }),
        ("told after it was called dead", |world| {
            world.on(Event::Left(Session(1), Gone::Dead));
            world.now += 60_000;
            oom(world, "w", "a");
        }),
        ("its successor is there already, and runs the task", |world| {
            world.on(Event::Left(Session(1), Gone::Disconnected));
            world.now += 1_000;
            assert_eq!(join(world, 2, "w", LARGE).len(), 1);
            world.now += 1_000;
            oom(world, "w", "a");
        }),
        ("its successor logs in before the old connection ends", |world| {
            oom(world, "w", "a");
            join(world, 2, "w", LARGE);
        }),
        ("its successor comes and goes twice before it is told", |world| {
            world.on(Event::Left(Session(1), Gone::Disconnected));
            world.on(Event::Suspend(JobId(1), true));
            join(world, 2, "w", LARGE);
            world.on(Event::Left(Session(2), Gone::Disconnected));
            join(world, 3, "w", LARGE);
            world.on(Event::Suspend(JobId(1), false));
            oom(world, "w", "a");
        }),
    ];
    for (what, story) in cases {
        let (mut world, lease) = running();
        story(&mut world);
        let wanted = vec![(Kind::Vm, HUGE, [0, 1, 0])];
        assert_eq!(demand(&world, 0), wanted, "{what}");
        assert_eq!(world.view(1, lease.node.0).attempts, 1, "{what}");
        oom(&mut world, "w", "a");
        left(&mut world);
        assert_eq!(world.view(1, lease.node.0).attempts, 1, "{what}, told again");
        let journal = world.journal.clone();
        let restored = world.restored(None, &journal);
        let rows = restored.demand(0);
        assert_eq!((rows[0].needs, rows[0].ready), (HUGE, 1), "{what}, after a restart");
    }
}

/// Two workers that are as large as the profile says: the second gets the task of the first, and dies of it too,
/// before anybody tells why.
#[test]
fn a_class_that_is_too_small_is_left_once() {
    let huger = Needs { memory_mib: 2 * HUGE.memory_mib, ..HUGE };
    let mut config = flat_config();
    config.classes.extend([HUGE, huger]);
    let mut world = World::new(config);
    world.submit(spec(1, &[1], 0));
    let first = join(&mut world, 1, "w", LARGE)[0].1.node;
    world.on(Event::Left(Session(1), Gone::Dead));
    assert_eq!(join(&mut world, 2, "v", LARGE)[0].1.node, first);
    world.on(Event::Left(Session(2), Gone::Dead));
    oom(&mut world, "v", "a");
    oom(&mut world, "w", "b");
    assert_eq!(demand(&world, 0), [(Kind::Vm, HUGE, [0, 1, 0])]);
    assert_eq!(world.view(1, first.0).attempts, 1);
    // there it is charged again
    join(&mut world, 3, "h", HUGE);
    world.on(Event::Left(Session(3), Gone::Dead));
    oom(&mut world, "h", "c");
    assert_eq!(demand(&world, 0), [(Kind::Vm, huger, [0, 1, 0])]);
}

#[test]
fn what_is_told_of_another_process_charges_nothing() {
    type Story = fn(&mut World, &Assignment);
    let cases: [(&str, Story); 5] = [
        ("an old death, told while its successor works", |world, _| {
            oom(world, "w", "a");
            world.now += 60_000;
            world.on(Event::Left(Session(1), Gone::Disconnected));
        }),
        ("another worker's", |world, _| {
            oom(world, "v", "a");
            world.on(Event::Left(Session(1), Gone::Disconnected));
        }),
        ("too late", |world, _| {
            world.on(Event::Left(Session(1), Gone::Dead));
            world.now += 121_000;
            oom(world, "w", "a");
        }),
        ("the connection broke and the process lives", |world, lease| {
            world.on(Event::Left(Session(1), Gone::Dead));
            let held = vec![held(lease, Some(1))];
            let worker = worker("w", "node-of-w", LARGE, 0);
            world.on(Event::Joined { session: Session(2), worker, held });
            oom(world, "w", "a");
        }),
        ("it ran nothing", |world, lease| {
            world.on(Event::Suspend(JobId(1), true));
            world.fail(1, lease, Reason::HandedBack);
            world.on(Event::Left(Session(1), Gone::Disconnected));
            join(world, 2, "w", LARGE);
            world.on(Event::Suspend(JobId(1), false));
            world.after(60_000);
            oom(world, "w", "a");
        }),
    ];
    for (what, story) in cases {
        let (mut world, lease) = running();
        story(&mut world, &lease);
        assert_eq!(world.view(1, lease.node.0).attempts, 0, "{what}");
        let rows = demand(&world, 0).into_iter();
        let asked: Vec<_> = rows.filter(|row| row.0 == Kind::Vm).map(|row| row.1).collect();
        assert_eq!(asked, [LARGE], "{what}");
    }
}

#[test]
fn all_that_the_process_ran_is_charged_what_was_queued_is_not() {
    let mut world = World::new(Config { classes: vec![SMALL, LARGE], lease: 3_600_000, ..flat_config() });
    world.submit(spec(1, &[1; 4], 0));
    let two = Needs { cores: 16, memory_mib: 32 << 10 };
    let worker = worker("w", "n", two, 1);
    let leases = assigned(&world.on(Event::Joined { session: Session(1), worker, held: vec![] }));
    assert_eq!(leases.len(), 3);
    world.on(Event::Left(Session(1), Gone::Disconnected));
    oom(&mut world, "w", "a");
    let attempts: Vec<_> = leases.iter().map(|(_, l)| world.view(1, l.node.0).attempts).collect();
    assert_eq!(attempts, [1, 1, 0]);
    assert_eq!(demand(&world, 0), [(Kind::Vm, SMALL, [0, 2, 0]), (Kind::Vm, LARGE, [0, 2, 0])]);
}

#[test]
fn without_a_larger_class_an_oom_is_an_error_and_ends_in_quarantine() {
    let mut world = World::new(Config { max_attempts: 2, ..flat_config() });
    world.submit(spec(1, &[1], 0));
    for round in 1..=2 {
        world.after(60_000);
        assert_eq!(join(&mut world, round, &format!("w{round}"), SMALL).len(), 1);
        world.on(Event::Left(Session(round), Gone::Disconnected));
        oom(&mut world, &format!("w{round}"), "a");
        assert_eq!(world.view(1, 0).attempts, round as u32);
    }
    assert_eq!(world.view(1, 0).state, TaskState::Failed);
    assert_eq!(demand(&world, 1_000_000), []);
}

#[test]
fn a_drained_worker_keeps_what_it_runs_gets_nothing_and_is_fresh_when_it_logs_in_anew() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 6], 0));
    let first = worker("w", "n", SMALL, 1);
    let leases = assigned(&world.on(Event::Joined { session: Session(1), worker: first, held: vec![] }));
    let commands = world.on(Event::Drain(Session(1)));
    assert_eq!(revoked(&commands), [(1, leases[1].1.fence)], "what is queued goes elsewhere");
    let brief = world.engine.worker_states().remove(0);
    assert_eq!((brief.state, brief.leases, brief.idle_since), (WorkerState::Draining, 1, None));
    world.now += 500;
    assert_eq!(assigned(&world.complete(1, &leases[0].1)), []);
    let brief = world.engine.worker_states().remove(0);
    assert_eq!((brief.state, brief.idle_since), (WorkerState::Draining, Some(world.now)));
    let leases = assigned(&world.on(Event::Joined {
        session: Session(2),
        worker: worker("w", "n", SMALL, 1),
        held: vec![],
    }));
    assert_eq!(leases.len(), 2);
}

#[test]
fn idle_is_counted_from_the_last_lease_or_the_login() {
    let mut world = World::flat();
    world.join(1, SMALL, 1);
    let idle = |world: &World| world.engine.worker_states().remove(0).idle_since;
    let login = world.now;
    world.after(1_000);
    assert_eq!(idle(&world), Some(login));
    let lease = assigned(&world.submit(spec(1, &[1], 0))).remove(0).1;
    assert_eq!(idle(&world), None);
    world.now += 1_000;
    world.on(Event::Suspend(JobId(1), true));
    world.complete(1, &lease);
    assert_eq!(idle(&world), Some(world.now));
}

#[test]
fn an_estimate_is_at_least_the_path_and_the_work() {
    type Case = (&'static str, &'static [u8], &'static [(Needs, u32)], Option<Millis>);
    let cases: [Case; 6] = [
        ("no machine", &[1], &[], None),
        ("no machine for vm", &[1], &[(SMALL, 4)], None),
        // vm, 3 kernels, base, root
        ("the path of one transaction", &[3], &[(LARGE, 9), (SMALL, 9)], Some(180_000)),
        // vm, kernel, base, merge, root
        ("the path of four", &[1, 1, 1, 1], &[(LARGE, 9), (SMALL, 9)], Some(150_000)),
        // 64 vm on one machine; then kernel, base, 6 joins
        ("the work of vm", &[1; 64], &[(LARGE, 1), (SMALL, 640)], Some((64 + 2 + 6) * 30_000)),
        // 64 vm as 4 small ones each, 64 kernels, 64 bases, 63 joins: on 4 + 1 places
        ("the work of all", &[1; 64], &[(LARGE, 1), (SMALL, 1)], Some((64 * 4 + 64 + 64 + 63) * 30_000 / 5)),
    ];
    for (what, calls, machines, wanted) in cases {
        let mut world = world();
        let mut session = 0;
        for (capacity, count) in machines {
            for _ in 0..*count {
                session += 1;
                world.join(session, *capacity, 0);
            }
        }
        world.submit(spec(1, calls, 0));
        let now = world.now;
        assert_eq!(world.engine.estimate(JobId(1)).map(|at| at - now), wanted, "{what}");
        world.on(Event::Suspend(JobId(1), true));
        assert_eq!(world.engine.estimate(JobId(1)), None, "{what}, suspended");
    }
}

#[test]
fn a_job_is_found_by_its_root_and_says_who_proved_it() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 0));
    world.submit(spec(2, &[2], 1));
    let root = |world: &World, job| *world.engine.prepared_job(JobId(job)).unwrap().ids.last().unwrap();
    assert_eq!(world.engine.find_root("", &root(&world, 1)), Some(JobId(1)));
    assert_eq!(world.engine.find_root("", &root(&world, 2)), Some(JobId(2)));
    let inner = world.engine.prepared_job(JobId(1)).unwrap().ids[0];
    assert_eq!(world.engine.find_root("", &inner), None);
    world.on(Event::Cancel(JobId(2)));
    assert_eq!(world.engine.attribution(JobId(1)), Some(vec![]));
    let mut leases = assigned(&world.join(1, SMALL, 0));
    while let Some((session, lease)) = leases.pop() {
        // a second of eight cores
        world.now += 1_000;
        let commands = world.complete(session, &lease);
        leases.extend(assigned(&commands));
        drain(&mut world, commands.into_iter().filter(|c| matches!(c, Command::CheckRoot(_))).collect());
    }
    assert_eq!(world.state(1), JobState::Complete);
    assert_eq!(world.engine.attribution(JobId(1)), Some(vec![("w1".into(), 4, 4 * 8_000)]));
    assert_eq!(world.engine.attribution(JobId(7)), None);
    assert_eq!(world.engine.estimate(JobId(1)), None);
    let last = world.engine.task(JobId(1), NodeId(3)).unwrap();
    assert_eq!(last.state, TaskState::Done);
}

/// A machine that runs four small tasks of job 1, with more of them ready, and a `vm` of job 2; small tasks
/// end one a second. After how many of them the `vm` starts.
fn small_tasks_before_the_large_one(request: JobSpec, machines: u64) -> usize {
    let mut world = world();
    world.submit(spec(1, &[0; 40], 0));
    let mut leases = vec![];
    for session in 1..=machines {
        leases.extend(assigned(&world.join(session, LARGE, 0)));
    }
    world.submit(request);
    let mut ended = 0;
    while let Some(at) = leases.iter().position(|(_, lease)| kind(lease) != Kind::Vm) {
        let (session, lease) = leases.remove(at);
        let mut commands = world.complete(session, &lease);
        commands.extend(world.after(1_000));
        ended += 1;
        leases.extend(assigned(&commands));
        if leases.iter().any(|(_, lease)| kind(lease) == Kind::Vm) {
            return ended;
        }
    }
    ended
}

#[test]
fn a_machine_is_held_free_for_a_large_task_that_goes_first() {
    let large = || spec(2, &[1], 1);
    let urgent = || JobSpec { deadline: Some(2_000_000), ..large() };
    let cases: [(&str, JobSpec, u64, std::ops::RangeInclusive<usize>); 5] = [
        ("more important", JobSpec { priority: 1, ..large() }, 1, 4..=5),
        ("more urgent", urgent(), 1, 4..=5),
        ("of eight machines one", urgent(), 8, 4..=32),
        // 40 bases at once; joins get ready one after the other
        ("less important", JobSpec { priority: -1, ..large() }, 1, 36..=79),
        ("younger", large(), 1, 36..=79),
    ];
    for (what, request, machines, allowed) in cases {
        let ended = small_tasks_before_the_large_one(request, machines);
        assert!(allowed.contains(&ended), "{what}: {ended} small ones first");
    }
}
