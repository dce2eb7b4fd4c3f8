//! The shell around the engine: it starts, restores, answers and stops.

mod access;
mod checks;
mod chores;
mod clock;
mod cluster;
mod core;
mod facts;
mod front;
mod input_bytes;
mod inputs;
mod lease;
mod lookup;
mod open_jobs;
mod options;
mod order;
mod past;
mod put;
mod quotas;
mod recheck;
mod resolve;
mod retention;
mod roots;
mod snapshots;
mod start;
mod submit;

pub use options::Options;
pub use past::PastError;
pub use quotas::{OverQuota, Quota, Quotas};
pub use resolve::BadBlock;
pub use roots::{FakeRoots, Plonky2Roots, ProgramRoots, RootCheck, RootProblem, RootVerifier};
pub use start::StartError;
pub use submit::{SubmitError, SubmitRequest, SubmitSource};

use self::core::EngineRoom;
use self::retention::NamedRoots;
use super::net::{Net, SendBuffers};
use crate::intake::Budget;
use crate::metrics::Metrics;
use crate::store::journal::JournalHandle;
use crate::tls::Authority;
use arborist_artifacts::ArtifactStore;
use arborist_core::engine::{
    Counts, Event, JobId, JobState, JobView, Millis, Notice, Report, TaskView, WorkerView,
};
use arborist_core::ids::TaskId;
use arborist_core::system::ProofSystem;
use arborist_system::watchdog::Watchdog;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, RwLock, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Something happened that is worth showing. One who listens too slowly misses some.
#[derive(Debug, Clone)]
pub enum Progress {
    /// A job was taken into the books.
    Submitted(JobId),
    /// A job came to an end.
    Ended(JobId, JobState),
    /// The root proof of a complete job was lost or bad, as it says, and is made again.
    RootLost(JobId, String),
    /// The engine has something to tell.
    Notice(Notice),
}

