//! Route refresh (RFC 2918, RFC 7313), seen by the one who asks, and roles (RFC 9234).

use std::time::Duration;

use bytes::BytesMut;

use super::super::ConnectionId;
use super::super::pair::{Lab, address, prefix};
use crate::config::PeerRole;
use crate::policy::Refusal;
use crate::types::Family;
use crate::wire::{self, Context, Message, RefreshSubtype, RouteRefresh};

const SECOND: Duration = Duration::from_secs(1);

/// Routers 0, 1, 2 in a mesh of three ASes; router 1 announces two routes.
fn lab() -> Lab {
    let mut lab = Lab::mesh(&[64512, 64513, 64514]);
    lab.announce(1, "10.1.0.0/24");
    lab.announce(1, "10.2.0.0/24");
    lab.establish();
    lab.run(SECOND);
    lab
}

/// Router 0 is given a ROUTE-REFRESH as if router 1 had sent it.
fn say(lab: &mut Lab, subtype: RefreshSubtype) {
    let refresh = RouteRefresh {
        family: Family::Ipv4Unicast,
        subtype,
    };
    let mut octets = BytesMut::new();
    wire::encode(
        &Message::RouteRefresh(refresh),
        &Context::default(),
        &mut octets,
    )
    .unwrap();
    let now = lab.now;
    let router = &mut lab.routers[0];
    let peer = router.addresses[&address(1)];
    let serial = router.peers[&peer].session.as_ref().unwrap().serial;
    router.handle_octets(now, ConnectionId { peer, serial }, &octets);
    lab.settle();
}

#[test]
fn a_refresh_brings_everything_again_and_changes_nothing() {
    let mut lab = lab();
    let before = lab.summary(0, 1).messages_received;
    assert!(lab.routers[0].refresh(address(1)));
    assert!(!lab.routers[0].refresh([10, 9, 9, 9].into()));
    lab.run(SECOND);
    let after = lab.summary(0, 1).messages_received;
    assert!(after.update > before.update);
    // The beginning and the end.
    assert_eq!(after.route_refresh - before.route_refresh, 2);
    assert_eq!(lab.summary(0, 1).prefixes_received, 2);
    assert!(lab.best(0, "10.1.0.0/24").is_some());
    assert!(lab.best(0, "10.2.0.0/24").is_some());
}

#[test]
fn what_a_refresh_does_not_mention_goes_at_its_end() {
    let mut lab = lab();
    say(&mut lab, RefreshSubtype::Begin);
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_received, 2);
    // A new attribute makes the route a new one; a second beginning would make it stale again.
    lab.reconfigure(1, |config| {
        let announcement = config.announcements.get_mut(&prefix("10.1.0.0/24"));
        announcement.unwrap().med = Some(7);
    });
    lab.run(SECOND);
    say(&mut lab, RefreshSubtype::End);
    lab.run(SECOND);
    assert!(lab.best(0, "10.1.0.0/24").is_some());
    assert_eq!(lab.summary(0, 1).prefixes_received, 1);
    // Router 2 still has its own way to the other one, and so has router 0.
    let (_, path) = lab.best(0, "10.2.0.0/24").unwrap();
    assert_eq!(path, "64514 64513");
}

#[test]
fn an_end_without_a_beginning_means_nothing() {
    let mut lab = lab();
    say(&mut lab, RefreshSubtype::End);
    say(&mut lab, RefreshSubtype::Unknown(9));
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_received, 2);
    // The end counts once.
    say(&mut lab, RefreshSubtype::Begin);
    say(&mut lab, RefreshSubtype::End);
    assert_eq!(lab.summary(0, 1).prefixes_received, 0);
    assert!(lab.routers[0].refresh(address(1)));
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_received, 2);
    say(&mut lab, RefreshSubtype::End);
    assert_eq!(lab.summary(0, 1).prefixes_received, 2);
}

#[test]
fn a_refresh_that_never_ends_is_ended() {
    let mut lab = lab();
    say(&mut lab, RefreshSubtype::Begin);
    lab.run(359 * SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_received, 2);
    lab.run(2 * SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_received, 0);
}

/// Router 1 tells its provider 0 what its peer 2 told it.
#[test]
fn a_leak_is_neither_sent_nor_taken() {
    let mut lab = Lab::mesh(&[64512, 64513, 64514]);
    let role = |lab: &mut Lab, index: usize, other: usize, role| {
        lab.reconfigure(index, |config| {
            config.peers.get_mut(&address(other)).unwrap().role = Some(role);
        });
    };
    role(&mut lab, 1, 2, PeerRole::Peer);
    role(&mut lab, 1, 0, PeerRole::Customer);
    role(&mut lab, 0, 1, PeerRole::Provider);
    for (index, other) in [(0, 2), (2, 0)] {
        lab.reconfigure(index, |config| {
            config.peers.get_mut(&address(other)).unwrap().disabled = true;
        });
    }
    lab.announce(2, "10.3.0.0/24");
    lab.announce(1, "10.1.0.0/24");
    lab.run(30 * SECOND);
    // Router 2 says nothing of roles, and marks nothing; router 1 does so on arrival.
    assert!(lab.best(1, "10.3.0.0/24").is_some());
    assert_eq!(lab.best(0, "10.3.0.0/24"), None);
    assert!(lab.best(0, "10.1.0.0/24").is_some());
    // Towards the customer the route is marked; a customer that says so of a route of its own leaks it.
    lab.announce(0, "10.0.0.0/24");
    lab.run(SECOND);
    assert!(lab.best(1, "10.0.0.0/24").is_some());
    assert_eq!(lab.best(2, "10.0.0.0/24"), None);
    role(&mut lab, 2, 1, PeerRole::Provider);
    role(&mut lab, 1, 2, PeerRole::Customer);
    role(&mut lab, 1, 0, PeerRole::Provider);
    role(&mut lab, 0, 1, PeerRole::Customer);
    lab.run(60 * SECOND);
    // From provider 2 to customer 1 to its customer 0: down all the way.
    assert!(lab.best(0, "10.3.0.0/24").is_some());
    assert_eq!(lab.best(2, "10.0.0.0/24").unwrap().1, "64513 64512");
    // Router 0 now calls itself what it is not; were roles not exchanged, the attribute alone would tell.
    lab.reconfigure(1, |config| {
        config.peers.get_mut(&address(0)).unwrap().role = None
    });
    role(&mut lab, 0, 1, PeerRole::Provider);
    lab.run(60 * SECOND);
    let entries = lab.routers[0].rib();
    let leak = entries.iter().find(|e| e.prefix == prefix("10.3.0.0/24"));
    assert_eq!(leak.unwrap().refused, Some(Refusal::RouteLeak));
    assert_eq!(lab.best(0, "10.3.0.0/24"), None);
}
