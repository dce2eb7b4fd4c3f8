//! A small S3 in memory that fails as a test says: conditional puts, lists in pages, faults by rules.
#![allow(dead_code, reason = "each of the tests that share it uses a part")]

use arborist_artifacts::{ArtifactStore, StoreOptions};
use axum::body::{Body, to_bytes};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What becomes of a request that a rule is for.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status, with this code in XML.
    Answer(u16, &'static str),
    /// The connection is closed and nothing said.
    Close,
}

/// Which requests fail, and how.
#[derive(Debug, Clone)]
pub struct Rule {
    pub method: Method,
    /// A part of the path or query.
    pub matches: &'static str,
    /// Only those with `If-None-Match`.
    pub conditional: bool,
    /// After the object was written, not before.
    pub after: bool,
    /// Only the first so many.
    pub times: usize,
    /// Only every n-th.
    pub every: usize,
    pub fault: Fault,
}

impl Rule {
    pub fn new(method: Method, fault: Fault) -> Self {
        Self { method, matches: "", conditional: false, after: false, times: usize::MAX, every: 1, fault }
    }
}

/// How it differs from a good one.
#[derive(Debug, Clone)]
pub struct Manners {
    pub page: usize,
    pub ignores_start_after: bool,
    pub ignores_condition: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self { page: 1000, ignores_start_after: false, ignores_condition: false }
    }
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    rules: Vec<(Rule, usize)>,
    manners: Manners,
}

/// A server that lives as long as the runtime of the test.
#[derive(Clone)]
pub struct MockS3 {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    silent: Arc<watch::Sender<bool>>,
}

impl MockS3 {
    pub async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { manners, ..State::default() }));
        let mock = Self { address, state, silent: Arc::default() };
        let serving = mock.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mock = serving.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| mock.clone().serve(request));
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    // closed, as a rule wants it
                    let _ended = served.await;
                });
            }
        });
        mock
    }

    /// The bucket `b`, with patience for tests.
    pub fn store(&self) -> ArtifactStore {
        let options = StoreOptions { bucket_settings: self.settings().to_vec(), ..StoreOptions::default() };
        ArtifactStore::open("s3://b", &options).unwrap()
    }

    /// What has to be set to reach it; in capitals, also in the environment of a process.
    pub fn settings(&self) -> [(String, String); 5] {
        [
            ("aws_endpoint", format!("http://{}", self.address)),
            ("aws_allow_http", "true".to_owned()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_access_key_id", "id".to_owned()),
            ("aws_secret_access_key", "secret".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
    }

    /// While it is silent it takes requests and answers none; afterwards also those that still wait.
    pub fn set_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    pub fn rule(&self, rule: Rule) {
        self.lock().rules.push((rule, 0));
    }

    pub fn no_rules(&self) {
        self.lock().rules.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn fault(&self, after: bool, request: &http::request::Parts) -> Option<Fault> {
        let path = request.uri.to_string();
        let conditional = request.headers.contains_key("if-none-match");
        let mut state = self.lock();
        for (rule, met) in &mut state.rules {
            let applies = rule.method == request.method
                && path.contains(rule.matches)
                && (conditional || !rule.conditional)
                && rule.after == after;
            if !applies {
                continue;
            }
            *met += 1;
            if *met <= rule.times && (*met - 1).is_multiple_of(rule.every) {
                return Some(rule.fault.clone());
            }
        }
        None
    }

    async fn failed(
        &self,
        after: bool,
        parts: &http::request::Parts,
    ) -> Option<Result<Response<Body>, &'static str>> {
        match self.fault(after, parts)? {
            Fault::Answer(status, code) => Some(Ok(error(status, code))),
            Fault::Close => Some(Err("a test wants it so")),
        }
    }

    async fn serve(self, request: Request<Incoming>) -> Result<Response<Body>, &'static str> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await.map_err(|_| "the client went away")?;
        let mut silent = self.silent.subscribe();
        silent.wait_for(|silent| !silent).await.map_err(|_| "the test is over")?;
        if let Some(failed) = self.failed(false, &parts).await {
            return failed;
        }
        let answer = self.act(&parts, &body);
        if let Some(failed) = self.failed(true, &parts).await {
            return failed;
        }
        Ok(answer)
    }

    fn act(&self, request: &http::request::Parts, body: &[u8]) -> Response<Body> {
        let mut state = self.lock();
        let path = request.uri.path().trim_start_matches('/');
        let key = path.split_once('/').map_or("", |(_bucket, key)| key).to_owned();
        let query = request.uri.query().unwrap_or_default();
        match request.method {
            Method::GET if query.contains("list-type") => state.list(query),
            Method::GET | Method::HEAD => match state.objects.get(&key) {
                Some(object) => found(&request.method, object),
                None => error(404, "NoSuchKey"),
            },
            Method::PUT => {
                let conditional =
                    request.headers.contains_key("if-none-match") && !state.manners.ignores_condition;
                if conditional && state.objects.contains_key(&key) {
                    return error(412, "PreconditionFailed");
                }
                state.objects.insert(key, body.to_vec());
                answer(200, "").header("etag", "\"e\"").body(Body::empty()).unwrap()
            }
            Method::DELETE => {
                state.objects.remove(&key);
                answer(204, "").body(Body::empty()).unwrap()
            }
            Method::POST => state.delete(&String::from_utf8_lossy(body)),
            _ => error(501, "NotImplemented"),
        }
    }
}

impl State {
    fn list(&self, query: &str) -> Response<Body> {
        let asked = |name: &str| {
            let value = query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().replace("%2F", "/")
        };
        let after = if self.manners.ignores_start_after { String::new() } else { asked("start-after") };
        let after = after.max(asked("continuation-token"));
        let prefix = asked("prefix");
        let keys = self.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let page: Vec<_> = keys.clone().take(self.manners.page).collect();
        let more = keys.count() > page.len();
        let mut out = format!(
            "<ListBucketResult><Name>b</Name><KeyCount>{}</KeyCount><IsTruncated>{more}</IsTruncated>",
            page.len()
        );
        if let (true, Some((last, _))) = (more, page.last()) {
            out.push_str(&format!("<NextContinuationToken>{last}</NextContinuationToken>"));
        }
        for (key, object) in page {
            out.push_str(&format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>e</ETag><Size>{}</Size></Contents>",
                object.len()
            ));
        }
        out.push_str("</ListBucketResult>");
        answer(200, "application/xml").body(Body::from(out)).unwrap()
    }

    fn delete(&mut self, body: &str) -> Response<Body> {
        let mut out = "<DeleteResult>".to_owned();
        for part in body.split("<Key>").skip(1) {
            let key = part.split("</Key>").next().unwrap_or_default();
            self.objects.remove(key);
            out.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
        }
        out.push_str("</DeleteResult>");
        answer(200, "application/xml").body(Body::from(out)).unwrap()
    }
}

fn answer(status: u16, kind: &str) -> http::response::Builder {
    let builder = Response::builder().status(StatusCode::from_u16(status).unwrap());
    if kind.is_empty() { builder } else { builder.header("content-type", kind) }
}

fn found(method: &Method, object: &[u8]) -> Response<Body> {
    let body = if *method == Method::HEAD { Body::empty() } else { Body::from(object.to_vec()) };
    answer(200, "")
        .header("etag", "\"e\"")
        .header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        .header("content-length", object.len())
        .body(body)
        .unwrap()
}

fn error(status: u16, code: &str) -> Response<Body> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a test</Message></Error>");
    answer(status, "application/xml").body(Body::from(body)).unwrap()
}
