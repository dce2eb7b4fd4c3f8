//! `arborist-worker completions` and `arborist-worker man`.

use arborist_system::out;
use clap::{Args, Command};
use clap_complete::Shell;
use std::io;
use std::path::PathBuf;

/// Options of `arborist-worker completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Options of `arborist-worker man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write the pages into this folder, instead of the program's to standard output.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the completions of a shell.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) {
    let mut text = vec![];
    clap_complete::generate(args.shell, &mut command, "arborist-worker", &mut text);
    out!("{}", String::from_utf8_lossy(&text));
}

/// Prints or writes man pages.
pub(crate) fn man(args: &ManArgs, command: Command) -> io::Result<()> {
    let Some(dir) = &args.dir else {
        let mut text = vec![];
        clap_mangen::Man::new(command).render(&mut text)?;
        out!("{}", String::from_utf8_lossy(&text));
        return Ok(());
    };
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)
}
