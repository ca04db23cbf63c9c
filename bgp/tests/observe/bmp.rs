//! A strict reader of BMP (RFC 7854), written from the RFC and with nothing of the crate: what is not as the RFC has it panics.

use std::net::IpAddr;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Initiation {
        name: String,
        description: String,
    },
    Termination {
        reason: u16,
    },
    PeerUp {
        peer: Peer,
        local: IpAddr,
        ports: (u16, u16),
        opens: [Vec<u8>; 2],
    },
    PeerDown {
        peer: Peer,
        reason: u8,
        data: Vec<u8>,
    },
    Route {
        peer: Peer,
        update: Update,
    },
    Statistics {
        peer: Peer,
        counters: Vec<(u16, u64)>,
    },
}

/// The per-peer header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    pub(crate) after_policy: bool,
    pub(crate) asn: u32,
    pub(crate) router_id: [u8; 4],
}

/// The prefixes of an UPDATE, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) announced: Vec<String>,
    pub(crate) withdrawn: Vec<String>,
    pub(crate) attributes: Vec<u8>,
}

struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, octets: usize) -> u64 {
        self.take(octets)
            .iter()
            .fold(0, |sum, octet| sum << 8 | u64::from(*octet))
    }

    fn u16(&mut self) -> u16 {
        u16::try_from(self.number(2)).unwrap()
    }

    fn address(&mut self, ipv6: bool) -> IpAddr {
        let octets: [u8; 16] = self.take(16).try_into().unwrap();
        if ipv6 {
            return octets.into();
        }
        assert_eq!(
            octets[..12],
            [0; 12],
            "an IPv4 address is padded with zeros"
        );
        <[u8; 4]>::try_from(&octets[12..]).unwrap().into()
    }

    fn tlvs(&mut self) -> Vec<(u16, &'a [u8])> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            let kind = self.u16();
            let length = usize::from(self.u16());
            all.push((kind, self.take(length)));
        }
        all
    }

    /// One BGP message with its header.
    fn bgp(&mut self, kind: u8) -> &'a [u8] {
        let length = u16::from_be_bytes([self.0[16], self.0[17]]);
        let message = self.take(usize::from(length));
        assert_eq!(message[..16], [0xff; 16]);
        assert_eq!(message[18], kind);
        message
    }
}

/// How long the message is that begins here.
pub(crate) fn length(header: [u8; 6]) -> usize {
    assert_eq!(header[0], 3, "version");
    u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize
}

/// Reads one whole message.
pub(crate) fn read(message: &[u8]) -> Message {
    let mut rest = Octets(message);
    let header: [u8; 6] = rest.take(6).try_into().unwrap();
    assert_eq!(length(header), message.len());
    let found = match header[5] {
        0 => Message::Route {
            peer: peer(&mut rest),
            update: update(rest.bgp(2)),
        },
        1 => statistics(&mut rest),
        2 => down(&mut rest),
        3 => up(&mut rest),
        4 => initiation(&mut rest),
        5 => termination(&mut rest),
        other => panic!("message type {other}"),
    };
    assert!(rest.0.is_empty(), "octets after the message: {:?}", rest.0);
    found
}

fn peer(rest: &mut Octets<'_>) -> Peer {
    assert_eq!(rest.number(1), 0, "a global instance peer");
    let flags = rest.number(1);
    assert_eq!(flags & 0x1f, 0, "flags that are not defined");
    assert_eq!(flags & 0x20, 0, "AS numbers have four octets here");
    assert_eq!(rest.number(8), 0, "no distinguisher");
    let address = rest.address(flags & 0x80 != 0);
    let asn = u32::try_from(rest.number(4)).unwrap();
    let router_id = rest.take(4).try_into().unwrap();
    assert!(rest.number(4) > 1_700_000_000, "it is later than 2023");
    assert!(rest.number(4) < 1_000_000, "microseconds");
    Peer {
        address,
        after_policy: flags & 0x40 != 0,
        asn,
        router_id,
    }
}

