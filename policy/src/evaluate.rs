//! Judges one connection by the text of the policy APIs, tier by tier, policy by policy and rule by rule.
//!
//! This is the oracle: it shares the model and the selectors with the compiler, but neither identities nor classes nor
//! decisions. It is slow and says *why*; the compiler's tests hold the compiled ruleset against it.

use std::{collections::BTreeMap, net::IpAddr};

mod host;
mod rules;
mod tiers;

use crate::{
    model::{Cluster, Direction, Pod, PolicyRef},
    port::Probe,
};
pub use host::HostSide;
use rules::Question;

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The pod, when it is one.
    pub pod: Option<&'a Pod>,
    /// The address used.
    pub address: IpAddr,
}

/// The first packet of a connection, as far as policy looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traffic {
    /// The IP protocol.
    pub protocol: u8,
    /// The source port, in protocols that have ports.
    pub source_port: u16,
    /// The destination port, in protocols that have ports.
    pub destination_port: u16,
    /// Type and code, of ICMP and ICMPv6.
    pub icmp: (u8, u8),
}

impl Traffic {
    /// The source port of a connection of which nobody said it: one that systems give away.
    pub const SOURCE_PORT: u16 = 49_152;
}

impl From<Probe> for Traffic {
    fn from(probe: Probe) -> Self {
        Self {
            protocol: probe.protocol.number(),
            source_port: Self::SOURCE_PORT,
            destination_port: probe.port,
            icmp: (0, 0),
        }
    }
}

/// What became of one side: the source's egress or the destination's ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// No policy applies to this side.
    Exempt(Exemption),
    /// No policy decides about the pod in this direction; then everything is allowed.
    NotIsolated,
    /// No policy is about it, and a host endpoint lets nothing pass without one.
    Closed,
    /// A rule allows it.
    Allowed {
        /// The policy.
        policy: PolicyRef,
        /// The rule's place in the policy's list for this direction.
        rule: usize,
    },
    /// A rule denies it.
    DeniedByRule {
        /// The policy.
        policy: PolicyRef,
        /// The rule's place in the policy's list for this direction.
        rule: usize,
    },
    /// These policies of one tier select the pod, no rule of theirs decides, and the tier ends in Deny.
    Denied {
        /// The policies, in the order in which they were asked.
        isolating: Vec<PolicyRef>,
    },
}

/// Why no policy applies to a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// It is no pod.
    NotAPod,
    /// The pod uses its node's network.
    HostNetwork,
    /// A pod always reaches itself.
    Itself,
    /// Traffic between a pod and its own node is always allowed.
    OwnNode,
    /// A failsafe port of a host endpoint.
    Failsafe,
}

impl Side {
    /// Whether this side lets the connection pass.
    pub fn allows(&self) -> bool {
        !matches!(
            self,
            Self::Denied { .. } | Self::DeniedByRule { .. } | Self::Closed
        )
    }
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The source's side.
    pub egress: Side,
    /// The destination's side.
    pub ingress: Side,
    /// What the host endpoints on the way say, in its order.
    pub hosts: Vec<HostSide>,
}

impl Judgement {
    /// Whether the connection is allowed: both sides must let it pass, and every host endpoint on the way.
    pub fn allows(&self) -> bool {
        self.egress.allows()
            && self.ingress.allows()
            && self.hosts.iter().all(|host| host.side.allows())
    }
}

/// Judges connections in one cluster.
#[derive(Debug)]
pub struct Evaluator<'a> {
    cluster: &'a Cluster,
    by_address: BTreeMap<IpAddr, Vec<&'a Pod>>,
}

impl<'a> Evaluator<'a> {
    /// An evaluator for the cluster as it is now.
    pub fn new(cluster: &'a Cluster) -> Self {
        let mut by_address: BTreeMap<IpAddr, Vec<&Pod>> = BTreeMap::new();
        // Pods on their node's network and ended pods are nobody's peers, though their objects carry addresses.
        for pod in cluster.pods().filter(|pod| pod.is_selectable()) {
            for address in &pod.addresses {
                by_address.entry(*address).or_default().push(pod);
            }
        }
        Self {
            cluster,
            by_address,
        }
    }

