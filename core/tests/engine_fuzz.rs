//! Workers and users that say anything at all, at any time: no event may break an invariant or stop the engine, and a
//! restart from what was written has the same books.

mod engine_world;

use arborist_core::circuit::KindSet;
use arborist_core::engine::*;
use arborist_core::ids::TaskId;
use arborist_core::profile::{Needs, Profile};
use arborist_core::sim::Rng;
use engine_world::{assert_same_books, prepared, proof_of, resolve, runs, spec};

/// Events of one run.
const STEPS: u32 = 160;
/// Leases that the hostile workers remember; the oldest are dropped.
const REMEMBERED: usize = 60;
const MACHINES: [Needs; 6] = [
    Needs { cores: 8, memory_mib: 16 << 10 },
    Needs { cores: 32, memory_mib: 64 << 10 },
    Needs { cores: 64, memory_mib: 128 << 10 },
    Needs { cores: 24, memory_mib: 40 << 10 },
    Needs { cores: 40, memory_mib: 300 << 10 },
    Needs { cores: 1, memory_mib: 1 },
];

#[test]
fn anything_may_be_said_to_the_engine() {
    let first = std::env::var("ARBORIST_FIRST_SEED").map_or(0, |text| text.parse().expect("a number"));
    for seed in first..first + u64::from(runs(400)) {
        Fuzz::new(seed).run();
    }
}

/// An engine, what its commands left behind, and those who talk to it.
struct Fuzz {
    seed: u64,
    rng: Rng,
    config: Config,
    engine: Engine,
    now: Millis,
    snapshot: Option<Vec<u8>>,
    journal: Vec<Vec<u8>>,
    /// Leases given out, with their sessions.
    leases: Vec<(u64, Assignment)>,
    /// Tasks of all jobs.
    tasks: Vec<TaskId>,
    /// Proofs that the operator was asked to look at.
    looks: Vec<TaskId>,
    jobs: u32,
    sessions: u64,
    restarts: u64,
}

