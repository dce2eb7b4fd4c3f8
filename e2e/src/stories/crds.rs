//! `e2e/objects`: what the API server takes and what it refuses, with its own word for it.

use crate::lab::objects::{fixed_pool, job};
use crate::lab::{Scene, shell};
use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::path::{Path, PathBuf};

/// How many kubectl run at once.
const AT_ONCE: usize = 4;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let folder = PathBuf::from(scene.lab.file("e2e/objects"));
    let accepted = files(&folder.join("accept"))?;
    let refused = files(&folder.join("reject"))?;
    println!("   {} objects to accept, {} to refuse", accepted.len(), refused.len());
    let all =
        accepted.into_iter().map(|file| (file, true)).chain(refused.into_iter().map(|file| (file, false)));
    let problems: Vec<String> = stream::iter(all.enumerate())
        .map(|(number, (file, accept))| check(scene, number, file, accept))
        .buffer_unordered(AT_ONCE)
        .try_filter_map(|problem| async { Ok(problem) })
        .try_collect()
        .await?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    scale_subresource(scene).await?;
    wait_for_complete(scene).await
}

/// The objects of a folder; a transition is named by its `.before.yaml`.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut all: Vec<PathBuf> = entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    all.retain(|p| {
        p.extension().is_some_and(|e| e == "yaml") && !p.to_string_lossy().ends_with(".after.yaml")
    });
    all.sort();
    ensure!(!all.is_empty(), "{} has no objects", folder.display());
    Ok(all)
}

/// What is wrong with the API server's answer to an object, if something is.
async fn check(scene: &Scene<'_>, number: usize, file: PathBuf, accept: bool) -> Result<Option<String>> {
    let path = file.display().to_string();
    let (tried, answer) = match path.strip_suffix(".before.yaml") {
        None => (path.clone(), send(scene, number, &path, &["create", "--dry-run=server"]).await?),
        Some(stem) => {
            let before = send(scene, number, &path, &["create"]).await?;
            if before.code != 0 {
                return Ok(Some(format!("{path}: was refused: {}", before.err.trim())));
            }
            let after = format!("{stem}.after.yaml");
            let answer = send(scene, number, &after, &["replace", "--dry-run=server"]).await?;
            (after, answer)
        }
    };
    if accept {
        return Ok((answer.code != 0).then(|| format!("{tried}: was refused: {}", answer.err.trim())));
    }
    let text = read(&tried)?;
    let Some(expected) = text.lines().next().and_then(|line| line.strip_prefix("# expect:")).map(str::trim)
    else {
        bail!("{tried}: its first line is not `# expect: part of the message`");
    };
    Ok(match answer.code {
        0 => Some(format!("{tried}: was taken, although `{expected}`")),
        _ if answer.err.contains(expected) => None,
        _ => Some(format!("{tried}: `{expected}` is not in: {}", answer.err.trim())),
    })
}

/// Hands a file to kubectl. Most files name their object `case`: here each of those has a name of its own.
async fn send(scene: &Scene<'_>, number: usize, path: &str, verb: &[&str]) -> Result<shell::Output> {
    let text = read(path)?;
    let own = text.replacen("\n  name: case\n", &format!("\n  name: case-{number}\n"), 1);
    let mut line = vec!["-n", &scene.namespace];
    line.extend(verb);
    line.extend(["-f", "-"]);
    shell::output("kubectl", &line, &own).await
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.to_owned())
}

async fn scale_subresource(scene: &Scene<'_>) -> Result<()> {
    scene.apply(&[fixed_pool("scaled", 1, json!({}))]).await?;
    scene.kubectl(&["scale", "pp/scaled", "--replicas=3"]).await?;
    let found = scene.pools().get("scaled").await?.spec.scaling.replicas;
    ensure!(found == Some(3), "kubectl scale set {found:?} replicas instead of 3");
    Ok(())
}

/// A job's condition is what `kubectl wait` waits for, and its columns show where it stands.
async fn wait_for_complete(scene: &Scene<'_>) -> Result<()> {
    scene.apply(&[job("waited", 2, scene.seed, json!({}))]).await?;
    let status = json!({"status": {"transactions": 2, "progress": "11/11", "conditions": [{
        "type": "Complete", "status": "True", "reason": "Done", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "",
    }]}});
    let patch = status.to_string();
    scene.kubectl(&["patch", "pj/waited", "--subresource=status", "--type=merge", "-p", &patch]).await?;
    scene.kubectl(&["wait", "--for=condition=Complete", "pj/waited", "--timeout=10s"]).await?;
    let table = scene.kubectl(&["get", "arborist"]).await?;
    for expected in
        ["proverpool.arborist.dev/scaled", "provingjob.arborist.dev/waited", "11/11", "True", "Done"]
    {
        ensure!(table.contains(expected), "`{expected}` is not in kubectl get arborist:\n{table}");
    }
    Ok(())
}
