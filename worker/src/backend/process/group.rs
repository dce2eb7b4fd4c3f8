//! Runs a program as a process group of its own, watches it, and leaves nothing of it behind.

use crate::machine;
use arborist_core::backend::Cancel;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often memory, cancel flag and deadline are looked at.
const WATCH: Duration = Duration::from_millis(100);
/// How long a group has between SIGTERM and SIGKILL.
const TERM_PATIENCE: Duration = Duration::from_secs(2);
/// How long the end of the output is waited for once the group is dead: an escaped process may hold it.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(500);
/// How much of the end of stderr is kept.
const STDERR_TAIL: usize = 4 << 10;
/// How much of stdout is kept.
const STDOUT_TAIL: usize = 64 << 10;
/// Ticks per second in /proc: a constant of Linux's interface with programs.
const TICKS_PER_SECOND: u64 = 100;

/// Groups that run now, so that none outlives the worker.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn running() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every plug-in of this process at once.
pub fn kill_all() {
    for group in running().iter() {
        signal(Pid::from_raw(*group), Signal::SIGKILL);
    }
}

fn signal(group: Pid, signal: Signal) {
    match killpg(group, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(%group, %signal, %error, "the plug-in could not be signalled"),
    }
}

/// What ends a program early.
pub(super) struct Limits<'a> {
    pub deadline: Option<Instant>,
    /// Resident memory of the whole group; 0 is without limit.
    pub memory_mib: u32,
    pub cancel: &'a Cancel,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    Signalled(Signal),
    OutOfMemory,
    TimedOut,
    Cancelled,
}

/// A program that ran.
#[derive(Debug)]
pub(super) struct Ran {
    pub end: End,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub cpu_millis: u32,
    pub peak_mib: u32,
}

impl Ran {
    /// How it ended and the end of what it wrote to stderr.
    pub fn describe(&self) -> String {
        let end = match self.end {
            End::Exited(code) => format!("exited with code {code}"),
            End::Signalled(signal) => format!("was ended by {signal}"),
            End::OutOfMemory => "ran out of memory".to_owned(),
            End::TimedOut => "took too long".to_owned(),
            End::Cancelled => "was stopped".to_owned(),
        };
        let complaint = self.complaint();
        if complaint.is_empty() { end } else { format!("{end}: {complaint}") }
    }

    /// The end of what it wrote to stderr.
    pub fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let text = text.trim();
        // the last words matter, and the wire takes 1,000 characters
        let skip = text.chars().count().saturating_sub(900);
        text.chars().skip(skip).collect()
    }
}

/// Runs a program to its end. Its stdin stays open for as long as this process lives, so that it can
/// notice when it is left alone.
pub(super) fn run(mut command: Command, limits: &Limits<'_>) -> io::Result<Ran> {
    let kills_before = machine::oom_kills();
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ARBORIST_") {
            command.env_remove(name);
        }
    }
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    running().insert(group.as_raw());
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().map(|pipe| tail(pipe, STDOUT_TAIL));
    let stderr = child.stderr.take().map(|pipe| tail(pipe, STDERR_TAIL));
    let exited = on_exit(group);
    let mut watch = Watch { group, peak_kib: 0, limits };
    let early = watch.until_end(&exited);
    if early.is_some() {
        end_group(group, &exited);
    }
    let cpu_millis = cpu_millis(group);
    // the leader is a zombie still, so its number names this group and no other
    signal(group, Signal::SIGKILL);
    let own = reap(&mut child, kills_before);
    running().remove(&group.as_raw());
    drop(stdin);
    Ok(Ran {
        end: own.map(|own| early.unwrap_or(own))?,
        stdout: stdout.map(collect).unwrap_or_default(),
        stderr: stderr.map(collect).unwrap_or_default(),
        cpu_millis,
        peak_mib: u32::try_from(watch.peak_kib / 1024).unwrap_or(u32::MAX),
    })
}

/// Says when the group's leader has ended, without reaping it.
fn on_exit(leader: Pid) -> Receiver<()> {
    let (sender, exited) = channel();
    thread::spawn(move || {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while let Err(Errno::EINTR) = waitid(Id::Pid(leader), flags) {}
        let _nobody_waits = sender.send(());
    });
    exited
}

