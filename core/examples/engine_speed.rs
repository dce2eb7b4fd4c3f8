//! How fast the engine is by itself: a block of 61,440 transactions with two calls each, drained by
//! 5,000 workers that take no time. `cargo run --release -p arborist-core --example engine_speed`

use arborist_core::circuit::KindSet;
use arborist_core::engine::*;
use arborist_core::profile::{Needs, Profile};
use arborist_core::tree::Leaves;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const WORKERS: u64 = 5_000;

/// Questions are asked so often: the kernel counts CPU time in large steps.
const ASKED: u32 = 100;

fn spec(id: u32, calls: &[u8]) -> JobSpec {
    JobSpec {
        id: JobId(id),
        name: "speed".into(),
        namespace: String::new(),
        source: Source::Synthetic { calls: calls.to_vec(), seed: u64::from(id) },
        chain_id: 1,
        block_number: 1,
        prover_id: [0; 32],
        deadline: None,
        priority: 0,
        suspended: false,
    }
}

/// CPU time of this thread, which other load on the machine does not lengthen; zero where the
/// kernel does not tell.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default())
}

fn main() {
    let needs = Needs { cores: 8, memory_mib: 16 << 10 };
    let profile = Profile { needs: [needs; 5], ..Profile::rfp() };
    let calls = vec![2; 61_440];
    let mut engine = Engine::new(Config::new(profile.clone()));
    let (mut out, mut journal) = (vec![], vec![]);
    for (prefetch, keep) in [(0u16, false), (1, false), (2, true)] {
        for n in 0..WORKERS {
            let (name, node) = (format!("w{n}"), format!("n{}", n / 4));
            let worker = WorkerSpec {
                name,
                node,
                capacity: needs,
                kinds: KindSet::ALL,
                prefetch,
                serves: Serves::All,
            };
            let session = Session(n + WORKERS * u64::from(prefetch) + 1);
            engine.handle(1, Event::Joined { session, worker, held: vec![] }, &mut out);
        }
        out.clear();
        let job = u32::from(prefetch) + 1;
        let (start, before) = (Instant::now(), cpu());
        let prepared =
            PreparedJob::new(spec(job, &calls), &calls, Leaves::Synthetic { seed: u64::from(job) }, &profile);
        let prepared = prepared.expect("the shape is allowed");
        let (built, tree) = (start.elapsed(), cpu() - before);
        engine.handle(1, Event::Submit(Box::new(prepared)), &mut out);
        let (took, used) = (start.elapsed(), cpu() - before);
        println!("tree {built:.2?} ({tree:.2?} CPU), with submit {took:.2?} ({used:.2?} CPU)");
        println!("{:.1} bytes a task", engine.bytes_per_task(JobId(job)).unwrap_or_default());
        ask(&engine, job);
        drain(&mut engine, &mut out, keep.then_some(&mut journal), job);
        ask(&engine, job);
        engine.handle(20_000, Event::Forget(JobId(job - 1)), &mut out);
        out.clear();
        println!("{:.1} bytes a task", engine.bytes_per_task(JobId(job)).unwrap_or_default());
    }
    restore(&engine, &profile, &journal);
}

/// What is asked every second or so, under the lock that all workers wait for.
fn ask(engine: &Engine, job: u32) {
    let cost = |ask: &dyn Fn() -> usize| {
        let (before, rows) = (cpu(), (0..ASKED).map(|_| ask()).max().unwrap_or_default());
        format!("{rows} in {:.2?}", (cpu() - before) / ASKED)
    };
    println!("demand now: {}", cost(&|| engine.demand(0).len()));
    println!("demand within a minute: {}", cost(&|| engine.demand(60_000).len()));
    println!("demand within an hour: {}", cost(&|| engine.demand(3_600_000).len()));
    println!("workers: {}", cost(&|| engine.worker_states().len()));
    println!("estimate: {}", cost(&|| engine.estimate(JobId(job)).into_iter().count()));
    println!("attribution: {}", cost(&|| engine.attribution(JobId(job)).into_iter().count()));
}

fn drain(engine: &mut Engine, out: &mut Vec<Command>, journal: Option<&mut Vec<Vec<u8>>>, job: u32) {
    let leases = job;
    let mut queue = VecDeque::new();
    let (mut cycles, mut assigned, start) = (0u64, 0u64, Instant::now());
    let before = cpu();
    let mut records = vec![];
    loop {
        for command in out.drain(..) {
            match command {
                Command::Assign(session, lease) => queue.push_back((session, lease)),
                Command::Persist(record) | Command::Amend(record) if journal.is_some() => {
                    records.push(record)
                }
                Command::CheckRoot(_) => {
                    let took = start.elapsed();
                    let used = cpu() - before;
                    let rate = |time: Duration| cycles as f64 / time.as_secs_f64();
                    println!(
                        "{leases} leases a worker: {cycles} cycles in {took:.2?}, {:.0}/s; {used:.2?} CPU, {:.0}/s",
                        rate(took),
                        rate(used)
                    );
                }
                _ => {}
            }
        }
        let Some((session, lease)) = queue.pop_front() else { break };
        assigned += 1;
        let done = Done {
            task: lease.task,
            fence: lease.fence,
            millis: 1 + (lease.fence.0 % 7) as u32,
            cpu_millis: 1,
            peak_mib: 0,
            proof_bytes: 30_000,
            found: false,
        };
        engine.handle(1 + assigned / 1_000, Event::Completed(session, done), out);
        cycles += 1;
    }
    engine.handle(10_000, Event::RootChecked(JobId(job), Ok(())), out);
    out.clear();
    let Some(journal) = journal else { return };
    journal.extend(records.iter().map(Record::encode));
    let bytes: usize = journal.iter().map(Vec::len).sum();
    println!("{} records, {:.1} bytes each", journal.len(), bytes as f64 / journal.len() as f64);
}

fn restore(engine: &Engine, profile: &Profile, journal: &[Vec<u8>]) {
    let start = Instant::now();
    let snapshot = engine.snapshot();
    println!("snapshot: {} bytes in {:.2?}", snapshot.len(), start.elapsed());
    let tree = |spec: &JobSpec| match &spec.source {
        Source::Synthetic { calls, seed } => Ok((calls.clone(), Leaves::Synthetic { seed: *seed })),
        Source::Block(_) => Err(Unresolved::Lost("no block".to_owned())),
    };
    let start = Instant::now();
    let calls = vec![2; 61_440];
    let built = PreparedJob::new(spec(3, &calls), &calls, Leaves::Synthetic { seed: 3 }, profile);
    assert!(built.is_ok());
    let trees = start.elapsed();
    let (start, before) = (Instant::now(), cpu());
    let restored = Engine::restore(Config::new(profile.clone()), Some(&snapshot), &[], tree, 1);
    assert!(restored.is_ok());
    let took = start.elapsed();
    println!("restored from it in {took:.2?} ({:.2?} CPU), {trees:.2?} of it for the tree", cpu() - before);
    let submitted = Record::Submitted(spec(3, &[2; 61_440]), profile.system(), 1).encode();
    let records: Vec<_> = std::iter::once(submitted).chain(journal.iter().cloned()).collect();
    let (start, before) = (Instant::now(), cpu());
    let restored = Engine::restore(Config::new(profile.clone()), None, &records, tree, 1);
    assert!(restored.is_ok());
    let (took, used) = (start.elapsed(), cpu() - before);
    println!("restored from {} records in {took:.2?} ({used:.2?} CPU), a tree included", records.len());
}
