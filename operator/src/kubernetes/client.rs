//! The connection to the API server: what it is made of, and what is counted of it.

use super::gate::Gate;
use super::metrics::Metrics;
use axum::body::HttpBody;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::{Sleep, timeout};
use tower::buffer::BufferLayer;
use tower::layer::util::{Identity, Stack};
use tower::retry::{Policy, RetryLayer};
use tower::util::{Either, option_layer};
use tower::{BoxError, Layer, Service};
use tower_http::timeout::{DeadlineBody, TimeoutBody};

/// Requests that may wait for the connection.
const WAITING: usize = 1024;
/// Tries after an answer of 429, 503 or 504 (of creates: 429 only), and the pauses between them; a longer one that
/// the server asks for is kept to. What fails then is for the controllers to try again, with their own patience.
const RETRIES: u32 = 4;
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// An answer has to begin within this time: behind a network that swallows packets a request would wait for a quarter of
/// an hour otherwise, and behind one that acknowledges them for ever.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Each part of an answer has to follow the one before within this time, and the last one the first within the other.
const NEXT_PART: Duration = Duration::from_secs(15);
const LAST_PART: Duration = Duration::from_secs(120);
/// A watch is ended by the API server after this time, and goes on with the next: so it is noticed soon when nothing comes
/// because nobody is there.
pub const WATCH_SECONDS: u32 = 60;

/// Clients of one API server.
pub struct Clients {
    /// For what a standby may do too: reads, tokens, the Lease.
    pub open: Client,
    /// For the controllers: writes pass only while leading.
    pub gated: Client,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is neither a service account nor a usable kubeconfig.
    #[error("no way to reach the API server: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// TLS or credentials can't be set up.
    #[error("the API server's client: {0}")]
    Setup(#[from] kube::Error),
    /// The retry policy's figures are wrong: a bug.
    #[error("the client's pauses: {0}")]
    Pauses(#[from] tower::retry::backoff::InvalidBackoff),
}

impl Clients {
    /// From KUBECONFIG, else from the pod's service account. Does not connect yet.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn new(metrics: &Arc<Metrics>, gate: &Gate) -> Result<Self, ClientError> {
        let mut config = Config::infer().await?;
        // done here, below the counters
        config.default_retry = false;
        let client = |gate| -> Result<Client, ClientError> {
            Ok(ClientBuilder::try_from(config.clone())?.with_layer(&layers(metrics, gate)?).build())
        };
        Ok(Self { open: client(None)?, gated: client(Some(gate))? })
    }
}

/// What is between a client and its connection, innermost first.
type Layers =
    Stack<Counting, Stack<Either<Gate, Identity>, Stack<BufferLayer<Request<Body>>, RetryLayer<Repeats>>>>;

/// The gate is below the queue and the repeats: each try of a write asks it at the moment when it would leave.
fn layers(metrics: &Arc<Metrics>, gate: Option<&Gate>) -> Result<Layers, ClientError> {
    let retry = RetryPolicy::new(RETRY_PAUSE.0, RETRY_PAUSE.1, RETRIES, true)?;
    let above = Stack::new(BufferLayer::new(WAITING), RetryLayer::new(Repeats(retry)));
    Ok(Stack::new(Counting(metrics.clone()), Stack::new(option_layer(gate.cloned()), above)))
}

/// Repeats what the API server could not take. After a 503 or 504 it may have taken it all the same: so a create is not
/// repeated then, which would be refused for the name that the first one took, as if nothing had been made. Reviews make
/// nothing.
#[derive(Clone)]
struct Repeats(RetryPolicy);

impl<B> Policy<Request<Body>, Response<B>, BoxError> for Repeats {
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Sleep> {
        let (verb, resource) = describe(request.method(), request.uri().path(), "");
        let doubtful = matches!(result, Ok(answer) if answer.status() != StatusCode::TOO_MANY_REQUESTS);
        match verb == "create" && doubtful && !resource.ends_with("reviews") {
            true => None,
            false => self.0.retry(request, result),
        }
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Policy::<_, Response<B>, BoxError>::clone_request(&mut self.0, request)
    }
}

/// The API server does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {} s", ANSWER_TIME.as_secs())]
struct NoAnswer;

/// An error with its causes in one line: kube's own text ends before what the system said.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let part = cause.to_string();
        // some layers only repeat the one below
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = cause.source();
    }
    text
}

/// An answer whose parts have to come in time.
type Timely<B> = Response<TimeoutBody<DeadlineBody<B>>>;

fn timely<B: HttpBody<Error: Into<BoxError>>>(answer: Response<B>, watches: bool) -> Timely<B> {
    let watch = Duration::from_secs(WATCH_SECONDS.into());
    let (next, last) = if watches { (watch + NEXT_PART, watch + LAST_PART) } else { (NEXT_PART, LAST_PART) };
    answer.map(|body| TimeoutBody::new(next, DeadlineBody::new(last, body)))
}

