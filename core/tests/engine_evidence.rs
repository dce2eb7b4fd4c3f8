//! What is believed of workers, and what is looked at first.

mod engine_world;

use arborist_core::engine::*;
use arborist_core::ids::TaskId;
use arborist_core::profile::Needs;
use engine_world::*;
use rstest::rstest;
use std::collections::{BTreeMap, HashSet};

/// `vm` proofs of w1, their kernels leased to workers 2 and on, each on a machine of its own.
fn kernels_on_others(calls: &[u8]) -> (World, Vec<Assignment>, Vec<(u64, Assignment)>) {
    let mut world = World::flat();
    world.join(1, LARGE, 0);
    let vms: Vec<Assignment> =
        assigned(&world.submit(spec(1, calls, 1))).into_iter().map(|(_, lease)| lease).collect();
    world.on(Event::Draining(Session(1)));
    (2..8).for_each(|n| _ = world.join(n, SMALL, 0));
    let kernels = vms.iter().flat_map(|vm| assigned(&world.complete(1, vm))).collect();
    (world, vms, kernels)
}

fn suspected(commands: &[Command]) -> Vec<String> {
    let name = |notice| match notice {
        Notice::Suspected { worker, .. } => Some(worker),
        _ => None,
    };
    notices(commands).into_iter().filter_map(name).collect()
}

fn moved_aside(commands: &[Command]) -> bool {
    commands.iter().any(|c| matches!(c, Command::Quarantine { .. }))
}

#[test]
fn a_result_without_a_lease_counts_when_the_proof_is_seen() {
    let cases = [
        (Finding::Valid(proof_of(TaskId([0; 32]), "w9")), true),
        (Finding::Present(proof_of(TaskId([0; 32]), "w9")), true),
        (Finding::Missing, false),
        (Finding::Bad("cut off".into()), false),
        (Finding::Unknown("no answer".into()), false),
    ];
    for (finding, counted) in cases {
        let mut world = World::rfp();
        world.submit(spec(1, &[2; 8], 1));
        (1..=4).for_each(|n| _ = world.join(n, LARGE, 0));
        world.join(9, SMALL, 0);
        let (leased, total) = (world.engine.leased(), world.engine.open_tasks(JobId(1)).len() as u32);
        let root = *world.engine.prepared_job(JobId(1)).unwrap().ids.last().unwrap();
        let commands = world.on(Event::Completed(Session(9), done(root, Fence(123_456))));
        assert_eq!((checks(&commands), world.done(1)), (vec![root], 0), "{finding:?}");
        assert_eq!(world.engine.leased(), leased, "{finding:?}");
        assert_eq!(checks(&world.on(Event::Completed(Session(9), done(root, Fence(7))))), [], "asked once");
        let finding = match finding {
            Finding::Valid(proof) => Finding::Valid(KnownProof { task: root, ..proof }),
            Finding::Present(proof) => Finding::Present(KnownProof { task: root, ..proof }),
            other => other,
        };
        let commands = world.checked(root, finding.clone());
        assert_eq!(world.done(1), if counted { total } else { 0 }, "{finding:?}");
        let late = |notice: &Notice| matches!(notice, Notice::LateResult { counted: c, .. } if *c == counted);
        assert_eq!(notices(&commands).iter().filter(|n| late(n)).count(), 2, "{finding:?}");
        assert!(suspected(&commands).is_empty(), "{finding:?}");
    }
}

#[test]
fn what_is_claimed_without_a_lease_is_bounded() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 1_500], 1));
    world.join(1, SMALL, 0);
    let tasks = world.engine.open_tasks(JobId(1));
    let (mut asked, mut dropped) = (0, 0);
    for task in tasks.iter().take(1_100) {
        let mut out = vec![];
        world.engine.handle(world.now, Event::Completed(Session(1), done(*task, Fence(1 << 40))), &mut out);
        asked += checks(&out).len();
        dropped += notices(&out).len();
    }
    assert_eq!((asked, dropped), (64, 1_100 - 1_024));
    let commands = world.checked(tasks[1], Finding::Missing);
    assert_eq!(checks(&commands).len(), 1, "the next one");
}

