//! The shell's time: one that only goes on, for the engine, and the wall clock's beside it.

use arborist_core::engine::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A wall clock that differs by less is left as it is: it is slewed all the time.
const DIFFERS: u64 = 500;

/// Milliseconds that never go back, whatever is done to the machine's clock, and how far that is from them by now.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    origin: Instant,
    at_origin: Millis,
    /// The wall clock's time less this one's.
    correction: Arc<AtomicI64>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), at_origin: system(), correction: Arc::default() }
    }

    /// Milliseconds since 1970 by the machine's clock at the start, and counted from there.
    pub(super) fn now(&self) -> Millis {
        self.at_origin + self.origin.elapsed().as_millis() as Millis
    }

    /// Milliseconds since 1970 by the machine's clock, as far as the engine was told.
    pub(super) fn wall(&self) -> Millis {
        self.now().saturating_add_signed(self.correction.load(Ordering::Acquire))
    }

    /// The wall clock's time if it was set since it was last asked for: the engine is to be told.
    pub(super) fn was_set(&self) -> Option<Millis> {
        let (now, system) = (self.now(), system());
        let correction = corrected(now, self.correction.load(Ordering::Acquire), system)?;
        self.correction.store(correction, Ordering::Release);
        tracing::warn!(
            by_millis = correction,
            "the machine's clock was set: deadlines follow it, leases and waits do not"
        );
        Some(system)
    }
}

fn system() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as Millis)
}

/// The new correction, if the one there is is off.
fn corrected(now: Millis, correction: i64, system: Millis) -> Option<i64> {
    let differs = now.saturating_add_signed(correction).abs_diff(system) >= DIFFERS;
    let signed = |millis| i64::try_from(millis).unwrap_or(i64::MAX);
    differs.then(|| signed(system) - signed(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_once_and_one_that_is_slewed_is_not() {
        for (now, correction, system, expected) in [
            (10_000, 0, 10_000, None),
            (10_000, 0, 10_499, None),
            (10_000, 0, 9_501, None),
            (10_000, 0, 3_610_000, Some(3_600_000)),
            (20_000, 3_600_000, 3_620_000, None),
            (20_000, 3_600_000, 21_000, Some(1_000)),
            (20_000, 0, 0, Some(-20_000)),
            (30_000, -20_000, 10_000, None),
        ] {
            assert_eq!(corrected(now, correction, system), expected, "{now} {correction} {system}");
        }
    }

    #[test]
    fn a_machine_whose_clock_is_not_set_needs_no_correction() {
        let clock = Clock::new();
        assert_eq!(clock.was_set(), None);
        assert!(clock.wall() >= clock.at_origin);
    }
}
