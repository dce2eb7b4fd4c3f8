//! A thread that does not go on.

use super::Process;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;

/// One thread of a process is held, as a debugger does it: for the others it looks as if it waited for a lock or a call
/// that does not come back. It goes on when this is dropped, by the thread that made it.
pub struct Held(Pid);

impl Held {
    /// Holds the thread of this name; `None`, with the reason printed, where that is not allowed.
    pub fn thread(process: &Process, name: &str) -> Option<Self> {
        let threads =
            fs::read_dir(format!("/proc/{}/task", process.id())).expect("the process runs").flatten();
        let named =
            |thread: &Path| fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim() == name);
        let thread =
            threads.map(|entry| entry.path()).find(|thread| named(thread)).expect("a thread of this name");
        let number = thread.file_name().and_then(|number| number.to_str()?.parse().ok()).expect("its number");
        let thread = Pid::from_raw(number);
        if let Err(error) = ptrace::seize(thread, ptrace::Options::empty()) {
            println!("skipped, no thread can be held: {error}");
            return None;
        }
        ptrace::interrupt(thread).expect("a thread that is traced can be stopped");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        Some(Self(thread))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if ptrace::detach(self.0, None).is_err() {
            // it was killed with its process, which is gone when this end is taken note of
            let _ = waitpid(self.0, Some(WaitPidFlag::__WALL));
        }
    }
}
