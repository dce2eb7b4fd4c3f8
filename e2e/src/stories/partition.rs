//! A node is cut off from the network with its workers, and comes back. Its tasks are made elsewhere meanwhile; what the
//! cut-off workers made counts once at most.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job, laid_over};
use crate::lab::scene::counts;
use crate::lab::wait::secs;
use crate::stories::drain::{spread, worker_node};
use crate::stories::kubelet_down::settled;
use anyhow::{Result, ensure};
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let slow = laid_over(spread(), json!({"backend": {"fake": {"millis": "900"}}}));
    scene.apply(&[fixed_pool("workers", 4, slow), job("work", 24, scene.seed, json!({}))]).await?;
    scene.all_busy("workers", 4, secs(60)).await?;
    let node = worker_node(scene, "workers").await?;
    scene.lab.cluster(&["node", "cut", &node]).await?;
    let told = cut_off(scene, &node).await;
    scene.lab.cluster(&["node", "heal", &node]).await?;
    scene.lab.node_ready(&node, true).await?;
    told?;
    settled(scene).await
}

async fn cut_off(scene: &Scene<'_>, node: &str) -> Result<()> {
    scene.lab.node_ready(node, false).await?;
    let done = scene.complete("work", secs(180)).await?;
    let (made, all) = counts(&done);
    ensure!(made == all, "{made} of {all}");
    Ok(())
}
