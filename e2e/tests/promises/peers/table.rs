//! BGPFilters and what passes with them. What the letters stand for is in [`super::filters`].
//!
//! Without any rule `B S T U p q` are given and `a c e` are taken: the node's own routes, and the
//! pool's space.

use serde_json::{Value, json};

/// One edit of the BGPFilters, and what passes then.
pub struct Case {
    pub name: &'static str,
    /// The first BGPFilter of the session.
    pub first: Value,
    /// The one behind it.
    pub second: Value,
    /// What the router has of the node: letters, each with what it has gained on the way.
    pub given: &'static str,
    /// What the node has accepted of the router.
    pub taken: &'static str,
}

const OWN: &str = "B S T U p q";
const POOL: &str = "a c e";

fn case(name: &'static str, first: Value, given: &'static str, taken: &'static str) -> Case {
    let second = json!({});
    Case {
        name,
        first,
        second,
        given,
        taken,
    }
}

fn both(
    name: &'static str,
    (first, second): (Value, Value),
    given: &'static str,
    taken: &'static str,
) -> Case {
    Case {
        name,
        first,
        second,
        given,
        taken,
    }
}

pub fn all() -> Vec<Case> {
    let mut cases = plain();
    cases.extend(networks());
    cases.extend(lengths());
    cases.extend(attributes());
    cases.extend(operations());
    cases.extend(orders());
    cases
}

fn plain() -> Vec<Case> {
    vec![
        case("nothing", json!({}), OWN, POOL),
        case(
            "no IPv4 is given",
            json!({"exportV4": [{"action": "Reject"}]}),
            "p q",
            POOL,
        ),
        case(
            "no IPv6 is given",
            json!({"exportV6": [{"action": "Reject"}]}),
            "B S T U",
            POOL,
        ),
        case(
            "no IPv4 is taken",
            json!({"importV4": [{"action": "Reject"}]}),
            OWN,
            "",
        ),
        case(
            "no IPv6 is taken",
            json!({"importV6": [{"action": "Reject"}]}),
            OWN,
            POOL,
        ),
        case(
            "all IPv4 is given, other nodes' too",
            json!({"exportV4": [{"action": "Accept"}]}),
            "B R S T U p q",
            POOL,
        ),
        case(
            "all IPv6 is given",
            json!({"exportV6": [{"action": "Accept"}]}),
            OWN,
            POOL,
        ),
        case(
            "all IPv4 is taken",
            json!({"importV4": [{"action": "Accept"}]}),
            OWN,
            "a c d e o w",
        ),
        case(
            "all IPv6 is taken",
            json!({"importV6": [{"action": "Accept"}]}),
            OWN,
            "a c e 0 1 2",
        ),
        case(
            "nothing passes",
            json!({
            "exportV4": [{"action": "Reject"}], "exportV6": [{"action": "Reject"}],
            "importV4": [{"action": "Reject"}], "importV6": [{"action": "Reject"}]}),
            "",
            "",
        ),
    ]
}

fn networks() -> Vec<Case> {
    let import = |action: &str, operator: &str, cidr: &str| json!({"importV4": [{"action": action, "matchOperator": operator, "cidr": cidr}]});
    let export = |action: &str, operator: &str, cidr: &str| json!({"exportV4": [{"action": action, "matchOperator": operator, "cidr": cidr}]});
    vec![
        case(
            "the default route beside the rest",
            import("Accept", "Equal", "0.0.0.0/0"),
            OWN,
            "a c d e",
        ),
        case(
            "the default route alone",
            json!({"importV4": [
            {"action": "Accept", "matchOperator": "Equal", "cidr": "0.0.0.0/0"}, {"action": "Reject"}]}),
            OWN,
            "d",
        ),
        case(
            "all but the default route",
            import("Accept", "NotEqual", "0.0.0.0/0"),
            OWN,
            "a c e o w",
        ),
        case(
            "a network and what is within",
            import("Accept", "In", "192.168.0.0/16"),
            OWN,
            "a c e o w",
        ),
        case(
            "what is not within the pool",
            import("Accept", "NotIn", "10.244.0.0/16"),
            OWN,
            "a c d e o w",
        ),
        case(
            "not that one",
            import("Reject", "Equal", "10.244.200.0/24"),
            OWN,
            "c e",
        ),
        case(
            "not within that one",
            import("Reject", "In", "10.244.202.0/24"),
            OWN,
            "a c",
        ),
        case(
            "none but that one",
            import("Reject", "NotEqual", "10.244.201.0/24"),
            OWN,
            "c",
        ),
        case(
            "none without that one",
            import("Reject", "NotIn", "10.244.200.0/23"),
            OWN,
            "a c",
        ),
        case(
            "a larger network is not it",
            import("Reject", "Equal", "10.244.0.0/16"),
            OWN,
            POOL,
        ),
        case(
            "no Service is given",
            export("Reject", "NotIn", "10.244.0.0/16"),
            "B p q",
            POOL,
        ),
        case(
            "no pod is given",
            export("Reject", "In", "10.244.0.0/16"),
            "S T U p q",
            POOL,
        ),
        case(
            "one Service range is not given",
            export("Reject", "Equal", "10.96.0.0/16"),
            "B T U p q",
            POOL,
        ),
        case(
            "one Service range alone is given",
            export("Reject", "NotEqual", "10.96.0.0/16"),
            "S p q",
            POOL,
        ),
        case(
            "what is not ours in the pool is given, too",
            export("Accept", "In", "10.244.0.0/16"),
            "B R S T U p q",
            POOL,
        ),
        case(
            "one IPv6 network is given",
            json!({"exportV6": [
            {"action": "Accept", "matchOperator": "Equal", "cidr": "fd00:96::/112"}, {"action": "Reject"}]}),
            "B S T U p",
            POOL,
        ),
        case(
            "IPv6 within a network is taken",
            json!({"importV6": [
            {"action": "Accept", "matchOperator": "In", "cidr": "2001:db8::/32"}]}),
            OWN,
            "a c e 1 2",
        ),
        case(
            "IPv6 without a network is taken",
            json!({"importV6": [
            {"action": "Accept", "matchOperator": "NotIn", "cidr": "2001:db8:1::/48"}]}),
            OWN,
            "a c e 0 2",
        ),
    ]
}

