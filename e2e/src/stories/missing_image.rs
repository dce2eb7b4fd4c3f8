//! An image that does not exist: the pool's condition names it, and a corrected pool gets to work.

use crate::lab::Scene;
use crate::lab::objects::{job, pool};
use crate::lab::scene::{pool_conditions, says};
use crate::lab::wait::secs;
use anyhow::{Result, ensure};
use arborist_operator::api::conditions::{Status, pool as condition, reason};
use serde_json::json;

/// `.invalid` never resolves, and `Never` keeps the node from even trying.
const IMAGE: &str = "registry.invalid/nobody/made-this:1";

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let missing = json!({"template": {"image": IMAGE, "imagePullPolicy": "Never"}});
    scene.apply(&[pool("workers", missing), job("work", 2, scene.seed, json!({}))]).await?;
    let message = scene
        .until_pool("workers", secs(60), "ImagePullFailed", |pool| {
            says(pool_conditions(pool), condition::READY, Status::False, reason::IMAGE_PULL_FAILED)
        })
        .await?;
    ensure!(message.contains(IMAGE), "`{message}` does not name {IMAGE}");
    println!("   {message}");
    scene.patch("pp/workers", &json!({"template": {"image": null, "imagePullPolicy": null}})).await?;
    scene.complete("work", secs(120)).await?;
    Ok(())
}
