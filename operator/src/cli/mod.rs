//! The command line of `arborist`: one file for each subcommand.
//!
//! Exit codes are the same everywhere: see [`CliError::exit_code`].

mod block;
mod error;
mod input;
mod logging;
pub mod outputs;
mod progress;
mod verify;

pub use error::CliError;

use clap::{Parser, Subcommand};

/// Proves the blocks of a rollup on many machines before their deadline.
#[derive(Debug, Parser)]
#[command(name = "arborist", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed or not valid, 2 wrong usage or input, \
    3 stopped before the end (run it again to go on), 4 deadline passed";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, check and describe block files
    #[command(subcommand)]
    Block(block::Command),
    /// Check a root proof against its published inputs
    Verify(verify::Args),
}

impl Cli {
    /// Does what the command line says; results go to standard output, all else to standard error.
    ///
    /// # Errors
    /// One line for the user, with an exit code.
    pub fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Block(command) => block::run(command),
            Command::Verify(args) => verify::run(&args),
        }
    }
}
