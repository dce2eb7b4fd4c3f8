//! `--exit-with-parent`: a worker that a program on the same machine has started leaves when that program is gone,
//! however it died: then the other end of the worker's standard input is closed.

use nix::sys::signal::{Signal, raise};
use std::io::{ErrorKind, Read};

/// Watches standard input on a thread of its own; at its end the worker leaves at once, as after two signals: nobody
/// is left to report to, and what it has proven is in the store.
///
/// # Errors
/// The thread can't be started.
pub fn leave_with() -> std::io::Result<()> {
    std::thread::Builder::new().name("parent".into()).spawn(watch).map(drop)
}

fn watch() {
    let (mut stdin, mut part) = (std::io::stdin(), [0; 64]);
    loop {
        match stdin.read(&mut part) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    tracing::warn!("the program that started this worker is gone: leaving");
    // two different ones: two equal signals may arrive as one
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        if let Err(error) = raise(signal) {
            tracing::error!(%error, "the worker can't signal itself");
            std::process::exit(1);
        }
    }
}
