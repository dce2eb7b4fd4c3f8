//! More important jobs go first, whatever state their tasks are in; jobs that can't be met go behind those that can.

mod engine_world;

use arborist_core::circuit::Kind;
use arborist_core::engine::*;
use arborist_core::profile::{Needs, Profile};
use engine_world::*;
use std::collections::BTreeMap;

fn times(needs: Needs, n: u16) -> Needs {
    Needs { cores: needs.cores * n, memory_mib: needs.memory_mib * u32::from(n) }
}

fn leased_to(commands: &[Command], session: u64) -> Vec<Assignment> {
    assigned(commands).into_iter().filter(|(s, _)| *s == session).map(|(_, lease)| lease).collect()
}

fn important(id: u32, calls: &[u8], seed: u64) -> JobSpec {
    JobSpec { priority: 100, ..spec(id, calls, seed) }
}

/// Jobs in the order in which one machine gets their tasks, all of which it proves.
fn served(world: &mut World, session: u64, first: &[Command]) -> Vec<u32> {
    let mut order = vec![];
    let mut leases = leased_to(first, session);
    while let Some(lease) = leases.pop() {
        order.push(lease.job.0);
        world.now += 1_000;
        leases.extend(leased_to(&world.complete(session, &lease), session));
    }
    order
}

/// Whether all of job 2 comes before any of job 1.
fn is_first(order: &[u32]) -> bool {
    order.contains(&1) && order.contains(&2) && order.is_sorted_by(|a, b| a >= b)
}

#[test]
fn tasks_that_failed_once_wait_for_more_important_ones() {
    for (reason, wait) in [
        (Reason::Error, 70_000),
        (Reason::StoreUnavailable, 70_000),
        (Reason::HandedBack, 70_000),
        (Reason::BadProof, 70_000),
    ] {
        let mut world = World::flat();
        world.submit(spec(1, &[1; 40], 1));
        for lease in leased_to(&world.join(1, times(SMALL, 20), 0), 1) {
            world.fail(1, &lease, reason);
        }
        world.on(Event::Left(Session(1), Gone::Dead));
        // their back-off is over
        world.after(wait);
        world.submit(important(2, &[1; 10], 2));
        let first = world.join(2, SMALL, 0);
        let order = served(&mut world, 2, &first);
        assert!(is_first(&order), "{reason:?}: {order:?}");
    }
}

#[test]
fn tasks_whose_back_off_ends_wait_for_more_important_ones() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 8], 1));
    for lease in leased_to(&world.join(1, times(SMALL, 8), 0), 1) {
        world.fail(1, &lease, Reason::Error);
    }
    world.on(Event::Left(Session(1), Gone::Dead));
    world.submit(important(2, &[1; 10], 2));
    let first = world.join(2, SMALL, 0);
    let mut order = vec![];
    let mut leases = leased_to(&first, 2);
    while let Some(lease) = leases.pop() {
        order.push(lease.job.0);
        let mut commands = world.after(1_000);
        commands.extend(world.complete(2, &lease));
        leases.extend(leased_to(&commands, 2));
    }
    assert!(is_first(&order), "{order:?}");
}

/// A job whose vm proofs ran out of memory asks for large machines with all it has.
#[test]
fn tasks_that_ran_out_of_memory_wait_for_more_important_ones() {
    let config = Config { max_attempts: 200, ..flat_config().with_larger_classes() };
    let mut world = World::new(config);
    world.submit(spec(1, &[1; 4], 1));
    for lease in leased_to(&world.join(1, times(SMALL, 4), 0), 1) {
        world.fail(1, &lease, Reason::OutOfMemory);
    }
    world.on(Event::Left(Session(1), Gone::Dead));
    world.after(70_000);
    world.submit(important(2, &[1; 4], 2));
    let big = Needs { cores: 8, memory_mib: 64 << 10 };
    let first = world.join(2, big, 0);
    let order = served(&mut world, 2, &first);
    assert!(is_first(&order), "{order:?}");
}

