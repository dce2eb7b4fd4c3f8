//! `helm upgrade` in the middle of a job: the operator's pod is another one, the workers stay, nothing is proven twice.

use crate::lab::objects::{fixed_pool, job, proofs};
use crate::lab::records::each_once;
use crate::lab::wait::secs;
use crate::lab::{Flavour, Scene};
use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use std::collections::BTreeSet;

const TRANSACTIONS: u32 = 20;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene
        .apply(&[fixed_pool("workers", 3, json!({})), job("work", TRANSACTIONS, scene.seed, json!({}))])
        .await?;
    scene.under_way("work", 6, secs(60)).await?;
    let before = scene.lab.leader().await?.name_any();
    let workers = names(scene).await?;
    scene
        .lab
        .helm_install(Flavour::Fake, &[], &[&format!("podAnnotations.upgraded=at-{}", scene.seed)])
        .await?;
    let after = scene.lab.leader().await?.name_any();
    ensure!(before != after, "the operator's pod is still {before}");
    scene.complete("work", secs(120)).await?;
    let made = scene.lab.counted(&scene.lab.leader().await?.name_any()).await?.made;
    ensure!(made > 0, "the job was over before the upgrade");
    ensure!(names(scene).await? == workers, "workers were replaced");
    each_once(&scene.worker_logs("workers").await?, proofs(TRANSACTIONS.into()))
}

async fn names(scene: &Scene<'_>) -> Result<BTreeSet<String>> {
    Ok(scene.workers("workers").await?.iter().map(ResourceExt::name_any).collect())
}
