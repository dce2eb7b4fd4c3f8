//! Busy workers are killed, one by the API and one as by a crash of its process: their tasks are made by others, the pods
//! are replaced, and the job completes.

use crate::lab::Scene;
use crate::lab::faults::kill_in_pod;
use crate::lab::objects::{fixed_pool, job};
use crate::lab::scene::{counts, is_ready};
use crate::lab::wait::secs;
use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let slow = json!({"backend": {"fake": {"millis": "1500"}}});
    scene.apply(&[fixed_pool("workers", 3, slow), job("work", 6, scene.seed, json!({}))]).await?;
    scene.all_busy("workers", 3, secs(60)).await?;
    let before = scene.workers("workers").await?;
    let victim = before[0].name_any();
    scene.kubectl(&["delete", "pod", &victim, "--grace-period=0", "--force"]).await?;
    if scene.lab.settings.cluster_tool.is_some() {
        kill_in_pod(&before[1], "arborist-worker")?;
    }
    scene
        .until_workers("workers", secs(60), "three workers again, without the one deleted", |pods| {
            let back = pods.len() == 3 && pods.iter().all(|p| is_ready(p) && p.name_any() != victim);
            if back { Ok(()) } else { Err("not yet".into()) }
        })
        .await?;
    let done = scene.complete("work", secs(120)).await?;
    let (made, all) = counts(&done);
    ensure!(made == all, "{made} of {all}");
    let failed: i64 = done.status.iter().flat_map(|s| &s.counts).map(|row| row.failed).sum();
    ensure!(failed == 0, "{failed} tasks count as failed");
    Ok(())
}
