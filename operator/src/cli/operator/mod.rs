//! `arborist operator`: the operator's process in a cluster. It stands by until it leads, then serves workers and
//! brings the cluster to what ProverPools and ProvingJobs say.

mod lead;
mod process;

use self::process::Process;
use super::CliError;
use super::crashes;
use super::logging::{self, LogArgs};
use super::memory;
use super::needs::NeedsArgs;
use super::prove::parse_duration;
use super::serve::{BackendName, Intake, Plan, PluginArgs, ProfileName, WorkerStore};
use super::signals::Signals;
use super::tenants::TenantArgs;
use crate::controllers::{Scope, Settings};
use crate::kubernetes::endpoints::Address;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Threads of the runtime at most, on a large machine too: each keeps memory of its own.
const MAX_THREADS: usize = 4;

/// Options of `arborist operator`. Each can be given in the environment instead.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The operator's own namespace: Lease, certificates, keys
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// The name of the operator's pod
    #[arg(long, env = "POD_NAME")]
    pod_name: String,
    /// Its address, where workers reach it while it leads
    #[arg(long, env = "POD_IP")]
    pod_ip: IpAddr,
    /// Serve the pools and jobs of this namespace; may be repeated [default: all namespaces]
    #[arg(long = "watch-namespace", env = "ARBORIST_WATCH_NAMESPACE", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// The Service that workers connect to; it has no selector
    #[arg(long, env = "ARBORIST_SERVICE", default_value = "arborist")]
    service: String,
    /// Where workers connect
    #[arg(long, env = "ARBORIST_LISTEN", default_value = "0.0.0.0:7700")]
    listen: SocketAddr,
    /// Where the built-in artifact store listens (HTTPS)
    #[arg(long, env = "ARBORIST_STORE_LISTEN", default_value = "0.0.0.0:7702")]
    store_listen: SocketAddr,
    /// Where /metrics, /healthz and /readyz are served (HTTP, in the clear)
    #[arg(long, env = "ARBORIST_HTTP", default_value = "0.0.0.0:7701")]
    http: SocketAddr,
    /// Journal and artifacts, if --store names no other place
    #[arg(long, env = "ARBORIST_STATE", default_value = "/var/lib/arborist")]
    state: PathBuf,
    /// Artifact store: file://, s3://, gs:// or az:// [default: the state folder, served over HTTPS]
    #[arg(long, env = "ARBORIST_STORE")]
    store: Option<String>,
    /// How workers reach a store that --store names: through the operator, which lets each read and write only what its
    /// leases need, or direct, with rights of their own on all of it
    #[arg(long, env = "ARBORIST_WORKER_STORE", value_enum, default_value = "operator")]
    worker_store: WorkerStore,
    /// With --worker-store direct: a Secret in the pools' namespaces whose keys become environment of the workers
    #[arg(long, env = "ARBORIST_STORE_CREDENTIALS_SECRET")]
    store_credentials_secret: Option<String>,
    /// The workers' image, for pools that name none
    #[arg(long, env = "ARBORIST_WORKER_IMAGE")]
    worker_image: String,
    /// Its pull policy: Always, IfNotPresent or Never
    #[arg(long, env = "ARBORIST_WORKER_IMAGE_PULL_POLICY")]
    worker_image_pull_policy: Option<String>,
    /// A Secret to pull it with; may be repeated
    #[arg(
        long = "worker-image-pull-secret",
        env = "ARBORIST_WORKER_IMAGE_PULL_SECRET",
        value_delimiter = ','
    )]
    worker_image_pull_secrets: Vec<String>,
    /// What the workers prove with
    #[arg(long, env = "ARBORIST_BACKEND", value_enum, default_value = "plonky2")]
    backend: BackendName,
    #[command(flatten)]
    plugin: PluginArgs,
    /// What a proof needs: rfp = vm 30 cores, 52 GiB, others 7 cores, 12 GiB; local = 1 core, 1 GiB
    #[arg(long, env = "ARBORIST_PROFILE", value_enum, default_value = "rfp")]
    profile: ProfileName,
    #[command(flatten)]
    needs: NeedsArgs,
    /// A worker silent for so long loses its leases
    #[arg(long, env = "ARBORIST_LEASE", default_value = "15s", value_parser = parse_duration)]
    lease: Duration,
    /// A leader silent for so long loses its place to a standby: 3s to 2m
    #[arg(long, env = "ARBORIST_LEADER_LEASE", default_value = "8s", value_parser = parse_leader_lease)]
    leader_lease: Duration,
    /// Failures of one kind before a task is quarantined
    #[arg(long, env = "ARBORIST_MAX_ATTEMPTS", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    max_attempts: u8,
    /// The memory for block files that are being taken in, in MiB, over all jobs; others wait
    #[arg(long, env = "ARBORIST_INTAKE_MEMORY", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4095))]
    intake_memory: u32,
    /// A block's private proofs and calls fetched and written at once
    #[arg(long, env = "ARBORIST_INTAKE_PARALLEL", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    intake_parallel: u16,
    /// Let jobs name sources and report targets on loopback and link-local addresses: for trials only, since these are
    /// the node's
    #[arg(long, env = "ARBORIST_ALLOW_LOCAL_ADDRESSES")]
    allow_local_addresses: bool,
    #[command(flatten)]
    tenants: TenantArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs until SIGTERM or SIGINT (then the exit code is 0), or until this process must not lead any more.
