//! A worker is killed by the kernel for using more memory than its pod has. The engine learns it from the pod's status:
//! the task goes to a pool of larger machines.

use crate::lab::Scene;
use crate::lab::objects::{job, pool};
use crate::lab::scene::counts;
use crate::lab::wait::{eventually, secs};
use anyhow::{Result, ensure};
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    // every vm proof on the small machines takes all memory that there is, and more
    let small = json!({
        "pricePerHour": "1", "scaling": {"max": 2}, "circuits": ["vm"],
        "backend": {"fake": {"millis": "300", "faults": "exhaust=1000"}},
    });
    let large =
        json!({"pricePerHour": "4", "scaling": {"max": 2}, "template": {"resources": {"memory": "2Gi"}}});
    scene.apply(&[pool("small", small)]).await?;
    let one = json!({"source": {"synthetic": {"callsPerTransaction": 1}}});
    scene.apply(&[job("work", 2, scene.seed, one)]).await?;
    let pods = scene.pods();
    eventually(secs(90), "a worker that was OOMKilled", || async {
        let all = pods.list(&kube::api::ListParams::default()).await.map_err(|e| e.to_string())?;
        let states =
            all.iter().flat_map(|p| p.status.iter().flat_map(|s| s.container_statuses.iter().flatten()));
        let ends = states.flat_map(|c| [c.state.as_ref(), c.last_state.as_ref()]).flatten();
        let reasons: Vec<_> = ends.filter_map(|s| s.terminated.as_ref()?.reason.clone()).collect();
        let events = scene.events("OutOfMemory").await.map_err(|e| format!("{e:#}"))?;
        let killed = reasons.iter().any(|r| r == "OOMKilled") || !events.is_empty();
        if killed { Ok(()) } else { Err(format!("containers ended with {reasons:?}")) }
    })
    .await?;
    scene.apply(&[pool("large", large)]).await?;
    let done = scene.complete("work", secs(180)).await?;
    let (made, all) = counts(&done);
    ensure!(made == all, "{made} of {all}");
    Ok(())
}
