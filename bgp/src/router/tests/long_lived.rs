//! Long-lived graceful restart (RFC 9494): router 0 helps router 1, which goes away; router 2 knows of such routes, router 3
//! does not.

use std::time::Duration;

use super::super::pair::{Lab, address, peer, prefix, speaker};
use crate::config::{Announcement, GracefulRestart};
use crate::router::{Lost, RibEntry, Router};
use crate::types::{Community, Family};

const SECOND: Duration = Duration::from_secs(1);
const RESTART: GracefulRestart = GracefulRestart {
    restart_time: 60,
    restarting: false,
    forwarding_preserved: true,
    notification: false,
    long_lived_time: 1000,
    long_lived_partial: false,
};
const ROUTE: &str = "10.1.0.0/24";
/// This one asks not to be kept.
const FRAIL: &str = "10.2.0.0/24";

fn lab_with(asns: [u32; 4], change: impl Fn(usize, &mut GracefulRestart)) -> Lab {
    let mut configs: Vec<_> = (0..4).map(|index| speaker(index, asns[index])).collect();
    for other in 1..4 {
        let (mut to_other, mut to_helper) = (peer(other, asns[other]), peer(0, asns[0]));
        // A session lasts although one side is made to say nothing.
        to_other.hold_time = Duration::ZERO;
        to_helper.hold_time = Duration::ZERO;
        configs[0].peers.insert(address(other), to_other);
        configs[other].peers.insert(address(0), to_helper);
    }
    for (index, config) in configs.iter_mut().enumerate() {
        let mut restart = RESTART;
        if index == 3 {
            restart.long_lived_time = 0;
        }
        change(index, &mut restart);
        config.graceful_restart = Some(restart);
    }
    let mut lab = Lab::new(configs);
    lab.announce(1, ROUTE);
    lab.reconfigure(1, |config| {
        let frail = Announcement {
            communities: [Community::NO_LLGR].into(),
            ..Announcement::default()
        };
        config.announcements.insert(prefix(FRAIL), frail);
    });
    lab.establish();
    lab.run(SECOND);
    lab
}

fn lab() -> Lab {
    lab_with([64512, 64513, 64514, 64515], |_, _| {})
}

/// Router 1's process ends.
fn die(lab: &mut Lab) {
    lab.kill_connections(1);
    lab.run(Duration::from_millis(10));
    lab.cut.insert(1);
}

/// Router 1 is there again, as a new process.
fn revive(lab: &mut Lab, change: impl FnOnce(&mut crate::config::SpeakerConfig)) {
    let mut config = lab.routers[1].config().clone();
    change(&mut config);
    lab.routers[1] = Router::new(lab.now, config, 77).unwrap();
    lab.forget(1);
    lab.cut.clear();
}

fn entry(lab: &Lab, index: usize, text: &str) -> Option<RibEntry> {
    let mut entries = lab.routers[index].rib().into_iter();
    entries.find(|entry| entry.prefix == prefix(text))
}

/// Whether a router has the route, and with which mark.
fn mark(lab: &Lab, index: usize, text: &str) -> Option<bool> {
    let entry = entry(lab, index, text)?;
    Some(entry.communities.iter().any(|c| c == "65535:6"))
}

fn session(lab: &Lab) -> bool {
    lab.summary(0, 1).router_id.is_some()
}

#[test]
fn after_the_restart_time_routes_are_the_last_resort() {
    let mut lab = lab();
    die(&mut lab);
    lab.run(59 * SECOND);
    assert_eq!([2, 3].map(|i| mark(&lab, i, ROUTE)), [Some(false); 2]);
    let line = lab.summary(0, 1);
    assert_eq!((line.stale_routes, line.long_lived_routes), (2, 0));
    assert!(line.stale_until.is_some() && line.long_lived_until.is_empty());
    lab.run(2 * SECOND);
    // Who knows of such routes is told what it is, who does not has it no more, and who asked not to be kept is not.
    assert_eq!(mark(&lab, 2, ROUTE), Some(true));
    assert_eq!(mark(&lab, 3, ROUTE), None);
    assert_eq!([0, 2, 3].map(|i| mark(&lab, i, FRAIL)), [None; 3]);
    let line = lab.summary(0, 1);
    assert_eq!((line.stale_routes, line.long_lived_routes), (1, 1));
    assert_eq!(line.stale_until, None);
    let until = line.long_lived_until[&Family::Ipv4Unicast];
    assert_eq!((until - lab.now).as_secs(), 998);
    assert!(entry(&lab, 0, ROUTE).unwrap().long_lived_stale);
    // Any other route is better, however far away.
    lab.reconfigure(2, |config| {
        config
            .announcements
            .insert(prefix(ROUTE), Announcement::default());
    });
    lab.run(SECOND);
    assert_eq!(lab.best(0, ROUTE).unwrap().1, "64514");
    assert_eq!(mark(&lab, 3, ROUTE), Some(false));
    lab.reconfigure(2, |config| config.announcements.clear());
    lab.run(SECOND);
    assert_eq!(mark(&lab, 3, ROUTE), None);
    assert_eq!(mark(&lab, 2, ROUTE), Some(true));
    lab.run(1000 * SECOND);
    assert_eq!([0, 2, 3].map(|i| mark(&lab, i, ROUTE)), [None; 3]);
    let line = lab.summary(0, 1);
    assert_eq!((line.stale_routes, line.long_lived_until.len()), (0, 0));
}

