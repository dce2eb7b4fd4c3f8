//! The measured process: a dispatcher that is told what to do on stdin and answers in lines of JSON.

use anyhow::{Context, Result};
use arborist_artifacts::{ArtifactStore, StoreOptions};
use arborist_core::engine::JobId;
use arborist_core::profile::{Needs, Profile};
use arborist_operator::dispatch::{Dispatcher, FakeRoots, Options, StaticToken, SubmitRequest, SubmitSource};
use arborist_operator::tls;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// State and store.
    #[arg(long)]
    folder: PathBuf,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Threads that carry connections.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

pub fn serve(args: ServeArgs) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(args))
}

async fn run(args: ServeArgs) -> Result<()> {
    let began = Instant::now();
    let state = args.folder.join("state");
    let url = format!("file://{}", args.folder.join("store").display());
    let store = ArtifactStore::open(&url, &StoreOptions::default())?;
    let profile = Profile {
        circuits: "bench-v1".into(),
        needs: [Needs { cores: 1, memory_mib: 1024 }; 5],
        ..Profile::rfp()
    };
    let token = tls::worker_token(&state)?;
    let mut options = Options::new(state, profile, Arc::new(StaticToken::new(&token)));
    options.engine.profile.backend = "fake".into();
    options.roots = Arc::new(FakeRoots);
    options.listen = args.listen;
    options.threads = args.threads;
    options.store_url = url;
    // tasks that take no time have no stragglers
    options.engine.backup_percent = 0;
    let dispatcher = Dispatcher::start(options, store).await?;
    println!(
        "{}",
        json!({ "serving": began.elapsed().as_secs_f64(), "address": dispatcher.address().to_string() })
    );
    tokio::spawn(first_lease(dispatcher.clone(), began));
    let mut lines = stdin_lines();
    while let Some(line) = lines.recv().await {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["submit", transactions, calls, seed] => {
                let began = Instant::now();
                let job =
                    dispatcher.submit(block(transactions.parse()?, calls.parse()?, seed.parse()?)).await?;
                println!("{}", json!({ "job": job.0, "submitted": began.elapsed().as_secs_f64() }));
            }
            ["job", id] => {
                let view = dispatcher.job(JobId(id.parse()?)).context("no such job")?;
                let done: u32 = view.counts.iter().map(|c| c.done).sum();
                println!(
                    "{}",
                    json!({ "done": done, "state": view.state, "policy": view.policy,
                    "first_dispatch": dispatcher.metrics().first_dispatch.get(),
                    "found": dispatcher.metrics().recovered.get() })
                );
            }
            ["metrics"] => {
                dispatcher.refresh_metrics();
                eprintln!("{}", dispatcher.metrics().text());
                println!("{{}}");
            }
            _ => anyhow::bail!("`{line}`?"),
        }
    }
    dispatcher.shutdown().await;
    Ok(())
}

fn stdin_lines() -> mpsc::Receiver<String> {
    let (lines, received) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    received
}

/// Says when the first lease has gone out.
async fn first_lease(dispatcher: Dispatcher, began: Instant) {
    while dispatcher.metrics().leases.get() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("{}", json!({ "first_lease": began.elapsed().as_secs_f64() }));
}

fn block(transactions: usize, calls: u8, seed: u64) -> SubmitRequest {
    SubmitRequest {
        name: format!("{transactions} x {calls}"),
        namespace: String::new(),
        source: SubmitSource::Synthetic { calls: vec![calls; transactions], seed },
        chain_id: 1,
        block_number: 1,
        prover_id: [1; 32],
        deadline: None,
        priority: 0,
        suspended: false,
    }
}
