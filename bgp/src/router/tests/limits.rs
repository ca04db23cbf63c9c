//! Limits on what a peer may send.

use std::time::Duration;

use super::super::pair::{Lab, address};
use crate::config::{MaxPrefixes, MaxPrefixesAction};
use crate::fsm::State;

const SECOND: Duration = Duration::from_secs(1);

fn lab(limit: u32, action: MaxPrefixesAction) -> Lab {
    let mut lab = Lab::mesh(&[64512, 64513, 64514]);
    lab.reconfigure(0, |config| {
        if let Some(peer) = config.peers.get_mut(&address(1)) {
            peer.max_prefixes = MaxPrefixes {
                limit,
                warn_percent: 80,
                action,
            };
        }
    });
    lab.establish();
    lab
}

fn announce(lab: &mut Lab, count: u8) {
    lab.reconfigure(1, |config| {
        for index in 0..count {
            let prefix = format!("10.{index}.0.0/16").parse().unwrap();
            config.announcements.insert(prefix, Default::default());
        }
    });
    lab.run(SECOND);
}

#[test]
fn a_warning_comes_before_the_limit_and_goes_again() {
    let mut lab = lab(10, MaxPrefixesAction::Teardown);
    announce(&mut lab, 7);
    assert_eq!(lab.summary(0, 1).warning, None);
    announce(&mut lab, 10);
    let warning = lab.summary(0, 1).warning.unwrap();
    assert_eq!(warning, "10 ipv4-unicast prefixes, maxPrefixes is 10");
    assert_eq!(lab.summary(0, 1).state, State::Established);
    lab.reconfigure(1, |config| config.announcements.clear());
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).warning, None);
}

#[test]
fn too_many_end_the_session_until_somebody_raises_the_limit() {
    let mut lab = lab(10, MaxPrefixesAction::Teardown);
    announce(&mut lab, 11);
    let summary = lab.summary(0, 1);
    assert_eq!((summary.state, summary.prefixes_received), (State::Idle, 0));
    let error = summary.last_error.unwrap();
    assert!(
        error.contains("more than 10 ipv4-unicast prefixes"),
        "{error}"
    );
    // What they are told: Cease, maximum number of prefixes.
    let told = lab.summary(1, 0).last_error.unwrap();
    assert!(told.contains("6/1"), "{told}");
    lab.run(600 * SECOND);
    assert_eq!(lab.summary(0, 1).state, State::Idle);
    lab.reconfigure(0, |config| {
        if let Some(peer) = config.peers.get_mut(&address(1)) {
            peer.max_prefixes.limit = 100;
        }
    });
    lab.establish();
    lab.run(SECOND);
    assert_eq!(lab.summary(0, 1).prefixes_received, 11);
}

#[test]
fn too_many_end_the_session_for_a_while() {
    let mut lab = lab(10, MaxPrefixesAction::Restart(60 * SECOND));
    announce(&mut lab, 11);
    assert_eq!(lab.summary(0, 1).state, State::Idle);
    lab.run(55 * SECOND);
    assert_eq!(lab.summary(0, 1).state, State::Idle);
    lab.reconfigure(1, |config| config.announcements.clear());
    lab.run(40 * SECOND);
    assert_eq!(lab.summary(0, 1).state, State::Established);
    assert!(lab.summary(0, 1).last_error.is_some());
}

#[test]
fn too_many_may_be_only_a_warning_and_a_lower_limit_counts_at_once() {
    let mut lab = lab(10, MaxPrefixesAction::Warn);
    announce(&mut lab, 20);
    assert_eq!(lab.summary(0, 1).state, State::Established);
    assert!(lab.summary(0, 1).warning.is_some());
    lab.reconfigure(0, |config| {
        if let Some(peer) = config.peers.get_mut(&address(1)) {
            peer.max_prefixes.action = MaxPrefixesAction::Teardown;
        }
    });
    assert_eq!(lab.summary(0, 1).state, State::Idle);
    assert_eq!(lab.summary(0, 1).prefixes_received, 0);
}

#[test]
fn a_neighbor_that_is_shut_down_is_told_why() {
    let mut lab = lab(10, MaxPrefixesAction::Warn);
    lab.reconfigure(0, |config| {
        if let Some(peer) = config.peers.get_mut(&address(1)) {
            peer.disabled = true;
            peer.shutdown_message = "new optics, back at 14:00".to_owned();
        }
    });
    lab.run(SECOND);
    let told = lab.summary(1, 0).last_error.unwrap();
    assert!(told.contains("new optics, back at 14:00"), "{told}");
}
