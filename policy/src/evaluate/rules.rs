//! One question, asked of every rule in turn.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_crds::Selector;
use margay_crds::policy_rule::{Entity, Port, Rule as OwnRule, RuleAction, ServiceAccounts};

use super::{
    Side, Traffic,
    tiers::{AnyPolicy, Asked},
};
use crate::{
    model::{
        Cluster, ClusterPeer, ClusterRule, Direction, NamedPort, Namespaces, ObjectKey, Peer, Pod,
        Policy, PolicyRef, PortMatch, Rule,
    },
    selector::Labels,
};

/// A connection, seen from one of its ends.
pub(super) struct Question<'q> {
    pub(super) cluster: &'q Cluster,
    pub(super) direction: Direction,
    /// The pod that is the subject; none for a host endpoint.
    pub(super) subject: Option<&'q Pod>,
    /// The ports that the subject has names for.
    pub(super) ports: &'q [NamedPort],
    pub(super) subject_address: IpAddr,
    /// The pod that the other end is taken for.
    pub(super) peer: Option<&'q Pod>,
    pub(super) peer_address: IpAddr,
    pub(super) traffic: Traffic,
}

/// Something that selectors of ours can select: a pod, or a network set with the address in it.
struct Thing<'q> {
    namespace: &'q str,
    labels: Labels,
    pod: Option<&'q Pod>,
}

