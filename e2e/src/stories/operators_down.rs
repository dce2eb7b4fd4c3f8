//! Both operators go away in the middle of a job and come back: the workers finish what they have, wait, and go on.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job, proofs};
use crate::lab::records::each_once;
use crate::lab::wait::secs;
use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;

const TRANSACTIONS: u32 = 24;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene
        .apply(&[fixed_pool("workers", 3, json!({})), job("work", TRANSACTIONS, scene.seed, json!({}))])
        .await?;
    scene.under_way("work", 8, secs(60)).await?;
    scene.lab.scale_operators(0).await?;
    scene.lab.scale_operators(2).await?;
    scene.complete("work", secs(120)).await?;
    let made = scene.lab.counted(&scene.lab.leader().await?.name_any()).await?.made;
    ensure!(made > 0, "the job was over before the operators went");
    each_once(&scene.worker_logs("workers").await?, proofs(TRANSACTIONS.into()))
}
