//! Progress of one long step: a bar on a terminal, plain lines otherwise.

use super::pace::{Pace, spent_and_left};
use super::screen::Screen;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// A count on its way to a total. Goes to standard error.
pub struct Progress {
    what: &'static str,
    total: u64,
    began: Instant,
    screen: Screen,
    look: Look,
}

enum Look {
    Bar(ProgressBar),
    Lines(Pace),
}

impl Progress {
    /// Starts at 0 of `total`; `what` names the things counted.
    pub fn start(what: &'static str, total: u64) -> Self {
        let screen = Screen::new();
        let look = match screen.bars() {
            Some(bars) => {
                let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
                let bar = ProgressBar::new(total).with_style(style).with_prefix(what);
                Look::Bar(bars.add(bar))
            }
            None => Look::Lines(Pace::default()),
        };
        Self { what, total, began: Instant::now(), screen, look }
    }

    /// `done` things are done.
    pub fn set(&mut self, done: u64) {
        let spent = self.began.elapsed();
        let times = spent_and_left(spent, left(spent, done, self.total));
        match &mut self.look {
            Look::Bar(bar) => {
                bar.set_message(times);
                bar.set_position(done);
            }
            Look::Lines(pace) => {
                if pace.is_due(Instant::now(), done, self.total) || done == self.total {
                    self.screen.tell(&format!("{}: {done} of {}; {times}", self.what, self.total));
                }
            }
        }
    }

    /// Takes the bar off the screen.
    pub fn done(self) {
        if let Look::Bar(bar) = self.look {
            bar.finish_and_clear();
        }
    }
}

/// Things that take alike long; not known before the first is done.
fn left(spent: Duration, done: u64, total: u64) -> Option<Duration> {
    (done > 0).then(|| spent.mul_f64(total.saturating_sub(done) as f64 / done as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let spent = Duration::from_secs(30);
        assert_eq!(left(spent, 0, 9), None);
        assert_eq!(left(spent, 3, 9), Some(Duration::from_secs(60)));
        assert_eq!(left(spent, 9, 9), Some(Duration::ZERO));
    }
}
