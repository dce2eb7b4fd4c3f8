//! Step 4: what was built is done.

use super::build::{Built, Picture, Start};
use super::memory::{Again, Found};
use super::publish::{Publication, REPORT_JSON};
use super::stage::{Reporting, Stage, Why};
use super::wishes::Change;
use super::{Controller, Error, deliver, prepare};
use crate::api::ProvingJob;
use crate::api::conditions::reason;
use crate::dispatch::JobError;
use crate::report::{Body, ReportError};
use arborist_core::engine::JobId;
use arborist_core::ids::TaskId;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

/// How long a job that may not go on as its namespace is over its quota waits before it asks again.
const OVER_QUOTA: Duration = Duration::from_secs(15);

/// What was built and is done now. Only made here: a status shows what is.
pub(super) struct Applied {
    picture: Picture,
    again: Option<Duration>,
}

impl Applied {
    /// What is to be shown, and when to look again.
    pub(super) fn into_parts(self) -> (Picture, Option<Duration>) {
        (self.picture, self.again)
    }
}

/// Does what was built; `None` when the job was deleted, as its time was over.
pub(super) async fn apply(
    me: &Arc<Controller>,
    object: &ProvingJob,
    built: Built,
) -> Result<Option<Applied>, Error> {
    let Built { changes, start, publish, delete, mut picture, again } = built;
    if delete {
        remove(me, object).await?;
        return Ok(None);
    }
    let mut again = again;
    for (id, change) in changes {
        match tell(me, id, change).await {
            // waited for like a new job's turn
            Err(JobError::Quota(over)) => {
                let why = Why { reason: reason::QUOTA_EXCEEDED, message: over.to_string() };
                picture.stage = Stage::Waiting(why);
                again = again.into_iter().chain([OVER_QUOTA]).max();
            }
            told => told?,
        }
    }
    if let Some(publication) = publish
        && let Err(why) = write_down(me, object, publication, picture.root).await?
    {
        picture.stage = Stage::Proven(Reporting::Unpublished(why));
        picture.published = None;
    }
    if let Some(start) = start {
        begin(me, start);
    }
    Ok(Some(Applied { picture, again }))
}

async fn tell(me: &Controller, id: JobId, change: Change) -> Result<(), JobError> {
    tracing::info!(job = id.0, ?change, "the engine is told");
    let dispatcher = &me.ctx.dispatcher;
    match change {
        Change::Deadline(deadline) => dispatcher.deadline(id, deadline).await,
        Change::Priority(priority) => dispatcher.priority(id, priority).await,
        Change::Suspend(suspended) => dispatcher.suspend(id, suspended).await,
        Change::Revive => dispatcher.revive(id).await,
    }
}

/// Deletes a job at the version that was looked at: one that was edited or made anew meanwhile stays.
pub(super) async fn remove(me: &Controller, object: &ProvingJob) -> Result<(), Error> {
    let api: Api<ProvingJob> = me.api(object);
    let preconditions = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
    let params = DeleteParams::background().preconditions(preconditions);
    match api.delete(&object.name_any(), &params).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(Error::write("delete the job", error)),
        Ok(_) => {
            tracing::info!(job = %super::name_of(object), "deleted: ttlSecondsAfterFinished has passed");
            Ok(())
        }
    }
}

/// Writes down what a proven block leaves, once. The inner error: another object has the name, or the API server refuses.
async fn write_down(
    me: &Controller,
    object: &ProvingJob,
    publication: Publication,
    root: Option<TaskId>,
) -> Result<Result<(), Why>, Error> {
    let uid = object.uid().unwrap_or_default();
    // the status that says so was not written yet
    if me.ctx.jobs.is_published(&uid, root) {
        return Ok(Ok(()));
    }
    let Publication { proof, report, root_proof: _, attribution: _ } = publication;
    if let Err(why) = write_map(me, object, proof, |_| false).await? {
        return Ok(Err(why));
    }
    if let Some(report) = report {
        // one that may have been sent already must stay as it is
        let of_this_tree = |map: &ConfigMap| {
            let json = map.data.as_ref().and_then(|data| data.get(REPORT_JSON));
            root.is_some() && json.and_then(|json| Body::task_of(json.as_bytes())) == root
        };
        if let Err(why) = write_map(me, object, report, of_this_tree).await? {
            return Ok(Err(why));
        }
    }
    me.ctx.jobs.published(&uid, root);
    Ok(Ok(()))
}

