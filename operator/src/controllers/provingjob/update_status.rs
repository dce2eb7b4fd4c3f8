//! Step 5: one write of the status, and only then the events.

use super::apply::Applied;
use super::status::{self, Shown};
use super::throttle::{Due, due};
use super::{Controller, Error, events};
use crate::api::conditions::reason;
use crate::api::{MANAGER, ProvingJob, ProvingJobStatus};
use crate::controllers::Outcome;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use std::time::Duration;

/// After a write that came too late, the newer version is looked at.
const CONFLICT: Duration = Duration::from_secs(1);

/// Shows what was applied.
pub(super) async fn update_status(
    me: &Controller,
    object: &ProvingJob,
    applied: Applied,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let (picture, again) = applied.into_parts();
    let old = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let shown = status::build(&old, &picture, generation, now);
    let written = me.ctx.jobs.last_write(&object.uid().unwrap_or_default());
    match due(&old, &shown.status, written, now) {
        Due::Never => Ok(outcome(again)),
        Due::In(left) => Ok(Outcome::Applied(Some(again.map_or(left, |again| again.min(left))))),
        Due::Now => match write(me, object, &shown, now).await? {
            true => Ok(outcome(again)),
            false => Ok(Outcome::Waiting { reason: reason::PENDING, again: CONFLICT }),
        },
    }
}

fn outcome(again: Option<Duration>) -> Outcome {
    again.map_or(Outcome::Settled, |again| Outcome::Applied(Some(again)))
}

/// Writes a status and tells the news. By server-side apply, so that what is left out is removed and other managers'
/// fields stay; at the version that was looked at, so that what was decided on is what is there. False: it is not.
pub(super) async fn write(
    me: &Controller,
    object: &ProvingJob,
    shown: &Shown,
    now: Timestamp,
) -> Result<bool, Error> {
    let api: Api<ProvingJob> = me.api(object);
    let patch = patch(object, &shown.status);
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(&object.name_any(), &params, &Patch::Apply(&patch)).await {
        Ok(mut after) => {
            after.metadata.managed_fields = None;
            me.ctx.jobs.answered(object, after, Some(now));
            tell(me, object, shown).await;
            Ok(true)
        }
        // deleted meanwhile: an event of that calls for a visit
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            read_again(me, &api, object).await?;
            Ok(false)
        }
        Err(error) => Err(Error::write("write the status", error)),
    }
}

/// Edited meanwhile. The watch will say so, maybe much later: until then every visit would decide on what is past.
async fn read_again(me: &Controller, api: &Api<ProvingJob>, object: &ProvingJob) -> Result<(), Error> {
    let found = api.get_opt(&object.name_any()).await.map_err(|e| Error::write("read the job again", e))?;
    if let Some(mut found) = found.filter(|found| found.uid() == object.uid()) {
        found.metadata.managed_fields = None;
        me.ctx.jobs.answered(object, found, None);
    }
    Ok(())
}

fn patch(object: &ProvingJob, status: &ProvingJobStatus) -> serde_json::Value {
    json!({
        "apiVersion": ProvingJob::api_version(&()),
        "kind": ProvingJob::kind(&()),
        "metadata": {
            "name": object.name_any(),
            "namespace": object.namespace(),
            "resourceVersion": object.resource_version(),
        },
        "status": status,
    })
}

async fn tell(me: &Controller, object: &ProvingJob, shown: &Shown) {
    let before = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    for news in events::news(before, &shown.status.conditions, &shown.findings) {
        // the status says it all: an event that gets lost is not worth another visit
        if let Err(error) = me.ctx.recorder.publish(&news.into(), &object.object_ref(&())).await {
            tracing::warn!(job = %super::name_of(object), %error, "an event could not be written");
        }
    }
}
