//! Leases: capacity, prefetch, expiry, adoption, fences, late results.

mod engine_world;

use arborist_core::circuit::Kind;
use arborist_core::engine::*;
use arborist_core::profile::Needs;
use engine_world::*;

fn rejoin(world: &mut World, session: u64, name: u64, prefetch: u16, held: Vec<Held>) -> Vec<Command> {
    let worker = worker(&format!("w{name}"), &format!("n{name}"), SMALL, prefetch);
    world.on(Event::Joined { session: Session(session), worker, held })
}

#[test]
fn a_worker_runs_what_fits_and_no_more() {
    let cases = [
        (SMALL, 1),
        (Needs { cores: 15, memory_mib: 64 << 10 }, 1),
        (Needs { cores: 64, memory_mib: 33 << 10 }, 2),
        (LARGE, 4),
        (Needs { cores: 7, memory_mib: 64 << 10 }, 0),
    ];
    for (capacity, fits) in cases {
        let mut world = World::flat();
        world.submit(spec(1, &[2; 8], 1));
        assert_eq!(assigned(&world.join(1, capacity, 0)).len(), fits, "{capacity:?}");
    }
}

#[test]
fn small_tasks_prefer_small_workers_and_large_ones_get_the_large() {
    let mut world = World::rfp();
    world.join(1, LARGE, 0);
    world.join(2, SMALL, 0);
    let leases = assigned(&world.submit(spec(1, &[0, 0, 1], 1)));
    // The call needs the large worker; of the transactions without calls one gets the small one.
    let got: Vec<_> = leases.iter().map(|(session, lease)| (*session, kind(lease))).collect();
    assert_eq!(got, [(1, Kind::Vm), (2, Kind::Base)]);

    let mut world = World::rfp();
    world.join(1, LARGE, 0);
    world.join(2, SMALL, 0);
    let leases = assigned(&world.submit(spec(1, &[0, 0, 0], 1)));
    let got: Vec<_> = leases.iter().map(|(session, _)| *session).collect();
    assert_eq!(got, [2, 1, 1], "an idle large worker runs small proofs, after the small one");
}

#[test]
fn long_tasks_are_not_leased_ahead() {
    // The profile says 30 s a proof until some are measured.
    for (prefetch_below, leases) in [(2_000, 1), (30_000, 1), (30_001, 3)] {
        let mut world = World::new(Config { prefetch_below, ..flat_config() });
        world.submit(spec(1, &[2; 8], 1));
        assert_eq!(assigned(&world.join(1, SMALL, 2)).len(), leases, "below {prefetch_below} ms");
    }
}

#[test]
fn prefetched_leases_start_when_room_comes() {
    let mut world = World::flat();
    world.submit(spec(1, &[2; 8], 1));
    let leases = assigned(&world.join(1, SMALL, 2));
    assert_eq!(leases.len(), 3);
    let view = &world.engine.workers()[0];
    assert_eq!((view.running, view.prefetched), (1, 2));
    let waiting = world.view(1, leases[1].1.node.0);
    assert_eq!((waiting.state, waiting.waits), (TaskState::Leased, Some(Waits::Queued)));
    let next = assigned(&world.complete(1, &leases[0].1));
    assert_eq!(next.len(), 1, "the queue is filled up again");
    assert_eq!(world.view(1, leases[1].1.node.0).waits, None, "the oldest queued one runs");
}

#[test]
fn nothing_is_queued_at_a_busy_worker_while_another_is_idle() {
    let mut world = World::flat();
    world.join(1, SMALL, 2);
    world.join(2, SMALL, 2);
    let leases = assigned(&world.submit(spec(1, &[1, 1], 1)));
    let sessions: Vec<_> = leases.iter().map(|(session, _)| *session).collect();
    assert_eq!(sessions, [1, 2]);
}

