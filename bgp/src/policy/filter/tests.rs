//! Filters: conditions, operations, the first match.

use super::*;
use crate::policy::MatchOperator;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn subject(attributes: &PathAttributes) -> Subject<'_> {
    Subject {
        attributes,
        next_hop: None,
        metric: None,
        peer_type: PeerType::External,
        source: RouteSource::External,
    }
}

fn decide<'a>(filter: &'a Filter, text: &str) -> Option<&'a [Operation]> {
    filter.decide_plain(&prefix(text))
}

#[test]
fn the_first_match_decides() {
    let pods = PrefixMatch::within(prefix("10.0.0.0/8"));
    let block = PrefixMatch::within(prefix("10.1.0.0/16"));
    let reject = Rule {
        prefixes: vec![block],
        ..Rule::new(Verdict::Reject)
    };
    let operations = vec![Operation::SetLocalPref(200)];
    let accept = Rule {
        prefixes: vec![pods],
        operations: operations.clone(),
        ..Rule::new(Verdict::Accept)
    };
    let filter = Filter::new(vec![reject, accept], Verdict::Accept);
    assert_eq!(decide(&filter, "10.1.2.0/24"), None);
    assert_eq!(decide(&filter, "10.2.0.0/24"), Some(&operations[..]));
    assert_eq!(decide(&filter, "192.0.2.0/24"), Some(&[][..]));
}

#[test]
fn accept_only_nothing_accepts_nothing() {
    let filter = Filter::accept_only(Vec::new());
    assert_eq!(decide(&filter, "10.1.2.0/24"), None);
    assert!(decide(&Filter::accept_all(), "10.1.2.0/24").is_some());
}

#[test]
fn conditions_and_prefixes_must_both_hold() {
    let mut rule = Rule {
        prefixes: vec![PrefixMatch::within(prefix("10.0.0.0/8"))],
        ..Rule::new(Verdict::Accept)
    };
    rule.conditions.communities.any = vec!["1:*".parse().unwrap()];
    let filter = Filter::new(vec![rule], Verdict::Reject);
    let tagged = PathAttributes {
        communities: vec!["1:2".parse().unwrap()],
        ..PathAttributes::default()
    };
    let prepared = filter.prepare(&subject(&tagged));
    assert!(prepared.fixed.is_none());
    assert!(filter.decide(&prepared, &prefix("10.1.0.0/16")).is_some());
    assert!(filter.decide(&prepared, &prefix("11.1.0.0/16")).is_none());
    // Without the community the prefix does not matter any more.
    let prepared = filter.prepare(&subject(&PathAttributes::default()));
    assert_eq!(prepared.fixed, Some(None));
    assert!(filter.decide(&prepared, &prefix("10.1.0.0/16")).is_none());
}

#[test]
fn a_rule_for_every_prefix_ends_the_search_when_its_conditions_hold() {
    let mut tagged = Rule::new(Verdict::Reject);
    tagged.conditions.communities.any = vec!["1:1".parse().unwrap()];
    let pods = Rule {
        prefixes: vec![PrefixMatch::within(prefix("10.0.0.0/8"))],
        ..Rule::new(Verdict::Accept)
    };
    let filter = Filter::new(vec![tagged, pods], Verdict::Reject);
    let attributes = PathAttributes {
        communities: vec!["1:1".parse().unwrap()],
        ..PathAttributes::default()
    };
    let prepared = filter.prepare(&subject(&attributes));
    assert_eq!(prepared.fixed, Some(Some(0)));
    assert!(filter.decide(&prepared, &prefix("10.1.0.0/16")).is_none());
    assert!(decide(&filter, "10.1.0.0/16").is_some());
}

/// A pseudo-random walk: the index must say what trying every rule in order says.
#[test]
fn the_index_agrees_with_the_list() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    for _ in 0..200 {
        let network = |random: &mut dyn FnMut(u64) -> u64| {
            let length = [0, 8, 12, 16, 24, 32][random(6) as usize];
            if random(5) == 0 {
                let address = std::net::Ipv6Addr::from((random(4) as u128) << 120);
                return Prefix::v6(address, length).unwrap();
            }
            let address = 0x0a00_0000 | (random(16) as u32) << 16 | (random(4) as u32) << 8;
            Prefix::v4(address.into(), length).unwrap()
        };
        let operators = [
            MatchOperator::In,
            MatchOperator::In,
            MatchOperator::Equal,
            MatchOperator::Equal,
            MatchOperator::NotIn,
            MatchOperator::NotEqual,
        ];
        let rules: Vec<Rule> = (0..1 + random(30))
            .map(|index| {
                let prefixes = (0..random(4)).map(|_| PrefixMatch {
                    prefix: network(&mut random),
                    operator: operators[random(if index % 7 == 0 { 6 } else { 4 }) as usize],
                    min_length: (random(3) == 0).then(|| random(30) as u8),
                    max_length: (random(3) == 0).then(|| random(33) as u8),
                });
                Rule {
                    prefixes: prefixes.collect(),
                    operations: vec![Operation::SetMed(index as u32)],
                    ..Rule::new(Verdict::Accept)
                }
            })
            // All but a few have prefixes, or the first without would hide the others.
            .filter(|rule| !rule.prefixes.is_empty() || rule.operations[0] == Operation::SetMed(25))
            .collect();
        let filter = Filter::new(rules.clone(), Verdict::Reject);
        for _ in 0..50 {
            let route = network(&mut random);
            let expected = rules.iter().find(|rule| rule.covers(&route));
            let found = filter.decide_once(&subject(&PathAttributes::default()), &route);
            assert_eq!(found, expected.map(|rule| &rule.operations[..]), "{route}");
        }
    }
}

#[test]
fn a_long_list_costs_little() {
    let networks = (0..50_000_u32)
        .map(|i| PrefixMatch::exactly(Prefix::v4((0x0a00_0000 + (i << 8)).into(), 24).unwrap()));
    let filter = Filter::accept_only(networks.collect());
    let attributes = PathAttributes::default();
    let prepared = filter.prepare(&subject(&attributes));
    let start = std::time::Instant::now();
    for i in 0..100_000_u32 {
        let route = Prefix::v4((0x0a00_0000 + (i << 8)).into(), 24).unwrap();
        assert_eq!(filter.decide(&prepared, &route).is_some(), i < 50_000);
    }
    // A walk over the list would take minutes.
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn equal_contents_are_equal_filters() {
    let filter = || Filter::accept_only(vec![PrefixMatch::within(prefix("10.0.0.0/8"))]);
    assert_eq!(filter(), filter());
    assert_ne!(filter(), Filter::accept_all());
    let text = serde_json::to_string(&filter()).unwrap();
    assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter());
}
