//! Random worlds with policies of every kind: the compiled rulesets, followed packet by packet, answer as the evaluator
//! does, before and after random events; the engine has what a compile from nothing gives, and its transactions lead there.
//!
//! A *beginning* is a cluster made of a seed, to which things happen one or two at a time: it and what it is after each
//! turn are the worlds, two to six of a beginning. In each of them both nodes' engines are held against a compile from
//! nothing and packets against the evaluator. `MARGAY_POLICY_WORLDS` says how many worlds there must be at least (1200
//! without it), `MARGAY_POLICY_SEED` which beginning is the first: a failure names its own. Most are small, for a
//! difference shows in a small world first; every hundredth beginning is some ten times as large. Unlike in the property
//! tests of `random` nothing is shrunk here; in return a world costs next to nothing.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZero,
    sync::atomic::{AtomicU64, Ordering},
};

use margay_crds::policy_rule::{RuleAction, RuleSpec, Side as RuleSide};
use serde_json::{Value, json};

use super::fabric::{Fabric, node_input};
use crate::{
    Cluster, Compiler, Engine, Pool, Ruleset,
    compile::IPVS_INTERFACE,
    diff,
    evaluate::{End, Evaluator, Side, Traffic},
    model::{
        Direction, NamedPort, NetworkSet, Node, ObjectKey, Order, OwnPolicy, Pod, PolicyKind,
        PolicyRef, Scope, ServiceEndpoint, Tier,
    },
    origin::RuleId,
    port::{PortRange, Protocol},
    ruleset::{Family, LogReason, simulate::Told},
    selector::Labels,
};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
pub(super) const NODES: [&str; 2] = ["n1", "n2"];
const KEYS: [&str; 3] = ["app", "tier", "zone"];
const VALUES: [&str; 3] = ["a", "ab", "b"];
pub(super) const PORT_NAMES: [&str; 2] = ["web", "dns"];
pub(super) const PORTS: [u16; 6] = [1, 53, 80, 81, 90, 65535];
const ACCOUNTS: [&str; 3] = ["default", "robot", "human"];
const TIERS: [&str; 4] = ["default", "first", "last", "nowhere"];
const OUTSIDE: [&str; 8] = [
    "203.0.113.1",
    "203.0.113.130",
    "203.0.113.7",
    "10.0.0.200",
    "255.255.255.255",
    "2001:db8::1",
    "2001:db8:0:8000::1",
    "fd00::7",
];
const NETS: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/29",
    "10.0.0.4/30",
    "10.0.0.3/32",
    "203.0.113.0/24",
    "203.0.113.7/32",
    "::/0",
    "2001:db8::/32",
    "2001:db8:0:8000::/49",
    "fd00::/125",
    "fd00::3/128",
];

/// SplitMix64: any seed is a good one, and a world follows from its seed alone.
#[derive(Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Once in so many times.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    pub(super) fn some<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| one(self)).collect()
    }

    pub(super) fn labels(&mut self) -> Labels {
        let pairs = self.some(3, |dice| (dice.pick(&KEYS), dice.pick(&VALUES)));
        let pairs = pairs.into_iter();
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// A Kubernetes label selector.
    fn label_selector(&mut self) -> Value {
        let expressions = self.some(2, |dice| {
            let operator = dice.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
            let mut expression = json!({"key": dice.pick(&KEYS), "operator": operator});
            if operator.ends_with("In") {
                expression["values"] = json!([dice.pick(&VALUES), dice.pick(&VALUES)]);
            }
            expression
        });
        json!({ "matchExpressions": expressions })
    }

    /// A selector of subjects: often everything.
    fn subjects(&mut self) -> Value {
        match self.once_in(2) {
            true => json!({}),
            false => self.label_selector(),
        }
    }

    /// A selector in our language.
    fn selector(&mut self, depth: usize) -> String {
        let (key, value) = (self.pick(&KEYS), self.pick(&VALUES));
        match self.below(if depth == 0 { 8 } else { 11 }) {
            0 => format!("{key} == '{value}'"),
            1 => format!("{key} != '{value}'"),
            2 => format!("{key} in {{'{value}', 'b'}}"),
            3 => format!("{key} not in {{'{value}'}}"),
            4 => format!("has({key})"),
            5 => format!("{key} contains 'b'"),
            6 => format!("{key} starts with '{value}'"),
            7 => format!(
                "projectcalico.org/namespace == '{}'",
                self.pick(&NAMESPACES)
            ),
            8 => format!("!({})", self.selector(depth - 1)),
            9 => format!(
                "({} && {})",
                self.selector(depth - 1),
                self.selector(depth - 1)
            ),
            _ => format!(
                "({} || {})",
                self.selector(depth - 1),
                self.selector(depth - 1)
            ),
        }
    }

    fn port_range(&mut self) -> (u16, u16) {
        let first = self.pick(&PORTS);
        (first, first.saturating_add(self.below(12) as u16))
    }

    fn nets(&mut self, most: usize) -> Vec<&'static str> {
        self.some(most, |dice| dice.pick(&NETS))
    }
}

