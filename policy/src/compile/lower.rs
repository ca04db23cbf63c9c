//! The rules of every kind in one form: what they ask about the peer and the subject, as questions of [`Term`], and
//! which traffic they are about.

use std::collections::BTreeSet;

use margay_crds::Selector;
use margay_crds::policy_rule::{Entity, Port, Rule as OwnRule, RuleAction};

use crate::{
    identity::{Fact, Facts, NamespaceScope, Term, Terms},
    model::{
        Cluster, ClusterPeer, ClusterPods, ClusterRule, Direction, IpBlock, NAMESPACE_PREFIX,
        ObjectKey, PolicyKind, PolicyRef, PortMatch, Rule, SERVICE_ACCOUNT_KEY,
        SERVICE_ACCOUNT_PREFIX,
    },
    port::{PortRange, Protocol},
    region::{Area, Plane, Region},
    ruleset::Family,
};
use margay_crds::selector::NAMESPACE_KEY;

/// A question, or its opposite.
pub(crate) type Literal = (bool, Term);

/// Holds when one of its literals holds.
pub(crate) type Clause = Vec<Literal>;

/// A rule of any kind.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// Its place in its list.
    pub(crate) index: usize,
    pub(super) action: RuleAction,
    /// What must hold of the peer.
    pub(super) peer: Vec<Clause>,
    /// What must hold of the subject.
    pub(crate) subject: Vec<Clause>,
    pub(super) traffic: Traffic,
    /// The Service whose endpoints' ports bound the traffic.
    pub(super) serves: Option<ObjectKey>,
}

/// Which traffic a rule is about.
#[derive(Debug)]
pub(super) enum Traffic {
    /// Any of these ports; `None` is everything.
    Ports(Option<Vec<PortMatch>>),
    /// What the rule says.
    Own(Box<OwnRule>),
}

/// The rules of a policy for a direction, in order.
pub(crate) fn rules(cluster: &Cluster, policy: &PolicyRef, direction: Direction) -> Vec<Lowered> {
    match policy.kind {
        PolicyKind::NetworkPolicy => {
            let key = ObjectKey::new(&policy.namespace, &policy.name);
            let rules = cluster.policy(&key).map(|policy| policy.rules(direction));
            let rules = rules.unwrap_or_default().iter();
            rules
                .map(|rule| kubernetes(rule, &policy.namespace))
                .collect()
        }
        PolicyKind::ClusterNetworkPolicy => {
            let policy = cluster.cluster_policy(&policy.name);
            let rules = policy.map(|policy| policy.rules(direction));
            rules.unwrap_or_default().iter().map(cluster_wide).collect()
        }
        PolicyKind::OwnNetworkPolicy | PolicyKind::GlobalNetworkPolicy => {
            let Some(policy) = cluster.own_policy(policy) else {
                return Vec::new();
            };
            let rules = policy.rules(direction).unwrap_or_default().iter();
            rules
                .map(|rule| own(rule, policy.namespace(), direction))
                .collect()
        }
    }
}

fn kubernetes(rule: &Rule, namespace: &str) -> Lowered {
    let items = |peers: &Vec<_>| {
        let items = peers.iter();
        items
            .map(|peer| (true, Term::of(peer, namespace)))
            .collect()
    };
    Lowered {
        index: rule.index,
        action: RuleAction::Allow,
        peer: rule.peers.as_ref().map(items).into_iter().collect(),
        subject: Vec::new(),
        traffic: Traffic::Ports(rule.ports.clone()),
        serves: None,
    }
}

fn block(cidr: ipnetwork::IpNetwork) -> Term {
    Term::Block(IpBlock {
        cidr,
        except: Vec::new(),
    })
}

fn cluster_wide(rule: &ClusterRule) -> Lowered {
    let everyone = rule.peers.contains(&ClusterPeer::Everyone);
    let peers = rule.peers.iter().filter_map(|peer| match peer {
        ClusterPeer::Everyone => None,
        ClusterPeer::Network(network) => Some((true, block(*network))),
        ClusterPeer::Pods(ClusterPods { namespaces, pods }) => {
            let scope = NamespaceScope::Matching(namespaces.clone());
            Some((true, Term::Pods(scope, pods.clone())))
        }
    });
    Lowered {
        index: rule.index,
        action: rule.action,
        peer: if everyone {
            Vec::new()
        } else {
            vec![peers.collect()]
        },
        subject: Vec::new(),
        traffic: Traffic::Ports(rule.ports.clone()),
        serves: None,
    }
}

fn own(rule: &OwnRule, namespace: Option<&str>, direction: Direction) -> Lowered {
    let (source, destination) = (
        entity(&rule.source, namespace),
        entity(&rule.destination, namespace),
    );
    let (peer, subject) = match direction {
        Direction::Ingress => (source, destination),
        Direction::Egress => (destination, source),
    };
    Lowered {
        index: rule.index,
        action: rule.action,
        peer,
        subject,
        traffic: Traffic::Own(Box::new(rule.clone())),
        serves: service(&rule.destination, namespace),
    }
}

