//! Tables: one session, one route, what becomes of it.

use std::net::IpAddr;

use super::export::ExportKey;
use super::import::ImportPolicy;
use super::*;
use crate::config::{LocalAs, PeerConfig, PeerRole, SpeakerConfig};
use crate::policy::{Filter, Operation, Refusal, Rule, Verdict};
use crate::rib::Route;
use crate::types::{Asn, Community, Family, Prefix};
use crate::wire::{AsPath, AsSegment, NextHop, PathAttributes};

const OWN: u32 = 64512;
const PEER: u32 = 64513;

fn asns(numbers: &[u32]) -> AsPath {
    AsPath::sequence(numbers.iter().copied().map(Asn))
}

fn route(path: &[u32], change: impl FnOnce(&mut Route)) -> Route {
    let mut route = Route {
        next_hop: Some(NextHop::V4([10, 0, 0, 2].into())),
        attributes: PathAttributes {
            as_path: asns(path),
            ..PathAttributes::default()
        },
        metric: None,
    };
    change(&mut route);
    route
}

struct Session {
    speaker: SpeakerConfig,
    peer: PeerConfig,
    local: IpAddr,
}

impl Session {
    fn with(asn: u32, change: impl FnOnce(&mut Session)) -> Self {
        let mut speaker = SpeakerConfig::new(Asn(OWN), RouterId(1));
        speaker.require_policy = false;
        let mut session = Self {
            speaker,
            peer: PeerConfig::new([10, 0, 0, 2].into(), Asn(asn)),
            local: [10, 0, 0, 1].into(),
        };
        change(&mut session);
        session
    }

    fn internal(&self) -> bool {
        self.peer.asn.is_internal(self.speaker.asn)
    }

    fn import(&self, route: &Route) -> Result<Route, Refusal> {
        let policy = ImportPolicy {
            speaker: &self.speaker,
            peer: &self.peer,
            internal: self.internal(),
            local: self.local,
            peer_asn: self.peer.asn.number().unwrap(),
        };
        let admitted = policy.check(route)?;
        let prefix: Prefix = "10.1.0.0/16".parse().unwrap();
        let operations = policy.filter(&admitted, &prefix)?;
        let made = policy.transform(operations, route);
        Ok(made.unwrap_or_else(|| route.clone()))
    }

    fn key(&self) -> ExportKey {
        let facts = Facts {
            internal: self.internal(),
            peer_asn: self.peer.asn.number().unwrap(),
            families: Family::ALL.into_iter().collect(),
            extended_next_hop: false,
            long_lived: false,
            local: self.local,
            remote: [10, 0, 0, 2].into(),
        };
        ExportKey::of(&self.speaker, &self.peer, &facts)
    }

    fn export(&self, from: Provenance, route: &Route) -> Result<Route, Refusal> {
        let key = self.key();
        let passed = key.may_pass(from, route)?;
        let prefix: Prefix = "10.1.0.0/16".parse().unwrap();
        let operations = key.filter(&passed, &prefix)?;
        key.make(from, route, operations, Family::Ipv4Unicast)
    }
}

