//! The NetworkPolicy API's semantics, row by row, on the evaluator and on the compiled rulesets at once.

use super::fabric::{Fabric, load_cluster};
use crate::Cluster;

/// Three namespaces, two nodes; `x/a`, `x/b`, `y/a` are on `n1`, the rest on `n2`. `y` has no label but its name.
const WORLD: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {team: red}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: y}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: z, labels: {team: red}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x, labels: {pod: a}}, spec: {nodeName: n1, containers: [
  {name: c, ports: [{name: web, containerPort: 80}, {name: dns, containerPort: 53, protocol: UDP}]}, {name: d, ports: [{name: web, containerPort: 8080}]}]},
  status: {phase: Running, podIPs: [{ip: 10.0.1.1}, {ip: 'fd00::1:1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: x, labels: {pod: b}}, spec: {nodeName: n1, containers: [
  {name: c, ports: [{name: web, containerPort: 81}]}]}, status: {podIPs: [{ip: 10.0.1.2}, {ip: 'fd00::1:2'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: x, labels: {pod: c}}, spec: {nodeName: n2, containers: []}, status: {podIPs: [{ip: 10.0.1.3}, {ip: 'fd00::1:3'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: y, labels: {pod: a}}, spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.2.1}, {ip: 'fd00::2:1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: y, labels: {pod: b}}, spec: {nodeName: n2, containers: []}, status: {podIPs: [{ip: 10.0.2.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: z, labels: {pod: a}}, spec: {nodeName: n2, containers: []}, status: {podIPs: [{ip: 10.0.3.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: h1, namespace: x, labels: {pod: a}}, spec: {nodeName: n1, hostNetwork: true, containers: []}, status: {podIPs: [{ip: 192.0.2.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: h2, namespace: x, labels: {pod: a}}, spec: {nodeName: n2, hostNetwork: true, containers: []}, status: {podIPs: [{ip: 192.0.2.2}]}}
";

/// The world with these policies' specs, all in namespace `x`.
fn world(specs: &[&str]) -> Cluster {
    let mut documents = WORLD.to_owned();
    for (index, spec) in specs.iter().enumerate() {
        documents.push_str(&format!(
            "---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p{index}, namespace: x}}, spec: {spec}}}\n"
        ));
    }
    load_cluster(&documents)
}

/// Asks `from to probe` under the policies; each must be answered as given.
#[track_caller]
fn expect(specs: &[&str], allowed: &[&str], denied: &[&str]) {
    let cluster = world(specs);
    expect_in(&cluster, allowed, denied);
}

#[track_caller]
fn expect_in(cluster: &Cluster, allowed: &[&str], denied: &[&str]) {
    let fabric = Fabric::new(cluster);
    for (questions, expected) in [(allowed, true), (denied, false)] {
        for question in questions {
            let words: Vec<_> = question.split_whitespace().collect();
            assert_eq!(
                fabric.both(words[0], words[1], words[2]),
                expected,
                "{question}"
            );
        }
    }
}

#[test]
fn row_1_isolation_is_per_pod_and_per_direction() {
    expect(
        &[],
        &["x/a x/b TCP/80", "y/b x/a UDP/1", "203.0.113.1 x/a SCTP/9"],
        &[],
    );
    expect(
        &["{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}"],
        &["x/a x/b TCP/80", "y/b x/b TCP/80", "y/b y/a TCP/80"],
        &["x/b x/a TCP/80", "y/b x/a UDP/80", "203.0.113.1 x/a TCP/1"],
    );
}

#[test]
fn row_2_policies_add_up() {
    expect(
        &[
            "{podSelector: {}, policyTypes: [Ingress]}",
            "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}",
            "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81}]}]}",
        ],
        &["y/a x/a TCP/80", "y/a x/a TCP/81"],
        &["y/a x/a TCP/82", "y/a x/b TCP/80"],
    );
}

#[test]
fn row_3_both_sides_must_agree_on_one_node_and_across() {
    let egress_to_y = "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: 80}]}]}";
    let ingress_81 = "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81}]}]}";
    let ingress_c = "{podSelector: {matchLabels: {pod: c}}, ingress: [{ports: [{port: 81}]}]}";
    expect(
        &[egress_to_y, ingress_81, ingress_c],
        &[
            "x/b y/a TCP/80",
            "x/b y/b TCP/80",
            "y/a x/a TCP/81",
            "y/a x/c TCP/81",
        ],
        &[
            "x/b x/a TCP/80",
            "x/b x/a TCP/81",
            "x/b x/c TCP/80",
            "x/b x/c TCP/81",
            "x/b 203.0.113.1 TCP/80",
        ],
    );
}

#[test]
fn row_4_an_empty_or_absent_pod_selector_is_the_whole_namespace() {
    for spec in ["{podSelector: {}}", "{}", "{ingress: []}"] {
        expect(
            &[spec],
            &["x/a y/a TCP/1", "x/a y/b TCP/1"],
            &["y/a x/a TCP/1", "y/a x/b TCP/1", "y/a x/c TCP/1"],
        );
    }
}

#[test]
fn rows_5_to_7_peers() {
    let ingress = |from: &str| {
        format!("{{podSelector: {{matchLabels: {{pod: b}}}}, ingress: [{{from: {from}}}]}}")
    };
    // Without a namespaceSelector only the own namespace is meant.
    expect(
        &[&ingress("[{podSelector: {}}]")],
        &["x/a x/b TCP/1", "x/c x/b TCP/1"],
        &["y/a x/b TCP/1", "203.0.113.1 x/b TCP/1"],
    );
    expect(
        &[&ingress("[{namespaceSelector: {}}]")],
        &["x/a x/b TCP/1", "y/b x/b TCP/1"],
        &["203.0.113.1 x/b TCP/1"],
    );
    expect(
        &[&ingress(
            "[{namespaceSelector: {matchLabels: {team: red}}}]",
        )],
        &["x/a x/b TCP/1", "z/a x/b TCP/1"],
        &["y/a x/b TCP/1"],
    );
    // Both in one item: and. In two items: or.
    expect(
        &[&ingress(
            "[{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {pod: a}}}]",
        )],
        &["x/a x/b TCP/1", "z/a x/b TCP/1"],
        &["x/c x/b TCP/1", "y/a x/b TCP/1"],
    );
    expect(
        &[&ingress(
            "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}, {podSelector: {matchLabels: {pod: a}}}]",
        )],
        &["x/a x/b TCP/1", "y/a x/b TCP/1", "y/b x/b TCP/1"],
        &["x/c x/b TCP/1", "z/a x/b TCP/1"],
    );
}

#[test]
fn rows_8_to_12_nothing_and_everything() {
    for rule in ["{}", "{from: []}", "{from: [], ports: []}"] {
        expect(
            &[&format!(
                "{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{rule}]}}"
            )],
            &["x/b x/a TCP/1", "203.0.113.1 x/a UDP/9", "y/b x/a SCTP/7"],
            &[],
        );
    }
    for spec in [
        "{podSelector: {}, policyTypes: [Ingress], ingress: []}",
        "{podSelector: {}, policyTypes: [Ingress]}",
    ] {
        expect(&[spec], &["x/a y/a TCP/1"], &["x/a x/b TCP/1"]);
    }
    // Without policyTypes, egress needs a rule to count.
    expect(
        &["{podSelector: {}, ingress: [{}], egress: []}"],
        &["x/a x/b TCP/1"],
        &[],
    );
    expect(
        &["{podSelector: {}, ingress: [{}], egress: [{ports: [{port: 5}]}]}"],
        &["x/a x/b TCP/5"],
        &["x/a x/b TCP/1"],
    );
}

#[test]
fn row_13_rules_of_a_direction_that_is_not_isolated_are_inert() {
    expect(
        &[
            "{podSelector: {}, policyTypes: [Egress], ingress: [{ports: [{port: 5}]}], egress: [{}]}",
        ],
        &["y/a x/a TCP/80"],
        &[],
    );
}

#[test]
fn rows_14_to_16_ports() {
    expect(
        &[
            "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}, {protocol: UDP}, {port: 100, endPort: 200}]}]}",
        ],
        &[
            "x/b x/a TCP/80",
            "x/b x/a UDP/80",
            "x/b x/a UDP/65535",
            "x/b x/a TCP/100",
            "y/b x/a TCP/200",
        ],
        &[
            "x/b x/a TCP/81",
            "x/b x/a TCP/99",
            "x/b x/a TCP/201",
            "x/b x/a SCTP/80",
        ],
    );
}

#[test]
fn row_18_a_port_name_coming_in_is_the_subjects_own() {
    // a: web is 80 and 8080 (TCP), dns is 53 (UDP); b: web is 81; c: none.
    expect(
        &["{podSelector: {}, ingress: [{ports: [{port: web}]}]}"],
        &["y/a x/a TCP/80", "y/a x/a TCP/8080", "y/a x/b TCP/81"],
        &[
            "y/a x/a TCP/81",
            "y/a x/b TCP/80",
            "y/a x/c TCP/80",
            "y/a x/a UDP/80",
        ],
    );
    expect(
        &["{podSelector: {}, ingress: [{ports: [{port: dns, protocol: UDP}]}]}"],
        &["y/a x/a UDP/53"],
        &["y/a x/a TCP/53"],
    );
}

#[test]
fn rows_19_and_20_a_port_name_going_out_is_the_destinations() {
    expect(
        &[
            "{podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}",
        ],
        &[
            "x/c x/a TCP/80",
            "x/c x/a TCP/8080",
            "x/c x/b TCP/81",
            "x/c@6 x/a@6 TCP/80",
        ],
        &[
            "x/c x/a TCP/81",
            "x/c x/b TCP/80",
            "x/c y/a TCP/80",
            "x/c 203.0.113.1 TCP/80",
            "x/c x/h1 TCP/80",
        ],
    );
    expect(
        &[
            "{podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{ports: [{port: dns}, {port: nobody}]}]}",
        ],
        &[],
        &["x/c x/a TCP/53", "x/c x/a UDP/53", "x/c x/a TCP/80"],
    );
}

#[test]
fn rows_21_to_24_blocks() {
    let egress = |to: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{pod: a}}}}, policyTypes: [Egress], egress: [{{to: {to}}}]}}"
        )
    };
    expect(
        &[&egress(
            "[{ipBlock: {cidr: 203.0.113.77/24, except: [203.0.113.128/25, 203.0.113.7/32]}}]",
        )],
        &["x/a 203.0.113.1 TCP/1", "x/a 203.0.113.127 TCP/1"],
        &[
            "x/a 203.0.113.128 TCP/1",
            "x/a 203.0.113.7 TCP/1",
            "x/a 203.0.114.1 TCP/1",
            "x/a x/b TCP/1",
        ],
    );
    // An exception limits its own item only.
    expect(
        &[&egress(
            "[{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/25]}}, {ipBlock: {cidr: 203.0.113.8/32}}]",
        )],
        &["x/a 203.0.113.200 TCP/1", "x/a 203.0.113.8 TCP/1"],
        &["x/a 203.0.113.9 TCP/1"],
    );
    // Blocks match pods, also pods that are excepted by address.
    expect(
        &[&egress(
            "[{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.2/32]}}]",
        )],
        &["x/a x/c TCP/1", "x/a y/b TCP/1"],
        &["x/a x/b TCP/1", "x/a@6 x/c@6 TCP/1"],
    );
    expect(
        &[&egress("[{ipBlock: {cidr: 'fd00::/16'}}]")],
        &["x/a@6 x/c@6 TCP/1"],
        &["x/a x/c TCP/1", "x/a@6 2001:db8::1 TCP/1"],
    );
    // The whole of a family.
    expect(
        &[&egress("[{ipBlock: {cidr: 0.0.0.0/0}}]")],
        &["x/a 255.255.255.255 TCP/1", "x/a x/b TCP/1"],
        &["x/a@6 x/b@6 TCP/1"],
    );
    expect(
        &[&egress("[{ipBlock: {cidr: '::/0'}}]")],
        &["x/a@6 2001:db8::1 TCP/1"],
        &["x/a x/b TCP/1"],
    );
    // Single addresses, of a pod and outside.
    expect(
        &[&egress(
            "[{ipBlock: {cidr: 10.0.1.2/32}}, {ipBlock: {cidr: 198.51.100.1/32}}]",
        )],
        &["x/a x/b TCP/1", "x/a 198.51.100.1 TCP/1"],
        &["x/a x/c TCP/1", "x/a 198.51.100.2 TCP/1"],
    );
}

