//! Sessions: coming up, colliding, going down, coming back.

use std::time::Duration;

use super::super::pair::{Lab, address, peer, speaker};
use crate::config::GracefulRestart;
use crate::fsm::State;
use crate::types::{Asn, RouterId};
use crate::wire::Notification;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn both_sides_connect_at_once_and_one_connection_survives() {
    for latency in [0, 1, 7, 40, 900] {
        let mut lab = Lab::mesh(&[64512, 64513]);
        lab.latency = Duration::from_millis(latency);
        let took = lab.establish();
        assert!(
            took < 6 * SECOND + 10 * lab.latency,
            "{latency} ms: {took:?}"
        );
        lab.run(120 * SECOND);
        for (index, other) in [(0, 1), (1, 0)] {
            let line = lab.summary(index, other);
            assert_eq!(
                (line.state, line.flaps),
                (State::Established, 0),
                "{latency} ms"
            );
        }
    }
}

#[test]
fn a_mesh_of_eight_comes_up_without_a_flap() {
    let mut lab = Lab::mesh(&[64512; 8]);
    lab.establish();
    lab.run(300 * SECOND);
    let lines = lab.routers.iter().flat_map(|router| router.summary());
    assert!(
        lines
            .into_iter()
            .all(|line| line.flaps == 0 && line.state == State::Established)
    );
}

#[test]
fn an_inbound_connection_is_used_while_our_own_attempts_lead_nowhere() {
    // Router 0 dials a port behind which nobody answers; the peer can only dial us.
    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.cut.insert(1);
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).state, State::Connect);
    lab.cut.clear();
    let took = lab.run_until(10 * SECOND, |lab| {
        lab.routers.iter().all(|r| r.established() == 1)
    });
    assert!(took <= 5 * SECOND, "{took:?}");
}

#[test]
fn a_passive_peer_waits_and_two_of_them_wait_for_ever() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.reconfigure(0, |c| c.peers.get_mut(&address(1)).unwrap().passive = true);
    lab.establish();
    lab.reconfigure(1, |c| c.peers.get_mut(&address(0)).unwrap().passive = true);
    lab.run(600 * SECOND);
    assert_eq!(lab.summary(0, 1).state, State::Active);
}

#[test]
fn a_silent_peer_is_dropped_exactly_when_the_hold_time_ends() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    for (index, other) in [(0, 1), (1, 0)] {
        lab.reconfigure(index, |c| {
            c.peers.get_mut(&address(other)).unwrap().hold_time = 9 * SECOND
        });
    }
    lab.establish();
    lab.run(60 * SECOND);
    assert_eq!(lab.summary(0, 1).flaps, 0);
    assert_eq!(lab.summary(0, 1).hold_time, Some(9));
    lab.cut.insert(1);
    let took = lab.run_until(10 * SECOND, |lab| lab.routers[0].established() == 0);
    // The last KEEPALIVE came up to a third of the hold time before the cut.
    assert!(
        took > 6 * SECOND - lab.latency && took <= 9 * SECOND,
        "{took:?}"
    );
    let error = lab.summary(0, 1).last_error.unwrap();
    assert_eq!(error, "sent hold timer expired (4/0)");
}

#[test]
fn hold_time_zero_needs_no_keepalives() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.reconfigure(0, |c| {
        c.peers.get_mut(&address(1)).unwrap().hold_time = Duration::ZERO
    });
    lab.establish();
    let before = lab.summary(0, 1).messages_received.keepalive;
    lab.run(3600 * SECOND);
    assert_eq!(lab.summary(0, 1).messages_received.keepalive, before);
    assert_eq!(lab.summary(0, 1).flaps, 0);
}

#[test]
fn a_lost_connection_comes_back_within_two_seconds() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.establish();
    lab.kill_connections(1);
    lab.run_until(SECOND, |lab| lab.routers[0].established() == 0);
    let took = lab.establish();
    assert!(took <= 2 * SECOND, "{took:?}");
    assert_eq!(lab.summary(0, 1).flaps, 1);
}

#[test]
fn a_wrong_as_backs_off_and_comes_up_once_corrected() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.reconfigure(0, |c| {
        c.peers.get_mut(&address(1)).unwrap().asn = Asn(64999).into()
    });
    lab.run(600 * SECOND);
    let line = lab.summary(0, 1);
    assert_ne!(line.state, State::Established);
    // 1, 2, 4, 8, 16 and then every 30 seconds, at three quarters of that at the least; two connections at a time.
    assert!(line.messages_sent.open < 80, "{}", line.messages_sent.open);
    lab.reconfigure(0, |c| {
        c.peers.get_mut(&address(1)).unwrap().asn = Asn(64513).into()
    });
    let took = lab.establish();
    assert!(took <= 40 * SECOND, "{took:?}");
}

