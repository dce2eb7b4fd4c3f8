//! The command line.

use crate::backend::Prover;
use crate::backend::fake::{Fake, FakeProfile, Faults, PerKind};
use crate::backend::plonky2::InProcess;
use crate::backend::process::{Process, ProcessSettings};
use crate::connection::Login;
use crate::machine;
use crate::manual::{self, CompletionsArgs, ManArgs};
use crate::verify::{Verdict, verify};
use crate::worker::{Exit, Settings, run};
use anyhow::Context;
use arborist_core::circuit::{Circuit, KindSet};
use arborist_core::ids::TaskId;
use arborist_core::text::one_line;
use arborist_core::wire::Hello;
use arborist_system::output::Complaints;
use arborist_system::private;
use arborist_system::{errln, outln};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Takes leases from an Arborist dispatcher, proves them and stores the proofs.
///
/// Exit codes: 0 drained after SIGTERM, SIGINT or SIGHUP; 1 a second signal, or it could not start; 2 wrong
/// usage; 3 the dispatcher refused it for good (token, protocol, circuits).
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    backend: BackendArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check one proof object. Exit codes: 0 valid, 1 invalid, 2 could not be checked.
    Verify(VerifyArgs),
    /// Print in JSON what this backend's proofs are proofs of: backend, circuits, and the keys of a plug-in.
    Describe(DescribeArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Print the man page, or write all pages into a folder.
    Man(ManArgs),
}

#[derive(Debug, Args)]
struct DescribeArgs {
    #[command(flatten)]
    backend: BackendArgs,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The circuit: vm, kernel/K, base, merge/H or root/H.
    #[arg(long)]
    circuit: Circuit,
    /// The proof object, as it lies in the artifact store; `-` reads it from standard input.
    #[arg(long, value_name = "FILE")]
    object: PathBuf,
    /// The task it must be the proof of; not checked if left out.
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    #[command(flatten)]
    backend: BackendArgs,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The dispatcher.
    #[arg(long, value_name = "HOST:PORT", env = "ARBORIST_CONNECT")]
    connect: Option<String>,
    /// The CA certificates (PEM, one or several) that the dispatcher and the built-in artifact store are trusted by; read anew at each login and each heartbeat.
    #[arg(long, value_name = "FILE", env = "ARBORIST_CA_CERT")]
    ca_cert: Option<PathBuf>,
    /// The file with the token to log in with; read anew at each login.
    #[arg(long, value_name = "FILE", env = "ARBORIST_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The name in the dispatcher's certificate.
    #[arg(long, default_value = "arborist-dispatcher", env = "ARBORIST_SERVER_NAME")]
    server_name: String,
    /// Unique name of this worker [default: host name and a random number].
    #[arg(long, env = "ARBORIST_WORKER_NAME")]
    name: Option<String>,
    /// The machine's name: a task that failed there is not sent there again [default: host name].
    #[arg(long, env = "ARBORIST_NODE")]
    node: Option<String>,
    /// Cores to prove with [default: all].
    #[arg(long, env = "ARBORIST_CORES", value_parser = clap::value_parser!(u32).range(1..))]
    cores: Option<u32>,
    /// Memory to prove with, in MiB [default: all].
    #[arg(long, env = "ARBORIST_MEMORY_MIB", value_parser = clap::value_parser!(u32).range(1..))]
    memory_mib: Option<u32>,
    /// Kinds of proof to take, e.g. `vm` or `kernel,base` [default: all].
    #[arg(long, value_name = "KIND,…", env = "ARBORIST_KINDS")]
    kinds: Option<KindSet>,
    /// Leases to take beyond what can run at once.
    #[arg(long, default_value_t = 2, env = "ARBORIST_PREFETCH")]
    prefetch: u32,
    /// How long proofs may go on after SIGTERM or a refusal for good, in seconds.
    #[arg(long, default_value_t = 25, value_name = "SECONDS", env = "ARBORIST_GRACE")]
    grace: u64,
    /// Leave at once when standard input is closed: for programs that start workers and may be killed.
    #[arg(long)]
    exit_with_parent: bool,
    /// Serve /healthz here: 503 when the connection or the leases are stuck, e.g. `[::]:7703` [default: nowhere].
    #[arg(long, value_name = "ADDRESS:PORT", env = "ARBORIST_HEALTH_ADDRESS")]
    health_address: Option<SocketAddr>,
    /// How logs are written. What is logged is RUST_LOG's to say.
    #[arg(long, default_value = "text", env = "ARBORIST_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BackendName {
    /// The embedded circuits.
    Plonky2,
    /// Delays and hashes, for tests.
    Fake,
    /// A program of your own: docs/process-backend.md.
    Process,
}

