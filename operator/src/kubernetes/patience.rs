//! Pauses between tries of what has to work in the end.

use super::client::WATCH_SECONDS;
use kube::runtime::watcher::{self, ExponentialBackoff};
use std::time::Duration;

/// The first pause; each next one is twice as long.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses of a watch that was interrupted, from 0.2 to 5 s. kube's default grows to half a minute: for so long a new job
/// would wait, and leases of pods that are gone, though the API server is back.
pub fn of_watches() -> ExponentialBackoff {
    let backoff = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times();
    ExponentialBackoff::from(backoff)
}

/// How objects are watched.
pub fn watches() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Pauses that grow from half a second to ten.
#[derive(Debug, Clone)]
pub struct Patience {
    next: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Patience {
    /// Waits, longer each time. Up to a fifth less, so that two operators don't keep step.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next.mul_f64(0.8 + 0.2 * rand::random::<f64>())).await;
        self.next = (self.next * 2).min(LONGEST);
    }
}
