//! Whose tasks a worker proves, and how namespaces share machines.

mod engine_world;

use arborist_core::circuit::Kind;
use arborist_core::engine::*;
use engine_world::*;

fn of(namespace: &str, spec: JobSpec) -> JobSpec {
    JobSpec { namespace: namespace.into(), ..spec }
}

fn serving(name: u64, names: &[&str], capacity: arborist_core::profile::Needs) -> Event {
    let worker = worker(&format!("w{name}"), &format!("n{name}"), capacity, 0);
    let worker = WorkerSpec { serves: Serves::only(names.to_vec()), ..worker };
    Event::Joined { session: Session(name), worker, held: vec![] }
}

fn jobs_of(commands: &[Command], session: u64) -> Vec<u32> {
    assigned(commands).into_iter().filter(|(s, _)| *s == session).map(|(_, lease)| lease.job.0).collect()
}

#[test]
fn a_worker_proves_what_it_serves_and_nothing_else() {
    let four = arborist_core::profile::Needs { cores: 32, memory_mib: 64 << 10 };
    for (names, first) in [
        (&["a"][..], Some(1)),
        (&["b"], Some(2)),
        (&["b", "c"], Some(2)),
        (&["c"], None),
        (&[], None),
        (&["", "a"], Some(1)),
    ] {
        let mut world = World::flat();
        world.submit(of("a", spec(1, &[1; 3], 1)));
        world.submit(of("b", spec(2, &[1; 3], 2)));
        let leased = jobs_of(&world.on(serving(1, names, four)), 1);
        let expected: Vec<u32> = first.into_iter().cycle().take(3).collect();
        assert_eq!(leased, expected, "{names:?}");
        let waits = |job| world.view(job, 0).waits;
        let unserved = |job| first != Some(job);
        assert_eq!(waits(1).is_some(), unserved(1), "{names:?}");
        assert_eq!(waits(2).is_some(), unserved(2), "{names:?}");
        if unserved(2) {
            assert_eq!(waits(2), Some(Waits::NoFittingWorker(SMALL)), "{names:?}");
        }
    }
}

#[test]
fn whose_tasks_find_no_worker_is_told_for_each_namespace() {
    let mut world = World::flat();
    world.submit(of("a", spec(1, &[0; 2], 1)));
    world.submit(of("b", spec(2, &[0; 3], 2)));
    world.submit(of("c", spec(3, &[0], 3)));
    world.on(serving(1, &["c"], SMALL));
    let told = |namespace: &str, ready| Notice::NoFittingWorker {
        namespace: namespace.into(),
        kind: Kind::Base,
        needs: SMALL,
        ready,
    };
    assert_eq!(notices(&world.after(1)), [told("a", 2), told("b", 3)]);
    world.on(serving(2, &["a"], SMALL));
    assert_eq!(notices(&world.after(1)), [], "said once");
}

#[test]
fn one_that_serves_all_takes_all_and_comes_after_those_that_serve_few() {
    let mut world = World::flat();
    world.join(1, SMALL, 0);
    world.on(serving(2, &["a"], SMALL));
    let commands = world.submit(of("a", spec(1, &[0], 1)));
    assert_eq!(jobs_of(&commands, 2), [1], "the machine of all stays free");
    let commands = world.submit(of("b", spec(2, &[0], 2)));
    assert_eq!(jobs_of(&commands, 1), [2]);
}

#[test]
fn a_shared_task_is_proven_once_by_a_worker_of_either_namespace() {
    let mut world = World::flat();
    world.submit(of("a", spec(1, &[1], 1)));
    world.submit(of("b", spec(2, &[1], 1)));
    let commands = world.on(serving(1, &["b"], SMALL));
    assert_eq!(jobs_of(&commands, 1), [2], "the lease is for the job that the worker serves");
    drain(&mut world, commands);
    for job in [1, 2] {
        assert_eq!(world.state(job), JobState::Complete, "job {job}");
    }
    assert_eq!(world.engine.attribution(JobId(1)), world.engine.attribution(JobId(2)), "both name the maker");
}

#[test]
fn a_lease_goes_over_to_another_job_only_if_its_worker_serves_that() {
    for (names, goes_on) in [(&["a"][..], false), (&["a", "b"], true)] {
        let mut world = World::flat();
        world.submit(of("a", spec(1, &[1], 1)));
        let commands = world.on(serving(1, names, SMALL));
        world.submit(of("b", spec(2, &[1], 1)));
        let commands = [commands, world.on(Event::Cancel(JobId(1)))].concat();
        assert_eq!(revoked(&commands).is_empty(), goes_on, "{names:?}");
        let state = world.view(2, 0).state;
        assert_eq!(state, if goes_on { TaskState::Leased } else { TaskState::Ready }, "{names:?}");
    }
}