#[test]
fn what_a_dead_worker_ran_waits_for_more_important_tasks() {
    let mut world = World::flat();
    world.submit(spec(1, &[1; 4], 1));
    world.join(1, times(SMALL, 4), 0);
    world.submit(important(2, &[1; 4], 2));
    world.on(Event::Left(Session(1), Gone::Dead));
    let first = world.join(2, SMALL, 0);
    let order = served(&mut world, 2, &first);
    assert!(is_first(&order), "{order:?}");
}

#[test]
fn what_is_queued_gives_way_to_more_important_tasks() {
    for (prefetch, bases) in [(1, 3), (2, 4), (3, 6)] {
        let mut world = World::flat();
        world.submit(spec(1, &[1; 12], 1));
        let mut leases: BTreeMap<u64, Vec<Assignment>> = BTreeMap::new();
        let mut running = vec![];
        for session in 1..=2 {
            leases.insert(session, leased_to(&world.join(session, SMALL, prefetch), session));
            running.push((session, leases.get_mut(&session).unwrap().remove(0)));
        }
        let calls = vec![0; bases];
        let mut commands = world.submit(important(2, &calls, 2));
        let mut order = vec![];
        // each machine does what it has, in the order it was told, unless told to stop
        while let Some((session, lease)) = running.pop() {
            for (session, fence) in revoked(&commands) {
                leases.get_mut(&session).unwrap().retain(|lease| lease.fence != fence);
            }
            for (session, lease) in assigned(&commands) {
                leases.get_mut(&session).unwrap().push(lease);
            }
            let queue = leases.get_mut(&session).unwrap();
            if !queue.is_empty() {
                let next = queue.remove(0);
                order.push(next.job.0);
                running.insert(0, (session, next));
            }
            world.now += 500;
            commands = world.complete(session, &lease);
            if order.len() > calls.len() + 4 {
                break;
            }
        }
        assert!(order.len() >= calls.len(), "prefetch {prefetch}: {order:?}");
        assert!(order[..calls.len()].iter().all(|job| *job == 2), "prefetch {prefetch}: {order:?}");
    }
}

/// A second copy of a slow task comes after ready ones of a more important job.
#[test]
fn second_copies_wait_for_more_important_tasks() {
    let mut world = World::flat();
    world.submit(spec(1, &[0; 12], 1));
    let leases = leased_to(&world.join(1, times(SMALL, 12), 0), 1);
    // durations are learned, and all but some are done
    for lease in &leases[..8] {
        world.complete(1, lease);
    }
    world.now += 5_000;
    world.on(Event::Heartbeat(Session(1), leases[8..].iter().map(|lease| lease.fence).collect()));
    world.on(Event::Drain(Session(1)));
    world.on(Event::Tick);
    world.submit(important(2, &[0; 3], 2));
    let commands = world.join(2, SMALL, 0);
    let order = served(&mut world, 2, &commands);
    assert!(is_first(&order), "{order:?}");
}

/// What happens to jobs on so many machines of which each proof takes 30 s; who is told to be at risk.
struct Run {
    world: World,
    leases: Vec<(Millis, u64, Assignment)>,
    told: Vec<(u32, bool)>,
    machines: u64,
}

impl Run {
    fn new(machines: u64) -> Self {
        let mut world = World::flat();
        for session in 1..=machines {
            world.join(session, SMALL, 0);
        }
        Self { world, leases: vec![], told: vec![], machines }
    }

    fn submit(&mut self, spec: JobSpec) {
        let commands = self.world.submit(spec);
        self.take(&commands);
    }

    fn take(&mut self, commands: &[Command]) {
        let ends = self.world.now + 30_000;
        self.leases.extend(assigned(commands).into_iter().map(|(session, lease)| (ends, session, lease)));
        for command in commands {
            match command {
                Command::CheckRoot(job) => {
                    let job = *job;
                    let commands = self.world.on(Event::RootChecked(job, Ok(())));
                    self.take(&commands);
                }
                Command::Revoke(session, fence) => {
                    self.leases.retain(|(_, s, lease)| (*s, lease.fence) != (session.0, *fence));
                }
                Command::Notice(Notice::AtRisk(job, at_risk)) => self.told.push((job.0, *at_risk)),
                _ => {}
            }
        }
    }

