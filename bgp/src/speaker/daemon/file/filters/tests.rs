//! Filters as a file has them: what they mean, and what is wrong with those that are refused.

use serde_json::{Value, json};

use super::*;

/// The filter of one rule with these fields; `action` is Accept unless they say otherwise.
fn filter(fields: Value) -> Result<Filter, String> {
    let lists = json!({
        "pods": ["10.0.0.0/8", {"cidr": "192.168.0.0/16", "prefixLength": {"min": 24, "max": 24}}],
        "none": [],
    });
    let lists: PrefixLists = serde_json::from_value(lists).unwrap();
    let mut rule = json!({"action": "Accept"});
    let object = rule.as_object_mut().unwrap();
    object.extend(fields.as_object().unwrap().clone());
    let entry: FilterEntry =
        serde_json::from_value(json!({ "rules": [rule] })).map_err(|error| error.to_string())?;
    entry
        .filter(&lists)
        .map_err(|(_, (field, problem))| format!("{field}: {problem}"))
}

#[test]
fn every_field_arrives() {
    let rule = |fields| filter(fields).unwrap().rules()[0].clone();
    let conditions = rule(json!({
        "communities": ["64512:*", "no-export"],
        "largeCommunities": {"all": ["1:2:3"], "none": ["1:2:*"]},
        "extendedCommunities": ["rt:64512:*"],
        "asPathPrefix": [64512, 64513],
        "asPath": "^64512 .* 65000$",
        "originAs": [65000, "65010-65020"],
        "asPathLength": {"max": 5},
        "peerType": "eBGP",
        "source": "RemotePeers",
        "nextHop": ["10.0.0.1", "10.1.0.0/16"],
        "metric": 100,
    }))
    .conditions;
    assert_eq!(conditions.communities.any.len(), 2);
    assert_eq!(conditions.large_communities.all.len(), 1);
    assert_eq!(conditions.large_communities.none.len(), 1);
    assert_eq!(conditions.extended_communities.any.len(), 1);
    assert_eq!(conditions.as_path_prefix, [Asn(64512), Asn(64513)]);
    assert!(conditions.as_path.is_some());
    assert_eq!(conditions.origin_as.len(), 2);
    assert_eq!(conditions.max_as_path_length, Some(5));
    assert_eq!(conditions.peer_type, Some(PeerType::External));
    assert_eq!(conditions.source, Some(RouteSource::RemotePeers));
    assert_eq!(conditions.next_hop[0].to_string(), "10.0.0.1/32");
    assert_eq!(conditions.metric, Some(100));

    let operations = rule(json!({
        "setLocalPref": 1, "setMed": 2, "setMetric": 3,
        "setCommunities": ["1:1"], "removeCommunities": ["2:*"], "addCommunities": ["3:3"],
        "setLargeCommunities": [], "removeLargeCommunities": ["1:*:*"], "addLargeCommunities": ["1:1:1"],
        "setExtendedCommunities": [], "removeExtendedCommunities": ["rt:*"], "addExtendedCommunities": ["rt:1:1"],
        "prepend": {"count": 3},
    }))
    .operations;
    assert_eq!(operations.len(), 13);
    assert_eq!(
        operations.last(),
        Some(&Operation::Prepend {
            asn: None,
            count: 3
        })
    );
}

#[test]
fn prefixes_in_all_their_ways() {
    for (fields, route, expected) in [
        (json!({}), "192.0.2.0/24", true),
        (json!({"cidr": "10.0.0.0/8"}), "10.1.0.0/16", true),
        (
            json!({"cidr": "10.0.0.0/8", "matchOperator": "Equal"}),
            "10.1.0.0/16",
            false,
        ),
        (
            json!({"cidr": "10.0.0.0/8", "matchOperator": "NotIn"}),
            "11.0.0.0/16",
            true,
        ),
        (json!({"prefixLength": {"max": 24}}), "192.0.2.0/24", true),
        (json!({"prefixLength": {"max": 24}}), "192.0.2.0/25", false),
        (json!({"prefixLength": {"max": 64}}), "192.0.2.1/32", true),
        (json!({"prefixLength": {"max": 64}}), "2001:db8::/64", true),
        (json!({"prefixLength": {"min": 33}}), "192.0.2.1/32", false),
        (json!({"prefixLength": {"min": 33}}), "2001:db8::/64", true),
        (
            json!({"prefixes": ["10.0.0.0/8", "fd00::/8"]}),
            "fd00:1::/64",
            true,
        ),
        (json!({"prefixes": ["10.0.0.0/8"]}), "192.0.2.0/24", false),
        (json!({"prefixList": "pods"}), "192.168.1.0/24", true),
        (json!({"prefixList": "pods"}), "192.168.1.0/25", false),
        (json!({"prefixList": "pods"}), "10.1.0.0/25", true),
    ] {
        let filter = filter(fields.clone()).unwrap();
        let passes = filter.decide_plain(&route.parse().unwrap()).is_some();
        assert_eq!(passes, expected, "{fields} {route}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (fields, expected) in [
        (
            json!({"cidr": "10.0.0.0/8", "prefixLength": {"min": 9, "max": 8}}),
            "prefixLength: min is above max",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "prefixLength": {"max": 33}}),
            "prefixLength: 33 is above 32",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "prefixLength": {"max": 7}}),
            "prefixLength: max is below the length of 10.0.0.0/8",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "prefixList": "pods"}),
            "cidr: only one of",
        ),
        (json!({"matchOperator": "In"}), "matchOperator: needs cidr"),
        (
            json!({"prefixList": "pods", "prefixLength": {"max": 24}}),
            "prefixLength: needs cidr",
        ),
        (
            json!({"prefixList": "nodes"}),
            "prefixList: no list named \"nodes\"",
        ),
        (
            json!({"prefixList": "none"}),
            "prefixList: \"none\" is empty",
        ),
        (
            json!({"prefixes": [{"cidr": "10.0.0.0/8", "prefixLength": {"max": 40}}]}),
            "prefixes: 40 is above 32",
        ),
        (json!({"prefixes": ["10.0.0.0"]}), "10.0.0.0"),
        (
            json!({"asPathLength": {"min": 2, "max": 1}}),
            "asPathLength: min is above max",
        ),
        (json!({"asPath": "^[0-9]+$"}), "for any AS write ."),
        (
            json!({"communities": ["65536:1"]}),
            "community pattern \"65536:1\"",
        ),
        (json!({"communities": {"some": []}}), "unknown field `some`"),
        (
            json!({"communities": "1:1"}),
            "a list of communities, or an object with any, all and none",
        ),
        (json!({"originAs": ["9-1"]}), "the lower number comes first"),
        (
            json!({"nextHop": ["x"]}),
            "neither an IP address nor a network",
        ),
        (json!({"peerType": "foo"}), "unknown variant `foo`"),
        (
            json!({"prepend": {"count": 33}}),
            "prepend: count: 33 is not 1 to 32",
        ),
        (
            json!({"prepend": {"count": 0}}),
            "prepend: count: 0 is not 1 to 32",
        ),
        (json!({"prepend": {"asn": 0}}), "prepend: asn: AS 0"),
        (
            json!({"action": "Reject", "setMed": 5}),
            "action: Reject changes nothing",
        ),
        (json!({"communites": []}), "unknown field `communites`"),
    ] {
        let error = filter(fields).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
