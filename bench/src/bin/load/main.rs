//! Load generator: many workers in one process, each with a TLS connection of its own, that prove
//! nothing. They answer a lease at once, or after a random time so that a given number of results
//! comes a second. Events go to stdout as lines of JSON.

mod client;
mod run;
mod stats;

use anyhow::{Context, Result};
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Many workers that prove nothing.
#[derive(Debug, Clone, Parser)]
struct Args {
    /// The dispatcher.
    #[arg(long)]
    connect: SocketAddr,
    /// Its certificate authority.
    #[arg(long)]
    ca: PathBuf,
    /// The file with the token.
    #[arg(long)]
    token: PathBuf,
    /// How many workers.
    #[arg(long, default_value_t = 500)]
    workers: usize,
    /// Leases each takes at once.
    #[arg(long, default_value_t = 1)]
    leases: u32,
    /// Ends after so many results.
    #[arg(long)]
    tasks: u64,
    /// Results a second of all workers together; 0 is as fast as it goes.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Ends after so many seconds at the latest.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Folder of the artifact store: proofs of a few bytes are put there before they are reported.
    #[arg(long)]
    proofs: Option<PathBuf>,
    /// Threads; a given rate takes one.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Heartbeat of each worker, milliseconds.
    #[arg(long, default_value_t = 3000)]
    heartbeat: u64,
}

/// What the threads share.
struct Shared {
    args: Args,
    tls: Arc<rustls::ClientConfig>,
    token: String,
    connected: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.rate > 0 {
        args.threads = 1;
    }
    let token = std::fs::read_to_string(&args.token).context("token")?.trim().to_owned();
    let tls = client::tls(&args.ca)?;
    let shared = Arc::new(Shared {
        tls,
        token,
        connected: AtomicU64::new(0),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        args,
    });
    let threads: Vec<_> = (0..shared.args.threads)
        .map(|part| {
            let shared = shared.clone();
            std::thread::spawn(move || run::run(&shared, part))
        })
        .collect();
    let ended = shared.clone();
    std::thread::spawn(move || {
        // whoever started it closes stdin to end it
        std::io::stdin().lines().for_each(drop);
        ended.stop.store(true, Ordering::Relaxed);
    });
    announce(&shared);
    let mut total = stats::Stats::default();
    for thread in threads {
        total.add(thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
    }
    println!("{}", total.json());
    Ok(())
}

/// Says when all are connected, and stops all when the time is over.
fn announce(shared: &Shared) {
    let end = Instant::now() + Duration::from_secs(shared.args.seconds);
    let mut said = false;
    while !shared.stop.load(Ordering::Relaxed) {
        if !said && shared.connected.load(Ordering::Relaxed) >= shared.args.workers as u64 {
            said = true;
            println!("{}", serde_json::json!({ "connected": shared.args.workers }));
        }
        if Instant::now() > end {
            shared.stop.store(true, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
