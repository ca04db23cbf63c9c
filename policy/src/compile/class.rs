//! Classes: endpoints that one direction treats alike, and the flattening of their policies.
//!
//! A class is named after *which* policies select its members, not after what these say: an edited rule or a new identity
//! then changes elements of the class's map and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use margay_crds::policy_rule::RuleAction;

use super::{
    Endpoint,
    lower::{self, Destination, Lowered},
    select::{Selected, by_tier},
};
use crate::{
    decision::{self, Decision},
    identity::{AddressBook, Fact, Facts, Identity, Term, TermId, Terms},
    model::{Cluster, Direction, PolicyRef},
    origin::RuleId,
    port::Protocol,
    region::Region,
    ruleset::Family,
};

/// A policy, a rule's place in it, and a family.
type SubjectFact = (PolicyRef, usize, Family);

/// What makes two endpoints members of one class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ClassKey {
    /// Nothing passes, in either direction.
    Closed,
    /// These policies decide about the endpoint.
    Isolated {
        direction: Direction,
        /// In the order in which they are asked.
        policies: Vec<PolicyRef>,
        /// For ingress: the numbers the endpoint's pod gives the port names in use. They are its own, so two pods that
        /// give a name different numbers are two classes.
        own_ports: BTreeSet<(Protocol, String, u16)>,
        /// Of the rules that ask something about the subject: those for which it holds, by the family of its address.
        subject: BTreeSet<SubjectFact>,
    },
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