/// Counts every try of a request, and bounds the time that it takes.
#[derive(Clone)]
struct Counting(Arc<Metrics>);

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.0.clone() }
    }
}

#[derive(Clone)]
struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    type Response = Timely<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Timely<B>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, resource) =
            describe(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
        let (answer, metrics, began) = (self.inner.call(request), self.metrics.clone(), Instant::now());
        Box::pin(async move {
            let answer = timeout(ANSWER_TIME, answer).await.unwrap_or_else(|_| Err(NoAnswer.into()));
            let code = answer.as_ref().map_or("none", |a| code(a.status()));
            metrics.api_requests.with_label_values(&[verb, resource, code]).inc();
            if verb != "watch" {
                metrics.api_seconds.with_label_values(&[verb]).observe(began.elapsed().as_secs_f64());
            }
            answer.map(|answer| timely(answer, verb == "watch"))
        })
    }
}

/// The resources that this operator asks for, with subresources; all else is `other`.
const RESOURCES: [&str; 11] = [
    "configmaps",
    "endpointslices",
    "events",
    "leases",
    "pods",
    "proverpools",
    "proverpools/status",
    "provingjobs",
    "provingjobs/status",
    "secrets",
    "tokenreviews",
];

/// A request's verb, as RBAC has it, and its resource.
fn describe(method: &Method, path: &str, query: &str) -> (&'static str, &'static str) {
    let mut parts = path.trim_matches('/').split('/');
    let version = match parts.next() {
        Some("api") => parts.next(),
        Some("apis") => parts.nth(1),
        _ => None,
    };
    let rest: Vec<&str> = if version.is_some() { parts.collect() } else { vec![] };
    // namespaces/NAMESPACE/… is where it is, not what it is
    let what = match rest.as_slice() {
        ["namespaces", _, what @ ..] if !what.is_empty() => what,
        what => what,
    };
    let (name, resource) = match what {
        [] => return (plain_verb(method), "discovery"),
        [kind] => (None, (*kind).to_owned()),
        [kind, name] => (Some(name), (*kind).to_owned()),
        [kind, name, sub, ..] => (Some(name), format!("{kind}/{sub}")),
    };
    let resource = RESOURCES.iter().find(|known| **known == resource).copied().unwrap_or("other");
    let watches = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
    let verb = match (method, name) {
        (&Method::GET, _) if watches => "watch",
        (&Method::GET, None) => "list",
        (&Method::DELETE, None) => "deletecollection",
        _ => plain_verb(method),
    };
    (verb, resource)
}

fn plain_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

