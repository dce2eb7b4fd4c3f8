//! Bytes as they come from somebody who may be slow, or never end.

use super::Reserved;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use std::fmt::Display;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How a body is collected.
#[derive(Debug, Clone, Copy)]
pub struct Collect {
    /// Who sends nothing for so long is given up.
    pub silence: Duration,
    /// After this time …
    pub grace: Duration,
    /// … the body must come at a pace at which all that was announced is there after so long: others wait for the memory.
    pub longest: Duration,
}

impl Default for Collect {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(30),
            grace: Duration::from_secs(30),
            longest: Duration::from_secs(150),
        }
    }
}

/// Why a body did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCollected {
    /// More came than was reserved.
    #[error("more than {0} bytes came")]
    TooLong(u64),
    /// The other side went, fell silent, or is too slow.
    #[error("{0}")]
    Interrupted(String),
}

impl Collect {
    /// All bytes of a body, at most as many as are reserved. What was reserved and did not come is given back.
    ///
    /// # Errors
    /// See [`NotCollected`].
    pub async fn all<E: Display>(
        self,
        body: impl Stream<Item = Result<Bytes, E>>,
        reserved: &mut Reserved,
    ) -> Result<Bytes, NotCollected> {
        let most = reserved.bytes();
        let mut body = std::pin::pin!(body);
        // only what comes is ever touched
        let (mut bytes, began) = (BytesMut::with_capacity(most as usize), Instant::now());
        let silent = |_| NotCollected::Interrupted(format!("nothing came for {} s", self.silence.as_secs()));
        while let Some(chunk) = timeout(self.silence, body.next()).await.map_err(silent)? {
            let chunk = chunk.map_err(|error| NotCollected::Interrupted(error.to_string()))?;
            // the length that is announced is a claim: what comes is counted
            if (bytes.len() + chunk.len()) as u64 > most {
                return Err(NotCollected::TooLong(most));
            }
            bytes.extend_from_slice(&chunk);
            let wanted = self.wanted(most, began.elapsed());
            if (bytes.len() as u64) < wanted {
                let problem =
                    format!("{} bytes came where {wanted} should have by now: too slow", bytes.len());
                return Err(NotCollected::Interrupted(problem));
            }
        }
        reserved.shrink(bytes.len() as u64);
        Ok(bytes.freeze())
    }

    /// How many of `most` bytes must have come after this time.
    fn wanted(self, most: u64, after: Duration) -> u64 {
        let after = after.saturating_sub(self.grace).as_secs();
        let share = u128::from(most) * u128::from(after) / u128::from(self.longest.as_secs().max(1));
        u64::try_from(share).map_or(most, |share| share.min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Budget;
    use super::*;
    use futures::stream;
    use std::convert::Infallible;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_body_has_to_keep_the_pace_at_which_it_is_there_in_time() {
        let collect = Collect::default();
        for (most, seconds, wanted) in [
            (150 * MIB, 30, 0),
            (150 * MIB, 31, MIB),
            (150 * MIB, 105, 75 * MIB),
            (150 * MIB, 10_000, 150 * MIB),
            (u64::MAX, u64::MAX / 2, u64::MAX),
        ] {
            assert_eq!(collect.wanted(most, Duration::from_secs(seconds)), wanted, "{seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_counted_and_silence_ends() {
        let budget = Budget::new(10 * MIB);
        let chunks = |n: usize| stream::iter(vec![Ok::<_, Infallible>(Bytes::from_static(b"abcd")); n]);
        let reserve = |bytes| budget.reserve_now(bytes).unwrap().unwrap();
        let mut reserved = reserve(8 * MIB);
        let all = Collect::default().all(chunks(3), &mut reserved).await.unwrap();
        assert_eq!((&all[..], budget.used()), (&b"abcdabcdabcd"[..], 12));
        let more = Collect::default().all(chunks(3), &mut reserve(11)).await;
        assert_eq!(more, Err(NotCollected::TooLong(11)));
        let hangs = chunks(1).chain(stream::pending());
        let silent = Collect::default().all(hangs, &mut reserve(100)).await.unwrap_err();
        assert_eq!(silent.to_string(), "nothing came for 30 s");
    }

    #[tokio::test(start_paused = true)]
    async fn who_trickles_is_given_up() {
        let budget = Budget::new(10 * MIB);
        let trickle = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"abcd")), ()))
        });
        let mut reserved = budget.reserve_now(10 * MIB).unwrap().unwrap();
        let slow = Collect::default().all(trickle, &mut reserved).await.unwrap_err();
        assert!(slow.to_string().contains("too slow"), "{slow}");
    }
}
