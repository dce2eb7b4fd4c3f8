//! The engine, its lock, and where its commands go.

use super::chores::Chore;
use super::clock::Clock;
use super::lease;
use crate::dispatch::net::{Peer, SendBuffers};
use crate::metrics::{Metrics, reason_label};
use crate::store::journal::{JournalError, JournalHandle};
use arborist_circuits::{Published, Statements};
use arborist_core::circuit::Kind;
use arborist_core::engine::{
    Assignment, Command, Engine, Event, Fence, JobId, JobState, Millis, Record, Session,
};
use arborist_core::ids::TaskId;
use arborist_core::tree::NodeId;
use arborist_core::wire::{Lease, ToWorker};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// A worker's login.
pub(super) struct SessionEntry {
    pub peer: Arc<Peer>,
    pub name: String,
    /// Its process, as it says itself.
    pub instance: Vec<u8>,
    /// What it shows to the built-in store.
    pub token: String,
    /// The most leases, and results, that a frame of it may name.
    pub most_leases: usize,
}

/// What the shell keeps of a job beside the engine.
pub(super) struct JobEntry {
    /// While the job has its tree.
    pub statements: Option<Arc<Statements>>,
    /// What is published of a real block whose tree was dropped.
    pub published: Option<Published>,
    pub state: watch::Sender<JobState>,
    /// Bytes of its inputs in the store, once they were counted.
    pub input_bytes: Option<u64>,
    /// Nothing of it was leased yet.
    pub unleased_since: Option<Instant>,
}

/// Everything behind the engine's lock.
pub(super) struct Core {
    pub engine: Engine,
    pub sessions: HashMap<u64, SessionEntry>,
    pub by_name: HashMap<String, u64>,
    /// Sessions by the token they show to the built-in store.
    pub tokens: HashMap<String, u64>,
    /// Workers that were told to leave and whose end was not told yet, by name: they are told so at each login.
    pub leaving: HashSet<String>,
    pub jobs: HashMap<JobId, JobEntry>,
    /// Records since the last snapshot.
    pub since_snapshot: u64,
    /// Leases of tasks whose bad proof is being moved aside: they go out once it is gone.
    pub held_back: HashMap<TaskId, Vec<(Session, Lease)>>,
    /// The journal refused records: only a snapshot makes it whole again.
    pub journal_torn: bool,
    commands: Vec<Command>,
    records: Vec<Vec<u8>>,
    /// Peers that have something posted since they were last sent to.
    touched: Vec<Arc<Peer>>,
}

impl Core {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine,
            sessions: HashMap::new(),
            by_name: HashMap::new(),
            tokens: HashMap::new(),
            leaving: HashSet::new(),
            jobs: HashMap::new(),
            since_snapshot: 0,
            held_back: HashMap::new(),
            journal_torn: false,
            commands: vec![],
            records: vec![],
            touched: vec![],
        }
    }

    /// Whether another process than `instance` is logged in under this name. It is disconnected when it is not heard of
    /// for some heartbeats, so whoever is here is alive.
    pub(super) fn is_anothers(&self, name: &str, instance: &[u8]) -> bool {
        let entry = self.by_name.get(name).and_then(|session| self.sessions.get(session));
        entry.is_some_and(|entry| entry.instance != instance && !entry.peer.is_closed())
    }

    /// Tells those who wait for a job how it stands; a job that is no more in the books is dropped.
    pub(super) fn publish(&mut self, id: JobId) {
        match self.engine.job(id) {
            Some(view) => {
                if let Some(job) = self.jobs.get(&id) {
                    job.state.send_if_modified(|state| {
                        let changed = *state != view.state;
                        *state = view.state;
                        changed
                    });
                }
            }
            None => _ = self.jobs.remove(&id),
        }
    }

    /// Sends the leases that waited for a bad proof to be moved aside. One that was lost meanwhile does no
    /// harm: its result counts late, or is told to stop at the next heartbeat.
    pub(super) fn let_go(&mut self, task: &TaskId) {
        for (session, lease) in self.held_back.remove(task).into_iter().flatten() {
            if let Some(peer) = self.sessions.get(&session.0).map(|entry| entry.peer.clone()) {
                self.post(&peer, |out| out.leases.push(lease));
            }
        }
    }

    /// Adds to what a peer is sent when this pass is over.
    pub(super) fn post(&mut self, peer: &Arc<Peer>, add: impl FnOnce(&mut ToWorker)) {
        if peer.post(add) {
            self.touched.push(peer.clone());
        }
    }

    /// Hands an event to the engine.
    pub(super) fn event(&mut self, now: Millis, event: Event) {
        self.engine.handle(now, event, &mut self.commands);
    }
}

