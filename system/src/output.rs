//! Standard output and standard error whose readers may be gone or asleep.
//!
//! `println!` panics when nobody reads any more, and so ends whatever thread it is called on. Nothing here does: a closed
//! standard output loses what is printed and changes no outcome, and standard error never keeps a thread waiting for
//! long. Other failures of standard output, a full disk above all, are remembered for the exit code.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Prints to standard output without a line's end.
#[macro_export]
macro_rules! out {
    ($($arg:tt)*) => { $crate::output::print(::std::format_args!($($arg)*)) };
}

/// Prints a line to standard output.
#[macro_export]
macro_rules! outln {
    ($($arg:tt)*) => {
        $crate::output::print(::std::format_args!("{}\n", ::std::format_args!($($arg)*)))
    };
}

/// Prints a line to standard error.
#[macro_export]
macro_rules! errln {
    ($($arg:tt)*) => {
        $crate::output::complain(::std::format_args!("{}\n", ::std::format_args!($($arg)*)))
    };
}

static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

fn note(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Writes to standard output; see [`outln`].
pub fn print(text: fmt::Arguments<'_>) {
    note(io::stdout().lock().write_fmt(text));
}

/// Writes out what standard output still holds; to be called before the program ends.
///
/// # Errors
/// Something printed is lost otherwise than because nobody reads it.
pub fn finish() -> io::Result<()> {
    note(io::stdout().lock().flush());
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
}

/// Writes to standard error; see [`errln`].
pub fn complain(text: fmt::Arguments<'_>) {
    // it never fails
    let _ = Complaints.write_fmt(text);
}

/// What a pipe takes at once if it takes anything.
const AT_ONCE: usize = 4096;
/// How long a reader that sleeps is waited for, in milliseconds; one that slept through it is waited for no more until it
/// reads again.
const WAIT_MILLIS: u16 = 100;

/// Standard error for logs and complaints: nothing written to it fails, and what a sleeping reader leaves no room for is
/// lost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Complaints;

impl Write for Complaints {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        static ASLEEP: AtomicBool = AtomicBool::new(false);
        let mut stderr = io::stderr().lock();
        for part in bytes.chunks(AT_ONCE) {
            let wait = if ASLEEP.load(Ordering::Relaxed) { 0 } else { WAIT_MILLIS };
            let room = has_room(&stderr, wait);
            ASLEEP.store(!room, Ordering::Relaxed);
            if !room || stderr.write_all(part).is_err() {
                break;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn has_room(file: &impl AsFd, wait_millis: u16) -> bool {
    let mut asked = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    // what can't be asked is written to as it is
    poll(&mut asked, PollTimeout::from(wait_millis)).map_or(true, |ready| ready > 0)
}
