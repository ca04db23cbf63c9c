//! A cluster whose every node has its compiled ruleset, for asking whether a packet gets through the kernels on its way.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    Cluster, Compiler, NodeInput, Ruleset,
    evaluate::{End, Evaluator, Traffic},
    load::load,
    model::{ObjectKey, Pod},
    port::Probe,
    ruleset::{
        Family, Hook, Key,
        simulate::{Packet, Told, balanced, passes, told},
    },
};

pub(super) fn load_cluster(documents: &str) -> Cluster {
    let mut cluster = Cluster::new();
    let problems = load(documents, &mut cluster).unwrap();
    assert_eq!(problems, [], "the test's own objects are wrong");
    cluster
}

/// The uplink's name on every node.
const UPLINK: &str = "eth0";

/// Whether the pod has a network of its own on a node.
fn is_endpoint(pod: &Pod) -> bool {
    pod.is_selectable() && pod.node.is_some() && !pod.addresses.is_empty()
}

/// What the agent on this node would pass to the compiler. Interfaces are numbered in the order of all pods.
pub(super) fn node_input(cluster: &Cluster, node: &str) -> NodeInput {
    NodeInput::of_cluster(cluster, node, |namespace, name| {
        let key = ObjectKey::new(namespace, name);
        let index = cluster.pods().position(|pod| pod.key() == key);
        format!("mgy{:04}", index.unwrap())
    })
}

/// The first packet of a TCP connection to port 80.
pub(super) fn packet(inward: &str, outward: &str, source: &str, destination: &str) -> Packet {
    Packet {
        in_interface: inward.to_owned(),
        out_interface: outward.to_owned(),
        source: ip(source),
        destination: ip(destination),
        protocol: 6,
        source_port: 40_000,
        port: 80,
        icmp: (0, 0),
        state: None,
        reply: false,
        mark: 0,
        from_node: false,
    }
}

/// Whether a packet is forwarded. What IPVS sends the same way, without a word of where it came in, has the same answer.
fn forwards(ruleset: &Ruleset, packet: &Packet) -> bool {
    let passed = passes(ruleset, Hook::Forward, packet);
    let sources = Family::of(packet.source).digit();
    let senders = ruleset.maps[&format!("sources{sources}")].elements.keys();
    let is_sender = |key: &&Key| matches!(key, Key::DeviceAddress(both) if both.1 == packet.source);
    let is_from_here = packet.in_interface != UPLINK;
    if senders.filter(is_sender).count() != usize::from(is_from_here) {
        // Where several pods have one address IPVS cannot know which it was.
        return passed;
    }
    let sent = Packet {
        in_interface: String::new(),
        ..packet.clone()
    };
    if let Some(balanced) = balanced(ruleset, &sent) {
        assert_eq!(balanced, passed, "by IPVS or not: {packet:?}");
    }
    passed
}

pub(super) struct Fabric<'a> {
    cluster: &'a Cluster,
    rulesets: BTreeMap<&'a str, Cow<'a, Ruleset>>,
    interfaces: BTreeMap<ObjectKey, String>,
}

