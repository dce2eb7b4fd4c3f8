//! A dispatcher with all it needs around it: artifact store, TLS, tokens, metrics. Shared by `run` and `prove`.

use super::CliError;
use super::jobs_http::with_json_errors;
use super::state_folder::STORE;
use super::tenants::TenantArgs;
use super::worker_program;
use crate::dispatch::{
    Dispatcher, FakeRoots, Login, Options, Plonky2Roots, ProgramRoots, RootVerifier, StartError, StaticToken,
};
use crate::operator_key::OperatorKey;
use crate::store::http::{self, Access, Limits};
use crate::tls::{Authority, worker_token};
use crate::{metrics, tls_serve};
use arborist_artifacts::{ArtifactStore, StoreOptions};
use arborist_core::ids::ArtifactHash;
use arborist_core::profile::Profile;
use arborist_core::system::ProofSystem;
use arborist_core::text::echo;
use arborist_system::descriptors::Shares;
use axum::Router;
use clap::ValueEnum;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Of the proofs that workers report, so many a second are looked for in the store at once.
const SPOT_CHECKS: u32 = 100;

/// What makes proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    /// The embedded circuits
    Plonky2,
    /// A program of your own: docs/process-backend.md
    Process,
    /// Delays and hashes, for trials of everything but proving
    Fake,
}

impl std::fmt::Display for BackendName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plonky2 => "plonky2",
            Self::Process => "process",
            Self::Fake => "fake",
        })
    }
}

/// How workers reach a store that is not the operator's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorkerStore {
    /// Through the operator: a worker reads and writes only what its leases need
    Operator,
    /// Themselves, with credentials of their own: whoever has these reads everything
    Direct,
}

/// A circuit profile by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    /// A core and a GiB for any proof
    Local,
    /// What the RFP's machines have for a pod
    Rfp,
}

impl ProfileName {
    /// The profile.
    pub fn profile(self) -> Profile {
        match self {
            Self::Local => Profile::local(),
            Self::Rfp => Profile::rfp_pods(),
        }
    }
}

/// Options of `--backend process`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PluginArgs {
    /// The plug-in of `--backend process`
    #[arg(long, required_if_eq("backend", "process"))]
    pub plugin: Option<PathBuf>,
    /// An argument for the plug-in; may be repeated
    #[arg(long, allow_hyphen_values = true, requires = "plugin")]
    pub plugin_arg: Vec<String>,
    /// JSON file with the verification key hash of each circuit
    #[arg(long, requires = "plugin")]
    pub plugin_keys: Option<PathBuf>,
}

impl PluginArgs {
    /// What the proofs of this plug-in are proofs of. Starts it; blocks.
    ///
    /// # Errors
    /// It does not run, or says nothing that can be understood.
    pub fn describe(&self) -> Result<ProofSystem, CliError> {
        let mut command = Command::new(worker_program::find()?);
        command.args(["describe", "--backend=process"]).args(self.for_worker()).stdin(Stdio::null());
        let output = command.output().map_err(|e| CliError::failed("start the worker's program", e))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let unusable = |problem: &str| CliError::Usage { option: "--plugin", problem: echo(problem) };
        if !output.status.success() {
            return Err(unusable(said.trim().trim_start_matches("arborist-worker: ")));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| unusable(&format!("its description: {e}")))
    }

    /// Checks proofs with this plug-in.
    ///
    /// # Errors
    /// The worker's program is not found.
    pub fn verifier(&self) -> Result<ProgramRoots, CliError> {
        let mut args = vec!["--backend=process".to_owned()];
        args.extend(self.for_worker());
        Ok(ProgramRoots { program: worker_program::find()?, args })
    }

    /// The same for the worker's program.
    pub fn for_worker(&self) -> Vec<String> {
        let path = |option: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|path| format!("{option}={}", path.display()))
        };
        let mut out: Vec<String> = path("--plugin", &self.plugin).into_iter().collect();
        out.extend(self.plugin_arg.iter().map(|arg| format!("--plugin-arg={arg}")));
        out.extend(path("--plugin-keys", &self.plugin_keys));
        out
    }
}

