//! Jobs over HTTP and JSON, for people and tools. Guarded by the admin token of the state folder; docs/run.md has all
//! requests and answers.

mod answers;
mod body;
mod refusal;

pub use refusal::with_json_errors;

use self::body::{Object, at_most, number, object, present, query, read};
use self::refusal::Refusal;
use super::outputs::{PUBLIC_VERSION, PublicFile};
use super::serve::Plan;
use super::submit::request;
use crate::dispatch::{Dispatcher, JobError, Progress, SubmitRequest, SubmitSource};
use crate::intake::{BlockFile, Nowhere};
use arborist_circuits::MAX_CALLS;
use arborist_core::block::MAX_TRANSACTIONS;
use arborist_core::engine::{JobId, JobState, JobView, Notice, TaskState};
use arborist_core::ids::TaskId;
use arborist_core::proof_object::ProofObject;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// Jobs or workers of one answer, unless less is asked for.
const PAGE: usize = 100;
/// Jobs or workers of one answer at most.
const MAX_PAGE: usize = 1_000;
/// How long a change may take to be durable.
const CHANGE_TIME: Duration = Duration::from_secs(10);
/// How long a block may take to be taken in, its body aside.
const SUBMIT_TIME: Duration = Duration::from_secs(120);
/// How long the store may take to give a root proof.
const FETCH_TIME: Duration = Duration::from_secs(30);
/// Jobs of which quarantined tasks are remembered before those that are gone are forgotten.
const REMEMBERED: usize = 256;
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// Quarantined tasks kept for each job.
const MAX_KEPT: usize = 100;

/// A task that gave up.
struct Quarantined {
    task: TaskId,
    circuit: String,
    attempts: u32,
    why: String,
}

struct Api {
    dispatcher: Dispatcher,
    admin: blake3::Hash,
    /// What makes the proofs, and their circuits, for `public.json`.
    backend: String,
    circuits: String,
    quarantined: Mutex<HashMap<JobId, Vec<Quarantined>>>,
}

/// The routes; `token` is what callers have to show. Must be called within the runtime.
pub fn router(dispatcher: Dispatcher, plan: &Plan, token: &str) -> Router {
    let api = Arc::new(Api {
        dispatcher,
        admin: blake3::hash(token.as_bytes()),
        backend: plan.backend.to_string(),
        circuits: plan.profile.circuits.clone(),
        quarantined: Mutex::default(),
    });
    tokio::spawn(listen(api.clone()));
    Router::new()
        .route("/jobs", get(list).post(submit_synthetic))
        .route("/blocks", post(submit_block))
        .route("/jobs/{id}", get(status).patch(change))
        .route("/jobs/{id}/report", get(report))
        .route("/jobs/{id}/root-proof", get(root_proof))
        .route("/jobs/{id}/public-inputs", get(public_inputs))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/jobs/{id}/revive", post(revive))
        .route("/jobs/{id}/suspend", post(suspend))
        .route("/jobs/{id}/resume", post(resume))
        .route("/workers", get(workers))
        .route_layer(middleware::from_fn_with_state(api.clone(), guard))
        .with_state(api)
}

/// Remembers which tasks gave up.
async fn listen(api: Arc<Api>) {
    use tokio::sync::broadcast::error::RecvError;
    let mut progress = api.dispatcher.subscribe();
    loop {
        let notice = tokio::select! {
            _ = api.dispatcher.stopped() => return,
            received = progress.recv() => match received {
                Ok(Progress::Notice(notice)) => notice,
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
        };
        if let Notice::Quarantined { task, circuit, job, attempts, why } = notice {
            let mut all = api.quarantined.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= REMEMBERED {
                all.retain(|id, _| api.dispatcher.job(*id).is_some());
            }
            let kept = all.entry(job).or_default();
            kept.retain(|old| old.task != task);
            if kept.len() < MAX_KEPT {
                kept.push(Quarantined { task, circuit: circuit.to_string(), attempts, why });
            }
        }
    }
}

async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // hashes compare in constant time
    if blake3::hash(token.trim().as_bytes()) == api.admin {
        return next.run(request).await;
    }
    let text = "the admin token of the state folder is needed, as `Bearer TOKEN`";
    Refusal::of(StatusCode::UNAUTHORIZED, "authorization", text).into_response()
}

