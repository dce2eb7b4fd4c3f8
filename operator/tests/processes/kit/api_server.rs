//! An API server that knows the operator's kinds and nothing else, and whose lists of pods stall as often as it is told.

use super::http;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// It runs until the test's process ends.
pub struct ApiServer {
    address: String,
    lists: Arc<AtomicUsize>,
}

impl ApiServer {
    /// The first `stalls` lists of pods break off in the middle, and the connection stays open.
    pub fn start(stalls: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let lists = Arc::new(AtomicUsize::new(0));
        let counted = lists.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let lists = counted.clone();
                std::thread::spawn(move || serve(stream, &lists, stalls));
            }
        });
        Self { address, lists }
    }

    /// How often pods were listed.
    pub fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
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
}

fn serve(mut stream: TcpStream, lists: &AtomicUsize, stalls: usize) {
    let Some((_, path)) = http::read_request(&stream) else { return };
    let pods = path.starts_with("/api/v1/pods?");
    let answer = match path.as_str() {
        "/apis/arborist.dev/v1alpha1" => {
            let resource = |name| json!({"name": name, "singularName": "", "namespaced": true, "kind": "K", "verbs": []});
            let resources = ["proverpools", "provingjobs"].map(resource);
            json!({"kind": "APIResourceList", "groupVersion": "arborist.dev/v1alpha1", "resources": resources})
        }
        _ if pods && path.contains("watch=") => {
            let head =
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n";
            let _client_may_be_gone = stream.write_all(head.as_bytes());
            let _until_it_leaves = stream.read(&mut [0]);
            return;
        }
        _ if pods => {
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": []})
        }
        _ => {
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "InternalError", "code": 500})
        }
    };
    let stalled = pods && lists.fetch_add(1, Ordering::SeqCst) < stalls;
    let status = if answer["kind"] == "Status" { "500 Internal Server Error" } else { "200 OK" };
    let body = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let sent = if stalled { &body[..body.len() / 2] } else { &body };
    let _client_may_be_gone = stream.write_all((head + sent).as_bytes());
    if stalled {
        let _until_it_leaves = stream.read(&mut [0]);
    }
}
