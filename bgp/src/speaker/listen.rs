//! The listening sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use margay_bgp_sys as sys;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::admission::Admission;
use super::handle::SpeakerError;
use super::io::{self, Event};
use super::keys::{self, Failures, Keys};

/// Connections the system keeps for us until they are accepted: a rack of peers may come at once.
const BACKLOG: i32 = 256;
/// Wait after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// The listeners in force, by the address that was asked for.
pub(super) struct Listeners {
    open: BTreeMap<SocketAddr, Listener>,
    keys: Keys,
    events: mpsc::Sender<Event>,
    admission: Admission,
}

/// A listener that accepts until it is dropped.
pub(super) struct Listener {
    bound: SocketAddr,
    /// The socket itself, for changing its keys.
    socket: OwnedFd,
    /// The keys it has.
    keys: Keys,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listeners {
    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            open: BTreeMap::new(),
            keys: Keys::new(),
            events,
            admission: Admission::default(),
        }
    }

    /// Opens those of `wanted` that are not open yet, all or none.
    pub(super) fn open_missing(
        &self,
        wanted: &[SocketAddr],
    ) -> Result<Vec<(SocketAddr, Listener)>, SpeakerError> {
        let mut opened: Vec<(SocketAddr, Listener)> = Vec::new();
        for address in wanted {
            let known = self.open.contains_key(address) || opened.iter().any(|(a, _)| a == address);
            if !known {
                let listener = open(*address, self.events.clone(), self.admission.clone());
                let listener = listener.map_err(|source| SpeakerError::Listen {
                    address: *address,
                    source,
                })?;
                opened.push((*address, listener));
            }
        }
        Ok(opened)
    }

    pub(super) fn keep(&mut self, opened: Vec<(SocketAddr, Listener)>) {
        self.open.extend(opened);
    }

    /// Makes these the keys of every listener, and says for whom that could not be done and why: nobody may be let in there.
    pub(super) fn set_keys(&mut self, wanted: Keys) -> Failures {
        let mut failures = Failures::new();
        for listener in self.open.values_mut() {
            let ipv6 = listener.bound.is_ipv6();
            let failed = keys::change(&listener.socket, ipv6, &mut listener.keys, &wanted);
            failures.extend(failed);
        }
        self.keys = wanted;
        failures
    }

    /// Tries once more what could not be done.
    pub(super) fn set_keys_again(&mut self) -> Failures {
        self.set_keys(self.keys.clone())
    }

    pub(super) fn close_unwanted(&mut self, wanted: &[SocketAddr]) {
        self.open.retain(|address, _| wanted.contains(address));
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.values().map(|listener| listener.bound).collect()
    }
}

fn open(
    address: SocketAddr,
    events: mpsc::Sender<Event>,
    admission: Admission,
) -> std::io::Result<Listener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Without it a restart would have to wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // IPv4 has listeners of its own; addresses of peers then always have their own family.
        socket.set_only_v6(true)?;
    }
    io::set_options(SockRef::from(&socket), address.is_ipv4())?;
    // The answer to a SYN is the listener's. A peer with GTSM takes none that was sent with less, to others it does no harm.
    io::set_socket_ttl(SockRef::from(&socket), address.is_ipv4(), u8::MAX)?;
    // For peers with GTSM; the others are none the worse without it.
    if let Err(error) = sys::keep_syn(&socket) {
        debug!(%error, "the hop limits of incoming connections stay unknown");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let handle = socket.as_fd().try_clone_to_owned()?;
    let listener = TcpListener::from_std(socket.into())?;
    let bound = listener.local_addr()?;
    Ok(Listener {
        bound,
        socket: handle,
        keys: Keys::new(),
        task: tokio::spawn(accept(listener, events, admission)),
    })
}

async fn accept(listener: TcpListener, events: mpsc::Sender<Event>, admission: Admission) {
    let mut failing = false;
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory, or a connection that is gone already: neither ends the listener. What is
                // lacking will be for a while, so it is said once.
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "cannot accept connections, waiting until that is possible again");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            info!("connections are accepted again");
        }
        let Some(ticket) = admission.admit(remote.ip().to_canonical()) else {
            debug!(%remote, "connection refused: there are too many from this address");
            continue;
        };
        let _ = io::set_options(SockRef::from(&stream), remote.is_ipv4());
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        if events
            .send(Event::Incoming {
                stream,
                remote,
                local,
                ticket,
            })
            .await
            .is_err()
        {
            return;
        }
    }
}