#[test]
fn row_24_every_address_of_a_pod_is_a_peer() {
    expect(
        &[
            "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
        ],
        &["x/b x/a TCP/1", "x/b@6 x/a@6 TCP/1"],
        &["x/c x/a TCP/1", "x/c@6 x/a@6 TCP/1", "y/a@6 x/a@6 TCP/1"],
    );
}

#[test]
fn rows_28_to_30_itself_its_node_and_other_nodes() {
    let closed = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
    expect(
        &[closed],
        &[
            "x/a x/a TCP/1",
            "192.0.2.1 x/a TCP/1",
            "x/a 192.0.2.1 TCP/1",
            "x/h1 x/a TCP/1",
            "x/a x/h1 TCP/1",
            "192.0.2.2 x/c TCP/1",
        ],
        &[
            "192.0.2.2 x/a TCP/1",
            "x/h2 x/a TCP/1",
            "x/a 192.0.2.2 TCP/1",
            "x/a x/h2 TCP/1",
            "192.0.2.1 x/c TCP/1",
        ],
    );
    expect(
        &["{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.2/32}}]}]}"],
        &["x/h2 x/a TCP/1", "192.0.2.2 x/a TCP/1"],
        &["198.51.100.1 x/a TCP/1"],
    );
}

#[test]
fn row_32_an_sctp_rule_isolates_and_opens_only_sctp() {
    expect(
        &[
            "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80, protocol: SCTP}]}]}",
        ],
        &["x/b x/a SCTP/80"],
        &["x/b x/a TCP/80", "x/b x/a UDP/80", "x/b x/a SCTP/81"],
    );
}