struct Watch<'a> {
    group: Pid,
    peak_kib: u64,
    limits: &'a Limits<'a>,
}

impl Watch<'_> {
    /// Waits for the leader's end; or says why it has to end early.
    fn until_end(&mut self, exited: &Receiver<()>) -> Option<End> {
        loop {
            if let Ok(()) | Err(RecvTimeoutError::Disconnected) = exited.recv_timeout(WATCH) {
                return None;
            }
            self.peak_kib = self.peak_kib.max(resident_kib(self.group));
            let limit_kib = u64::from(self.limits.memory_mib) * 1024;
            if limit_kib > 0 && self.peak_kib > limit_kib {
                return Some(End::OutOfMemory);
            }
            if self.limits.cancel.is_cancelled() {
                return Some(End::Cancelled);
            }
            if self.limits.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Some(End::TimedOut);
            }
        }
    }
}

fn end_group(group: Pid, exited: &Receiver<()>) {
    signal(group, Signal::SIGTERM);
    if let Err(RecvTimeoutError::Timeout) = exited.recv_timeout(TERM_PATIENCE) {
        signal(group, Signal::SIGKILL);
        let _ended = exited.recv();
    }
}

/// How a program ended by itself. A SIGKILL that was not ours is the kernel's, for memory; a shell
/// in between reports it as 128 + 9.
fn reap(child: &mut Child, kills_before: Option<u64>) -> io::Result<End> {
    use std::os::unix::process::ExitStatusExt;
    let status = child.wait()?;
    let killed_for_memory = machine::oom_kills() > kills_before;
    Ok(match (status.code(), status.signal()) {
        (Some(137), _) => End::OutOfMemory,
        (Some(code), _) if code != 0 && killed_for_memory => End::OutOfMemory,
        (Some(code), _) => End::Exited(code),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(Signal::SIGKILL) | Err(_) => End::OutOfMemory,
            Ok(_) if killed_for_memory => End::OutOfMemory,
            Ok(signal) => End::Signalled(signal),
        },
        (None, None) => End::Exited(-1),
    })
}

/// Resident memory of all processes of a group; pages they share count for each.
fn resident_kib(group: Pid) -> u64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let mut sum = 0;
    for process in processes.flatten() {
        let path = process.path();
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        if field(&stat, 5) == Some(group.as_raw() as u64) {
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            sum += machine::kib_of(&status, "VmRSS:").unwrap_or(0);
        }
    }
    sum
}

/// CPU time of a process that has ended and of those it waited for.
fn cpu_millis(leader: Pid) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{leader}/stat")).unwrap_or_default();
    let ticks: u64 = (14..=17).filter_map(|number| field(&stat, number)).sum();
    u32::try_from(ticks * 1_000 / TICKS_PER_SECOND).unwrap_or(u32::MAX)
}

/// A numeric field of /proc/PID/stat, counted from 1 as in proc(5). The second, the name, may hold
/// anything, so counting starts behind its closing bracket.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3)?.parse().ok()
}

/// Reads a pipe to its end on a thread and keeps the last `keep` bytes.
fn tail(mut pipe: impl Read + Send + 'static, keep: usize) -> Receiver<Vec<u8>> {
    let (sender, tail) = channel();
    thread::spawn(move || {
        let (mut kept, mut piece) = (vec![], [0; 4096]);
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            kept.extend_from_slice(&piece[..count]);
            if kept.len() > keep {
                kept.drain(..kept.len() - keep);
            }
        }
        let _nobody_waits = sender.send(kept);
    });
    tail
}

fn collect(tail: Receiver<Vec<u8>>) -> Vec<u8> {
    tail.recv_timeout(OUTPUT_PATIENCE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_stat_are_counted_behind_the_name() {
        let stat = "77 (a) b) S 1 66 3 0 -1 4194560 1 2 3 4 50 60 70 80 20 0";
        assert_eq!((field(stat, 4), field(stat, 5)), (Some(1), Some(66)));
        assert_eq!([14, 15, 16, 17].map(|n| field(stat, n)), [Some(50), Some(60), Some(70), Some(80)]);
        assert_eq!(field("", 5), None);
    }
}
