//! The operator as the chart installs it, in the flavours that the stories need. One is installed at a time, because
//! an operator of cluster scope serves every namespace.

use super::shell;
use super::wait::{eventually, secs};
use super::{Lab, scene};
use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

/// How the operator is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The chart's own values: real circuits, the RFP's two classes of machine, all namespaces, one operator.
    Plain,
    /// The fake backend and one-core workers; else as `Plain`.
    Fake,
    /// The fake backend, two operators, an S3 store, and only the namespaces of the stories that want it.
    Pair,
}

/// The release, its Deployment and its Services.
pub const RELEASE: &str = "arborist";
/// The operator's namespace.
pub const NAMESPACE: &str = "arborist-system";
/// The operator's pods.
pub const SELECTOR: &str = "app.kubernetes.io/name=arborist,app.kubernetes.io/component=operator";
const METRICS_PORT: u16 = 7701;

impl Lab {
    /// Makes the operator's namespace, with the tests' mark, and installs the CRDs.
    ///
    /// # Errors
    /// helm or the API server refused.
    pub async fn install_crds(&self) -> Result<()> {
        let chart = self.file("charts/arborist-crds");
        self.make_namespace(NAMESPACE).await?;
        let line = ["upgrade", "--install", "arborist-crds", &chart, "-n", NAMESPACE, "--wait"];
        shell::run("helm", &line, "").await?;
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd/proverpools.arborist.dev"];
        shell::run("kubectl", &wait, "").await?;
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd/provingjobs.arborist.dev"];
        shell::run("kubectl", &wait, "").await?;
        Ok(())
    }

