//! A class's policies, flattened: asked about an identity they give its decision.
//!
//! What does not depend on the peer is done once. The rules are found by the questions their peers must answer with yes,
//! so that an identity costs the rules that may concern it, not all there are; and a rule that an equal one comes before
//! is left out, since it never has a say.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use margay_crds::policy_rule::RuleAction;

use super::lower::{Destination, Lowered};
use crate::{
    decision::{self, Decision},
    identity::{Fact, Facts, Identity, Term, TermId, Terms},
    model::{Direction, PolicyRef, PortMatch},
    origin::RuleId,
    port::Protocol,
    region::Region,
    ruleset::Family,
};

/// The numbers a subject gives port names: protocol, name, number.
pub(crate) type OwnPorts = BTreeSet<(Protocol, String, u16)>;

/// A clause whose terms have their numbers.
type NumberedClause = Vec<(bool, TermId)>;

/// A rule, as far as it can be prepared without a peer.
#[derive(Debug)]
struct FlatRule {
    id: RuleId,
    rule: Arc<Lowered>,
    tier: usize,
    staged: bool,
    peer: Vec<NumberedClause>,
    /// Bounds the traffic to the families of which the rule holds for the subject.
    families: Option<Region>,
    /// The traffic, unless it depends on the peer.
    region: Option<Region>,
}

/// What makes of two rules of a tier one.
type Sameness = (
    RuleAction,
    bool,
    Vec<NumberedClause>,
    Option<Region>,
    Option<Vec<PortMatch>>,
);

#[derive(Debug)]
struct FlatTier {
    /// Whether it passes at its end.
    passes: bool,
    /// What is behind the end where no rule decides: the first policy that is not staged.
    enforced: Option<RuleId>,
    /// What is behind it when staged policies alone are asked: the first of them.
    staged: Option<RuleId>,
}

/// A class's policies, ready to be asked about identities.
#[derive(Debug)]
pub(crate) struct Flat {
    direction: Direction,
    own_ports: OwnPorts,
    tiers: Vec<FlatTier>,
    rules: Vec<FlatRule>,
    /// The rules with a clause of which one of these terms must hold, by term.
    by_term: BTreeMap<TermId, Vec<usize>>,
    /// The other rules.
    always: Vec<usize>,
    has_staged: bool,
    /// Every question the peers are asked.
    terms: BTreeSet<TermId>,
    seen: HashSet<Sameness>,
    /// Decisions by what they depend on: the facts among `terms`.
    known: BTreeMap<Facts, Arc<Decision>>,
}

/// The most decisions that are remembered. Rules seldom tell as many peers apart, and what is forgotten is found anew.
const REMEMBERED: usize = 4096;

impl Flat {
    /// No policies yet: they are added tier by tier, in their order.
    pub(crate) fn new(direction: Direction, own_ports: OwnPorts) -> Self {
        Self {
            direction,
            own_ports,
            tiers: Vec::new(),
            rules: Vec::new(),
            by_term: BTreeMap::new(),
            always: Vec::new(),
            has_staged: false,
            terms: BTreeSet::new(),
            seen: HashSet::new(),
            known: BTreeMap::new(),
        }
    }

    /// The policies that follow are of this tier.
    pub(crate) fn add_tier(&mut self, passes: bool) {
        self.tiers.push(FlatTier {
            passes,
            enforced: None,
            staged: None,
        });
        self.seen.clear();
    }

    /// Adds a policy. `holds` says of which rules, by their index, what they ask about the subject holds.
    pub(crate) fn add_policy(
        &mut self,
        policy: &PolicyRef,
        staged: bool,
        rules: &[Arc<Lowered>],
        terms: &Terms,
        holds: impl Fn(usize, Family) -> bool,
    ) {
        let Some(tier) = self.tiers.last_mut() else {
            return;
        };
        let end = match staged {
            true => &mut tier.staged,
            false => &mut tier.enforced,
        };
        end.get_or_insert_with(|| RuleId::of(policy, self.direction, None));
        self.has_staged |= staged;
        for rule in rules {
            let id = RuleId::of(policy, self.direction, Some(rule.index));
            self.add_rule(id, staged, rule, terms, |family| holds(rule.index, family));
        }
    }

