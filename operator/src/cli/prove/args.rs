//! Options of `arborist prove`.

use super::machine::Machine;
use crate::cli::CliError;
use crate::cli::block::{Place, Sha256Sum, ShapeArgs};
use crate::cli::logging::LogArgs;
use crate::cli::needs::{NeedsArgs, check_fits};
use crate::cli::serve::{BackendName, PluginArgs};
use arborist_circuits::Prover;
use arborist_core::profile::{Needs, Profile};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `arborist prove`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The block to prove, a file or the URL that `arborist block push` prints; without it a sample block is made (for
    /// the fake backend one without inputs)
    #[arg(long, value_name = "FILE|URL",
          conflicts_with_all = ["transactions", "calls", "seed", "chain_id", "block_number"])]
    pub block: Option<Place>,
    /// SHA-256 of the file at the URL of --block, as `arborist block push` prints it
    #[arg(long, value_name = "HEX", requires = "block")]
    pub sha256: Option<Sha256Sum>,
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// How many worker processes to start
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: u16,
    /// Cores of each worker [default: this machine's, shared equally]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub worker_cores: Option<u16>,
    /// What makes the proofs
    #[arg(long, value_enum, default_value = "plonky2")]
    pub backend: BackendName,
    #[command(flatten)]
    pub plugin: PluginArgs,
    #[command(flatten)]
    pub fake: FakeArgs,
    #[command(flatten)]
    pub needs: NeedsArgs,
    /// Where root.proof, public.json, report.json and logs go
    #[arg(long, default_value = "out")]
    pub out: PathBuf,
    /// Journal, artifacts, CA and token, to go on after an interruption [default: OUT/state]
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Artifact store: file://, s3://, gs:// or az:// [default: the state folder, served over HTTPS]
    #[arg(long)]
    pub store: Option<String>,
    /// Give up after this time, e.g. 90s, 10m, 1h30m
    #[arg(long, value_parser = parse_duration)]
    pub deadline: Option<Duration>,
    /// The prover's name, which the root proof is bound to
    #[arg(long, default_value = "local")]
    pub prover: Prover,
    /// How long a worker may go on with its proofs when asked to leave, e.g. 20s
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    pub grace: Duration,
    /// Serve /metrics, /healthz and /readyz here, e.g. 127.0.0.1:9464
    #[arg(long)]
    pub http: Option<SocketAddr>,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Options of `--backend fake`, handed on to the workers.
#[derive(Debug, Clone, clap::Args)]
pub struct FakeArgs {
    /// JSON profile of the fake backend
    #[arg(long)]
    pub fake: Option<PathBuf>,
    /// Mean time of a fake proof in milliseconds: 30, or vm=30,merge=10
    #[arg(long)]
    pub fake_millis: Option<String>,
    /// Of 1,000 fake proofs, how many go wrong: error=5,hang=1,…
    #[arg(long)]
    pub fake_faults: Option<String>,
}

impl Args {
    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.out.join("state"))
    }

    /// What a proof needs here: a core and 1 GiB, or what is said.
    pub fn profile(&self) -> Profile {
        self.needs.of(Profile::local())
    }

    /// Cores of each worker.
    pub fn cores_of_each(&self) -> u16 {
        let shared = super::machine::cores() / usize::from(self.workers);
        self.worker_cores.unwrap_or(u16::try_from(shared).unwrap_or(u16::MAX).max(1))
    }

    /// Memory of each worker in MiB: this machine's, shared equally; at least what its cores' proofs need.
    pub fn memory_of_each(&self, profile: &Profile) -> u32 {
        let shared = Machine::this().memory_mib / u64::from(self.workers);
        let one = profile.needs.iter().map(|needs| needs.memory_mib / u32::from(needs.cores.max(1))).max();
        let needed = one.unwrap_or(0).saturating_mul(self.cores_of_each().into());
        u32::try_from(shared).unwrap_or(u32::MAX).max(needed)
    }

    /// What the workers are told about their backend.
    pub fn backend_args(&self) -> Vec<String> {
        let mut out = vec![format!("--backend={}", self.backend)];
        out.extend(self.plugin.for_worker());
        let mut add = |option: &str, value: Option<String>| {
            out.extend(value.map(|value| format!("{option}={value}")));
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        add("--fake", path(&self.fake.fake));
        add("--fake-millis", self.fake.fake_millis.clone());
        add("--fake-faults", self.fake.fake_faults.clone());
        out
    }

    /// Checks what the parser can't.
    ///
    /// # Errors
    /// The option and what is allowed.
    pub fn check(&self) -> Result<(), CliError> {
        let fake = &self.fake;
        let any_fake = fake.fake.is_some() || fake.fake_millis.is_some() || fake.fake_faults.is_some();
        if any_fake && self.backend != BackendName::Fake {
            let problem = format!("given with --backend {}, allowed is fake", self.backend);
            return Err(CliError::Usage { option: "--fake…", problem });
        }
        if self.plugin.plugin.is_some() && self.backend != BackendName::Process {
            let problem = format!("given with --backend {}, allowed is process", self.backend);
            return Err(CliError::Usage { option: "--plugin", problem });
        }
        let profile = self.profile();
        let each = Needs { cores: self.cores_of_each(), memory_mib: self.memory_of_each(&profile) };
        check_fits(&profile, each)
    }
}

/// The longest time that an option may say.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// A time such as `90s`, `10m` or `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let shown = || text.chars().filter(|c| !c.is_control()).take(40).collect::<String>();
    let bad = || format!("`{}` is no time above 0 and up to a year such as 90s, 10m or 1h30m", shown());
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| bad())?;
    let parsed = Duration::try_from(parsed).ok();
    parsed.filter(|d| !d.is_zero() && *d <= MAX_DURATION).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_nonsense_is_not() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5400)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0s", "-5s", "10", "ten", "9999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
