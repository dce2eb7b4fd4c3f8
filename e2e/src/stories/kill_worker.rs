//! Busy workers are killed: one with its pod, and where the tests reach into pods another by a crash of its process. What
//! they had is made by others, the pods are replaced, and the job completes. The first one's leases are back because its
//! pod was deleted: the operator does not wait for them to expire.

use crate::lab::Scene;
use crate::lab::books::lost_leases;
use crate::lab::faults::kill_in_pod;
use crate::lab::objects::{fixed_pool, job};
use crate::lab::scene::is_ready;
use crate::lab::wait::secs;
use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;

/// The operator's word for a lease that is back because the worker's pod is gone.
const POD_GONE: &str = "worker is dead";

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let slow = json!({"backend": {"fake": {"millis": "1500"}}});
    scene.apply(&[fixed_pool("workers", 3, slow), job("work", 6, scene.seed, json!({}))]).await?;
    scene.all_busy("workers", 3, secs(60)).await?;
    let leader = scene.lab.leader().await?.name_any();
    let before = scene.workers("workers").await?;
    let (victim, crashing) = (before[0].name_any(), before[1].name_any());
    scene.kubectl(&["delete", "pod", &victim, "--grace-period=0", "--force"]).await?;
    let crashes = scene.lab.settings.cluster_tool.is_some();
    if crashes {
        kill_in_pod(&before[1], "arborist-worker")?;
    }
    scene
        .until_workers("workers", secs(60), "three workers again, without the one deleted", |pods| {
            let back = pods.len() == 3 && pods.iter().all(|p| is_ready(p) && p.name_any() != victim);
            if back { Ok(()) } else { Err("not yet".into()) }
        })
        .await?;
    let done = scene.complete("work", secs(120)).await?;
    let failed: i64 = done.status.iter().flat_map(|s| &s.counts).map(|row| row.failed).sum();
    ensure!(failed == 0, "{failed} tasks count as failed");

    let log = scene.lab.operator_log(&leader).await?;
    let lost = |pod: &str| lost_leases(&log, &format!("{}/{pod}", scene.namespace));
    let (deleted, crashed) = (lost(&victim), lost(&crashing));
    println!("   leases lost: {deleted:?} of the pod deleted, {crashed:?} of the one that crashed");
    ensure!(!deleted.is_empty(), "the deleted pod's worker lost no lease: it had none, or kept it");
    ensure!(
        deleted.iter().all(|why| why == POD_GONE),
        "leases of the deleted pod's worker came back for {deleted:?}, not because the pod was deleted"
    );
    ensure!(!crashes || !crashed.is_empty(), "the crashed worker lost no lease: it had none, or kept it");
    Ok(())
}
