//! Whatever happens in whatever order: what each peer holds is what the export says for it alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::config::{AddPath, PeerConfig, SpeakerConfig};
use crate::router::export::Export;
use crate::router::outbound::{GroupKey, Place};
use crate::router::pair::{address, speaker};
use crate::router::{ConnectionId, Octets, Output, PeerId, Router};
use crate::types::{Asn, Family, FamilySet, Prefix, RouterId};
use crate::wire::{
    self, AddPathMode, AsPath, Capability, Context, Message, NextHop, Nlri, Open, PathAttributes,
    Reach, RefreshSubtype, RouteRefresh, SessionKind, Update,
};

const OURS: u32 = 64512;
const PEERS: usize = 6;

/// What a peer holds: by prefix and path identifier, next hop and attributes.
type Table = BTreeMap<(Prefix, Option<u32>), Read>;
type Read = (NextHop, PathAttributes);

/// One peer as the router's counterpart.
struct Far {
    connection: ConnectionId,
    table: Table,
    refreshed: Vec<RefreshSubtype>,
    messages: usize,
}

struct Hub {
    router: Router,
    now: Instant,
    asns: Vec<u32>,
    add_path: Vec<bool>,
    far: Vec<Option<Far>>,
}

fn prefix(index: u8) -> Prefix {
    Prefix::v4([10, 0, index, 0].into(), 24).unwrap()
}

fn id_of(router: &Router, peer: usize) -> PeerId {
    router.addresses[&address(peer + 1)]
}

impl Hub {
    /// Peers 0 and 1 are clients, 2 and 3 external in one AS, 4 external in another; 5 is external and takes several paths.
    fn new() -> Self {
        let asns = vec![OURS, OURS, 65001, 65001, 65002, 65003];
        let add_path: Vec<_> = (0..PEERS).map(|peer| peer == 5).collect();
        let mut config: SpeakerConfig = speaker(0, OURS);
        for (peer, asn) in asns.iter().enumerate() {
            let mut entry = PeerConfig::new(address(peer + 1), Asn(*asn));
            entry.passive = true;
            entry.policy.route_reflector_client = peer == 0 || peer == 1;
            entry.add_path = AddPath {
                receive: false,
                send: if add_path[peer] { 3 } else { 0 },
            };
            config.peers.insert(address(peer + 1), entry);
        }
        let now = Instant::now();
        Self {
            router: Router::new(now, config, 7).unwrap(),
            now,
            asns,
            add_path,
            far: (0..PEERS).map(|_| None).collect(),
        }
    }

    /// The far end's view of the session, for reading and writing.
    fn context(&self, peer: usize) -> Context {
        let add_path = match self.add_path[peer] {
            true => FamilySet::only(Family::Ipv4Unicast),
            false => FamilySet::EMPTY,
        };
        Context {
            four_octet_asn: true,
            families: FamilySet::only(Family::Ipv4Unicast),
            session: match self.asns[peer] == OURS {
                true => SessionKind::Internal,
                false => SessionKind::External,
            },
            add_path_receive: add_path,
            ..Context::default()
        }
    }

    fn give(&mut self, peer: usize, message: &Message) {
        let Some(connection) = self.far[peer].as_ref().map(|far| far.connection) else {
            return;
        };
        let mut octets = BytesMut::new();
        wire::encode(message, &self.context(peer), &mut octets).unwrap();
        self.router.handle_octets(self.now, connection, &octets);
    }

    fn establish(&mut self, peer: usize) {
        if self.far[peer].is_some() {
            return;
        }
        let remote = SocketAddr::new(address(peer + 1), 40_000);
        let local = SocketAddr::new(address(0), 179);
        let Some(connection) = self.router.handle_incoming(self.now, remote, local) else {
            // Still waiting after the last session.
            return;
        };
        self.far[peer] = Some(Far {
            connection,
            table: Table::new(),
            refreshed: Vec::new(),
            messages: 0,
        });
        let mut capabilities = vec![
            Capability::Multiprotocol(Family::Ipv4Unicast),
            Capability::RouteRefresh,
            Capability::EnhancedRouteRefresh,
            Capability::FourOctetAsn(Asn(self.asns[peer])),
        ];
        if self.add_path[peer] {
            capabilities.push(Capability::AddPath(vec![(
                Family::Ipv4Unicast,
                AddPathMode::Receive,
            )]));
        }
        let open = Open {
            asn: Asn(self.asns[peer]),
            hold_time: 0,
            router_id: RouterId(100 + u32::try_from(peer).unwrap()),
            capabilities,
        };
        self.give(peer, &Message::Open(open));
        self.give(peer, &Message::Keepalive);
    }

