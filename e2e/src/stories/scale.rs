//! A large block wants thousands of workers. Their nodes and pods are simulated on the real API server (kwok), so the
//! operator does all of its work on them but for the connections; a few real workers prove meanwhile.

use crate::lab::Scene;
use crate::lab::faults::resident_bytes;
use crate::lab::objects::{NODE_LABEL, fixed_pool, job, laid_over, pool, proofs};
use crate::lab::scene::counts;
use crate::lab::wait::{eventually, secs};
use anyhow::{Context, Result, ensure};
use arborist_operator::api::LABEL_POOL;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;

const CLASS: &str = "simulated";
const TAINT: &str = "arborist.dev/simulated";
/// The most pods that the bare client makes to compare with.
const BARE: u32 = 2_000;
/// Requests that the bare client has under way at once: as many as the operator.
const BARE_AT_ONCE: usize = 32;
/// Proofs made while the API writes are counted.
const WINDOW: i64 = 5_000;
const RSS_LIMIT: u64 = 80 << 20;
const STATUS_LIMIT: usize = 2_000;
const RATE_WANTED: f64 = 0.8;
const WRITES_PER_TASK: f64 = 0.1;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene.lab.cluster(&["kwok", "start"]).await?;
    let told = grow(scene).await;
    let cleaned = clean(scene).await;
    let stopped = scene.lab.cluster(&["kwok", "stop"]).await;
    told.and(cleaned).and(stopped)
}

async fn grow(scene: &Scene<'_>) -> Result<()> {
    let size = scene.lab.settings.scale.clone();
    make_nodes(scene, size.nodes).await?;
    let leader = scene.lab.leader().await?;
    let before = resident_bytes(&leader, "arborist")?;
    let bare = bare_rate(scene, size.pods.min(BARE)).await?;
    scene.apply(&[simulated(size.pods, scene)]).await?;
    let large = job("large", size.transactions, scene.seed, json!({}));
    scene.apply(&[large]).await?;
    let mut born = born_rate(scene, "simulated", size.pods).await?;
    running(scene, "simulated", size.pods).await?;
    scene.apply(&[real()]).await?;
    if size.pending > 0 {
        let nowhere = json!({"template": {"nodeSelector": {NODE_LABEL: "nowhere"}}});
        scene.apply(&[fixed_pool("pending", i32::try_from(size.pending)?, nowhere)]).await?;
        let rate = born_rate(scene, "pending", size.pending).await?;
        if size.pending > size.pods {
            born = rate;
        }
    }
    let throttled = throttled(scene, &leader.name_any()).await?;
    let per_task = writes_per_task(scene, &leader.name_any()).await?;
    let after = resident_bytes(&leader, "arborist")?;
    report(&size, born, bare, per_task, before, after);
    statuses_are_small(scene).await?;
    ensure!(throttled == 0.0, "the API server turned {throttled} requests of the operator away");
    ensure!(born >= RATE_WANTED * bare, "{born:.0} pods a second, a bare client makes {bare:.0}");
    ensure!(after <= RSS_LIMIT, "the operator has {} MB", after >> 20);
    ensure!(per_task <= WRITES_PER_TASK, "{per_task:.4} API writes a task");
    Ok(())
}

fn report(size: &crate::lab::Scale, born: f64, bare: f64, per_task: f64, before: u64, after: u64) {
    let tasks = proofs(size.transactions.into());
    println!("   {} nodes, {} + {} pods, {tasks} tasks", size.nodes, size.pods, size.pending);
    let ratio = born / bare;
    println!("   pods made: {born:.0} per s; a bare client: {bare:.0} per s; ratio {ratio:.2}");
    println!("   API writes: {per_task:.5} per task");
    println!("   operator: {} MB before, {} MB now", before >> 20, after >> 20);
}

/// A pool whose pods only simulated nodes take. They never log in: nobody is to give them up for that.
fn simulated(max: u32, scene: &Scene<'_>) -> Value {
    let spec = json!({
        "pricePerHour": "1",
        "template": {
            "nodeSelector": {NODE_LABEL: CLASS},
            "tolerations": [{"key": TAINT, "operator": "Exists", "effect": "NoSchedule"}],
            "labels": {"e2e-run": scene.lab.run.to_string()},
        },
        "scaling": {"max": max, "startupEstimate": "1h", "scaleDownDelay": "1h"},
    });
    pool("simulated", spec)
}

/// A few real workers, whose proofs take so long that they leave the CPU to the cluster.
fn real() -> Value {
    fixed_pool("real", 3, json!({"backend": {"fake": {"millis": "20"}}, "template": {"env": null}}))
}

