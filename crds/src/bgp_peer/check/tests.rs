//! BGPPeers as people write them: what is taken, and what is said about what is not.

use super::*;

fn peer(json: serde_json::Value) -> BGPPeer {
    BGPPeer::new("tor", serde_json::from_value(json).unwrap())
}

#[test]
fn addresses_with_and_without_port() {
    for (text, expected) in [
        ("192.0.2.1", "192.0.2.1:179"),
        ("192.0.2.1:1790", "192.0.2.1:1790"),
        ("2001:db8::1", "[2001:db8::1]:179"),
        ("[2001:db8::1]:1790", "[2001:db8::1]:1790"),
    ] {
        let checked = peer(serde_json::json!({"peerIP": text, "asNumber": 65001})).check();
        let Remote::Address { address, asn } = checked.unwrap().remote else {
            panic!("{text}");
        };
        assert_eq!(address.to_string(), expected);
        assert_eq!(asn, PeerAs::Number(65001));
    }
}

/// A manifest for Calico, taken as it is.
#[test]
fn what_people_write_for_calico_carries_over() {
    let peer = peer(serde_json::json!({
        "nodeSelector": "rack == 'a'",
        "peerIP": "192.0.2.1",
        "asNumber": "1.10",
        "localASNumber": 64999,
        "password": {"secretKeyRef": {"name": "tor", "key": "password"}},
        "sourceAddress": "None",
        "maxRestartTime": "2m",
        "keepaliveTime": "20s",
        "nextHopMode": "Self",
        "ttlSecurity": 1,
        "reachableBy": "10.0.0.254",
        "numAllowedLocalASNumbers": 2,
        "filters": ["a", "b"],
    }));
    let checked = peer.check().unwrap();
    assert_eq!(checked.local_as, Some(64999));
    assert_eq!(checked.max_restart_time, Some(Duration::from_secs(120)));
    assert_eq!(checked.keepalive_time, Some(Duration::from_secs(20)));
    assert_eq!(checked.next_hop_mode, NextHopMode::SelfAddress);
    assert_eq!(checked.reachable_by, "10.0.0.254".parse().ok());
    assert_eq!(checked.filters, ["a", "b"]);
    assert_eq!(checked.password.unwrap().key, "password");
    let Remote::Address { asn, .. } = checked.remote else {
        panic!()
    };
    assert_eq!(asn, PeerAs::Number(65546));
}

#[test]
fn nodes_interfaces_and_ranges_are_peers_too() {
    let remote = |json| peer(json).check().unwrap().remote;
    assert!(matches!(
        remote(serde_json::json!({"peerSelector": "has(reflector)"})),
        Remote::Nodes { reverse: true, .. }
    ));
    assert!(matches!(
        remote(serde_json::json!({"peerSelector": "has(reflector)", "reversePeering": "Manual"})),
        Remote::Nodes { reverse: false, .. }
    ));
    assert_eq!(
        remote(serde_json::json!({"interface": "eth0", "asNumber": "external"})),
        Remote::Interface {
            name: "eth0".to_owned(),
            asn: PeerAs::External,
        }
    );
    assert_eq!(
        remote(serde_json::json!({"peerRange": {
            "cidr": "10.0.0.0/24", "asNumbers": ["64512-64600", 65001], "limit": 8,
        }})),
        Remote::Range {
            cidr: "10.0.0.0/24".parse().unwrap(),
            ases: vec![(64512, 64600), (65001, 65001)],
            asn: None,
            limit: 8,
        }
    );
}

