//! Classes: endpoints that one direction treats alike, and the flattening of their policies.
//!
//! A class is named after *which* policies select its members, not after what these say: an edited rule or a new identity
//! then changes elements of the class's map and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use margay_crds::policy_rule::RuleAction;

use super::{
    Endpoint,
    flat::{Flat, OwnPorts},
    lower::{self, Lowered},
    select::{Selected, by_tier},
};
use crate::{
    decision::Decision,
    identity::{AddressBook, Fact, Facts, Identity, Term, TermId, Terms},
    model::{Cluster, Direction, NamedPort, PolicyRef},
    port::Protocol,
    ruleset::Family,
};

/// A policy, a rule's place in it, and a family.
type SubjectFact = (PolicyRef, usize, Family);

/// What makes two endpoints members of one class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ClassKey {
    /// Nothing passes, in either direction.
    Closed,
    /// These policies decide about the endpoint.
    Isolated {
        direction: Direction,
        /// In the order in which they are asked.
        policies: Vec<PolicyRef>,
        /// For ingress: the numbers the endpoint's pod gives the port names in use. They are its own, so two pods that
        /// give a name different numbers are two classes.
        own_ports: OwnPorts,
        /// Of the rules that ask something about the subject: those for which it holds, by the family of its address.
        subject: BTreeSet<SubjectFact>,
    },
}

impl ClassKey {
    /// The direction it is about. What is closed lets nothing on, so that either would do.
    pub(crate) fn direction(&self) -> Direction {
        match self {
            Self::Closed => Direction::Ingress,
            Self::Isolated { direction, .. } => *direction,
        }
    }
}

/// An endpoint and its classes.
pub(super) struct Member<'a> {
    pub(super) endpoint: Endpoint<'a>,
    ingress: Option<ClassKey>,
    egress: Option<ClassKey>,
}

impl Member<'_> {
    /// The class in this direction, or `None` when no policy decides about the endpoint there.
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

/// A class's flattened policies: what each identity may do.
#[derive(Debug)]
pub(super) struct Class {
    /// For addresses without an identity, and for all identities not listed.
    pub(super) default: Decision,
    /// For the identities for which it differs from the default.
    pub(super) by_identity: BTreeMap<u32, Decision>,
}

/// A policy's rules for a direction, and the questions they ask.
#[derive(Debug)]
pub(crate) struct PolicyRules {
    pub(crate) rules: Vec<Arc<Lowered>>,
    /// Each as often as it is asked.
    pub(crate) terms: Vec<TermId>,
}

impl PolicyRules {
    /// Puts the policy's questions in force. [`Self::release`] takes them back.
    pub(crate) fn new(
        cluster: &Cluster,
        policy: &PolicyRef,
        direction: Direction,
        terms: &mut Terms,
    ) -> Self {
        let rules = lower::rules(cluster, policy, direction);
        let mut asked = Vec::new();
        for rule in &rules {
            for (_, term) in rule.peer.iter().chain(&rule.subject).flatten() {
                asked.push(terms.add(term.clone()));
            }
            // Going out, a port name is the destination's; coming in, it is the subject's and in the class's key.
            if direction == Direction::Egress {
                for (protocol, name) in rule.names() {
                    for candidate in Protocol::ALL {
                        if protocol.is_none_or(|protocol| protocol == candidate) {
                            asked.push(terms.add(Term::Port(candidate, name.to_owned())));
                        }
                    }
                }
            }
        }
        Self {
            rules: rules.into_iter().map(Arc::new).collect(),
            terms: asked,
        }
    }

    /// Takes the policy's questions back.
    pub(crate) fn release(self, terms: &mut Terms) {
        for id in self.terms {
            terms.release(id);
        }
    }
}

/// The policies that select an endpoint here, and the questions their rules ask.
pub(super) struct InForce<'c> {
    cluster: &'c Cluster,
    terms: Terms,
    rules: BTreeMap<(PolicyRef, Direction), PolicyRules>,
}

