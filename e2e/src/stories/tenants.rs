//! Two tenants: each one's pools prove its own jobs; another's only when the pool and the operator's settings both say so.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job};
use crate::lab::scene::{counts, is_ready, job_conditions, says};
use crate::lab::wait::secs;
use anyhow::{Result, ensure};
use arborist_operator::api::conditions::{Status, reason};
use kube::ResourceExt;
use serde_json::json;

/// What the other namespace is called beside the story's own.
const OTHER: &str = "other";

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let other = scene.beside(OTHER);
    scene.lab.make_namespace(&other.namespace).await?;
    let told = tell_both(scene, &other).await;
    let cleared = scene.lab.clear(&other).await;
    told?;
    cleared?;
    scene.lab.delete_namespace(&other.namespace).await
}

async fn tell_both(ours: &Scene<'_>, theirs: &Scene<'_>) -> Result<()> {
    // our pool would take their jobs, which the settings don't allow; theirs may take ours, but does not offer itself
    ours.apply(&[fixed_pool("eager", 1, json!({"jobNamespaces": ["*"]}))]).await?;
    theirs.apply(&[fixed_pool("closed", 0, json!({}))]).await?;
    worker(ours, "eager").await?;
    an_offer_alone_is_not_enough(ours, theirs).await?;
    ours.kubectl(&["scale", "pp/eager", "--replicas=0"]).await?;
    gone(ours, "eager").await?;
    leave_alone_is_not_enough(ours, theirs).await?;
    both_agree(ours, theirs).await
}

/// A pool that names everybody proves no job of a namespace that the operator does not give it.
async fn an_offer_alone_is_not_enough(ours: &Scene<'_>, theirs: &Scene<'_>) -> Result<()> {
    theirs.apply(&[job("first", 2, theirs.seed, json!({}))]).await?;
    waits_for_workers(theirs, "first").await?;
    ours.apply(&[job("own", 2, ours.seed, json!({}))]).await?;
    ours.complete("own", secs(60)).await?;
    ensure!(done(theirs, "first").await? == 0, "a pool proved a job of a namespace that is not its own");
    Ok(())
}

/// A pool that does not name a namespace proves none of its jobs, whatever the operator allows.
async fn leave_alone_is_not_enough(ours: &Scene<'_>, theirs: &Scene<'_>) -> Result<()> {
    ours.apply(&[job("second", 2, ours.seed + 1, json!({"blockNumber": 2}))]).await?;
    waits_for_workers(ours, "second").await?;
    theirs.kubectl(&["scale", "pp/closed", "--replicas=1"]).await?;
    theirs.complete("first", secs(60)).await?;
    ensure!(done(ours, "second").await? == 0, "a job was proven by a pool that does not name its namespace");
    Ok(())
}

/// Once the pool names the namespace as well, its worker proves the job: the one that is there, not a new one.
async fn both_agree(ours: &Scene<'_>, theirs: &Scene<'_>) -> Result<()> {
    let before = worker(theirs, "closed").await?;
    theirs.patch("pp/closed", &json!({"jobNamespaces": [ours.namespace]})).await?;
    ours.complete("second", secs(60)).await?;
    ensure!(ours.workers("eager").await?.is_empty(), "there was a worker of our own");
    ensure!(worker(theirs, "closed").await? == before, "the worker was replaced");
    Ok(())
}

/// The name of a pool's only worker, once it is ready.
async fn worker(scene: &Scene<'_>, pool: &str) -> Result<String> {
    scene
        .until_workers(pool, secs(60), "one ready worker", |pods| match pods {
            [pod] if is_ready(pod) => Ok(pod.name_any()),
            _ => Err("not yet".into()),
        })
        .await
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
