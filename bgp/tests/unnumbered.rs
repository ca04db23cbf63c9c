//! Peering over a link without configured addresses: with FRR and between ourselves, in network namespaces. Needs root and
//! the packages `frr`, `bird2` and `iproute2`.

#![cfg(feature = "speaker")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "the lab serves other tests as well")]

#[path = "bfd/lab.rs"]
mod lab;

use std::time::Duration;

use lab::{Lab, ip, privileged, v4, v6, wait};
use margay_bgp::bfd::State;
use margay_bgp::config::{BfdConfig, PeerAsn};
use margay_bgp::speaker::{
    Announcement, PeerConfig, PeerSummary, RouteStream, Shutdown, Speaker, SpeakerConfig,
};
use margay_bgp::types::{Asn, Prefix, RouterId};

/// A speaker with one peer, which is found on an interface.
fn speaker(asn: u32, theirs: PeerAsn, announce: &str, bfd: Option<BfdConfig>) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(Asn(asn), RouterId(asn));
    config.require_policy = false;
    config.listen = vec!["[::]:179".parse().unwrap()];
    let peer = PeerConfig {
        bfd,
        connect_retry_time: Duration::from_secs(1),
        ..PeerConfig::on_interface("eth0", theirs)
    };
    config.interfaces.insert("eth0".to_owned(), peer);
    let announcement = Announcement::default();
    config
        .announcements
        .insert(announce.parse().unwrap(), announcement);
    config
}

/// Link-local addresses only.
fn without_addresses(lab: &Lab) {
    for (router, side) in [(None, 0), (Some(0), 1)] {
        let namespace = lab.namespace(router);
        for (address, bits) in [(&v4(0)[side], 24), (&v6(0)[side], 64)] {
            ip(&format!(
                "-n {namespace} addr del {address}/{bits} dev eth0"
            ));
        }
    }
}

fn only_line(lab: &Lab, speaker: &Speaker) -> Option<PeerSummary> {
    lab.run(speaker.summary()).unwrap().pop()
}

fn up(lab: &Lab, speaker: &Speaker) {
    wait(
        || only_line(lab, speaker).is_some(),
        || "no router was found on the interface".to_owned(),
    );
    lab.established(speaker);
}

