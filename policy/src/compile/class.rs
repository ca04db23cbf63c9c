//! Classes: endpoints that one direction treats alike, and the flattening of their policies.
//!
//! A class is named after *which* policies select its members, not after what these say: an edited rule or a new identity
//! then changes elements of the class's map and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::Endpoint;
use crate::{
    decision::Decision,
    identity::{AddressBook, Fact, Identity, Term, TermId, Terms},
    model::{Cluster, Direction, ObjectKey, Peer, PortMatch, Rule},
    port::{PortRange, Protocol},
};

/// What makes two endpoints members of one class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ClassKey {
    /// Nothing passes, in either direction.
    Closed,
    /// These policies isolate the endpoint.
    Isolated {
        direction: Direction,
        policies: Vec<ObjectKey>,
        /// For ingress: the numbers the endpoint's pod gives the port names in use. They are its own, so two pods that
        /// give a name different numbers are two classes.
        own_ports: BTreeSet<(Protocol, String, u16)>,
    },
}

/// The class of an endpoint in a direction, or `None` when it is not isolated there.
fn class_of(cluster: &Cluster, endpoint: &Endpoint<'_>, direction: Direction) -> Option<ClassKey> {
    if endpoint.closed {
        return Some(ClassKey::Closed);
    }
    let policies = endpoint.policies(cluster, direction);
    if policies.is_empty() {
        return None;
    }
    let mut own_ports = BTreeSet::new();
    if direction == Direction::Ingress {
        let rules = policies.iter().flat_map(|policy| &policy.ingress);
        for port in rules.flat_map(|rule| rule.ports.iter().flatten()) {
            let PortMatch::Named(protocol, name) = port else {
                continue;
            };
            let declared = endpoint
                .ports
                .iter()
                .filter(|own| own.protocol == *protocol && own.name == *name);
            own_ports.extend(declared.map(|own| (*protocol, name.clone(), own.number)));
        }
    }
    Some(ClassKey::Isolated {
        direction,
        policies: policies.iter().map(|policy| policy.key()).collect(),
        own_ports,
    })
}

/// An endpoint and its classes.
pub(super) struct Member<'a> {
    pub(super) endpoint: Endpoint<'a>,
    ingress: Option<ClassKey>,
    egress: Option<ClassKey>,
}

impl<'a> Member<'a> {
    pub(super) fn new(cluster: &Cluster, endpoint: Endpoint<'a>) -> Self {
        Self {
            ingress: class_of(cluster, &endpoint, Direction::Ingress),
            egress: class_of(cluster, &endpoint, Direction::Egress),
            endpoint,
        }
    }

