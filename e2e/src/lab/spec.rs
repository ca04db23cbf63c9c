//! What a lab is, as values: from the few numbers people give to every name and address in it.
//!
//! Pure: nothing here touches the machine. The same [`LabSpec`] always gives the same [`Plan`],
//! so a later `down`, `status` or `exec` needs only the spec from the state file.
//!
//! ```text
//!   store 10.10.0.10 ─┬─ router ─┬─ tor-a ── 10.10.1.0/24 ── node1, node2 …
//! outside 10.20.0.10 ─┘          └─ tor-b ── 10.10.2.0/24 ── node3, node4 …
//! ```
//!
//! With two ToRs a segment there is a `tor-a2` beside `tor-a`, on a port of its bridge and with a
//! cable of its own to the router: both give the nodes the way out, and take what comes in.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};
use serde::{Deserialize, Serialize};

use super::error::LabError;

/// The AS of the router that joins the segments.
pub const ROUTER_AS: u32 = 65000;
/// The AS of the first ToR; the others count up.
pub const FIRST_TOR_AS: u32 = 65001;
/// The AS of the nodes.
pub const CLUSTER_AS: u32 = margay_crds::bgp_configuration::DEFAULT_AS_NUMBER;
/// Where the pods' addresses come from.
pub const POOL: &str = "10.244.0.0/16";
/// The prefix length of a block.
pub const BLOCK_SIZE: u8 = 26;
/// The label that says which segment a node is on.
pub const SEGMENT_LABEL: &str = "margay.dev/segment";
/// The Kubernetes namespace of the lab's pods.
pub const POD_NAMESPACE: &str = "demo";
/// The store's port on its own address.
pub const STORE_PORT: u16 = 6443;
/// The port that the pods serve and the demo's policy opens.
pub const SERVED_PORT: u16 = 8080;
/// A second port that the pods serve.
pub const OTHER_PORT: u16 = 9090;

/// Most nodes of a lab.
pub const MAX_NODES: usize = 32;
/// Most segments of a lab.
pub const MAX_SEGMENTS: usize = 8;
/// Most pods on a node.
pub const MAX_PODS_PER_NODE: usize = 8;

/// What runs on the routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tor {
    /// BIRD 2: the fabric learns the pods' blocks by BGP.
    Bird,
    /// FRR: the same by another daemon.
    Frr,
    /// Nothing: static routes between the segments, and no route to pods from outside.
    None,
}

impl Tor {
    /// In words: what the routers run.
    pub fn words(self) -> &'static str {
        match self {
            Tor::Bird => "BIRD on the routers",
            Tor::Frr => "FRR on the routers",
            Tor::None => "no BGP on the routers",
        }
    }

    /// Whether the routers speak BGP.
    pub fn speaks_bgp(self) -> bool {
        self != Tor::None
    }

    /// Reads the value of `--tor`.
    ///
    /// # Errors
    /// When the lab has no such router.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        let message = match text {
            "bird" => return Ok(Tor::Bird),
            "frr" => return Ok(Tor::Frr),
            "none" => return Ok(Tor::None),
            other => format!("{other:?} is no router of the lab: use bird, frr or none"),
        };
        Err(LabError::Spec {
            field: "--tor",
            message,
        })
    }
}

/// What people ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabSpec {
    /// The lab's name: lowercase letters, digits and inner hyphens, at most 20.
    pub name: String,
    /// How many nodes, 1 to [`MAX_NODES`].
    pub nodes: usize,
    /// How many L2 segments, 1 to [`MAX_SEGMENTS`] and no more than nodes.
    pub segments: usize,
    /// What runs on the routers.
    pub tor: Tor,
    /// How many ToRs a segment has, 1 or 2.
    #[serde(default = "one")]
    pub tors: usize,
    /// How many pods the lab starts, spread over the nodes: 0 to [`MAX_PODS_PER_NODE`] a node.
    pub pods: usize,
}

fn one() -> usize {
    1
}

/// The other ToR of a segment that has two, in the AS of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondTor {
    /// Its name, `tor-a2`, which is also that of its port on the bridge.
    pub name: String,
    /// Its address in the segment.
    pub address: IpAddr,
    /// The router's end of the link to it, a /31.
    pub router_end: IpNetwork,
    /// Its end.
    pub tor_end: IpNetwork,
}

