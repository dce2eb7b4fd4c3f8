//! SIGINT and SIGTERM.

use super::CliError;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals that ask a process to leave.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on the signals don't end the process by themselves.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(|e| CliError::failed("listen to signals", e));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one; its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
