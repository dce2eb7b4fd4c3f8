//! Real operators and workers for the fault tests: started, hurt, watched, and cleaned up.

mod api_server;
mod bucket;
mod disk;
mod files;
mod held;
pub mod http;
mod leader;
#[path = "../../../../artifacts/tests/mock_s3/mod.rs"]
mod mock_s3;
mod process;
mod proxy;
mod records;
pub mod wire;

pub use api_server::ApiServer;
pub use bucket::Bucket;
pub use disk::{Dead, Freezer, small_disk};
pub use files::serve_files;
pub use held::Held;
pub use http::text;
pub use leader::Leader;
pub use process::{Process, Reader, arborist, worker_program};
pub use proxy::Proxy;
pub use records::Records;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No state is waited for longer than this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// But for what takes the operator a minute to decide.
pub const LONG_PATIENCE: Duration = Duration::from_secs(240);

/// Waits until `look` finds something; fails with what `why` tells otherwise.
pub fn wait_for<T>(what: &str, why: impl Fn() -> String, look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, why, look)
}

/// The same with another patience.
pub fn wait_within<T>(
    patience: Duration,
    what: &str,
    why: impl Fn() -> String,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {patience:?} in vain until {what}\n{}", why());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How the operator of a lab is started.
#[derive(Debug, Clone, Default)]
pub struct OperatorOptions {
    /// More arguments for `arborist run`.
    pub args: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
    /// Nobody reads what it says.
    pub reader: Option<Reader>,
    /// How many descriptors it may have, by `ulimit -n`.
    pub descriptors: Option<&'static str>,
    /// The address it listens on; `None` is 127.0.0.1.
    pub ip: Option<&'static str>,
}

/// A folder with an operator and its workers.
pub struct Lab {
    folder: TempDir,
    /// The operator; `None` while it is dead.
    pub operator: Option<Process>,
    options: OperatorOptions,
    /// Where it listens, from its first start on.
    pub address: String,
    http: String,
    starts: u32,
}

impl Lab {
    /// A lab whose operator has not been started yet.
    pub fn prepare(options: OperatorOptions) -> Self {
        let address = format!("{}:0", options.ip.unwrap_or("127.0.0.1"));
        Self {
            folder: TempDir::new().expect("a folder for the test"),
            operator: None,
            options,
            address: address.clone(),
            http: address,
            starts: 0,
        }
    }

    /// Starts an operator with a fresh state folder and the fake backend.
    pub fn start(options: OperatorOptions) -> Self {
        let mut lab = Self::prepare(options);
        lab.start_operator();
        lab
    }

    /// The operator's state folder.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The folder of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder that artifacts lie in.
    pub fn store(&self) -> PathBuf {
        self.state().join("store")
    }

    /// Starts the operator (again), at the same addresses.
    pub fn start_operator(&mut self) {
        assert!(self.operator.is_none(), "the operator runs already");
        self.starts += 1;
        let (process, address, http) = self.spawn_operator(self.starts, &self.address, &self.http);
        (self.address, self.http) = (address, http);
        self.operator = Some(process);
    }

    /// Starts an operator over the lab's state; gives back where it listens.
    pub fn spawn_operator(&self, number: u32, listen: &str, http: &str) -> (Process, String, String) {
        let ready = self.folder.path().join(format!("ready-{number}.json"));
        let mut command = match self.options.descriptors {
            Some(most) => limited(&arborist(), most),
            None => arborist(),
        };
        command
            .args(["run", "--backend", "fake", "--log-format", "json", "--listen", listen, "--http", http])
            .arg("--state")
            .arg(self.state())
            .arg("--ready-file")
            .arg(&ready)
            .args(&self.options.args)
            .env("RUST_LOG", "info")
            .envs(self.options.env.iter().cloned());
        let process = match self.options.reader {
            Some(reader) => Process::spawn_unread(command, reader),
            None => Process::spawn(command, self.folder.path().join(format!("operator-{number}.log"))),
        };
        let text = wait_for(
            "the operator listens",
            || process.log(),
            || {
                assert!(!process.has_ended(), "the operator ended:\n{}", process.log());
                std::fs::read(&ready).ok()
            },
        );
        let ready: Value = serde_json::from_slice(&text).expect("the ready file is JSON");
        let field = |name: &str| ready[name].as_str().expect(name).to_owned();
        (process, field("listen"), field("http"))
    }

    /// From now on this is the lab's operator.
    pub fn take_over(&mut self, operator: Process, address: String, http: String) {
        self.operator = Some(operator);
        (self.address, self.http) = (address, http);
    }

    /// kill -9, and gone.
    pub fn kill_operator(&mut self) {
        self.operator.take().expect("the operator runs").kill();
    }

    /// Starts a worker with these arguments on top of its login.
    pub fn worker(&self, name: &str, args: &[&str]) -> Process {
        self.worker_at(&self.address, name, args)
    }

    /// Starts a worker that connects to this address.
    pub fn worker_at(&self, address: &str, name: &str, args: &[&str]) -> Process {
        self.start_worker(address, name, name, args)
    }

    /// Starts a worker whose log has another name than itself.
    pub fn worker_with_log(&self, name: &str, log: &str, args: &[&str]) -> Process {
        self.start_worker(&self.address, name, log, args)
    }

    /// Starts a worker whose words nobody reads.
    pub fn worker_unread(&self, name: &str, reader: Reader, args: &[&str]) -> Process {
        let mut command = self.worker_command(&self.address, name, args);
        command.env("RUST_LOG", "trace");
        Process::spawn_unread(command, reader)
    }

    fn start_worker(&self, address: &str, name: &str, log: &str, args: &[&str]) -> Process {
        let command = self.worker_command(address, name, args);
        Process::spawn(command, self.folder.path().join(format!("worker-{log}.log")))
    }

    fn worker_command(&self, address: &str, name: &str, args: &[&str]) -> Command {
        let mut command = worker_program();
        command
            .args(["--backend", "fake", "--log-format", "json", "--cores", "1", "--memory-mib", "1024"])
            .args(["--connect", address, "--name", name, "--node", name])
            .arg("--ca-cert")
            .arg(self.state().join("ca.pem"))
            .args(args)
            .env("ARBORIST_PREFETCH", "1")
            .env("ARBORIST_TOKEN_FILE", self.state().join("worker-token"))
            .env("RUST_LOG", "info,arborist_worker=debug");
        command
    }

    /// Where health, metrics and jobs are served.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// The body of a good answer of the operator.
    pub fn text(&self, path: &str) -> Option<String> {
        http::text(&self.http, path)
    }

    /// Submits a made-up block; gives back the job's number.
    pub fn submit(&self, transactions: u32, calls: &[u8], seed: u64) -> u64 {
        self.submit_for("tester", transactions, calls, seed)
    }

    /// Submits a made-up block for this prover; gives back the job's number.
    pub fn submit_for(&self, prover: &str, transactions: u32, calls: &[u8], seed: u64) -> u64 {
        let body = json!({
            "synthetic": {"transactions": transactions, "calls": calls, "seed": seed},
            "prover": prover,
        });
        let answer = self.post("/jobs", &body);
        answer["id"].as_u64().unwrap_or_else(|| panic!("no job: {answer}"))
    }

    /// Asks the operator.
    pub fn get(&self, path: &str) -> Option<Value> {
        http::request(&self.http, "GET", path, &self.token(), None)
    }

    /// Tells the operator something; fails when it refuses.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        http::request(&self.http, "POST", path, &self.token(), Some(body))
            .unwrap_or_else(|| panic!("POST {path} failed\n{}", self.logs()))
    }

    /// Sends a request with these headers beside the usual ones, whatever comes of it.
    pub fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> http::Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Length: {}\r\n{headers}\r\n",
            self.http,
            self.token(),
            body.len()
        );
        http::raw(&self.http, &[head.as_bytes(), body].concat())
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.state().join("admin-token")).unwrap_or_default().trim().to_owned()
    }

    /// The value of a metric line that starts with `name`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        http::metric(&self.http, name)
    }

    /// How many tasks of a job are done.
    pub fn done(&self, job: u64) -> Option<u64> {
        let status = self.get(&format!("/jobs/{job}"))?;
        status["counts"].as_array()?.iter().map(|kind| kind["done"].as_u64()).sum()
    }

    /// Waits until so many of the job's tasks are done.
    pub fn wait_done(&self, job: u64, least: u64) {
        wait_for(
            &format!("{least} tasks are done"),
            || self.logs(),
            || self.done(job).filter(|done| *done >= least),
        );
    }

    /// Waits until the job is complete and gives back its report.
    pub fn wait_complete(&self, job: u64) -> Value {
        wait_for(
            "the job is complete",
            || self.logs(),
            || {
                let status = self.get(&format!("/jobs/{job}"))?;
                let state = status["state"].as_str()?;
                assert!(["proving", "checking", "complete"].contains(&state), "{status}\n{}", self.logs());
                (state == "complete").then_some(())
            },
        );
        self.get(&format!("/jobs/{job}/report")).expect("a report")
    }

    /// What the proofs in the store and the workers' logs say by now.
    pub fn records(&self) -> Records {
        Records::read(&self.store(), self.folder.path())
    }

    /// Ends of all logs, for a failing test.
    pub fn logs(&self) -> String {
        let mut out = String::new();
        let files = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        for file in files.filter(|f| f.path().extension().is_some_and(|e| e == "log")) {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(25).collect();
            out += &format!("--- {}\n", file.path().display());
            tail.iter().rev().for_each(|line| out += &format!("{line}\n"));
        }
        out
    }
}

