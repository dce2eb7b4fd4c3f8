//! The worker processes of `arborist prove`: started, restarted when they die, drained at the end.

use crate::cli::CliError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The worker's program.
const PROGRAM: &str = "arborist-worker";
/// First and longest pause before a dead worker is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A worker that lived so long starts with the first pause again.
const HEALTHY: Duration = Duration::from_secs(10);
/// How much longer than its grace period a worker may take to leave before it is killed.
const PATIENCE: Duration = Duration::from_secs(3);

/// How to start the workers.
#[derive(Debug, Clone)]
pub struct WorkerPlan {
    /// The program.
    pub program: PathBuf,
    /// How many processes.
    pub count: u16,
    /// Arguments that all have in common.
    pub common: Vec<String>,
    /// What a worker that is asked to leave may take to finish its proofs.
    pub grace: Duration,
    /// Folder of their logs.
    pub logs: PathBuf,
    /// First part of their names.
    pub prefix: String,
}

/// Finds the worker's program: `$ARBORIST_WORKER`, beside this program, or on the `PATH`.
///
/// # Errors
/// It is at none of these places.
pub fn find_program() -> Result<PathBuf, CliError> {
    if let Some(path) = std::env::var_os("ARBORIST_WORKER").map(PathBuf::from) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(CliError::input(&path, "file: $ARBORIST_WORKER names it, but there is no such program"))
        };
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(std::env::split_paths(&path).map(|p| p.join(PROGRAM))).find(|p| p.is_file()).ok_or_else(
        || {
            CliError::Failed(format!(
                "{PROGRAM} is neither beside this program nor on the PATH; set $ARBORIST_WORKER"
            ))
        },
    )
}

/// Running workers. Dropping it closes their standard inputs, so they leave too.
pub struct Workers {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts them; each is watched over until [`Workers::drain`].
    ///
    /// # Errors
    /// The first start fails.
    pub fn start(plan: &WorkerPlan) -> Result<Self, CliError> {
        let (stop, stopped) = watch::channel(false);
        let mut workers = Self { stop, tasks: Vec::new() };
        for number in 1..=plan.count {
            let one = OneWorker { plan: plan.clone(), name: format!("{}-{number}", plan.prefix) };
            let child = one
                .spawn()
                .map_err(|e| CliError::failed(format!("start {}", plan.program.display()), e))?;
            workers.tasks.push(tokio::spawn(one.watch(child, stopped.clone())));
        }
        Ok(workers)
    }

    /// Asks all to leave and waits until they have.
    pub async fn drain(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a worker's watcher failed");
            }
        }
    }
}

struct OneWorker {
    plan: WorkerPlan,
    name: String,
}

impl OneWorker {
    fn log_path(&self) -> PathBuf {
        self.plan.logs.join(format!("{}.log", self.name))
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.plan.program);
        command
            .args(&self.plan.common)
            .args(["--name", &self.name])
            // A worker leaves when this end of the pipe is gone: when this process dies, however it dies.
            .arg("--exit-with-parent")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for this process; it asks the workers itself.
            .process_group(0)
            .kill_on_drop(true);
        command.spawn()
    }

    /// Starts the worker again whenever it dies, until asked to stop.
    async fn watch(self, first: Child, mut stop: watch::Receiver<bool>) {
        let (mut child, mut pause, mut born) = (first, BACKOFF.0, Instant::now());
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return self.dismiss(child).await,
                status = child.wait() => self.report_death(status),
            }
            if born.elapsed() >= HEALTHY {
                pause = BACKOFF.0;
            }
            child = loop {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(BACKOFF.1);
                match self.spawn() {
                    Ok(child) => break child,
                    Err(error) => tracing::error!(worker = self.name, %error, "worker can't be started"),
                }
            };
            born = Instant::now();
        }
    }

    fn report_death(&self, status: std::io::Result<ExitStatus>) {
        let how = status.map_or_else(|e| e.to_string(), |s| s.to_string());
        let log = self.log_path();
        tracing::warn!(worker = self.name, how, log = %log.display(), "worker ended, starting it again");
        eprintln!("worker {} ended ({how}); starting it again, see {}", self.name, log.display());
    }

    async fn dismiss(&self, mut child: Child) {
        send(&child, Signal::SIGTERM);
        let patience = self.plan.grace + PATIENCE;
        if tokio::time::timeout(patience, child.wait()).await.is_err() {
            tracing::warn!(worker = self.name, "did not leave in time, killing it");
            if let Err(error) = child.kill().await {
                tracing::error!(worker = self.name, %error, "can't be killed");
            }
        }
    }
}

fn send(child: &Child, signal: Signal) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    if let Err(error) = kill(Pid::from_raw(pid), signal) {
        tracing::warn!(pid, %error, "can't send {signal}");
    }
}

/// Makes the folder of the logs.
///
/// # Errors
/// It can't be made.
pub fn make_folder(path: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(path).map_err(|e| CliError::failed(format!("make the folder {}", path.display()), e))
}
