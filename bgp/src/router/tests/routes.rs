//! Routes: given, taken, refused, replaced, withdrawn.

use std::time::Duration;

use super::super::pair::{Lab, address, peer, prefix, speaker};
use crate::config::{Announcement, NextHopMode};
use crate::policy::{Filter, Operation, PrefixMatch, Rule, Verdict};
use crate::types::{Community, Family, Prefix};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_route_is_given_and_withdrawn_without_touching_the_session() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.announce(0, "10.1.0.0/24");
    lab.establish();
    lab.announce(0, "10.2.0.0/24");
    lab.run(SECOND);
    let expected = Some((Some(address(0)), "64512".to_owned()));
    assert_eq!(lab.best(1, "10.1.0.0/24"), expected);
    assert_eq!(lab.best(1, "10.2.0.0/24"), expected);
    assert_eq!(lab.summary(0, 1).prefixes_sent, 2);
    assert_eq!(lab.summary(1, 0).prefixes_accepted, 2);
    lab.reconfigure(0, |c| drop(c.announcements.remove(&prefix("10.1.0.0/24"))));
    lab.run(SECOND);
    assert_eq!(lab.best(1, "10.1.0.0/24"), None);
    assert_eq!(
        (
            lab.summary(0, 1).prefixes_sent,
            lab.summary(1, 0).prefixes_received
        ),
        (1, 1)
    );
    assert_eq!(lab.summary(1, 0).flaps, 0);
}

#[test]
fn routes_go_with_the_session_and_come_back_with_it() {
    let mut lab = Lab::mesh(&[64512, 64513, 64514]);
    lab.announce(0, "10.1.0.0/24");
    lab.establish();
    lab.run(SECOND);
    assert!(lab.best(1, "10.1.0.0/24").is_some());
    lab.cut.insert(0);
    lab.run(100 * SECOND);
    assert_eq!(lab.best(1, "10.1.0.0/24"), None);
    assert_eq!(lab.best(2, "10.1.0.0/24"), None);
    assert_eq!(lab.summary(1, 0).prefixes_received, 0);
    lab.cut.clear();
    lab.establish();
    lab.run(SECOND);
    assert!(lab.best(1, "10.1.0.0/24").is_some());
}

#[test]
fn end_of_rib_follows_the_initial_routes_for_every_family() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    for (index, other) in [(0, 1), (1, 0)] {
        lab.reconfigure(index, |c| {
            c.peers.get_mut(&address(other)).unwrap().families = Family::ALL.into_iter().collect();
        });
    }
    lab.announce(0, "10.1.0.0/24");
    lab.establish();
    lab.run(SECOND);
    let families = lab.summary(1, 0).families;
    assert_eq!(families.len(), 2);
    assert!(
        families
            .iter()
            .all(|f| f.end_of_rib_received && f.end_of_rib_sent)
    );
}

#[test]
fn ipv6_routes_over_an_ipv4_session_need_a_next_hop() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    for (index, other) in [(0, 1), (1, 0)] {
        lab.reconfigure(index, |c| {
            c.peers.get_mut(&address(other)).unwrap().families = Family::ALL.into_iter().collect();
        });
    }
    // With the same attributes as an IPv4 route, which has a next hop.
    lab.announce(0, "10.1.0.0/24");
    lab.announce(0, "fd00:1::/64");
    lab.establish();
    lab.run(SECOND);
    assert_eq!(lab.best(1, "fd00:1::/64"), None);
    lab.reconfigure(0, |c| c.next_hop.ipv6 = Some("fd00::1".parse().unwrap()));
    lab.run(SECOND);
    let best = lab.best(1, "fd00:1::/64").unwrap();
    assert_eq!(best.0, Some("fd00::1".parse().unwrap()));
    assert_eq!(lab.best(1, "10.1.0.0/24").unwrap().0, Some(address(0)));
    assert_eq!(lab.summary(0, 1).prefixes_sent, 2);
}

