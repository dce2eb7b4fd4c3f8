//! `arborist-worker`: see `arborist-worker --help`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use arborist_system::{descriptors, errln, init, output};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = init::run() {
        return ExitCode::from(code);
    }
    descriptors::raise_limit();
    let code = arborist_worker::cli::main();
    match output::finish() {
        Ok(()) => code,
        Err(error) => {
            errln!("arborist-worker: standard output: {error}");
            ExitCode::FAILURE
        }
    }
}