impl Question<'_> {
    /// What the tiers say, and the Log rules met on the way.
    pub(super) fn ask_noting(
        &self,
        tiers: &[Asked<'_>],
        logged: &mut Vec<(PolicyRef, usize)>,
    ) -> Side {
        'tiers: for asked in tiers {
            for (reference, policy) in &asked.policies {
                for (rule, action) in self.matching(policy) {
                    let policy = reference.clone();
                    match action {
                        RuleAction::Allow => return Side::Allowed { policy, rule },
                        RuleAction::Deny => return Side::DeniedByRule { policy, rule },
                        RuleAction::Pass => continue 'tiers,
                        RuleAction::Log => logged.push((policy, rule)),
                    }
                }
            }
            if !asked.tier.passes {
                let isolating = asked.policies.iter();
                let isolating = isolating.map(|(reference, _)| reference.clone()).collect();
                return Side::Denied { isolating };
            }
        }
        Side::NotIsolated
    }

    /// The rules that match, first to last.
    fn matching(&self, policy: &AnyPolicy<'_>) -> Vec<(usize, RuleAction)> {
        match policy {
            AnyPolicy::Kubernetes(policy) => policy
                .rules(self.direction)
                .iter()
                .filter(|rule| self.allowed_by(policy, rule))
                .map(|rule| (rule.index, RuleAction::Allow))
                .collect(),
            AnyPolicy::Cluster(policy) => policy
                .rules(self.direction)
                .iter()
                .filter(|rule| self.matched_by_cluster(rule))
                .map(|rule| (rule.index, rule.action))
                .collect(),
            AnyPolicy::Own(policy) => policy
                .rules(self.direction)
                .unwrap_or_default()
                .iter()
                .filter(|rule| self.matched_by_own(policy.namespace(), rule))
                .map(|rule| (rule.index, rule.action))
                .collect(),
        }
    }

    /// The port names that count: the destination's.
    fn names(&self) -> &[NamedPort] {
        match self.direction {
            Direction::Ingress => self.ports,
            Direction::Egress => self.peer.map_or(&[], |pod| &pod.ports),
        }
    }

    fn port_matches(&self, item: &PortMatch) -> bool {
        let traffic = self.traffic;
        match item {
            PortMatch::Numbers(protocol, range) => {
                protocol.number() == traffic.protocol && range.contains(traffic.destination_port)
            }
            PortMatch::Named(protocol, name) => {
                protocol.number() == traffic.protocol && self.is_called(name)
            }
            PortMatch::AnyNamed(name) => self.is_called(name),
        }
    }

    /// Whether the destination gives its port of this protocol and number this name.
    fn is_called(&self, name: &str) -> bool {
        self.names().iter().any(|port| {
            port.name == name
                && port.protocol.number() == self.traffic.protocol
                && port.number == self.traffic.destination_port
        })
    }

    // ----- networking.k8s.io/v1 -----

    fn allowed_by(&self, policy: &Policy, rule: &Rule) -> bool {
        let peer = rule.peers.as_ref().is_none_or(|items| {
            items.iter().any(|item| match item {
                Peer::Block(block) => block.contains(self.peer_address),
                Peer::Pods { namespaces, pods } => self.peer.is_some_and(|pod| {
                    let in_namespace = match namespaces {
                        Namespaces::Own => pod.namespace == policy.namespace,
                        Namespaces::Matching(selector) => {
                            selector.matches(&self.cluster.namespace_labels(&pod.namespace))
                        }
                    };
                    in_namespace && pods.matches(&pod.labels)
                }),
            })
        });
        let port = |items: &Vec<PortMatch>| items.iter().any(|item| self.port_matches(item));
        peer && rule.ports.as_ref().is_none_or(port)
    }

    // ----- policy.networking.k8s.io/v1alpha2 -----

    fn matched_by_cluster(&self, rule: &ClusterRule) -> bool {
        let peer = rule.peers.iter().any(|peer| match peer {
            ClusterPeer::Everyone => true,
            ClusterPeer::Network(network) => network.contains(self.peer_address),
            ClusterPeer::Pods(pods) => self.peer.is_some_and(|pod| {
                pods.matches(&self.cluster.namespace_labels(&pod.namespace), &pod.labels)
            }),
        });
        let port = |items: &Vec<PortMatch>| items.iter().any(|item| self.port_matches(item));
        peer && rule.ports.as_ref().is_none_or(port)
    }

    // ----- margay.dev/v1 -----

    fn matched_by_own(&self, namespace: Option<&str>, rule: &OwnRule) -> bool {
        let ((source, from), (destination, to)) = match self.direction {
            Direction::Ingress => (
                (self.peer, self.peer_address),
                (self.subject, self.subject_address),
            ),
            Direction::Egress => (
                (self.subject, self.subject_address),
                (self.peer, self.peer_address),
            ),
        };
        self.protocol_matches(rule)
            && self.entity_matches(&rule.source, namespace, source, from)
            && self.entity_matches(&rule.destination, namespace, destination, to)
            && self.ports_match(&rule.source, self.traffic.source_port)
            && self.ports_match(&rule.destination, self.traffic.destination_port)
            && self.service_port_matches(&rule.destination, namespace)
    }

    fn protocol_matches(&self, rule: &OwnRule) -> bool {
        let traffic = self.traffic;
        let icmp = |(type_, code): (u8, Option<u8>)| {
            traffic.icmp.0 == type_ && code.is_none_or(|code| traffic.icmp.1 == code)
        };
        rule.ipv6.is_none_or(|v6| v6 == self.peer_address.is_ipv6())
            && rule
                .protocol
                .is_none_or(|number| number == traffic.protocol)
            && rule
                .not_protocol
                .is_none_or(|number| number != traffic.protocol)
            && rule.icmp.is_none_or(icmp)
            && rule.not_icmp.is_none_or(|not| !icmp(not))
    }

    fn ports_match(&self, entity: &Entity, number: u16) -> bool {
        let is = |port: &Port| match port {
            Port::Range(first, last) => (*first..=*last).contains(&number),
            Port::Named(name) => self.is_called(name),
        };
        let listed = entity
            .ports
            .as_ref()
            .is_none_or(|ports| ports.iter().any(is));
        listed && !entity.not_ports.iter().any(is)
    }

    fn service_of<'e>(entity: &'e Entity, namespace: Option<&'e str>) -> Option<ObjectKey> {
        let (given, name) = entity.service.as_ref()?;
        let namespace = given.as_deref().or(namespace).unwrap_or_default();
        Some(ObjectKey::new(namespace, name))
    }

    /// A Service as a destination brings its ports.
    fn service_port_matches(&self, destination: &Entity, namespace: Option<&str>) -> bool {
        let Some(service) = Self::service_of(destination, namespace) else {
            return true;
        };
        let mut endpoints = self.cluster.endpoints(&service);
        endpoints.any(|endpoint| {
            endpoint.address == self.peer_address
                && endpoint.ports.iter().any(|(protocol, range)| {
                    protocol.number() == self.traffic.protocol
                        && range.contains(self.traffic.destination_port)
                })
        })
    }

    fn entity_matches(
        &self,
        entity: &Entity,
        namespace: Option<&str>,
        pod: Option<&Pod>,
        address: IpAddr,
    ) -> bool {
        let inside = |nets: &[IpNetwork]| nets.iter().any(|net| net.contains(address));
        if entity.nets.as_ref().is_some_and(|nets| !inside(nets)) || inside(&entity.not_nets) {
            return false;
        }
        if let Some(service) = Self::service_of(entity, namespace) {
            let mut endpoints = self.cluster.endpoints(&service);
            if !endpoints.any(|endpoint| endpoint.address == address) {
                return false;
            }
        }
        let things = self.things(pod, address);
        let labelled = entity.selector.is_some()
            || entity.namespaces.is_some()
            || entity.service_accounts.is_some();
        if labelled
            && !things
                .iter()
                .any(|thing| self.is_meant(entity, namespace, thing))
        {
            return false;
        }
        let not = |selector: &Selector| things.iter().any(|thing| selector.matches(&thing.labels));
        !entity.not_selector.as_ref().is_some_and(not)
    }

    fn things<'q>(&'q self, pod: Option<&'q Pod>, address: IpAddr) -> Vec<Thing<'q>> {
        let sets = self.cluster.network_sets();
        let around = sets.filter(|(_, set)| set.nets.iter().any(|net| net.contains(address)));
        let mut things: Vec<Thing<'q>> = around
            .map(|(key, set)| Thing {
                namespace: &key.namespace,
                labels: self.cluster.set_labels(key, set),
                pod: None,
            })
            .collect();
        things.extend(pod.map(|pod| Thing {
            namespace: &pod.namespace,
            labels: self.cluster.pod_labels(pod),
            pod: Some(pod),
        }));
        things
    }

    fn is_meant(&self, entity: &Entity, namespace: Option<&str>, thing: &Thing<'_>) -> bool {
        let is_global = thing.namespace.is_empty();
        let in_scope = match (&entity.namespaces, namespace) {
            (Some(selector), _) if selector.is_global() => is_global,
            (Some(selector), _) => {
                !is_global && selector.matches(&self.cluster.own_namespace_labels(thing.namespace))
            }
            (None, Some(own)) => thing.namespace == own,
            (None, None) => true,
        };
        let by_labels = entity
            .selector
            .as_ref()
            .is_none_or(|selector| selector.matches(&thing.labels));
        let by_account = entity
            .service_accounts
            .as_ref()
            .is_none_or(|accounts| self.has_account(accounts, thing));
        in_scope && by_labels && by_account
    }

    fn has_account(&self, accounts: &ServiceAccounts, thing: &Thing<'_>) -> bool {
        thing.pod.is_some_and(|pod| {
            let by_name =
                accounts.names.is_empty() || accounts.names.contains(&pod.service_account);
            let by_labels = accounts.selector.as_ref().is_none_or(|selector| {
                let none = Labels::new();
                let labels = self
                    .cluster
                    .service_account_labels(&pod.namespace, &pod.service_account);
                selector.matches(labels.unwrap_or(&none))
            });
            by_name && by_labels
        })
    }
}
