//! Next hops as objects of the kernel's own (`ip nexthop`), for tables in which thousands of routes
//! share one: such a route costs the kernel half of what it costs with a gateway of its own.
//!
//! An object's number is made from what it says and the routing table it is for, so that an object
//! is found again by whoever comes after a restart, and two speakers with a table each never share
//! or remove one. Objects of other numbers or another owner are left alone.
//!
//! With the carrier of its link gone the kernel removes an object and the routes through it at once
//! (a plain route stays, marked `linkdown`); whoever listens to links puts them back.
//!
//! Not here: which routes use one ([`super::netlink`]), and groups of next hops.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::super::error::Errno;
use super::super::routes::ROUTE_PROTOCOL;

// Messages, attributes and flags of linux/rtnetlink.h and linux/nexthop.h.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const RTNH_F_ONLINK: u32 = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The length of a message's header, and of the fixed part of a next hop after it.
const HEADER: usize = 16;
const FIXED: usize = 8;

/// The upper eight bits of all our numbers, which are our routes' protocol number too.
const NUMBERS: u32 = (ROUTE_PROTOCOL as u32) << 24;
/// How many numbers are tried if another object has the first one.
const PROBES: u32 = 4;

/// What an object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Hop {
    /// The next hop's address.
    pub(super) gateway: IpAddr,
    /// The index of its interface.
    pub(super) interface: u32,
    /// Whether it is taken as on-link without a look into the table.
    pub(super) onlink: bool,
}

impl Hop {
    /// The numbers it may have, in the order they are tried.
    fn numbers(&self, table: u32) -> impl Iterator<Item = u32> + use<> {
        let mut hash = Fnv::default();
        hash.add(&table.to_be_bytes());
        match self.gateway {
            IpAddr::V4(address) => hash.add(&address.octets()),
            IpAddr::V6(address) => hash.add(&address.octets()),
        }
        hash.add(&self.interface.to_be_bytes());
        hash.add(&[u8::from(self.onlink)]);
        let first = hash.0;
        (0..PROBES).map(move |probe| NUMBERS | (first.wrapping_add(probe) & 0x00ff_ffff))
    }
}

/// FNV-1a of 32 bits: the same in every process, unlike the standard library's.
struct Fnv(u32);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

/// An object as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    number: u32,
    protocol: u8,
    /// None for a group, a blackhole, or a device without a gateway.
    hop: Option<Hop>,
}

/// The objects for one routing table.
#[derive(Debug)]
pub(super) struct NextHopObjects {
    socket: Socket,
    sequence: u32,
    table: u32,
    known: HashMap<Hop, u32>,
}

impl NextHopObjects {
    /// Opens the namespace of the calling thread; none where the kernel has no such objects
    /// (before 5.3), or lists routes through one without the gateway (`nexthop_compat_mode` 0).
    pub(super) fn open(table: u32) -> Option<Self> {
        let compatible = std::fs::read_to_string("/proc/sys/net/ipv4/nexthop_compat_mode").ok()?;
        if compatible.trim() != "1" {
            return None;
        }
        Self::connect(table).ok()
    }

    fn connect(table: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers within the system call that asks, so there is never one to wait for.
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            table,
            known: HashMap::new(),
        })
    }

    /// The object's number if there is one already as far as is known.
    pub(super) fn known(&self, hop: &Hop) -> Option<u32> {
        self.known.get(hop).copied()
    }

    /// The number of the object, made if need be; none if the kernel does not want it, and then a
    /// plain route gets to know why.
    pub(super) fn number(&mut self, hop: Hop) -> Option<u32> {
        if let Some(number) = self.known.get(&hop) {
            return Some(*number);
        }
        for number in hop.numbers(self.table) {
            match self.create(number, &hop) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(Errno::EEXIST.0) => {
                    let same = |listed: &Listed| {
                        listed.protocol == ROUTE_PROTOCOL && listed.hop == Some(hop)
                    };
                    if !self
                        .list()
                        .ok()?
                        .iter()
                        .any(|listed| listed.number == number && same(listed))
                    {
                        continue;
                    }
                }
                Err(_) => return None,
            }
            self.known.insert(hop, number);
            return Some(number);
        }
        None
    }

    /// The object is not there, or not as it should be: it is looked at again when next wanted.
    pub(super) fn forget(&mut self, hop: &Hop) {
        self.known.remove(hop);
    }

    /// Removes our objects for this table that no route uses. `used` must be all that our routes in
    /// the table use, and no route may be on its way.
    pub(super) fn remove_unused(&mut self, used: &HashSet<u32>) -> io::Result<()> {
        let all = self.list()?;
        let there: HashSet<u32> = all.iter().map(|listed| listed.number).collect();
        // Those that went with a link, or by somebody's hand.
        self.known.retain(|_, number| there.contains(number));
        for listed in all {
            let Some(hop) = listed.hop else { continue };
            let ours = listed.protocol == ROUTE_PROTOCOL
                && hop
                    .numbers(self.table)
                    .any(|number| number == listed.number);
            if ours && !used.contains(&listed.number) {
                self.known.remove(&hop);
                self.ask(RTM_DELNEXTHOP, NLM_F_ACK, &by_number(listed.number))?;
            }
        }
        Ok(())
    }

    fn create(&mut self, number: u32, hop: &Hop) -> io::Result<()> {
        let (family, octets) = match hop.gateway {
            IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
        };
        let flags = if hop.onlink { RTNH_F_ONLINK } else { 0 };
        let mut body = fixed(family, ROUTE_PROTOCOL, flags);
        attribute(&mut body, NHA_ID, &number.to_ne_bytes());
        attribute(&mut body, NHA_OIF, &hop.interface.to_ne_bytes());
        attribute(&mut body, NHA_GATEWAY, &octets);
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
        self.ask(RTM_NEWNEXTHOP, flags, &body).map(drop)
    }

    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let answers = self.ask(RTM_GETNEXTHOP, NLM_F_DUMP, &fixed(0, 0, 0))?;
        Ok(answers.iter().filter_map(|body| parse(body)).collect())
    }

    /// Sends a request; gives the bodies of the messages that answer it.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut request = length.to_ne_bytes().to_vec();
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(body);
        self.socket.send(&request, 0)?;
        let mut bodies = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if datagram.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if take(&datagram, self.sequence, &mut bodies)? {
                return Ok(bodies);
            }
        }
    }
}