#[test]
fn row_33_pods_on_the_nodes_network_are_neither_subject_nor_peer() {
    // h1 and h2 carry the label that the rule asks for.
    expect(
        &[
            "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}",
        ],
        &["x/a x/b TCP/1", "x/h1 x/b TCP/1"],
        &["x/h2 x/b TCP/1"],
    );
    expect(
        &["{podSelector: {}, policyTypes: [Ingress, Egress]}"],
        &["x/h1 y/b TCP/1", "y/b x/h1 TCP/1", "x/h1 x/h2 TCP/1"],
        &[],
    );
}

#[test]
fn rows_34_and_36_an_ended_pod_leaves_its_address_to_the_next() {
    let rule = "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {matchLabels: {old: 'yes'}}}]}]}";
    let mut cluster = world(&[rule]);
    let pods = |phase: &str| {
        load_cluster(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: old, namespace: x, labels: {{old: 'yes'}}}}, spec: {{nodeName: n2, containers: []}}, status: {{phase: {phase}, podIP: 10.0.9.9}}}}\n\
             ---\n{{apiVersion: v1, kind: Pod, metadata: {{name: new, namespace: x}}, spec: {{nodeName: n2, containers: []}}, status: {{phase: Running, podIP: 10.0.9.9}}}}\n"
        ))
    };
    for pod in pods("Succeeded").pods() {
        cluster.insert_pod(pod.clone());
    }
    expect_in(&cluster, &[], &["x/new x/b TCP/1"]);
    // While both claim the address and neither has ended, only what holds for both is believed.
    for pod in pods("Running").pods() {
        cluster.insert_pod(pod.clone());
    }
    expect_in(&cluster, &[], &["x/new x/b TCP/1"]);
    cluster.remove_pod("x", "new");
    expect_in(&cluster, &["x/old x/b TCP/1"], &[]);
}

