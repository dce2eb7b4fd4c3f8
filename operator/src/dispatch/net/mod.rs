//! The network side of the dispatcher: a few threads, each with its own epoll, carry all workers'
//! connections. What the frames mean is the [`Desk`]'s affair.
//!
//! Why no task per connection: at tens of thousands of small frames a second most of the time goes
//! to the kernel's sockets already; waking a task for each costs as much again.

mod event_loop;
mod frames;
mod link;
mod peer;

pub(crate) use peer::{Peer, SendBuffers};

use crate::metrics::Metrics;
use crate::places::Places;
use arborist_core::wire::{FromWorker, Hello};
use arborist_system::watchdog::Watchdog;
use event_loop::{EventLoop, Handover};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A network thread that takes longer for a turn is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Connections that may wait to be accepted: a whole fleet comes back at once after a restart.
const BACKLOG: i32 = 16_384;

/// Who answers the workers. Called from the network's threads; must not block for long.
pub(crate) trait Desk: Send + Sync + 'static {
    /// A worker wants to log in. The answer is a session ([`Peer::set_session`]) and a welcome, or a
    /// refusal and [`Peer::hang_up`]; it may come later, from another thread.
    fn hello(&self, peer: &Arc<Peer>, hello: Hello, buffers: &mut SendBuffers);

    /// Frames of workers that are logged in, in each one's order. Empties `batch`.
    fn frames(&self, batch: &mut Vec<(Arc<Peer>, FromWorker)>, buffers: &mut SendBuffers);

    /// A connection is gone. `undelivered` are the fences of leases that it did not take with it.
    fn closed(&self, peer: &Arc<Peer>, undelivered: Vec<u64>, buffers: &mut SendBuffers);
}

/// Limits of the network side.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Threads that carry connections.
    pub threads: usize,
    /// The largest frame taken from a worker that is logged in, in bytes.
    pub max_frame: usize,
    /// The most bytes that may wait for a worker that reads slowly.
    pub max_waiting: usize,
    /// Connections that there may be at once; more wait in the backlog.
    pub max_connections: usize,
    /// Connections that may be on their way to a login at once; then idle ones give way, or more wait in the backlog.
    pub max_logins: usize,
    /// A connection that is not logged in after so long is closed; one without a TLS handshake after half of it.
    pub login_timeout: Duration,
    /// A worker silent for so long is disconnected.
    pub idle_timeout: Duration,
}

/// A listening socket whose connections wait until [`Bound::start`].
pub(crate) struct Bound {
    socket: std::net::TcpListener,
    pub(crate) address: SocketAddr,
}

impl Bound {
    pub(crate) fn new(listen: SocketAddr) -> io::Result<Self> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&listen.into())?;
        socket.listen(BACKLOG)?;
        let socket = std::net::TcpListener::from(socket);
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    pub(crate) fn start(
        self,
        tls: Arc<ServerConfig>,
        limits: Limits,
        desk: Arc<dyn Desk>,
        metrics: Arc<Metrics>,
        watchdog: &Watchdog,
    ) -> io::Result<Net> {
        let shared = Arc::new(Shared {
            tls,
            logins: Places::new(limits.max_logins),
            limits,
            desk,
            metrics,
            stopping: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
        });
        let threads = shared.limits.threads.max(1);
        let mut loops =
            (0..threads).map(|_| EventLoop::new(shared.clone())).collect::<io::Result<Vec<_>>>()?;
        let doors: Arc<[Handover]> = loops.iter().map(|l| l.handover()).collect();
        loops[0].listen(mio::net::TcpListener::from_std(self.socket), doors.clone())?;
        let threads = loops
            .into_iter()
            .enumerate()
            .map(|(i, each)| {
                let name = format!("net-{i}");
                let pulse = watchdog.watch(format!("network thread {name}"), STUCK);
                std::thread::Builder::new().name(name).spawn(move || each.run(&pulse))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Net { shared, doors, threads })
    }
}

/// What all loops share.
struct Shared {
    tls: Arc<ServerConfig>,
    limits: Limits,
    desk: Arc<dyn Desk>,
    metrics: Arc<Metrics>,
    stopping: AtomicBool,
    /// Connections that are not logged in yet.
    logins: Places,
    /// All connections.
    connections: AtomicUsize,
}

/// The running network side; stopped by [`Net::stop`].
pub(crate) struct Net {
    shared: Arc<Shared>,
    doors: Arc<[Handover]>,
    threads: Vec<JoinHandle<()>>,
}

impl Net {
    /// Closes all connections; the desk hears of each. Blocks until the threads are gone.
    pub(crate) fn stop(self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.doors.iter().for_each(Handover::wake);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a network thread had panicked");
            }
        }
    }
}
