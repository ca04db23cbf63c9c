//! Interoperation with BIRD 2, in network namespaces. Needs root and the packages `bird2` and `iproute2`.

#![cfg(feature = "speaker")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "bird/lab.rs"]
mod lab;

use std::time::{Duration, Instant};

use lab::{Lab, OURS, THEIRS, next_hop, privileged, wait};
use margay_bgp::fsm::State;
use margay_bgp::speaker::{Announcement, GracefulRestart, PeerConfig, Shutdown, SpeakerConfig};
use margay_bgp::types::{Asn, RouterId};
use rustix::process::Signal;

/// BIRD's configuration: AS 64513 or, on iBGP, ours; one session for each family.
fn bird(asn: u32, options: &str) -> String {
    format!(
        r#"
router id 10.99.0.2;
protocol device {{ }}
protocol static {{ ipv4; route 10.2.0.0/24 blackhole; route 10.2.1.0/24 blackhole; }}
protocol static {{ ipv6; route fd02::/64 blackhole; }}
template bgp margay {{
    local as {asn};
    hold time 9; connect delay time 1; connect retry time 1; error wait time 1, 2;
    {options}
}}
protocol bgp margay4 from margay {{
    neighbor {} as 64512;
    ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
protocol bgp margay6 from margay {{
    neighbor {} as 64512;
    ipv6 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
"#,
        OURS[0], OURS[1]
    )
}

/// Our configuration: AS 64512, both sessions, a route of each family.
fn speaker(asn: u32) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(Asn(64512), RouterId(0x0a63_0001));
    config.require_policy = false;
    config.listen = ["0.0.0.0:179", "[::]:179"]
        .map(|a| a.parse().unwrap())
        .to_vec();
    for address in THEIRS {
        let address = address.parse().unwrap();
        let hold_time = Duration::from_secs(9);
        config.peers.insert(
            address,
            PeerConfig {
                hold_time,
                ..PeerConfig::new(address, Asn(asn))
            },
        );
    }
    for prefix in ["10.1.0.0/24", "fd01::/64"] {
        config
            .announcements
            .insert(prefix.parse().unwrap(), Announcement::default());
    }
    config
}

#[test]
fn routes_both_ways_over_ebgp_and_withdrawals() {
    if !privileged("routes_both_ways_over_ebgp_and_withdrawals") {
        return;
    }
    let lab = Lab::new("ebgp", &bird(64513, ""));
    let mut config = speaker(64513);
    let speaker = lab.speaker(config.clone());
    lab.established(&speaker);
    let mut routes = lab.run(speaker.subscribe()).unwrap();
    assert_eq!(
        lab.run(next_hop(&mut routes, "10.2.0.0/24")).as_deref(),
        Some(THEIRS[0])
    );
    lab.bird_says("show route 10.1.0.0/24 all", "BGP.as_path: 64512", true);
    lab.bird_says(
        "show route 10.1.0.0/24 all",
        "BGP.next_hop: 10.99.0.1",
        true,
    );
    lab.bird_says("show route fd01::/64 all", "BGP.next_hop: fd99::1", true);
    for (peer, prefixes) in [(THEIRS[0], 2), (THEIRS[1], 1)] {
        let line = lab.line(&speaker, peer);
        assert_eq!(
            (
                line.prefixes_received,
                line.prefixes_accepted,
                line.prefixes_sent
            ),
            (prefixes, prefixes, 1)
        );
        assert_eq!(line.hold_time, Some(9));
    }
    // We withdraw and announce; the session does not notice.
    let communities = ["64512:77".parse().unwrap()].into();
    let announcement = Announcement {
        communities,
        med: Some(5),
        ..Announcement::default()
    };
    config.announcements.clear();
    config
        .announcements
        .insert("10.1.1.0/26".parse().unwrap(), announcement);
    lab.run(speaker.configure(config)).unwrap();
    lab.bird_says("show route 10.1.0.0/24", "Network not found", true);
    lab.bird_says("show route fd01::/64", "Network not found", true);
    lab.bird_says(
        "show route 10.1.1.0/26 all",
        "BGP.community: (64512,77)",
        true,
    );
    lab.bird_says("show route 10.1.1.0/26 all", "BGP.med: 5", true);
    // BIRD withdraws.
    lab.birdc("disable static1");
    assert_eq!(lab.run(next_hop(&mut routes, "10.2.0.0/24")), None);
    assert_eq!(lab.line(&speaker, THEIRS[0]).flaps, 0);
    lab.run(speaker.shutdown(Shutdown::Cease {
        message: "maintenance".to_owned(),
    }));
    lab.bird_says("show protocols all margay4", "maintenance", true);
}

#[test]
fn routes_both_ways_over_ibgp() {
    if !privileged("routes_both_ways_over_ibgp") {
        return;
    }
    let lab = Lab::new("ibgp", &bird(64512, ""));
    let mut config = speaker(64512);
    let preferred = Announcement {
        local_pref: Some(250),
        ..Announcement::default()
    };
    config
        .announcements
        .insert("10.1.2.0/24".parse().unwrap(), preferred);
    let speaker = lab.speaker(config);
    lab.established(&speaker);
    let mut routes = lab.run(speaker.subscribe()).unwrap();
    assert_eq!(
        lab.run(next_hop(&mut routes, "fd02::/64")).as_deref(),
        Some(THEIRS[1])
    );
    lab.bird_says(
        "show route 10.1.0.0/24 all",
        "BGP.next_hop: 10.99.0.1",
        true,
    );
    lab.bird_says("show route 10.1.0.0/24 all", "BGP.local_pref: 100", true);
    lab.bird_says("show route 10.1.2.0/24 all", "BGP.local_pref: 250", true);
    let entries = lab.run(speaker.rib()).unwrap();
    let learned: Vec<_> = entries
        .iter()
        .filter(|entry| entry.peer.is_some())
        .collect();
    assert_eq!(learned.len(), 3);
    assert!(
        learned
            .iter()
            .all(|entry| entry.best && entry.as_path.is_empty())
    );
    lab.run(speaker.shutdown(Shutdown::Graceful));
}

#[test]
fn both_families_over_one_session() {
    if !privileged("both_families_over_one_session") {
        return;
    }
    let both = "ipv6 { import all; export where source = RTS_STATIC; next hop address fd99::2; };";
    let configuration = bird(64513, "").replacen("ipv4 {", &format!("{both} ipv4 {{"), 2);
    // Only the session over IPv4 carries both; the first replacement was the static protocol's.
    let configuration = configuration.replacen(&format!("{both} ipv4;"), "ipv4;", 1);
    let lab = Lab::new("both", &configuration);
    let mut config = speaker(64513);
    config.peers.remove(&THEIRS[1].parse().unwrap());
    config.next_hop.ipv6 = OURS[1].parse().ok();
    let families = margay_bgp::types::Family::ALL.into_iter().collect();
    config
        .peers
        .get_mut(&THEIRS[0].parse().unwrap())
        .unwrap()
        .families = families;
    let speaker = lab.speaker(config);
    lab.established(&speaker);
    let line = lab.line(&speaker, THEIRS[0]);
    assert_eq!(
        (
            line.families.len(),
            line.prefixes_accepted,
            line.prefixes_sent
        ),
        (2, 3, 2)
    );
    let mut routes = lab.run(speaker.subscribe()).unwrap();
    assert_eq!(
        lab.run(next_hop(&mut routes, "fd02::/64")).as_deref(),
        Some(THEIRS[1])
    );
    lab.bird_says("show route fd01::/64 all", "BGP.next_hop: fd99::1", true);
    lab.run(speaker.shutdown(Shutdown::Graceful));
}

#[test]
fn a_session_that_drops_takes_its_routes_along_and_comes_back() {
    if !privileged("a_session_that_drops_takes_its_routes_along_and_comes_back") {
        return;
    }
    let mut lab = Lab::new("drop", &bird(64513, ""));
    let speaker = lab.speaker(speaker(64513));
    lab.established(&speaker);
    let mut routes = lab.run(speaker.subscribe()).unwrap();
    let prefix = "10.2.0.0/24";
    assert!(lab.run(next_hop(&mut routes, prefix)).is_some());
    // An operator's command: a NOTIFICATION.
    lab.birdc("disable margay4");
    assert_eq!(lab.run(next_hop(&mut routes, prefix)), None);
    let error = lab.line(&speaker, THEIRS[0]).last_error.unwrap();
    assert!(error.contains("administrative shutdown (6/2)"), "{error}");
    lab.birdc("enable margay4");
    assert!(lab.run(next_hop(&mut routes, prefix)).is_some());
    // A crash: the kernel closes the connections.
    let killed = Instant::now();
    lab.signal_bird(Signal::KILL);
    assert_eq!(lab.run(next_hop(&mut routes, prefix)), None);
    assert!(
        killed.elapsed() < Duration::from_millis(500),
        "{:?}",
        killed.elapsed()
    );
    lab.start_bird(&[]);
    assert!(lab.run(next_hop(&mut routes, prefix)).is_some());
    lab.established(&speaker);
    assert_eq!(lab.line(&speaker, THEIRS[0]).flaps, 2);
    lab.run(speaker.shutdown(Shutdown::Graceful));
}

#[test]
fn a_peer_that_falls_silent_is_dropped_at_the_end_of_the_hold_time() {
    if !privileged("a_peer_that_falls_silent_is_dropped_at_the_end_of_the_hold_time") {
        return;
    }
    let mut lab = Lab::new(
        "hold",
        &bird(64513, "").replace("hold time 9", "hold time 3"),
    );
    let speaker = lab.speaker(speaker(64513));
    lab.established(&speaker);
    assert_eq!(lab.line(&speaker, THEIRS[0]).hold_time, Some(3));
    // Longer than the hold time: KEEPALIVEs do their work.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(lab.line(&speaker, THEIRS[0]).flaps, 0);
    let silent = Instant::now();
    lab.signal_bird(Signal::STOP);
    wait(
        || lab.line(&speaker, THEIRS[0]).state != State::Established,
        String::new,
    );
    let took = silent.elapsed();
    assert!(
        took > Duration::from_millis(1900) && took < Duration::from_millis(3200),
        "{took:?}"
    );
    assert_eq!(lab.line(&speaker, THEIRS[0]).prefixes_received, 0);
    let error = lab.line(&speaker, THEIRS[0]).last_error.unwrap();
    assert!(error.contains("sent hold timer expired (4/0)"), "{error}");
    lab.signal_bird(Signal::CONT);
    lab.established(&speaker);
    lab.run(speaker.shutdown(Shutdown::Graceful));
}

#[test]
fn a_passive_side_is_enough() {
    if !privileged("a_passive_side_is_enough") {
        return;
    }
    // First BIRD only dials, then only we do.
    for (name, options, passive) in [("dials", "", true), ("waits", "passive;", false)] {
        let lab = Lab::new(name, &bird(64513, options));
        let mut config = speaker(64513);
        config
            .peers
            .values_mut()
            .for_each(|peer| peer.passive = passive);
        let speaker = lab.speaker(config);
        lab.established(&speaker);
        lab.run(speaker.shutdown(Shutdown::Graceful));
    }
}

#[test]
fn a_graceful_restart_keeps_our_routes_at_the_peer() {
    if !privileged("a_graceful_restart_keeps_our_routes_at_the_peer") {
        return;
    }
    let lab = Lab::new("restart", &bird(64513, "graceful restart on;"));
    let mut config = speaker(64513);
    config.graceful_restart = Some(GracefulRestart {
        restart_time: 30,
        restarting: false,
        forwarding_preserved: true,
        ..GracefulRestart::default()
    });
    let first = lab.speaker(config.clone());
    lab.established(&first);
    lab.bird_says("show route 10.1.0.0/24", "margay4", true);
    lab.run(first.shutdown(Shutdown::Graceful));
    lab.bird_says(
        "show protocols all margay4",
        "Neighbor graceful restart active",
        true,
    );
    lab.bird_says("show route 10.1.0.0/24", "margay4", true);
    // The next life does not announce one of the routes any more: it goes when our End-of-RIB comes, and not before.
    config.announcements.remove(&"fd01::/64".parse().unwrap());
    if let Some(restart) = &mut config.graceful_restart {
        restart.restarting = true;
    }
    let second = lab.speaker(config);
    lab.established(&second);
    lab.bird_says("show route fd01::/64", "Network not found", true);
    lab.bird_says("show route 10.1.0.0/24", "margay4", true);
    lab.run(second.shutdown(Shutdown::Graceful));
}

#[test]
fn a_peer_that_restarts_gracefully_keeps_its_routes_with_us() {
    if !privileged("a_peer_that_restarts_gracefully_keeps_its_routes_with_us") {
        return;
    }
    let mut lab = Lab::new("helper", &bird(64513, "graceful restart on;"));
    let mut config = speaker(64513);
    config.graceful_restart = Some(GracefulRestart::default());
    let speaker = lab.speaker(config);
    lab.established(&speaker);
    let mut routes = lab.run(speaker.subscribe()).unwrap();
    assert!(lab.run(next_hop(&mut routes, "10.2.0.0/24")).is_some());
    lab.signal_bird(Signal::KILL);
    wait(
        || lab.line(&speaker, THEIRS[0]).state != State::Established,
        String::new,
    );
    assert_eq!(lab.line(&speaker, THEIRS[0]).prefixes_accepted, 2);
    // BIRD's own word for "this is a restart, and forwarding went on".
    lab.start_bird(&["-R"]);
    lab.established(&speaker);
    assert_eq!(lab.line(&speaker, THEIRS[0]).prefixes_accepted, 2);
    // At most the link-local next hop is news: BIRD has it only once duplicate address detection is over.
    let more = lab
        .run(async { tokio::time::timeout(Duration::from_millis(300), routes.next_batch()).await });
    let mut changes = more.into_iter().flatten().flat_map(|batch| batch.changes);
    assert!(
        changes.all(|change| !change.paths.is_empty()),
        "no route went away"
    );
    // Without it the forwarding state is lost, and what the peer does not announce again goes.
    lab.signal_bird(Signal::KILL);
    wait(
        || lab.line(&speaker, THEIRS[0]).state != State::Established,
        String::new,
    );
    lab.start_bird(&[]);
    assert_eq!(lab.run(next_hop(&mut routes, "10.2.0.0/24")), None);
    assert!(lab.run(next_hop(&mut routes, "10.2.0.0/24")).is_some());
    lab.run(speaker.shutdown(Shutdown::Graceful));
}
