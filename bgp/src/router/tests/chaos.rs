//! Whatever happens in whatever order, it comes right in the end; and whatever a peer sends, nothing breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::super::pair::{Lab, address, peer, prefix, speaker};
use super::super::{ConnectionId, Output, RouteBatch, Router};
use crate::config::GracefulRestart;
use crate::policy::{Filter, Verdict};
use crate::types::Prefix;
use crate::wire::{self, Context, Message};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
enum Step {
    Announce {
        router: usize,
        route: usize,
    },
    Withdraw {
        router: usize,
        route: usize,
    },
    Kill {
        router: usize,
    },
    Slow {
        router: usize,
    },
    Hurry {
        router: usize,
    },
    Cost {
        router: usize,
        next_hop: usize,
        cost: Option<u32>,
    },
    Refuse {
        router: usize,
        from: usize,
        refuse: bool,
    },
    Wait {
        milliseconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let router = 0..4_usize;
    let route = 0..6_usize;
    prop_oneof![
        4 => (router.clone(), route.clone()).prop_map(|(router, route)| Step::Announce { router, route }),
        3 => (router.clone(), route).prop_map(|(router, route)| Step::Withdraw { router, route }),
        1 => router.clone().prop_map(|router| Step::Kill { router }),
        1 => router.clone().prop_map(|router| Step::Slow { router }),
        1 => router.clone().prop_map(|router| Step::Hurry { router }),
        1 => (router.clone(), 0..4_usize, proptest::option::of(0..3_u32)).prop_map(
            |(router, next_hop, cost)| Step::Cost { router, next_hop, cost }),
        1 => (router, 0..4_usize, any::<bool>()).prop_map(
            |(router, from, refuse)| Step::Refuse { router, from, refuse }),
        4 => (0..3000_u64).prop_map(|milliseconds| Step::Wait { milliseconds }),
    ]
}

fn route(index: usize) -> Prefix {
    prefix(&format!("10.{index}.0.0/16"))
}

fn apply(lab: &mut Lab, step: Step) {
    match step {
        Step::Announce {
            router,
            route: index,
        } => lab.reconfigure(router, |c| {
            c.announcements.insert(route(index), Default::default());
        }),
        Step::Withdraw {
            router,
            route: index,
        } => lab.reconfigure(router, |c| {
            c.announcements.remove(&route(index));
        }),
        Step::Kill { router } => lab.kill_connections(router),
        Step::Slow { router } => drop(lab.slow.insert(router)),
        Step::Hurry { router } => lab.hurry(router),
        Step::Cost {
            router,
            next_hop,
            cost,
        } => lab.routers[router].set_next_hop_cost(address(next_hop), cost),
        Step::Refuse {
            router,
            from,
            refuse,
        } => lab.reconfigure(router, |c| {
            let nothing = || Filter::new(Vec::new(), Verdict::Reject);
            if let Some(peer) = c.peers.get_mut(&address(from)) {
                peer.import = refuse.then(nothing);
            }
        }),
        Step::Wait { milliseconds } => lab.run(Duration::from_millis(milliseconds)),
    }
}

/// What a subscriber believes after all its batches.
fn believe(batches: &[RouteBatch]) -> BTreeMap<Prefix, usize> {
    let mut table = BTreeMap::new();
    for change in batches.iter().flat_map(|batch| &batch.changes) {
        if change.paths.is_empty() {
            assert!(
                table.remove(&change.prefix).is_some(),
                "gone twice: {}",
                change.prefix
            );
        } else {
            table.insert(change.prefix, change.paths.len());
        }
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn four_routers_agree_in_the_end(
        graceful in any::<bool>(),
        long_lived in any::<bool>(),
        // Walks over the table in steps so small that everything else happens in between, or at once.
        effort in prop_oneof![1..40_usize, Just(1 << 16)],
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        // Two internal pairs and every kind of session between them.
        let asns = [64512, 64512, 64513, 64514];
        let mut lab = Lab::mesh(&asns);
        (0..4).for_each(|router| lab.reconfigure(router, |c| {
            let restart = GracefulRestart {
                restart_time: if long_lived { 0 } else { 120 },
                long_lived_time: if long_lived { 1000 } else { 0 },
                ..GracefulRestart::default()
            };
            c.graceful_restart = graceful.then_some(restart);
        }));
        lab.routers.iter_mut().for_each(|router| router.work.effort = effort);
        let subscribers: Vec<_> = lab.routers.iter_mut().map(Router::subscribe).collect();
        let mut told = vec![Vec::new(); 4];
        for step in steps {
            apply(&mut lab, step);
            for (index, subscriber) in subscribers.iter().enumerate() {
                told[index].extend(lab.routes(index, *subscriber));
            }
        }
        for router in 0..4 {
            lab.hurry(router);
            for other in 0..4 {
                let back = Step::Cost { router, next_hop: other, cost: Some(0) };
                apply(&mut lab, back);
                apply(&mut lab, Step::Refuse { router, from: other, refuse: false });
            }
        }
        lab.establish();
        lab.run(10 * SECOND);

        let announced: BTreeSet<Prefix> =
            lab.routers.iter().flat_map(|router| router.config().announcements.keys().copied()).collect();
        for index in 0..4 {
            told[index].extend(lab.routes(index, subscribers[index]));
            let entries = lab.routers[index].rib();
            let best: BTreeSet<Prefix> = entries.iter().filter(|e| e.best).map(|e| e.prefix).collect();
            prop_assert_eq!(&best, &announced, "router {}", index);
            let believed: BTreeSet<Prefix> = believe(&told[index]).into_keys().collect();
            prop_assert_eq!(&believed, &announced, "subscriber of router {}", index);
            for other in (0..4).filter(|other| *other != index) {
                let sent = lab.summary(other, index).prefixes_sent;
                let received = lab.summary(index, other).prefixes_received;
                prop_assert_eq!(sent, received, "from {} to {}", other, index);
            }
        }
        // And when everything is withdrawn and the sessions end, not one number of a destination is held any more.
        (0..4).for_each(|router| lab.reconfigure(router, |c| {
            c.announcements.clear();
            c.peers.clear();
        }));
        lab.run(SECOND);
        for (index, subscriber) in subscribers.into_iter().enumerate() {
            lab.routes(index, subscriber);
            lab.routers[index].unsubscribe(subscriber);
            prop_assert!(lab.routers[index].rib.table().is_empty());
        }
    }
}

/// A router with one peer, and a connection from that peer on which a session is established.
fn victim() -> (Router, std::time::Instant, ConnectionId) {
    let now = std::time::Instant::now();
    let mut config = speaker(0, 64512);
    let passive = crate::config::PeerConfig {
        passive: true,
        ..peer(1, 64513)
    };
    config.peers.insert(address(1), passive);
    let mut router = Router::new(now, config, 1).unwrap();
    let remote = (address(1), 40_000).into();
    let connection = router
        .handle_incoming(now, remote, (address(0), 179).into())
        .unwrap();
    // The peer's words are those of a router configured the other way round.
    let mut config = speaker(1, 64513);
    config.peers.insert(address(0), peer(0, 64512));
    let mut other = Router::new(now, config, 2).unwrap();
    let Some(Output::Connect {
        connection: theirs, ..
    }) = other.poll_output()
    else {
        panic!()
    };
    other.handle_connected(now, theirs, remote);
    let open = other.transmit(theirs).unwrap().into_bytes();
    router.handle_octets(now, connection, &open);
    let mut keepalive = bytes::BytesMut::new();
    wire::encode(&Message::Keepalive, &Context::default(), &mut keepalive).unwrap();
    router.handle_octets(now, connection, &keepalive);
    assert_eq!(router.established(), 1);
    (router, now, connection)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_established_peer_can_send_anything(
        kind in 0..8_u8,
        body in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 1..200_usize,
    ) {
        let (mut router, now, connection) = victim();
        let mut octets = vec![0xff; 16];
        octets.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
        octets.push(kind);
        octets.extend(body);
        // In pieces, as TCP may deliver it.
        for piece in octets.chunks(cut) {
            router.handle_octets(now, connection, piece);
        }
        // Whatever came of it, the router goes on and stays consistent.
        while let Some(output) = router.poll_output() {
            if let Output::Transmit(connection) = output {
                while router.transmit(connection).is_some() {}
            }
        }
        router.handle_timeout(now + 1000 * SECOND);
        prop_assert!(router.rib().iter().all(|entry| !entry.best || entry.accepted));
    }
}

#[test]
fn half_a_message_is_kept_and_not_more() {
    let (mut router, now, connection) = victim();
    let mut keepalive = bytes::BytesMut::new();
    for _ in 0..1000 {
        wire::encode(&Message::Keepalive, &Context::default(), &mut keepalive).unwrap();
    }
    for octet in keepalive.chunks(7) {
        router.handle_octets(now, connection, octet);
        let peer = router.peers.values().next().unwrap();
        assert!(peer.lines[0].input.len() < wire::HEADER_LENGTH);
    }
    assert_eq!(router.summary()[0].messages_received.keepalive, 1001);
    assert_eq!(router.established(), 1);
}