#[test]
fn after_a_restart_a_worker_keeps_what_it_serves_alone() {
    for (names, kept) in [(&["a"][..], true), (&["b"], false)] {
        let mut world = World::flat();
        world.submit(of("a", spec(1, &[1], 1)));
        let lease = assigned(&world.on(serving(1, &["a"], SMALL)))[0].1;
        world.engine = world.restored(None, &world.journal);
        let Event::Joined { session, worker, .. } = serving(2, names, SMALL) else { unreachable!() };
        let worker = WorkerSpec { name: "w1".into(), node: "n1".into(), ..worker };
        let held = vec![held(&lease, Some(5))];
        let commands = world.on(Event::Joined { session, worker, held });
        assert_eq!(revoked(&commands).is_empty(), kept, "{names:?}");
        assert_eq!(world.view(1, 0).state == TaskState::Leased, kept, "{names:?}");
    }
}

#[test]
fn what_a_worker_serves_can_change_at_a_login() {
    let mut world = World::flat();
    world.submit(of("a", spec(1, &[1], 1)));
    world.submit(of("b", spec(2, &[1], 2)));
    world.on(serving(1, &["a"], SMALL));
    let Event::Joined { worker, .. } = serving(1, &["b"], SMALL) else { unreachable!() };
    let commands = world.on(Event::Joined { session: Session(2), worker, held: vec![] });
    assert_eq!(jobs_of(&commands, 2), [2], "{commands:?}");
    assert_eq!(world.view(1, 0).state, TaskState::Ready);
}

#[test]
fn demand_is_by_namespace_and_counts_shared_tasks_once() {
    let mut world = World::rfp();
    world.submit(of("b", spec(1, &[1; 3], 1)));
    world.submit(of("a", spec(2, &[1; 5], 2)));
    world.submit(of("c", spec(3, &[1; 3], 1)));
    let rows = world.engine.demand(0);
    let rows: Vec<_> = rows.iter().map(|row| (row.namespace.as_str(), row.kind, row.ready)).collect();
    assert_eq!(rows, [("a", Kind::Vm, 5), ("b", Kind::Vm, 3)], "c shares all with b");
}

#[test]
fn one_root_may_be_the_job_of_several_namespaces() {
    let mut world = World::flat();
    world.submit(of("a", spec(1, &[1], 1)));
    world.submit(of("b", spec(2, &[1], 1)));
    let root = *world.engine.prepared_job(JobId(1)).unwrap().ids.last().unwrap();
    for (namespace, job) in [("a", Some(JobId(1))), ("b", Some(JobId(2))), ("c", None), ("", None)] {
        assert_eq!(world.engine.find_root(namespace, &root), job, "{namespace:?}");
    }
    world.on(Event::Cancel(JobId(1)));
    assert_eq!((world.state(1), world.state(2)), (JobState::Cancelled, JobState::Proving));
}

/// Machines of one small proof each, of which each namespace proves some; what they did by namespace, in proofs.
struct Shared {
    world: World,
    leases: Vec<(Millis, u64, Assignment)>,
    millis: Millis,
}

impl Shared {
    fn new(machines: u64, millis: Millis, weights: &[(&str, u32)]) -> Self {
        let shares = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        let mut world = World::new(Config { shares, backup_percent: 0, ..flat_config() });
        for session in 1..=machines {
            world.join(session, SMALL, 0);
        }
        Self { world, leases: vec![], millis }
    }

    fn take(&mut self, commands: &[Command]) {
        for (session, lease) in assigned(commands) {
            // not all at once
            let millis = self.millis + self.millis / 7 * (lease.fence.0 % 5);
            self.leases.push((self.world.now + millis, session, lease));
        }
    }

    fn submit(&mut self, spec: JobSpec) {
        let commands = self.world.submit(spec);
        self.take(&commands);
    }

    fn namespace(&self, lease: &Assignment) -> String {
        self.world.engine.job(lease.job).unwrap().spec.namespace
    }

    /// Proofs that each of these namespaces finishes in so many.
    fn run(&mut self, proofs: usize, names: &[&str]) -> Vec<usize> {
        let mut done_by = vec![0; names.len()];
        for n in 0..proofs {
            self.leases.sort_by_key(|(at, _, lease)| (*at, lease.fence));
            let (at, session, lease) = self.leases.remove(0);
            let namespace = self.namespace(&lease);
            if let Some(place) = names.iter().position(|name| *name == namespace) {
                done_by[place] += 1;
            }
            self.world.now = self.world.now.max(at);
            let done = Done { millis: self.millis as u32, ..done(lease.task, lease.fence) };
            let commands = self.world.on(Event::Completed(Session(session), done));
            self.take(&commands);
            if n % 8 == 0 {
                self.heartbeats();
            }
        }
        done_by
    }

    fn heartbeats(&mut self) {
        let sessions: Vec<Session> =
            self.world.engine.workers().iter().map(|worker| worker.session).collect();
        for session in sessions {
            let own = self.leases.iter().filter(|(_, s, _)| *s == session.0);
            let fences = own.map(|(.., lease)| lease.fence).collect();
            let commands = self.world.on(Event::Heartbeat(session, fences));
            assert!(assigned(&commands).is_empty(), "nothing is left to be given away");
        }
        let commands = self.world.on(Event::Tick);
        assert!(assigned(&commands).is_empty(), "nothing is left to be given away");
    }

