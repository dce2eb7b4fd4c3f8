//! Pods that no node takes are capacity that is not there: another pool does the work, and the first says so. Work that
//! no pool's machines are large enough for starves, and the pool says so.

use crate::lab::Scene;
use crate::lab::objects::{NODE_LABEL, job, pool};
use crate::lab::scene::{holds, pool_conditions, says};
use crate::lab::wait::{eventually, secs};
use anyhow::{Result, ensure};
use arborist_operator::api::conditions::{Status, pool as condition, reason};
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    // the cheaper pool goes first, but its nodes do not exist
    let nowhere = json!({"pricePerHour": "1", "template": {"nodeSelector": {NODE_LABEL: "nowhere"}}});
    let dear = json!({"pricePerHour": "2"});
    scene.apply(&[pool("nowhere", nowhere), pool("dear", dear)]).await?;
    scene.apply(&[job("work", 4, scene.seed, json!({}))]).await?;
    let message = scene
        .until_pool("nowhere", secs(60), "CapacityLimited", |pool| {
            says(pool_conditions(pool), condition::CAPACITY_LIMITED, Status::True, reason::UNSCHEDULABLE)
        })
        .await?;
    println!("   CapacityLimited: {message}");
    scene.complete("work", secs(120)).await?;
    scene.kubectl(&["delete", "pp", "--all", "--timeout=60s"]).await?;

    // every kind of proof needs a pool that takes it: this one leaves the vm proofs to nobody
    let no_vm = json!({"circuits": ["kernel", "base", "merge", "root"]});
    scene
        .apply(&[pool("no-vm", no_vm), job("starved", 2, scene.seed + 1, json!({"blockNumber": 2}))])
        .await?;
    scene
        .until_pool("no-vm", secs(60), "Starved", |pool| holds(pool_conditions(pool), condition::STARVED))
        .await?;
    let pools = scene.pools();
    let found = pools.get("no-vm").await?;
    let starved = pool_conditions(&found).iter().find(|c| c.type_ == condition::STARVED);
    let reason = starved.map(|c| c.reason.as_str()).unwrap_or_default();
    ensure!(reason == reason::NO_FITTING_POOL, "Starved for {reason}");
    eventually(secs(30), "an event that says so", || async {
        let events = scene.events(reason::NO_FITTING_POOL).await.map_err(|e| format!("{e:#}"))?;
        if events.is_empty() { Err("there is none".into()) } else { Ok(()) }
    })
    .await
}
