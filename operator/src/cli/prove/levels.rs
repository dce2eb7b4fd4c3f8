//! Progress of a block by kind of proof: bars on a terminal, plain lines otherwise.

use crate::cli::pace::{Pace, spent_and_left};
use crate::cli::screen::Screen;
use arborist_core::circuit::Kind;
use arborist_core::engine::Counts;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// What is shown of a job.
pub type Levels = [Counts; 5];

/// Shows a job's counts, and the times spent and left, on standard error.
pub struct LevelProgress<'a> {
    screen: &'a Screen,
    began: Instant,
    look: Look,
}

enum Look {
    /// A bar for each kind by [`Kind::index`], and a line for the times.
    Bars(Vec<ProgressBar>, ProgressBar),
    /// A line now and then; what was shown last.
    Lines(Pace, Levels),
}

impl<'a> LevelProgress<'a> {
    /// Bars on a terminal, lines otherwise.
    pub fn start(screen: &'a Screen) -> Self {
        let look = match screen.bars() {
            Some(all) => {
                let style = |template| {
                    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
                };
                let of_kind = style("{prefix:>6} [{bar:30}] {pos:>6}/{len:<6} {msg}");
                let add = |kind: Kind| {
                    all.add(ProgressBar::new(0).with_style(of_kind.clone()).with_prefix(kind.name()))
                };
                let bars = Kind::ALL.into_iter().map(add).collect();
                Look::Bars(bars, all.add(ProgressBar::new(0).with_style(style("{msg}"))))
            }
            None => Look::Lines(Pace::default(), Levels::default()),
        };
        Self { screen, began: Instant::now(), look }
    }

    /// Shows these counts and how long the rest takes, if that is known; at the `end` in any case.
    pub fn show(&mut self, levels: &Levels, left: Option<Duration>, end: bool) {
        let times = spent_and_left(self.began.elapsed(), left);
        match &mut self.look {
            Look::Bars(bars, last) => {
                for (bar, counts) in bars.iter().zip(levels) {
                    bar.set_length(u64::from(counts.total));
                    bar.set_position(u64::from(counts.done));
                    bar.set_message(message(counts));
                }
                last.set_message(times);
            }
            Look::Lines(pace, shown) => {
                let sum = |of: fn(&Counts) -> u32| levels.iter().map(|c| u64::from(of(c))).sum();
                let due = pace.is_due(Instant::now(), sum(|c| c.done), sum(|c| c.total));
                if due || end && shown != levels {
                    self.screen.tell(&format!("{}; {times}", line(levels)));
                    *shown = *levels;
                }
            }
        }
    }

    /// Leaves the bars as they are and ends their drawing.
    pub fn done(self) {
        if let Look::Bars(bars, last) = self.look {
            bars.iter().for_each(ProgressBar::abandon);
            last.abandon();
        }
    }
}

fn message(counts: &Counts) -> String {
    let parts = [(counts.running, "leased"), (counts.ready, "ready"), (counts.failed, "gave up")];
    let shown = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
    shown.collect::<Vec<_>>().join(", ")
}

/// The counts as a line: `vm 3/8, kernel 0/8, base 0/4, merge 0/2, root 0/1; 2 leased`.
fn line(levels: &Levels) -> String {
    let kinds = Kind::ALL.iter().zip(levels).filter(|(_, counts)| counts.total > 0);
    let kinds: Vec<String> =
        kinds.map(|(kind, counts)| format!("{kind} {}/{}", counts.done, counts.total)).collect();
    let sum = levels.iter().fold(Counts::default(), |sum, counts| Counts {
        running: sum.running + counts.running,
        ready: sum.ready + counts.ready,
        failed: sum.failed + counts.failed,
        ..sum
    });
    let state = message(&sum);
    let separator = if state.is_empty() { "" } else { "; " };
    format!("{}{separator}{state}", kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_each_kind_there_is_and_what_happens() {
        let mut levels = Levels::default();
        levels[0] = Counts { total: 8, done: 3, running: 2, ready: 3, failed: 0 };
        levels[4] = Counts { total: 1, ..Default::default() };
        assert_eq!(line(&levels), "vm 3/8, root 0/1; 2 leased, 3 ready");
        levels[0] = Counts { total: 8, done: 8, ..Default::default() };
        assert_eq!(line(&levels), "vm 8/8, root 0/1");
    }
}
