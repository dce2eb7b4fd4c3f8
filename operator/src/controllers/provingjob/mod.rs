//! The controller of ProvingJobs: it has blocks proven, shows how that goes, and tells who is to be told.
//!
//! A visit has five steps, in this order. What takes longer than a visit (fetching or making a block, submitting it,
//! sending a report) runs beside the visits, one thing at a time for a job; its result calls for the next visit.
//! Nothing is lost when the process dies: the tree is found again by the root's task in the status, a submit is
//! idempotent, and a report is written down before it is sent and known to its receiver by its idempotency key.

mod apply;
mod build;
mod collect;
mod deadline;
mod deliver;
mod dereference;
mod eta;
mod events;
mod findings;
mod fit;
#[cfg(test)]
mod fixtures;
mod memory;
mod orphans;
mod prepare;
mod publish;
mod source;
mod stage;
mod status;
mod submits;
#[cfg(test)]
mod tests;
mod throttle;
mod update_status;
mod validate;
mod waits;
mod wishes;

pub use memory::Memory;

use crate::api::ProvingJob;
use crate::api::conditions::{cut, is_true, job as condition, reason};
use crate::controllers::{Context, Outcome, Scope, VISIT};
use crate::dispatch::{Dispatcher, JobError, Progress};
use crate::egress::Reach;
use crate::kubernetes::patience;
use crate::report::backoff::pause;
use crate::report::{HttpReporter, Reporter};
use arborist_core::engine::Notice;
use futures::channel::mpsc;
use futures::{FutureExt, StreamExt, future};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action};
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller as Runner, WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One object that can't be decoded does not stop the others.
type Guarded = DeserializeGuard<ProvingJob>;

/// Names of trees in the engine's books that were submitted for a ProvingJob begin so.
const JOB_PREFIX: &str = "ProvingJob ";
/// Visits at once.
const CONCURRENCY: u16 = 16;

