//! Peers from ranges.

use std::time::Duration;

use super::super::pair::{Lab, address, peer, speaker};
use crate::config::{BfdConfig, PeerAsn, PeerConfig, PeerRange};
use crate::fsm::State;

const SECOND: Duration = Duration::from_secs(1);

/// Router 0 takes peers from 10.0.0.0/24 in AS 65001 to 65003; routers 1, 2 and 3 know it by address.
fn lab(limit: usize) -> Lab {
    let asns = [64512, 65001, 65002, 65009];
    let mut configs: Vec<_> = (0..4).map(|index| speaker(index, asns[index])).collect();
    let ranges = serde_json::from_str::<PeerAsn>("\"65001-65003\"").unwrap();
    configs[0].ranges.insert(
        "10.0.0.0/24".parse().unwrap(),
        PeerRange {
            limit,
            peer: PeerConfig::new(address(0), ranges),
        },
    );
    for config in &mut configs[1..] {
        config.peers.insert(address(0), peer(0, 64512));
    }
    Lab::new(configs)
}

fn up(lab: &Lab, index: usize) -> bool {
    lab.summary(index, 0).state == State::Established
}

#[test]
fn peers_from_a_range_come_and_go() {
    let mut lab = lab(10);
    lab.announce(1, "10.1.0.0/16");
    lab.run_until(30 * SECOND, |lab| up(lab, 1) && up(lab, 2));
    lab.run(SECOND);
    let line = lab.summary(0, 1);
    assert_eq!(line.range.unwrap().to_string(), "10.0.0.0/24");
    assert_eq!(line.asn.unwrap().0, 65001);
    assert_eq!(line.prefixes_received, 1);
    assert!(lab.best(2, "10.1.0.0/16").is_some());
    // The AS of router 3 is not one of those.
    assert!(!up(&lab, 3));
    let error = lab.summary(0, 3).last_error.unwrap();
    assert!(
        error.contains("peer announced AS 65009, 65001-65003 is configured"),
        "{error}"
    );
    // It goes for good: nothing is left of it.
    lab.reconfigure(1, |config| config.peers.clear());
    lab.run(40 * SECOND);
    let addresses: Vec<_> = lab.routers[0].summary().iter().map(|l| l.address).collect();
    assert!(!addresses.contains(&address(1)), "{addresses:?}");
    assert_eq!(lab.best(2, "10.1.0.0/16"), None);
}

#[test]
fn bfd_is_wanted_for_those_that_are_there_and_may_be_waited_for() {
    let mut lab = lab(10);
    let with_bfd = |strict| BfdConfig {
        strict,
        ..BfdConfig::default()
    };
    let wanted = |lab: &Lab| {
        let configs = lab.routers[0].peer_configs();
        let watched = configs.filter(|(_, config)| config.bfd.is_some());
        watched.map(|(address, _)| address).collect::<Vec<_>>()
    };
    let change = |lab: &mut Lab, strict| {
        lab.reconfigure(0, |config| {
            let range = config.ranges.values_mut().next().unwrap();
            range.peer.bfd = Some(with_bfd(strict));
        });
    };
    change(&mut lab, false);
    assert!(wanted(&lab).is_empty());
    let before = lab.routers[0].peers_version();
    lab.run_until(30 * SECOND, |lab| up(lab, 1) && up(lab, 2));
    assert!(wanted(&lab).contains(&address(1)));
    assert_ne!(lab.routers[0].peers_version(), before);
    // It goes, and with it what watched it.
    lab.reconfigure(1, |config| config.peers.clear());
    lab.run(40 * SECOND);
    assert!(!wanted(&lab).contains(&address(1)));
    // One that has to wait for BFD is known, so that BFD can begin, and comes up after it.
    change(&mut lab, true);
    lab.reconfigure(1, |config| {
        config.peers.insert(address(0), peer(0, 64512));
    });
    lab.run(20 * SECOND);
    assert!(wanted(&lab).contains(&address(1)) && !up(&lab, 1));
    let now = lab.now;
    lab.routers[0].handle_bfd(now, address(1), true);
    lab.run_until(30 * SECOND, |lab| up(lab, 1));
    // One that does not come back is forgotten: it takes nobody's place.
    lab.reconfigure(1, |config| config.peers.clear());
    lab.run(40 * SECOND);
    lab.reconfigure(1, |config| {
        config.peers.insert(address(0), peer(0, 64512));
    });
    lab.run(6 * SECOND);
    assert!(wanted(&lab).contains(&address(1)));
    lab.reconfigure(1, |config| config.peers.clear());
    lab.run(70 * SECOND);
    assert!(!wanted(&lab).contains(&address(1)));
}

#[test]
fn there_are_no_more_than_the_limit() {
    let mut lab = lab(1);
    lab.run(30 * SECOND);
    let ups = [1, 2].iter().filter(|index| up(&lab, **index)).count();
    assert_eq!(ups, 1);
    assert_eq!(lab.routers[0].summary().len(), 1);
}

#[test]
fn a_range_that_changes_changes_its_peers_and_one_that_goes_takes_them_along() {
    let mut lab = lab(10);
    lab.run_until(30 * SECOND, |lab| up(lab, 1) && up(lab, 2));
    lab.reconfigure(0, |config| {
        for range in config.ranges.values_mut() {
            range.peer.import = Some(crate::policy::Filter::reject_all());
        }
    });
    assert_eq!(lab.summary(0, 1).flaps, 0, "a filter is no reason to flap");
    lab.reconfigure(0, |config| config.ranges.clear());
    lab.run(SECOND);
    assert!(lab.routers[0].summary().is_empty());
    assert!(!up(&lab, 1));
}

#[test]
fn a_listed_neighbor_is_not_one_of_the_range() {
    let mut lab = lab(10);
    lab.reconfigure(0, |config| {
        config.peers.insert(address(1), peer(1, 65001));
    });
    lab.run_until(30 * SECOND, |lab| up(lab, 1) && up(lab, 2));
    assert_eq!(lab.summary(0, 1).range, None);
    assert!(lab.summary(0, 2).range.is_some());
}
