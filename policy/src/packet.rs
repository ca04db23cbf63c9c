//! The headers of a packet, as far as people want to know them: from whom, to whom, which protocol and ports.
//!
//! Bytes come from pods: whatever they are, the answer is a summary or none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Headers {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The IP protocol; of IPv6 that of the last header in sight.
    pub protocol: u8,
    /// Source and destination port, of TCP, UDP and SCTP when the packet is long enough and no later fragment.
    pub ports: Option<(u16, u16)>,
    /// Type and code, of ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
}

impl Headers {
    /// Reads the beginning of an IP packet.
    pub fn read(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::read_v4(packet),
            6 => Self::read_v6(packet),
            _ => None,
        }
    }

    fn read_v4(packet: &[u8]) -> Option<Self> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let address = |at: usize| -> Option<IpAddr> {
            let octets: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets).into())
        };
        let length = usize::from(header[0] & 0xf) * 4;
        let is_first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
        let rest = packet.get(length..).filter(|_| is_first);
        Some(Self::of(address(12)?, address(16)?, header[9], rest))
    }

    fn read_v6(packet: &[u8]) -> Option<Self> {
        let header: &[u8; 40] = packet.first_chunk()?;
        let address = |at: usize| -> Option<IpAddr> {
            let octets: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        };
        let (mut next, mut rest) = (header[6], packet.get(40..));
        // Each turn consumes at least eight bytes.
        while let (0 | 43 | 44 | 60, Some(extension)) = (next, rest) {
            let &[following, length, high, low, ..] = extension else {
                rest = None;
                break;
            };
            let skipped = if next == 44 {
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    next = following;
                    rest = None;
                    break;
                }
                8
            } else {
                8 * (usize::from(length) + 1)
            };
            (next, rest) = (following, extension.get(skipped..));
        }
        Some(Self::of(address(8)?, address(24)?, next, rest))
    }

    fn of(source: IpAddr, destination: IpAddr, protocol: u8, rest: Option<&[u8]>) -> Self {
        let start: Option<&[u8; 4]> = rest.and_then(<[u8]>::first_chunk);
        let ports = start
            .filter(|_| matches!(protocol, 6 | 17 | 132))
            .map(|&[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
        let icmp = start
            .filter(|_| matches!(protocol, 1 | 58))
            .map(|&[type_, code, ..]| (type_, code));
        Self {
            source,
            destination,
            protocol,
            ports,
            icmp,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(protocol: u8, offset: u16, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x46, 0, 0, 0, 0, 0];
        packet.extend(offset.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend([1, 1, 1, 1]); // options
        packet.extend(rest);
        packet
    }

    #[test]
    fn addresses_and_ports_are_found() {
        let found = Headers::read(&v4(6, 0x4000, &[0x1f, 0x90, 0, 80])).unwrap();
        assert_eq!(found.source.to_string(), "10.0.0.1");
        assert_eq!(found.destination.to_string(), "10.0.0.2");
        assert_eq!((found.protocol, found.ports), (6, Some((8080, 80))));
        let later = Headers::read(&v4(17, 5, &[0, 1, 0, 2])).unwrap();
        assert_eq!(later.ports, None, "a later fragment has no ports");
        let echo = Headers::read(&v4(1, 0, &[8, 0, 0, 0])).unwrap();
        assert_eq!(echo.icmp, Some((8, 0)));

        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
        packet.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([44, 0, 0, 0, 0, 0, 0, 0]); // hop by hop
        packet.extend([17, 0, 0, 1, 0, 0, 0, 9]); // the first fragment
        packet.extend([0, 53, 0, 54]);
        let found = Headers::read(&packet).unwrap();
        assert_eq!((found.protocol, found.ports), (17, Some((53, 54))));
        assert_eq!(found.destination.to_string(), "fd00::2");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..16) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 0xf;
            }
            let _ = Headers::read(&bytes);
        }
    }
}