/// How long writing the journal's end may take at the end.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// The same when the store is known not to work.
const SHUTDOWN_TROUBLED: Duration = Duration::from_secs(3);
/// A disk that takes longer to answer is one that does not.
const DISK_TIME: Duration = Duration::from_secs(30);
/// Longer than all of [`Served::shutdown`] takes.
pub const LEAVE: Duration = Duration::from_secs(25);

/// What to serve, and where.
pub struct Plan {
    /// Journal, artifacts, CA and tokens.
    pub state: PathBuf,
    /// The artifact store's URL; `None`: the state folder, served over HTTPS.
    pub store: Option<String>,
    /// How workers reach it, if it is named.
    pub worker_store: WorkerStore,
    /// Where workers connect.
    pub listen: SocketAddr,
    /// Where the artifact store is served to workers, if it is.
    pub store_listen: SocketAddr,
    /// Names under which workers reach this machine, beside 127.0.0.1.
    pub hosts: Vec<String>,
    /// Where metrics and health are served, if at all.
    pub http: Option<SocketAddr>,
    /// What the workers prove with.
    pub backend: BackendName,
    /// Its plug-in.
    pub plugin: PluginArgs,
    /// Needs and first durations.
    pub profile: Profile,
    /// A worker silent for so long loses its leases.
    pub lease: Option<Duration>,
    /// Charged failures before a task is quarantined.
    pub max_attempts: Option<u8>,
    /// Whether a proof that was killed for its memory waits for a larger machine than the profile asks for.
    pub larger_machines: bool,
    /// Shares and quotas of namespaces.
    pub tenants: TenantArgs,
    /// What taking blocks in may use.
    pub intake: Intake,
    /// Checks workers' tokens; `None`: the one token of the state folder.
    pub login: Option<Arc<dyn Login>>,
    /// The certificate authority; `None`: the state folder's.
    pub authority: Option<Arc<Authority>>,
    /// What journal and leases are sealed with; `None`: that of `key_file`.
    pub operator_key: Option<OperatorKey>,
    /// The file of that key; `None`: the state folder's.
    pub key_file: Option<PathBuf>,
}

impl Plan {
    /// Whether workers reach the artifact store through the operator.
    pub fn serves_store(&self) -> bool {
        self.store.is_none() || self.worker_store == WorkerStore::Operator
    }
}

/// What taking blocks in may use.
#[derive(Debug, Clone, Copy)]
pub struct Intake {
    /// Memory for block files, in MiB.
    pub memory_mib: u32,
    /// A block's inputs fetched and written at once.
    pub parallel: u16,
}

impl Default for Intake {
    fn default() -> Self {
        Self { memory_mib: 512, parallel: 32 }
    }
}

/// A dispatcher that serves.
pub struct Served {
    /// The dispatcher.
    pub dispatcher: Dispatcher,
    /// Where metrics and health are served.
    pub http: Option<SocketAddr>,
    stop: CancellationToken,
    servers: TaskTracker,
}

impl Served {
    /// Starts everything. `more` adds routes to those of metrics and health.
    ///
    /// # Errors
    /// A folder, port, store or journal can't be used.
    pub async fn start(plan: &Plan, more: impl FnOnce(&Dispatcher) -> Router) -> Result<Self, CliError> {
        let store = plan.open_store().await?;
        Self::start_over(plan, store, more).await
    }

    /// Starts everything over the plan's store, opened before so that it can be watched meanwhile.
    ///
    /// # Errors
    /// A folder, port or journal can't be used, or the store does not do.
    pub async fn start_over(
        plan: &Plan,
        store: ArtifactStore,
        more: impl FnOnce(&Dispatcher) -> Router,
    ) -> Result<Self, CliError> {
        let state = plan.state_folder().await?;
        let store_door = match plan.serves_store() {
            true => Some(bind(plan.store_listen).await?),
            false => None,
        };
        let store_url = match &store_door {
            Some((_, address)) => format!("https://{}", authority(host_of(plan, *address), address.port())),
            None => plan.store.clone().unwrap_or_default(),
        };
        let options = options(plan, plugin_keys(plan).await?, &state, store_url)?;
        let not_started = |error: StartError| {
            let text = format!("start the dispatcher: {error}");
            if error.is_passing() { CliError::NotNow(text) } else { CliError::Failed(text) }
        };
        let dispatcher = Dispatcher::start(options, store.clone()).await.map_err(not_started)?;
        let (stop, servers) = (CancellationToken::new(), TaskTracker::new());
        if let Some((listener, _)) = store_door {
            let tls = dispatcher
                .authority()
                .server_config(&plan.hosts, &["http/1.1"])
                .map_err(|e| CliError::failed("TLS", e))?;
            let access: Arc<dyn Access> = Arc::new(dispatcher.clone());
            let router = http::router(store, access, Limits::default());
            servers.spawn(tls_serve::serve(listener, Some(tls), router, stop.clone()));
        }
        let mut http = None;
        if let Some(address) = plan.http {
            let (listener, address) = bind(address).await?;
            let router = with_json_errors(metrics::router(dispatcher.clone()).merge(more(&dispatcher)));
            let most = Shares::now().http;
            servers.spawn(tls_serve::serve_at_most(most, listener, None, router, stop.clone()));
            http = Some(address);
        }
        servers.close();
        Ok(Self { dispatcher, http, stop, servers })
    }

