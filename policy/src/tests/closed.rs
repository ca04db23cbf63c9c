//! What the compiler does when it knows less than it should: it errs closed.

use super::fabric::{ip, load_cluster, node_input, packet};
use crate::{
    Cluster, Compiler, Engine, LocalEndpoint, NodeInput, Ruleset,
    compile::stand_in,
    ruleset::{
        ConnectionState, Hook,
        simulate::{Packet, passes},
    },
    selector::Labels,
};

const PODS: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x, uid: u1, labels: {pod: a}}, spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.1.1}, {ip: 'fd00::1:1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: x, labels: {pod: b}}, spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.1.2}]}}
";

const A: &str = "mgy0000";
const B: &str = "mgy0001";

fn compile(cluster: &Cluster, input: &NodeInput) -> (Ruleset, Vec<String>) {
    let (ruleset, problems) = Compiler::new().compile(cluster, input);
    (ruleset, problems.iter().map(ToString::to_string).collect())
}

fn forwarded(ruleset: &Ruleset, packet: &Packet) -> bool {
    passes(ruleset, Hook::Forward, packet)
}

fn from_a(ruleset: &Ruleset, packet: &Packet) -> bool {
    passes(ruleset, Hook::PreroutingRaw, packet)
}

#[test]
fn a_pod_interface_that_is_no_endpoint_is_dropped() {
    let cluster = load_cluster(PODS);
    let (ruleset, _) = compile(&cluster, &node_input(&cluster, "n1"));
    assert!(from_a(&ruleset, &packet(A, "", "10.0.1.1", "10.0.1.2")));
    assert!(!from_a(
        &ruleset,
        &packet("mgyffff", "", "10.0.1.1", "10.0.1.2")
    ));
    assert!(!forwarded(
        &ruleset,
        &packet("mgyffff", B, "10.0.1.1", "10.0.1.2")
    ));
    assert!(!forwarded(
        &ruleset,
        &packet("eth0", "mgyffff", "10.0.1.1", "10.0.1.9")
    ));
    // What is not between pods is none of ours.
    let mut other = packet("eth0", "eth1", "198.51.100.1", "203.0.113.1");
    other.state = Some(ConnectionState::Invalid);
    assert!(forwarded(&ruleset, &other) && from_a(&ruleset, &other));
}

#[test]
fn a_pod_sends_from_its_own_addresses_only() {
    let cluster = load_cluster(PODS);
    let (ruleset, _) = compile(&cluster, &node_input(&cluster, "n1"));
    for (source, destination, passes) in [
        ("10.0.1.1", "203.0.113.1", true),
        ("fd00::1:1", "2001:db8::1", true),
        ("10.0.1.2", "203.0.113.1", false),
        ("203.0.113.9", "203.0.113.1", false),
        ("fd00::1:2", "2001:db8::1", false),
        ("fe80::1", "ff02::1", false),
    ] {
        assert_eq!(
            from_a(&ruleset, &packet(A, "", source, destination)),
            passes,
            "{source}"
        );
    }
}

#[test]
fn neighbour_discovery_passes_and_router_advertisements_do_not() {
    let cluster = load_cluster(PODS);
    let (ruleset, _) = compile(&cluster, &node_input(&cluster, "n1"));
    for (kind, passes) in [
        (133, true),
        (134, false),
        (135, true),
        (136, true),
        (137, false),
        (128, false),
    ] {
        for source in ["fe80::1", "::"] {
            let mut discovery = packet(A, "", source, "ff02::1");
            (discovery.protocol, discovery.icmp) = (58, (kind, 0));
            assert_eq!(
                from_a(&ruleset, &discovery),
                passes,
                "type {kind} from {source}"
            );
            discovery.in_interface = "mgyffff".to_owned();
            assert!(
                !from_a(&ruleset, &discovery),
                "type {kind} from an unknown interface"
            );
        }
    }
}

#[test]
fn tunnelled_packets_of_pods_are_dropped() {
    let cluster = load_cluster(PODS);
    let (ruleset, _) = compile(&cluster, &node_input(&cluster, "n1"));
    for (protocol, port, passes) in [
        (4, 0, false),
        (17, 4789, false),
        (17, 4790, true),
        (6, 4789, true),
    ] {
        let mut tunnelled = packet(A, "", "10.0.1.1", "192.0.2.9");
        (tunnelled.protocol, tunnelled.port) = (protocol, port);
        assert_eq!(
            from_a(&ruleset, &tunnelled),
            passes,
            "protocol {protocol} port {port}"
        );
        tunnelled.in_interface = "eth0".to_owned();
        assert!(from_a(&ruleset, &tunnelled), "another node's tunnel");
    }
}

#[test]
fn replies_and_related_errors_pass_and_invalid_packets_do_not() {
    let mut cluster = load_cluster(PODS);
    isolate(
        &mut cluster,
        "{podSelector: {}, policyTypes: [Ingress, Egress]}",
    );
    let (ruleset, _) = compile(&cluster, &node_input(&cluster, "n1"));
    for (state, passes) in [
        (None, false),
        (Some(ConnectionState::Established), true),
        (Some(ConnectionState::Related), true),
        (Some(ConnectionState::Invalid), false),
    ] {
        let mut answer = packet(A, B, "10.0.1.1", "10.0.1.2");
        (answer.state, answer.reply) = (state, true);
        assert_eq!(forwarded(&ruleset, &answer), passes, "{state:?}");
    }
    // By way of a service a pod may meet itself.
    assert!(forwarded(&ruleset, &packet(A, A, "10.0.1.1", "10.0.1.1")));
}

fn isolate(cluster: &mut Cluster, spec: &str) {
    let policy = load_cluster(&format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: x}}, spec: {spec}}}"
    ));
    cluster.insert_policy(policy.policies().next().unwrap().clone());
}