#[test]
fn queued_leases_move_to_a_worker_that_becomes_idle() {
    let mut world = World::flat();
    world.submit(spec(1, &[1, 1], 1));
    let leases = assigned(&world.join(1, SMALL, 1));
    assert_eq!(leases.len(), 2);
    let commands = world.join(2, SMALL, 1);
    assert_eq!(revoked(&commands), [(1, leases[1].1.fence)]);
    let moved = assigned(&commands);
    assert_eq!((moved[0].0, moved[0].1.task), (2, leases[1].1.task));
    // The first worker had started it meanwhile: its result counts once, the other stops.
    assert!(world.engine.holds(Session(1), &leases[1].1.task));
    let task = leases[1].1.task;
    assert_eq!(checks(&world.complete(1, &leases[1].1)), [task]);
    assert_eq!(world.done(1), 0, "not before the proof was seen");
    let commands = world.checked(task, Finding::Valid(proof_of(task, "w1")));
    assert_eq!(revoked(&commands), [(2, moved[0].1.fence)]);
    assert!(matches!(notices(&commands)[0], Notice::LateResult { counted: true, .. }));
    let commands = world.complete(2, &moved[0].1);
    assert!(matches!(notices(&commands)[0], Notice::LateResult { counted: false, .. }));
    assert_eq!(world.done(1), 1);
}

#[test]
fn a_short_queue_is_not_torn_apart_but_does_not_rot_either() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 12], 1));
    let first = assigned(&world.join(1, SMALL, 1));
    let mut lease = first[0].1;
    let mut next = first[1].1;
    for _ in 0..10 {
        let done = Done { millis: 3, ..done(lease.task, lease.fence) };
        let commands = world.on(Event::Completed(Session(1), done));
        (lease, next) = (next, assigned(&commands).last().unwrap().1);
    }
    // Proofs take 3 ms: what is queued starts sooner than a message arrives elsewhere.
    world.on(Event::Suspend(JobId(1), true));
    world.on(Event::Suspend(JobId(1), false));
    let before = world.engine.leased();
    while world.engine.job(JobId(1)).unwrap().counts.iter().any(|c| c.ready > 0) {
        let session = 100 + world.engine.workers().len() as u64;
        let commands = world.join(session, SMALL, 0);
        assert_eq!(revoked(&commands), []);
    }
    let commands = world.join(2, SMALL, 0);
    assert_eq!((revoked(&commands), assigned(&commands)), (vec![], vec![]));
    assert!(world.engine.leased() > before);
    let wanted = world.engine.next_deadline().unwrap();
    assert!(wanted <= world.now + 100, "it is looked at again soon");
    let commands = world.after(100);
    assert_eq!(assigned(&commands)[0].1.task, next.task);
}

#[test]
fn an_expired_lease_is_ready_again_and_charged_to_nobody() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    world.after(14_999);
    assert_eq!(world.view(1, 0).state, TaskState::Leased);
    let commands = world.after(1);
    assert!(matches!(notices(&commands)[0], Notice::LeaseLost { why: "expired", .. }));
    let view = world.view(1, 0);
    assert_eq!((view.state, view.attempts), (TaskState::Ready, 0));
    // It was only asleep: heard again, it goes on under the same fence.
    assert!(world.engine.holds(Session(1), &lease.task));
    let commands = world.on(Event::Heartbeat(Session(1), vec![lease.fence]));
    assert_eq!((assigned(&commands), revoked(&commands)), (vec![], vec![]));
    assert_eq!(world.view(1, 0).workers, ["w1"]);
    world.complete(1, &lease);
    assert_eq!(world.done(1), 1);
}

#[test]
fn heartbeats_keep_leases() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    for _ in 0..10 {
        world.after(10_000);
        world.on(Event::Heartbeat(Session(1), vec![lease.fence]));
    }
    assert_eq!(world.view(1, 0).workers, ["w1"]);
}

#[test]
fn a_heartbeat_that_lacks_a_lease_loses_it_once_it_must_have_arrived() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    world.join(1, SMALL, 0);
    world.after(10_000);
    let commands = world.on(Event::Heartbeat(Session(1), vec![]));
    assert_eq!(notices(&commands), [], "it may still be under way");
    world.after(5_001);
    let commands = world.on(Event::Heartbeat(Session(1), vec![]));
    assert!(matches!(notices(&commands)[0], Notice::LeaseLost { why: "forgotten by its worker", .. }));
    assert_eq!(assigned(&commands).len(), 1, "it is given out again");
}

#[test]
fn a_heartbeat_with_a_strange_lease_is_told_to_drop_it() {
    let mut world = World::flat();
    world.join(1, SMALL, 0);
    let commands = world.on(Event::Heartbeat(Session(1), vec![Fence(77)]));
    assert_eq!(revoked(&commands), [(1, Fence(77))]);
}

