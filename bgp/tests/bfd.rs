//! BFD against BIRD, FRR and ourselves, in network namespaces. Needs root and the packages `bird2`, `frr`, `nftables` and
//! `iproute2`.

#![cfg(feature = "speaker")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "bfd/lab.rs"]
mod lab;

use std::time::{Duration, Instant};

use lab::{Lab, Load, privileged, v4, v6, wait};
use margay_bgp::bfd::{SessionReport, State};
use margay_bgp::config::BfdConfig;
use margay_bgp::speaker::{
    Announcement, PeerConfig, RouteStream, Shutdown, Speaker, SpeakerConfig,
};
use margay_bgp::types::{Asn, Prefix, RouterId};

/// What the other router announces.
const ROUTE: &str = "10.2.0.0/24";
const FAST: BfdConfig = BfdConfig {
    min_tx: 50,
    min_rx: 50,
    multiplier: 3,
    multihop: false,
    passive: false,
    strict: false,
};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A speaker with these peers, each in the AS that follows ours by its position.
fn speaker(asn: u32, peers: &[(&str, u32, Option<BfdConfig>)]) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(Asn(asn), RouterId(asn));
    config.require_policy = false;
    config.listen = ["0.0.0.0:179", "[::]:179"]
        .map(|a| a.parse().unwrap())
        .to_vec();
    for (address, asn, bfd) in peers {
        let address = address.parse().unwrap();
        let connect_retry_time = Duration::from_secs(1);
        let peer = PeerConfig {
            bfd: *bfd,
            connect_retry_time,
            ..PeerConfig::new(address, Asn(*asn))
        };
        config.peers.insert(address, peer);
    }
    config
}

fn bfd(lab: &Lab, speaker: &Speaker, peer: &str) -> SessionReport {
    lab.line(speaker, peer).bfd.unwrap()
}