/// One L2 segment and its router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// `a`, `b`, …: the value of [`SEGMENT_LABEL`].
    pub letter: String,
    /// The ToR's name, `tor-a`.
    pub tor: String,
    /// The ToR's AS.
    pub as_number: u32,
    /// The subnet.
    pub subnet: IpNetwork,
    /// The ToR's address in it: the nodes' default gateway.
    pub gateway: IpAddr,
    /// The router's end of the link to the ToR, a /31.
    pub router_end: IpNetwork,
    /// The ToR's end.
    pub tor_end: IpNetwork,
    /// The other ToR, if there are two.
    pub second: Option<SecondTor>,
}

/// A machine with one interface, `eth0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name, which is also the cable's name on the other end.
    pub name: String,
    /// Its address with the subnet's length.
    pub address: IpNetwork,
    /// Its default gateway.
    pub gateway: IpAddr,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The machine.
    pub host: Host,
    /// The index of its segment in [`Plan::segments`].
    pub segment: usize,
}

/// A pod that the lab starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPlan {
    /// Its name, such as `web-1`.
    pub name: String,
    /// The value of its label `app`.
    pub app: String,
    /// The index of its node in [`Plan::nodes`].
    pub node: usize,
}

/// Every name and address of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was asked for.
    pub spec: LabSpec,
    /// The range of the pods' addresses.
    pub pool: IpNetwork,
    /// The segments.
    pub segments: Vec<Segment>,
    /// The nodes, those of a segment together.
    pub nodes: Vec<Node>,
    /// Where the embedded store runs.
    pub store: Host,
    /// A machine that is not part of the cluster.
    pub outside: Host,
    /// The pods.
    pub pods: Vec<PodPlan>,
}

/// The roles of the pods on a node, in order.
const APPS: [&str; 2] = ["web", "job"];

impl LabSpec {
    /// One segment of `nodes` nodes, with a BIRD ToR and without pods.
    pub fn segment(name: &str, nodes: usize) -> Self {
        Self {
            name: name.to_owned(),
            nodes,
            segments: 1,
            tor: Tor::Bird,
            tors: 1,
            pods: 0,
        }
    }

    /// The plan, if the numbers make a lab.
    ///
    /// # Errors
    /// The first flag that is out of its range.
    pub fn plan(&self) -> Result<Plan, LabError> {
        check_name(&self.name)?;
        range("--nodes", self.nodes, 1, MAX_NODES)?;
        range("--segments", self.segments, 1, MAX_SEGMENTS)?;
        range("--tors", self.tors, 1, 2)?;
        if self.tors == 2 && self.tor != Tor::Bird {
            return Err(LabError::Spec {
                field: "--tors",
                message: "two ToRs a segment run BIRD, in the lab: use --tor bird".to_owned(),
            });
        }
        range("--pods", self.pods, 0, self.nodes * MAX_PODS_PER_NODE)?;
        if self.segments > self.nodes {
            return Err(LabError::Spec {
                field: "--segments",
                message: format!(
                    "{} segments need as many nodes, and there are {}: a segment without a node shows nothing",
                    self.segments, self.nodes
                ),
            });
        }
        let segments = (0u8..).take(self.segments);
        let segments: Vec<Segment> = segments
            .map(|index| Segment {
                second: (self.tors == 2).then(|| second_tor(index)),
                ..segment(index)
            })
            .collect();
        let nodes = (1u8..).take(self.nodes).map(|number| {
            let index = (usize::from(number) - 1) * self.segments / self.nodes;
            node(number, index, &segments)
        });
        Ok(Plan {
            pool: network([10, 244, 0, 0], 16),
            nodes: nodes.collect(),
            store: host("store", [10, 10, 0, 10], [10, 10, 0, 1]),
            outside: host("outside", [10, 20, 0, 10], [10, 20, 0, 1]),
            pods: pods(self),
            spec: self.clone(),
            segments,
        })
    }
}

impl Plan {
    /// The network namespace of a machine or router: `mgy-<lab>-<name>`.
    pub fn namespace(&self, name: &str) -> String {
        format!("mgy-{}-{name}", self.spec.name)
    }

