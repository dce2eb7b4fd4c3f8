//! Progress of one long step: a bar on a terminal, plain lines otherwise.

use arborist_system::errln;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a plain line may be printed.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// A count on its way to a total. Goes to standard error.
pub struct Progress {
    what: &'static str,
    total: u64,
    look: Look,
}

enum Look {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

impl Progress {
    /// Starts at 0 of `total`; `what` names the things counted.
    pub fn start(what: &'static str, total: u64) -> Self {
        let look = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total).with_style(style).with_message(what);
            bar.enable_steady_tick(Duration::from_millis(250));
            Look::Bar(bar)
        } else {
            Look::Lines { last: None }
        };
        Self { what, total, look }
    }

    /// `done` things are done.
    pub fn set(&mut self, done: u64) {
        match &mut self.look {
            Look::Bar(bar) => bar.set_position(done),
            Look::Lines { last } => {
                let due = last.is_none_or(|at| at.elapsed() >= LINE_EVERY);
                if due || done == self.total {
                    errln!("{}: {done} of {}", self.what, self.total);
                    *last = Some(Instant::now());
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
