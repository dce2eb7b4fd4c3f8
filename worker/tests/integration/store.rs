//! Artifact stores that are not at their best.

use crate::support::*;
use arborist_core::circuit::Circuit;
use arborist_core::proof_object::ProofObject;
use arborist_core::wire::{Reason, ToWorker};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use rustls::pki_types::PrivateKeyDer;
use std::collections::HashMap;
use std::future::{Future, IntoFuture};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio_rustls::TlsAcceptor;

/// A store like the operator's own, that answers with `status` unless that is 200.
#[derive(Clone)]
struct Store {
    status: Arc<AtomicU16>,
    turned_away: Arc<AtomicU32>,
    objects: Arc<Mutex<HashMap<String, Bytes>>>,
}

impl Store {
    /// Starts it and returns its URL too.
    fn start() -> (Self, String) {
        Self::serve(|listener, router| axum::serve(listener, router).into_future(), "http")
    }

    /// With a certificate of its own: returned too, in PEM.
    fn start_with_tls() -> (Self, String, String) {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serve = |tcp, router| axum::serve(TlsListener { tcp, acceptor }, router).into_future();
        let (store, url) = Self::serve(serve, "https");
        (store, url, certified.cert.pem())
    }

    fn serve<F: Future<Output = std::io::Result<()>>>(
        serve: impl FnOnce(tokio::net::TcpListener, Router) -> F + Send + 'static,
        scheme: &str,
    ) -> (Self, String) {
        let store = Self {
            status: Arc::new(AtomicU16::new(200)),
            turned_away: Arc::default(),
            objects: Arc::default(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let router =
            Router::new().route("/artifacts/{*key}", get(Self::get).put(Self::put)).with_state(store.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                serve(listener, router).await.unwrap();
            });
        });
        (store, url)
    }

    fn answer_with(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn turned_away(&self) -> u32 {
        self.turned_away.load(Ordering::SeqCst)
    }

    fn gate(&self, headers: &HeaderMap) -> Result<(), StatusCode> {
        if headers.get("authorization").is_none_or(|value| value != "Bearer session") {
            return Err(StatusCode::UNAUTHORIZED);
        }
        match self.status.load(Ordering::SeqCst) {
            200 => Ok(()),
            status => {
                self.turned_away.fetch_add(1, Ordering::SeqCst);
                Err(StatusCode::from_u16(status).unwrap())
            }
        }
    }

    async fn get(
        State(store): State<Store>,
        Path(key): Path<String>,
        headers: HeaderMap,
    ) -> Result<Bytes, StatusCode> {
        store.gate(&headers)?;
        store.objects.lock().unwrap().get(&key).cloned().ok_or(StatusCode::NOT_FOUND)
    }

    async fn put(
        State(store): State<Store>,
        Path(key): Path<String>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<StatusCode, StatusCode> {
        store.gate(&headers)?;
        let mut objects = store.objects.lock().unwrap();
        if objects.contains_key(&key) {
            return Err(StatusCode::CONFLICT);
        }
        objects.insert(key, body);
        Ok(StatusCode::CREATED)
    }
}

struct TlsListener {
    tcp: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            // a worker that does not trust the certificate hangs up here
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

fn connected(args: &[&str]) -> (Store, Dispatcher, Worker) {
    let (store, url) = Store::start();
    let dispatcher = Dispatcher::start();
    dispatcher.use_store(url);
    let worker = dispatcher.fake_worker(args);
    dispatcher.hello();
    (store, dispatcher, worker)
}

#[test]
fn a_store_that_is_away_for_a_while_costs_nothing_but_time() {
    let (store, dispatcher, _worker) = connected(&[]);
    // 503: unavailable, 507: full, 401: a session that is being renewed
    for (fence, status) in [(1, 503), (2, 507), (3, 401)] {
        store.answer_with(status);
        let before = store.turned_away();
        dispatcher.lease([lease(fence, Circuit::Base, task(fence as u8))]);
        until("two tries", || store.turned_away() >= before + 2);
        store.answer_with(200);
        assert!(!dispatcher.result(fence).unwrap().found, "{status}");
    }
}

#[test]
fn a_finished_proof_is_kept_until_the_store_is_back_and_is_not_made_again() {
    let (store, dispatcher, _worker) = connected(&["--fake-millis", "2000", "--fake-sigma", "0"]);
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    assert_eq!(dispatcher.running(1), [1]);
    store.answer_with(503);
    until("two tries to put", || store.turned_away() >= 2);
    store.answer_with(200);
    let done = dispatcher.result(1).unwrap();
    assert!(!done.found);
    let object = store.objects.lock().unwrap()[&format!("proofs/{}", task(1))].clone();
    let object = ProofObject::open(&task(1), &object).unwrap();
    assert_eq!(object.maker.millis, done.millis, "the proof that was reported");
}

#[test]
fn a_lease_revoked_while_its_proof_waits_for_the_store_is_dropped() {
    let (store, dispatcher, _worker) = connected(&["--fake-millis", "2000", "--fake-sigma", "0"]);
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    assert_eq!(dispatcher.running(1), [1]);
    store.answer_with(503);
    until("a try to put", || store.turned_away() >= 1);
    dispatcher.send(ToWorker { revoked: vec![1], ..Default::default() });
    dispatcher
        .frame("a heartbeat without it", |frame| frame.heartbeat.as_ref()?.fences.is_empty().then_some(()));
    store.answer_with(200);
    dispatcher.lease([lease(2, Circuit::Base, task(2))]);
    dispatcher.result(2).unwrap();
    assert!(!store.objects.lock().unwrap().contains_key(&format!("proofs/{}", task(1))));
}

#[test]
fn a_store_that_stays_away_is_told_so() {
    let (store, dispatcher, _worker) = connected(&[]);
    store.answer_with(503);
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    let failed = dispatcher.failure(1);
    assert_eq!(reason(&failed), Reason::StoreUnavailable, "{}", failed.text);
    assert!(failed.text.contains("503"), "{}", failed.text);
}

#[test]
fn whatever_a_store_answers_is_not_charged_to_the_task() {
    let (store, dispatcher, _worker) = connected(&[]);
    for (fence, status) in [(1, 400), (2, 405), (3, 422)] {
        store.answer_with(status);
        dispatcher.lease([lease(fence, Circuit::Base, task(fence as u8))]);
        let failed = dispatcher.failure(fence);
        assert_eq!(reason(&failed), Reason::StoreUnavailable, "{status}: {}", failed.text);
    }
}

#[test]
fn a_proof_that_the_store_does_not_take_for_its_size_is_the_tasks_fault() {
    let (store, dispatcher, _worker) = connected(&["--fake-millis", "2000", "--fake-sigma", "0"]);
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    assert_eq!(dispatcher.running(1), [1]);
    store.answer_with(413);
    let failed = dispatcher.failure(1);
    assert_eq!(reason(&failed), Reason::Oversize, "{}", failed.text);
}

#[test]
fn a_new_authority_is_trusted_by_the_session_that_there_is() {
    let (store, url, pem) = Store::start_with_tls();
    let dispatcher = Dispatcher::start();
    dispatcher.use_store(url);
    let _worker = dispatcher.fake_worker(&[]);
    dispatcher.hello();
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    let file = dispatcher.dir.path().join("ca.pem");
    let bundle = std::fs::read_to_string(&file).unwrap() + &pem;
    let draft = dispatcher.dir.path().join("ca.pem.new");
    std::fs::write(&draft, bundle).unwrap();
    std::fs::rename(draft, file).unwrap();
    dispatcher.wait("the result", |seen| match seen {
        Seen::Frame(frame) => {
            assert!(frame.failed.is_empty(), "{:?}", frame.failed);
            frame.completed.iter().any(|done| done.fence == 1).then_some(())
        }
        Seen::Hello(_) | Seen::Closed => panic!("the session ended"),
    });
    assert_eq!(store.objects.lock().unwrap().len(), 1);
}