#[derive(Debug, Args)]
struct BackendArgs {
    /// What makes the proofs.
    #[arg(long, default_value = "plonky2", env = "ARBORIST_BACKEND")]
    backend: BackendName,
    /// The plug-in of `--backend process`.
    #[arg(long, value_name = "PATH", env = "ARBORIST_PLUGIN")]
    plugin: Option<PathBuf>,
    /// An argument that the plug-in gets before its command; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    plugin_arg: Vec<String>,
    /// JSON file with the verification key hash of each circuit; without it the plug-in's own say counts.
    #[arg(long, value_name = "FILE", env = "ARBORIST_PLUGIN_KEYS")]
    plugin_keys: Option<PathBuf>,
    /// Where job folders are made [default: the system's temporary folder].
    #[arg(long, value_name = "DIR", env = "ARBORIST_WORK_DIR")]
    work_dir: Option<PathBuf>,
    /// JSON profile of the fake backend; the options below win over it.
    #[arg(long, value_name = "FILE", env = "ARBORIST_FAKE")]
    fake: Option<PathBuf>,
    /// Mean time of a fake proof in milliseconds: `30` or `vm=30,merge=10`.
    #[arg(long, env = "ARBORIST_FAKE_MILLIS")]
    fake_millis: Option<PerKind>,
    /// Spread of the times: standard deviation of their logarithm.
    #[arg(long)]
    fake_sigma: Option<f64>,
    /// Size of a fake proof in bytes: `1000` or `vm=500,root=200`.
    #[arg(long)]
    fake_bytes: Option<PerKind>,
    /// The most bytes a fake proof may have.
    #[arg(long)]
    fake_max_bytes: Option<usize>,
    /// Of 1,000 attempts, how many go wrong: `error=5,hang=1,oom=1,exhaust=1,wrong=1,oversize=1,slow=10,poison=1`.
    #[arg(long, env = "ARBORIST_FAKE_FAULTS")]
    fake_faults: Option<Faults>,
    /// How many times longer a slow fake proof takes.
    #[arg(long)]
    fake_slow_factor: Option<f64>,
    /// How many times longer every fake proof takes: a slow machine.
    #[arg(long)]
    fake_time_factor: Option<f64>,
}

impl BackendArgs {
    fn prover(&self) -> anyhow::Result<Arc<dyn Prover>> {
        Ok(match self.backend {
            BackendName::Plonky2 => Arc::new(InProcess::plonky2()),
            BackendName::Fake => Arc::new(Fake::new(self.fake_profile()?)),
            BackendName::Process => {
                let plugin = self.plugin.clone().context("--backend process needs --plugin")?;
                let settings = ProcessSettings {
                    plugin,
                    args: self.plugin_arg.clone(),
                    keys: self.plugin_keys.clone(),
                    work_dir: self.work_dir.clone(),
                };
                Arc::new(Process::open(settings)?)
            }
        })
    }

    fn fake_profile(&self) -> anyhow::Result<FakeProfile> {
        let mut profile = match &self.fake {
            Some(file) => {
                let json = std::fs::read(file).with_context(|| file.display().to_string())?;
                serde_json::from_slice(&json).with_context(|| file.display().to_string())?
            }
            None => FakeProfile::default(),
        };
        fn replace<T: Clone>(field: &mut T, with: &Option<T>) {
            if let Some(with) = with {
                field.clone_from(with);
            }
        }
        replace(&mut profile.millis, &self.fake_millis);
        replace(&mut profile.sigma, &self.fake_sigma);
        replace(&mut profile.proof_bytes, &self.fake_bytes);
        replace(&mut profile.max_proof_bytes, &self.fake_max_bytes);
        replace(&mut profile.faults, &self.fake_faults);
        replace(&mut profile.slow_factor, &self.fake_slow_factor);
        replace(&mut profile.time_factor, &self.fake_time_factor);
        Ok(profile)
    }
}

