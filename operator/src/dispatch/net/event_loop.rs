//! One thread's epoll and the connections it reads.

use super::Shared;
use super::frames::{BadFrame, next_frame};
use super::peer::{Peer, PeerError, SendBuffers};
use crate::places::Place;
use arborist_core::wire::FromWorker;
use arborist_system::watchdog::Pulse;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const EVENTS: usize = 1024;
/// Frames that are answered under one pass of the engine's lock.
const BATCH: usize = 64;
/// The thread's read buffer: some full TLS records.
const READ_BUFFER: usize = 64 << 10;
/// Reads of one connection before others get their turn.
const READS_IN_A_ROW: usize = 8;
/// The largest frame before the login: a hello that names thousands of leases fits.
const MAX_HELLO: usize = 64 << 10;
const SWEEP: Duration = Duration::from_millis(250);
/// How soon it is looked for a free place while all are on their way to a login.
const LOGINS_FULL: Duration = Duration::from_millis(5);
/// And while there are as many connections as there may be; and, longer each time, when the system takes no more.
const CONNECTIONS_FULL: Duration = Duration::from_millis(100);
const LONGEST_REFUSAL: Duration = Duration::from_secs(1);
/// How long a thread rests whose epoll fails.
const EPOLL_PAUSE: Duration = Duration::from_millis(100);

/// Where another thread leaves new connections for a loop.
#[derive(Clone)]
pub(super) struct Handover {
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    waker: Arc<Waker>,
}

/// A connection that was accepted.
struct Arrival {
    socket: TcpStream,
    address: SocketAddr,
    login: Arc<Place>,
}

impl Handover {
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a network thread can't be woken");
        }
    }

    fn leave(&self, arrival: Arrival) {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
        self.wake();
    }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the worker")]
    Closed,
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] BadFrame),
    #[error("its first frame is no hello")]
    NoHello,
    #[error("it spoke before its login was answered")]
    Early,
    #[error("not logged in after {0:?}")]
    LoginTimeout(Duration),
    #[error("idle before its login, while others wait to log in")]
    Crowded,
    #[error("silent for {0:?}")]
    Silent(Duration),
    #[error("the dispatcher stops")]
    Stopping,
}

impl End {
    /// For metrics.
    fn label(&self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Peer(PeerError::Slow(_)) => "slow_reader",
            End::Peer(_) | End::Io(_) => "connection",
            End::Frame(BadFrame::TooLarge { .. }) => "oversize_frame",
            End::Frame(_) | End::NoHello | End::Early => "protocol",
            End::LoginTimeout(_) => "login_timeout",
            End::Crowded => "crowded",
            End::Silent(_) => "silent",
            End::Stopping => "stopping",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Handshake, or no hello yet.
    New,
    /// The hello is with the desk.
    Asked,
    Live,
}

struct Entry {
    peer: Arc<Peer>,
    stage: Stage,
    login: Arc<Place>,
    /// The TLS handshake is done.
    encrypted: bool,
    /// Received bytes that are no whole TLS record yet.
    cipher: Vec<u8>,
    /// Decrypted bytes that are no whole frame yet.
    plain: Vec<u8>,
    /// Last frame, or when it was accepted.
    heard: Instant,
}

pub(super) struct EventLoop {
    shared: Arc<Shared>,
    poll: Poll,
    handover: Handover,
    listener: Option<(TcpListener, Arc<[Handover]>)>,
    next_door: usize,
    /// Connections wait in the backlog; it is looked after them again after so long.
    accept_wait: Option<Duration>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Connections with more to read than their share of a turn.
    again: Vec<usize>,
    scratch: Scratch,
    now: Instant,
    swept: Instant,
    /// When it was last looked after connections that wait.
    accepted: Instant,
}

/// Buffers of the thread.
struct Scratch {
    read: Vec<u8>,
    plain: Vec<u8>,
    batch: Vec<(Arc<Peer>, FromWorker)>,
    send: SendBuffers,
    bytes_in: u64,
}

impl EventLoop {
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let now = Instant::now();
        Ok(Self {
            shared,
            poll,
            handover: Handover { arrivals: Arc::default(), waker },
            listener: None,
            next_door: 0,
            accept_wait: None,
            entries: vec![],
            free: vec![],
            again: vec![],
            scratch: Scratch {
                read: vec![0; READ_BUFFER],
                plain: vec![],
                batch: Vec::with_capacity(BATCH),
                send: SendBuffers::default(),
                bytes_in: 0,
            },
            now,
            swept: now,
            accepted: now,
        })
    }

    pub(super) fn handover(&self) -> Handover {
        self.handover.clone()
    }

    pub(super) fn listen(&mut self, mut listener: TcpListener, doors: Arc<[Handover]>) -> io::Result<()> {
        self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        self.listener = Some((listener, doors));
        Ok(())
    }