// ----- objects -----

fn network_policy(dice: &mut Dice, index: usize) -> Value {
    let rules = |dice: &mut Dice, list: &str| {
        dice.some(2, |dice| {
            let peers = dice.some(2, |dice| match dice.below(4) {
                0 => json!({"podSelector": dice.label_selector()}),
                1 => json!({"namespaceSelector": dice.label_selector()}),
                2 => json!({"namespaceSelector": dice.label_selector(), "podSelector": dice.label_selector()}),
                _ => json!({"ipBlock": {"cidr": dice.pick(&NETS)}}),
            });
            let ports = dice.some(2, |dice| {
                let protocol = dice.pick(&["TCP", "UDP", "SCTP"]);
                let (first, last) = dice.port_range();
                match dice.below(4) {
                    0 => json!({"protocol": protocol}),
                    1 => json!({"protocol": protocol, "port": dice.pick(&PORT_NAMES)}),
                    2 => json!({"port": first}),
                    _ => json!({"protocol": protocol, "port": first, "endPort": last}),
                }
            });
            json!({list: peers, "ports": ports})
        })
    };
    let types = dice.pick(&[&["Ingress"][..], &["Egress"], &["Ingress", "Egress"]]);
    json!({
        "metadata": {"name": format!("p{index}"), "namespace": dice.pick(&NAMESPACES)},
        "spec": {"podSelector": dice.subjects(), "policyTypes": types, "ingress": rules(dice, "from"), "egress": rules(dice, "to")},
    })
}

fn cluster_policy(dice: &mut Dice, index: usize) -> Value {
    let pods = |dice: &mut Dice| match dice.below(2) {
        0 => json!({"namespaces": dice.label_selector()}),
        _ => {
            json!({"pods": {"namespaceSelector": dice.label_selector(), "podSelector": dice.label_selector()}})
        }
    };
    let rules = |dice: &mut Dice, list: &str| {
        dice.some(3, |dice| {
            let count = 1 + dice.below(2);
            let peers: Vec<Value> = (0..count)
                .map(|_| match dice.below(8) {
                    0 | 1 if list == "to" => json!({"networks": [dice.pick(&NETS), dice.pick(&NETS)]}),
                    2 if dice.once_in(4) => json!({"unheardOf": {}}),
                    _ => pods(dice),
                })
                .collect();
            let mut rule = json!({"action": dice.pick(&["Accept", "Deny", "Pass"]), list: peers});
            if dice.once_in(2) {
                let (first, last) = dice.port_range();
                let protocol = dice.pick(&["tcp", "udp", "sctp"]);
                rule["protocols"] = json!([match dice.below(3) {
                    0 => json!({"destinationNamedPort": dice.pick(&PORT_NAMES)}),
                    1 if first < last => json!({protocol: {"destinationPort": {"range": {"start": first, "end": last}}}}),
                    _ => json!({protocol: {"destinationPort": {"number": first}}}),
                }]);
            }
            rule
        })
    };
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": format!("c{index}")},
        "spec": {
            "tier": dice.pick(&["Admin", "Baseline"]), "priority": dice.below(5), "subject": {"pods": {"namespaceSelector": dice.subjects(), "podSelector": dice.subjects()}},
            "ingress": rules(dice, "from"), "egress": rules(dice, "to"),
        },
    })
}

