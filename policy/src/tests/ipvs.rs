//! What IPVS forwards, beside what every world asks (`fabric`): the same answer as for what is forwarded.

use std::collections::BTreeSet;

use super::fabric::{load_cluster, node_input, packet};
use crate::{
    Compiler, Ruleset,
    compile::IPVS_INTERFACE,
    ruleset::{
        ConnectionState,
        simulate::{Packet, balanced},
    },
};

const CLOSED: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.1.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: x}, spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.1.2}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}
";

fn compile(interface: Option<&str>) -> Ruleset {
    let cluster = load_cluster(CLOSED);
    let mut input = node_input(&cluster, "n1");
    let interfaces = interface.map(|name| (name.to_owned(), BTreeSet::new()));
    input.interfaces.extend(interfaces);
    Compiler::new().compile(&cluster, &input).0
}

/// As IPVS sends it: nothing tells where it came in.
fn sent(source: &str, destination: &str, outward: &str) -> Packet {
    packet("", outward, source, destination)
}

fn passes(packet: &Packet) -> bool {
    balanced(&compile(Some(IPVS_INTERFACE)), packet).unwrap()
}

#[test]
fn it_is_judged_by_its_source_and_the_way_it_goes() {
    assert!(
        !passes(&sent("10.0.1.1", "10.0.1.2", "mgy0001")),
        "pod to pod"
    );
    assert!(
        !passes(&sent("10.0.1.1", "10.0.2.1", "eth0")),
        "a pod's egress"
    );
    assert!(
        !passes(&sent("203.0.113.1", "10.0.1.2", "mgy0001")),
        "a pod's ingress"
    );
    assert!(passes(&sent("203.0.113.1", "10.0.2.1", "eth0")), "nobody's");
    assert!(
        !passes(&sent("203.0.113.1", "10.0.1.9", "mgy0009")),
        "to an interface nobody knows"
    );
    assert!(
        passes(&sent("10.0.1.1", "10.0.1.1", "mgy0000")),
        "to itself"
    );
}

#[test]
fn a_mark_says_nothing_here_and_a_reply_passes() {
    let established = Packet {
        state: Some(ConnectionState::Established),
        ..sent("10.0.1.1", "10.0.1.2", "mgy0001")
    };
    let table = compile(Some(IPVS_INTERFACE));
    for mark in 0..=u16::MAX {
        let marked = Packet {
            mark,
            ..established.clone()
        };
        assert_eq!(balanced(&table, &marked), Some(false), "{mark}");
    }
    assert!(passes(&Packet {
        reply: true,
        ..established
    }));
}

#[test]
fn what_the_node_sends_itself_is_not_asked_about() {
    let own = Packet {
        from_node: true,
        ..sent("10.0.1.200", "10.0.1.2", "mgy0001")
    };
    assert!(passes(&own));
}

#[test]
fn without_the_interface_there_is_none_of_it() {
    let table = compile(None);
    assert_eq!(
        balanced(&table, &sent("10.0.1.1", "10.0.1.2", "mgy0001")),
        None
    );
    assert!(!table.maps.contains_key("senders4"));
    assert_eq!(table, compile(Some("kube-ipvs1")));
}
