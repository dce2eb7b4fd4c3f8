//! Waits for a state of the cluster: the state is looked at again and again until it is as wanted. Nothing is timed.

use anyhow::{Result, bail};
use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

/// How long a look at the cluster may be out of date.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(30);

/// What one look found: what was waited for, or what is there instead.
pub type Look<T> = Result<T, String>;

/// Looks until `look` finds what is wanted.
///
/// # Errors
/// It did not within `limit`: says what was wanted and what was there at the last look.
pub async fn eventually<T, F, Fut>(limit: Duration, wanted: impl Display, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Look<T>>,
{
    let start = Instant::now();
    loop {
        // a look that hangs must not outlive the limit: the API server may be gone
        let found = tokio::time::timeout(limit.max(Duration::from_secs(5)), look()).await;
        let seen = match found {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(seen)) => seen,
            Err(_) => "no answer".to_owned(),
        };
        if start.elapsed() >= limit {
            bail!("waited {} s for: {wanted}\n  last seen: {seen}", limit.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Looks again and again for `span`; fails as soon as `look` says that something is not as it must stay.
///
/// # Errors
/// It was not so at some look.
pub async fn always<F, Fut>(span: Duration, wanted: impl Display, mut look: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Look<()>>,
{
    let start = Instant::now();
    while start.elapsed() < span {
        let seen = tokio::time::timeout(LOOK, look()).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        if let Err(seen) = seen {
            bail!("must stay so for {} s: {wanted}\n  seen: {seen}", span.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Seconds, for limits.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