#[test]
fn without_a_restart_time_it_begins_at_once() {
    let mut lab = lab_with([64512, 64513, 64514, 64515], |index, restart| {
        if index == 1 {
            restart.restart_time = 0;
        }
    });
    die(&mut lab);
    lab.run(Duration::from_millis(10));
    assert_eq!(mark(&lab, 2, ROUTE), Some(true));
    assert_eq!(mark(&lab, 3, ROUTE), None);
    lab.run(1001 * SECOND);
    assert_eq!(mark(&lab, 2, ROUTE), None);
}

#[test]
fn who_comes_back_is_preferred_again_and_what_it_lost_goes_at_the_end_of_rib() {
    let mut lab = lab();
    lab.announce(1, "10.3.0.0/24");
    lab.run(SECOND);
    die(&mut lab);
    lab.run(200 * SECOND);
    assert_eq!(mark(&lab, 2, "10.3.0.0/24"), Some(true));
    revive(&mut lab, |config| {
        config.announcements.remove(&prefix("10.3.0.0/24"));
    });
    lab.establish();
    lab.run(SECOND);
    for index in [2, 3] {
        assert_eq!(mark(&lab, index, ROUTE), Some(false));
        assert_eq!(mark(&lab, index, FRAIL), Some(false));
        assert_eq!(mark(&lab, index, "10.3.0.0/24"), None);
    }
    let line = lab.summary(0, 1);
    assert_eq!((line.stale_routes, line.long_lived_routes), (0, 0));
    assert!(line.stale_until.is_none() && line.long_lived_until.is_empty());
    // The end of the time that ran has nothing to end any more.
    lab.run(2000 * SECOND);
    assert_eq!(mark(&lab, 3, ROUTE), Some(false));
}

#[test]
fn who_comes_back_without_its_forwarding_state_has_lost_its_routes() {
    // In each of the two ways to say so, and by not saying anything.
    for change in [
        |restart: &mut GracefulRestart| restart.forwarding_preserved = false,
        |restart: &mut GracefulRestart| restart.long_lived_time = 0,
    ] {
        let mut lab = lab();
        die(&mut lab);
        lab.run(200 * SECOND);
        assert_eq!(mark(&lab, 0, ROUTE), Some(false));
        // It waits for its other peers before it sends anything, so that what is kept until then can be seen.
        revive(&mut lab, |config| {
            let restart = config.graceful_restart.as_mut().unwrap();
            restart.restarting = true;
            change(restart);
            config.peers.insert(address(9), peer(9, 64599));
        });
        lab.run_until(100 * SECOND, session);
        assert_eq!(entry(&lab, 0, ROUTE), None);
    }
}

#[test]
fn a_second_failure_does_not_prolong_it() {
    let mut lab = lab();
    die(&mut lab);
    lab.run(500 * SECOND);
    let until = lab.summary(0, 1).long_lived_until[&Family::Ipv4Unicast];
    revive(&mut lab, |config| {
        config.graceful_restart.as_mut().unwrap().restarting = true;
        config.peers.insert(address(9), peer(9, 64599));
    });
    lab.run_until(100 * SECOND, session);
    // Back, and silent so far.
    assert!(entry(&lab, 0, ROUTE).unwrap().long_lived_stale);
    die(&mut lab);
    lab.run(100 * SECOND);
    let line = lab.summary(0, 1);
    assert_eq!(line.long_lived_until[&Family::Ipv4Unicast], until);
    assert_eq!(mark(&lab, 2, ROUTE), Some(true));
    lab.run(until - lab.now - SECOND);
    assert_eq!(mark(&lab, 2, ROUTE), Some(true));
    lab.run(2 * SECOND);
    assert_eq!(mark(&lab, 2, ROUTE), None);
    assert_eq!(lab.summary(0, 1).prefixes_received, 0);
}