type Answer = Result<Json<Value>, Refusal>;

/// Waits for what may take long when the store does.
async fn in_time<T, E: Into<Refusal>>(
    api: &Api,
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Refusal> {
    match timeout(limit, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => {
            let said =
                api.dispatcher.store().trouble().map_or(String::new(), |trouble| format!(": {trouble}"));
            let text =
                format!("not durable within {} s, and lost if the operator dies now{said}", limit.as_secs());
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text))
        }
    }
}

/// The number in a path.
fn job_id(text: &str) -> Result<JobId, Refusal> {
    let number =
        text.parse().map_err(|_| Refusal::of(StatusCode::NOT_FOUND, "id", "jobs have numbers from 1 on"));
    number.map(JobId)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Synthetic {
    transactions: u32,
    #[serde(deserialize_with = "at_most::<_, _, MAX_TRANSACTIONS>")]
    calls: Vec<u8>,
    #[serde(default)]
    seed: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewJob {
    synthetic: Object<Synthetic>,
    #[serde(default)]
    chain_id: u64,
    #[serde(default)]
    block_number: u64,
    prover: String,
    deadline: Option<String>,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(default, deserialize_with = "present")]
    deadline: Option<Option<String>>,
    priority: Option<i32>,
}

async fn submit_synthetic(State(api): State<Arc<Api>>, uri: Uri, request: Request) -> Answer {
    query(&uri, &[])?;
    let new: NewJob = object(&read(request, &[JSON], body::MAX_JSON_BYTES).await?)?;
    let Object(Synthetic { transactions, calls, seed }) = new.synthetic;
    if !(1..=MAX_TRANSACTIONS as u32).contains(&transactions) {
        let text = format!("{transactions}, allowed are 1 to {MAX_TRANSACTIONS}");
        return Err(Refusal::bad("synthetic.transactions", text));
    }
    if let Some(at) = calls.iter().position(|calls| usize::from(*calls) > usize::from(MAX_CALLS)) {
        let text = format!("{}, allowed are 0 to {MAX_CALLS}", calls[at]);
        return Err(Refusal::bad(format!("synthetic.calls[{at}]"), text));
    }
    if calls.is_empty() {
        return Err(Refusal::bad("synthetic.calls", "none, at least one number is needed"));
    }
    let calls = calls.into_iter().cycle().take(transactions as usize).collect();
    let source = SubmitSource::Synthetic { calls, seed };
    let deadline = new.deadline.as_deref().map(body::deadline).transpose()?;
    let prover = body::prover(&new.prover)?;
    let new = SubmitRequest {
        priority: new.priority,
        namespace: body::namespace(&new.namespace)?,
        deadline,
        ..self::request(source, new.chain_id, new.block_number, &prover)
    };
    submit(&api, new).await
}

async fn submit_block(State(api): State<Arc<Api>>, uri: Uri, request: Request) -> Answer {
    let fields = query(&uri, &["prover", "deadline", "priority", "namespace"])?;
    let prover = fields.get("prover").ok_or_else(|| Refusal::bad("prover", "missing in the query"))?;
    let prover = body::prover(prover)?;
    let deadline = fields.get("deadline").map(|text| body::deadline(text)).transpose()?;
    let priority = number(&fields, "priority", 0)?;
    let namespace = body::namespace(fields.get("namespace").map_or("", String::as_str))?;
    // the last one is what curl says of any file
    let types = [JSON, BYTES, "application/x-www-form-urlencoded"];
    let (json, reserved) = body::block_file(request, &types, api.dispatcher.intake()).await?;
    let max_calls = api.dispatcher.max_calls();
    let read = move || BlockFile::read(json, max_calls, Arc::new(Nowhere), Some(reserved));
    let file = tokio::task::spawn_blocking(read).await;
    let file = file.map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let file = file.map_err(|e| Refusal::bad(e.field, e.problem))?;
    let (chain_id, block_number) = (file.block().chain_id, file.block().block_number);
    let source = SubmitSource::Block(Arc::new(file));
    let new = SubmitRequest {
        priority,
        namespace,
        deadline,
        ..self::request(source, chain_id, block_number, &prover)
    };
    submit(&api, new).await
}

async fn submit(api: &Api, new: SubmitRequest) -> Answer {
    let id = in_time(api, SUBMIT_TIME, api.dispatcher.submit(new)).await?;
    Ok(Json(json!({"id": id.0})))
}

async fn list(State(api): State<Arc<Api>>, uri: Uri) -> Answer {
    let fields = query(&uri, &["after", "limit"])?;
    let (after, limit) = (number(&fields, "after", 0u32)?, limit(&fields)?);
    let mut jobs = api.dispatcher.jobs_after(after, limit + 1);
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    let next = jobs.last().filter(|_| more).map(|job| job.spec.id.0);
    Ok(Json(json!({"jobs": jobs.iter().map(answers::job).collect::<Value>(), "next": next})))
}

fn limit(fields: &HashMap<&str, String>) -> Result<usize, Refusal> {
    match number(fields, "limit", PAGE)? {
        limit @ 1..=MAX_PAGE => Ok(limit),
        other => Err(Refusal::bad("limit", format!("{other}, allowed are 1 to {MAX_PAGE}"))),
    }
}

async fn status(State(api): State<Arc<Api>>, Path(id): Path<String>, uri: Uri) -> Answer {
    query(&uri, &[])?;
    shown(&api, job_id(&id)?)
}

/// A job as it stands, with what holds it up.
fn shown(api: &Api, id: JobId) -> Answer {
    let job = api.dispatcher.job(id).ok_or(JobError::Unknown(id))?;
    let mut out = answers::job(&job);
    // what keeps a job of another backend from going on here
    let other = api.dispatcher.other_system(id);
    out["waits_for"] = json!(other.map(|system| system.to_string()));
    let all = api.quarantined.lock().unwrap_or_else(PoisonError::into_inner);
    let given_up = all
        .get(&id)
        .into_iter()
        .flatten()
        .filter(|q| api.dispatcher.task(&q.task).is_some_and(|task| task.state == TaskState::Failed));
    out["quarantined"] = given_up
        .map(|q| json!({"task": q.task, "circuit": q.circuit, "attempts": q.attempts, "why": q.why}))
        .collect();
    Ok(Json(out))
}

async fn report(State(api): State<Arc<Api>>, Path(id): Path<String>, uri: Uri) -> Answer {
    query(&uri, &[])?;
    let id = job_id(&id)?;
    let report = api.dispatcher.report(id).ok_or(JobError::Unknown(id))?;
    Ok(Json(json!(report)))
}

/// The task of a complete job's root.
fn proven_root(api: &Api, id: JobId) -> Result<TaskId, Refusal> {
    let JobView { state, .. } = api.dispatcher.job(id).ok_or(JobError::Unknown(id))?;
    if state != JobState::Complete {
        let text =
            format!("job {} is {}: there is a root proof once it is complete", id.0, answers::state(&state));
        return Err(Refusal::of(StatusCode::CONFLICT, "state", text));
    }
    Ok(api.dispatcher.root_task(id).ok_or(JobError::Unknown(id))?)
}

async fn root_proof(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    query(&uri, &[])?;
    let task = proven_root(&api, job_id(&id)?)?;
    let unable = |text: String| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text);
    let fetched = timeout(FETCH_TIME, api.dispatcher.store().get_proof(&task)).await;
    let fetched = fetched.map_err(|_| unable("the artifact store does not answer".into()))?;
    let proof = fetched.map_err(|error| unable(error.to_string()))?;
    let proof = proof.ok_or_else(|| {
        let text = "it is not in the artifact store any more";
        Refusal::of(StatusCode::NOT_FOUND, "root-proof", text)
    })?;
    ProofObject::open(&task, &proof).map_err(|error| unable(format!("the stored root proof: {error}")))?;
    let headers =
        [(header::CONTENT_TYPE, BYTES), (header::CONTENT_DISPOSITION, "attachment; filename=\"root.proof\"")];
    Ok((headers, proof).into_response())
}

