//! Starting: the journal is taken over, the engine restored, the lost tail looked up, the door opened.

use super::chores::Chore;
use super::clock::Clock;
use super::core::{Core, EngineRoom, JobEntry};
use super::front::Front;
use super::lookup::{Ended, Search};
use super::resolve;
use super::{Dispatcher, Inner, Options, STUCK};
use crate::dispatch::net::{Bound, Limits, SendBuffers};
use crate::intake::Budget;
use crate::metrics::Metrics;
use crate::operator_key::{KeyError, OperatorKey};
use crate::store::journal::{Journal, JournalError, Recovered};
use crate::tls::{Authority, TlsError};
use arborist_artifacts::{ArtifactStore, StoreError};
use arborist_circuits::Statements;
use arborist_core::engine::{Config, Engine, Event, Fence, JobId, JobState, PreparedJob, RestoreError};
use arborist_core::order::{POLICIES, Policy};
use arborist_system::watchdog::Watchdog;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, RwLock, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Notices that a slow listener may be behind.
const PROGRESS: usize = 1024;
/// Ticks are no closer together, and no further apart, than this: a deadline that comes up while the time
/// to the next one is waited for is noticed so late at most.
const TICKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// Why a dispatcher did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The artifact store is not fit, or does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal can't be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal says what this version can't restore.
    #[error("the journal can't be restored: {0}")]
    Restore(#[from] RestoreError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operator's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The address for workers can't be listened on.
    #[error("workers can't connect at {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// Restoring crashed, or metrics can't be made: a bug.
    #[error("internal: {0}")]
    Internal(String),
}

impl StartError {
    /// Whether a later try may succeed though nobody changes anything: the store does not answer now, or another
    /// dispatcher is starting too.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) | Self::Journal(JournalError::Store(error)) => error.is_retryable(),
            Self::Journal(error) => {
                matches!(error, JournalError::Fenced { .. } | JournalError::Contended { .. })
            }
            Self::Restore(error) => matches!(error, RestoreError::Job { .. }),
            Self::Tls(_) | Self::Key(_) | Self::Listen { .. } | Self::Internal(_) => false,
        }
    }
}

struct Restored {
    engine: Engine,
    statements: HashMap<JobId, Arc<Statements>>,
}

impl Dispatcher {
    /// Takes the journal in the store over (another dispatcher that has it is fenced), restores what it
    /// says, looks for proofs that it misses, and serves workers.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options, store: ArtifactStore) -> Result<Self, StartError> {
        let began = Instant::now();
        let metrics = Metrics::new().map_err(|e| StartError::Internal(e.to_string()))?;
        let listen = options.listen;
        let authority = match &options.authority {
            Some(authority) => authority.clone(),
            None => Arc::new(Authority::open(&options.state_dir)?),
        };
        let key = match &options.operator_key {
            Some(key) => key.clone(),
            None => OperatorKey::open(&options.state_dir)?,
        };
        let tls = authority.server_config(&options.hosts, &[])?;
        // taken early: workers that come back wait in the backlog meanwhile
        let door = Bound::new(listen).map_err(|error| StartError::Listen { address: listen, error })?;
        store.check_conditional_create().await?;
        let (journal, recovered) = Journal::open(&store, &key.journal(), options.journal.clone()).await?;
        metrics.journal_foreign.set(recovered.foreign as i64);
        let epoch = recovered.epoch;
        let records = recovered.records.len();
        let clock = Clock::new();
        let restored = restore(&options, &key, &store, recovered, clock.clone()).await?;
        let handle = journal.start();
        let (chores_in, chores) = mpsc::unbounded_channel();
        let inner = Arc::new(build(
            options,
            store,
            metrics,
            handle,
            restored,
            clock,
            chores_in,
            door.address,
            authority,
        ));
        inner.reask_roots();
        if let Err(error) = inner.look_up_lost_tail().await {
            // nothing rests on it: a worker looks in the store before it proves
            tracing::error!(%error, "proofs whose records were lost can't be looked up now");
        }
        let net = door
            .start(
                tls,
                inner.limits(),
                Arc::new(Front(inner.clone())),
                inner.metrics.clone(),
                &inner.watchdog,
            )
            .map_err(|error| StartError::Listen { address: listen, error })?;
        *inner.net.lock().unwrap_or_else(PoisonError::into_inner) = Some(net);
        inner.keep_parts(chores);
        inner.metrics.recovery.set(began.elapsed().as_secs_f64());
        tracing::info!(
            address = %inner.address, epoch, records, millis = began.elapsed().as_millis() as u64,
            "serving workers"
        );
        Ok(Self { inner })
    }
}