    /// Closes everything and writes nothing more.
    pub async fn abandon(self) {
        self.dispatcher.abandon().await;
        self.stop.cancel();
        self.servers.wait().await;
    }

    /// Writes what has to be written and closes everything, in bounded time: a store that hangs is not waited for.
    ///
    /// # Errors
    /// The journal's end could not be written in time.
    pub async fn shutdown(self) -> Result<(), CliError> {
        let store = self.dispatcher.store().clone();
        let limit = if store.trouble().is_some() { SHUTDOWN_TROUBLED } else { SHUTDOWN };
        let written = timeout(limit, self.dispatcher.shutdown()).await;
        self.stop.cancel();
        let _cut_off = timeout(SHUTDOWN, self.servers.wait()).await;
        written.map_err(|_| {
            let said = store.trouble().map_or_else(|| format!("{} is too slow", store.name()), |t| t.to_string());
            CliError::NotNow(format!(
                "the journal's end could not be written within {} s: {said}; finished proofs are in the store, and \
                 the next start finds them",
                limit.as_secs()
            ))
        })
    }
}

/// Without a name the address itself is one; where any address is listened on, it is this machine's for itself.
fn host_of(plan: &Plan, listens: SocketAddr) -> String {
    plan.hosts.first().cloned().unwrap_or_else(|| match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        ip => ip.to_string(),
    })
}

/// Host and port as they stand in a URL.
fn authority(host: String, port: u16) -> String {
    match host.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

/// A listener, and where it listens.
///
/// # Errors
/// The address is taken, or not this machine's.
pub async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), CliError> {
    let fail = |e: std::io::Error| CliError::failed(format!("listen on {address}"), e);
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    Ok((listener, bound))
}

impl Plan {
    async fn state_folder(&self) -> Result<PathBuf, CliError> {
        let state = self.state.clone();
        beside(format!("the folder {}", state.display()), move || made(&state)).await
    }

    /// The store that the operator itself reads and writes.
    ///
    /// # Errors
    /// The state folder can't be made or does not answer, or the URL names no store.
    pub async fn open_store(&self) -> Result<ArtifactStore, CliError> {
        let (state, store) = (self.state.clone(), self.store.clone());
        let what = store.clone().unwrap_or_else(|| format!("the folder {}", state.display()));
        beside(what, move || open_store(&state, store)).await
    }
}

/// Does what may wait for a disk beside the tasks, which have to go on: signals are heard and a leader's Lease is renewed
/// meanwhile.
///
/// # Errors
/// Its own, and [`CliError::NotNow`] when there is no answer.
pub async fn beside<T: Send + 'static>(
    what: String,
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    match timeout(DISK_TIME, tokio::task::spawn_blocking(work)).await {
        Ok(done) => done.map_err(|e| CliError::failed(format!("open {what}"), e))?,
        Err(_) => {
            let text = format!("open {what}: it has not answered for {} s", DISK_TIME.as_secs());
            Err(CliError::NotNow(text))
        }
    }
}

fn made(folder: &Path) -> Result<PathBuf, CliError> {
    std::fs::create_dir_all(folder)
        .and_then(|()| folder.canonicalize())
        .map_err(|e| CliError::failed(format!("make the folder {}", folder.display()), e))
}

