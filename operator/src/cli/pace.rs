//! How progress is told without a terminal: time spent, time left, and no more lines than are worth reading.

use std::time::{Duration, Instant};

/// Lines are no closer together than this, whatever happens …
const SHORTEST: Duration = Duration::from_secs(1);
/// … and no further apart than this, whatever does not.
const LONGEST: Duration = Duration::from_secs(15);

/// Says when the next line is due: at each percent, but not within a second, or after 15 seconds. So a hundred lines
/// and four a minute are the most.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<(Instant, u64)>,
}

impl Pace {
    /// Whether a line is due with `done` of `total` done; it counts as printed then.
    pub fn is_due(&mut self, now: Instant, done: u64, total: u64) -> bool {
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        let due = self.last.is_none_or(|(at, shown)| {
            let since = now.duration_since(at);
            since >= LONGEST || since >= SHORTEST && shown != percent
        });
        if due {
            self.last = Some((now, percent));
        }
        due
    }
}

/// Time spent and time left, e.g. `1:05 min, about 20 s left`.
pub fn spent_and_left(spent: Duration, left: Option<Duration>) -> String {
    let left = match left {
        Some(left) => format!("about {} left", time(left)),
        None => "time left not known yet".to_owned(),
    };
    format!("{}, {left}", time(spent))
}

/// A time for people: `7 s`, `1:05 min`, `2:00:07 h`.
fn time(duration: Duration) -> String {
    let seconds = duration.as_millis().div_ceil(1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes}:{seconds:02} min"),
        _ => format!("{hours}:{minutes:02}:{seconds:02} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_at_each_percent_but_neither_too_often_nor_too_seldom() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let due: Vec<bool> = [(0, 0), (500, 500), (1_000, 500), (2_000, 500), (2_500, 504), (3_000, 510)]
            .into_iter()
            .map(|(millis, done)| pace.is_due(at(millis), done, 1_000))
            .collect();
        assert_eq!(due, [true, false, true, false, false, true]);
        assert!(!pace.is_due(at(17_900), 510, 1_000));
        assert!(pace.is_due(at(18_000), 510, 1_000), "that it goes on is worth a line, too");
    }

    #[test]
    fn times_are_read_at_a_glance() {
        let seconds = Duration::from_secs;
        assert_eq!(spent_and_left(seconds(65), Some(seconds(7))), "1:05 min, about 7 s left");
        assert_eq!(spent_and_left(seconds(7207), None), "2:00:07 h, time left not known yet");
        assert_eq!(time(Duration::from_millis(1)), "1 s");
        assert_eq!(time(Duration::ZERO), "0 s");
    }
}
