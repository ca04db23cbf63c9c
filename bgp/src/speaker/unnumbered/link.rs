//! One interface: advertising this router on it, and listening for the other one.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Found, Neighbor};
use crate::discovery::{self, HOP_LIMIT, INTERVAL, LIFETIME, Message};

/// Every node on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Every router on it.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// How often the interface is looked at: is it there, is it still the same one?
const LOOK: Duration = Duration::from_secs(1);
/// Least time between two advertisements, whoever asks how often (RFC 4861 section 10, MIN_DELAY_BETWEEN_RAS).
const LEAST: Duration = Duration::from_secs(3);
/// Advertisements sent without being asked right at the beginning, one each time the interface is looked at.
const FIRST: u32 = 3;
/// Messages read before anything else gets its turn.
const READS: usize = 64;

/// Watches an interface until the task is aborted. It may come and go.
pub(super) async fn run(interface: String, found: mpsc::Sender<Found>) {
    let mut said = String::new();
    loop {
        let reason = match Link::open(&interface) {
            Ok(mut link) => {
                said.clear();
                let reason = link.serve(&interface, &found).await;
                let gone = Found {
                    interface: interface.clone(),
                    neighbor: None,
                };
                // An interface that is only not to be read from may still carry the session.
                if link.is_gone(&interface) && found.send(gone).await.is_err() {
                    return;
                }
                reason
            }
            Err(error) => error,
        };
        let reason = reason.to_string();
        if said != reason {
            warn!(
                interface,
                reason, "no router is looked for on this interface, until that changes"
            );
            said = reason;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The socket of one interface. Takes its last advertisement back when it is dropped.
struct Link {
    /// A raw ICMPv6 socket. tokio knows datagrams by UDP's name only, and asks no more of them than to become readable.
    socket: UdpSocket,
    index: u32,
    neighbor: Option<Ipv6Addr>,
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.send(ALL_NODES, &discovery::advertisement(Duration::ZERO));
    }
}

impl Link {
    fn open(interface: &str) -> io::Result<Self> {
        let kind = Type::RAW.nonblocking();
        let socket = Socket::new(Domain::IPV6, kind, Some(Protocol::ICMPV6))?;
        let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
        margay_bgp_sys::admit_icmpv6(
            &socket,
            &[discovery::SOLICITATION, discovery::ADVERTISEMENT],
        )?;
        margay_bgp_sys::tell_hop_limit_and_interface(&socket, true)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_multicast_loop_v6(false)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            index,
            neighbor: None,
        })
    }

    /// The interface is no longer there, or is another one with the same name.
    fn is_gone(&self, interface: &str) -> bool {
        let index = rustix::net::netdevice::name_to_index(&self.socket, interface);
        index != Ok(self.index)
    }

    /// Advertises and listens until something fails; that is returned.
    async fn serve(&mut self, interface: &str, found: &mpsc::Sender<Found>) -> io::Error {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut sent, mut last, mut asked) = (0, None::<Instant>, false);
        let _ = self.send(ALL_ROUTERS, &discovery::solicitation());
        loop {
            let readable = tokio::select! {
                readable = self.socket.readable() => match readable {
                    Ok(()) => true,
                    Err(error) => return error,
                },
                _ = look.tick() => false,
            };
            if readable {
                match self.read() {
                    Ok(questions) => asked |= questions,
                    Err(error) => return error,
                }
                if let Some(address) = self.neighbor {
                    let neighbor = Some(Neighbor {
                        address,
                        index: self.index,
                    });
                    let interface = interface.to_owned();
                    if found
                        .send(Found {
                            interface,
                            neighbor,
                        })
                        .await
                        .is_err()
                    {
                        return io::ErrorKind::BrokenPipe.into();
                    }
                }
            } else if self.is_gone(interface) {
                return io::ErrorKind::NotFound.into();
            }
            let due = match last {
                None => true,
                Some(at) => {
                    let wait = if asked { LEAST } else { INTERVAL };
                    sent < FIRST || at.elapsed() >= wait
                }
            };
            if due && (!readable || asked) {
                // The link may have no address yet, or be down: the next look tries again.
                match self.send(ALL_NODES, &discovery::advertisement(LIFETIME)) {
                    Ok(()) => (sent, last, asked) = (sent + 1, Some(Instant::now()), false),
                    Err(error) => debug!(interface, %error, "cannot advertise"),
                }
            }
        }
    }

    /// Takes in what has arrived; true if somebody asks for an advertisement.
    fn read(&mut self) -> io::Result<bool> {
        let mut asked = false;
        let mut buffer = [0; 1500];
        for _ in 0..READS {
            // By way of tokio, which has to learn that there is nothing more.
            let receive = || margay_bgp_sys::receive(&self.socket, &mut buffer);
            let datagram = match self.socket.try_io(Interest::READABLE, receive) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let SocketAddr::V6(remote) = datagram.remote else {
                continue;
            };
            if datagram.interface != self.index {
                continue;
            }
            let octets = buffer.get(..datagram.length).unwrap_or_default();
            let hop_limit = datagram.hop_limit.unwrap_or(0);
            match discovery::decode(*remote.ip(), hop_limit, octets) {
                Ok(Message::Solicitation) => asked = true,
                Ok(Message::Advertisement { lifetime }) => {
                    // One that says goodbye is no neighbour; a session with it ends by itself.
                    if !lifetime.is_zero() {
                        self.neighbor = Some(*remote.ip());
                    }
                }
                Err(reason) => debug!(%remote, %reason, "router discovery: discarded"),
            }
        }
        Ok(asked)
    }

    fn send(&self, to: Ipv6Addr, octets: &[u8]) -> io::Result<()> {
        let to = SocketAddrV6::new(to, 0, 0, self.index);
        SockRef::from(&self.socket)
            .send_to(octets, &to.into())
            .map(drop)
    }
}