fn entity(dice: &mut Dice, is_peer: bool, is_source: bool, has_ports: bool) -> Value {
    let mut entity = json!({});
    // Most rules leave most of it open: otherwise nothing would ever match.
    if dice.once_in(4) {
        entity["nets"] = json!(dice.nets(2));
    }
    if dice.once_in(6) {
        entity["notNets"] = json!(dice.nets(2));
    }
    if dice.once_in(if is_peer { 2 } else { 6 }) {
        entity["selector"] = json!(dice.selector(2));
    }
    if dice.once_in(8) {
        entity["notSelector"] = json!(dice.selector(1));
    }
    if dice.once_in(5) {
        entity["namespaceSelector"] = match dice.below(3) {
            0 => json!("global()"),
            1 => json!("all()"),
            _ => json!(dice.selector(1)),
        };
    }
    if dice.once_in(8) {
        entity["serviceAccounts"] = match dice.below(2) {
            0 => json!({"names": [dice.pick(&ACCOUNTS)]}),
            _ => json!({"selector": dice.selector(1)}),
        };
    }
    if has_ports && dice.once_in(2) {
        let field = dice.pick(&["ports", "notPorts"]);
        entity[field] = json!([match dice.below(3) {
            0 if !is_source => json!(dice.pick(&PORT_NAMES)),
            1 => json!(dice.pick(&PORTS)),
            _ => {
                let (first, last) = dice.port_range();
                json!(format!("{first}:{last}"))
            }
        }]);
    }
    entity
}

fn own_rule(dice: &mut Dice, side: RuleSide) -> Value {
    let mut rule = json!({"action": dice.pick(&["Allow", "Allow", "Deny", "Pass", "Log"])});
    let (mut has_ports, mut is_icmp) = (false, false);
    match dice.below(6) {
        0 | 1 => {
            rule["protocol"] = json!(dice.pick(&["TCP", "UDP", "SCTP"]));
            has_ports = true;
        }
        2 => {
            rule["protocol"] = json!(dice.pick(&["ICMP", "ICMPv6"]));
            is_icmp = true;
        }
        3 => {
            let field = dice.pick(&["protocol", "notProtocol"]);
            rule[field] = json!(dice.pick(&[6, 17, 1, 47, 136]));
        }
        _ => {}
    }
    if is_icmp && dice.once_in(2) {
        let field = dice.pick(&["icmp", "notICMP"]);
        rule[field] = match dice.below(2) {
            0 => json!({"type": dice.pick(&[0, 8, 128])}),
            _ => json!({"type": dice.pick(&[0, 8, 128]), "code": dice.pick(&[0, 1, 255])}),
        };
    }
    if dice.once_in(8) {
        rule["ipVersion"] = json!(dice.pick(&[4, 6]));
    }
    let ingress = side == RuleSide::Ingress;
    rule["source"] = entity(dice, ingress, true, has_ports);
    rule["destination"] = entity(dice, !ingress, false, has_ports);
    if !has_ports && dice.once_in(8) && rule["protocol"].is_null() && rule["notProtocol"].is_null()
    {
        let peer = if ingress { "source" } else { "destination" };
        rule[peer] = json!({"services": {"name": "s", "namespace": dice.pick(&NAMESPACES)}});
    }
    rule
}

pub(super) fn own_policy(dice: &mut Dice, index: usize) -> OwnPolicy {
    let parse = |text: String| margay_crds::Selector::parse(&text).unwrap();
    let rules = |dice: &mut Dice, side| {
        let mut index = 0;
        let rules = dice.some(3, |dice| {
            let rule = own_rule(dice, side);
            let spec: RuleSpec = serde_json::from_value(rule.clone()).unwrap();
            index += 1;
            spec.read("r", index - 1, side)
                .unwrap_or_else(|errors| panic!("{rule}: {errors:?}"))
        });
        dice.once_in(2).then_some(rules)
    };
    let namespace = dice.once_in(2).then(|| dice.pick(&NAMESPACES));
    let kind = match namespace {
        Some(_) => PolicyKind::OwnNetworkPolicy,
        None => PolicyKind::GlobalNetworkPolicy,
    };
    OwnPolicy {
        reference: PolicyRef::new(kind, namespace.unwrap_or_default(), format!("o{index}")),
        tier: dice.pick(&TIERS).to_owned(),
        order: Order::of(
            dice.once_in(3)
                .then(|| [0.0, 1000.0, 2000.0][dice.below(3)]),
        ),
        staged: dice.once_in(4),
        host: margay_crds::HostUse::default(),
        subject: Scope {
            selector: if dice.once_in(2) {
                parse(dice.selector(1))
            } else {
                margay_crds::Selector::all()
            },
            namespaces: (namespace.is_none() && dice.once_in(3)).then(|| parse(dice.selector(1))),
            service_accounts: dice.once_in(6).then(|| parse(dice.selector(1))),
        },
        ingress: rules(dice, RuleSide::Ingress),
        egress: rules(dice, RuleSide::Egress),
    }
}

