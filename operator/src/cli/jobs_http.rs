//! Jobs over HTTP and JSON, for people and tools: submit, look, revive. Guarded by the admin token of the state folder.
//!
//! | request | what it does |
//! |---|---|
//! | `POST /jobs` | takes a made-up block in: `{"synthetic": {"transactions", "calls", "seed"}, "prover", …}` |
//! | `POST /blocks?prover=NAME` | takes a block file in: the body; also `deadline` (10m), `priority` and `namespace` |
//! | `GET /jobs`, `GET /jobs/ID` | where jobs stand |
//! | `GET /jobs/ID/report` | counts, times, makers, critical path |
//! | `POST /jobs/ID/cancel`, `revive`, `suspend`, `resume` | what they say |
//! | `GET /workers` | who is connected |

use super::prove::parse_duration;
use super::submit::{now_millis, request};
use crate::dispatch::{Dispatcher, JobError, Progress, SubmitError, SubmitRequest, SubmitSource};
use arborist_core::block::{Block, MAX_BLOCK_BYTES};
use arborist_core::circuit::Kind;
use arborist_core::engine::{Counts, JobId, JobState, JobView, Notice, TaskState};
use arborist_core::ids::TaskId;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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
    quarantined: Mutex<HashMap<JobId, Vec<Quarantined>>>,
}

/// The routes; `token` is what callers have to show. Must be called within the runtime.
pub fn router(dispatcher: Dispatcher, token: &str) -> Router {
    let api =
        Arc::new(Api { dispatcher, admin: blake3::hash(token.as_bytes()), quarantined: Mutex::default() });
    tokio::spawn(listen(api.clone()));
    Router::new()
        .route("/jobs", get(list).post(submit_synthetic))
        .route("/blocks", post(submit_block))
        .route("/jobs/{id}", get(status))
        .route("/jobs/{id}/report", get(report))
        .route("/jobs/{id}/{action}", post(act))
        .route("/workers", get(workers))
        .layer(DefaultBodyLimit::max(MAX_BLOCK_BYTES as usize))
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
    Refusal(StatusCode::UNAUTHORIZED, "the admin token of the state folder is needed".into()).into_response()
}

struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<JobError> for Refusal {
    fn from(error: JobError) -> Self {
        let status = match error {
            JobError::Unknown(_) => StatusCode::NOT_FOUND,
            JobError::OtherSystem { .. } => StatusCode::CONFLICT,
            JobError::NotNow(_) | JobError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        let status = match error {
            SubmitError::Store(_) | SubmitError::Unchecked(_) | SubmitError::Stopped => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            SubmitError::Crashed => StatusCode::INTERNAL_SERVER_ERROR,
            SubmitError::Quota { .. } => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

type Answer = Result<Json<Value>, Refusal>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Synthetic {
    transactions: u32,
    calls: Vec<u8>,
    #[serde(default)]
    seed: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewJob {
    synthetic: Synthetic,
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
struct BlockQuery {
    prover: String,
    deadline: Option<String>,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    namespace: String,
}

fn deadline(text: Option<&str>) -> Result<Option<u64>, Refusal> {
    let parsed = text.map(parse_duration).transpose();
    let parsed = parsed.map_err(|e| Refusal(StatusCode::BAD_REQUEST, format!("deadline: {e}")))?;
    Ok(parsed.map(|d| now_millis() + d.as_millis() as u64))
}

async fn submit_synthetic(State(api): State<Arc<Api>>, Json(new): Json<NewJob>) -> Answer {
    let Synthetic { transactions, calls, seed } = new.synthetic;
    let calls = calls.into_iter().cycle().take(transactions as usize).collect();
    let source = SubmitSource::Synthetic { calls, seed };
    let deadline = deadline(new.deadline.as_deref())?;
    let new = SubmitRequest {
        priority: new.priority,
        namespace: new.namespace,
        deadline,
        ..request(source, new.chain_id, new.block_number, &new.prover)
    };
    let id = api.dispatcher.submit(new).await?;
    Ok(Json(json!({"id": id.0})))
}

async fn submit_block(State(api): State<Arc<Api>>, Query(query): Query<BlockQuery>, body: Bytes) -> Answer {
    let deadline = deadline(query.deadline.as_deref())?;
    let checked = body.clone();
    let block = tokio::task::spawn_blocking(move || -> Result<Block, String> {
        let block =
            Block::parse(&checked, usize::from(arborist_circuits::MAX_CALLS)).map_err(|e| e.to_string())?;
        arborist_circuits::check_block(&block).map_err(|e| e.to_string())?;
        Ok(block)
    });
    let block = block.await.map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let block = block.map_err(|e| Refusal(StatusCode::BAD_REQUEST, e))?;
    let source = SubmitSource::Block(body);
    let new = SubmitRequest {
        priority: query.priority,
        namespace: query.namespace,
        deadline,
        ..request(source, block.chain_id, block.block_number, &query.prover)
    };
    let id = api.dispatcher.submit(new).await?;
    Ok(Json(json!({"id": id.0})))
}

async fn list(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(api.dispatcher.jobs().iter().map(view).collect())
}

async fn status(State(api): State<Arc<Api>>, Path(id): Path<u32>) -> Answer {
    let job = api.dispatcher.job(JobId(id)).ok_or(JobError::Unknown(JobId(id)))?;
    let mut out = view(&job);
    // what keeps a job of another backend from going on here
    let other = api.dispatcher.other_system(JobId(id));
    out["waits_for"] = json!(other.map(|system| system.to_string()));
    let all = api.quarantined.lock().unwrap_or_else(PoisonError::into_inner);
    let given_up = all
        .get(&JobId(id))
        .into_iter()
        .flatten()
        .filter(|q| api.dispatcher.task(&q.task).is_some_and(|task| task.state == TaskState::Failed));
    out["quarantined"] = given_up
        .map(|q| json!({"task": q.task, "circuit": q.circuit, "attempts": q.attempts, "why": q.why}))
        .collect();
    Ok(Json(out))
}

fn view(job: &JobView) -> Value {
    let (state, why) = match &job.state {
        JobState::Proving => ("proving", None),
        JobState::Checking => ("checking", None),
        JobState::Complete => ("complete", None),
        JobState::Failed { why } => ("failed", Some(why)),
        JobState::Cancelled => ("cancelled", None),
    };
    json!({
        "id": job.spec.id.0, "name": job.spec.name, "namespace": job.spec.namespace, "state": state, "why": why,
        "chain_id": job.spec.chain_id, "block_number": job.spec.block_number,
        "priority": job.spec.priority, "suspended": job.spec.suspended, "deadline": job.spec.deadline,
        "submitted": job.submitted, "ended": job.ended,
        "counts": Kind::ALL.iter().zip(&job.counts).map(|(kind, counts)| row(*kind, counts)).collect::<Vec<_>>(),
    })
}

fn row(kind: Kind, counts: &Counts) -> Value {
    let Counts { total, done, running, ready, failed } = *counts;
    json!({"kind": kind.name(), "total": total, "done": done, "running": running, "ready": ready, "failed": failed})
}

async fn report(State(api): State<Arc<Api>>, Path(id): Path<u32>) -> Answer {
    let report = api.dispatcher.report(JobId(id)).ok_or(JobError::Unknown(JobId(id)))?;
    Ok(Json(json!(report)))
}

async fn act(State(api): State<Arc<Api>>, Path((id, action)): Path<(u32, String)>) -> Answer {
    let (id, dispatcher) = (JobId(id), &api.dispatcher);
    match action.as_str() {
        "cancel" => dispatcher.cancel(id).await?,
        "revive" => dispatcher.revive(id).await?,
        "suspend" => dispatcher.suspend(id, true).await?,
        "resume" => dispatcher.suspend(id, false).await?,
        _ => {
            let text = format!("`{action}`, known are cancel, revive, suspend, resume");
            return Err(Refusal(StatusCode::NOT_FOUND, text));
        }
    }
    Ok(Json(json!({"id": id.0})))
}

async fn workers(State(api): State<Arc<Api>>) -> Json<Value> {
    let all = api.dispatcher.workers();
    let view = all.iter().map(|w| {
        json!({
            "name": w.name, "node": w.node, "cores": w.capacity.cores, "memory_mib": w.capacity.memory_mib,
            "state": w.state, "running": w.running, "prefetched": w.prefetched,
        })
    });
    Json(view.collect())
}