#[test]
fn wrong_fields_are_named() {
    let with = |field: &str, value: serde_json::Value| {
        let mut spec = serde_json::json!({"peerIP": "192.0.2.1", "asNumber": 1});
        spec[field] = value;
        spec
    };
    let cases = [
        (
            serde_json::json!({"peerIP": "tor", "asNumber": 1}),
            "spec.peerIP",
        ),
        (
            serde_json::json!({"peerIP": "0.0.0.0", "asNumber": 1}),
            "spec.peerIP",
        ),
        (serde_json::json!({"peerIP": "192.0.2.1"}), "spec.asNumber"),
        (serde_json::json!({"asNumber": 1}), "exactly one of"),
        (with("interface", "eth0".into()), "exactly one of"),
        (with("asNumber", 23456.into()), "AS_TRANS"),
        (with("asNumber", 0.into()), "spec.asNumber"),
        (with("asNumber", "many".into()), "spec.asNumber"),
        (
            with("localASNumber", "internal".into()),
            "spec.localASNumber",
        ),
        (with("holdTime", 2.into()), "spec.holdTime"),
        (with("holdTime", "soon".into()), "spec.holdTime"),
        (with("ttlSecurity", 0.into()), "spec.ttlSecurity"),
        (with("ttlSecurity", 255.into()), "spec.ttlSecurity"),
        (with("reachableBy", "fd00::1".into()), "spec.reachableBy"),
        (
            with(
                "importCIDRs",
                serde_json::json!(["0.0.0.0/0", "10.0.0.1/8"]),
            ),
            "spec.importCIDRs[1]",
        ),
        (
            with("maxPrefixes", serde_json::json!({"limit": 0})),
            "spec.maxPrefixes.limit",
        ),
        (
            with("bfd", serde_json::json!({"minTx": 1})),
            "spec.bfd.minTx",
        ),
        (with("maxRestartTime", 5000.into()), "spec.maxRestartTime"),
        (
            serde_json::json!({"peerIP": "192.0.2.1", "asNumber": 1, "holdTime": 9, "keepaliveTime": 9}),
            "spec.keepaliveTime",
        ),
        (
            serde_json::json!({"peerIP": "192.0.2.1", "asNumber": 1, "node": "a", "nodeSelector": "all()"}),
            "exclude each other",
        ),
        (
            serde_json::json!({"peerSelector": "all()", "asNumber": 1}),
            "spec.asNumber",
        ),
        (
            serde_json::json!({"peerSelector": "rack =="}),
            "spec.peerSelector",
        ),
        (
            serde_json::json!({"interface": "eth 0", "asNumber": "internal"}),
            "spec.interface",
        ),
        (
            serde_json::json!({"peerRange": {"cidr": "10.0.0.1/24", "asNumbers": [1]}}),
            "spec.peerRange.cidr",
        ),
        (
            serde_json::json!({"peerRange": {"cidr": "10.0.0.0/24", "asNumbers": ["5-1"]}}),
            "spec.peerRange.asNumbers[0]",
        ),
        (
            serde_json::json!({"peerRange": {"cidr": "10.0.0.0/24", "asNumbers": ["internal", 1]}}),
            "stand alone",
        ),
    ];
    for (spec, expected) in cases {
        let text = crate::field::join(&peer(spec.clone()).check().unwrap_err());
        assert!(text.contains(expected), "{spec}: {text}");
    }
}

#[test]
fn what_calicos_objects_lack() {
    let reference = serde_json::json!({"name": "tor", "key": "ao"});
    let checked = peer(serde_json::json!({
        "peerIP": "192.0.2.1", "asNumber": 65001, "longLivedRestartTime": "24h", "sendHoldTime": 100,
        "tcpAo": {"keys": [
            {"sendId": 1, "recvId": 2, "secretKeyRef": reference},
            {"sendId": 2, "recvId": 1, "algorithm": "cmac-aes128", "secretKeyRef": reference},
        ]},
    }));
    let checked = checked.check().unwrap();
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    assert_eq!(seconds(checked.long_lived_restart_time), Some(86_400));
    assert_eq!(seconds(checked.send_hold_time), Some(100));
    let keys = checked
        .tcp_ao
        .iter()
        .map(|key| (key.send_id, key.recv_id, key.algorithm));
    let expected = [
        (1, 2, TcpAoAlgorithm::HmacSha1),
        (2, 1, TcpAoAlgorithm::CmacAes128),
    ];
    assert!(keys.eq(expected));

    let wrong = |more: serde_json::Value, field: &str| {
        let mut spec = serde_json::json!({"peerIP": "192.0.2.1", "asNumber": 65001});
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        let errors = peer(spec).check().unwrap_err();
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(
            said.len() == 1 && said[0].contains(field),
            "{more}: {said:?}"
        );
    };
    let key = |send: u8, receive: u8| serde_json::json!({"sendId": send, "recvId": receive, "secretKeyRef": reference});
    let table = [
        (
            serde_json::json!({"longLivedRestartTime": 16_777_216}),
            "longLivedRestartTime",
        ),
        (
            serde_json::json!({"longLivedRestartTime": -1}),
            "longLivedRestartTime",
        ),
        // Of the hold time that holds where nothing is said.
        (serde_json::json!({"sendHoldTime": 90}), "sendHoldTime"),
        (
            serde_json::json!({"holdTime": 180, "sendHoldTime": 100}),
            "sendHoldTime",
        ),
        (serde_json::json!({"sendHoldTime": 86_401}), "sendHoldTime"),
        (serde_json::json!({"tcpAo": {"keys": []}}), "tcpAo.keys"),
        (
            serde_json::json!({"tcpAo": {"keys": [key(1, 1), key(1, 2)]}}),
            "tcpAo.keys[1]",
        ),
        (
            serde_json::json!({"tcpAo": {"keys": [key(1, 1), key(2, 1)]}}),
            "tcpAo.keys[1]",
        ),
        (
            serde_json::json!({"tcpAo": {"keys": [key(1, 1)]}, "password": {"secretKeyRef": reference}}),
            "tcpAo",
        ),
    ];
    for (more, field) in table {
        wrong(more, field);
    }
    let forever = serde_json::json!({
        "peerIP": "192.0.2.1", "asNumber": 65001, "holdTime": 180, "sendHoldTime": 0,
    });
    let forever = peer(forever).check().unwrap();
    assert_eq!(forever.send_hold_time, Some(Duration::ZERO));
}