fn pod(dice: &mut Dice, index: usize, cluster: &Cluster) -> Pod {
    let node = (!dice.once_in(10)).then(|| dice.pick(&NODES));
    let host_network = node.is_some() && dice.once_in(12);
    let finished = dice.once_in(12);
    // An ended pod keeps the address of another.
    let number = if finished { dice.below(8) } else { index } + 1;
    let own = [format!("10.0.0.{number}"), format!("fd00::{number}")];
    let own = own.map(|text| text.parse::<IpAddr>().unwrap());
    let mut addresses: Vec<IpAddr> = own.into_iter().filter(|_| !dice.once_in(4)).collect();
    if host_network {
        addresses.clone_from(&cluster.node(node.unwrap()).unwrap().addresses);
    }
    // The API shows two pods with one address for a while.
    if !host_network && node.is_none() && dice.once_in(2) {
        addresses = vec![format!("10.0.0.{}", dice.below(8) + 1).parse().unwrap()];
    }
    Pod {
        namespace: dice.pick(&NAMESPACES).to_owned(),
        name: format!("pod{index}"),
        labels: dice.labels(),
        service_account: dice.pick(&ACCOUNTS).to_owned(),
        addresses,
        node: node.map(str::to_owned),
        host_network,
        finished,
        ports: dice.some(2, |dice| NamedPort {
            name: dice.pick(&PORT_NAMES).to_owned(),
            protocol: dice.pick(&Protocol::ALL),
            number: dice.pick(&PORTS),
        }),
        ..Pod::default()
    }
}

pub(super) fn world(dice: &mut Dice) -> Cluster {
    let mut cluster = Cluster::new();
    for name in NAMESPACES {
        cluster.insert_namespace(name, dice.labels());
        for account in ACCOUNTS {
            if dice.once_in(2) {
                cluster.insert_service_account(ObjectKey::new(name, account), dice.labels());
            }
        }
    }
    for (index, name) in NODES.iter().enumerate() {
        let texts = [
            format!("203.0.113.{}", 129 + index),
            format!("2001:db8::{}", 9 + index),
        ];
        cluster.insert_node(Node {
            name: (*name).to_owned(),
            addresses: texts.map(|text| text.parse().unwrap()).into(),
        });
    }
    for (name, order) in [("first", 10.0), ("last", 2e7)] {
        cluster.insert_tier(Tier {
            name: name.to_owned(),
            order: Order::of(Some(order)),
            passes: dice.once_in(2),
        });
    }
    for index in 0..2 + dice.below(6) {
        let pod = pod(dice, index, &cluster);
        cluster.insert_pod(pod);
    }
    for index in 0..dice.below(3) {
        network_set(dice, index, &mut cluster);
    }
    if dice.once_in(2) {
        service(dice, &mut cluster);
    }
    for index in 0..2 + dice.below(6) {
        policy(dice, index, &mut cluster);
    }
    cluster
}

fn network_set(dice: &mut Dice, index: usize, cluster: &mut Cluster) {
    let namespace = if dice.once_in(2) {
        ""
    } else {
        dice.pick(&NAMESPACES)
    };
    let set = NetworkSet {
        labels: dice.labels(),
        nets: dice
            .nets(3)
            .iter()
            .map(|text| text.parse().unwrap())
            .collect(),
    };
    cluster.insert_network_set(ObjectKey::new(namespace, format!("s{index}")), set);
}

