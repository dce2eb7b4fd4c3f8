//! A real block on this machine: how busy the workers' cores were while there was enough to do, and
//! what share of all CPU time went into anything but proofs. Both from the records: the headers of the
//! proofs in the artifact store, and the operating system's account of all processes.

use anyhow::{Context, Result, ensure};
use arborist_core::circuit::Kind;
use arborist_core::ids::TaskId;
use arborist_core::proof_object::ProofObject;
use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Debug, Parser)]
struct Args {
    /// The folder of the programs `arborist` and `arborist-worker`
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    /// Transactions of the block
    #[arg(long, default_value_t = 8)]
    transactions: u32,
    /// Workers, one core each
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Where block, state and results go; must not exist
    #[arg(long, default_value = "out/bench-demo")]
    out: PathBuf,
}

/// One proof as its header tells it, times in milliseconds since 1970.
struct Made {
    kind: Kind,
    start: u64,
    end: u64,
    cpu_millis: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(!args.out.exists(), "--out: {} exists already", args.out.display());
    std::fs::create_dir_all(&args.out)?;
    let block = args.out.join("block.json");
    let arborist = || Command::new(args.programs.join("arborist"));
    run(arborist()
        .args(["block", "new", "--calls", "0,1,2,3", "--transactions", &args.transactions.to_string()])
        .arg("--out")
        .arg(&block))?;
    let before = cpu_millis_of_children()?;
    run(arborist()
        .args(["prove", "--workers", &args.workers.to_string(), "--worker-cores", "1"])
        .arg("--block")
        .arg(&block)
        .arg("--out")
        .arg(&args.out))?;
    let cpu = cpu_millis_of_children()? - before;
    let made = proofs(&args.out.join("state/store/proofs"))?;
    report(&made, cpu, args.workers)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// CPU time, user and system, of all processes that ended below this one.
fn cpu_millis_of_children() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let millis = |t: nix::sys::time::TimeVal| t.tv_sec() as u64 * 1_000 + t.tv_usec() as u64 / 1_000;
    Ok(millis(usage.user_time()) + millis(usage.system_time()))
}

fn proofs(folder: &Path) -> Result<Vec<Made>> {
    let mut made = vec![];
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(task) = name.parse::<TaskId>() else { continue };
        let object = ProofObject::open(&task, &std::fs::read(&path)?)?;
        let (end, millis) = (object.maker.finished_unix_ms, u64::from(object.maker.millis));
        made.push(Made {
            kind: object.circuit.kind(),
            start: end - millis,
            end,
            cpu_millis: object.maker.cpu_millis.into(),
        });
    }
    ensure!(!made.is_empty(), "no proofs in {}", folder.display());
    Ok(made)
}

fn report(made: &[Made], cpu_millis: u64, workers: u32) -> Result<()> {
    let leaves: Vec<&Made> = made.iter().filter(|m| matches!(m.kind, Kind::Vm | Kind::Kernel)).collect();
    let first = leaves.iter().map(|m| m.start).min().context("no vm or kernel proof")?;
    let last = leaves.iter().map(|m| m.end).max().context("no vm or kernel proof")?;
    let overlap = |m: &Made| m.end.min(last).saturating_sub(m.start.max(first));
    let busy: u64 = made.iter().map(overlap).sum();
    let share = busy as f64 / ((last - first).max(1) * u64::from(workers)) as f64;
    let proving: u64 = made.iter().map(|m| m.cpu_millis).sum();
    let overhead = cpu_millis.saturating_sub(proving) as f64 / cpu_millis.max(1) as f64;
    println!("{}", arborist_bench::machine());
    println!("{} proofs by {workers} workers of one core, {} s of CPU", made.len(), cpu_millis / 1_000);
    println!(
        "cores busy between the first and the last vm or kernel proof: {:.1} % (target 90 %: {:.2} of it)",
        share * 100.0,
        share / 0.9
    );
    println!(
        "CPU outside of proving (verifying children, own proofs and the root, transfer, dispatch): {:.2} % (target below 2 %: {:.2} of it)",
        overhead * 100.0,
        overhead / 0.02
    );
    Ok(())
}