    fn until(&mut self, end: Millis) {
        while self.world.now < end {
            self.leases.sort_by_key(|(at, ..)| *at);
            let tick = self.world.now + 5_000;
            if self.leases.first().is_some_and(|(at, ..)| *at <= tick) {
                let (at, session, lease) = self.leases.remove(0);
                self.world.now = self.world.now.max(at);
                let done = Done { millis: 30_000, ..done(lease.task, lease.fence) };
                let commands = self.world.on(Event::Completed(Session(session), done));
                self.take(&commands);
                continue;
            }
            self.world.now = tick;
            for session in 1..=self.machines {
                let own = self.leases.iter().filter(|(_, s, _)| *s == session);
                let fences = own.map(|(.., lease)| lease.fence).collect();
                let commands = self.world.on(Event::Heartbeat(Session(session), fences));
                self.take(&commands);
            }
            let commands = self.world.on(Event::Tick);
            self.take(&commands);
        }
    }
}

const HOUR: Millis = 3_600_000;

#[test]
fn a_job_that_can_not_be_met_goes_behind_those_that_can() {
    // 2,399 proofs of 30 s on 4 machines take 5 h; 23 take 4 minutes
    let (long, short) = (vec![2; 400], vec![2; 4]);
    for (case, first, second) in [
        ("submitted first, due first", (&long, HOUR), (&short, HOUR + 60_000)),
        ("submitted last, due first", (&short, HOUR + 60_000), (&long, HOUR)),
        ("due at once", (&long, 60_000), (&short, HOUR)),
    ] {
        let mut run = Run::new(4);
        let start = run.world.now;
        run.submit(JobSpec { deadline: Some(start + first.1), ..spec(1, first.0, 1) });
        run.submit(JobSpec { deadline: Some(start + second.1), ..spec(2, second.0, 2) });
        let (hopeless, other) = if first.0.len() > 4 { (1, 2) } else { (2, 1) };
        run.until(start + 2_000);
        assert_eq!(run.told, [(hopeless, true)], "{case}: told at once");
        run.until(start + HOUR / 4);
        assert_eq!(run.world.state(other), JobState::Complete, "{case}");
        assert!(case == "due at once" || run.world.done(hopeless) > 60, "{case}: it gets what is idle");
        run.until(start + HOUR + 120_000);
        assert!(matches!(run.world.state(hopeless), JobState::Failed { .. }), "{case}");
    }
}

#[test]
fn of_two_jobs_that_do_not_fit_together_one_is_met() {
    // 479 proofs each: an hour on 4 machines
    let mut run = Run::new(4);
    let start = run.world.now;
    for id in 1..=2 {
        let deadline = Some(start + HOUR + 900_000);
        run.submit(JobSpec { deadline, ..spec(id, &[2; 80], u64::from(id)) });
    }
    run.until(start + 2_000);
    assert_eq!(run.told, [(2, true)], "the work ahead of it counts");
    run.until(start + HOUR + 1_000_000);
    assert_eq!(run.world.state(1), JobState::Complete);
    assert!(matches!(run.world.state(2), JobState::Failed { .. }));
}

#[test]
fn priority_comes_before_feasibility() {
    let mut run = Run::new(4);
    let start = run.world.now;
    run.submit(JobSpec { deadline: Some(start + HOUR), priority: 1, ..spec(1, &[2; 400], 1) });
    run.submit(JobSpec { deadline: Some(start + HOUR), ..spec(2, &[2; 4], 2) });
    run.until(start + HOUR / 2);
    assert_eq!((run.world.done(2), run.told.as_slice()), (0, &[(1, true), (2, true)][..]));
}