fn service(dice: &mut Dice, cluster: &mut Cluster) {
    let endpoints = dice.some(3, |dice| ServiceEndpoint {
        address: match dice.below(3) {
            0 => "203.0.113.7".parse().unwrap(),
            1 => format!("fd00::{}", dice.below(8) + 1).parse().unwrap(),
            _ => format!("10.0.0.{}", dice.below(8) + 1).parse().unwrap(),
        },
        ports: dice.some(2, |dice| {
            let port = match dice.once_in(4) {
                true => PortRange::ALL,
                false => PortRange::single(dice.pick(&PORTS)),
            };
            (dice.pick(&Protocol::ALL), port)
        }),
    });
    let service = ObjectKey::new(dice.pick(&NAMESPACES), "s");
    cluster.insert_endpoints(service, "slice".to_owned(), endpoints);
}

fn policy(dice: &mut Dice, index: usize, cluster: &mut Cluster) {
    match dice.below(3) {
        0 => {
            let object = network_policy(dice, index);
            cluster.apply_network_policy(&serde_json::from_value(object).unwrap());
        }
        1 => {
            let object = cluster_policy(dice, index);
            cluster.apply_cluster_policy(&serde_json::from_value(object).unwrap());
        }
        _ => cluster.insert_own_policy(own_policy(dice, index)),
    }
}

/// Something happens.
fn event(dice: &mut Dice, cluster: &mut Cluster) {
    let pods: Vec<Pod> = cluster.pods().cloned().collect();
    match dice.below(18) {
        0 => cluster.insert_namespace(dice.pick(&NAMESPACES), dice.labels()),
        1 | 2 if !pods.is_empty() => {
            let mut pod = pods[dice.below(pods.len())].clone();
            pod.labels = dice.labels();
            cluster.insert_pod(pod);
        }
        3 if !pods.is_empty() => {
            let pod = &pods[dice.below(pods.len())];
            cluster.remove_pod(&pod.namespace, &pod.name);
        }
        4 => {
            let pod = pod(dice, 8, cluster);
            for before in pods.iter().filter(|before| before.name == pod.name) {
                cluster.remove_pod(&before.namespace, &before.name);
            }
            cluster.insert_pod(pod);
        }
        5 => policy(dice, 9, cluster),
        6 => {
            let own = cluster.own_policies().next().cloned();
            let kubernetes = cluster.policies().next().map(crate::model::Policy::key);
            match (own, kubernetes) {
                (Some(mut own), _) if own.staged => {
                    own.staged = false;
                    cluster.insert_own_policy(own);
                }
                (_, Some(key)) => cluster.remove_network_policy(&key.namespace, &key.name),
                _ => cluster.remove_cluster_policy("c0"),
            }
        }
        7 => network_set(dice, 1, cluster),
        8 if !pods.is_empty() => {
            let mut pod = pods[dice.below(pods.len())].clone();
            match dice.below(4) {
                0 => pod.finished = !pod.finished,
                1 => pod.service_account = dice.pick(&ACCOUNTS).to_owned(),
                2 => pod.ports.clear(),
                _ => pod.addresses.truncate(1),
            }
            cluster.insert_pod(pod);
        }
        9 => {
            // Another pod with the address of one that has gone.
            let index = dice.below(8);
            let pod = pod(dice, index, cluster);
            let had = |one: &&Pod| {
                one.addresses
                    .iter()
                    .any(|address| pod.addresses.contains(address))
            };
            for before in pods.iter().filter(had) {
                cluster.remove_pod(&before.namespace, &before.name);
            }
            cluster.insert_pod(pod);
        }
        10 => {
            let index = dice.below(8);
            policy(dice, index, cluster);
        }
        11 => {
            let own = cluster.own_policies().last().cloned();
            let edited = own.map(|mut own| {
                let other = own_policy(dice, 0);
                match dice.below(4) {
                    0 => own.tier = other.tier,
                    1 => own.order = other.order,
                    2 => own.subject = other.subject,
                    _ => own.ingress = other.ingress,
                }
                own
            });
            edited
                .into_iter()
                .for_each(|own| cluster.insert_own_policy(own));
        }
        12 => {
            let own = cluster
                .own_policies()
                .next()
                .map(|own| own.reference.clone());
            if let Some(own) = own {
                cluster.remove_own_policy(&own.namespace, &own.name);
                cluster.remove_global_policy(&own.name);
            }
            cluster.remove_cluster_policy(&format!("c{}", dice.below(8)));
        }
        13 => cluster.insert_tier(Tier {
            name: dice.pick(&TIERS[1..]).to_owned(),
            order: Order::of(Some(dice.pick(&[5.0, 10.0, 2e6, 2e7]))),
            passes: dice.once_in(2),
        }),
        14 => match dice.once_in(2) {
            true => cluster.remove_tier(dice.pick(&TIERS[1..])),
            false => cluster.remove_namespace(dice.pick(&NAMESPACES)),
        },
        15 => {
            let key = ObjectKey::new(dice.pick(&NAMESPACES), dice.pick(&ACCOUNTS));
            match dice.once_in(3) {
                true => cluster.remove_service_account(&key.namespace, &key.name),
                false => cluster.insert_service_account(key, dice.labels()),
            }
        }
        16 => match dice.once_in(2) {
            true => cluster.remove_network_set("", &format!("s{}", dice.below(2))),
            false => cluster.remove_endpoint_slice(dice.pick(&NAMESPACES), "slice"),
        },
        _ => service(dice, cluster),
    }
}

