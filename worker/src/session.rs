//! One connection to the dispatcher from the TLS handshake to its end.

use crate::artifacts::MAX_OBJECT_BYTES;
use crate::book::Book;
use crate::connection::Login;
use crate::reach::reach;
use crate::tasks::NewLease;
use arborist_artifacts::{ArtifactStore, StoreOptions};
use arborist_core::ids::TaskId;
use arborist_core::wire::{FromWorker, Hello, PROTOCOL, Refused, ToWorker, put_frame, take_frame};
use arborist_system::watchdog::Pulse;
use bytes::BytesMut;
use futures::FutureExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use socket2::SockRef;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// How long connecting, and then logging in, may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long the last frames may take when the worker leaves.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(3);
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(20);
/// However rarely the dispatcher wants to hear of this worker: its answers say that it lives, and are missed soon.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(3);
/// So many heartbeats without any frame of the dispatcher end the connection, within these bounds: it, or what is between,
/// may go on to acknowledge bytes and do nothing.
const UNANSWERED: u32 = 4;
const SHORTEST_SILENCE: Duration = Duration::from_secs(5);
const LONGEST_SILENCE: Duration = Duration::from_secs(12);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The dispatcher will not have this worker.
    #[error("refused: {0}")]
    Refused(String),
    /// Not now; it may be different soon.
    #[error("refused for now: {0}")]
    NotNow(String),
    /// The connection could not be made or broke.
    #[error("{action}: {reason}")]
    Io {
        /// What was being done.
        action: String,
        /// What happened.
        reason: io::Error,
    },
    /// The other side does not speak the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The other side takes what is sent and says nothing.
    #[error("the dispatcher has not answered a heartbeat for {0:?}")]
    Silent(Duration),
}

fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> SessionError {
    let action = action.into();
    |reason| SessionError::Io { action, reason }
}

/// What a session works on.
pub(crate) struct Wires {
    pub book: Arc<Book>,
    pub leases: mpsc::UnboundedSender<NewLease>,
    pub store: watch::Sender<Option<ArtifactStore>>,
    pub stop: CancellationToken,
    /// The connection's sign of life.
    pub pulse: Pulse,
}

/// A connected, logged-in session.
pub(crate) struct Session<'a> {
    wires: &'a Wires,
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
    incoming: BytesMut,
    outgoing: BytesMut,
    unflushed: bool,
    heartbeat: Duration,
    /// When the last frame came.
    heard: Instant,
    /// The store that the welcome named, and the token for it.
    store: Option<(String, String)>,
    trust: Trust,
}

