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
    world.join(2, SMALL, 0);
    let (session, again) = assigned(&world.fail(1, &lease, Reason::OutOfMemory))[0];
    assert_eq!((session, again.needs), (2, SMALL), "the machine may be to blame");
    assert_eq!(world.view(1, lease.node.0).attempts, 0);
    world.fail(2, &again, Reason::OutOfMemory);
    let commands = world.after(0);
    assert!(notices(&commands).contains(&Notice::NoFittingWorker {
        namespace: String::new(),
        kind: Kind::Base,
        needs: LARGE,
        ready: 1
    }));
    assert_eq!(world.view(1, 0).waits, Some(Waits::NoFittingWorker(LARGE)));
    assert_eq!(notices(&world.after(1)), [], "said once");
    let lease = assigned(&world.join(3, LARGE, 0))[0].1;
    assert_eq!(lease.needs, LARGE);
    world.join(4, LARGE, 0);
    let again = assigned(&world.fail(3, &lease, Reason::OutOfMemory))[0].1;
    world.fail(4, &again, Reason::OutOfMemory);
    let restored = world.restored(None, &world.journal);
    assert_eq!(restored.task(JobId(1), lease.node).unwrap().waits, Some(Waits::NoFittingWorker(huge)));
    let lease = assigned(&world.join(5, huge, 0))[0].1;
    // There is no larger one: an error like any other.
    world.fail(5, &lease, Reason::OutOfMemory);
    assert_eq!(world.view(1, 0).state, TaskState::Delayed);
    assert_eq!(world.view(1, 0).attempts, 3);
}

#[test]
fn larger_machines_have_twice_and_four_times_the_memory() {
    let mib = |cores, gib: u32| Needs { cores, memory_mib: gib << 10 };
    for (profile, classes) in [
        (Profile::local(), vec![mib(1, 1), mib(1, 2), mib(1, 4)]),
        (Profile::rfp(), vec![mib(8, 16), mib(8, 32), mib(8, 64), mib(32, 64), mib(32, 128), mib(32, 256)]),
    ] {
        assert_eq!(Config::new(profile).with_larger_classes().classes, classes);
    }
    let mut world = World::new(Config::new(Profile::rfp()).with_larger_classes());
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, LARGE, 0))[0].1;
    assert_eq!(lease.circuit.kind(), Kind::Vm);
    world.join(2, LARGE, 0);
    let again = assigned(&world.fail(1, &lease, Reason::OutOfMemory))[0].1;
    world.fail(2, &again, Reason::OutOfMemory);
    assert_eq!(world.view(1, 0).waits, Some(Waits::NoFittingWorker(mib(32, 128))));
}

#[test]
fn a_bad_input_is_given_up_when_two_machines_say_so() {
    let (mut world, session, lease) = one_task(2);
    assert_eq!(notices(&world.fail(session, &lease, Reason::BadInput)), []);
    let (other, again) = world.alive(2_000)[0];
    assert_eq!((other, again.task), (2, lease.task));
    let commands = world.fail(2, &again, Reason::BadInput);
    assert!(matches!(&notices(&commands)[0], Notice::Quarantined { attempts: 2, .. }));
    assert_eq!(world.view(1, 0).state, TaskState::Failed);
    let restored = world.restored(None, &world.journal);
    assert_eq!(restored.task(JobId(1), lease.node).unwrap().state, TaskState::Failed);
    let Some(Waits::Quarantined(2, why)) = world.view(1, 0).waits else { panic!("no reason") };
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
    let asked = world.fail(2, &kernel, Reason::BadChild(vm.task));
    assert_eq!((checks(&asked), notices(&asked)), (vec![vm.task], vec![]));
    assert_eq!(
        (world.view(1, 0).state, world.done(1)),
        (TaskState::Done, 1),
        "nothing before it is looked at"
    );
    let commands = world.checked(vm.task, Finding::Bad("does not verify".into()));
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
    world.fail(2, &kernel, Reason::BadChild(kernel.task));
    let commands = world.checked(kernel.task, Finding::Bad("cut off".into()));
    let quarantine =
        |c: &&Command| matches!(c, Command::Quarantine { task, worker: None, .. } if *task == kernel.task);
    assert_eq!(commands.iter().filter(quarantine).count(), 1);
    assert_eq!((world.done(1), world.view(1, kernel.node.0).attempts), (1, 0));
    assert_eq!(assigned(&commands)[0].1.task, kernel.task);
}

