//! The API server is away for 20 seconds in the middle of a job. Workers and operator need it to start pods, not to prove:
//! the proofs go on meanwhile.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job, proofs};
use crate::lab::records::each_once;
use crate::lab::wait::{eventually, secs};
use anyhow::{Context, Result};
use kube::ResourceExt;
use serde_json::json;
use std::time::Duration;

const OUTAGE: Duration = Duration::from_secs(20);
const TRANSACTIONS: u32 = 30;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene
        .apply(&[fixed_pool("workers", 2, json!({})), job("work", TRANSACTIONS, scene.seed, json!({}))])
        .await?;
    scene.under_way("work", 4, secs(60)).await?;
    let leader = scene.lab.leader().await?;
    let address =
        leader.status.as_ref().and_then(|s| s.pod_ip.clone()).context("the leader has no address")?;
    scene.lab.cluster(&["apiserver", "stop"]).await?;
    let started = std::time::Instant::now();
    let before = done(&address).await;
    let went_on = eventually(OUTAGE, "proofs made without the API server", || async {
        let (before, now) = (before.clone()?, done(&address).await?);
        if now > before { Ok(now - before) } else { Err(format!("{now} done, {before} before")) }
    })
    .await;
    // the outage's length is the story's, whatever was seen meanwhile
    tokio::time::sleep(OUTAGE.saturating_sub(started.elapsed())).await;
    scene.lab.cluster(&["apiserver", "start"]).await?;
    scene.lab.api_answers().await?;
    went_on?;
    scene.complete("work", secs(120)).await?;
    let after = scene.lab.leader().await?;
    println!("   the operator's pod was {}, is {}", leader.name_any(), after.name_any());
    each_once(&scene.worker_logs("workers").await?, proofs(TRANSACTIONS.into()))?;
    scene.lab.whole_again(scene).await
}

/// Proofs that the operator at this address has counted.
async fn done(address: &str) -> Result<u64, String> {
    let url = format!("http://{address}:7701/metrics");
    let client = reqwest::Client::builder().timeout(secs(3)).build().map_err(|e| e.to_string())?;
    let answer = client.get(url).send().await.map_err(|e| format!("{e:#}"))?;
    let text = answer.text().await.map_err(|e| e.to_string())?;
    let name = "arborist_completions_total";
    crate::lab::install::sum(&text, name, &[]).map(|n| n as u64).ok_or_else(|| format!("no {name}"))
}
