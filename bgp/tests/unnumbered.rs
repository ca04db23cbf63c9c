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