#[test]
fn a_job_that_can_be_met_again_comes_back() {
    let mut run = Run::new(4);
    let start = run.world.now;
    run.submit(JobSpec { deadline: Some(start + HOUR), ..spec(1, &[2; 400], 1) });
    run.until(start + 2_000);
    run.world.on(Event::Deadline(JobId(1), Some(start + 10 * HOUR)));
    run.until(start + 10_000);
    assert_eq!(run.told, [(1, true), (1, false)]);
    assert!(run.world.engine.estimate(JobId(1)).unwrap() > start + 4 * HOUR);
}

#[test]
fn a_quarantined_task_means_that_a_job_can_not_be_met() {
    let mut world = World::new(Config { max_attempts: 1, ..flat_config() });
    world.submit(JobSpec { deadline: Some(world.now + HOUR), ..spec(1, &[1, 0], 1) });
    let leases = leased_to(&world.join(1, LARGE, 0), 1);
    world.after(1_000);
    assert!(world.engine.estimate(JobId(1)).is_some());
    let vm = leases.iter().find(|lease| kind(lease) == Kind::Vm).unwrap();
    world.fail(1, vm, Reason::Error);
    assert_eq!(world.view(1, vm.node.0).state, TaskState::Failed);
    assert_eq!(world.engine.estimate(JobId(1)), None);
    assert!(notices(&world.after(2_000)).contains(&Notice::AtRisk(JobId(1), true)));
    world.on(Event::Revive(JobId(1)));
    assert!(world.engine.estimate(JobId(1)).is_some());
}

/// A machine on which a small task hangs is not the one that is kept free for a large task, with second copies of what
/// is slow and without.
#[test]
fn a_machine_with_a_hanging_task_is_not_the_one_to_wait_for() {
    for backup_percent in [0, 150] {
        let mut world = World::new(Config { backup_percent, ..Config::new(Profile::rfp()) });
        world.submit(spec(1, &[0; 2_000], 1));
        let mut leases: Vec<(Millis, u64, Assignment)> = vec![];
        let mut hanging = None;
        for session in 1..=4 {
            for lease in leased_to(&world.join(session, LARGE, 0), session) {
                if hanging.is_none() {
                    hanging = Some((session, lease));
                } else {
                    leases.push((world.now + 15_000 + 1_000 * leases.len() as u64, session, lease));
                }
            }
        }
        let (machine, hanging) = hanging.unwrap();
        let start = world.now;
        world.submit(JobSpec { priority: 10, ..spec(2, &[1], 2) });
        let mut began = None;
        while began.is_none() && world.now < start + 600_000 {
            leases.sort_by_key(|(at, ..)| *at);
            let tick = world.now + 1_000;
            let commands = if leases.first().is_some_and(|(at, ..)| *at <= tick) {
                let (at, session, lease) = leases.remove(0);
                world.now = world.now.max(at);
                let done = Done { millis: 30_000, ..done(lease.task, lease.fence) };
                world.on(Event::Completed(Session(session), done))
            } else {
                world.now = tick;
                let mut commands = vec![];
                for session in 1..=4 {
                    let own = leases.iter().filter(|(_, s, _)| *s == session).map(|(.., lease)| lease.fence);
                    let hangs = (session == machine).then_some(hanging.fence);
                    commands.extend(world.on(Event::Heartbeat(Session(session), own.chain(hangs).collect())));
                }
                commands.extend(world.on(Event::Tick));
                commands
            };
            let gone = revoked(&commands);
            leases.retain(|(_, session, lease)| !gone.contains(&(*session, lease.fence)));
            for (session, lease) in assigned(&commands) {
                if kind(&lease) == Kind::Vm {
                    began = Some((world.now - start) / 1_000);
                }
                leases.push((world.now + 30_000, session, lease));
            }
        }
        assert!(began.is_some_and(|seconds| seconds < 120), "{backup_percent}: {began:?}");
    }
}