fn open_store(state: &Path, store: Option<String>) -> Result<ArtifactStore, CliError> {
    let url = match store {
        Some(url) if url.starts_with("http") => {
            let problem = format!("`{url}`, allowed are file://, s3://, gs:// and az://");
            return Err(CliError::Usage { option: "--store", problem });
        }
        Some(url) => url,
        None => {
            let folder = made(state)?.join(STORE);
            let url = url::Url::from_file_path(&folder)
                .map_err(|()| CliError::Failed(format!("{} is no folder for a store", folder.display())))?;
            url.to_string()
        }
    };
    ArtifactStore::open(&url, &StoreOptions::default())
        .map_err(|e| CliError::Usage { option: "--store", problem: e.to_string() })
}

fn options(
    plan: &Plan,
    keys: Option<ArtifactHash>,
    state: &Path,
    store_url: String,
) -> Result<Options, CliError> {
    let login = match &plan.login {
        Some(login) => login.clone(),
        None => {
            let token = worker_token(state).map_err(|e| CliError::failed("the workers' token", e))?;
            Arc::new(StaticToken::new(&token))
        }
    };
    let profile = Profile { backend: plan.backend.to_string(), keys, ..plan.profile.clone() };
    let mut options = Options::new(state.to_owned(), profile, login);
    options.authority = plan.authority.clone();
    options.operator_key = operator_key(plan)?;
    options.listen = plan.listen;
    options.hosts = plan.hosts.clone();
    options.store_url = store_url;
    options.roots = roots(plan)?;
    options.intake_bytes = u64::from(plan.intake.memory_mib) << 20;
    options.intake_parallel = plan.intake.parallel.into();
    if let Some(lease) = plan.lease {
        options.lease = lease;
        // several heartbeats must be lost before a lease is
        options.heartbeat = options.heartbeat.min(lease / 5);
    }
    options.engine.spot_checks = SPOT_CHECKS;
    if let Some(max_attempts) = plan.max_attempts {
        options.engine.max_attempts = max_attempts;
    }
    if plan.larger_machines {
        options.engine = options.engine.with_larger_classes();
    }
    let tenants = plan.tenants.settings();
    options.engine.shares = tenants.weights();
    options.quotas = tenants.quotas();
    Ok(options)
}

/// What the plug-in's proofs are bound to, as the worker's program finds it out.
async fn plugin_keys(plan: &Plan) -> Result<Option<ArtifactHash>, CliError> {
    if plan.backend != BackendName::Process {
        return Ok(None);
    }
    let plugin = plan.plugin.clone();
    let described = tokio::task::spawn_blocking(move || plugin.describe()).await;
    let system = described.map_err(|e| CliError::failed("ask the plug-in", e))??;
    if system.circuits != plan.profile.circuits {
        let problem =
            format!("its circuits are `{}`, allowed is `{}`", echo(&system.circuits), plan.profile.circuits);
        return Err(CliError::Usage { option: "--plugin", problem });
    }
    Ok(system.keys)
}

fn operator_key(plan: &Plan) -> Result<Option<OperatorKey>, CliError> {
    match (&plan.operator_key, &plan.key_file) {
        (Some(key), _) => Ok(Some(key.clone())),
        (None, Some(file)) => OperatorKey::from_file(file)
            .map(Some)
            .map_err(|e| CliError::Usage { option: "--key-file", problem: e.to_string() }),
        (None, None) => Ok(None),
    }
}

fn roots(plan: &Plan) -> Result<Arc<dyn RootVerifier>, CliError> {
    Ok(match plan.backend {
        BackendName::Plonky2 => Arc::new(Plonky2Roots),
        BackendName::Fake => Arc::new(FakeRoots),
        BackendName::Process => Arc::new(plan.plugin.verifier()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_in_urls_as_their_kind_does() {
        for (host, wanted) in [
            ("example.com", "example.com:7"),
            ("127.0.0.1", "127.0.0.1:7"),
            ("::1", "[::1]:7"),
            ("[fd00::1]", "[fd00::1]:7"),
        ] {
            let found = authority(host.into(), 7);
            assert_eq!(found, wanted);
            assert!(url::Url::parse(&format!("https://{found}")).is_ok());
        }
    }
}
