//! What one machine says dooms no task and enlarges none; it rests, whoever logs in from there.

mod engine_world;

use arborist_core::engine::*;
use arborist_core::profile::Profile;
use engine_world::*;
use rstest::rstest;

#[rstest]
#[case(Reason::StoreUnavailable)]
#[case(Reason::HandedBack)]
fn what_one_machine_can_not_do_goes_to_another(#[case] reason: Reason) {
    let mut world = World::flat();
    world.join(1, SMALL, 0);
    world.join(2, SMALL, 0);
    let (first, lease) = assigned(&world.submit(spec(1, &[0], 1)))[0];
    assert_eq!(assigned(&world.fail(first, &lease, reason)), [], "a little later");
    let again = world.alive(600);
    assert_eq!((again.len(), again[0].1.task), (1, lease.task));
    assert_ne!(again[0].0, first);
    assert_eq!(world.view(1, 0).attempts, 0);
    // For a while, and only as long as there is another.
    world.fail(again[0].0, &again[0].1, reason);
    assert_eq!(world.alive(2_000).len(), 1);
}

#[test]
fn a_machine_without_the_store_rests_while_others_prove() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 40], 1));
    let mut bad = assigned(&world.join(1, SMALL, 0))[0].1;
    let mut good = assigned(&world.join(2, SMALL, 0))[0].1;
    for round in 1..=3 {
        good = assigned(&world.complete(2, &good))[0].1;
        let next = assigned(&world.fail(1, &bad, Reason::StoreUnavailable));
        assert_eq!(next.is_empty(), round == 3, "round {round}");
        bad = next.first().map_or(bad, |(_, lease)| *lease);
    }
    let again = worker("renamed", "n1", SMALL, 0);
    let commands = world.on(Event::Joined { session: Session(3), worker: again, held: vec![] });
    assert_eq!(assigned(&commands), [], "a new login washes nothing off");
    assert_eq!(world.alive(1_000).len(), 2, "and then both of its workers try again");
}

#[test]
fn one_machine_that_runs_out_of_memory_does_not_enlarge_a_whole_block() {
    let mut world = World::new(Config::new(Profile::rfp()).with_larger_classes());
    world.submit(spec(1, &[0; 200], 1));
    (2..=5).for_each(|n| _ = world.join(n, SMALL, 0));
    let mut leases: Vec<_> = assigned(&world.join(1, SMALL, 0));
    let mut deaths = 0;
    while let Some((_, lease)) = leases.pop().filter(|_| deaths < 100) {
        deaths += 1;
        world.now += 50;
        let commands = world.fail(1, &lease, Reason::OutOfMemory);
        leases.extend(assigned(&commands).into_iter().filter(|(session, _)| *session == 1));
    }
    let larger = |world: &World| {
        let rows = world.engine.demand(0).into_iter();
        rows.filter(|row| row.needs.memory_mib > SMALL.memory_mib).map(|row| row.ready).sum::<u32>()
    };
    assert_eq!(larger(&world), 0, "after {deaths}");
    // The kernel's word is enough by itself, until the job is revived.
    let lease = assigned(&world.join(6, SMALL, 0))[0].1;
    world.on(Event::Left(Session(6), Gone::Dead));
    world.on(Event::OutOfMemory { worker: "w6".into(), incident: "a".into() });
    assert_eq!(larger(&world), 1, "{}", lease.circuit);
    world.on(Event::Cancel(JobId(1)));
    world.on(Event::Revive(JobId(1)));
    assert_eq!(larger(&world), 0);
}

#[test]
fn the_only_machine_is_believed_after_all_attempts() {
    let mut world =
        World::new(Config { max_attempts: 3, ..Config::new(Profile::rfp()).with_larger_classes() });
    world.submit(spec(1, &[0], 1));
    let mut lease = assigned(&world.join(1, SMALL, 0))[0].1;
    for death in 1..=3 {
        world.fail(1, &lease, Reason::OutOfMemory);
        let next = world.alive(60_000);
        assert_eq!(next.is_empty(), death == 3, "{death}");
        lease = next.first().map_or(lease, |(_, lease)| *lease);
    }
    assert!(matches!(world.view(1, 0).waits, Some(Waits::NoFittingWorker(_))));
}

