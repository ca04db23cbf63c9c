//! Packets that belong to nobody, and peers that behave oddly.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use crate::bfd::{Discards, Hops, Packet, Path, Received, Sessions, State};

use super::pair::{FAST, Pair, address, ms, path_to, random};

fn from(remote: IpAddr) -> Received {
    Received {
        remote,
        interface: 7,
        hop_limit: 255,
        hops: Hops::Single,
    }
}

/// What end 1 would send next.
fn packet_of_peer(pair: &Pair) -> Packet {
    pair.trace.iter().rfind(|(_, by, _)| *by == 1).unwrap().2
}

#[test]
fn strangers_are_counted_and_get_no_answer() {
    let mut pair = Pair::up([FAST; 2]);
    pair.run(ms(1000));
    let valid = packet_of_peer(&pair);
    let sent = pair.report(0).packets_sent;
    let now = pair.now;
    let end = &mut pair.ends[0];
    let stranger: IpAddr = Ipv4Addr::new(10, 0, 0, 99).into();
    for _ in 0..10_000 {
        end.handle_packet(now, from(stranger), &[0; 24]);
        // Somebody who speaks to us, but whom nobody configured.
        let hello = Packet {
            your_discriminator: 0,
            state: State::Down,
            poll: true,
            ..valid
        };
        end.handle_packet(now, from(stranger), &hello.encode());
        // A number that is not ours.
        let guess = Packet {
            your_discriminator: valid.your_discriminator ^ 1,
            ..valid
        };
        end.handle_packet(now, from(address(1)), &guess.encode());
        // Our number, from somebody else, who wants us down.
        let down = Packet {
            state: State::Down,
            ..valid
        };
        end.handle_packet(now, from(stranger), &down.encode());
        // From behind a router, with everything else right.
        let far = Received {
            hop_limit: 254,
            ..from(address(1))
        };
        end.handle_packet(now, far, &down.encode());
        // To the port of the other kind.
        let multi = Received {
            hops: Hops::Multi,
            ..from(address(1))
        };
        end.handle_packet(now, multi, &down.encode());
    }
    assert!(end.poll_packet(now).is_none());
    assert!(end.poll_event().is_none());
    let expected = Discards {
        malformed: 10_000,
        hop_limit: 10_000,
        unknown: 20_000,
        wrong_source: 20_000,
    };
    assert_eq!(end.discards(), expected);
    assert_eq!(pair.report(0).packets_sent, sent);
    pair.run(ms(1000));
    assert!(pair.events.is_empty());
}

#[test]
fn a_peer_that_wants_no_packets_gets_none_but_answers() {
    let mut pair = Pair::up([FAST; 2]);
    pair.run(ms(100));
    for change in [
        |p: &mut Packet| p.required_min_rx = 0,
        |p: &mut Packet| p.demand = true,
    ] {
        let mut packet = packet_of_peer(&pair);
        change(&mut packet);
        pair.cut[1] = true;
        pair.trace.clear();
        for _ in 0..20 {
            pair.deliver(0, &packet.encode());
            pair.run(ms(40));
        }
        assert_eq!(pair.states()[0], State::Up);
        assert!(
            pair.trace.iter().all(|(_, by, _)| *by == 1),
            "{:?}",
            pair.trace
        );
        packet.poll = true;
        pair.deliver(0, &packet.encode());
        let answers: Vec<_> = pair.trace.iter().filter(|(_, by, _)| *by == 0).collect();
        assert!(answers.len() == 1 && answers[0].2.is_final && !answers[0].2.poll);
        pair.cut[1] = false;
        packet.poll = false;
        pair.run(ms(3000));
        assert!(pair.run_until(ms(6000), |pair| pair.states() == [State::Up; 2]));
        pair.run(ms(2000));
    }
}

#[test]
fn link_local_peers_with_one_address_on_two_links_are_two() {
    let remote: IpAddr = "fe80::1".parse().unwrap();
    let now = std::time::Instant::now();
    let mut sessions = Sessions::new(random(5));
    let path = |interface| Path {
        remote,
        interface,
        hops: Hops::Single,
    };
    let wanted: BTreeMap<_, _> = [2, 3].map(|interface| (path(interface), FAST)).into();
    sessions.configure(now, &wanted);
    let hello = Packet {
        state: State::Down,
        my_discriminator: 77,
        your_discriminator: 0,
        ..Packet::decode(&sessions.poll_packet(now).unwrap().octets).unwrap()
    };
    let mut receive = |interface| {
        let from = Received {
            interface,
            ..from(remote)
        };
        sessions.handle_packet(now, from, &hello.encode());
        [2, 3].map(|interface| sessions.state(&path(interface)).unwrap())
    };
    assert_eq!(receive(4), [State::Down; 2]);
    assert_eq!(receive(3), [State::Down, State::Init]);
    assert_eq!(receive(2), [State::Init; 2]);
}

#[test]
fn two_thousand_sessions_have_two_thousand_numbers() {
    let now = std::time::Instant::now();
    let mut sessions = Sessions::new(random(5));
    let path = |i: u32| Path {
        remote: Ipv4Addr::from(0x0a00_0000 + i).into(),
        interface: 0,
        hops: Hops::Multi,
    };
    let wanted: BTreeMap<_, _> = (1..=2000).map(|i| (path(i), FAST)).collect();
    sessions.configure(now, &wanted);
    let mut numbers = BTreeSet::new();
    while let Some(transmit) = sessions.poll_packet(now) {
        assert!(numbers.insert(Packet::decode(&transmit.octets).unwrap().my_discriminator));
    }
    assert_eq!(numbers.len(), wanted.len());
    assert!(!numbers.contains(&0));
}

proptest! {
    /// Whatever a peer sends, and whatever the timing: no panic, never more than two packets for one, and the deadline is
    /// always in the future after the timers have fired.
    #[test]
    fn an_odd_peer_is_survived(
        packets in proptest::collection::vec(
            (any::<[u8; 8]>(), 0_u8..4, any::<bool>(), 0_u64..2_000_000), 1..200),
    ) {
        let mut now = std::time::Instant::now();
        let mut sessions = Sessions::new(random(9));
        sessions.configure(now, &[(path_to(1), FAST)].into());
        let first = sessions.poll_packet(now).unwrap();
        let number = Packet::decode(&first.octets).unwrap().my_discriminator;
        for (chance, state, known, wait) in packets {
            now += std::time::Duration::from_micros(wait);
            sessions.handle_timeout(now);
            prop_assert!(sessions.poll_packet(now).into_iter().count() <= 2);
            while sessions.poll_packet(now).is_some() {}
            let [flags, multiplier, a, b, c, d, e, f] = chance;
            let mut octets = [0x20, state << 6 | flags & 0x3a, multiplier, 24, 0, 0, 0, 1, 0, 0, 0, 0,
                0, a, b, c, 0, d, e, f, 0, 0, 0, 0];
            if known {
                octets[8..12].copy_from_slice(&number.to_be_bytes());
            }
            sessions.handle_packet(now, from(address(1)), &octets);
            let answers = std::iter::from_fn(|| sessions.poll_packet(now)).take(3).count();
            prop_assert!(answers <= 2);
            while sessions.poll_event().is_some() {}
            sessions.handle_timeout(now);
            while sessions.poll_packet(now).is_some() {}
            prop_assert!(sessions.poll_timeout().is_none_or(|at| at > now));
        }
    }
}