fn lengths() -> Vec<Case> {
    let within = |action: &str, cidr: &str, lengths: Value| json!({"action": action, "matchOperator": "In", "cidr": cidr, "prefixLength": lengths});
    vec![
        case(
            "nothing longer than /24 is taken",
            json!({"importV4": [
            within("Reject", "0.0.0.0/0", json!({"min": 25}))]}),
            OWN,
            "a c",
        ),
        case(
            "nothing shorter than /25 is taken",
            json!({"importV4": [
            within("Reject", "0.0.0.0/0", json!({"max": 24}))]}),
            OWN,
            "e",
        ),
        case(
            "from /1 to /24 anything is taken",
            json!({"importV4": [
            within("Accept", "0.0.0.0/0", json!({"min": 1, "max": 24})), {"action": "Reject"}]}),
            OWN,
            "a c o w",
        ),
        case(
            "blocks alone are given",
            json!({"exportV4": [
            within("Accept", "10.244.0.0/16", json!({"min": 26, "max": 26})), {"action": "Reject"}]}),
            "B R p q",
            POOL,
        ),
        case(
            "no IPv6 longer than /64 is given",
            json!({"exportV6": [
            within("Reject", "::/0", json!({"min": 65}))]}),
            "B S T U q",
            POOL,
        ),
    ]
}

fn attributes() -> Vec<Case> {
    let import =
        |what: &str, value: Value| json!({"importV4": [{"action": "Accept", what: value}]});
    vec![
        case(
            "a community",
            import("communities", json!({"values": ["65001:9"]})),
            OWN,
            "a c e w",
        ),
        case(
            "a community that nothing has",
            import("communities", json!({"values": ["65001:8"]})),
            OWN,
            POOL,
        ),
        case(
            "two communities, both of them",
            json!({"importV4": [
            {"action": "Reject", "communities": {"values": ["65001:1", "65001:9"]}}]}),
            OWN,
            POOL,
        ),
        case(
            "a large community",
            json!({"importV4": [
            {"action": "Reject", "communities": {"values": ["65001:2:3"]}}]}),
            OWN,
            "a c",
        ),
        case(
            "a community on the way out",
            json!({"exportV4": [
            {"action": "Reject", "communities": {"values": ["64512:100"]}}]}),
            "B S U p q",
            POOL,
        ),
        case(
            "an IPv6 community",
            json!({"importV6": [
            {"action": "Accept", "communities": {"values": ["65001:6"]}}]}),
            OWN,
            "a c e 2",
        ),
        case(
            "the first AS",
            json!({"importV4": [{"action": "Reject", "asPathPrefix": [65001]}]}),
            OWN,
            "",
        ),
        case(
            "the first two ASes",
            json!({"importV4": [
            {"action": "Reject", "asPathPrefix": [65001, "65010"]}]}),
            OWN,
            "a e",
        ),
        case(
            "an AS that is not first",
            json!({"importV4": [
            {"action": "Reject", "asPathPrefix": [65010]}]}),
            OWN,
            POOL,
        ),
        case(
            "other nodes' routes",
            json!({"exportV4": [
            {"action": "Accept", "source": "RemotePeers", "peerType": "eBGP"}]}),
            "B R S T U p q",
            POOL,
        ),
        case(
            "own routes are not other nodes'",
            json!({"exportV4": [
            {"action": "Reject", "source": "RemotePeers"}]}),
            OWN,
            POOL,
        ),
        case(
            "a rule for sessions within the AS",
            json!({
            "exportV4": [{"action": "Reject", "peerType": "iBGP"}],
            "importV4": [{"action": "Reject", "peerType": "iBGP"}]}),
            OWN,
            POOL,
        ),
        case(
            "a rule for sessions with another AS",
            json!({
            "importV4": [{"action": "Reject", "peerType": "eBGP"}]}),
            OWN,
            "",
        ),
        case(
            "a metric that nothing has",
            json!({"importV4": [{"action": "Reject", "priority": 5}]}),
            OWN,
            POOL,
        ),
        case(
            "two conditions, both of them",
            json!({"importV4": [{
            "action": "Reject", "matchOperator": "In", "cidr": "10.244.0.0/16",
            "communities": {"values": ["65001:1"]}}]}),
            OWN,
            "c e",
        ),
    ]
}

