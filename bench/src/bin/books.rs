//! What the engine's steps cost by how much is in its books: with few jobs and with many that are over, of many that
//! are open what demand costs, and how long a restart takes. CPU time of the thread, each beside its limit.

use anyhow::{Context, Result};
use arborist_core::circuit::KindSet;
use arborist_core::engine::{
    Assignment, Command, Config, Done, Engine, Event, Fence, Held, JobId, JobSpec, KnownProof, Mac,
    PreparedJob, Serves, Session, Source, Unresolved, WorkerSpec,
};
use arborist_core::profile::{Needs, Profile};
use arborist_core::tree::Leaves;
use clap::Parser;
use nix::time::ClockId;
use std::collections::VecDeque;
use std::time::Duration;

/// Costs of the engine's steps by what is in its books.
#[derive(Parser)]
struct Args {
    /// Transactions of a large block.
    #[arg(long, default_value_t = 61_440)]
    large: usize,
    /// Transactions of a small block.
    #[arg(long, default_value_t = 1_024)]
    small: usize,
}

const LARGE: Needs = Needs { cores: 32, memory_mib: 64 << 10 };

/// Workers in the books while steps are measured.
const WORKERS: u64 = 200;

const STEP: Duration = Duration::from_millis(1);
const DEMAND: Duration = Duration::from_millis(2);
const RESTART: Duration = Duration::from_secs(2);

/// CPU time of this thread.
fn cpu() -> Result<Duration> {
    Ok(Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?))
}

fn timed<T>(step: impl FnOnce() -> T) -> Result<(T, Duration)> {
    let start = cpu()?;
    let result = step();
    Ok((result, cpu()? - start))
}

fn print(what: &str, took: Duration, limit: Duration) {
    let ratio = took.as_secs_f64() / limit.as_secs_f64();
    println!("  {what}: {took:.2?}, limit {limit:?}, ratio {ratio:.2}");
}

fn tree(id: u32, transactions: usize, seed: u64) -> Result<Box<PreparedJob>> {
    let calls = vec![2; transactions];
    let spec = JobSpec {
        id: JobId(id),
        name: format!("job-{id}"),
        namespace: String::new(),
        source: Source::Synthetic { calls: calls.clone(), seed },
        chain_id: 1,
        block_number: u64::from(id),
        prover_id: [0; 32],
        deadline: None,
        priority: 0,
        suspended: false,
    };
    Ok(Box::new(PreparedJob::new(spec, &calls, Leaves::Synthetic { seed }, &Profile::rfp())?))
}

/// An engine with jobs that are over or open.
fn books(jobs: u32, transactions: usize, over: bool) -> Result<Engine> {
    let mut engine = Engine::new(Config::new(Profile::rfp()));
    let mut out = vec![];
    for id in 1..=jobs {
        engine.handle(1, Event::Submit(tree(id, transactions, id.into())?), &mut out);
        if !over {
            continue;
        }
        let root = engine.root_task(JobId(id)).context("the job is in the books")?;
        let proof = KnownProof { task: root, worker: "w".into(), millis: 1, cpu_millis: 1, proof_bytes: 1 };
        engine.handle(1, Event::Known(vec![proof]), &mut out);
        engine.handle(1, Event::RootChecked(JobId(id), Ok(())), &mut out);
        out.clear();
    }
    Ok(engine)
}

fn worker(n: u64) -> WorkerSpec {
    let (name, node) = (format!("w{n}"), format!("n{n}"));
    WorkerSpec { name, node, capacity: LARGE, kinds: KindSet::ALL, prefetch: 0, serves: Serves::All }
}

fn join(engine: &mut Engine, session: u64, held: Vec<Held>, out: &mut Vec<Command>) {
    engine.handle(2, Event::Joined { session: Session(session), worker: worker(session), held }, out);
}

/// Steps of a dispatcher that has so many jobs that are over, and two open ones that share all but their roots.
fn steps(jobs: u32, args: &Args) -> Result<()> {
    println!("{jobs} jobs of {} transactions that are over:", args.small);
    let mut engine = books(jobs, args.small, true)?;
    let mut out = vec![];
    submits(&mut engine, args, &mut out)?;
    for session in 1..=WORKERS {
        join(&mut engine, session, vec![], &mut out);
    }
    let leases: VecDeque<_> = assigned(&mut out).into();
    let held: Vec<Held> = (0..1_000)
        .map(|n| Held {
            task: leases[n % leases.len()].1.task,
            fence: Fence(1 << 50 | n as u64),
            running: None,
            mac: Mac::default(),
        })
        .collect();
    let ((), took) = timed(|| join(&mut engine, 10_000, held, &mut out))?;
    print("login that names 1,000 leases it never had", took, STEP);
    let fences: Vec<Fence> = (0..70_000).map(|n| Fence(1 << 51 | n)).collect();
    let ((), took) = timed(|| engine.handle(2, Event::Heartbeat(Session(10_000), fences), &mut out))?;
    print("heartbeat that names 70,000", took, STEP);
    out.clear();
    let ((), took) = timed(|| {
        (1..=WORKERS).for_each(|s| engine.handle(2, Event::Heartbeat(Session(s), vec![]), &mut out));
    })?;
    print("heartbeat", took / WORKERS as u32, STEP);
    results(&mut engine, leases, &mut out)
}