// ----- questions -----

pub(super) fn ends(cluster: &Cluster, family: Family) -> Vec<End<'_>> {
    let in_family = |address: &&IpAddr| Family::of(**address) == family;
    let pods = cluster
        .pods()
        .filter(|pod| !pod.finished && pod.node.is_some());
    let pods = pods.filter_map(|pod| {
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

/// One of the pods, mostly; they come first.
fn end<'a>(dice: &mut Dice, ends: &[End<'a>]) -> End<'a> {
    let pods = ends.iter().filter(|end| end.pod.is_some()).count();
    match pods > 0 && !dice.once_in(4) {
        true => ends[dice.below(pods)],
        false => ends[dice.below(ends.len())],
    }
}

pub(super) fn traffic(dice: &mut Dice) -> Traffic {
    Traffic {
        protocol: dice.pick(&[6, 6, 17, 132, 1, 58, 47, 136]),
        source_port: dice.pick(&[1, 80, 85, 40_000]),
        destination_port: dice.pick(&[1, 53, 80, 85, 65535]),
        icmp: (dice.pick(&[0, 8, 128, 255]), dice.pick(&[0, 1, 255])),
    }
}

/// The rules that must be told of a connection's first packet: those that decide, and Log rules before them. A side is
/// asked only if the packet gets there.
fn expected(
    evaluator: &Evaluator<'_>,
    from: End<'_>,
    to: End<'_>,
    traffic: Traffic,
) -> BTreeSet<(&'static str, RuleId)> {
    let judgement = evaluator.judge(from, to, traffic);
    let mut wanted = BTreeSet::new();
    for (side, subject, peer, direction) in [
        (&judgement.egress, from, to, Direction::Egress),
        (&judgement.ingress, to, from, Direction::Ingress),
    ] {
        for (policy, rule) in evaluator.logged(subject, peer, direction, traffic) {
            wanted.insert(("log", RuleId::of(&policy, direction, Some(rule))));
        }
        let decided = match side {
            Side::Allowed { policy, rule } => Some(("allow", policy, Some(*rule))),
            Side::DeniedByRule { policy, rule } => Some(("deny", policy, Some(*rule))),
            Side::Denied { isolating } => isolating.first().map(|policy| ("deny", policy, None)),
            Side::Exempt(_) | Side::NotIsolated | Side::Closed => None,
        };
        wanted.extend(
            decided.map(|(word, policy, rule)| (word, RuleId::of(policy, direction, rule))),
        );
        if !side.allows() {
            break;
        }
    }
    wanted
}

/// The rules that were told; what is reported must be counted too.
fn shown(told: &Told) -> BTreeSet<(&'static str, RuleId)> {
    let mut shown = BTreeSet::new();
    for name in &told.counted {
        for word in ["allow", "deny", "log"] {
            let id = name
                .strip_prefix(word)
                .and_then(|rest| rest.strip_prefix('-'));
            shown.extend(id.and_then(|id| id.parse().ok()).map(|id| (word, id)));
        }
    }
    for report in &told.reported {
        let word = match report.reason {
            LogReason::Denied => "deny",
            LogReason::Rule => "log",
            LogReason::StagedDeny | LogReason::StagedAllow => continue,
        };
        let counted = report.rule.map(|rule| shown.contains(&(word, rule)));
        assert_ne!(
            counted,
            Some(false),
            "{report:?} is reported and not counted"
        );
    }
    shown
}

