//! Connections: accepting, the TLS handshake, HTTP/1.1, and the limits on all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::http::{App, handle};

/// Connections open at once per listener.
const MAX_CONNECTIONS: usize = 8192;
/// A client that has not finished its handshake by then is no client.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may idle, and how long a request's head may take. Longer than clients keep idle connections (90 s in Go
/// and hyper), so that it is the client who closes and no request races with the closing.
const IDLE: Duration = Duration::from_secs(120);
/// Unacknowledged data is given up after this; it ends watches whose client has vanished or does not read.
const STUCK: Duration = Duration::from_secs(60);
/// The largest request head.
const HEAD_BYTES: usize = 64 << 10;

/// Accepts until shutdown, then lets open connections finish.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    app: Arc<App>,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &permits) => {
                let Some((stream, permit)) = accepted else { continue };
                let (acceptor, app, shutdown) = (acceptor.clone(), Arc::clone(&app), shutdown.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    connection(stream, acceptor, app, shutdown).await;
                });
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            // Out of descriptors, most likely: wait for some to be closed instead of spinning.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    app: Arc<App>,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(&stream, Duration::from_secs(30));
    let _ = rustix::net::sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(10));
    let _ = rustix::net::sockopt::set_tcp_user_timeout(
        &stream,
        u32::try_from(STUCK.as_millis()).unwrap_or(u32::MAX),
    );
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "handshake failed"),
        Err(_) => return tracing::debug!("handshake timed out"),
    };
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let app = Arc::clone(&app);
        async move { Ok::<_, std::convert::Infallible>(handle(app, request.map(Body::new)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}