#[test]
fn who_has_not_come_to_its_end_of_rib_in_time_is_not_kept_again() {
    let mut lab = lab();
    die(&mut lab);
    lab.run(900 * SECOND);
    revive(&mut lab, |config| {
        config.graceful_restart.as_mut().unwrap().restarting = true;
        config.peers.insert(address(9), peer(9, 64599));
    });
    lab.run_until(100 * SECOND, session);
    // It has come up, and then does not get on with its routes.
    lab.slow.insert(0);
    lab.run(200 * SECOND);
    // The time is over on the session: what was not confirmed is gone.
    assert!(session(&lab));
    assert_eq!(entry(&lab, 0, ROUTE), None);
    die(&mut lab);
    let line = lab.summary(0, 1);
    assert!(line.stale_until.is_none() && line.long_lived_until.is_empty());
}

#[test]
fn a_dead_path_ends_it() {
    let link = Lost::Link {
        interface: "eth0".to_owned(),
        what: "lost carrier".into(),
    };
    let bfd = |independent| Lost::Bfd {
        diagnostic: "control detection time expired (1)".to_owned(),
        independent,
    };
    for (lost, gone) in [(link, true), (bfd(true), true), (bfd(false), false)] {
        let mut lab = lab();
        die(&mut lab);
        lab.run(200 * SECOND);
        let now = lab.now;
        lab.routers[0].handle_peer_lost(now, address(1), &lost);
        lab.run(SECOND);
        let left = if gone { None } else { Some(true) };
        assert_eq!(mark(&lab, 2, ROUTE), left, "{lost}");
        // On a session that is up it takes the routes at once, long-lived or not.
        let mut lab = self::lab();
        let now = lab.now;
        lab.routers[0].handle_peer_lost(now, address(1), &lost);
        assert_eq!(lab.summary(0, 1).prefixes_received, 0, "{lost}");
    }
}

#[test]
fn who_did_not_agree_on_it_is_not_kept() {
    for side in [0, 1] {
        let mut lab = lab_with([64512, 64513, 64514, 64515], |index, restart| {
            if index == side {
                restart.long_lived_time = 0;
            }
        });
        assert_eq!(lab.summary(0, 1).agreed.long_lived_times, None);
        die(&mut lab);
        lab.run(59 * SECOND);
        assert!(entry(&lab, 0, ROUTE).is_some());
        lab.run(2 * SECOND);
        assert_eq!(entry(&lab, 0, ROUTE), None);
    }
    // A NOTIFICATION is no restart unless that was agreed on, however long routes might be kept for one.
    let mut lab = lab();
    let now = lab.now;
    let cease = crate::wire::Notification::administrative_shutdown("");
    lab.routers[1].stop(now, Some(cease));
    lab.run(Duration::from_millis(10));
    assert_eq!(entry(&lab, 0, ROUTE), None);
}

#[test]
fn internal_peers_that_do_not_know_of_it_are_given_routes_apart_if_asked_for() {
    for partial in [false, true] {
        let mut lab = lab_with([64512, 64513, 64514, 64512], |_, restart| {
            restart.long_lived_partial = partial;
        });
        die(&mut lab);
        lab.run(61 * SECOND);
        let given = entry(&lab, 3, ROUTE);
        assert_eq!(given.is_some(), partial);
        if let Some(given) = given {
            assert_eq!(given.local_pref, 0);
            assert_eq!(given.communities, ["65535:6", "65535:65281"]);
        }
        let kept = entry(&lab, 2, ROUTE).unwrap();
        assert_eq!(kept.communities, ["65535:6"]);
    }
}

#[test]
fn switched_off_it_keeps_nothing_any_more() {
    let mut lab = lab();
    die(&mut lab);
    lab.run(61 * SECOND);
    assert_eq!(mark(&lab, 2, ROUTE), Some(true));
    lab.reconfigure(0, |config| {
        config.graceful_restart.as_mut().unwrap().long_lived_time = 0;
    });
    lab.run(SECOND);
    assert_eq!(mark(&lab, 2, ROUTE), None);
    assert_eq!(lab.summary(0, 1).prefixes_received, 0);
}
