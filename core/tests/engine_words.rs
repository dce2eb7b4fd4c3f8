//! What a machine says counts for no more than it can know: of its speed, of its leases, of its own keys, of tasks that
//! others share.

mod engine_world;

use arborist_core::engine::*;
use arborist_core::profile::Needs;
use engine_world::*;
use rstest::rstest;

fn login(session: u64, name: &str, capacity: Needs, serves: Serves, held: Vec<Held>) -> Event {
    let worker = WorkerSpec { serves, ..worker(name, &format!("on-{name}"), capacity, 0) };
    Event::Joined { session: Session(session), worker, held }
}

fn of(commands: &[Command], session: u64) -> Vec<Assignment> {
    assigned(commands).into_iter().filter(|(s, _)| *s == session).map(|(_, lease)| lease).collect()
}

/// A machine says of its first proofs how long they took, and then sits on a task while another is idle.
#[rstest]
#[case::says_what_is_so(30_000)]
#[case::says_weeks(u32::MAX)]
fn what_a_machine_says_of_its_own_speed_leaves_its_tasks_to_second_copies(#[case] millis: u32) {
    let mut world = World::rfp();
    world.submit(spec(1, &[0; 8], 1));
    // It names as many cores as nobody else has.
    let mut lease = of(&world.on(login(1, "odd", Needs { cores: 9, ..SMALL }, Serves::All, vec![])), 1)[0];
    for _ in 0..5 {
        world.now += 30_000;
        let result = Done { millis, ..done(lease.task, lease.fence) };
        lease = of(&world.on(Event::Completed(Session(1), result)), 1)[0];
    }
    let mut commands = world.on(login(2, "honest", SMALL, Serves::All, vec![]));
    for _ in 0..7_200 {
        for own in of(&std::mem::take(&mut commands), 2) {
            commands.extend(world.complete(2, &own));
        }
        world.now += 1_000;
        commands.extend(world.on(Event::Heartbeat(Session(1), vec![lease.fence])));
        commands.extend(world.on(Event::Heartbeat(Session(2), vec![])));
        commands.extend(world.on(Event::Tick));
    }
    assert_eq!(world.view(1, lease.node.0).state, TaskState::Done, "two hours, and nobody else was asked");
}

#[rstest]
#[case::late(true)]
#[case::in_time(false)]
fn no_proof_took_longer_than_since_its_lease_was_given_out(#[case] late: bool) {
    let mut world = World::flat();
    world.submit(spec(1, &[0; 8], 1));
    let wide = Needs { cores: 64, memory_mib: 128 << 10 };
    let leases = of(&world.on(login(1, "w", wide, Serves::All, vec![])), 1);
    world.now += 20_000;
    if late {
        world.on(Event::Left(Session(1), Gone::Dead));
        world.on(login(2, "w", Needs { cores: 1, memory_mib: 1 }, Serves::All, vec![]));
    }
    for lease in leases {
        let session = Session(if late { 2 } else { 1 });
        let result = Done { millis: u32::MAX, ..done(lease.task, lease.fence) };
        for task in checks(&world.on(Event::Completed(session, result))) {
            world.checked(task, Finding::Valid(proof_of(task, "w")));
        }
    }
    assert_eq!(world.done(1), 8);
    let median = world.engine.learned().median(arborist_core::circuit::Kind::Base, 0);
    assert!(median <= 30_000, "{median} ms are learned 20 s after the lease");
}

/// Two namespaces have a task; in one of them there is one machine, and it fails.
#[rstest]
#[case::quarantined(Reason::Error)]
#[case::enlarged(Reason::OutOfMemory)]
fn the_only_machine_of_one_namespace_decides_nothing_for_another(#[case] reason: Reason) {
    let mut world = World::new(flat_config().with_larger_classes());
    for (id, namespace) in [(1, "a"), (2, "b")] {
        let (namespace, prover_id) = (namespace.to_owned(), [id as u8; 32]);
        world.submit(JobSpec { namespace, prover_id, ..spec(id, &[0], 1) });
    }
    let only = |namespace: &str| Serves::only([namespace]);
    let mut commands = world.on(login(1, "broken", SMALL, only("a"), vec![]));
    // b's machines are busy
    let own = JobSpec { namespace: "b".into(), priority: 1, ..spec(3, &[0, 0], 9) };
    world.submit(own);
    for session in 2..=3 {
        world.on(login(session, &format!("well{session}"), SMALL, only("b"), vec![]));
    }
    for _ in 0..200 {
        for lease in of(&commands, 1) {
            world.fail(1, &lease, reason);
        }
        world.now += 1_000;
        commands = world.on(Event::Heartbeat(Session(1), vec![]));
        for session in 2..=3 {
            world.on(Event::Heartbeat(Session(session), (1..100).map(Fence).collect()));
        }
        commands.extend(world.on(Event::Tick));
    }
    let base = world.view(2, 0);
    assert_ne!(base.state, TaskState::Failed, "{base:?}");
    let large = world.engine.demand(0).into_iter().find(|row| row.needs.memory_mib > SMALL.memory_mib);
    assert_eq!(large, None);
}

