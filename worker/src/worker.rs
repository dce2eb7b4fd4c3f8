//! The worker as a whole: threads, signals, and how it leaves.

use crate::attempt::Identity;
use crate::backend::{Prover, process};
use crate::book::Book;
use crate::connection::{self, Ended, Login};
use crate::health;
use crate::session::Wires;
use crate::slots::{Share, Slots};
use crate::tasks::Tasks;
use arborist_system::hang_up::hang_up_is_ignored;
use arborist_system::watchdog::Watchdog;
use ed25519_dalek::SigningKey;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long the last results wait for their acknowledgement when the worker leaves.
const ACKNOWLEDGEMENT_LIMIT: Duration = Duration::from_secs(3);
/// A part of the worker that shows nothing of itself for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// How long plug-ins that were told to end are waited for; then they are killed.
const PLUGIN_LIMIT: Duration = Duration::from_secs(3);

/// What a worker needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to log in; what concerns backend and key is filled in.
    pub login: Login,
    /// How long proofs may go on after SIGTERM or a refusal for good.
    pub grace: Duration,
    /// Where it says whether it goes on, if anywhere.
    pub health: Option<SocketAddr>,
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Drained after a signal: exit code 0.
    Drained,
    /// A second signal came: exit code 1.
    Interrupted,
    /// The dispatcher will not have it: exit code 3.
    Refused(String),
    /// The connection's thread could not run: exit code 1.
    Broken(String),
}

/// Runs a worker until a signal or a permanent refusal ends it. Blocks.
///
/// # Errors
/// Threads or signal handlers could not be set up.
pub fn run(settings: Settings, prover: Arc<dyn Prover>) -> io::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let worker = Worker::start(settings, prover)?;
        Ok(worker.live(&mut signals).await)
    });
    process::kill_all();
    // a proof inside this process can't be stopped: the process ends without it
    runtime.shutdown_background();
    exit
}

/// What asks a worker to leave: SIGTERM, SIGINT, and SIGHUP when its terminal closes, unless that is ignored.
struct Signals {
    term: Signal,
    int: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let hang_up = (!hang_up_is_ignored()).then(|| signal(SignalKind::hangup()));
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hang_up: hang_up.transpose()?,
        })
    }

    async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => _ = signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
            () = hang_up => {}
        }
    }
}

struct Worker {
    book: Arc<Book>,
    stop: CancellationToken,
    connection: JoinHandle<Ended>,
    tasks: tokio::task::JoinHandle<()>,
    grace: Duration,
}

impl Worker {
    fn start(settings: Settings, prover: Arc<dyn Prover>) -> io::Result<Self> {
        let Settings { mut login, grace, health } = settings;
        let watchdog = Watchdog::default();
        if let Some(address) = health {
            let address = health::serve(address, watchdog.clone())?;
            tracing::info!(%address, "serving /healthz");
        }
        let key = SigningKey::from_bytes(&rand::random());
        login.hello.backend = prover.name().to_owned();
        login.hello.circuits = prover.circuits().to_owned();
        login.hello.backend_keys = prover.keys().map_or(vec![], |keys| keys.0.to_vec());
        login.hello.maker_key = key.verifying_key().to_bytes().to_vec();
        login.hello.instance = rand::random::<[u8; 16]>().to_vec();
        let hello = &login.hello;
        let identity = Identity { worker: hello.worker.clone(), node: hello.node.clone(), key };
        let slots = Slots::new(Share { cores: hello.cores, memory_mib: hello.memory_mib });
        let book = Arc::new(Book::default());
        let stop = CancellationToken::new();
        let (leases, new_leases) = mpsc::unbounded_channel();
        let (store, store_now) = watch::channel(None);
        let tasks = Arc::new(Tasks { prover, identity, slots, book: book.clone(), store: store_now });
        let pulse = watchdog.watch("the connection", STUCK);
        let tasks = tokio::spawn(async move { watchdog.keep("leases", STUCK, tasks.run(new_leases)).await });
        let wires = Wires { book: book.clone(), leases, store, stop: stop.clone(), pulse };
        let connection = connection::spawn(login, wires)?;
        Ok(Self { book, stop, connection, tasks, grace })
    }

    async fn live(self, signals: &mut Signals) -> Exit {
        let asked = tokio::select! {
            () = signals.next() => true,
            // the connection's thread has ended
            () = self.stop.cancelled() => false,
        };
        tracing::info!(grace = ?self.grace, "draining");
        let hurried = async {
            if !asked {
                signals.next().await;
            }
            signals.next().await;
        };
        tokio::select! {
            () = self.leave() => {}
            () = hurried => {
                tracing::warn!("a second signal: ending at once");
                return Exit::Interrupted;
            }
        }
        self.stop.cancel();
        self.book.stop_all();
        // ends with the connection's thread, which held the other end, and with the last backend
        let _cut_off = timeout(PLUGIN_LIMIT, self.tasks).await;
        match self.connection.join() {
            Ok(Ended::Refused(text)) => Exit::Refused(text),
            Ok(Ended::Broken(text)) => Exit::Broken(text),
            Ok(Ended::Stopped) => Exit::Drained,
            Err(_) => Exit::Broken("it has crashed".into()),
        }
    }

    /// Hands back what was not started, lets the rest go on for the grace period, hands back what is
    /// left, and waits a little for everything to be acknowledged. A worker that was refused for good does the
    /// same and nobody hears it: a proof in the store is found by whoever leases its task next.
    async fn leave(&self) {
        self.book.drain();
        if timeout(self.grace, self.book.no_lease_open()).await.is_err() {
            self.book.hand_back_rest();
        }
        let heard = async {
            tokio::select! {
                () = self.book.all_said() => {}
                () = self.stop.cancelled() => {}
            }
        };
        if timeout(ACKNOWLEDGEMENT_LIMIT, heard).await.is_err() {
            tracing::warn!("leaving with results that were not acknowledged: their proofs are in the store");
        }
    }
}