#[test]
fn equal_identifiers_in_one_as_are_refused_and_in_two_are_fine() {
    let mut lab = Lab::mesh(&[64512, 64512]);
    lab.reconfigure(1, |c| c.router_id = RouterId(1));
    lab.run(20 * SECOND);
    assert_eq!(lab.routers[0].established(), 0);
    assert!(lab.summary(0, 1).last_error.unwrap().contains("(2/3)"));

    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.reconfigure(1, |c| c.router_id = RouterId(1));
    lab.establish();
}

#[test]
fn a_shutdown_message_reaches_the_peer() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.establish();
    let now = lab.now;
    lab.routers[0].stop(
        now,
        Some(Notification::administrative_shutdown("maintenance")),
    );
    lab.run(SECOND);
    let error = lab.summary(1, 0).last_error.unwrap();
    assert_eq!(
        error.rsplit("before that: ").next().unwrap(),
        "received administrative shutdown (6/2): \"maintenance\""
    );
}

#[test]
fn a_peer_that_restarts_gracefully_replaces_its_old_connection() {
    let restart = GracefulRestart::default();
    let mut configs = [speaker(0, 64512), speaker(1, 64513)];
    for (config, other, asn) in [(0, 1, 64513), (1, 0, 64512)] {
        configs[config].graceful_restart = Some(restart);
        configs[config]
            .peers
            .insert(address(other), peer(other, asn));
    }
    let mut lab = Lab::new(configs.to_vec());
    lab.establish();
    // The peer's machine lost its memory: router 0 has an established session with somebody who knows nothing of it.
    lab.cut.insert(1);
    let fresh = super::super::Router::new(lab.now, configs[1].clone(), 99).unwrap();
    lab.routers[1] = fresh;
    lab.forget(1);
    lab.cut.clear();
    let took = lab.run_until(30 * SECOND, |lab| lab.routers[1].established() == 1);
    assert!(took < 6 * SECOND, "{took:?}");
    assert_eq!(lab.summary(0, 1).flaps, 1);
}

#[test]
fn configuration_changes_touch_only_what_changed() {
    let mut lab = Lab::mesh(&[64512, 64513, 64514]);
    lab.establish();
    lab.announce(0, "10.1.0.0/24");
    lab.reconfigure(0, |c| {
        c.peers.get_mut(&address(1)).unwrap().name = "rack".to_owned()
    });
    lab.run(SECOND);
    assert_eq!((lab.summary(0, 1).flaps, lab.summary(0, 2).flaps), (0, 0));
    lab.reconfigure(0, |c| {
        c.peers.get_mut(&address(1)).unwrap().hold_time = 30 * SECOND
    });
    lab.establish();
    lab.run(SECOND);
    assert_eq!((lab.summary(0, 1).flaps, lab.summary(0, 2).flaps), (1, 0));
    assert_eq!(lab.summary(0, 1).hold_time, Some(30));
    assert_eq!(
        lab.summary(1, 0).last_error.unwrap(),
        "received other configuration change (6/6)"
    );
    lab.reconfigure(0, |c| drop(c.peers.remove(&address(1))));
    lab.run(SECOND);
    assert!(
        lab.summary(1, 0)
            .last_error
            .unwrap()
            .ends_with("received peer deconfigured (6/3)")
    );
    assert_eq!(lab.summary(0, 2).flaps, 0);
}

#[test]
fn a_refused_configuration_changes_nothing() {
    let mut lab = Lab::mesh(&[64512, 64513]);
    lab.establish();
    let mut config = lab.routers[0].config().clone();
    config.peers.get_mut(&address(1)).unwrap().hold_time = 2 * SECOND;
    let error = lab.routers[0]
        .configure(lab.now, config)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("neighbor 10.0.0.2: holdTime"), "{error}");
    assert_eq!(lab.routers[0].established(), 1);
}

#[test]
fn strangers_and_disabled_peers_are_turned_away() {
    let mut lab = Lab::new(vec![speaker(0, 64512)]);
    let local = "10.0.0.1:179".parse().unwrap();
    let now = lab.now;
    assert!(
        lab.routers[0]
            .handle_incoming(now, "10.0.0.2:40000".parse().unwrap(), local)
            .is_none()
    );
    lab.reconfigure(0, |c| {
        let mut config = peer(1, 64513);
        config.disabled = true;
        c.peers.insert(address(1), config);
    });
    assert!(
        lab.routers[0]
            .handle_incoming(now, "10.0.0.2:40000".parse().unwrap(), local)
            .is_none()
    );
    assert_eq!(lab.summary(0, 1).state, State::Idle);
}
