//! What policy does between routers: reflection, other ASes, maintenance, aggregates, reasons.

use std::time::Duration;

use super::super::pair::{Lab, address, peer, prefix, speaker};
use crate::config::{Aggregate, Announcement, LocalAs, PeerPolicy, RemovePrivateAs};
use crate::policy::{Filter, Operation, Refusal, Rule, Verdict};
use crate::router::RibEntry;
use crate::types::{Community, RouterId};

const SECOND: Duration = Duration::from_secs(1);

/// Routers in a row or a star: `links` are pairs of indexes.
fn lab(asns: &[u32], links: &[(usize, usize)]) -> Lab {
    let mut configs: Vec<_> = (0..asns.len())
        .map(|index| speaker(index, asns[index]))
        .collect();
    for (a, b) in links {
        configs[*a].peers.insert(address(*b), peer(*b, asns[*b]));
        configs[*b].peers.insert(address(*a), peer(*a, asns[*a]));
    }
    Lab::new(configs)
}

/// Changes what router `index` does with its peer `other`.
fn set(lab: &mut Lab, index: usize, other: usize, change: impl FnOnce(&mut PeerPolicy)) {
    lab.reconfigure(index, |config| {
        change(&mut config.peers.get_mut(&address(other)).unwrap().policy);
    });
}

fn entry(lab: &Lab, index: usize, text: &str) -> RibEntry {
    let mut entries = lab.routers[index].rib().into_iter();
    entries
        .find(|entry| entry.prefix == prefix(text) && entry.best)
        .unwrap_or_else(|| panic!("router {index} has no {text}"))
}

fn has(lab: &Lab, index: usize, text: &str) -> bool {
    lab.best(index, text).is_some()
}

fn flaps(lab: &Lab) -> u64 {
    let lines = lab.routers.iter().flat_map(|router| router.summary());
    lines.map(|line| line.flaps).sum()
}

#[test]
fn a_reflector_passes_on_between_clients_and_others() {
    // Router 0 reflects; 1 and 2 are clients, 3 and 4 are not.
    let links = [(0, 1), (0, 2), (0, 3), (0, 4)];
    let mut lab = lab(&[64512; 5], &links);
    lab.announce(1, "10.1.0.0/24");
    lab.announce(3, "10.3.0.0/24");
    lab.establish();
    lab.run(SECOND);
    assert!(!has(&lab, 2, "10.1.0.0/24"));
    // On running sessions.
    set(&mut lab, 0, 1, |p| p.route_reflector_client = true);
    set(&mut lab, 0, 2, |p| p.route_reflector_client = true);
    lab.run(SECOND);
    for other in [2, 3, 4] {
        assert!(has(&lab, other, "10.1.0.0/24"), "router {other}");
    }
    assert!(has(&lab, 2, "10.3.0.0/24") && has(&lab, 1, "10.3.0.0/24"));
    assert!(!has(&lab, 4, "10.3.0.0/24"));
    // The next hop is the originator's, and nothing came back to it.
    assert_eq!(entry(&lab, 2, "10.1.0.0/24").next_hop, Some(address(1)));
    assert_eq!(lab.summary(1, 0).prefixes_received, 1);
    // Withdrawn everywhere; and no client any more, no reflection.
    lab.reconfigure(1, |c| c.announcements.clear());
    lab.run(SECOND);
    assert!(!has(&lab, 2, "10.1.0.0/24") && !has(&lab, 4, "10.1.0.0/24"));
    set(&mut lab, 0, 1, |p| p.route_reflector_client = false);
    set(&mut lab, 0, 2, |p| p.route_reflector_client = false);
    lab.run(SECOND);
    assert!(!has(&lab, 2, "10.3.0.0/24"));
    assert_eq!(flaps(&lab), 0);
}

#[test]
fn reflectors_in_a_ring_do_not_go_round() {
    // Three reflectors, each a client of the next, and one source.
    let mut lab = lab(&[64512; 4], &[(0, 1), (1, 2), (2, 0), (0, 3)]);
    for (index, other) in [(0, 1), (1, 2), (2, 0), (0, 3)] {
        set(&mut lab, index, other, |p| p.route_reflector_client = true);
    }
    lab.announce(3, "10.3.0.0/24");
    lab.establish();
    lab.run(SECOND);
    for index in 0..3 {
        assert!(has(&lab, index, "10.3.0.0/24"), "router {index}");
    }
    lab.reconfigure(3, |c| c.announcements.clear());
    lab.run(SECOND);
    for index in 0..3 {
        assert!(!has(&lab, index, "10.3.0.0/24"), "router {index}");
        assert!(lab.routers[index].rib().is_empty(), "router {index}");
    }
}

