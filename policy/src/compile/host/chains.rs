//! The chains of an endpoint on an occasion: one for each tier, its policies' rules in order.

use std::collections::{BTreeMap, BTreeSet};

use margay_crds::policy_rule::RuleAction;

use super::{
    Occasion, TierOf,
    sets::{Addresses, Claimants, Sets},
};
use crate::{
    compile::{
        class::{PolicyRules, declared},
        emit::{EARLY_MARK, denied_rules},
        lower::{Clause, Destination, Lowered},
        ports::{self, Chains},
    },
    identity::{Identity, Terms},
    model::{Cluster, Direction, HostEndpoint, OwnPolicy, PolicyRef},
    numbering,
    origin::RuleId,
    region::Region,
    ruleset::{Action, Chain, Family, Field, LogReason, Match, Name, Report, Rule, Verdict},
};

/// The rules of the policies about host endpoints here.
pub(super) struct Writer<'c> {
    cluster: &'c Cluster,
    terms: Terms,
    rules: BTreeMap<(PolicyRef, Direction), PolicyRules>,
}

/// One of a packet's addresses, by its family.
type Address = fn(Family) -> Field;

/// A condition for the address on one side.
struct Condition {
    meaning: u64,
    addresses: Addresses,
    field: Address,
    wanted: bool,
}

/// Where the chains of one endpoint on one occasion lead.
struct Place<'e> {
    occasion: Occasion,
    endpoint: &'e HostEndpoint,
    base: Name,
    /// Staged policies are followed as if they were in force, and only counted.
    trial: bool,
}

impl Place<'_> {
    fn tier(&self, number: usize) -> Name {
        let trial = if self.trial { "-staged" } else { "" };
        format!("{}{trial}-{number}", self.base)
    }
}

impl<'c> Writer<'c> {
    pub(super) fn new(cluster: &'c Cluster) -> Self {
        Self {
            cluster,
            terms: Terms::default(),
            rules: BTreeMap::new(),
        }
    }

