//! The world around the engine in virtual time: workers, network, operator, artifact store, faults.

use super::operator::{Operator, SEGMENT_MILLIS};
use super::queue::{Down, Fault, Queue, Up, Way, What, Wire};
use super::rng::{Rng, mix};
use super::scenario::{Outcome, Scenario};
use super::worker::{Task, Worker};
use crate::engine::{
    Assignment, Command, Done, Event, Fence, Finding, JobState, KnownProof, Millis, Notice, Reason, Session,
};
use crate::ids::TaskId;
use crate::order::choose;
use crate::tree::{BadShape, NodeId, Shape};
use std::collections::HashMap;

mod faults;

/// Looking at a proof takes so long.
const PROOF_CHECK_MILLIS: Millis = 5;

/// Checking the root proof takes so long.
const ROOT_CHECK_MILLIS: Millis = 20;

/// An hour: runs shorter than that are never given up.
const PATIENCE_MILLIS: Millis = 3_600_000;

/// Invariants that did not hold and are reported.
const VIOLATIONS_SHOWN: usize = 5;

/// Runs a scenario to its end.
///
/// # Errors
/// The profile does not allow the block's shape.
pub fn run(scenario: &Scenario) -> Result<Outcome, BadShape> {
    let shape = Shape::new(&scenario.calls, scenario.config.profile.max_calls)?;
    let mut world = World::new(scenario, shape);
    while world.ended.is_none()
        && let Some((at, what)) = world.queue.next()
        && at <= world.give_up
    {
        world.now = at;
        world.outcome.events += 1;
        world.step(what);
    }
    Ok(world.finish())
}

