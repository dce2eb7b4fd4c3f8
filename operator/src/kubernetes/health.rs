//! `/healthz`, `/readyz` and `/metrics` from the first moment of the process on, whether it leads or not.

use super::Metrics;
use crate::dispatch::Dispatcher;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What keeps this operator from being ready; clones are the same one.
///
/// A standby that could take over at once is ready. A leader is ready when its dispatcher is.
#[derive(Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    metrics: Arc<Metrics>,
    state: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    pending: BTreeMap<&'static str, String>,
    dispatcher: Option<Dispatcher>,
}

impl Health {
    /// Nothing pending.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { inner: Arc::new(Inner { metrics, state: Mutex::default() }) }
    }

    /// `what` waits for something; `None`: no more.
    pub fn wait(&self, what: &'static str, pending: Option<String>) {
        let mut state = self.lock();
        match pending {
            Some(text) => state.pending.insert(what, text),
            None => state.pending.remove(what),
        };
    }

    /// This process leads: its dispatcher's readiness and counters come on top.
    pub fn leads(&self, dispatcher: Dispatcher) {
        self.lock().dispatcher = Some(dispatcher);
    }

    /// What keeps it from being ready, one line each; empty when it is.
    pub fn pending(&self) -> Vec<String> {
        let (mut lines, dispatcher) = {
            let state = self.lock();
            let lines: Vec<_> = state.pending.iter().map(|(what, text)| format!("{what}: {text}")).collect();
            (lines, state.dispatcher.clone())
        };
        lines.extend(
            dispatcher.iter().flat_map(Dispatcher::pending).map(|line| format!("dispatcher: {line}")),
        );
        lines
    }

    /// The routes.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .with_state(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    let mut text = health.inner.metrics.text();
    let dispatcher = health.lock().dispatcher.clone();
    if let Some(dispatcher) = dispatcher {
        dispatcher.refresh_metrics();
        text.push_str(&dispatcher.metrics().text());
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn readyz(State(health): State<Health>) -> Response {
    let pending = health.pending();
    if pending.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, pending.join("\n") + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use http::Request;
    use tower::ServiceExt;

    async fn get(health: &Health, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = health.router().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn ready_is_who_waits_for_nothing_and_alive_is_who_answers() {
        let health = Health::new(Arc::new(Metrics::new().unwrap()));
        assert_eq!(get(&health, "/readyz").await, (200, "ok\n".into()));
        health.wait("keys", Some("no answer".into()));
        health.wait("crds", Some("proverpools is not served".into()));
        let (status, text) = get(&health, "/readyz").await;
        assert_eq!((status, text.as_str()), (503, "crds: proverpools is not served\nkeys: no answer\n"));
        assert_eq!(get(&health, "/healthz").await.0, 200);
        health.wait("crds", None);
        health.wait("keys", None);
        assert_eq!(get(&health, "/readyz").await.0, 200);
        let (status, text) = get(&health, "/metrics").await;
        assert!(status == 200 && text.contains("arborist_leader 0"), "{text}");
    }
}
