//! A job is deleted while it runs: its tasks are taken from the workers, which then prove the next job. The same block
//! again finds the proofs that were made.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job};
use crate::lab::wait::secs;
use anyhow::{Result, ensure};
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    // a proof takes longer than the whole story waits: only a revoked task frees a worker
    let endless =
        json!({"backend": {"fake": {"millis": "vm=1200000,kernel=100,base=100,merge=100,root=100"}}});
    scene.apply(&[fixed_pool("endless", 2, endless), job("gone", 4, scene.seed, json!({}))]).await?;
    scene.all_busy("endless", 2, secs(60)).await?;
    scene.kubectl(&["delete", "pj/gone", "--timeout=30s"]).await?;
    scene
        .until_pool("endless", secs(30), "idle workers", |pool| {
            let status = pool.status.clone().unwrap_or_default();
            if status.idle == 2 && status.busy == 0 { Ok(()) } else { Err("not yet".into()) }
        })
        .await?;
    let workers = scene.workers("endless").await?;
    let restarted =
        workers.iter().flat_map(|p| p.status.iter().flat_map(|s| s.container_statuses.iter().flatten()));
    ensure!(restarted.map(|c| c.restart_count).sum::<i32>() == 0, "workers were restarted to free them");
    // a block without calls has no vm proofs: the same workers prove it
    let no_calls = json!({"blockNumber": 2, "source": {"synthetic": {"callsPerTransaction": 0}}});
    scene.apply(&[job("next", 4, scene.seed, no_calls)]).await?;
    scene.complete("next", secs(60)).await?;
    Ok(())
}
