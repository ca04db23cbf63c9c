//! MRT (RFC 6396): dumps of the RIB and of messages, as the tools of the trade read them.
//!
//! TABLE_DUMP_V2 with the extension for path identifiers (RFC 8050), and BGP4MP_ET for messages and state changes. Only
//! octets are made here; a dump is [`peer_index_table`] followed by one [`rib_entries`] for each prefix.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

use super::{MonitoredPeer, Timestamp};
use crate::fsm::State;
use crate::types::{Asn, Family, Prefix, RouterId};

const TABLE_DUMP_V2: u16 = 13;
const BGP4MP: u16 = 16;
const BGP4MP_ET: u16 = 17;

const PEER_INDEX_TABLE: u16 = 1;
const RIB_IPV4_UNICAST: u16 = 2;
const RIB_IPV6_UNICAST: u16 = 4;
/// RFC 8050 section 4.
const RIB_IPV4_UNICAST_ADD_PATH: u16 = 8;
const RIB_IPV6_UNICAST_ADD_PATH: u16 = 10;

const MESSAGE: u16 = 1;
const MESSAGE_AS4: u16 = 4;
const STATE_CHANGE_AS4: u16 = 5;
const MESSAGE_AS4_LOCAL: u16 = 7;
const MESSAGE_LOCAL: u16 = 6;
/// RFC 8050 section 4.2.
const MESSAGE_ADD_PATH: u16 = 8;
const MESSAGE_AS4_ADD_PATH: u16 = 9;
const MESSAGE_LOCAL_ADD_PATH: u16 = 10;
const MESSAGE_AS4_LOCAL_ADD_PATH: u16 = 11;

/// Peer type bits of the index table (section 4.3.1).
const PEER_IPV6: u8 = 1;
const PEER_AS4: u8 = 2;

/// One peer of the index table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedPeer {
    /// Its BGP Identifier.
    pub router_id: RouterId,
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
}

/// One path of a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RibPath {
    /// The peer's place in the index table.
    pub peer: u16,
    /// When the route came, or when the dump was made where that is not kept.
    pub originated: u32,
    /// The path identifier, if the peer sends them.
    pub path_id: Option<u32>,
    /// The attributes with four-octet AS numbers; MP_REACH_NLRI as the next hop only (section 4.3.4).
    pub attributes: Vec<u8>,
}

/// How exactly a record tells the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Type BGP4MP, which every reader knows.
    Seconds,
    /// Type BGP4MP_ET (section 3).
    Microseconds,
}

impl Resolution {
    const fn kind(self) -> u16 {
        match self {
            Self::Seconds => BGP4MP,
            Self::Microseconds => BGP4MP_ET,
        }
    }
}

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the peer.
    Received,
    /// From us (the LOCAL subtypes, section 4.4.3).
    Sent,
}

/// The peers that the entries of a dump refer to. More than 65,535 are cut.
pub fn peer_index_table(
    at: Timestamp,
    collector: RouterId,
    peers: &[IndexedPeer],
    out: &mut BytesMut,
) {
    let peers = peers.get(..usize::from(u16::MAX)).unwrap_or(peers);
    record(at, TABLE_DUMP_V2, PEER_INDEX_TABLE, out, |out| {
        out.put_u32(collector.0);
        // No view name.
        out.put_u16(0);
        // Cut to fit.
        out.put_u16(peers.len() as u16);
        for peer in peers {
            let ipv6 = if peer.address.is_ipv6() { PEER_IPV6 } else { 0 };
            out.put_u8(PEER_AS4 | ipv6);
            out.put_u32(peer.router_id.0);
            put_address(peer.address, out);
            out.put_u32(peer.asn.0);
        }
    });
}

/// The paths of one prefix. `sequence` counts the prefixes of a dump. Paths with and without identifiers go into separate
/// records, as RFC 8050 demands; without paths nothing is written.
pub fn rib_entries(
    at: Timestamp,
    sequence: u32,
    prefix: &Prefix,
    paths: &[RibPath],
    out: &mut BytesMut,
) {
    for add_path in [false, true] {
        let paths: Vec<_> = paths
            .iter()
            .filter(|path| path.path_id.is_some() == add_path)
            .take(usize::from(u16::MAX))
            .collect();
        if paths.is_empty() {
            continue;
        }
        let subtype = match (prefix.family(), add_path) {
            (Family::Ipv4Unicast, false) => RIB_IPV4_UNICAST,
            (Family::Ipv6Unicast, false) => RIB_IPV6_UNICAST,
            (Family::Ipv4Unicast, true) => RIB_IPV4_UNICAST_ADD_PATH,
            (Family::Ipv6Unicast, true) => RIB_IPV6_UNICAST_ADD_PATH,
        };
        record(at, TABLE_DUMP_V2, subtype, out, |out| {
            out.put_u32(sequence);
            put_prefix(prefix, out);
            // Cut to fit above.
            out.put_u16(paths.len() as u16);
            for path in paths {
                put_path(path, out);
            }
        });
    }
}