fn operations() -> Vec<Case> {
    let at = |list: &str, cidr: &str, operations: Value| json!({list: [{"action": "Accept", "matchOperator": "Equal", "cidr": cidr, "operations": operations}]});
    vec![
        case(
            "a community is added on the way out",
            at(
                "exportV4",
                "10.96.0.0/16",
                json!([
            {"addCommunity": {"value": "64512:7"}}]),
            ),
            "B S+64512:7 T U p q",
            POOL,
        ),
        case(
            "and one to those that are there",
            at(
                "exportV4",
                "192.0.2.0/24",
                json!([
            {"addCommunity": {"value": "64512:8"}}]),
            ),
            "B S T+64512:8 U p q",
            POOL,
        ),
        case(
            "a large community",
            at(
                "exportV6",
                "fd00:96::/112",
                json!([
            {"addCommunity": {"value": "64512:7:8"}}]),
            ),
            "B S T U p+64512:7:8 q",
            POOL,
        ),
        case(
            "a longer path",
            at(
                "exportV4",
                "198.51.100.0/24",
                json!([
            {"prependASPath": {"prefix": [64512, 64513]}}]),
            ),
            "B S T U^64512,64513 p q",
            POOL,
        ),
        case(
            "a community on the way in",
            at(
                "importV4",
                "10.244.200.0/24",
                json!([
            {"addCommunity": {"value": "64512:9"}}]),
            ),
            OWN,
            "a+64512:9 c e",
        ),
        case(
            "a metric on the way in",
            at(
                "importV4",
                "10.244.201.0/24",
                json!([
            {"setPriority": {"value": 77}}]),
            ),
            OWN,
            "a c=77 e",
        ),
        case(
            "several at once",
            at(
                "importV4",
                "192.168.7.0/24",
                json!([
            {"addCommunity": {"value": "64512:9"}}, {"setPriority": {"value": 5}},
            {"addCommunity": {"value": "64512:1:2"}}]),
            ),
            OWN,
            "a c e o+64512:1:2+64512:9=5",
        ),
    ]
}

fn orders() -> Vec<Case> {
    let reject = |cidr: &str| json!({"action": "Reject", "matchOperator": "In", "cidr": cidr});
    let accept = |cidr: &str| json!({"action": "Accept", "matchOperator": "In", "cidr": cidr});
    vec![
        case(
            "the first rule that matches counts",
            json!({"importV4": [
            accept("10.244.200.0/24"), reject("10.244.0.0/16")]}),
            OWN,
            "a",
        ),
        case(
            "not the better one behind it",
            json!({"importV4": [
            reject("10.244.0.0/16"), accept("10.244.200.0/24")]}),
            OWN,
            "",
        ),
        both(
            "the second filter has what the first leaves",
            (
                json!({"importV4": [accept("192.168.7.0/24")]}),
                json!({"importV4": [reject("192.168.0.0/16"), reject("10.244.201.0/24")]}),
            ),
            OWN,
            "a e o",
        ),
        both(
            "and nothing of what it does not",
            (
                json!({"exportV4": [{"action": "Accept"}]}),
                json!({"exportV4": [{"action": "Reject"}]}),
            ),
            "B R S T U p q",
            POOL,
        ),
        both(
            "one for each way",
            (
                json!({"exportV4": [reject("10.96.0.0/16")]}),
                json!({"importV4": [reject("10.244.200.0/24")]}),
            ),
            "B T U p q",
            "c e",
        ),
        case("nothing again", json!({}), OWN, POOL),
    ]
}
