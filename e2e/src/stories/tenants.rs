//! Two tenants: each one's pools prove its own jobs; another's only when both the pool and the job say so.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job};
use crate::lab::scene::{counts, is_ready, job_conditions, says};
use crate::lab::wait::secs;
use anyhow::{Result, ensure};
use arborist_operator::api::conditions::{Status, reason};
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let other = scene.beside("other");
    scene.lab.make_namespace(&other.namespace).await?;
    let told = tell_both(scene, &other).await;
    let cleared = scene.lab.clear(&other).await;
    told?;
    cleared?;
    scene.lab.delete_namespace(&other.namespace).await
}

async fn tell_both(ours: &Scene<'_>, theirs: &Scene<'_>) -> Result<()> {
    // our pool would take their jobs; theirs takes its own alone
    ours.apply(&[fixed_pool("eager", 1, json!({"jobNamespaces": [theirs.namespace]}))]).await?;
    theirs.apply(&[fixed_pool("closed", 1, json!({}))]).await?;
    for (scene, pool) in [(ours, "eager"), (theirs, "closed")] {
        scene
            .until_workers(pool, secs(60), "one ready worker", |pods| match pods {
                [pod] if is_ready(pod) => Ok(()),
                _ => Err("not yet".into()),
            })
            .await?;
    }
    nobody_is_used(ours, theirs).await?;
    both_agree(ours, theirs).await
}

/// A pool that offers itself is not enough, and neither is a job that asks.
async fn nobody_is_used(ours: &Scene<'_>, theirs: &Scene<'_>) -> Result<()> {
    theirs.kubectl(&["scale", "pp/closed", "--replicas=0"]).await?;
    gone(theirs, "closed").await?;
    theirs.apply(&[job("unasked", 2, theirs.seed, json!({}))]).await?;
    waits_for_workers(theirs, "unasked").await?;
    // our worker is there and proves: it is not for want of one
    ours.apply(&[job("own", 2, ours.seed, json!({}))]).await?;
    ours.complete("own", secs(60)).await?;
    ensure!(done(theirs, "unasked").await? == 0, "a pool proved a job that had not agreed to it");

    theirs.kubectl(&["scale", "pp/closed", "--replicas=1"]).await?;
    theirs.complete("unasked", secs(60)).await?;
    ours.kubectl(&["scale", "pp/eager", "--replicas=0"]).await?;
    gone(ours, "eager").await?;
    let asks = json!({"poolNamespaces": [theirs.namespace], "blockNumber": 2});
    ours.apply(&[job("asks", 2, ours.seed + 1, asks)]).await?;
    waits_for_workers(ours, "asks").await?;
    theirs.apply(&[job("own", 2, theirs.seed + 1, json!({"blockNumber": 2}))]).await?;
    theirs.complete("own", secs(60)).await?;
    ensure!(done(ours, "asks").await? == 0, "a job was proven by a pool that does not name its namespace");
    Ok(())
}

/// Once the pool names the namespace as well, the job that asks is proven.
async fn both_agree(ours: &Scene<'_>, theirs: &Scene<'_>) -> Result<()> {
    theirs.patch("pp/closed", &json!({"jobNamespaces": [ours.namespace]})).await?;
    ours.complete("asks", secs(60)).await?;
    ensure!(ours.workers("eager").await?.is_empty(), "there was a worker of our own");
    Ok(())
}

async fn gone(scene: &Scene<'_>, pool: &str) -> Result<()> {
    scene
        .until_workers(pool, secs(60), "no worker", |pods| match pods {
            [] => Ok(()),
            _ => Err("not yet".into()),
        })
        .await
}

async fn waits_for_workers(scene: &Scene<'_>, name: &str) -> Result<()> {
    scene
        .until_job(name, secs(30), "waiting for workers", |job| {
            says(job_conditions(job), "Proving", Status::False, reason::WAITING_FOR_WORKERS)
        })
        .await?;
    Ok(())
}

async fn done(scene: &Scene<'_>, name: &str) -> Result<i64> {
    Ok(counts(&scene.jobs().get(name).await?).0)
}