/// An endpoint of a pod that the API has not shown.
fn early(labels: Option<Labels>) -> NodeInput {
    NodeInput {
        node: "n1".to_owned(),
        endpoints: vec![LocalEndpoint {
            namespace: "x".to_owned(),
            pod: "early".to_owned(),
            labels,
            interface: "mgyearly".to_owned(),
            device: stand_in("mgyearly"),
            addresses: vec![ip("10.0.1.9")],
            ..LocalEndpoint::default()
        }],
        ..NodeInput::default()
    }
}

fn reaches(ruleset: &Ruleset) -> (bool, bool) {
    let inward = packet("eth0", "mgyearly", "203.0.113.1", "10.0.1.9");
    let outward = packet("mgyearly", "eth0", "10.0.1.9", "203.0.113.1");
    (forwarded(ruleset, &inward), forwarded(ruleset, &outward))
}

#[test]
fn an_endpoint_ahead_of_its_pod_is_closed_or_goes_by_its_labels() {
    let mut cluster = load_cluster(PODS);
    isolate(
        &mut cluster,
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}",
    );
    let labels = |pod: &str| Some(Labels::from([("pod".to_owned(), pod.to_owned())]));
    for (labels, expected) in [
        (None, (false, false)),
        (labels("a"), (false, true)),
        (labels("b"), (true, true)),
    ] {
        let (ruleset, problems) = compile(&cluster, &early(labels.clone()));
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(reaches(&ruleset), expected, "{labels:?}");
        assert!(
            from_a(&ruleset, &packet("mgyearly", "", "10.0.1.9", "192.0.2.1")),
            "its own node it reaches"
        );
    }
}

#[test]
fn an_interface_whose_number_is_not_known_is_closed_until_it_is() {
    let cluster = load_cluster(PODS);
    let mut input = early(Some(Labels::new()));
    let known = input.endpoints[0].clone();
    input.endpoints[0].device = 0;
    let (closed, _) = compile(&cluster, &input);
    assert_eq!(reaches(&closed), (false, false));
    let own_node = packet("mgyearly", "", "10.0.1.9", "192.0.2.1");
    assert!(!from_a(&closed, &own_node));

    let mut engine = Engine::new("n1");
    *engine.cluster() = cluster;
    engine.handle_endpoint(input.endpoints[0].clone());
    engine.poll();
    assert_eq!(*engine.ruleset(), closed);
    engine.handle_endpoint(known);
    engine.poll();
    assert_eq!(reaches(engine.ruleset()), (true, true));
    engine.handle_endpoint(input.endpoints[0].clone());
    engine.poll();
    assert_eq!(*engine.ruleset(), closed);
}

#[test]
fn a_pod_object_with_another_uid_is_not_the_endpoints() {
    let cluster = load_cluster(PODS);
    let mut input = early(None);
    input.endpoints[0].pod = "a".to_owned();
    for (uid, open) in [(Some("u1"), true), (Some("u2"), false), (None, true)] {
        input.endpoints[0].uid = uid.map(str::to_owned);
        let (ruleset, _) = compile(&cluster, &input);
        assert_eq!(reaches(&ruleset), (open, open), "{uid:?}");
    }
}

#[test]
fn an_ended_pods_endpoint_is_closed() {
    let mut cluster = load_cluster(PODS);
    let mut pod = cluster.pods().next().unwrap().clone();
    pod.finished = true;
    let mut input = early(None);
    input.endpoints[0].pod = pod.name.clone();
    cluster.insert_pod(pod);
    assert_eq!(reaches(&compile(&cluster, &input).0), (false, false));
}

/// The endpoint's addresses are certain; those in the API may be an earlier pod's of the same name, or not yet there.
#[test]
fn a_local_endpoints_addresses_are_believed_before_the_apis() {
    let mut cluster = load_cluster(PODS);
    isolate(
        &mut cluster,
        "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}",
    );
    let mut input = node_input(&cluster, "n1");
    input.endpoints[0].addresses = vec![ip("10.0.1.77")];
    let (ruleset, _) = compile(&cluster, &input);
    assert!(forwarded(&ruleset, &packet(A, B, "10.0.1.77", "10.0.1.2")));
    assert!(!forwarded(
        &ruleset,
        &packet("eth0", B, "10.0.1.1", "10.0.1.2")
    ));
}

#[test]
fn endpoints_that_cannot_be_are_left_out_and_named() {
    let cluster = load_cluster(PODS);
    let mut input = node_input(&cluster, "n1");
    input.endpoints[1].interface = A.to_owned();
    let (ruleset, problems) = compile(&cluster, &input);
    assert_eq!(
        problems,
        [
            "Endpoint x/b: interface: mgy0000 belongs to another endpoint already; this one is left out"
        ]
    );
    assert!(!from_a(&ruleset, &packet(A, "", "10.0.1.2", "10.0.1.1")));
    for name in ["eth0", "mgy\" accept", "mgy0123456789abc"] {
        input.endpoints[1].interface = name.to_owned();
        let (ruleset, problems) = compile(&cluster, &input);
        assert!(
            problems[0].contains("is not the name of a pod interface"),
            "{problems:?}"
        );
        assert!(!ruleset.full().to_nft_text().contains(name));
    }
}