#[test]
fn what_an_external_peer_may_say() {
    type Setup = fn(&mut Session);
    type Change = fn(&mut Route);
    let set = |route: &mut Route| {
        route.attributes.as_path = AsPath::new([
            AsSegment::Sequence(vec![Asn(PEER)]),
            AsSegment::Set(vec![Asn(1), Asn(2)]),
        ]);
    };
    let table: [(Setup, &[u32], Change, Option<Refusal>); 29] = [
        (
            |s| s.speaker.listen = vec!["10.0.0.9:179".parse().unwrap()],
            &[PEER],
            next_hop([10, 0, 0, 9]),
            Some(Refusal::NextHopOwn),
        ),
        (
            |s| s.peer.role = Some(PeerRole::RouteServerClient),
            &[1, PEER],
            |_| {},
            None,
        ),
        (|_| {}, &[PEER], |_| {}, None),
        (|_| {}, &[PEER, 1, 2], |_| {}, None),
        (|_| {}, &[], |_| {}, Some(Refusal::EmptyPath)),
        (
            |s| s.peer.policy.enforce_first_as = false,
            &[],
            |_| {},
            Some(Refusal::EmptyPath),
        ),
        (|_| {}, &[1, PEER], |_| {}, Some(Refusal::FirstAs)),
        (
            |s| s.peer.policy.enforce_first_as = false,
            &[1, PEER],
            |_| {},
            None,
        ),
        (|_| {}, &[PEER, OWN], |_| {}, Some(Refusal::AsLoop)),
        (
            |s| s.peer.policy.allow_own_as = 1,
            &[PEER, OWN],
            |_| {},
            None,
        ),
        (
            |s| s.peer.policy.allow_own_as = 1,
            &[PEER, OWN, OWN],
            |_| {},
            Some(Refusal::AsLoop),
        ),
        (
            |s| s.peer.policy.local_as = local_as(9),
            &[PEER, 9],
            |_| {},
            Some(Refusal::AsLoop),
        ),
        (|_| {}, &[], set, Some(Refusal::AsSet)),
        (|s| s.peer.policy.accept_as_sets = true, &[], set, None),
        (
            |_| {},
            &[PEER],
            |r| r.attributes.originator_id = Some(RouterId(1)),
            Some(Refusal::OriginatorLoop),
        ),
        (
            |_| {},
            &[PEER],
            |r| r.attributes.cluster_list = vec![RouterId(1)],
            Some(Refusal::ClusterLoop),
        ),
        (
            |s| s.speaker.cluster_id = Some(RouterId(7)),
            &[PEER],
            |r| r.attributes.cluster_list = vec![RouterId(1)],
            None,
        ),
        (
            |s| s.speaker.cluster_id = Some(RouterId(7)),
            &[PEER],
            |r| r.attributes.cluster_list = vec![RouterId(7)],
            Some(Refusal::ClusterLoop),
        ),
        (
            |_| {},
            &[PEER],
            |r| r.next_hop = None,
            Some(Refusal::NextHopInvalid),
        ),
        (
            |_| {},
            &[PEER],
            next_hop([10, 0, 0, 1]),
            Some(Refusal::NextHopOwn),
        ),
        (|_| {}, &[PEER], next_hop([10, 0, 0, 9]), None),
        (
            |_| {},
            &[PEER],
            next_hop([0, 0, 0, 0]),
            Some(Refusal::NextHopInvalid),
        ),
        (
            |_| {},
            &[PEER],
            next_hop([224, 0, 0, 5]),
            Some(Refusal::NextHopInvalid),
        ),
        (
            |_| {},
            &[PEER],
            next_hop([255, 255, 255, 255]),
            Some(Refusal::NextHopInvalid),
        ),
        (
            |_| {},
            &[PEER],
            next_hop([127, 0, 0, 2]),
            Some(Refusal::NextHopInvalid),
        ),
        (
            |s| s.local = [127, 0, 0, 1].into(),
            &[PEER],
            next_hop([127, 0, 0, 2]),
            None,
        ),
        (
            |s| s.local = [127, 0, 0, 1].into(),
            &[PEER],
            next_hop([127, 0, 0, 1]),
            Some(Refusal::NextHopOwn),
        ),
        (
            |s| s.speaker.require_policy = true,
            &[PEER],
            |_| {},
            Some(Refusal::NoFilter),
        ),
        (
            |s| s.peer.import = Some(Filter::reject_all()),
            &[PEER],
            |_| {},
            Some(Refusal::Filter),
        ),
    ];
    for (index, (setup, path, change, expected)) in table.into_iter().enumerate() {
        let session = Session::with(PEER, setup);
        let found = session.import(&route(path, change));
        assert_eq!(found.err(), expected, "line {index}");
    }
}

