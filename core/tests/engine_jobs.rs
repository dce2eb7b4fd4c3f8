//! Jobs: several at once, shared tasks, deadlines, what users do to them.

mod engine_world;

use arborist_core::circuit::Kind;
use arborist_core::engine::*;
use arborist_core::ids::TaskId;
use arborist_core::order::POLICIES;
use arborist_core::profile::Profile;
use arborist_core::tree::NodeId;
use engine_world::*;

#[test]
fn jobs_are_taken_by_priority_then_slack_then_age() {
    let deadline =
        |id, deadline, priority| JobSpec { deadline, priority, ..spec(id, &[1; 4], u64::from(id)) };
    let cases: &[(&[JobSpec], u32)] = &[
        (&[deadline(1, None, 0), deadline(2, None, 0)], 1),
        (&[deadline(1, None, 0), deadline(2, None, 1)], 2),
        (&[deadline(1, Some(9_000_000), 0), deadline(2, Some(8_000_000), 0)], 2),
        (&[deadline(1, None, 0), deadline(2, Some(8_000_000), 0)], 2),
        (&[deadline(1, None, 3), deadline(2, Some(8_000_000), 0)], 1),
        // A deeper tree has less slack before the same deadline.
        (
            &[deadline(1, Some(8_000_000), 0), JobSpec { deadline: Some(8_000_000), ..spec(2, &[1; 40], 2) }],
            2,
        ),
    ];
    for (n, (jobs, first)) in cases.iter().enumerate() {
        let mut world = World::flat();
        jobs.iter().for_each(|job| _ = world.submit(job.clone()));
        let lease = assigned(&world.join(1, SMALL, 0))[0].1;
        assert_eq!(lease.job, JobId(*first), "case {n}");
    }
}

#[test]
fn priority_and_deadline_can_be_changed() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 4], 1));
    world.submit(spec(2, &[1; 4], 2));
    world.on(Event::Priority(JobId(2), 5));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    assert_eq!(lease.job, JobId(2));
    world.on(Event::Priority(JobId(2), 0));
    world.on(Event::Deadline(JobId(1), Some(9_000_000)));
    assert_eq!(assigned(&world.complete(1, &lease))[0].1.job, JobId(1));
    let restored = world.restored(None, &world.journal);
    assert_eq!(restored.job(JobId(1)).unwrap().spec.deadline, Some(9_000_000));
}

#[test]
fn submit_is_idempotent() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    world.complete(1, &lease);
    assert_eq!(world.submit(spec(1, &[1], 1)), []);
    assert_eq!(world.done(1), 1);
}

#[test]
fn one_lease_serves_all_jobs_that_hold_the_task() {
    let mut world = World::flat();
    world.submit(spec(1, &[1, 1], 1));
    let leases = assigned(&world.join(1, LARGE, 0));
    assert_eq!(leases.len(), 2);
    world.complete(1, &leases[0].1);
    // The same block for the same prover: everything is shared, finished, running or open.
    assert_eq!(assigned(&world.submit(JobSpec { priority: 9, ..spec(2, &[1, 1], 1) })), []);
    assert_eq!((world.done(2), world.view(2, leases[1].1.node.0).state), (1, TaskState::Leased));
    let kernels = assigned(&world.complete(1, &leases[1].1));
    assert_eq!((world.done(1), world.done(2)), (2, 2));
    assert_eq!(kernels[0].1.job, JobId(2), "leased for the more urgent one");
    let mut commands = world.complete(1, &kernels[0].1);
    let report = world.engine.report(JobId(2)).unwrap();
    assert_eq!((report.kinds[0].reused, report.kinds[1].reused), (1, 0));
    commands.extend(world.after(1));
    drain(&mut world, commands);
    assert_eq!(world.engine.leased(), 1, "the first kernel's twin was leased before: it is left");
}