/// What comes of a complaint: the child is open again, moved aside, and who pays.
#[rstest]
#[case::bad_and_it_is("bad", "bad", true, true, &["w1"])]
#[case::bad_and_it_is_good("bad", "valid", false, false, &["w2"])]
#[case::bad_and_it_is_gone("bad", "missing", true, false, &["w1"])]
#[case::bad_and_it_may_be("bad", "present", false, false, &[])]
#[case::bad_and_nobody_knows("bad", "unknown", false, false, &[])]
#[case::missing_and_it_never_was_there("missing", "missing", true, false, &["w1"])]
#[case::missing_and_it_was_there("missing", "lost", true, false, &[])]
#[case::missing_and_it_is_there("missing", "present", false, false, &["w2"])]
#[case::missing_and_it_is_good("missing", "valid", false, false, &["w2"])]
#[case::missing_and_it_is_bad("missing", "bad", true, true, &["w1"])]
#[case::missing_and_another_has_put_it_since("missing", "another's", false, false, &[])]
#[case::missing_and_nobody_knows("missing", "unknown", false, false, &[])]
fn a_complaint_is_looked_at_before_anybody_pays(
    #[case] complaint: &str,
    #[case] finding: &str,
    #[case] reopened: bool,
    #[case] aside: bool,
    #[case] pays: &[&str],
) {
    let (mut world, vms, kernels) = kernels_on_others(&[1]);
    let (vm, (session, kernel)) = (vms[0].task, kernels[0]);
    if finding == "lost" {
        world.on(Event::Known(vec![proof_of(vm, "w1")]));
    }
    let reason = if complaint == "bad" { Reason::BadChild(vm) } else { Reason::MissingChild(vm) };
    let commands = world.fail(session, &kernel, reason);
    assert_eq!((checks(&commands), suspected(&commands), moved_aside(&commands)), (vec![vm], vec![], false));
    assert_eq!(world.view(1, 0).state, TaskState::Done);
    assert_eq!(world.view(1, kernel.node.0).state, TaskState::Delayed, "it waits");
    let finding = match finding {
        "bad" => Finding::Bad("does not verify".into()),
        "valid" => Finding::Valid(proof_of(vm, "w1")),
        "present" => Finding::Present(proof_of(vm, "w1")),
        "another's" => Finding::Valid(proof_of(vm, "w3")),
        "unknown" => Finding::Unknown("the store is away".into()),
        _ => Finding::Missing,
    };
    let commands = world.checked(vm, finding);
    assert_eq!(
        (suspected(&commands), moved_aside(&commands)),
        (pays.iter().map(|p| (*p).to_owned()).collect(), aside)
    );
    assert_eq!(world.view(1, 0).state != TaskState::Done, reopened);
    let again = assigned(&commands);
    match reopened {
        // After a bad proof a little later.
        true => assert!(again.iter().all(|(_, lease)| lease.task == vm), "{again:?}"),
        false => {
            assert!(again.len() == 1 && again[0].0 != session && again[0].1.task == kernel.task, "{again:?}")
        }
    }
    assert_eq!(world.view(1, kernel.node.0).attempts, 0, "it did nothing wrong");
    let restored = world.restored(None, &world.journal);
    assert_eq!(restored.open_tasks(JobId(1)).len(), if reopened { 4 } else { 3 });
}

#[rstest]
#[case::in_vain(true)]
#[case::and_is_not_answered(false)]
fn where_nothing_can_be_looked_at_a_second_machine_decides(#[case] answered: bool) {
    let (mut world, vms, kernels) = kernels_on_others(&[1]);
    let (vm, (first, kernel)) = (vms[0].task, kernels[0]);
    let not_known = |world: &mut World| match answered {
        true => world.checked(vm, Finding::Unknown("away".into())),
        false => {
            let mut commands = vec![];
            for _ in 0..4 {
                world.now += 2_500;
                world.engine.workers().iter().for_each(|w| _ = world.on(Event::Heartbeat(w.session, vec![])));
                commands.extend(world.on(Event::Tick));
            }
            commands
        }
    };
    world.fail(first, &kernel, Reason::MissingChild(vm));
    let commands = not_known(&mut world);
    let (second, again) = assigned(&commands)[0];
    assert!(second != first && again.task == kernel.task, "{commands:?}");
    assert_eq!(world.done(1), 1);
    let mut told_again = world.journal.len();
    world.fail(second, &again, Reason::MissingChild(vm));
    let commands = not_known(&mut world);
    assert_eq!((suspected(&commands), world.done(1)), (vec!["w1".to_owned()], 0), "{commands:?}");
    told_again = world.journal.len() - told_again;
    assert!(told_again > 0, "it is in the journal");
}

#[test]
fn whose_complaint_is_refuted_by_another_pays_where_nothing_can_be_looked_at() {
    let (mut world, vms, kernels) = kernels_on_others(&[1]);
    let (vm, (first, kernel)) = (vms[0].task, kernels[0]);
    world.fail(first, &kernel, Reason::BadChild(vm));
    let commands = world.checked(vm, Finding::Present(proof_of(vm, "w1")));
    let (second, again) = assigned(&commands)[0];
    let commands = world.complete(second, &again);
    assert_eq!((suspected(&commands), world.done(1)), (vec![format!("w{first}")], 2));
    assert_eq!(world.state(1), JobState::Proving);
}

