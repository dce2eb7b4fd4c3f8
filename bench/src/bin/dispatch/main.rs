//! Dispatch over the real transport, with TLS: throughput, memory, latency, restarts. The dispatcher
//! runs in a process of its own, the load generator in another, both on this machine.

mod child;
mod scenarios;
mod serve;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    args: scenarios::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The measured process; not for people.
    Serve(serve::ServeArgs),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Serve(args)) => serve::serve(args),
        None => {
            println!("{}", arborist_bench::machine());
            scenarios::all(&cli.args)
        }
    }
}