#[test]
fn a_reorg_reuses_what_both_blocks_have() {
    let mut world = World::flat();
    world.submit(spec(1, &[2, 2, 2, 2], 1));
    let commands = world.join(1, LARGE, 0);
    drain(&mut world, commands);
    assert_eq!(world.state(1), JobState::Complete);
    let total = world.done(1);
    // The tail is another; the front's perfect subtrees are the same.
    let commands = world.submit(spec(2, &[2, 2, 2, 2, 1], 1));
    let reused = world.done(2);
    assert_eq!(reused, total - 1, "all but the root");
    drain(&mut world, commands);
    assert_eq!(world.state(2), JobState::Complete);
}

#[test]
fn equal_tasks_within_one_block_are_proven_once() {
    use arborist_core::ids::ArtifactHash;
    use arborist_core::tree::Leaves;
    let mut world = World::flat();
    // Twice the same call, and two transactions without calls of one sender at one state.
    let hash = |n: u8| ArtifactHash([n; 32]);
    let leaves = Leaves::Block {
        calls: vec![hash(1), hash(1)],
        private_proofs: vec![hash(2), hash(3), hash(3)],
        states: vec![[0; 32]; 3],
    };
    let request = JobSpec { source: Source::Block(hash(9)), ..spec(1, &[], 1) };
    let job = PreparedJob::new(request, &[2, 0, 0], leaves, &Profile::rfp()).unwrap();
    world.on(Event::Submit(Box::new(job)));
    let leases = assigned(&world.join(1, LARGE, 0));
    assert_eq!(leases.len(), 2, "one call, one transaction");
    let counts = world.engine.job(JobId(1)).unwrap().counts;
    assert_eq!((counts[0].running, counts[2].running), (2, 2));
    drain(&mut world, leases.iter().map(|(s, l)| Command::Assign(Session(*s), *l)).collect());
    assert_eq!(world.state(1), JobState::Complete);
    let done = world.journal.iter().filter(|r| matches!(Record::decode(r), Ok(Record::Done { .. }))).count();
    assert_eq!(done as u32, world.done(1) - 2);
}

