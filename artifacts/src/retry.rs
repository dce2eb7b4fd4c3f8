//! Trying again, with pauses that differ between those who wait.

use crate::error::StoreError;
use backon::{ExponentialBuilder, Retryable};
use std::time::Duration;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs `operation` until it succeeds, fails for good, or `total` has passed since the first try.
/// A try that is under way when the time runs out is not cut off.
///
/// # Errors
/// The last error: one that [can't be retried](StoreError::is_retryable), or any when time is up.
pub async fn with_retry<T, F, Fut>(total: Duration, operation: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let deadline = Instant::now() + total;
    let pauses = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times();
    operation.retry(pauses).when(|error: &StoreError| error.is_retryable() && Instant::now() < deadline).await
}
