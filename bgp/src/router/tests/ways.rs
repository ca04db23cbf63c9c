//! Several ways to a destination: multipath, weights, next hops that cannot be reached, ADD-PATH.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::super::pair::{Lab, address, prefix, speaker};
use super::super::{ConnectionId, Router, SubscriberId};
use crate::config::{AddPath, Multipath, PeerConfig};
use crate::types::{Asn, ExtendedCommunity, Family, FamilySet, RouterId};
use crate::wire::{
    self, AddPathMode, AsPath, Capability, Context, Message, Nlri, Open, PathAttributes, Reach,
    Update,
};

const SECOND: Duration = Duration::from_secs(1);
const DESTINATION: &str = "192.0.2.0/24";

/// Router 0 with an external peer for each of these bandwidths, all announcing the same destination.
fn lab(bandwidths: &[Option<f32>]) -> (Lab, SubscriberId) {
    let asns: Vec<u32> = (0..=bandwidths.len()).map(|i| 64512 + i as u32).collect();
    let mut lab = Lab::mesh(&asns);
    lab.establish();
    for (index, bandwidth) in (1..).zip(bandwidths) {
        lab.reconfigure(index, |config| {
            let asn = config.asn;
            let community = bandwidth.map(|b| ExtendedCommunity::link_bandwidth(asn, b));
            let announcement = config.announcements.entry(prefix(DESTINATION)).or_default();
            announcement.extended_communities.extend(community);
        });
    }
    lab.run(SECOND);
    let subscriber = lab.routers[0].subscribe();
    (lab, subscriber)
}

/// Next hops and weights of the destination, as the subscriber is told now; `None` if it is told nothing.
fn ways(lab: &mut Lab, subscriber: SubscriberId) -> Option<Vec<(IpAddr, u8)>> {
    lab.run(SECOND);
    let batches = lab.routes(0, subscriber);
    let mut changes = batches.into_iter().flat_map(|batch| batch.changes).rev();
    let last = changes.find(|c| c.prefix == prefix(DESTINATION))?;
    let way = |path: &super::super::BestPath| (path.next_hop, path.weight);
    Some(last.paths.iter().map(way).collect())
}

#[test]
fn multipath_follows_its_configuration() {
    let (mut lab, subscriber) = lab(&[None; 3]);
    let way = |index| (address(index), 1);
    let all = vec![way(1), way(2), way(3)];
    assert_eq!(ways(&mut lab, subscriber), Some(all.clone()));
    let relax = true;
    for (max, relax, expected) in [
        (1, relax, vec![way(1)]),
        (2, relax, vec![way(1), way(2)]),
        (8, relax, all.clone()),
        // The paths are as long as each other, but not the same.
        (8, !relax, vec![way(1)]),
    ] {
        lab.reconfigure(0, |config| {
            config.multipath = Multipath {
                max,
                relax,
                weight_by_link_bandwidth: false,
            };
        });
        assert_eq!(ways(&mut lab, subscriber), Some(expected), "{max} {relax}");
    }
}

