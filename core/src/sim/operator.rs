//! The simulated operator: the engine with its journal, of which a kill loses the tail.

use super::scenario::Scenario;
use crate::engine::{
    Command, Config, Engine, Event, JobId, JobSpec, KnownProof, Millis, PreparedJob, Record, Source,
};
use crate::ids::TaskId;
use crate::tree::Leaves;
use std::collections::{HashMap, HashSet};

/// The only job of a simulation.
pub(super) const JOB: JobId = JobId(1);

/// Between two segments of the journal, in milliseconds.
pub(super) const SEGMENT_MILLIS: Millis = 75;

/// Records between two snapshots: so many and one for every two transactions.
const SNAPSHOT_RECORDS: usize = 40;

/// The engine and what is durable of it.
pub(super) struct Operator {
    pub(super) engine: Option<Engine>,
    config: Config,
    calls: Vec<u8>,
    seed: u64,
    pub(super) policy: usize,
    snapshot: Option<Vec<u8>>,
    durable: Vec<Vec<u8>>,
    unwritten: Vec<Vec<u8>>,
    /// Records that are durable and stand in the snapshot.
    in_snapshot: usize,
    /// Tasks whose proofs the engine was told of, and took for true.
    pub(super) told: HashSet<TaskId>,
    /// Nodes counted as done in the journal as it stands.
    counted: HashSet<u32>,
    pub(super) double_counted: u32,
}

impl Operator {
    pub(super) fn new(scenario: &Scenario, policy: usize) -> Self {
        Self {
            engine: None,
            config: scenario.config.clone(),
            calls: scenario.calls.clone(),
            seed: scenario.seed,
            policy,
            snapshot: None,
            durable: vec![],
            unwritten: vec![],
            in_snapshot: 0,
            told: HashSet::new(),
            counted: HashSet::new(),
            double_counted: 0,
        }
    }

    fn spec(&self) -> JobSpec {
        JobSpec {
            id: JOB,
            name: "simulated".to_owned(),
            namespace: String::new(),
            source: Source::Synthetic { calls: self.calls.clone(), seed: self.seed },
            chain_id: 1,
            block_number: 1,
            prover_id: [0; 32],
            deadline: None,
            priority: 0,
            suspended: false,
        }
    }

    /// Starts the engine from what is durable, and returns what it has to be told first: the job (a
    /// request that is known already is ignored), its order, and the proofs found in the store.
    ///
    /// # Errors
    /// The journal does not give an engine.
    pub(super) fn start(
        &mut self,
        now: Millis,
        store: &HashMap<TaskId, KnownProof>,
    ) -> Result<Vec<Event>, String> {
        let (calls, seed) = (self.calls.clone(), self.seed);
        let resolve = |_: &JobSpec| Ok((calls.clone(), Leaves::Synthetic { seed }));
        let snapshot = self.snapshot.as_deref();
        let engine =
            Engine::restore(self.config.clone(), snapshot, &self.durable[self.in_snapshot..], resolve, now)
                .map_err(|e| e.to_string())?;
        let leaves = Leaves::Synthetic { seed };
        let job = PreparedJob::new(self.spec(), &self.calls, leaves, &self.config.profile)
            .map_err(|e| e.to_string())?;
        let open = if engine.job(JOB).is_some() { engine.open_tasks(JOB) } else { job.ids.clone() };
        let mut known: Vec<KnownProof> = open.iter().filter_map(|id| store.get(id).cloned()).collect();
        known.sort_unstable_by_key(|proof| proof.task);
        self.told = store.keys().copied().collect();
        self.engine = Some(engine);
        Ok(vec![
            Event::Submit(Box::new(job)),
            Event::Order { job: JOB, policy: self.policy },
            Event::Known(known),
        ])
    }

    /// The process dies. What was being written gets there or not.
    pub(super) fn kill(&mut self, written: usize) {
        self.engine = None;
        let written = written.min(self.unwritten.len());
        self.durable.extend(self.unwritten.drain(..written));
        self.unwritten.clear();
        self.recount();
    }

    /// Which nodes the journal counts as done: the records since the beginning, as if no snapshot
    /// had been taken.
    fn recount(&mut self) {
        self.counted.clear();
        for record in self.durable.iter().filter_map(|bytes| Record::decode(bytes).ok()) {
            match record {
                Record::Done { node, .. } => _ = self.counted.insert(node),
                Record::Reopened { node, .. } => _ = self.counted.remove(&node),
                _ => {}
            }
        }
    }

    /// Takes an event in.
    pub(super) fn handle(&mut self, now: Millis, event: Event, out: &mut Vec<Command>) {
        let Some(engine) = &mut self.engine else { return };
        engine.handle(now, event, out);
    }

    /// A record for the journal.
    pub(super) fn persist(&mut self, record: &Record) {
        if let Record::Done { node, .. } = record
            && let Some(tree) = self.engine.as_ref().and_then(|engine| engine.prepared_job(JOB))
        {
            self.told.insert(tree.ids[*node as usize]);
        }
        match record {
            Record::Done { node, .. } if !self.counted.insert(*node) => self.double_counted += 1,
            Record::Reopened { node, .. } => _ = self.counted.remove(node),
            _ => {}
        }
        self.unwritten.push(record.encode());
    }

    /// A record for the journal of what is counted already.
    pub(super) fn amend(&mut self, record: &Record) {
        self.unwritten.push(record.encode());
    }

    /// A segment of the journal was written, now and then a snapshot.
    pub(super) fn write_segment(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        self.durable.append(&mut self.unwritten);
        if self.durable.len() >= self.in_snapshot + SNAPSHOT_RECORDS + self.calls.len() / 2 {
            self.snapshot = self.engine.as_ref().map(Engine::snapshot);
            self.in_snapshot = self.durable.len();
        }
    }
}
