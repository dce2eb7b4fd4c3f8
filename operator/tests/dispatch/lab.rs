//! A dispatcher with a store in memory that outlives it.

use arborist_artifacts::{ArtifactStore, StoreOptions};
use arborist_core::block::{BLOCK_VERSION, Block, Call, STATE_DEPTH, Transaction, Word};
use arborist_core::engine::{JobId, JobState};
use arborist_core::ids::ArtifactHash;
use arborist_core::profile::{Needs, Profile};
use arborist_operator::dispatch::{Dispatcher, FakeRoots, Options, StaticToken, SubmitRequest, SubmitSource};
use arborist_operator::intake::{BlockFile, Held};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub const TOKEN: &str = "a token of the tests";
/// Nothing takes longer than this unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Lab {
    pub runtime: Runtime,
    pub store: ArtifactStore,
    state: TempDir,
    pub dispatcher: Dispatcher,
    tune: Box<dyn Fn(&mut Options)>,
}

impl Lab {
    pub fn new() -> Self {
        Self::tuned(|_| {})
    }

    pub fn tuned(tune: impl Fn(&mut Options) + 'static) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = ArtifactStore::open("memory:///", &StoreOptions::default()).unwrap();
        let state = tempfile::tempdir().unwrap();
        let options = options(&state, &tune);
        let dispatcher = runtime.block_on(Dispatcher::start(options, store.clone())).unwrap();
        Self { runtime, store, state, dispatcher, tune: Box::new(tune) }
    }

    /// Another dispatcher on the same store.
    pub fn start_another(&self) -> Dispatcher {
        let options = options(&self.state, &self.tune);
        self.runtime.block_on(Dispatcher::start(options, self.store.clone())).unwrap()
    }

    /// Stops as told and starts again.
    pub fn restart_after(&mut self, crash: bool) {
        match crash {
            true => self.runtime.block_on(self.dispatcher.abandon()),
            false => self.runtime.block_on(self.dispatcher.shutdown()),
        }
        self.dispatcher = self.start_another();
    }

    pub fn submit(&self, request: SubmitRequest) -> JobId {
        self.runtime.block_on(self.dispatcher.submit(request)).unwrap()
    }

    pub fn wait(&self, job: JobId) -> JobState {
        let wait = async { tokio::time::timeout(PATIENCE, self.dispatcher.wait(job)).await };
        self.runtime.block_on(wait).expect("the job ends").unwrap()
    }

    pub fn metric(&self, line: &str) -> u64 {
        let text = self.dispatcher.metrics().text();
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0, |value| value.parse().unwrap())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.runtime.block_on(self.dispatcher.abandon());
    }
}

fn options(state: &TempDir, tune: &dyn Fn(&mut Options)) -> Options {
    let profile = Profile {
        circuits: "test-v1".into(),
        needs: [Needs { cores: 1, memory_mib: 16 }; 5],
        ..Profile::rfp()
    };
    let mut options = Options::new(state.path().to_owned(), profile, Arc::new(StaticToken::new(TOKEN)));
    options.engine.profile.backend = "fake".into();
    options.roots = Arc::new(FakeRoots);
    options.store_url = "memory:///".into();
    // only what a test is about may take a lease back
    options.lease = Duration::from_secs(600);
    options.silence = options.lease;
    options.engine.backup_percent = 0;
    tune(&mut options);
    options
}

/// A block of so many transactions with one call each.
pub fn block(transactions: usize) -> SubmitRequest {
    SubmitRequest {
        name: format!("block of {transactions}"),
        namespace: String::new(),
        source: SubmitSource::Synthetic { calls: vec![1; transactions], seed: 7 },
        chain_id: 1,
        block_number: 2,
        prover_id: [3; 32],
        deadline: None,
        priority: 0,
        suspended: false,
    }
}

/// A block file with one transaction and one call.
pub fn block_file() -> SubmitRequest {
    SubmitRequest { name: "of a file".into(), ..block_file_of(2, &[Bytes::from_static(b"a private proof")]) }
}

/// A block file of this number with a transaction for each private proof, of one call each.
pub fn block_file_of(block_number: u64, proofs: &[Bytes]) -> SubmitRequest {
    let state = |t: usize| Word([t as u8; 32]);
    let transaction = |(t, proof): (usize, &Bytes)| Transaction {
        hash: Word([t as u8 + 7; 32]),
        private_proof: ArtifactHash::of(proof),
        calls: vec![Call {
            slot: 3,
            args: Word([4; 32]),
            old_value: Word([5; 32]),
            siblings: vec![Word([6; 32]); STATE_DEPTH],
            state_before: state(t),
            state_after: state(t + 1),
        }],
    };
    let file = Block {
        version: BLOCK_VERSION,
        profile: "test-v1".into(),
        chain_id: 1,
        block_number,
        state_before: state(0),
        state_after: state(proofs.len()),
        transactions: proofs.iter().enumerate().map(transaction).collect(),
    };
    let json = serde_json::to_vec(&file).unwrap();
    let objects = proofs.iter().map(|proof| (ArtifactHash::of(proof), proof.clone())).collect();
    let objects = Arc::new(Held { place: "the test", objects });
    let file = BlockFile::read(json.into(), 7, objects, None).unwrap();
    SubmitRequest { source: SubmitSource::Block(Arc::new(file)), block_number, ..block(proofs.len()) }
}

/// Waits for a state, not for a time.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