#[allow(clippy::too_many_arguments, reason = "one literal, called once")]
fn build(
    options: Options,
    store: ArtifactStore,
    metrics: Metrics,
    journal: crate::store::journal::JournalHandle,
    restored: Restored,
    clock: Clock,
    chores: mpsc::UnboundedSender<Chore>,
    address: SocketAddr,
    authority: Arc<Authority>,
) -> Inner {
    let metrics = Arc::new(metrics);
    let Restored { engine, mut statements } = restored;
    let jobs: Vec<JobId> = engine.jobs().collect();
    let mut core = Core::new(engine);
    for id in jobs {
        if let Some(other) = core.engine.other_system(id) {
            let ours = options.engine.profile.system();
            tracing::warn!(job = id.0, made_by = %other, %ours, "a job of another proof system is kept, and waits for it");
        }
        let state = core.engine.counts(id).map_or(JobState::Proving, |(_, state)| state.clone());
        let (state, _) = watch::channel(state);
        let (statements, bare) = (statements.remove(&id), core.engine.prepared_job(id).is_none());
        let published = statements.as_ref().filter(|_| bare).map(|s| s.published());
        let statements = statements.filter(|_| !bare);
        core.jobs
            .insert(id, JobEntry { statements, published, state, input_bytes: None, unleased_since: None });
    }
    let intake_bytes = options.intake_bytes;
    Inner {
        system: options.engine.profile.system(),
        options,
        store,
        metrics: metrics.clone(),
        room: EngineRoom::new(core, clock, journal.clone(), chores, metrics),
        journal,
        runtime: Handle::current(),
        next_session: AtomicU64::new(1),
        progress: broadcast::Sender::new(PROGRESS),
        fenced: watch::Sender::new(None),
        stopping: CancellationToken::new(),
        tasks: TaskTracker::new(),
        net: Mutex::new(None),
        address,
        authority,
        intake: Budget::new(intake_bytes),
        deleting: RwLock::new(()),
        submitting: tokio::sync::Mutex::new(()),
        rechecking: tokio::sync::Mutex::new(()),
        reorder: Notify::new(),
        watchdog: Watchdog::default(),
        verifying: Arc::new(tokio::sync::Semaphore::new(super::checks::VERIFIED_AT_ONCE)),
        named: Mutex::new(None),
    }
}

async fn restore(
    options: &Options,
    key: &OperatorKey,
    store: &ArtifactStore,
    recovered: Recovered,
    clock: Clock,
) -> Result<Restored, StartError> {
    let config = Config {
        lease: options.lease.as_millis() as u64,
        // above all fences of earlier epochs, whatever the journal's lost tail said
        first_fence: Fence(recovered.epoch << 32),
        // the next operator has the same key, so it knows which leases were given to whom
        lease_key: key.lease(),
        ..options.engine.clone()
    };
    let (store, runtime, profile) = (store.clone(), Handle::current(), config.profile.clone());
    let restoring = tokio::task::spawn_blocking(move || {
        let mut statements = HashMap::new();
        let records: Vec<Vec<u8>> = recovered.records.iter().map(|record| record.to_vec()).collect();
        let resolve = |spec: &arborist_core::engine::JobSpec| {
            let loaded = resolve::load(&store, &spec.source, spec.prover_id, &profile, None);
            let (material, _file) = runtime.block_on(loaded)?;
            statements.extend(material.statements.map(|s| (spec.id, s)));
            Ok((material.calls, material.leaves))
        };
        let snapshot = recovered.snapshot.as_deref();
        let engine = Engine::restore(config, snapshot, &records, resolve, clock.now())?;
        Ok::<_, RestoreError>(Restored { engine, statements })
    });
    let restored =
        restoring.await.map_err(|_| StartError::Internal("restoring the journal crashed".into()))?;
    Ok(restored?)
}

impl Inner {
    fn limits(&self) -> Limits {
        let o = &self.options;
        Limits {
            threads: o.threads,
            max_frame: o.max_frame,
            max_waiting: o.max_waiting,
            max_connections: o.max_connections,
            max_logins: o.max_logins.min(o.max_connections),
            login_timeout: o.login_timeout,
            idle_timeout: o.lease.min(o.silence),
        }
    }

    /// Runs all that goes on while workers are served.
    fn keep_parts(self: &Arc<Self>, chores: mpsc::UnboundedReceiver<Chore>) {
        self.keep("chores", self.clone().do_chores(chores));
        self.keep("the engine's clock", self.clone().tick());
        self.keep("the choice of orders", self.clone().keep_order());
        self.keep("snapshots", self.clone().keep_snapshots());
        self.keep("the journal's claim", self.clone().keep_claim());
        self.keep("retention", self.clone().keep_clean());
        self.spawn(self.clone().restore_all_inputs());
        tokio::spawn(self.clone().watch_fence());
    }