    fn running(&self, namespace: &str) -> usize {
        self.leases.iter().filter(|(.., lease)| self.namespace(lease) == namespace).count()
    }
}

#[test]
fn running_cores_follow_the_weights() {
    for (machines, weights, expected) in [
        (1, &[("a", 1), ("b", 1)][..], [50, 50]),
        (1, &[("a", 3), ("b", 1)], [75, 25]),
        (2, &[("a", 3), ("b", 1)], [75, 25]),
        (3, &[("a", 1), ("b", 1)], [50, 50]),
        (12, &[], [50, 50]),
        (12, &[("a", 3)], [75, 25]),
        (12, &[("a", 1), ("b", 9)], [10, 90]),
    ] {
        let mut shared = Shared::new(machines, 30_000, weights);
        // the first to come had all machines
        shared.submit(of("a", spec(1, &[0; 1_500], 1)));
        shared.submit(of("b", JobSpec { priority: 100, ..spec(2, &[0; 1_500], 2) }));
        shared.run(4 * machines as usize, &[]);
        let done = shared.run(400, &["a", "b"]);
        for (done, percent) in done.iter().zip(expected) {
            let off = (*done as i64 - 4 * percent).abs();
            assert!(off <= 20, "{machines} machines, {weights:?}: {done:?} of 400, not {percent} %");
        }
        if machines == 12 {
            for (name, percent) in ["a", "b"].iter().zip(expected) {
                let off = 100 * shared.running(name) as i64 - 12 * percent;
                assert!(off.abs() <= 150, "{weights:?}: {name} runs {} of 12", shared.running(name));
            }
        }
    }
}

#[test]
fn what_one_namespace_does_not_use_others_take() {
    let mut shared = Shared::new(8, 30_000, &[("a", 9)]);
    shared.submit(of("a", spec(1, &[0], 1)));
    shared.submit(of("b", spec(2, &[0; 200], 2)));
    assert_eq!(shared.running("a") + shared.running("b"), 8);
    let done = shared.run(100, &["a", "b"]);
    assert_eq!(done, [2, 98], "{done:?}");
    // a comes back and gets its part at once, as machines fall free
    shared.submit(of("a", spec(3, &[0; 200], 3)));
    shared.run(16, &[]);
    assert!(shared.running("a") >= 6, "{}", shared.running("a"));
}

#[test]
fn weights_can_be_changed_and_are_kept_by_a_restart_as_settings() {
    let mut shared = Shared::new(10, 30_000, &[]);
    shared.submit(of("a", spec(1, &[0; 900], 1)));
    shared.submit(of("b", spec(2, &[0; 900], 2)));
    shared.run(40, &[]);
    assert!((4..=6).contains(&shared.running("a")), "{}", shared.running("a"));
    let shares = [("b".to_owned(), 4)].into();
    let commands = shared.world.on(Event::Shares(shares));
    assert!(commands.is_empty(), "nothing is stopped for it");
    shared.run(40, &[]);
    assert!((1..=3).contains(&shared.running("a")), "{}", shared.running("a"));
    // what runs is adopted, and with it what each has
    let now = shared.world.now;
    shared.world.engine = shared.world.restored(None, &shared.world.journal);
    for session in 1..=10 {
        let own = shared.leases.iter().filter(|(_, s, _)| *s == session);
        let held = |(at, _, lease): &(Millis, u64, Assignment)| {
            let running = Some(30_000u64.saturating_sub(at.saturating_sub(now)).max(1));
            engine_world::held(lease, running)
        };
        let held = own.map(held).collect();
        let worker = worker(&format!("w{session}"), &format!("n{session}"), SMALL, 0);
        let commands = shared.world.on(Event::Joined { session: Session(session), worker, held });
        assert!(assigned(&commands).is_empty() && revoked(&commands).is_empty());
    }
    shared.run(40, &[]);
    assert!((1..=3).contains(&shared.running("a")), "{}", shared.running("a"));
}

/// Long and short proofs share machines by time, not by number.
#[test]
fn many_namespaces_on_few_machines_all_get_their_turn() {
    let names: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    let mut shared = Shared::new(3, 30_000, &[]);
    for (n, name) in names.iter().enumerate() {
        shared.submit(of(name, spec(n as u32 + 1, &[0; 60], n as u64)));
    }
    shared.run(20, &[]);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let done = shared.run(200, &names);
    assert!(done.iter().all(|done| (8..=12).contains(done)), "{done:?}");
}

#[test]
fn machines_of_one_namespace_are_not_kept_from_it_by_what_it_has_elsewhere() {
    let mut world = World::flat();
    world.submit(of("a", spec(1, &[0; 20], 1)));
    world.submit(of("b", spec(2, &[0; 20], 2)));
    for session in 1..=4 {
        world.on(serving(session, &["a"], SMALL));
    }
    let leased: Vec<u32> = (5..=8).flat_map(|s| jobs_of(&world.join(s, SMALL, 0), s)).collect();
    assert_eq!(leased, [2, 2, 2, 2], "a has four machines of its own already");
    assert_eq!(jobs_of(&world.on(serving(9, &["a"], SMALL)), 9), [1], "this one is for a alone");
}
