//! A node's kubelet dies. Its workers prove on, since nothing is wrong with them, until the cluster gives the node up;
//! then others take over. When the kubelet is back, the old pods go.

use crate::lab::Scene;
use crate::lab::faults::COMES_BACK;
use crate::lab::objects::{fixed_pool, job, laid_over};
use crate::lab::scene::{is_ready, node_of};
use crate::lab::wait::secs;
use crate::stories::drain::{spread, worker_node};
use anyhow::Result;
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let slow = laid_over(spread(), json!({"backend": {"fake": {"millis": "900"}}}));
    scene.apply(&[fixed_pool("workers", 4, slow), job("work", 24, scene.seed, json!({}))]).await?;
    scene.all_busy("workers", 4, secs(60)).await?;
    let node = worker_node(scene, "workers").await?;
    scene.lab.cluster(&["node", "kill-kubelet", &node]).await?;
    let told = without_kubelet(scene, &node).await;
    scene.lab.cluster(&["node", "start-kubelet", &node]).await?;
    scene.lab.node_ready(&node, true).await?;
    told?;
    settled(scene).await?;
    scene.lab.whole_again(scene).await
}

async fn without_kubelet(scene: &Scene<'_>, node: &str) -> Result<()> {
    scene.lab.node_ready(node, false).await?;
    scene
        .until_workers("workers", secs(60), "four ready workers on other nodes", |pods| {
            let elsewhere = pods.iter().filter(|p| is_ready(p) && node_of(p) != Some(node)).count();
            if elsewhere >= 4 { Ok(()) } else { Err(format!("{elsewhere} are there")) }
        })
        .await?;
    scene.complete("work", secs(180)).await?;
    Ok(())
}

/// Waits until no pod of the namespace is left over from the fault.
pub async fn settled(scene: &Scene<'_>) -> Result<()> {
    let pods = scene.pods();
    crate::lab::wait::eventually(COMES_BACK, "four pods, none of them terminating", || async {
        let all = pods.list(&kube::api::ListParams::default()).await.map_err(|e| e.to_string())?.items;
        let leaving = all.iter().filter(|p| p.metadata.deletion_timestamp.is_some()).count();
        if leaving == 0 && all.len() == 4 {
            Ok(())
        } else {
            Err(format!("{} pods, {leaving} leaving", all.len()))
        }
    })
    .await
}