    /// The class in this direction, or `None` when the endpoint is not isolated there.
    pub(super) fn class(&self, direction: Direction) -> Option<&ClassKey> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

/// Every class that has a member.
pub(super) fn classes(members: &[Member<'_>]) -> BTreeSet<ClassKey> {
    let of = |member| Direction::ALL.map(|direction| Member::class(member, direction).cloned());
    members.iter().flat_map(of).flatten().collect()
}

impl ClassKey {
    fn rules<'c>(&self, cluster: &'c Cluster) -> Vec<(&'c str, &'c Rule)> {
        let Self::Isolated {
            direction,
            policies,
            ..
        } = self
        else {
            return Vec::new();
        };
        let policies = policies.iter().filter_map(|key| cluster.policy(key));
        policies
            .flat_map(|policy| {
                let rules = policy.rules(*direction).iter();
                rules.map(|rule| (policy.namespace.as_str(), rule))
            })
            .collect()
    }
}

/// The questions the rules of these classes ask.
pub(super) fn terms(cluster: &Cluster, classes: &BTreeSet<ClassKey>) -> Terms {
    let mut terms = Terms::default();
    for class in classes {
        let ClassKey::Isolated { direction, .. } = class else {
            continue;
        };
        for (namespace, rule) in class.rules(cluster) {
            for peer in rule.peers.iter().flatten() {
                terms.add(Term::of(peer, namespace));
            }
            // Going out, a port name is the destination's; coming in, it is the subject's and in the class's key.
            if *direction == Direction::Egress {
                for port in rule.ports.iter().flatten() {
                    if let PortMatch::Named(protocol, name) = port {
                        terms.add(Term::Port(*protocol, name.clone()));
                    }
                }
            }
        }
    }
    terms
}

/// A class's flattened policies: what each identity may do.
#[derive(Debug)]
pub(super) struct Class {
    /// For addresses without an identity, and for all identities not listed.
    pub(super) default: Decision,
    /// For the identities for which it differs from the default.
    pub(super) by_identity: BTreeMap<u32, Decision>,
}

impl Class {
    pub(super) fn flatten(
        key: &ClassKey,
        cluster: &Cluster,
        terms: &Terms,
        book: &AddressBook,
    ) -> Self {
        let own_ports = match key {
            ClassKey::Closed => &BTreeSet::new(),
            ClassKey::Isolated { own_ports, .. } => own_ports,
        };
        let egress = matches!(
            key,
            ClassKey::Isolated {
                direction: Direction::Egress,
                ..
            }
        );
        let rules: Vec<FlatRule<'_>> = key
            .rules(cluster)
            .into_iter()
            .map(|(namespace, rule)| FlatRule {
                peers: rule
                    .peers
                    .as_deref()
                    .map(|peers| peer_ids(peers, namespace, terms)),
                ports: rule.ports.as_deref(),
            })
            .collect();
        let names = Names {
            terms,
            own_ports: (!egress).then_some(own_ports),
        };
        let default = decide(&rules, &Identity::new(), &names);
        let mut by_identity = BTreeMap::new();
        for (number, identity) in &book.identities {
            let decision = decide(&rules, identity, &names);
            if decision != default {
                by_identity.insert(*number, decision);
            }
        }
        Self {
            default,
            by_identity,
        }
    }
}

fn peer_ids(peers: &[Peer], namespace: &str, terms: &Terms) -> Vec<TermId> {
    peers
        .iter()
        .filter_map(|peer| terms.id(&Term::of(peer, namespace)))
        .collect()
}

/// A rule with its peers as questions.
struct FlatRule<'c> {
    peers: Option<Vec<TermId>>,
    ports: Option<&'c [PortMatch]>,
}

/// How port names are resolved.
struct Names<'a> {
    terms: &'a Terms,
    /// The subject's own, for ingress; `None` for egress, where the identity of the destination knows.
    own_ports: Option<&'a BTreeSet<(Protocol, String, u16)>>,
}

impl Names<'_> {
    fn numbers(&self, protocol: Protocol, name: &str, identity: &Identity) -> Vec<u16> {
        if let Some(own_ports) = self.own_ports {
            let own = own_ports
                .iter()
                .filter(|(own, called, _)| *own == protocol && called == name);
            return own.map(|(_, _, number)| *number).collect();
        }
        let Some(asked) = self.terms.id(&Term::Port(protocol, name.to_owned())) else {
            return Vec::new();
        };
        let answers = identity.iter().filter_map(|fact| match fact {
            Fact::Port(id, number) if *id == asked => Some(*number),
            _ => None,
        });
        answers.collect()
    }
}

/// The union of what the rules allow this identity.
fn decide(rules: &[FlatRule<'_>], identity: &Identity, names: &Names<'_>) -> Decision {
    let mut decision = Decision::nothing();
    for rule in rules {
        let matches = rule.peers.as_ref().is_none_or(|peers| {
            peers
                .iter()
                .any(|id| identity.contains(&Fact::Matches(*id)))
        });
        if !matches {
            continue;
        }
        match rule.ports {
            None => decision.allow_everything(),
            Some(ports) => ports.iter().for_each(|port| match port {
                PortMatch::Numbers(protocol, range) => decision.allow(*protocol, *range),
                PortMatch::Named(protocol, name) => {
                    for number in names.numbers(*protocol, name, identity) {
                        decision.allow(*protocol, PortRange::single(number));
                    }
                }
            }),
        }
    }
    decision
}