impl Fuzz {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = Config {
            prefetch_below: if rng.chance(0.5) { Millis::MAX } else { 2_000 },
            limit_floor: 40_000,
            limit_factor: 3,
            max_attempts: [3, 5, 200][rng.between(0, 2) as usize],
            ..Config::new(Profile::rfp()).with_larger_classes()
        };
        Self {
            seed,
            rng,
            engine: Engine::new(config.clone()),
            config,
            now: 1_000_000,
            snapshot: None,
            journal: vec![],
            leases: vec![],
            tasks: vec![],
            looks: vec![],
            jobs: 0,
            sessions: 0,
            restarts: 0,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.now += [0, 1, 10, 300, 1_500, 16_000][self.rng.between(0, 5) as usize];
            if self.rng.chance(0.02) {
                self.restart();
            }
            let event = self.event();
            let shown: String = format!("{event:?}").chars().take(300).collect();
            let mut out = vec![];
            self.engine.handle(self.now, event, &mut out);
            if let Err(violations) = self.engine.check() {
                panic!("seed {}: after {shown}: {violations:#?}", self.seed);
            }
            self.carry_out(out);
        }
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Assign(session, lease) => self.leases.push((session.0, lease)),
                Command::Persist(record) | Command::Amend(record) => self.journal.push(record.encode()),
                Command::CheckProof { task, .. } => self.looks.push(task),
                _ => {}
            }
        }
        if self.leases.len() > REMEMBERED {
            self.leases.drain(..REMEMBERED / 3);
        }
    }

    fn event(&mut self) -> Event {
        if self.rng.chance(0.5)
            && let Some(task) = self.looks.pop()
        {
            return Event::ProofChecked { task, finding: self.finding(task) };
        }
        match self.rng.between(0, 24) {
            0 | 1 => self.submit(),
            2..=8 => self.user(),
            9..=13 => self.presence(),
            14 | 15 => self.heartbeat(),
            16..=19 => self.completed(),
            20..=22 => self.failed(),
            23 => {
                Event::RootChecked(self.job(), if self.rng.chance(0.5) { Ok(()) } else { Err("bad".into()) })
            }
            _ => Event::Tick,
        }
    }

    /// What the operator finds, whatever was said.
    fn finding(&mut self, task: TaskId) -> Finding {
        match self.rng.between(0, 5) {
            0 => Finding::Valid(proof_of(task, "w1")),
            1 => Finding::Present(proof_of(task, "w2")),
            2 => Finding::Exists,
            3 => Finding::Bad("torn".into()),
            4 => Finding::Missing,
            _ => Finding::Unknown("no answer".into()),
        }
    }

    fn job(&mut self) -> JobId {
        JobId(self.rng.between(1, 7) as u32)
    }

    fn session(&mut self) -> Session {
        Session(self.rng.between(0, self.sessions.max(1)))
    }

    /// One of the leases given out, now and then none.
    fn lease(&mut self) -> Option<(u64, Assignment)> {
        let last = self.leases.len().checked_sub(1)?;
        (!self.rng.chance(0.1)).then(|| self.leases[self.rng.between(0, last as u64) as usize])
    }

    /// A task of some job, now and then of none.
    fn task(&mut self) -> TaskId {
        match self.tasks.len().checked_sub(1) {
            Some(last) if self.rng.chance(0.98) => self.tasks[self.rng.between(0, last as u64) as usize],
            _ => TaskId([self.rng.between(0, 255) as u8; 32]),
        }
    }

    fn submit(&mut self) -> Event {
        if self.jobs > 6 && self.rng.chance(0.7) {
            return Event::Tick;
        }
        self.jobs += 1;
        let calls: Vec<u8> = (0..self.rng.between(1, 5)).map(|_| self.rng.between(0, 2) as u8).collect();
        let request = JobSpec {
            priority: self.rng.between(0, 2) as i32,
            prover_id: [self.rng.between(0, 1) as u8; 32],
            deadline: self.rng.chance(0.2).then(|| self.now + self.rng.between(0, 100_000)),
            suspended: self.rng.chance(0.1),
            ..spec(self.jobs, &calls, self.rng.between(0, 1))
        };
        let job = prepared(request, &self.config.profile);
        self.tasks.extend(job.ids.iter().copied());
        Event::Submit(Box::new(job))
    }

    fn user(&mut self) -> Event {
        let job = self.job();
        match self.rng.between(0, 7) {
            0 => Event::Cancel(job),
            1 => Event::Revive(job),
            2 if self.rng.chance(0.3) => Event::Forget(job),
            3 => Event::Suspend(job, self.rng.chance(0.5)),
            4 => Event::Priority(job, self.rng.between(0, 3) as i32),
            5 => Event::Order { job, policy: self.rng.between(0, 14) as usize },
            6 => {
                let deadline = self.rng.chance(0.5).then(|| self.now + self.rng.between(0, 1_000_000));
                Event::Deadline(job, deadline)
            }
            _ => {
                let proofs = (0..self.rng.between(0, 3)).map(|_| self.known()).collect();
                Event::Known(proofs)
            }
        }
    }

    fn known(&mut self) -> KnownProof {
        let worker = format!("w{}", self.rng.between(0, 9));
        KnownProof { task: self.task(), worker, millis: 1, cpu_millis: 1, proof_bytes: 1 }
    }

    fn presence(&mut self) -> Event {
        match self.rng.between(0, 6) {
            0 => {
                let gone = if self.rng.chance(0.5) { Gone::Dead } else { Gone::Disconnected };
                Event::Left(self.session(), gone)
            }
            1 => Event::OutOfMemory {
                worker: format!("w{}", self.rng.between(0, 5)),
                incident: self.rng.between(0, 30).to_string(),
            },
            2 if self.rng.chance(0.5) => Event::Draining(self.session()),
            2 => Event::Drain(self.session()),
            3 => match self.lease() {
                Some((session, lease)) => Event::Undelivered(Session(session), lease.fence),
                None => Event::Tick,
            },
            _ => self.joined(),
        }
    }

    /// A login under one of six names; what it says to hold may be its own, another's, or nobody's.
    fn joined(&mut self) -> Event {
        self.sessions += 1;
        let held = (0..self.rng.between(0, 5)).map(|_| self.held()).collect();
        let name = self.rng.between(0, 5);
        let usual = MACHINES[if name.is_multiple_of(2) { 2 } else { 1 }];
        let capacity = if self.rng.chance(0.7) { usual } else { MACHINES[self.rng.between(0, 5) as usize] };
        let node = if self.rng.chance(0.9) { name / 2 } else { self.rng.between(0, 3) };
        let kinds = if self.rng.chance(0.8) { 31 } else { self.rng.between(1, 31) as u32 };
        let worker = WorkerSpec {
            kinds: KindSet::from_bits(kinds).unwrap_or_default(),
            ..engine_world::worker(
                &format!("w{name}"),
                &format!("n{node}"),
                capacity,
                self.rng.between(0, 3) as u16,
            )
        };
        let session = Session(self.sessions);
        match self.rng.chance(0.1) {
            true => Event::JoinedToLeave { session, worker, held },
            false => Event::Joined { session, worker, held },
        }
    }

    fn held(&mut self) -> Held {
        let lease = self.lease().map(|(_, lease)| lease);
        let fence = match lease {
            Some(lease) if self.rng.chance(0.7) => lease.fence,
            _ => Fence(self.rng.between(0, 60)),
        };
        let task = match lease {
            Some(lease) if self.rng.chance(0.8) => lease.task,
            _ => self.task(),
        };
        let running = self.rng.chance(0.7).then(|| self.rng.between(0, 50_000));
        Held { task, fence, running, mac: lease.map_or(Mac::default(), |lease| lease.mac) }
    }

    fn heartbeat(&mut self) -> Event {
        let session = self.session();
        let fence = |fuzz: &mut Self| match fuzz.lease() {
            Some((_, lease)) => lease.fence,
            None => Fence(fuzz.rng.between(0, 80)),
        };
        let fences = (0..self.rng.between(0, 6)).map(|_| fence(self)).collect();
        Event::Heartbeat(session, fences)
    }

    fn completed(&mut self) -> Event {
        let Some((session, lease)) = self.lease() else { return Event::Tick };
        let session = if self.rng.chance(0.85) { Session(session) } else { self.session() };
        let task = if self.rng.chance(0.95) { lease.task } else { self.task() };
        let millis = self.rng.between(0, 40_000) as u32;
        let found = self.rng.chance(0.2);
        Event::Completed(session, Done { millis, found, ..engine_world::done(task, lease.fence) })
    }

    fn failed(&mut self) -> Event {
        let Some((session, lease)) = self.lease() else { return Event::Tick };
        let first_child = self.engine.prepared_job(lease.job).and_then(|job| {
            let children = job.shape.children(lease.node);
            children.as_slice().first().map(|child| job.ids[child.index()])
        });
        let any = self.task();
        let child = first_child.filter(|_| self.rng.chance(0.8)).unwrap_or(any);
        let reasons = [
            Reason::Error,
            Reason::OutOfMemory,
            Reason::TimedOut,
            Reason::BadChild(child),
            Reason::MissingChild(child),
            Reason::BadInput,
            Reason::BadProof,
            Reason::Oversize,
            Reason::StoreUnavailable,
            Reason::HandedBack,
            Reason::BadChild(lease.task),
            Reason::MissingChild(lease.task),
        ];
        let reason = reasons[self.rng.between(0, reasons.len() as u64 - 1) as usize];
        let session = if self.rng.chance(0.9) { Session(session) } else { self.session() };
        Event::Failed { session, task: lease.task, fence: lease.fence, reason, text: "said so".into() }
    }

    /// The operator stops after all of its journal was written, and another takes over.
    fn restart(&mut self) {
        if self.rng.chance(0.5) {
            self.snapshot = Some(self.engine.snapshot());
            self.journal.clear();
        }
        self.restarts += 1;
        let config = Config { first_fence: Fence(1_000 * self.restarts), ..self.config.clone() };
        let restored = Engine::restore(config, self.snapshot.as_deref(), &self.journal, resolve, self.now);
        let restored = restored.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        assert_same_books(&self.engine, &restored, &format!("seed {}", self.seed));
        self.engine = restored;
    }
}