    fn lose(&mut self, peer: usize) {
        if let Some(far) = self.far[peer].take() {
            self.router
                .handle_closed(self.now, far.connection, "reset".to_owned());
            self.now += Duration::from_secs(600);
            self.router.handle_timeout(self.now);
        }
    }

    fn announce(&mut self, peer: usize, index: u8, med: u32, next_hop: usize) {
        let mut attributes = PathAttributes {
            med: Some(med),
            as_path: AsPath::default(),
            ..PathAttributes::default()
        };
        if self.asns[peer] == OURS {
            attributes.local_pref = Some(100 + med % 3);
        } else {
            attributes.as_path = AsPath::sequence([Asn(self.asns[peer])]);
        }
        let update = Update {
            withdrawn: Vec::new(),
            reach: vec![Reach {
                family: Family::Ipv4Unicast,
                next_hop: NextHop::from(address(next_hop + 1)),
                nlri: vec![prefix(index).into()],
            }],
            attributes,
        };
        self.give(peer, &Message::Update(update));
    }

    fn withdraw(&mut self, peer: usize, index: u8) {
        let update = Update {
            withdrawn: vec![prefix(index).into()],
            ..Update::default()
        };
        self.give(peer, &Message::Update(update));
    }

    /// One peer reads once; false if there was nothing.
    fn read(&mut self, peer: usize) -> bool {
        let Some(connection) = self.far[peer].as_ref().map(|far| far.connection) else {
            return false;
        };
        let Some(octets) = self.router.transmit(connection).map(Octets::into_bytes) else {
            return false;
        };
        let context = self.context(peer);
        if let Some(far) = &mut self.far[peer] {
            far.take(octets, &context);
        }
        true
    }

    /// Everybody reads whatever there is.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut any = (0..PEERS).any(|peer| self.read(peer));
            while let Some(output) = self.router.poll_output() {
                any |= matches!(output, Output::Transmit(_));
            }
            if !any {
                return;
            }
        }
        panic!("no end of messages");
    }

    /// What the export says for one peer, as it would read it: by prefix, the best path first.
    fn expected(&self, peer: usize) -> BTreeMap<Prefix, Vec<(bool, Read)>> {
        let id = id_of(&self.router, peer);
        let near = &self.router.peers[&id];
        let session = near.session.as_ref().unwrap();
        let key = GroupKey::of(&self.router.config, id, near, session).export;
        let mut table = BTreeMap::new();
        let rib = &self.router.rib;
        for destination in rib.table().iter() {
            let prefix = destination.prefix();
            for path in destination.paths().iter().filter(|path| path.is_accepted()) {
                let mut export = Export::default();
                let made = export.route(&key, rib, &prefix, path);
                let Some(route) = made.map(|made| &export.made()[made]) else {
                    continue;
                };
                let next_hop = route.next_hop.unwrap();
                if path.source() == id.source() || next_hop.address() == near.address {
                    continue;
                }
                let read = self.as_read(peer, prefix, &next_hop, &route.attributes);
                let entry: &mut Vec<_> = table.entry(prefix).or_default();
                entry.push((path.is_best(), read));
            }
        }
        table
    }

    /// A route written as for the peer, and read as by the peer.
    fn as_read(
        &self,
        peer: usize,
        prefix: Prefix,
        next_hop: &NextHop,
        attributes: &PathAttributes,
    ) -> (NextHop, PathAttributes) {
        let near = &self.router.peers[&id_of(&self.router, peer)];
        let writes = Context {
            add_path_send: FamilySet::EMPTY,
            ..near.session.as_ref().unwrap().context
        };
        let reads = Context {
            add_path_receive: FamilySet::EMPTY,
            ..self.context(peer)
        };
        let mut octets = BytesMut::new();
        let (family, nlri) = (prefix.family(), [Nlri::from(prefix)]);
        wire::encode_reach(attributes, family, next_hop, nlri, &writes, &mut octets).unwrap();
        let mut far = Far {
            connection: self.far[peer].as_ref().unwrap().connection,
            table: Table::new(),
            refreshed: Vec::new(),
            messages: 0,
        };
        far.take(octets.freeze(), &reads);
        far.table.remove(&(prefix, None)).unwrap()
    }

    fn check(&self) {
        for peer in 0..PEERS {
            let Some(far) = &self.far[peer] else { continue };
            let id = id_of(&self.router, peer);
            let near = &self.router.peers[&id];
            if near.session.is_none() {
                continue;
            }
            let sent = self.router.prefixes_sent(id, near);
            assert_eq!(sent, far.table.len() as u64, "peer {peer}");
            if self.add_path[peer] {
                self.check_paths(peer, &far.table);
            } else {
                let expected = self.expected(peer).into_iter();
                let best = expected.flat_map(|(prefix, paths)| {
                    let best = paths.into_iter().filter(|(best, _)| *best);
                    best.map(move |(_, route)| ((prefix, None), route))
                });
                assert_eq!(far.table, best.collect::<Table>(), "peer {peer}");
            }
        }
    }

    /// With ADD-PATH: as many paths as there may be, the best one among them.
    fn check_paths(&self, peer: usize, table: &Table) {
        let expected = self.expected(peer);
        assert!(
            table
                .keys()
                .all(|(prefix, _)| expected.contains_key(prefix))
        );
        for (prefix, paths) in expected {
            let held = table.iter().filter(|((p, _), _)| *p == prefix);
            let held: Vec<_> = held.map(|(_, route)| route).collect();
            assert_eq!(held.len(), paths.len().min(3), "{prefix}");
            let known = |route: &&(NextHop, PathAttributes)| paths.iter().any(|(_, r)| r == *route);
            assert!(held.iter().all(known), "{prefix} {held:?}");
            let best = paths.iter().find(|(best, _)| *best);
            assert!(
                best.is_none_or(|(_, best)| held.contains(&best)),
                "{prefix}"
            );
        }
    }
}

