//! The program `arborist`. Wiring only: the commands are in [`arborist_operator::cli`].
#![deny(clippy::print_stdout, clippy::print_stderr)]

use arborist_operator::cli::Cli;
use arborist_system::{descriptors, errln, init, output};
use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = init::run() {
        return ExitCode::from(code);
    }
    descriptors::raise_limit();
    let ended = Cli::parse().run();
    let printed = output::finish();
    match (ended, printed) {
        (Ok(()), Ok(())) => ExitCode::SUCCESS,
        (Ok(()), Err(error)) => {
            errln!("error: standard output: {error}");
            ExitCode::FAILURE
        }
        (Err(error), _) => {
            errln!("error: {}", error.one_line());
            ExitCode::from(error.exit_code())
        }
    }
}
