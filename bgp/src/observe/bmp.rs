//! BMP version 3 (RFC 7854): what a monitoring station is told.
//!
//! The station sees the Adj-RIBs-In before policy, which for UPDATEs means the messages as they came (section 5), after it,
//! or both. Only octets are made here; what a new station has to be told first is in the order of [`initiation`], [`peer_up`] for every
//! session that is up, its routes, and then what happens.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};

use super::{DownReason, MonitoredPeer, Stage, Timestamp};
use crate::wire::{self, Context, Message};

/// The version this is (RFC 7854 section 4.1).
const VERSION: u8 = 3;
/// Octets of the common header.
const HEADER: usize = 6;

const ROUTE_MONITORING: u8 = 0;
const STATISTICS_REPORT: u8 = 1;
const PEER_DOWN: u8 = 2;
const PEER_UP: u8 = 3;
const INITIATION: u8 = 4;
const TERMINATION: u8 = 5;

/// Peer flag V: the peer's address is IPv6 (section 4.2).
const FLAG_IPV6: u8 = 0x80;
/// Peer flag L: after policy.
const FLAG_POST_POLICY: u8 = 0x40;
/// Peer flag A: AS numbers in AS_PATH have two octets.
const FLAG_TWO_OCTET_ASN: u8 = 0x20;

const TLV_STRING: u16 = 0;
const TLV_SYSTEM_DESCRIPTION: u16 = 1;
const TLV_SYSTEM_NAME: u16 = 2;
const TLV_TERMINATION_REASON: u16 = 1;

/// Counters of a statistics report (section 4.8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Routes the import policy refused (type 0).
    pub rejected: u32,
    /// UPDATEs that RFC 7606 had treated as withdrawals (type 11).
    pub treated_as_withdraw: u32,
    /// Routes held from the peer (type 7).
    pub adj_rib_in: u64,
    /// Prefixes with a best path, whoever they are from (type 8).
    pub loc_rib: u64,
}

/// The first message on a connection (section 4.3).
pub fn initiation(system_name: &str, system_description: &str, out: &mut BytesMut) {
    message(INITIATION, out, |out| {
        tlv(TLV_SYSTEM_DESCRIPTION, system_description.as_bytes(), out);
        tlv(TLV_SYSTEM_NAME, system_name.as_bytes(), out);
    });
}

/// The last message on a connection: it is closed administratively (section 4.5, reason 0).
pub fn termination(words: &str, out: &mut BytesMut) {
    message(TERMINATION, out, |out| {
        tlv(TLV_STRING, words.as_bytes(), out);
        tlv(TLV_TERMINATION_REASON, &[0, 0], out);
    });
}

/// A session is up (section 4.10). `sent` and `received` are the OPEN messages with their headers.
pub fn peer_up(
    peer: &MonitoredPeer,
    at: Timestamp,
    sent: &[u8],
    received: &[u8],
    out: &mut BytesMut,
) {
    message(PEER_UP, out, |out| {
        peer_header(peer, at, out);
        put_address(peer.local_address, out);
        out.put_u16(peer.local_port);
        out.put_u16(peer.port);
        out.put_slice(sent);
        out.put_slice(received);
    });
}

/// A session is no longer up (section 4.9).
pub fn peer_down(peer: &MonitoredPeer, at: Timestamp, reason: &DownReason, out: &mut BytesMut) {
    message(PEER_DOWN, out, |out| {
        peer_header(peer, at, out);
        match reason {
            DownReason::Sent(notification) => {
                out.put_u8(1);
                put_message(&Message::Notification(notification.clone()), out);
            }
            DownReason::Closed { event } => {
                out.put_u8(2);
                out.put_u16(*event);
            }
            DownReason::Received(notification) => {
                out.put_u8(3);
                put_message(&Message::Notification(notification.clone()), out);
            }
            DownReason::Lost => out.put_u8(4),
            DownReason::Deconfigured => out.put_u8(5),
        }
    });
}

/// Routes of a peer (section 4.6): one UPDATE with its header.
pub fn route_monitoring(
    peer: &MonitoredPeer,
    stage: Stage,
    at: Timestamp,
    update: &[u8],
    out: &mut BytesMut,
) {
    message(ROUTE_MONITORING, out, |out| {
        let flag = match stage {
            Stage::BeforePolicy => 0,
            Stage::AfterPolicy => FLAG_POST_POLICY,
        };
        put_peer(peer, flag, at, out);
        out.put_slice(update);
    });
}

/// Counters of a peer (section 4.8).
pub fn statistics(
    peer: &MonitoredPeer,
    at: Timestamp,
    statistics: &Statistics,
    out: &mut BytesMut,
) {
    message(STATISTICS_REPORT, out, |out| {
        peer_header(peer, at, out);
        out.put_u32(4);
        tlv(0, &statistics.rejected.to_be_bytes(), out);
        tlv(7, &statistics.adj_rib_in.to_be_bytes(), out);
        tlv(8, &statistics.loc_rib.to_be_bytes(), out);
        tlv(11, &statistics.treated_as_withdraw.to_be_bytes(), out);
    });
}

