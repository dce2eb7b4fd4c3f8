//! An API server for tests: objects by path, with what the operator relies on (versions, conflicts, apply), and
//! faults.

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tower::{BoxError, Layer, Service};

/// Answers a request by its body.
type Answer = Box<dyn Fn(&Value) -> (u16, Value) + Send + Sync>;

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// As it should.
    #[default]
    Well,
    /// Nobody listens.
    Down,
    /// It takes requests and never answers.
    Silent,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    mood: Mood,
    answers: Vec<(Method, String, Answer)>,
    log: Vec<(Method, String)>,
}

/// The server; clones are the same one.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    /// A client of it.
    pub fn client(&self) -> Client {
        self.builder(tower::layer::util::Identity::new())
    }

    /// A client of it behind a layer.
    pub fn builder<L, B>(&self, layer: L) -> Client
    where
        L: Layer<tower::util::BoxCloneService<Request<Body>, Response<Body>, BoxError>>,
        L::Service: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        B: axum::body::HttpBody<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<Request<Body>>>::Future: Send + 'static,
    {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.serve(request).await }
        });
        ClientBuilder::new(tower::util::BoxCloneService::new(service), "default").with_layer(&layer).build()
    }

    /// From now on it behaves so.
    pub fn set(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// Requests of this kind to this path are answered so, whatever there is.
    pub fn answer(
        &self,
        method: Method,
        path: &str,
        answer: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static,
    ) {
        self.lock().answers.insert(0, (method, path.to_owned(), Box::new(answer)));
    }

    /// The object at a path.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Puts an object there, as somebody else would.
    pub fn put(&self, path: &str, object: Value) {
        let mut state = self.lock();
        store(&mut state, path, object);
    }

    /// Deletes it, as somebody else would.
    pub fn delete(&self, path: &str) {
        self.lock().objects.remove(path);
    }

    /// How many requests of this kind there were to paths that begin so.
    pub fn count(&self, method: Method, path: &str) -> usize {
        self.lock().log.iter().filter(|(m, p)| *m == method && p.starts_with(path)).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let mood = {
            let mut state = self.lock();
            state.log.push((parts.method.clone(), path.clone()));
            state.mood
        };
        match mood {
            Mood::Well => {}
            Mood::Down => return Err("connection refused".into()),
            Mood::Silent => std::future::pending().await,
        }
        let bytes = body.collect_bytes().await?;
        let body: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        let (code, answer) = respond(&mut self.lock(), &parts.method, &path, body);
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = StatusCode::from_u16(code)?;
        Ok(response)
    }
}

fn respond(state: &mut State, method: &Method, path: &str, body: Value) -> (u16, Value) {
    if let Some((_, _, answer)) = state.answers.iter().find(|(m, p, _)| m == method && p == path) {
        return answer(&body);
    }
    let there = state.objects.get(path).cloned();
    match (method.as_str(), there) {
        ("GET", Some(object)) => (200, object),
        ("POST", _) => {
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("{path}/{name}");
            match state.objects.contains_key(&path) {
                true => status(409, "AlreadyExists"),
                false => (201, store(state, &path, body)),
            }
        }
        ("PUT", Some(old)) => {
            let (read, is) = (&body["metadata"]["resourceVersion"], &old["metadata"]["resourceVersion"]);
            match read.is_string() && read != is {
                true => status(409, "Conflict"),
                false => (200, store(state, path, body)),
            }
        }
        ("PATCH", old) => {
            let mut object = old.unwrap_or(json!({}));
            merge(&mut object, body);
            (200, store(state, path, object))
        }
        ("DELETE", Some(old)) => {
            state.objects.remove(path);
            (200, old)
        }
        _ => status(404, "NotFound"),
    }
}

fn store(state: &mut State, path: &str, mut object: Value) -> Value {
    state.version += 1;
    object["metadata"]["resourceVersion"] = state.version.to_string().into();
    state.objects.insert(path.to_owned(), object.clone());
    object
}

/// A Status object.
pub fn status(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    (code, status)
}

/// As good as server-side apply for one manager: maps are merged, all else is replaced.
fn merge(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                merge(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new,
    }
}