impl RunArgs {
    fn settings(self) -> anyhow::Result<Settings> {
        let host = machine::host_name();
        let hello = Hello {
            worker: self.name.unwrap_or_else(|| unique_name(&host)),
            node: self.node.unwrap_or(host),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cores: self.cores.unwrap_or_else(machine::cores),
            memory_mib: self.memory_mib.unwrap_or_else(machine::memory_mib),
            kinds: self.kinds.map_or(0, KindSet::bits),
            prefetch: self.prefetch,
            ..Default::default()
        };
        let login = Login {
            connect: self.connect.context("--connect HOST:PORT is missing")?,
            server_name: self.server_name,
            ca_cert: self.ca_cert.context("--ca-cert FILE is missing")?,
            token_file: self.token_file.context("--token-file FILE is missing")?,
            hello,
        };
        Ok(Settings { login, grace: Duration::from_secs(self.grace), health: self.health_address })
    }
}

/// Containers of one host have equal host names and process ids often enough.
fn unique_name(host: &str) -> String {
    format!("{host}-{:016x}", rand::random::<u64>())
}

fn start_logging(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Complaints::default);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let told = |told: std::io::Result<()>| match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(1, &error.to_string()),
    };
    private::keep_others_out();
    match cli.command {
        Some(Command::Verify(args)) => verify_command(&args),
        Some(Command::Describe(args)) => describe_command(&args.backend),
        Some(Command::Completions(args)) => {
            manual::completions(&args, Cli::command());
            ExitCode::SUCCESS
        }
        Some(Command::Man(args)) => told(manual::man(&args, Cli::command())),
        None => run_command(cli.run, &cli.backend),
    }
}

fn run_command(args: RunArgs, backend: &BackendArgs) -> ExitCode {
    start_logging(args.log_format);
    if args.exit_with_parent
        && let Err(error) = crate::parent::leave_with()
    {
        return complain(1, &error.to_string());
    }
    let ready = backend.prover().and_then(|prover| Ok((prover, args.settings()?)));
    let (prover, settings) = match ready {
        Ok(ready) => ready,
        Err(error) => return complain(2, &format!("{error:#}")),
    };
    match run(settings, prover) {
        Ok(Exit::Drained) => ExitCode::SUCCESS,
        Ok(Exit::Interrupted) => ExitCode::from(1),
        Ok(Exit::Refused(text)) => complain(3, &format!("the dispatcher refused this worker: {text}")),
        Ok(Exit::Broken(text)) => complain(1, &format!("the connection's thread: {text}")),
        Err(error) => complain(1, &error.to_string()),
    }
}

fn describe_command(backend: &BackendArgs) -> ExitCode {
    match backend.prover() {
        Ok(prover) => {
            outln!("{}", serde_json::json!(prover.system()));
            ExitCode::SUCCESS
        }
        Err(error) => complain(2, &format!("{error:#}")),
    }
}

fn verify_command(args: &VerifyArgs) -> ExitCode {
    let verdict = match args.backend.prover() {
        Ok(prover) => verify(&*prover, args.circuit, &args.object, args.task),
        Err(error) => Verdict::Unknown(format!("{error:#}")),
    };
    match verdict {
        Verdict::Valid { public_inputs } => {
            let stated: Vec<String> = public_inputs.iter().map(u64::to_string).collect();
            outln!("valid\npublic inputs: {}", stated.join(" "));
            ExitCode::SUCCESS
        }
        Verdict::Invalid(text) => complain(1, &format!("invalid: {text}")),
        Verdict::Unknown(text) => complain(2, &format!("could not be checked: {text}")),
    }
}

fn complain(code: u8, text: &str) -> ExitCode {
    // a plug-in or a proof's header may have said it
    errln!("arborist-worker: {}", one_line(text));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let line = ["arborist-worker", "verify", "--backend", "fake", "--circuit", "root/2", "--object", "x"];
        assert!(matches!(Cli::try_parse_from(line).unwrap().command, Some(Command::Verify(_))));
    }

    #[test]
    fn workers_of_one_host_that_are_given_no_name_have_different_ones() {
        let names: std::collections::HashSet<String> = (0..100).map(|_| unique_name("host")).collect();
        assert_eq!(names.len(), 100);
        assert!(names.iter().all(|name| name.starts_with("host-")), "{names:?}");
    }

    #[test]
    fn options_win_over_the_profile_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("profile.json");
        std::fs::write(&file, r#"{"millis": 5, "sigma": 0.0, "slow_factor": 2.0}"#).unwrap();
        let file = file.to_str().unwrap();
        let line = ["arborist-worker", "--backend", "fake", "--fake", file, "--fake-millis", "vm=9"];
        let profile = Cli::try_parse_from(line).unwrap().backend.fake_profile().unwrap();
        assert_eq!((profile.millis, profile.slow_factor), ("vm=9".parse().unwrap(), 2.0));
    }
}
