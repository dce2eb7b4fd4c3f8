//! When something that failed is tried again.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The pause after so many failed attempts: 1 s, doubled with each up to [`LONGEST`], of which at least half is
/// waited. `jitter` from 0 to 1 says how much of the other half: those who failed together don't come back together.
pub fn pause(attempts: u32, jitter: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST);
    doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_differ_by_half() {
        for (attempts, least, most) in
            [(0, 500, 1_000), (1, 500, 1_000), (2, 1_000, 2_000), (4, 4_000, 8_000), (6, 16_000, 32_000)]
        {
            assert_eq!(pause(attempts, 0.0), Duration::from_millis(least), "{attempts}");
            assert_eq!(pause(attempts, 1.0), Duration::from_millis(most), "{attempts}");
        }
        for attempts in [7, 20, u32::MAX] {
            assert_eq!(pause(attempts, 1.0), LONGEST);
            assert_eq!(pause(attempts, 0.0), LONGEST / 2);
        }
    }
}