#[test]
fn two_reflectors_of_one_cluster_refuse_each_others_routes() {
    let mut lab = lab(&[64512; 4], &[(0, 1), (0, 2), (1, 2), (0, 3)]);
    for index in [0, 1] {
        lab.reconfigure(index, |c| c.cluster_id = Some(RouterId(99)));
        set(&mut lab, index, 2, |p| p.route_reflector_client = true);
    }
    set(&mut lab, 0, 3, |p| p.route_reflector_client = true);
    lab.announce(3, "10.3.0.0/24");
    lab.establish();
    lab.run(SECOND);
    let refused = lab.routers[1].rib().remove(0);
    assert_eq!(refused.refused, Some(Refusal::ClusterLoop));
    assert_eq!(lab.summary(1, 0).refused.get(Refusal::ClusterLoop), 1);
    assert!(has(&lab, 2, "10.3.0.0/24"));
}

#[test]
fn an_edited_filter_reaches_both_directions_without_a_new_session() {
    let mut lab = lab(&[64512, 64513], &[(0, 1)]);
    lab.announce(0, "10.1.0.0/24");
    lab.establish();
    lab.run(SECOND);
    let rule = |operations| {
        let rule = Rule {
            operations,
            ..Rule::new(Verdict::Accept)
        };
        Some(Filter::new(vec![rule], Verdict::Reject))
    };
    let export = rule(vec![
        Operation::AddExtendedCommunity("rt:64512:9".parse().unwrap()),
        Operation::AddCommunity(Community::new(64512, 9)),
        Operation::Prepend {
            asn: None,
            count: 2,
        },
    ]);
    lab.reconfigure(0, |c| c.peers.get_mut(&address(1)).unwrap().export = export);
    lab.run(SECOND);
    let taken = entry(&lab, 1, "10.1.0.0/24");
    assert_eq!(taken.as_path, "64512 64512 64512");
    assert_eq!(taken.extended_communities, ["rt:64512:9"]);
    let mut tagged = Rule {
        operations: vec![Operation::SetMetric(77), Operation::SetLocalPref(5)],
        ..Rule::new(Verdict::Accept)
    };
    tagged.conditions.communities.any = vec!["64512:*".parse().unwrap()];
    tagged.conditions.as_path = "^64512{3}$".parse().ok();
    let import = Filter::new(vec![tagged], Verdict::Reject);
    lab.reconfigure(1, |c| {
        c.peers.get_mut(&address(0)).unwrap().import = Some(import)
    });
    let taken = entry(&lab, 1, "10.1.0.0/24");
    assert_eq!((taken.local_pref, taken.metric), (5, Some(77)));
    let subscriber = lab.routers[1].subscribe();
    let change = lab.routes(1, subscriber).remove(0).changes.remove(0);
    assert_eq!(change.paths[0].metric, Some(77));
    // Without the community the filter has nothing left to accept.
    lab.reconfigure(0, |c| c.peers.get_mut(&address(1)).unwrap().export = None);
    lab.run(SECOND);
    assert!(!has(&lab, 1, "10.1.0.0/24"));
    let refused = lab.routers[1].rib().remove(0);
    assert_eq!(refused.refused, Some(Refusal::Filter));
    assert_eq!(flaps(&lab), 0);
}

#[test]
fn sites_that_share_an_as() {
    // 0 and 2 are sites in AS 65001, 1 the provider.
    let mut lab = lab(&[65001, 64512, 65001], &[(0, 1), (1, 2)]);
    lab.announce(0, "10.1.0.0/24");
    lab.establish();
    lab.run(SECOND);
    assert_eq!(
        lab.routers[2].rib()[0].refused,
        Some(Refusal::AsLoop),
        "{:?}",
        lab.routers[2].rib()
    );
    set(&mut lab, 2, 1, |p| p.allow_own_as = 1);
    assert_eq!(entry(&lab, 2, "10.1.0.0/24").as_path, "64512 65001");
    set(&mut lab, 2, 1, |p| p.allow_own_as = 0);
    assert!(!has(&lab, 2, "10.1.0.0/24"));
    set(&mut lab, 1, 2, |p| p.as_override = true);
    lab.run(SECOND);
    assert_eq!(entry(&lab, 2, "10.1.0.0/24").as_path, "64512 64512");
    assert_eq!(flaps(&lab), 0);
}

