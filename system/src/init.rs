//! The first process of a container. The kernel hands it every process whose parent has ended, and nobody but it can
//! reap them; signals whose effect is the default one don't reach it.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io;
use std::process::Command;

/// What is passed on to the program.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// To be called first in `main`, before any thread is started. In a container's first process it starts this program once
/// more as a child, passes signals on to it, reaps whatever ends, and returns the exit code when the child has ended;
/// in any other process it returns `None` at once.
pub fn run() -> Option<u8> {
    if std::process::id() != 1 {
        // as the child of such a process it has inherited what was blocked there
        let _was_not_blocked = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&watched()), None);
        return None;
    }
    match look_after_a_child() {
        Ok(code) => Some(code),
        // a process that reaps nobody is better than none
        Err(error) => {
            crate::errln!("this process is the first one and can't start another: {error}");
            let _was_not_blocked = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&watched()), None);
            None
        }
    }
}

fn watched() -> SigSet {
    PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect()
}

fn look_after_a_child() -> io::Result<u8> {
    let watched = watched();
    // before the child is there: what comes from here on waits
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched), None)?;
    let program = std::env::current_exe()?;
    let mut args = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = args.next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    let child = command.args(args).spawn()?;
    let child = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    loop {
        match watched.wait()? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(child) {
                    return Ok(code);
                }
            }
            signal => {
                // one that has just ended is reaped next
                let _gone = kill(child, signal);
            }
        }
    }
}

/// Reaps all that have ended; the exit code once the child is among them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => code = Some(128 + signal as u8),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return code,
        }
    }
}