fn put_path(path: &RibPath, out: &mut BytesMut) {
    // Attributes come from messages of 65,535 octets at most; longer ones would be no attributes.
    let Ok(length) = u16::try_from(path.attributes.len()) else {
        return;
    };
    out.put_u16(path.peer);
    out.put_u32(path.originated);
    if let Some(id) = path.path_id {
        out.put_u32(id);
    }
    out.put_u16(length);
    out.put_slice(&path.attributes);
}

fn put_prefix(prefix: &Prefix, out: &mut BytesMut) {
    let octets = usize::from(prefix.length().div_ceil(8));
    out.put_u8(prefix.length());
    match prefix.address() {
        IpAddr::V4(address) => out.put_slice(address.octets().get(..octets).unwrap_or_default()),
        IpAddr::V6(address) => out.put_slice(address.octets().get(..octets).unwrap_or_default()),
    }
}

/// One message of a session, with its header.
pub fn bgp_message(
    (at, resolution): (Timestamp, Resolution),
    peer: &MonitoredPeer,
    direction: Direction,
    message: &[u8],
    out: &mut BytesMut,
) {
    let sent = direction == Direction::Sent;
    let subtype = match (peer.four_octet_asn, sent, peer.add_path) {
        (true, false, false) => MESSAGE_AS4,
        (true, true, false) => MESSAGE_AS4_LOCAL,
        (true, false, true) => MESSAGE_AS4_ADD_PATH,
        (true, true, true) => MESSAGE_AS4_LOCAL_ADD_PATH,
        (false, false, false) => MESSAGE,
        (false, true, false) => MESSAGE_LOCAL,
        (false, false, true) => MESSAGE_ADD_PATH,
        (false, true, true) => MESSAGE_LOCAL_ADD_PATH,
    };
    record(at, resolution.kind(), subtype, out, |out| {
        put_session(peer, peer.four_octet_asn, out);
        out.put_slice(message);
    });
}

/// A session went from one state to another (section 4.4.1).
pub fn state_change(
    (at, resolution): (Timestamp, Resolution),
    peer: &MonitoredPeer,
    old: State,
    new: State,
    out: &mut BytesMut,
) {
    record(at, resolution.kind(), STATE_CHANGE_AS4, out, |out| {
        put_session(peer, true, out);
        out.put_u16(number(old));
        out.put_u16(number(new));
    });
}