/// The next hop and the interface of a route's best path.
async fn way(routes: &mut RouteStream, prefix: &str) -> (std::net::IpAddr, u32) {
    let prefix: Prefix = prefix.parse().unwrap();
    let find = async {
        loop {
            let batch = routes.next_batch().await.unwrap();
            let change = batch.changes.into_iter().find(|c| c.prefix == prefix);
            if let Some(path) = change.and_then(|change| change.paths.into_iter().next()) {
                return (path.next_hop, path.scope);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), find)
        .await
        .unwrap()
}

fn index(lab: &Lab, router: Option<usize>) -> u32 {
    let line = ip(&format!("-n {} -o link show eth0", lab.namespace(router)));
    line.split(':').next().unwrap().parse().unwrap()
}

fn is_link_local(address: std::net::IpAddr) -> bool {
    matches!(address, std::net::IpAddr::V6(address) if address.is_unicast_link_local())
}

#[test]
fn netns_two_of_ours_find_each_other_and_carry_ipv4() {
    if !privileged("netns_two_of_ours_find_each_other_and_carry_ipv4") {
        return;
    }
    let lab = Lab::new("unnum", 1);
    without_addresses(&lab);
    let fast = BfdConfig {
        min_tx: 50,
        min_rx: 50,
        ..BfdConfig::default()
    };
    let external = PeerAsn::External;
    let config = speaker(64512, external.clone(), "10.1.0.0/24", Some(fast));
    let ours = lab.speaker(None, config.clone());
    let other = lab.speaker(Some(0), speaker(64513, external, "10.2.0.0/24", Some(fast)));
    up(&lab, &ours);
    up(&lab, &other);
    for (speaker, router, prefix) in [
        (&ours, None, "10.2.0.0/24"),
        (&other, Some(0), "10.1.0.0/24"),
    ] {
        let mut routes = lab.run(speaker.subscribe()).unwrap();
        let (next_hop, scope) = lab.run(way(&mut routes, prefix));
        assert!(is_link_local(next_hop), "{next_hop}");
        assert_eq!(scope, index(&lab, router));
        let line = only_line(&lab, speaker).unwrap();
        assert_eq!(line.address, next_hop);
        assert_eq!(line.name, "eth0");
        lab.bfd(speaker, &next_hop.to_string(), State::Up);
    }
    // The interface goes and comes back with another address and index.
    let namespaces = [lab.namespace(None), lab.namespace(Some(0))];
    ip(&format!("-n {} link del eth0", namespaces[0]));
    wait(
        || only_line(&lab, &ours).is_none() && only_line(&lab, &other).is_none(),
        || format!("{:?}", only_line(&lab, &ours)),
    );
    ip(&format!(
        "-n {} link add eth0 type veth peer name eth0 netns {}",
        namespaces[0], namespaces[1]
    ));
    for namespace in namespaces {
        ip(&format!("-n {namespace} link set eth0 up"));
    }
    up(&lab, &ours);
    up(&lab, &other);
    // Taken out of the configuration: the peer goes with it.
    let mut config = config;
    config.interfaces.clear();
    lab.run(ours.configure(config)).unwrap();
    assert_eq!(only_line(&lab, &ours), None);
    for speaker in [ours, other] {
        lab.run(speaker.shutdown(Shutdown::Graceful));
    }
}

#[test]
fn netns_frr_finds_us_and_we_find_frr() {
    if !privileged("netns_frr_finds_us_and_we_find_frr") {
        return;
    }
    let mut lab = Lab::new("unfrr", 1);
    without_addresses(&lab);
    lab.start_frr(
        0,
        "router bgp 64513
 bgp router-id 10.98.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor eth0 interface remote-as external
 neighbor eth0 timers connect 1
 neighbor eth0 bfd 3 50 50
 address-family ipv4 unicast
  network 10.2.0.0/24
 exit-address-family
",
    );
    let fast = BfdConfig {
        min_tx: 50,
        min_rx: 50,
        ..BfdConfig::default()
    };
    let config = speaker(64512, PeerAsn::External, "10.1.0.0/24", Some(fast));
    let ours = lab.speaker(None, config);
    up(&lab, &ours);
    let mut routes = lab.run(ours.subscribe()).unwrap();
    let (next_hop, scope) = lab.run(way(&mut routes, "10.2.0.0/24"));
    assert!(is_link_local(next_hop), "{next_hop}");
    assert_eq!(scope, index(&lab, None));
    let route = || lab.vtysh("show bgp ipv4 unicast 10.1.0.0/24");
    wait(
        || route().contains("fe80::") && route().contains("best"),
        route,
    );
    lab.bfd(&ours, &next_hop.to_string(), State::Up);
    let peers = || lab.vtysh("show bfd peers");
    wait(|| peers().contains("Status: up"), peers);
    lab.run(ours.shutdown(Shutdown::Graceful));
}

/// Two routers with one link-local address, as where every router of a fabric has fe80::1: each is a peer of its own.
#[test]
fn netns_routers_with_one_address_on_two_links_are_two_peers() {
    if !privileged("netns_routers_with_one_address_on_two_links_are_two_peers") {
        return;
    }
    let lab = Lab::new("unsame", 2);
    for router in [0, 1] {
        let namespace = lab.namespace(Some(router));
        ip(&format!("-n {namespace} addr flush dev eth0 scope link"));
        ip(&format!(
            "-n {namespace} addr add fe80::1/64 dev eth0 nodad"
        ));
    }
    let fast = BfdConfig {
        min_tx: 50,
        min_rx: 50,
        ..BfdConfig::default()
    };
    let external = PeerAsn::External;
    let mut config = speaker(64512, external.clone(), "10.1.0.0/24", Some(fast));
    let second = PeerConfig {
        name: "eth1".to_owned(),
        ..config.interfaces["eth0"].clone()
    };
    config.interfaces.insert("eth1".to_owned(), second);
    config.multipath.max = 2;
    let ours = lab.speaker(None, config.clone());
    // Both announce one prefix, and each one of its own.
    let others = [0_u32, 1].map(|number| {
        let own = format!("10.2.{number}.0/24");
        let mut config = speaker(64513, external.clone(), &own, Some(fast));
        config.router_id = RouterId(64513 + number);
        let shared = "10.3.0.0/24".parse().unwrap();
        config.announcements.insert(shared, Announcement::default());
        lab.speaker(Some(number as usize), config)
    });
    let lines = || lab.run(ours.summary()).unwrap();
    let states = || {
        let lines = lines().into_iter();
        let lines = lines.map(|line| (line.name, line.address, line.scope, line.state));
        lines.collect::<Vec<_>>()
    };
    let both_up = || {
        let lines = lines();
        let good = |line: &PeerSummary| {
            line.state == margay_bgp::fsm::State::Established
                && line.address == "fe80::1".parse::<std::net::IpAddr>().unwrap()
                && line.prefixes_accepted == 2
                && line.bfd.as_ref().is_some_and(|bfd| bfd.state == State::Up)
        };
        lines.len() == 2 && lines.iter().all(good) && lines[0].scope != lines[1].scope
    };
    wait(both_up, || format!("{:?}", lab.run(ours.summary())));
    let mut routes = lab.run(ours.subscribe()).unwrap();
    let ways = lab.run(all_ways(&mut routes, "10.3.0.0/24", 2));
    assert_eq!(ways[0].0, ways[1].0);
    assert_ne!(ways[0].1, ways[1].1);
    for speaker in &others {
        assert_eq!(only_line(&lab, speaker).unwrap().prefixes_accepted, 1);
    }

    // One of them goes: the other one's session and routes stay.
    let before = lines()
        .into_iter()
        .find(|line| line.name == "eth1")
        .unwrap();
    let [first, second] = others;
    lab.run(first.shutdown(Shutdown::Cease {
        message: "for good".to_owned(),
    }));
    let ways = lab.run(all_ways(&mut routes, "10.3.0.0/24", 1));
    assert_eq!(ways[0].1, before.scope);
    wait(
        || {
            let lines = lines();
            let gone = lines.iter().find(|line| line.name == "eth0");
            gone.is_some_and(|line| line.prefixes_accepted == 0)
        },
        || format!("{:?}", states()),
    );
    let after = lines()
        .into_iter()
        .find(|line| line.name == "eth1")
        .unwrap();
    assert_eq!(
        (after.state, after.since, after.prefixes_accepted),
        (before.state, before.since, 2)
    );
    for speaker in [ours, second] {
        lab.run(speaker.shutdown(Shutdown::Graceful));
    }
}

/// The next hops and interfaces of a route once it has so many.
async fn all_ways(
    routes: &mut RouteStream,
    prefix: &str,
    count: usize,
) -> Vec<(std::net::IpAddr, u32)> {
    let prefix: Prefix = prefix.parse().unwrap();
    let find = async {
        loop {
            let batch = routes.next_batch().await.unwrap();
            let change = batch.changes.into_iter().find(|c| c.prefix == prefix);
            let paths = change.map_or_else(Vec::new, |change| change.paths);
            if paths.len() == count {
                return paths
                    .iter()
                    .map(|path| (path.next_hop, path.scope))
                    .collect();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), find)
        .await
        .unwrap()
}
