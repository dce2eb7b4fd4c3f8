//! Hostile workers among honest ones: whatever they say, the block is proven and no honest machine pays.

mod engine_world;

use arborist_core::engine::*;
use arborist_core::ids::TaskId;
use arborist_core::sim::Rng;
use arborist_core::tree::{NodeId, Shape};
use engine_world::*;
use rstest::rstest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the operator can say of a proof that it looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sight {
    /// Whether it is valid.
    Verifies,
    /// Whether it is there.
    Sees,
    /// Nothing: no answer ever comes.
    Blind,
}

#[derive(Debug)]
struct Body {
    name: String,
    node: String,
    hostile: bool,
    session: Option<u64>,
    /// With when each began and will be done.
    leases: Vec<(Assignment, Millis, Millis)>,
}

struct Field {
    world: World,
    rng: Rng,
    sight: Sight,
    bodies: Vec<Body>,
    sessions: u64,
    /// Proofs: their makers, and whether they are good.
    store: BTreeMap<TaskId, (String, bool)>,
    looks: Vec<TaskId>,
    tree: Arc<PreparedJob>,
    /// All leases ever given out.
    given: Vec<Assignment>,
    /// Which honest machines failed which tasks.
    erred: BTreeSet<(usize, TaskId)>,
}

impl Field {
    fn new(seed: u64, sight: Sight, honest: u64, hostile: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = Config {
            limit_floor: 60_000,
            lease_key: [7; 32],
            spot_checks: if sight != Sight::Blind && rng.chance(0.5) { 20 } else { 0 },
            ..flat_config()
        };
        let mut world = World::new(config);
        let calls: Vec<u8> = (0..rng.between(2, 6)).map(|_| rng.between(0, 2) as u8).collect();
        world.submit(spec(1, &calls, seed));
        let tree = world.engine.prepared_job(JobId(1)).unwrap().clone();
        // Hostile workers log in under several names from each machine.
        let bad = (0..2 * hostile).map(|n| (format!("bad{n}"), format!("evil{}", n / 2), true));
        let good = (0..honest).map(|n| (format!("w{n}"), format!("n{n}"), false));
        let bodies = bad.chain(good).map(|(name, node, hostile)| Body {
            name,
            node,
            hostile,
            session: None,
            leases: vec![],
        });
        let bodies = bodies.collect();
        let (store, looks, given) = (BTreeMap::new(), vec![], vec![]);
        Self { world, rng, sight, bodies, sessions: 0, store, looks, tree, given, erred: BTreeSet::new() }
    }

    fn on(&mut self, event: Event) {
        for command in self.world.on(event) {
            match command {
                Command::Assign(session, lease) => {
                    self.given.push(lease);
                    let (now, takes) = (self.world.now, self.rng.between(1_000, 6_000));
                    if let Some(body) = self.body(session) {
                        body.leases.push((lease, now, now + takes));
                    }
                }
                Command::Revoke(session, fence) => {
                    if let Some(body) = self.body(session) {
                        body.leases.retain(|(lease, ..)| lease.fence != fence);
                    }
                }
                Command::Quarantine { task, .. } => _ = self.store.remove(&task),
                Command::CheckProof { task, .. } => self.looks.push(task),
                Command::CheckRoot(job) => {
                    let root = self.tree.ids[self.tree.shape.root().index()];
                    let good = self.store.get(&root).is_some_and(|(_, good)| *good);
                    let verdict = if good { Ok(()) } else { Err("bad".to_owned()) };
                    self.on(Event::RootChecked(job, verdict));
                }
                _ => {}
            }
        }
    }

    fn body(&mut self, session: Session) -> Option<&mut Body> {
        self.bodies.iter_mut().find(|body| body.session == Some(session.0))
    }

    fn look(&mut self) {
        for task in std::mem::take(&mut self.looks) {
            if self.sight == Sight::Blind {
                continue;
            }
            if self.rng.chance(0.3) {
                self.looks.push(task);
                continue;
            }
            let proof = |worker: &str| proof_of(task, worker);
            let finding = match (self.store.get(&task), self.sight) {
                _ if self.rng.chance(0.02) => Finding::Unknown("away".into()),
                (None, _) => Finding::Missing,
                (Some((maker, true)), Sight::Verifies) => Finding::Valid(proof(maker)),
                (Some((_, false)), Sight::Verifies) => Finding::Bad("it does not verify".into()),
                (Some((maker, _)), _) => Finding::Present(proof(maker)),
            };
            self.on(Event::ProofChecked { task, finding });
        }
    }