    fn add_rule(
        &mut self,
        id: RuleId,
        staged: bool,
        rule: &Arc<Lowered>,
        all_terms: &Terms,
        holds: impl Fn(Family) -> bool,
    ) {
        let families = match (rule.subject.is_empty(), Family::ALL.map(holds)) {
            (true, _) | (_, [true, true]) => None,
            (_, [true, false]) => Some(Region::everything().in_family(Family::V4)),
            (_, [false, true]) => Some(Region::everything().in_family(Family::V6)),
            (_, [false, false]) => return,
        };
        let number = |(wanted, term): &(bool, Term)| {
            // Every term of a rule in force has a number.
            all_terms.id(term).map(|id| (*wanted, id))
        };
        let peer: Vec<NumberedClause> = rule
            .peer
            .iter()
            .map(|clause| clause.iter().filter_map(number).collect())
            .collect();
        self.terms.extend(peer.iter().flatten().map(|(_, id)| *id));
        let depends = rule.depends_on_peer(self.direction);
        if depends {
            for (protocol, name) in rule.names() {
                let candidates = Protocol::ALL.into_iter();
                let candidates =
                    candidates.filter(|one| protocol.is_none_or(|wanted| wanted == *one));
                let terms = candidates.map(|one| Term::Port(one, name.to_owned()));
                let ids = terms.filter_map(|term| all_terms.id(&term));
                self.terms.extend(ids);
            }
        }
        // Each Log rule reports under its own name.
        let decides = rule.action != RuleAction::Log;
        if let Some(ports) = rule.ports().filter(|_| decides) {
            let same = (
                rule.action,
                staged,
                peer.clone(),
                families.clone(),
                ports.clone(),
            );
            if !self.seen.insert(same) {
                return;
            }
        }
        let region = (!depends).then(|| rule.region(&Destination::Subject(&self.own_ports)));
        let index = self.rules.len();
        let asked = |clause: &&NumberedClause| clause.iter().all(|(wanted, _)| *wanted);
        match peer.iter().find(asked) {
            Some(clause) => {
                for (_, id) in clause {
                    self.by_term.entry(*id).or_default().push(index);
                }
            }
            None => self.always.push(index),
        }
        self.rules.push(FlatRule {
            id,
            rule: Arc::clone(rule),
            tier: self.tiers.len().saturating_sub(1),
            staged,
            peer,
            families,
            region,
        });
    }

    /// The last policy has been added.
    pub(crate) fn finish(&mut self) {
        self.seen = HashSet::new();
    }

    /// Every question the peers are asked.
    pub(crate) fn terms(&self) -> &BTreeSet<TermId> {
        &self.terms
    }

    /// What this identity may do.
    pub(crate) fn decide(&mut self, identity: &Identity, terms: &Terms) -> Arc<Decision> {
        let mut decisions: Vec<Arc<Decision>> = Vec::with_capacity(1);
        for facts in identity.alternatives() {
            let facts: Facts = facts
                .iter()
                .filter(|fact| self.terms.contains(&fact.term()))
                .copied()
                .collect();
            let next = match self.known.get(&facts) {
                Some(known) => Arc::clone(known),
                None => {
                    let decided = Arc::new(self.decide_for(&facts, terms));
                    if self.known.len() >= REMEMBERED {
                        self.known.clear();
                    }
                    self.known.insert(facts, Arc::clone(&decided));
                    decided
                }
            };
            decisions.push(next);
        }
        // Whose rules are told of several owners' must not depend on the numbers that terms happen to have.
        decisions.sort_unstable();
        decisions.dedup();
        let mut decisions = decisions.into_iter();
        let first = decisions.next().unwrap_or_default();
        decisions.fold(first, |all, next| Arc::new(all.and(&next)))
    }

