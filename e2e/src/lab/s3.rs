//! A real S3 server in the cluster: SeaweedFS, one static program in an image of nothing else.

use super::Lab;
use super::install::NAMESPACE;
use super::namespaces::MARK;
use super::shell;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// A namespace of its own, without pod security: the image's program runs as root.
pub const S3_NAMESPACE: &str = "arborist-e2e-s3";

const KEY: &str = "arborist";
const SECRET: &str = "not-a-secret-in-a-test";
const PORT: u16 = 8333;

impl Lab {
    /// Starts the S3 server and puts its credentials where the operator and the workers look for them.
    ///
    /// # Errors
    /// It does not become available.
    pub async fn start_s3(&self, watched: &[String]) -> Result<()> {
        // what is in it outlives the pod, and goes with the claim
        ensure!(self.has_volumes().await?, "the S3 server needs a default StorageClass");
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": S3_NAMESPACE, "labels": {MARK: "true"}},
        });
        let image = self.settings.s3_image.as_str();
        let mut objects = vec![namespace, settings(), claim(), deployment(image), service()];
        objects.extend(watched.iter().map(String::as_str).chain([NAMESPACE]).map(credentials));
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        shell::run("kubectl", &["apply", "-f", "-"], &text.join("\n---\n"))
            .await
            .context("start the S3 server")?;
        self.scale_s3(1).await
    }

    /// Removes the S3 server with its namespace.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn stop_s3(&self) -> Result<()> {
        let line = ["delete", "namespace", S3_NAMESPACE, "--ignore-not-found", "--timeout=60s"];
        shell::run("kubectl", &line, "").await?;
        Ok(())
    }

    /// Scales the S3 server to one or none, and waits for it. Its objects stay.
    ///
    /// # Errors
    /// It does not obey within two minutes.
    pub async fn scale_s3(&self, replicas: i32) -> Result<()> {
        let count = format!("--replicas={replicas}");
        shell::run("kubectl", &["-n", S3_NAMESPACE, "scale", "deployment/s3", &count], "").await?;
        let line = ["-n", S3_NAMESPACE, "rollout", "status", "deployment/s3", "--timeout=120s"];
        shell::run("kubectl", &line, "").await?;
        if replicas == 0 {
            let gone = ["-n", S3_NAMESPACE, "wait", "--for=delete", "pod", "-l", "app=s3", "--timeout=60s"];
            shell::run("kubectl", &gone, "").await?;
        }
        Ok(())
    }
}

fn settings() -> Value {
    let identities = json!({"identities": [{
        "name": "arborist", "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]});
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": S3_NAMESPACE},
        "stringData": {"s3.json": identities.to_string()},
    })
}

fn credentials(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store-credentials", "namespace": namespace},
        "stringData": {
            "AWS_ENDPOINT": format!("http://s3.{S3_NAMESPACE}.svc:{PORT}"),
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
        },
    })
}

fn claim() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": S3_NAMESPACE},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s3", "namespace": S3_NAMESPACE},
        "spec": {"selector": {"app": "s3"}, "ports": [{"port": PORT}]},
    })
}

fn deployment(image: &str) -> Value {
    let container = json!({
        "name": "weed", "image": image, "imagePullPolicy": "IfNotPresent",
        "args": ["server", "-dir=/data", "-filer", "-s3", "-s3.config=/etc/s3/s3.json", "-ip=127.0.0.1",
                 "-ip.bind=0.0.0.0", "-master.telemetry=false", "-master.volumeSizeLimitMB=64",
                 "-volume.preStopSeconds=0", "-s3.port.iceberg=0", "-s3.port.lance=0"],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "s3", "mountPath": "/etc/s3"},
                         {"name": "tmp", "mountPath": "/tmp"}],
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "s3", "namespace": S3_NAMESPACE},
        "spec": {
            "replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"app": "s3"}},
            "template": {
                "metadata": {"labels": {"app": "s3"}},
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    // the program reads its options from the environment too, and S3_PORT would be a URL
                    "enableServiceLinks": false,
                    "containers": [container],
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                                {"name": "tmp", "emptyDir": {}},
                                {"name": "s3", "secret": {"secretName": "s3"}}],
                },
            },
        },
    })
}