    fn log_in(&mut self, n: usize) {
        self.sessions += 1;
        let (session, now) = (self.sessions, self.world.now);
        let mut named: Vec<Held> =
            self.bodies[n].leases.iter().map(|(lease, began, _)| held(lease, Some(now - began))).collect();
        if self.bodies[n].hostile {
            for _ in 0..self.rng.between(0, 6) {
                named.push(self.forged());
            }
        }
        let body = &mut self.bodies[n];
        body.session = Some(session);
        let worker = worker(&body.name, &body.node, SMALL, if body.hostile { 2 } else { 0 });
        self.on(Event::Joined { session: Session(session), worker, held: named });
    }

    /// A lease that a hostile worker names: another's, an old one of its own, or none at all.
    fn forged(&mut self) -> Held {
        let running = self.rng.chance(0.7).then_some(1 << 40);
        match self.given.len() as u64 {
            0 => Held { task: TaskId([1; 32]), fence: Fence(1), running, mac: Mac::default() },
            count => {
                let lease = self.given[self.rng.between(0, count - 1) as usize];
                Held { fence: Fence(lease.fence.0 - self.rng.between(0, 1)), ..held(&lease, running) }
            }
        }
    }

    fn work_honestly(&mut self, n: usize) {
        let now = self.world.now;
        let Some(session) = self.bodies[n].session else { return };
        let Some(place) = self.bodies[n].leases.iter().position(|(.., end)| *end <= now) else { return };
        let (lease, ..) = self.bodies[n].leases.remove(place);
        let failed = |reason| Event::Failed {
            session: Session(session),
            task: lease.task,
            fence: lease.fence,
            reason,
            text: "honest".into(),
        };
        let completed =
            |found| Event::Completed(Session(session), Done { found, ..done(lease.task, lease.fence) });
        let event = match self.wrong_child(&lease) {
            // A machine that works well fails a task once, by accident.
            _ if self.rng.chance(0.01) && self.erred.insert((n, lease.task)) => failed(Reason::Error),
            _ if self.rng.chance(0.01) => failed(Reason::StoreUnavailable),
            Some(reason) => failed(reason),
            None => match self.store.get(&lease.task) {
                Some((_, false)) => failed(Reason::BadChild(lease.task)),
                Some((_, true)) => completed(true),
                None => {
                    let name = self.bodies[n].name.clone();
                    self.store.insert(lease.task, (name, true));
                    completed(false)
                }
            },
        };
        self.on(event);
    }

    fn wrong_child(&self, lease: &Assignment) -> Option<Reason> {
        let children = self.tree.shape.children(lease.node);
        children.as_slice().iter().map(|child| self.tree.ids[child.index()]).find_map(|child| {
            match self.store.get(&child) {
                Some((_, true)) => None,
                Some((_, false)) => Some(Reason::BadChild(child)),
                None => Some(Reason::MissingChild(child)),
            }
        })
    }

    fn any_task(&mut self) -> TaskId {
        let last = self.tree.ids.len() as u64 - 1;
        self.tree.ids[self.rng.between(0, last) as usize]
    }

    /// A hostile worker says anything, of its own leases and of others.
    fn lie(&mut self, n: usize, words: bool) {
        let Some(session) = self.bodies[n].session else { return };
        let fence = Fence(self.rng.between(0, self.given.len() as u64 + 5));
        if self.rng.chance(0.3) {
            let task = self.any_task();
            return self.on(Event::Completed(Session(session), done(task, fence)));
        }
        if self.rng.chance(0.3) {
            let mut fences: Vec<Fence> =
                self.bodies[n].leases.iter().map(|(lease, ..)| lease.fence).collect();
            fences.push(fence);
            return self.on(Event::Heartbeat(Session(session), fences));
        }
        let Some((lease, ..)) = self.bodies[n].leases.pop() else { return };
        let found = self.rng.chance(0.3);
        if self.rng.chance(0.4) {
            if self.rng.chance(0.5) && !self.store.contains_key(&lease.task) {
                self.store.insert(lease.task, (self.bodies[n].name.clone(), false));
            }
            let done = Done { found, millis: 1, ..done(lease.task, lease.fence) };
            return self.on(Event::Completed(Session(session), done));
        }
        let reason = self.false_reason(&lease, words);
        self.on(Event::Failed {
            session: Session(session),
            task: lease.task,
            fence: lease.fence,
            reason,
            text: "\u{10ffff}".repeat(1_000),
        });
    }

