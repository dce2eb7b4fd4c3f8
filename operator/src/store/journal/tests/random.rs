//! Random histories: several operators open, append, crash, snapshot and clean over a store that fails
//! before or after it has done as told. Whatever happens, no acknowledged record may be lost, none may
//! come twice, and nobody may be acknowledged once a successor is in.

use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashSet;
use std::sync::Mutex;

const HISTORIES: u64 = 300;
const STEPS: usize = 60;

struct Operator {
    journal: JournalHandle,
    /// All it knows of: what it recovered, and what it appended since.
    state: Vec<String>,
    /// Where the records begin that were appended and not acknowledged.
    acknowledged: usize,
}

#[derive(Default)]
struct World {
    operators: Vec<Operator>,
    acknowledged: Vec<String>,
    appended: HashSet<String>,
    next: u32,
    /// The epoch of the last operator that got in; it may have crashed since.
    newest: u64,
}

/// Each operation fails once in five, before or after it is done.
fn flaky(seed: u64) -> Plan {
    let rng = Mutex::new(StdRng::seed_from_u64(seed));
    Arc::new(move |_, _| match rng.lock().unwrap().random_range(0..10) {
        0 => Fault::Before(Failure::Unavailable),
        1 => Fault::After(Failure::Unavailable),
        _ => Fault::None,
    })
}

/// All records that a recovery gives, the snapshot's first. A snapshot is a state written line by line.
fn all(recovered: &Recovered) -> Vec<String> {
    let snapshot = recovered.snapshot.clone().unwrap_or_default();
    let lines = String::from_utf8(snapshot.to_vec()).unwrap();
    lines.lines().map(str::to_owned).chain(texts(&recovered.records)).collect()
}

impl World {
    async fn open(&mut self, store: &ArtifactStore, seed: u64) {
        let store = store.with_faults(flaky(seed));
        let (journal, recovered) = match Journal::open(&store, &key(), options()).await {
            Ok(opened) => opened,
            Err(JournalError::Store(error)) if error.is_retryable() => return,
            Err(error) => panic!("{error}"),
        };
        let state = all(&recovered);
        self.check(&state);
        let acknowledged = state.len();
        assert!(recovered.epoch > self.newest, "epoch {} after {}", recovered.epoch, self.newest);
        self.newest = recovered.epoch;
        self.operators.push(Operator { journal: journal.start(), state, acknowledged });
    }

    /// What a recovery gave must hold all that was acknowledged, and nothing twice or invented.
    fn check(&self, state: &[String]) {
        let set: HashSet<&String> = state.iter().collect();
        assert_eq!(set.len(), state.len(), "a record came twice: {state:?}");
        for record in &self.acknowledged {
            assert!(set.contains(record), "{record} was acknowledged and is lost: {state:?}");
        }
        assert!(state.iter().all(|record| self.appended.contains(record)), "an invented record: {state:?}");
    }

    fn append(&mut self, at: usize) {
        let record = format!("{:04}", self.next);
        let operator = &mut self.operators[at];
        if operator.journal.append(&[&record]).is_ok() {
            self.next += 1;
            self.appended.insert(record.clone());
            operator.state.push(record);
        }
    }

    async fn flush(&mut self, at: usize) {
        let operator = &mut self.operators[at];
        match operator.journal.flush().await {
            Ok(()) => {
                self.acknowledged.extend_from_slice(&operator.state[operator.acknowledged..]);
                operator.acknowledged = operator.state.len();
            }
            Err(JournalError::Fenced { .. }) if operator.journal.epoch() < self.newest => {}
            Err(error) => panic!("operator of epoch {}: {error}", operator.journal.epoch()),
        }
    }

    /// A record that is appended after a successor is in must not be acknowledged.
    async fn late(&mut self, at: usize) {
        self.append(at);
        let result = self.operators[at].journal.flush().await;
        assert!(
            matches!(result, Err(JournalError::Fenced { .. })),
            "operator {at} was let write: {result:?}"
        );
    }

    async fn snapshot(&mut self, at: usize) {
        let operator = &self.operators[at];
        let state = Bytes::from(operator.state.iter().map(|line| format!("{line}\n")).collect::<String>());
        match operator.journal.snapshot(state).await {
            Ok(_) | Err(JournalError::Fenced { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn step(&mut self, store: &ArtifactStore, rng: &mut StdRng) {
        let count = self.operators.len();
        if count == 0 {
            return self.open(store, rng.random()).await;
        }
        // mostly the newest works
        let at = if rng.random_bool(0.7) { count - 1 } else { rng.random_range(0..count) };
        match rng.random_range(0..20) {
            0 => self.open(store, rng.random()).await,
            1 => drop(self.operators.remove(at)),
            2..=3 => self.snapshot(at).await,
            // it may fail, and then has deleted some
            4 => drop(self.operators[at].journal.clean().await),
            5..=10 => self.flush(at).await,
            11 if self.operators[at].journal.epoch() < self.newest => self.late(at).await,
            12 => tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await,
            _ => self.append(at),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_history_loses_an_acknowledged_record() {
    let mut acknowledged = 0;
    for seed in 0..HISTORIES {
        let store = memory();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::default();
        for _ in 0..STEPS {
            world.step(&store, &mut rng).await;
        }
        let (_, recovered) = Journal::open(&store, &key(), options()).await.unwrap();
        println!("history {seed}: {} acknowledged", world.acknowledged.len());
        world.check(&all(&recovered));
        acknowledged += world.acknowledged.len();
    }
    assert!(acknowledged > 1000, "the histories say little: {acknowledged} acknowledged");
}