/// The common header (section 4.1) around what `body` writes.
fn message(kind: u8, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u8(VERSION);
    out.put_u32(0);
    out.put_u8(kind);
    body(out);
    // Two BGP messages and two headers at most: far below four gigabytes.
    let length = (out.len() - start) as u32;
    if let Some(place) = out.get_mut(start + 1..start + HEADER - 1) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// The per-peer header (section 4.2): a global instance peer, before policy.
fn peer_header(peer: &MonitoredPeer, at: Timestamp, out: &mut BytesMut) {
    put_peer(peer, 0, at, out);
}

fn put_peer(peer: &MonitoredPeer, mut flags: u8, at: Timestamp, out: &mut BytesMut) {
    if peer.address.is_ipv6() {
        flags |= FLAG_IPV6;
    }
    if !peer.four_octet_asn {
        flags |= FLAG_TWO_OCTET_ASN;
    }
    out.put_u8(0);
    out.put_u8(flags);
    out.put_u64(0);
    put_address(peer.address, out);
    out.put_u32(peer.asn.0);
    out.put_u32(peer.router_id.0);
    out.put_u32(at.seconds);
    out.put_u32(at.microseconds);
}

/// Sixteen octets; an IPv4 address is in the last four.
fn put_address(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(address) => {
            out.put_slice(&[0; 12]);
            out.put_slice(&address.octets());
        }
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}

/// Type, length and value; a value that is too long for its length field is cut.
fn tlv(kind: u16, value: &[u8], out: &mut BytesMut) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.put_u16(kind);
    // Cut to fit.
    out.put_u16(value.len() as u16);
    out.put_slice(value);
}

fn put_message(message: &Message, out: &mut BytesMut) {
    // A NOTIFICATION always fits: the encoder cuts its data.
    let _ = wire::encode(message, &Context::default(), out);
}

/// A message as octets on its own, for callers that keep it.
#[must_use]
pub fn octets_of(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    put_message(message, &mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{keepalive, peer};
    use super::*;
    use crate::wire::{Cease, Notification};

    const AT: Timestamp = Timestamp {
        seconds: 0x0102_0304,
        microseconds: 5,
    };

    fn written(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::from(&b"before"[..]);
        write(&mut out);
        out[6..].to_vec()
    }

    /// The per-peer header of `peer()` at `AT`, written out by hand.
    const PEER: [u8; 42] = [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // type, flags, distinguisher
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2, // address
        0, 0, 0xfd, 0xe9, 10, 0, 0, 2, // AS, identifier
        1, 2, 3, 4, 0, 0, 0, 5,
    ];

    #[test]
    fn initiation_names_the_system() {
        let octets = written(|out| initiation("node-1", "margay", out));
        let expected = [
            &[3, 0, 0, 0, 26, 4][..],
            &[0, 1, 0, 6],
            b"margay",
            &[0, 2, 0, 6],
            b"node-1",
        ];
        assert_eq!(octets, expected.concat());
    }

    #[test]
    fn peer_up_carries_both_opens() {
        let octets = written(|out| peer_up(&peer(), AT, b"SENT", b"RECEIVED", out));
        let expected = [
            &[3, 0, 0, 0, 80, 3][..],
            &PEER,
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1],
            &40000_u16.to_be_bytes(),
            &179_u16.to_be_bytes(),
            b"SENT",
            b"RECEIVED",
        ];
        assert_eq!(octets, expected.concat());
    }

    #[test]
    fn peer_down_gives_the_reason() {
        let cease = Notification::cease(Cease::AdministrativeShutdown);
        let pdu = octets_of(&Message::Notification(cease.clone()));
        let table = [
            (DownReason::Sent(cease.clone()), [&[1][..], &pdu].concat()),
            (DownReason::Closed { event: 2 }, vec![2, 0, 2]),
            (DownReason::Received(cease), [&[3][..], &pdu].concat()),
            (DownReason::Lost, vec![4]),
            (DownReason::Deconfigured, vec![5]),
        ];
        for (reason, end) in table {
            let octets = written(|out| peer_down(&peer(), AT, &reason, out));
            assert_eq!(octets[5], 2, "{reason:?}");
            assert_eq!(octets[6..48], PEER, "{reason:?}");
            assert_eq!(octets[48..], end, "{reason:?}");
            assert_eq!(usize::from(octets[4]), octets.len(), "{reason:?}");
        }
    }

    #[test]
    fn routes_go_as_they_came() {
        let message = keepalive();
        let mut peer = peer();
        peer.address = "2001:db8::2".parse().unwrap();
        peer.four_octet_asn = false;
        let octets = written(|out| route_monitoring(&peer, Stage::BeforePolicy, AT, &message, out));
        let after = written(|out| route_monitoring(&peer, Stage::AfterPolicy, AT, &message, out));
        assert_eq!((after[7], &after[8..]), (0xe0, &octets[8..]));
        assert_eq!(octets[..8], [3, 0, 0, 0, 67, 0, 0, 0xa0]);
        assert_eq!(octets[16..20], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(octets[48..], message);
    }

    #[test]
    fn statistics_are_counted_tlvs() {
        let counters = Statistics {
            rejected: 1,
            treated_as_withdraw: 2,
            adj_rib_in: 3,
            loc_rib: 4,
        };
        let octets = written(|out| statistics(&peer(), AT, &counters, out));
        let expected = [
            &[0, 0, 0, 4][..],
            &[0, 0, 0, 4, 0, 0, 0, 1],
            &[0, 7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 3],
            &[0, 8, 0, 8, 0, 0, 0, 0, 0, 0, 0, 4],
            &[0, 11, 0, 4, 0, 0, 0, 2],
        ];
        assert_eq!(octets[48..], expected.concat());
    }

    #[test]
    fn termination_says_why() {
        let octets = written(|out| termination("bye", out));
        assert_eq!(
            octets,
            [
                3, 0, 0, 0, 19, 5, 0, 0, 0, 3, b'b', b'y', b'e', 0, 1, 0, 2, 0, 0
            ]
        );
    }
}