#[test]
fn what_is_not_delivered_returns_at_once_and_not_to_the_same() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    let commands = world.on(Event::Undelivered(Session(1), lease.fence));
    assert_eq!(assigned(&commands), [], "no endless loop");
    let view = world.view(1, 0);
    assert_eq!((view.state, view.attempts), (TaskState::Ready, 0));
    assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Silent));
    let commands = world.on(Event::Heartbeat(Session(1), vec![]));
    assert_eq!(assigned(&commands).len(), 1);
}

#[test]
fn how_a_worker_goes_decides_when_its_leases_return() {
    for (gone, at_once) in [(Gone::Dead, true), (Gone::Disconnected, false)] {
        let mut world = World::flat();
        world.submit(spec(1, &[1], 1));
        world.join(1, SMALL, 0);
        world.on(Event::Left(Session(1), gone));
        let state = world.view(1, 0).state;
        assert_eq!(state, if at_once { TaskState::Ready } else { TaskState::Leased });
        world.after(15_000);
        assert_eq!(world.view(1, 0).state, TaskState::Ready);
        assert_eq!(world.engine.workers(), [], "nothing is kept of it");
    }
}

#[test]
fn a_draining_worker_gets_nothing_new() {
    let mut world = World::flat();
    world.submit(spec(1, &[2; 4], 1));
    let leases = assigned(&world.join(1, SMALL, 1));
    world.on(Event::Draining(Session(1)));
    assert_eq!(assigned(&world.complete(1, &leases[0].1)), []);
    let commands = world.fail(1, &leases[1].1, Reason::HandedBack);
    assert_eq!(assigned(&commands), []);
    let view = world.view(1, leases[1].1.node.0);
    assert_eq!((view.state, view.attempts), (TaskState::Ready, 0));
}

#[test]
fn a_leaving_worker_that_comes_back_hands_in_what_it_holds_and_gets_nothing() {
    for restarted in [false, true] {
        let mut world = World::flat();
        world.submit(spec(1, &[1; 4], 1));
        let leases = assigned(&world.join(1, SMALL, 1));
        let (running, queued) = (leases[0].1, leases[1].1);
        world.on(Event::Draining(Session(1)));
        if restarted {
            world.engine = world.restored(None, &world.journal);
        } else {
            world.on(Event::Left(Session(1), Gone::Disconnected));
        }
        let held = vec![held(&running, Some(500)), held(&queued, None)];
        let commands = world.on(Event::JoinedToLeave {
            session: Session(2),
            worker: worker("w1", "n1", SMALL, 1),
            held,
        });
        assert_eq!((assigned(&commands), revoked(&commands)), (vec![], vec![]), "restarted: {restarted}");
        assert_eq!(world.engine.worker_state(Session(2)), Some(WorkerState::Draining));
        assert_eq!(assigned(&world.fail(2, &queued, Reason::HandedBack)), []);
        let view = world.view(1, queued.node.0);
        assert_eq!((view.state, view.attempts), (TaskState::Ready, 0), "it is another's at once");
        assert_eq!(assigned(&world.complete(2, &running)), []);
        assert_eq!(world.done(1), 1, "restarted: {restarted}");
        assert_eq!(assigned(&world.on(Event::Heartbeat(Session(2), vec![]))), []);
    }
}

#[test]
fn a_worker_that_comes_back_keeps_what_it_holds() {
    let mut world = World::flat();
    world.submit(spec(1, &[1, 1, 1], 1));
    let leases = assigned(&world.join(1, SMALL, 1));
    let (first, second) = (leases[0].1, leases[1].1);
    world.on(Event::Left(Session(1), Gone::Disconnected));
    let commands = rejoin(&mut world, 2, 1, 1, vec![held(&first, Some(500))]);
    assert!(matches!(&notices(&commands)[0], Notice::LeaseLost { task, .. } if *task == second.task));
    assert_eq!(revoked(&commands), []);
    assert_eq!(world.engine.workers().len(), 1);
    let running = assigned(&commands);
    assert_eq!(running.len(), 1, "one more is queued at it");
    world.complete(2, &first);
    assert_eq!(world.done(1), 1);
}

#[test]
fn a_worker_that_comes_back_with_a_shorter_queue_keeps_no_more_than_it_takes() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 4], 1));
    let leases = assigned(&world.join(1, SMALL, 3));
    let all = || leases.iter().enumerate().map(|(n, (_, lease))| held(lease, (n == 0).then_some(500)));
    let commands = rejoin(&mut world, 2, 1, 1, all().collect());
    assert_eq!(revoked(&commands), [(2, leases[2].1.fence), (2, leases[3].1.fence)]);
    let view = world.engine.workers()[0].clone();
    assert_eq!((view.running, view.prefetched), (1, 1));
}