type Leased = Vec<(u64, Assignment)>;

/// Four `vm` proofs of w1, their kernels leased to workers 2 to 5 on machines of their own; w1 drains.
fn four_kernels_on_others() -> (World, Leased, Leased) {
    let mut world = World::flat();
    world.join(1, LARGE, 0);
    let vms = assigned(&world.submit(spec(1, &[1; 4], 1)));
    world.on(Event::Draining(Session(1)));
    (2..8).for_each(|n| _ = world.join(n, SMALL, 0));
    let mut kernels = vec![];
    for (_, vm) in &vms {
        kernels.extend(assigned(&world.complete(1, vm)));
    }
    (world, vms, kernels)
}

#[test]
fn a_worker_suspected_three_times_gets_no_more() {
    let (mut world, vms, kernels) = four_kernels_on_others();
    for ((session, kernel), (_, vm)) in kernels.iter().zip(&vms).take(3) {
        world.fail(*session, kernel, Reason::BadChild(vm.task));
        world.checked(vm.task, Finding::Bad("bad".into()));
    }
    assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Barred));
    world.on(Event::Left(Session(1), Gone::Dead));
    world.submit(spec(2, &[1; 9], 2));
    assert_eq!(assigned(&world.join(1_000, SMALL, 0)).len(), 1);
    let back = worker("w1", "n1", LARGE, 0);
    let commands = world.on(Event::Joined { session: Session(9), worker: back, held: vec![] });
    assert_eq!(assigned(&commands), [], "a new login does not help");
}

#[rstest]
#[case::its_journal(false)]
#[case::its_snapshot(true)]
fn a_revived_job_trusts_all_workers_again(#[case] snapshot: bool) {
    let (mut world, vms, kernels) = four_kernels_on_others();
    for ((session, kernel), (_, vm)) in kernels.iter().zip(&vms).take(3) {
        world.fail(*session, kernel, Reason::BadChild(vm.task));
        world.checked(vm.task, Finding::Bad("bad".into()));
    }
    assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Barred));
    let joins = |engine: &mut Engine| {
        let mut out = vec![];
        let again = worker("w1", "n1", LARGE, 0);
        engine.handle(0, Event::Joined { session: Session(90), worker: again, held: vec![] }, &mut out);
        engine.worker_state(Session(90)).unwrap()
    };
    assert_eq!(joins(&mut world.restored(None, &world.journal)), WorkerState::Barred);
    world.on(Event::Cancel(JobId(1)));
    world.on(Event::Revive(JobId(1)));
    assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Draining), "it still leaves");
    let bytes = world.engine.snapshot();
    let mut restored = match snapshot {
        true => world.restored(Some(&bytes), &[]),
        false => world.restored(None, &world.journal),
    };
    assert_eq!(joins(&mut restored), WorkerState::Live);
}

#[test]
fn a_barred_worker_that_stays_works_again_when_a_job_is_revived() {
    let mut world = World::flat();
    world.submit(spec(1, &[0], 1));
    let base = assigned(&world.join(1, SMALL, 0))[0].1;
    let mut lease = assigned(&world.complete(1, &base))[0].1;
    for _ in 0..2 {
        world.complete(1, &lease);
        world.on(Event::RootChecked(JobId(1), Err("bad".into())));
        lease = world.alive(60_000)[0].1;
    }
    world.complete(1, &lease);
    world.on(Event::RootChecked(JobId(1), Err("bad".into())));
    assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Barred), "bad roots all count");
    assert_eq!(world.alive(10_000), []);
    assert_eq!(assigned(&world.on(Event::Revive(JobId(1))))[0].0, 1);
}

#[test]
fn a_lost_child_is_made_again_and_nobody_suspected() {
    let (mut world, vm, kernel) = kernel_on_another();
    world.on(Event::Known(vec![proof_of(vm.task, "w1")]));
    world.fail(2, &kernel, Reason::MissingChild(vm.task));
    let commands = world.checked(vm.task, Finding::Missing);
    assert!(!commands.iter().any(|c| matches!(c, Command::Quarantine { .. })));
    assert_eq!(notices(&commands), []);
    let again = assigned(&commands);
    assert_eq!((again[0].0, again[0].1.task), (2, vm.task), "at once");
    assert_eq!((world.view(1, 0).attempts, world.done(1)), (0, 0));
    assert_eq!(world.view(1, kernel.node.0).attempts, 0);
    assert_eq!(world.restored(None, &world.journal).open_tasks(JobId(1)).len(), 4);
    world.join(3, SMALL, 0);
    drain(&mut world, commands);
    assert_eq!(world.state(1), JobState::Complete);
}

