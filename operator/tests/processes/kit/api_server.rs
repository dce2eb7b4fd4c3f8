//! An API server that keeps what it is given, knows the operator's kinds, and whose lists of pods stall as often as it is
//! told. Nothing of a cluster is behind it: no pod runs, and nothing is checked.

use super::http;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// It runs until the test's process ends; clones are the same one.
#[derive(Clone)]
pub struct ApiServer {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    /// Grows with each write.
    version: u64,
    /// Lists of pods that were asked for, and how many of the first break off.
    lists: usize,
    stalls: usize,
}

struct Request {
    method: String,
    /// Without the query.
    path: String,
    query: String,
    body: Value,
}

impl ApiServer {
    /// The first `stalls` lists of pods break off in the middle, and the connection stays open.
    pub fn start(stalls: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = Self { address, state: Arc::new(Mutex::new(State { stalls, ..State::default() })) };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = serving.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    /// How often pods were listed.
    pub fn lists(&self) -> usize {
        self.lock().lists
    }

    /// What lies at this path, `null` for nothing.
    pub fn object(&self, path: &str) -> Value {
        self.lock().objects.get(path).cloned().unwrap_or_default()
    }

    /// Puts an object there before anybody watches.
    pub fn put(&self, path: &str, object: Value) {
        self.lock().write(path, object);
    }

    /// The way to it, for KUBECONFIG.
    pub fn write_kubeconfig(&self, file: &Path) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "ours"}}],
        });
        std::fs::write(file, config.to_string()).expect("the file is written");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) {
        let Some(request) = read_request(&stream) else { return };
        if request.query.contains("watch=") {
            let head =
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n";
            let _client_may_be_gone = stream.write_all(head.as_bytes());
            let _until_it_leaves = stream.read(&mut [0]);
            return;
        }
        let (answer, stalled) = {
            let mut state = self.lock();
            let stalled = state.stalls_now(&request);
            (state.answer(&request), stalled)
        };
        let (status, body) = (answer.0, answer.1.to_string());
        let head = format!(
            "HTTP/1.1 {status} A\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let sent = if stalled { &body[..body.len() / 2] } else { &body };
        let _client_may_be_gone = stream.write_all((head + sent).as_bytes());
        if stalled {
            let _until_it_leaves = stream.read(&mut [0]);
        }
    }
}

impl State {
    fn stalls_now(&mut self, request: &Request) -> bool {
        let pods = request.method == "GET" && request.path == "/api/v1/pods";
        self.lists += usize::from(pods);
        pods && self.lists <= self.stalls
    }

    fn answer(&mut self, request: &Request) -> (u16, Value) {
        let Request { method, path, body, .. } = request;
        match method.as_str() {
            "GET" if path == "/apis/arborist.dev/v1alpha1" => (200, kinds()),
            "GET" => self.read(path),
            "POST" => match body["metadata"]["name"].as_str() {
                Some(name) => {
                    let path = format!("{path}/{name}");
                    match self.objects.contains_key(&path) {
                        true => refused(409, "AlreadyExists"),
                        false => (201, self.write(&path, body.clone())),
                    }
                }
                None => (201, body.clone()),
            },
            "PUT" => match self.objects.get(path) {
                None => refused(404, "NotFound"),
                Some(there)
                    if there["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] =>
                {
                    refused(409, "Conflict")
                }
                Some(_) => (200, self.write(path, body.clone())),
            },
            "PATCH" => match path.strip_suffix("/status") {
                None => (200, self.write(path, body.clone())),
                Some(path) => match self.objects.get(path).cloned() {
                    None => refused(404, "NotFound"),
                    Some(mut object) => {
                        object["status"] = body["status"].clone();
                        (200, self.write(path, object))
                    }
                },
            },
            "DELETE" => match self.objects.remove(path) {
                None => refused(404, "NotFound"),
                Some(object) => (200, object),
            },
            _ => refused(405, "MethodNotAllowed"),
        }
    }

    fn read(&self, path: &str) -> (u16, Value) {
        let (group, last) = path.rsplit_once('/').unwrap_or_default();
        let (kind, version) = match last {
            "pods" => ("PodList", "v1"),
            "proverpools" => ("ProverPoolList", "arborist.dev/v1alpha1"),
            "provingjobs" => ("ProvingJobList", "arborist.dev/v1alpha1"),
            _ => {
                return match self.objects.get(path) {
                    Some(object) => (200, object.clone()),
                    None => refused(404, "NotFound"),
                };
            }
        };
        let of_kind = |path: &str| path.starts_with(group) && path.contains(&format!("/{last}/"));
        let items: Vec<_> = self.objects.iter().filter(|(path, _)| of_kind(path)).map(|(_, o)| o).collect();
        let metadata = json!({"resourceVersion": self.version.to_string()});
        (200, json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items}))
    }

    fn write(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn kinds() -> Value {
    let resource =
        |name| json!({"name": name, "singularName": "", "namespaced": true, "kind": "K", "verbs": []});
    let resources = ["proverpools", "provingjobs"].map(resource);
    json!({"kind": "APIResourceList", "groupVersion": "arborist.dev/v1alpha1", "resources": resources})
}

fn refused(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}))
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let (method, target, body) = http::read_request(stream)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Some(Request { method, path: path.to_owned(), query: query.to_owned(), body })
}