#[test]
fn a_suspended_job_leases_nothing_new_and_goes_on_later() {
    let mut world = World::flat();
    world.submit(spec(1, &[1, 1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    assert_eq!(revoked(&world.on(Event::Suspend(JobId(1), true))), [], "what runs goes on");
    assert_eq!(assigned(&world.complete(1, &lease)), []);
    assert_eq!(world.done(1), 1);
    assert_eq!(world.view(1, 1).waits, Some(Waits::Suspended));
    assert!(world.restored(None, &world.journal).job(JobId(1)).unwrap().spec.suspended);
    assert_eq!(assigned(&world.on(Event::Suspend(JobId(1), false))).len(), 1);
}

#[test]
fn what_is_queued_of_a_suspended_job_is_not_started() {
    let mut world = World::new(Config { prefetch_below: 1_000_000, ..flat_config() });
    world.submit(spec(1, &[1; 8], 1));
    let leases = assigned(&world.join(1, SMALL, 2));
    assert_eq!(leases.len(), 3, "one runs, two are queued");
    let commands = world.on(Event::Suspend(JobId(1), true));
    assert_eq!(revoked(&commands), [(1, leases[1].1.fence), (1, leases[2].1.fence)]);
    assert_eq!(assigned(&commands), []);
    assert_eq!(world.view(1, leases[1].1.node.0).waits, Some(Waits::Suspended));
    // Other jobs get the place, and a worker that comes back does not bring the queued ones along.
    let held = held(&leases[1].1, None);
    let again = worker("w1", "n1", SMALL, 2);
    world.on(Event::Joined { session: Session(2), worker: again, held: vec![held] });
    assert_eq!(world.engine.leased(), 0);
    let commands = world.on(Event::Suspend(JobId(1), false));
    assert_eq!(assigned(&commands).len(), 3);
    drain(&mut world, commands);
    assert_eq!(world.state(1), JobState::Complete);
}

#[test]
fn a_cancelled_job_stops_and_can_be_revived() {
    let mut world = World::flat();
    world.submit(spec(1, &[1, 1], 1));
    let leases = assigned(&world.join(1, LARGE, 0));
    world.complete(1, &leases[0].1);
    let commands = world.on(Event::Cancel(JobId(1)));
    let fences: Vec<_> = revoked(&commands).iter().map(|(_, fence)| *fence).collect();
    assert_eq!(fences.len(), 2);
    assert!(commands.contains(&Command::JobEnded(JobId(1), JobState::Cancelled)));
    assert_eq!(world.view(1, leases[1].1.node.0).waits, Some(Waits::JobEnded));
    assert_eq!(world.restored(None, &world.journal).job(JobId(1)).unwrap().state, JobState::Cancelled);
    // A result that was under way still counts.
    let task = leases[1].1.task;
    assert_eq!(checks(&world.complete(1, &leases[1].1)), [task]);
    let commands = world.checked(task, Finding::Valid(proof_of(task, "w1")));
    assert!(matches!(notices(&commands)[0], Notice::LateResult { counted: true, .. }));
    let commands = world.on(Event::Revive(JobId(1)));
    assert_eq!(world.done(1), 2);
    drain(&mut world, commands);
    assert_eq!(world.state(1), JobState::Complete);
}

#[test]
fn leases_of_a_cancelled_job_go_on_for_another_that_wants_them() {
    let ends: [fn(&mut World) -> Vec<Command>; 2] =
        [|w| w.on(Event::Cancel(JobId(1))), |w| w.on(Event::Suspend(JobId(1), true))];
    for end in ends {
        let mut world = World::flat();
        world.submit(spec(1, &[1], 1));
        let lease = assigned(&world.join(1, SMALL, 0))[0].1;
        world.submit(spec(2, &[1], 1));
        assert_eq!(revoked(&end(&mut world)), []);
        let commands = world.complete(1, &lease);
        assert_eq!((world.done(1), world.done(2)), (1, 1));
        assert_eq!(assigned(&commands)[0].1.job, JobId(2));
    }
}

#[test]
fn only_ended_jobs_are_forgotten() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    world.on(Event::Forget(JobId(1)));
    assert_eq!(world.engine.jobs().count(), 1);
    world.on(Event::Cancel(JobId(1)));
    world.on(Event::Forget(JobId(1)));
    assert_eq!(world.engine.jobs().count(), 0);
    assert_eq!(world.restored(None, &world.journal).jobs().count(), 0);
    assert_eq!(world.engine.find(&arborist_core::ids::TaskId([0; 32])), None);
    // Its slot is used again.
    world.submit(spec(2, &[1], 1));
    let commands = world.join(1, SMALL, 0);
    drain(&mut world, commands);
    assert_eq!(world.state(2), JobState::Complete);
}

#[test]
fn a_job_fails_at_its_deadline_and_says_what_was_missing() {
    let mut world = World::rfp();
    world.submit(JobSpec { deadline: Some(1_010_000), ..spec(1, &[1, 0], 1) });
    world.join(1, SMALL, 0);
    world.after(9_999);
    assert_eq!(world.state(1), JobState::Proving);
    assert!(world.engine.next_deadline().unwrap() <= 1_010_000);
    let commands = world.after(1);
    let JobState::Failed { why } = world.state(1) else { panic!("not failed") };
    assert_eq!(why, "the deadline passed with 5 of 5 proofs missing: 1 vm, 1 kernel, 2 base, 1 root");
    assert_eq!(revoked(&commands).len(), 1);
    // Later is possible: move the deadline and revive.
    world.on(Event::Deadline(JobId(1), Some(9_000_000)));
    let mut commands = world.on(Event::Revive(JobId(1)));
    commands.extend(world.join(2, LARGE, 0));
    drain(&mut world, commands);
    assert_eq!(world.state(1), JobState::Complete);
}

#[test]
fn without_a_deadline_a_job_never_fails() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    world.after(1 << 40);
    assert_eq!(world.state(1), JobState::Proving);
}

#[test]
fn a_job_at_risk_says_so_once_and_once_when_it_is_not() {
    let mut world = World::flat();
    // 8 calls, 8 kernels, 8 bases, 7 joins of 30 s; on one worker 930 s.
    world.submit(JobSpec { deadline: Some(1_600_000), ..spec(1, &[1; 8], 1) });
    assert_eq!(notices(&world.after(1))[0], Notice::AtRisk(JobId(1), true));
    world.join(1, SMALL, 0);
    assert!(!notices(&world.after(2_000)).contains(&Notice::AtRisk(JobId(1), false)));
    world.join(2, LARGE, 0);
    assert_eq!(notices(&world.after(2_000)), [Notice::AtRisk(JobId(1), false)]);
    assert_eq!(notices(&world.after(2_000)), []);
}

#[test]
fn known_proofs_are_done_and_what_stands_below_them_is_not_needed() {
    let mut world = World::flat();
    world.submit(spec(1, &[2, 2], 1));
    let leases = assigned(&world.join(1, LARGE, 0));
    let tree = world.engine.prepared_job(JobId(1)).unwrap().clone();
    let base = tree.ids[tree.shape.base(0).index()];
    let known = KnownProof { task: base, worker: "old".into(), millis: 5, cpu_millis: 6, proof_bytes: 7 };
    let commands = world.on(Event::Known(vec![known.clone()]));
    assert_eq!(world.done(1), 5, "the base, two kernels and two calls");
    let revoked = revoked(&commands);
    assert_eq!(revoked.len(), 2);
    assert!(revoked.iter().all(|(_, fence)| leases.iter().any(|(_, l)| l.fence == *fence)));
    assert_eq!(world.engine.maker(JobId(1), tree.shape.base(0)), Some("old"));
    assert_eq!(world.on(Event::Known(vec![known])), [], "once");
    let restored = world.restored(None, &world.journal);
    assert_eq!(restored.job(JobId(1)).unwrap().counts, {
        let mut counts = world.engine.job(JobId(1)).unwrap().counts;
        counts.iter_mut().for_each(|c| (c.ready, c.running) = (c.ready + c.running, 0));
        counts
    });
}

/// How many results a shell would count, of those commands.
fn results(commands: &[Command]) -> usize {
    commands.iter().filter(|c| matches!(c, Command::Persist(Record::Done { .. }))).count()
}

#[test]
fn a_found_proof_is_one_result_also_when_its_maker_is_told_later() {
    let mut world = World::flat();
    world.submit(spec(1, &[2], 1));
    world.submit(JobSpec { prover_id: [4; 32], ..spec(2, &[2], 1) });
    let leases = assigned(&world.join(1, LARGE, 0));
    let (first, second) = (leases[0].1, leases[1].1);
    let found = Done { found: true, ..done(first.task, first.fence) };
    let known = |task| KnownProof { task, worker: "old".into(), millis: 5, cpu_millis: 6, proof_bytes: 7 };
    assert_eq!(results(&world.on(Event::Completed(Session(1), found))), 1);
    let told = world.on(Event::Known(vec![known(first.task)]));
    assert_eq!((results(&told), told.len()), (0, 3), "the maker's number, and each job's proof: {told:?}");
    assert_eq!(world.on(Event::Known(vec![known(first.task)])), [], "once");
    assert_eq!(results(&world.on(Event::Known(vec![known(second.task)]))), 1, "not known before");
    for engine in [&world.engine, &world.restored(None, &world.journal)] {
        for (job, node) in [(1, first.node), (1, second.node), (2, first.node), (2, second.node)] {
            assert_eq!(engine.maker(JobId(job), node), Some("old"), "job {job}, {node:?}");
        }
    }
}

#[test]
fn a_proof_that_was_not_needed_any_more_gets_its_maker_and_is_no_result() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let tree = world.engine.prepared_job(JobId(1)).unwrap().clone();
    let known = |node: NodeId| KnownProof {
        task: tree.ids[node.index()],
        worker: "old".into(),
        millis: 5,
        cpu_millis: 6,
        proof_bytes: 7,
    };
    let (vm, base) = (NodeId(0), tree.shape.base(0));
    assert_eq!(results(&world.on(Event::Known(vec![known(base)]))), 1);
    assert_eq!((world.engine.maker(JobId(1), vm), world.done(1)), (None, 3));
    assert_eq!(results(&world.on(Event::Known(vec![known(vm)]))), 0);
    assert_eq!(world.restored(None, &world.journal).maker(JobId(1), vm), Some("old"));
}