/// A function that sets the next hop: what a table of function pointers takes.
macro_rules! next_hops {
    ($($octets:expr),*) => {
        fn next_hop(octets: [u8; 4]) -> fn(&mut Route) {
            match octets {
                $(o if o == $octets => |r| r.next_hop = Some(NextHop::V4($octets.into())),)*
                _ => unreachable!(),
            }
        }
    };
}

next_hops!(
    [10, 0, 0, 1],
    [10, 0, 0, 9],
    [0, 0, 0, 0],
    [224, 0, 0, 5],
    [255, 255, 255, 255],
    [127, 0, 0, 1],
    [127, 0, 0, 2]
);

fn local_as(asn: u32) -> Option<LocalAs> {
    Some(LocalAs {
        asn: Asn(asn),
        no_prepend: false,
        replace_as: false,
    })
}

#[test]
fn an_internal_peer_may_have_any_path() {
    for path in [&[][..], &[1, 2]] {
        let session = Session::with(OWN, |_| {});
        assert!(session.import(&route(path, |_| {})).is_ok());
    }
    let session = Session::with(OWN, |s| s.speaker.require_policy = true);
    assert!(session.import(&route(&[], |_| {})).is_ok());
    assert_eq!(session.import(&route(&[OWN], |_| {})), Err(Refusal::AsLoop));
}

#[test]
fn what_import_changes() {
    let shut = |r: &mut Route| r.attributes.communities = vec![Community::GRACEFUL_SHUTDOWN];
    let prefer = || {
        let rule = Rule {
            operations: vec![Operation::SetLocalPref(200), Operation::SetMetric(50)],
            ..Rule::new(Verdict::Accept)
        };
        Some(Filter::new(vec![rule], Verdict::Reject))
    };
    let external = Session::with(PEER, |_| {});
    // LOCAL_PREF of another AS means nothing.
    let foreign = route(&[PEER], |r| r.attributes.local_pref = Some(500));
    assert_eq!(
        external.import(&foreign).unwrap().attributes.local_pref,
        None
    );
    // RFC 8326, and a filter that prefers the peer does not undo it.
    for import in [None, prefer()] {
        let session = Session::with(PEER, |s| s.peer.import = import);
        let made = session.import(&route(&[PEER], shut)).unwrap();
        assert_eq!(made.attributes.local_pref, Some(0));
    }
    // One that takes the community out does.
    let session = Session::with(PEER, |s| {
        let rule = Rule {
            operations: vec![Operation::RemoveCommunities("65535:0".parse().unwrap())],
            ..Rule::new(Verdict::Accept)
        };
        s.peer.import = Some(Filter::new(vec![rule], Verdict::Reject));
    });
    let made = session.import(&route(&[PEER], shut)).unwrap();
    assert_eq!(made.attributes.local_pref, None);
    // Between internal peers the community is only passed on.
    let internal = Session::with(OWN, |_| {});
    let made = internal.import(&route(&[], shut)).unwrap();
    assert_eq!(made.attributes.local_pref, None);
    // A session that is about to go is the last choice.
    let session = Session::with(PEER, |s| s.peer.policy.graceful_shutdown = true);
    let made = session.import(&route(&[PEER], |_| {})).unwrap();
    assert_eq!(made.attributes.local_pref, Some(0));
    let session = Session::with(PEER, |s| s.peer.import = prefer());
    let made = session.import(&route(&[PEER], |_| {})).unwrap();
    assert_eq!(
        (made.attributes.local_pref, made.metric),
        (Some(200), Some(50))
    );
    // The AS presented to the peer is part of the way.
    let session = Session::with(PEER, |s| s.peer.policy.local_as = local_as(9));
    let made = session.import(&route(&[PEER], |_| {})).unwrap();
    assert_eq!(made.attributes.as_path.to_string(), "9 64513");
    let session = Session::with(PEER, |s| {
        s.peer.policy.local_as = local_as(9).map(|local| LocalAs {
            no_prepend: true,
            ..local
        });
    });
    let made = session.import(&route(&[PEER], |_| {})).unwrap();
    assert_eq!(made.attributes.as_path.to_string(), "64513");
}

