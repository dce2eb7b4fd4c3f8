//! A storm of faults around an engine: workers that crash, lie, fall silent and come back, an operator
//! that dies with the end of its journal, and those who run the machines and tell what they see.

use crate::engine_world::*;
use arborist_core::circuit::{Kind, KindSet};
use arborist_core::engine::*;
use arborist_core::ids::TaskId;
use arborist_core::profile::{Needs, Profile};
use std::collections::BTreeMap;

/// A small deterministic generator: the same seed, the same faults.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A worker as it sees itself.
#[derive(Debug, Default)]
struct Body {
    name: String,
    node: String,
    capacity: Option<Needs>,
    kinds: KindSet,
    serves: Serves,
    prefetch: u16,
    /// `None` while not connected.
    session: Option<u64>,
    /// Leases it believes to hold.
    leases: Vec<(Assignment, Millis)>,
    /// Messages of its that are under way: delivered late, doubled or out of order.
    outbox: Vec<Event>,
    drains: bool,
    /// Deaths by memory that nobody has told yet.
    untold: Vec<String>,
}

pub struct Storm {
    pub world: World,
    dice: Dice,
    bodies: Vec<Body>,
    next_session: u64,
    /// Proofs in the store, with their makers.
    store: BTreeMap<TaskId, String>,
    /// Proofs that the operator is to look at.
    looks: Vec<TaskId>,
    trace: blake3::Hasher,
    pub jobs: Vec<u32>,
    snapshot: Option<(Vec<u8>, usize)>,
    faults: bool,
    /// Those who run the machines tell what they see, and take some away.
    pub cluster: bool,
    /// Workers take some kinds only, now and then others than before.
    pub kinds: bool,
    /// The namespaces of the jobs; where there are several, workers serve some of them.
    names: Vec<String>,
    /// Clocks are set, and differ from machine to machine.
    pub clocks: bool,
    /// What happened, and how often.
    pub seen: BTreeMap<String, u32>,
}

impl Storm {
    pub fn new(seed: u64, calls: &[Vec<u8>], workers: u64) -> Self {
        Self::of_namespaces(seed, calls, workers, &[""])
    }

    /// Its jobs are of these namespaces in turn.
    pub fn of_namespaces(seed: u64, calls: &[Vec<u8>], workers: u64, names: &[&str]) -> Self {
        Self::built(1 << 19, seed, calls, workers, names)
    }

    /// Jobs that are over keep their trees while they have so many tasks in all.
    pub fn keeping(kept_tasks: u32, seed: u64, calls: &[Vec<u8>], workers: u64) -> Self {
        Self::built(kept_tasks, seed, calls, workers, &[""])
    }

    fn built(kept_tasks: u32, seed: u64, calls: &[Vec<u8>], workers: u64, names: &[&str]) -> Self {
        let mut dice = Dice(seed);
        let mut config = Config::new(Profile::rfp());
        config.kept_tasks = kept_tasks;
        config.limit_floor = 40_000;
        config.limit_factor = 3;
        config.max_attempts = 200;
        config.classes.push(Needs { cores: 32, memory_mib: 128 << 10 });
        let mut world = World::new(config);
        let mut jobs = vec![];
        for (id, calls) in calls.iter().enumerate() {
            let mut request = spec(id as u32 + 1, calls, dice.below(2));
            request.priority = dice.below(2) as i32;
            names[id % names.len()].clone_into(&mut request.namespace);
            world.submit(request);
            jobs.push(id as u32 + 1);
        }
        let mut bodies = vec![];
        for n in 0..workers {
            let huge = Needs { cores: 64, memory_mib: 128 << 10 };
            let capacity = match n {
                0 => huge,
                _ => [SMALL, LARGE, huge, Needs { cores: 24, memory_mib: 40 << 10 }][dice.below(4) as usize],
            };
            bodies.push(Body {
                name: format!("w{n}"),
                node: format!("n{}", n / 2),
                capacity: Some(capacity),
                prefetch: dice.below(3) as u16,
                ..Body::default()
            });
        }
        Self {
            world,
            dice,
            bodies,
            next_session: 1,
            store: BTreeMap::new(),
            looks: vec![],
            trace: blake3::Hasher::new(),
            jobs,
            snapshot: None,
            faults: true,
            cluster: true,
            kinds: false,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            clocks: false,
            seen: BTreeMap::new(),
        }
    }

