//! Jobs that are over and whose trees went, names that nobody needs, and lists that are too long: what the books
//! hold is bounded by what is open.

mod engine_world;

use arborist_core::engine::*;
use arborist_core::profile::Profile;
use arborist_core::tree::NodeId;
use engine_world::*;
use std::cell::Cell;

/// Jobs keep their trees while they have so many tasks in all.
fn keeping(kept_tasks: u32) -> World {
    World::new(Config { kept_tasks, ..flat_config() })
}

/// Submits a job and proves it.
fn prove(world: &mut World, request: JobSpec) {
    let mut commands = world.submit(request);
    if world.engine.workers().is_empty() {
        commands.extend(world.join(1, SMALL, 0));
    }
    drain(world, commands);
}

fn tree_of(world: &World, job: u32) -> Box<PreparedJob> {
    let request = world.engine.job(JobId(job)).unwrap().spec;
    Box::new(prepared(request, &world.engine.config().profile.clone()))
}

#[test]
fn a_job_that_is_over_is_seen_alike_with_its_tree_and_without() {
    let (mut whole, mut bare) = (keeping(1 << 20), keeping(0));
    for world in [&mut whole, &mut bare] {
        prove(world, spec(1, &[2, 1, 0], 1));
        let lease = assigned(&world.submit(spec(2, &[1], 2)))[0].1;
        world.complete(1, &lease);
        world.on(Event::Cancel(JobId(2)));
    }
    let restored = [bare.restored(None, &bare.journal), bare.restored(Some(&bare.engine.snapshot()), &[])];
    for engine in restored.iter().chain([&bare.engine]) {
        for id in [1, 2].map(JobId) {
            assert!(whole.engine.prepared_job(id).is_some() && engine.prepared_job(id).is_none());
            assert_eq!(engine.job(id), whole.engine.job(id));
            assert_eq!(engine.report(id), whole.engine.report(id));
            assert_eq!(engine.attribution(id), whole.engine.attribution(id));
            assert_eq!(
                (engine.ended_for(id), engine.spec(id)),
                (whole.engine.ended_for(id), whole.engine.spec(id))
            );
            let root = whole.engine.root_task(id).unwrap();
            assert_eq!((engine.root_task(id), engine.find_root("", &root)), (Some(root), Some(id)));
            assert_eq!(engine.find(&root), whole.engine.find(&root));
            let (_, node) = engine.find(&root).unwrap();
            let (seen, wanted) = (engine.task(id, node).unwrap(), whole.engine.task(id, node).unwrap());
            assert_eq!((seen.millis, seen.workers), (wanted.millis, wanted.workers));
            assert_eq!(seen.state == TaskState::Done, wanted.state == TaskState::Done);
            assert_eq!(engine.task(id, NodeId(0)), None, "only its root is known");
        }
        assert_eq!(engine.jobs().collect::<Vec<_>>(), [JobId(1), JobId(2)]);
    }
    for id in [1, 2].map(JobId) {
        bare.on(Event::Forget(id));
        assert_eq!((bare.engine.job(id), bare.engine.root_task(id)), (None, None));
    }
    assert_eq!(bare.restored(None, &bare.journal).jobs().count(), 0);
}

#[test]
fn the_trees_of_those_that_ended_last_stay() {
    let mut world = keeping(8);
    let mut dropped = vec![];
    for id in 1..=4 {
        let tasks = prepared(spec(id, &[1], id.into()), &Profile::rfp()).ids.len() as u32;
        assert_eq!(tasks, 4);
        world.submit(spec(id, &[1], id.into()));
        world.now += 1;
        for command in world.on(Event::Cancel(JobId(id))) {
            if let Command::TreeDropped { job, tasks: 4 } = command {
                dropped.push(job.0);
            }
        }
    }
    assert_eq!(dropped, [1, 2]);
    let restored = world.restored(Some(&world.engine.snapshot()), &[]);
    for engine in [&world.engine, &restored, &world.restored(None, &world.journal)] {
        let kept: Vec<_> = engine.jobs().filter(|id| engine.prepared_job(*id).is_some()).collect();
        assert_eq!(kept, [JobId(3), JobId(4)]);
    }
}