    /// The network namespace of a pod.
    pub fn pod_namespace(&self, pod: &str) -> String {
        self.namespace(&format!("pod-{pod}"))
    }

    /// The segment a node is on, by the node's index.
    pub fn segment_of(&self, node: usize) -> Option<&Segment> {
        self.segments.get(self.nodes.get(node)?.segment)
    }

    /// Whether two nodes, by their indexes, share an L2 segment.
    pub fn same_segment(&self, one: usize, other: usize) -> bool {
        let segment = |index: usize| self.nodes.get(index).map(|node| node.segment);
        segment(one) == segment(other)
    }

    /// The index of the node of this name.
    pub fn node_index(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.host.name == name)
    }

    /// The subnet of the machine outside.
    pub fn outside_subnet(&self) -> IpNetwork {
        let address = self.outside.address;
        IpNetwork::new(address.network(), address.prefix()).unwrap_or(address)
    }

    /// Every ToR, by name.
    pub fn tors(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().flat_map(|segment| {
            let second = segment.second.iter().map(|second| second.name.as_str());
            std::iter::once(segment.tor.as_str()).chain(second)
        })
    }

    /// Router, ToRs, nodes, store and outside: every name that has a namespace but is no pod.
    pub fn machines(&self) -> Vec<String> {
        let mut names = vec!["router".to_owned()];
        names.extend(self.tors().map(str::to_owned));
        names.extend([self.store.name.clone(), self.outside.name.clone()]);
        names.extend(self.nodes.iter().map(|node| node.host.name.clone()));
        names
    }
}

fn check_name(name: &str) -> Result<(), LabError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edges = |c: char| c != '-';
    let fits = (1..=20).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(edges)
        && name.ends_with(edges);
    if fits {
        return Ok(());
    }
    Err(LabError::Spec {
        field: "--name",
        message: format!(
            "{name:?} must be 1 to 20 lowercase letters, digits and inner hyphens: it becomes part of namespace names"
        ),
    })
}

fn range(field: &'static str, value: usize, min: usize, max: usize) -> Result<(), LabError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(LabError::Spec {
        field,
        message: format!("{value} must be {min} to {max}"),
    })
}

fn segment(index: u8) -> Segment {
    let letter = char::from(b'a' + index).to_string();
    let link = |end: u8| network([10, 10, 254, 2 * index + end], 31);
    Segment {
        tor: format!("tor-{letter}"),
        letter,
        as_number: FIRST_TOR_AS + u32::from(index),
        subnet: network([10, 10, index + 1, 0], 24),
        gateway: IpAddr::from([10, 10, index + 1, 1]),
        router_end: link(0),
        tor_end: link(1),
        second: None,
    }
}

fn second_tor(index: u8) -> SecondTor {
    let letter = char::from(b'a' + index);
    let link = |end: u8| network([10, 10, 253, 2 * index + end], 31);
    SecondTor {
        name: format!("tor-{letter}2"),
        address: IpAddr::from([10, 10, index + 1, 2]),
        router_end: link(0),
        tor_end: link(1),
    }
}

fn node(number: u8, segment: usize, segments: &[Segment]) -> Node {
    let gateway = segments.get(segment).map(|segment| segment.gateway);
    let gateway = match gateway {
        Some(IpAddr::V4(gateway)) => gateway.octets(),
        _ => [0; 4],
    };
    let [a, b, c, _] = gateway;
    Node {
        host: host(&format!("node{number}"), [a, b, c, 10 + number], gateway),
        segment,
    }
}

fn host(name: &str, address: [u8; 4], gateway: [u8; 4]) -> Host {
    Host {
        name: name.to_owned(),
        address: network(address, 24),
        gateway: gateway.into(),
    }
}

/// An address with a length that the code above wrote down itself; a length beyond 32 cannot be.
fn network(address: [u8; 4], prefix: u8) -> IpNetwork {
    let address = Ipv4Addr::from(address);
    let network = Ipv4Network::new(address, prefix);
    IpNetwork::V4(network.unwrap_or_else(|_| address.into()))
}

