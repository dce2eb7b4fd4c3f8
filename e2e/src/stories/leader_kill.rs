//! `kill -9` of the leading operator, twice: once its container starts anew, once its pod is gone for good. Somebody leads
//! again, the workers find it, and no finished proof is made again.

use crate::lab::faults::kill_in_pod;
use crate::lab::install::{NAMESPACE, pod_of};
use crate::lab::objects::{fixed_pool, job, proofs};
use crate::lab::records::each_once;
use crate::lab::wait::{eventually, secs};
use crate::lab::{Scene, shell};
use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use std::time::{Duration, Instant};

const TRANSACTIONS: u32 = 40;
/// Proofs are counted again so soon after the leader was killed: what is promised.
const BACK_WITHIN: Duration = secs(15);

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene
        .apply(&[fixed_pool("workers", 3, json!({})), job("work", TRANSACTIONS, scene.seed, json!({}))])
        .await?;
    scene.under_way("work", 8, secs(60)).await?;
    let leader = scene.lab.leader().await?;
    let holder = scene.lab.holder().await.map_err(anyhow::Error::msg)?;
    kill_in_pod(&leader, "arborist")?;
    leads_again(scene, "killed", |now| now != holder).await?;

    scene.under_way("work", 8, secs(60)).await?;
    let leader = scene.lab.leader().await?;
    kill_in_pod(&leader, "arborist")?;
    let name = leader.name_any();
    let line = ["-n", NAMESPACE, "delete", "pod", &name, "--grace-period=0", "--force"];
    shell::run("kubectl", &line, "").await?;
    leads_again(scene, "killed with its pod", |now| pod_of(now) != name).await?;

    scene.complete("work", secs(120)).await?;
    ensure!(scene.workers("workers").await?.len() == 3, "workers were lost with the leader");
    each_once(&scene.worker_logs("workers").await?, proofs(TRANSACTIONS.into()))
}

/// Waits until another holds the Lease, and until that one has counted a proof that was made: soon enough.
async fn leads_again(scene: &Scene<'_>, what: &str, other: impl Fn(&str) -> bool) -> Result<()> {
    let killed = Instant::now();
    let holder = eventually(secs(60), "another leader", || async {
        let now = scene.lab.holder().await?;
        if !now.is_empty() && other(&now) { Ok(now) } else { Err(format!("`{now}` leads")) }
    })
    .await?;
    let elected = killed.elapsed().as_secs_f64();
    eventually(secs(60), "proofs counted by the new leader", || async {
        // proofs that it found at its start are no sign of workers
        let counted = scene.lab.counted(pod_of(&holder)).await.map_err(|e| format!("{e:#}"))?;
        if counted.made > 0 { Ok(()) } else { Err(format!("{counted:?}")) }
    })
    .await?;
    let back = killed.elapsed();
    println!(
        "   leader {what}: {holder} has the Lease after {elected:.1} s, counts proofs after {:.1} s",
        back.as_secs_f64()
    );
    ensure!(
        back < BACK_WITHIN,
        "leader {what}: proofs were counted again after {back:.1?}, promised is less than {BACK_WITHIN:?}"
    );
    Ok(())
}
