//! A small world around the engine: workers that run what they are given, in virtual time.
#![allow(dead_code, reason = "each test file uses its part")]

use arborist_core::circuit::{Kind, KindSet};
use arborist_core::engine::*;
use arborist_core::ids::TaskId;
use arborist_core::profile::{Needs, Profile};
use arborist_core::tree::{Leaves, NodeId};

pub const SMALL: Needs = Needs { cores: 8, memory_mib: 16 << 10 };
pub const LARGE: Needs = Needs { cores: 32, memory_mib: 64 << 10 };

/// How many runs a test draws at random: `few`, or as many as `ARBORIST_SEEDS` says (`make soak`).
pub fn runs(few: u32) -> u32 {
    match std::env::var("ARBORIST_SEEDS") {
        Ok(text) => text.parse().expect("ARBORIST_SEEDS is a number"),
        Err(_) => few,
    }
}

pub fn spec(id: u32, calls: &[u8], seed: u64) -> JobSpec {
    JobSpec {
        id: JobId(id),
        name: format!("job-{id}"),
        namespace: String::new(),
        source: Source::Synthetic { calls: calls.to_vec(), seed },
        chain_id: 1,
        block_number: 7,
        prover_id: [3; 32],
        deadline: None,
        priority: 0,
        suspended: false,
    }
}

pub fn resolve(spec: &JobSpec) -> Result<(Vec<u8>, Leaves), Unresolved> {
    match &spec.source {
        Source::Synthetic { calls, seed } => Ok((calls.clone(), Leaves::Synthetic { seed: *seed })),
        Source::Block(hash) => Err(Unresolved::Lost(format!("no block {hash}"))),
    }
}

pub fn prepared(spec: JobSpec, profile: &Profile) -> PreparedJob {
    let (calls, leaves) = resolve(&spec).unwrap();
    PreparedJob::new(spec, &calls, leaves, profile).unwrap()
}

pub fn worker(name: &str, node: &str, capacity: Needs, prefetch: u16) -> WorkerSpec {
    let (name, node) = (name.into(), node.into());
    WorkerSpec { name, node, capacity, kinds: KindSet::ALL, prefetch, serves: Serves::All }
}

/// An engine with the commands of its last event, checked after every one.
pub struct World {
    pub engine: Engine,
    pub now: Millis,
    pub out: Vec<Command>,
    pub journal: Vec<Vec<u8>>,
}

impl World {
    pub fn new(config: Config) -> Self {
        Self { engine: Engine::new(config), now: 1_000_000, out: vec![], journal: vec![] }
    }

    pub fn rfp() -> Self {
        Self::new(Config::new(Profile::rfp()))
    }

    /// All kinds need the same small machine.
    pub fn flat() -> Self {
        Self::new(flat_config())
    }

    /// Handles an event, checks every invariant, and returns the commands.
    pub fn on(&mut self, event: Event) -> Vec<Command> {
        let shown = format!("{event:?}");
        self.out.clear();
        self.engine.handle(self.now, event, &mut self.out);
        if let Err(violations) = self.engine.check() {
            let shown: String = shown.chars().take(300).collect();
            panic!("after {shown}: {violations:#?}\ncommands: {:#?}", self.out);
        }
        for command in &self.out {
            if let Command::Persist(record) | Command::Amend(record) = command {
                let bytes = record.encode();
                assert_eq!(Record::decode(&bytes).as_ref(), Ok(record));
                self.journal.push(bytes);
            }
        }
        self.out.clone()
    }

    pub fn submit(&mut self, spec: JobSpec) -> Vec<Command> {
        let job = prepared(spec, &self.engine.config().profile.clone());
        self.on(Event::Submit(Box::new(job)))
    }

    pub fn join(&mut self, session: u64, capacity: Needs, prefetch: u16) -> Vec<Command> {
        let worker = worker(&format!("w{session}"), &format!("n{session}"), capacity, prefetch);
        self.on(Event::Joined { session: Session(session), worker, held: vec![] })
    }

    pub fn after(&mut self, millis: Millis) -> Vec<Command> {
        self.now += millis;
        self.on(Event::Tick)
    }

    /// Time passes, and all workers are heard; what is assigned meanwhile.
    pub fn alive(&mut self, millis: Millis) -> Vec<(u64, Assignment)> {
        self.now += millis;
        let mut commands = vec![];
        for worker in self.engine.workers() {
            commands.extend(self.on(Event::Heartbeat(worker.session, vec![])));
        }
        commands.extend(self.on(Event::Tick));
        assigned(&commands)
    }

    pub fn complete(&mut self, session: u64, lease: &Assignment) -> Vec<Command> {
        self.on(Event::Completed(Session(session), done(lease.task, lease.fence)))
    }

    pub fn fail(&mut self, session: u64, lease: &Assignment, reason: Reason) -> Vec<Command> {
        self.on(Event::Failed {
            session: Session(session),
            task: lease.task,
            fence: lease.fence,
            reason,
            text: "on purpose".into(),
        })
    }

    /// The operator has looked at a proof.
    pub fn checked(&mut self, task: TaskId, finding: Finding) -> Vec<Command> {
        self.on(Event::ProofChecked { task, finding })
    }

