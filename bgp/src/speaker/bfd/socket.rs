//! The UDP sockets: where packets come in, and one for each session to send from.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

use super::Wanted;
use crate::bfd::{
    FIRST_SOURCE_PORT, Hops, MULTIHOP_PORT, Path, Received, SINGLE_HOP_PORT, TTL, Transmit,
};

/// Precedence Internetwork Control, as of all routing protocols.
const TRAFFIC_CLASS: u32 = 0xc0;
/// Source ports tried before giving up for this time.
const TRIES: usize = 32;
/// Longest packet of use, in octets: what follows the control packet's own length is not looked at.
const LONGEST: usize = 512;

/// Where packets are received: which port, and at which address.
type Place = (Hops, IpAddr);

/// All sockets of the thread.
#[derive(Default)]
pub(super) struct Sockets {
    receivers: BTreeMap<Place, UdpSocket>,
    senders: BTreeMap<Path, UdpSocket>,
    /// Why receiving at a place is not possible.
    refused: BTreeMap<Place, String>,
    /// Why the last packet to a peer could not be sent.
    unsent: BTreeMap<Path, String>,
    ports: u16,
}

impl Sockets {
    /// Opens what is missing for these sessions and closes what is no longer needed. What cannot be opened is said once.
    pub(super) fn open(&mut self, wanted: &BTreeMap<Path, Wanted>) {
        let places = places(wanted);
        self.receivers.retain(|place, _| places.contains(place));
        self.refused.retain(|place, _| places.contains(place));
        self.senders.retain(|path, _| wanted.contains_key(path));
        self.unsent.retain(|path, _| wanted.contains_key(path));
        for place in places {
            if self.receivers.contains_key(&place) {
                continue;
            }
            match receiver(place) {
                Ok(socket) => {
                    self.receivers.insert(place, socket);
                    self.refused.remove(&place);
                }
                Err(error) => {
                    let at = SocketAddr::new(place.1, port(place.0));
                    let text =
                        format!("listen {at}: {error}; another BFD daemon may hold the port");
                    if self.refused.insert(place, text.clone()).is_none() {
                        warn!("BFD cannot receive, and tries again every second: {text}");
                    }
                }
            }
        }
    }

    pub(super) fn receivers(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.receivers.values().map(AsFd::as_fd)
    }

    /// Hands out what has arrived, at most `limit` packets, fairly from all sockets.
    pub(super) fn read(&self, limit: usize, mut take: impl FnMut(Received, &[u8])) {
        let share = limit / self.receivers.len().max(1);
        let mut buffer = [0; LONGEST];
        for ((hops, _), socket) in &self.receivers {
            for _ in 0..share {
                // `WouldBlock` mostly; whatever else it may be, the next turn sees it again.
                let Ok(datagram) = margay_bgp_sys::receive(socket, &mut buffer) else {
                    break;
                };
                let from = Received {
                    remote: datagram.remote.ip(),
                    interface: datagram.interface,
                    hop_limit: datagram.hop_limit.unwrap_or(0),
                    hops: *hops,
                };
                take(from, buffer.get(..datagram.length).unwrap_or(&buffer));
            }
        }
    }

    /// Sends one packet; a failure is remembered for whoever asks, and the next packet tries again.
    pub(super) fn send(&mut self, packet: &Transmit, wanted: Option<&Wanted>) {
        let path = packet.path;
        let local = wanted.and_then(|wanted| wanted.local);
        match self.try_send(packet, local) {
            Ok(()) => {
                self.unsent.remove(&path);
            }
            Err(error) => {
                self.unsent.insert(path, format!("send: {error}"));
            }
        }
    }

    fn try_send(&mut self, packet: &Transmit, local: Option<IpAddr>) -> io::Result<()> {
        let path = packet.path;
        let to: SocketAddr = match path.remote {
            IpAddr::V4(ip) => (ip, port(path.hops)).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port(path.hops), 0, path.interface).into(),
        };
        if let Some(socket) = self.senders.get(&path) {
            return socket.send_to(&packet.octets, to).map(|_| ());
        }
        let socket = self.sender(&path, local)?;
        let sent = socket.send_to(&packet.octets, to);
        self.senders.insert(path, socket);
        sent.map(|_| ())
    }

    /// A socket with a source port of its own (RFC 5881 section 4), which the session keeps.
    fn sender(&mut self, path: &Path, local: Option<IpAddr>) -> io::Result<UdpSocket> {
        let local = local.unwrap_or_else(|| unspecified(&path.remote));
        let mut tried = 0;
        loop {
            let range = u16::MAX - FIRST_SOURCE_PORT + 1;
            let port = FIRST_SOURCE_PORT + self.ports % range;
            self.ports = self.ports.wrapping_add(1);
            match open_sender(local, path.interface, port) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tried < TRIES => {
                    tried += 1;
                }
                result => return result,
            }
        }
    }

    /// What keeps a session from working on our side.
    pub(super) fn error(&self, path: &Path) -> Option<String> {
        let place = |(hops, address): &Place| {
            *hops == path.hops && address.is_ipv4() == path.remote.is_ipv4()
        };
        let refused = self.refused.iter().find(|(at, _)| place(at));
        let error = self.unsent.get(path).or(refused.map(|(_, text)| text));
        error.cloned()
    }
}

/// One socket for all addresses, unless every session of the kind has a local address of its own: then several speakers can
/// share a host.
fn places(wanted: &BTreeMap<Path, Wanted>) -> BTreeSet<Place> {
    let place = |(path, wanted): (&Path, &Wanted)| {
        let own = wanted.local.filter(|_| path.interface == 0);
        (path.hops, own.unwrap_or_else(|| unspecified(&path.remote)))
    };
    let all: BTreeSet<Place> = wanted.iter().map(place).collect();
    let everywhere = |(hops, address): &Place| all.contains(&(*hops, unspecified(address)));
    let covered = |place: &Place| !place.1.is_unspecified() && everywhere(place);
    all.iter()
        .filter(|place| !covered(place))
        .copied()
        .collect()
}

fn unspecified(like: &IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn port(hops: Hops) -> u16 {
    match hops {
        Hops::Single => SINGLE_HOP_PORT,
        Hops::Multi => MULTIHOP_PORT,
    }
}

fn socket(address: &SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM;
    let socket = Socket::new(Domain::for_address(*address), kind, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // IPv4 has sockets of its own; addresses of peers then always have their own family.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn receiver((hops, address): Place) -> io::Result<UdpSocket> {
    let at = SocketAddr::new(address, port(hops));
    let socket = socket(&at)?;
    margay_bgp_sys::tell_hop_limit_and_interface(&socket, at.is_ipv6())?;
    socket.bind(&at.into())?;
    Ok(socket.into())
}

fn open_sender(local: IpAddr, interface: u32, port: u16) -> io::Result<UdpSocket> {
    let at: SocketAddr = match local {
        IpAddr::V4(ip) => (ip, port).into(),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, interface).into(),
    };
    let socket = socket(&at)?;
    if at.is_ipv6() {
        socket.set_unicast_hops_v6(TTL.into())?;
        socket.set_tclass_v6(TRAFFIC_CLASS)?;
    } else {
        socket.set_ttl_v4(TTL.into())?;
        socket.set_tos_v4(TRAFFIC_CLASS)?;
    }
    // Nobody reads here; what strangers send fills the least buffer there is, and no more.
    socket.set_recv_buffer_size(1)?;
    socket.bind(&at.into())?;
    Ok(socket.into())
}