/// w1 proves what has no children and w2 the rest, if w3 leaves it to do so: it complains about every child.
#[rstest]
#[case::no_answer(None)]
#[case::nothing_is_known(Some(false))]
#[case::all_is_seen(Some(true))]
fn one_machine_that_always_complains_bars_nobody_and_stops_nothing(#[case] seen: Option<bool>) {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 12], 1));
    let tree = world.engine.prepared_job(JobId(1)).unwrap().clone();
    let mut queue: Vec<_> = (1..=3).flat_map(|n| assigned(&world.join(n, SMALL, 0))).collect();
    for _ in 0..20_000 {
        let Some((session, lease)) = queue.pop() else {
            queue.extend(world.alive(1_000));
            continue;
        };
        let child = tree.shape.children(lease.node).as_slice().first().map(|c| tree.ids[c.index()]);
        let mut commands = match child {
            Some(child) if session == 3 => world.fail(3, &lease, Reason::BadChild(child)),
            _ => world.complete(session, &lease),
        };
        for task in checks(&commands) {
            let finding = match seen {
                None => continue,
                Some(false) => Finding::Unknown("away".into()),
                Some(true) => Finding::Valid(proof_of(task, "w1")),
            };
            commands.extend(world.checked(task, finding));
        }
        if commands.contains(&Command::CheckRoot(JobId(1))) {
            world.on(Event::RootChecked(JobId(1), Ok(())));
            break;
        }
        queue.extend(assigned(&commands));
    }
    let states: BTreeMap<String, WorkerState> =
        world.engine.workers().into_iter().map(|w| (w.name, w.state)).collect();
    assert_eq!(world.state(1), JobState::Complete, "{states:?}");
    assert!(["w1", "w2"].iter().all(|name| states[*name] != WorkerState::Barred), "{states:?}");
    assert!(seen != Some(true) || states["w3"] == WorkerState::Barred, "{states:?}");
}

#[test]
fn a_worker_that_finds_what_is_not_there_answers_for_it() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let vm = assigned(&world.join(1, SMALL, 0))[0].1;
    world.join(2, SMALL, 0);
    let found = Done { found: true, ..done(vm.task, vm.fence) };
    let commands = world.on(Event::Completed(Session(1), found));
    assert_eq!((checks(&commands), world.done(1)), (vec![vm.task], 1), "it counts at once");
    let commands = world.checked(vm.task, Finding::Missing);
    assert_eq!((suspected(&commands), world.done(1)), (vec!["w1".to_owned()], 0));
}

#[test]
fn some_reported_proofs_are_looked_for_at_once() {
    let config = Config { spot_checks: 10, ..flat_config() };
    let mut world = World::new(config);
    world.submit(spec(1, &[0; 40], 1));
    let leases = assigned(&world.join(1, Needs { cores: 320, memory_mib: 640 << 10 }, 0));
    world.join(2, SMALL, 0);
    let mut asked = vec![];
    for (_, lease) in leases.iter().take(4) {
        asked.extend(checks(&world.complete(1, lease)));
    }
    assert_eq!(asked, [leases[0].1.task], "one in a hundred milliseconds");
    let mut commands = world.checked(asked[0], Finding::Exists);
    assert_eq!(suspected(&commands), Vec::<String>::new());
    assert_eq!(world.engine.next_deadline(), Some(world.now + 100));
    for _ in 0..3 {
        commands = world.after(100);
        let task = checks(&commands)[0];
        commands = world.checked(task, Finding::Missing);
        assert_eq!(suspected(&commands), ["w1"], "nobody had to stumble over it");
    }
    assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Barred));
    assert_eq!(world.done(1), 1);
}

#[rstest]
#[case::another_name("w7", "n1")]
#[case::another_machine("w1", "n7")]
fn no_login_washes_suspicion_off(#[case] name: &str, #[case] node: &str) {
    let (mut world, vms, kernels) = kernels_on_others(&[1; 4]);
    for ((session, kernel), vm) in kernels.iter().zip(&vms).take(3) {
        world.fail(*session, kernel, Reason::MissingChild(vm.task));
        world.checked(vm.task, Finding::Missing);
    }
    assert_eq!(world.engine.worker_state(Session(1)), Some(WorkerState::Barred));
    world.on(Event::Left(Session(1), Gone::Dead));
    let bytes = world.engine.snapshot();
    let mut restored = [world.restored(Some(&bytes), &[]), world.restored(None, &world.journal)];
    for engine in restored.iter_mut().chain([&mut world.engine]) {
        let (mut out, worker) = (vec![], worker(name, node, SMALL, 0));
        engine.handle(world.now, Event::Joined { session: Session(90), worker, held: vec![] }, &mut out);
        assert_eq!(engine.worker_state(Session(90)), Some(WorkerState::Barred));
        assert_eq!(assigned(&out), []);
    }
}

