//! Progress of a block by kind of proof: bars on a terminal, plain lines otherwise.

use arborist_core::circuit::Kind;
use arborist_core::engine::Counts;
use arborist_system::errln;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a plain line may be printed.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// What is shown of a job.
pub type Levels = [Counts; 5];

/// Shows a job's counts on standard error.
pub enum LevelProgress {
    /// A bar for each kind.
    Bars {
        /// Keeps the bars together.
        all: MultiProgress,
        /// By [`Kind::index`].
        bars: Vec<ProgressBar>,
    },
    /// A line when something has changed.
    Lines {
        /// What was printed last, and when.
        last: Option<(Levels, Instant)>,
    },
}

impl LevelProgress {
    /// Bars on a terminal, lines otherwise.
    pub fn start() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None };
        }
        let style = ProgressStyle::with_template("{prefix:>6} [{bar:30}] {pos:>6}/{len:<6} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let all = MultiProgress::new();
        let bars = Kind::ALL
            .iter()
            .map(|kind| all.add(ProgressBar::new(0).with_style(style.clone()).with_prefix(kind.name())))
            .collect();
        Self::Bars { all, bars }
    }

    /// Shows these counts; at the `end` in any case.
    pub fn show(&mut self, levels: &Levels, end: bool) {
        match self {
            Self::Bars { bars, .. } => {
                for (bar, counts) in bars.iter().zip(levels) {
                    bar.set_length(u64::from(counts.total));
                    bar.set_position(u64::from(counts.done));
                    bar.set_message(message(counts));
                }
            }
            Self::Lines { last } => {
                let due =
                    last.is_none_or(|(shown, at)| shown != *levels && (end || at.elapsed() >= LINE_EVERY));
                if due {
                    errln!("{}", line(levels));
                    *last = Some((*levels, Instant::now()));
                }
            }
        }
    }

    /// Prints a line, above the bars if there are any.
    pub fn tell(&self, text: &str) {
        match self {
            // a terminal that is gone shows nothing anyway
            Self::Bars { all, .. } => drop(all.println(text)),
            Self::Lines { .. } => errln!("{text}"),
        }
    }

    /// Leaves the bars as they are and ends their drawing.
    pub fn done(self) {
        if let Self::Bars { bars, all } = self {
            bars.iter().for_each(ProgressBar::abandon);
            drop(all);
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