/// The same program with so many descriptors at most.
pub fn limited(program: &Command, descriptors: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")]).arg(program.get_program());
    for (name, value) in program.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell
}

/// What must hold after every fault: the report counts each task once, each proof has one maker, and the store has
/// exactly these proofs.
pub fn assert_books_balance(lab: &Lab, report: &Value, tasks: u64) {
    assert_reported_once(report, tasks);
    assert_eq!(lab.records().proofs.len() as u64, tasks, "each proof lies in the store, and no other");
}

/// The same of the report alone.
pub fn assert_reported_once(report: &Value, tasks: u64) {
    assert_eq!(sum(report, "count"), tasks, "the report counts each task once: {report}");
    let shares = report["shares"].as_array().expect("shares");
    let proofs = shares.iter().flat_map(|share| share["proofs"].as_array().expect("proofs"));
    let credited: u64 = proofs.filter_map(Value::as_u64).sum();
    assert!(credited <= tasks, "no proof has two makers: {report}");
    assert!(credited + sum(report, "reused") >= tasks, "each proof has a maker: {report}");
}

/// The sum of a column over a report's kinds.
pub fn sum(report: &Value, column: &str) -> u64 {
    let kinds = report["kinds"].as_array().expect("kinds");
    kinds.iter().map(|kind| kind[column].as_u64().expect(column)).sum()
}