#[test]
fn an_own_proof_that_vanished_is_made_again() {
    let (mut world, _, kernel) = kernel_on_another();
    let commands = world.fail(2, &kernel, Reason::MissingChild(kernel.task));
    assert!(!commands.iter().any(|c| matches!(c, Command::Quarantine { .. })));
    assert_eq!((world.done(1), world.view(1, kernel.node.0).attempts), (1, 0));
    assert_eq!(assigned(&world.after(1_000))[0].1.task, kernel.task);
}

#[test]
fn a_bad_root_is_made_again_a_few_times() {
    let mut world = World::flat();
    world.submit(spec(1, &[0], 1));
    let base = assigned(&world.join(1, SMALL, 0))[0].1;
    let (mut session, mut root) = assigned(&world.complete(1, &base))[0];
    world.on(Event::Known(vec![proof_of(base.task, "w1")]));
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
    // First elsewhere; when it failed everywhere, where it did so least often.
    assert_eq!(sessions, [2, 1, 2, 1]);
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

/// Ten sound workers, 1 to 10, that take a second for a proof, and five, 11 to 15, that fail at once.
#[test]
fn a_few_broken_machines_do_not_use_up_the_attempts_of_a_block() {
    let mut world = World::flat();
    (1..=15).for_each(|n| _ = world.join(n, SMALL, 1));
    let mut running: std::collections::BTreeMap<(Millis, u64), (u64, Assignment)> = Default::default();
    let mut commands = world.submit(spec(1, &[3; 60], 1));
    let mut failures = 0;
    while world.state(1) != JobState::Complete {
        assert!(world.now < 1_000_000 + 600_000, "{:?}", world.engine.job(JobId(1)));
        let quarantined = |n: &Notice| matches!(n, Notice::Quarantined { .. });
        assert!(!notices(&commands).iter().any(quarantined), "{commands:?}");
        for (session, fence) in revoked(&commands) {
            running.retain(|(_, f), (s, _)| *f != fence.0 || *s != session);
        }
        for (session, lease) in assigned(&commands) {
            // What is queued is started by its worker when it has room: later, for all we care.
            let takes = if session > 10 { 5 } else { 1_000 };
            let queued = running.values().filter(|(s, _)| *s == session).count() as u64;
            running.insert((world.now + takes * (1 + queued), lease.fence.0), (session, lease));
        }
        let next = running.keys().next().map(|(at, _)| *at);
        let tick = world.engine.next_deadline();
        world.now = next.into_iter().chain(tick).min().unwrap().max(world.now);
        commands = if commands.contains(&Command::CheckRoot(JobId(1))) {
            world.on(Event::RootChecked(JobId(1), Ok(())))
        } else if next.is_some_and(|next| next <= world.now) {
            let (_, (session, lease)) = running.pop_first().unwrap();
            if session > 10 {
                failures += 1;
                world.fail(session, &lease, Reason::Error)
            } else {
                world.complete(session, &lease)
            }
        } else {
            let mut ticked = world.on(Event::Tick);
            for session in 1..=15 {
                let held = running.values().filter(|(s, _)| *s == session);
                let held = held.map(|(_, lease)| lease.fence).collect();
                ticked.extend(world.on(Event::Heartbeat(Session(session), held)));
            }
            ticked
        };
    }
    assert!((15..100).contains(&failures), "{failures}");
}

/// A job of many `vm` tasks and one worker that has failed `failures` times in a row.
fn failed_in_a_row(failures: u32) -> (World, Vec<Command>) {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 40], 1));
    let mut commands = world.join(1, SMALL, 0);
    for _ in 0..failures {
        let lease = assigned(&commands)[0].1;
        commands = world.fail(1, &lease, Reason::Error);
    }
    (world, commands)
}

