//! The sending side of a connection: any thread may send, frames leave in the order in which the
//! engine decided, and what the network does not take at once waits here, up to a limit.

use super::link::{Fed, Link, LinkError};
use arborist_core::wire::{Lease, ToWorker};
use bytes::BytesMut;
use mio::net::TcpStream;
use rustls::ServerConfig;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers of a thread that sends; kept between sends.
#[derive(Default)]
pub(crate) struct SendBuffers {
    frame: BytesMut,
    pub(super) tls: Vec<u8>,
}

/// A session that has not been given yet.
const NO_SESSION: u64 = u64::MAX;

/// A worker's connection as everybody but its reader sees it.
pub(crate) struct Peer {
    pub(super) socket: TcpStream,
    pub(crate) address: SocketAddr,
    session: AtomicU64,
    outbox: Mutex<Outbox>,
    sending: Mutex<Sending>,
    max_waiting: usize,
}

/// What goes out with the next flush.
#[derive(Default)]
struct Outbox {
    message: ToWorker,
    posted: bool,
}

struct Sending {
    link: Link,
    /// Encrypted bytes that the socket did not take yet.
    waiting: Vec<u8>,
    /// Fences of leases that are at least partly among them.
    undelivered: Vec<u64>,
    dead: Option<&'static str>,
}

/// A connection is to be given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    #[error("it reads too slowly: {0} bytes wait to be sent")]
    Slow(usize),
    #[error("{0}")]
    Dead(&'static str),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    pub(super) fn new(
        socket: TcpStream,
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        max_waiting: usize,
    ) -> Result<Self, LinkError> {
        let link = Link::new(tls)?;
        Ok(Self {
            socket,
            address,
            session: AtomicU64::new(NO_SESSION),
            outbox: Mutex::default(),
            sending: Mutex::new(Sending { link, waiting: vec![], undelivered: vec![], dead: None }),
            max_waiting,
        })
    }

    /// The number of its login; `None` before.
    pub(crate) fn session(&self) -> Option<u64> {
        match self.session.load(Ordering::Acquire) {
            NO_SESSION => None,
            session => Some(session),
        }
    }

    pub(crate) fn set_session(&self, session: u64) {
        self.session.store(session, Ordering::Release);
    }

    /// Adds to what goes out with the next [`Peer::flush`], and says whether it is the first to do so: then
    /// the caller has to see to a flush. Called under the engine's lock, so that what the worker reads is in
    /// the engine's order.
    pub(crate) fn post(&self, add: impl FnOnce(&mut ToWorker)) -> bool {
        let mut outbox = lock(&self.outbox);
        add(&mut outbox.message);
        !std::mem::replace(&mut outbox.posted, true)
    }

    /// Sends what was posted, as one frame.
    ///
    /// # Errors
    /// The connection is of no more use; its reader will close it.
    pub(crate) fn flush(&self, buffers: &mut SendBuffers) -> Result<usize, PeerError> {
        let mut sending = lock(&self.sending);
        let message = {
            let mut outbox = lock(&self.outbox);
            if !std::mem::take(&mut outbox.posted) {
                return Ok(0);
            }
            std::mem::take(&mut outbox.message)
        };
        let fences = message.leases.iter().map(|lease| lease.fence);
        if let Some(why) = sending.dead {
            sending.undelivered.extend(fences);
            return Err(PeerError::Dead(why));
        }
        buffers.frame.clear();
        arborist_core::wire::put_frame(&message, &mut buffers.frame);
        buffers.tls.clear();
        let sent = sending
            .link
            .encrypt(&buffers.frame, &mut buffers.tls)
            .map_err(PeerError::from)
            .and_then(|()| self.write(&mut sending, &buffers.tls));
        if sent.is_err() || !sending.waiting.is_empty() {
            sending.undelivered.extend(fences);
        }
        if sent.is_err() {
            sending.dead = Some("it could not be sent to");
            self.hang_up();
        }
        sent.map(|()| buffers.tls.len())
    }

    /// Deals with received bytes; see [`Link::feed`]. What the handshake has to say is sent.
    pub(super) fn feed(
        &self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        buffers: &mut SendBuffers,
    ) -> Result<Fed, PeerError> {
        let mut sending = lock(&self.sending);
        buffers.tls.clear();
        let fed = sending.link.feed(incoming, plain, &mut buffers.tls)?;
        if !buffers.tls.is_empty() {
            self.write(&mut sending, &buffers.tls)?;
        }
        Ok(fed)
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn drain(&self) -> Result<(), PeerError> {
        let mut sending = lock(&self.sending);
        if sending.waiting.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut sending.waiting);
        self.write(&mut sending, &waiting)
    }

    fn write(&self, sending: &mut Sending, bytes: &[u8]) -> Result<(), PeerError> {
        let mut rest = bytes;
        while sending.waiting.is_empty() && !rest.is_empty() {
            match (&self.socket).write(rest) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if rest.is_empty() {
            sending.undelivered.clear();
            return Ok(());
        }
        let waits = sending.waiting.len() + rest.len();
        if waits > self.max_waiting {
            return Err(PeerError::Slow(waits));
        }
        sending.waiting.extend_from_slice(rest);
        Ok(())
    }

    /// Ends the connection from any thread: its reader notices and tells the engine.
    pub(crate) fn hang_up(&self) {
        // fails only when the peer was faster
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Ends the connection for good; returns the fences of leases that did not go out.
    pub(super) fn close(&self) -> Vec<u64> {
        let mut sending = lock(&self.sending);
        sending.dead = Some("it is closed");
        sending.waiting = vec![];
        self.hang_up();
        let mut fences = std::mem::take(&mut sending.undelivered);
        fences.extend(lock(&self.outbox).message.leases.drain(..).map(|lease: Lease| lease.fence));
        fences
    }

    /// Whether [`Peer::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.sending).dead.is_some()
    }

    /// Fences of leases posted after the connection was closed: the poster gives them back.
    pub(crate) fn stranded(&self) -> Vec<u64> {
        let mut sending = lock(&self.sending);
        if sending.dead.is_none() {
            return vec![];
        }
        std::mem::take(&mut sending.undelivered)
    }
}