/// Why a visit failed; it is made again, later and later.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The engine could not be told something.
    #[error("tell the engine")]
    Engine(#[from] JobError),
    /// The API server did not do something.
    #[error("{what}")]
    Write { what: &'static str, source: Box<kube::Error> },
    /// What a proven block leaves could not be written as JSON.
    #[error("write the result as JSON")]
    Json(#[from] serde_json::Error),
}

impl Error {
    fn write(what: &'static str, error: kube::Error) -> Self {
        Self::Write { what, source: Box::new(error) }
    }
}

/// A controller of one scope.
struct Controller {
    ctx: Arc<Context>,
    reporter: Arc<dyn Reporter>,
    trigger: mpsc::UnboundedSender<ObjectRef<Guarded>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    clock: Clock,
}

/// What time it is.
type Clock = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// The engine's clock, which never goes back: were a job's deadline past by one of two clocks and not by the other,
/// what the engine ends the controller would take up again.
fn clock_of(dispatcher: Dispatcher) -> Clock {
    Box::new(move || deadline::time(dispatcher.now()))
}

/// Serves the ProvingJobs of a scope until `stop`. Losing leadership must cancel it: nothing is written after that.
pub async fn run(ctx: Arc<Context>, scope: Scope, stop: CancellationToken) {
    let (trigger, triggered) = mpsc::unbounded();
    // not for its own sake: the dispatcher is the context's
    let weak = Arc::downgrade(&ctx);
    ctx.dispatcher.keep_roots(move || collect::named(&*weak.upgrade()?));
    let reporter = Arc::new(HttpReporter::new(Reach::of(ctx.settings.allow_local_addresses)));
    let (tasks, clock) = (TaskTracker::new(), clock_of(ctx.dispatcher.clone()));
    let me = Arc::new(Controller { ctx, reporter, trigger, tasks, stop: stop.clone(), clock });
    let deleted = Notify::new();
    stop.run_until_cancelled(future::join3(
        serve(&me, scope, triggered, &deleted),
        listen(&me),
        collect::keep(&me, &deleted),
    ))
    .await;
    me.tasks.close();
    me.tasks.wait().await;
}

async fn serve(
    me: &Arc<Controller>,
    scope: Scope,
    triggered: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
    deleted: &Notify,
) {
    let (reader, writer) = reflector::store();
    me.ctx.jobs.add_scope(scope.clone(), reader.clone());
    let (gone, mut was_gone) = mpsc::unbounded::<()>();
    let ctx = me.ctx.clone();
    let jobs = watcher(scope.api::<Guarded>(&me.ctx.client), patience::watches())
        .backoff(patience::of_watches())
        .modify(|job| job.managed_fields_mut().clear())
        .reflect(writer)
        // after the store has seen them. The end of a list counts too: what was deleted while nobody watched is gone
        .inspect(move |event| {
            if let Ok(watcher::Event::Delete(job)) = event
                && let Some(root) = job.0.as_ref().ok().and_then(collect::root_of)
            {
                ctx.jobs.note_released(root);
            }
            if matches!(event, Ok(watcher::Event::Delete(_) | watcher::Event::InitDone)) {
                // nobody listens any more when the controller stops
                let _ = gone.unbounded_send(());
            }
        })
        .applied_objects()
        // said and waited for already: the controller would let visits wait for it that others call for
        .filter(|event| {
            if let Err(error) = event {
                tracing::warn!(%error, "the watch of ProvingJobs was interrupted");
            }
            future::ready(event.is_ok())
        });
    let controller = Runner::for_stream(jobs, reader)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(triggered)
        .run(reconcile, error_policy, me.clone())
        .for_each(|result| {
            if let Err(error) = result {
                log(&error);
            }
            future::ready(())
        });
    let notices = async {
        while was_gone.next().await.is_some() {
            deleted.notify_one();
        }
    };
    future::join(controller, notices).await;
}

fn log(error: &controller::Error<Error, watcher::Error>) {
    match error {
        // deleted between the trigger and the visit
        controller::Error::ObjectNotFound(_) => {}
        controller::Error::ReconcilerFailed(error, object) => {
            let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(job = %object, %error, source, "a visit failed");
        }
        error => tracing::warn!(%error, "watching ProvingJobs"),
    }
}

/// What the engine tells calls for visits of the jobs it is about.
async fn listen(me: &Controller) {
    use tokio::sync::broadcast::error::RecvError;
    let mut progress = me.ctx.dispatcher.subscribe();
    loop {
        let about = match progress.recv().await {
            Ok(Progress::Ended(id, _) | Progress::Notice(Notice::AtRisk(id, _))) => id,
            Ok(Progress::Notice(Notice::Quarantined { task, circuit, job, why, .. })) => {
                me.ctx.jobs.note_quarantined(job, format!("{circuit} {}: {why}", task.short()));
                job
            }
            // what was missed is seen at the next look
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return future::pending().await,
        };
        let Some(root) = me.ctx.dispatcher.root_task(about) else { continue };
        for job in me.ctx.jobs.jobs_of(&root) {
            // nobody listens any more when the controller stops
            let _ = me.trigger.unbounded_send(ObjectRef::from_obj(&*job));
        }
    }
}

async fn reconcile(object: Arc<Guarded>, me: Arc<Controller>) -> Result<Action, Error> {
    let job = match &object.0 {
        Ok(job) => Arc::new(job.clone()),
        Err(invalid) => {
            unreadable(&me, &object, &invalid.error).await;
            return Ok(Action::await_change());
        }
    };
    let began = Instant::now();
    let _visit = me.ctx.watchdog.watch(format!("a visit of ProvingJob {}", name_of(&job)), VISIT);
    let outcome = visit(&me, job, (me.clock)()).await;
    me.ctx.metrics.reconciled::<ProvingJob, _>(began.elapsed(), &outcome);
    let outcome = outcome?;
    me.ctx.jobs.succeeded(&object.uid().unwrap_or_default());
    Ok(match outcome {
        Outcome::Applied(Some(again)) | Outcome::Waiting { again, .. } => Action::requeue(again),
        Outcome::Applied(None) | Outcome::Settled => Action::await_change(),
    })
}

/// Says so of an object that is not what the CRD of this version says: its status can't be written.
async fn unreadable(me: &Controller, object: &Guarded, error: &str) {
    tracing::error!(job = object.name_any(), error, "a ProvingJob that can't be read");
    let event = Event {
        type_: EventType::Warning,
        reason: reason::INVALID_SPEC.into(),
        note: Some(cut(&format!("this operator can't read the object: {error}"), 1_000)),
        action: "Read".into(),
        secondary: None,
    };
    if let Err(error) = me.ctx.recorder.publish(&event, &object.object_ref(&())).await {
        tracing::warn!(job = object.name_any(), %error, "an event could not be written");
    }
}

fn error_policy(object: Arc<Guarded>, _error: &Error, me: Arc<Controller>) -> Action {
    let failures = me.ctx.jobs.failed(&object.uid().unwrap_or_default());
    Action::requeue(pause(failures, rand::random()))
}

/// A visit of a job.
async fn visit(me: &Arc<Controller>, object: Arc<ProvingJob>, now: Timestamp) -> Result<Outcome, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Settled);
    }
    let object = me.ctx.jobs.freshest(&object);
    if is_settled(&object) {
        return rest(me, &object, now).await;
    }
    let settings = &me.ctx.settings;
    let seen = dereference::dereference(me, &object).await;
    let served = validate::Served { circuits: &settings.profile.circuits, backend: &settings.backend };
    let built = match validate::validate(&object, &served) {
        Ok(job) => build::build(&object, &job, &seen, &settings.profile, now)?,
        Err(invalid) => build::refused(&object, invalid, now),
    };
    match apply::apply(me, &object, built).await? {
        Some(applied) => update_status::update_status(me, &object, applied, now).await,
        None => Ok(Outcome::Settled),
    }
}

