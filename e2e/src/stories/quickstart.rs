//! The sample that every user starts with, as it is: two pools, real proofs, and back to nothing. To it comes a
//! coordinator, which must be told once, and the root proof is verified outside of the cluster.

use crate::lab::desk::Desk;
use crate::lab::objects::NODE_LABEL;
use crate::lab::report::checked;
use crate::lab::scene::{counts, holds, job_conditions, node_of};
use crate::lab::wait::{Look, eventually, secs};
use crate::lab::{Scene, install, shell};
use crate::stories::coordinator_down::target;
use anyhow::{Context, Result, ensure};
use arborist_operator::api::ProvingJob;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const JOB: &str = "quickstart";
/// Two transactions with two calls each.
const PROOFS: i64 = 11;
/// What the sample's pools ask for: cores and memory.
const LARGE: [(&str, &str); 2] = [("30", "52Gi"), ("7", "12Gi")];
/// What they ask for on machines that are too small for that.
const SMALL: [(&str, &str); 2] = [("1", "2Gi"), ("1", "1Gi")];
const STATUS_LIMIT: usize = 2_000;
/// The sample's pools, which are called as the class of the nodes that they are for.
const POOLS: [&str; 2] = ["vm", "rollup"];

/// The pool and the node of each worker that was seen on one, by its name in reports.
type Places = BTreeMap<String, (&'static str, String)>;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let tested = ["test", install::RELEASE, "-n", install::NAMESPACE, "--timeout", "60s"];
    shell::run("helm", &tested, "").await.context("helm test")?;
    let desk = Desk::open(scene.lab).await?;
    scene.apply(&[target(&desk)]).await?;
    scene.apply_text(&sample(scene)?).await?;
    let sizes = if scene.lab.small_machines { SMALL } else { LARGE };
    for (pool, (cpu, memory)) in POOLS.into_iter().zip(sizes) {
        let wanted = format!("workers of {cpu} cores and {memory}");
        scene.until_workers(pool, secs(300), &wanted, |pods| as_large(pods, cpu, memory)).await?;
    }
    let (done, places) = complete(scene).await?;
    scene.kubectl(&["wait", "--for=condition=Complete", "pj/quickstart", "--timeout=10s"]).await?;
    ensure!(counts(&done) == (PROOFS, PROOFS), "{:?} proofs", counts(&done));
    let status = serde_json::to_string(&done.status)?.len();
    ensure!(status < STATUS_LIMIT, "the status has {status} bytes");
    println!("{}", scene.kubectl(&["get", "pj,pp,pods"]).await?.trim_end());

    verified_outside(scene, &done).await?;
    let report = told_once(&desk, &done)?;
    on_labelled_nodes(scene, &report, &places).await?;
    // a minute's delay is a user's setting, not what is shown here
    for pool in POOLS {
        scene.patch(&format!("pp/{pool}"), &json!({"scaling": {"scaleDownDelay": "1s"}})).await?;
    }
    for pool in POOLS {
        scene
            .until_workers(pool, secs(90), "no workers once the work is done", |pods| {
                if pods.is_empty() { Ok(()) } else { Err(format!("{} are there", pods.len())) }
            })
            .await?;
    }
    let posts = desk.posts().len();
    ensure!(posts == 1, "{posts} reports came in by the time that all workers were gone");
    Ok(())
}

/// The sample, with a coordinator to report to.
fn sample(scene: &Scene<'_>) -> Result<String> {
    let file = scene.lab.file("manifests/samples/quickstart.yaml");
    let text = std::fs::read_to_string(&file).with_context(|| file.clone())?;
    let (before, job) =
        text.rsplit_once("\nspec:\n").with_context(|| format!("{file}: its job has no spec"))?;
    ensure!(before.contains("kind: ProvingJob"), "{file}: its last object is no job");
    let before = if scene.lab.small_machines { shrunk(before)? } else { before.to_owned() };
    Ok(format!("{before}\nspec:\n  reportTo:\n    - {{name: coordinator, secretName: coordinator}}\n{job}"))
}

/// The pools with less to ask for.
fn shrunk(pools: &str) -> Result<String> {
    let mut text = pools.to_owned();
    for ((cpu, memory), (less_cpu, less_memory)) in LARGE.into_iter().zip(SMALL) {
        for (from, to) in [
            (format!("cpu: \"{cpu}\""), format!("cpu: \"{less_cpu}\"")),
            (format!("memory: {memory}"), format!("memory: {less_memory}")),
        ] {
            ensure!(text.contains(&from), "the sample has no `{from}`");
            text = text.replace(&from, &to);
        }
    }
    Ok(text)
}

/// Whether there is a worker, and all ask for so much.
fn as_large(pods: &[Pod], cpu: &str, memory: &str) -> Look<()> {
    for pod in pods {
        let containers = pod.spec.as_ref().map_or(&[][..], |s| &s.containers);
        let resources = containers.first().and_then(|c| c.resources.as_ref());
        let requests = resources.and_then(|r| r.requests.as_ref());
        let asks = |name: &str| requests.and_then(|r| r.get(name)).map(|q| q.0.as_str()).unwrap_or_default();
        if asks("cpu") != cpu || asks("memory") != memory {
            return Err(format!("{} asks for {} and {}", pod.name_any(), asks("cpu"), asks("memory")));
        }
    }
    if pods.is_empty() { Err("there is none".into()) } else { Ok(()) }
}

