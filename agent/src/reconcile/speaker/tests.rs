//! What a speaker is to be, out of objects.

use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::Event;
use margay_bgp::policy::{PeerType, RouteSource, Subject};
use margay_bgp::wire::PathAttributes;
use margay_crds::{BGPConfiguration, BGPPeer, IPPool};

use super::*;
use crate::datastore::Change;

/// Whose each session is.
fn origins(speaker: &DesiredSpeaker) -> BTreeMap<IpAddr, String> {
    let first_word = |name: &str| name.split(' ').next().unwrap().to_owned();
    let peers = speaker.config.peers.iter();
    peers
        .map(|(address, peer)| (*address, first_word(&peer.name)))
        .collect()
}

fn node(name: &str, addresses: &[&str], segment: &str) -> Node {
    let addresses: Vec<_> = addresses
        .iter()
        .map(|address| serde_json::json!({"type": "InternalIP", "address": address}))
        .collect();
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "labels": {"segment": segment}},
        "status": {"addresses": addresses},
    }))
    .unwrap()
}

fn view() -> View {
    let mut view = View::default();
    for object in [
        node("n1", &["10.0.0.1"], "a"),
        node("n2", &["10.0.0.2", "fd00::2"], "b"),
    ] {
        view.handle(Change::Node(Event::Apply(object)));
    }
    let spec = serde_json::from_value(serde_json::json!({"cidr": "10.244.0.0/16"})).unwrap();
    view.handle(Change::IPPool(Event::Apply(IPPool::new("p", spec))));
    let spec = serde_json::json!({
        "peerIP": "10.0.0.254", "asNumber": 65001, "nodeSelector": "segment == 'a'",
    });
    let peer = BGPPeer::new("tor-a", serde_json::from_value(spec).unwrap());
    view.handle(Change::BGPPeer(Event::Apply(peer)));
    view
}

fn of(view: &View, node: &str, own: &[IpNetwork]) -> Result<DesiredSpeaker, String> {
    desired(view, view.node(node).unwrap(), own, &BTreeMap::new(), false)
}

