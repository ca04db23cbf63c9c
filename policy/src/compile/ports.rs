//! The chain of a decision: a rule for each run of ports, types or protocols that may pass, and a last one for the rest.

use super::emit::DENIED;
use crate::{
    decision::Decision,
    port::PortRange,
    region::{Area, Plane, Region, Slice},
    ruleset::{Action, Chain, Family, LogReason, Match, Rule, Verdict},
};

/// What is reported first, then what may pass; what is left is dropped, or let on when only some of it may not pass.
pub(super) fn chain(decision: &Decision) -> Chain {
    let mut rules = Vec::new();
    for (region, reason) in [
        (&decision.logged, LogReason::Rule),
        (&decision.staged_denied, LogReason::StagedDeny),
        (&decision.staged_allowed, LogReason::StagedAllow),
    ] {
        if region.is_everything() {
            rules.push(Rule::always(Action::Log(reason)));
            continue;
        }
        for (family, prefix) in families(region) {
            for plane in Plane::ALL {
                let area = region.area(family, plane);
                for matches in matches_of(plane, area) {
                    let matches = prefix.iter().cloned().chain(matches);
                    rules.push(Rule::new(matches, Action::Log(reason)));
                }
            }
        }
    }
    let allowed = &decision.allowed;
    let families = families(allowed);
    let single = families.len() == 1;
    for (family, prefix) in families {
        verdicts(allowed, family, &prefix, single, &mut rules);
    }
    Chain::of(rules)
}

fn denied() -> Verdict {
    Verdict::Goto(DENIED.to_owned())
}

/// The families whose traffic is listed, each with the condition it needs: one without a condition when both are alike.
fn families(region: &Region) -> Vec<(Family, Option<Match>)> {
    if region.is_alike() {
        return vec![(Family::V4, None)];
    }
    let each = |family| (family, Some(Match::Family(family)));
    Family::ALL.map(each).into()
}

fn verdicts(
    allowed: &Region,
    family: Family,
    prefix: &Option<Match>,
    single: bool,
    rules: &mut Vec<Rule>,
) {
    let others = allowed.area(family, Plane::Other);
    // Where all protocols without a plane of their own pass, it is what does not pass that is said.
    let rest = match *others == Plane::Other.whole() {
        true => Verdict::Return,
        false => denied(),
    };
    let mut push = |matches: Vec<Match>, verdict: &Verdict| {
        let matches = prefix.iter().cloned().chain(matches);
        rules.push(Rule::new(matches, verdict.clone()));
    };
    for plane in Plane::ALL {
        let area = allowed.area(family, plane);
        let whole = *area == plane.whole();
        let Some(number) = plane.protocol() else {
            if !whole {
                for matches in matches_of(plane, area) {
                    push(matches, &Verdict::Return);
                }
            }
            continue;
        };
        if whole && rest == Verdict::Return {
            continue;
        }
        for matches in matches_of(plane, area) {
            push(matches, &Verdict::Return);
        }
        if rest == Verdict::Return {
            push(vec![Match::Protocol(number)], &denied());
        }
    }
    let last = single || family == Family::V6;
    match (last, single) {
        (true, _) => rules.push(Rule::always(rest)),
        (false, _) => push(Vec::new(), &rest),
    }
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
