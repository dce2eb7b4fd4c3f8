//! Failures: what is charged, where and when it is tried again, when it is given up.

mod engine_world;

use arborist_core::circuit::Kind;
use arborist_core::engine::*;
use arborist_core::profile::{Needs, Profile};
use engine_world::*;
use rstest::rstest;

/// One `vm` task leased to one worker, others on other machines waiting.
fn one_task(workers: u64) -> (World, u64, Assignment) {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    (2..=workers).for_each(|n| _ = world.join(n, SMALL, 0));
    (world, 1, lease)
}

#[rstest]
#[case(Reason::Error)]
#[case(Reason::TimedOut)]
#[case(Reason::BadProof)]
#[case(Reason::Oversize)]
#[case(Reason::OutOfMemory)]
fn attempts_are_bounded_by_reason_and_the_job_goes_on(#[case] reason: Reason) {
    let (mut world, mut session, mut lease) = one_task(3);
    for attempt in 1..=5 {
        let commands = world.fail(session, &lease, reason);
        assert_eq!(world.view(1, 0).attempts, attempt);
        if attempt == 5 {
            let quarantined = notices(&commands);
            assert!(
                matches!(&quarantined[0], Notice::Quarantined { attempts: 5, why, .. } if why.contains("on purpose"))
            );
            break;
        }
        let mut leases = assigned(&commands);
        leases.extend(world.alive(60_000));
        (session, lease) = leases[0];
    }
    assert_eq!(world.view(1, 0).state, TaskState::Failed);
    assert_eq!(world.state(1), JobState::Proving, "only its deadline ends a job");
    assert_eq!(world.engine.job(JobId(1)).unwrap().counts[0].failed, 1);
    // It stays so after a restart, and a user may have it tried again.
    assert_eq!(
        world.restored(None, &world.journal).task(JobId(1), lease.node).unwrap().state,
        TaskState::Failed
    );
    let commands = world.on(Event::Revive(JobId(1)));
    assert_eq!(world.view(1, 0).attempts, 0);
    assert_eq!(assigned(&commands).len(), 1);
}

#[test]
fn a_failing_task_does_not_go_to_the_same_machine_twice() {
    let (mut world, session, lease) = one_task(1);
    // Another worker on the same machine, and one elsewhere that is busy.
    let twin = worker("twin", "n1", SMALL, 0);
    world.on(Event::Joined { session: Session(2), worker: twin, held: vec![] });
    world.join(3, SMALL, 0);
    world.submit(spec(2, &[1], 2));
    let commands = world.submit(spec(3, &[1], 3));
    let busy = assigned(&commands)[0].1;
    world.fail(session, &lease, Reason::Error);
    world.after(10_000);
    assert_eq!(world.view(1, 0).waits, Some(Waits::AvoidsNodes(1)), "two workers there are idle");
    let commands = world.complete(3, &busy);
    let (to, again) = assigned(&commands)[0];
    assert_eq!((to, again.task), (3, lease.task));
}

#[test]
fn a_failing_task_goes_back_when_there_is_no_other_machine() {
    let (mut world, session, lease) = one_task(1);
    world.fail(session, &lease, Reason::Error);
    let commands = world.after(10_000);
    assert_eq!(assigned(&commands)[0].0, 1);
}

#[test]
fn retries_wait_longer_each_time() {
    let (mut world, session, mut lease) = one_task(1);
    let mut waits = vec![];
    for _ in 0..4 {
        world.fail(session, &lease, Reason::Error);
        assert_eq!(world.view(1, 0).state, TaskState::Delayed);
        let Some(Waits::Backoff(until)) = world.view(1, 0).waits else { panic!("no backoff") };
        waits.push(until - world.now);
        lease = world.alive(until - world.now)[0].1;
    }
    for (wait, least) in waits.iter().zip([1_000, 2_000, 4_000, 8_000]) {
        assert!((least..=2 * least).contains(wait), "{waits:?}");
    }
}

