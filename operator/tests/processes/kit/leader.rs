//! `arborist operator` with an API server and no cluster.

use super::http::{self, Answer};
use super::{ApiServer, Process, arborist, wait_for};
use serde_json::Value;
use std::path::Path;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/ours/leases/arborist";

/// An operator that leads as soon as it can.
pub struct Leader {
    pub process: Process,
    pub api: ApiServer,
    /// Where it serves health and metrics.
    http: String,
}

impl Leader {
    /// Starts it in this folder, with its state in `state`.
    pub fn start(folder: &Path, api: ApiServer) -> Self {
        let kubeconfig = folder.join("kubeconfig");
        api.write_kubeconfig(&kubeconfig);
        let mut command = arborist();
        command
            .args(["operator", "--namespace=ours", "--pod-name=arborist-0", "--pod-ip=127.0.0.1"])
            .args(["--worker-image=w:1", "--backend=fake", "--log-format=json", "--http=127.0.0.1:0"])
            .args(["--listen=127.0.0.1:0", "--store-listen=127.0.0.1:0", "--leader-lease=4s"])
            .arg("--state")
            .arg(folder.join("state"))
            .env("KUBECONFIG", &kubeconfig);
        let process = Process::spawn(command, folder.join("operator.log"));
        let http = wait_for("it serves health", || process.log(), || served_at(&process.log()));
        Self { process, api, http }
    }

    /// An answer, bad or good.
    pub fn look(&self, path: &str) -> Answer {
        http::look(&self.http, path)
    }

    /// The value of a metric line that starts with `name`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        http::metric(&self.http, name)
    }

    /// Who holds the Lease; empty for nobody.
    pub fn holder(&self) -> String {
        let lease = self.api.object(LEASE);
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until it leads and is ready.
    pub fn wait_leads(&self) {
        let leads = || self.metric("arborist_leader ") == Some(1.0) && self.look("/readyz").status == 200;
        wait_for("it leads", || self.process.log(), || leads().then_some(()));
    }
}

/// What it says of itself when it begins to serve.
fn served_at(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("serving health and metrics"))?;
    let line: Value = serde_json::from_str(line).ok()?;
    line["fields"]["address"].as_str().or(line["address"].as_str()).map(str::to_owned)
}
