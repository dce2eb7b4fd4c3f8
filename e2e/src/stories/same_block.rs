//! The same block twice: the second job is proven from the artifacts of the first, even when no worker is left.

use crate::lab::Scene;
use crate::lab::objects::{job, pool};
use crate::lab::scene::counts;
use crate::lab::wait::secs;
use anyhow::{Result, ensure};
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene.apply(&[pool("workers", json!({})), job("first", 3, scene.seed, json!({}))]).await?;
    let first = scene.complete("first", secs(60)).await?;
    scene.kubectl(&["delete", "pp/workers", "--timeout=60s"]).await?;
    scene.apply(&[job("second", 3, scene.seed, json!({}))]).await?;
    let second = scene.complete("second", secs(30)).await?;
    ensure!(counts(&first) == counts(&second), "{:?} and {:?} proofs", counts(&first), counts(&second));
    let task =
        |job: &arborist_operator::api::ProvingJob| job.status.as_ref().and_then(|s| s.root_task.clone());
    ensure!(task(&first).is_some() && task(&first) == task(&second), "the roots differ");
    Ok(())
}