    /// Runs a part that has to go on until the dispatcher stops.
    fn keep(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let watchdog = self.watchdog.clone();
        self.spawn(async move { watchdog.keep(name, STUCK, part).await });
    }

    /// What the engine asked for before the crash is asked for again.
    fn reask_roots(&self) {
        self.room.drive(&mut SendBuffers::default(), |core, now| core.event(now, Event::Tick));
    }

    /// Proofs that were reported and not journaled any more: each is found here, or later by the worker
    /// that gets its task.
    async fn look_up_lost_tail(self: &Arc<Self>) -> Result<(), StoreError> {
        let until = Instant::now() + self.options.lookup;
        let jobs = self.room.look(|core| {
            let mut open = vec![];
            for id in core.engine.jobs() {
                if let (Some(view), Some(tree)) = (core.engine.job(id), core.engine.prepared_job(id))
                    && view.state == JobState::Proving
                {
                    let missing: HashSet<_> = core.engine.open_tasks(id).into_iter().collect();
                    let done: Vec<bool> = tree.ids.iter().map(|task| !missing.contains(task)).collect();
                    open.push((tree.clone(), POLICIES.get(view.policy).unwrap_or(&POLICIES[0]), done));
                }
            }
            open
        });
        for (tree, policy, done) in jobs {
            if self.look_up(&tree, policy, done.clone(), Some(until)).await? == Ended::OutOfTime {
                let inner = self.clone();
                self.spawn(async move {
                    if let Err(error) = inner.look_up(&tree, policy, done, None).await {
                        tracing::warn!(%error, "proofs made before the restart are not all looked for");
                    }
                });
            }
        }
        Ok(())
    }

    async fn look_up(
        &self,
        tree: &PreparedJob,
        policy: &'static Policy,
        done: Vec<bool>,
        until: Option<Instant>,
    ) -> Result<Ended, StoreError> {
        let mut found = 0;
        let mut search = Search::new(tree, policy, done);
        let ended = search
            .run(&self.store, until, |proofs| {
                found += proofs.len();
                self.metrics.recovered.inc_by(proofs.len() as u64);
                self.room
                    .drive(&mut SendBuffers::default(), |core, now| core.event(now, Event::Known(proofs)));
            })
            .await;
        if found > 0 {
            tracing::info!(job = tree.spec.name, found, "proofs that the journal did not know");
        }
        ended
    }

    /// Tells the engine the time when it needs to know.
    async fn tick(self: Arc<Self>) {
        loop {
            let (now, next) = self.room.look(|core| (self.room.clock.now(), core.engine.next_deadline()));
            let wait = next.map_or(TICKS.1, |at| Duration::from_millis(at.saturating_sub(now)));
            tokio::time::sleep(wait.clamp(TICKS.0, TICKS.1)).await;
            self.room.drive(&mut SendBuffers::default(), |core, now| {
                if let Some(wall) = self.room.clock.was_set() {
                    core.event(now, Event::Wall(wall));
                }
                core.event(now, Event::Tick);
            });
        }
    }

    /// Stops at once when another operator has taken over the journal.
    async fn watch_fence(self: Arc<Self>) {
        let epoch = tokio::select! {
            () = self.stopping.cancelled() => return,
            epoch = self.journal.fenced() => epoch,
        };
        tracing::error!("fenced by epoch {epoch}: another operator took over");
        self.fenced.send_replace(Some(epoch));
        self.halt().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_an_answer_that_does_not_come_or_another_dispatcher() {
        let (action, reason) = (String::new, String::new);
        let silent = || StoreError::Unavailable { action: action(), reason: reason() };
        let denied = || StoreError::Denied { action: action(), reason: reason() };
        let missing = || JournalError::MissingHistory { prefix: action(), reason: reason() };
        let cases: [(StartError, bool); 10] = [
            (silent().into(), true),
            (StoreError::Full { action: action(), reason: reason() }.into(), true),
            (JournalError::from(silent()).into(), true),
            (JournalError::Fenced { by: 7 }.into(), true),
            (JournalError::Contended { tries: 7 }.into(), true),
            (RestoreError::Job { id: JobId(1), name: action(), reason: reason() }.into(), true),
            (denied().into(), false),
            (missing().into(), false),
            (JournalError::OtherKey { prefix: action() }.into(), false),
            (StoreError::Unfit { store: action(), reason: reason() }.into(), false),
        ];
        for (error, passing) in cases {
            assert_eq!(error.is_passing(), passing, "{error:?}");
        }
    }
}
