//! What host endpoints say to a connection: on the way out of a node, and on the way into one.
//!
//! Which interface a packet takes is not in the objects. A node is taken to send and receive by the interface that has its
//! address: the host endpoint with that address, or the only one with an interface's name and no addresses, or the one for
//! all interfaces. Nor are destinations translated: what is asked before destination NAT is asked about the same one.

use std::net::IpAddr;

use margay_crds as crds;
use margay_crds::{HostInterface, HostStage};

use super::{
    End, Evaluator, Exemption, Side, Traffic,
    rules::Question,
    tiers::{AnyPolicy, Asked},
};
use crate::{
    compile::{FailsafePort, Failsafes},
    model::{Cluster, Direction, HostEndpoint, OwnPolicy},
};

/// A host endpoint on the way of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSide {
    /// Its name.
    pub endpoint: String,
    /// Its node.
    pub node: String,
    /// Into the node or out of it.
    pub direction: Direction,
    /// What became of it there.
    pub side: Side,
}

/// The host endpoint of the interface with a node's address.
pub(crate) fn endpoint_at<'a>(
    cluster: &'a Cluster,
    node: &str,
    address: IpAddr,
) -> Option<&'a HostEndpoint> {
    let all = || cluster.host_endpoints_of(node);
    let by_address = all().find(|one| one.addresses.contains(&address));
    let mut named = all()
        .filter(|one| matches!(one.interface, HostInterface::Named(_)) && one.addresses.is_empty());
    let only = match (named.next(), named.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    };
    let wildcard = || all().find(|one| one.interface == HostInterface::All);
    let by_address = by_address.filter(|one| one.interface != HostInterface::All);
    by_address.or(only).or_else(wildcard)
}

/// Where one end is: its node's name, and whether it is the node itself.
struct Place<'a> {
    node: &'a str,
    is_node: bool,
}

impl Evaluator<'_> {
    /// What the host endpoints on the way say.
    pub(super) fn hosts(&self, from: End<'_>, to: End<'_>, traffic: Traffic) -> Vec<HostSide> {
        if !self.cluster.has_host_endpoints() {
            return Vec::new();
        }
        let (source, destination) = (self.place(from), self.place(to));
        // What does not leave a node passes no interface of its own.
        if let (Some(one), Some(other)) = (&source, &destination)
            && one.node == other.node
        {
            return Vec::new();
        }
        let mut sides = Vec::new();
        for (place, direction) in [
            (source, Direction::Egress),
            (destination, Direction::Ingress),
        ] {
            let Some(place) = place else {
                continue;
            };
            let own = if direction == Direction::Egress {
                from
            } else {
                to
            };
            let nodes = self.cluster.node(place.node).map(|node| &node.addresses);
            let mut nodes = nodes.into_iter().flatten();
            let address = match place.is_node {
                true => Some(own.address),
                false => nodes
                    .find(|one| one.is_ipv4() == own.address.is_ipv4())
                    .copied(),
            };
            let endpoint =
                address.and_then(|address| endpoint_at(self.cluster, place.node, address));
            if let Some(endpoint) = endpoint {
                sides.push(HostSide {
                    endpoint: endpoint.name.clone(),
                    node: place.node.to_owned(),
                    direction,
                    side: self.host_side(endpoint, &place, direction, (from, to), traffic),
                });
            }
        }
        sides
    }

    fn place<'e>(&'e self, end: End<'e>) -> Option<Place<'e>> {
        if let Some(pod) = end.pod {
            return pod.node.as_deref().map(|node| Place {
                node,
                is_node: pod.host_network,
            });
        }
        let mut nodes = self.cluster.nodes();
        let node = nodes.find(|node| node.addresses.contains(&end.address))?;
        Some(Place {
            node: &node.name,
            is_node: true,
        })
    }

    fn host_side(
        &self,
        endpoint: &HostEndpoint,
        place: &Place<'_>,
        direction: Direction,
        (from, to): (End<'_>, End<'_>),
        traffic: Traffic,
    ) -> Side {
        let (own, peer) = match direction {
            Direction::Ingress => (to, from),
            Direction::Egress => (from, to),
        };
        let question = |peer_pod| Question {
            cluster: self.cluster,
            direction,
            subject: own.pod.filter(|pod| !pod.host_network),
            ports: &endpoint.ports,
            subject_address: own.address,
            peer: peer_pod,
            peer_address: peer.address,
            traffic,
        };
        let ask = |stage: HostStage| {
            let mut tiers = tiers(self.cluster, endpoint, direction, stage, !place.is_node);
            if stage != HostStage::Normal {
                tiers.iter_mut().for_each(|asked| asked.tier.passes = true);
            }
            // As for pods: whoever sends from an address of several may do no more than any of them.
            let sides: Vec<Side> = match self.pods_at(peer.address) {
                [] => vec![question(None).ask_noting(&tiers, &mut Vec::new())],
                pods => {
                    let pods = pods.iter();
                    pods.map(|pod| question(Some(*pod)).ask_noting(&tiers, &mut Vec::new()))
                        .collect()
                }
            };
            let denial = sides.iter().position(|side| !side.allows());
            let decided = sides.into_iter().nth(denial.unwrap_or_default());
            decided.filter(|_| !tiers.is_empty())
        };
        let failsafes = Failsafes::default();
        let is_failsafe = match direction {
            Direction::Ingress => is_open(&failsafes.inbound, traffic, peer.address),
            Direction::Egress => is_open(&failsafes.outbound, traffic, peer.address),
        };
        // Where connections are not tracked yet, what may be an answer from a failsafe port is let on too.
        let answers = match direction {
            Direction::Ingress => &failsafes.outbound,
            Direction::Egress => &failsafes.inbound,
        };
        let reversed = Traffic {
            destination_port: traffic.source_port,
            ..traffic
        };
        let is_answer = is_open(answers, reversed, peer.address);
        let early = [
            (HostStage::DoNotTrack, is_failsafe || is_answer, true),
            (
                HostStage::PreDnat,
                is_failsafe,
                direction == Direction::Ingress,
            ),
        ];
        for (stage, is_exempt, exists) in early {
            // What a pod sends is not asked before it is tracked.
            let sent_by_pod = direction == Direction::Egress && !place.is_node;
            if is_exempt || !exists || sent_by_pod {
                continue;
            }
            match ask(stage) {
                None | Some(Side::NotIsolated) => {}
                Some(decided) => return decided,
            }
        }
        if place.is_node && is_failsafe {
            return Side::Exempt(Exemption::Failsafe);
        }
        match (ask(HostStage::Normal), place.is_node) {
            (Some(Side::NotIsolated) | None, true) => Side::Closed,
            (None, false) => Side::NotIsolated,
            (Some(side), _) => side,
        }
    }
}

