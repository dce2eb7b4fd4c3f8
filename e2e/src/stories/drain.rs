//! A node is drained under its workers: they finish or hand back what they have, and the job completes on other nodes.

use crate::lab::objects::{fixed_pool, job};
use crate::lab::scene::{is_ready, node_of};
use crate::lab::wait::secs;
use crate::lab::{Scene, shell};
use anyhow::{Context, Result};
use arborist_operator::api::LABEL_POOL;
use kube::ResourceExt;
use serde_json::{Value, json};

/// So few that one small node has room for all of them.
const WORKERS: usize = 2;

/// Workers spread over the nodes.
pub fn spread() -> Value {
    json!({"template": {"topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"},
    ]}})
}

/// A node that has a worker of the pool, and no operator.
pub async fn worker_node(scene: &Scene<'_>, pool: &str) -> Result<String> {
    let operators = scene.lab.operators().await?;
    let taken: Vec<&str> = operators.iter().filter_map(node_of).collect();
    let workers = scene.workers(pool).await?;
    let node = workers.iter().filter_map(node_of).find(|node| !taken.contains(node));
    Ok(node.context("all workers are on operators' nodes")?.to_owned())
}

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let workers = fixed_pool("workers", WORKERS as i32, spread());
    scene.apply(&[workers, job("work", 24, scene.seed, json!({}))]).await?;
    scene.all_busy("workers", WORKERS as i32, secs(60)).await?;
    let node = worker_node(scene, "workers").await?;
    // other people's pods on the node stay
    let ours = format!("--pod-selector={LABEL_POOL}");
    let line =
        ["drain", &node, &ours, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"];
    let drained = shell::run("kubectl", &line, "").await;
    let moved = scene
        .until_workers("workers", secs(60), "as many ready workers on other nodes", |pods| {
            let moved = pods.iter().filter(|p| is_ready(p) && node_of(p) != Some(&node)).count();
            if moved == WORKERS && pods.len() == WORKERS { Ok(()) } else { Err(format!("{moved} are there")) }
        })
        .await;
    // whatever went wrong, the node is not left like this
    shell::run("kubectl", &["uncordon", &node], "").await?;
    drained?;
    moved?;
    let names: Vec<String> = scene.workers("workers").await?.iter().map(ResourceExt::name_any).collect();
    println!("   {node} was drained; now: {}", names.join(", "));
    scene.complete("work", secs(120)).await?;
    Ok(())
}