#[test]
fn private_ases_stay_in() {
    let mut lab = lab(&[64513, 3320, 1299], &[(0, 1), (1, 2)]);
    lab.announce(0, "10.1.0.0/24");
    lab.establish();
    for (mode, path) in [
        (None, "3320 64513"),
        (Some(RemovePrivateAs::All), "3320"),
        (Some(RemovePrivateAs::Leading), "3320"),
        (Some(RemovePrivateAs::Replace), "3320 3320"),
    ] {
        set(&mut lab, 1, 2, |p| p.remove_private_as = mode);
        lab.run(SECOND);
        assert_eq!(entry(&lab, 2, "10.1.0.0/24").as_path, path, "{mode:?}");
    }
}

#[test]
fn maintenance_drains_both_directions_and_ends() {
    // 0 and 1 in one AS; both have the route from 2, and 0 has the better way to it.
    let mut lab = lab(&[64512, 64512, 65002], &[(0, 1), (0, 2), (1, 2)]);
    lab.announce(2, "10.2.0.0/24");
    lab.announce(0, "10.1.0.0/24");
    lab.establish();
    lab.run(SECOND);
    assert_eq!(entry(&lab, 0, "10.2.0.0/24").peer, Some(address(2)));
    // Router 0 is going to lose its session with 2.
    set(&mut lab, 0, 2, |p| p.graceful_shutdown = true);
    lab.run(SECOND);
    assert_eq!(entry(&lab, 0, "10.2.0.0/24").peer, Some(address(1)));
    // The other side prefers the way over router 1 as well: it honours the community.
    let entries = lab.routers[2].rib();
    let direct = entries
        .iter()
        .find(|e| e.prefix == prefix("10.1.0.0/24") && e.peer == Some(address(0)))
        .unwrap();
    assert_eq!(direct.local_pref, 0);
    assert_eq!(direct.communities, ["65535:0"]);
    assert!(!direct.best);
    assert!(lab.summary(0, 2).notes[0].contains("graceful shutdown"));
    set(&mut lab, 0, 2, |p| p.graceful_shutdown = false);
    lab.run(SECOND);
    assert_eq!(entry(&lab, 0, "10.2.0.0/24").peer, Some(address(2)));
    assert!(entry(&lab, 2, "10.1.0.0/24").communities.is_empty());
    assert_eq!(flaps(&lab), 0);
}

#[test]
fn local_as_on_both_ways() {
    let mut lab = lab(&[64512, 65002, 65003], &[(0, 1), (0, 2)]);
    let local = LocalAs {
        asn: crate::types::Asn(64999),
        no_prepend: false,
        replace_as: false,
    };
    set(&mut lab, 0, 1, |p| p.local_as = Some(local));
    lab.reconfigure(1, |c| {
        c.peers.get_mut(&address(0)).unwrap().asn = crate::types::Asn(64999).into();
    });
    lab.announce(0, "10.1.0.0/24");
    lab.announce(1, "10.2.0.0/24");
    lab.establish();
    lab.run(SECOND);
    assert_eq!(entry(&lab, 1, "10.1.0.0/24").as_path, "64999 64512");
    assert_eq!(entry(&lab, 2, "10.2.0.0/24").as_path, "64512 64999 65002");
    set(&mut lab, 0, 1, |p| {
        p.local_as = Some(LocalAs {
            no_prepend: true,
            replace_as: true,
            ..local
        });
    });
    lab.run(SECOND);
    assert_eq!(entry(&lab, 1, "10.1.0.0/24").as_path, "64999");
    assert_eq!(entry(&lab, 2, "10.2.0.0/24").as_path, "64512 65002");
    assert_eq!(flaps(&lab), 0);
}