struct World<'a> {
    scenario: &'a Scenario,
    shape: Shape,
    rng: Rng,
    now: Millis,
    queue: Queue,
    operator: Operator,
    operator_life: u32,
    workers: Vec<Worker>,
    wires: Vec<Wire>,
    /// Connections the operator has, by session.
    links: HashMap<u64, usize>,
    sessions: u64,
    store: HashMap<TaskId, KnownProof>,
    /// Attempts begun, by node.
    attempts: Vec<u32>,
    /// The earliest tick that is on its way.
    tick_at: Option<Millis>,
    give_up: Millis,
    ended: Option<Millis>,
    steps: u32,
    outcome: Outcome,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, shape: Shape) -> Self {
        let choice = choose(&shape, &scenario.pools(), &scenario.costs());
        let bound = choice.map_or(0, |c| c.bound);
        let mut rng = Rng::new(mix(scenario.seed, 1));
        let groups = scenario.groups.iter().flat_map(|g| (0..g.count).map(move |_| g));
        let durations = &scenario.durations;
        let mut machine = |(number, group)| {
            let slow = rng.chance(durations.slow_workers);
            Worker::new(number, group, if slow { durations.slow_worker_factor } else { 1.0 })
        };
        let workers: Vec<Worker> = groups.enumerate().map(&mut machine).collect();
        let mut world = Self {
            rng: Rng::new(mix(scenario.seed, 2)),
            now: 0,
            queue: Queue::default(),
            operator: Operator::new(scenario, choice.map_or(0, |c| c.policy)),
            operator_life: 0,
            wires: vec![Wire::default(); workers.len()],
            workers,
            links: HashMap::new(),
            sessions: 0,
            store: HashMap::new(),
            attempts: vec![0; shape.total() as usize],
            tick_at: None,
            give_up: PATIENCE_MILLIS.max(bound * scenario.give_up_factor),
            ended: None,
            steps: 0,
            outcome: Outcome { lower_bound: bound, tasks: shape.total(), ..Outcome::default() },
            scenario,
            shape,
        };
        world.queue.add(0, What::OperatorUp);
        world.queue.add(SEGMENT_MILLIS, What::Segment);
        for worker in 0..world.workers.len() {
            world.queue.add(0, What::Connect { worker, life: 0 });
            let beat = world.rng.between(0, world.beat_millis());
            world.queue.add(beat, What::Beat { worker, life: 0 });
        }
        world.plan_faults(bound);
        world
    }

    fn plan_faults(&mut self, bound: Millis) {
        let faults = &self.scenario.faults;
        let planned = [
            (Fault::KillOperator, faults.operator_kills),
            (Fault::CrashWorker, faults.worker_crashes),
            (Fault::Partition, faults.partitions),
        ];
        for (fault, count) in planned {
            for _ in 0..count {
                let at = self.rng.between(0, bound + bound / 5);
                self.queue.add(at, What::Fault(fault));
            }
        }
        if faults.vanish > 0.0 {
            self.queue.add(bound / 2, What::Fault(Fault::Vanish));
        }
    }

    fn beat_millis(&self) -> Millis {
        (self.scenario.config.lease / 3).max(1)
    }

    fn trace(&mut self, tag: u64, what: u64) {
        self.outcome.trace_hash = mix(self.outcome.trace_hash ^ mix(self.now, tag), what);
    }

    fn step(&mut self, what: What) {
        match what {
            What::ToOperator { worker, session, message } => self.received(worker, session, message),
            What::ToWorker { worker, session, message } => {
                if self.workers[worker].session == Some(session) {
                    self.told(worker, message);
                }
            }
            What::ProofEnds { worker, life, fence, fails } => {
                if self.workers[worker].life == life {
                    self.proof_ends(worker, fence, fails);
                }
            }
            What::Beat { worker, life } => self.beat(worker, life),
            What::Connect { worker, life } => self.connect(worker, life),
            What::Revives { worker, life } => {
                if self.workers[worker].life == life {
                    self.workers[worker].alive = true;
                    self.queue.add(self.now, What::Connect { worker, life });
                    self.queue.add(self.now, What::Beat { worker, life });
                }
            }
            What::Tell { operator_life, event } => {
                if self.operator_life == operator_life {
                    self.tell(*event);
                }
            }
            What::CheckProof { operator_life, task } => {
                if self.operator_life == operator_life {
                    let found = self.store.get(&task).cloned();
                    let finding = found.map_or(Finding::Missing, Finding::Valid);
                    self.tell(Event::ProofChecked { task, finding });
                }
            }
            What::OperatorUp => self.operator_up(),
            What::Segment => {
                self.operator.write_segment();
                self.queue.add(self.now + SEGMENT_MILLIS, What::Segment);
            }
            What::Tick => {
                if self.tick_at == Some(self.now) {
                    self.tick_at = None;
                    self.tell(Event::Tick);
                }
            }
            What::Fault(fault) => self.fault(fault),
        }
    }

    /// The engine is told something, and what it commands is done.
    fn tell(&mut self, event: Event) {
        if self.operator.engine.is_none() {
            return;
        }
        let mut commands = vec![];
        self.operator.handle(self.now, event, &mut commands);
        for command in commands {
            self.carry_out(command);
        }
        self.steps += 1;
        let every = self.scenario.check_every;
        let Some(engine) = &self.operator.engine else { return };
        if every > 0
            && self.steps.is_multiple_of(every)
            && let Err(violations) = engine.check()
        {
            let seen = self.outcome.violations.len();
            let texts = violations.iter().map(|v| format!("at {} ms: {v:?}", self.now));
            self.outcome.violations.extend(texts.take(VIOLATIONS_SHOWN.saturating_sub(seen)));
        }
        if let Some(at) = engine.next_deadline().map(|at| at.max(self.now + 1))
            && self.tick_at.is_none_or(|tick| at < tick)
        {
            self.tick_at = Some(at);
            self.queue.add(at, What::Tick);
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Assign(session, assignment) => self.assign(session, assignment),
            Command::Revoke(session, fence) => {
                self.trace(2, fence.0);
                self.send(session.0, Down::Revoke(fence));
            }
            Command::Persist(record) => self.operator.persist(&record),
            Command::Amend(record) => self.operator.amend(&record),
            Command::CheckRoot(job) => {
                let root =
                    self.operator.engine.as_ref().and_then(|e| e.prepared_job(job)?.ids.last().copied());
                let found = root.is_some_and(|id| self.store.contains_key(&id));
                let result = if found { Ok(()) } else { Err("no root proof in the store".to_owned()) };
                self.later(ROOT_CHECK_MILLIS, Event::RootChecked(job, result));
            }
            Command::CheckProof { task, .. } => {
                // As it is when the store answers.
                self.queue.add(
                    self.now + PROOF_CHECK_MILLIS,
                    What::CheckProof { operator_life: self.operator_life, task },
                );
            }
            Command::JobEnded(_, state) => {
                self.trace(3, u64::from(state == JobState::Complete));
                self.ended = Some(self.now);
            }
            Command::Notice(Notice::Backup { .. }) => self.outcome.backups += 1,
            Command::Quarantine { .. } | Command::TreeDropped { .. } | Command::Notice(_) => {}
        }
    }

    fn later(&mut self, millis: Millis, event: Event) {
        let event = Box::new(event);
        self.queue.add(self.now + millis, What::Tell { operator_life: self.operator_life, event });
    }

    fn assign(&mut self, session: Session, assignment: Assignment) {
        self.trace(1, assignment.fence.0 ^ u64::from(assignment.node.0) << 40);
        self.outcome.leases += 1;
        self.outcome.repeated += u32::from(self.operator.told.contains(&assignment.task));
        let network = &self.scenario.network;
        if self.rng.chance(network.undelivered) {
            self.later(0, Event::Undelivered(session, assignment.fence));
        } else if !self.rng.chance(network.lost_assignments) {
            self.send(session.0, Down::Assign(assignment));
        }
    }

    /// Sends a message to the worker of a session.
    fn send(&mut self, session: u64, message: Down) {
        let Some(&worker) = self.links.get(&session) else { return };
        let cut = self.workers[worker].cut_until;
        let at = self.wires[worker].arrival(Way::Down, self.now, cut, &self.scenario.network, &mut self.rng);
        self.queue.add(at, What::ToWorker { worker, session, message });
    }

    /// A worker sends a message, if it has a connection.
    fn report(&mut self, worker: usize, message: Up) {
        let Some(session) = self.workers[worker].session else { return };
        let network = &self.scenario.network;
        let cut = self.workers[worker].cut_until;
        let at = self.wires[worker].arrival(Way::Up, self.now, cut, network, &mut self.rng);
        if matches!(message, Up::Login(_)) {
            self.wires[worker].barrier(at);
        }
        if self.rng.chance(network.duplicated) {
            let again = at + self.rng.between(0, 10 * network.delay.1);
            let message = message.clone();
            self.queue.add(again, What::ToOperator { worker, session, message });
        }
        self.queue.add(at, What::ToOperator { worker, session, message });
    }

    /// A worker's message reaches the operator.
    fn received(&mut self, worker: usize, session: u64, message: Up) {
        if self.operator.engine.is_none() || self.links.get(&session) != Some(&worker) {
            return;
        }
        let from = Session(session);
        match message {
            Up::Login(held) => {
                self.trace(4, worker as u64);
                let worker = self.workers[worker].spec.clone();
                self.tell(Event::Joined { session: from, worker, held });
            }
            Up::Beat(fences) => self.tell(Event::Heartbeat(from, fences)),
            Up::Done(done) => {
                self.trace(5, done.fence.0);
                self.tell(Event::Completed(from, done));
                self.send(session, Down::Acknowledge(done.fence));
            }
            Up::Failed { task, fence, reason } => {
                self.trace(6, fence.0);
                let text = "simulated".to_owned();
                self.tell(Event::Failed { session: from, task, fence, reason, text });
            }
        }
    }

    /// A message reaches its worker.
    fn told(&mut self, worker: usize, message: Down) {
        let machine = &mut self.workers[worker];
        match message {
            Down::Assign(assignment) => machine.take(assignment),
            Down::Revoke(fence) => {
                let task = machine.remove(fence);
                self.stopped(task);
            }
            Down::Acknowledge(fence) => machine.unacknowledged.retain(|(done, _)| done.fence != fence),
        }
        self.start_tasks(worker);
    }

    /// Machine time of a proof that was not made to its end.
    fn stopped(&mut self, task: Option<Task>) {
        let spent = task.and_then(|t| t.started).map_or(0, |started| self.now - started);
        self.outcome.work += spent;
    }

    fn start_tasks(&mut self, worker: usize) {
        while let Some(assignment) = self.workers[worker].start_next(self.now) {
            if let Some(proof) = self.store.get(&assignment.task).cloned() {
                self.outcome.found += 1;
                self.workers[worker].remove(assignment.fence);
                self.done(worker, &assignment, proof.millis, true);
                continue;
            }
            let (millis, fails) = self.duration(worker, &assignment);
            let (life, fence) = (self.workers[worker].life, assignment.fence);
            self.queue.add(self.now + millis, What::ProofEnds { worker, life, fence, fails });
        }
    }

    /// How long an attempt takes, and whether it fails: drawn from the node and the attempt's
    /// number, so that it does not depend on what else happens.
    fn duration(&mut self, worker: usize, assignment: &Assignment) -> (Millis, bool) {
        let NodeId(node) = assignment.node;
        let attempt = &mut self.attempts[node as usize];
        *attempt += 1;
        let mut rng = Rng::new(mix(mix(self.scenario.seed, 3), u64::from(node) << 16 | u64::from(*attempt)));
        let model = &self.scenario.durations;
        let usual =
            f64::from(self.scenario.config.profile.first_millis[self.shape.kind(NodeId(node)).index()]);
        let spread = rng.lognormal(model.sigma);
        let slow = if rng.chance(model.slow_proofs) { model.slow_factor } else { 1.0 };
        let millis = (usual * spread * slow * self.workers[worker].slowness).max(1.0);
        let fails = rng.chance(self.scenario.faults.errors);
        let part = if fails { rng.unit() } else { 1.0 };
        ((millis * part) as Millis, fails)
    }

    fn proof_ends(&mut self, worker: usize, fence: Fence, fails: bool) {
        let Some(task) = self.workers[worker].remove(fence) else { return };
        self.stopped(Some(task));
        let assignment = task.assignment;
        let millis = task.started.map_or(0, |started| self.now - started) as u32;
        if fails {
            self.report(worker, Up::Failed { task: assignment.task, fence, reason: Reason::Error });
        } else {
            self.outcome.made += 1;
            let proof = KnownProof {
                task: assignment.task,
                worker: self.workers[worker].spec.name.clone(),
                millis,
                cpu_millis: millis,
                proof_bytes: 1,
            };
            let there = self.store.contains_key(&assignment.task);
            self.outcome.beside += u32::from(there);
            self.store.entry(assignment.task).or_insert(proof);
            self.done(worker, &assignment, millis, false);
        }
        self.start_tasks(worker);
    }

    /// A result: kept until it is acknowledged.
    fn done(&mut self, worker: usize, assignment: &Assignment, millis: u32, found: bool) {
        let (task, fence) = (assignment.task, assignment.fence);
        let done = Done { task, fence, millis, cpu_millis: millis, peak_mib: 0, proof_bytes: 1, found };
        self.workers[worker].unacknowledged.push((done, assignment.mac));
        self.report(worker, Up::Done(done));
    }

    fn beat(&mut self, worker: usize, life: u32) {
        if self.workers[worker].life != life {
            return;
        }
        let fences = self.workers[worker].fences();
        self.report(worker, Up::Beat(fences));
        self.queue.add(self.now + self.beat_millis(), What::Beat { worker, life });
    }

    /// A worker tries to connect; if it can't it tries again a little later.
    fn connect(&mut self, worker: usize, life: u32) {
        let machine = &mut self.workers[worker];
        if machine.life != life || machine.session.is_some() {
            return;
        }
        if self.operator.engine.is_none() || machine.cut_until > self.now {
            let at = self.now + self.rng.between(50, 500);
            self.queue.add(at, What::Connect { worker, life });
            return;
        }
        self.sessions += 1;
        machine.session = Some(self.sessions);
        self.links.insert(self.sessions, worker);
        let (held, results) = (machine.held(self.now), machine.unacknowledged.clone());
        self.report(worker, Up::Login(held));
        for (done, _) in results {
            self.report(worker, Up::Done(done));
        }
    }
}
