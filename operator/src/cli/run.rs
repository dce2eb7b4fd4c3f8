//! `arborist run`: the operator's process. Workers come by themselves; jobs by options or over HTTP.

use super::CliError;
use super::block::{Elsewhere, Named, Place, Sha256Sum, ShapeArgs};
use super::crashes;
use super::input::write_whole;
use super::jobs_http;
use super::logging::{self, LogArgs};
use super::memory;
use super::needs::NeedsArgs;
use super::prove::parse_duration;
use super::serve::{BackendName, Intake, LEAVE, Plan, PluginArgs, ProfileName, Served, WorkerStore, beside};
use super::signals::Signals;
use super::state_folder::{ADMIN_TOKEN_FILE, StateFolder};
use super::store_watch;
use super::submit::{now_millis, refused, request};
use super::tenants::TenantArgs;
use crate::dispatch::{Dispatcher, SubmitRequest, SubmitSource};
use crate::intake::BlockFile;
use crate::tls::token;
use arborist_artifacts::ArtifactStore;
use arborist_circuits::Prover;
use arborist_system::private;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Options of `arborist run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Journal, artifacts, CA and tokens
    #[arg(long)]
    state: PathBuf,
    /// Where workers connect
    #[arg(long, default_value = "127.0.0.1:7700")]
    listen: SocketAddr,
    /// Where the built-in artifact store listens (HTTPS)
    #[arg(long, default_value = "127.0.0.1:0")]
    store_listen: SocketAddr,
    /// Artifact store: file://, s3://, gs:// or az:// [default: the state folder, served over HTTPS]
    #[arg(long)]
    store: Option<String>,
    /// How workers reach a store that --store names: through this process, which lets each read and write only what its
    /// leases need, or direct, with rights of their own on all of it
    #[arg(long, value_enum, default_value = "operator")]
    worker_store: WorkerStore,
    /// The key that journal and leases are sealed with, 32 bytes or 64 hex digits: the same for all operators over one
    /// store [default: the state folder's, made at the first start]
    #[arg(long, env = "ARBORIST_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// A name or address under which workers reach this machine; may be repeated, the first stands in the store's URL
    #[arg(long = "host")]
    hosts: Vec<String>,
    /// Where /metrics, /healthz, /readyz and /jobs are served (HTTP, in the clear)
    #[arg(long, default_value = "127.0.0.1:7701")]
    http: SocketAddr,
    /// What the workers prove with
    #[arg(long, value_enum, default_value = "plonky2")]
    backend: BackendName,
    #[command(flatten)]
    plugin: PluginArgs,
    /// What a proof needs: local = 1 core, 1 GiB; rfp = vm 30 cores, 52 GiB, others 7 cores, 12 GiB
    #[arg(long, value_enum, default_value = "local")]
    profile: ProfileName,
    #[command(flatten)]
    needs: NeedsArgs,
    /// A worker silent for so long loses its leases
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    lease: Duration,
    /// Failures of one kind before a task is quarantined
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    max_attempts: u8,
    /// The memory for block files that are being taken in, in MiB, over all jobs; others wait
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4095))]
    intake_memory: u32,
    /// A block's private proofs and calls fetched and written at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    intake_parallel: u16,
    /// Submit this block at the start: a file, or the URL that `arborist block push` prints
    #[arg(long, value_name = "FILE|URL")]
    block: Option<Place>,
    /// SHA-256 of the file at the URL of --block, as `arborist block push` prints it
    #[arg(long, value_name = "HEX", requires = "block")]
    sha256: Option<Sha256Sum>,
    /// Submit a made-up block of --transactions and --calls at the start (fake backend)
    #[arg(long, conflicts_with = "block")]
    synthetic: bool,
    #[command(flatten)]
    shape: ShapeArgs,
    /// The prover's name for the block submitted at the start
    #[arg(long, default_value = "local")]
    prover: Prover,
    /// Deadline of the block submitted at the start, e.g. 10m
    #[arg(long, value_parser = parse_duration)]
    deadline: Option<Duration>,
    /// Write the addresses into this JSON file once everything is served
    #[arg(long)]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    tenants: TenantArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs until SIGTERM, SIGINT or SIGHUP, or until another operator takes over the journal.
///
/// # Errors
/// It could not start, was fenced, or could not write the journal's end.
pub fn run(args: &Args) -> Result<(), CliError> {
    logging::to_stderr(&args.log);
    memory::small_pages();
    crashes::end_with_network_threads();
    private::keep_others_out();
    let block = args.find_block()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("start the runtime", e))?;
    let result = runtime.block_on(serve(args, block));
    // a check of a root that hangs in a plug-in, or a call of a disk that hangs, does not hold the process
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

async fn serve(args: &Args, block: Option<Found>) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    signals.leave_within(LEAVE);
    let plan = args.plan();
    let tell = |text: &str| tracing::warn!("{text}");
    let place = format!("the state folder {}", args.state.display());
    let opened = tokio::select! {
        opened = store_watch::told_if_late(&place, tell, open(&args.state, &plan)) => opened?,
        name = signals.next() => return left_early(name),
    };
    let _watch = store_watch::watch(opened.store.clone(), tell);
    let start = async {
        let routes = |dispatcher: &Dispatcher| jobs_http::router(dispatcher.clone(), &plan, &opened.token);
        Served::start_over(&plan, opened.store.clone(), routes).await
    };
    let served = tokio::select! {
        served = start => served?,
        name = signals.next() => return left_early(name),
    };
    let ended = tokio::select! {
        ended = work(args, &served, block) => ended,
        name = signals.next() => {
            tracing::info!(signal = name, "stopping: workers keep what they do and come back");
            Ok(())
        }
    };
    let left = tokio::select! {
        left = served.shutdown() => left,
        name = signals.next() => Err(CliError::Stopped(format!(
            "at once, by a second signal ({name}): the journal's last records are looked up at the next start"
        ))),
    };
    ended.and(left)
}

/// Nothing was leased yet, and the journal is claimed at once or not at all.
fn left_early(signal: &str) -> Result<(), CliError> {
    tracing::info!(signal, "leaving before the start was over");
    Ok(())
}

/// What is there before anything is served.
struct Opened {
    _folder: StateFolder,
    /// What `/jobs` asks for.
    token: String,
    store: ArtifactStore,
}

async fn open(state: &Path, plan: &Plan) -> Result<Opened, CliError> {
    let path = state.to_owned();
    let opening = beside(format!("the folder {}", state.display()), move || {
        let folder = StateFolder::open(&path)?;
        let token = token(&path, ADMIN_TOKEN_FILE).map_err(|e| CliError::failed("the admin token", e))?;
        Ok((folder, token))
    });
    let (folder, token) = opening.await?;
    Ok(Opened { _folder: folder, token, store: plan.open_store().await? })
}

/// The block of the options, which may have to be fetched yet.
enum Found {
    Here(SubmitRequest),
    Elsewhere(Elsewhere),
}

/// Submits the block of the options, if there is one, and serves until another operator takes over.
async fn work(args: &Args, served: &Served, block: Option<Found>) -> Result<(), CliError> {
    let request = match block {
        Some(Found::Here(request)) => Some(request),
        Some(Found::Elsewhere(elsewhere)) => {
            let budget = served.dispatcher.intake();
            let file = elsewhere.fetch(budget, |why| tracing::info!("--block: {why}")).await?;
            Some(args.request_for(file))
        }
        None => None,
    };
    if let Some(request) = request {
        let job = served.dispatcher.submit(request).await.map_err(refused)?;
        tracing::info!(job = job.0, "submitted");
    }
    args.tell_ready(served)?;
    match served.dispatcher.stopped().await {
        Some(epoch) => Err(CliError::Failed(format!(
            "another operator has taken over the journal (epoch {epoch}); this one has stopped"
        ))),
        None => Ok(()),
    }
}

impl Args {
    fn plan(&self) -> Plan {
        Plan {
            state: self.state.clone(),
            store: self.store.clone(),
            worker_store: self.worker_store,
            listen: self.listen,
            store_listen: self.store_listen,
            hosts: self.hosts.clone(),
            http: Some(self.http),
            backend: self.backend,
            plugin: self.plugin.clone(),
            profile: self.needs.of(self.profile.profile()),
            lease: Some(self.lease),
            max_attempts: Some(self.max_attempts),
            larger_machines: true,
            tenants: self.tenants.clone(),
            intake: Intake { memory_mib: self.intake_memory, parallel: self.intake_parallel },
            login: None,
            authority: None,
            operator_key: None,
            key_file: self.key_file.clone(),
        }
    }

    fn tell_ready(&self, served: &Served) -> Result<(), CliError> {
        let addresses = json!({
            "listen": served.dispatcher.address().to_string(),
            "http": served.http.map(|a| a.to_string()),
        });
        tracing::info!(%addresses, "serving");
        match &self.ready_file {
            Some(file) => write_whole(file, addresses.to_string().as_bytes()),
            None => Ok(()),
        }
    }

    fn find_block(&self) -> Result<Option<Found>, CliError> {
        match &self.block {
            Some(place) => match place.find(self.sha256, self.backend)? {
                Named::Here(file) => Ok(Some(Found::Here(self.request_for(file)))),
                Named::Elsewhere(elsewhere) => Ok(Some(Found::Elsewhere(elsewhere))),
            },
            None if self.synthetic && self.backend != BackendName::Fake => {
                let problem = format!(
                    "given with --backend {}, allowed is fake: a made-up block has no inputs",
                    self.backend
                );
                Err(CliError::Usage { option: "--synthetic", problem })
            }
            None if self.synthetic => {
                let shape = &self.shape;
                let source = SubmitSource::Synthetic { calls: shape.calls_of_each(), seed: shape.seed };
                let request = request(source, shape.chain_id, shape.block_number, &self.prover);
                Ok(Some(Found::Here(SubmitRequest { deadline: self.deadline(), ..request })))
            }
            None => Ok(None),
        }
    }

    fn request_for(&self, file: BlockFile) -> SubmitRequest {
        let (chain_id, number) = (file.block().chain_id, file.block().block_number);
        let request = request(SubmitSource::Block(Arc::new(file)), chain_id, number, &self.prover);
        SubmitRequest { deadline: self.deadline(), ..request }
    }

    /// From now.
    fn deadline(&self) -> Option<u64> {
        self.deadline.map(|deadline| now_millis() + deadline.as_millis() as u64)
    }
}