#[test]
fn rfc_8212_says_what_it_does() {
    let mut lab = lab(&[64512, 64513], &[(0, 1)]);
    lab.reconfigure(0, |c| c.require_policy = true);
    lab.announce(1, "10.1.0.0/24");
    lab.establish();
    lab.run(SECOND);
    let line = lab.summary(0, 1);
    assert_eq!(line.notes.len(), 2);
    assert!(line.notes[0].starts_with("no import filter: nothing is taken (RFC 8212)"));
    assert!(line.notes[1].starts_with("no export filter: nothing is given (RFC 8212)"));
    assert_eq!(line.refused.get(Refusal::NoFilter), 1);
    assert_eq!(lab.routers[0].rib()[0].refused, Some(Refusal::NoFilter));
    lab.reconfigure(0, |c| {
        let peer = c.peers.get_mut(&address(1)).unwrap();
        peer.import = Some(Filter::accept_all());
        peer.export = Some(Filter::accept_all());
    });
    assert!(lab.summary(0, 1).notes.is_empty());
    assert!(has(&lab, 0, "10.1.0.0/24"));
}

fn aggregate(summary_only: bool) -> Aggregate {
    Aggregate {
        summary_only,
        communities: [Community::new(64512, 42)].into(),
        ..Aggregate::default()
    }
}

#[test]
fn an_aggregate_lives_as_long_as_its_last_contributor() {
    // 0 gives 1 two routes, 1 aggregates for 2.
    let mut lab = lab(&[65000, 64512, 65002], &[(0, 1), (1, 2)]);
    lab.reconfigure(1, |c| {
        c.aggregates.insert(prefix("10.0.0.0/8"), aggregate(false));
    });
    lab.establish();
    lab.run(SECOND);
    assert!(!has(&lab, 2, "10.0.0.0/8"));
    lab.announce(0, "10.1.0.0/24");
    lab.announce(0, "10.2.0.0/24");
    lab.announce(0, "192.0.2.0/24");
    lab.run(SECOND);
    let taken = entry(&lab, 2, "10.0.0.0/8");
    assert_eq!(taken.as_path, "64512");
    assert_eq!(taken.communities, ["64512:42"]);
    assert!(has(&lab, 2, "10.1.0.0/24"));
    lab.reconfigure(0, |c| drop(c.announcements.remove(&prefix("10.1.0.0/24"))));
    lab.run(SECOND);
    assert!(has(&lab, 2, "10.0.0.0/8"));
    lab.reconfigure(0, |c| drop(c.announcements.remove(&prefix("10.2.0.0/24"))));
    lab.run(Duration::from_millis(10));
    assert!(!has(&lab, 2, "10.0.0.0/8") && has(&lab, 2, "192.0.2.0/24"));
    // And with the session the routes came over.
    lab.announce(0, "10.3.0.0/24");
    lab.run(SECOND);
    assert!(has(&lab, 2, "10.0.0.0/8"));
    lab.kill_connections(0);
    lab.run(Duration::from_millis(10));
    assert!(!has(&lab, 2, "10.0.0.0/8"));
}

#[test]
fn a_summary_stands_for_what_is_in_it() {
    let mut lab = lab(&[65000, 64512, 65002], &[(0, 1), (1, 2)]);
    for third in 0..10 {
        lab.announce(0, &format!("10.1.{third}.0/24"));
    }
    lab.announce(0, "10.0.0.0/8");
    lab.establish();
    lab.run(SECOND);
    assert_eq!(lab.summary(1, 2).prefixes_sent, 11);
    // Peer 0 has the aggregate's own prefix too, which is no contributor and not hidden.
    lab.reconfigure(1, |c| {
        c.aggregates.insert(prefix("10.1.0.0/16"), aggregate(true));
    });
    lab.run(SECOND);
    assert_eq!(lab.summary(1, 2).prefixes_sent, 2);
    assert!(has(&lab, 2, "10.1.0.0/16") && has(&lab, 2, "10.0.0.0/8"));
    assert!(!has(&lab, 2, "10.1.3.0/24"));
    // Another way round: everything comes back.
    lab.reconfigure(1, |c| {
        c.aggregates.insert(prefix("10.1.0.0/16"), aggregate(false));
    });
    lab.run(SECOND);
    assert_eq!(lab.summary(1, 2).prefixes_sent, 12);
    lab.reconfigure(1, |c| c.aggregates.clear());
    lab.run(SECOND);
    assert_eq!(lab.summary(1, 2).prefixes_sent, 11);
    assert!(!has(&lab, 2, "10.1.0.0/16"));
    assert_eq!(flaps(&lab), 0);
}