    pub fn state(&self, job: u32) -> JobState {
        self.engine.job(JobId(job)).unwrap().state
    }

    pub fn done(&self, job: u32) -> u32 {
        self.engine.job(JobId(job)).unwrap().counts.iter().map(|c| c.done).sum()
    }

    pub fn view(&self, job: u32, node: u32) -> TaskView {
        self.engine.task(JobId(job), NodeId(node)).unwrap()
    }

    /// Restores an engine from what it has written, without a word from its workers.
    pub fn restored(&self, snapshot: Option<&[u8]>, records: &[Vec<u8>]) -> Engine {
        let config = self.engine.config().clone();
        let engine = Engine::restore(config, snapshot, records, resolve, self.now).unwrap();
        engine.check().unwrap_or_else(|v| panic!("after restore: {v:#?}"));
        engine
    }
}

/// Panics unless a restart from all that an engine has written has the same books: jobs and their requests, which
/// tasks are done, by whom and in how long, and which were given up.
pub fn assert_same_books(engine: &Engine, restored: &Engine, context: &str) {
    let ids: Vec<_> = engine.jobs().collect();
    assert_eq!(ids, restored.jobs().collect::<Vec<_>>(), "{context}");
    for id in ids {
        let (before, after) = (engine.job(id).unwrap(), restored.job(id).unwrap());
        assert_eq!((&before.state, &before.spec), (&after.state, &after.spec), "{context}: {id:?}");
        let lasting = |view: &JobView| view.counts.map(|c| (c.total, c.done, c.failed));
        assert_eq!(lasting(&before), lasting(&after), "{context}: {id:?}");
        let trees = [engine, restored].map(|engine| engine.prepared_job(id));
        assert_eq!(trees[0].is_some(), trees[1].is_some(), "{context}: the tree of {id:?}");
        for node in trees[0].iter().flat_map(|tree| tree.shape.nodes()) {
            let books = |engine: &Engine| {
                let task = engine.task(id, node).unwrap();
                let lasts = matches!(task.state, TaskState::Done | TaskState::Failed).then_some(task.state);
                let made = (task.state == TaskState::Done).then_some((task.workers, task.millis));
                (lasts, made, engine.maker(id, node).map(str::to_owned))
            };
            assert_eq!(books(engine), books(restored), "{context}: {id:?} {node:?}");
        }
    }
}

pub fn flat_config() -> Config {
    // Queues are tried with proofs of any length.
    Config { prefetch_below: Millis::MAX, ..Config::new(Profile { needs: [SMALL; 5], ..Profile::rfp() }) }
}

pub fn done(task: TaskId, fence: Fence) -> Done {
    Done { task, fence, millis: 1_000, cpu_millis: 8_000, peak_mib: 0, proof_bytes: 30_000, found: false }
}

/// A lease as its worker names it when it comes back.
pub fn held(lease: &Assignment, running: Option<Millis>) -> Held {
    Held { task: lease.task, fence: lease.fence, running, mac: lease.mac }
}

/// Proofs that the operator is to look at.
pub fn checks(commands: &[Command]) -> Vec<TaskId> {
    let check = |c: &Command| match c {
        Command::CheckProof { task, .. } => Some(*task),
        _ => None,
    };
    commands.iter().filter_map(check).collect()
}

/// A proof as its header has it.
pub fn proof_of(task: TaskId, worker: &str) -> KnownProof {
    KnownProof { task, worker: worker.into(), millis: 1_000, cpu_millis: 8_000, proof_bytes: 30_000 }
}

pub fn assigned(commands: &[Command]) -> Vec<(u64, Assignment)> {
    let assign = |c: &Command| match c {
        Command::Assign(session, assignment) => Some((session.0, *assignment)),
        _ => None,
    };
    commands.iter().filter_map(assign).collect()
}

pub fn revoked(commands: &[Command]) -> Vec<(u64, Fence)> {
    let revoke = |c: &Command| match c {
        Command::Revoke(session, fence) => Some((session.0, *fence)),
        _ => None,
    };
    commands.iter().filter_map(revoke).collect()
}

pub fn notices(commands: &[Command]) -> Vec<Notice> {
    let notice = |c: &Command| match c {
        Command::Notice(notice) => Some(notice.clone()),
        _ => None,
    };
    commands.iter().filter_map(notice).collect()
}

pub fn kind(assignment: &Assignment) -> Kind {
    assignment.circuit.kind()
}

/// Runs everything that is leased to its end, first come first served, until nothing is left to do.
pub fn drain(world: &mut World, first: Vec<Command>) {
    let mut leases: std::collections::VecDeque<_> = assigned(&first).into();
    let mut dropped = std::collections::BTreeSet::new();
    let mut commands = first;
    loop {
        dropped.extend(revoked(&commands));
        for command in &commands {
            if let Command::CheckRoot(job) = command {
                let job = *job;
                world.on(Event::RootChecked(job, Ok(())));
            }
        }
        let Some((session, lease)) = leases.pop_front() else { return };
        commands = if dropped.contains(&(session, lease.fence)) {
            vec![]
        } else {
            world.now += 10;
            world.complete(session, &lease)
        };
        leases.extend(assigned(&commands));
    }
}
