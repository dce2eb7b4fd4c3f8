//! Dispatch over the real transport, with TLS: throughput, memory, latency, restarts. The dispatcher
//! runs in a process of its own, the load generator in another, both on this machine.

mod child;
mod scenarios;
mod serve;

use anyhow::{Context, Result};
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
            machine()?;
            scenarios::all(&cli.args)
        }
    }
}

/// What it was measured on.
fn machine() -> Result<()> {
    let info = std::fs::read_to_string("/proc/cpuinfo").context("cpuinfo")?;
    let model = info.lines().find_map(|l| l.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism()?;
    let commit = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{}, {cores} cores, commit {commit}, load before {}",
        model.unwrap_or("unknown CPU"),
        load.split_whitespace().next().unwrap_or("?")
    );
    Ok(())
}
