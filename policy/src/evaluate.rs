//! Judges one connection by the text of the NetworkPolicy API, policy by policy and rule by rule.
//!
//! This is the oracle: it shares the model and the selectors with the compiler, but neither identities nor classes nor
//! decisions. It is slow and says *why*; the compiler's tests hold the compiled ruleset against it.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    model::{Cluster, Direction, Namespaces, ObjectKey, Peer, Pod, Policy, PortMatch, Rule},
    port::Probe,
};

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The pod, when it is one.
    pub pod: Option<&'a Pod>,
    /// The address used.
    pub address: IpAddr,
}

/// What became of one side: the source's egress or the destination's ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// No policy applies to this side.
    Exempt(Exemption),
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// A rule allows it.
    Allowed {
        /// The policy.
        policy: ObjectKey,
        /// The rule's place in the policy's list for this direction.
        rule: usize,
    },
    /// The pod is isolated by these policies and no rule of theirs allows it.
    Denied {
        /// The policies, in the order of their keys.
        isolating: Vec<ObjectKey>,
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
}

impl Side {
    /// Whether this side lets the connection pass.
    pub fn allows(&self) -> bool {
        !matches!(self, Self::Denied { .. })
    }
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The source's side.
    pub egress: Side,
    /// The destination's side.
    pub ingress: Side,
}

impl Judgement {
    /// Whether the connection is allowed: both sides must let it pass.
    pub fn allows(&self) -> bool {
        self.egress.allows() && self.ingress.allows()
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

    /// Whether `from` may open a connection to `to`.
    pub fn judge(&self, from: End<'_>, to: End<'_>, probe: Probe) -> Judgement {
        Judgement {
            egress: self.side(from, to, Direction::Egress, probe),
            ingress: self.side(to, from, Direction::Ingress, probe),
        }
    }

    fn side(&self, subject: End<'_>, peer: End<'_>, direction: Direction, probe: Probe) -> Side {
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
        let isolating: Vec<&Policy> = self
            .cluster
            .policies()
            .filter(|policy| policy.isolates(direction) && selects(policy, pod))
            .collect();
        if isolating.is_empty() {
            return Side::NotIsolated;
        }
        for policy in &isolating {
            for rule in policy.rules(direction) {
                if self.rule_allows(policy, rule, direction, pod, peer.address, probe) {
                    return Side::Allowed {
                        policy: policy.key(),
                        rule: rule.index,
                    };
                }
            }
        }
        Side::Denied {
            isolating: isolating.iter().map(|policy| policy.key()).collect(),
        }
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

    fn rule_allows(
        &self,
        policy: &Policy,
        rule: &Rule,
        direction: Direction,
        subject: &Pod,
        peer: IpAddr,
        probe: Probe,
    ) -> bool {
        let peer_matches = match &rule.peers {
            None => true,
            Some(items) => items
                .iter()
                .any(|item| self.peer_matches(policy, item, peer)),
        };
        peer_matches
            && match &rule.ports {
                None => true,
                Some(items) => items.iter().any(|item| match direction {
                    Direction::Ingress => port_matches(item, &[subject], probe),
                    Direction::Egress => port_matches(item, self.pods_at(peer), probe),
                }),
            }
    }

    /// The pods that have this address: none for an external one; several when an address was given anew and its old
    /// owner's object is still there, and then only what holds for all of them is believed.
    fn pods_at(&self, address: IpAddr) -> &[&'a Pod] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }

    fn peer_matches(&self, policy: &Policy, item: &Peer, address: IpAddr) -> bool {
        match item {
            Peer::Block(block) => block.contains(address),
            Peer::Pods { namespaces, pods } => {
                let there = self.pods_at(address);
                !there.is_empty()
                    && there.iter().all(|pod| {
                        let in_namespace = match namespaces {
                            Namespaces::Own => pod.namespace == policy.namespace,
                            Namespaces::Matching(selector) => {
                                selector.matches(&self.cluster.namespace_labels(&pod.namespace))
                            }
                        };
                        in_namespace && pods.matches(&pod.labels)
                    })
            }
        }
    }
}

fn selects(policy: &Policy, pod: &Pod) -> bool {
    pod.is_selectable() && policy.namespace == pod.namespace && policy.subject.matches(&pod.labels)
}

/// Whether the port is meant; a name is looked up in the destination, and every pod that may be it must agree.
fn port_matches(item: &PortMatch, destinations: &[&Pod], probe: Probe) -> bool {
    match item {
        PortMatch::Numbers(protocol, range) => {
            *protocol == probe.protocol && range.contains(probe.port)
        }
        PortMatch::Named(protocol, name) => {
            *protocol == probe.protocol
                && !destinations.is_empty()
                && destinations.iter().all(|pod| {
                    pod.ports.iter().any(|port| {
                        port.name == *name
                            && port.protocol == *protocol
                            && port.number == probe.port
                    })
                })
        }
    }
}
