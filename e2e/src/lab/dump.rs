//! What a failed story leaves behind: all that one would look at, as files, and the most telling of it on screen.

use super::install::{NAMESPACE, SELECTOR};
use super::s3::S3_NAMESPACE;
use super::{Scene, shell};
use anyhow::{Context, Result};
use std::path::Path;

const SHOWN_LINES: usize = 40;
/// The most pods of a namespace whose logs are kept.
const MAX_LOGS: usize = 40;

/// Writes what the cluster says into `out/e2e/STORY/` and prints the key parts.
///
/// # Errors
/// The folder can't be written. What the cluster does not answer is written as such.
pub async fn dump(scene: &Scene<'_>) -> Result<()> {
    let folder = scene.lab.settings.out.join(scene.story);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let ns = scene.namespace.as_str();
    let custom = "pp,pj,pods";
    let looks: [(&str, &[&str]); 8] = [
        ("objects.txt", &["get", custom, "-A", "-o", "wide"]),
        ("describe.txt", &["-n", ns, "describe", custom]),
        ("events.txt", &["-n", ns, "get", "events", "--sort-by=.metadata.creationTimestamp"]),
        ("objects.yaml", &["-n", ns, "get", "pp,pj,pods,configmaps,events.events.k8s.io", "-o", "yaml"]),
        ("nodes.txt", &["describe", "nodes"]),
        ("operator.txt", &["-n", NAMESPACE, "describe", "pods,deployments,leases,endpointslices"]),
        ("s3.txt", &["-n", S3_NAMESPACE, "describe", "pods,pvc,services"]),
        ("operator-events.txt", &["-n", NAMESPACE, "get", "events", "--sort-by=.metadata.creationTimestamp"]),
    ];
    for (file, line) in looks {
        write(&folder, file, &kubectl(line).await)?;
    }
    for (namespace, selector, what) in
        [(ns, "", "pod"), (NAMESPACE, SELECTOR, "operator"), (S3_NAMESPACE, "", "s3")]
    {
        logs(&folder, namespace, selector, what).await?;
    }
    for file in ["objects.txt", "events.txt"] {
        show(&folder, file);
    }
    eprintln!("  everything else: {}", folder.display());
    Ok(())
}

async fn kubectl(line: &[&str]) -> String {
    let line: Vec<&str> = line.iter().copied().chain(["--request-timeout=20s"]).collect();
    shell::output("kubectl", &line, "").await.map_or_else(|e| format!("{e:#}"), |o| o.all())
}

async fn logs(folder: &Path, namespace: &str, selector: &str, what: &str) -> Result<()> {
    let names = kubectl(&["-n", namespace, "get", "pods", "-l", selector, "-o", "name"]).await;
    for pod in names.lines().filter(|line| line.starts_with("pod/")).take(MAX_LOGS) {
        let short = pod.trim_start_matches("pod/");
        let now = kubectl(&["-n", namespace, "logs", pod, "--all-containers", "--tail=20000"]).await;
        write(folder, &format!("{what}-{short}.log"), &now)?;
        let line = ["-n", namespace, "logs", pod, "--all-containers", "--previous", "--tail=5000"];
        let before = shell::output("kubectl", &line, "").await;
        if let Ok(before) = before.map(|o| o.out)
            && !before.is_empty()
        {
            write(folder, &format!("{what}-{short}.previous.log"), &before)?;
        }
    }
    Ok(())
}

fn write(folder: &Path, file: &str, text: &str) -> Result<()> {
    let path = folder.join(file);
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

fn show(folder: &Path, file: &str) {
    let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("  --- {file}");
    for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
        eprintln!("  {line}");
    }
}