fn is_open(ports: &[FailsafePort], traffic: Traffic, peer: IpAddr) -> bool {
    ports.iter().any(|one| {
        one.protocol.number() == traffic.protocol
            && one.port == traffic.destination_port
            && one.network.is_none_or(|network| network.contains(peer))
    })
}

/// The tiers with policies about a host endpoint, first to last; staged ones are passed over.
fn tiers<'a>(
    cluster: &'a Cluster,
    endpoint: &HostEndpoint,
    direction: Direction,
    stage: HostStage,
    forwarded: bool,
) -> Vec<Asked<'a>> {
    let is_meant = |policy: &&OwnPolicy| {
        let subject = &policy.subject;
        let in_no_namespace = subject
            .namespaces
            .as_ref()
            .is_none_or(crds::Selector::is_global);
        !policy.staged
            && policy.host.stage == stage
            && (!forwarded || policy.host.forward)
            && policy.rules(direction).is_some()
            && in_no_namespace
            && subject.service_accounts.is_none()
            && subject.selector.matches(&endpoint.labels)
    };
    let mut asked: Vec<Asked<'a>> = Vec::new();
    for policy in cluster.policies_for_hosts().filter(is_meant) {
        let tier = cluster.tier(&policy.tier);
        let one = (policy.reference.clone(), AnyPolicy::Own(policy));
        match asked.iter_mut().find(|there| there.tier.name == tier.name) {
            Some(there) => there.policies.push(one),
            None => asked.push(Asked {
                tier,
                policies: vec![one],
            }),
        }
    }
    let order = |policy: &AnyPolicy<'_>| match policy {
        AnyPolicy::Own(policy) => Some(policy.order),
        _ => None,
    };
    for tier in &mut asked {
        tier.policies
            .sort_by(|one, other| (order(&one.1), &one.0).cmp(&(order(&other.1), &other.0)));
    }
    asked.sort_by(|one, other| one.tier.place().cmp(&other.tier.place()));
    asked
}