fn blocks(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_node_announces_its_own_blocks_but_for_those_kept_out_of_bgp() {
    let mut view = view();
    let spec = serde_json::json!({"cidr": "10.8.0.0/16", "disableBGPExport": true});
    let pool = IPPool::new("quiet", serde_json::from_value(spec).unwrap());
    view.handle(Change::IPPool(Event::Apply(pool)));
    let own = blocks(&["10.244.1.0/26", "10.8.0.0/26", "10.9.0.0/26"]);
    let desired = of(&view, "n1", &own).unwrap();
    let announced: Vec<String> = desired
        .config
        .announcements
        .keys()
        .map(ToString::to_string)
        .collect();
    // The pool of 10.9.0.0/26 is gone, its pods are not.
    assert_eq!(announced, ["10.9.0.0/26", "10.244.1.0/26"]);
}

#[test]
fn services_are_announced_beside_blocks_and_both_carry_their_communities() {
    let mut view = view();
    let spec = serde_json::json!({"prefixAdvertisements": [
        {"cidr": "10.244.0.0/16", "communities": ["64512:1"]},
    ]});
    let spec = serde_json::from_value(spec).unwrap();
    let settings = BGPConfiguration::new("default", spec);
    view.handle(Change::BGPConfiguration(Event::Apply(settings)));
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    let services = ["10.244.1.0/26", "192.0.2.7/32", "fd00:96::/112"]
        .map(|text| (prefix(text), Announcement::default()));
    let own = blocks(&["10.244.1.0/26"]);
    let node = view.node("n1").unwrap();
    let desired = desired(&view, node, &own, &BTreeMap::from(services), false).unwrap();
    let announced = &desired.config.announcements;
    assert_eq!(announced.len(), 3);
    // The block's own announcement.
    assert_eq!(announced[&prefix("10.244.1.0/26")].communities.len(), 1);
    assert!(announced[&prefix("192.0.2.7/32")].communities.is_empty());
    // What is announced makes no peer another.
    let before = of(&view, "n1", &[]).unwrap();
    assert_eq!(before.config.peers, desired.config.peers);
    assert!(desired.config.validate().is_ok());
}

#[test]
fn a_node_is_not_its_own_peer() {
    let mut view = view();
    let spec = serde_json::json!({"peerIP": "10.0.0.1", "asNumber": 64512});
    let reflector = BGPPeer::new("reflector", serde_json::from_value(spec).unwrap());
    view.handle(Change::BGPPeer(Event::Apply(reflector)));
    let left_over = node("old-n1", &["10.0.0.1"], "a");
    view.handle(Change::Node(Event::Apply(left_over)));

    let own: IpAddr = "10.0.0.1".parse().unwrap();
    let n1 = of(&view, "n1", &[]).unwrap();
    assert!(!n1.config.peers.contains_key(&own), "{:?}", origins(&n1));
    let n2 = of(&view, "n2", &[]).unwrap();
    assert_eq!(origins(&n2)[&own], "reflector");
}

#[test]
fn peers_come_from_the_mesh_and_from_selected_objects() {
    let n1 = of(&view(), "n1", &blocks(&["10.244.1.0/26", "10.9.0.0/26"])).unwrap();
    let tor: IpAddr = "10.0.0.254".parse().unwrap();
    assert_eq!(origins(&n1).len(), 2);
    assert_eq!(origins(&n1)[&tor], "tor-a");
    let filter = n1.config.peers[&tor].import.as_ref().unwrap();
    assert!(
        filter
            .decide_plain(&"10.244.9.0/26".parse().unwrap())
            .is_some()
    );
    assert!(filter.decide_plain(&"0.0.0.0/0".parse().unwrap()).is_none());
    let export = n1.config.peers[&tor].export.as_ref().unwrap();
    let exports = |source| {
        let subject = Subject {
            attributes: &PathAttributes::default(),
            next_hop: None,
            metric: None,
            peer_type: PeerType::External,
            source,
        };
        let block = "10.244.1.0/26".parse().unwrap();
        export.decide_once(&subject, &block).is_some()
    };
    assert!(exports(RouteSource::Local));
    assert!(!exports(RouteSource::Internal) && !exports(RouteSource::External));

    let n2 = of(&view(), "n2", &blocks(&["10.244.2.0/26"])).unwrap();
    assert_eq!(origins(&n2).values().collect::<Vec<_>>(), ["Mesh"]);
    assert!(n1.config.validate().is_ok() && n2.config.validate().is_ok());
}

#[test]
fn a_node_without_an_address_is_named() {
    let mut bare = View::default();
    bare.handle(Change::Node(Event::Apply(node("n1", &[], "a"))));
    let words = of(&bare, "n1", &[]).unwrap_err();
    assert!(words.contains("Node n1 has no InternalIP"), "{words}");
}

fn apply_peer(view: &mut View, name: &str, spec: serde_json::Value) {
    let peer = BGPPeer::new(name, serde_json::from_value(spec).unwrap());
    view.handle(Change::BGPPeer(Event::Apply(peer)));
}

/// Two workers and two reflectors of one cluster, no mesh.
fn reflected() -> View {
    let mut view = View::default();
    let spec = serde_json::json!({"nodeToNodeMeshEnabled": false});
    let settings = BGPConfiguration::new("default", serde_json::from_value(spec).unwrap());
    view.handle(Change::BGPConfiguration(Event::Apply(settings)));
    for (name, address, reflector) in [
        ("w1", "10.0.0.1", false),
        ("w2", "10.0.0.2", false),
        ("r1", "10.0.0.11", true),
        ("r2", "10.0.0.12", true),
    ] {
        let mut node = node(name, &[address], "a");
        if reflector {
            let cluster = ("margay.dev/route-reflector-cluster-id", "244.0.0.1");
            let annotations = [(cluster.0.to_owned(), cluster.1.to_owned())];
            node.metadata.annotations = Some(annotations.into());
            let labels = node.metadata.labels.get_or_insert_default();
            labels.insert("reflector".to_owned(), "yes".to_owned());
        }
        view.handle(Change::Node(Event::Apply(node)));
    }
    let spec = serde_json::json!({"nodeSelector": "all()", "peerSelector": "has(reflector)"});
    apply_peer(&mut view, "reflectors", spec);
    view
}

fn peers(desired: &DesiredSpeaker) -> Vec<String> {
    let peers = desired.config.peers.keys();
    peers.map(ToString::to_string).collect()
}

#[test]
fn workers_peer_with_reflectors_and_reflectors_with_all() {
    let view = reflected();
    let worker = of(&view, "w1", &[]).unwrap();
    assert_eq!(peers(&worker), ["10.0.0.11", "10.0.0.12"]);
    let up = &worker.config.peers[&IpAddr::from([10, 0, 0, 11])];
    assert!(!up.policy.route_reflector_client);
    // What it learns from one reflector is not for the other.
    let export = up.export.as_ref().unwrap();
    assert!(
        export
            .decide_plain(&"10.244.1.0/26".parse().unwrap())
            .is_none()
    );

    let reflector = of(&view, "r1", &[]).unwrap();
    assert_eq!(peers(&reflector), ["10.0.0.1", "10.0.0.2", "10.0.0.12"]);
    assert_eq!(reflector.config.cluster_id, Some(RouterId(0xf400_0001)));
    let to = |last| &reflector.config.peers[&IpAddr::from([10, 0, 0, last])];
    assert!(to(1).policy.route_reflector_client && to(2).policy.route_reflector_client);
    assert!(!to(12).policy.route_reflector_client, "of its own cluster");
    assert!(to(1).export.is_none(), "a reflector gives on everything");
    assert!(reflector.config.validate().is_ok() && worker.config.validate().is_ok());
}

#[test]
fn one_side_alone_is_enough_unless_peering_back_is_switched_off() {
    let mut view = reflected();
    let spec = serde_json::json!({"node": "w1", "peerSelector": "has(reflector)"});
    apply_peer(&mut view, "reflectors", spec);
    let clients = |view: &View| peers(&of(view, "r1", &[]).unwrap());
    assert_eq!(clients(&view), ["10.0.0.1"]);
    let spec = serde_json::json!({
        "node": "w1", "peerSelector": "has(reflector)", "reversePeering": "Manual",
    });
    apply_peer(&mut view, "reflectors", spec);
    assert!(clients(&view).is_empty());
    assert_eq!(peers(&of(&view, "w1", &[]).unwrap()).len(), 2);
}

#[test]
fn reflectors_are_not_in_the_mesh() {
    let mut view = reflected();
    let settings = BGPConfiguration::new("default", serde_json::from_str("{}").unwrap());
    view.handle(Change::BGPConfiguration(Event::Apply(settings)));
    let spec =
        serde_json::json!({"nodeSelector": "nowhere == 'x'", "peerIP": "10.9.9.9", "asNumber": 1});
    apply_peer(&mut view, "reflectors", spec);
    assert_eq!(peers(&of(&view, "w1", &[]).unwrap()), ["10.0.0.2"]);
    assert!(peers(&of(&view, "r1", &[]).unwrap()).is_empty());
}

#[test]
fn of_two_objects_for_one_peer_the_narrower_decides_and_the_other_is_told_of() {
    let mut view = view();
    apply_peer(
        &mut view,
        "any",
        serde_json::json!({"peerIP": "10.0.0.254", "asNumber": 65009}),
    );
    apply_peer(
        &mut view,
        "mine",
        serde_json::json!({"node": "n1", "peerIP": "10.0.0.254", "asNumber": 65002}),
    );
    let n1 = of(&view, "n1", &[]).unwrap();
    let tor: IpAddr = "10.0.0.254".parse().unwrap();
    assert_eq!(origins(&n1)[&tor], "mine");
    assert_eq!(n1.config.peers[&tor].asn, Asn(65002).into());
    assert_eq!(n1.problems.len(), 2, "{:?}", n1.problems);
    assert!(n1.problems[0].contains("BGPPeer tor-a is not used for 10.0.0.254: BGPPeer mine"));
    let n2 = of(&view, "n2", &[]).unwrap();
    assert_eq!((&*origins(&n2)[&tor], n2.problems.len()), ("any", 0));
}

#[test]
fn what_the_speaker_would_refuse_costs_one_session_and_not_all() {
    let mut view = view();
    let spec = serde_json::json!({
        "peerIP": "fe80::1", "asNumber": 65009, "bfd": {"multihop": true}, "ttlSecurity": 1,
    });
    apply_peer(&mut view, "odd", spec);
    let n2 = of(&view, "n2", &[]).unwrap();
    assert!(n2.config.validate().is_ok(), "{:?}", n2.problems);
    assert!(peers(&n2).contains(&"10.0.0.1".to_owned()));
}

#[test]
fn a_password_that_cannot_be_had_keeps_the_session_down() {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;
    let mut view = view();
    let spec = serde_json::json!({
        "peerIP": "10.0.0.254", "asNumber": 65001,
        "password": {"secretKeyRef": {"name": "tor", "key": "password"}},
    });
    apply_peer(&mut view, "tor-a", spec);
    let tor: IpAddr = "10.0.0.254".parse().unwrap();
    let session = |view: &View| of(view, "n1", &[]).unwrap().config.peers[&tor].clone();
    assert!(session(&view).disabled);
    view.handle(Change::Secret(Event::InitDone));
    assert!(session(&view).disabled && session(&view).security.password.is_none());
    let missing = view.missing_of(&view.peers()[0]).unwrap();
    assert!(
        missing.contains("stays down: there is no Secret tor"),
        "{missing}"
    );
    let mut secret = Secret::default();
    secret.metadata.name = Some("tor".to_owned());
    secret.data = Some([("password".to_owned(), ByteString(b"hush".to_vec()))].into());
    assert!(view.handle(Change::Secret(Event::Apply(secret))));
    assert!(!session(&view).disabled);
    let password = session(&view).security.password.unwrap();
    assert_eq!(password.reveal(), "hush");
    assert_eq!(view.missing_of(&view.peers()[0]), None);
}

#[test]
fn filters_come_before_what_holds_without_and_a_missing_one_lets_nothing_pass() {
    use margay_crds::BGPFilter;
    let mut view = view();
    let spec = serde_json::json!({
        "peerIP": "10.0.0.254", "asNumber": 65001, "filters": ["default-route"],
        "importCIDRs": ["192.0.2.0/24", "::/0"],
    });
    apply_peer(&mut view, "tor-a", spec);
    let tor: IpAddr = "10.0.0.254".parse().unwrap();
    let takes = |view: &View, prefix: &str| {
        let peer = of(view, "n1", &[]).unwrap().config.peers[&tor].clone();
        peer.import
            .unwrap()
            .decide_plain(&prefix.parse().unwrap())
            .is_some()
    };
    assert!(!takes(&view, "10.244.9.0/26"));
    assert!(
        view.missing_of(&view.peers()[0])
            .unwrap()
            .contains("no BGPFilter default-route")
    );
    let filter = |json| BGPFilter::new("default-route", serde_json::from_value(json).unwrap());
    let good = filter(serde_json::json!({"importV4": [
        {"action": "Accept", "matchOperator": "Equal", "cidr": "0.0.0.0/0"},
        {"action": "Reject", "matchOperator": "In", "cidr": "10.244.8.0/24"},
    ]}));
    assert!(view.handle(Change::BGPFilter(Event::Apply(good))));
    for (prefix, passes) in [
        ("0.0.0.0/0", true),
        ("10.244.8.0/26", false),
        ("10.244.9.0/26", true),
        ("192.0.2.128/25", true),
        ("198.51.100.0/24", false),
        ("::/0", true),
        ("2001:db8::/32", false),
    ] {
        assert_eq!(takes(&view, prefix), passes, "{prefix}");
    }
    // A slip changes nothing.
    let slip = filter(serde_json::json!({"importV4": [{"action": "Accept", "cidr": "x"}]}));
    assert!(!view.handle(Change::BGPFilter(Event::Apply(slip))));
    assert!(takes(&view, "0.0.0.0/0"));
}

#[test]
fn what_a_peer_says_of_its_session_is_in_the_session() {
    let mut view = view();
    let spec = serde_json::json!({
        "peerIP": "10.0.0.254:1790", "asNumber": "external", "localASNumber": 64999,
        "holdTime": "9s", "keepaliveTime": 3, "connectRetryTime": 7, "maxRestartTime": 30,
        "nextHopMode": "Self", "ttlSecurity": 2, "numAllowedLocalASNumbers": 1,
        "sourceAddress": "None", "families": ["ipv4-unicast", "ipv6-unicast"],
        "bfd": {"minTx": 50, "minRx": 50}, "maxPrefixes": {"limit": 10, "action": "Teardown"},
        "adminDown": true, "shutdownMessage": "works", "gracefulShutdown": true,
    });
    apply_peer(&mut view, "tor-a", spec);
    apply_peer(
        &mut view,
        "link",
        serde_json::json!({"interface": "eth9", "asNumber": "external"}),
    );
    let spec =
        serde_json::json!({"peerRange": {"cidr": "10.7.0.0/24", "asNumbers": ["1-9"], "limit": 3}});
    apply_peer(&mut view, "range", spec);
    let config = of(&view, "n1", &[]).unwrap().config;
    let peer = &config.peers[&IpAddr::from([10, 0, 0, 254])];
    assert_eq!(peer.port, 1790);
    assert_eq!(peer.local_address, None);
    assert_eq!(peer.hold_time, Duration::from_secs(9));
    assert_eq!(peer.keepalive_time, Some(Duration::from_secs(3)));
    assert_eq!(peer.connect_retry_time, Duration::from_secs(7));
    assert_eq!(peer.restart_time, Some(30));
    assert_eq!(peer.security.ttl_security, Some(2));
    assert_eq!(peer.policy.allow_own_as, 1);
    assert_eq!(peer.policy.local_as.unwrap().asn, Asn(64999));
    assert!(peer.policy.graceful_shutdown && peer.disabled);
    assert_eq!(peer.shutdown_message, "works");
    assert_eq!(peer.families.len(), 2);
    assert_eq!(peer.bfd.unwrap().min_tx, 50);
    assert_eq!(peer.max_prefixes.limit, 10);
    assert!(config.interfaces.contains_key("eth9"));
    let range = &config.ranges[&"10.7.0.0/24".parse().unwrap()];
    assert!(range.limit == 3 && range.peer.passive);
    assert_eq!(range.peer.max_prefixes.limit, 200_000);
    assert!(config.validate().is_ok());
}

#[test]
fn a_node_may_have_a_port_and_communities_of_its_own() {
    let mut view = view();
    let mut write = |name: &str, spec: serde_json::Value| {
        let object = BGPConfiguration::new(name, serde_json::from_value(spec).unwrap());
        view.handle(Change::BGPConfiguration(Event::Apply(object)))
    };
    let tagged = |community: &str| serde_json::json!([{"cidr": "10.244.0.0/16", "communities": [community]}]);
    assert!(write(
        "default",
        serde_json::json!({"prefixAdvertisements": tagged("64512:1")})
    ));
    // What is not a node's own business counts for nothing there.
    assert!(write(
        "node.n2",
        serde_json::json!({
        "prefixAdvertisements": tagged("64512:2"), "listenPort": 1790, "asNumber": "1.10",
        "nodeToNodeMeshEnabled": false})
    ));
    let own = blocks(&["10.244.1.0/26"]);
    let (n1, n2) = (
        of(&view, "n1", &own).unwrap(),
        of(&view, "n2", &own).unwrap(),
    );
    let tags = |speaker: &DesiredSpeaker| {
        let announcement = &speaker.config.announcements[&own[0].into()];
        announcement
            .communities
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(tags(&n1), ["64512:1"]);
    assert_eq!(tags(&n2), ["64512:2"]);
    assert_eq!(n2.config.asn, Asn(64512));
    assert!(
        n2.config
            .listen
            .iter()
            .all(|listener| listener.port() == 1790)
    );
    assert!(
        n1.config
            .listen
            .iter()
            .all(|listener| listener.port() == 179)
    );
    assert_eq!(n1.config.peers[&IpAddr::from([10, 0, 0, 2])].port, 1790);
    assert_eq!(n2.config.peers[&IpAddr::from([10, 0, 0, 1])].port, 179);
}

#[test]
fn links_bring_a_listener_for_ipv6() {
    let mut view = view();
    let spec = serde_json::json!({"node": "n1", "interface": "eth9", "asNumber": "external"});
    let peer = BGPPeer::new("up", serde_json::from_value(spec).unwrap());
    view.handle(Change::BGPPeer(Event::Apply(peer)));
    let listens = |view: &View, node| {
        let listeners = of(view, node, &[]).unwrap().config.listen;
        listeners.iter().any(SocketAddr::is_ipv6)
    };
    assert!(listens(&view, "n1"));
    let spec = serde_json::json!({"bindMode": "NodeIP"});
    let settings = BGPConfiguration::new("default", serde_json::from_value(spec).unwrap());
    view.handle(Change::BGPConfiguration(Event::Apply(settings)));
    assert!(!listens(&view, "n1"));
}

#[test]
fn a_node_may_have_an_as_and_an_identifier_of_its_own() {
    let mut view = view();
    let mut own = node("n1", &["10.0.0.1"], "a");
    let annotate = |node: &mut Node, key: &str, value: &str| {
        let annotations = node.metadata.annotations.get_or_insert_default();
        annotations.insert(key.to_owned(), value.to_owned());
    };
    annotate(&mut own, "margay.dev/as-number", "64601");
    annotate(&mut own, "margay.dev/router-id", "192.0.2.1");
    view.handle(Change::Node(Event::Apply(own.clone())));
    let n1 = of(&view, "n1", &[]).unwrap();
    assert_eq!(n1.config.asn, Asn(64601));
    assert_eq!(n1.config.router_id, RouterId(0xc000_0201));
    let n2 = of(&view, "n2", &[]).unwrap();
    let mesh = &n2.config.peers[&IpAddr::from([10, 0, 0, 1])];
    assert_eq!(mesh.asn, Asn(64601).into());
    // Between two ASes nothing passes without a filter.
    assert!(mesh.import.is_some() && mesh.export.is_some());
    annotate(&mut own, "margay.dev/as-number", "many");
    view.handle(Change::Node(Event::Apply(own)));
    let words = of(&view, "n1", &[]).unwrap_err();
    assert!(
        words.contains("annotation margay.dev/as-number: \"many\""),
        "{words}"
    );
}

#[test]
fn times_and_keys_that_calicos_objects_lack() {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;
    let mut view = view();
    let settings = serde_json::json!({"longLivedRestartTime": 600});
    let settings = BGPConfiguration::new("default", serde_json::from_value(settings).unwrap());
    view.handle(Change::BGPConfiguration(Event::Apply(settings)));
    let key = |send: u8, key: &str| {
        serde_json::json!({"sendId": send, "recvId": send, "algorithm": "hmac-sha256",
            "secretKeyRef": {"name": "tor", "key": key}})
    };
    let spec = |more: serde_json::Value| {
        let mut spec = serde_json::json!({"peerIP": "10.0.0.254", "asNumber": 65001});
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        spec
    };
    let tor: IpAddr = "10.0.0.254".parse().unwrap();
    let mesh: IpAddr = "10.0.0.2".parse().unwrap();
    let long_lived = |view: &View| {
        let config = of(view, "n1", &[]).unwrap().config;
        config.validate().unwrap();
        let of = |peer: IpAddr| config.peers[&peer].long_lived_time;
        (
            config.graceful_restart.unwrap().long_lived_time,
            of(mesh),
            of(tor),
        )
    };
    assert_eq!(long_lived(&view), (600, Some(600), Some(600)));
    let times = serde_json::json!({"longLivedRestartTime": "1h", "sendHoldTime": 200});
    apply_peer(&mut view, "tor-a", spec(times));
    assert_eq!(long_lived(&view), (3600, Some(600), Some(3600)));
    let session = |view: &View| of(view, "n1", &[]).unwrap().config.peers[&tor].clone();
    assert_eq!(
        session(&view).send_hold_time,
        Some(Duration::from_secs(200))
    );
    apply_peer(
        &mut view,
        "tor-a",
        spec(serde_json::json!({"longLivedRestartTime": 0})),
    );
    assert_eq!(long_lived(&view), (600, Some(600), Some(0)));

    // With all keys, or not at all.
    let keys = serde_json::json!({"tcpAo": {"keys": [key(1, "old"), key(2, "new")]}});
    apply_peer(&mut view, "tor-a", spec(keys));
    let secret = |keys: &[&str]| Secret {
        metadata: kube::api::ObjectMeta {
            name: Some("tor".to_owned()),
            namespace: Some("margay-system".to_owned()),
            ..Default::default()
        },
        data: Some(
            keys.iter()
                .map(|key| ((*key).to_owned(), ByteString(b"hush".to_vec())))
                .collect(),
        ),
        ..Default::default()
    };
    view.handle(Change::Secret(Event::InitDone));
    view.handle(Change::Secret(Event::Apply(secret(&["old"]))));
    assert!(session(&view).disabled);
    let peer = view.peers().iter().find(|peer| peer.name == "tor-a");
    let words = view.missing_of(peer.unwrap()).unwrap();
    assert!(words.contains("Secret tor has no key new"), "{words}");
    view.handle(Change::Secret(Event::Apply(secret(&["old", "new"]))));
    let given = session(&view);
    assert!(!given.disabled && !format!("{given:?}").contains("hush"));
    let ids: Vec<u8> = given
        .security
        .tcp_ao
        .iter()
        .map(|key| key.send_id)
        .collect();
    assert_eq!(ids, [1, 2]);
    assert!(of(&view, "n1", &[]).unwrap().problems.is_empty());
}