/// A status as a label: what controllers react to by number, all else by class.
fn code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "2xx",
        401 => "401",
        403 => "403",
        404 => "404",
        409 => "409",
        410 => "410",
        422 => "422",
        429 => "429",
        400..=499 => "4xx",
        503 => "503",
        504 => "504",
        500..=599 => "5xx",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::gate::is_closed;
    use crate::kubernetes::testing::{FakeApi, status};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::{Patch, PatchParams};

    #[test]
    fn verbs_and_resources_are_those_of_rbac() {
        let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
        let cases = [
            (&get, "/api/v1/namespaces/a/pods/p", "", ("get", "pods")),
            (&get, "/api/v1/pods", "limit=500", ("list", "pods")),
            (&get, "/api/v1/namespaces/a/pods", "labelSelector=x&watch=true", ("watch", "pods")),
            (&post, "/api/v1/namespaces/a/pods", "", ("create", "pods")),
            (&delete, "/api/v1/namespaces/a/pods/p", "", ("delete", "pods")),
            (&delete, "/api/v1/namespaces/a/pods", "", ("deletecollection", "pods")),
            (&post, "/api/v1/namespaces/a/pods/p/eviction", "", ("create", "other")),
            (
                &patch,
                "/apis/arborist.dev/v1alpha1/namespaces/a/provingjobs/j/status",
                "fieldManager=arborist",
                ("patch", "provingjobs/status"),
            ),
            (
                &Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/arborist",
                "",
                ("update", "leases"),
            ),
            (&post, "/apis/authentication.k8s.io/v1/tokenreviews", "", ("create", "tokenreviews")),
            (&get, "/apis/arborist.dev/v1alpha1", "", ("get", "discovery")),
            (&get, "/api/v1/namespaces/a", "", ("get", "other")),
            (&get, "/version", "", ("get", "discovery")),
            (&get, "/apis/batch/v1/namespaces/a/jobs/some-name", "", ("get", "other")),
        ];
        for (method, path, query, wanted) in cases {
            assert_eq!(describe(method, path, query), wanted, "{method} {path}?{query}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_ends() {
        let service = tower::service_fn(|_request: Request<Body>| std::future::pending());
        let service =
            tower::ServiceExt::<Request<Body>>::map_response(service, |never: Response<Body>| never);
        let metrics = Arc::new(Metrics::new().unwrap());
        let layered = Counting(metrics).layer(service);
        for uri in ["/api/v1/pods", "/api/v1/pods?watch=true"] {
            let request = Request::get(uri).body(Body::empty()).unwrap();
            let error = tower::ServiceExt::oneshot(layered.clone(), request).await.err().unwrap();
            assert_eq!(error.to_string(), "no answer within 30 s");
        }
    }

    /// The beginning of a list, over a real connection, and then nothing; or a byte now and then.
    async fn stalls(every: Option<Duration>) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut open = vec![];
            while let Ok((mut stream, _)) = listener.accept().await {
                use tokio::io::AsyncWriteExt;
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n{\"kind\": \"PodList\",";
                stream.write_all(head.as_bytes()).await.unwrap();
                match every {
                    None => open.push(stream),
                    Some(every) => {
                        _ = tokio::spawn(async move {
                            while stream.write_all(b" ").await.is_ok() {
                                tokio::time::sleep(every).await;
                            }
                        })
                    }
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn an_answer_that_stalls_or_drips_ends() {
        for (every, limit) in [(None, NEXT_PART), (Some(Duration::from_secs(10)), LAST_PART)] {
            let config = Config::new(format!("http://{}/", stalls(every).await).parse().unwrap());
            let metrics = Arc::new(Metrics::new().unwrap());
            let client =
                ClientBuilder::try_from(config).unwrap().with_layer(&layers(&metrics, None).unwrap()).build();
            let maps: Api<ConfigMap> = Api::namespaced(client, "a");
            let listing = tokio::spawn(async move { maps.list(&Default::default()).await });
            let counted = || metrics.text().contains("resource=\"configmaps\",verb=\"list\"} 1");
            while !counted() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // from here on the clock runs as fast as it can
            tokio::time::pause();
            let began = tokio::time::Instant::now();
            let error = causes(&listing.await.unwrap().unwrap_err());
            assert!(error.contains("not received within"), "{error}");
            assert!(began.elapsed() <= limit + Duration::from_secs(5), "{:?}", began.elapsed());
            tokio::time::resume();
        }
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("inner")]
        struct Inner;
        assert_eq!(causes(&Outer(Inner)), "outer: inner");
        assert_eq!(causes(&kube::Error::Service(Box::new(Outer(Inner)))), "ServiceError: outer: inner");
    }

    #[tokio::test(start_paused = true)]
    async fn each_try_counts_also_the_throttled_ones() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let service = tower::service_fn(move |_request: Request<Body>| {
            let first = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            async move {
                let status = if first { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
                let mut answer = Response::new(Body::from(b"{\"major\":\"1\"}".to_vec()));
                *answer.status_mut() = status;
                Ok::<_, BoxError>(answer)
            }
        });
        let client =
            ClientBuilder::new(service, "default").with_layer(&layers(&metrics, None).unwrap()).build();
        let request = Request::get("/api/v1/namespaces/a/pods/p").body(vec![]).unwrap();
        assert_eq!(client.request_text(request).await.unwrap(), "{\"major\":\"1\"}");
        let text = metrics.text();
        for code in ["2xx", "429"] {
            let line =
                format!("arborist_api_requests_total{{code=\"{code}\",resource=\"pods\",verb=\"get\"}} 1");
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }

    fn layered(api: &FakeApi, gate: Option<&Gate>) -> Client {
        api.builder(layers(&Arc::new(Metrics::new().unwrap()), gate).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn no_repeat_of_a_write_leaves_after_the_gate_has_closed() {
        let (api, gate) = (FakeApi::default(), Gate::default());
        gate.open_until(tokio::time::Instant::now() + Duration::from_secs(60));
        let path = "/api/v1/namespaces/a/configmaps/m";
        let closing = gate.clone();
        api.answer(Method::PATCH, path, move |_| {
            closing.close();
            status(503, "ServiceUnavailable")
        });
        let maps: Api<ConfigMap> = Api::namespaced(layered(&api, Some(&gate)), "a");
        let patch = Patch::Apply(ConfigMap::default());
        let error = maps.patch("m", &PatchParams::apply("test"), &patch).await.unwrap_err();
        assert!(is_closed(&error), "{error}");
        assert_eq!(api.count(Method::PATCH, path), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_that_may_have_been_taken_is_not_repeated() {
        let pods = "/api/v1/namespaces/a/pods";
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        let cases = [
            (Method::POST, pods, 503, 1),
            (Method::POST, pods, 504, 1),
            (Method::POST, pods, 429, 5),
            (Method::POST, reviews, 503, 5),
            (Method::DELETE, pods, 504, 5),
            (Method::GET, pods, 503, 5),
        ];
        for (method, path, code, tries) in cases {
            let api = FakeApi::default();
            api.answer(method.clone(), path, move |_| status(code, "Busy"));
            let request = Request::builder().method(method.clone()).uri(path).body(vec![]).unwrap();
            assert!(layered(&api, None).request_text(request).await.is_err());
            assert_eq!(api.count(method.clone(), path), tries, "{method} {path} {code}");
        }
    }
}
