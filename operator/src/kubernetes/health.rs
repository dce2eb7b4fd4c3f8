//! `/healthz`, `/readyz` and `/metrics` from the first moment of the process on, whether it leads or not.

use super::Metrics;
use crate::dispatch::Dispatcher;
use crate::metrics::verdict;
use arborist_system::watchdog::Watchdog;
use axum::Router;
use axum::extract::State;
use axum::http::header;
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
    watchdog: Watchdog,
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
        let (watchdog, state) = (Watchdog::default(), Mutex::default());
        Self { inner: Arc::new(Inner { metrics, watchdog, state }) }
    }

    /// Watches the parts of the operator that have to go on; those of its dispatcher are its own.
    pub fn watchdog(&self) -> &Watchdog {
        &self.inner.watchdog
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

    /// It leads no more.
    pub fn follows(&self) {
        self.lock().dispatcher = None;
    }

    /// The parts that are stuck, one line each; empty when all goes on.
    pub fn stuck(&self) -> Vec<String> {
        let dispatcher = self.lock().dispatcher.clone();
        let mut stuck = self.inner.watchdog.stuck();
        stuck.extend(dispatcher.iter().flat_map(Dispatcher::stuck).map(|line| format!("dispatcher: {line}")));
        stuck
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
            .route("/healthz", get(healthz))
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

async fn healthz(State(health): State<Health>) -> Response {
    verdict(&health.stuck())
}

async fn readyz(State(health): State<Health>) -> Response {
    verdict(&health.pending())
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
    async fn ready_is_who_waits_for_nothing_and_alive_is_who_goes_on() {
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
        let stuck = health.watchdog().watch("the controller", std::time::Duration::ZERO);
        while health.stuck().is_empty() {
            tokio::task::yield_now().await;
        }
        let (status, text) = get(&health, "/healthz").await;
        assert!(status == 503 && text.starts_with("the controller: stuck for"), "{text}");
        assert_eq!(get(&health, "/readyz").await.0, 200);
        drop(stuck);
        assert_eq!(get(&health, "/healthz").await.0, 200);
        let (status, text) = get(&health, "/metrics").await;
        assert!(status == 200 && text.contains("arborist_leader 0"), "{text}");
    }
}