#[test]
fn a_lease_that_came_back_and_has_not_begun_again_has_all_its_time() {
    let mut world = World::flat();
    world.submit(spec(1, &[1, 1], 1));
    let leases = assigned(&world.join(1, SMALL, 1));
    let (first, second) = (leases[0].1, leases[1].1);
    let limit = first.limit;
    world.on(Event::Left(Session(1), Gone::Dead));
    // Its process was killed and started again: it has begun with the second one.
    rejoin(&mut world, 2, 1, 1, vec![held(&second, Some(500)), held(&first, None)]);
    let mut runs_on = |millis| {
        world.now += millis;
        world.on(Event::Heartbeat(Session(2), vec![first.fence, second.fence]));
        world.on(Event::Tick);
        [first, second].map(|lease| world.view(1, lease.node.0).attempts)
    };
    assert_eq!(runs_on(limit - 1_000), [0, 0]);
    assert_eq!(runs_on(1_000), [0, 1], "what ran for so long is charged");
    assert_eq!(runs_on(limit - 1_000), [0, 1]);
}

#[test]
fn after_a_restart_leases_are_adopted_and_the_earlier_start_wins() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    world.engine = world.restored(None, &world.journal);
    world.now += 5_000;
    // Another worker is faster to log in and gets the task.
    let other = assigned(&world.join(2, SMALL, 0))[0].1;
    assert_eq!(other.task, lease.task);
    assert!(other.fence > lease.fence, "fences grow across restarts");
    let commands = rejoin(&mut world, 3, 1, 0, vec![held(&lease, Some(5_000))]);
    assert_eq!(revoked(&commands), [(2, other.fence)]);
    assert_eq!(world.view(1, 0).workers, ["w1"]);
    // A third says it has it too, but started later.
    let late = Held { task: lease.task, fence: Fence(lease.fence.0 + 1), running: Some(10), mac: lease.mac };
    let commands = rejoin(&mut world, 4, 4, 0, vec![late]);
    assert_eq!(revoked(&commands), [(4, late.fence)]);
    world.complete(3, &lease);
    assert_eq!(world.done(1), 1);
}

#[test]
fn what_is_held_of_a_finished_or_unknown_task_is_revoked() {
    let mut world = World::flat();
    world.submit(spec(1, &[1, 1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    world.complete(1, &lease);
    let strange = Held {
        task: arborist_core::ids::TaskId([9; 32]),
        fence: Fence(5_000_000),
        running: None,
        mac: Mac::default(),
    };
    let commands = rejoin(&mut world, 2, 7, 0, vec![held(&lease, Some(1)), strange]);
    assert_eq!(revoked(&commands), [(2, lease.fence), (2, strange.fence)]);
}

#[test]
fn a_second_login_of_a_name_ends_the_first() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    let commands = rejoin(&mut world, 2, 1, 0, vec![]);
    assert_eq!(world.engine.workers().len(), 1);
    assert_eq!(assigned(&commands)[0].0, 2);
    assert_eq!(world.complete(1, &lease), [], "the old session is nobody");
    assert_eq!(world.done(1), 0);
}

#[test]
fn results_for_tasks_unknown_or_done_change_nothing() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    world.complete(1, &lease);
    let before = world.engine.job(JobId(1));
    let unknown = Assignment { task: arborist_core::ids::TaskId([1; 32]), ..lease };
    for (again, fence) in [(lease, lease.fence), (lease, Fence(999)), (unknown, lease.fence)] {
        let commands = world.complete(1, &Assignment { fence, ..again });
        assert!(matches!(notices(&commands)[0], Notice::LateResult { counted: false, .. }));
        assert_eq!(world.engine.job(JobId(1)), before);
    }
}

#[test]
fn who_holds_a_lease_may_write_its_proof() {
    let mut world = World::flat();
    world.submit(spec(1, &[1, 1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    world.join(2, SMALL, 0);
    assert!(world.engine.holds(Session(1), &lease.task));
    assert!(!world.engine.holds(Session(2), &lease.task));
    assert!(!world.engine.holds(Session(3), &lease.task));
    world.complete(1, &lease);
    assert!(!world.engine.holds(Session(1), &lease.task), "a finished proof is nobody's to write");
}