    fn decide_for(&self, facts: &Facts, terms: &Terms) -> Decision {
        let mut candidates = self.always.clone();
        for fact in facts {
            if let Fact::Matches(id) = fact {
                candidates.extend(self.by_term.get(id).into_iter().flatten());
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        let mut decision = self.walk(&candidates, facts, terms, false);
        if self.has_staged {
            let with_staged = self.walk(&candidates, facts, terms, true);
            let denied = decision.allowed.without(&with_staged.allowed);
            let allowed = with_staged.allowed.without(&decision.allowed);
            decision.staged_denied = decision::within(&with_staged.decided, &denied);
            decision.staged_allowed = decision::within(&with_staged.decided, &allowed);
            decision.staged = with_staged.staged;
        }
        decision
    }

    /// What passes and what is told, tier by tier.
    fn walk(
        &self,
        candidates: &[usize],
        facts: &Facts,
        terms: &Terms,
        with_staged: bool,
    ) -> Decision {
        let mut undecided = Region::everything();
        let mut decision = Decision::default();
        let rules = candidates.iter().filter_map(|index| self.rules.get(*index));
        let mut rules = rules.filter(|rule| with_staged || !rule.staged).peekable();
        for (index, tier) in self.tiers.iter().enumerate() {
            let staged = tier.staged.filter(|_| with_staged);
            let Some(end) = tier.enforced.or(staged) else {
                continue;
            };
            let mut matched = Vec::new();
            while let Some(rule) = rules.next_if(|rule| rule.tier <= index) {
                if undecided.is_nothing() {
                    continue;
                }
                if let Some(region) = self.matched(rule, facts, terms) {
                    matched.push((rule, region));
                }
            }
            let passed = take(matched, &mut undecided, &mut decision);
            if tier.passes {
                undecided = undecided.or(&passed);
                continue;
            }
            if tier.enforced.is_none() {
                decision::add(&mut decision.staged, end, undecided.clone());
            }
            decision::add(&mut decision.decided, end, undecided);
            undecided = passed;
        }
        decision.allowed = decision.allowed.or(&undecided);
        decision
    }

    /// The traffic the rule is about, if it is about this peer.
    fn matched(&self, rule: &FlatRule, facts: &Facts, terms: &Terms) -> Option<Region> {
        let is_peer = rule.peer.iter().all(|clause| {
            let mut literals = clause.iter();
            literals.any(|(wanted, id)| facts.contains(&Fact::Matches(*id)) == *wanted)
        });
        if !is_peer {
            return None;
        }
        let region = match &rule.region {
            Some(region) => region.clone(),
            None => rule.rule.region(&Destination::Peer(terms, facts)),
        };
        Some(match &rule.families {
            Some(families) => region.and(families),
            None => region,
        })
    }
}

/// Lets the rules of a tier take of the undecided what they match, in their order, and returns what they hand over to the
/// next tier.
fn take(
    matched: Vec<(&FlatRule, Region)>,
    undecided: &mut Region,
    decision: &mut Decision,
) -> Region {
    let (rules, regions): (Vec<&FlatRule>, Vec<Region>) = matched.into_iter().unzip();
    // A Log rule takes nothing away from those after it.
    let logs = rules.iter().any(|rule| rule.rule.action == RuleAction::Log);
    let shared = match logs {
        true => None,
        false => Region::share_out(undecided, &regions),
    };
    let parts = shared.unwrap_or_else(|| {
        let mut left = undecided.clone();
        let parts = rules.iter().zip(&regions).map(|(rule, region)| {
            let part = region.and(&left);
            if rule.rule.action != RuleAction::Log {
                left = left.without(&part);
            }
            part
        });
        parts.collect()
    });
    let by = |action: RuleAction| {
        let parts = rules.iter().zip(&parts);
        parts
            .filter(move |(rule, _)| rule.rule.action == action)
            .map(|(_, part)| part)
    };
    let passed = Region::union(by(RuleAction::Pass));
    let allowed = Region::union(by(RuleAction::Allow));
    let denied = Region::union(by(RuleAction::Deny));
    decision.allowed = decision.allowed.or(&allowed);
    *undecided = undecided.without(&Region::union([&passed, &allowed, &denied]));
    for (rule, part) in rules.iter().zip(&parts) {
        if rule.staged {
            decision::add(&mut decision.staged, rule.id, part.clone());
        }
    }
    for (rule, part) in rules.into_iter().zip(parts) {
        let told = match rule.rule.action {
            RuleAction::Log => &mut decision.logged,
            RuleAction::Pass => &mut decision.passed,
            RuleAction::Allow | RuleAction::Deny => &mut decision.decided,
        };
        decision::add(told, rule.id, part);
    }
    passed
}
