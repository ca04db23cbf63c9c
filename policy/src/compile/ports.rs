//! The chain of a decision: what is told of packets first, then a rule for each run of ports, types or protocols with a
//! verdict of its own, and a last one for the rest. Verdicts lead to the chain of the rule that is behind them: it counts
//! what it decides, and reports what it denies. Those chains depend on nothing but their rule, so that they stay, and
//! count on, while everything around them changes.

use std::collections::BTreeMap;

use super::emit::{DENIED, denied_to_pods, onward};
use crate::{
    decision::Decision,
    model::Direction,
    origin::RuleId,
    port::PortRange,
    region::{Area, Plane, Region, Slice},
    ruleset::{Action, Chain, Family, LogReason, Match, Name, Report, Rule, Verdict},
};

/// The chains of rules, by name.
pub(crate) type Chains = BTreeMap<Name, Chain>;

/// Where a decision that is the same for all traffic leads to, with the rule's chain.
pub(crate) fn verdict(
    passes: bool,
    rule: Option<RuleId>,
    direction: Direction,
    chains: &mut Chains,
) -> Verdict {
    let Some(rule) = rule else {
        return if passes {
            onward(direction)
        } else {
            Verdict::Goto(DENIED.to_owned())
        };
    };
    let (word, rules) = if passes {
        let counted = Rule::always(Action::Count);
        ("allow", vec![counted, Rule::always(onward(direction))])
    } else {
        ("deny", denied_to_pods(Some(rule)))
    };
    Verdict::Goto(chain_of(word, rule, rules, chains))
}

pub(super) fn chain_of(word: &str, rule: RuleId, rules: Vec<Rule>, chains: &mut Chains) -> Name {
    let name = format!("{word}-{rule}");
    chains.entry(name.clone()).or_insert(Chain::of(rules));
    name
}

/// The decision's own chain, for all but simple ones. What is left to the last rule is what would take the most to say.
pub(crate) fn chain(decision: &Decision, direction: Direction, chains: &mut Chains) -> Chain {
    let mut rules = notes(decision, chains);
    let mut parts = Vec::new();
    for (rule, region) in &decision.decided {
        // A rule decides one way only, but for what several owners of one address come to.
        let allowed = region.and(&decision.allowed);
        let denied = region.without(&decision.allowed);
        for (region, passes) in [(allowed, true), (denied, false)] {
            if !region.is_nothing() {
                let verdict = verdict(passes, Some(*rule), direction, chains);
                parts.push((conditions(&region), verdict));
            }
        }
    }
    let decided = Region::union(decision.decided.values());
    let undecided = Region::everything().without(&decided);
    let passing = undecided.and(&decision.allowed);
    let dropped = undecided.without(&decision.allowed);
    for (region, passes) in [(passing, true), (dropped, false)] {
        if !region.is_nothing() {
            let verdict = verdict(passes, None, direction, chains);
            parts.push((conditions(&region), verdict));
        }
    }
    let longest = parts.iter().map(|(conditions, _)| conditions.len()).max();
    let rest = parts
        .iter()
        .position(|(conditions, _)| Some(conditions.len()) == longest);
    let rest = rest.map(|at| parts.remove(at).1);
    for (conditions, verdict) in parts {
        rules.extend(
            conditions
                .into_iter()
                .map(|matches| Rule::new(matches, verdict.clone())),
        );
    }
    rules.extend(rest.map(Rule::always));
    Chain::of(rules)
}

