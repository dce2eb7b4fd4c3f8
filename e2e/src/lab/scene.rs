//! One story's place: a namespace of its own, and what is looked at in it.

use super::wait::{Look, eventually};
use super::{Lab, shell};
use anyhow::{Context, Result, ensure};
use arborist_operator::api::conditions::{Condition, Status};
use arborist_operator::api::{LABEL_POOL, ProverPool, ProvingJob};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::Value;
use std::time::Duration;

/// One run of one story.
pub struct Scene<'a> {
    /// The cluster and what is installed there.
    pub lab: &'a Lab,
    /// The story's name.
    pub story: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Differs from run to run: seeds made of it share no proofs with earlier runs.
    pub seed: u64,
}

impl<'a> Scene<'a> {
    /// Another namespace of the same story; whoever makes it clears it.
    pub fn beside(&self, name: &str) -> Scene<'a> {
        Scene { namespace: format!("{}-{name}", self.namespace), seed: self.seed + (1 << 20), ..*self }
    }
}

impl Scene<'_> {
    /// The API of pools.
    pub fn pools(&self) -> Api<ProverPool> {
        Api::namespaced(self.lab.client.clone(), &self.namespace)
    }

    /// The API of jobs.
    pub fn jobs(&self) -> Api<ProvingJob> {
        Api::namespaced(self.lab.client.clone(), &self.namespace)
    }

    /// The API of pods.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.lab.client.clone(), &self.namespace)
    }

    /// kubectl in the story's namespace; what it printed.
    ///
    /// # Errors
    /// It failed.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut line = vec!["-n", &self.namespace];
        line.extend(args);
        shell::run("kubectl", &line, "").await
    }

    /// `kubectl apply` of objects.
    ///
    /// # Errors
    /// They are refused.
    pub async fn apply(&self, objects: &[Value]) -> Result<()> {
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        self.apply_text(&text.join("\n---\n")).await
    }

    /// `kubectl apply` of YAML.
    ///
    /// # Errors
    /// It is refused.
    pub async fn apply_text(&self, yaml: &str) -> Result<()> {
        shell::run("kubectl", &["-n", &self.namespace, "apply", "-f", "-"], yaml).await?;
        Ok(())
    }

    /// Merges `spec` into the spec of an object such as `pj/a`.
    ///
    /// # Errors
    /// It is refused.
    pub async fn patch(&self, object: &str, spec: &Value) -> Result<()> {
        let patch = serde_json::json!({"spec": spec}).to_string();
        self.kubectl(&["patch", object, "--type=merge", "-p", &patch]).await?;
        Ok(())
    }

    /// Waits until `look` is content with the job.
    ///
    /// # Errors
    /// It is not within the limit.
    pub async fn until_job<T>(
        &self,
        name: &str,
        limit: Duration,
        wanted: &str,
        look: impl Fn(&ProvingJob) -> Look<T>,
    ) -> Result<T> {
        let jobs = self.jobs();
        eventually(limit, format!("{wanted} (pj/{name})"), || async {
            let job = jobs.get(name).await.map_err(|e| e.to_string())?;
            look(&job).map_err(|seen| format!("{seen}\n{}", told(&job)))
        })
        .await
    }

    /// Waits until `look` is content with the pool.
    ///
    /// # Errors
    /// It is not within the limit.
    pub async fn until_pool<T>(
        &self,
        name: &str,
        limit: Duration,
        wanted: &str,
        look: impl Fn(&ProverPool) -> Look<T>,
    ) -> Result<T> {
        let pools = self.pools();
        eventually(limit, format!("{wanted} (pp/{name})"), || async {
            let pool = pools.get(name).await.map_err(|e| e.to_string())?;
            look(&pool).map_err(|seen| format!("{seen}\n{}", pool_told(&pool)))
        })
        .await
    }

    /// Waits until `look` is content with the worker pods of a pool; those being deleted are not shown to it.
    ///
    /// # Errors
    /// It is not within the limit.
    pub async fn until_workers<T>(
        &self,
        pool: &str,
        limit: Duration,
        wanted: &str,
        look: impl Fn(&[Pod]) -> Look<T>,
    ) -> Result<T> {
        eventually(limit, format!("{wanted} (pods of pp/{pool})"), || async {
            let workers = self.workers(pool).await.map_err(|e| format!("{e:#}"))?;
            look(&workers).map_err(|seen| format!("{seen}; {}", pods_told(&workers)))
        })
        .await
    }

    /// A pool's worker pods that are not being deleted.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn workers(&self, pool: &str) -> Result<Vec<Pod>> {
        let params = ListParams::default().labels(&format!("{LABEL_POOL}={pool}"));
        let pods = self.pods().list(&params).await.context("list the worker pods")?;
        Ok(pods.items.into_iter().filter(|p| p.metadata.deletion_timestamp.is_none()).collect())
    }

    /// Waits for `kubectl wait --for=condition=Complete`'s condition.
    ///
    /// # Errors
    /// The job is not complete within the limit, or failed.
    pub async fn complete(&self, name: &str, limit: Duration) -> Result<ProvingJob> {
        self.until_job(name, limit, "Complete", |job| {
            holds(job_conditions(job), "Complete").map(|()| job.clone())
        })
        .await
    }

    /// Waits until at least so many proofs of the job are done, and not all of them: what comes then meets it at work.
    ///
    /// # Errors
    /// Not within the limit, or all of them are done: there is nothing left to meet.
    pub async fn under_way(&self, name: &str, at_least: i64, limit: Duration) -> Result<()> {
        let wanted = format!("at least {at_least} proofs done, and not all");
        let (done, all) = self
            .until_job(name, limit, &wanted, |job| match counts(job) {
                (done, all) if done >= at_least || (all > 0 && done >= all) => Ok((done, all)),
                (done, _) => Err(format!("{done} proofs are done")),
            })
            .await?;
        ensure!(
            done < all,
            "pj/{name} was over too soon: {done} of {all} proofs were done at the first look"
        );
        Ok(())
    }

    /// Waits until all of the pool's workers, so many, prove.
    ///
    /// # Errors
    /// Not within the limit.
    pub async fn all_busy(&self, pool: &str, workers: i32, limit: Duration) -> Result<()> {
        self.until_pool(pool, limit, &format!("{workers} busy workers"), |pool| {
            let busy = pool.status.as_ref().map_or(0, |s| s.busy);
            if busy >= workers { Ok(()) } else { Err(format!("{busy} are busy")) }
        })
        .await
    }

    /// Everything that the pool's present pods have logged.
    ///
    /// # Errors
    /// The API server does not answer, or no log is to be had of a running pod.
    pub async fn worker_logs(&self, pool: &str) -> Result<String> {
        let mut all = String::new();
        for pod in self.workers(pool).await? {
            let log = self.pods().logs(&pod.name_any(), &LogParams::default()).await;
            all.push_str(&log.with_context(|| format!("logs of {}", pod.name_any()))?);
        }
        Ok(all)
    }

    /// The messages of the namespace's events with this reason.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn events(&self, reason: &str) -> Result<Vec<String>> {
        let api: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(self.lab.client.clone(), &self.namespace);
        let all = api.list(&ListParams::default()).await.context("list events")?;
        let wanted = all.items.into_iter().filter(|e| e.reason.as_deref() == Some(reason));
        Ok(wanted.map(|e| e.note.unwrap_or_default()).collect())
    }
}