/// Waits until a route is there, or is gone, and says when that was.
async fn route(routes: &mut RouteStream, prefix: &str, there: bool) -> Instant {
    let prefix: Prefix = prefix.parse().unwrap();
    let find = async {
        loop {
            let batch = routes.next_batch().await.unwrap();
            let now = Instant::now();
            let change = batch.changes.iter().find(|change| change.prefix == prefix);
            if change.is_some_and(|change| change.paths.is_empty() != there) {
                return now;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), find)
        .await
        .unwrap()
}

fn bird(address: &str, ours: &str, options: &str, bfd: &str) -> String {
    format!(
        "router id 10.98.0.2;
        protocol device {{ }}
        protocol bfd {{ {bfd} }}
        protocol static {{ ipv4; route {ROUTE} blackhole; }}
        protocol bgp margay {{
            local {address} as 64513; neighbor {ours} as 64512;
            hold time 90; connect delay time 1; connect retry time 1; error wait time 1, 2;
            {options}
            ipv4 {{ import all; export where source = RTS_STATIC; }};
        }}"
    )
}

fn frr(peer: &str, options: &str) -> String {
    format!(
        "router bgp 64513
 bgp router-id 10.98.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor {peer} remote-as 64512
 neighbor {peer} timers 30 90
 neighbor {peer} timers connect 1
 neighbor {peer} bfd 3 50 50
 {options}
 address-family ipv4 unicast
  network {ROUTE}
 exit-address-family
"
    )
}

/// Cuts the link to the other router some times, and measures until a third peer has seen its route withdrawn.
fn measure(lab: &Lab, rounds: usize, ours: &Speaker, third: &Speaker, peer: &str) -> Vec<Duration> {
    let mut routes = lab.run(third.subscribe()).unwrap();
    let mut took = Vec::new();
    for _ in 0..rounds {
        lab.run(route(&mut routes, ROUTE, true));
        lab.bfd(ours, peer, State::Up);
        // At a different point of the interval each time.
        std::thread::sleep(ms(400 + 13 * took.len() as u64));
        let cut = lab.cut(0);
        let gone = lab.run(route(&mut routes, ROUTE, false));
        took.push(gone.saturating_duration_since(cut));
        let report = bfd(lab, ours, peer);
        assert_eq!(report.failures, took.len() as u64, "{report:#?}");
        let error = lab.line(ours, peer).last_error.unwrap();
        assert!(error.contains("BFD is down"), "{error}");
        lab.mend(0);
    }
    took
}

/// Our speaker in the middle with the peer under test, and a third one of ours that watches.
fn with_watcher(lab: &Lab, peer: &str, config: BfdConfig) -> (Speaker, Speaker) {
    let ours = speaker(
        64512,
        &[(peer, 64513, Some(config)), (&v4(1)[1], 64514, None)],
    );
    let third = speaker(64514, &[(&v4(1)[0], 64512, None)]);
    (lab.speaker(None, ours), lab.speaker(Some(1), third))
}

fn end(lab: &Lab, speakers: impl IntoIterator<Item = Speaker>) {
    for speaker in speakers {
        lab.run(speaker.shutdown(Shutdown::Graceful));
    }
}

/// Within the detection time and 5 ms, and not before a packet more could have come.
fn in_time(took: &[Duration], detection: Duration) {
    eprintln!("cut to withdrawal at a third peer: {took:?}");
    assert!(took.iter().all(|t| *t <= detection + ms(5)), "{took:?}");
}

#[test]
fn netns_bird_detects_and_is_detected() {
    if !privileged("netns_bird_detects_and_is_detected") {
        return;
    }
    let mut lab = Lab::new("bird", 2);
    let [ours, theirs] = v4(0);
    let interval = "interface \"*\" { interval 50 ms; multiplier 3; };";
    lab.start_bird(0, &bird(&theirs, &ours, "bfd on;", interval));
    let (speaker, third) = with_watcher(&lab, &theirs, FAST);
    lab.established(&speaker);
    lab.bfd(&speaker, &theirs, State::Up);
    let sessions = || lab.birdc("show bfd sessions");
    wait(|| sessions().contains("Up"), sessions);
    let report = bfd(&lab, &speaker, &theirs);
    assert_eq!(report.transmit_interval, ms(50));
    assert_eq!(report.detection_time, Some(ms(150)));
    assert_eq!(report.remote_state, State::Up);
    in_time(&measure(&lab, 5, &speaker, &third, &theirs), ms(150));
    // BIRD has seen it as well.
    lab.established(&speaker);
    lab.cut(0);
    wait(|| !sessions().contains("Up"), sessions);
    end(&lab, [speaker, third]);
}

#[test]
fn netns_frr_detects_and_is_detected() {
    if !privileged("netns_frr_detects_and_is_detected") {
        return;
    }
    let mut lab = Lab::new("frr", 2);
    let [ours, theirs] = v4(0);
    lab.start_frr(0, &frr(&ours, ""));
    let (speaker, third) = with_watcher(&lab, &theirs, FAST);
    lab.established(&speaker);
    lab.bfd(&speaker, &theirs, State::Up);
    let peers = || lab.vtysh("show bfd peers");
    wait(|| peers().contains("Status: up"), peers);
    let report = bfd(&lab, &speaker, &theirs);
    assert_eq!(report.transmit_interval, ms(50));
    assert_eq!(report.detection_time, Some(ms(150)));
    in_time(&measure(&lab, 5, &speaker, &third, &theirs), ms(150));
    lab.established(&speaker);
    lab.bfd(&speaker, &theirs, State::Up);
    lab.cut(0);
    wait(|| peers().contains("Status: down"), peers);
    wait(
        || {
            !lab.vtysh("show bgp summary json")
                .contains("\"Established\"")
        },
        || lab.vtysh("show bgp summary json"),
    );
    lab.mend(0);
    lab.established(&speaker);
    lab.bfd(&speaker, &theirs, State::Up);
    // An operator's shutdown of BFD is no failure of the path.
    let flaps = lab.line(&speaker, &theirs).flaps;
    end(&lab, [third]);
    let line = lab.line(&speaker, &theirs);
    assert_eq!(line.flaps, flaps);
    end(&lab, [speaker]);
    wait(
        || peers().contains("administratively down") || peers().contains("Status: down"),
        peers,
    );
}
