//! The artifact store as the operator serves it to workers: `GET`, `HEAD` and create-only `PUT` of
//! `/artifacts/proofs/<task>` and `/artifacts/inputs/<hash>` over any store, a folder or a bucket. Who may do
//! what is for [`Access`] to say.
//!
//! Answers: 200; 201 created; 409 there already and not touched; 400 no such kind of key; 401 no or unknown
//! token; 403 not this key; 404; 408 too slow; 411 no length; 413 too large; 422 not what the key's hash
//! says; 503 too many requests, or the store below does not answer; 507 it is full. Bodies of errors are one
//! line of text.

mod pace;
mod share;

use self::pace::{Pace, paced, read_body};
use self::share::Shares;
use arborist_artifacts::{ArtifactStore, Created, StoreError};
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::proof_object::{input_key, proof_key};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tracing::{error, warn};

/// What the bearer of a session token may do with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// What it asks for.
    Granted,
    /// Not this.
    Forbidden,
    /// Nothing: there is no such session.
    Unknown,
}

/// Decides what the bearer of a session token may do.
pub trait Access: Send + Sync {
    /// Whether the bearer may read this object.
    fn may_read(&self, token: &str, key: &Key) -> Right;
    /// Whether the bearer may create this object.
    fn may_write(&self, token: &str, key: &Key) -> Right;
}

/// What clients may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest object that may be created.
    pub max_object_bytes: u64,
    /// Bytes of objects held in memory for all requests at once; more requests wait. At least
    /// `max_object_bytes` is taken.
    pub memory_bytes: u64,
    /// What one session may have of these; at least `max_object_bytes`.
    pub session_bytes: u64,
    /// Requests of one session that are served at once; more wait.
    pub session_requests: usize,
    /// Requests of one session that may wait; more are refused.
    pub session_waiting: usize,
    /// How long a request may wait for each of these, and for the store below.
    pub request_time: Duration,
    /// Bodies have to be sent and read at least so fast, …
    pub min_bytes_per_second: u64,
    /// … once they are under way for so long.
    pub slack: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_object_bytes: 64 << 20,
            memory_bytes: 512 << 20,
            session_bytes: 64 << 20,
            session_requests: 32,
            session_waiting: 1024,
            request_time: Duration::from_secs(60),
            min_bytes_per_second: 64 << 10,
            slack: Duration::from_secs(10),
        }
    }
}

struct Service {
    store: ArtifactStore,
    access: Arc<dyn Access>,
    limits: Limits,
    shares: Shares,
}

/// The routes of the store, to be merged into a server's; see [`crate::tls_serve::serve`].
pub fn router(store: ArtifactStore, access: Arc<dyn Access>, limits: Limits) -> Router {
    let service = Arc::new(Service { store, access, limits, shares: Shares::new(limits) });
    Router::new().route("/artifacts/{*key}", get(read).head(look_up).put(create)).with_state(service)
}

/// Why a request is refused.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal(status, reason) = self;
        let mut response = (status, format!("{reason}\n")).into_response();
        let header = match status {
            StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, "Bearer"),
            StatusCode::SERVICE_UNAVAILABLE => (RETRY_AFTER, "1"),
            _ => return response,
        };
        response.headers_mut().insert(header.0, HeaderValue::from_static(header.1));
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(failure: StoreError) -> Self {
        let (status, reason) = match &failure {
            StoreError::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, "the store is full"),
            StoreError::Unavailable { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer: try again")
            }
            StoreError::TooLarge { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "the object is larger than the store reads")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "the store failed"),
        };
        // what exactly is for the operator's log: it may name folders and buckets
        if failure.is_retryable() {
            warn!(error = %failure, "artifact store");
        } else {
            error!(error = %failure, "artifact store");
        }
        Refusal(status, reason.to_owned())
    }
}

/// An object that workers read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A task's proof.
    Proof(TaskId),
    /// An input.
    Input(ArtifactHash),
}

impl Key {
    /// Reads a key in the one way it is written: another spelling would be another object.
    fn parse(text: &str) -> Result<Self, Refusal> {
        let key = text.split_once('/').and_then(|(folder, id)| match folder {
            "proofs" => id.parse().ok().map(Key::Proof),
            "inputs" => id.parse().ok().map(Key::Input),
            _ => None,
        });
        let key = key.filter(|key| key.text() == text);
        key.ok_or_else(|| {
            let reason = "a key is `proofs/` or `inputs/` and 64 lower-case hex digits";
            Refusal(StatusCode::BAD_REQUEST, reason.to_owned())
        })
    }

