//! The bucket is away for a while: workers keep the proofs that they made until it is back, and make none twice.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job, proofs};
use crate::lab::records::each_once;
use crate::lab::wait::{eventually, secs};
use anyhow::Result;
use serde_json::json;

const TRANSACTIONS: u32 = 24;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene
        .apply(&[fixed_pool("workers", 3, json!({})), job("work", TRANSACTIONS, scene.seed, json!({}))])
        .await?;
    scene.under_way("work", 8, secs(60)).await?;
    scene.lab.scale_s3(0).await?;
    let seen = eventually(secs(60), "a worker that waits for the store", || async {
        let log = scene.worker_logs("workers").await.map_err(|e| format!("{e:#}"))?;
        if log.contains("the proof waits for the store") { Ok(()) } else { Err("none says so".into()) }
    })
    .await;
    scene.lab.scale_s3(1).await?;
    seen?;
    scene.complete("work", secs(180)).await?;
    each_once(&scene.worker_logs("workers").await?, proofs(TRANSACTIONS.into()))
}
