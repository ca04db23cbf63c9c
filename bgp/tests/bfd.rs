//! BFD against BIRD, FRR and ourselves, in network namespaces. Needs root and the packages `bird2`, `frr`, `nftables` and
//! `iproute2`.

#![cfg(feature = "speaker")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "bfd/lab.rs"]
mod lab;

use std::time::{Duration, Instant};

use lab::{Lab, Load, ip, privileged, v4, v6, wait};
use margay_bgp::bfd::{SessionReport, State};
use margay_bgp::config::{BfdConfig, PeerRange};
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

/// What the way from our BFD to a third peer's subscriber may take on a machine that also builds and runs other tests. Our
/// own part of it is a few microseconds; the rest is waiting for a processor.
const WAY: Duration = Duration::from_millis(30);

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

/// Time from the cut of the path.
#[derive(Debug)]
struct Took {
    /// Until our BFD session was down.
    detection: Duration,
    /// Until a third peer, a speaker of ours too, had told its subscriber that the route is gone.
    withdrawal: Duration,
}

/// Cuts the link to the other router some times, and measures until a third peer has seen its route withdrawn.
fn measure(lab: &Lab, rounds: usize, ours: &Speaker, third: &Speaker, peer: &str) -> Vec<Took> {
    let mut routes = lab.run(third.subscribe()).unwrap();
    let mut took = Vec::new();
    for _ in 0..rounds {
        lab.run(route(&mut routes, ROUTE, true));
        lab.bfd(ours, peer, State::Up);
        // At a different point of the interval each time.
        std::thread::sleep(ms(400 + 13 * took.len() as u64));
        let cut = lab.cut(0);
        let gone = lab.run(route(&mut routes, ROUTE, false));
        let report = bfd(lab, ours, peer);
        took.push(Took {
            detection: report.since.saturating_duration_since(cut),
            withdrawal: gone.saturating_duration_since(cut),
        });
        // A peer that was quick to come back may have taken its session down once more, together with its BGP.
        assert!(report.failures >= took.len() as u64, "{report:#?}");
        let error = lab.line(ours, peer).last_error.unwrap();
        assert!(error.contains("BFD is down"), "{error}");
        lab.mend(0);
    }
    took
}

fn watched(peer: &str, config: Option<BfdConfig>) -> SpeakerConfig {
    speaker(64512, &[(peer, 64513, config), (&v4(1)[1], 64514, None)])
}

/// Our speaker in the middle with the peer under test, and a third one of ours that watches.
fn with_watcher(lab: &Lab, peer: &str, config: BfdConfig) -> (Speaker, Speaker) {
    let ours = watched(peer, Some(config));
    let third = speaker(64514, &[(&v4(1)[0], 64512, None)]);
    (lab.speaker(None, ours), lab.speaker(Some(1), third))
}

fn end(lab: &Lab, speakers: impl IntoIterator<Item = Speaker>) {
    for speaker in speakers {
        lab.run(speaker.shutdown(Shutdown::Graceful));
    }
}