/// Takes in a datagram of answers to the request of this number; tells whether it was the last.
fn take(mut datagram: &[u8], sequence: u32, bodies: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let Some(header) = datagram.get(..HEADER) {
        let length = (word(header, 0).unwrap_or(0) as usize).max(HEADER);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = datagram.get(HEADER..length).unwrap_or_default();
        if word(header, 8) == Some(sequence) {
            match kind {
                NLMSG_ERROR => {
                    let code = word(body, 0).unwrap_or(0).cast_signed();
                    return match code {
                        0 => Ok(true),
                        code => Err(io::Error::from_raw_os_error(code.saturating_abs())),
                    };
                }
                NLMSG_DONE => return Ok(true),
                _ => bodies.push(body.to_vec()),
            }
        }
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(false)
}

/// The part of a next hop's message that comes before the attributes.
fn fixed(family: u8, protocol: u8, flags: u32) -> Vec<u8> {
    let mut body = vec![family, 0, protocol, 0];
    body.extend(flags.to_ne_bytes());
    body
}

fn by_number(number: u32) -> Vec<u8> {
    let mut body = fixed(0, 0, 0);
    attribute(&mut body, NHA_ID, &number.to_ne_bytes());
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

fn parse(body: &[u8]) -> Option<Listed> {
    let protocol = *body.get(2)?;
    let onlink = word(body, 4)? & RTNH_F_ONLINK != 0;
    let mut rest = body.get(FIXED..)?;
    let (mut number, mut interface, mut gateway) = (None, None, None);
    while let Some(header) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = rest.get(4..length)?;
        match u16::from_ne_bytes([header[2], header[3]]) {
            NHA_ID => number = word(value, 0),
            NHA_OIF => interface = word(value, 0),
            NHA_GATEWAY => gateway = address(value),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let hop = gateway.zip(interface).map(|(gateway, interface)| Hop {
        gateway,
        interface,
        onlink,
    });
    Some(Listed {
        number: number?,
        protocol,
        hop,
    })
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(gateway: &str) -> Hop {
        Hop {
            gateway: gateway.parse().unwrap(),
            interface: 7,
            onlink: true,
        }
    }

    #[test]
    fn numbers_are_the_same_in_every_process_and_differ_by_table() {
        let numbers = |table| hop("10.0.0.1").numbers(table).collect::<Vec<_>>();
        assert_eq!(numbers(254), numbers(254));
        assert!(numbers(254).iter().all(|number| number >> 24 == 90));
        assert!(
            numbers(100)
                .iter()
                .all(|number| !numbers(254).contains(number))
        );
        assert_ne!(
            numbers(254)[0],
            hop("10.0.0.2").numbers(254).next().unwrap()
        );
    }

    #[test]
    fn what_the_kernel_lists_is_read() {
        let mut body = fixed(AF_INET6, 90, RTNH_F_ONLINK);
        attribute(&mut body, NHA_ID, &5_u32.to_ne_bytes());
        attribute(&mut body, NHA_OIF, &7_u32.to_ne_bytes());
        let gateway: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
        let plain = parse(&body).unwrap();
        assert_eq!((plain.number, plain.hop), (5, None), "no gateway");
        attribute(&mut body, NHA_GATEWAY, &gateway.octets());
        assert_eq!(parse(&body).unwrap().hop, Some(hop("fe80::1")));
        for length in 0..body.len() {
            // Nothing is made of what is cut off, and nothing panics.
            let _ = parse(&body[..length]);
        }
    }

    #[test]
    fn answers_to_another_request_are_passed_over() {
        let answer = |sequence: u32, kind: u16, body: &[u8]| {
            let mut bytes = u32::try_from(HEADER + body.len())
                .unwrap()
                .to_ne_bytes()
                .to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0, 0]);
            bytes.extend(sequence.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(body);
            bytes
        };
        let mut bodies = Vec::new();
        let mut datagram = answer(1, NLMSG_ERROR, &(-17_i32).to_ne_bytes());
        datagram.extend(answer(2, RTM_NEWNEXTHOP, &[1, 2, 3, 4]));
        assert!(!take(&datagram, 2, &mut bodies).unwrap());
        assert_eq!(bodies, [[1, 2, 3, 4]]);
        assert!(take(&answer(2, NLMSG_DONE, &[0; 4]), 2, &mut bodies).unwrap());
        let refused = take(&datagram, 1, &mut bodies).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(17));
    }
}