#[test]
fn internal_peers_do_not_pass_on_what_internal_peers_gave() {
    // 0 - 1 - 2 in one AS, 0 and 2 not connected.
    let mut configs: Vec<_> = (0..3).map(|index| speaker(index, 64512)).collect();
    for (index, other) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        configs[index]
            .peers
            .insert(address(other), peer(other, 64512));
    }
    let mut lab = Lab::new(configs);
    lab.announce(0, "10.1.0.0/24");
    lab.announce(1, "10.2.0.0/24");
    lab.establish();
    lab.run(SECOND);
    assert_eq!(
        lab.best(1, "10.1.0.0/24"),
        Some((Some(address(0)), String::new()))
    );
    assert_eq!(lab.best(2, "10.1.0.0/24"), None);
    assert_eq!(
        lab.best(2, "10.2.0.0/24"),
        Some((Some(address(1)), String::new()))
    );
    // Router 1 changing over to its own route must not leave the old one behind anywhere.
    lab.announce(1, "10.1.0.0/24");
    lab.run(SECOND);
    assert_eq!(
        lab.best(2, "10.1.0.0/24"),
        Some((Some(address(1)), String::new()))
    );
    lab.reconfigure(1, |c| drop(c.announcements.remove(&prefix("10.1.0.0/24"))));
    lab.run(SECOND);
    assert_eq!(lab.best(2, "10.1.0.0/24"), None);
}

#[test]
fn next_hops_by_mode() {
    // 0 (AS 1) - 1 (AS 2) - 2 (AS 2): what router 1 says about a route of router 0's.
    for (mode, expected) in [
        (NextHopMode::Auto, address(0)),
        (NextHopMode::Keep, address(0)),
        (NextHopMode::SelfAddress, address(1)),
    ] {
        let mut configs = vec![speaker(0, 1), speaker(1, 2), speaker(2, 2)];
        for (index, other, asn) in [(0, 1, 2), (1, 0, 1), (1, 2, 2), (2, 1, 2)] {
            configs[index]
                .peers
                .insert(address(other), peer(other, asn));
        }
        configs[1].peers.get_mut(&address(2)).unwrap().next_hop = mode;
        let mut lab = Lab::new(configs);
        lab.announce(0, "10.1.0.0/24");
        lab.establish();
        lab.run(SECOND);
        assert_eq!(
            lab.best(2, "10.1.0.0/24"),
            Some((Some(expected), "1".to_owned())),
            "{mode:?}"
        );
    }
}

#[test]
fn a_loop_is_refused_and_still_withdraws_the_route_it_replaces() {
    // 0 (AS 1) - 1 (AS 2) - 2 (AS 1): router 2 must not take AS 1's route back, nor keep an older one.
    let mut configs = vec![speaker(0, 1), speaker(1, 2), speaker(2, 1)];
    for (index, other, asn) in [(0, 1, 2), (1, 0, 1), (1, 2, 1), (2, 1, 2)] {
        configs[index]
            .peers
            .insert(address(other), peer(other, asn));
    }
    let mut lab = Lab::new(configs);
    lab.announce(1, "10.1.0.0/24");
    lab.establish();
    lab.run(SECOND);
    assert_eq!(
        lab.best(2, "10.1.0.0/24"),
        Some((Some(address(1)), "2".to_owned()))
    );
    // Now router 1 has it from AS 1 instead: the replacement has a loop in it for router 2.
    lab.announce(0, "10.1.0.0/24");
    lab.reconfigure(1, |c| drop(c.announcements.remove(&prefix("10.1.0.0/24"))));
    lab.run(SECOND);
    assert_eq!(lab.best(2, "10.1.0.0/24"), None);
    let line = lab.summary(2, 1);
    assert_eq!((line.prefixes_received, line.prefixes_accepted), (1, 0));
}

#[test]
fn without_a_filter_an_external_peer_gives_and_is_given_nothing() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    for index in [0, 1] {
        lab.reconfigure(index, |c| c.require_policy = true);
    }
    lab.announce(0, "10.1.0.0/24");
    lab.establish();
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_sent, 0);
    let pods = Filter::accept_only(vec![PrefixMatch::within(prefix("10.0.0.0/8"))]);
    lab.reconfigure(0, |c| {
        c.peers.get_mut(&address(1)).unwrap().export = Some(pods.clone())
    });
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_sent, 1);
    let line = lab.summary(1, 0);
    assert_eq!((line.prefixes_received, line.prefixes_accepted), (1, 0));
    lab.reconfigure(1, |c| {
        c.peers.get_mut(&address(0)).unwrap().import = Some(pods)
    });
    lab.run(SECOND);
    assert!(lab.best(1, "10.1.0.0/24").is_some());
    // And back: filters act on running sessions both ways.
    lab.reconfigure(0, |c| c.peers.get_mut(&address(1)).unwrap().export = None);
    lab.run(SECOND);
    assert_eq!(lab.best(1, "10.1.0.0/24"), None);
    assert_eq!(lab.summary(1, 0).flaps, 0);
}