fn initiation(rest: &mut Octets<'_>) -> Message {
    let tlvs = rest.tlvs();
    let text = |wanted| {
        let (_, text) = tlvs.iter().find(|(kind, _)| *kind == wanted).unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    };
    Message::Initiation {
        description: text(1),
        name: text(2),
    }
}

fn termination(rest: &mut Octets<'_>) -> Message {
    let tlvs = rest.tlvs();
    let (_, reason) = tlvs.iter().find(|(kind, _)| *kind == 1).unwrap();
    Message::Termination {
        reason: u16::from_be_bytes((*reason).try_into().unwrap()),
    }
}

fn up(rest: &mut Octets<'_>) -> Message {
    let peer = peer(rest);
    assert!(!peer.after_policy);
    let local = rest.address(peer.address.is_ipv6());
    let ports = (rest.u16(), rest.u16());
    let opens = [rest.bgp(1).to_vec(), rest.bgp(1).to_vec()];
    Message::PeerUp {
        peer,
        local,
        ports,
        opens,
    }
}

fn down(rest: &mut Octets<'_>) -> Message {
    let peer = peer(rest);
    let reason = rest.take(1)[0];
    let data = match reason {
        1 | 3 => rest.bgp(3).to_vec(),
        2 => rest.take(2).to_vec(),
        4 | 5 => Vec::new(),
        other => panic!("reason {other}"),
    };
    Message::PeerDown { peer, reason, data }
}

fn statistics(rest: &mut Octets<'_>) -> Message {
    let peer = peer(rest);
    let count = rest.number(4);
    let counters: Vec<_> = rest
        .tlvs()
        .into_iter()
        .map(|(kind, value)| {
            // Counters have four octets, gauges eight (section 4.8).
            let expected = if matches!(kind, 7 | 8) { 8 } else { 4 };
            assert_eq!(value.len(), expected, "type {kind}");
            (kind, Octets(value).number(expected))
        })
        .collect();
    assert_eq!(counters.len() as u64, count);
    Message::Statistics { peer, counters }
}

/// An UPDATE without path identifiers.
fn update(message: &[u8]) -> Update {
    let mut rest = Octets(&message[19..]);
    let length = usize::from(rest.u16());
    let mut withdrawn = prefixes(rest.take(length), false);
    let length = usize::from(rest.u16());
    let attributes = rest.take(length);
    let mut announced = prefixes(rest.0, false);
    let mut all = Octets(attributes);
    while !all.0.is_empty() {
        let flags = all.take(1)[0];
        let code = all.take(1)[0];
        let length = all.number(if flags & 0x10 != 0 { 2 } else { 1 });
        let mut value = Octets(all.take(usize::try_from(length).unwrap()));
        if !matches!(code, 14 | 15) {
            continue;
        }
        let ipv6 = match value.u16() {
            1 => false,
            2 => true,
            other => panic!("AFI {other}"),
        };
        assert_eq!(value.number(1), 1, "SAFI");
        if code == 15 {
            withdrawn.extend(prefixes(value.0, ipv6));
            continue;
        }
        let next_hop = usize::try_from(value.number(1)).unwrap();
        assert!(matches!(next_hop, 4 | 16 | 32));
        value.take(next_hop + 1);
        announced.extend(prefixes(value.0, ipv6));
    }
    Update {
        announced,
        withdrawn,
        attributes: attributes.to_vec(),
    }
}

fn prefixes(octets: &[u8], ipv6: bool) -> Vec<String> {
    let mut rest = Octets(octets);
    let mut found = Vec::new();
    while !rest.0.is_empty() {
        let length = rest.take(1)[0];
        let octets = rest.take(usize::from(length.div_ceil(8)));
        let mut address = [0; 16];
        address[..octets.len()].copy_from_slice(octets);
        let address = match ipv6 {
            true => IpAddr::from(address),
            false => IpAddr::from([address[0], address[1], address[2], address[3]]),
        };
        found.push(format!("{address}/{length}"));
    }
    found
}
