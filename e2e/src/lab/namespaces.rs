//! Namespaces of the stories.

use super::faults::COMES_BACK;
use super::install::NAMESPACE;
use super::wait::{eventually, secs};
use super::{Lab, Scene, shell};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

/// The label of each namespace that the tests make, the operator's too; its value is `true`. What is in a namespace without
/// it is somebody else's.
pub const MARK: &str = "arborist.dev/e2e";

impl Lab {
    /// Makes a namespace for a story or for the operator, guarded by the strictest pod security.
    ///
    /// # Errors
    /// The API server refuses it, or it gets no service account.
    pub async fn make_namespace(&self, name: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        if let Some(old) = namespaces.get_opt(name).await?
            && old.metadata.deletion_timestamp.is_some()
        {
            self.namespace_gone(name).await?;
        }
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {MARK: "true", "pod-security.kubernetes.io/enforce": "restricted"}},
        }))?;
        match namespaces.create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(error)) if error.code == 409 => {}
            other => drop(other.with_context(|| format!("make namespace {name}"))?),
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
        eventually(COMES_BACK, format!("the service account of {name}"), || async {
            accounts.get("default").await.map(drop).map_err(|e| e.to_string())
        })
        .await
    }

    /// Deletes the namespace's jobs, pools and pods, while there is an operator that takes part in it.
    ///
    /// # Errors
    /// They do not go.
    pub async fn clear(&self, scene: &Scene<'_>) -> Result<()> {
        let kinds = "provingjobs,proverpools,pods";
        shell::run("kubectl", &["-n", &scene.namespace, "delete", kinds, "--all", "--timeout=60s"], "")
            .await?;
        Ok(())
    }

    /// Asks for a namespace's deletion; does not wait for it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match namespaces.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(()),
            other => other.map(drop).with_context(|| format!("delete namespace {name}")),
        }
    }

    async fn namespace_gone(&self, name: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        eventually(secs(120), format!("namespace {name} is gone"), || async {
            match namespaces.get_opt(name).await.map_err(|e| e.to_string())? {
                None => Ok(()),
                Some(found) => Err(serde_json::to_string(&found.status).unwrap_or_default()),
            }
        })
        .await
    }

    /// Deletes all namespaces of stories and waits until they are gone. The operator's stays.
    ///
    /// # Errors
    /// They do not go within two minutes.
    pub async fn namespaces_gone(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let ours = ListParams::default().labels(&format!("{MARK}=true"));
        let found = namespaces.list(&ours).await.context("list namespaces")?;
        let mut names: Vec<String> = found.iter().map(ResourceExt::name_any).collect();
        names.retain(|name| name != NAMESPACE);
        for name in &names {
            self.delete_namespace(name).await?;
        }
        for name in &names {
            self.namespace_gone(name).await?;
        }
        Ok(())
    }
}