async fn make_nodes(scene: &Scene<'_>, count: u32) -> Result<()> {
    let nodes: Api<Node> = Api::all(scene.lab.client.clone());
    let resources = json!({"cpu": "32", "memory": "64Gi", "pods": "110"});
    stream::iter(0..count)
        .map(|number| {
            let node = json!({
                "metadata": {
                    "name": format!("simulated-{number}"),
                    "labels": {NODE_LABEL: CLASS, "kubernetes.io/hostname": format!("simulated-{number}")},
                    "annotations": {"kwok.x-k8s.io/node": "fake"},
                },
                "spec": {"taints": [{"key": TAINT, "value": "true", "effect": "NoSchedule"}]},
                "status": {"capacity": resources, "allocatable": resources},
            });
            let nodes = nodes.clone();
            async move {
                let node: Node = serde_json::from_value(node)?;
                nodes.create(&PostParams::default(), &node).await.context("make a simulated node")
            }
        })
        .buffer_unordered(BARE_AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let limit = Duration::from_secs(60 + u64::from(count) / 4);
    let ours = ListParams::default().labels(&format!("{NODE_LABEL}={CLASS}"));
    eventually(limit, format!("{count} simulated nodes ready"), || async {
        let all = nodes.list(&ours).await.map_err(|e| e.to_string())?;
        let ready = all.iter().filter(|n| node_is_ready(n)).count();
        if ready == count as usize { Ok(()) } else { Err(format!("{ready} are ready")) }
    })
    .await
}

fn node_is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether the pool has so many pods that are as `like` says.
async fn there(
    scene: &Scene<'_>,
    pool: &str,
    wanted: u32,
    like: fn(&Pod) -> bool,
) -> Result<Vec<Pod>, String> {
    let pods = scene.workers(pool).await.map_err(|e| format!("{e:#}"))?;
    let found = pods.iter().filter(|p| like(p)).count();
    if found >= wanted as usize { Ok(pods) } else { Err(format!("{found} of {} pods", pods.len())) }
}

/// What thousands of pods may take.
fn limit(pods: u32) -> Duration {
    Duration::from_secs(120 + u64::from(pods) / 5)
}

/// Waits for all pods of the pool to be made; how many a second, by their own creation times.
async fn born_rate(scene: &Scene<'_>, pool: &str, wanted: u32) -> Result<f64> {
    // the pool is asked and not the pods, many times a second: thousands of them are a load of their own
    let what = format!("{wanted} pods of {pool} made");
    eventually(limit(wanted), what, || async {
        let status = scene.pools().get(pool).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        if status.replicas >= i32::try_from(wanted).unwrap_or(i32::MAX) {
            Ok(())
        } else {
            Err(format!("{} pods", status.replicas))
        }
    })
    .await?;
    let pods = scene.workers(pool).await?;
    ensure!(pods.len() >= wanted as usize, "the pool counts {wanted} pods, and {} are there", pods.len());
    Ok(rate(&pods))
}

async fn running(scene: &Scene<'_>, pool: &str, wanted: u32) -> Result<()> {
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    eventually(limit(wanted), format!("{wanted} pods running"), || there(scene, pool, wanted, phase)).await?;
    Ok(())
}

/// How many pods a second a client makes that does nothing else: as many pods of the same pool on the same nodes, which the
/// cluster schedules meanwhile, as it does the operator's.
async fn bare_rate(scene: &Scene<'_>, count: u32) -> Result<f64> {
    let fixed = json!({"spec": {"scaling": {"mode": "Fixed", "replicas": 1}}});
    scene.apply(&[laid_over(simulated(1, scene), fixed)]).await?;
    let what = "a pod to copy";
    let models = eventually(limit(1), what, || there(scene, "simulated", 1, |_| true)).await?;
    scene.kubectl(&["delete", "pp", "simulated", "--timeout=60s"]).await?;
    delete_pods(scene, LABEL_POOL).await?;
    let model = models.first().context("there is no pod to copy")?;
    let pods = scene.pods();
    let made: Vec<Pod> = stream::iter(0..count)
        .map(|number| {
            let (pods, copy) = (pods.clone(), copy(model, number));
            async move { pods.create(&PostParams::default(), &copy).await.context("make a bare pod") }
        })
        .buffer_unordered(BARE_AT_ONCE)
        .try_collect()
        .await?;
    delete_pods(scene, "bare=true").await?;
    Ok(rate(&made))
}

/// Pods made a second, by the creation times that the API server gave them. They are whole seconds: the first and the last are
/// both part of the span.
fn rate(pods: &[Pod]) -> f64 {
    let times = pods.iter().filter_map(|p| Some(p.creation_timestamp()?.0.as_second()));
    let (first, last) = times.fold((i64::MAX, i64::MIN), |(a, b), t| (a.min(t), b.max(t)));
    pods.len() as f64 / (last - first + 1) as f64
}

fn copy(model: &Pod, number: u32) -> Pod {
    let mut pod = model.clone();
    pod.metadata = kube::api::ObjectMeta {
        name: Some(format!("bare-{number}")),
        labels: Some([("bare".to_owned(), "true".to_owned())].into()),
        ..Default::default()
    };
    pod.status = None;
    if let Some(spec) = &mut pod.spec {
        spec.node_name = None;
    }
    pod
}

/// API writes of the operator for each proof made, over a window of proofs while all pods are there.
async fn writes_per_task(scene: &Scene<'_>, leader: &str) -> Result<f64> {
    let done = |job: &_| Ok::<_, String>(counts(job).0);
    let from = scene.until_job("large", secs(30), "counts", done).await?;
    let writes_before = writes(scene, leader).await?;
    let to = scene
        .until_job("large", secs(300), "a window of proofs", |job| {
            let now = counts(job).0;
            if now >= from + WINDOW { Ok(now) } else { Err(format!("{} of {WINDOW}", now - from)) }
        })
        .await?;
    Ok((writes(scene, leader).await? - writes_before) / (to - from) as f64)
}

/// Requests that the API server answered with 429 so far.
async fn throttled(scene: &Scene<'_>, leader: &str) -> Result<f64> {
    let text = scene.lab.metrics(leader).await?;
    let name = "arborist_api_requests_total";
    ensure!(crate::lab::install::sum(&text, name, &["code=\"2"]).is_some(), "the operator has no {name}");
    Ok(crate::lab::install::sum(&text, name, &["code=\"429\""]).unwrap_or(0.0))
}

async fn writes(scene: &Scene<'_>, leader: &str) -> Result<f64> {
    let text = scene.lab.metrics(leader).await?;
    let name = "arborist_api_requests_total";
    let all = ["create", "update", "patch", "delete"]
        .iter()
        .filter_map(|verb| crate::lab::install::sum(&text, name, &[&format!("verb=\"{verb}\"")]));
    let all: Vec<f64> = all.collect();
    ensure!(!all.is_empty(), "the operator has no {name}");
    Ok(all.iter().sum())
}

async fn statuses_are_small(scene: &Scene<'_>) -> Result<()> {
    let job = serde_json::to_string(&scene.jobs().get("large").await?.status)?.len();
    let pool = serde_json::to_string(&scene.pools().get("simulated").await?.status)?.len();
    println!("   status: {job} bytes of the job, {pool} of the pool");
    ensure!(job < STATUS_LIMIT && pool < STATUS_LIMIT, "a status is too large");
    Ok(())
}

/// Deletes pods at once, in parallel, until none with these labels is left. One request for all of them would be
/// broken off by the API server before it is through.
async fn delete_pods(scene: &Scene<'_>, labels: &str) -> Result<()> {
    let ours = ListParams::default().labels(labels);
    let pods = scene.pods();
    eventually(secs(600), format!("no pods with {labels}"), || async {
        let left = pods.list_metadata(&ours).await.map_err(|e| e.to_string())?.items;
        stream::iter(left.iter().map(ResourceExt::name_any))
            .for_each_concurrent(BARE_AT_ONCE, |name| {
                let pods = pods.clone();
                let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
                // what fails is found by the next look
                async move { drop(pods.delete(&name, &now).await) }
            })
            .await;
        if left.is_empty() { Ok(()) } else { Err(format!("{} were left", left.len())) }
    })
    .await
}

async fn clean(scene: &Scene<'_>) -> Result<()> {
    scene.kubectl(&["delete", "pj,pp", "--all", "--wait=false"]).await?;
    delete_pods(scene, LABEL_POOL).await?;
    delete_pods(scene, "bare=true").await?;
    let nodes: Api<Node> = Api::all(scene.lab.client.clone());
    let ours = ListParams::default().labels(&format!("{NODE_LABEL}={CLASS}"));
    let names: Vec<String> =
        nodes.list_metadata(&ours).await?.items.iter().map(ResourceExt::name_any).collect();
    stream::iter(names)
        .for_each_concurrent(BARE_AT_ONCE, |name| {
            let nodes = nodes.clone();
            // a node that is left over does no harm
            async move { drop(nodes.delete(&name, &DeleteParams::default()).await) }
        })
        .await;
    Ok(())
}