/// How many questions a world is asked for each family.
const QUESTIONS: usize = 12;

/// Asks the rulesets of a world questions.
fn check(dice: &mut Dice, seed: u64, cluster: &Cluster, fabric: &Fabric<'_>) {
    let evaluator = Evaluator::new(cluster);
    for family in Family::ALL {
        let ends = ends(cluster, family);
        for _ in 0..QUESTIONS {
            let (from, to) = (end(dice, &ends), end(dice, &ends));
            if from.pod.is_none() && to.pod.is_none() {
                continue;
            }
            let traffic = traffic(dice);
            let judgement = evaluator.judge(from, to, traffic);
            assert_eq!(
                fabric.passes(from, to, traffic),
                judgement.allows(),
                "world {seed}: {from:?} -> {to:?} {traffic:?}: {judgement:?}\n{cluster:#?}"
            );
            let told = fabric.told(from, to, traffic);
            if judgement.allows() {
                let staged = evaluator.judge_staged(from, to, traffic);
                let mut reports = told.reported.iter();
                assert_eq!(
                    reports.any(|report| report.reason == LogReason::StagedDeny),
                    !staged.allows(),
                    "world {seed}: {from:?} -> {to:?} {traffic:?}: {staged:?}\n{cluster:#?}"
                );
            }
            let (wanted, found) = (expected(&evaluator, from, to, traffic), shown(&told));
            let alike = |end: End<'_>| evaluator.pods_at(end.address).len() <= 1;
            if alike(from) && alike(to) {
                assert_eq!(
                    found, wanted,
                    "world {seed}: {from:?} -> {to:?} {traffic:?}: {judgement:?}\n{cluster:#?}"
                );
            }
        }
    }
}

pub(super) fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().unwrap())
}

