//! A dispatcher for tests: TLS and the real protocol, and no mind of its own.

use arborist_core::backend::Proof;
use arborist_core::circuit::Circuit;
use arborist_core::fake_proof;
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::proof_object::{Maker, ProofObject, input_key, proof_key};
use arborist_core::wire::{self, Completed, Failed, FromWorker, Hello, Reason, Refused, ToWorker, Welcome};
use bytes::BytesMut;
use ed25519_dalek::SigningKey;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What the dispatcher saw.
#[derive(Debug)]
pub enum Seen {
    Hello(Hello),
    Frame(FromWorker),
    Closed,
}

/// How it answers a hello.
#[derive(Clone)]
pub enum Answer {
    Welcome {
        protocol: u32,
    },
    Refuse {
        text: &'static str,
        permanent: bool,
    },
    /// Welcome whoever has the token, refuse the others for good.
    ByToken,
}

enum Order {
    Say(Box<ToWorker>),
    /// Close after everything said was read.
    Close,
    /// Close at once: what is under way is lost.
    Break,
}

struct Shared {
    answer: Mutex<Answer>,
    acknowledge: Mutex<bool>,
    silent: Mutex<bool>,
    welcome_with: Mutex<Vec<wire::Lease>>,
    store_url: Mutex<String>,
    connection: Mutex<Option<UnboundedSender<Order>>>,
    seen: Mutex<Sender<Seen>>,
}

pub struct Dispatcher {
    pub dir: TempDir,
    pub address: SocketAddr,
    shared: Arc<Shared>,
    seen: Receiver<Seen>,
}

pub const TOKEN: &str = "let me in";

