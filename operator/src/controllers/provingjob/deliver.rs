//! Sending a report to a target, once. Runs beside the visits, one at a time for a job.

use super::Controller;
use super::memory::Found;
use super::publish::{REPORT_JSON, map_name};
use super::validate::Validated;
use crate::api::ReportTarget;
use crate::report::{ReportError, SignedReport, Target, idempotency_key};
use arborist_core::ids::TaskId;
use bytes::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use url::Url;

/// Why a report could not be sent, whatever its target would have said: no attempt, and tried again.
#[derive(Debug, thiserror::Error)]
enum Hindrance {
    #[error("read {what}")]
    Api { what: String, source: kube::Error },
    #[error("another operator (epoch {0}) has taken over")]
    Fenced(u64),
}

impl Hindrance {
    fn api(what: String, source: kube::Error) -> Self {
        Self::Api { what, source }
    }

    /// For people, in a status.
    fn words(&self) -> String {
        match self {
            // its own display repeats itself
            Self::Api { source: kube::Error::Api(status), .. } => {
                format!("{self}: {} {}", status.code, status.message)
            }
            Self::Api { source, .. } => format!("{self}: {source}"),
            Self::Fenced(_) => self.to_string(),
        }
    }
}

/// Sends the report that was written down.
pub(super) async fn deliver(me: &Controller, job: &Validated, target: &ReportTarget, root: TaskId) -> Found {
    let result = match written_down(me, job).await {
        Ok(Some(body)) => send(me, job, target, root, body).await,
        Ok(None) => return Found::ReportLost,
        Err(hindrance) => Err(hindrance),
    };
    let result = match result {
        Ok(result) => result,
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(job = %job.full_name(), target = target.name, %error, source, "not sent");
            return Found::NotSent { target: target.name.clone(), why: error.words() };
        }
    };
    let counted = match &result {
        Ok(_) => "delivered",
        Err(ReportError::Unavailable(_)) => "failed",
        Err(ReportError::Refused(_)) => "refused",
    };
    me.ctx.metrics.reports.with_label_values(&[counted]).inc();
    match &result {
        Ok(answer) => tracing::info!(job = %job.full_name(), target = target.name, answer, "reported"),
        Err(error) => tracing::warn!(job = %job.full_name(), target = target.name, %error, "not reported"),
    }
    Found::Sent { target: target.name.clone(), generation: job.generation, result }
}

fn unavailable(text: impl Into<String>) -> ReportError {
    ReportError::Unavailable(text.into())
}

async fn written_down(me: &Controller, job: &Validated) -> Result<Option<Bytes>, Hindrance> {
    let api: Api<ConfigMap> = Api::namespaced(me.ctx.client.clone(), &job.namespace);
    let name = map_name(&job.name, "report");
    let map = api.get_opt(&name).await.map_err(|e| Hindrance::api(format!("ConfigMap {name}"), e))?;
    let json = map.and_then(|map| map.data).and_then(|mut data| data.remove(REPORT_JSON));
    Ok(json.map(Bytes::from))
}

async fn send(
    me: &Controller,
    job: &Validated,
    target: &ReportTarget,
    root: TaskId,
    body: Bytes,
) -> Result<Result<String, ReportError>, Hindrance> {
    let api: Api<Secret> = Api::namespaced(me.ctx.client.clone(), &job.namespace);
    let name = &target.secret_name;
    // a Secret that is missing, spoilt or out of reach is the job's own: that counts as an attempt, or it would never
    // be over
    let address = match api.get_opt(name).await {
        Ok(secret) => address(name, secret),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Err(unavailable(format!("the operator may not read Secret {name}: see rbac.reportSecrets")))
        }
        Err(error) => return Err(Hindrance::api(format!("Secret {name}"), error)),
    };
    let address = match address {
        Ok(address) => address,
        Err(error) => return Ok(Err(error)),
    };
    let key = idempotency_key(&job.uid, &root, &target.name);
    let report = SignedReport::new(body, &me.ctx.report_key, key);
    if let Some(epoch) = me.ctx.dispatcher.fenced() {
        return Err(Hindrance::Fenced(epoch));
    }
    Ok(me.reporter.send(&address, &report).await.map(|receipt| receipt.answer))
}

/// The target as its Secret says.
fn address(name: &str, secret: Option<Secret>) -> Result<Target, ReportError> {
    let secret = secret.ok_or_else(|| unavailable(format!("there is no Secret {name} in this namespace")))?;
    let mut data = secret.data.unwrap_or_default();
    let mut text = |key: &str| -> Result<Option<String>, ReportError> {
        let Some(bytes) = data.remove(key) else { return Ok(None) };
        let text = String::from_utf8(bytes.0);
        let text = text.map_err(|_| unavailable(format!("`{key}` of Secret {name} is no text")))?;
        // as `kubectl create secret --from-file` leaves it
        Ok(Some(text.trim().to_owned()))
    };
    let url = text("url")?.ok_or_else(|| unavailable(format!("Secret {name} has no `url`")))?;
    let url = Url::parse(&url).map_err(|e| unavailable(format!("`url` of Secret {name}: {e}")))?;
    Ok(Target { url, authorization: text("authorization")?, ca_pem: text("ca.crt")?.map(String::into_bytes) })
}