#[test]
fn a_worker_that_fails_three_times_rests_longer_each_time() {
    let (_, commands) = failed_in_a_row(2);
    assert_eq!(assigned(&commands).len(), 1);
    let (mut world, mut commands) = failed_in_a_row(3);
    for rest in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        assert_eq!(assigned(&commands), []);
        assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Resting));
        assert_eq!(notices(&world.after(0)), [], "it fits, later");
        world.now += rest - 1;
        world.on(Event::Heartbeat(Session(1), vec![]));
        assert!(world.engine.next_deadline().unwrap() <= world.now + 1);
        assert_eq!(assigned(&world.after(0)), []);
        let lease = assigned(&world.after(1))[0].1;
        assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Live));
        commands = world.fail(1, &lease, Reason::Error);
    }
    // A new login changes nothing, under another name either.
    for (session, name) in [(2, "w1"), (3, "another")] {
        let again = worker(name, "n1", SMALL, 0);
        let commands = world.on(Event::Joined { session: Session(session), worker: again, held: vec![] });
        assert_eq!(assigned(&commands), [], "{name}");
    }
}

/// A job of high priority that nobody can prove, and one that anybody can: what the only worker tries after each rest.
#[test]
fn what_a_worker_tries_after_a_rest_is_not_of_a_poison_job_while_others_wait() {
    let mut world = World::flat();
    world.submit(JobSpec { priority: 9, ..spec(1, &[1; 400], 1) });
    world.submit(spec(2, &[1; 3], 2));
    let mut leases = std::collections::VecDeque::from(assigned(&world.join(1, LARGE, 2)));
    let mut rests = 0;
    while world.state(2) != JobState::Complete {
        let commands = match leases.pop_front() {
            Some((_, lease)) if lease.job == JobId(1) => world.fail(1, &lease, Reason::Error),
            Some((_, lease)) => world.complete(1, &lease),
            None => {
                rests += 1;
                assert!(rests < 30, "{:?}", world.engine.job(JobId(2)));
                let tried = world.alive(1_000);
                assert!(tried.len() <= 1, "one task to try: {tried:?}");
                assert!(tried.iter().all(|(_, lease)| lease.job == JobId(2)), "{tried:?}");
                leases.extend(tried);
                continue;
            }
        };
        let gone: Vec<_> = revoked(&commands).into_iter().map(|(_, fence)| fence).collect();
        leases.retain(|(_, lease)| !gone.contains(&lease.fence));
        leases.extend(assigned(&commands));
        if commands.contains(&Command::CheckRoot(JobId(2))) {
            world.on(Event::RootChecked(JobId(2), Ok(())));
        }
    }
    assert_eq!(world.done(1), 0);
}

#[test]
fn a_proof_clears_a_worker_and_some_failures_are_not_its_own() {
    let (mut world, commands) = failed_in_a_row(2);
    let mut commands = world.complete(1, &assigned(&commands)[0].1);
    for reason in [Reason::Error, Reason::BadProof, Reason::OutOfMemory, Reason::StoreUnavailable] {
        commands = world.fail(1, &assigned(&commands)[0].1, reason);
    }
    assert_eq!(assigned(&commands).len(), 1, "two of its own since");
    let commands = world.fail(1, &assigned(&commands)[0].1, Reason::Oversize);
    assert_eq!(assigned(&commands), []);
}

#[test]
fn what_is_queued_at_a_worker_that_rests_goes_elsewhere() {
    let mut world = World::new(Config { prefetch_below: 1_000_000, ..flat_config() });
    world.submit(spec(1, &[1; 6], 1));
    let mut leases = std::collections::VecDeque::from(assigned(&world.join(1, SMALL, 2)));
    assert_eq!(leases.len(), 3);
    let mut commands = vec![];
    for _ in 0..3 {
        let (_, lease) = leases.pop_front().unwrap();
        commands = world.fail(1, &lease, Reason::Error);
        leases.extend(assigned(&commands));
    }
    assert_eq!(revoked(&commands), [(1, leases[0].1.fence), (1, leases[1].1.fence)]);
    assert_eq!(world.engine.leased(), 0);
    assert_eq!(assigned(&world.join(2, SMALL, 0))[0].1.task, leases[0].1.task);
}

#[test]
fn a_task_that_takes_its_workers_with_it_is_charged_in_the_end() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let mut attempts = vec![];
    for n in 1..=6 {
        assigned(&world.join(n, SMALL, 0));
        attempts.push(world.view(1, 0).attempts);
        world.on(Event::Left(Session(n), Gone::Dead));
    }
    assert_eq!(attempts, [0, 0, 0, 0, 0, 1], "five losses, one charge");
    let why = world.engine.task(JobId(1), arborist_core::tree::NodeId(0)).unwrap();
    assert_eq!(why.state, TaskState::Delayed, "{why:?}");
}