///
/// # Errors
/// It led and was followed by another, or something that it can't do without failed.
pub fn run(args: &Args) -> Result<(), CliError> {
    logging::to_stderr(&args.log);
    memory::small_pages();
    crashes::end_with_network_threads();
    // the API server's client and those of jobs' sources share it; an earlier call has set the same one
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |cores| cores.get().min(MAX_THREADS)))
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("start the runtime", e))?;
    let result = runtime.block_on(async {
        let signals = Signals::listen()?;
        Process::start(args).await?.live(signals).await
    });
    // a check of a root that hangs in a plug-in does not hold the process
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

impl Args {
    fn scopes(&self) -> Vec<Scope> {
        let mut names: Vec<&String> = self.watch_namespaces.iter().filter(|name| !name.is_empty()).collect();
        names.sort();
        names.dedup();
        match names.is_empty() {
            true => vec![Scope::Cluster],
            false => names.into_iter().map(|name| Scope::Namespace(name.clone())).collect(),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            namespace: self.namespace.clone(),
            scopes: self.scopes(),
            service: self.service.clone(),
            dispatch_port: self.listen.port(),
            worker_image: self.worker_image.clone(),
            worker_image_pull_policy: self.worker_image_pull_policy.clone(),
            worker_image_pull_secrets: self.worker_image_pull_secrets.clone(),
            // workers that go through the operator need none
            store_credentials_secret: (self.worker_store == WorkerStore::Direct)
                .then(|| self.store_credentials_secret.clone())
                .flatten(),
            backend: self.backend.to_string(),
            profile: self.needs.of(self.profile.profile()),
            allow_local_addresses: self.allow_local_addresses,
            tenants: self.tenants.settings(),
        }
    }

    fn plan(&self) -> Plan {
        let (service, namespace) = (&self.service, &self.namespace);
        Plan {
            state: self.state.clone(),
            store: self.store.clone(),
            worker_store: self.worker_store,
            listen: self.listen,
            store_listen: self.store_listen,
            // the first one stands in the store's URL
            hosts: vec![
                self.settings().service_host(),
                service.clone(),
                format!("{service}.{namespace}"),
                format!("{service}.{namespace}.svc.cluster.local"),
                self.pod_ip.to_string(),
            ],
            http: None,
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
            key_file: None,
        }
    }

    fn address(&self) -> Address {
        Address {
            service: self.service.clone(),
            pod: self.pod_name.clone(),
            namespace: self.namespace.clone(),
            ip: self.pod_ip,
            dispatch: self.listen.port(),
            store: self.plan().serves_store().then_some(self.store_listen.port()),
        }
    }
}

/// Shorter leases are lost by a slow answer, longer ones are no failover.
fn parse_leader_lease(text: &str) -> Result<Duration, String> {
    let lease = parse_duration(text)?;
    let allowed = Duration::from_secs(3)..=Duration::from_secs(120);
    allowed.contains(&lease).then_some(lease).ok_or_else(|| format!("`{text}` is not between 3s and 2m"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    const NEEDED: [&str; 8] = [
        "operator",
        "--namespace=ours",
        "--pod-name=arborist-0",
        "--pod-ip=10.0.0.7",
        "--worker-image=w:1",
        "--service=prover",
        "--backend=fake",
        "--store-listen=0.0.0.0:7712",
    ];

    fn parse(more: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from(NEEDED.iter().chain(more)).map(|line| line.args)
    }

    #[test]
    fn what_is_served_is_the_whole_cluster_or_the_namespaces_named() {
        let named = |name: &str| Scope::Namespace(name.into());
        for (more, wanted) in [
            (&[][..], vec![Scope::Cluster]),
            (
                &["--watch-namespace=b", "--watch-namespace=a", "--watch-namespace=b"],
                vec![named("a"), named("b")],
            ),
            (&["--watch-namespace=a,b"], vec![named("a"), named("b")]),
        ] {
            assert_eq!(parse(more).unwrap().scopes(), wanted);
        }
    }

    #[test]
    fn workers_are_told_the_service_and_the_slice_has_its_ports() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.settings().dispatch_address(), "prover.ours.svc:7700");
        assert_eq!(args.plan().hosts[0], "prover.ours.svc");
        assert_eq!((args.address().dispatch, args.address().store), (7700, Some(7712)));
        let secret = "--store-credentials-secret=bucket";
        let through = parse(&["--store=s3://bucket", secret]).unwrap();
        assert_eq!(through.address().store, Some(7712));
        assert_eq!(through.settings().store_credentials_secret, None, "workers need none");
        let direct = parse(&["--store=s3://bucket", secret, "--worker-store=direct"]).unwrap();
        assert_eq!(direct.address().store, None);
        assert_eq!(direct.settings().store_credentials_secret.as_deref(), Some("bucket"));
    }

    #[test]
    fn nonsense_is_refused() {
        for more in ["--leader-lease=1s", "--leader-lease=1h", "--max-attempts=0", "--pod-ip=arborist"] {
            assert!(parse(&[more]).is_err(), "{more}");
        }
        assert!(Line::try_parse_from(&NEEDED[..3]).is_err(), "the image is needed");
    }
}