/// Waits for the job, and notes meanwhile where its workers are: some may be gone before it is complete.
async fn complete(scene: &Scene<'_>) -> Result<(ProvingJob, Places)> {
    let (jobs, places) = (scene.jobs(), Mutex::new(Places::new()));
    let done = eventually(secs(600), format!("Complete (pj/{JOB})"), || async {
        for pool in POOLS {
            let workers = scene.workers(pool).await.map_err(|e| format!("{e:#}"))?;
            let placed = workers.iter().filter_map(|pod| {
                let name = format!("{}/{}", scene.namespace, pod.name_any());
                Some((name, (pool, node_of(pod)?.to_owned())))
            });
            places.lock().unwrap_or_else(PoisonError::into_inner).extend(placed);
        }
        let job = jobs.get(JOB).await.map_err(|e| e.to_string())?;
        holds(job_conditions(&job), "Complete").map(|()| job)
    })
    .await?;
    Ok((done, places.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// Checks that whoever made proofs, by the report, was on a node with the label that its pool asks for.
async fn on_labelled_nodes(scene: &Scene<'_>, report: &Value, places: &Places) -> Result<()> {
    let nodes: Api<Node> = Api::all(scene.lab.client.clone());
    let shares = report["attribution"]["shares"].as_array().context("no attribution")?;
    ensure!(!shares.is_empty(), "the report credits nobody");
    for share in shares {
        let worker = share["worker"].as_str().context("a share of nobody")?;
        let (pool, node) =
            places.get(worker).with_context(|| format!("{worker} was never seen on a node"))?;
        let labels = nodes.get(node).await?.labels().clone();
        let found = labels.get(NODE_LABEL).map(String::as_str);
        ensure!(found == Some(*pool), "{worker} was on {node}, which is for {found:?}");
        println!("   {worker} on {node}: {} proofs", share["proofs"]);
    }
    Ok(())
}

/// Fetches the root proof as a user would, and verifies it with this machine's program.
async fn verified_outside(scene: &Scene<'_>, done: &ProvingJob) -> Result<()> {
    let root =
        done.status.as_ref().and_then(|s| s.root_proof.clone()).context("no root proof in the status")?;
    let maps: Api<ConfigMap> = Api::namespaced(scene.lab.client.clone(), &scene.namespace);
    let map = maps.get(&root.config_map).await.context("the root proof's ConfigMap")?;
    let folder = scene.lab.settings.out.join(scene.story).join("proof");
    write_proof(&map, &folder)?;
    let program = scene.lab.settings.arborist.display().to_string();
    let said = shell::run(&program, &["verify".to_owned(), folder.display().to_string()], "").await?;
    ensure!(said.contains("valid"), "arborist verify said: {said}");
    println!("   arborist verify: {}", said.lines().next().unwrap_or_default());

    let proof = folder.join("root.proof");
    let mut bytes = std::fs::read(&proof)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&proof, bytes)?;
    let said = shell::output(&program, &["verify".to_owned(), folder.display().to_string()], "").await?;
    ensure!(said.code == 1, "arborist verify took a proof that was tampered with: {}", said.all());
    Ok(())
}

fn write_proof(map: &ConfigMap, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for name in ["root.proof", "public.json"] {
        let binary = map.binary_data.as_ref().and_then(|d| d.get(name)).map(|b| b.0.clone());
        let text = map.data.as_ref().and_then(|d| d.get(name)).map(|t| t.clone().into_bytes());
        let bytes = binary.or(text).with_context(|| format!("{} is not in the ConfigMap", name))?;
        let path: PathBuf = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The coordinator has one report, signed, and what it says is what the job's status says; the report.
fn told_once(desk: &Desk, done: &ProvingJob) -> Result<Value> {
    let posts = desk.posts();
    ensure!(posts.len() == 1, "{} reports came in", posts.len());
    let (report, _) = checked(&posts[0])?;
    let status = done.status.as_ref().context("no status")?;
    let root = status.root_proof.as_ref().context("no root proof")?;
    ensure!(
        report["rootProof"]["sha256"] == root.sha256,
        "the report's proof is another: {}",
        report["rootProof"]
    );
    ensure!(report["job"]["uid"] == json!(done.uid()), "the report is of {}", report["job"]);
    let counted: i64 = report["proofs"]
        .as_array()
        .map_or(0, |rows| rows.iter().filter_map(|row| row["count"].as_i64()).sum());
    ensure!(counted == PROOFS, "the report counts {counted} proofs");
    let shares = report["attribution"]["shares"].as_array().context("no attribution")?;
    let credited: i64 = shares.iter().filter_map(|s| s["proofs"].as_i64()).sum();
    ensure!(credited == PROOFS, "{credited} proofs are credited");
    let content = report["rootProof"]["content"].as_str().context("the report has no proof in it")?;
    ensure!(STANDARD.decode(content)?.len() as i64 == root.bytes, "the report's proof has another size");
    Ok(report)
}
