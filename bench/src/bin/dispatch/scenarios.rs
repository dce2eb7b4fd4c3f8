//! What is measured.

use crate::child::Program;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Transactions of the large block (2 calls each).
    #[arg(long, default_value_t = 61_440)]
    transactions: u64,
    /// Times the dispatcher is killed.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Transactions of the block in which it is killed (2 calls each).
    #[arg(long, default_value_t = 20_000)]
    kill_transactions: u64,
    /// Workers of that block.
    #[arg(long, default_value_t = 500)]
    kill_workers: usize,
    /// Where stores are made.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 1)]
    load_threads: usize,
    /// Threads of the dispatcher that carry connections.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// The proofs of a block with 2 calls a transaction.
fn tasks(transactions: u64) -> u64 {
    transactions * 6 - 1
}

pub fn all(args: &Args) -> Result<()> {
    for (workers, leases, floor, wanted) in [
        (500, 1, 35_000.0, 60_000.0),
        (5_000, 1, 35_000.0, 60_000.0),
        (500, 2, 70_000.0, 120_000.0),
        (5_000, 2, 70_000.0, 120_000.0),
    ] {
        let name = format!("throughput-{workers}x{leases}");
        if name.contains(&args.only) {
            throughput(args, workers, leases, (floor, wanted))?;
        }
    }
    if "latency".contains(&args.only) {
        latency(args)?;
    }
    if "kills".contains(&args.only) {
        kills(args)?;
    }
    Ok(())
}