    pub(super) fn run(mut self, pulse: &Pulse) {
        let mut events = Events::with_capacity(EVENTS);
        while !self.shared.stopping.load(Ordering::Acquire) {
            pulse.beat();
            let wait = match self.again.is_empty() {
                false => Duration::ZERO,
                true => self.accept_wait.unwrap_or(SWEEP).min(SWEEP),
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "epoll failed");
                std::thread::sleep(EPOLL_PAUSE);
            }
            self.now = Instant::now();
            for index in std::mem::take(&mut self.again) {
                self.ready(index, false);
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => self.take_arrivals(),
                    Token(index) => {
                        if event.is_writable() {
                            self.writable(index);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.ready(index, event.is_read_closed());
                        }
                    }
                }
            }
            if self.accept_wait.is_some_and(|wait| self.now.duration_since(self.accepted) >= wait) {
                self.accept();
            }
            self.answer();
            self.sweep();
        }
        for index in 0..self.entries.len() {
            self.close(index, &End::Stopping);
        }
    }

    fn accept(&mut self) {
        self.accepted = self.now;
        let wait = self.accept_all();
        if wait.is_some_and(|wait| wait >= CONNECTIONS_FULL)
            && self.accept_wait.is_none_or(|w| w < CONNECTIONS_FULL)
        {
            tracing::warn!("no more connections can be taken: those that come wait until others have ended");
        }
        self.accept_wait = wait;
    }

    /// Takes all connections that there are and may be; when to look again, if some had to be left.
    fn accept_all(&mut self) -> Option<Duration> {
        let (listener, doors) = self.listener.as_ref()?;
        let shared = &self.shared;
        loop {
            if shared.connections.load(Ordering::Acquire) >= shared.limits.max_connections {
                // its place is free once its thread has closed it
                let evicted = shared.logins.evict(self.now);
                return Some(if evicted { LOGINS_FULL } else { CONNECTIONS_FULL });
            }
            if !shared.logins.make_room(self.now) {
                return Some(LOGINS_FULL);
            }
            match listener.accept() {
                Ok((socket, address)) => {
                    shared.connections.fetch_add(1, Ordering::AcqRel);
                    let login = shared.logins.add(address, self.now);
                    let door = &doors[self.next_door % doors.len()];
                    self.next_door = self.next_door.wrapping_add(1);
                    door.leave(Arrival { socket, address, login });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "a connection can't be accepted");
                    // out of descriptors, mostly: those that wait are taken when some are free again
                    let last = self.accept_wait.filter(|wait| *wait >= CONNECTIONS_FULL);
                    return Some(last.map_or(CONNECTIONS_FULL, |wait| (wait * 2).min(LONGEST_REFUSAL)));
                }
            }
        }
    }

    fn take_arrivals(&mut self) {
        let arrivals =
            std::mem::take(&mut *self.handover.arrivals.lock().unwrap_or_else(PoisonError::into_inner));
        for arrival in arrivals {
            let (address, login) = (arrival.address, arrival.login.clone());
            if let Err(error) = self.admit(arrival) {
                self.shared.logins.remove(&login);
                self.shared.connections.fetch_sub(1, Ordering::AcqRel);
                tracing::warn!(%error, %address, "a connection can't be taken");
            }
        }
    }

    fn admit(&mut self, arrival: Arrival) -> Result<(), End> {
        let Arrival { mut socket, address, login } = arrival;
        socket.set_nodelay(true)?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut socket, Token(index), interest) {
            self.free.push(index);
            return Err(error.into());
        }
        let limits = &self.shared.limits;
        match Peer::new(socket, address, self.shared.tls.clone(), limits.max_waiting) {
            Ok(peer) => {
                self.shared.metrics.connections.inc();
                let peer = Arc::new(peer);
                login.closes_by({
                    let peer = peer.clone();
                    move || peer.hang_up()
                });
                self.entries[index] = Some(Entry {
                    peer,
                    stage: Stage::New,
                    login,
                    encrypted: false,
                    cipher: vec![],
                    plain: vec![],
                    heard: self.now,
                });
                // what came before the registration is no event
                self.ready(index, false);
                Ok(())
            }
            Err(error) => {
                self.free.push(index);
                Err(PeerError::Link(error).into())
            }
        }
    }

    fn writable(&mut self, index: usize) {
        let Some(Some(entry)) = self.entries.get(index) else { return };
        if let Err(error) = entry.peer.drain() {
            self.close(index, &error.into());
        }
    }

    /// Reads what there is. With `closing` the end is read too, whatever came before it.
    fn ready(&mut self, index: usize, closing: bool) {
        let Some(Some(entry)) = self.entries.get_mut(index) else { return };
        match entry.read(&self.shared, &mut self.scratch, self.now, closing) {
            Ok(false) => {}
            Ok(true) => self.again.push(index),
            Err(end) => {
                let end = if entry.login.is_evicted() { End::Crowded } else { end };
                // what it said before its end counts
                self.answer();
                self.close(index, &end);
            }
        }
        if self.scratch.batch.len() >= BATCH {
            self.answer();
        }
    }

    fn answer(&mut self) {
        let scratch = &mut self.scratch;
        if scratch.bytes_in > 0 {
            self.shared.metrics.bytes_in.inc_by(std::mem::take(&mut scratch.bytes_in));
        }
        if !scratch.batch.is_empty() {
            self.shared.metrics.frames_in.inc_by(scratch.batch.len() as u64);
            self.shared.desk.frames(&mut scratch.batch, &mut scratch.send);
            scratch.batch.clear();
        }
    }

    fn close(&mut self, index: usize, end: &End) {
        let Some(entry) = self.entries.get_mut(index).and_then(Option::take) else { return };
        self.free.push(index);
        if entry.stage != Stage::Live {
            self.shared.logins.remove(&entry.login);
        }
        self.shared.connections.fetch_sub(1, Ordering::AcqRel);
        let metrics = &self.shared.metrics;
        metrics.connections.dec();
        metrics.ended.with_label_values(&[end.label()]).inc();
        tracing::debug!(address = %entry.peer.address, reason = %end, "connection ended");
        let undelivered = entry.peer.close();
        self.shared.desk.closed(&entry.peer, undelivered, &mut self.scratch.send);
    }

    fn sweep(&mut self) {
        if self.now.duration_since(self.swept) < SWEEP {
            return;
        }
        self.swept = self.now;
        let limits = self.shared.limits.clone();
        for index in 0..self.entries.len() {
            let Some(entry) = &mut self.entries[index] else { continue };
            entry.promote(&self.shared);
            let silent = self.now.duration_since(entry.heard);
            let end = match entry.stage {
                Stage::Live if silent > limits.idle_timeout => End::Silent(limits.idle_timeout),
                Stage::New | Stage::Asked if silent > limits.login_timeout => {
                    End::LoginTimeout(limits.login_timeout)
                }
                // the handshake is the shorter part of it
                Stage::New if !entry.encrypted && silent > limits.login_timeout / 2 => {
                    End::LoginTimeout(limits.login_timeout / 2)
                }
                _ => continue,
            };
            self.close(index, &end);
        }
    }
}