#[test]
fn orders_can_be_changed_and_unknown_ones_are_ignored() {
    let mut world = World::flat();
    world.submit(spec(1, &[3, 3], 1));
    for policy in (0..POLICIES.len()).chain([POLICIES.len(), usize::MAX]) {
        world.on(Event::Order { job: JobId(1), policy });
        let followed = world.engine.job(JobId(1)).unwrap().policy;
        assert_eq!(followed, policy.min(POLICIES.len() - 1));
    }
    world.on(Event::Order { job: JobId(1), policy: 2 });
    let leases = assigned(&world.join(1, LARGE, 0));
    let nodes: Vec<_> = leases.iter().map(|(_, l)| l.node.0).collect();
    assert_eq!(nodes, [0, 1, 2, 3], "transaction by transaction");
}

#[test]
fn the_root_is_checked_after_a_restart() {
    let mut world = World::flat();
    world.submit(spec(1, &[0], 1));
    let base = assigned(&world.join(1, SMALL, 0))[0].1;
    let root = assigned(&world.complete(1, &base))[0].1;
    assert!(world.complete(1, &root).contains(&Command::CheckRoot(JobId(1))));
    world.engine = world.restored(None, &world.journal);
    assert_eq!(world.state(1), JobState::Checking);
    assert!(world.after(1).contains(&Command::CheckRoot(JobId(1))));
    assert!(!world.after(1).contains(&Command::CheckRoot(JobId(1))), "asked once");
    let commands = world.on(Event::RootChecked(JobId(1), Ok(())));
    assert!(commands.contains(&Command::JobEnded(JobId(1), JobState::Complete)));
}

