//! Writes only while leading: a layer of the controllers' client that turns requests away which change
//! something, from the moment the Lease may have gone to another.
//!
//! It depends on nothing but the time: a process that was frozen for a minute finds it closed when it wakes
//! up, before any of its tasks has noticed.

use http::{Method, Request};
use kube::client::Body;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// Open until a time; closed at first. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Gate {
    start: Instant,
    /// Milliseconds since `start`; 0 = closed.
    until: Arc<AtomicU64>,
}

/// The gate is closed: this operator does not lead, or may lead no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this operator may not write now: it does not hold the Lease")]
pub struct NotLeading;

impl Default for Gate {
    fn default() -> Self {
        Self { start: Instant::now(), until: Arc::default() }
    }
}

impl Gate {
    /// Lets writes through until then. Moves the end in both directions.
    pub fn open_until(&self, until: Instant) {
        let millis = until.saturating_duration_since(self.start).as_millis();
        self.until.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Lets no write through from now on.
    pub fn close(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Whether a write may pass now.
    pub fn is_open(&self) -> bool {
        self.start.elapsed() < Duration::from_millis(self.until.load(Ordering::Acquire))
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

/// A client's service behind a [`Gate`].
#[derive(Debug, Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Gate,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = futures::future::BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if !reads && !self.gate.is_open() {
            return Box::pin(std::future::ready(Err(NotLeading.into())));
        }
        let answer = self.inner.call(request);
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}

/// Whether a request failed because the gate is closed.
pub fn is_closed(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(source) if source.is::<NotLeading>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, Patch, PatchParams};
    use kube::client::ClientBuilder;

    fn client(gate: &Gate) -> kube::Client {
        let service = tower::service_fn(|_request: Request<Body>| async {
            let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
            Ok::<_, BoxError>(Response::new(Body::from(body.as_bytes().to_vec())))
        });
        ClientBuilder::new(service, "default").with_layer(gate).build()
    }

    #[tokio::test(start_paused = true)]
    async fn writes_pass_only_while_the_gate_is_open_and_reads_always() {
        let gate = Gate::default();
        let api: Api<ConfigMap> = Api::namespaced(client(&gate), "default");
        let patch = Patch::Apply(ConfigMap::default());
        let how = PatchParams::apply("test");
        let write = || api.patch("a", &how, &patch);
        assert!(is_closed(&write().await.unwrap_err()), "closed at first");
        gate.open_until(Instant::now() + Duration::from_secs(8));
        assert!(write().await.is_ok());
        tokio::time::advance(Duration::from_secs(8)).await;
        assert!(is_closed(&write().await.unwrap_err()), "the time is over");
        assert!(api.get("a").await.is_ok());
        gate.open_until(Instant::now() + Duration::from_secs(8));
        gate.close();
        assert!(is_closed(&write().await.unwrap_err()), "closed by hand");
    }
}