#[test]
fn a_stopped_job_goes_on_when_its_tree_comes_back() {
    let mut world = keeping(0);
    world.submit(spec(1, &[1, 1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    world.complete(1, &lease);
    let late = assigned(&world.on(Event::Tick));
    assert_eq!(late, []);
    world.on(Event::Cancel(JobId(1)));
    let deadline = Some(world.now + 1_000_000);
    world.on(Event::Deadline(JobId(1), deadline));
    assert_eq!(world.on(Event::Revive(JobId(1))), [], "without its tree it can't");
    let other = Box::new(prepared(spec(1, &[2], 5), &Profile::rfp()));
    assert_eq!(world.on(Event::ReviveWith(other)), [], "nor with another");
    let tree = tree_of(&world, 1);
    let known =
        KnownProof { task: lease.task, worker: "w1".into(), millis: 1, cpu_millis: 1, proof_bytes: 1 };
    let journal = world.journal.len();
    let snapshot = world.engine.snapshot();
    let mut commands = world.on(Event::ReviveWith(tree));
    assert_eq!(world.done(1), 0);
    commands.extend(world.on(Event::Known(vec![known])));
    assert_eq!((world.done(1), world.state(1)), (1, JobState::Proving));
    for (snapshot, from) in [(None, 0), (Some(&snapshot[..]), journal)] {
        let restored = world.restored(snapshot, &world.journal[from..]);
        let view = restored.job(JobId(1)).unwrap();
        assert_eq!((view.state, view.spec.deadline), (JobState::Proving, deadline));
        assert_eq!(restored.open_tasks(JobId(1)), world.engine.open_tasks(JobId(1)));
    }
    drain(&mut world, commands);
    assert_eq!(world.state(1), JobState::Complete);
    let (last, end) = (world.engine.snapshot(), world.journal.len());
    for (snapshot, from) in [(None, 0), (Some(&snapshot), journal), (Some(&last), end)] {
        let restored = world.restored(snapshot.map(Vec::as_slice), &world.journal[from..]);
        assert_eq!(restored.job(JobId(1)), world.engine.job(JobId(1)));
        assert_eq!(restored.report(JobId(1)), world.engine.report(JobId(1)));
    }
}

#[test]
fn a_restart_builds_the_trees_of_what_is_open_and_little_more() {
    let mut sizes = vec![];
    for jobs in [20, 200] {
        let mut world = keeping(40);
        let first = world.join(1, LARGE, 0);
        assert_eq!(assigned(&first), []);
        for id in 1..=jobs {
            if id % 2 == 0 {
                prove(&mut world, spec(id, &[1; 5], id.into()));
            } else {
                world.submit(spec(id, &[1; 5], id.into()));
                world.on(Event::Cancel(JobId(id)));
            }
            world.now += 1_000;
        }
        world.submit(spec(1_000, &[1; 5], 7_777));
        let snapshot = world.engine.snapshot();
        let built = Cell::new(0);
        let counting = |spec: &JobSpec| {
            built.set(built.get() + 1);
            resolve(spec)
        };
        let config = world.engine.config().clone();
        let restored = Engine::restore(config, Some(&snapshot), &[], counting, world.now).unwrap();
        assert_eq!(
            (restored.jobs().count() as u32, built.get()),
            (jobs + 1, 3),
            "two that ended last, one open"
        );
        sizes.push(snapshot.len());
    }
    let each = (sizes[1] - sizes[0]) / 180;
    assert!(each < 1_000, "{each} bytes for each job that is over");
}

#[test]
fn what_is_shared_with_a_tree_that_went_is_proven_or_found_like_anything_else() {
    let mut world = keeping(0);
    prove(&mut world, spec(1, &[1, 1], 1));
    let leases = assigned(&world.submit(spec(2, &[1, 1, 1], 1)));
    assert_eq!(leases.len(), 1, "all is to be done, as far as the books say");
    let task = leases[0].1.task;
    let found = KnownProof { task, worker: "w1".into(), millis: 1, cpu_millis: 1, proof_bytes: 1 };
    let commands = world.on(Event::Known(vec![found]));
    drain(&mut world, commands);
    assert_eq!(world.state(2), JobState::Complete);
    assert_eq!(world.engine.past_borrowers(), [JobId(2)]);
}

#[test]
fn workers_that_nothing_names_are_forgotten_and_suspects_and_makers_are_not() {
    let mut world = keeping(1 << 20);
    world.submit(spec(1, &[1, 1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    world.complete(1, &lease);
    world.on(Event::Left(Session(1), Gone::Dead));
    let mut sizes = vec![];
    for n in 0..6_000u64 {
        let (session, name) = (Session(100 + n), format!("pool-{n}"));
        let joined = worker(&name, &format!("node-{n}"), SMALL, 0);
        let mut out = vec![];
        world.engine.handle(world.now, Event::Joined { session, worker: joined, held: vec![] }, &mut out);
        world.engine.handle(world.now, Event::Left(session, Gone::Dead), &mut out);
        world.journal.extend(out.iter().filter_map(|c| match c {
            Command::Persist(record) => Some(record.encode()),
            _ => None,
        }));
        if n % 2_000 == 1_999 {
            sizes.push(world.engine.snapshot().len());
        }
    }
    assert!(sizes.iter().all(|size| *size < 2 * sizes[0]), "{sizes:?}");
    assert!(sizes[2] < 2_000, "{sizes:?}");
    for engine in [
        &world.engine,
        &world.restored(Some(&world.engine.snapshot()), &[]),
        &world.restored(None, &world.journal),
    ] {
        assert_eq!(engine.maker(JobId(1), lease.node), Some("w1"), "it made a proof of what is open");
    }
}

#[test]
fn a_worker_that_a_snapshot_left_out_is_known_to_who_reads_what_was_written_since() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let task = assigned(&world.join(1, SMALL, 0))[0].1.task;
    world.on(Event::Left(Session(1), Gone::Dead));
    let (snapshot, from) = (world.engine.snapshot(), world.journal.len());
    world.on(Event::Known(vec![proof_of(task, "w1")]));
    assert_same_books(&world.engine, &world.restored(Some(&snapshot), &world.journal[from..]), "w1");
    assert_eq!(world.engine.maker(JobId(1), NodeId(0)), Some("w1"));
}

#[test]
fn what_a_worker_names_beyond_what_it_can_hold_is_passed_over() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 40], 1));
    let most = world.engine.most_leases(SMALL, 2);
    assert_eq!(most, 2 * (1 + 2) + 64);
    let leases = assigned(&world.join(1, SMALL, 2));
    assert_eq!(leases.len(), 3);
    let own = leases.iter().map(|(_, lease)| held(lease, Some(1)));
    let strange = |n: u64| Held { fence: Fence(1 << 50 | n), ..held(&leases[0].1, None) };
    let named: Vec<Held> = own.chain((0..5_000).map(strange)).collect();
    let fences: Vec<Fence> = named.iter().map(|held| held.fence).collect();
    let again = worker("w1", "n1", SMALL, 2);
    let commands = world.on(Event::Joined { session: Session(2), worker: again, held: named });
    assert_eq!((revoked(&commands).len(), world.engine.leased()), (most - 3, 3), "its own go on");
    world.now += 20_000;
    let commands = world.on(Event::Heartbeat(Session(2), fences));
    assert_eq!((revoked(&commands).len(), world.engine.leased()), (most - 3, 3));
}

#[test]
fn of_what_a_worker_says_one_line_is_kept() {
    let mut world = World::flat();
    world.submit(spec(1, &[1], 1));
    let lease = assigned(&world.join(1, SMALL, 0))[0].1;
    let text = "\u{10ffff}".repeat(100_000);
    let Assignment { task, fence, .. } = lease;
    let before = world.engine.snapshot().len();
    world.on(Event::Failed { session: Session(1), task, fence, reason: Reason::Error, text });
    assert_eq!(world.view(1, lease.node.0).attempts, 1);
    let more = world.engine.snapshot().len() - before;
    assert!((200..400).contains(&more), "{more} bytes");
}
