//! One process under test.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, Once};
use std::time::SystemTime;

/// A process with its log; killed when dropped.
pub struct Process {
    child: Mutex<Child>,
    log: PathBuf,
    _reader: Option<PipeReader>,
}

/// Who does not read a process's outputs.
#[derive(Debug, Clone, Copy)]
pub enum Reader {
    /// It has closed its end.
    Gone,
    /// It keeps its end open.
    Asleep,
}

impl Process {
    /// Starts it; both outputs go to the end of `log`.
    pub fn spawn(mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).expect("the log opens");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a handle")).stderr(file);
        let child = command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program()));
        Self { child: Mutex::new(child), log, _reader: None }
    }

    /// Starts it with outputs that nobody reads.
    pub fn spawn_unread(mut command: Command, reader: Reader) -> Self {
        let (read, write) = std::io::pipe().expect("a pipe");
        let kept = match reader {
            Reader::Gone => None,
            Reader::Asleep => Some(read),
        };
        command.stdin(Stdio::null()).stdout(write.try_clone().expect("a handle")).stderr(write);
        let child = command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program()));
        Self { child: Mutex::new(child), log: PathBuf::new(), _reader: kept }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child().id()
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child().id() as i32);
        kill(pid, signal).expect("the process can be signalled");
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.status().is_some()
    }

    /// How it ended; `None` while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("the process can be waited for")
    }

    /// Waits until it has ended by itself.
    pub fn wait_end(&self, what: &str) -> ExitStatus {
        super::wait_for(what, || self.log(), || self.status())
    }

    /// Waits until it has ended but for what the system keeps of it: threads in calls of a disk that does not answer.
    pub fn wait_left(&self, what: &str) {
        let stat = format!("/proc/{}/stat", self.id());
        // the state follows the name in brackets: a process that has ended and whose rest is waited for is a zombie
        let ended = || std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") Z "));
        super::wait_for(what, || self.log(), || (ended() || self.has_ended()).then_some(()));
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(self) {
        drop(self);
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child();
        // one that has ended already is no error
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The operator's program.
pub fn arborist() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("arborist"));
    command.env("ARBORIST_WORKER", worker_path());
    command
}

/// The worker's program.
pub fn worker_program() -> Command {
    Command::new(worker_path())
}

/// The worker lies beside the operator. Cargo builds it with the workspace, but not for this crate's tests
/// alone: then it is built here.
fn worker_path() -> PathBuf {
    static BUILT: Once = Once::new();
    let path = assert_cmd::cargo::cargo_bin("arborist").with_file_name("arborist-worker");
    BUILT.call_once(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let built = path.metadata().and_then(|m| m.modified()).ok();
        let rooms = ["worker/src", "core/src", "artifacts/src", "circuits/src"];
        let newest = rooms.iter().filter_map(|room| newest(&root.join(room))).max();
        if built.is_some() && built >= newest {
            return;
        }
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(&root).args(["build", "--locked", "-p", "arborist-worker"]);
        if path.parent().is_some_and(|folder| folder.ends_with("release")) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the worker does not build");
    });
    path
}

fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let times = entries.filter_map(|entry| {
        let path = entry.path();
        if path.is_dir() { newest(&path) } else { path.metadata().ok()?.modified().ok() }
    });
    times.max()
}