impl Dispatcher {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed(["arborist-dispatcher".to_owned()]).unwrap();
        std::fs::write(dir.path().join("ca.pem"), certified.cert.pem()).unwrap();
        std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let (sender, seen) = channel();
        let shared = Arc::new(Shared {
            answer: Mutex::new(Answer::ByToken),
            acknowledge: Mutex::new(true),
            silent: Mutex::new(false),
            welcome_with: Mutex::default(),
            store_url: Mutex::new(format!("file://{}/store", dir.path().display())),
            connection: Mutex::new(None),
            seen: Mutex::new(sender),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, TlsAcceptor::from(Arc::new(config)), serving));
        });
        Self { dir, address, shared, seen }
    }

    pub fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    pub fn acknowledge(&self, yes: bool) {
        *self.shared.acknowledge.lock().unwrap() = yes;
    }

    /// Takes everything and says nothing, on connections that are open and on new ones after their welcome.
    pub fn play_dead(&self, yes: bool) {
        *self.shared.silent.lock().unwrap() = yes;
    }

    /// Sends these leases right behind the next welcome, in one write.
    pub fn welcome_with(&self, leases: Vec<wire::Lease>) {
        *self.shared.welcome_with.lock().unwrap() = leases;
    }

    pub fn use_store(&self, url: String) {
        *self.shared.store_url.lock().unwrap() = url;
    }

    pub fn send(&self, message: ToWorker) {
        let connection = self.shared.connection.lock().unwrap();
        connection.as_ref().expect("a worker is connected").send(Order::Say(Box::new(message))).unwrap();
    }

    pub fn lease(&self, leases: impl IntoIterator<Item = wire::Lease>) {
        self.send(ToWorker { leases: leases.into_iter().collect(), ..Default::default() });
    }

    /// Closes the connection once the worker has read everything.
    pub fn close_connection(&self) {
        self.end_connection(Order::Close);
    }

    /// Breaks the connection in the middle of whatever is under way.
    pub fn break_connection(&self) {
        self.end_connection(Order::Break);
    }

    fn end_connection(&self, order: Order) {
        let connection = self.shared.connection.lock().unwrap().take();
        connection.expect("a worker is connected").send(order).unwrap();
    }

    /// Waits until this many leases run at once and says which. Who runs what shows at a login.
    pub fn running(&self, count: usize) -> Vec<u64> {
        let mut running = vec![];
        until("leases to run", || {
            self.close_connection();
            let held = self.hello().held;
            running = held.iter().filter(|h| h.running_millis > 0).map(|h| h.fence).collect();
            running.len() == count
        });
        running
    }

    /// The next thing seen that `wanted` takes; everything before it is passed over.
    pub fn wait<T>(&self, what: &str, mut wanted: impl FnMut(Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.seen.recv_timeout(left) {
                Ok(seen) => {
                    if let Some(found) = wanted(seen) {
                        return found;
                    }
                }
                Err(_) => panic!("{what} did not come"),
            }
        }
    }

    pub fn hello(&self) -> Hello {
        self.wait("a login", |seen| match seen {
            Seen::Hello(hello) => Some(hello),
            _ => None,
        })
    }

    pub fn frame<T>(&self, what: &str, mut wanted: impl FnMut(&FromWorker) -> Option<T>) -> T {
        self.wait(what, |seen| match seen {
            Seen::Frame(frame) => wanted(&frame),
            _ => None,
        })
    }

    /// The result of a lease.
    pub fn result(&self, fence: u64) -> Result<Completed, Failed> {
        self.frame(&format!("the result of lease {fence}"), |frame| {
            let done = frame.completed.iter().find(|c| c.fence == fence).cloned().map(Ok);
            done.or_else(|| frame.failed.iter().find(|f| f.fence == fence).cloned().map(Err))
        })
    }

    pub fn failure(&self, fence: u64) -> Failed {
        self.result(fence).expect_err("the lease should have failed")
    }

    pub fn path(&self, key: &str) -> PathBuf {
        let path = self.dir.path().join("store").join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub fn put_proof(&self, task: TaskId, object: &[u8]) {
        std::fs::write(self.path(&proof_key(&task)), object).unwrap();
    }

    pub fn put_input(&self, bytes: &[u8]) -> ArtifactHash {
        let hash = ArtifactHash::of(bytes);
        std::fs::write(self.path(&input_key(&hash)), bytes).unwrap();
        hash
    }

    pub fn stored(&self, task: TaskId) -> Option<Vec<u8>> {
        std::fs::read(self.path(&proof_key(&task))).ok()
    }

    pub fn worker(&self, args: &[&str]) -> Worker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arborist-worker"));
        command
            .args(["--connect", &self.address.to_string()])
            .arg("--ca-cert")
            .arg(self.dir.path().join("ca.pem"))
            .arg("--token-file")
            .arg(self.dir.path().join("token"))
            .args(["--name", "w1", "--node", "n1", "--memory-mib", "4096"])
            .args(if args.contains(&"--cores") { &[][..] } else { &["--cores", "2"] })
            .args(args)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        // read all the time: a full pipe would stop the worker
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stderr, &mut text).unwrap();
            text
        });
        Worker { child, said: Some(said) }
    }

    pub fn fake_worker(&self, args: &[&str]) -> Worker {
        let mut all = vec!["--backend", "fake"];
        all.extend(args);
        self.worker(&all)
    }
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            // a worker that does not trust the certificate hangs up here
            let _ended = connection(tcp, acceptor, &shared).await;
            let _test_over = shared.seen.lock().unwrap().send(Seen::Closed);
        });
    }
}

