//! One task for each connection: opening it, reading from it, writing to it, closing it so that the last words arrive.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::router::ConnectionId;

/// Most octets taken in one read.
const READ: usize = 64 * 1024;
/// How long what is left may take to be written once the connection is to be closed, and the peer to close its side.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Traffic class of routing protocols: precedence Internetwork Control (RFC 4271 appendix E).
const TRAFFIC_CLASS: u32 = 0xc0;

/// What connections and listeners report to the owner.
#[derive(Debug)]
pub(super) enum Event {
    Incoming {
        stream: TcpStream,
        remote: SocketAddr,
        local: SocketAddr,
    },
    Connected {
        connection: ConnectionId,
        stream: TcpStream,
        local: SocketAddr,
    },
    Octets {
        connection: ConnectionId,
        octets: Bytes,
    },
    Closed {
        connection: ConnectionId,
        reason: String,
    },
}

/// Opens a connection and reports what came of it.
pub(super) async fn connect(
    connection: ConnectionId,
    remote: SocketAddr,
    local: Option<IpAddr>,
    ttl: u8,
    events: mpsc::Sender<Event>,
) {
    let event = match open(remote, local, ttl).await {
        Ok((stream, local)) => Event::Connected {
            connection,
            stream,
            local,
        },
        Err(error) => Event::Closed {
            connection,
            reason: format!("connect to {remote}: {error}"),
        },
    };
    // The owner being gone is the only way this fails.
    let _ = events.send(event).await;
}

async fn open(
    remote: SocketAddr,
    local: Option<IpAddr>,
    ttl: u8,
) -> std::io::Result<(TcpStream, SocketAddr)> {
    let socket = if remote.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    set_options(SockRef::from(&socket), remote.is_ipv4())?;
    set_socket_ttl(SockRef::from(&socket), remote.is_ipv4(), ttl)?;
    if let Some(local) = local {
        socket.bind((local, 0).into())?;
    }
    let stream = socket.connect(remote).await?;
    let local = stream.local_addr()?;
    Ok((stream, local))
}

/// What every BGP socket gets: no delay (messages are complete, waiting for more is no use) and the routing traffic class.
pub(super) fn set_options(socket: SockRef<'_>, ipv4: bool) -> std::io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if ipv4 {
        socket.set_tos_v4(TRAFFIC_CLASS)
    } else {
        socket.set_tclass_v6(TRAFFIC_CLASS)
    }
}

fn set_socket_ttl(socket: SockRef<'_>, ipv4: bool, ttl: u8) -> std::io::Result<()> {
    if ipv4 {
        socket.set_ttl_v4(ttl.into())
    } else {
        socket.set_unicast_hops_v6(ttl.into())
    }
}

/// Sets the TTL of an accepted connection. A failure is not worth losing the connection: a TTL that is too large only makes
/// the session work where it should not.
pub(super) fn set_ttl(stream: &TcpStream, ttl: u8) {
    let ipv4 = stream.peer_addr().is_ok_and(|address| address.is_ipv4());
    if let Err(error) = set_socket_ttl(SockRef::from(stream), ipv4, ttl) {
        debug!(%error, ttl, "cannot set the TTL of a connection");
    }
}

/// Serves a connection until the owner closes it.
pub(super) async fn run(
    connection: ConnectionId,
    stream: TcpStream,
    chunks: mpsc::Receiver<Bytes>,
    closing: oneshot::Receiver<Bytes>,
    events: mpsc::Sender<Event>,
) {
    let (mut reader, mut writer) = stream.into_split();
    let reading = async {
        let reason = read(connection, &mut reader, &events).await;
        let _ = events.send(Event::Closed { connection, reason }).await;
        std::future::pending::<()>().await;
    };
    let writing = write(connection, &mut writer, chunks, closing, &events);
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
    linger(reader, writer).await;
}

async fn read(
    connection: ConnectionId,
    reader: &mut OwnedReadHalf,
    events: &mpsc::Sender<Event>,
) -> String {
    loop {
        let mut buffer = BytesMut::with_capacity(READ);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return "the peer closed the connection".to_owned(),
            Ok(_) => {
                let octets = buffer.freeze();
                if events
                    .send(Event::Octets { connection, octets })
                    .await
                    .is_err()
                {
                    return "the speaker stopped".to_owned();
                }
            }
            Err(error) => return format!("connection lost: {error}"),
        }
    }
}

/// Writes chunks until told to close, then the last words.
async fn write(
    connection: ConnectionId,
    writer: &mut OwnedWriteHalf,
    mut chunks: mpsc::Receiver<Bytes>,
    mut closing: oneshot::Receiver<Bytes>,
    events: &mpsc::Sender<Event>,
) {
    let last = {
        let flow = async {
            while let Some(chunk) = chunks.recv().await {
                writer.write_all(&chunk).await?;
            }
            Ok::<(), std::io::Error>(())
        };
        tokio::pin!(flow);
        tokio::select! {
            biased;
            last = &mut closing => {
                // The rest of what was given before must go first, or the stream would be garbage to the peer.
                match tokio::time::timeout(LAST_WORDS, &mut flow).await {
                    Ok(Ok(())) => last.unwrap_or_default(),
                    _ => return,
                }
            }
            result = &mut flow => {
                if let Err(error) = result {
                    let reason = format!("connection lost: {error}");
                    let _ = events.send(Event::Closed { connection, reason }).await;
                }
                closing.await.unwrap_or_default()
            }
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, writer.write_all(&last)).await;
}

/// Closes our side and reads what the peer still says: closing with unread input would reset the connection, and the peer
/// might lose a NOTIFICATION that it has not read yet.
async fn linger(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf) {
    if writer.shutdown().await.is_err() {
        return;
    }
    let rest = async {
        let mut sink = [0; 4096];
        while matches!(reader.read(&mut sink).await, Ok(length) if length > 0) {}
    };
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
}
