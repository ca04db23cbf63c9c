//! Graceful restart (RFC 4724), seen by the one who helps.

use std::time::Duration;

use super::super::pair::{Lab, address, peer, prefix, speaker};
use super::super::{Router, SubscriberId};
use crate::config::{BfdConfig, GracefulRestart};
use crate::fsm::State;
use crate::router::Lost;
use crate::types::Prefix;

const SECOND: Duration = Duration::from_secs(1);
const RESTART: GracefulRestart = GracefulRestart {
    restart_time: 60,
    restarting: false,
    forwarding_preserved: true,
    notification: false,
    long_lived_time: 0,
    long_lived_partial: false,
};

/// Router 0 helps, router 1 restarts, router 2 looks on; router 1 announces two routes.
fn lab() -> Lab {
    let asns = [64512, 64513, 64514];
    let mut configs: Vec<_> = (0..3).map(|index| speaker(index, asns[index])).collect();
    for (index, other) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
        configs[index].graceful_restart = Some(RESTART);
        configs[index]
            .peers
            .insert(address(other), peer(other, asns[other]));
    }
    let mut lab = Lab::new(configs);
    lab.announce(1, "10.1.0.0/24");
    lab.announce(1, "10.2.0.0/24");
    lab.establish();
    lab.run(SECOND);
    lab
}

/// Router 1's process ends: its connections are closed, and nobody is there any more.
fn die(lab: &mut Lab) {
    lab.kill_connections(1);
    lab.run(Duration::from_millis(10));
    lab.cut.insert(1);
}

/// Router 1 dies; `change` is what is different in its next life.
fn restart(lab: &mut Lab, change: impl FnOnce(&mut Router, std::time::Instant)) {
    let config = lab.routers[1].config().clone();
    die(lab);
    lab.run(5 * SECOND);
    let mut next = Router::new(lab.now, config, 77).unwrap();
    change(&mut next, lab.now);
    lab.routers[1] = next;
    lab.forget(1);
    lab.cut.clear();
}

fn changed(lab: &mut Lab, subscriber: SubscriberId) -> Vec<(Prefix, usize)> {
    let batches = lab.routes(0, subscriber);
    batches
        .iter()
        .flat_map(|b| &b.changes)
        .map(|c| (c.prefix, c.paths.len()))
        .collect()
}

/// A subscriber of router 0 that has seen everything there is.
fn subscriber(lab: &mut Lab) -> SubscriberId {
    let subscriber = lab.routers[0].subscribe();
    assert_eq!(changed(lab, subscriber).len(), 2);
    subscriber
}

#[test]
fn nobody_notices_a_restart() {
    let mut lab = lab();
    let subscriber = subscriber(&mut lab);
    let updates = lab.summary(2, 0).messages_received.update;
    restart(&mut lab, |_, _| {});
    assert_eq!(lab.routers[0].established(), 1);
    assert!(lab.best(0, "10.1.0.0/24").is_some());
    lab.establish();
    lab.run(700 * SECOND);
    assert_eq!(lab.summary(0, 1).flaps, 1);
    assert_eq!(changed(&mut lab, subscriber), []);
    assert_eq!(lab.summary(2, 0).messages_received.update, updates);
    assert_eq!(lab.summary(0, 1).prefixes_accepted, 2);
}

#[test]
fn what_is_not_announced_again_goes_at_the_end_of_rib() {
    let mut lab = lab();
    let subscriber = subscriber(&mut lab);
    restart(&mut lab, |router, now| {
        let mut config = router.config().clone();
        config.announcements.remove(&prefix("10.2.0.0/24"));
        router.configure(now, config).unwrap();
    });
    lab.establish();
    lab.run(SECOND);
    assert_eq!(changed(&mut lab, subscriber), [(prefix("10.2.0.0/24"), 0)]);
    assert!(lab.best(2, "10.1.0.0/24").is_some());
    assert_eq!(lab.best(2, "10.2.0.0/24"), None);
}

