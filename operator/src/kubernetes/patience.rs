//! Pauses between tries of what has to work in the end.

use std::time::Duration;

/// The first pause; each next one is twice as long.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

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