/// Room kept for the commands of the next pass; a rare large one gives its memory back.
const KEPT_COMMANDS: usize = 4_096;

/// The engine behind its lock, with the way out for its commands.
pub(super) struct EngineRoom {
    core: Mutex<Core>,
    pub clock: Clock,
    journal: JournalHandle,
    chores: mpsc::UnboundedSender<Chore>,
    metrics: Arc<Metrics>,
}

/// What a pass through the engine leaves to do once its lock is free.
#[derive(Default)]
struct Rest {
    touched: Vec<Arc<Peer>>,
    undelivered: Vec<(Session, Fence)>,
    chores: Vec<Chore>,
    /// Proofs by kind: made and found.
    made: [u64; 5],
    found: [u64; 5],
    leases: u64,
    records: u64,
    /// Of jobs whose trees were dropped: large, so they are freed without the lock.
    statements: Vec<Arc<Statements>>,
}

impl EngineRoom {
    pub(super) fn new(
        core: Core,
        clock: Clock,
        journal: JournalHandle,
        chores: mpsc::UnboundedSender<Chore>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { core: Mutex::new(core), clock, journal, chores, metrics }
    }

    /// Looks at the engine without changing it.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Core) -> R) -> R {
        look(&self.core.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what the shell keeps, with the lock under which records are appended. No event may be
    /// handed in here: its commands would wait for the next [`EngineRoom::drive`].
    pub(super) fn tend<R>(&self, tend: impl FnOnce(&mut Core) -> R) -> R {
        tend(&mut self.core.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets `act` hand events to the engine, and carries out what it commands.
    pub(super) fn drive<R>(&self, buffers: &mut SendBuffers, act: impl FnOnce(&mut Core, Millis) -> R) -> R {
        let mut rest = Rest::default();
        let result = self.pass(&mut rest, act);
        self.finish(rest, buffers);
        result
    }

    fn pass<R>(&self, rest: &mut Rest, act: impl FnOnce(&mut Core, Millis) -> R) -> R {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let result = act(&mut core, now);
        let mut commands = std::mem::take(&mut core.commands);
        for command in commands.drain(..) {
            self.route(&mut core, command, rest);
        }
        commands.shrink_to(KEPT_COMMANDS);
        core.commands = commands;
        self.append(&mut core, rest);
        rest.touched = std::mem::take(&mut core.touched);
        result
    }

    fn route(&self, core: &mut Core, command: Command, rest: &mut Rest) {
        match command {
            Command::Assign(session, assignment) => self.assign(core, session, &assignment, rest),
            Command::Revoke(session, fence) => {
                if let Some(entry) = core.sessions.get(&session.0)
                    && entry.peer.post(|out| out.revoked.push(fence.0))
                {
                    core.touched.push(entry.peer.clone());
                }
            }
            Command::Persist(record) => {
                if let Record::Charged { reason, .. } = &record {
                    self.metrics.charges.with_label_values(&[reason_label(reason)]).inc();
                }
                if let Record::Done { job, node, found, .. } = &record
                    && let Some(tree) = core.engine.prepared_job(*job)
                {
                    let counts = if *found { &mut rest.found } else { &mut rest.made };
                    counts[tree.shape.kind(NodeId(*node)).index()] += 1;
                }
                core.records.push(record.encode());
            }
            Command::Amend(record) => core.records.push(record.encode()),
            Command::CheckRoot(job) => rest.chores.push(Chore::CheckRoot(job)),
            Command::CheckProof { job, node, task, depth } => {
                rest.chores.push(Chore::CheckProof { job, node, task, depth });
            }
            Command::Quarantine { task, worker, text } => {
                // One chore a task: a second one could move away the good proof that came since.
                if let Entry::Vacant(free) = core.held_back.entry(task) {
                    free.insert(vec![]);
                    rest.chores.push(Chore::Quarantine { task, worker, text });
                }
            }
            Command::TreeDropped { job, tasks } => {
                // a snapshot without it spares the next start its tree
                core.since_snapshot += u64::from(tasks);
                let entry = core.jobs.get_mut(&job);
                if let Some((entry, statements)) = entry.and_then(|e| e.statements.take().map(|s| (e, s))) {
                    entry.published = Some(statements.published());
                    rest.statements.push(statements);
                }
            }
            Command::JobEnded(job, state) => rest.chores.push(Chore::Ended(job, state)),
            Command::Notice(notice) => rest.chores.push(Chore::Notice(notice)),
        }
    }

    fn assign(&self, core: &mut Core, session: Session, given: &Assignment, rest: &mut Rest) {
        let entry = core.sessions.get(&session.0);
        let (Some(entry), Some(job)) = (entry, core.engine.prepared_job(given.job)) else {
            rest.undelivered.push((session, given.fence));
            return;
        };
        let kept = core.jobs.get_mut(&given.job);
        if let Some(since) = kept.as_ref().and_then(|k| k.unleased_since) {
            self.metrics.first_dispatch.set(since.elapsed().as_secs_f64());
        }
        let statements = kept.and_then(|k| {
            k.unleased_since = None;
            k.statements.as_deref()
        });
        let lease = lease::fill(job, statements, given);
        if let Some(held_back) = core.held_back.get_mut(&given.task) {
            held_back.push((session, lease));
            return;
        }
        if entry.peer.post(|out| out.leases.push(lease)) {
            core.touched.push(entry.peer.clone());
        }
        rest.leases += 1;
    }

    /// Appends to the journal under the lock, so that records stand in the engine's order.
    fn append(&self, core: &mut Core, rest: &mut Rest) {
        if core.records.is_empty() {
            return;
        }
        rest.records = core.records.len() as u64;
        core.since_snapshot += rest.records;
        match self.journal.append(&core.records) {
            Ok(()) => {}
            // the task that waits for it stops the dispatcher
            Err(JournalError::Fenced { .. } | JournalError::Closed) => {}
            Err(error) => {
                if !core.journal_torn {
                    tracing::warn!(%error, "the journal takes no more records; a snapshot follows once it does");
                }
                core.journal_torn = true;
            }
        }
        core.records.clear();
    }

    /// What needs no lock: sending, metrics, chores.
    fn finish(&self, mut rest: Rest, buffers: &mut SendBuffers) {
        loop {
            self.count(&rest);
            for chore in rest.chores.drain(..) {
                // without a receiver the dispatcher is stopping
                let _ = self.chores.send(chore);
            }
            let mut undelivered = std::mem::take(&mut rest.undelivered);
            self.send(&rest.touched, buffers, &mut undelivered);
            if undelivered.is_empty() {
                return;
            }
            rest = Rest::default();
            self.pass(&mut rest, |core, now| {
                for (session, fence) in undelivered {
                    core.event(now, Event::Undelivered(session, fence));
                }
            });
        }
    }

    fn send(
        &self,
        touched: &[Arc<Peer>],
        buffers: &mut SendBuffers,
        undelivered: &mut Vec<(Session, Fence)>,
    ) {
        let (mut frames, mut bytes) = (0, 0);
        for peer in touched {
            match peer.flush(buffers) {
                Ok(0) => {}
                Ok(sent) => {
                    frames += 1;
                    bytes += sent as u64;
                }
                Err(error) => {
                    tracing::debug!(address = %peer.address, %error, "a worker can't be sent to");
                    let session = Session(peer.session().unwrap_or_default());
                    undelivered.extend(peer.stranded().into_iter().map(|f| (session, Fence(f))));
                }
            }
        }
        self.metrics.frames_out.inc_by(frames);
        self.metrics.bytes_out.inc_by(bytes);
    }

    fn count(&self, rest: &Rest) {
        let m = &self.metrics;
        m.leases.inc_by(rest.leases);
        m.journal_records.inc_by(rest.records);
        for (origin, counts) in [("made", &rest.made), ("found", &rest.found)] {
            for (kind, count) in Kind::ALL.into_iter().zip(counts).filter(|(_, count)| **count > 0) {
                m.completions.with_label_values(&[kind.name(), origin]).inc_by(*count);
            }
        }
    }
}