#[test]
fn weights_follow_link_bandwidth_where_all_paths_have_one() {
    for (bandwidths, expected) in [
        ([Some(1e9), Some(1e9)], [1, 1]),
        ([Some(2.55e9), Some(1e7)], [255, 1]),
        ([Some(3e9), Some(1e9)], [3, 1]),
        ([Some(1e9), Some(1.0)], [255, 1]),
        ([Some(3e9), None], [1, 1]),
    ] {
        let (mut lab, subscriber) = lab(&bandwidths);
        let weights = |lab: &mut Lab| {
            let ways = ways(lab, subscriber)?;
            Some(
                ways.into_iter()
                    .map(|(_, weight)| weight)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(weights(&mut lab), Some(vec![1, 1]), "not asked for");
        lab.reconfigure(0, |config| {
            config.multipath.weight_by_link_bandwidth = true;
        });
        assert_eq!(weights(&mut lab), Some(expected.to_vec()), "{bandwidths:?}");
    }
}

#[test]
fn a_next_hop_that_cannot_be_reached_takes_its_path_out_and_a_cheaper_one_is_preferred() {
    let (mut lab, subscriber) = lab(&[None; 2]);
    let way = |index| (address(index), 1);
    assert_eq!(ways(&mut lab, subscriber), Some(vec![way(1), way(2)]));
    for (index, cost, expected) in [
        (1, None, Some(vec![way(2)])),
        (1, None, None),
        (2, None, Some(vec![])),
        (1, Some(7), Some(vec![way(1)])),
        (2, Some(6), Some(vec![way(2)])),
        (2, Some(7), Some(vec![way(1), way(2)])),
        (1, Some(0), Some(vec![way(1)])),
        (2, Some(0), Some(vec![way(1), way(2)])),
    ] {
        lab.routers[0].set_next_hop_cost(address(index), cost);
        assert_eq!(ways(&mut lab, subscriber), expected, "{index} {cost:?}");
    }
}

/// A session of a peer made of octets.
struct Feeder {
    router: Router,
    connection: ConnectionId,
    context: Context,
    now: Instant,
}

impl Feeder {
    fn new(receive: bool) -> Self {
        let now = Instant::now();
        let mut config = speaker(0, 65000);
        let mut peer = PeerConfig::new(address(1), Asn(65001));
        peer.passive = true;
        peer.add_path = AddPath { receive, send: 0 };
        config.peers.insert(address(1), peer);
        let mut router = Router::new(now, config, 1).unwrap();
        let remote = SocketAddr::new(address(1), 40_000);
        let local = SocketAddr::new(address(0), 179);
        let connection = router.handle_incoming(now, remote, local).unwrap();
        let family = Family::Ipv4Unicast;
        let mut context = Context {
            four_octet_asn: true,
            ..Context::default()
        };
        if receive {
            context.add_path_send = FamilySet::only(family);
        }
        let mut feeder = Self {
            router,
            connection,
            context,
            now,
        };
        feeder.send(&Message::Open(Open {
            asn: Asn(65001),
            hold_time: 90,
            router_id: RouterId(99),
            capabilities: vec![
                Capability::FourOctetAsn(Asn(65001)),
                Capability::Multiprotocol(family),
                Capability::AddPath(vec![(family, AddPathMode::Send)]),
            ],
        }));
        feeder.send(&Message::Keepalive);
        assert_eq!(feeder.router.established(), 1);
        feeder
    }

    fn send(&mut self, message: &Message) {
        let mut octets = BytesMut::new();
        wire::encode(message, &self.context, &mut octets).unwrap();
        // In two parts, as TCP may have it.
        let (first, second) = octets.split_at(octets.len() / 2);
        for part in [first, second] {
            self.router.handle_octets(self.now, self.connection, part);
        }
    }

    fn announce(&mut self, path_id: u32, med: u32) {
        let attributes = PathAttributes {
            as_path: AsPath::sequence([Asn(65001)]),
            med: Some(med),
            ..PathAttributes::default()
        };
        let reach = Reach {
            family: Family::Ipv4Unicast,
            next_hop: address(1).into(),
            nlri: vec![nlri(path_id)],
        };
        self.send(&Message::Update(Update {
            reach: vec![reach],
            attributes,
            ..Update::default()
        }));
    }

    fn withdraw(&mut self, path_id: u32) {
        self.send(&Message::Update(Update {
            withdrawn: vec![nlri(path_id)],
            ..Update::default()
        }));
    }

    /// The MEDs of the paths held, the best first.
    fn meds(&self) -> Vec<Option<u32>> {
        self.router.rib().iter().map(|entry| entry.med).collect()
    }
}

fn nlri(path_id: u32) -> Nlri {
    Nlri {
        prefix: prefix(DESTINATION),
        path_id: Some(path_id),
    }
}

#[test]
fn add_path_keeps_paths_apart_by_their_identifier() {
    let mut feeder = Feeder::new(true);
    feeder.announce(1, 30);
    feeder.announce(2, 20);
    assert_eq!(feeder.meds(), [Some(20), Some(30)]);
    // The identifier says which one is replaced; 0 is one like any other.
    feeder.announce(2, 40);
    assert_eq!(feeder.meds(), [Some(30), Some(40)]);
    feeder.announce(0, 10);
    assert_eq!(feeder.meds(), [Some(10), Some(30), Some(40)]);
    feeder.withdraw(7);
    feeder.withdraw(0);
    feeder.withdraw(1);
    assert_eq!(feeder.meds(), [Some(40)]);
    feeder.withdraw(2);
    assert_eq!(feeder.meds(), []);
    assert_eq!(feeder.router.summary()[0].prefixes_received, 0);
}

#[test]
fn without_add_path_there_is_one_path() {
    let mut feeder = Feeder::new(false);
    feeder.announce(1, 30);
    feeder.announce(2, 20);
    assert_eq!(feeder.meds(), [Some(20)]);
    feeder.withdraw(1);
    assert_eq!(feeder.meds(), []);
}

#[test]
fn a_peer_cannot_pile_up_paths_for_one_prefix() {
    let mut feeder = Feeder::new(true);
    for path_id in 0..1000 {
        feeder.announce(path_id, path_id);
    }
    assert_eq!(feeder.meds().len(), crate::rib::MAX_PATHS);
    // What is there can still be replaced and withdrawn, and then there is room.
    feeder.announce(3, 5000);
    feeder.withdraw(4);
    feeder.announce(999, 6000);
    assert_eq!(feeder.meds().len(), crate::rib::MAX_PATHS);
    assert!(feeder.meds().contains(&Some(5000)) && feeder.meds().contains(&Some(6000)));
}

#[test]
fn known_attributes_are_read_once_and_mean_the_same() {
    let mut feeder = Feeder::new(true);
    for round in 0..3 {
        for path_id in 0..3 {
            feeder.announce(path_id, 100 * round + path_id % 2);
        }
    }
    assert_eq!(feeder.meds(), [Some(200), Some(201), Some(200)]);
    let entries = feeder.router.rib();
    assert!(
        entries
            .iter()
            .all(|entry| entry.next_hop == Some(address(1)))
    );
    assert!(entries.iter().all(|entry| entry.as_path == "65001"));
}