/// The policies that select an endpoint here, and the questions their rules ask.
pub(super) struct InForce<'c> {
    cluster: &'c Cluster,
    terms: Terms,
    rules: BTreeMap<(PolicyRef, Direction), Vec<Lowered<'c>>>,
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
        let key = (policy.clone(), direction);
        if self.rules.contains_key(&key) {
            return;
        }
        let rules = lower::rules(self.cluster, policy, direction);
        for rule in &rules {
            for (_, term) in rule.peer.iter().chain(&rule.subject).flatten() {
                self.terms.add(term.clone());
            }
            // Going out, a port name is the destination's; coming in, it is the subject's and in the class's key.
            if direction == Direction::Egress {
                for (protocol, name) in rule.names() {
                    for candidate in Protocol::ALL {
                        if protocol.is_none_or(|protocol| protocol == candidate) {
                            self.terms.add(Term::Port(candidate, name.to_owned()));
                        }
                    }
                }
            }
        }
        self.rules.insert(key, rules);
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    fn rules(&self, policy: &PolicyRef, direction: Direction) -> &[Lowered<'c>] {
        let rules = self.rules.get(&(policy.clone(), direction));
        rules.map_or(&[], Vec::as_slice)
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
                    for (protocol, name) in rule.names() {
                        let declared = endpoint.ports.iter().filter(|own| {
                            own.name == name && protocol.is_none_or(|wanted| wanted == own.protocol)
                        });
                        own_ports.extend(
                            declared.map(|own| (own.protocol, own.name.clone(), own.number)),
                        );
                    }
                }
                if !rule.subject.is_empty() {
                    let families = Family::ALL.into_iter();
                    let holding =
                        families.filter(|family| self.holds_of(endpoint, rule, *family, book));
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

    /// Whether what the rule asks about the subject holds at the endpoint's addresses of this family. Where it holds at
    /// some of several, only a rule that denies is taken to hold.
    fn holds_of(
        &self,
        endpoint: &Endpoint<'_>,
        rule: &Lowered<'_>,
        family: Family,
        book: &AddressBook,
    ) -> bool {
        let addresses = endpoint.addresses.iter();
        let mut answers = addresses
            .filter(|address| Family::of(**address) == family)
            .map(|address| {
                let number = book.identity_of(*address);
                let known = book.identities.get(&number);
                let nothing = Identity::nothing();
                let mut alternatives = known.unwrap_or(&nothing).alternatives();
                alternatives.all(|facts| self.hold(&rule.subject, facts))
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

    fn hold(&self, clauses: &[lower::Clause], facts: &Facts) -> bool {
        clauses.iter().all(|clause| {
            clause.iter().any(|(wanted, term)| {
                let id = self.terms.id(term);
                id.is_some_and(|id| facts.contains(&Fact::Matches(id))) == *wanted
            })
        })
    }

    /// What the class's policies come to.
    pub(super) fn flatten(
        &self,
        key: &ClassKey,
        book: &AddressBook,
        index: &BTreeMap<TermId, BTreeSet<u32>>,
    ) -> Class {
        let Some(mut flat) = Flat::new(self, key) else {
            return Class {
                default: Decision::nothing(),
                by_identity: BTreeMap::new(),
            };
        };
        let default = flat.decide(&Identity::nothing());
        let concerned: BTreeSet<u32> = flat
            .terms
            .iter()
            .flat_map(|term| index.get(term).into_iter().flatten())
            .copied()
            .collect();
        let mut by_identity = BTreeMap::new();
        for number in concerned {
            let Some(identity) = book.identities.get(&number) else {
                continue;
            };
            let decision = flat.decide(identity);
            if decision != default {
                by_identity.insert(number, decision);
            }
        }
        Class {
            default,
            by_identity,
        }
    }
}

/// A clause whose terms have their numbers.
type NumberedClause = Vec<(bool, TermId)>;

/// A rule of a class, as far as it can be prepared without a peer.
struct FlatRule<'f, 'c> {
    id: RuleId,
    rule: &'f Lowered<'c>,
    peer: Vec<NumberedClause>,
    /// Bounds the traffic to the families of which the rule holds for the subject.
    families: Option<Region>,
    /// The traffic, unless it depends on the peer.
    region: Option<Region>,
}

/// A policy of a class.
struct FlatPolicy<'f, 'c> {
    staged: bool,
    /// What is behind the end of its tier.
    end: RuleId,
    rules: Vec<FlatRule<'f, 'c>>,
}

/// A class's policies, ready to be asked about identities.
struct Flat<'f, 'c> {
    all_terms: &'f Terms,
    /// By tier: whether it passes at its end, and its policies.
    tiers: Vec<(bool, Vec<FlatPolicy<'f, 'c>>)>,
    has_staged: bool,
    /// Every question the peers are asked.
    terms: BTreeSet<TermId>,
    /// Decisions by what they depend on: the facts among `terms`.
    known: BTreeMap<Facts, Decision>,
}

impl<'f, 'c> Flat<'f, 'c> {
    fn new(in_force: &'f InForce<'c>, key: &'f ClassKey) -> Option<Self> {
        let ClassKey::Isolated {
            direction,
            policies,
            own_ports,
            subject,
        } = key
        else {
            return None;
        };
        let mut flat = Self {
            all_terms: &in_force.terms,
            tiers: Vec::new(),
            has_staged: false,
            terms: BTreeSet::new(),
            known: BTreeMap::new(),
        };
        for (tier, policies) in by_tier(in_force.cluster, policies) {
            let mut flattened = Vec::new();
            for policy in policies {
                let own = in_force.cluster.own_policy(policy);
                let staged = own.is_some_and(|own| own.staged);
                flat.has_staged |= staged;
                let rules = in_force.rules(policy, *direction).iter();
                let rules = rules.filter_map(|rule| {
                    let id = RuleId::of(policy, *direction, Some(rule.index));
                    flat.rule(id, rule, *direction, own_ports, |family| {
                        subject.contains(&(policy.clone(), rule.index, family))
                    })
                });
                flattened.push(FlatPolicy {
                    rules: rules.collect(),
                    staged,
                    end: RuleId::of(policy, *direction, None),
                });
            }
            flat.tiers.push((tier.passes, flattened));
        }
        Some(flat)
    }

    fn rule(
        &mut self,
        id: RuleId,
        rule: &'f Lowered<'c>,
        direction: Direction,
        own_ports: &BTreeSet<(Protocol, String, u16)>,
        holds: impl Fn(Family) -> bool,
    ) -> Option<FlatRule<'f, 'c>> {
        let families = match (rule.subject.is_empty(), Family::ALL.map(holds)) {
            (true, _) | (_, [true, true]) => None,
            (_, [true, false]) => Some(Region::everything().in_family(Family::V4)),
            (_, [false, true]) => Some(Region::everything().in_family(Family::V6)),
            (_, [false, false]) => return None,
        };
        let number = |(wanted, term): &(bool, Term)| {
            // Every term of a rule in force has a number.
            self.all_terms.id(term).map(|id| (*wanted, id))
        };
        let peer: Vec<NumberedClause> = rule
            .peer
            .iter()
            .map(|clause| clause.iter().filter_map(number).collect())
            .collect();
        self.terms.extend(peer.iter().flatten().map(|(_, id)| *id));
        if rule.depends_on_peer(direction) {
            for (protocol, name) in rule.names() {
                let candidates = Protocol::ALL.into_iter();
                let candidates =
                    candidates.filter(|one| protocol.is_none_or(|wanted| wanted == *one));
                let terms = candidates.map(|one| Term::Port(one, name.to_owned()));
                let ids = terms.filter_map(|term| self.all_terms.id(&term));
                self.terms.extend(ids);
            }
        }
        let depends = rule.depends_on_peer(direction);
        Some(FlatRule {
            id,
            rule,
            peer,
            families,
            region: (!depends).then(|| rule.region(&Destination::Subject(own_ports))),
        })
    }

    /// What this identity may do.
    fn decide(&mut self, identity: &Identity) -> Decision {
        let mut decision: Option<Decision> = None;
        for facts in identity.alternatives() {
            let facts: Facts = facts
                .iter()
                .filter(|fact| self.terms.contains(&fact.term()))
                .copied()
                .collect();
            let next = match self.known.get(&facts) {
                Some(known) => known.clone(),
                None => {
                    let decided = self.decide_for(&facts);
                    self.known.insert(facts, decided.clone());
                    decided
                }
            };
            decision = Some(match decision {
                Some(decision) => decision.and(&next),
                None => next,
            });
        }
        decision.unwrap_or_default()
    }

    fn decide_for(&self, facts: &Facts) -> Decision {
        let mut decision = self.walk(facts, false);
        if self.has_staged {
            let with_staged = self.walk(facts, true);
            let denied = decision.allowed.without(&with_staged.allowed);
            let allowed = with_staged.allowed.without(&decision.allowed);
            decision.staged_denied = decision::within(&with_staged.decided, &denied);
            decision.staged_allowed = decision::within(&with_staged.decided, &allowed);
            decision.staged = with_staged.staged;
        }
        decision
    }

    /// What passes and what is told, tier by tier.
    fn walk(&self, facts: &Facts, with_staged: bool) -> Decision {
        let mut undecided = Region::everything();
        let mut decision = Decision::default();
        for (passes, policies) in &self.tiers {
            let asked = || {
                policies
                    .iter()
                    .filter(|policy| with_staged || !policy.staged)
            };
            // Where no rule decides, it is the first policy in force that is behind the tier's end.
            let enforced = asked().find(|policy| !policy.staged);
            let Some(isolating) = enforced.or_else(|| asked().next()) else {
                continue;
            };
            let mut passed = Region::nothing();
            let rules =
                asked().flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)));
            for (policy, rule) in rules {
                if undecided.is_nothing() {
                    break;
                }
                let Some(matched) = self.matched(rule, facts) else {
                    continue;
                };
                let matched = matched.and(&undecided);
                if policy.staged {
                    decision::add(&mut decision.staged, rule.id, matched.clone());
                }
                match rule.rule.action {
                    RuleAction::Log => {
                        decision::add(&mut decision.logged, rule.id, matched);
                        continue;
                    }
                    RuleAction::Allow => decision.allowed = decision.allowed.or(&matched),
                    RuleAction::Pass => passed = passed.or(&matched),
                    RuleAction::Deny => {}
                }
                undecided = undecided.without(&matched);
                let told = match rule.rule.action {
                    RuleAction::Pass => &mut decision.passed,
                    _ => &mut decision.decided,
                };
                decision::add(told, rule.id, matched);
            }
            if *passes {
                undecided = undecided.or(&passed);
                continue;
            }
            if isolating.staged {
                decision::add(&mut decision.staged, isolating.end, undecided.clone());
            }
            decision::add(&mut decision.decided, isolating.end, undecided);
            undecided = passed;
        }
        decision.allowed = decision.allowed.or(&undecided);
        decision
    }

    /// The traffic the rule is about, if it is about this peer.
    fn matched(&self, rule: &FlatRule<'_, '_>, facts: &Facts) -> Option<Region> {
        let is_peer = rule.peer.iter().all(|clause| {
            let mut literals = clause.iter();
            literals.any(|(wanted, id)| facts.contains(&Fact::Matches(*id)) == *wanted)
        });
        if !is_peer {
            return None;
        }
        let region = match &rule.region {
            Some(region) => region.clone(),
            None => rule.rule.region(&Destination::Peer(self.all_terms, facts)),
        };
        Some(match &rule.families {
            Some(families) => region.and(families),
            None => region,
        })
    }
}
