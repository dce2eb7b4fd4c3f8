//! A pod that logs in with a token for somebody else's audience is refused, and the refusal is counted.

use crate::lab::Scene;
use crate::lab::install::sum;
use crate::lab::objects::fixed_pool;
use crate::lab::scene::is_ready;
use crate::lab::wait::{eventually, secs};
use anyhow::{Context, Result};
use kube::ResourceExt;
use serde_json::{Value, json};

const REFUSED: &str = "arborist_logins_refused_total";

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene.apply(&[fixed_pool("workers", 1, json!({}))]).await?;
    let pod = scene
        .until_workers("workers", secs(60), "one ready worker", |pods| match pods {
            [pod] if is_ready(pod) => Ok(pod.clone()),
            _ => Err("not yet".into()),
        })
        .await?;
    let leader = scene.lab.leader().await?.name_any();
    let before = refused(scene, &leader).await?;
    let spec = serde_json::to_value(pod.spec.context("a pod without spec")?)?;
    scene.apply(&[stranger(spec)?]).await?;
    eventually(secs(60), "a refused login that is counted", || async {
        let now = refused(scene, &leader).await.map_err(|e| format!("{e:#}"))?;
        if now > before { Ok(()) } else { Err(format!("{now} refused")) }
    })
    .await?;
    eventually(secs(60), "the stranger's word for it", || async {
        let log = scene.kubectl(&["logs", "stranger"]).await.map_err(|e| format!("{e:#}"))?;
        if log.contains("not connected") && !log.contains("logged in") { Ok(()) } else { Err(log) }
    })
    .await
}

/// Logins refused for the token itself, not for the pod that it is of.
async fn refused(scene: &Scene<'_>, leader: &str) -> Result<f64> {
    let text = scene.lab.metrics(leader).await?;
    let causes = ["cause=\"token\"", "cause=\"audience\""];
    Ok(causes.iter().filter_map(|cause| sum(&text, REFUSED, &[cause])).sum())
}

/// The same pod as a worker's in everything but the audience of its token. It has a worker's name too, or the operator's
/// NetworkPolicy would not let it get as far as the login.
fn stranger(mut spec: Value) -> Result<Value> {
    let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut).context("no volumes")?;
    let sources =
        volumes.iter_mut().filter_map(|v| v.pointer_mut("/projected/sources")?.as_array_mut()).flatten();
    let tokens: Vec<&mut Value> = sources.filter_map(|s| s.get_mut("serviceAccountToken")).collect();
    anyhow::ensure!(!tokens.is_empty(), "the worker has no projected token");
    for token in tokens {
        token["audience"] = json!("somebody-else");
    }
    for field in ["nodeName", "priority", "preemptionPolicy"] {
        if let Some(map) = spec.as_object_mut() {
            map.remove(field);
        }
    }
    Ok(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "stranger", "labels": {"app.kubernetes.io/name": "arborist-worker"}},
        "spec": spec,
    }))
}
