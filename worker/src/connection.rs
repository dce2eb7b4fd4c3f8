//! The connection's thread: logs in, reconnects for ever, never waits for a proof.

use crate::session::{Session, SessionError, Wires};
use arborist_core::wire::Hello;
use rand::RngExt;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Short, because a fleet that waits is idle: an operator that takes over is found within this time. 10,000
/// workers knock some 9,500 times a second meanwhile, which is turned away by the kernel; when the
/// door opens all of them are in the listener's backlog within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How to log in. Token and CA are read anew each time: both may be renewed while the worker runs.
#[derive(Debug, Clone)]
pub struct Login {
    /// The dispatcher, `HOST:PORT`.
    pub connect: String,
    /// The name its certificate must be for.
    pub server_name: String,
    /// The CA that is trusted, and no other: PEM.
    pub ca_cert: PathBuf,
    /// The file with the token.
    pub token_file: PathBuf,
    /// Who the worker is and what it has; protocol, token and held leases are filled in.
    pub hello: Hello,
}

/// How the connection's thread ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The worker stopped it.
    Stopped,
    /// The dispatcher will not have this worker; trying again is of no use.
    Refused(String),
    /// The thread could not run.
    Broken(String),
}

/// Starts the connection's thread. It ends when `wires.stop` is cancelled or the worker is refused; then it
/// cancels `wires.stop` itself.
pub(crate) fn spawn(login: Login, wires: Wires) -> std::io::Result<JoinHandle<Ended>> {
    std::thread::Builder::new().name("connection".into()).spawn(move || {
        // also when this thread crashes: a worker without a connection is none
        let _stop = wires.stop.clone().drop_guard();
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(keep_connected(&login, &wires)),
            Err(error) => Ended::Broken(error.to_string()),
        }
    })
}

async fn keep_connected(login: &Login, wires: &Wires) -> Ended {
    let mut failures = 0;
    loop {
        wires.pulse.beat();
        let began = Instant::now();
        let session = tokio::select! {
            session = Session::open(login, wires, failures) => session,
            () = wires.stop.cancelled() => return Ended::Stopped,
        };
        // a try that took long was a pause already
        let (error, waited) = match session {
            Ok(session) => {
                tracing::info!(dispatcher = login.connect, "logged in");
                failures = 0;
                match session.serve().await {
                    Ok(()) => return Ended::Stopped,
                    Err(error) => (error, Duration::ZERO),
                }
            }
            Err(error) => (error, began.elapsed()),
        };
        wires.book.connection_lost();
        if let SessionError::Refused(text) = error {
            return Ended::Refused(text);
        }
        let pause = pause(failures).saturating_sub(waited);
        failures += 1;
        tracing::warn!(dispatcher = login.connect, ?pause, "not connected: {error}");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wires.stop.cancelled() => return Ended::Stopped,
        }
    }
}

/// Full jitter: anything up to a bound that doubles with each failure, so that thousands of workers
/// don't come back at once.
fn pause(failures: u32) -> Duration {
    let bound =
        SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_add(1))).min(LONGEST_PAUSE);
    rand::rng().random_range(SHORTEST_PAUSE..=bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for failures in 0..40 {
            let pauses: Vec<Duration> = (0..50).map(|_| pause(failures)).collect();
            assert!(pauses.iter().all(|p| (SHORTEST_PAUSE..=LONGEST_PAUSE).contains(p)));
            assert!(pauses.iter().any(|p| *p != pauses[0]));
        }
        assert!((0..200).all(|_| pause(0) <= SHORTEST_PAUSE * 2));
        assert!((0..200).any(|_| pause(20) > LONGEST_PAUSE / 2));
    }
}