#[test]
fn row_39_negative_operators_match_pods_without_the_key() {
    let ingress = |operator: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{pod: b}}}}, ingress: [{{from: [{{podSelector: {{matchExpressions: [{operator}]}}}}]}}]}}"
        )
    };
    let mut cluster = world(&[
        &ingress("{key: role, operator: NotIn, values: [guest]}"),
        &ingress("{key: gone, operator: DoesNotExist}"),
    ]);
    expect_in(&cluster, &["x/a x/b TCP/1"], &[]);
    let mut pod = cluster
        .pod(&crate::model::ObjectKey::new("x", "a"))
        .unwrap()
        .clone();
    pod.labels.insert("role".to_owned(), "guest".to_owned());
    pod.labels.insert("gone".to_owned(), String::new());
    cluster.insert_pod(pod);
    expect_in(&cluster, &["x/c x/b TCP/1"], &["x/a x/b TCP/1"]);
}

#[test]
fn row_42_the_same_name_in_two_namespaces_is_two_policies() {
    let mut cluster = world(&["{podSelector: {}, policyTypes: [Ingress]}"]);
    let other = load_cluster(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p0, namespace: y}, spec: {podSelector: {}, ingress: [{ports: [{port: 7}]}]}}",
    );
    cluster.insert_policy(other.policies().next().unwrap().clone());
    expect_in(
        &cluster,
        &["x/a y/a TCP/7"],
        &["x/a y/a TCP/8", "y/a x/a TCP/7"],
    );
    cluster.remove_network_policy("y", "p0");
    expect_in(&cluster, &["x/a y/a TCP/8"], &["y/a x/a TCP/7"]);
}
