//! A rotation from end to end: the keeper's authority signs for a dispatcher, and workers trust what was published in
//! their namespace when they connect.

use super::Keeper;
use crate::dispatch::{Dispatcher, FakeRoots, Options, StaticToken};
use crate::kubernetes::testing::FakeApi;
use crate::tls::{SERVER_NAME, client_config};
use arborist_artifacts::{ArtifactStore, StoreOptions};
use arborist_core::profile::Profile;
use arborist_core::wire::{FromWorker, Heartbeat, Hello, PROTOCOL, ToWorker, put_frame, take_frame};
use bytes::BytesMut;
use jiff::{Timestamp, ToSpan};
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const TOKEN: &str = "a token of the tests";
/// Nothing takes longer than this unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

struct Worker {
    stream: TlsStream<TcpStream>,
    inbox: BytesMut,
    seq: u64,
}

impl Worker {
    /// A worker that trusts these certificates only, logged in.
    async fn log_in(dispatcher: &Dispatcher, name: &str, bundle: &str) -> io::Result<Self> {
        let config = client_config(bundle).unwrap();
        let socket = TcpStream::connect(dispatcher.address()).await?;
        let server = ServerName::try_from(SERVER_NAME).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(server, socket).await?;
        let mut worker = Self { stream, inbox: BytesMut::new(), seq: 0 };
        let hello = Hello {
            protocol: PROTOCOL,
            token: TOKEN.into(),
            worker: name.into(),
            cores: 1,
            memory_mib: 1024,
            backend: "fake".into(),
            circuits: Profile::rfp().circuits,
            ..Default::default()
        };
        worker.say(FromWorker { hello: Some(hello), ..Default::default() }).await?;
        let answer = worker.hear().await?;
        assert!(answer.welcome.is_some(), "{name}: {answer:?}");
        Ok(worker)
    }

    async fn say(&mut self, message: FromWorker) -> io::Result<()> {
        let mut frame = BytesMut::new();
        put_frame(&message, &mut frame);
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    async fn hear(&mut self) -> io::Result<ToWorker> {
        loop {
            if let Some(message) = take_frame(&mut self.inbox).unwrap() {
                return Ok(message);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.inbox)).await??;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Something said is answered: the connection goes on.
    async fn is_heard(&mut self) {
        self.seq += 1;
        let heartbeat = Some(Heartbeat::default());
        self.say(FromWorker { seq: self.seq, heartbeat, ..Default::default() }).await.unwrap();
        while self.hear().await.unwrap().ack < self.seq {}
    }
}

async fn dispatcher(keeper: &Keeper, state: &tempfile::TempDir) -> Dispatcher {
    let login = Arc::new(StaticToken::new(TOKEN));
    let mut options = Options::new(state.path().to_owned(), Profile::rfp(), login);
    options.authority = Some(keeper.authority().clone());
    options.engine.profile.backend = "fake".into();
    options.roots = Arc::new(FakeRoots);
    options.store_url = "memory:///".into();
    // only what a test is about may end a connection
    options.lease = Duration::from_secs(600);
    let store = ArtifactStore::open("memory:///", &StoreOptions::default()).unwrap();
    Dispatcher::start(options, store).await.unwrap()
}

/// What a pod that starts now is told to trust.
fn published(api: &FakeApi) -> String {
    let map = api.get("/api/v1/namespaces/theirs/configmaps/arborist-ca").unwrap();
    map["data"]["ca.crt"].as_str().unwrap().to_owned()
}

/// Each of these logs in, or does not trust the dispatcher.
async fn logins(dispatcher: &Dispatcher, stage: &str, expected: &[(&str, &str, bool)]) {
    for (name, bundle, good) in expected {
        match Worker::log_in(dispatcher, name, bundle).await {
            Ok(mut worker) => {
                assert!(good, "{stage}: {name} trusts what it must not");
                worker.is_heard().await;
            }
            Err(error) => {
                // authorities have one name, so it is the signature that does not fit
                let distrust = error.to_string().contains("invalid peer certificate: BadSignature");
                assert!(!good && distrust, "{stage}: {name}: {error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_stay_and_come_while_the_authority_is_rotated() {
    let (api, state) = (FakeApi::default(), tempfile::tempdir().unwrap());
    let end = prometheus::IntGauge::new("end", "of the authority").unwrap();
    let keeper = Keeper::open(&api.client(), &api.client(), "ours", &end).await.unwrap();
    keeper.trust().serves(["theirs"]);
    keeper.trust().ensure_bundle("theirs").await.unwrap();
    let dispatcher = dispatcher(&keeper, &state).await;
    let old = published(&api);
    let mut before = Worker::log_in(&dispatcher, "before", &old).await.unwrap();

    // certificates are made with the real time; only what is due is asked of another one
    let time = Timestamp::now() + (24 * 250).hours();
    keeper.step(time).await.unwrap();
    let both = published(&api);
    assert_ne!(old, both);
    logins(&dispatcher, "published", &[("of-old-trust", &old, true), ("of-new-trust", &both, true)]).await;
    before.is_heard().await;

    keeper.step(time + 61.minutes()).await.unwrap();
    let turned = published(&api);
    let after = [
        // its kubelet has not brought it the new one for an hour
        ("of-old-trust", old.as_str(), false),
        ("that-heard-of-the-next", both.as_str(), true),
        ("of-new-trust", turned.as_str(), true),
    ];
    logins(&dispatcher, "switched", &after).await;
    before.is_heard().await;

    keeper.step(Timestamp::now() + (24 * 367).hours()).await.unwrap();
    let newest = published(&api);
    assert!(!newest.contains(old.trim_end()));
    logins(&dispatcher, "forgotten", &[("of-old-trust", &old, false), ("of-new-trust", &newest, true)]).await;
    before.is_heard().await;
    dispatcher.shutdown().await;
}