/// A job's conditions.
pub fn job_conditions(job: &ProvingJob) -> &[Condition] {
    job.status.as_ref().map_or(&[], |s| &s.conditions)
}

/// A pool's conditions.
pub fn pool_conditions(pool: &ProverPool) -> &[Condition] {
    pool.status.as_ref().map_or(&[], |s| &s.conditions)
}

fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Result<&'a Condition, String> {
    conditions.iter().find(|c| c.type_ == type_).ok_or_else(|| format!("there is no condition {type_}"))
}

/// Whether a condition is True.
///
/// # Errors
/// What it is instead. A job that is Failed for good says that too.
pub fn holds(conditions: &[Condition], type_: &str) -> Look<()> {
    let found = condition(conditions, type_)?;
    if found.status == Status::True {
        return Ok(());
    }
    Err(format!("{type_} is {:?}: {}: {}", found.status, found.reason, found.message))
}

/// Whether a condition has this status and this reason; its message.
///
/// # Errors
/// What it is instead.
pub fn says(conditions: &[Condition], type_: &str, status: Status, reason: &str) -> Look<String> {
    let found = condition(conditions, type_)?;
    if found.status == status && found.reason == reason {
        return Ok(found.message.clone());
    }
    Err(format!("{type_} is {:?}: {}: {}", found.status, found.reason, found.message))
}

/// Proofs of a job: done, all.
pub fn counts(job: &ProvingJob) -> (i64, i64) {
    let rows = job.status.as_ref().map_or(&[][..], |s| &s.counts);
    (rows.iter().map(|r| r.done).sum(), rows.iter().map(|r| r.total).sum())
}

/// A pod's node, once it has one.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Whether a pod's containers run and are ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn told(job: &ProvingJob) -> String {
    let (done, all) = counts(job);
    format!("  {done}/{all} done\n{}", conditions_told(job_conditions(job)))
}

fn pool_told(pool: &ProverPool) -> String {
    let s = pool.status.clone().unwrap_or_default();
    let numbers = format!(
        "  wanted {} ({}); pods {}: starting {}, idle {}, busy {}, draining {}, unschedulable {}",
        s.wanted, s.wanted_because, s.replicas, s.starting, s.idle, s.busy, s.draining, s.unschedulable
    );
    format!("{numbers}\n{}", conditions_told(&s.conditions))
}

fn conditions_told(conditions: &[Condition]) -> String {
    let lines: Vec<String> = conditions
        .iter()
        .map(|c| format!("  {} {:?} {} {}", c.type_, c.status, c.reason, c.message))
        .collect();
    lines.join("\n")
}

fn pods_told(pods: &[Pod]) -> String {
    let told: Vec<String> = pods
        .iter()
        .map(|pod| {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("?");
            let ready = if is_ready(pod) { "ready" } else { "not ready" };
            format!("{} {phase} {ready} on {}", pod.name_any(), node_of(pod).unwrap_or("no node"))
        })
        .collect();
    format!("{} pods: {}", pods.len(), told.join(", "))
}