impl Far {
    fn take(&mut self, octets: Bytes, context: &Context) {
        let mut rest = &octets[..];
        while let Some(length) = wire::frame_length(rest, context).unwrap() {
            let (frame, after) = rest.split_at(length);
            rest = after;
            self.messages += 1;
            match wire::decode(frame, context).unwrap().message {
                Message::Update(update) => {
                    for nlri in update.withdrawn {
                        self.table.remove(&(nlri.prefix, nlri.path_id));
                    }
                    for reach in update.reach {
                        for nlri in reach.nlri {
                            let route = (reach.next_hop, update.attributes.clone());
                            self.table.insert((nlri.prefix, nlri.path_id), route);
                        }
                    }
                }
                Message::RouteRefresh(refresh) => self.refreshed.push(refresh.subtype),
                _ => {}
            }
        }
        assert!(rest.is_empty());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Establish(usize),
    Lose(usize),
    Announce(usize, u8, u32, usize),
    Withdraw(usize, u8),
    Read(usize),
    Filter(usize, bool),
    Client(bool),
    Refresh(usize),
    Burst(usize, u32),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0..PEERS;
    prop_oneof![
        3 => peer.clone().prop_map(Step::Establish),
        1 => peer.clone().prop_map(Step::Lose),
        12 => (peer.clone(), 0..12_u8, 0..4_u32, 0..PEERS)
            .prop_map(|(p, i, m, n)| Step::Announce(p, i, m, n)),
        6 => (peer.clone(), 0..12_u8).prop_map(|(p, i)| Step::Withdraw(p, i)),
        12 => peer.clone().prop_map(Step::Read),
        2 => (peer.clone(), any::<bool>()).prop_map(|(p, f)| Step::Filter(p, f)),
        1 => any::<bool>().prop_map(Step::Client),
        2 => peer.clone().prop_map(Step::Refresh),
        1 => (peer, 0..4_u32).prop_map(|(p, m)| Step::Burst(p, m)),
        2 => Just(Step::Settle),
    ]
}

impl Hub {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Establish(peer) => self.establish(peer),
            Step::Lose(peer) => self.lose(peer),
            Step::Announce(peer, index, med, next_hop) => self.announce(peer, index, med, next_hop),
            Step::Withdraw(peer, index) => self.withdraw(peer, index),
            Step::Read(peer) => {
                self.read(peer);
            }
            Step::Filter(peer, on) => {
                let mut config = self.router.config().clone();
                let entry = config.peers.get_mut(&address(peer + 1)).unwrap();
                entry.next_hop = match on {
                    true => crate::config::NextHopMode::Keep,
                    false => crate::config::NextHopMode::Auto,
                };
                self.router.configure(self.now, config).unwrap();
            }
            Step::Client(on) => {
                let mut config = self.router.config().clone();
                let entry = config.peers.get_mut(&address(2)).unwrap();
                entry.policy.route_reflector_client = on;
                self.router.configure(self.now, config).unwrap();
            }
            Step::Refresh(peer) => self.give(
                peer,
                &Message::RouteRefresh(RouteRefresh {
                    family: Family::Ipv4Unicast,
                    subtype: RefreshSubtype::Request,
                }),
            ),
            Step::Burst(peer, med) => {
                for index in 0..200 {
                    self.announce(peer, index, med, peer);
                }
            }
            Step::Settle => {
                self.settle();
                self.check();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_peer_holds_what_the_export_says_for_it(steps in prop::collection::vec(step(), 1..120)) {
        let mut hub = Hub::new();
        for step in steps {
            hub.apply(step);
        }
        hub.settle();
        hub.check();
        // Nothing is held for nobody.
        for peer in 0..PEERS {
            hub.lose(peer);
        }
        prop_assert!(hub.router.rib.table().is_empty(), "{:?}", hub.router.rib.table().len());
        prop_assert_eq!(hub.router.groups.iter().count(), 0);
    }
}

#[test]
fn peers_that_are_given_the_same_are_one_group_and_read_the_same_octets() {
    let mut hub = Hub::new();
    for peer in [2, 3, 4] {
        hub.establish(peer);
    }
    hub.settle();
    assert_eq!(hub.router.groups.iter().count(), 1);
    for index in 0..100 {
        hub.announce(2, index, 1, 2);
    }
    let third = hub.far[3].as_ref().unwrap().connection;
    let fourth = hub.far[4].as_ref().unwrap().connection;
    let (a, b) = (
        hub.router.transmit(third).unwrap().into_bytes(),
        hub.router.transmit(fourth).unwrap().into_bytes(),
    );
    assert_eq!(a.as_ptr(), b.as_ptr());
    assert_eq!(a.len(), b.len());
}

#[test]
fn a_refresh_is_answered_between_markers() {
    let mut hub = Hub::new();
    hub.establish(2);
    hub.establish(3);
    hub.announce(2, 1, 1, 2);
    hub.settle();
    hub.apply(Step::Refresh(3));
    hub.settle();
    hub.check();
    let far = hub.far[3].as_ref().unwrap();
    assert_eq!(far.refreshed, [RefreshSubtype::Begin, RefreshSubtype::End]);
    let id = id_of(&hub.router, 3);
    let membership = hub.router.peers[&id]
        .session
        .as_ref()
        .unwrap()
        .membership
        .as_ref();
    assert!(matches!(membership.unwrap().place, Place::Joined(_)));
}

#[test]
fn paths_keep_their_identifiers_as_long_as_they_last() {
    let mut hub = Hub::new();
    for peer in [0, 2, 4, 5] {
        hub.establish(peer);
    }
    hub.announce(2, 1, 1, 2);
    hub.announce(4, 1, 1, 4);
    hub.settle();
    hub.check();
    let by_path = |hub: &Hub| -> BTreeMap<String, u32> {
        let table = hub.far[5].as_ref().unwrap().table.iter();
        let line = |((_, id), (_, a)): (&(Prefix, Option<u32>), &(NextHop, PathAttributes))| {
            (a.as_path.to_string(), id.unwrap())
        };
        table.map(line).collect()
    };
    let before = by_path(&hub);
    assert_eq!(before.len(), 2);
    // A better one comes, and goes; the best one goes.
    hub.announce(0, 1, 2, 0);
    hub.settle();
    let more = by_path(&hub);
    assert_eq!(more.len(), 3);
    assert!(before.iter().all(|(path, id)| more[path] == *id));
    hub.withdraw(0, 1);
    hub.apply(Step::Refresh(5));
    hub.settle();
    assert_eq!(by_path(&hub), before);
    hub.withdraw(2, 1);
    hub.settle();
    let left = by_path(&hub);
    assert_eq!(left.len(), 1);
    assert!(left.iter().all(|(path, id)| before[path] == *id));
}

#[test]
fn announcements_wait_for_the_interval_and_withdrawals_do_not() {
    let mut hub = Hub::new();
    let mut config = hub.router.config().clone();
    for peer in config.peers.values_mut() {
        peer.min_advertisement_interval = Duration::from_secs(30);
    }
    hub.router.configure(hub.now, config).unwrap();
    hub.establish(2);
    hub.establish(3);
    hub.settle();
    let held = |hub: &Hub| hub.far[3].as_ref().unwrap().table.len();
    hub.announce(2, 1, 1, 2);
    hub.settle();
    assert_eq!(held(&hub), 1);
    hub.announce(2, 2, 1, 2);
    hub.withdraw(2, 1);
    hub.settle();
    assert_eq!(held(&hub), 0);
    let wakes = hub.router.poll_timeout().unwrap();
    assert!(
        wakes >= hub.now + Duration::from_secs(22) && wakes <= hub.now + Duration::from_secs(30)
    );
    hub.now = wakes;
    hub.router.handle_timeout(wakes);
    hub.settle();
    assert_eq!(held(&hub), 1);
    hub.check();
}

#[test]
fn a_withdrawal_not_read_yet_is_not_lost_when_the_group_changes() {
    let mut hub = Hub::new();
    hub.establish(1);
    hub.establish(0);
    hub.settle();
    hub.announce(0, 11, 0, 2);
    hub.read(0);
    hub.withdraw(0, 11);
    hub.read(1);
    hub.read(0);
    hub.apply(Step::Client(false));
    hub.settle();
    hub.check();
}