#[test]
fn aggregates_in_aggregates_and_from_announcements() {
    let mut lab = lab(&[64512, 65002], &[(0, 1)]);
    lab.announce(0, "10.1.2.0/24");
    lab.reconfigure(0, |c| {
        c.aggregates.insert(prefix("10.0.0.0/8"), aggregate(false));
        c.aggregates.insert(prefix("10.1.0.0/16"), aggregate(false));
        c.aggregates.insert(prefix("fd00::/8"), aggregate(false));
    });
    lab.establish();
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_sent, 3);
    // The prefix of an aggregate becomes an announcement, and an aggregate again.
    lab.reconfigure(0, |c| {
        c.aggregates.remove(&prefix("10.1.0.0/16"));
        c.announcements
            .insert(prefix("10.1.0.0/16"), Announcement::default());
    });
    lab.run(SECOND);
    assert!(entry(&lab, 1, "10.1.0.0/16").communities.is_empty());
    lab.reconfigure(0, |c| {
        c.announcements.remove(&prefix("10.1.0.0/16"));
        c.aggregates.insert(prefix("10.1.0.0/16"), aggregate(false));
    });
    lab.run(SECOND);
    assert_eq!(entry(&lab, 1, "10.1.0.0/16").communities, ["64512:42"]);
    lab.reconfigure(0, |c| c.announcements.clear());
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_sent, 0);
    assert!(lab.routers[0].rib().is_empty());
}

#[test]
fn whatever_the_reason_the_route_before_is_gone_everywhere() {
    // 0 gives 1 a good route, then the same prefix with something wrong; 2 has it from 1.
    type Change = fn(&mut Lab);
    let table: [(Refusal, Change); 4] = [
        (Refusal::AsLoop, |lab| {
            let operations = vec![Operation::PrependPath(vec![crate::types::Asn(64512)])];
            let rule = Rule {
                operations,
                ..Rule::new(Verdict::Accept)
            };
            let export = Filter::new(vec![rule], Verdict::Reject);
            lab.reconfigure(0, |c| {
                c.peers.get_mut(&address(1)).unwrap().export = Some(export)
            });
        }),
        (Refusal::NextHopOwn, |lab| {
            lab.reconfigure(1, |c| c.next_hop.ipv4 = Some([10, 0, 9, 9].into()));
            next_hop(lab, [10, 0, 9, 9]);
        }),
        (Refusal::NextHopInvalid, |lab| next_hop(lab, [127, 0, 0, 9])),
        (Refusal::Filter, |lab| {
            let mut rule = Rule::new(Verdict::Reject);
            rule.conditions.communities.any = vec!["1:1".parse().unwrap()];
            let import = Filter::new(vec![rule], Verdict::Accept);
            lab.reconfigure(1, |c| {
                c.peers.get_mut(&address(0)).unwrap().import = Some(import)
            });
            lab.reconfigure(0, |c| {
                let announcement = c.announcements.get_mut(&prefix("10.1.0.0/24")).unwrap();
                announcement.communities.insert(Community::new(1, 1));
            });
        }),
    ];
    for (refusal, change) in table {
        let mut lab = lab(&[65000, 64512, 65002], &[(0, 1), (1, 2)]);
        lab.announce(0, "10.1.0.0/24");
        lab.establish();
        lab.run(SECOND);
        assert!(has(&lab, 2, "10.1.0.0/24"));
        change(&mut lab);
        lab.run(SECOND);
        let kept = lab.routers[1].rib().remove(0);
        assert_eq!(kept.refused, Some(refusal));
        assert_eq!(lab.summary(1, 0).refused.get(refusal), 1, "{refusal}");
        assert_eq!(lab.summary(1, 0).prefixes_accepted, 0, "{refusal}");
        assert!(lab.routers[2].rib().is_empty(), "{refusal}");
        assert_eq!(flaps(&lab), 0, "{refusal}");
    }
}

/// Router 0 announces with this next hop.
fn next_hop(lab: &mut Lab, octets: [u8; 4]) {
    lab.reconfigure(0, |c| {
        let announcement = c.announcements.get_mut(&prefix("10.1.0.0/24")).unwrap();
        announcement.next_hop = Some(octets.into());
    });
}
