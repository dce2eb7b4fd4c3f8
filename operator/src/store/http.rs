//! The artifact store that an operator serves itself, for clusters without a bucket: `GET`, `HEAD` and
//! create-only `PUT` of `/artifacts/proofs/<task>` and `/artifacts/inputs/<hash>` over any store, usually
//! a folder. Who may do what is for [`Access`] to say.
//!
//! Answers: 200; 201 created; 409 there already and not touched; 400 no such kind of key; 401 no or unknown
//! token; 403 not this key; 404; 408 too slow; 411 no length; 413 too large; 422 not what the key's hash
//! says; 503 the store below does not answer; 507 it is full. Bodies of errors are one line of text.

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
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{error, warn};

/// Objects are sent in parts of this size.
const PART_BYTES: usize = 64 << 10;
const KIB: u64 = 1 << 10;

/// Decides what the bearer of a session token may do.
pub trait Access: Send + Sync {
    /// Whether the token is good: then everything may be read.
    fn may_read(&self, token: &str) -> bool;
    /// Whether the bearer may create this key (`proofs/<task>` or `inputs/<hash>`).
    fn may_write(&self, token: &str, key: &str) -> bool;
}

/// What clients may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest object that may be created.
    pub max_object_bytes: u64,
    /// Bytes of objects held in memory for all requests at once; more requests wait. At least
    /// `max_object_bytes` is taken.
    pub memory_bytes: u64,
    /// How long one request may wait and send.
    pub request_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_object_bytes: 64 << 20, memory_bytes: 512 << 20, request_time: Duration::from_secs(60) }
    }
}

struct Service {
    store: ArtifactStore,
    access: Arc<dyn Access>,
    limits: Limits,
    /// In KiB.
    memory: Arc<Semaphore>,
    memory_kib: u32,
}

/// The routes of the store, to be merged into a server's; see [`crate::tls_serve::serve`].
pub fn router(store: ArtifactStore, access: Arc<dyn Access>, limits: Limits) -> Router {
    let kib = (limits.memory_bytes.max(limits.max_object_bytes) / KIB + 1).min(u64::from(u32::MAX >> 4));
    let memory_kib = kib as u32;
    let memory = Arc::new(Semaphore::new(memory_kib as usize));
    let service = Arc::new(Service { store, access, limits, memory, memory_kib });
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

/// What may be stored.
enum Key {
    Proof(TaskId),
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

    fn text(&self) -> String {
        match self {
            Key::Proof(task) => proof_key(task),
            Key::Input(hash) => input_key(hash),
        }
    }
}

impl Service {
    /// The bearer's token, if it is good.
    fn token<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, Refusal> {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let reason = match token {
            Some(token) if self.access.may_read(token) => return Ok(token),
            Some(_) => "this session is unknown or over: log in again",
            None => "an `Authorization: Bearer` header with a session token is needed",
        };
        Err(Refusal(StatusCode::UNAUTHORIZED, reason.to_owned()))
    }

    async fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let kib = u32::try_from(bytes / KIB + 1).unwrap_or(u32::MAX).min(self.memory_kib);
        let permit = timeout(self.limits.request_time, self.memory.clone().acquire_many_owned(kib)).await;
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once: try again".into())),
        }
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
}

async fn read_body(body: Body, length: u64) -> Result<Bytes, Refusal> {
    let mut parts = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
        whole.extend_from_slice(&part);
        if whole.len() as u64 > length {
            return Err(Refusal(StatusCode::BAD_REQUEST, "the body is longer than announced".into()));
        }
    }
    if (whole.len() as u64) < length {
        return Err(Refusal(StatusCode::BAD_REQUEST, "the body is shorter than announced".into()));
    }
    Ok(whole.freeze())
}

async fn create(
    State(service): State<Arc<Service>>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let headers = request.headers();
    let token = service.token(headers)?;
    let key = Key::parse(&key)?;
    if !service.access.may_write(token, &key.text()) {
        let reason = "this session may not write this key: a worker writes the proofs of its own leases";
        return Err(Refusal(StatusCode::FORBIDDEN, reason.to_owned()));
    }
    let length = service.length(request.body())?;
    let _memory = service.reserve(length).await?;
    let body = timeout(service.limits.request_time, read_body(request.into_body(), length)).await;
    let Ok(body) = body else {
        return Err(Refusal(StatusCode::REQUEST_TIMEOUT, "the body took too long".into()));
    };
    let body = body?;
    if let Key::Input(hash) = &key
        && ArtifactHash::of(&body) != *hash
    {
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, "the bytes do not have this hash".into()));
    }
    match service.store.create(&key.text(), body).await? {
        Created::New => Ok((StatusCode::CREATED, "created\n").into_response()),
        Created::Exists => Err(Refusal(StatusCode::CONFLICT, "there already, and not touched".into())),
    }
}

async fn size(service: &Service, headers: &HeaderMap, key: &str) -> Result<(String, u64), Refusal> {
    service.token(headers)?;
    let key = Key::parse(key)?.text();
    match service.store.head(&key).await? {
        Some(bytes) => Ok((key, bytes)),
        None => Err(Refusal(StatusCode::NOT_FOUND, "nothing is there".into())),
    }
}

async fn look_up(
    State(service): State<Arc<Service>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (_key, bytes) = size(&service, &headers, &key).await?;
    Ok(([(CONTENT_LENGTH, bytes)], Body::empty()).into_response())
}

async fn read(
    State(service): State<Arc<Service>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (key, bytes) = size(&service, &headers, &key).await?;
    let memory = service.reserve(bytes).await?;
    let Some(whole) = service.store.get(&key).await? else {
        return Err(Refusal(StatusCode::NOT_FOUND, "nothing is there".into()));
    };
    let length = whole.len();
    // the share of the memory is given back with the last part, or when the client goes away
    let parts = stream::unfold((whole, memory), |(mut rest, memory)| async move {
        if rest.is_empty() {
            return None;
        }
        let part = rest.split_to(rest.len().min(PART_BYTES));
        Some((Ok::<_, Infallible>(part), (rest, memory)))
    });
    Ok(([(CONTENT_LENGTH, length)], Body::from_stream(parts)).into_response())
}