/// What is counted and reported beside the verdict.
fn notes(decision: &Decision, chains: &mut Chains) -> Vec<Rule> {
    let log = |reason, rule| Rule::always(Action::Log(Report::new(reason, Some(rule))));
    let count = || Rule::always(Action::Count);
    let mut rules = Vec::new();
    let words = ["log", "pass", "staged", "staged-deny", "staged-allow"];
    for (word, notes) in words.into_iter().zip(decision.notes()) {
        for (rule, region) in notes {
            let told = match word {
                "log" => vec![count(), log(LogReason::Rule, *rule)],
                "staged-deny" => vec![log(LogReason::StagedDeny, *rule)],
                "staged-allow" => vec![log(LogReason::StagedAllow, *rule)],
                _ => vec![count()],
            };
            let jump = Verdict::Jump(chain_of(word, *rule, told, chains));
            rules.extend(
                conditions(region)
                    .into_iter()
                    .map(|matches| Rule::new(matches, jump.clone())),
            );
        }
    }
    rules
}

/// The conditions of a region: one list for each of the parts it has to be put together of.
pub(super) fn conditions(region: &Region) -> Vec<Vec<Match>> {
    if region.is_everything() {
        return vec![Vec::new()];
    }
    if region.is_alike() {
        return of_family(region, Family::V4);
    }
    let mut all = Vec::new();
    for family in Family::ALL {
        for mut matches in of_family(region, family) {
            matches.insert(0, Match::Family(family));
            all.push(matches);
        }
    }
    all
}

pub(super) fn of_family(region: &Region, family: Family) -> Vec<Vec<Match>> {
    let is_whole = |plane: &Plane| *region.area(family, *plane) == plane.whole();
    if Plane::ALL.iter().all(is_whole) {
        return vec![Vec::new()];
    }
    Plane::ALL
        .into_iter()
        .flat_map(|plane| matches_of(plane, region.area(family, plane)))
        .collect()
}

/// The conditions of an area: one list for each run.
fn matches_of(plane: Plane, area: &Area) -> Vec<Vec<Match>> {
    if let (Some(number), true) = (plane.protocol(), *area == plane.whole()) {
        return vec![vec![Match::Protocol(number)]];
    }
    area.slices()
        .iter()
        .flat_map(|slice| match plane {
            Plane::Icmp => icmp(Family::V4, &slice.values),
            Plane::IcmpV6 => icmp(Family::V6, &slice.values),
            Plane::Other => slice
                .values
                .iter()
                .map(|range| vec![Match::ProtocolRange(*range)])
                .collect(),
            Plane::Tcp | Plane::Udp | Plane::Sctp => ports(plane, slice),
        })
        .collect()
}

fn ports(plane: Plane, slice: &Slice) -> Vec<Vec<Match>> {
    let Some(protocol) = plane.transport() else {
        return Vec::new();
    };
    let from =
        (slice.sources != PortRange::ALL).then_some(Match::SourcePort(protocol, slice.sources));
    let of_range = |range: &PortRange| {
        let to =
            (*range != PortRange::ALL || from.is_none()).then_some(Match::Port(protocol, *range));
        from.iter().cloned().chain(to).collect()
    };
    slice.values.iter().map(of_range).collect()
}

/// Types whole, and codes of single types.
fn icmp(family: Family, values: &[PortRange]) -> Vec<Vec<Match>> {
    let mut all = Vec::new();
    for range in values {
        let [first_type, first_code] = range.first().to_be_bytes();
        let [last_type, last_code] = range.last().to_be_bytes();
        let codes = |type_: u8, first: u8, last: u8| {
            vec![
                Match::IcmpType(family, PortRange::single(type_.into())),
                Match::IcmpCode(family, PortRange::between(first.into(), last.into())),
            ]
        };
        let (mut first, mut last) = (u16::from(first_type), u16::from(last_type));
        if first == last && (first_code, last_code) != (0, u8::MAX) {
            all.push(codes(first_type, first_code, last_code));
            continue;
        }
        if first_code > 0 {
            all.push(codes(first_type, first_code, u8::MAX));
            first += 1;
        }
        if last_code < u8::MAX {
            all.push(codes(last_type, 0, last_code));
            last = last.saturating_sub(1);
        }
        if first <= last {
            all.push(vec![Match::IcmpType(
                family,
                PortRange::between(first, last),
            )]);
        }
    }
    all
}