#[test]
fn a_large_block_takes_at_most_64_bytes_a_task() {
    let mut world = World::rfp();
    let calls = vec![2; 61_440];
    let job = prepared(spec(1, &calls, 1), &Profile::rfp());
    let mut out = vec![];
    world.engine.handle(1, Event::Submit(Box::new(job)), &mut out);
    let bytes = world.engine.bytes_per_task(JobId(1)).unwrap();
    assert!(bytes > 50.0 && bytes <= 64.0, "{bytes}");
    assert_eq!(world.engine.job(JobId(1)).unwrap().counts[Kind::Vm.index()].ready, 122_880);
}

#[test]
fn a_finished_proof_takes_some_20_bytes_in_the_journal() {
    let record = Record::Done {
        job: JobId(100),
        node: 368_638,
        maker: 5_000,
        millis: 30_000,
        cpu_millis: 240_000,
        proof_bytes: 130_000,
        found: false,
        at: 1_800_000_000_000,
    };
    assert!(record.encode().len() <= 22, "{}", record.encode().len());
}

#[test]
fn garbled_journals_are_errors() {
    let mut world = World::flat();
    world.submit(spec(1, &[2, 2], 5));
    let commands = world.join(1, LARGE, 0);
    drain(&mut world, commands);
    let snapshot = world.engine.snapshot();
    let config = world.engine.config().clone();
    for cut in 0..snapshot.len() {
        let restored = Engine::restore(config.clone(), Some(&snapshot[..cut]), &[], resolve, 0);
        assert!(matches!(restored, Err(RestoreError::Snapshot(_))), "cut at {cut}");
    }
    for record in &world.journal {
        for cut in 0..record.len() {
            assert!(Record::decode(&record[..cut]).is_err());
        }
        assert!(Record::decode(&[&record[..], &[0]].concat()).is_err());
    }
    let restored = Engine::restore(config.clone(), None, &[vec![99]], resolve, 0);
    assert!(matches!(restored, Err(RestoreError::Record { index: 0, .. })));
    let silent = |_: &JobSpec| Err(Unresolved::NotNow("no answer".to_owned()));
    for (snapshot, records) in [(Some(&snapshot[..]), &[][..]), (None, &world.journal)] {
        let error = Engine::restore(config.clone(), snapshot, records, silent, 0).unwrap_err();
        assert_eq!(error.to_string(), "job job-1 (1): no answer");
    }
}

