//! As much of an API server as the controller speaks to, with a log of what it was asked.

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tower_test::mock::{Handle, SendResponse};

type Requests = Handle<Request<Body>, Response<Body>>;

#[derive(Default)]
pub struct State {
    /// By "resource/name".
    pub objects: BTreeMap<String, Value>,
    /// One line for each request, in order.
    pub log: Vec<String>,
    /// Answered with an error, by the beginning of the log's line: (line, code), each once.
    pub errors: Vec<(String, u16)>,
    version: u64,
    /// Watches stay open.
    watches: Vec<SendResponse<Response<Body>>>,
}

#[derive(Clone)]
pub struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    pub fn start() -> (Self, Client) {
        let (service, requests) = tower_test::mock::pair();
        let api = Self(Arc::default());
        tokio::spawn(api.clone().serve(requests));
        (api, Client::new(service, "rollup"))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn put(&self, resource: &str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        state.objects.insert(format!("{resource}/{name}"), object);
    }

    pub fn get(&self, key: &str) -> Option<Value> {
        self.state().objects.get(key).cloned()
    }

    /// What was asked since the last call.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    async fn serve(self, mut requests: Requests) {
        while let Some((request, answer)) = requests.next_request().await {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let query = parts.uri.query().unwrap_or_default();
            if query.contains("watch=true") {
                self.state().watches.push(answer);
                continue;
            }
            let (code, object) = self.state().answer(&parts.method, parts.uri.path(), query, &body);
            let response = Response::builder().status(code).body(Body::from(object.to_string().into_bytes()));
            answer.send_response(response.unwrap());
        }
    }
}

fn error(code: u16) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code}),
    )
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> (u16, Value) {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let resource = parts.iter().position(|p| *p == "namespaces").map_or(3, |at| at + 2);
        let key = parts[resource..].join("/");
        let line = match (method.as_str(), key.as_str()) {
            ("POST", "events") => format!("event {}", body["reason"].as_str().unwrap()),
            ("POST", key) => format!("create {key}/{}", body["metadata"]["name"].as_str().unwrap()),
            ("PUT", key) => format!("replace {key}"),
            ("PATCH", key) => format!("patch {key}"),
            ("DELETE", key) => format!("delete {key}"),
            (_, key) => format!("get {key}"),
        };
        self.log.push(line.clone());
        if let Some(at) = self.errors.iter().position(|(start, _)| line.starts_with(start.as_str())) {
            return error(self.errors.remove(at).1);
        }
        match method.as_str() {
            "POST" if key == "events" => (201, body.clone()),
            "PATCH" if key.starts_with("events/") => (200, body.clone()),
            "POST" => self.create(&key, body),
            "PUT" => self.replace(&key, body),
            "PATCH" => self.patch_status(key.strip_suffix("/status").unwrap(), query, body),
            "DELETE" => self.delete(&key, body),
            _ if key == "provingjobs" => (200, self.list()),
            _ => self.objects.get(&key).map_or_else(|| error(404), |object| (200, object.clone())),
        }
    }

    fn list(&self) -> Value {
        let jobs = self.objects.iter().filter(|(key, _)| key.starts_with("provingjobs/"));
        json!({
            "apiVersion": "arborist.dev/v1alpha1", "kind": "ProvingJobList",
            "metadata": {"resourceVersion": self.version.to_string()},
            "items": jobs.map(|(_, job)| job).collect::<Vec<_>>(),
        })
    }

    fn stored(&mut self, key: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key.to_owned(), object.clone());
        object
    }

    fn create(&mut self, resource: &str, body: &Value) -> (u16, Value) {
        let key = format!("{resource}/{}", body["metadata"]["name"].as_str().unwrap());
        if self.objects.contains_key(&key) {
            return error(409);
        }
        (201, self.stored(&key, body.clone()))
    }

    fn replace(&mut self, key: &str, body: &Value) -> (u16, Value) {
        match self.objects.get(key) {
            Some(old) if old["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"] => {
                (200, self.stored(key, body.clone()))
            }
            Some(_) => error(409),
            None => error(404),
        }
    }

    /// Server-side apply of the whole status by its only manager: what is left out is removed.
    fn patch_status(&mut self, key: &str, query: &str, body: &Value) -> (u16, Value) {
        assert!(query.contains("fieldManager=arborist") && query.contains("force=true"), "{query}");
        let Some(mut object) = self.objects.get(key).cloned() else { return error(404) };
        if object["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
            return error(409);
        }
        object["status"] = body["status"].clone();
        (200, self.stored(key, object))
    }

    fn delete(&mut self, key: &str, body: &Value) -> (u16, Value) {
        let Some(object) = self.objects.get(key) else { return error(404) };
        let wanted = &body["preconditions"];
        if wanted["uid"] != object["metadata"]["uid"]
            || wanted["resourceVersion"] != object["metadata"]["resourceVersion"]
        {
            return error(409);
        }
        (200, self.objects.remove(key).unwrap())
    }
}
