//! Random clusters: the compiled rulesets answer every question as the evaluator does.

use std::net::IpAddr;

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::fabric::Fabric;
use crate::{
    Cluster,
    evaluate::{End, Evaluator},
    model::{IpBlock, NamedPort, Namespaces, Node, Peer, Pod, Policy, PortMatch, Rule},
    port::{PortRange, Probe, Protocol},
    ruleset::Family,
    selector::{Labels, Requirement, Selector},
};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const NODES: [&str; 2] = ["n1", "n2"];
const KEYS: [&str; 3] = ["app", "tier", "zone"];
const VALUES: [&str; 3] = ["1", "2", "3"];
const PORT_NAMES: [&str; 2] = ["web", "dns"];
/// Around the ports that rules draw from.
const PORTS: [u16; 6] = [1, 53, 80, 81, 90, 65535];
/// External addresses around the blocks that rules draw from.
const OUTSIDE: [&str; 7] = [
    "203.0.113.1",
    "203.0.113.130",
    "203.0.113.7",
    "10.0.0.200",
    "255.255.255.255",
    "2001:db8::1",
    "2001:db8:0:8000::1",
];
const BLOCKS: [&str; 13] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/29",
    "10.0.0.4/30",
    "10.0.0.3/32",
    "203.0.113.0/24",
    "203.0.113.128/25",
    "203.0.113.7/32",
    "::/0",
    "2001:db8::/32",
    "2001:db8:0:8000::/49",
    "fd00::/125",
    "fd00::3/128",
];

fn labels() -> impl Strategy<Value = Labels> {
    vec((select(&KEYS), select(&VALUES)), 0..4).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    let requirement =
        (select(&KEYS), vec(select(&VALUES), 1..3), 0..4).prop_map(|(key, values, kind)| {
            let key = key.to_owned();
            let values = values.into_iter().map(str::to_owned).collect();
            match kind {
                0 => Requirement::In(key, values),
                1 => Requirement::NotIn(key, values),
                2 => Requirement::Exists(key),
                _ => Requirement::DoesNotExist(key),
            }
        });
    vec(requirement, 0..3).prop_map(Selector::new)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(&Protocol::ALL)
}