#[test]
fn filter_operations_change_what_is_taken() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    let operations = vec![
        Operation::SetLocalPref(300),
        Operation::AddCommunity(Community::new(64513, 1)),
    ];
    let rule = Rule {
        operations,
        ..Rule::new(Verdict::Accept)
    };
    let import = Filter::new(vec![rule], Verdict::Reject);
    lab.reconfigure(1, |c| {
        c.peers.get_mut(&address(0)).unwrap().import = Some(import)
    });
    lab.announce(0, "10.1.0.0/24");
    lab.establish();
    lab.run(SECOND);
    let entry = lab.routers[1].rib().remove(0);
    assert_eq!(entry.local_pref, 300);
    assert_eq!(entry.communities, ["64513:1"]);
}

#[test]
fn well_known_communities_keep_routes_in() {
    for (community, internal, external) in [
        (Community::NO_EXPORT, true, false),
        (Community::NO_ADVERTISE, false, false),
        (Community::new(64512, 1), true, true),
    ] {
        let mut lab = Lab::mesh(&[64512, 64512, 64513]);
        lab.reconfigure(0, |c| {
            let communities = [community].into_iter().collect();
            let announcement = Announcement {
                communities,
                ..Announcement::default()
            };
            c.announcements.insert(prefix("10.1.0.0/24"), announcement);
        });
        lab.establish();
        lab.run(SECOND);
        assert_eq!(
            lab.summary(0, 1).prefixes_sent,
            u64::from(internal),
            "{community}"
        );
        assert_eq!(
            lab.summary(0, 2).prefixes_sent,
            u64::from(external),
            "{community}"
        );
    }
}

#[test]
fn a_slow_peer_delays_nobody_and_gets_the_last_state() {
    let mut lab = Lab::mesh(&[64512, 64513, 64514]);
    lab.establish();
    lab.run(SECOND);
    lab.slow.insert(2);
    for round in 0..50_u32 {
        lab.reconfigure(0, |c| {
            c.announcements.clear();
            for i in 0..100_u32 {
                let announcement = Announcement {
                    med: Some(round),
                    ..Announcement::default()
                };
                c.announcements
                    .insert(prefix(&format!("10.1.{i}.0/24")), announcement);
            }
        });
        lab.run(Duration::from_millis(10));
    }
    assert_eq!(lab.summary(1, 0).prefixes_accepted, 100);
    let before = lab.summary(0, 2).messages_sent.update;
    lab.hurry(2);
    lab.run(SECOND);
    let entries = lab.routers[2].rib();
    let direct = entries.iter().filter(|e| e.peer == Some(address(0)));
    assert!(direct.clone().all(|entry| entry.med == Some(49)));
    assert_eq!(direct.count(), 100);
    // A hundred prefixes with the same attributes are one message, and the 49 rounds before left no trace.
    assert_eq!(lab.summary(0, 2).messages_sent.update - before, 1);
}

#[test]
fn many_routes_are_packed_full() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.reconfigure(0, |c| {
        for i in 0..2000_u32 {
            let text = format!("10.{}.{}.0/24", i / 256, i % 256);
            c.announcements
                .insert(prefix(&text), Announcement::default());
        }
    });
    lab.establish();
    lab.run(SECOND);
    assert_eq!(lab.summary(1, 0).prefixes_accepted, 2000);
    // About 1,000 prefixes of 4 octets fit a message; and End-of-RIB is one.
    assert!(lab.summary(0, 1).messages_sent.update <= 4);
}

