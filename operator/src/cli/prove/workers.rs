//! The worker processes of `arborist prove`: started, restarted when they die, drained at the end.

use crate::cli::CliError;
use crate::cli::screen::Screen;
use crate::cli::state_folder::unusable;
use arborist_system::private;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
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
/// Exit code of a worker that was started wrongly.
const WRONG_USAGE: i32 = 2;
/// Exit code of a worker that is refused for good.
const REFUSED: i32 = 3;
/// The most of a log's end that is looked at.
const LOG_TAIL: u64 = 64 << 10;
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
    /// Asks them to leave: whether with the grace period.
    stop: watch::Sender<Option<bool>>,
    tasks: JoinSet<()>,
    hopeless: mpsc::Receiver<Hopeless>,
}

/// A worker that would end the same way again.
#[derive(Debug, Clone)]
pub struct Hopeless {
    /// For the user.
    pub why: String,
    /// The options or files it was started with are to blame.
    pub usage: bool,
}

impl Workers {
    /// Starts them; each is watched over until [`Workers::drain`].
    ///
    /// # Errors
    /// The first start fails.
    pub fn start(plan: &WorkerPlan, screen: &Screen) -> Result<Self, CliError> {
        let (stop, stopped) = watch::channel(None);
        let (complain, hopeless) = mpsc::channel(1);
        let mut workers = Self { stop, tasks: JoinSet::new(), hopeless };
        for number in 1..=plan.count {
            let name = format!("{}-{number}", plan.prefix);
            let screen = screen.clone();
            let one = OneWorker { plan: plan.clone(), name, complain: complain.clone(), screen };
            let child =
                one.spawn().map_err(|e| CliError::failed(format!("start {}", plan.program.display()), e))?;
            workers.tasks.spawn(one.watch(child, stopped.clone()));
        }
        Ok(workers)
    }

    /// Waits until a worker says that starting it again is of no use, and why.
    pub async fn hopeless(&mut self) -> Hopeless {
        match self.hopeless.recv().await {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Asks all to leave and waits until they have: for the `grace` period and a little more, or only for the little
    /// when what they do is of no use any more.
    pub async fn drain(mut self, grace: bool) {
        self.stop.send_replace(Some(grace));
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
    /// Where in its log this process begins: what stands before is another one's.
    log_from: u64,
}

struct OneWorker {
    plan: WorkerPlan,
    name: String,
    complain: mpsc::Sender<Hopeless>,
    screen: Screen,
}

impl OneWorker {
    fn log_path(&self) -> PathBuf {
        self.plan.logs.join(format!("{}.log", self.name))
    }

    fn spawn(&self) -> std::io::Result<Running> {
        let log = private::append(&self.log_path())?;
        let log_from = log.metadata()?.len();
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
        Ok(Running { child, _stdin: stdin, log_from })
    }

    /// Starts the worker again whenever it dies, until asked to stop.
    async fn watch(self, first: Running, mut stop: watch::Receiver<Option<bool>>) {
        let (mut running, mut pause, mut born) = (first, BACKOFF.0, Instant::now());
        loop {
            tokio::select! {
                grace = asked(&mut stop) => return self.dismiss(running, grace).await,
                status = running.child.wait() => if self.is_hopeless(status, running.log_from).await { return },
            }
            if born.elapsed() >= HEALTHY {
                pause = BACKOFF.0;
            }
            running = loop {
                tokio::select! {
                    _ = asked(&mut stop) => return,
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
    async fn is_hopeless(&self, status: std::io::Result<ExitStatus>, log_from: u64) -> bool {
        let how = status.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        let (log, screen) = (self.log_path(), &self.screen);
        let code = status.ok().and_then(|status| status.code());
        if let Some(code @ (WRONG_USAGE | REFUSED)) = code {
            let why = format!("worker {} can't run: {}", self.name, last_line(&log, log_from));
            // only the first one is listened to
            let _ = self.complain.send(Hopeless { why, usage: code == WRONG_USAGE }).await;
            return true;
        }
        tracing::warn!(worker = self.name, how, log = %log.display(), "worker ended, starting it again");
        screen.tell(&format!("worker {} ended ({how}); starting it again, see {}", self.name, log.display()));
        false
    }

    async fn dismiss(&self, mut running: Running, grace: bool) {
        let child = &mut running.child;
        send(child, Signal::SIGTERM);
        let patience = if grace { self.plan.grace + PATIENCE } else { PATIENCE };
        if tokio::time::timeout(patience, child.wait()).await.is_err() {
            tracing::warn!(worker = self.name, "did not leave in time, killing it");
            if let Err(error) = child.kill().await {
                tracing::error!(worker = self.name, %error, "can't be killed");
            }
        }
    }
}

/// Waits until asked to stop, whether with the grace period; or until nobody is left to ask.
async fn asked(stop: &mut watch::Receiver<Option<bool>>) -> bool {
    stop.wait_for(Option::is_some).await.is_ok_and(|grace| grace.unwrap_or(false))
}

fn send(child: &Child, signal: Signal) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    if let Err(error) = kill(Pid::from_raw(pid), signal) {
        tracing::warn!(pid, %error, "can't send {signal}");
    }
}

/// The line of a log's end that says why, of what was written from `from` on.
fn last_line(log: &Path, from: u64) -> String {
    let text = tail(log, from).unwrap_or_default();
    let lines = || text.lines().rev().filter(|line| !line.trim().is_empty());
    let line = lines().find(|line| line.starts_with("error:")).or_else(|| lines().next());
    let line = line.unwrap_or("it says nothing");
    line.chars().filter(|c| !c.is_control()).take(400).collect()
}

fn tail(log: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    let mut bytes = vec![];
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_TAIL))))?;
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes the folder of the logs.
///
/// # Errors
/// It can't be made.
pub fn make_folder(path: &Path) -> Result<(), CliError> {
    private::make_folder(path).map_err(|e| unusable(path, e))?;
    private::tighten(path).map_err(|e| unusable(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_taken_from_what_this_process_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let earlier = "INFO starting\nerror: of an earlier run\n";
        for (now, reason) in [
            ("", "it says nothing"),
            ("INFO a\nlast words\n\n", "last words"),
            ("error: --x: bad\n  see --help\n", "error: --x: bad"),
            ("\u{1b}[31mred\u{7}\n", "[31mred"),
        ] {
            std::fs::write(&log, format!("{earlier}{now}")).unwrap();
            assert_eq!(last_line(&log, earlier.len() as u64), reason);
        }
    }
}