async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, shared: &Shared) -> std::io::Result<()> {
    let mut stream = acceptor.accept(tcp).await?;
    let mut buffer = BytesMut::new();
    let (sender, mut commands) = unbounded_channel();
    let hello = loop {
        if let Some(frame) = wire::take_frame::<FromWorker>(&mut buffer).unwrap() {
            break frame.hello.expect("the first frame is a hello");
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    };
    let answer = shared.answer.lock().unwrap().clone();
    let answer = match answer {
        Answer::ByToken if hello.token != TOKEN => Answer::Refuse { text: "unknown token", permanent: true },
        Answer::ByToken => Answer::Welcome { protocol: wire::PROTOCOL },
        other => other,
    };
    let message = match answer {
        Answer::Refuse { text, permanent } => {
            ToWorker { refused: Some(Refused { text: text.into(), permanent }), ..Default::default() }
        }
        Answer::Welcome { protocol } => {
            let store_url = shared.store_url.lock().unwrap().clone();
            let session_token = "session".to_owned();
            let welcome =
                Welcome { protocol, session_token, store_url, heartbeat_millis: 50, lease_millis: 10_000 };
            ToWorker { welcome: Some(welcome), ..Default::default() }
        }
        Answer::ByToken => unreachable!("resolved above"),
    };
    let refused = message.refused.is_some();
    let mut out = BytesMut::new();
    wire::put_frame(&message, &mut out);
    let leases = std::mem::take(&mut *shared.welcome_with.lock().unwrap());
    if !leases.is_empty() {
        wire::put_frame(&ToWorker { leases, ..Default::default() }, &mut out);
    }
    stream.write_all(&out).await?;
    stream.flush().await?;
    if !refused {
        *shared.connection.lock().unwrap() = Some(sender);
    }
    shared.seen.lock().unwrap().send(Seen::Hello(hello)).unwrap();
    if refused {
        return stream.shutdown().await;
    }
    exchange(&mut stream, buffer, &mut commands, shared).await
}

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

async fn exchange(
    stream: &mut Tls,
    mut buffer: BytesMut,
    commands: &mut UnboundedReceiver<Order>,
    shared: &Shared,
) -> std::io::Result<()> {
    loop {
        tokio::select! {
            read = stream.read_buf(&mut buffer) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(frame) = wire::take_frame::<FromWorker>(&mut buffer).unwrap() {
                    let (seq, heard) = (frame.seq, frame.heartbeat.is_some());
                    let ack = if *shared.acknowledge.lock().unwrap() { seq } else { 0 };
                    let silent = *shared.silent.lock().unwrap();
                    shared.seen.lock().unwrap().send(Seen::Frame(frame)).unwrap();
                    if (ack > 0 || heard) && !silent {
                        say(stream, &ToWorker { ack, heard, ..Default::default() }).await?;
                    }
                }
            }
            command = commands.recv() => match command {
                Some(Order::Say(message)) => say(stream, &message).await?,
                Some(Order::Break) | None => return Ok(()),
                Some(Order::Close) => {
                    stream.shutdown().await?;
                    while stream.read_buf(&mut buffer).await? > 0 {}
                    return Ok(());
                }
            }
        }
    }
}

async fn say(stream: &mut Tls, message: &ToWorker) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    wire::put_frame(message, &mut out);
    stream.write_all(&out).await?;
    stream.flush().await
}

/// A worker process; killed when dropped.
pub struct Worker {
    pub child: Child,
    said: Option<std::thread::JoinHandle<String>>,
}

impl Worker {
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub fn terminate(&self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
    }

    pub fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        until("the worker's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Exit code and everything it wrote to stderr.
    pub fn end(mut self) -> (Option<i32>, String) {
        let code = self.exit().code();
        (code, self.said.take().unwrap().join().unwrap())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        if let Some(said) = self.said.take().filter(|_| std::thread::panicking())
            && let Ok(text) = said.join()
        {
            println!("the worker said:\n{text}");
        }
    }
}

/// Looks again and again until `reached`.
pub fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn task(n: u8) -> TaskId {
    TaskId([n; 32])
}

/// A lease of one core and 100 MiB.
pub fn lease(fence: u64, circuit: Circuit, task: TaskId) -> wire::Lease {
    wire::Lease {
        fence,
        task: task.0.to_vec(),
        kind: circuit.kind().index() as u32,
        param: circuit.param().into(),
        public_inputs: vec![fence, 7],
        cores: 1,
        memory_mib: 100,
        seed: 1,
        ..Default::default()
    }
}

/// A `base` lease over one kernel whose proof may or may not be there.
pub fn lease_over(fence: u64, parent: TaskId, child: TaskId) -> wire::Lease {
    let kernel = KERNEL;
    wire::Lease {
        children: vec![wire::Child {
            task: child.0.to_vec(),
            kind: kernel.kind().index() as u32,
            param: kernel.param().into(),
            public_inputs: vec![5],
        }],
        ..lease(fence, Circuit::Base, parent)
    }
}

pub const KERNEL: Circuit = Circuit::Kernel { position: 2 };

pub fn proof(circuit: Circuit, public_inputs: &[u64]) -> Proof {
    fake_proof::prove(circuit, public_inputs, &[], &[], 500)
}

pub fn sealed(task: TaskId, circuit: Circuit, proof: &Proof) -> Vec<u8> {
    let maker =
        Maker { worker: "other".into(), node: "n2".into(), finished_unix_ms: 1, millis: 2, cpu_millis: 3 };
    ProofObject::seal(task, circuit, proof, &maker, &SigningKey::from_bytes(&[4; 32]))
}

pub fn reason(failed: &Failed) -> Reason {
    failed.reason()
}