/// The pods in the order of their nodes: one on every node, then a second, and so on. Where the
/// last round is not a whole one it takes nodes from both ends in turn, so that few pods still
/// meet on one node, on one segment and across segments.
fn pods(spec: &LabSpec) -> Vec<PodPlan> {
    let mut pods = Vec::new();
    let mut round = 0;
    while pods.len() < spec.pods {
        let wanted = (spec.pods - pods.len()).min(spec.nodes);
        pods.extend((0..wanted).map(|turn| pod(round, from_both_ends(turn, spec.nodes))));
        round += 1;
    }
    pods.sort_by_key(|pod| pod.node);
    pods
}

/// 0, the last, 1, the last but one, …
fn from_both_ends(turn: usize, count: usize) -> usize {
    if turn.is_multiple_of(2) {
        turn / 2
    } else {
        count - 1 - turn / 2
    }
}

fn pod(round: usize, node: usize) -> PodPlan {
    let app = APPS[round % APPS.len()];
    // web-1, job-1, then web-1b, job-1b, …: the digit is always the node's.
    let suffix = match u8::try_from(round / APPS.len()) {
        Ok(generation @ 1..=25) => char::from(b'a' + generation).to_string(),
        _ => String::new(),
    };
    PodPlan {
        name: format!("{app}-{}{suffix}", node + 1),
        app: app.to_owned(),
        node,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn spec(nodes: usize, segments: usize) -> LabSpec {
        LabSpec {
            name: "t".to_owned(),
            nodes,
            segments,
            tor: Tor::Bird,
            tors: 1,
            pods: 6,
        }
    }

    #[test]
    fn four_nodes_on_two_segments() {
        let plan = spec(4, 2).plan().unwrap();
        let places: Vec<(String, usize)> = plan
            .nodes
            .iter()
            .map(|node| (node.host.address.to_string(), node.segment))
            .collect();
        let wanted = [
            ("10.10.1.11/24", 0),
            ("10.10.1.12/24", 0),
            ("10.10.2.13/24", 1),
            ("10.10.2.14/24", 1),
        ];
        assert_eq!(places, wanted.map(|(a, s)| (a.to_owned(), s)));
        assert!(plan.same_segment(0, 1) && !plan.same_segment(1, 2));
        assert_eq!(plan.segments[1].tor, "tor-b");
        assert_eq!(plan.segments[1].tor_end.to_string(), "10.10.254.3/31");
        let names: Vec<&str> = plan.pods.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(
            names,
            ["web-1", "job-1", "web-2", "web-3", "web-4", "job-4"]
        );
        assert_eq!(plan.pod_namespace("job-1"), "mgy-t-pod-job-1");
    }

    #[test]
    fn every_size_has_distinct_names_and_no_empty_segment() {
        for nodes in 1..=MAX_NODES {
            for segments in 1..=MAX_SEGMENTS.min(nodes) {
                let mut spec = spec(nodes, segments);
                spec.pods = nodes * MAX_PODS_PER_NODE;
                let plan = spec.plan().unwrap();
                let names: std::collections::BTreeSet<_> =
                    plan.pods.iter().map(|p| &p.name).collect();
                assert_eq!(names.len(), nodes * MAX_PODS_PER_NODE);
                for index in 0..segments {
                    assert!(plan.nodes.iter().any(|node| node.segment == index));
                }
                for node in &plan.nodes {
                    assert!(
                        plan.segments[node.segment]
                            .subnet
                            .contains(node.host.address.ip())
                    );
                }
            }
        }
    }

    #[test]
    fn impossible_labs_name_the_flag() {
        let mut named = spec(1, 1);
        for name in ["", "-a", "a-", "Lab", "a/b", "aaaaaaaaaaaaaaaaaaaaa"] {
            named.name = name.to_owned();
            assert!(
                named.plan().unwrap_err().to_string().starts_with("--name"),
                "{name}"
            );
        }
        for (spec, flag) in [
            (spec(0, 1), "--nodes"),
            (spec(33, 1), "--nodes"),
            (spec(4, 0), "--segments"),
            (spec(2, 3), "--segments"),
        ] {
            assert!(spec.plan().unwrap_err().to_string().starts_with(flag));
        }
        let refused = Tor::parse("quagga").unwrap_err().to_string();
        assert!(refused.contains("bird, frr or none"), "{refused}");
        assert_eq!(Tor::parse("frr").unwrap(), Tor::Frr);
        assert_eq!(Tor::parse("bird").unwrap(), Tor::Bird);
    }
}