    fn false_reason(&mut self, lease: &Assignment, words: bool) -> Reason {
        let children = self.tree.shape.children(lease.node);
        let child = children.as_slice().last().map_or(lease.task, |c| self.tree.ids[c.index()]);
        match self.rng.between(0, if words { 10 } else { 5 }) {
            0 | 1 => Reason::BadChild(child),
            2 => Reason::MissingChild(child),
            3 => Reason::BadChild(lease.task),
            4 => Reason::StoreUnavailable,
            5 => Reason::HandedBack,
            6 => Reason::BadInput,
            7 => Reason::OutOfMemory,
            8 => Reason::Oversize,
            9 => Reason::BadProof,
            _ => Reason::Error,
        }
    }

    fn restart(&mut self) {
        let (now, config) = (self.world.now, self.world.engine.config().clone());
        let snapshot = self.rng.chance(0.5).then(|| self.world.engine.snapshot());
        let records = if snapshot.is_some() { vec![] } else { self.world.journal.clone() };
        let engine = Engine::restore(config, snapshot.as_deref(), &records, resolve, now);
        self.world.engine = engine.unwrap();
        self.looks.clear();
        self.bodies.iter_mut().for_each(|body| body.session = None);
        self.on(Event::Tick);
    }

    fn step(&mut self, words: bool) {
        self.world.now += self.rng.between(50, 1_000);
        self.on(Event::Tick);
        self.look();
        if self.rng.chance(0.003) {
            self.restart();
        }
        for n in 0..self.bodies.len() {
            match self.bodies[n].session {
                None if self.rng.chance(0.5) => self.log_in(n),
                Some(session) if self.rng.chance(if self.bodies[n].hostile { 0.05 } else { 0.003 }) => {
                    let gone = if self.rng.chance(0.5) { Gone::Dead } else { Gone::Disconnected };
                    self.bodies[n].session = None;
                    if gone == Gone::Dead {
                        self.bodies[n].leases.clear();
                    }
                    self.on(Event::Left(Session(session), gone));
                }
                _ => {}
            }
            if self.bodies[n].hostile {
                (0..self.rng.between(0, 2)).for_each(|_| self.lie(n, words));
                continue;
            }
            if let Some(session) = self.bodies[n].session {
                let fences = self.bodies[n].leases.iter().map(|(lease, ..)| lease.fence).collect();
                self.on(Event::Heartbeat(Session(session), fences));
            }
            self.work_honestly(n);
        }
        self.nobody_honest_pays();
    }

    fn nobody_honest_pays(&self) {
        for worker in self.world.engine.workers() {
            let honest = !worker.name.starts_with("bad");
            assert!(!honest || worker.state != WorkerState::Barred, "{} is barred", worker.name);
        }
    }

    /// Proves the block; how many steps that took.
    fn run(&mut self, words: bool) -> u32 {
        for step in 0..6_000 {
            self.step(words);
            if self.world.state(1) == JobState::Complete {
                return step;
            }
        }
        let waits = |shape: &Shape| -> Vec<_> {
            let open = shape.nodes().map(|n: NodeId| (n, self.world.view(1, n.0)));
            open.filter(|(_, view)| view.state != TaskState::Done).collect()
        };
        panic!("{:?}\n{:#?}", waits(&self.tree.shape), self.world.engine.workers());
    }
}

/// `ARBORIST_FIRST_SEED` is the first, 0 if it is not set.
fn seeds() -> std::ops::Range<u64> {
    let first = std::env::var("ARBORIST_FIRST_SEED").map_or(0, |text| text.parse().expect("a number"));
    first..first + u64::from(runs(40))
}

/// One hostile machine, under several names, against as few as two honest ones.
#[rstest]
#[case::verifies(Sight::Verifies)]
#[case::sees(Sight::Sees)]
#[case::blind(Sight::Blind)]
fn one_hostile_machine_stops_nothing_and_bars_nobody(#[case] sight: Sight) {
    for seed in seeds() {
        let honest = 2 + seed % 4;
        let mut field = Field::new(seed, sight, honest, 1);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| field.run(true)));
        assert!(outcome.is_ok(), "seed {seed}");
        let counts = field.world.engine.job(JobId(1)).unwrap().counts;
        assert_eq!(counts.iter().map(|c| c.failed).sum::<u32>(), 0, "seed {seed}");
        assert!(field.store.values().all(|(maker, good)| *good || !maker.starts_with('w')), "seed {seed}");
    }
}

/// Two hostile machines that act alike: where the operator sees for itself they are found out.
#[rstest]
#[case::verifies(Sight::Verifies)]
fn two_hostile_machines_among_five_are_found_out(#[case] sight: Sight) {
    for seed in seeds() {
        let mut field = Field::new(seed, sight, 3, 2);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| field.run(false)));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