/// A folder that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new(args: &Args) -> Result<Self> {
        let folder = args.folder.join(format!("arborist-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // what stays behind is in the temporary folder
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn serve(args: &Args, folder: &Path, listen: &str) -> Result<(Program, Value)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve").arg("--folder").arg(folder).args(["--listen", listen]);
    command.args(["--threads", &args.threads.to_string()]);
    let mut program = Program::start(command)?;
    let serving = program.hear("serving")?;
    Ok((program, serving))
}

fn load(args: &Args, folder: &Path, address: &str, more: &[String]) -> Result<Program> {
    let program = std::env::current_exe()?.with_file_name("load");
    let mut command = Command::new(program);
    command.args(["--connect", address]).arg("--ca").arg(folder.join("state/ca.pem"));
    command.arg("--token").arg(folder.join("state/worker-token"));
    command.args(["--threads", &args.load_threads.to_string()]);
    command.args(more);
    Program::start(command)
}

fn strings(words: &[(&str, u64)]) -> Vec<String> {
    words.iter().flat_map(|(name, value)| [format!("--{name}"), value.to_string()]).collect()
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value.get(key).and_then(Value::as_f64).with_context(|| format!("{key} in {value}"))
}

/// How a figure stands to its target: above 1 is better.
fn ratio(what: &str, value: f64, unit: &str, ratios: (f64, f64)) {
    println!("    {what:<28} {value:>10.2} {unit:<8} {:>6.2} x target  {:>6.2} x wanted", ratios.0, ratios.1);
}

fn throughput(args: &Args, workers: u64, leases: u64, targets: (f64, f64)) -> Result<()> {
    println!("throughput, {workers} workers, {leases} lease(s) each, {} tasks", tasks(args.transactions));
    let scratch = Scratch::new(args)?;
    let (mut server, serving) = serve(args, &scratch.0, "127.0.0.1:0")?;
    let address = serving["address"].as_str().context("address")?.to_owned();
    let before = server.rss_kib()?;
    let mut client = load(
        args,
        &scratch.0,
        &address,
        &strings(&[("workers", workers), ("leases", leases), ("tasks", tasks(args.transactions))]),
    )?;
    let began = Instant::now();
    client.hear("connected")?;
    println!("    {workers} logins in {:.2} s", began.elapsed().as_secs_f64());
    let memory = (server.rss_kib()? - before) / workers as f64;
    let (cpu, client_cpu) = (server.cpu()?, client.cpu()?);
    let submitted = server.ask(&format!("submit {} 2 1", args.transactions), "job")?;
    let job = server.ask("job 1", "done")?;
    let result = client.hear("done")?;
    let done = number(&result, "done")?;
    let seconds = number(&result, "seconds")?;
    let per_cycle = |before: (f64, f64), after: (f64, f64)| {
        let (user, system) = (after.0 - before.0, after.1 - before.1);
        ((user + system) / done * 1e6, system / (user + system) * 100.0)
    };
    let used = per_cycle(cpu, server.cpu()?);
    ratio("cycles a second", done / seconds, "/s", (done / seconds / targets.0, done / seconds / targets.1));
    let client_used = (number(&result, "cpu")? - client_cpu.0 - client_cpu.1) / done * 1e6;
    println!(
        "    dispatcher {:.1} us a cycle ({:.0} % system), load generator {client_used:.1} us",
        used.0, used.1
    );
    if workers == 5_000 {
        if args.transactions == 61_440 {
            ratio("block drained", seconds, "s", (10.0 / seconds, 5.0 / seconds));
        }
        // with fewer workers it is the threads' buffers that one sees
        ratio("memory a connection", memory, "KiB", (16.0 / memory, 16.0 / memory));
    }
    let first = number(&job, "first_dispatch")?;
    ratio("first dispatch", first * 1e3, "ms", (0.5 / first, 0.1 / first));
    println!("    submit durable after {:.0} ms", number(&submitted, "submitted")? * 1e3);
    client.end()?;
    server.kill()
}

fn latency(args: &Args) -> Result<()> {
    const WORKERS: u64 = 5_000;
    const RATE: u64 = 1_000;
    println!("latency, {WORKERS} workers, {RATE} results a second");
    let scratch = Scratch::new(args)?;
    let (mut server, serving) = serve(args, &scratch.0, "127.0.0.1:0")?;
    let address = serving["address"].as_str().context("address")?.to_owned();
    let more = strings(&[("workers", WORKERS), ("tasks", 11_000), ("rate", RATE), ("seconds", 60)]);
    let mut client = load(args, &scratch.0, &address, &more)?;
    client.hear("connected")?;
    // never more ready tasks than workers: 1,400 and 2,000 calls, and each result makes one task ready at
    // most. So no task waits for a worker, and what is measured is the dispatcher's.
    server.ask("submit 200 7 1", "job")?;
    server.ask("submit 2000 1 2", "job")?;
    let result = client.hear("done")?;
    println!("    {:.0} results a second", number(&result, "done")? / number(&result, "seconds")?);
    for (name, key) in [("own next task", "own"), ("parked worker woken", "parked")] {
        let q = &result[key];
        println!(
            "    {name}: {} of them, p50 {:.2} ms, worst {:.2} ms",
            q["count"],
            number(q, "p50")?,
            number(q, "max")?
        );
        let p99 = number(q, "p99")?;
        ratio(&format!("{name}, p99"), p99, "ms", (5.0 / p99, 1.5 / p99));
    }
    client.end()?;
    server.kill()
}

fn kills(args: &Args) -> Result<()> {
    let total = tasks(args.kill_transactions);
    println!("kill -9, {} times in a block of {total} tasks, {} workers", args.kills, args.kill_workers);
    let scratch = Scratch::new(args)?;
    let (mut server, serving) = serve(args, &scratch.0, "127.0.0.1:0")?;
    let address = serving["address"].as_str().context("address")?.to_owned();
    let mut more = strings(&[("workers", args.kill_workers as u64), ("tasks", u64::MAX), ("seconds", 600)]);
    more.extend(["--proofs".into(), scratch.0.join("store").display().to_string()]);
    let mut client = load(args, &scratch.0, &address, &more)?;
    client.hear("connected")?;
    server.ask(&format!("submit {} 2 1", args.kill_transactions), "job")?;
    let (mut served, mut leased, mut found) = (vec![], vec![], 0.0);
    for kill in 0..args.kills {
        wait_for(&mut server, total as f64 * (kill as f64 + 0.5) / (args.kills as f64 + 1.0))?;
        server.kill()?;
        let began = Instant::now();
        let again = serve(args, &scratch.0, &address)?;
        served.push(began.elapsed().as_secs_f64());
        server = again.0;
        server.hear("first_lease")?;
        leased.push(began.elapsed().as_secs_f64());
        found += number(&server.ask("job 1", "done")?, "found")?;
    }
    let done = wait_for(&mut server, total as f64)?;
    let state = server.ask("job 1", "done")?;
    let proofs = std::fs::read_dir(scratch.0.join("store/proofs"))?.count();
    let result = client.last_words("made")?;
    println!("    done {done} of {total}, state {}, proofs in the store {proofs}", state["state"]);
    println!(
        "    lost {}, made {} (twice: {}), leased again after their acknowledgement {}",
        total as f64 - done,
        result["made"],
        number(&result, "made")? - proofs as f64,
        result["leased_after_ack"]
    );
    println!(
        "    proofs that only the store knew of: {found} found by the dispatcher, {} by workers; {} reconnects",
        result["found"], result["reconnects"]
    );
    for (what, all) in [("serving again", &mut served), ("first lease again", &mut leased)] {
        all.sort_by(f64::total_cmp);
        let worst = all.last().copied().unwrap_or_default();
        let median = all.get(all.len() / 2).copied().unwrap_or_default();
        println!("    {what}: median {median:.3} s");
        ratio(&format!("{what}, worst"), worst, "s", (2.0 / worst, 0.2 / worst));
    }
    server.kill()?;
    client.end()
}

/// Waits until so many tasks are done.
fn wait_for(server: &mut Program, count: f64) -> Result<f64> {
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        let done = number(&server.ask("job 1", "done")?, "done")?;
        if done >= count || Instant::now() > end {
            return Ok(done);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