#[test]
fn a_peer_that_does_not_come_back_in_time_loses_its_routes() {
    let mut lab = lab();
    die(&mut lab);
    lab.run(59 * SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_accepted, 2);
    lab.run(2 * SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_received, 0);
    assert_eq!(lab.best(2, "10.1.0.0/24"), None);
}

#[test]
fn a_second_restart_inside_the_first_is_forgiven() {
    let mut lab = lab();
    let subscriber = subscriber(&mut lab);
    for _ in 0..3 {
        restart(&mut lab, |_, _| {});
        lab.run_until(20 * SECOND, |lab| lab.routers[0].established() == 2);
    }
    lab.establish();
    lab.run(700 * SECOND);
    assert_eq!(changed(&mut lab, subscriber), []);
}

#[test]
fn a_peer_that_lost_its_forwarding_state_loses_its_routes_when_it_is_back() {
    let mut lab = lab();
    let subscriber = subscriber(&mut lab);
    restart(&mut lab, |router, now| {
        let mut config = router.config().clone();
        config.graceful_restart = None;
        config.announcements.clear();
        router.configure(now, config).unwrap();
    });
    lab.routers[1] = {
        let config = lab.routers[1].config().clone();
        Router::new(lab.now, config, 78).unwrap()
    };
    lab.establish();
    assert_eq!(changed(&mut lab, subscriber).len(), 2);
    assert_eq!(lab.summary(0, 1).prefixes_received, 0);
}

#[test]
fn a_notification_or_a_removed_peer_is_no_restart() {
    let mut lab = lab();
    let now = lab.now;
    let cease = crate::wire::Notification::administrative_shutdown("");
    lab.routers[1].stop(now, Some(cease));
    lab.run(Duration::from_millis(10));
    assert_eq!(lab.summary(0, 1).prefixes_received, 0);

    let mut lab = self::lab();
    die(&mut lab);
    lab.run(SECOND);
    assert!(lab.best(2, "10.1.0.0/24").is_some());
    lab.reconfigure(0, |config| drop(config.peers.remove(&address(1))));
    lab.run(SECOND);
    assert_eq!(lab.best(2, "10.1.0.0/24"), None);
}

#[test]
fn bfd_ends_a_restart_only_if_it_does_not_restart_along() {
    for independent in [false, true] {
        let mut lab = lab();
        let subscriber = subscriber(&mut lab);
        die(&mut lab);
        assert!(changed(&mut lab, subscriber).is_empty());
        // RFC 5882 section 4.3: a BFD that shares the fate of the restarting process says nothing about forwarding.
        let lost = Lost::Bfd {
            diagnostic: "control detection time expired (1)".to_owned(),
            independent,
        };
        let now = lab.now;
        lab.routers[0].handle_peer_lost(now, address(1), &lost);
        let gone = changed(&mut lab, subscriber);
        assert_eq!(gone.len(), if independent { 2 } else { 0 });
    }
}

#[test]
fn a_peer_that_insists_on_bfd_waits_for_it() {
    let mut lab = lab();
    lab.reconfigure(0, |config| {
        let peer = config.peers.get_mut(&address(1)).unwrap();
        peer.bfd = Some(BfdConfig {
            strict: true,
            ..BfdConfig::default()
        });
    });
    // Asked for on a session that is up, it leaves that alone; once BFD failed it counts.
    assert_eq!(lab.summary(0, 1).state, State::Established);
    let lost = Lost::Bfd {
        diagnostic: "control detection time expired (1)".to_owned(),
        independent: false,
    };
    let now = lab.now;
    lab.routers[0].handle_peer_lost(now, address(1), &lost);
    lab.run(60 * SECOND);
    let line = lab.summary(0, 1);
    assert_eq!(line.state, State::Idle);
    assert!(line.last_error.unwrap().contains("waits for BFD"));
    let now = lab.now;
    lab.routers[0].handle_bfd(now, address(1), true);
    lab.run(60 * SECOND);
    assert_eq!(lab.summary(0, 1).state, State::Established);
    // Taken down on purpose, it takes nothing along.
    let now = lab.now;
    lab.routers[0].handle_bfd(now, address(1), false);
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).state, State::Established);
}