/// Creates a ConfigMap, or replaces this job's own, unless `keep` wants it as it is. It is read first: after a restart
/// it may be there, and a create that is refused is a write to the API server all the same.
async fn write_map(
    me: &Controller,
    object: &ProvingJob,
    mut wanted: ConfigMap,
    keep: impl Fn(&ConfigMap) -> bool,
) -> Result<Result<(), Why>, Error> {
    let api: Api<ConfigMap> = me.api(object);
    let name = wanted.name_any();
    let params = PostParams { field_manager: Some(crate::api::MANAGER.into()), ..PostParams::default() };
    let found = api.get_opt(&name).await.map_err(|e| Error::write("read the result's ConfigMap", e))?;
    let Some(found) = found else {
        let made = api.create(&params, &wanted).await;
        return written(&name, made).map_err(|e| Error::write("create the result's ConfigMap", e));
    };
    let ours = found.owner_references().iter().any(|owner| Some(&owner.uid) == object.metadata.uid.as_ref());
    if !ours {
        let message =
            format!("ConfigMap {name} is not this job's: delete it, and the result is written there");
        return Ok(Err(Why { reason: reason::PENDING, message }));
    }
    if keep(&found) || (found.data == wanted.data && found.binary_data == wanted.binary_data) {
        return Ok(Ok(()));
    }
    wanted.metadata.resource_version = found.resource_version();
    let replaced = api.replace(&name, &params, &wanted).await;
    written(&name, replaced).map_err(|e| Error::write("replace the result's ConfigMap", e))
}

/// What came of a write. A refusal (a quota, an admission webhook, a right that is missing) stays until somebody changes
/// something, so the job's status says it; what passes by itself stays an error.
fn written(name: &str, answer: kube::Result<ConfigMap>) -> kube::Result<Result<(), Why>> {
    match answer {
        Ok(_) => Ok(Ok(())),
        Err(kube::Error::Api(status)) if matches!(status.code, 400..=499) && !passes(status.code) => {
            let message = format!("ConfigMap {name} is refused: {}", status.message);
            Ok(Err(Why { reason: reason::PENDING, message }))
        }
        Err(error) => Err(error),
    }
}

/// Not found (its namespace goes), a conflict, too many requests, too slow.
fn passes(code: u16) -> bool {
    matches!(code, 404 | 408 | 409 | 429)
}

/// Begins work beside the visits; what comes of it calls for a visit.
fn begin(me: &Arc<Controller>, start: Start) {
    let (uid, namespace, name) = match &start {
        Start::Prepare(job) | Start::Deliver { job, .. } => {
            (job.uid.clone(), job.namespace.clone(), job.name.clone())
        }
    };
    let (worker, crashed) = (me.clone(), crash_of(&start));
    let work = async move {
        match start {
            Start::Prepare(job) => prepare::prepare(&worker, &job).await,
            Start::Deliver { job, target, root } => deliver::deliver(&worker, &job, &target, root).await,
        }
    };
    me.beside(&uid, &namespace, &name, crashed, work);
}

/// What is noted of work that crashed: tried again, after a pause.
fn crash_of(start: &Start) -> Found {
    let message = "the operator crashed at this: its log says how".to_owned();
    match start {
        Start::Prepare(job) => Found::NotSubmitted {
            reason: reason::PENDING,
            message,
            generation: job.generation,
            again: Again::Always,
        },
        Start::Deliver { job, target, .. } => Found::Sent {
            target: target.name.clone(),
            generation: job.generation,
            result: Err(ReportError::Unavailable(message)),
        },
    }
}

impl Controller {
    /// Runs `work` until it ends or the controller stops, and notes what came of it, `crashed` after a crash.
    fn beside(
        self: &Arc<Self>,
        uid: &str,
        namespace: &str,
        name: &str,
        crashed: Found,
        work: impl Future<Output = Found> + Send + 'static,
    ) {
        let (me, key) = (self.clone(), uid.to_owned());
        let object = super::reference(namespace, name);
        let task = async move {
            match me.stop.run_until_cancelled(super::uncrashed(work)).await {
                Some(found) => me.remember(&key, found.unwrap_or(crashed)),
                None => me.ctx.jobs.let_go(&key),
            }
            // nobody listens any more when the controller has stopped
            let _ = me.trigger.unbounded_send(object);
        };
        self.ctx.jobs.begin(uid, || self.tasks.spawn(task).abort_handle());
    }
}