/// What an entity asks about an end, beside its ports.
fn entity(entity: &Entity, namespace: Option<&str>) -> Vec<Clause> {
    let mut clauses = Vec::new();
    if let Some(nets) = &entity.nets {
        clauses.push(nets.iter().map(|net| (true, block(*net))).collect());
    }
    clauses.extend(entity.not_nets.iter().map(|net| vec![(false, block(*net))]));
    clauses.extend(
        workloads(entity, namespace).map(|selector| vec![(true, Term::Workloads(selector))]),
    );
    let not = entity.not_selector.clone();
    clauses.extend(not.map(|selector| vec![(false, Term::Workloads(selector))]));
    clauses.extend(service(entity, namespace).map(|key| vec![(true, Term::Service(key))]));
    clauses
}

fn service(entity: &Entity, namespace: Option<&str>) -> Option<ObjectKey> {
    let (given, name) = entity.service.as_ref()?;
    let namespace = given.as_deref().or(namespace).unwrap_or_default();
    Some(ObjectKey::new(namespace, name))
}

/// The labels an entity asks for, as one selector over labels with their surroundings.
fn workloads(entity: &Entity, namespace: Option<&str>) -> Option<Selector> {
    let accounts = entity.service_accounts.as_ref();
    if entity.selector.is_none() && entity.namespaces.is_none() && accounts.is_none() {
        return None;
    }
    let is_in = |key: &str, values: &[String]| {
        Selector::any_of(key, values.iter().cloned().collect::<BTreeSet<_>>())
    };
    let mut parts = Vec::new();
    match (&entity.namespaces, namespace) {
        (Some(selector), _) if selector.is_global() => parts.push(selector.clone()),
        (Some(selector), _) => {
            parts.push(Selector::has(NAMESPACE_KEY));
            parts.push(selector.prefixed(NAMESPACE_PREFIX));
        }
        (None, Some(own)) => parts.push(is_in(NAMESPACE_KEY, &[own.to_owned()])),
        (None, None) => {}
    }
    parts.extend(entity.selector.clone());
    if let Some(accounts) = accounts {
        parts.push(Selector::has(SERVICE_ACCOUNT_KEY));
        if !accounts.names.is_empty() {
            parts.push(is_in(SERVICE_ACCOUNT_KEY, &accounts.names));
        }
        let by_labels = accounts.selector.as_ref();
        parts.extend(by_labels.map(|selector| selector.prefixed(SERVICE_ACCOUNT_PREFIX)));
    }
    Some(Selector::all_of(parts))
}

/// A port name, and its protocol where the rule says one.
pub(crate) type PortName<'c> = (Option<Protocol>, &'c str);

impl Lowered {
    /// The port names it uses.
    pub(crate) fn names(&self) -> Vec<PortName<'_>> {
        match &self.traffic {
            Traffic::Ports(ports) => {
                let ports = ports.iter().flatten();
                let named = ports.filter_map(|port| match port {
                    PortMatch::Numbers(..) => None,
                    PortMatch::Named(protocol, name) => Some((Some(*protocol), name.as_str())),
                    PortMatch::AnyNamed(name) => Some((None, name.as_str())),
                });
                named.collect()
            }
            Traffic::Own(rule) => {
                let protocol = rule.protocol.and_then(Protocol::of);
                let destination = &rule.destination;
                let ports = destination
                    .ports
                    .iter()
                    .flatten()
                    .chain(&destination.not_ports);
                let named = ports.filter_map(|port| match port {
                    Port::Range(..) => None,
                    Port::Named(name) => Some((protocol, name.as_str())),
                });
                named.collect()
            }
        }
    }

    /// The ports that are all it says about its traffic, if they are.
    pub(crate) fn ports(&self) -> Option<&Option<Vec<PortMatch>>> {
        match &self.traffic {
            Traffic::Ports(ports) => Some(ports),
            Traffic::Own(_) => None,
        }
    }

    /// Whether its traffic depends on who the destination is.
    pub(crate) fn depends_on_peer(&self, direction: Direction) -> bool {
        direction == Direction::Egress && (self.serves.is_some() || !self.names().is_empty())
    }

    /// The traffic it is about. `numbers` resolves port names.
    pub(crate) fn region(&self, destination: &Destination<'_>) -> Region {
        let region = self.region_of_ports(destination);
        match &self.serves {
            Some(service) => region.and(&destination.served(service)),
            None => region,
        }
    }

    fn region_of_ports(&self, destination: &Destination<'_>) -> Region {
        match &self.traffic {
            Traffic::Ports(None) => Region::everything(),
            Traffic::Ports(Some(ports)) => {
                let regions: Vec<Region> = ports
                    .iter()
                    .map(|port| match port {
                        PortMatch::Numbers(protocol, range) => Region::ports(*protocol, &[*range]),
                        PortMatch::Named(protocol, name) => {
                            destination.called(Some(*protocol), name)
                        }
                        PortMatch::AnyNamed(name) => destination.called(None, name),
                    })
                    .collect();
                Region::union(&regions)
            }
            Traffic::Own(rule) => own_region(rule, destination),
        }
    }
}