/// Whether nothing but its deletion is left to do for a job.
fn is_settled(object: &ProvingJob) -> bool {
    let generation = object.metadata.generation.unwrap_or_default();
    object.status.as_ref().is_some_and(|status| {
        is_true(&status.conditions, condition::COMPLETE) || stage::is_settled(status, generation)
    })
}

/// A visit of a job that is over.
async fn rest(me: &Controller, object: &ProvingJob, now: Timestamp) -> Result<Outcome, Error> {
    let generation = object.metadata.generation.unwrap_or_default();
    let left = build::time_left(object, now);
    if left == Some(Duration::ZERO) {
        apply::remove(me, object).await?;
        return Ok(Outcome::Settled);
    }
    if let Some(status) = object.status.as_ref().filter(|status| status.observed_generation != generation) {
        let shown = status::Shown { status: status::of_edit(status, generation), findings: vec![] };
        update_status::write(me, object, &shown, now).await?;
    }
    Ok(left.map_or(Outcome::Settled, |left| Outcome::Applied(Some(left))))
}

impl Controller {
    /// The API of a kind in a job's namespace.
    fn api<K>(&self, object: &ProvingJob) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.ctx.client.clone(), &object.namespace().unwrap_or_default())
    }

    /// Notes what background work waits for, and has the job's status say so.
    fn waits(&self, job: &validate::Validated, why: Option<String>) {
        self.ctx.jobs.waits(&job.uid, why);
        // nobody listens any more when the controller stops
        let _ = self.trigger.unbounded_send(reference(&job.namespace, &job.name));
    }

    /// Notes what came of background work.
    fn remember(&self, uid: &str, found: memory::Found) {
        self.ctx.jobs.end(uid, found, (self.clock)());
    }
}

fn name_of(object: &ProvingJob) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn reference(namespace: &str, name: &str) -> ObjectRef<Guarded> {
    ObjectRef::new(name).within(namespace)
}

/// Runs to the end; `None` after a crash, which is logged by the panic's own message.
async fn uncrashed<T>(work: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(work).catch_unwind().await.ok()
}