    /// Sees to it that the operator is installed in this flavour, anew if it was another.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn ensure(&self, flavour: Flavour, watched: &[String]) -> Result<()> {
        let mut installed = self.installed.lock().await;
        if *installed == Some(flavour) {
            return Ok(());
        }
        self.namespaces_gone().await?;
        self.uninstall().await?;
        *installed = None;
        if flavour == Flavour::Pair {
            for namespace in watched {
                self.make_namespace(namespace).await?;
            }
            self.start_s3(watched).await?;
        }
        self.helm_install(flavour, watched, &[]).await?;
        *installed = Some(flavour);
        Ok(())
    }

    /// `helm upgrade --install` in a flavour, with more `--set` values.
    ///
    /// # Errors
    /// helm gave up waiting, or refused.
    pub async fn helm_install(&self, flavour: Flavour, watched: &[String], more: &[&str]) -> Result<()> {
        let chart = self.file("charts/arborist");
        let mut line: Vec<String> =
            ["upgrade", "--install", RELEASE, &chart, "-n", NAMESPACE, "--wait", "--timeout=180s"]
                .map(str::to_owned)
                .to_vec();
        for value in
            self.values(flavour, watched).await?.iter().map(String::as_str).chain(more.iter().copied())
        {
            line.extend(["--set".to_owned(), value.to_owned()]);
        }
        shell::run("helm", &line, "").await.context("install the operator")?;
        self.leader().await?;
        Ok(())
    }

    async fn values(&self, flavour: Flavour, watched: &[String]) -> Result<Vec<String>> {
        let mut values = vec![];
        if flavour != Flavour::Pair && !self.has_volumes().await? {
            values.push("store.builtIn.persistence.enabled=false".to_owned());
        }
        if let Some(registry) = &self.settings.registry {
            values.push(format!("image.repository={registry}/arborist"));
            values.push(format!("worker.image.repository={registry}/arborist-worker"));
        }
        if let Some(tag) = &self.settings.tag {
            values.extend([format!("image.tag={tag}"), format!("worker.image.tag={tag}")]);
        }
        if flavour != Flavour::Plain {
            values.push("operator.backend=fake".to_owned());
        }
        if flavour != Flavour::Plain || self.small_machines {
            values.push("operator.profile=local".to_owned());
        }
        if flavour == Flavour::Fake {
            // for the story `tenants`
            values.push("tenants.shared[0].pools=e2e-tenants-other".to_owned());
            values.push("tenants.shared[0].jobs={e2e-tenants}".to_owned());
        }
        if flavour == Flavour::Pair {
            values.push("replicas=2".to_owned());
            // a prefix of its own for each run: a journal of an earlier run is another installation's
            values.push(format!("store.url=s3://arborist/{}", self.run));
            values.push("store.credentialsSecret=store-credentials".to_owned());
            values.push(format!("watch.namespaces={{{}}}", watched.join(",")));
        }
        Ok(values)
    }

    /// Whether a claim without a class gets a volume.
    pub(super) async fn has_volumes(&self) -> Result<bool> {
        let classes: Api<StorageClass> = Api::all(self.client.clone());
        let all = classes.list(&ListParams::default()).await.context("list storage classes")?;
        let default = "storageclass.kubernetes.io/is-default-class";
        Ok(all.iter().any(|class| class.annotations().get(default).is_some_and(|v| v == "true")))
    }

    /// Removes the operator with its volume; pools and jobs stay. Only of a cluster that [`Lab::refuse_others`] found to be
    /// the tests'.
    ///
    /// # Errors
    /// helm refused, or pods do not go.
    pub async fn uninstall(&self) -> Result<()> {
        let line = ["uninstall", RELEASE, "-n", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=120s"];
        shell::run("helm", &line, "").await?;
        // the claim is kept on purpose by the chart; the next flavour must not find another backend's proofs
        let line = ["-n", NAMESPACE, "delete", "pvc", "--all", "--ignore-not-found", "--timeout=60s"];
        shell::run("kubectl", &line, "").await?;
        eventually(secs(90), "the operator's pods are gone", || async {
            let pods = self.operators().await.map_err(|e| format!("{e:#}"))?;
            if pods.is_empty() { Ok(()) } else { Err(format!("{} are there", pods.len())) }
        })
        .await?;
        // the local cluster has a few volumes and nobody who makes more
        if self.settings.cluster_tool.is_some() {
            self.cluster(&["storage", "reset"]).await?;
        }
        Ok(())
    }

    /// The API of the operator's pods.
    pub fn operator_pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The operator's pods.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn operators(&self) -> Result<Vec<Pod>> {
        let params = ListParams::default().labels(SELECTOR);
        Ok(self.operator_pods().list(&params).await.context("list the operator's pods")?.items)
    }

    /// Who holds the Lease, `POD_PROCESS`; empty: nobody.
    ///
    /// # Errors
    /// There is no Lease, or the API server does not answer.
    pub async fn holder(&self) -> Result<String, String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let lease = leases.get(RELEASE).await.map_err(|e| e.to_string())?;
        Ok(lease.spec.and_then(|s| s.holder_identity).unwrap_or_default())
    }

    /// The ready pod that holds the Lease.
    ///
    /// # Errors
    /// There is none within a minute.
    pub async fn leader(&self) -> Result<Pod> {
        eventually(secs(60), "a leader that is ready", || async {
            let holder = self.holder().await?;
            let pods = self.operators().await.map_err(|e| format!("{e:#}"))?;
            let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
            let leads = |pod: &Pod| pod_of(&holder) == pod.name_any();
            let leader = pods.into_iter().find(|pod| leads(pod) && scene::is_ready(pod));
            leader.ok_or_else(|| format!("the Lease is held by `{holder}`; pods: {}", names.join(", ")))
        })
        .await
    }

    /// Scales the operator's Deployment and waits for its pods to be so many and ready.
    ///
    /// # Errors
    /// They are not within the limit.
    pub async fn scale_operators(&self, replicas: i32) -> Result<()> {
        let count = format!("--replicas={replicas}");
        shell::run("kubectl", &["-n", NAMESPACE, "scale", "deployment", RELEASE, &count], "").await?;
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), NAMESPACE);
        eventually(secs(120), format!("{replicas} operators ready"), || async {
            let found = deployments.get(RELEASE).await.map_err(|e| e.to_string())?;
            let ready = found.status.and_then(|s| s.ready_replicas).unwrap_or(0);
            let pods = self.operators().await.map_err(|e| format!("{e:#}"))?.len();
            let right = ready == replicas && pods == usize::try_from(replicas).unwrap_or(0);
            if right { Ok(()) } else { Err(format!("{ready} are ready, {pods} pods")) }
        })
        .await
    }

    /// What an operator's pod says at /metrics, read through the API server.
    ///
    /// # Errors
    /// The pod does not answer.
    pub async fn metrics(&self, pod: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{METRICS_PORT}/proxy/metrics");
        shell::run("kubectl", &["get", "--raw", &path], "").await
    }
}

/// The pod of a holder of the Lease.
pub fn pod_of(holder: &str) -> &str {
    holder.rsplit_once('_').map_or(holder, |(pod, _)| pod)
}

/// The sum of a metric's series whose labels contain all of `labels`.
pub fn sum(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let series = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (tags, value) = rest.rsplit_once(' ')?;
        let whole = tags.is_empty() || tags.starts_with('{');
        (whole && labels.iter().all(|l| tags.contains(l))).then(|| value.parse::<f64>().ok())?
    });
    series.fold(None, |total, value| Some(total.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn series_of_one_name_are_summed() {
        let text = "# HELP a b\na{k=\"x\"} 2\na{k=\"y\"} 3\na_total 9\nb 1.5\n";
        assert_eq!(sum(text, "a", &[]), Some(5.0));
        assert_eq!(sum(text, "a", &["k=\"y\""]), Some(3.0));
        assert_eq!(sum(text, "b", &[]), Some(1.5));
        assert_eq!(sum(text, "c", &[]), None);
    }
}
