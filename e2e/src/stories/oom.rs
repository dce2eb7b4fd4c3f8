//! Workers are killed by the kernel for using more memory than their pods have. The operator learns it from the pods'
//! status, asks for larger machines, says that no pool has them, and goes on when one does.

use crate::lab::Scene;
use crate::lab::books::said;
use crate::lab::install::sum;
use crate::lab::objects::{job, pool};
use crate::lab::records::proven;
use crate::lab::scene::{pool_conditions, says};
use crate::lab::wait::{eventually, secs};
use anyhow::{Result, ensure};
use arborist_operator::api::conditions::{Status, pool as condition, reason};
use kube::ResourceExt;
use serde_json::json;

/// A block of two transactions with a call each.
const PROOFS: usize = 7;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    // every proof on the small machines takes all memory that there is, and more
    let small = json!({
        "pricePerHour": "1", "scaling": {"max": 2},
        "backend": {"fake": {"millis": "300", "faults": "exhaust=1000"}},
    });
    // its workers stay until their logs have been read
    let large = json!({
        "pricePerHour": "4", "scaling": {"max": 2, "scaleDownDelay": "120s"},
        "template": {"resources": {"memory": "2Gi"}},
    });
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
    learned_by_operator(scene).await?;
    let message = scene
        .until_pool("small", secs(60), "Starved", |pool| {
            says(pool_conditions(pool), condition::STARVED, Status::True, reason::NO_FITTING_POOL)
        })
        .await?;
    println!("   Starved: {message}");
    ensure!(message.contains("2Gi"), "nothing is said of larger machines");
    let metrics = scene.lab.metrics(&scene.lab.leader().await?.name_any()).await?;
    let charged = sum(&metrics, "arborist_charges_total", &["reason=\"out_of_memory\""]).unwrap_or(0.0);
    ensure!(charged >= 1.0, "no task was charged for memory");
    scene.apply(&[pool("large", large)]).await?;
    scene.complete("work", secs(180)).await?;
    // the small machines make none, so nothing but these logs says whether the large ones were asked
    let made = proven(&scene.worker_logs("large").await?).len();
    ensure!(made == PROOFS, "the large machines made {made} proofs, not {PROOFS}");
    Ok(())
}

/// Waits until the operator says of a small worker that it was killed for its memory: only the pod's status tells so,
/// the worker itself can't.
async fn learned_by_operator(scene: &Scene<'_>) -> Result<()> {
    let leader = scene.lab.leader().await?.name_any();
    let ours = format!("{}/small-", scene.namespace);
    eventually(secs(30), "the operator knows why a worker ended", || async {
        let log = scene.lab.operator_log(&leader).await.map_err(|e| format!("{e:#}"))?;
        let killed = said(&log, "a worker was killed for using more memory than it has");
        let known = killed.iter().any(|f| f["worker"].as_str().is_some_and(|w| w.starts_with(&ours)));
        if known { Ok(()) } else { Err(format!("it says so of {} workers, none of them ours", killed.len())) }
    })
    .await
}