fn put_session(peer: &MonitoredPeer, four_octet_asn: bool, out: &mut BytesMut) {
    for asn in [peer.asn, peer.local_asn] {
        if four_octet_asn {
            out.put_u32(asn.0);
        } else {
            out.put_u16(asn.to_two_octets());
        }
    }
    // The interface is not known here.
    out.put_u16(0);
    let family = Family::of(&peer.address);
    out.put_u16(family.afi());
    put_address(peer.address, out);
    // Both must be of one family, also while there is no local address.
    let local = match (peer.address, peer.local_address) {
        (IpAddr::V4(_), local @ IpAddr::V4(_)) | (IpAddr::V6(_), local @ IpAddr::V6(_)) => local,
        (IpAddr::V4(_), _) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        (IpAddr::V6(_), _) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    put_address(local, out);
}

/// The states' numbers in section 4.4.1.
const fn number(state: State) -> u16 {
    match state {
        State::Idle => 1,
        State::Connect => 2,
        State::Active => 3,
        State::OpenSent => 4,
        State::OpenConfirm => 5,
        State::Established => 6,
    }
}

fn put_address(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(address) => out.put_slice(&address.octets()),
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}

/// The common header (section 2), for the extended type with microseconds (section 3), around what `body` writes.
fn record(
    at: Timestamp,
    kind: u16,
    subtype: u16,
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut),
) {
    out.put_u32(at.seconds);
    out.put_u16(kind);
    out.put_u16(subtype);
    let position = out.len();
    out.put_u32(0);
    if kind == BGP4MP_ET {
        out.put_u32(at.microseconds);
    }
    body(out);
    // A message, or the paths of one prefix: far below four gigabytes.
    let length = (out.len() - position - 4) as u32;
    if let Some(place) = out.get_mut(position..position + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{keepalive, peer};
    use super::*;

    const AT: Timestamp = Timestamp {
        seconds: 7,
        microseconds: 9,
    };

    #[test]
    fn an_index_and_the_paths_of_a_prefix() {
        let mut out = BytesMut::new();
        let peers = [IndexedPeer {
            router_id: RouterId(0x0a00_0002),
            address: "10.0.0.2".parse().unwrap(),
            asn: Asn(65001),
        }];
        peer_index_table(AT, RouterId(0x0a00_0001), &peers, &mut out);
        let expected = [
            &[0, 0, 0, 7, 0, 13, 0, 1, 0, 0, 0, 21][..],
            &[10, 0, 0, 1, 0, 0, 0, 1],
            &[2, 10, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0xfd, 0xe9],
        ];
        assert_eq!(out[..], expected.concat());

        out.clear();
        let path = RibPath {
            peer: 0,
            originated: 7,
            path_id: None,
            attributes: vec![0x40, 1, 1, 0],
        };
        let prefix = "192.0.2.0/23".parse().unwrap();
        rib_entries(AT, 3, &prefix, &[path], &mut out);
        let expected = [
            &[0, 0, 0, 7, 0, 13, 0, 2, 0, 0, 0, 22][..],
            &[0, 0, 0, 3, 23, 192, 0, 2, 0, 1],
            &[0, 0, 0, 0, 0, 7, 0, 4, 0x40, 1, 1, 0],
        ];
        assert_eq!(out[..], expected.concat());
    }

    #[test]
    fn paths_with_identifiers_have_a_record_of_their_own() {
        let mut out = BytesMut::new();
        let path = |path_id| RibPath {
            peer: 1,
            originated: 0,
            path_id,
            attributes: Vec::new(),
        };
        let prefix = "2001:db8::/32".parse().unwrap();
        let paths = [path(Some(5)), path(None), path(Some(6))];
        rib_entries(AT, 0, &prefix, &paths, &mut out);
        // Header and sequence, prefix and count, one path without identifier.
        let first = 12 + 4 + 5 + 2 + 8;
        assert_eq!(out[6..8], [0, 4]);
        assert_eq!(out[first + 6..first + 8], [0, 10]);
        assert_eq!(out.len(), first + 12 + 4 + 5 + 2 + 2 * 12);
        out.clear();
        rib_entries(AT, 0, &prefix, &[], &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn messages_say_which_way_and_how_wide_as_numbers_are() {
        let message = keepalive();
        let mut old = peer();
        old.four_octet_asn = false;
        let mut out = BytesMut::new();
        bgp_message(
            (AT, Resolution::Microseconds),
            &peer(),
            Direction::Received,
            &message,
            &mut out,
        );
        let expected = [
            &[0, 0, 0, 7, 0, 17, 0, 4, 0, 0, 0, 43, 0, 0, 0, 9][..],
            &[0, 0, 0xfd, 0xe9, 0, 0, 0xfd, 0xe8, 0, 0, 0, 1],
            &[10, 0, 0, 2, 10, 0, 0, 1],
            &message,
        ];
        assert_eq!(out[..], expected.concat());
        out.clear();
        let whole = (AT, Resolution::Seconds);
        bgp_message(whole, &peer(), Direction::Received, &message, &mut out);
        assert_eq!(out[..12], [0, 0, 0, 7, 0, 16, 0, 4, 0, 0, 0, 39]);
        assert_eq!(out[12..], expected.concat()[16..]);
        for (peer, direction, subtype, length) in [
            (&old, Direction::Received, 1, 39),
            (&old, Direction::Sent, 6, 39),
            (&peer(), Direction::Sent, 7, 43),
        ] {
            out.clear();
            bgp_message(
                (AT, Resolution::Microseconds),
                peer,
                direction,
                &message,
                &mut out,
            );
            assert_eq!((out[7], out[11]), (subtype, length));
        }
    }

    #[test]
    fn a_state_change_without_a_connection_keeps_one_family() {
        let mut peer = peer();
        peer.address = "2001:db8::2".parse().unwrap();
        let mut out = BytesMut::new();
        state_change(
            (AT, Resolution::Microseconds),
            &peer,
            State::Established,
            State::Idle,
            &mut out,
        );
        assert_eq!(out[6..8], [0, 5]);
        assert_eq!(out.len(), 12 + 4 + 8 + 4 + 32 + 4);
        assert_eq!(out[out.len() - 4..], [0, 6, 0, 1]);
    }
}