#[rstest]
#[case(Reason::StoreUnavailable)]
#[case(Reason::HandedBack)]
fn some_failures_are_charged_to_nobody_but_do_not_spin(#[case] reason: Reason) {
    let (mut world, session, mut lease) = one_task(1);
    for _ in 0..20 {
        assert_eq!(assigned(&world.fail(session, &lease, reason)), [], "not at once");
        lease = world.alive(16_000)[0].1;
    }
    assert_eq!(world.view(1, 0).attempts, 0);
}

#[test]
fn an_oom_asks_for_the_next_larger_class() {
    let huge = Needs { cores: 32, memory_mib: 256 << 10 };
    let mut config = Config::new(Profile::rfp());
    config.classes.push(huge);
    let mut world = World::new(config);
    world.submit(spec(1, &[0], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    assert_eq!(lease.needs, SMALL);
    world.fail(1, &lease, Reason::OutOfMemory);
    let commands = world.after(0);
    assert!(notices(&commands).contains(&Notice::NoFittingWorker {
        kind: Kind::Base,
        needs: LARGE,
        ready: 1
    }));
    assert_eq!(world.view(1, 0).waits, Some(Waits::NoFittingWorker(LARGE)));
    assert_eq!(notices(&world.after(1)), [], "said once");
    let lease = assigned(&world.join(2, LARGE, 0))[0].1;
    assert_eq!(lease.needs, LARGE);
    world.fail(2, &lease, Reason::OutOfMemory);
    let restored = world.restored(None, &world.journal);
    assert_eq!(restored.task(JobId(1), lease.node).unwrap().waits, Some(Waits::NoFittingWorker(huge)));
    let lease = assigned(&world.join(3, huge, 0))[0].1;
    // There is no larger one: an error like any other.
    world.fail(3, &lease, Reason::OutOfMemory);
    assert_eq!(world.view(1, 0).state, TaskState::Delayed);
    assert_eq!(world.view(1, 0).attempts, 3);
}

#[test]
fn a_bad_input_is_given_up_at_once() {
    let (mut world, session, lease) = one_task(2);
    let commands = world.fail(session, &lease, Reason::BadInput);
    assert!(matches!(&notices(&commands)[0], Notice::Quarantined { attempts: 1, .. }));
    assert_eq!(world.view(1, 0).state, TaskState::Failed);
    let Some(Waits::Quarantined(1, why)) = world.view(1, 0).waits else { panic!("no reason") };
    assert_eq!(why, "bad input: on purpose");
}

/// vm done by w1, its kernel leased to w2.
fn kernel_on_another() -> (World, Assignment, Assignment) {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let vm = assigned(&world.join(1, SMALL, 0))[0].1;
    world.join(2, SMALL, 0);
    world.on(Event::Draining(Session(1)));
    let kernel = assigned(&world.complete(1, &vm))[0];
    assert_eq!(kernel.0, 2);
    (world, vm, kernel.1)
}

#[test]
fn a_bad_child_is_made_again_and_its_maker_suspected() {
    let (mut world, vm, kernel) = kernel_on_another();
    world.join(3, SMALL, 0);
    let commands = world.fail(2, &kernel, Reason::BadChild(vm.task));
    let quarantine = |c: &&Command| matches!(c, Command::Quarantine { task, worker: Some(worker), .. } if *task == vm.task && worker == "w1");
    assert_eq!(commands.iter().filter(quarantine).count(), 1);
    assert!(notices(&commands).contains(&Notice::Suspected { worker: "w1".into(), times: 1 }));
    assert_eq!(world.view(1, kernel.node.0).waits, Some(Waits::Children(1)));
    assert_eq!((world.view(1, 0).attempts, world.done(1)), (1, 0));
    let restored = world.restored(None, &world.journal);
    assert_eq!(restored.open_tasks(JobId(1)).len(), 4);
    let commands = world.after(2_000);
    drain(&mut world, commands);
    assert_eq!(world.state(1), JobState::Complete);
}

#[test]
fn blaming_what_is_no_child_is_an_error_of_the_one_who_blames() {
    let (mut world, _, kernel) = kernel_on_another();
    let stranger = arborist_core::ids::TaskId([7; 32]);
    let commands = world.fail(2, &kernel, Reason::BadChild(stranger));
    assert_eq!(notices(&commands), []);
    assert_eq!((world.done(1), world.view(1, kernel.node.0).attempts), (1, 1));
}

#[test]
fn garbage_at_a_tasks_own_key_is_moved_aside_and_charged_to_nobody() {
    let (mut world, _, kernel) = kernel_on_another();
    let commands = world.fail(2, &kernel, Reason::BadChild(kernel.task));
    let quarantine =
        |c: &&Command| matches!(c, Command::Quarantine { task, worker: None, .. } if *task == kernel.task);
    assert_eq!(commands.iter().filter(quarantine).count(), 1);
    assert_eq!((world.done(1), world.view(1, kernel.node.0).attempts), (1, 0));
    let commands = world.after(1_000);
    assert_eq!(assigned(&commands)[0].1.task, kernel.task);
}

#[test]
fn a_worker_suspected_three_times_gets_no_more() {
    let mut world = World::flat();
    world.join(1, LARGE, 0);
    let vms = assigned(&world.submit(spec(1, &[1; 4], 1)));
    world.on(Event::Draining(Session(1)));
    (2..8).for_each(|n| _ = world.join(n, SMALL, 0));
    let mut kernels = vec![];
    for (_, vm) in &vms {
        kernels.extend(assigned(&world.complete(1, vm)));
    }
    for ((session, kernel), (_, vm)) in kernels.iter().zip(&vms).take(3) {
        world.fail(*session, kernel, Reason::BadChild(vm.task));
    }
    assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Barred));
    world.on(Event::Left(Session(1), Gone::Dead));
    world.submit(spec(2, &[1; 9], 2));
    assert_eq!(assigned(&world.join(1_000, SMALL, 0)).len(), 1);
    let back = worker("w1", "n1", LARGE, 0);
    let commands = world.on(Event::Joined { session: Session(9), worker: back, held: vec![] });
    assert_eq!(assigned(&commands), [], "a new login does not help");
}