/// An engine on each node, and the table that its transactions have led to.
struct Followers(Vec<(&'static str, Engine, Ruleset)>);

impl Followers {
    /// Engines that have seen nothing before this world.
    fn of(dice: &Dice, world: fn(&mut Dice) -> Cluster) -> Self {
        let engine = |node| {
            let mut engine = Engine::new(node);
            *engine.cluster() = world(&mut dice.clone());
            (node, engine, Ruleset::new())
        };
        Self(NODES.map(engine).into())
    }

    fn tables(&self) -> impl Iterator<Item = &Ruleset> {
        self.0.iter().map(|(_, _, table)| table)
    }

    /// Lets the same happen to each.
    fn happen(&mut self, dice: &mut Dice, what: fn(&mut Dice, &mut Cluster)) {
        for (_, engine, _) in &mut self.0 {
            what(&mut dice.clone(), engine.cluster());
        }
    }

    /// The table of each node.
    fn fabric<'a>(&'a self, cluster: &'a Cluster) -> Fabric<'a> {
        let tables = self.0.iter();
        let tables = tables.map(|(node, _, table)| (*node, Cow::Borrowed(table)));
        Fabric::of(cluster, tables.collect())
    }

    /// Each has what a compile from nothing gives, and its transaction led there.
    fn check(&mut self, seed: u64, cluster: &Cluster, turn: usize) {
        for (node, engine, table) in &mut self.0 {
            assert_eq!(engine.known(), cluster, "world {seed}");
            let mut input = node_input(cluster, node);
            if turn % 3 == 1 {
                input.pools = vec![Pool {
                    cidr: "10.0.0.0/8".parse().unwrap(),
                    nat_outgoing: true,
                }];
            }
            if turn.is_multiple_of(2) {
                let interface = IPVS_INTERFACE.to_owned();
                input.interfaces.insert(interface, BTreeSet::new());
            }
            let gone: Vec<String> = engine
                .endpoints()
                .map(|endpoint| endpoint.interface.clone())
                .filter(|there| !input.endpoints.iter().any(|one| one.interface == *there))
                .collect();
            for interface in gone {
                engine.handle_endpoint_gone(&interface);
            }
            for endpoint in input.endpoints.clone() {
                engine.handle_endpoint(endpoint);
            }
            engine.handle_node(input.clone());
            let change = engine.poll();
            let (wanted, _) = Compiler::new().compile(cluster, &input);
            let place = || format!("world {seed}, node {node}, turn {turn}");
            if *engine.ruleset() != wanted {
                let wrong = diff(engine.ruleset(), &wanted);
                panic!(
                    "{}: what lacks\n{}\n{cluster:#?}",
                    place(),
                    wrong.to_nft_text()
                );
            }
            let replayed = change.replay(table);
            assert_eq!(replayed.as_ref(), Ok(&wanted), "{}", place());
            assert_eq!(change.len(), diff(table, &wanted).len(), "{}", place());
            *table = wanted;
            assert!(engine.poll().is_empty(), "{}: a change of nothing", place());
        }
    }
}

/// A world of many pods and policies.
fn large_world(dice: &mut Dice) -> Cluster {
    let mut cluster = world(dice);
    for index in 10..30 + dice.below(20) {
        let pod = pod(dice, index, &cluster);
        cluster.insert_pod(pod);
    }
    for index in 10..30 + dice.below(20) {
        policy(dice, index, &mut cluster);
    }
    cluster
}

/// Follows a beginning, and returns how many worlds there were.
fn check_beginning(seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let world = match seed % 100 {
        0 => large_world,
        _ => world,
    };
    let mut followers = Followers::of(&dice, world);
    let mut cluster = world(&mut dice);
    followers.check(seed, &cluster, 0);
    check(&mut dice, seed, &cluster, &followers.fabric(&cluster));
    let first: Vec<Ruleset> = followers.tables().cloned().collect();
    let turns = 1 + dice.below(5);
    for turn in 1..=turns {
        // Several events at once, now and then.
        for _ in 0..1 + dice.below(2) {
            followers.happen(&mut dice, event);
            event(&mut dice, &mut cluster);
        }
        followers.check(seed, &cluster, turn);
        check(&mut dice, seed, &cluster, &followers.fabric(&cluster));
    }
    for (before, after) in first.iter().zip(followers.tables()) {
        let change = diff(before, after);
        assert_eq!(
            change.replay(before).as_ref(),
            Ok(after),
            "beginning {seed}"
        );
    }
    1 + turns as u64
}

#[test]
fn compiled_worlds_answer_as_the_evaluator_does() {
    let wanted = number("MARGAY_POLICY_WORLDS", 1200);
    let next = AtomicU64::new(number("MARGAY_POLICY_SEED", 1));
    let first = next.load(Ordering::Relaxed);
    let worlds = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while worlds.load(Ordering::Relaxed) < wanted {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    worlds.fetch_add(check_beginning(seed), Ordering::Relaxed);
                }
            });
        }
    });
    let (worlds, last) = (worlds.into_inner(), next.into_inner());
    println!(
        "{worlds} worlds of {} beginnings from seed {first}, each asked {} times: no difference",
        last - first,
        2 * QUESTIONS
    );
}

/// Worlds in which every rule is refused or nothing is ever denied would prove nothing.
#[test]
fn worlds_are_varied() {
    let (mut allowed, mut denied, mut reported) = (0, 0, 0);
    let mut actions: BTreeMap<RuleAction, usize> = BTreeMap::new();
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let cluster = world(&mut dice);
        let evaluator = Evaluator::new(&cluster);
        for policy in cluster.own_policies() {
            for rule in policy.ingress.iter().chain(&policy.egress).flatten() {
                *actions.entry(rule.action).or_default() += 1;
            }
        }
        let ends = ends(&cluster, Family::V4);
        for _ in 0..20 {
            let (from, to) = (end(&mut dice, &ends), end(&mut dice, &ends));
            let traffic = traffic(&mut dice);
            let judgement = evaluator.judge(from, to, traffic);
            if judgement.allows() {
                allowed += 1
            } else {
                denied += 1
            }
            reported += usize::from(evaluator.judge_staged(from, to, traffic) != judgement);
        }
    }
    assert!(
        allowed > 200 && denied > 200 && reported > 10,
        "{allowed} {denied} {reported}"
    );
    assert_eq!(actions.len(), 4, "{actions:?}");
}
