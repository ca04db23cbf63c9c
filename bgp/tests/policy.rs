//! Policy from the file to the answer: three daemons on loopback addresses, with real sockets.

#![cfg(feature = "speaker")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use margay_bgp::speaker::daemon::{Daemon, File};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Loopback addresses of this process's own, so that a fixed port is free on them.
fn address(index: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high, low | 1, index)
}

fn socket(index: u8) -> PathBuf {
    let file = format!("margay-bgp-policy-{}-{index}.sock", std::process::id());
    std::env::temp_dir().join(file)
}

/// A neighbor entry of daemon `index` about daemon `other`.
fn neighbor(index: u8, other: u8, asn: u32, more: Value) -> Value {
    let mut entry = json!({
        "address": address(other), "localAddress": address(index), "port": 21790, "asn": asn,
        "connectRetryTime": 1,
    });
    let fields = entry.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    entry
}

fn file(index: u8, asn: u32, more: Value) -> File {
    let mut value = json!({
        "asn": asn,
        "routerId": Ipv4Addr::new(10, 0, 0, index),
        "listen": [{"address": address(index), "port": 21790}],
        "socket": socket(index),
    });
    let fields = value.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

async fn ask(index: u8, query: &str) -> Value {
    let mut stream = BufReader::new(UnixStream::connect(socket(index)).await.unwrap());
    let request = format!("{{\"query\":\"{query}\"}}\n");
    stream
        .get_mut()
        .write_all(request.as_bytes())
        .await
        .unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap()
}

/// The routes of a daemon, once there are `count` of them.
async fn routes(index: u8, count: usize) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let mut reply = ask(index, "rib").await;
        let routes = reply["routes"].as_array_mut().unwrap();
        if routes.len() == count {
            return std::mem::take(routes);
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "daemon {index}: {routes:#?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn find<'a>(routes: &'a [Value], prefix: &str) -> &'a Value {
    routes.iter().find(|r| r["prefix"] == prefix).unwrap()
}

#[tokio::test]
async fn from_the_file_to_the_answer() {
    let edge = file(
        1,
        65001,
        json!({
            "requirePolicy": false,
            "neighbors": [neighbor(1, 2, 64512, json!({}))],
            "announce": [
                {"prefix": "10.1.0.0/24", "communities": ["65001:1", "65001:2"],
                 "extendedCommunities": ["rt:65001:5", "lb:65001:125000000"], "largeCommunities": ["65001:1:2"]},
                {"prefix": "10.1.1.0/24", "communities": ["65001:1"]},
                {"prefix": "10.2.0.0/24"},
            ],
        }),
    );
    let middle = file(
        2,
        64512,
        json!({
            "neighbors": [
                neighbor(2, 1, 65001, json!({"import": "edge", "export": "reject"})),
                neighbor(2, 3, 65003, json!({"export": "up"})),
            ],
            "aggregates": [{"prefix": "10.1.0.0/16", "summaryOnly": true, "communities": ["64512:42"]}],
            "prefixLists": {"pods": ["10.1.0.0/16", "10.2.0.0/16"]},
            "filters": {
                "edge": {"rules": [{
                    "prefixList": "pods", "communities": ["65001:*"], "asPath": "^65001$",
                    "setLocalPref": 200, "setMetric": 55,
                    "removeCommunities": ["65001:2"], "addCommunities": ["64512:7"],
                    "removeExtendedCommunities": ["lb:*"],
                    "action": "Accept",
                }]},
                "up": {"rules": [{"source": "Local", "setMed": 9, "prepend": {"count": 1}, "action": "Accept"}]},
            },
        }),
    );
    let far = file(
        3,
        65003,
        json!({
            "neighbors": [neighbor(3, 2, 64512, json!({"import": "accept"}))],
        }),
    );
    let daemons = [
        Daemon::start(&edge).await.unwrap(),
        Daemon::start(&middle).await.unwrap(),
        Daemon::start(&far).await.unwrap(),
    ];

    // Three from the edge, the aggregate of our own.
    let here = routes(2, 4).await;
    let taken = find(&here, "10.1.0.0/24");
    assert_eq!(taken["best"], true);
    assert_eq!(
        (&taken["localPref"], &taken["metric"]),
        (&json!(200), &json!(55))
    );
    assert_eq!(taken["communities"], json!(["65001:1", "64512:7"]));
    assert_eq!(taken["extendedCommunities"], json!(["rt:65001:5"]));
    assert_eq!(taken["largeCommunities"], json!(["65001:1:2"]));
    let refused = find(&here, "10.2.0.0/24");
    assert_eq!(
        (&refused["accepted"], &refused["refused"]),
        (&json!(false), &json!("filter"))
    );

    let there = routes(3, 1).await;
    let summary = find(&there, "10.1.0.0/16");
    assert_eq!(summary["asPath"], "64512 64512");
    assert_eq!(
        (&summary["med"], &summary["communities"]),
        (&json!(9), &json!(["64512:42"]))
    );

    let neighbors = ask(2, "neighbors").await;
    let about = |address: Ipv4Addr| {
        let mut all = neighbors["neighbors"].as_array().unwrap().iter();
        all.find(|n| n["address"] == json!(address))
            .cloned()
            .unwrap()
    };
    assert_eq!(about(address(1))["refused"], json!({"filter": 1}));
    assert_eq!(about(address(1))["notes"], json!([]));
    let notes = about(address(3))["notes"].clone();
    assert_eq!(notes.as_array().unwrap().len(), 1);
    assert!(notes[0].as_str().unwrap().contains("RFC 8212"));

    for daemon in daemons {
        daemon.shutdown().await;
    }
}

#[test]
fn the_example_of_sessions_is_a_good_file() {
    let text = include_str!("../../docs/examples/bgp-speaker.yaml");
    let file: File = serde_saphyr::from_str(text).unwrap();
    let config = file.speaker_config().unwrap();
    assert_eq!((config.peers.len(), config.ranges.len()), (3, 1));
    assert_eq!(config.announcements.len(), 2);
}

#[test]
fn the_example_is_a_good_file() {
    let text = include_str!("../../docs/examples/bgp-policy.yaml");
    let file: File = serde_saphyr::from_str(text).unwrap();
    let config = file.speaker_config().unwrap();
    assert_eq!(config.peers.len(), 4);
    assert_eq!(config.aggregates.len(), 1);
    // In YAML as people get it wrong.
    for (from, to, expected) in [
        ("'65001:*', '65002:100-199'", "'65001'", "community pattern"),
        ("_64496-64511_ |", "[0-9]+ |", "for any AS write ."),
        (
            "prefixList: pods",
            "prefixList: nodes",
            "filters.from-tor.rules[3].prefixList: no list named",
        ),
        (
            "prepend: {count: 2}",
            "prepend: {count: 200}",
            "filters.to-tor.rules[1].prepend: count: 200",
        ),
        (
            "localAs: {asn: 64999",
            "localAs: {asn: 64512",
            "neighbor 10.0.0.3: localAs: 64512",
        ),
        (
            "min: 64, max: 122",
            "min: 64, max: 129",
            "prefixLists.pods[1]: 129 is above 128",
        ),
        (
            "asOverride: true",
            "routeReflectorClient: true",
            "neighbor 10.0.0.3: routeReflectorClient: only an internal",
        ),
        (
            "- prefix: 10.244.0.0/16",
            "- prefix: 10.244.1.0/26",
            "aggregates: 10.244.1.0/26 is under announce",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let wrong = text.replacen(from, to, 1);
        let error = match serde_saphyr::from_str::<File>(&wrong) {
            Err(error) => error.to_string(),
            Ok(file) => file.speaker_config().unwrap_err().to_string(),
        };
        assert!(error.contains(expected), "{to}: {error}");
    }
}
