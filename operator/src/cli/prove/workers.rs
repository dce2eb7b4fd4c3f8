//! The worker processes of `arborist prove`: started, restarted when they die, drained at the end.

use crate::cli::CliError;
use arborist_system::errln;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// First and longest pause before a dead worker is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A worker that lived so long starts with the first pause again.
const HEALTHY: Duration = Duration::from_secs(10);
/// Exit codes of a worker that would end the same way again: wrong usage, refused for good.
const HOPELESS: [i32; 2] = [2, 3];
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

/// Running workers. Dropping it kills them.
pub struct Workers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    hopeless: mpsc::Receiver<String>,
}

impl Workers {
    /// Starts them; each is watched over until [`Workers::drain`].
    ///
    /// # Errors
    /// The first start fails.
    pub fn start(plan: &WorkerPlan) -> Result<Self, CliError> {
        let (stop, stopped) = watch::channel(false);
        let (complain, hopeless) = mpsc::channel(1);
        let mut workers = Self { stop, tasks: JoinSet::new(), hopeless };
        for number in 1..=plan.count {
            let name = format!("{}-{number}", plan.prefix);
            let one = OneWorker { plan: plan.clone(), name, complain: complain.clone() };
            let child =
                one.spawn().map_err(|e| CliError::failed(format!("start {}", plan.program.display()), e))?;
            workers.tasks.spawn(one.watch(child, stopped.clone()));
        }
        Ok(workers)
    }

    /// Waits until a worker says that starting it again is of no use, and why.
    pub async fn hopeless(&mut self) -> String {
        match self.hopeless.recv().await {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Asks all to leave and waits until they have.
    pub async fn drain(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a worker's watcher failed");
            }
        }
    }
}

/// A worker's process with this end of its standard input.
struct Running {
    child: Child,
    _stdin: Option<ChildStdin>,
}

struct OneWorker {
    plan: WorkerPlan,
    name: String,
    complain: mpsc::Sender<String>,
}

impl OneWorker {
    fn log_path(&self) -> PathBuf {
        self.plan.logs.join(format!("{}.log", self.name))
    }

    fn spawn(&self) -> std::io::Result<Running> {
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
        let mut child = command.spawn()?;
        // waiting for a child would close it
        let stdin = child.stdin.take();
        Ok(Running { child, _stdin: stdin })
    }

    /// Starts the worker again whenever it dies, until asked to stop.
    async fn watch(self, first: Running, mut stop: watch::Receiver<bool>) {
        let (mut running, mut pause, mut born) = (first, BACKOFF.0, Instant::now());
        loop {
            tokio::select! {
                () = asked(&mut stop) => return self.dismiss(running).await,
                status = running.child.wait() => if self.is_hopeless(status).await { return },
            }
            if born.elapsed() >= HEALTHY {
                pause = BACKOFF.0;
            }
            running = loop {
                tokio::select! {
                    () = asked(&mut stop) => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(BACKOFF.1);
                match self.spawn() {
                    Ok(running) => break running,
                    Err(error) => tracing::error!(worker = self.name, %error, "worker can't be started"),
                }
            };
            born = Instant::now();
        }
    }

    /// Tells of a worker's end; whether starting it again is of no use.
    async fn is_hopeless(&self, status: std::io::Result<ExitStatus>) -> bool {
        let how = status.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        let log = self.log_path();
        if status.is_ok_and(|s| s.code().is_some_and(|code| HOPELESS.contains(&code))) {
            let why = format!("worker {} can't run: {}", self.name, last_line(&log));
            // only the first one is listened to
            let _ = self.complain.send(why).await;
            return true;
        }
        tracing::warn!(worker = self.name, how, log = %log.display(), "worker ended, starting it again");
        errln!("worker {} ended ({how}); starting it again, see {}", self.name, log.display());
        false
    }

    async fn dismiss(&self, mut running: Running) {
        let child = &mut running.child;
        send(child, Signal::SIGTERM);
        let patience = self.plan.grace + PATIENCE;
        if tokio::time::timeout(patience, child.wait()).await.is_err() {
            tracing::warn!(worker = self.name, "did not leave in time, killing it");
            if let Err(error) = child.kill().await {
                tracing::error!(worker = self.name, %error, "can't be killed");
            }
        }
    }
}

/// Waits until asked to stop, or nobody is left to ask.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _nobody_left = stop.wait_for(|stop| *stop).await.is_err();
}

fn send(child: &Child, signal: Signal) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    if let Err(error) = kill(Pid::from_raw(pid), signal) {
        tracing::warn!(pid, %error, "can't send {signal}");
    }
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = || text.lines().rev().filter(|line| !line.trim().is_empty());
    let line = lines().find(|line| line.starts_with("error:")).or_else(|| lines().next());
    let line = line.unwrap_or("it says nothing");
    line.chars().take(400).collect()
}

/// Makes the folder of the logs.
///
/// # Errors
/// It can't be made.
pub fn make_folder(path: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(path)
        .map_err(|e| CliError::failed(format!("make the folder {}", path.display()), e))
}