/// Who a connection goes to, as far as ports are concerned.
pub(crate) enum Destination<'a> {
    /// The subject, which gives its ports these names.
    Subject(&'a BTreeSet<(Protocol, String, u16)>),
    /// The peer, of which this is known.
    Peer(&'a Terms, &'a Facts),
}

impl Destination<'_> {
    fn called(&self, protocol: Option<Protocol>, name: &str) -> Region {
        let mut region = Region::nothing();
        for candidate in Protocol::ALL {
            if protocol.is_some_and(|protocol| protocol != candidate) {
                continue;
            }
            let ranges: Vec<PortRange> = match self {
                Self::Subject(own) => {
                    let own = own.iter();
                    own.filter(|(own, called, _)| *own == candidate && called == name)
                        .map(|(_, _, number)| PortRange::single(*number))
                        .collect()
                }
                Self::Peer(terms, facts) => {
                    let asked = terms.id(&Term::Port(candidate, name.to_owned()));
                    let answers = facts.iter().filter_map(|fact| match fact {
                        Fact::Port(id, number) if Some(*id) == asked => {
                            Some(PortRange::single(*number))
                        }
                        _ => None,
                    });
                    answers.collect()
                }
            };
            region = region.or(&Region::ports(candidate, &ranges));
        }
        region
    }

    /// What the peer serves as an endpoint of a Service.
    fn served(&self, service: &ObjectKey) -> Region {
        let Self::Peer(terms, facts) = self else {
            return Region::nothing();
        };
        let asked = terms.id(&Term::Service(service.clone()));
        facts
            .iter()
            .fold(Region::nothing(), |all, fact| match fact {
                Fact::Serves(id, protocol, range) if Some(*id) == asked => {
                    all.or(&Region::ports(*protocol, &[*range]))
                }
                _ => all,
            })
    }
}

fn own_region(rule: &OwnRule, destination: &Destination<'_>) -> Region {
    let mut region = rule.protocol.map_or_else(Region::everything, protocol);
    if let Some(not) = rule.not_protocol {
        region = region.without(&protocol(not));
    }
    let plane = rule.protocol.map_or(Plane::Other, Plane::of);
    if let Some(matched) = rule.icmp {
        region = region.and(&icmp(plane, matched));
    }
    if let Some(not) = rule.not_icmp {
        region = region.without(&icmp(plane, not));
    }
    if let Some(v6) = rule.ipv6 {
        region = region.in_family(if v6 { Family::V6 } else { Family::V4 });
    }
    let protocol = rule.protocol.and_then(Protocol::of);
    if let Some(protocol) = protocol {
        let (from, to) = (&rule.source, &rule.destination);
        if let Some(ports) = &from.ports {
            region = region.and(&sources(protocol, ports));
        }
        region = region.without(&sources(protocol, &from.not_ports));
        if let Some(ports) = &to.ports {
            region = region.and(&destinations(protocol, ports, destination));
        }
        region = region.without(&destinations(protocol, &to.not_ports, destination));
    }
    region
}

fn protocol(number: u8) -> Region {
    let plane = Plane::of(number);
    let area = match plane {
        Plane::Other => Area::of(PortRange::ALL, &[PortRange::single(number.into())]),
        plane => plane.whole(),
    };
    Region::of([(plane, area)])
}

fn icmp(plane: Plane, (type_, code): (u8, Option<u8>)) -> Region {
    let value = |code: u8| u16::from_be_bytes([type_, code]);
    let range = match code {
        Some(code) => PortRange::single(value(code)),
        None => PortRange::between(value(0), value(u8::MAX)),
    };
    Region::of([(plane, Area::of(PortRange::ALL, &[range]))])
}

fn sources(protocol: Protocol, ports: &[Port]) -> Region {
    let areas = ports.iter().filter_map(|port| match port {
        Port::Range(first, last) => {
            let area = Area::of(PortRange::between(*first, *last), &[PortRange::ALL]);
            Some((Plane::of(protocol.number()), area))
        }
        Port::Named(_) => None,
    });
    Region::of(areas)
}

fn destinations(protocol: Protocol, ports: &[Port], destination: &Destination<'_>) -> Region {
    let regions: Vec<Region> = ports
        .iter()
        .map(|port| match port {
            Port::Range(first, last) => {
                Region::ports(protocol, &[PortRange::between(*first, *last)])
            }
            Port::Named(name) => destination.called(Some(protocol), name),
        })
        .collect();
    Region::union(&regions)
}