fn block() -> impl Strategy<Value = IpBlock> {
    (select(&BLOCKS), vec(select(&BLOCKS), 0..4)).prop_map(|(cidr, except)| {
        let cidr: ipnetwork::IpNetwork = cidr.parse().unwrap();
        let except = except
            .into_iter()
            .map(|text| text.parse::<ipnetwork::IpNetwork>().unwrap())
            .filter(|part| {
                part.is_ipv4() == cidr.is_ipv4()
                    && part.prefix() > cidr.prefix()
                    && cidr.contains(part.ip())
            })
            .collect();
        IpBlock { cidr, except }
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        2 => (option::of(selector()), selector()).prop_map(|(namespaces, pods)| Peer::Pods {
            namespaces: namespaces.map_or(Namespaces::Own, Namespaces::Matching),
            pods,
        }),
        1 => block().prop_map(Peer::Block),
    ]
}

fn port() -> impl Strategy<Value = PortMatch> {
    prop_oneof![
        (protocol(), select(&PORTS), 0..12u16).prop_map(|(protocol, first, more)| {
            PortMatch::Numbers(
                protocol,
                PortRange::new(first, first.saturating_add(more)).unwrap(),
            )
        }),
        protocol().prop_map(|protocol| PortMatch::Numbers(protocol, PortRange::ALL)),
        (protocol(), select(&PORT_NAMES))
            .prop_map(|(protocol, name)| PortMatch::Named(protocol, name.to_owned())),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule = (option::of(vec(peer(), 0..3)), option::of(vec(port(), 0..3)));
    vec(rule, 0..3).prop_map(|rules| {
        let numbered = rules.into_iter().enumerate();
        numbered
            .map(|(index, (peers, ports))| Rule {
                index,
                peers,
                ports,
            })
            .collect()
    })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let policy = (
        select(&NAMESPACES),
        selector(),
        any::<(bool, bool)>(),
        rules(),
        rules(),
    );
    vec(policy, 0..7).prop_map(|policies| {
        let numbered = policies.into_iter().enumerate();
        numbered
            .map(
                |(
                    index,
                    (namespace, subject, (isolates_ingress, isolates_egress), ingress, egress),
                )| Policy {
                    namespace: namespace.to_owned(),
                    name: format!("p{index}"),
                    subject,
                    isolates_ingress,
                    isolates_egress,
                    ingress,
                    egress,
                },
            )
            .collect()
    })
}

/// A pod but for its name and addresses.
fn pod() -> impl Strategy<Value = Pod> {
    let port = (select(&PORT_NAMES), protocol(), select(&PORTS));
    (
        select(&NAMESPACES),
        labels(),
        option::weighted(0.9, select(&NODES)),
        0..12,
        vec(port, 0..3),
    )
        .prop_map(|(namespace, labels, node, kind, ports)| Pod {
            namespace: namespace.to_owned(),
            labels,
            node: node.map(str::to_owned),
            host_network: kind == 0 && node.is_some(),
            finished: kind == 1,
            ports: ports
                .into_iter()
                .map(|(name, protocol, number)| NamedPort {
                    name: name.to_owned(),
                    protocol,
                    number,
                })
                .collect(),
            ..Pod::default()
        })
}

fn address(text: String) -> IpAddr {
    text.parse().unwrap()
}

/// A cluster of two nodes. Pods take the lowest addresses, inside the blocks; an ended pod keeps that of the pod after it.
pub(super) fn cluster() -> impl Strategy<Value = Cluster> {
    let namespaces = vec(labels(), NAMESPACES.len());
    (
        namespaces,
        vec((pod(), any::<[bool; 2]>()), 1..9),
        policies(),
    )
        .prop_map(|(namespaces, pods, policies)| {
            let mut cluster = Cluster::new();
            for (name, labels) in NAMESPACES.iter().zip(namespaces) {
                cluster.insert_namespace(*name, labels);
            }
            for (index, name) in NODES.iter().enumerate() {
                let addresses = vec![
                    address(format!("203.0.113.{}", 129 + index)),
                    address(format!("2001:db8::{}", 9 + index)),
                ];
                cluster.insert_node(Node {
                    name: (*name).to_owned(),
                    addresses,
                });
            }
            let mut next = 1;
            for (index, (mut pod, families)) in pods.into_iter().enumerate() {
                pod.name = format!("pod{index}");
                if pod.host_network {
                    let node = cluster.node(pod.node.as_deref().unwrap()).unwrap();
                    pod.addresses.clone_from(&node.addresses);
                } else {
                    let own = [
                        address(format!("10.0.0.{next}")),
                        address(format!("fd00::{next}")),
                    ];
                    pod.addresses = own
                        .into_iter()
                        .zip(families)
                        .filter_map(|(own, has)| has.then_some(own))
                        .collect();
                    next += usize::from(!pod.finished);
                }
                cluster.insert_pod(pod);
            }
            policies
                .into_iter()
                .for_each(|policy| cluster.insert_policy(policy));
            cluster
        })
}

fn ends(cluster: &Cluster, family: Family) -> Vec<End<'_>> {
    let in_family = |address: &&IpAddr| Family::of(**address) == family;
    let pods = cluster
        .pods()
        .filter(|pod| !pod.finished && pod.node.is_some())
        .filter_map(|pod| {
            let address = pod.addresses.iter().find(in_family)?;
            Some(End {
                pod: Some(pod),
                address: *address,
            })
        });
    let nodes = cluster
        .nodes()
        .flat_map(|node| node.addresses.iter().copied());
    let outside = OUTSIDE.iter().map(|text| text.parse().unwrap());
    let others = nodes
        .chain(outside)
        .filter(|address: &IpAddr| Family::of(*address) == family);
    pods.chain(others.map(|address| End { pod: None, address }))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_kernels_answer_as_the_evaluator_does(cluster in cluster()) {
        let evaluator = Evaluator::new(&cluster);
        let fabric = Fabric::new(&cluster);
        for family in Family::ALL {
            let ends = ends(&cluster, family);
            for from in &ends {
                for to in ends.iter().filter(|to| from.pod.is_some() || to.pod.is_some()) {
                    for protocol in Protocol::ALL {
                        for port in [1, 53, 80, 85, 65535] {
                            let probe = Probe { protocol, port };
                            let judgement = evaluator.judge(*from, *to, probe);
                            prop_assert_eq!(
                                fabric.passes(*from, *to, probe), judgement.allows(),
                                "{:?} -> {:?} {}: {:?}", from, to, probe, judgement,
                            );
                        }
                    }
                }
            }
        }
    }
}
