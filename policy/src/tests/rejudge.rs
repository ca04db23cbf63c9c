//! Open connections are judged anew when policy changes, and only then.

use super::fabric::{ip, load_cluster, node_input};
use crate::{
    Cluster, Compiler, Ruleset,
    ruleset::{
        ConnectionState,
        simulate::{Packet, forwards},
    },
};

const PODS: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x, labels: {app: a}}, spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.1.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: x, labels: {app: b}}, spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.1.2}]}}
";
const POLICY: &str = "
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{port: 81}]}]}}
";

fn compile(cluster: &Cluster) -> Ruleset {
    let (ruleset, problems) = Compiler::new().compile(cluster, &node_input(cluster, "n1"));
    assert_eq!(problems, []);
    ruleset
}

/// A packet from a to b, or back, of a connection to this port of b.
fn packet(reply: bool, port: u16, state: Option<ConnectionState>, mark: u16) -> Packet {
    let (a, b) = (
        ("mgy0000", "10.0.1.1", 40_000),
        ("mgy0001", "10.0.1.2", port),
    );
    let (from, to) = if reply { (b, a) } else { (a, b) };
    Packet {
        in_interface: from.0.to_owned(),
        out_interface: to.0.to_owned(),
        source: ip(from.1),
        destination: ip(to.1),
        protocol: 6,
        source_port: from.2,
        port: to.2,
        icmp: (0, 0),
        state,
        reply,
        mark,
        from_node: false,
    }
}

#[test]
fn a_new_generation_judges_open_connections() {
    let established = Some(ConnectionState::Established);
    let open = compile(&load_cluster(PODS));
    let (passed, mark) = forwards(&open, &packet(false, 80, None, 0));
    assert!(passed && mark > 1, "{mark}");
    assert_eq!(
        forwards(&open, &packet(false, 80, established, mark)),
        (true, mark)
    );

    assert_eq!(
        forwards(&open, &packet(false, 80, None, mark)),
        (true, mark),
        "sent again before the answer"
    );

    let shut = compile(&load_cluster(&format!("{PODS}{POLICY}")));
    assert!(
        !forwards(&shut, &packet(false, 80, None, mark)).0,
        "sent again before the answer, under an earlier generation"
    );
    assert_eq!(
        forwards(&shut, &packet(true, 80, established, mark)),
        (true, mark),
        "a reply does not tell; the next packet of the other side will"
    );
    let (passed, denied) = forwards(&shut, &packet(false, 80, established, mark));
    assert!(!passed);
    assert!(
        !forwards(&shut, &packet(true, 80, established, denied)).0,
        "a reply of a denied one"
    );
    let (passed, renewed) = forwards(&shut, &packet(false, 81, established, mark));
    assert!(passed && renewed != mark);

    assert_eq!(
        forwards(&open, &packet(false, 80, established, denied)),
        (true, mark),
        "allowed again, under the generation it had"
    );
}

#[test]
fn the_same_rules_are_the_same_generation() {
    let cluster = load_cluster(&format!("{PODS}{POLICY}"));
    assert_eq!(compile(&cluster), compile(&cluster.clone()));
}