/// Why a call about a job failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// No job has that number.
    #[error("there is no job {}", .0.0)]
    Unknown(JobId),
    /// Its proofs are made by another proof system than this dispatcher's.
    #[error(
        "the job's proofs are made by {job}, here they are made by {here}: start the operator for that one, or submit the block again"
    )]
    OtherSystem {
        /// The job's.
        job: Box<ProofSystem>,
        /// This dispatcher's.
        here: Box<ProofSystem>,
    },
    /// Its root proof could not be checked, or what it is made of could not be had.
    #[error("{0}")]
    NotNow(String),
    /// The job is over, and what was asked for is for jobs that go on.
    #[error("job {} is {state}, and stays so", .job.0)]
    Ended {
        /// The job.
        job: JobId,
        /// Its state.
        state: &'static str,
    },
    /// It would go on, and its namespace has as much in the books as it may have.
    #[error(transparent)]
    Quota(#[from] OverQuota),
    /// The dispatcher has stopped, or was fenced.
    #[error("the dispatcher has stopped")]
    Stopped,
    /// Its tree was dropped when it was over, and can't be built again.
    #[error(transparent)]
    Past(#[from] PastError),
}

/// A running dispatcher; clones are the same one. Runs until [`Dispatcher::shutdown`], or until
/// another takes over its journal.
#[derive(Clone)]
pub struct Dispatcher {
    inner: Arc<Inner>,
}

/// What all parts of a dispatcher share.
struct Inner {
    options: Options,
    /// What makes the proofs, here and at every worker.
    system: ProofSystem,
    store: ArtifactStore,
    metrics: Arc<Metrics>,
    room: EngineRoom,
    journal: JournalHandle,
    runtime: Handle,
    next_session: AtomicU64,
    progress: broadcast::Sender<Progress>,
    /// The epoch of the operator that took over.
    fenced: watch::Sender<Option<u64>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    net: Mutex<Option<Net>>,
    address: SocketAddr,
    authority: Arc<Authority>,
    intake: Budget,
    /// Held for reading while a submit counts on objects in the store, for writing while some are deleted.
    deleting: RwLock<()>,
    /// One submit at a time enters the books.
    submitting: tokio::sync::Mutex<()>,
    /// One complete job at a time is looked at again.
    rechecking: tokio::sync::Mutex<()>,
    /// A new job wants its order chosen.
    reorder: Notify,
    /// The parts that have to go on.
    watchdog: Watchdog,
    /// Turns at verifying proofs that workers spoke of.
    verifying: Arc<tokio::sync::Semaphore>,
    /// Says which root proofs stay though their trees are deleted.
    named: Mutex<Option<Arc<NamedRoots>>>,
}

impl Dispatcher {
    /// Where workers connect.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The certificate authority in PEM that workers trust.
    pub fn ca_pem(&self) -> String {
        self.inner.authority.ca_pem()
    }

    /// The certificate authority of this and all servers beside it.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.inner.authority
    }

    /// The artifact store.
    pub fn store(&self) -> &ArtifactStore {
        &self.inner.store
    }

    /// How many bytes of block files may be held at once.
    pub fn intake(&self) -> &Budget {
        &self.inner.intake
    }

    /// The most calls that a transaction may make.
    pub fn max_calls(&self) -> u8 {
        self.inner.options.engine.profile.max_calls
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// What makes the proofs.
    pub fn system(&self) -> &ProofSystem {
        &self.inner.system
    }

    /// The proof system of a job that is of another than [`Dispatcher::system`]: it waits until that one is back.
    pub fn other_system(&self, id: JobId) -> Option<ProofSystem> {
        self.inner.room.look(|core| core.engine.other_system(id).cloned())
    }

    /// A job as it stands.
    pub fn job(&self, id: JobId) -> Option<JobView> {
        self.inner.room.look(|core| core.engine.job(id))
    }

    /// All jobs, by number.
    pub fn jobs(&self) -> Vec<JobView> {
        self.inner.room.look(|core| core.engine.jobs().filter_map(|id| core.engine.job(id)).collect())
    }

    /// The wall clock's time in milliseconds since 1970, as far as the engine was told: that is within a tenth of a
    /// second after the machine's clock was set. Deadlines, and times that views of jobs and workers say, are by this
    /// clock.
    pub fn now(&self) -> Millis {
        self.inner.room.clock.wall()
    }

    /// What is worth keeping of a job; `None` for an unknown one. Takes some milliseconds for a large block.
    pub fn report(&self, id: JobId) -> Option<Report> {
        self.inner.room.look(|core| core.engine.report(id))
    }

    /// All workers in the books.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.inner.room.look(|core| core.engine.workers())
    }

    /// The root's task of a job.
    pub fn root_task(&self, id: JobId) -> Option<TaskId> {
        self.inner.room.look(|core| core.engine.root_task(id))
    }

    /// A task as it stands, with the reason why it is not being proven. Of jobs that ended long ago only the roots are
    /// known.
    pub fn task(&self, task: &TaskId) -> Option<TaskView> {
        self.inner.room.look(|core| {
            let (job, node) = core.engine.find(task)?;
            core.engine.task(job, node)
        })
    }

    /// Waits until a job is over: complete, failed or cancelled.
    ///
    /// # Errors
    /// The job is unknown, was dropped from the books, or the dispatcher stopped.
    pub async fn wait(&self, id: JobId) -> Result<JobState, JobError> {
        let state = self.inner.room.look(|core| core.jobs.get(&id).map(|job| job.state.subscribe()));
        let mut state = state.ok_or(JobError::Unknown(id))?;
        let over = state.wait_for(|s| !matches!(s, JobState::Proving | JobState::Checking));
        tokio::select! {
            over = over => over.map(|s| s.clone()).map_err(|_| JobError::Unknown(id)),
            () = self.inner.stopping.cancelled() => Err(JobError::Stopped),
        }
    }

    /// Everything worth showing from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Progress> {
        self.inner.progress.subscribe()
    }

    /// Stops work on a job; its proofs stay. Durable when this returns.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn cancel(&self, id: JobId) -> Result<(), JobError> {
        self.change(id, Event::Cancel(id)).await
    }

    /// Suspends or resumes a job: what runs goes on. Durable when this returns.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn suspend(&self, id: JobId, suspended: bool) -> Result<(), JobError> {
        let was_suspended = self.job(id).is_some_and(|job| job.spec.suspended);
        if was_suspended && !suspended {
            self.inner.restore_before(id).await;
        }
        self.change(id, Event::Suspend(id, suspended)).await
    }

    /// Moves a job's deadline (milliseconds since 1970). Durable when this returns.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn deadline(&self, id: JobId, deadline: Option<u64>) -> Result<(), JobError> {
        self.change(id, Event::Deadline(id, deadline)).await
    }

    /// Changes a job's priority. Durable when this returns.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn priority(&self, id: JobId, priority: i32) -> Result<(), JobError> {
        self.change(id, Event::Priority(id, priority)).await
    }

    /// Drops a job that is over from the books; its proofs stay. Durable when this returns.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn forget(&self, id: JobId) -> Result<(), JobError> {
        self.change(id, Event::Forget(id)).await
    }

    async fn change(&self, id: JobId, event: Event) -> Result<(), JobError> {
        self.inner.change(id, event)?;
        self.inner.durable().await.map_err(|_| JobError::Stopped)
    }

    /// The epoch of the operator that took over the journal; this dispatcher has stopped then.
    pub fn fenced(&self) -> Option<u64> {
        *self.inner.fenced.borrow()
    }

    /// Waits until another operator has taken over, or the dispatcher was shut down (`None`).
    pub async fn stopped(&self) -> Option<u64> {
        self.inner.stopping.cancelled().await;
        self.fenced()
    }

    /// What keeps it from being ready, one line each; empty when it is.
    pub fn pending(&self) -> Vec<String> {
        let inner = &self.inner;
        let mut pending = vec![];
        if let Some(epoch) = self.fenced() {
            pending.push(format!("fenced by epoch {epoch}: another operator took over"));
        } else if inner.stopping.is_cancelled() {
            pending.push("stopping".into());
        }
        if let Some(error) = inner.journal.last_error() {
            pending.push(format!("the journal can't be written: {error}"));
        } else if self.journal_stall() > STALLED {
            let seconds = self.journal_stall().as_secs();
            pending.push(format!("the journal's store has not answered for {seconds} s"));
        }
        pending
    }

    /// How long what is not durable has been waiting for the journal's store; next to nothing while it works.
    pub fn journal_stall(&self) -> Duration {
        self.inner.journal.stalled_for()
    }

    /// The parts that are stuck, one line each; empty when all goes on.
    pub fn stuck(&self) -> Vec<String> {
        self.inner.watchdog.stuck()
    }

    /// Brings the gauges up to date; called before they are read.
    pub fn refresh_metrics(&self) {
        let metrics = &self.inner.metrics;
        metrics.intake.set(self.inner.intake.used() as i64);
        metrics.journal_lag.set(self.inner.journal.lag_bytes() as i64);
        metrics.journal_stall.set(self.journal_stall().as_secs_f64());
        let mut all = [Counts::default(); 5];
        let mut states = [0; 5];
        self.inner.room.look(|core| {
            for (counts, state) in core.engine.jobs().filter_map(|id| core.engine.counts(id)) {
                states[state_index(state)] += 1;
                if matches!(state, JobState::Proving | JobState::Checking) {
                    all.iter_mut().zip(counts).for_each(|(all, one)| add(all, &one));
                }
            }
        });
        metrics.set_tasks(&all);
        for (name, count) in STATES.into_iter().zip(states) {
            metrics.jobs.with_label_values(&[name]).set(count);
        }
    }

    /// Stops leasing, disconnects the workers (they keep their work and come back), writes a snapshot and
    /// everything else. The next dispatcher goes on from there.
    pub async fn shutdown(&self) {
        self.inner.halt().await;
        if self.fenced().is_some() {
            return;
        }
        let written = async {
            if let Err(error) = self.inner.snapshot().await {
                tracing::warn!(%error, "no snapshot at the end; the next start reads the journal instead");
            }
            if let Err(error) = self.inner.journal.clone().close().await {
                tracing::warn!(%error, "the journal's end may be lost; its proofs are in the store");
            }
        };
        if tokio::time::timeout(LAST_WRITES, written).await.is_err() {
            tracing::warn!(
                "the store does not answer: the journal's end may be lost; its proofs are in the store"
            );
        }
    }

    /// Stops at once and writes nothing more, as a crash would: when nothing can be written anyway, and for tests of what
    /// comes after.
    pub async fn abandon(&self) {
        self.inner.halt().await;
    }
}

