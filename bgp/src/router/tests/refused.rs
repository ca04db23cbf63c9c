//! Why an OPEN was refused, by us or by the peer, is told to people in words.

use std::time::{Duration, Instant};

use super::super::pair::{address, peer, speaker};
use super::super::{PeerSummary, Router};
use crate::config::{PeerConfig, PeerRole};
use crate::fsm::State;

/// A message with a length that is right.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    [&[0xff; 16][..], &length, &[kind], body].concat()
}

/// An OPEN with two octets for the AS number, the last octet of an identifier, and optional parameters.
fn open(version: u8, asn: u16, hold: u16, id: u8, parameters: &[u8]) -> Vec<u8> {
    let [asn, hold] = [asn, hold].map(u16::to_be_bytes);
    let length = u8::try_from(parameters.len()).unwrap();
    let mut body = vec![version];
    body.extend([asn, hold].concat());
    body.extend([0, 0, 0, id, length]);
    body.extend(parameters);
    message(1, &body)
}

/// What is seen of a peer that connects and sends this.
fn after(change: fn(&mut PeerConfig), octets: &[u8]) -> PeerSummary {
    let now = Instant::now();
    let mut config = speaker(0, 64512);
    let mut entry = PeerConfig {
        passive: true,
        ..peer(1, 64513)
    };
    change(&mut entry);
    config.peers.insert(address(1), entry);
    let mut router = Router::new(now, config, 1).unwrap();
    let remote = (address(1), 40_000).into();
    let connection = router.handle_incoming(now, remote, (address(0), 179).into());
    router.handle_octets(now, connection.unwrap(), octets);
    router.summary().remove(0)
}

fn same(_: &mut PeerConfig) {}

