//! Signals that ask a process to leave: SIGINT, SIGTERM, and SIGHUP when its terminal closes.
//!
//! They are listened to on a thread of its own, so that a process leaves in bounded time even when a disk or a store
//! hangs and with it everything else.

use super::CliError;
use arborist_system::errln;
use arborist_system::hang_up::hang_up_is_ignored;
use std::sync::mpsc::channel;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long leaving may take after a second signal.
const SECOND_SIGNAL: Duration = Duration::from_secs(5);
/// Exit code of a process that was stopped before its end.
const STOPPED: u8 = 3;

/// The signals that ask a process to leave.
pub struct Signals {
    names: mpsc::UnboundedReceiver<&'static str>,
    rules: watch::Sender<Rules>,
}

/// When the process is ended whatever it does.
#[derive(Debug, Clone, Copy, Default)]
struct Rules {
    /// How long leaving may take after the first signal; `None`: as long as it takes, also after more.
    after_signal: Option<Duration>,
    /// It is leaving for another reason: until when, and the exit code.
    leaving: Option<(Instant, u8)>,
}

impl Signals {
    /// From now on the signals don't end the process by themselves. A SIGHUP that is ignored, as `nohup` wants it,
    /// stays ignored.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self, CliError> {
        let fail = |e: std::io::Error| CliError::failed("listen to signals", e);
        let (tell, names) = mpsc::unbounded_channel();
        let (rules, now) = watch::channel(Rules::default());
        let (started, ready) = channel();
        let listen = move || {
            let opened = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let opened = opened.and_then(|runtime| {
                let sources = runtime.block_on(async { Sources::open() })?;
                Ok((runtime, sources))
            });
            match opened {
                Ok((runtime, sources)) => {
                    // the other end waits for it
                    let _ = started.send(Ok(()));
                    runtime.block_on(sources.forward(tell, now));
                }
                Err(error) => _ = started.send(Err(error)),
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(fail)?;
        ready.recv().map_err(|e| CliError::failed("listen to signals", e))?.map_err(fail)?;
        Ok(Self { names, rules })
    }

    /// Waits for the next one; its name.
    pub async fn next(&mut self) -> &'static str {
        match self.names.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }

    /// A process that has not left so long after the first signal, or 5 s after the second, is ended with exit code 3.
    pub fn leave_within(&self, limit: Duration) {
        self.rules.send_modify(|rules| rules.after_signal = Some(limit));
    }

    /// The process is leaving without being asked to: if it still runs after `limit`, it is ended with this code.
    pub fn leaving(&self, limit: Duration, code: u8) {
        self.rules.send_modify(|rules| rules.leaving = Some((Instant::now() + limit, code)));
    }
}

struct Sources {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl Sources {
    /// Must be called within a runtime.
    fn open() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: match hang_up_is_ignored() {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            },
        })
    }

    async fn next(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => _ = signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            () = hang_up => "SIGHUP",
        }
    }

    /// Passes signals on until the process ends.
    async fn forward(mut self, tell: mpsc::UnboundedSender<&'static str>, mut rules: watch::Receiver<Rules>) {
        let (mut count, mut end) = (0, None);
        loop {
            let Rules { leaving, .. } = *rules.borrow_and_update();
            let earliest = [end, leaving].into_iter().flatten().min();
            let name = tokio::select! {
                name = self.next() => name,
                changed = rules.changed() => match changed {
                    Ok(()) => continue,
                    // whoever listened is gone: the process is about to end
                    Err(_) => return until(earliest).await,
                },
                () = until(earliest) => return,
            };
            count += 1;
            // nobody may be listening any more
            let _ = tell.send(name);
            let after_signal = rules.borrow().after_signal;
            let allowed = after_signal.map(|limit| if count == 1 { limit } else { limit.min(SECOND_SIGNAL) });
            let at = allowed.map(|allowed| (Instant::now() + allowed, STOPPED));
            end = [end, at].into_iter().flatten().min();
        }
    }
}

/// Ends the process at that time; waits for ever without one.
async fn until(end: Option<(Instant, u8)>) {
    let Some((at, code)) = end else { return std::future::pending().await };
    tokio::time::sleep_until(at).await;
    errln!(
        "error: something hangs and keeps this process from leaving: ended without waiting for it; finished proofs are in \
         the store"
    );
    std::process::exit(code.into());
}