/// Job 2 has the first job's tasks and some of its own.
fn two_that_share() -> World {
    let mut world = World::flat();
    world.submit(spec(1, &[1, 1], 5));
    world.submit(spec(2, &[1, 1, 1], 5));
    world
}

#[test]
fn a_job_whose_block_is_lost_is_left_out_and_the_others_go_on() {
    let mut world = two_that_share();
    let mut snapshots = vec![(None, 0)];
    let mut leases: std::collections::VecDeque<_> = assigned(&world.join(1, LARGE, 0)).into();
    while let Some((session, lease)) = leases.pop_front() {
        world.now += 10;
        leases.extend(assigned(&world.complete(session, &lease)));
        snapshots.push((Some(world.engine.snapshot()), world.journal.len()));
    }
    assert!(snapshots.len() > 12, "{}", snapshots.len());
    let lost = |spec: &JobSpec| match spec.id {
        JobId(1) => Err(Unresolved::Lost("its block is gone".into())),
        _ => resolve(spec),
    };
    let told = Notice::LeftOut { job: JobId(1), name: "job-1".into(), why: "its block is gone".into() };
    for (snapshot, from) in &snapshots {
        for to in (*from).max(2)..=world.journal.len() {
            let records = &world.journal[*from..to];
            let config = world.engine.config().clone();
            let engine = Engine::restore(config, snapshot.as_deref(), records, lost, world.now).unwrap();
            let journal = world.journal[..to].to_vec();
            let mut next = World { engine, journal, now: world.now, ..World::flat() };
            let first = next.on(Event::Tick);
            assert_eq!(notices(&first).first(), Some(&told), "from {from} to {to}");
            assert_eq!(next.engine.jobs().collect::<Vec<_>>(), [JobId(2)]);
            // whoever starts next hears nothing of it, whether the block is back or not
            let again = next.journal[*from..].to_vec();
            assert_eq!(next.restored(snapshot.as_deref(), &again).jobs().collect::<Vec<_>>(), [JobId(2)]);
            let config = next.engine.config().clone();
            let mut quiet = Engine::restore(config, snapshot.as_deref(), &again, lost, next.now).unwrap();
            let mut out = vec![];
            quiet.handle(next.now, Event::Tick, &mut out);
            assert!(notices(&out).iter().all(|n| *n != told), "from {from} to {to}");
            let commands = [first, next.join(9, LARGE, 0)].concat();
            drain(&mut next, commands);
            assert_eq!(next.state(2), JobState::Complete, "from {from} to {to}");
        }
    }
}