/// One machine ran out of memory with a task once, which is charged to nobody, and is busy; another fails it.
#[test]
fn a_machine_that_failed_for_another_reason_is_still_one_that_could() {
    let mut world = World::new(flat_config().with_larger_classes());
    world.submit(spec(1, &[0], 1));
    let first = of(&world.on(login(1, "w1", SMALL, Serves::All, vec![])), 1)[0];
    world.submit(JobSpec { priority: 9, ..spec(2, &[0], 2) });
    world.on(login(2, "tiny", Needs { cores: 1, memory_mib: 1 }, Serves::All, vec![]));
    // w1 goes on with what is more important
    let busy = of(&world.fail(1, &first, Reason::OutOfMemory), 1)[0];
    assert_eq!(busy.job, JobId(2));
    let mut commands = world.on(login(3, "w3", SMALL, Serves::All, vec![]));
    for _ in 0..200 {
        for lease in of(&commands, 3) {
            world.fail(3, &lease, Reason::Error);
        }
        world.now += 1_000;
        commands = world.on(Event::Heartbeat(Session(1), vec![busy.fence]));
        commands.extend(world.on(Event::Heartbeat(Session(3), vec![])));
        commands.extend(world.on(Event::Tick));
    }
    assert_ne!(world.view(1, 0).state, TaskState::Failed, "{:?}", world.view(1, 0));
}

/// After a restart a worker brings back, time and again, a lease that ended before it, and says that it runs for ages.
#[test]
fn a_lease_from_before_a_restart_that_failed_is_not_taken_up_again_by_naming_it() {
    let mut world = World::flat();
    world.submit(spec(1, &[0], 1));
    let lease = of(&world.on(login(1, "w", SMALL, Serves::All, vec![])), 1)[0];
    world.fail(1, &lease, Reason::Error);
    world.engine = world.restored(None, &world.journal.clone());
    for session in 10..14 {
        world.on(login(session, "w", SMALL, Serves::All, vec![held(&lease, Some(1 << 40))]));
        world.on(Event::Tick);
    }
    assert_eq!(world.view(1, lease.node.0).attempts, 1, "{:?}", world.view(1, lease.node.0));
}

#[test]
fn how_long_a_lease_runs_counts_from_when_it_was_given_out_whatever_its_worker_says() {
    let mut world = World::flat();
    world.submit(spec(1, &[0], 1));
    let lease = of(&world.on(login(1, "w", SMALL, Serves::All, vec![])), 1)[0];
    world.now += 1_000;
    world.on(Event::Left(Session(1), Gone::Dead));
    world.on(login(2, "w", SMALL, Serves::All, vec![held(&lease, Some(1 << 40))]));
    world.on(Event::Tick);
    let task = world.view(1, lease.node.0);
    assert_eq!((task.state, task.attempts), (TaskState::Leased, 0), "given out a second ago");
}

/// One machine answers everything with "my key is taken" or "my own proof is missing"; nothing lies there.
#[rstest]
#[case::taken(true)]
#[case::missing(false)]
fn a_machine_that_blames_its_own_keys_for_nothing_rests(#[case] taken: bool) {
    let mut world = World::flat();
    world.submit(spec(1, &[0; 100], 1));
    let mut honest = of(&world.on(login(2, "honest", SMALL, Serves::All, vec![])), 2)[0];
    let mut lease = of(&world.on(login(1, "w", SMALL, Serves::All, vec![])), 1).pop();
    let mut had = 0;
    while let Some(own) = lease {
        had += 1;
        let reason = if taken { Reason::BadChild(own.task) } else { Reason::MissingChild(own.task) };
        let mut commands = world.fail(1, &own, reason);
        for task in checks(&commands) {
            commands.extend(world.checked(task, Finding::Missing));
        }
        lease = of(&commands, 1).pop();
        honest = of(&world.complete(2, &honest), 2)[0];
    }
    assert!(had < 10, "{had} leases in no time");
}

#[test]
fn an_answer_about_an_earlier_root_says_nothing_of_the_next() {
    let mut world = World::flat();
    world.submit(spec(1, &[0], 1));
    let base = of(&world.on(login(1, "liar", SMALL, Serves::All, vec![])), 1)[0];
    let root = of(&world.complete(1, &base), 1)[0];
    let commands =
        world.on(Event::Completed(Session(1), Done { found: true, ..done(root.task, root.fence) }));
    assert!(commands.contains(&Command::CheckRoot(JobId(1))));
    assert_eq!(checks(&commands), [root.task]);
    world.checked(root.task, Finding::Missing);
    world.on(login(2, "honest", SMALL, Serves::All, vec![]));
    let waited = [world.alive(2_000), world.alive(2_000)].concat();
    let (_, again) =
        waited.into_iter().find(|(session, lease)| (*session, lease.task) == (2, root.task)).unwrap();
    let check = Command::CheckRoot(JobId(1));
    assert!(!world.complete(2, &again).contains(&check), "the answer about the first is yet to come");
    let late = world.on(Event::RootChecked(JobId(1), Err("it is not in the store".into())));
    assert_eq!((notices(&late), late.contains(&check)), (vec![], true));
    world.on(Event::RootChecked(JobId(1), Ok(())));
    assert_eq!(world.state(1), JobState::Complete);
}

#[test]
fn a_flood_of_late_results_keeps_no_complaint_waiting() {
    let mut world = World::flat();
    world.submit(spec(1, &[0; 1_200], 1));
    let lease = of(&world.on(login(1, "honest", SMALL, Serves::All, vec![])), 1)[0];
    world.on(login(2, "flood", Needs { cores: 1, memory_mib: 1 }, Serves::All, vec![]));
    let ids = world.engine.prepared_job(JobId(1)).unwrap().ids.clone();
    let mut looks = std::collections::VecDeque::new();
    for id in &ids[100..1_200] {
        looks.extend(checks(&world.on(Event::Completed(Session(2), done(*id, Fence(1 << 40))))));
    }
    looks.extend(checks(&world.fail(1, &lease, Reason::BadChild(lease.task))));
    let mut before = 0;
    while let Some(task) = looks.pop_front().filter(|task| *task != lease.task) {
        before += 1;
        looks.extend(checks(&world.checked(task, Finding::Missing)));
    }
    assert!(before <= 128, "{before} looks at what one machine made up come first");
}