const CLIENT: Provenance = Provenance::Internal {
    client: true,
    router_id: RouterId(11),
};
const NEIGHBOR: Provenance = Provenance::Internal {
    client: false,
    router_id: RouterId(12),
};

#[test]
fn who_is_given_what() {
    type Setup = fn(&mut Session);
    let table: [(u32, Setup, Provenance, Option<Refusal>); 9] = [
        (PEER, |_| {}, NEIGHBOR, None),
        (OWN, |_| {}, Provenance::External, None),
        (OWN, |_| {}, Provenance::Local, None),
        (OWN, |_| {}, NEIGHBOR, Some(Refusal::NotReflected)),
        (OWN, |_| {}, CLIENT, None),
        (
            OWN,
            |s| s.peer.policy.route_reflector_client = true,
            NEIGHBOR,
            None,
        ),
        (
            OWN,
            |s| s.peer.policy.route_reflector_client = true,
            CLIENT,
            None,
        ),
        (
            PEER,
            |s| s.speaker.require_policy = true,
            Provenance::Local,
            Some(Refusal::NoFilter),
        ),
        (
            OWN,
            |s| s.speaker.require_policy = true,
            Provenance::Local,
            None,
        ),
    ];
    for (index, (asn, setup, from, expected)) in table.into_iter().enumerate() {
        let found = Session::with(asn, setup).export(from, &route(&[], |_| {}));
        assert_eq!(found.err(), expected, "line {index}");
    }
    for (community, internal, external) in [
        (
            Community::NO_ADVERTISE,
            Some(Refusal::Community),
            Some(Refusal::Community),
        ),
        (Community::NO_EXPORT, None, Some(Refusal::Community)),
        (
            Community::NO_EXPORT_SUBCONFED,
            None,
            Some(Refusal::Community),
        ),
        (Community::NO_PEER, None, None),
    ] {
        let marked = route(&[1], |r| r.attributes.communities = vec![community]);
        for (asn, expected) in [(OWN, internal), (PEER, external)] {
            let found = Session::with(asn, |_| {}).export(Provenance::External, &marked);
            assert_eq!(found.err(), expected, "{community} to AS {asn}");
        }
    }
}

#[test]
fn what_roles_say() {
    // RFC 3765: not over bilateral peering.
    let no_peer = route(&[1], |r| {
        r.attributes.communities = vec![Community::NO_PEER]
    });
    for (role, expected) in [
        (Some(PeerRole::Peer), Some(Refusal::Community)),
        (Some(PeerRole::Provider), None),
        (None, None),
    ] {
        let session = Session::with(PEER, |s| s.peer.role = role);
        let found = session.export(Provenance::External, &no_peer);
        assert_eq!(found.err(), expected, "{role:?}");
    }
    // RFC 7947 section 2.2: a route server is not on the way, neither of packets nor of routes.
    let session = Session::with(PEER, |s| s.peer.role = Some(PeerRole::RouteServer));
    let original = route(&[1], |r| {
        r.attributes.med = Some(5);
        r.next_hop = Some(NextHop::V4([10, 9, 0, 9].into()));
    });
    let made = session.export(Provenance::External, &original).unwrap();
    // But it says who is a client (RFC 9234 section 5).
    let mut expected = original;
    expected.attributes.only_to_customer = Some(Asn(OWN));
    assert_eq!(made, expected);
    // Its own routes are routes like any other's.
    let made = session
        .export(Provenance::Local, &route(&[], |_| {}))
        .unwrap();
    assert_eq!(made.attributes.as_path.to_string(), "64512");
}