#[test]
fn a_job_whose_tree_is_another_now_is_left_out() {
    let world = two_that_share();
    let other = |spec: &JobSpec| match spec.id {
        JobId(1) => Ok((vec![1], arborist_core::tree::Leaves::Synthetic { seed: 5 })),
        _ => resolve(spec),
    };
    let config = world.engine.config().clone();
    let mut engine = Engine::restore(config, Some(&world.engine.snapshot()), &[], other, world.now).unwrap();
    assert_eq!(engine.jobs().collect::<Vec<_>>(), [JobId(2)]);
    let mut out = vec![];
    engine.handle(world.now, Event::Tick, &mut out);
    let why = "its tree has 4 tasks now and had 7".to_owned();
    assert_eq!(notices(&out)[0], Notice::LeftOut { job: JobId(1), name: "job-1".into(), why });
}

/// A job of the same tree as the other one of this seed, to be proven by another proof system.
fn of_another_system(world: &mut World, id: u32, seed: u64) {
    let profile = Profile { backend: "fake".into(), ..world.engine.config().profile.clone() };
    world.on(Event::Submit(Box::new(prepared(spec(id, &[1, 0], seed), &profile))));
}

#[test]
fn a_job_of_another_proof_system_is_kept_and_nothing_of_it_is_leased_or_shared() {
    let mut world = World::flat();
    world.join(1, LARGE, 0);
    of_another_system(&mut world, 1, 7);
    assert_eq!(world.engine.leased(), 0);
    let waits = world.view(1, 0).waits;
    assert_eq!(waits, Some(Waits::OtherSystem("fake (mini-rollup-v1)".into())));
    let all: Vec<_> = world.engine.prepared_job(JobId(1)).unwrap().ids.clone();
    let found = |task: &TaskId| KnownProof {
        task: *task,
        worker: "w".into(),
        millis: 1,
        cpu_millis: 1,
        proof_bytes: 1,
    };
    let asked = world.on(Event::Known(all.iter().map(found).collect()));
    assert!(!asked.contains(&Command::CheckRoot(JobId(1))), "its root is not ours to check: {asked:?}");
    let commands = world.submit(spec(2, &[1, 0], 7));
    assert_eq!(world.done(2), 0, "none of its proofs is one of ours");
    drain(&mut world, commands);
    assert_eq!(world.state(2), JobState::Complete);

    let restored = |profile: Profile| {
        Engine::restore(Config::new(profile), None, &world.journal, resolve, world.now).unwrap()
    };
    let ours = world.engine.config().profile.clone();
    let mut theirs = restored(Profile { backend: "fake".into(), ..ours.clone() });
    assert_eq!((theirs.other_system(JobId(1)), theirs.other_system(JobId(2))), (None, Some(&ours.system())));
    let mut out = vec![];
    theirs.handle(world.now, Event::Tick, &mut out);
    assert!(out.contains(&Command::CheckRoot(JobId(1))), "{out:?}");
    assert!(restored(ours).other_system(JobId(2)).is_none());
}

#[test]
fn durations_are_learned_for_each_proof_system_and_outlive_a_change() {
    let mut world = World::flat();
    world.join(1, LARGE, 0);
    let commands = world.submit(spec(1, &[1; 8], 1));
    drain(&mut world, commands);
    let ours = world.engine.config().clone();
    let fake = Config { profile: Profile { backend: "fake".into(), ..ours.profile.clone() }, ..ours.clone() };
    let seen = |engine: &Engine| engine.learned().samples(Kind::Vm, 0);
    assert!(seen(&world.engine) > 0);
    let by_records =
        |config: &Config| Engine::restore(config.clone(), None, &world.journal, resolve, world.now).unwrap();
    assert_eq!((seen(&by_records(&fake)), seen(&by_records(&ours))), (0, seen(&world.engine)));
    let restored = |config: &Config, snapshot: &[u8]| {
        Engine::restore(config.clone(), Some(snapshot), &[], resolve, world.now).unwrap()
    };
    let trial = restored(&fake, &world.engine.snapshot());
    assert_eq!(seen(&trial), 0);
    assert_eq!(seen(&restored(&ours, &trial.snapshot())), seen(&world.engine), "kept over the trial");
}
