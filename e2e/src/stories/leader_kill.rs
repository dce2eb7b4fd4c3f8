//! `kill -9` of the leading operator: the standby takes over, the workers find it, and no finished proof is made again.

use crate::lab::Scene;
use crate::lab::faults::kill_in_pod;
use crate::lab::objects::{fixed_pool, job, proofs};
use crate::lab::records::each_once;
use crate::lab::wait::{eventually, secs};
use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use std::time::Instant;

const TRANSACTIONS: u32 = 24;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene
        .apply(&[fixed_pool("workers", 3, json!({})), job("work", TRANSACTIONS, scene.seed, json!({}))])
        .await?;
    scene.under_way("work", 8, secs(60)).await?;
    let before = scene.lab.leader().await?;
    kill_in_pod(&before, "arborist")?;
    let killed = Instant::now();
    let leases: kube::Api<k8s_openapi::api::coordination::v1::Lease> =
        kube::Api::namespaced(scene.lab.client.clone(), crate::lab::install::NAMESPACE);
    let dead = before.name_any();
    let after = eventually(secs(60), "another leader", || async {
        let lease = leases.get("arborist").await.map_err(|e| e.to_string())?;
        let holder = lease.spec.and_then(|s| s.holder_identity).unwrap_or_default();
        if holder.is_empty() || holder.starts_with(&dead) { Err(format!("`{holder}`")) } else { Ok(holder) }
    })
    .await?;
    let elected = killed.elapsed();
    eventually(secs(60), "proofs counted by the new leader", || async {
        let made = scene.lab.metric(&after, "arborist_completions_total", &[]).await;
        match made.map_err(|e| format!("{e:#}"))? {
            Some(made) if made > 0.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    println!(
        "   {dead} killed; {after} holds the Lease after {:.1} s, counts proofs after {:.1} s",
        elected.as_secs_f64(),
        killed.elapsed().as_secs_f64()
    );
    scene.complete("work", secs(120)).await?;
    ensure!(scene.workers("workers").await?.len() == 3, "workers were lost with the leader");
    each_once(&scene.worker_logs("workers").await?, proofs(TRANSACTIONS.into()))
}
