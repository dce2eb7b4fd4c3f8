//! How a command ends when it does not end well.

use arborist_core::block::BlockError;
use arborist_core::text::one_line;
use std::path::{Path, PathBuf};

/// Why a command failed: one line for the user and an exit code.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An option has a value that is not allowed.
    #[error("{option}: {problem}")]
    Usage {
        /// The option, e.g. `--calls`.
        option: &'static str,
        /// What it is and what is allowed.
        problem: String,
    },
    /// Options or files that the workers were started with are not what they should be.
    #[error("{0}")]
    Options(String),
    /// A file from the user is not what it should be.
    #[error("{}: {source}", file.display())]
    Block {
        /// The file.
        file: PathBuf,
        /// The field and what is allowed there.
        source: BlockError,
    },
    /// A file from the user can't be read or is malformed.
    #[error("{}: {problem}", file.display())]
    Input {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A root proof was checked and refused.
    #[error("invalid: {check}: {problem}")]
    Invalid {
        /// The check that failed.
        check: &'static str,
        /// How.
        problem: String,
    },
    /// The deadline passed before the block was proven.
    #[error("deadline passed: {0}")]
    Deadline(String),
    /// The user asked to stop.
    #[error("stopped: {0}")]
    Stopped(String),
    /// Something that is needed does not answer now.
    #[error("{0}")]
    NotNow(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// 1 failed or not valid, 2 wrong usage or input, 3 stopped before the end, 4 deadline passed.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Invalid { .. } | Self::NotNow(_) | Self::Failed(_) => 1,
            Self::Usage { .. } | Self::Options(_) | Self::Block { .. } | Self::Input { .. } => 2,
            Self::Stopped(_) => 3,
            Self::Deadline(_) => 4,
        }
    }

    /// The error as exactly one line.
    pub fn one_line(&self) -> String {
        let text = self.to_string();
        let lines = text.split(['\n', '\r']).map(str::trim).filter(|l| !l.is_empty());
        // what a file or another program said does not steer the terminal
        one_line(&lines.collect::<Vec<_>>().join(" "))
    }

    /// A file or folder of the user's that can't be used.
    pub fn input(file: &Path, problem: impl std::fmt::Display) -> Self {
        Self::Input { file: file.to_owned(), problem: problem.to_string() }
    }

    /// Something went wrong while doing `action`.
    pub fn failed(action: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{action}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_its_cause_says() {
        let error = CliError::Failed("first\n  second\r\n\nthird".into());
        assert_eq!(error.one_line(), "first second third");
        let error = CliError::Failed("\u{1b}[2Jgone".into());
        assert_eq!(error.one_line(), "\\u{1b}[2Jgone");
    }
}