/// The leases that were given.
fn assigned(out: &mut Vec<Command>) -> Vec<(Session, Assignment)> {
    let all = out.drain(..);
    all.filter_map(|c| if let Command::Assign(s, lease) = c { Some((s, lease)) } else { None }).collect()
}

/// Submits of a new block, and of one whose tasks are in the books.
fn submits(engine: &mut Engine, args: &Args, out: &mut Vec<Command>) -> Result<()> {
    let tiny = tree(900_000, 1, 1 << 40)?;
    let ((), took) = timed(|| engine.handle(2, Event::Submit(tiny), out))?;
    print("submit of one transaction", took, STEP);
    let own = tree(900_001, args.small, 1 << 41)?;
    let ((), took) = timed(|| engine.handle(2, Event::Submit(own), out))?;
    println!("  submit of {} transactions: {took:.2?}", args.small);
    let mut other = tree(900_002, args.small, 1 << 41)?;
    other.spec.prover_id = [9; 32];
    let ((), took) = timed(|| engine.handle(2, Event::Submit(other), out))?;
    println!("  submit of the same for another prover: {took:.2?}");
    Ok(())
}

/// Results, each with the next lease.
fn results(
    engine: &mut Engine,
    mut leases: VecDeque<(Session, Assignment)>,
    out: &mut Vec<Command>,
) -> Result<()> {
    let (results, took) = timed(|| {
        let mut results = 0;
        while results < 2_000
            && let Some((session, lease)) = leases.pop_front()
        {
            let done = Done {
                task: lease.task,
                fence: lease.fence,
                millis: 1,
                cpu_millis: 1,
                peak_mib: 0,
                proof_bytes: 1,
                found: false,
            };
            engine.handle(3, Event::Completed(session, done), out);
            leases.extend(assigned(out));
            results += 1;
        }
        results
    })?;
    print("result of a task of both, and the next lease", took / results, STEP);
    Ok(())
}

/// A restart from a snapshot with jobs that are over, or open.
fn restart(jobs: u32, transactions: usize, over: bool) -> Result<()> {
    let engine = books(jobs, transactions, over)?;
    let (snapshot, took) = timed(|| engine.snapshot())?;
    println!("{jobs} jobs of {transactions} transactions that are {}:", if over { "over" } else { "open" });
    println!("  snapshot: {} kB in {took:.2?}", snapshot.len() >> 10);
    let config = engine.config().clone();
    drop(engine);
    let resolve = |spec: &JobSpec| match &spec.source {
        Source::Synthetic { calls, seed } => Ok((calls.clone(), Leaves::Synthetic { seed: *seed })),
        Source::Block(_) => Err(Unresolved::Lost("no block".into())),
    };
    let (restored, took) = timed(|| Engine::restore(config, Some(&snapshot), &[], resolve, 1))?;
    print("restart", took, RESTART);
    anyhow::ensure!(restored?.jobs().count() == jobs as usize, "jobs are missing");
    Ok(())
}

/// What is asked every second while many large blocks are open.
fn demand(jobs: u32, transactions: usize) -> Result<()> {
    println!("{jobs} open jobs of {transactions} transactions:");
    let mut engine = Engine::new(Config::new(Profile::rfp()));
    let mut out = vec![];
    engine.demand(120_000);
    for id in 1..=jobs {
        engine.handle(1, Event::Submit(tree(id, transactions, id.into())?), &mut out);
    }
    for within in [0, 120_000] {
        let (_, took) = timed(|| engine.demand(within))?;
        print(&format!("demand within {} s", within / 1_000), took, DEMAND);
    }
    (1..=1_000).for_each(|session| join(&mut engine, session, vec![], &mut out));
    let mut slowest = Duration::ZERO;
    for now in 3..103 {
        engine.handle(now, Event::Tick, &mut out);
        slowest = slowest.max(timed(|| engine.demand(120_000))?.1);
    }
    print("the slowest of 100 while 1,000 workers prove", slowest, DEMAND);
    Ok(())
}

fn main() -> Result<()> {
    let args = Args::parse();
    steps(1, &args)?;
    steps(800, &args)?;
    demand(1, args.large)?;
    demand(60, args.large)?;
    restart(800, args.small, true)?;
    restart(48, args.large, true)?;
    restart(48, args.large, false)
}
