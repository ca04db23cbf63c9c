//! One task for each connection: opening it, reading from it, writing to it, closing it so that the last words arrive.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use margay_bgp_sys as sys;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::admission::Ticket;
use super::flow::Written;
use super::keys;
use crate::config::Security;
use crate::router::{ConnectionId, Octets};

/// Most octets taken in one read.
const READ: usize = 32 * 1024;
/// How long what is left may take to be written once the connection is to be closed, and the peer to close its side.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Traffic class of routing protocols: precedence Internetwork Control (RFC 4271 appendix E).
const TRAFFIC_CLASS: u32 = 0xc0;

thread_local! {
    /// Where reads go first: one for all connections of the thread, so that one that has nothing to say costs none.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Reads what has arrived, some of it at most, and has it looked at.
fn take<T>(reader: &OwnedReadHalf, look: impl FnOnce(&[u8]) -> T) -> std::io::Result<T> {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.is_empty() {
            buffer.resize(READ, 0);
        }
        let length = reader.try_read(buffer)?;
        Ok(look(buffer.get(..length).unwrap_or_default()))
    })
}

/// What connections and listeners report to the owner.
#[derive(Debug)]
pub(super) enum Event {
    Incoming {
        stream: TcpStream,
        remote: SocketAddr,
        local: SocketAddr,
        ticket: Ticket,
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

/// How a connection is to be opened.
pub(super) struct How {
    /// The source address; `None` leaves it to the system.
    pub(super) local: Option<IpAddr>,
    /// TTL or hop limit of our packets.
    pub(super) ttl: u8,
    /// How the peer's packets are told from those of others.
    pub(super) security: Security,
}

/// Opens a connection and reports what came of it.
pub(super) async fn connect(
    connection: ConnectionId,
    remote: SocketAddr,
    how: How,
    events: mpsc::Sender<Event>,
) {
    let event = match open(remote, &how).await {
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

async fn open(remote: SocketAddr, how: &How) -> std::io::Result<(TcpStream, SocketAddr)> {
    let socket = if remote.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    set_options(SockRef::from(&socket), remote.is_ipv4())?;
    set_socket_ttl(SockRef::from(&socket), remote.is_ipv4(), how.ttl)?;
    if how.security.least_ttl() > 0 {
        sys::require_hop_limit(&socket, remote.is_ipv6(), how.security.least_ttl())?;
    }
    keys::sign(&socket, remote.ip(), &how.security).map_err(std::io::Error::other)?;
    if let Some(local) = how.local {
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

pub(super) fn set_socket_ttl(socket: SockRef<'_>, ipv4: bool, ttl: u8) -> std::io::Result<()> {
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

/// Whether an accepted connection was opened by a segment with a lower TTL (RFC 5082). The kernel is told of the limit only after
/// it has accepted, and the peer's first message may be there by then; its SYN tells what that is worth.
pub(super) fn is_from_afar(stream: &TcpStream, least: u8) -> bool {
    if least == 0 {
        return false;
    }
    match sys::hop_limit_of_syn(stream) {
        Ok(limit) => limit.is_some_and(|limit| limit < least),
        Err(error) => {
            debug!(%error, least, "cannot tell the hop limit of an incoming connection");
            false
        }
    }
}

/// Has the kernel drop what arrives on an accepted connection with a lower TTL (RFC 5082) from now on. For what came before see
/// [`is_from_afar`].
pub(super) fn require_ttl(stream: &TcpStream, least: u8) {
    if least == 0 {
        return;
    }
    let ipv6 = stream.peer_addr().is_ok_and(|address| address.is_ipv6());
    if let Err(error) = sys::require_hop_limit(stream, ipv6, least) {
        debug!(%error, least, "cannot set the least TTL of a connection");
    }
}

/// What the owner gives a connection.
pub(super) struct Given {
    /// What is to be written.
    pub(super) chunks: mpsc::Receiver<Octets>,
    /// Where it is noted that it was.
    pub(super) written: Written,
    /// The end, and the last words.
    pub(super) closing: oneshot::Receiver<Bytes>,
    /// The place among the connections of its address; those we opened have none.
    pub(super) ticket: Option<Ticket>,
}

/// Serves a connection until the owner closes it.
pub(super) async fn run(
    connection: ConnectionId,
    stream: TcpStream,
    given: Given,
    events: mpsc::Sender<Event>,
) {
    // Kept until everything is over.
    let _ticket = given.ticket;
    let (reader, mut writer) = stream.into_split();
    let reading = async {
        let reason = read(connection, &reader, &events).await;
        let _ = events.send(Event::Closed { connection, reason }).await;
        std::future::pending::<()>().await;
    };
    let queue = (given.chunks, given.written);
    let writing = write(connection, &mut writer, queue, given.closing, &events);
    let all_written = tokio::select! {
        () = reading => false,
        all_written = writing => all_written,
    };
    if all_written {
        linger(reader, writer).await;
    } else {
        // The peer reads nothing: the kernel need not keep for minutes what it will not get.
        let _ = SockRef::from(writer.as_ref()).set_linger(Some(Duration::ZERO));
    }
}

async fn read(
    connection: ConnectionId,
    reader: &OwnedReadHalf,
    events: &mpsc::Sender<Event>,
) -> String {
    loop {
        if let Err(error) = reader.readable().await {
            return format!("connection lost: {error}");
        }
        match take(reader, Bytes::copy_from_slice) {
            Ok(octets) if octets.is_empty() => {
                return "the peer closed the connection".to_owned();
            }
            Ok(octets) => {
                let event = Event::Octets { connection, octets };
                if events.send(event).await.is_err() {
                    return "the speaker stopped".to_owned();
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return format!("connection lost: {error}"),
        }
    }
}

/// Writes chunks until told to close, then the last words. False if the peer did not take everything.
async fn write(
    connection: ConnectionId,
    writer: &mut OwnedWriteHalf,
    (mut chunks, written): (mpsc::Receiver<Octets>, Written),
    mut closing: oneshot::Receiver<Bytes>,
    events: &mpsc::Sender<Event>,
) -> bool {
    let last = {
        let flow = async {
            while let Some(mut chunk) = chunks.recv().await {
                writer.write_all_buf(&mut chunk).await?;
                written.add();
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
                    _ => return false,
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
    let last = tokio::time::timeout(LAST_WORDS, writer.write_all(&last));
    last.await.is_ok()
}

/// Closes our side and reads what the peer still says: closing with unread input would reset the connection, and the peer
/// might lose a NOTIFICATION that it has not read yet.
async fn linger(reader: OwnedReadHalf, mut writer: OwnedWriteHalf) {
    if writer.shutdown().await.is_err() {
        return;
    }
    let rest = async {
        while reader.readable().await.is_ok() {
            match take(&reader, <[u8]>::is_empty) {
                Ok(false) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(true) | Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
}