/// One worker says of every task that its input is bad, and logs in again when it would rest, under another name.
#[rstest]
#[case::alone(false)]
#[case::among_others(true)]
fn one_machine_alone_does_not_doom_a_block(#[case] others: bool) {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 200], 1));
    if others {
        world.join(900, SMALL, 0);
    }
    let mut leases: Vec<Assignment> = vec![];
    for round in 1..=150 {
        if let Some(lease) = leases.pop() {
            let commands = world.fail(round - 1, &lease, Reason::BadInput);
            leases = assigned(&commands).into_iter().filter(|(s, _)| *s != 900).map(|(_, l)| l).collect();
        }
        let worker = worker(&format!("w{}", round % 2), "n1", SMALL, 0);
        world.now += 100;
        let commands = world.on(Event::Joined { session: Session(round), worker, held: vec![] });
        leases.extend(assigned(&commands).into_iter().map(|(_, lease)| lease));
        leases.truncate(1);
    }
    let failed: u32 = world.engine.job(JobId(1)).unwrap().counts.iter().map(|c| c.failed).sum();
    assert!(failed < 10 && (failed == 0 || !others), "{failed}");
}

#[test]
fn a_poison_task_on_the_only_machine_is_given_up_in_the_end() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let mut lease = assigned(&world.join(1, SMALL, 0))[0].1;
    for attempt in 1..=5 {
        world.fail(1, &lease, Reason::BadInput);
        let next = world.alive(60_000);
        assert_eq!(next.is_empty(), attempt == 5);
        lease = next.first().map_or(lease, |(_, lease)| *lease);
    }
    assert_eq!(world.view(1, 0).state, TaskState::Failed);
    let bytes = world.engine.snapshot();
    for engine in [world.restored(Some(&bytes), &[]), world.restored(None, &world.journal)] {
        assert_eq!(engine.task(JobId(1), lease.node).unwrap().state, TaskState::Failed);
    }
}

#[test]
fn attempts_used_up_on_one_machine_are_not_the_end_while_there_is_another() {
    let mut world = World::new(Config { max_attempts: 2, ..flat_config() });
    world.submit(spec(1, &[1], 1));
    let mut lease = assigned(&world.join(1, SMALL, 0))[0].1;
    // The other is connected and falls silent now and then.
    world.join(2, SMALL, 0);
    world.submit(spec(2, &[1; 9], 2));
    for _ in 0..2 {
        world.on(Event::Drain(Session(2)));
        world.fail(1, &lease, Reason::Error);
        let next = world.alive(60_000);
        lease =
            next.iter().find(|(session, l)| *session == 1 && l.job == JobId(1)).map_or(lease, |(_, l)| *l);
        let back = worker("w2", "n2", SMALL, 0);
        world.on(Event::Joined { session: Session(2 + world.now), worker: back, held: vec![] });
    }
    assert!(world.view(1, 0).attempts <= 2);
}

#[test]
fn a_chatty_worker_does_not_fill_the_memory() {
    for reason in [Reason::HandedBack, Reason::Error] {
        let mut world = World::flat();
        world.submit(spec(1, &[1; 2_000], 1));
        let mut lease: Vec<_> = assigned(&world.join(1, SMALL, 0));
        let before = world.engine.snapshot().len();
        for _ in 0..500 {
            let Some((session, l)) = lease.pop() else { break };
            let text = "\u{10ffff}".repeat(1_000);
            let mut out = vec![];
            let failed =
                Event::Failed { session: Session(session), task: l.task, fence: l.fence, reason, text };
            world.engine.handle(world.now, failed, &mut out);
            lease = assigned(&out);
        }
        let grown = world.engine.snapshot().len() - before;
        assert!(grown < 500 * 400, "{reason:?}: {grown}");
    }
}

#[test]
fn what_was_only_queued_is_not_charged_for_its_workers_deaths() {
    let mut world = World::flat();
    world.submit(spec(1, &[0, 0], 1));
    for life in 1..=5 {
        let worker = worker("w1", "n1", SMALL, 1);
        let commands = world.on(Event::Joined { session: Session(life), worker, held: vec![] });
        let nodes: Vec<_> = assigned(&commands).iter().map(|(_, lease)| lease.node.0).collect();
        assert_eq!(nodes, [0, 1], "0 runs, 1 is queued");
        world.on(Event::Left(Session(life), Gone::Dead));
    }
    assert_eq!((world.view(1, 0).attempts, world.view(1, 1).attempts), (1, 0));
}

#[test]
fn a_job_with_a_task_that_is_given_up_is_at_risk() {
    let mut world = World::flat();
    world.submit(JobSpec { deadline: Some(world.now + 3_600_000), ..spec(1, &[1, 0], 1) });
    let (first, vm) = assigned(&world.join(1, LARGE, 0))[0];
    assert_eq!(first, 1);
    world.join(2, LARGE, 0);
    world.fail(1, &vm, Reason::BadInput);
    let again = world.alive(2_000);
    world.fail(again[0].0, &again[0].1, Reason::BadInput);
    let told = notices(&world.after(2_000));
    assert!(told.contains(&Notice::AtRisk(JobId(1), true)), "{told:?}");
}
