//! The command line of `arborist`: one file for each subcommand.
//!
//! Exit codes are the same everywhere: see [`CliError::exit_code`].

mod block;
mod crashes;
mod crds;
mod error;
mod healthcheck;
mod input;
mod jobs_http;
mod logging;
mod manual;
mod memory;
mod needs;
mod operator;
pub mod outputs;
mod pace;
mod progress;
mod prove;
mod run;
mod screen;
mod serve;
mod signals;
mod state_folder;
mod store_watch;
mod submit;
mod tenants;
mod verify;
mod worker_program;

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
    /// Prove a whole block on this machine; running it again after an interruption goes on
    Prove(Box<prove::Args>),
    /// Check a root proof against its published inputs
    Verify(verify::Args),
    /// Print, write or check the Kubernetes custom resource definitions
    Crds(crds::Args),
    /// Run a dispatcher without a cluster: journal, artifact store, metrics
    Run(Box<run::Args>),
    /// Run the operator of a Kubernetes cluster
    Operator(Box<operator::Args>),
    /// Get a URL of /healthz or /readyz; for probes, since the image has no other client
    Healthcheck(healthcheck::Args),
    /// Print completions for a shell
    Completions(manual::CompletionsArgs),
    /// Print the man page, or write one for each command
    Man(manual::ManArgs),
}

impl Cli {
    /// Does what the command line says; results go to standard output, all else to standard error.
    ///
    /// # Errors
    /// One line for the user, with an exit code.
    pub fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Block(command) => block::run(command),
            Command::Prove(args) => prove::run(&args),
            Command::Verify(args) => verify::run(&args),
            Command::Crds(args) => crds::run(&args),
            Command::Run(args) => run::run(&args),
            Command::Operator(args) => operator::run(&args),
            Command::Healthcheck(args) => healthcheck::run(&args),
            Command::Completions(args) => {
                manual::completions(&args);
                Ok(())
            }
            Command::Man(args) => manual::man(&args),
        }
    }
}