#[test]
fn reflection_adds_originator_and_cluster_and_changes_nothing_else() {
    let session = Session::with(OWN, |s| s.speaker.cluster_id = Some(RouterId(77)));
    let original = route(&[5, 6], |r| {
        r.attributes.local_pref = Some(300);
        r.attributes.med = Some(3);
    });
    let made = session.export(CLIENT, &original).unwrap();
    let mut expected = original.clone();
    expected.attributes.originator_id = Some(RouterId(11));
    expected.attributes.cluster_list = vec![RouterId(77)];
    assert_eq!(made, expected);
    // The second reflector keeps the originator.
    let made = session.export(CLIENT, &expected).unwrap();
    assert_eq!(made.attributes.originator_id, Some(RouterId(11)));
    assert_eq!(made.attributes.cluster_list, [RouterId(77), RouterId(77)]);
    // Neither leaves the AS.
    let made = Session::with(PEER, |_| {})
        .export(CLIENT, &expected)
        .unwrap();
    assert_eq!(made.attributes.originator_id, None);
    assert!(made.attributes.cluster_list.is_empty());
    // A route of our own, or from outside, is not reflected.
    let made = session.export(Provenance::External, &original).unwrap();
    assert_eq!(made.attributes.originator_id, None);
}

#[test]
fn what_export_changes() {
    let learned = route(&[1], |r| {
        r.attributes.local_pref = Some(300);
        r.attributes.med = Some(3);
        r.attributes.extended_communities = ["rt:1:1", "lb:1:1000"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        r.metric = Some(9);
    });
    let external = Session::with(PEER, |_| {});
    let made = external.export(Provenance::External, &learned).unwrap();
    assert_eq!(made.attributes.as_path.to_string(), "64512 1");
    assert_eq!(
        (made.attributes.local_pref, made.attributes.med),
        (None, None)
    );
    assert_eq!(made.attributes.extended_communities.len(), 1);
    assert_eq!(made.metric, None);
    // Our own MED and link bandwidth are ours to send.
    let made = external.export(Provenance::Local, &learned).unwrap();
    assert_eq!(made.attributes.med, Some(3));
    assert_eq!(made.attributes.extended_communities.len(), 2);
    let internal = Session::with(OWN, |_| {});
    let made = internal.export(Provenance::External, &learned).unwrap();
    assert_eq!(
        (made.attributes.local_pref, made.attributes.med),
        (Some(300), Some(3))
    );
    assert_eq!(made.attributes.as_path.to_string(), "1");
    // What the filter prepends comes behind our own AS, which peers check for.
    let session = Session::with(PEER, |s| {
        let prepend = |asn: Option<u32>, count| Operation::Prepend {
            asn: asn.map(Asn),
            count,
        };
        let rule = Rule {
            operations: vec![
                prepend(Some(7), 2),
                prepend(None, 1),
                Operation::PrependPath(vec![Asn(8), Asn(9)]),
                Operation::SetMed(44),
            ],
            ..Rule::new(Verdict::Accept)
        };
        s.peer.export = Some(Filter::new(vec![rule], Verdict::Reject));
    });
    let made = session.export(Provenance::External, &learned).unwrap();
    assert_eq!(made.attributes.as_path.to_string(), "64512 8 9 64512 7 7 1");
    assert_eq!(made.attributes.med, Some(44));
}

#[test]
fn what_a_filter_prepends_is_meant() {
    // Our own AS is private here, and taken out of nothing that we say ourselves.
    let session = Session::with(PEER, |s| {
        let operations = vec![Operation::Prepend {
            asn: None,
            count: 2,
        }];
        let rule = Rule {
            operations,
            ..Rule::new(Verdict::Accept)
        };
        s.peer.export = Some(Filter::new(vec![rule], Verdict::Reject));
        s.peer.policy.remove_private_as = Some(crate::config::RemovePrivateAs::All);
    });
    let made = session
        .export(Provenance::External, &route(&[65000, 1], |_| {}))
        .unwrap();
    assert_eq!(made.attributes.as_path.to_string(), "64512 64512 64512 1");
}

#[test]
fn graceful_shutdown_is_said() {
    for (asn, local_pref) in [(PEER, None), (OWN, Some(0))] {
        let session = Session::with(asn, |s| s.peer.policy.graceful_shutdown = true);
        let made = session
            .export(Provenance::Local, &route(&[], |_| {}))
            .unwrap();
        assert_eq!(made.attributes.local_pref, local_pref);
        assert_eq!(made.attributes.communities, [Community::GRACEFUL_SHUTDOWN]);
    }
}

#[test]
fn which_next_hop() {
    use crate::config::NextHopMode::{Auto, Keep, SelfAddress};
    let segment: Prefix = "10.0.0.0/24".parse().unwrap();
    let (own, other, far) = ([10, 0, 0, 1], [10, 0, 0, 9], [10, 9, 0, 9]);
    for (asn, mode, shared, from, next_hop, expected) in [
        (PEER, Auto, false, Provenance::External, other, own),
        // RFC 4271 section 5.1.3: on a segment shared by all three.
        (PEER, Auto, true, Provenance::External, other, other),
        (PEER, Auto, true, NEIGHBOR, other, other),
        (PEER, Auto, true, Provenance::External, far, own),
        (PEER, SelfAddress, true, Provenance::External, other, own),
        (PEER, Keep, false, Provenance::External, far, far),
        (PEER, Auto, false, Provenance::Local, far, far),
        (PEER, SelfAddress, false, Provenance::Local, far, own),
        (OWN, Auto, false, Provenance::External, far, far),
        (OWN, SelfAddress, false, Provenance::External, far, own),
        (OWN, Auto, false, CLIENT, far, far),
    ] {
        let session = Session::with(asn, |s| {
            s.peer.next_hop = mode;
            s.speaker.shared_segments.extend(shared.then_some(segment));
        });
        let route = route(&[], |r| r.next_hop = Some(NextHop::V4(next_hop.into())));
        let made = session.export(from, &route).unwrap();
        let expected = Some(NextHop::V4(expected.into()));
        assert_eq!(made.next_hop, expected, "{mode:?} {from:?} {next_hop:?}");
    }
}

#[test]
fn next_hops_across_families() {
    let link_local: IpAddr = "fe80::1".parse().unwrap();
    let global: IpAddr = "fd00::1".parse().unwrap();
    let make = |local: IpAddr, extended: bool, family, next_hop: Option<IpAddr>, asn| {
        let session = Session::with(asn, |_| {});
        let facts = Facts {
            internal: asn == OWN,
            peer_asn: Asn(asn),
            families: Family::ALL.into_iter().collect(),
            extended_next_hop: extended,
            long_lived: false,
            local,
            remote: "fd00::2".parse().unwrap(),
        };
        let key = ExportKey::of(&session.speaker, &session.peer, &facts);
        let route = route(&[], |r| r.next_hop = next_hop.map(NextHop::from));
        let made = key.make(Provenance::External, &route, &[], family);
        made.map(|route| route.next_hop.unwrap())
    };
    let (v4, v6) = (Family::Ipv4Unicast, Family::Ipv6Unicast);
    assert_eq!(make(global, false, v4, None, PEER), Err(Refusal::NoNextHop));
    assert_eq!(make(global, true, v4, None, PEER), Ok(global.into()));
    assert_eq!(make(global, false, v6, None, PEER), Ok(global.into()));
    // A link-local address is told in both places, and kept for nobody else.
    let told = make(link_local, true, v4, None, PEER).unwrap();
    assert_eq!(told.address(), link_local);
    assert!(matches!(
        told,
        NextHop::V6 {
            link_local: Some(_),
            ..
        }
    ));
    let kept = make(global, true, v4, Some(link_local), OWN);
    assert_eq!(kept, Ok(global.into()));
    let foreign = make(global, false, v4, Some("fd00::9".parse().unwrap()), OWN);
    assert_eq!(foreign, Err(Refusal::NoNextHop));
}

#[test]
fn a_session_over_a_link_gives_the_links_address_and_not_the_configured_one() {
    let make = |extended| {
        let session = Session::with(PEER, |s| {
            s.speaker.next_hop.ipv4 = Some([192, 0, 2, 1].into());
        });
        let facts = Facts {
            internal: false,
            peer_asn: Asn(PEER),
            families: Family::ALL.into_iter().collect(),
            extended_next_hop: extended,
            long_lived: false,
            local: "fe80::1".parse().unwrap(),
            remote: "fe80::2".parse().unwrap(),
        };
        let key = ExportKey::of(&session.speaker, &session.peer, &facts);
        let route = route(&[], |r| r.next_hop = None);
        let made = key.make(Provenance::Local, &route, &[], Family::Ipv4Unicast);
        made.unwrap().next_hop.unwrap().address()
    };
    assert_eq!(make(true), "fe80::1".parse::<IpAddr>().unwrap());
    // Who takes no IPv6 next hop gets what there is.
    assert_eq!(make(false), IpAddr::from([192, 0, 2, 1]));
}

#[test]
fn equal_sessions_have_equal_keys() {
    let key = |asn, change: fn(&mut Session)| Session::with(asn, change).key();
    assert_eq!(key(PEER, |_| {}), key(PEER, |_| {}));
    // The peer's AS matters only where something depends on it.
    assert_eq!(key(PEER, |_| {}), key(65000, |_| {}));
    let replaced: fn(&mut Session) = |s| s.peer.policy.as_override = true;
    assert_ne!(key(PEER, replaced), key(65000, replaced));
    // Neither does what is only about import.
    assert_eq!(
        key(PEER, |_| {}),
        key(PEER, |s| {
            s.peer.import = Some(Filter::reject_all());
            s.peer.policy.allow_own_as = 3;
            s.peer.name = "other".to_owned();
        })
    );
    let table: [fn(&mut Session); 8] = [
        |s| s.peer.export = Some(Filter::reject_all()),
        |s| s.speaker.require_policy = true,
        |s| s.peer.policy.graceful_shutdown = true,
        |s| s.peer.policy.local_as = local_as(9),
        |s| s.peer.next_hop = crate::config::NextHopMode::Keep,
        |s| s.local = [10, 0, 1, 1].into(),
        |s| s.speaker.cluster_id = Some(RouterId(3)),
        |s| {
            let aggregate = crate::config::Aggregate {
                summary_only: true,
                ..Default::default()
            };
            let prefix = "10.0.0.0/8".parse().unwrap();
            s.speaker.aggregates.insert(prefix, aggregate);
        },
    ];
    for (index, change) in table.into_iter().enumerate() {
        assert_ne!(key(PEER, |_| {}), key(PEER, change), "{index}");
    }
}

#[test]
fn a_summary_hides_what_is_in_it_but_not_itself() {
    let session = Session::with(PEER, |s| {
        let aggregate = crate::config::Aggregate {
            summary_only: true,
            ..Default::default()
        };
        s.speaker
            .aggregates
            .insert("10.0.0.0/8".parse().unwrap(), aggregate);
    });
    let key = session.key();
    let passed = key
        .may_pass(Provenance::Local, &route(&[], |_| {}))
        .unwrap();
    for (prefix, expected) in [
        ("10.0.0.0/8", Ok(())),
        ("10.1.0.0/16", Err(Refusal::Summarized)),
        ("0.0.0.0/0", Ok(())),
        ("11.0.0.0/16", Ok(())),
    ] {
        let found = key.filter(&passed, &prefix.parse().unwrap()).map(drop);
        assert_eq!(found, expected, "{prefix}");
    }
}
