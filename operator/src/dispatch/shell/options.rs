//! How a dispatcher runs, and the defaults.

use super::{Plonky2Roots, Quotas, RootVerifier};
use crate::dispatch::login::Login;
use crate::intake;
use crate::operator_key::OperatorKey;
use crate::store::journal::JournalOptions;
use crate::tls::Authority;
use arborist_core::engine::Config;
use arborist_core::profile::Profile;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a dispatcher runs.
#[derive(Clone)]
pub struct Options {
    /// Where the certificate authority and the operator's key lie, if none are given.
    pub state_dir: PathBuf,
    /// The certificate authority; `None`: from the state folder, made there at the first start.
    pub authority: Option<Arc<Authority>>,
    /// What the journal and leases are sealed with; `None`: from the state folder, made there at the first start.
    pub operator_key: Option<OperatorKey>,
    /// Where workers connect; port 0 takes any.
    pub listen: SocketAddr,
    /// Names and addresses under which workers reach it, for its certificate.
    pub hosts: Vec<String>,
    /// Where workers find the artifact store.
    pub store_url: String,
    /// Checks tokens.
    pub login: Arc<dyn Login>,
    /// Checks root proofs, and others that workers complain about.
    pub roots: Arc<dyn RootVerifier>,
    /// The engine's settings, with the circuit profile; `lease`, `first_fence` and `lease_key` are set at the start.
    pub engine: Config,
    /// How often workers say that they are alive.
    pub heartbeat: Duration,
    /// A worker silent for so long loses its leases.
    pub lease: Duration,
    /// A worker silent for so long, or for its lease if that is shorter, loses its connection.
    pub silence: Duration,
    /// The largest frame taken from a worker, in bytes.
    pub max_frame: usize,
    /// The most bytes that may wait for a worker that reads slowly.
    pub max_waiting: usize,
    /// Connections of workers at once.
    pub max_connections: usize,
    /// Connections on their way to a login at once.
    pub max_logins: usize,
    /// A connection that is not logged in after so long is closed.
    pub login_timeout: Duration,
    /// Threads that carry workers' connections.
    pub threads: usize,
    /// The journal's settings.
    pub journal: JournalOptions,
    /// A snapshot is written after so many records …
    pub snapshot_records: u64,
    /// … or after so long, if there are any.
    pub snapshot_interval: Duration,
    /// Finished jobs and the proofs that no other job uses are deleted after so long; `None` keeps them. See
    /// [`Dispatcher::keep_roots`](super::Dispatcher::keep_roots) too.
    pub retention: Option<Duration>,
    /// How much each namespace may have in the books at once.
    pub quotas: Quotas,
    /// How many bytes of block files may be held at once.
    pub intake_bytes: u64,
    /// A block's inputs fetched and written at once.
    pub intake_parallel: usize,
    /// At a start, proofs that the journal does not know are looked for so long at most before workers are
    /// served; then the search goes on beside.
    pub lookup: Duration,
}

impl Options {
    /// Defaults for a profile, whose proof system is the workers': any port of 127.0.0.1, roots checked by the embedded
    /// circuits.
    pub fn new(state_dir: PathBuf, profile: Profile, login: Arc<dyn Login>) -> Self {
        Self {
            state_dir,
            authority: None,
            operator_key: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            hosts: vec![],
            store_url: String::new(),
            login,
            roots: Arc::new(Plonky2Roots),
            engine: Config::new(profile),
            heartbeat: Duration::from_secs(3),
            lease: Duration::from_secs(15),
            silence: Duration::from_secs(12),
            max_frame: arborist_core::wire::MAX_FRAME,
            max_waiting: 1 << 20,
            max_connections: arborist_system::descriptors::Shares::now().workers,
            max_logins: 512,
            login_timeout: Duration::from_secs(10),
            // more than a few only wait for each other at the engine's lock
            threads: std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).clamp(1, 4)),
            journal: JournalOptions::default(),
            snapshot_records: 500_000,
            snapshot_interval: Duration::from_secs(300),
            retention: Some(Duration::from_secs(24 * 3600)),
            quotas: Quotas::default(),
            intake_bytes: intake::DEFAULT_BYTES,
            intake_parallel: 32,
            lookup: Duration::from_secs(1),
        }
    }
}
