//! Faults of nodes, of the control plane, and of single processes. They need the local cluster.

use super::wait::{eventually, secs};
use super::{Lab, Scene, shell};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// How long the cluster's own components may take to see an API server that was away: client-go's watches wait up to
/// twice 30 s between two attempts.
pub const COMES_BACK: Duration = secs(120);

impl Lab {
    /// Runs the local cluster's tool.
    ///
    /// # Errors
    /// There is none, or it failed.
    pub async fn cluster(&self, line: &[&str]) -> Result<()> {
        let tool = self.settings.cluster_tool.as_ref().context("this needs the local cluster")?;
        shell::run(&tool.display().to_string(), line, "").await?;
        Ok(())
    }

    /// Waits until a node is Ready, or until it is not.
    ///
    /// # Errors
    /// It is not so within two minutes.
    pub async fn node_ready(&self, name: &str, wanted: bool) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let what = if wanted { "Ready" } else { "not Ready" };
        eventually(secs(120), format!("node {name} is {what}"), || async {
            let node = nodes.get(name).await.map_err(|e| e.to_string())?;
            let conditions = node.status.and_then(|s| s.conditions).unwrap_or_default();
            let ready = conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone());
            let is = ready.as_deref() == Some("True");
            if is == wanted { Ok(()) } else { Err(format!("Ready is {ready:?}")) }
        })
        .await
    }

    /// Waits until the API server answers.
    ///
    /// # Errors
    /// It does not within a minute.
    pub async fn api_answers(&self) -> Result<()> {
        eventually(secs(60), "the API server answers", || async {
            self.client.apiserver_version().await.map(drop).map_err(|e| e.to_string())
        })
        .await
    }

    /// Waits until controller manager, scheduler and every kubelet follow the API server again: each node runs a pod made
    /// now. Without this, the next story would find a cluster that is still asleep.
    ///
    /// # Errors
    /// They do not within [`COMES_BACK`].
    pub async fn whole_again(&self, scene: &Scene<'_>) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        // a node that counts as lost gets no pod, and is not among those that a DaemonSet wants
        let all = i32::try_from(nodes.list_metadata(&ListParams::default()).await?.items.len())?;
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), &scene.namespace);
        sets.create(&PostParams::default(), &pod_per_node()?).await?;
        eventually(COMES_BACK, format!("a pod runs on each of {all} nodes"), || async {
            let set = sets.get(PROBE).await.map_err(|e| e.to_string())?;
            match set.status {
                Some(s) if s.number_ready == all && s.desired_number_scheduled == all => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await?;
        sets.delete(PROBE, &DeleteParams::background()).await?;
        Ok(())
    }
}

const PROBE: &str = "whole-again";

/// Of the image that the local cluster gives to its nodes for its self-test.
fn pod_per_node() -> Result<DaemonSet> {
    let labels = json!({"app": PROBE});
    let container = json!({
        "name": "main",
        "image": "localhost/box:1",
        "imagePullPolicy": "Never",
        "command": ["sleep", "3600"],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let pod = json!({
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    });
    let set = json!({
        "metadata": {"name": PROBE},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    });
    serde_json::from_value(set).context("the probe's DaemonSet")
}

/// `kill -9` of the processes of this name in a pod: as abrupt as it gets, and the kubelet is not asked.
///
/// # Errors
/// No such process is seen on this machine, or it may not be killed.
pub fn kill_in_pod(pod: &Pod, program: &str) -> Result<()> {
    let uid = pod.uid().context("a pod without uid")?;
    let pids = pids_of(Path::new("/proc"), &uid, program);
    if pids.is_empty() {
        bail!("no process {program} of pod {} on this machine", pod.name_any());
    }
    for pid in pids {
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("kill -9 {pid}"))?;
    }
    Ok(())
}

/// Resident memory of a pod's process in bytes, from this machine's view of it.
///
/// # Errors
/// No such process is seen on this machine.
pub fn resident_bytes(pod: &Pod, program: &str) -> Result<u64> {
    let uid = pod.uid().context("a pod without uid")?;
    let pid =
        *pids_of(Path::new("/proc"), &uid, program).first().context("the process is not on this machine")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS")?;
    Ok(kib * 1024)
}

/// Processes whose cgroup is the pod's: both ways that kubelets write the uid.
fn pids_of(proc: &Path, uid: &str, program: &str) -> Vec<i32> {
    let marks = [format!("pod{uid}"), format!("pod{}", uid.replace('-', "_"))];
    let Ok(entries) = std::fs::read_dir(proc) else { return vec![] };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let read =
            |file: &str| std::fs::read_to_string(proc.join(pid.to_string()).join(file)).unwrap_or_default();
        let cgroup = read("cgroup");
        marks.iter().any(|mark| cgroup.contains(mark)) && read("comm").trim_end() == program
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::pids_of;

    #[test]
    fn processes_are_found_by_the_pods_uid_in_both_spellings() {
        let uid = "11112222-aaaa-bbbb-cccc-333344445555";
        let proc = std::env::temp_dir().join(format!("arborist-e2e-proc-{}", std::process::id()));
        let processes = [
            ("10", "0::/kubepods/burstable/pod11112222-aaaa-bbbb-cccc-333344445555/x", "arborist"),
            ("11", "0::/kubepods-pod11112222_aaaa_bbbb_cccc_333344445555.slice/x", "arborist"),
            ("12", "0::/kubepods/pod11112222-aaaa-bbbb-cccc-333344445555/y", "pause"),
            ("13", "0::/kubepods/podffffffff-aaaa-bbbb-cccc-333344445555/x", "arborist"),
        ];
        for (pid, cgroup, comm) in processes {
            std::fs::create_dir_all(proc.join(pid)).unwrap();
            std::fs::write(proc.join(pid).join("cgroup"), cgroup).unwrap();
            std::fs::write(proc.join(pid).join("comm"), format!("{comm}\n")).unwrap();
        }
        let mut found = pids_of(&proc, uid, "arborist");
        found.sort_unstable();
        std::fs::remove_dir_all(&proc).unwrap();
        assert_eq!(found, [10, 11]);
    }
}