    /// Whether `from` may open a connection to `to` with this as its first packet.
    pub fn judge(&self, from: End<'_>, to: End<'_>, traffic: impl Into<Traffic>) -> Judgement {
        let traffic = traffic.into();
        Judgement {
            egress: self.side(from, to, Direction::Egress, traffic, false),
            ingress: self.side(to, from, Direction::Ingress, traffic, false),
            hosts: self.hosts(from, to, traffic),
        }
    }

    /// What would become of it if staged policies were enforced.
    pub fn judge_staged(
        &self,
        from: End<'_>,
        to: End<'_>,
        traffic: impl Into<Traffic>,
    ) -> Judgement {
        let traffic = traffic.into();
        Judgement {
            egress: self.side(from, to, Direction::Egress, traffic, true),
            ingress: self.side(to, from, Direction::Ingress, traffic, true),
            hosts: self.hosts(from, to, traffic),
        }
    }

    /// The Log rules that this side of a connection meets: of the subject's policies for the direction.
    pub fn logged(
        &self,
        subject: End<'_>,
        peer: End<'_>,
        direction: Direction,
        traffic: impl Into<Traffic>,
    ) -> Vec<(PolicyRef, usize)> {
        let mut logged = Vec::new();
        self.side_noting(subject, peer, direction, traffic.into(), false, &mut logged);
        logged
    }

    fn side(
        &self,
        subject: End<'_>,
        peer: End<'_>,
        direction: Direction,
        traffic: Traffic,
        staged: bool,
    ) -> Side {
        self.side_noting(subject, peer, direction, traffic, staged, &mut Vec::new())
    }

    fn side_noting(
        &self,
        subject: End<'_>,
        peer: End<'_>,
        direction: Direction,
        traffic: Traffic,
        staged: bool,
        logged: &mut Vec<(PolicyRef, usize)>,
    ) -> Side {
        let Some(pod) = subject.pod else {
            return Side::Exempt(Exemption::NotAPod);
        };
        if pod.host_network {
            return Side::Exempt(Exemption::HostNetwork);
        }
        if peer.pod.is_some_and(|peer| peer.key() == pod.key()) {
            return Side::Exempt(Exemption::Itself);
        }
        if self.is_own_node(pod, peer) {
            return Side::Exempt(Exemption::OwnNode);
        }
        let tiers = tiers::applicable(self.cluster, pod, direction, staged);
        let question = |peer_pod| Question {
            cluster: self.cluster,
            direction,
            subject: Some(pod),
            ports: &pod.ports,
            subject_address: subject.address,
            peer: peer_pod,
            peer_address: peer.address,
            traffic,
        };
        // Several pods have one address when it was given anew and its old owner's object is still there: whoever sends
        // from it may do no more than any of them. A pod's own node knows them apart by their interfaces.
        let neighbour = peer
            .pod
            .filter(|peer| peer.node.is_some() && peer.node == pod.node);
        let sides = match self.pods_at(peer.address) {
            _ if neighbour.is_some() => vec![question(neighbour).ask_noting(&tiers, logged)],
            [] => vec![question(None).ask_noting(&tiers, logged)],
            pods => pods
                .iter()
                .map(|pod| question(Some(*pod)).ask_noting(&tiers, logged))
                .collect(),
        };
        let denial = sides.iter().find(|side| !side.allows());
        denial
            .or(sides.first())
            .cloned()
            .unwrap_or(Side::NotIsolated)
    }

    fn is_own_node(&self, pod: &Pod, peer: End<'_>) -> bool {
        let Some(node) = &pod.node else {
            return false;
        };
        let on_its_network = peer
            .pod
            .is_some_and(|peer| peer.host_network && peer.node.as_ref() == Some(node));
        let its_address = || {
            self.cluster
                .node(node)
                .is_some_and(|node| node.addresses.contains(&peer.address))
        };
        on_its_network || its_address()
    }

    /// The pods that have this address: none for an external one.
    pub(crate) fn pods_at(&self, address: IpAddr) -> &[&'a Pod] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }
}