#[test]
fn a_subscriber_gets_a_snapshot_and_then_changes() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.announce(0, "10.1.0.0/24");
    lab.announce(1, "10.2.0.0/24");
    lab.establish();
    lab.run(SECOND);
    let subscriber = lab.routers[1].subscribe();
    let batches = lab.routes(1, subscriber);
    assert_eq!(batches.len(), 1);
    assert!(batches[0].synced);
    assert_eq!(batches[0].changes.len(), 2);
    let learned = batches[0]
        .changes
        .iter()
        .find(|c| c.prefix == prefix("10.1.0.0/24"))
        .unwrap();
    assert_eq!(learned.paths.len(), 1);
    assert_eq!(
        (learned.paths[0].next_hop, learned.paths[0].local),
        (address(0), false)
    );
    assert!(lab.routes(1, subscriber).is_empty());
    // Gone and back before the subscriber looks: one change with the state at the end.
    lab.reconfigure(0, |c| c.announcements.clear());
    lab.run(SECOND);
    lab.announce(0, "10.3.0.0/24");
    lab.run(SECOND);
    let changes: Vec<_> = lab
        .routes(1, subscriber)
        .into_iter()
        .flat_map(|b| b.changes)
        .collect();
    let mut summary: Vec<_> = changes.iter().map(|c| (c.prefix, c.paths.len())).collect();
    summary.sort();
    assert_eq!(
        summary,
        [(prefix("10.1.0.0/24"), 0), (prefix("10.3.0.0/24"), 1)]
    );
}

#[test]
fn an_empty_router_is_synced_at_once() {
    let mut lab = Lab::new(vec![speaker(0, 64512)]);
    let subscriber = lab.routers[0].subscribe();
    let batches = lab.routes(0, subscriber);
    assert_eq!(batches.len(), 1);
    assert!(batches[0].synced && batches[0].changes.is_empty());
}

#[test]
fn two_equal_paths_are_multipath_and_one_is_left_when_the_other_goes() {
    // Routers 1 and 2 (AS 2, not connected to each other) both have the route; router 0 gets it from both.
    let mut configs = vec![speaker(0, 1), speaker(1, 2), speaker(2, 2)];
    for (index, other, asn) in [(0, 1, 2), (0, 2, 2), (1, 0, 1), (2, 0, 1)] {
        configs[index]
            .peers
            .insert(address(other), peer(other, asn));
    }
    let mut lab = Lab::new(configs);
    lab.announce(1, "0.0.0.0/0");
    lab.announce(2, "0.0.0.0/0");
    lab.establish();
    lab.run(SECOND);
    let subscriber = lab.routers[0].subscribe();
    let change = lab.routes(0, subscriber).remove(0).changes.remove(0);
    let next_hops: Vec<_> = change.paths.iter().map(|p| p.next_hop).collect();
    assert_eq!(next_hops, [address(1), address(2)]);
    lab.kill_connections(1);
    lab.run(Duration::from_millis(10));
    let change = lab.routes(0, subscriber).remove(0).changes.remove(0);
    let next_hops: Vec<_> = change.paths.iter().map(|p| p.next_hop).collect();
    assert_eq!(next_hops, [address(2)]);
}

#[test]
fn the_end_of_a_family_is_told_before_the_next_one_is_done() {
    let asns = [64512, 64513];
    let mut lab = Lab::mesh(&asns);
    let families = || Family::ALL.into_iter().collect();
    for router in 0..2 {
        lab.reconfigure(router, |config| {
            config.next_hop.ipv6 = Some("fd00::1".parse().unwrap());
            config
                .peers
                .values_mut()
                .for_each(|peer| peer.families = families());
        });
    }
    // Each with attributes of its own, so that they do not all go into one batch.
    const EACH: u32 = 3000;
    lab.reconfigure(0, |config| {
        for index in 0..EACH {
            let own = Announcement {
                med: Some(index),
                ..Announcement::default()
            };
            let v4 = Prefix::v4((0x0a00_0000 + (index << 8)).into(), 24).unwrap();
            let v6 = Prefix::v6(
                ((0xfd01_u128 << 112) + (u128::from(index) << 64)).into(),
                64,
            );
            config.announcements.insert(v6.unwrap(), own.clone());
            config.announcements.insert(v4, own);
        }
    });
    let ended = |lab: &Lab| -> Vec<Family> {
        let families = lab.summary(1, 0).families.into_iter();
        let ended = families.filter(|family| family.end_of_rib_received);
        ended.map(|family| family.family).collect()
    };
    lab.run_until(60 * SECOND, |lab| !ended(lab).is_empty());
    assert_eq!(ended(&lab), [Family::Ipv4Unicast]);
    let received = lab.summary(1, 0).prefixes_received;
    assert!((3000..6000).contains(&received), "{received}");
    lab.run_until(60 * SECOND, |lab| ended(lab).len() == 2);
    assert_eq!(lab.summary(1, 0).prefixes_received, 6000);
    let told = lab.summary(0, 1).families;
    assert!(told.iter().all(|family| family.end_of_rib_sent));
}