impl<'a> Fabric<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let nodes: BTreeSet<&str> = cluster
            .pods()
            .filter_map(|pod| pod.node.as_deref())
            .collect();
        let rulesets = nodes.into_iter().map(|node| {
            let input = node_input(cluster, node);
            let (ruleset, problems) = Compiler::new().compile(cluster, &input);
            assert_eq!(problems, []);
            (node, Cow::Owned(ruleset))
        });
        Self::of(cluster, rulesets.collect())
    }

    /// With the rulesets that somebody has compiled, of each node that has pods.
    pub(super) fn of(cluster: &'a Cluster, rulesets: BTreeMap<&'a str, Cow<'a, Ruleset>>) -> Self {
        let endpoints = rulesets
            .keys()
            .flat_map(|node| node_input(cluster, node).endpoints)
            .map(|local| (ObjectKey::new(local.namespace, local.pod), local.interface));
        Self {
            cluster,
            interfaces: endpoints.collect(),
            rulesets,
        }
    }

    fn place(&self, end: End<'_>) -> Option<(&Ruleset, &str, &str)> {
        let pod = end.pod.filter(|pod| is_endpoint(pod))?;
        let node = pod.node.as_deref()?;
        let (node, ruleset) = self.rulesets.get_key_value(node)?;
        Some((ruleset.as_ref(), node, &self.interfaces[&pod.key()]))
    }

    /// Whether the end is the node itself.
    fn is_node(&self, end: End<'_>, node: &str) -> bool {
        let host_network = end
            .pod
            .is_some_and(|pod| pod.host_network && pod.node.as_deref() == Some(node));
        host_network
            || self
                .cluster
                .node(node)
                .is_some_and(|node| node.addresses.contains(&end.address))
    }

    /// Whether the connection's first packet passes every hook on its way.
    pub(super) fn passes(&self, from: End<'_>, to: End<'_>, traffic: impl Into<Traffic>) -> bool {
        let traffic = traffic.into();
        if from.pod.is_some() && from.pod.map(Pod::key) == to.pod.map(Pod::key) {
            return true; // It does not leave the pod.
        }
        let packet = |inward: &str, outward: &str| Packet {
            in_interface: inward.to_owned(),
            out_interface: outward.to_owned(),
            source: from.address,
            destination: to.address,
            protocol: traffic.protocol,
            source_port: traffic.source_port,
            port: traffic.destination_port,
            icmp: traffic.icmp,
            state: None,
            reply: false,
            mark: 0,
            from_node: false,
        };
        let (source, destination) = (self.place(from), self.place(to));
        if let Some((ruleset, node, inward)) = source {
            if !passes(ruleset, Hook::PreroutingRaw, &packet(inward, "")) {
                return false;
            }
            if self.is_node(to, node) {
                return true; // Delivered locally.
            }
            match destination {
                Some((_, other, outward)) if other == node => {
                    return forwards(ruleset, &packet(inward, outward));
                }
                _ if !forwards(ruleset, &packet(inward, UPLINK)) => return false,
                _ => {}
            }
        }
        match destination {
            Some((_, node, _)) if self.is_node(from, node) => true, // Sent by the node itself.
            Some((ruleset, _, outward)) => {
                passes(ruleset, Hook::PreroutingRaw, &packet(UPLINK, ""))
                    && forwards(ruleset, &packet(UPLINK, outward))
            }
            None => true,
        }
    }

    /// What is told of the connection's first packet on its way, as far as it gets.
    pub(super) fn told(&self, from: End<'_>, to: End<'_>, traffic: Traffic) -> Told {
        let packet = |inward: &str, outward: &str| Packet {
            in_interface: inward.to_owned(),
            out_interface: outward.to_owned(),
            source: from.address,
            destination: to.address,
            protocol: traffic.protocol,
            source_port: traffic.source_port,
            port: traffic.destination_port,
            icmp: traffic.icmp,
            state: None,
            reply: false,
            mark: 0,
            from_node: false,
        };
        let mut all = Told::default();
        if from.pod.is_some() && from.pod.map(Pod::key) == to.pod.map(Pod::key) {
            return all;
        }
        let mut forwarded = |ruleset, packet: &Packet| {
            let told = told(ruleset, Hook::Forward, packet);
            all.reported.extend(told.reported);
            all.counted.extend(told.counted);
            passes(ruleset, Hook::Forward, packet)
        };
        match (self.place(from), self.place(to)) {
            (Some((ruleset, one, inward)), Some((_, other, outward))) if one == other => {
                forwarded(ruleset, &packet(inward, outward));
            }
            (source, destination) => {
                if let Some((ruleset, node, inward)) = source
                    && !self.is_node(to, node)
                    && !forwarded(ruleset, &packet(inward, UPLINK))
                {
                    return all;
                }
                if let Some((ruleset, node, outward)) = destination
                    && !self.is_node(from, node)
                {
                    forwarded(ruleset, &packet(UPLINK, outward));
                }
            }
        }
        all
    }

    /// The answer of both the evaluator and the compiled rulesets, which must be the same.
    pub(super) fn both(&self, from: &str, to: &str, probe: &str) -> bool {
        let (from_end, to_end) = (self.end(from), self.end(to));
        let probe: Probe = probe.parse().unwrap();
        let judged = Evaluator::new(self.cluster).judge(from_end, to_end, probe);
        let passed = self.passes(from_end, to_end, probe);
        assert_eq!(
            judged.allows(),
            passed,
            "evaluator and ruleset differ on {from} -> {to} {probe}: {judged:?}"
        );
        passed
    }

    /// A pod by `namespace/name`, at its first address or at `namespace/name@6`; anything else is an address.
    fn end(&self, name: &str) -> End<'_> {
        if let Ok(address) = name.parse() {
            return End { pod: None, address };
        }
        let (name, v6) = match name.strip_suffix("@6") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (namespace, pod) = name.split_once('/').unwrap();
        let pod = self.cluster.pod(&ObjectKey::new(namespace, pod)).unwrap();
        let address = pod.addresses.iter().find(|address| address.is_ipv6() == v6);
        End {
            pod: Some(pod),
            address: *address.unwrap_or_else(|| panic!("{name} has no such address")),
        }
    }
}

/// An address literal.
pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