    /// As it lies in the store.
    pub fn text(&self) -> String {
        match self {
            Key::Proof(task) => proof_key(task),
            Key::Input(hash) => input_key(hash),
        }
    }
}

/// The token that a request bears.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    token.ok_or_else(|| {
        let reason = "an `Authorization: Bearer` header with a session token is needed";
        Refusal(StatusCode::UNAUTHORIZED, reason.to_owned())
    })
}

fn allowed(right: Right, forbidden: &str) -> Result<(), Refusal> {
    match right {
        Right::Granted => Ok(()),
        Right::Forbidden => Err(Refusal(StatusCode::FORBIDDEN, forbidden.to_owned())),
        Right::Unknown => {
            let reason = "this session is unknown or over: log in again";
            Err(Refusal(StatusCode::UNAUTHORIZED, reason.to_owned()))
        }
    }
}

fn nothing_there() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "nothing is there".into())
}

impl Service {
    fn may_write(&self, token: &str, key: &Key) -> Result<(), Refusal> {
        let forbidden = "this session may not write this key: a worker writes the proofs of its own leases";
        allowed(self.access.may_write(token, key), forbidden)
    }

    /// The token and the object, if the one may read the other.
    fn readable<'h>(&self, headers: &'h HeaderMap, key: &str) -> Result<(&'h str, String), Refusal> {
        let token = bearer(headers)?;
        let key = Key::parse(key)?;
        let forbidden = "this session may not read this key: a worker reads what its own leases need";
        allowed(self.access.may_read(token, &key), forbidden)?;
        Ok((token, key.text()))
    }

    /// The length a request announces, within the limit.
    fn length(&self, body: &Body) -> Result<u64, Refusal> {
        let Some(length) = body.size_hint().exact() else {
            return Err(Refusal(StatusCode::LENGTH_REQUIRED, "a Content-Length is needed".into()));
        };
        let max = self.limits.max_object_bytes;
        if length > max {
            let reason = format!("{length} bytes, and at most {max} are allowed");
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, reason));
        }
        Ok(length)
    }

    /// What the store below answers, if it does.
    async fn below<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, Refusal> {
        match timeout(self.limits.request_time, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_late) => {
                let text = "the store does not answer: try again";
                Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, text.into()))
            }
        }
    }
}

async fn create(
    State(service): State<Arc<Service>>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let token = bearer(&parts.headers)?;
    let key = Key::parse(&key)?;
    service.may_write(token, &key)?;
    let length = service.length(&body)?;
    let mut memory = service.shares.enter(token).await?.reserve(length).await?;
    let body = read_body(body, length, &mut memory, Pace::new(&service.limits)).await?;
    // the lease may have been lost meanwhile
    service.may_write(token, &key)?;
    if let Key::Input(hash) = &key
        && ArtifactHash::of(&body) != *hash
    {
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, "the bytes do not have this hash".into()));
    }
    match service.below(service.store.create(&key.text(), body)).await? {
        Created::New => Ok((StatusCode::CREATED, "created\n").into_response()),
        Created::Exists => Err(Refusal(StatusCode::CONFLICT, "there already, and not touched".into())),
    }
}

async fn look_up(
    State(service): State<Arc<Service>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (token, key) = service.readable(&headers, &key)?;
    let _turn = service.shares.enter(token).await?;
    let bytes = service.below(service.store.head(&key)).await?.ok_or_else(nothing_there)?;
    Ok(([(CONTENT_LENGTH, bytes)], Body::empty()).into_response())
}

async fn read(
    State(service): State<Arc<Service>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (token, key) = service.readable(&headers, &key)?;
    let turn = service.shares.enter(token).await?;
    let opened = service.below(service.store.open_object(&key)).await?.ok_or_else(nothing_there)?;
    let mut memory = turn.reserve(opened.bytes).await?;
    memory.grow_to(opened.bytes).await?;
    let whole = service.below(opened.content).await?;
    let length = whole.len();
    let body = paced(whole, memory, Pace::new(&service.limits));
    Ok(([(CONTENT_LENGTH, length)], body).into_response())
}
