//! Two jobs at once on one worker: the one of higher priority is complete while the other has hardly begun.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job, proofs};
use crate::lab::scene::{counts, is_ready};
use crate::lab::wait::secs;
use anyhow::{Result, ensure};
use serde_json::json;

const TRANSACTIONS: u32 = 6;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let low = job("low", TRANSACTIONS, scene.seed, json!({"priority": -5}));
    let high = job("high", TRANSACTIONS, scene.seed + 1, json!({"priority": 5, "blockNumber": 2}));
    scene.apply(&[low]).await?;
    scene
        .until_job("low", secs(30), "accepted", |job| {
            crate::lab::scene::holds(crate::lab::scene::job_conditions(job), "Accepted")
        })
        .await?;
    scene.apply(&[high]).await?;
    scene
        .until_job("high", secs(30), "accepted", |job| {
            crate::lab::scene::holds(crate::lab::scene::job_conditions(job), "Accepted")
        })
        .await?;
    // the first worker comes when both are known
    let slow = json!({"backend": {"fake": {"millis": "250"}}});
    scene.apply(&[fixed_pool("one", 1, slow)]).await?;
    scene
        .until_workers("one", secs(60), "one ready worker", |pods| match pods {
            [pod] if is_ready(pod) => Ok(()),
            _ => Err("not yet".into()),
        })
        .await?;
    scene.complete("high", secs(120)).await?;
    let (done, all) = counts(&scene.jobs().get("low").await?);
    ensure!(all == i64::try_from(proofs(TRANSACTIONS.into()))?, "{all} proofs in all");
    ensure!(done * 2 < all, "{done} of {all} proofs of the job of low priority were made meanwhile");
    println!("   low priority: {done} of {all} done when high priority was complete");
    scene.complete("low", secs(120)).await?;
    Ok(())
}