/// A worker that says that it is done with whatever it is given and makes nothing, and eight honest ones. The
/// store is a set; `answers`: whether the operator can look into it. Returns seconds until the job was done.
fn with_a_liar(answers: bool, found: bool) -> u64 {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 32], 1));
    let tree = world.engine.prepared_job(JobId(1)).unwrap().clone();
    let (mut queue, mut number, start) = (BTreeMap::new(), 0u64, world.now);
    let mut store: HashSet<TaskId> = HashSet::new();
    let mut commands: Vec<Command> = (1..=9).flat_map(|n| world.join(n, SMALL, 0)).collect();
    while world.state(1) != JobState::Complete {
        assert!(world.now < start + 6 * 3_600_000, "{:?}", world.engine.job(JobId(1)));
        let gone: HashSet<_> = revoked(&commands).into_iter().collect();
        queue.retain(|_, (s, l): &mut (u64, Assignment)| !gone.contains(&(*s, l.fence)));
        for (session, lease) in assigned(&commands) {
            let children = tree.shape.children(lease.node);
            let missing = children.as_slice().iter().any(|c| !store.contains(&tree.ids[c.index()]));
            number += 1;
            let takes = if session == 1 || missing { 100 } else { 30_000 };
            queue.insert((world.now + takes, number), (session, lease));
        }
        assert!(!notices(&commands).iter().any(|n| matches!(n, Notice::Quarantined { .. })), "{commands:?}");
        let mut answered = vec![];
        for command in std::mem::take(&mut commands) {
            match command {
                Command::CheckProof { task, .. } if answers => {
                    let finding = match store.contains(&task) {
                        true => Finding::Valid(proof_of(task, "w2")),
                        false => Finding::Missing,
                    };
                    answered.extend(world.checked(task, finding));
                }
                Command::CheckRoot(job) => {
                    let good = store.contains(tree.ids.last().unwrap());
                    let verdict = if good { Ok(()) } else { Err("not there".to_owned()) };
                    answered.extend(world.on(Event::RootChecked(job, verdict)));
                }
                _ => {}
            }
        }
        if !answered.is_empty() {
            commands = answered;
            continue;
        }
        let tick = world.engine.next_deadline().unwrap_or(u64::MAX).clamp(world.now + 1, world.now + 3_000);
        let next = queue.keys().next().copied().filter(|(at, _)| *at <= tick);
        let Some(key) = next else {
            world.now = tick;
            for session in 1..=9 {
                let own = queue.values().filter(|(s, _)| *s == session).map(|(_, l)| l.fence).collect();
                commands.extend(world.on(Event::Heartbeat(Session(session), own)));
            }
            commands.extend(world.on(Event::Tick));
            continue;
        };
        let (session, lease) = queue.remove(&key).unwrap();
        world.now = world.now.max(key.0);
        let children = tree.shape.children(lease.node);
        let missing = children.as_slice().iter().map(|c| tree.ids[c.index()]).find(|c| !store.contains(c));
        commands = match missing {
            _ if session == 1 => {
                world.on(Event::Completed(Session(1), Done { found, ..done(lease.task, lease.fence) }))
            }
            Some(child) => world.fail(session, &lease, Reason::MissingChild(child)),
            None => {
                store.insert(lease.task);
                world.complete(session, &lease)
            }
        };
    }
    let states = world.engine.workers().into_iter().map(|w| (w.name, w.state));
    for (name, state) in states {
        assert_eq!(state == WorkerState::Barred, name == "w1", "{name} is {state:?}");
    }
    (world.now - start) / 1_000
}

#[rstest]
#[case::that_it_made_it(false)]
#[case::that_it_found_it(true)]
fn one_that_reports_without_a_proof_is_found_out_and_the_honest_do_not_pay(#[case] found: bool) {
    let (looked_at, not_looked_at) = (with_a_liar(true, found), with_a_liar(false, found));
    assert!(looked_at < 660, "{looked_at} s");
    assert!(not_looked_at < 1_200, "{not_looked_at} s: a second machine has to be asked each time");
}