#[test]
fn what_we_refuse_is_told_with_what_the_peer_said() {
    const IPV6: [u8; 8] = [2, 6, 1, 4, 0, 2, 0, 1];
    const CUSTOMER: [u8; 5] = [2, 3, 9, 1, 3];
    type Row = (fn(&mut PeerConfig), Vec<u8>, &'static str);
    let table: [Row; 12] = [
        (
            same,
            open(4, 65001, 90, 2, &[]),
            "peer announced AS 65001, 64513 is configured; sent bad peer AS (2/2)",
        ),
        (
            same,
            open(4, 0, 90, 2, &[]),
            "peer announced AS 0, which is nobody's; sent bad peer AS (2/2)",
        ),
        (
            same,
            open(4, 64513, 2, 2, &[]),
            "peer announced a hold time of 1 or 2 s, 3 s is the least; sent unacceptable hold time (2/6)",
        ),
        (
            same,
            open(4, 64513, 90, 0, &[]),
            "peer announced router id 0.0.0.0, which nobody may have; sent bad BGP identifier (2/3)",
        ),
        (
            |peer| peer.asn = crate::types::Asn(64512).into(),
            open(4, 64512, 90, 1, &[]),
            "peer announced router id 0.0.0.1, which is ours; sent bad BGP identifier (2/3)",
        ),
        (
            same,
            open(3, 64513, 90, 2, &[]),
            "the peer speaks another version of BGP than 4; sent unsupported version number (2/1): version 4 is the highest it speaks",
        ),
        (
            same,
            open(4, 64513, 90, 2, &[1, 1, 0]),
            "the peer's OPEN has a parameter that is not capabilities; sent unsupported optional parameter (2/4)",
        ),
        (
            same,
            open(4, 64513, 90, 2, &[2, 9, 1]),
            "the peer's OPEN cannot be read; sent OPEN message error (2/0)",
        ),
        (
            same,
            open(4, 64513, 90, 2, &IPV6),
            "no address family in common: peer announced [ipv6-unicast], [ipv4-unicast] is configured; sent unsupported capability (2/7): wanted: ipv4-unicast",
        ),
        (
            |peer| peer.role = Some(PeerRole::Customer),
            open(4, 64513, 90, 2, &CUSTOMER),
            "peer announced role Customer, which does not fit our role Customer; sent role mismatch (2/11)",
        ),
        (
            |peer| (peer.role, peer.role_strict) = (Some(PeerRole::Peer), true),
            open(4, 64513, 90, 2, &[]),
            "peer announced no role, and role Peer is strict; sent role mismatch (2/11)",
        ),
        (
            same,
            message(4, &[]),
            "sent unexpected message in OpenSent (5/1): KEEPALIVE",
        ),
    ];
    for (change, octets, expected) in table {
        let line = after(change, &octets);
        assert_eq!(line.last_error.as_deref(), Some(expected));
        assert_eq!(line.state, State::Idle, "{expected}");
        // And how long it is left alone for it.
        let held = line
            .held_until
            .unwrap()
            .saturating_duration_since(line.since);
        assert!(
            held > Duration::from_millis(700) && held < Duration::from_secs(2),
            "{held:?}"
        );
    }
}

#[test]
fn what_the_peer_refuses_is_told_with_what_we_said() {
    type Row = (fn(&mut PeerConfig), &'static [u8], &'static str);
    let table: [Row; 12] = [
        (
            same,
            &[2, 1, 0, 3],
            "received unsupported version number (2/1): version 3 is the highest it speaks",
        ),
        (
            same,
            &[2, 2],
            "the peer expects another AS than 64512; received bad peer AS (2/2)",
        ),
        (
            same,
            &[2, 3],
            "the peer does not take router id 0.0.0.1, which may be its own; received bad BGP identifier (2/3)",
        ),
        (
            same,
            &[2, 4],
            "received unsupported optional parameter (2/4)",
        ),
        (
            same,
            &[2, 5],
            "the peer asks for authentication in the OPEN, which no RFC has any more; received authentication failure (2/5)",
        ),
        (
            same,
            &[2, 6],
            "the peer does not take a hold time of 90 s; received unacceptable hold time (2/6)",
        ),
        (
            same,
            &[2, 7, 65, 4, 0, 0, 0, 0],
            "received unsupported capability (2/7): wanted: four-octet AS numbers",
        ),
        (
            same,
            &[2, 11],
            "the peer insists on a role (RFC 9234), and none is configured; received role mismatch (2/11)",
        ),
        (
            |peer| peer.role = Some(PeerRole::Provider),
            &[2, 11],
            "role Provider does not fit the role that the peer has; received role mismatch (2/11)",
        ),
        (
            same,
            &[6, 3],
            "the peer does not have this speaker in its configuration any more; received peer deconfigured (6/3)",
        ),
        (
            same,
            &[6, 5],
            "the peer does not want connections from this speaker; received connection rejected (6/5)",
        ),
        (
            same,
            &[6, 1, 0, 1, 1, 0, 0, 0, 10],
            "received maximum number of prefixes reached (6/1): at most 10 prefixes of ipv4-unicast",
        ),
    ];
    for (change, body, expected) in table {
        let line = after(change, &message(3, body));
        assert_eq!(line.last_error.as_deref(), Some(expected));
        assert_eq!(line.held_until.is_some(), body[0] != 6, "{expected}");
    }
}

#[test]
fn a_peer_whose_key_cannot_be_set_is_refused_and_the_reason_is_seen() {
    let now = Instant::now();
    let mut config = speaker(0, 64512);
    config.peers.insert(
        address(1),
        PeerConfig {
            passive: true,
            ..peer(1, 64513)
        },
    );
    let mut template = peer(9, 64513);
    template.passive = true;
    let range = crate::config::PeerRange {
        limit: 5,
        peer: template,
    };
    let network: crate::types::Prefix = "10.0.0.0/24".parse().unwrap();
    config.ranges.insert(network, range);
    let mut router = Router::new(now, config, 1).unwrap();
    let why = "password: cannot set the TCP-MD5 key: Cannot allocate memory";
    let host = crate::types::Prefix::host(address(1));
    router.bar([(host, why.to_owned())].into());
    let connects = |router: &mut Router, index| {
        let remote = (address(index), 40_000).into();
        router
            .handle_incoming(now, remote, (address(0), 179).into())
            .is_some()
    };
    assert!(!connects(&mut router, 1));
    assert_eq!(router.summary()[0].last_error.as_deref(), Some(why));
    // Others are not concerned; and what concerns a range is not for who is listed by address.
    assert!(connects(&mut router, 2));
    router.bar([(network, why.to_owned())].into());
    assert!(connects(&mut router, 1));
    assert!(!connects(&mut router, 3));
    router.bar([].into());
    assert!(connects(&mut router, 3));
}
