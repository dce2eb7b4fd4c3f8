//! Standard error of a command that shows bars: lines go above them.

use arborist_system::errln;
use indicatif::MultiProgress;
use std::io::IsTerminal;

/// Where a command tells people what happens; clones are the same one.
#[derive(Clone, Default)]
pub struct Screen {
    bars: Option<MultiProgress>,
}

impl Screen {
    /// Standard error, with room for bars if it is a terminal.
    pub fn new() -> Self {
        Self { bars: std::io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// The bars, on a terminal.
    pub fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// Prints a line. A terminal that is gone shows nothing anyway.
    pub fn tell(&self, text: &str) {
        match &self.bars {
            Some(bars) => drop(bars.println(text)),
            None => errln!("{text}"),
        }
    }
}