    /// Puts the questions of these policies in force.
    pub(super) fn ask(&mut self, tiers: &[TierOf<'_>], direction: Direction) {
        for policy in tiers.iter().flat_map(|tier| &tier.policies) {
            let (cluster, terms) = (self.cluster, &mut self.terms);
            self.rules
                .entry((policy.reference.clone(), direction))
                .or_insert_with(|| PolicyRules::new(cluster, &policy.reference, direction, terms));
        }
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Writes the chains of an endpoint, and says where they begin; nowhere when there is nothing to ask.
    pub(super) fn endpoint(
        &self,
        occasion: Occasion,
        endpoint: &HostEndpoint,
        tiers: &[TierOf<'_>],
        sets: &mut Sets<'_>,
        chains: &mut Chains,
    ) -> Option<Name> {
        let is_closed = matches!(occasion, Occasion::Input | Occasion::Output);
        if tiers.is_empty() && !is_closed {
            return None;
        }
        let hash = numbering::stable_hash64(&endpoint.name);
        let mut place = Place {
            occasion,
            endpoint,
            base: format!("{}-{hash:016x}", occasion.name()),
            trial: false,
        };
        let is_staged = |policy: &&OwnPolicy| policy.staged;
        let mut first = Vec::new();
        // What was not tracked is asked a second time; it is counted the first time.
        let counted = !matches!(occasion, Occasion::UntrackedIn | Occasion::UntrackedOut);
        if counted && tiers.iter().flat_map(|tier| &tier.policies).any(is_staged) {
            place.trial = true;
            self.tiers(&place, tiers, sets, chains);
            first.push(Rule::always(Verdict::Jump(place.tier(0))));
            place.trial = false;
        }
        self.tiers(&place, tiers, sets, chains);
        first.push(Rule::always(Verdict::Goto(place.tier(0))));
        chains.insert(place.base.clone(), Chain::of(first));
        Some(place.base)
    }

    fn tiers(
        &self,
        place: &Place<'_>,
        tiers: &[TierOf<'_>],
        sets: &mut Sets<'_>,
        chains: &mut Chains,
    ) {
        let mut number = 0;
        let direction = place.occasion.direction();
        for tier in tiers {
            let asked = || {
                tier.policies
                    .iter()
                    .filter(|policy| place.trial || !policy.staged)
            };
            let enforced = asked().find(|policy| !policy.staged);
            let Some(isolating) = enforced.or_else(|| asked().next()) else {
                continue;
            };
            let next = place.tier(number + 1);
            let mut rules = Vec::new();
            for policy in asked() {
                self.policy(place, policy, &next, sets, chains, &mut rules);
            }
            let end = RuleId::of(&isolating.reference, direction, None);
            rules.extend(
                match (tier.passes || !place.occasion.has_ends(), place.trial) {
                    (true, _) => vec![Rule::always(Verdict::Goto(next))],
                    (false, false) => vec![Rule::always(denied(end, chains))],
                    (false, true) if isolating.staged => vec![Rule::always(staged(end, chains))],
                    (false, true) => Vec::new(),
                },
            );
            chains.insert(place.tier(number), Chain::of(rules));
            number += 1;
        }
        let is_closed = matches!(place.occasion, Occasion::Input | Occasion::Output);
        let end = (is_closed && !place.trial)
            .then(|| Rule::always(Verdict::Goto(super::DENIED.to_owned())));
        chains.insert(place.tier(number), Chain::of(end));
    }

    fn policy(
        &self,
        place: &Place<'_>,
        policy: &OwnPolicy,
        next: &Name,
        sets: &mut Sets<'_>,
        chains: &mut Chains,
        rules: &mut Vec<Rule>,
    ) {
        let direction = place.occasion.direction();
        let known = self.rules.get(&(policy.reference.clone(), direction));
        for rule in known.iter().flat_map(|known| &known.rules) {
            let id = RuleId::of(&policy.reference, direction, Some(rule.index));
            for matches in self.matches(place, id, rule, sets) {
                for verdict in verdicts(place, policy, rule.action, id, next, chains) {
                    rules.push(Rule::new(matches.clone(), verdict));
                }
            }
        }
    }

    /// The conditions under which a rule matches: each list is sufficient.
    fn matches(
        &self,
        place: &Place<'_>,
        id: RuleId,
        rule: &Lowered,
        sets: &mut Sets<'_>,
    ) -> Vec<Vec<Match>> {
        let direction = place.occasion.direction();
        let (peer, own): (Address, Address) = match direction {
            Direction::Ingress => (Field::Source, Field::Destination),
            Direction::Egress => (Field::Destination, Field::Source),
        };
        let claimants = |wanted: bool| match (rule.action == RuleAction::Deny) == wanted {
            true => Claimants::Any,
            false => Claimants::All,
        };
        let condition = |clause: &Clause, field, sets: &Sets<'_>| {
            let wanted = clause.iter().all(|(wanted, _)| *wanted);
            let claimants = claimants(wanted);
            Condition {
                meaning: numbering::stable_hash64(&(clause, claimants)),
                addresses: sets.of_clause(clause, &self.terms, claimants),
                field,
                wanted,
            }
        };
        let mut conditions: Vec<Condition> = Vec::new();
        for (clauses, field) in [(&rule.peer, peer), (&rule.subject, own)] {
            conditions.extend(clauses.iter().map(|clause| condition(clause, field, sets)));
        }
        let own_ports: BTreeSet<_> = declared(rule, &place.endpoint.ports).collect();
        if !rule.depends_on_peer(direction) {
            let region = rule.region(&Destination::Subject(&own_ports));
            return written(&conditions, &region, sets);
        }
        // Peers by what the rule means for them; the rest are those of whom nothing is known.
        let region_of = |identity: &Identity| {
            let mut regions = identity
                .alternatives()
                .map(|facts| rule.region(&Destination::Peer(&self.terms, facts)));
            let first = regions.next().unwrap_or_default();
            regions.fold(first, |all, one| match rule.action {
                RuleAction::Deny => all.or(&one),
                _ => all.and(&one),
            })
        };
        let rest = region_of(&Identity::nothing());
        let mut groups: BTreeMap<Region, BTreeSet<&Identity>> = BTreeMap::new();
        for identity in sets.book().identities.values() {
            let region = region_of(identity);
            if region != rest {
                groups.entry(region).or_default().insert(identity);
            }
        }
        let mut lists = Vec::new();
        let is_other = |identity: &Identity| groups.values().any(|group| group.contains(identity));
        for (region, group) in &groups {
            conditions.push(Condition {
                meaning: numbering::stable_hash64(&(id, region)),
                addresses: sets.addresses(|identity| group.contains(identity)),
                field: peer,
                wanted: true,
            });
            lists.extend(written(&conditions, region, sets));
            conditions.pop();
        }
        conditions.push(Condition {
            meaning: numbering::stable_hash64(&(id, "others")),
            addresses: sets.addresses(is_other),
            field: peer,
            wanted: false,
        });
        lists.extend(written(&conditions, &rest, sets));
        lists
    }
}

/// Everything that a rule asks, as lists of conditions of the kernel.
fn written(conditions: &[Condition], region: &Region, sets: &mut Sets<'_>) -> Vec<Vec<Match>> {
    if region.is_nothing() {
        return Vec::new();
    }
    // Where nobody is ruled out, the rule does not ask.
    let asked: Vec<&Condition> = conditions
        .iter()
        .filter(|one| one.wanted || !one.addresses.is_empty())
        .collect();
    if asked.is_empty() {
        return ports::conditions(region);
    }
    let mut lists = Vec::new();
    for family in Family::ALL {
        let mut alternatives: Vec<Vec<Match>> = vec![vec![Match::Family(family)]];
        for condition in &asked {
            let found = sets.conditions(
                &condition.meaning,
                &condition.addresses,
                condition.field,
                family,
                condition.wanted,
            );
            alternatives = product(&alternatives, &found);
        }
        lists.extend(product(&alternatives, &ports::of_family(region, family)));
    }
    lists
}

fn product(ones: &[Vec<Match>], others: &[Vec<Match>]) -> Vec<Vec<Match>> {
    ones.iter()
        .flat_map(|one| {
            others
                .iter()
                .map(move |other| one.iter().chain(other).cloned().collect())
        })
        .collect()
}

/// The chain of a rule, beside those that pods' rules have of their own.
fn chain_of(word: &str, rule: RuleId, rules: Vec<Rule>, chains: &mut Chains) -> Name {
    ports::chain_of(&format!("host-{word}"), rule, rules, chains)
}

/// Where a rule leads to that denies.
fn denied(rule: RuleId, chains: &mut Chains) -> Verdict {
    let rules = denied_rules(Some(rule));
    Verdict::Goto(chain_of("deny", rule, rules, chains))
}

/// What is counted of a staged rule.
fn staged(id: RuleId, chains: &mut Chains) -> Verdict {
    let count = vec![Rule::always(Action::Count)];
    Verdict::Goto(chain_of("staged", id, count, chains))
}

/// What follows when a rule matches, one after the other.
fn verdicts(
    place: &Place<'_>,
    policy: &OwnPolicy,
    action: RuleAction,
    id: RuleId,
    next: &Name,
    chains: &mut Chains,
) -> Vec<Verdict> {
    let count = || vec![Rule::always(Action::Count)];
    if place.trial {
        return match (policy.staged, action) {
            // To the end, or to the next tier: a chain of one rule's comes back to where this one was called.
            (true, RuleAction::Pass) => vec![
                Verdict::Jump(chain_of("staged", id, count(), chains)),
                Verdict::Goto(next.clone()),
            ],
            (true, RuleAction::Log) => {
                vec![Verdict::Jump(chain_of("staged", id, count(), chains))]
            }
            (true, RuleAction::Allow | RuleAction::Deny) => vec![staged(id, chains)],
            (false, RuleAction::Pass) => vec![Verdict::Goto(next.clone())],
            (false, RuleAction::Log) => Vec::new(),
            (false, RuleAction::Allow | RuleAction::Deny) => vec![Verdict::Return],
        };
    }
    let is_second = matches!(
        place.occasion,
        Occasion::UntrackedIn | Occasion::UntrackedOut
    );
    match action {
        RuleAction::Log if is_second => Vec::new(),
        RuleAction::Pass if is_second => vec![Verdict::Goto(next.clone())],
        RuleAction::Allow if is_second => vec![Verdict::Accept],
        RuleAction::Deny if is_second => vec![Verdict::Drop],
        RuleAction::Log => {
            let report = Action::Log(Report::new(LogReason::Rule, Some(id)));
            let told = vec![Rule::always(Action::Count), Rule::always(report)];
            vec![Verdict::Jump(chain_of("log", id, told, chains))]
        }
        RuleAction::Pass => vec![
            Verdict::Jump(chain_of("pass", id, count(), chains)),
            Verdict::Goto(next.clone()),
        ],
        RuleAction::Deny => vec![denied(id, chains)],
        RuleAction::Allow => match place.occasion {
            Occasion::UntrackIn | Occasion::UntrackOut => {
                let rules = [Action::Count, Action::NoTrack].map(Rule::always);
                let rules = rules.into_iter().chain([Rule::always(Verdict::Accept)]);
                let name = chain_of("untrack", id, rules.collect(), chains);
                vec![Verdict::Goto(name)]
            }
            Occasion::Early => {
                let mark = Action::SetMark(EARLY_MARK);
                let rules = [Action::Count, mark].map(Rule::always);
                let rules = rules.into_iter().chain([Rule::always(Verdict::Accept)]);
                let name = chain_of("early", id, rules.collect(), chains);
                vec![Verdict::Goto(name)]
            }
            _ => vec![Verdict::Goto(chain_of("allow", id, count(), chains))],
        },
    }
}
