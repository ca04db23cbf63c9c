//! A peer played by hand over a blocking socket.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use margay_bgp::types::{Family, FamilySet, Prefix};
use margay_bgp::wire::{
    Context, Decoded, HEADER_LENGTH, Message, Notification, PathAttributes, SessionKind, decode,
};

use super::messages::{
    ENHANCED_REFRESH, MP_IPV4, MP_IPV6, REFRESH, as4, capabilities, message, open,
};

/// How long anything may take to arrive.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing has to arrive for there to be nothing more.
const QUIET: Duration = Duration::from_millis(30);

pub(crate) struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    context: Context,
    /// The routes the speaker has announced and not withdrawn.
    pub(crate) routes: BTreeMap<Prefix, PathAttributes>,
    pub(crate) ended: Option<Ended>,
}

/// How the speaker ended the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Notified(Notification),
    Closed,
}

impl Peer {
    /// A TCP connection from `local` to the speaker. A speaker that is not ready for this peer closes it at once, so that is
    /// tried again.
    pub(crate) fn connect(local: IpAddr, speaker: SocketAddr) -> Self {
        Self::connect_from(socket(local), speaker)
    }

    /// A connection of a peer that does not read more than it has to: its window is as small as it gets.
    pub(crate) fn connect_reading_little(local: IpAddr, speaker: SocketAddr) -> Self {
        let socket = socket(local);
        socket.set_recv_buffer_size(4096).unwrap();
        Self::connect_from(socket, speaker)
    }

    /// A connection from a socket that is bound.
    pub(crate) fn connect_from(socket: socket2::Socket, speaker: SocketAddr) -> Self {
        socket.connect(&speaker.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(QUIET)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
            context: Context {
                four_octet_asn: true,
                session: SessionKind::External,
                families: FamilySet::ALL,
                ..Context::default()
            },
            routes: BTreeMap::new(),
            ended: None,
        }
    }

    /// The OPEN of a peer that can all that these tests need.
    pub(crate) fn usual_open(asn: u16, id: [u8; 4]) -> Vec<u8> {
        let list = [
            MP_IPV4,
            MP_IPV6,
            REFRESH,
            ENHANCED_REFRESH,
            &as4(asn.into()),
        ];
        open(4, asn, 90, id, &capabilities(&list))
    }

    /// The same with a hold time of 3 s.
    pub(crate) fn short_open(asn: u16, id: [u8; 4]) -> Vec<u8> {
        let list = [MP_IPV4, MP_IPV6, REFRESH, &as4(asn.into())];
        open(4, asn, 3, id, &capabilities(&list))
    }

    /// The OPEN of a peer from before four-octet AS numbers.
    pub(crate) fn old_open(asn: u16, id: [u8; 4]) -> Vec<u8> {
        open(4, asn, 90, id, &capabilities(&[MP_IPV4, MP_IPV6, REFRESH]))
    }

    /// Sends the OPEN and a KEEPALIVE and waits for the speaker's.
    pub(crate) fn establish(&mut self, open: &[u8], four_octet_asn: bool) {
        self.context.four_octet_asn = four_octet_asn;
        self.send(open);
        self.wait_for("an OPEN", |message| matches!(message, Message::Open(_)));
        self.send(&message(4, &[]));
        self.wait_for("a KEEPALIVE", |message| {
            matches!(message, Message::Keepalive)
        });
    }

    /// As [`Self::establish`] with four-octet AS numbers; false if the speaker ends the connection instead.
    pub(crate) fn try_establish(&mut self, open: &[u8]) -> bool {
        self.send(open);
        self.send(&message(4, &[]));
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && self.ended.is_none() {
            if matches!(self.next(), Some(Message::Keepalive)) {
                return true;
            }
        }
        false
    }

    /// What the peer is to the speaker, which decides how the speaker writes attributes.
    pub(crate) fn set_internal(&mut self) {
        self.context.session = SessionKind::Internal;
    }

    /// Sends octets; that the speaker has closed the connection already is for the reading side to find out.
    pub(crate) fn send(&mut self, octets: &[u8]) {
        let _ = self.stream.write_all(octets);
    }

    fn wait_for(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && self.ended.is_none() {
            if let Some(message) = self.next()
                && wanted(&message)
            {
                return;
            }
        }
        panic!("the speaker sent no {what}: {:?}", self.ended);
    }

    /// Waits until the routes held are as wanted, or the connection has ended.
    pub(crate) fn wait_until(&mut self, wanted: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if wanted(self) {
                return true;
            }
            if self.ended.is_some() {
                return false;
            }
            self.next();
        }
        false
    }

    /// Reads until nothing more comes.
    pub(crate) fn drain(&mut self) {
        while self.next().is_some() {}
    }

    /// Reads what is there.
    pub(crate) fn drain_at_once(&mut self) {
        self.stream.set_nonblocking(true).unwrap();
        self.drain();
        self.stream.set_nonblocking(false).unwrap();
    }

    /// Reads until the speaker ends the connection.
    pub(crate) fn end(&mut self) -> Option<Ended> {
        self.wait_until(|peer| peer.ended.is_some());
        self.ended.clone()
    }

    /// The next message; `None` if none comes for a while, or ever.
    fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            let mut octets = [0; 65536];
            match self.stream.read(&mut octets) {
                Ok(0) => {
                    self.ended.get_or_insert(Ended::Closed);
                    return None;
                }
                Ok(count) => self.buffer.extend(&octets[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return None;
                }
                Err(_) => {
                    self.ended.get_or_insert(Ended::Closed);
                    return None;
                }
            }
        }
    }

    fn take(&mut self) -> Option<Message> {
        let length = self.buffer.get(16..18)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        assert!(
            length >= HEADER_LENGTH,
            "the speaker sent a length of {length}"
        );
        if self.buffer.len() < length {
            return None;
        }
        let octets: Vec<_> = self.buffer.drain(..length).collect();
        let Decoded { message, .. } = decode(&octets, &self.context).unwrap();
        match &message {
            Message::Notification(notification) => {
                self.ended = Some(Ended::Notified(notification.clone()));
            }
            Message::Update(update) => {
                for route in &update.withdrawn {
                    self.routes.remove(&route.prefix);
                }
                for reach in &update.reach {
                    for route in &reach.nlri {
                        self.routes.insert(route.prefix, update.attributes.clone());
                    }
                }
            }
            _ => {}
        }
        Some(message)
    }
}

/// A socket bound to a local address.
pub(crate) fn socket(local: IpAddr) -> socket2::Socket {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::from((local, 0)).into()).unwrap();
    socket
}

/// Both families' names, for the tests that speak of them.
pub(crate) fn prefix(text: &str) -> Prefix {
    let prefix: Prefix = text.parse().unwrap();
    assert!(matches!(
        prefix.family(),
        Family::Ipv4Unicast | Family::Ipv6Unicast
    ));
    prefix
}
