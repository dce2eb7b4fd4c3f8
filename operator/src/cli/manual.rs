//! `arborist completions` and `arborist man`: what shells and `man` want to know, made from the command line itself.

use super::{Cli, CliError};
use arborist_system::out;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

/// Options of `arborist completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Options of `arborist man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for the program and each command into this folder, instead of the program's to standard output
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) {
    let mut text = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "arborist", &mut text);
    out!("{}", String::from_utf8_lossy(&text));
}

/// Prints or writes man pages.
///
/// # Errors
/// The folder can't be written.
pub fn man(args: &ManArgs) -> Result<(), CliError> {
    match &args.dir {
        Some(dir) => std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
            .map_err(|e| CliError::failed(format!("write man pages into {}", dir.display()), e)),
        None => {
            let mut text = vec![];
            let page = clap_mangen::Man::new(Cli::command());
            page.render(&mut text).map_err(|e| CliError::failed("make the man page", e))?;
            out!("{}", String::from_utf8_lossy(&text));
            Ok(())
        }
    }
}
