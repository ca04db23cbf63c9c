//! Graceful restart (RFC 4724 section 4.1), seen by the one who restarts.

use std::time::Duration;

use super::super::pair::{Lab, address, peer, speaker};
use super::super::{Lost, Router};
use crate::config::GracefulRestart;
use crate::fsm::State;

const SECOND: Duration = Duration::from_secs(1);

/// Router 0 between routers 1, 2 and 3, each of which announces a route of its own.
fn lab() -> Lab {
    let asns = [64512, 64513, 64514, 64515];
    let mut configs: Vec<_> = (0..4).map(|index| speaker(index, asns[index])).collect();
    for other in 1..4 {
        for (from, to) in [(0, other), (other, 0)] {
            configs[from].graceful_restart = Some(GracefulRestart {
                forwarding_preserved: true,
                ..GracefulRestart::default()
            });
            configs[from].peers.insert(address(to), peer(to, asns[to]));
        }
    }
    let mut lab = Lab::new(configs);
    for index in 1..4 {
        lab.announce(index, &format!("10.{index}.0.0/16"));
    }
    lab.establish();
    lab.run(SECOND);
    lab
}

/// Router 0 dies and comes back as a restart of itself. Connections of both lives are gone.
fn restart(lab: &mut Lab) {
    let mut config = lab.routers[0].config().clone();
    if let Some(restart) = &mut config.graceful_restart {
        restart.restarting = true;
    }
    lab.kill_connections(0);
    lab.run(Duration::from_millis(10));
    lab.routers[0] = Router::new(lab.now, config, 99).unwrap();
    lab.forget(0);
}

#[test]
fn routes_wait_for_the_last_peer_that_can_be_reached() {
    let mut lab = lab();
    restart(&mut lab);
    let subscriber = lab.routers[0].subscribe();
    assert!(lab.routers[0].is_deferring());
    assert!(lab.routes(0, subscriber).is_empty());
    lab.run_until(30 * SECOND, |lab| !lab.routers[0].is_deferring());
    let batches = lab.routes(0, subscriber);
    let changes: Vec<_> = batches.iter().flat_map(|batch| &batch.changes).collect();
    assert_eq!(changes.len(), 3, "all at once, nothing before");
    lab.establish();
    lab.run(SECOND);
    // Nobody saw a withdrawal, and everybody has everything.
    for index in 1..4 {
        assert_eq!(lab.summary(index, 0).prefixes_received, 2);
    }
}

#[test]
fn a_peer_that_is_down_is_not_waited_for() {
    let mut lab = lab();
    lab.cut.insert(3);
    restart(&mut lab);
    // The connection attempt to the dead one has to time out; nobody waits for a whole minute.
    let took = lab.run_until(30 * SECOND, |lab| !lab.routers[0].is_deferring());
    assert!(took < 10 * SECOND, "{took:?}");
}

#[test]
fn a_peer_that_never_says_it_is_done_is_waited_for_only_so_long() {
    let mut lab = lab();
    // It is up but has nothing to say: no End-of-RIB.
    lab.slow.insert(0);
    restart(&mut lab);
    let took = lab.run_until(120 * SECOND, |lab| !lab.routers[0].is_deferring());
    assert!(took <= 61 * SECOND, "{took:?}");
}

#[test]
fn those_who_come_back_together_do_not_wait_for_one_another() {
    let mut configs: Vec<_> = (0..2).map(|index| speaker(index, 64512)).collect();
    for (index, other) in [(0, 1), (1, 0)] {
        configs[index].graceful_restart = Some(GracefulRestart {
            restarting: true,
            ..GracefulRestart::default()
        });
        configs[index]
            .peers
            .insert(address(other), peer(other, 64512));
    }
    let mut lab = Lab::new(configs);
    lab.announce(0, "10.0.0.0/16");
    lab.announce(1, "10.1.0.0/16");
    lab.establish();
    lab.run(SECOND);
    assert!(!lab.routers[0].is_deferring() && !lab.routers[1].is_deferring());
    assert!(lab.best(0, "10.1.0.0/16").is_some());
    assert!(lab.best(1, "10.0.0.0/16").is_some());
}

#[test]
fn a_dead_path_ends_the_session_at_once_and_keeps_no_routes() {
    let mut lab = lab();
    let now = lab.now;
    let lost = Lost::Link {
        interface: "eth0".to_owned(),
        what: "lost carrier".into(),
    };
    lab.routers[0].handle_peer_lost(now, address(1), &lost);
    lab.settle();
    assert_eq!(lab.best(0, "10.1.0.0/16"), None);
    let summary = lab.summary(0, 1);
    assert_ne!(summary.state, State::Established);
    assert_eq!(
        summary.last_error.as_deref(),
        Some("interface eth0 lost carrier")
    );
    // It is tried again, like any connection that was lost.
    lab.establish();
    let bfd = Lost::Bfd {
        diagnostic: "no packet for 150 ms".to_owned(),
        independent: false,
    };
    let now = lab.now;
    lab.routers[0].handle_peer_lost(now, address(1), &bfd);
    lab.run(Duration::from_millis(10));
    let told = lab.summary(1, 0).last_error.unwrap();
    assert!(told.contains("BFD"), "{told}");
}

#[test]
fn a_notification_leaves_routes_in_place_where_both_agreed() {
    let mut lab = lab();
    let bad = crate::wire::Notification::malformed_attribute_list();
    let now = lab.now;
    // Any error will do; the peer stops with it.
    lab.routers[1].stop(now, Some(bad));
    lab.run(Duration::from_millis(10));
    assert!(lab.best(0, "10.1.0.0/16").is_some(), "RFC 8538");
    lab.run(130 * SECOND);
    assert_eq!(lab.best(0, "10.1.0.0/16"), None, "the restart time is over");

    let mut lab = self::lab();
    let now = lab.now;
    let shutdown = crate::wire::Notification::administrative_shutdown("maintenance");
    lab.routers[1].stop(now, Some(shutdown));
    lab.run(Duration::from_millis(10));
    assert_eq!(lab.best(0, "10.1.0.0/16"), None, "a hard reset");
    let told = lab.summary(0, 1).last_error.unwrap();
    assert!(told.contains("maintenance"), "{told}");
}
