//! A block of the largest documented size by manifest: made, taken in and proven with stand-ins on this machine. Prints
//! seconds and the operator's peak memory. The private proofs are random bytes, each different; nothing is verified.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Debug, Parser)]
struct Args {
    /// The folder of the programs `arborist` and `arborist-worker`
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    /// Transactions of the block
    #[arg(long, default_value_t = 61_440)]
    transactions: u32,
    /// Public calls of each
    #[arg(long, default_value_t = 2)]
    calls: u32,
    /// Bytes of a private proof; those of the embedded circuits have 134,800
    #[arg(long, default_value_t = 1_500)]
    object_bytes: u32,
    /// Workers, one core each
    #[arg(long, default_value_t = 4)]
    workers: u32,
    /// Stop once the block is in the books and its first proof is made
    #[arg(long)]
    intake_only: bool,
    /// Where block, state and results go; must not exist
    #[arg(long, default_value = "out/bench-block-size")]
    out: PathBuf,
}

/// The operator may use no more, in MB.
const MEMORY_LIMIT_MB: f64 = 1_000.0;
/// How often the operator is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(!args.out.exists(), "--out: {} exists already", args.out.display());
    std::fs::create_dir_all(&args.out)?;
    println!("{}", arborist_bench::machine());
    let block = args.out.join("block.json");
    let began = Instant::now();
    let made = Command::new(args.programs.join("arborist"))
        .args(["block", "new", "--transactions", &args.transactions.to_string()])
        .args(["--calls", &args.calls.to_string()])
        .args(["--objects", &format!("random:{}", args.object_bytes)])
        .arg("--out")
        .arg(&block)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "arborist block new ended with {made}");
    let (file, objects) =
        (std::fs::metadata(&block)?.len(), u64::from(args.transactions) * u64::from(args.object_bytes));
    println!(
        "block file: {:.0} MB, private proofs: {:.0} MB, made in {:.1} s",
        file as f64 / 1e6,
        objects as f64 / 1e6,
        began.elapsed().as_secs_f64()
    );
    let mut operator = prove(&args, &block)?;
    let watched = watch(&args, &mut operator);
    // one that has ended already is no error
    let _ = operator.kill();
    let _ = operator.wait();
    watched
}

fn prove(args: &Args, block: &Path) -> Result<Child> {
    let mut command = Command::new(args.programs.join("arborist"));
    command
        .args(["prove", "--backend", "fake", "--fake-millis", "1", "--worker-cores", "1"])
        .args(["--workers", &args.workers.to_string()])
        .arg("--block")
        .arg(block)
        .arg("--out")
        .arg(args.out.join("proven"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().with_context(|| format!("{command:?}"))
}

/// Looks at the operator until it ends: when the first proof lies in the store, and the most memory it had.
fn watch(args: &Args, operator: &mut Child) -> Result<()> {
    let (began, mut peak_mb, mut first) = (Instant::now(), 0.0_f64, None);
    let proofs = args.out.join("proven/state/store/proofs");
    let status = loop {
        if let Some(status) = operator.try_wait()? {
            break status;
        }
        peak_mb = peak_mb.max(peak_memory_mb(operator.id()).unwrap_or(0.0));
        if first.is_none() && std::fs::read_dir(&proofs).is_ok_and(|mut proofs| proofs.next().is_some()) {
            first = Some(began.elapsed());
            println!(
                "taken in, first proof made: after {:.1} s, operator's peak memory until then {peak_mb:.0} MB",
                began.elapsed().as_secs_f64()
            );
            if args.intake_only {
                return Ok(());
            }
        }
        std::thread::sleep(LOOK_EVERY);
    };
    ensure!(status.success(), "arborist prove ended with {status}");
    let tasks = u64::from(args.transactions) * u64::from(2 * args.calls + 2) - 1;
    println!(
        "{tasks} stand-in proofs by {} workers: {:.1} s in all",
        args.workers,
        began.elapsed().as_secs_f64()
    );
    println!(
        "operator's peak memory: {peak_mb:.0} MB (limit {MEMORY_LIMIT_MB:.0} MB: {:.2} of it)",
        peak_mb / MEMORY_LIMIT_MB
    );
    Ok(())
}

/// The most memory that a process has had resident, in MB.
fn peak_memory_mb(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1_024.0 / 1e6)
}