/// The authorities that are trusted: of the dispatcher at each login, of the store also in between.
struct Trust {
    file: PathBuf,
    pem: Vec<u8>,
    /// A look at the file that is under way: it takes as long as the disk does, and nothing waits for it.
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl<'a> Session<'a> {
    /// Connects, logs in and opens the store that the welcome names. `failures`: tries in a row that came to nothing.
    ///
    /// # Errors
    /// [`SessionError::Refused`] when trying again is of no use; else something to try again after.
    pub async fn open(login: &Login, wires: &'a Wires, failures: u32) -> Result<Self, SessionError> {
        let late = |what: &str| io_error(what.to_owned())(io::ErrorKind::TimedOut.into());
        let ca_cert = format!("the CA certificate {}", login.ca_cert.display());
        let ca = timeout(HANDSHAKE_LIMIT, tokio::fs::read(&login.ca_cert)).await;
        let ca = ca.map_err(|_| late(&ca_cert))?.map_err(io_error(ca_cert))?;
        let stream = timeout(HANDSHAKE_LIMIT, connect(login, &ca, failures))
            .await
            .map_err(|_| late("connecting"))??;
        let (reader, writer) = tokio::io::split(stream);
        let mut session = Self {
            wires,
            reader,
            writer,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            unflushed: false,
            heartbeat: DEFAULT_HEARTBEAT,
            heard: Instant::now(),
            store: None,
            trust: Trust { file: login.ca_cert.clone(), pem: ca, reading: None },
        };
        let answer =
            timeout(HANDSHAKE_LIMIT, session.log_in(login)).await.map_err(|_| late("logging in"))??;
        session.accept(answer)?;
        Ok(session)
    }

    async fn log_in(&mut self, login: &Login) -> Result<ToWorker, SessionError> {
        let token = tokio::fs::read_to_string(&login.token_file)
            .await
            .map_err(io_error(format!("the token {}", login.token_file.display())))?;
        let hello = Hello {
            protocol: PROTOCOL,
            token: token.trim().to_owned(),
            held: self.wires.book.held(Instant::now()),
            draining: self.wires.book.is_draining(),
            ..login.hello.clone()
        };
        self.say(&FromWorker { hello: Some(hello), ..Default::default() });
        self.flush().await.map_err(io_error("logging in"))?;
        loop {
            if let Some(message) = self.next_message()? {
                return Ok(message);
            }
            self.read().await?;
        }
    }

    fn accept(&mut self, answer: ToWorker) -> Result<(), SessionError> {
        let Some(welcome) = answer.welcome.clone() else {
            return Err(match answer.refused {
                Some(refused) => refusal(refused),
                None => SessionError::Protocol("the first frame is neither a welcome nor a refusal".into()),
            });
        };
        if welcome.protocol != PROTOCOL {
            return Err(SessionError::Refused(format!(
                "the dispatcher speaks protocol {}, this worker {PROTOCOL}",
                welcome.protocol
            )));
        }
        self.store = Some((welcome.store_url, welcome.session_token));
        self.open_store()?;
        if welcome.heartbeat_millis > 0 {
            let wanted = Duration::from_millis(welcome.heartbeat_millis.into());
            self.heartbeat = wanted.clamp(SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT);
        }
        self.take(&answer)
    }

    fn open_store(&self) -> Result<(), SessionError> {
        let Some((url, token)) = &self.store else { return Ok(()) };
        let own = url.starts_with("https://");
        let options = StoreOptions {
            token: Some(token.clone()).filter(|token| !token.is_empty()),
            ca_pem: own.then(|| self.trust.pem.clone()),
            max_object_bytes: MAX_OBJECT_BYTES,
            ..Default::default()
        };
        let store =
            ArtifactStore::open(url, &options).map_err(|error| SessionError::Protocol(error.to_string()))?;
        self.wires.store.send_replace(Some(store));
        Ok(())
    }

    /// The operator's authority may be replaced while this session goes on; the store's connections are
    /// made anew all the time, so they need the new one at once.
    fn renew_trust(&mut self) {
        let Some(reading) = self.trust.reading.take() else {
            self.trust.reading = Some(tokio::spawn(tokio::fs::read(self.trust.file.clone())));
            return;
        };
        if !reading.is_finished() {
            self.trust.reading = Some(reading);
            return;
        }
        let pem = match reading.now_or_never() {
            Some(Ok(Ok(pem))) if pem != self.trust.pem => pem,
            // a file that is being replaced is there again soon
            _ => return,
        };
        let before = std::mem::replace(&mut self.trust.pem, pem);
        match trust_only(&self.trust.pem).and_then(|_| self.open_store()) {
            Ok(()) => tracing::info!(file = %self.trust.file.display(), "the CA certificates have changed"),
            Err(error) => {
                tracing::warn!(%error, "the CA certificates have changed and can't be used");
                self.trust.pem = before;
            }
        }
    }

    /// Exchanges frames until the connection breaks or the worker stops.
    ///
    /// # Errors
    /// Why it broke; `Ok` when the worker stops.
    pub async fn serve(mut self) -> Result<(), SessionError> {
        let book = self.wires.book.clone();
        let stop = self.wires.stop.clone();
        let mut beats = interval(self.heartbeat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = (self.heartbeat * UNANSWERED).clamp(SHORTEST_SILENCE, LONGEST_SILENCE);
        loop {
            self.wires.pulse.beat();
            // also before the first read: leases may have come in one piece with the welcome
            while let Some(message) = self.next_message()? {
                self.heard = Instant::now();
                self.take(&message)?;
            }
            while let Some(frame) = book.next_frame(false) {
                self.say(&frame);
            }
            tokio::select! {
                // in this order: a process that was stopped for long reads what came meanwhile before it complains
                biased;
                () = stop.cancelled() => break,
                written = flush(&mut self.writer, &mut self.outgoing, &mut self.unflushed),
                    if self.unflushed => written.map_err(io_error("sending"))?,
                _ = beats.tick() => {
                    // behind a slow reader one waiting heartbeat is enough
                    if !self.unflushed && let Some(frame) = book.next_frame(true) {
                        self.say(&frame);
                    }
                    self.renew_trust();
                }
                read = read(&mut self.reader, &mut self.incoming) => read?,
                () = sleep_until((self.heard + silence).into()) => return Err(SessionError::Silent(silence)),
                () = book.something_to_say() => {}
            }
        }
        self.say_goodbye().await;
        Ok(())
    }

    async fn say_goodbye(&mut self) {
        while let Some(frame) = self.wires.book.next_frame(false) {
            self.say(&frame);
        }
        let goodbye = async {
            self.flush().await?;
            self.writer.shutdown().await
        };
        if let Ok(Err(error)) = timeout(GOODBYE_LIMIT, goodbye).await {
            tracing::debug!(%error, "the connection broke at the end");
        }
    }

    fn take(&mut self, message: &ToWorker) -> Result<(), SessionError> {
        if let Some(refused) = message.refused.clone() {
            return Err(refusal(refused));
        }
        let book = &self.wires.book;
        if message.ack > 0 {
            book.acknowledge(message.ack);
        }
        if !message.revoked.is_empty() {
            book.revoke(&message.revoked);
        }
        for lease in &message.leases {
            let task = TaskId::from_slice(&lease.task).unwrap_or(TaskId([0; 32]));
            if let Some(stop) = book.add(lease.fence, task, &lease.mac) {
                // the tasks end only after this thread
                let _ended = self.wires.leases.send(NewLease { lease: lease.clone(), stop });
            }
        }
        Ok(())
    }

    fn say(&mut self, frame: &FromWorker) {
        put_frame(frame, &mut self.outgoing);
        self.unflushed = true;
    }

    fn next_message(&mut self) -> Result<Option<ToWorker>, SessionError> {
        take_frame(&mut self.incoming).map_err(|error| SessionError::Protocol(error.to_string()))
    }

    async fn read(&mut self) -> Result<(), SessionError> {
        read(&mut self.reader, &mut self.incoming).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        flush(&mut self.writer, &mut self.outgoing, &mut self.unflushed).await
    }
}

fn refusal(refused: Refused) -> SessionError {
    if refused.permanent { SessionError::Refused(refused.text) } else { SessionError::NotNow(refused.text) }
}

async fn read(
    reader: &mut ReadHalf<TlsStream<TcpStream>>,
    incoming: &mut BytesMut,
) -> Result<(), SessionError> {
    incoming.reserve(4096);
    match reader.read_buf(incoming).await {
        Ok(0) => Err(io_error("receiving")(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(io_error("receiving")(error)),
    }
}

/// May be dropped at any point and called again.
async fn flush(
    writer: &mut WriteHalf<TlsStream<TcpStream>>,
    outgoing: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    writer.write_all_buf(outgoing).await?;
    writer.flush().await?;
    *unflushed = false;
    Ok(())
}

async fn connect(login: &Login, ca: &[u8], failures: u32) -> Result<TlsStream<TcpStream>, SessionError> {
    let config = trust_only(ca)?;
    let name = ServerName::try_from(login.server_name.clone())
        .map_err(|error| SessionError::Protocol(format!("server name `{}`: {error}", login.server_name)))?;
    let tcp = reach(&login.connect, failures)
        .await
        .map_err(io_error(format!("connecting to {}", login.connect)))?;
    let options = SockRef::from(&tcp);
    tcp.set_nodelay(true)
        .and_then(|()| options.set_tcp_user_timeout(Some(LONGEST_SILENCE)))
        .map_err(io_error("setting up the socket"))?;
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(io_error("the TLS handshake"))
}

fn trust_only(ca: &[u8]) -> Result<rustls::ClientConfig, SessionError> {
    let bad = |error: String| SessionError::Protocol(format!("the CA certificate: {error}"));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|error| bad(format!("{error:?}")))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("the file holds none".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
