//! Tests of the file format: what is read, what is refused and in which words.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::NextHopMode;
use crate::policy::{Filter, Operation};

/// A good file with one change.
fn file(change: impl FnOnce(&mut Value)) -> File {
    let mut value = json!({
        "asn": 64512,
        "routerId": "10.0.0.1",
        "listen": [{"address": "127.0.0.1", "port": 1790}],
        "neighbors": [
            {"address": "10.0.0.2", "asn": 64513, "holdTime": 9, "import": "pods", "export": "accept",
             "families": ["ipv4-unicast", "ipv6-unicast"], "nextHop": "self"},
            {"address": "fd00::3", "asn": 64512, "passive": true},
        ],
        "announce": [{"prefix": "10.1.0.0/24", "communities": ["64512:1"], "med": 5}],
        "filters": {"pods": {"rules": [
            {"cidr": "10.0.0.0/8", "prefixLength": {"min": 24, "max": 26}, "action": "Accept", "setLocalPref": 200},
        ]}},
        "requirePolicy": false,
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_file_becomes_a_configuration() {
    let config = file(|_| {}).speaker_config().unwrap();
    assert_eq!(config.listen, ["127.0.0.1:1790".parse().unwrap()]);
    assert!(!config.require_policy);
    let external = &config.peers[&"10.0.0.2".parse::<IpAddr>().unwrap()];
    assert_eq!(external.hold_time, Duration::from_secs(9));
    assert_eq!(external.families.len(), 2);
    assert_eq!(external.next_hop, NextHopMode::SelfAddress);
    let import = external.import.as_ref().unwrap();
    let decide = |text: &str| import.decide_plain(&text.parse().unwrap());
    assert_eq!(
        decide("10.9.0.0/26"),
        Some(&[Operation::SetLocalPref(200)][..])
    );
    assert_eq!(decide("10.9.0.0/27"), None);
    assert_eq!(external.export, Some(Filter::accept_all()));
    let internal = &config.peers[&"fd00::3".parse::<IpAddr>().unwrap()];
    assert_eq!(internal.families, [Family::Ipv6Unicast].into());
    assert!(internal.passive && internal.import.is_none());
    let announcement = &config.announcements[&"10.1.0.0/24".parse().unwrap()];
    assert_eq!(
        (announcement.med, announcement.communities.len()),
        (Some(5), 1)
    );
}

#[test]
fn errors_name_the_field() {
    type Change = fn(&mut Value);
    let table: [(Change, &str); 9] = [
        (|v| v["routerId"] = json!("0.0.0.0"), "routerId: "),
        (|v| v["asn"] = json!(0), "asn: "),
        (
            |v| v["neighbors"][0]["holdTime"] = json!(2),
            "neighbor 10.0.0.2: holdTime: 2 s",
        ),
        (
            |v| v["neighbors"][1]["address"] = json!("10.0.0.2"),
            "neighbors[1].address: 10.0.0.2",
        ),
        (
            |v| v["neighbors"][0]["import"] = json!("none"),
            "neighbors[0].import: no filter named \"none\"",
        ),
        (
            |v| v["announce"][0]["nextHop"] = json!("fd00::1"),
            "announce[0].nextHop: fd00::1",
        ),
        (
            |v| {
                let entry = v["announce"][0].clone();
                v["announce"].as_array_mut().unwrap().push(entry);
            },
            "announce[1].prefix: 10.1.0.0/24",
        ),
        (|v| v["filters"]["accept"] = json!({}), "filters.accept: "),
        (
            |v| v["filters"]["pods"]["rules"][0]["prefixLength"]["min"] = json!(27),
            "filters.pods.rules[0].prefixLength: min is above max",
        ),
    ];
    for (change, expected) in table {
        let error = file(change).speaker_config().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn unknown_fields_are_refused() {
    let value = json!({"asn": 1, "routerId": "10.0.0.1", "neighbours": []});
    let error = serde_json::from_value::<File>(value)
        .unwrap_err()
        .to_string();
    assert!(error.contains("unknown field `neighbours`"), "{error}");
}

#[test]
fn the_shortest_file_listens_everywhere() {
    let value = json!({"asn": 1, "routerId": "10.0.0.1"});
    let config = serde_json::from_value::<File>(value)
        .unwrap()
        .speaker_config()
        .unwrap();
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["0.0.0.0:179", "[::]:179"]);
    assert!(config.require_policy);
}

#[test]
fn a_file_as_people_write_it() {
    let text = "
asn: 64512
routerId: 10.0.0.1
listen:
  - address: 0.0.0.0
    port: 1179
  - {address: '::', port: 1179}
install: false
neighbors:
  - address: fd00::2
    asn: 64513
    families: [ipv4-unicast, ipv6-unicast]
    import: pods
announce:
  - prefix: fd00:1::/64
    communities: [64512:1, no-export]
    largeCommunities: [64512:1:2]
filters:
  pods:
    rules:
      - {cidr: 10.0.0.0/8, matchOperator: In, action: Accept}
gracefulRestart: {restartTime: 60}
socket: /run/margay/bgp.sock
requirePolicy: false
";
    let file: File = serde_saphyr::from_str(text).unwrap();
    let config = file.speaker_config().unwrap();
    assert_eq!(config.listen.len(), 2);
    let announcement = &config.announcements[&"fd00:1::/64".parse().unwrap()];
    assert_eq!(
        (
            announcement.communities.len(),
            announcement.large_communities.len()
        ),
        (2, 1)
    );
    assert_eq!(
        config.graceful_restart.map(|restart| restart.restart_time),
        Some(60)
    );
    assert_eq!(config.peers.len(), 1);
}

#[test]
fn multipath_is_off_unless_asked_for() {
    let config = |more: &str| {
        let text = format!("asn: 65000\nrouterId: 10.0.0.1\n{more}");
        let file: File = serde_saphyr::from_str(&text).unwrap();
        file.speaker_config()
    };
    assert_eq!(config("").unwrap().multipath, Multipath::OFF);
    let asked = config("multipath: {max: 8, relax: true, weightByLinkBandwidth: true}").unwrap();
    assert_eq!(asked.multipath.max, 8);
    assert!(asked.multipath.relax && asked.multipath.weight_by_link_bandwidth);
    let none = config("multipath: {max: 0}").unwrap_err();
    assert!(none.to_string().contains("multipath.max"), "{none}");
}

#[test]
fn graceful_restart_for_long() {
    let config = |more: &str| {
        let text = format!("asn: 65000\nrouterId: 10.0.0.1\n{more}");
        let file: File = serde_saphyr::from_str(&text).unwrap();
        file.speaker_config()
    };
    let none = config("").unwrap();
    assert!(none.graceful_restart.is_none() && none.graceful_restart_helper);
    let off = config("gracefulRestartHelper: false").unwrap();
    assert!(!off.graceful_restart_helper);
    let long = config("gracefulRestart: {longLivedTime: 16777215, longLivedPartial: true}");
    let long = long.unwrap().graceful_restart.unwrap();
    assert!(long.is_long_lived() && long.long_lived_partial);
    let longer = config("gracefulRestart: {longLivedTime: 16777216}").unwrap_err();
    let text = longer.to_string();
    assert!(
        text.starts_with("gracefulRestart.longLivedTime: 16777216"),
        "{text}"
    );
}

#[test]
fn bfd_and_interfaces_of_neighbors() {
    let config = |neighbor: &str| {
        let text = format!("asn: 65000\nrouterId: 10.0.0.1\nneighbors:\n- {neighbor}");
        let file: File = serde_saphyr::from_str(&text).unwrap();
        file.speaker_config()
    };
    let found = config("{interface: eth0, asn: external, bfd: {}}").unwrap();
    assert!(found.peers.is_empty());
    let peer = &found.interfaces["eth0"];
    assert_eq!((peer.name.as_str(), peer.families.len()), ("eth0", 2));
    assert!(peer.extended_next_hop);
    let bfd = peer.bfd.unwrap();
    assert_eq!((bfd.min_tx, bfd.min_rx, bfd.multiplier), (300, 300, 3));
    let fast = "{address: 10.0.0.2, asn: 65001, bfd: {minTx: 50, minRx: 20, multihop: true}}";
    let fast = config(fast).unwrap().peers[&"10.0.0.2".parse::<IpAddr>().unwrap()].bfd;
    let fast = fast.unwrap();
    assert_eq!((fast.min_tx, fast.min_rx, fast.multihop), (50, 20, true));
    for (neighbor, expected) in [
        ("{asn: 65001}", "neighbors[0]: exactly one of"),
        (
            "{address: 10.0.0.2, interface: eth0, asn: 65001}",
            "neighbors[0]: exactly one of",
        ),
        (
            "{address: 10.0.0.2, asn: 65001, bfd: {minTx: 9}}",
            "neighbor 10.0.0.2: bfd.minTx: must be 10 to 60000 milliseconds",
        ),
        (
            "{address: 10.0.0.2, asn: 65001, bfd: {multiplier: 0}}",
            "neighbor 10.0.0.2: bfd.multiplier: ",
        ),
        (
            "{interface: eth0, asn: 65001}\n- {interface: eth0, asn: 65002}",
            "neighbors[1].interface: eth0 is there already",
        ),
    ] {
        let error = config(neighbor).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn who_is_told() {
    let base = "asn: 65000\nrouterId: 10.0.0.1\n";
    let config = |more: &str| {
        let file: File = serde_saphyr::from_str(&format!("{base}{more}"))
            .map_err(|error: serde_saphyr::Error| error.to_string())?;
        file.monitor_config().map_err(|error| error.to_string())
    };
    assert_eq!(config("").unwrap(), Default::default());
    let all = config(
        "bmp: [{address: 10.0.0.9}, {address: 'fd00::9', port: 5000, routeMonitoring: post, statisticsInterval: 0}]
mrt:
  updates: {path: '/tmp/u.{time}', rotate: 900}
  rib: {path: /tmp/r, interval: 7200}
",
    )
    .unwrap();
    let stations: Vec<_> = all.stations.values().collect();
    assert_eq!(stations[0].address.to_string(), "10.0.0.9:11019");
    assert_eq!(stations[0].statistics, Some(Duration::from_secs(60)));
    assert!(stations[0].stages.before_policy && !stations[0].stages.after_policy);
    assert_eq!(stations[1].address.to_string(), "[fd00::9]:5000");
    assert_eq!(stations[1].statistics, None);
    assert!(!stations[1].stages.before_policy && stations[1].stages.after_policy);
    let updates = all.updates.unwrap();
    assert!(updates.extended && !updates.sent);
    assert_eq!(updates.rotate, Some(Duration::from_secs(900)));
    for (wrong, line, words) in [
        ("bmp: [{address: 10.0.0.9, port: 0}]", Some(3), "port"),
        (
            "bmp:\n- {address: 10.0.0.9, routeMonitoring: all}",
            Some(4),
            "pre",
        ),
        ("bmp: [{adress: 10.0.0.9}]", Some(3), "adress"),
        ("mrt: {rib: {path: /tmp/r}}", Some(3), "interval"),
        (
            "mrt: {rib: {path: /tmp/r, interval: 9}}",
            None,
            "mrt.rib.interval: must be at least 10",
        ),
        (
            "mrt: {rib: {path: /tmp, interval: 90}}",
            None,
            "mrt.rib.path: \"/tmp\" does not name a file",
        ),
        (
            "mrt: {updates: {path: /tmp/u, rotate: 60}}",
            None,
            "mrt.updates.path: needs {time}",
        ),
        (
            "mrt: {updates: {path: '/tmp/{time}', rotate: 6}}",
            None,
            "mrt.updates.rotate: must be",
        ),
        ("record: /", None, "record: \"/\" does not name a file"),
        (
            "bmp: [{address: 10.0.0.9, localAddress: 'fd00::1'}]",
            None,
            "bmp[0].localAddress: must be",
        ),
        (
            "bmp: [{address: 10.0.0.9}, {address: 10.0.0.9}]",
            None,
            "bmp[1].address: 10.0.0.9:11019 is there already",
        ),
    ] {
        let error = config(wrong).unwrap_err();
        assert!(error.contains(words), "{wrong}: {error}");
        if let Some(line) = line {
            assert!(error.contains(&format!("line {line}")), "{wrong}: {error}");
        }
    }
}

#[test]
fn the_example_of_what_can_be_observed_is_a_file() {
    let text = include_str!("../../../../../docs/examples/bgp-observe.yaml");
    let file: File = serde_saphyr::from_str(text).unwrap();
    assert_eq!(file.monitor_config().unwrap().stations.len(), 1);
}