impl<'c> InForce<'c> {
    pub(super) fn new(cluster: &'c Cluster, endpoints: &[Selected<'_>]) -> Self {
        let mut in_force = Self {
            cluster,
            terms: Terms::default(),
            rules: BTreeMap::new(),
        };
        for endpoint in endpoints {
            for direction in Direction::ALL {
                for policy in endpoint.policies(direction) {
                    in_force.add(policy, direction);
                }
            }
        }
        in_force
    }

    fn add(&mut self, policy: &PolicyRef, direction: Direction) {
        let terms = &mut self.terms;
        self.rules
            .entry((policy.clone(), direction))
            .or_insert_with(|| PolicyRules::new(self.cluster, policy, direction, terms));
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    fn rules(&self, policy: &PolicyRef, direction: Direction) -> &[Arc<Lowered>] {
        let rules = self.rules.get(&(policy.clone(), direction));
        rules.map_or(&[], |policy| policy.rules.as_slice())
    }

    /// The classes of an endpoint.
    pub(super) fn classify<'a>(&self, selected: Selected<'a>, book: &AddressBook) -> Member<'a> {
        let class = |direction| self.class_of(&selected, direction, book);
        let (ingress, egress) = (class(Direction::Ingress), class(Direction::Egress));
        Member {
            endpoint: selected.endpoint,
            ingress,
            egress,
        }
    }

    fn class_of(
        &self,
        selected: &Selected<'_>,
        direction: Direction,
        book: &AddressBook,
    ) -> Option<ClassKey> {
        let endpoint = &selected.endpoint;
        if endpoint.closed {
            return Some(ClassKey::Closed);
        }
        let policies = selected.policies(direction);
        if policies.is_empty() {
            return None;
        }
        let mut own_ports = BTreeSet::new();
        let mut subject = BTreeSet::new();
        for policy in policies {
            for rule in self.rules(policy, direction) {
                if direction == Direction::Ingress {
                    own_ports.extend(declared(rule, endpoint.ports));
                }
                if !rule.subject.is_empty() {
                    let holding = Family::ALL.into_iter().filter(|family| {
                        let addresses = endpoint.addresses.iter();
                        let addresses = addresses.filter(|one| Family::of(**one) == *family);
                        holds(rule, &self.terms, addresses.map(|one| book.identity(*one)))
                    });
                    subject.extend(holding.map(|family| (policy.clone(), rule.index, family)));
                }
            }
        }
        Some(ClassKey::Isolated {
            direction,
            policies: policies.to_vec(),
            own_ports,
            subject,
        })
    }

    /// What the class's policies come to.
    pub(super) fn flatten(
        &self,
        key: &ClassKey,
        book: &AddressBook,
        index: &BTreeMap<TermId, BTreeSet<u32>>,
    ) -> Class {
        let rules = |policy: &PolicyRef, direction| self.rules(policy, direction);
        let Some(mut flat) = flat(self.cluster, &self.terms, key, rules) else {
            return Class {
                default: Decision::nothing(),
                by_identity: BTreeMap::new(),
            };
        };
        let default = flat.decide(&Identity::nothing(), &self.terms);
        let concerned: BTreeSet<u32> = flat
            .terms()
            .iter()
            .flat_map(|term| index.get(term).into_iter().flatten())
            .copied()
            .collect();
        let mut by_identity = BTreeMap::new();
        for number in concerned {
            let Some(identity) = book.identities.get(&number) else {
                continue;
            };
            let decision = flat.decide(identity, &self.terms);
            if decision != default {
                by_identity.insert(number, (*decision).clone());
            }
        }
        Class {
            default: (*default).clone(),
            by_identity,
        }
    }
}

/// The policies of a class, ready to be asked; none for the class of what is closed.
pub(crate) fn flat<'r>(
    cluster: &Cluster,
    terms: &Terms,
    key: &ClassKey,
    rules: impl Fn(&PolicyRef, Direction) -> &'r [Arc<Lowered>],
) -> Option<Flat> {
    let ClassKey::Isolated {
        direction,
        policies,
        own_ports,
        subject,
    } = key
    else {
        return None;
    };
    let mut flat = Flat::new(*direction, own_ports.clone());
    for (tier, policies) in by_tier(cluster, policies) {
        flat.add_tier(tier.passes);
        for policy in policies {
            let own = cluster.own_policy(policy);
            let staged = own.is_some_and(|own| own.staged);
            let rules = rules(policy, *direction);
            flat.add_policy(policy, staged, rules, terms, |rule, family| {
                subject.contains(&(policy.clone(), rule, family))
            });
        }
    }
    flat.finish();
    Some(flat)
}

/// Of the ports a subject declares, those that the rule names.
pub(crate) fn declared(
    rule: &Lowered,
    ports: &[NamedPort],
) -> impl Iterator<Item = (Protocol, String, u16)> {
    let named = rule.names().into_iter().flat_map(move |(protocol, name)| {
        let declared = ports.iter().filter(move |own| {
            own.name == name && protocol.is_none_or(|wanted| wanted == own.protocol)
        });
        declared.map(|own| (own.protocol, own.name.clone(), own.number))
    });
    named.collect::<Vec<_>>().into_iter()
}

/// Whether what the rule asks about the subject holds at its addresses, of which these are the identities. Where it holds
/// at some of several, only a rule that denies is taken to hold.
pub(crate) fn holds<'i>(
    rule: &Lowered,
    terms: &Terms,
    identities: impl Iterator<Item = Option<&'i Identity>>,
) -> bool {
    let nothing = Identity::nothing();
    let mut answers = identities
        .map(|identity| {
            let mut alternatives = identity.unwrap_or(&nothing).alternatives();
            alternatives.all(|facts| hold(&rule.subject, terms, facts))
        })
        .peekable();
    if answers.peek().is_none() {
        return false;
    }
    match rule.action {
        RuleAction::Deny => answers.any(|answer| answer),
        RuleAction::Allow | RuleAction::Pass | RuleAction::Log => answers.all(|answer| answer),
    }
}

fn hold(clauses: &[lower::Clause], terms: &Terms, facts: &Facts) -> bool {
    clauses.iter().all(|clause| {
        clause.iter().any(|(wanted, term)| {
            let id = terms.id(term);
            id.is_some_and(|id| facts.contains(&Fact::Matches(id))) == *wanted
        })
    })
}
