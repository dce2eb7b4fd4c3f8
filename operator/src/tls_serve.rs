//! Serves an axum router over TLS, with limits on what a slow or silent client may hold.

use arborist_system::descriptors::Shares;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tracing::{debug, warn};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Each part of a request's body has to follow the one before within this time.
const NEXT_PART: Duration = Duration::from_secs(15);
/// How long requests under way may take after the stop.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How long accepting rests, longer each time, when the process has no file descriptors left.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Serves `router` on `listener` until `stop` is cancelled, then lets requests under way finish for 10 s.
/// Speaks HTTP/1.1, over TLS with `tls`, else in the clear. The TLS configuration may hold a resolver that
/// changes certificates while this runs. Connections beyond the store's share of the process's descriptors wait in the
/// listener's backlog.
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
    let router = router.layer(RequestBodyTimeoutLayer::new(NEXT_PART));
    let acceptor = tls.map(TlsAcceptor::from);
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(most));
    let accept = async {
        let mut pause = ACCEPT_PAUSE.0;
        // the semaphore is never closed
        while let Ok(place) = places.clone().acquire_owned().await {
            let stream = match listener.accept().await {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    if pause == ACCEPT_PAUSE.0 {
                        warn!(%error, "connections can't be accepted");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                    continue;
                }
            };
            pause = ACCEPT_PAUSE.0;
            let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
            connections.spawn(async move {
                handle(stream, acceptor, router, stop).await;
                drop(place);
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

/// How long sent bytes may stay unread before the connection ends.
const UNREAD_TIME: Duration = Duration::from_secs(30);

async fn handle(stream: TcpStream, acceptor: Option<TlsAcceptor>, router: Router, stop: CancellationToken) {
    // a connection that can't be told to send small answers at once still works
    let _slower = stream.set_nodelay(true);
    // whoever asks for large objects and reads nothing holds memory that others need
    let _until_tcp_gives_up = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIME));
    let Some(acceptor) = acceptor else { return converse(stream, router, stop).await };
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, router, stop).await,
        Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
        Err(_late) => debug!("TLS handshake took too long"),
    }
}

async fn converse<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_TIMEOUT)
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