/// Within the detection time and 5 ms, by the median.
fn in_time(took: &[Took], detection: Duration) {
    for took in took {
        let Took {
            detection,
            withdrawal,
        } = took;
        eprintln!(
            "from the cut: BFD down after {detection:?}, withdrawn at a third peer after {withdrawal:?}"
        );
    }
    // The median: on a machine that builds and runs other tests beside, single ones wait for a processor. What every single one
    // takes on a quiet machine is `make bench-bgp`'s to tell.
    let median = |of: fn(&Took) -> Duration| {
        let mut times: Vec<_> = took.iter().map(of).collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    assert!(
        median(|took| took.detection) <= detection + ms(5),
        "{took:?}"
    );
    assert!(
        median(|took| took.withdrawal) <= detection + WAY,
        "{took:?}"
    );
}

#[test]
fn netns_peers_from_a_range_are_watched_while_they_are_there() {
    if !privileged("netns_peers_from_a_range_are_watched_while_they_are_there") {
        return;
    }
    let mut lab = Lab::new("bfdrange", 1);
    let [ours, theirs] = v4(0);
    let interval = "interface \"*\" { interval 50 ms; multiplier 3; };";
    lab.start_bird(0, &bird(&theirs, &ours, "bfd on;", interval));
    let mut config = speaker(64512, &[]);
    let peer = PeerConfig {
        bfd: Some(FAST),
        ..PeerConfig::new(ours.parse().unwrap(), Asn(64513))
    };
    let range = PeerRange { limit: 10, peer };
    config.ranges.insert("10.98.0.0/24".parse().unwrap(), range);
    let speaker = lab.speaker(None, config);
    let lines = || lab.run(speaker.summary()).unwrap();
    wait(|| !lines().is_empty(), || "nobody came".to_owned());
    lab.established(&speaker);
    lab.bfd(&speaker, &theirs, State::Up);
    let mut routes = lab.run(speaker.subscribe()).unwrap();
    lab.run(route(&mut routes, ROUTE, true));
    // The hold time is 90 s: it is BFD that finds out.
    let cut = lab.cut(0);
    let gone = lab.run(route(&mut routes, ROUTE, false));
    let took = gone.saturating_duration_since(cut);
    assert!(took < ms(1000), "{took:?}");
    wait(|| lines().is_empty(), || format!("{:#?}", lines()));
    // It comes back, and with it what watches it.
    lab.mend(0);
    wait(|| !lines().is_empty(), || "nobody came".to_owned());
    lab.bfd(&speaker, &theirs, State::Up);
    end(&lab, [speaker]);
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

/// Two speakers of ours, and the third that watches.
fn between_ourselves(lab: &Lab, config: BfdConfig) -> [Speaker; 3] {
    let mut other = speaker(64513, &[(&v4(0)[0], 64512, Some(config))]);
    let route = ROUTE.parse().unwrap();
    other.announcements.insert(route, Announcement::default());
    let (ours, third) = with_watcher(lab, &v4(0)[1], config);
    [ours, lab.speaker(Some(0), other), third]
}

#[test]
fn netns_full_load_brings_no_false_failure_and_delays_no_true_one() {
    if !privileged("netns_full_load_brings_no_false_failure_and_delays_no_true_one") {
        return;
    }
    let lab = Lab::new("load", 2);
    let [ours, other, third] = between_ourselves(&lab, FAST);
    let peer = &v4(0)[1];
    lab.established(&ours);
    lab.bfd(&ours, peer, State::Up);
    // Taken away and put back: no failure, neither here nor there. (BIRD 2.0 and FRR 8 take AdminDown for one.)
    for config in [None, Some(FAST)] {
        lab.run(ours.configure(watched(peer, config))).unwrap();
        std::thread::sleep(ms(1500));
        for (speaker, peer) in [(&ours, peer), (&other, &v4(0)[0])] {
            let line = lab.line(speaker, peer);
            assert_eq!(line.flaps, 0, "{:?}", line.last_error);
        }
    }
    lab.bfd(&ours, peer, State::Up);
    let load = Load::new(2);
    std::thread::sleep(Duration::from_secs(10));
    let report = bfd(&lab, &ours, peer);
    assert_eq!(report.failures, 0, "{report:#?}");
    in_time(&measure(&lab, 10, &ours, &third, peer), ms(150));
    drop(load);
    end(&lab, [ours, other, third]);
}

#[test]
fn netns_timers_change_without_a_flap() {
    if !privileged("netns_timers_change_without_a_flap") {
        return;
    }
    let mut lab = Lab::new("timers", 1);
    let [ours, theirs] = v4(0);
    lab.start_frr(0, &frr(&ours, ""));
    let mut config = speaker(64512, &[(&theirs, 64513, Some(FAST))]);
    let speaker = lab.speaker(None, config.clone());
    lab.established(&speaker);
    lab.bfd(&speaker, &theirs, State::Up);
    for (min_tx, min_rx, multiplier) in [(200, 300, 5), (50, 300, 3), (50, 50, 3), (10, 10, 10)] {
        let changed = BfdConfig {
            min_tx,
            min_rx,
            multiplier,
            ..FAST
        };
        let peer = config.peers.get_mut(&theirs.parse().unwrap());
        peer.unwrap().bfd = Some(changed);
        lab.run(speaker.configure(config.clone())).unwrap();
        std::thread::sleep(ms(1500));
        lab.bfd(&speaker, &theirs, State::Up);
        let report = bfd(&lab, &speaker, &theirs);
        assert_eq!(report.failures, 0, "{changed:?} {report:#?}");
        assert_eq!(report.transmit_interval, ms(min_tx.max(50).into()));
        assert_eq!(
            report.detection_time,
            Some(ms(3 * u64::from(min_rx.max(50))))
        );
        let peers = lab.vtysh("show bfd peers");
        for (name, value) in [
            ("Detect-multiplier", u32::from(multiplier)),
            ("Receive interval", min_rx),
            ("Transmission interval", min_tx),
        ] {
            let remote = peers.split("Remote timers").nth(1).unwrap();
            let line = remote.lines().find(|line| line.contains(name)).unwrap();
            assert!(
                line.contains(&format!(": {value}")),
                "{line} {value}\n{peers}"
            );
        }
    }
    assert_eq!(lab.line(&speaker, &theirs).flaps, 0);
    end(&lab, [speaker]);
}

#[test]
fn netns_multihop_through_a_router() {
    if !privileged("netns_multihop_through_a_router") {
        return;
    }
    let mut lab = Lab::new("multihop", 2);
    // The middle only routes; the two ends are one hop further from each other than a single hop reaches.
    for (router, other, n) in [(0, 1, 0), (1, 0, 1)] {
        let namespace = lab.namespace(Some(router));
        ip(&format!(
            "-n {namespace} route add 10.98.{other}.0/24 via {}",
            v4(n)[0]
        ));
    }
    let middle = lab.namespace(None);
    ip(&format!(
        "netns exec {middle} sysctl -qw net.ipv4.ip_forward=1"
    ));
    let (ours, theirs) = (&v4(1)[1], &v4(0)[1]);
    let timers = "multihop { interval 50 ms; multiplier 3; };";
    lab.start_bird(0, &bird(theirs, ours, "multihop; bfd on;", timers));
    for multihop in [true, false] {
        let config = BfdConfig { multihop, ..FAST };
        let mut config = speaker(64512, &[(theirs, 64513, Some(config))]);
        for peer in config.peers.values_mut() {
            peer.ttl = Some(64);
        }
        let speaker = lab.speaker(Some(1), config);
        lab.established(&speaker);
        if multihop {
            lab.bfd(&speaker, theirs, State::Up);
            assert_eq!(bfd(&lab, &speaker, theirs).detection_time, Some(ms(150)));
            let cut = lab.cut(0);
            wait(
                || bfd(&lab, &speaker, theirs).failures == 1,
                || "no failure".to_owned(),
            );
            eprintln!(
                "multihop: cut to failure seen by a caller: {:?}",
                cut.elapsed()
            );
            lab.mend(0);
        } else {
            // A peer that is not on the link cannot have a single-hop session, and BGP does not wait for it.
            std::thread::sleep(Duration::from_secs(2));
            assert_eq!(bfd(&lab, &speaker, theirs).state, State::Down);
        }
        end(&lab, [speaker]);
    }
}

#[test]
fn netns_strict_waits_for_bfd_over_ipv6() {
    if !privileged("netns_strict_waits_for_bfd_over_ipv6") {
        return;
    }
    let lab = Lab::new("strict", 1);
    let strict = BfdConfig {
        strict: true,
        ..FAST
    };
    let [ours, theirs] = v6(0);
    let speaker_config = speaker(64512, &[(&theirs, 64513, Some(strict))]);
    let mut other_config = speaker(64513, &[(&ours, 64512, None)]);
    let speaker = lab.speaker(None, speaker_config);
    let other = lab.speaker(Some(0), other_config.clone());
    std::thread::sleep(Duration::from_secs(2));
    let line = lab.line(&speaker, &theirs);
    assert_eq!(line.state, margay_bgp::fsm::State::Idle);
    assert!(line.last_error.unwrap().contains("waits for BFD"));
    other_config
        .peers
        .get_mut(&ours.parse().unwrap())
        .unwrap()
        .bfd = Some(FAST);
    lab.run(other.configure(other_config)).unwrap();
    lab.established(&speaker);
    lab.bfd(&speaker, &theirs, State::Up);
    let cut = lab.cut(0);
    wait(
        || lab.line(&speaker, &theirs).state != margay_bgp::fsm::State::Established,
        || "still up".to_owned(),
    );
    assert!(cut.elapsed() < ms(400));
    lab.mend(0);
    lab.established(&speaker);
    end(&lab, [speaker, other]);
}

/// A dead link is noticed at once, with a hold time of minutes and no BFD; what hangs on no link is left alone.
#[test]
fn netns_a_dead_link_ends_its_sessions_at_once() {
    if !privileged("netns_a_dead_link_ends_its_sessions_at_once") {
        return;
    }
    let lab = Lab::new("link", 2);
    let mut other = speaker(64513, &[(&v4(0)[0], 64512, None), (&v6(0)[0], 64512, None)]);
    let announced: Prefix = ROUTE.parse().unwrap();
    other
        .announcements
        .insert(announced, Announcement::default());
    let addresses = [&v4(0)[1], &v6(0)[1], &v4(1)[1]].map(Clone::clone);
    let peers = [
        (addresses[0].as_str(), 64513, None),
        (addresses[1].as_str(), 64513, None),
        (addresses[2].as_str(), 64514, None),
    ];
    let ours = lab.speaker(None, speaker(64512, &peers));
    let other = lab.speaker(Some(0), other);
    let third = lab.speaker(Some(1), speaker(64514, &[(&v4(1)[0], 64512, None)]));
    let middle = lab.namespace(None).to_owned();
    let outer = lab.namespace(Some(0)).to_owned();
    let mut routes = lab.run(third.subscribe()).unwrap();
    let mut took = Vec::new();
    for (cut, mend, words) in [
        (
            format!("-n {outer} link set eth0 down"),
            format!("-n {outer} link set eth0 up"),
            "eth0 lost carrier",
        ),
        (
            format!("-n {middle} link set eth0 down"),
            format!("-n {middle} link set eth0 up"),
            "eth0 is down",
        ),
    ]
    .iter()
    .cycle()
    .take(6)
    {
        lab.established(&ours);
        lab.run(route(&mut routes, ROUTE, true));
        // The kernel's answer where a peer is comes a moment after its connection.
        std::thread::sleep(ms(100));
        let before = Instant::now();
        ip(cut);
        let gone = lab.run(route(&mut routes, ROUTE, false));
        took.push(gone.saturating_duration_since(before));
        // The kernel is asked about each session of the link by itself: the second one's end may come after the withdrawal.
        for peer in [&v4(0)[1], &v6(0)[1]] {
            let error = || lab.line(&ours, peer).last_error.unwrap_or_default();
            wait(
                || error().contains(words),
                || format!("{peer}: {}", error()),
            );
        }
        assert_eq!(lab.line(&ours, &v4(1)[1]).flaps, 0);
        ip(mend);
        // IPv6 addresses go when their link is taken down.
        let (m, r) = (&v6(0)[0], &v6(0)[1]);
        ip(&format!("-n {middle} addr replace {m}/64 dev eth0 nodad"));
        ip(&format!("-n {outer} addr replace {r}/64 dev eth0 nodad"));
    }
    eprintln!("from `ip link set down` to the withdrawal at a third peer: {took:?}");
    took.sort_unstable();
    assert!(took[took.len() / 2] <= ms(20), "{took:?}");
    end(&lab, [ours, other, third]);
}