#[test]
fn a_bad_root_is_made_again_a_few_times() {
    let mut world = World::flat();
    world.submit(spec(1, &[0], 1));
    let base = assigned(&world.join(1, SMALL, 0))[0].1;
    let (mut session, mut root) = assigned(&world.complete(1, &base))[0];
    world.join(2, SMALL, 0);
    let mut sessions = vec![];
    for attempt in 1..=5 {
        assert!(world.complete(session, &root).contains(&Command::CheckRoot(JobId(1))));
        let commands = world.on(Event::RootChecked(JobId(1), Err("does not verify".into())));
        assert!(matches!(&commands[0], Command::Quarantine { task, .. } if *task == root.task));
        assert_eq!(world.state(1), JobState::Proving);
        assert_eq!(world.view(1, root.node.0).attempts, attempt);
        if attempt < 5 {
            (session, root) = world.alive(60_000)[0];
            sessions.push(session);
            world.on(Event::Heartbeat(Session(session), vec![root.fence]));
        }
    }
    // First elsewhere; when it failed everywhere anywhere, until the first worker is barred.
    assert_eq!(sessions, [2, 1, 1, 2]);
    assert_eq!(world.view(1, root.node.0).state, TaskState::Failed);
    let (session, root) = assigned(&world.on(Event::Revive(JobId(1))))[0];
    world.complete(session, &root);
    world.on(Event::RootChecked(JobId(1), Ok(())));
    assert_eq!(world.state(1), JobState::Complete);
}

#[test]
fn a_proof_that_runs_too_long_is_stopped_and_charged() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    assert_eq!(lease.limit, 600_000, "20 times 30 s");
    for _ in 0..59 {
        world.after(10_000);
        world.on(Event::Heartbeat(Session(1), vec![lease.fence]));
    }
    assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Live));
    let commands = world.after(10_000);
    assert_eq!(revoked(&commands), [(1, lease.fence)]);
    let view = world.view(1, 0);
    assert_eq!((view.state, view.attempts), (TaskState::Delayed, 1));
}