/// How long a store may take for what is written at the end.
const LAST_WRITES: Duration = Duration::from_secs(20);
/// Network threads end within this time. One that hangs must not keep the journal's end from being written.
const NET_STOPS: Duration = Duration::from_secs(2);
/// A store that takes longer for a segment of the journal has stalled.
const STALLED: Duration = Duration::from_secs(10);
/// A part of the dispatcher that shows nothing of itself for so long is stuck.
pub(super) const STUCK: Duration = Duration::from_secs(60);

const STATES: [&str; 5] = ["proving", "checking", "complete", "failed", "cancelled"];

fn state_index(state: &JobState) -> usize {
    match state {
        JobState::Proving => 0,
        JobState::Checking => 1,
        JobState::Complete => 2,
        JobState::Failed { .. } => 3,
        JobState::Cancelled => 4,
    }
}

fn add(all: &mut Counts, one: &Counts) {
    all.total += one.total;
    all.done += one.done;
    all.running += one.running;
    all.ready += one.ready;
    all.failed += one.failed;
}

impl Inner {
    /// Hands an event about a job to the engine and brings those who wait for the job up to date.
    fn change(&self, id: JobId, event: Event) -> Result<(), JobError> {
        if self.stopping.is_cancelled() {
            return Err(JobError::Stopped);
        }
        let known = self.room.drive(&mut SendBuffers::default(), |core, now| {
            let known = core.engine.job(id).is_some();
            if known {
                core.event(now, event);
                core.publish(id);
            }
            known
        });
        if known { Ok(()) } else { Err(JobError::Unknown(id)) }
    }

    /// Closes all connections and ends all tasks.
    async fn halt(&self) {
        self.stopping.cancel();
        let net = self.net.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(net) = net {
            let stopped = tokio::time::timeout(NET_STOPS, tokio::task::spawn_blocking(move || net.stop()));
            if !matches!(stopped.await, Ok(Ok(()))) {
                tracing::error!("the network threads do not stop: the rest goes on without waiting for them");
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}