impl Entry {
    /// Notices that the login was answered.
    fn promote(&mut self, shared: &Shared) {
        if self.stage == Stage::Asked && self.peer.session().is_some() {
            self.stage = Stage::Live;
            shared.logins.remove(&self.login);
        }
    }

    /// Reads until nothing is left (`false`) or its share of the turn is used up (`true`).
    fn read(
        &mut self,
        shared: &Shared,
        scratch: &mut Scratch,
        now: Instant,
        closing: bool,
    ) -> Result<bool, End> {
        for _ in 0..READS_IN_A_ROW {
            let kept = self.cipher.len();
            scratch.read[..kept].copy_from_slice(&self.cipher);
            let room = scratch.read.len() - kept;
            let length = match (&self.peer.socket).read(&mut scratch.read[kept..]) {
                Ok(0) => return Err(End::Closed),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            scratch.bytes_in += length as u64;
            if self.stage == Stage::New {
                shared.logins.hears(&self.login, now);
            }
            scratch.plain.clear();
            let received = &mut scratch.read[..kept + length];
            let fed = self.peer.feed(received, &mut scratch.plain, &mut scratch.send)?;
            self.encrypted |= fed.encrypted;
            // most often nothing is left over and nothing was: an idle connection holds no buffer
            self.cipher = received[fed.used..].to_vec();
            self.take_frames(shared, scratch, now)?;
            if fed.closed {
                return Err(End::Closed);
            }
            // a short read has emptied the socket: more will be an event of its own
            if length < room && !closing {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take_frames(&mut self, shared: &Shared, scratch: &mut Scratch, now: Instant) -> Result<(), End> {
        if scratch.plain.is_empty() {
            return Ok(());
        }
        let mut plain = std::mem::take(&mut self.plain);
        let whole = plain.is_empty();
        if !whole {
            plain.extend_from_slice(&scratch.plain);
        }
        let bytes: &[u8] = if whole { &scratch.plain } else { &plain };
        let mut used = 0;
        while let Some((frame, length)) = next_frame(&bytes[used..], self.max_frame(shared))? {
            used += length;
            self.heard = now;
            self.promote(shared);
            match self.stage {
                Stage::Live => scratch.batch.push((self.peer.clone(), frame)),
                Stage::Asked => return Err(End::Early),
                Stage::New => {
                    let hello = frame.hello.ok_or(End::NoHello)?;
                    self.stage = Stage::Asked;
                    self.login.set_asks(true);
                    shared.desk.hello(&self.peer, hello, &mut scratch.send);
                }
            }
        }
        self.promote(shared);
        self.plain = bytes[used..].to_vec();
        Ok(())
    }

    fn max_frame(&self, shared: &Shared) -> usize {
        if self.stage == Stage::New { MAX_HELLO } else { shared.limits.max_frame }
    }
}