async fn public_inputs(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<PublicFile>, Refusal> {
    query(&uri, &[])?;
    let id = job_id(&id)?;
    Ok(Json(PublicFile {
        version: PUBLIC_VERSION,
        backend: api.backend.clone(),
        circuits: api.circuits.clone(),
        keys: api.dispatcher.system().keys,
        task: proven_root(&api, id)?,
        // the books keep the word only
        prover: None,
        statement: api.dispatcher.published(id).await.map_err(JobError::from)?,
    }))
}

async fn change(State(api): State<Arc<Api>>, Path(id): Path<String>, uri: Uri, request: Request) -> Answer {
    query(&uri, &[])?;
    let id = job_id(&id)?;
    let types = [JSON, "application/merge-patch+json"];
    let Change { deadline, priority } = object(&read(request, &types, body::MAX_JSON_BYTES).await?)?;
    if deadline.is_none() && priority.is_none() {
        return Err(Refusal::bad("body", "nothing to change: deadline, priority or both"));
    }
    let deadline = match deadline {
        None => None,
        Some(None) => Some(None),
        Some(Some(text)) => Some(Some(body::deadline(&text)?)),
    };
    in_time(&api, CHANGE_TIME, api.dispatcher.move_open(id, deadline, priority)).await?;
    shown(&api, id)
}

/// What all actions have in common.
async fn act<F: Future<Output = Result<(), JobError>>>(
    api: &Arc<Api>,
    id: &str,
    uri: &Uri,
    work: impl FnOnce(Dispatcher, JobId) -> F,
) -> Answer {
    query(uri, &[])?;
    let id = job_id(id)?;
    in_time(api, CHANGE_TIME, work(api.dispatcher.clone(), id)).await?;
    Ok(Json(json!({"id": id.0})))
}

async fn cancel(State(api): State<Arc<Api>>, Path(id): Path<String>, uri: Uri) -> Answer {
    act(&api, &id, &uri, |dispatcher, id| async move { dispatcher.cancel_open(id).await }).await
}

async fn revive(State(api): State<Arc<Api>>, Path(id): Path<String>, uri: Uri) -> Answer {
    act(&api, &id, &uri, |dispatcher, id| async move { dispatcher.revive(id).await }).await
}

async fn suspend(State(api): State<Arc<Api>>, Path(id): Path<String>, uri: Uri) -> Answer {
    act(&api, &id, &uri, |dispatcher, id| async move { dispatcher.suspend_open(id, true).await }).await
}

async fn resume(State(api): State<Arc<Api>>, Path(id): Path<String>, uri: Uri) -> Answer {
    act(&api, &id, &uri, |dispatcher, id| async move { dispatcher.suspend_open(id, false).await }).await
}

async fn workers(State(api): State<Arc<Api>>, uri: Uri) -> Answer {
    let fields = query(&uri, &["after", "limit"])?;
    let (after, limit) = (fields.get("after").map_or("", String::as_str), limit(&fields)?);
    let all = api.dispatcher.workers();
    let mut rest = all.iter().filter(|worker| worker.name.as_str() > after);
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let next = rest.next().and(page.last()).map(|worker| worker.name.clone());
    Ok(Json(json!({"workers": page.into_iter().map(answers::worker).collect::<Value>(), "next": next})))
}
