//! Serves an axum router over TLS, with limits on what a slow or silent client may hold.

use crate::places::{Place, Places};
use arborist_system::descriptors::Shares;
use axum::Router;
use axum::body::{Body, HttpBody};
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{BoxError, ServiceExt};
use tower_http::timeout::TimeoutBody;
use tracing::{debug, warn};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What is read of a connection before somebody wants it.
const READ_BUFFER_BYTES: usize = 64 << 10;
/// Each part of a request's body has to follow the one before within this time.
const NEXT_PART: Duration = Duration::from_secs(15);
/// How long requests under way may take after the stop.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How long accepting rests, longer each time, when the process has no file descriptors left.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How soon it is looked for a free place when all are taken and none is idle.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Serves `router` on `listener` until `stop` is cancelled, then lets requests under way finish for 10 s.
/// Speaks HTTP/1.1, over TLS with `tls`, else in the clear. The TLS configuration may hold a resolver that
/// changes certificates while this runs. When as many are connected as the store's share of the process's descriptors
/// allows, idle ones give way, or those that come wait in the listener's backlog.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    stop: CancellationToken,
) {
    serve_at_most(Shares::now().store, listener, tls, router, stop).await;
}

/// Serves as [`serve`] does, `most` connections at once.
pub async fn serve_at_most(
    most: usize,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    stop: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let connections = TaskTracker::new();
    let places = Arc::new(Places::new(most));
    let accept = async {
        loop {
            let (stream, address) = next(&listener, &places).await;
            let guest = Guest { place: places.add(address, Instant::now()), places: places.clone() };
            guest.says_something();
            let leave = CancellationToken::new();
            guest.place.closes_by({
                let leave = leave.clone();
                move || leave.cancel()
            });
            let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
            connections.spawn(async move {
                let visit = handle(stream, acceptor, router, stop, guest.clone());
                if leave.run_until_cancelled(visit).await.is_none() {
                    debug!(%address, "an idle connection gave way to others");
                }
                guest.places.remove(&guest.place);
            });
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accept => {}
    }
    drop(listener);
    connections.close();
    if timeout(DRAIN_TIME, connections.wait()).await.is_err() {
        warn!(left = connections.len(), "requests were still under way at the stop");
    }
}

/// The next connection, once there is a place for it.
async fn next(listener: &TcpListener, places: &Places) -> (TcpStream, SocketAddr) {
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        if !places.make_room(Instant::now()) {
            tokio::time::sleep(FULL_PAUSE).await;
            continue;
        }
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                if pause == ACCEPT_PAUSE.0 {
                    warn!(%error, "connections can't be accepted");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}

/// A connection's place among the others.
#[derive(Clone)]
struct Guest {
    place: Arc<Place>,
    places: Arc<Places>,
}

impl Guest {
    fn says_something(&self) {
        self.places.hears(&self.place, Instant::now());
    }

    /// It is not idle until this is dropped.
    fn asks(&self) -> Asking {
        self.place.set_asks(true);
        Asking(self.clone())
    }
}

struct Asking(Guest);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.says_something();
        self.0.place.set_asks(false);
    }
}

/// A request's body, whose parts have to come in time.
struct Arriving {
    body: Pin<Box<TimeoutBody<Incoming>>>,
    /// Bytes that are still to come, where the request says so: the timeout does not know.
    left: Option<u64>,
}

impl Arriving {
    fn new(body: Incoming) -> Self {
        let left = body.size_hint().exact();
        Self { body: Box::pin(TimeoutBody::new(NEXT_PART, body)), left }
    }
}

impl HttpBody for Arriving {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = std::task::ready!(self.body.as_mut().poll_frame(context));
        if let (Some(Ok(frame)), Some(left)) = (&frame, self.left) {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.left = Some(left.saturating_sub(length));
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer's body: who asked is not idle until it is sent.
struct Sending {
    body: Body,
    _asking: Asking,
}

impl HttpBody for Sending {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long sent bytes may stay unread before the connection ends.
const UNREAD_TIME: Duration = Duration::from_secs(30);

async fn handle(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
    guest: Guest,
) {
    // a connection that can't be told to send small answers at once still works
    let _slower = stream.set_nodelay(true);
    // whoever asks for large objects and reads nothing holds memory that others need
    let _until_tcp_gives_up = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIME));
    let Some(acceptor) = acceptor else { return converse(stream, router, stop, guest).await };
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            guest.says_something();
            converse(stream, router, stop, guest).await;
        }
        Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
        Err(_late) => debug!("TLS handshake took too long"),
    }
}

async fn converse<S>(stream: S, router: Router, stop: CancellationToken, guest: Guest)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, asking) = (router.clone(), guest.asks());
        async move {
            let answer = router.oneshot(request.map(|body| Body::new(Arriving::new(body)))).await?;
            Ok::<_, Infallible>(answer.map(|body| Sending { body, _asking: asking }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_TIMEOUT)
        .max_buf_size(READ_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    async fn ask(address: SocketAddr, path: &str) -> std::io::Result<(TcpStream, String)> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await?;
        let mut part = [0; 1024];
        let length = stream.read(&mut part).await?;
        Ok((stream, String::from_utf8_lossy(&part[..length]).into_owned()))
    }

    #[tokio::test]
    async fn idle_connections_give_way_and_requests_under_way_do_not() {
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (entered, go) = (entered.clone(), go.clone());
            move || async move {
                entered.notify_one();
                go.notified().await;
                "slow"
            }
        };
        let router = Router::new().route("/", get(|| async { "ok" })).route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve_at_most(4, listener, None, router, stop.clone()));
        let waits = tokio::spawn(async move { ask(address, "/slow").await });
        entered.notified().await;
        // one that has asked and stays, and more that say nothing than there are places
        let (mut kept, answer) = ask(address, "/").await.unwrap();
        assert!(answer.ends_with("ok"), "{answer}");
        let mut idle = vec![];
        for _ in 0..8 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let (_stream, answer) = ask(address, "/").await.unwrap();
        assert!(answer.ends_with("ok"), "{answer}");
        assert_eq!(kept.read(&mut [0]).await.unwrap_or(0), 0, "it was idle for longest");
        go.notify_one();
        let (_stream, answer) = waits.await.unwrap().unwrap();
        assert!(answer.ends_with("slow"), "{answer}");
        stop.cancel();
    }
}