    fn on(&mut self, event: Event) {
        let commands = self.world.on(event);
        self.trace.update(format!("{} {commands:?}", self.world.now).as_bytes());
        for command in commands {
            let shown = format!("{command:?}");
            let names =
                shown.split(['(', ' ']).filter(|name| name.chars().next().is_some_and(char::is_uppercase));
            self.count(&names.take(2).collect::<Vec<_>>().join(" "));
            match command {
                Command::Assign(session, lease) => self.deliver(session, lease),
                Command::Revoke(session, fence) => {
                    // The message may come too late or never.
                    let lost = self.faults && self.dice.chance(10);
                    if let Some(body) = self.body(session.0).filter(|_| !lost) {
                        body.leases.retain(|(lease, _)| lease.fence != fence);
                    }
                }
                Command::CheckRoot(job) => {
                    let bad = self.faults && self.dice.chance(20);
                    self.on(Event::RootChecked(job, if bad { Err("bad".into()) } else { Ok(()) }));
                }
                Command::Quarantine { task, .. } => _ = self.store.remove(&task),
                Command::CheckProof { task, .. } => self.looks.push(task),
                _ => {}
            }
        }
    }

    fn count(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    fn deliver(&mut self, session: Session, lease: Assignment) {
        let lost = self.faults && self.dice.chance(3);
        let now = self.world.now;
        match self.body(session.0).filter(|_| !lost) {
            Some(body) => body.leases.push((lease, now)),
            None => self.on(Event::Undelivered(session, lease.fence)),
        }
    }

    fn body(&mut self, session: u64) -> Option<&mut Body> {
        self.bodies.iter_mut().find(|b| b.session == Some(session))
    }

    fn join(&mut self, n: usize) {
        let session = self.next_session;
        self.next_session += 1;
        let now = self.world.now;
        // Those that come when all is calm are chosen.
        if self.kinds && n > 0 && self.faults && self.dice.chance(40) {
            self.bodies[n].kinds = self.some_kinds();
        }
        if self.names.len() > 1 && n > 0 && self.faults && self.dice.chance(40) {
            self.bodies[n].serves = self.some_serves();
        }
        let body = &mut self.bodies[n];
        (body.session, body.drains) = (Some(session), false);
        let held = |(lease, since): &(Assignment, Millis)| {
            let running =
                if lease.fence.0.is_multiple_of(3) { None } else { Some(now.saturating_sub(*since)) };
            crate::engine_world::held(lease, running)
        };
        let held = body.leases.iter().map(held).collect();
        let worker = worker(&body.name, &body.node, body.capacity.unwrap(), body.prefetch);
        let worker = WorkerSpec { kinds: body.kinds, serves: body.serves.clone(), ..worker };
        self.on(Event::Joined { session: Session(session), worker, held });
    }

    fn some_serves(&mut self) -> Serves {
        if self.dice.chance(20) {
            return Serves::All;
        }
        let names = self.names.clone();
        Serves::only(names.into_iter().filter(|_| self.dice.chance(60)))
    }

    /// The machine's clock is set, or another machine's shows something else.
    fn set_clock(&mut self) {
        let by = self.dice.below(4_000_000);
        self.count("clock");
        if self.dice.chance(50) {
            let wall = self.world.now.saturating_add(by).saturating_sub(2_000_000);
            return self.on(Event::Wall(wall));
        }
        self.world.now = self.world.now.saturating_sub(by).max(1_000);
        self.on(Event::Tick);
    }

    fn some_kinds(&mut self) -> KindSet {
        let bits = 1 + self.dice.below(u64::from(KindSet::ALL.bits()));
        KindSet::from_bits(bits as u32).unwrap_or_default()
    }

    fn heartbeat(&mut self, n: usize) {
        if let Some(session) = self.bodies[n].session {
            let fences = self.bodies[n].leases.iter().map(|(lease, _)| lease.fence).collect();
            self.on(Event::Heartbeat(Session(session), fences));
        }
    }

    /// One of a worker's leases ends; what it says goes into its outbox.
    fn work(&mut self, n: usize) {
        let Body { leases, session, name, .. } = &mut self.bodies[n];
        let Some(session) = *session else { return };
        if leases.is_empty() {
            return;
        }
        let place = self.dice.below(leases.len() as u64) as usize;
        let (lease, _) = leases.remove(place);
        let fails = self.faults && self.dice.chance(12);
        let event = if fails {
            let reason = self.reason(&lease);
            Event::Failed {
                session: Session(session),
                task: lease.task,
                fence: lease.fence,
                reason,
                text: "storm".into(),
            }
        } else {
            let name = name.clone();
            let found = self.store.insert(lease.task, name).is_some();
            let millis = 500 + self.dice.below(1_000) as u32;
            Event::Completed(Session(session), Done { found, millis, ..done(lease.task, lease.fence) })
        };
        self.bodies[n].outbox.push(event);
    }

    fn reason(&mut self, lease: &Assignment) -> Reason {
        let shape = self.world.engine.prepared(lease.job).map(|(shape, _)| shape.clone());
        let child = shape.and_then(|s| s.children(lease.node).as_slice().last().copied());
        let prepared = self.world.engine.prepared_job(lease.job).cloned();
        match self.dice.below(8) {
            0 | 1 => Reason::Error,
            2 => Reason::OutOfMemory,
            3 => Reason::HandedBack,
            4 => Reason::StoreUnavailable,
            5 => Reason::BadProof,
            6 => Reason::TimedOut,
            _ => match child.zip(prepared) {
                Some((child, tree)) if self.dice.chance(30) => Reason::MissingChild(tree.ids[child.index()]),
                Some((child, tree)) => Reason::BadChild(tree.ids[child.index()]),
                None => Reason::Error,
            },
        }
    }

    /// Some of what a worker said arrives, in any order, now and then twice.
    fn arrive(&mut self, n: usize) {
        while !self.bodies[n].outbox.is_empty() {
            let place = self.dice.below(self.bodies[n].outbox.len() as u64) as usize;
            let twice = self.faults && self.dice.chance(10);
            let event = if twice {
                self.bodies[n].outbox[place].clone()
            } else {
                self.bodies[n].outbox.swap_remove(place)
            };
            self.on(event);
            if self.faults && self.dice.chance(30) {
                return;
            }
        }
    }

    /// The operator sees some of the proofs that it is to look at; now and then it never does.
    fn look(&mut self) {
        for task in std::mem::take(&mut self.looks) {
            if self.dice.chance(30) {
                self.looks.push(task);
                continue;
            }
            let known = |worker: &String| proof_of(task, worker);
            let finding = match (self.store.get(&task), self.dice.below(if self.faults { 8 } else { 1 })) {
                (_, 7) => continue,
                (_, 6) => Finding::Unknown("away".into()),
                (None, _) => Finding::Missing,
                (Some(_), 5) => Finding::Bad("torn".into()),
                (Some(worker), 4) => Finding::Present(known(worker)),
                (Some(worker), _) => Finding::Valid(known(worker)),
            };
            self.on(Event::ProofChecked { task, finding });
        }
    }

    fn fault(&mut self) {
        let n = self.dice.below(self.bodies.len() as u64) as usize;
        let session = self.bodies[n].session;
        let job = JobId(self.jobs[self.dice.below(self.jobs.len() as u64) as usize]);
        match (self.dice.below(if self.cluster { 17 } else { 12 }), session) {
            (0, Some(session)) => {
                self.on(Event::Left(Session(session), Gone::Dead));
                self.bury(n);
            }
            (12 | 13, Some(session)) => {
                let incident = format!("{}", self.dice.next());
                self.bodies[n].untold.push(incident);
                if self.dice.chance(30) {
                    self.tell(n);
                }
                if self.dice.chance(80) {
                    self.on(Event::Left(Session(session), Gone::Disconnected));
                }
                self.bury(n);
            }
            (14, Some(session)) => {
                self.bodies[n].drains = true;
                self.on(Event::Drain(Session(session)));
            }
            (15, None) => {
                let name = self.bodies[n].name.clone();
                if let Some((session, _)) = self.world.engine.session_of(&name) {
                    self.on(Event::Left(session, Gone::Dead));
                }
            }
            (16, _) => {
                let (worker, incident) = (self.bodies[n].name.clone(), format!("{}", self.dice.next()));
                self.on(Event::OutOfMemory { worker, incident });
            }
            (1, Some(session)) => {
                self.on(Event::Left(Session(session), Gone::Disconnected));
                self.bodies[n].session = None;
                self.bodies[n].outbox.clear();
            }
            (2, Some(session)) if n > 0 => {
                self.bodies[n].drains = true;
                self.on(Event::Draining(Session(session)));
            }
            (3, _) => self.on(Event::Cancel(job)),
            (4, _) => self.revive(job),
            (5 | 6, _) => {
                let suspended = self.dice.chance(50);
                self.on(Event::Suspend(job, suspended));
            }
            (7, _) => {
                let priority = self.dice.below(3) as i32;
                self.on(Event::Priority(job, priority));
            }
            (8, _) => {
                let policy = self.dice.below(20) as usize;
                self.on(Event::Order { job, policy });
            }
            (9, _) => self.restart(),
            (10, _) => self.snapshot = Some((self.world.engine.snapshot(), self.world.journal.len())),
            (11, _) => self.world.now += 20_000,
            _ => {}
        }
    }

    /// A process is gone, with all it had.
    fn bury(&mut self, n: usize) {
        let Body { name, node, capacity, kinds, serves, prefetch, untold, .. } =
            std::mem::take(&mut self.bodies[n]);
        self.bodies[n] = Body { name, node, capacity, kinds, serves, prefetch, untold, ..Body::default() };
    }

    /// A death by memory is told, now and then twice.
    fn tell(&mut self, n: usize) {
        let Some(incident) = self.bodies[n].untold.pop() else { return };
        if self.dice.chance(20) {
            self.bodies[n].untold.push(incident.clone());
        }
        self.count("OutOfMemory");
        self.on(Event::OutOfMemory { worker: self.bodies[n].name.clone(), incident });
    }

    /// Demand is what the tasks' states say, counted one by one.
    fn check_demand(&self) {
        let engine = &self.world.engine;
        let mut wanted: BTreeMap<TaskId, TaskState> = BTreeMap::new();
        for job in &self.jobs {
            let view = engine.job(JobId(*job)).unwrap();
            if view.state != JobState::Proving || view.spec.suspended {
                continue;
            }
            let tree = engine.prepared_job(JobId(*job)).unwrap();
            let mut hopeless = vec![false; tree.ids.len()];
            for node in tree.shape.nodes() {
                let state = engine.task(JobId(*job), node).unwrap().state;
                let below = tree.shape.children(node).as_slice().iter().any(|c| hopeless[c.index()]);
                hopeless[node.index()] = state != TaskState::Done && (below || state == TaskState::Failed);
                if state != TaskState::Done && !hopeless[node.index()] {
                    wanted.insert(tree.ids[node.index()], state);
                }
            }
        }
        let count = |state: &[TaskState]| wanted.values().filter(|s| state.contains(s)).count() as u32;
        let rows = engine.demand(Millis::MAX);
        let sum = |of: fn(&Demand) -> u32| rows.iter().map(of).sum::<u32>();
        assert_eq!(sum(|d| d.running), count(&[TaskState::Leased]));
        assert_eq!(sum(|d| d.ready), count(&[TaskState::Ready]));
        assert_eq!(sum(|d| d.soon), count(&[TaskState::Waiting, TaskState::Delayed]));
        for now in engine.demand(0).iter().filter(|row| row.soon > 0) {
            let same = |ever: &&Demand| {
                (&ever.namespace, ever.kind, ever.needs) == (&now.namespace, now.kind, now.needs)
            };
            let ever = rows.iter().find(same).map_or(0, |ever| ever.soon);
            assert!(now.soon <= ever, "{now:?}: {ever} at any time");
        }
    }

    /// The operator dies, with the last of its journal unwritten, and another takes over.
    fn restart(&mut self) {
        if let Some((bytes, from)) = &self.snapshot {
            let whole = self.world.restored(Some(bytes), &self.world.journal[*from..]);
            assert_same_books(&self.world.engine, &whole, "restart");
        }
        let torn = self.dice.below(6).min(self.world.journal.len() as u64) as usize;
        let mut journal = self.world.journal.clone();
        let keep = |r: &Vec<u8>| matches!(Record::decode(r), Ok(Record::FencesTo(_) | Record::Submitted(..)));
        // Fences are written long before they are used, submits before they are acknowledged.
        let cut = journal.len() - torn;
        let tail: Vec<_> = journal.split_off(cut).into_iter().filter(keep).collect();
        journal.extend(tail);
        let snapshot = self.snapshot.take().filter(|(_, length)| *length <= cut);
        let (bytes, from) = snapshot.map_or((None, 0), |(bytes, from)| (Some(bytes), from));
        if self.clocks {
            self.world.now =
                self.world.now.saturating_add(self.dice.below(8_000_000)).saturating_sub(4_000_000);
        }
        let engine = self.world.restored(bytes.as_deref(), &journal[from..]);
        self.world.engine = engine;
        self.world.journal = journal;
        self.looks.clear();
        self.count("restart");
        self.bodies.iter_mut().for_each(|body| {
            body.session = None;
            body.outbox.clear();
        });
        for job in self.jobs.clone() {
            let open = self.world.engine.open_tasks(JobId(job));
            let lost = open.into_iter().filter_map(|task| {
                let worker = self.store.get(&task)?.clone();
                Some(KnownProof { task, worker, millis: 700, cpu_millis: 700, proof_bytes: 1 })
            });
            let lost = lost.collect();
            self.on(Event::Known(lost));
        }
        self.on(Event::Tick);
    }

    fn step(&mut self) {
        self.world.now += 50 + self.dice.below(2_000);
        self.on(Event::Tick);
        self.look();
        if self.faults && self.dice.chance(8) {
            self.fault();
        }
        if self.faults && self.clocks && self.dice.chance(3) {
            self.set_clock();
        }
        if self.names.len() > 1 && self.faults && self.dice.chance(3) {
            let weigh = |name: &String| (name.clone(), 1 + self.dice.below(5) as u32);
            let shares = self.names.clone().iter().map(weigh).collect();
            self.on(Event::Shares(shares));
        }
        if self.cluster {
            self.check_demand();
        }
        for n in 0..self.bodies.len() {
            if self.bodies[n].session.is_none() && self.dice.chance(30) {
                self.join(n);
            }
            if !self.bodies[n].untold.is_empty() && self.dice.chance(40) {
                self.tell(n);
            }
            let silent = self.faults && self.dice.chance(20);
            if !silent {
                self.heartbeat(n);
                self.arrive(n);
            }
            let hangs = self.faults && self.dice.chance(40);
            if !hangs {
                self.work(n);
            }
            if self.bodies[n].drains && self.bodies[n].leases.is_empty() && self.bodies[n].outbox.is_empty() {
                self.leave(n);
            }
        }
    }

    fn leave(&mut self, n: usize) {
        if let Some(session) = self.bodies[n].session.take() {
            self.on(Event::Left(Session(session), Gone::Disconnected));
        }
    }

    pub fn run(&mut self) -> [u8; 32] {
        for step in 0..4_000 {
            if step == 300 {
                self.calm();
            }
            self.step();
            if !self.faults && self.jobs.iter().all(|job| self.world.state(*job) == JobState::Complete) {
                return *self.trace.finalize().as_bytes();
            }
        }
        let states: Vec<_> = self.jobs.iter().map(|job| self.world.engine.job(JobId(*job))).collect();
        panic!("not done: {states:?}\n{:#?}\n{:?}", self.world.engine.workers(), self.bodies);
    }

    /// From now on nothing goes wrong, and what users stopped goes on.
    fn calm(&mut self) {
        self.faults = false;
        let fresh = self.bodies.len();
        // Suspected workers get nothing any more: there are new ones.
        for n in 0..2 {
            let name = format!("new{n}");
            // Together they take all, and only together.
            let half: KindSet = Kind::ALL.into_iter().filter(|kind| kind.index() % 2 == n).collect();
            self.bodies.push(Body {
                node: name.clone(),
                name,
                capacity: Some(Needs { cores: 64, memory_mib: 128 << 10 }),
                kinds: if self.kinds { half } else { KindSet::ALL },
                prefetch: 1,
                ..Body::default()
            });
            self.join(fresh + n);
        }
        for job in self.jobs.clone() {
            self.on(Event::Suspend(JobId(job), false));
            self.revive(JobId(job));
        }
    }

    /// A job whose tree was dropped gets it back, with what the store has of it.
    fn revive(&mut self, job: JobId) {
        let engine = &self.world.engine;
        let Some(view) = engine.job(job).filter(|_| engine.prepared_job(job).is_none()) else {
            return self.on(Event::Revive(job));
        };
        self.count("bare");
        let tree = prepared(view.spec, &self.world.engine.config().profile.clone());
        let known = tree.ids.iter().filter_map(|task| {
            let worker = self.store.get(task)?.clone();
            Some(KnownProof { task: *task, worker, millis: 700, cpu_millis: 700, proof_bytes: 1 })
        });
        let known = known.collect();
        self.on(Event::ReviveWith(Box::new(tree)));
        if self.world.state(job.0) == JobState::Proving {
            self.on(Event::Known(known));
        }
    }
}
