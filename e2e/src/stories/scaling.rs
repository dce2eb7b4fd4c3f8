//! From nothing to workers and back to nothing; a fixed pool obeys `kubectl scale`.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job, pool};
use crate::lab::scene::is_ready;
use crate::lab::wait::{Look, secs};
use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene.apply(&[pool("elastic", json!({"scaling": {"max": 3}}))]).await?;
    scene
        .until_pool("elastic", secs(30), "no pods for no work", |pool| {
            let status = pool.status.clone().ok_or("no status")?;
            if status.wanted == 0 && status.replicas == 0 { Ok(()) } else { Err("not yet".into()) }
        })
        .await?;
    scene.apply(&[job("work", 24, scene.seed, json!({}))]).await?;
    scene.until_workers("elastic", secs(60), "the three workers of its maximum", so_many_ready(3)).await?;
    let workers = scene.workers("elastic").await?;
    let owners = workers.iter().flat_map(|p| p.metadata.owner_references.iter().flatten());
    ensure!(
        owners.filter(|o| o.kind == "ProverPool" && o.controller == Some(true)).count() == 3,
        "the pool does not own its pods"
    );
    scene.complete("work", secs(120)).await?;
    scene.until_workers("elastic", secs(60), "no workers once the work is done", so_many(0)).await?;

    scene.apply(&[fixed_pool("fixed", 1, json!({}))]).await?;
    scene.until_workers("fixed", secs(60), "one worker", so_many_ready(1)).await?;
    for replicas in [3, 1, 0] {
        scene.kubectl(&["scale", "pp/fixed", &format!("--replicas={replicas}")]).await?;
        let wanted = format!("{replicas} workers");
        scene.until_workers("fixed", secs(60), &wanted, so_many_ready(replicas)).await?;
    }
    scene
        .until_pool("fixed", secs(30), "the status of the scale subresource", |pool| {
            let replicas = pool.status.as_ref().map_or(-1, |s| s.replicas);
            if replicas == 0 { Ok(()) } else { Err(format!("{replicas} replicas")) }
        })
        .await
}

fn so_many(count: usize) -> impl Fn(&[Pod]) -> Look<()> {
    move |pods| if pods.len() == count { Ok(()) } else { Err(format!("{} are there", pods.len())) }
}

fn so_many_ready(count: usize) -> impl Fn(&[Pod]) -> Look<()> {
    move |pods| {
        let ready = pods.iter().filter(|p| is_ready(p)).count();
        if ready == count && pods.len() == count { Ok(()) } else { Err(format!("{ready} are ready")) }
    }
}
