//! The JSON `nft -j -f` reads, for tools. It says the same as [`super::text`].

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use super::text::{class_id, connection_state, icmp, key_parts, nfproto, transport, value_type};
use crate::port::PortRange;
use crate::ruleset::{
    Action, Command, Elements, Family, Field, Hook, Key, KeyType, MARK_MASK, Match, Report, Rule,
    Ruleset, Transaction, Value, Verdict,
};

const FAMILY: &str = "inet";
const TABLE: &str = "margay";

/// A transaction as a document for `nft -j -f -`.
pub fn transaction(transaction: &Transaction) -> Json {
    let commands: Vec<Json> = transaction.commands.iter().map(command).collect();
    json!({ "nftables": commands })
}

/// A ruleset as a document for `nft -j -f -`: the transaction that replaces the table by it.
pub fn ruleset(ruleset: &Ruleset) -> Json {
    transaction(&ruleset.full())
}

fn command(command: &Command) -> Json {
    match command {
        Command::AddTable => json!({"add": {"table": {"family": FAMILY, "name": TABLE}}}),
        Command::DeleteTable => json!({"delete": {"table": {"family": FAMILY, "name": TABLE}}}),
        Command::AddSet(name, key) => json!({"add": {"set": set(name, *key)}}),
        Command::AddMap(name, key, value, room) => {
            let mut map = set(name, *key);
            if let Some(room) = room {
                map["size"] = json!(room);
            }
            map["map"] = json!(value_type(*value));
            json!({"add": {"map": map}})
        }
        Command::AddChain(name, hook) => json!({"add": {"chain": chain(name, *hook)}}),
        Command::AddRule(name, rule) => json!({"add": {"rule": {
            "family": FAMILY, "table": TABLE, "chain": name, "expr": expressions(rule),
        }}}),
        Command::FlushChain(name) => json!({"flush": {"chain": named(name)}}),
        Command::AddElements(name, elements) => {
            json!({"add": {"element": self::elements(name, elements, true)}})
        }
        Command::DeleteElements(name, elements) => {
            json!({"delete": {"element": self::elements(name, elements, false)}})
        }
        Command::DeleteSet(name) => json!({"delete": {"set": named(name)}}),
        Command::DeleteMap(name) => json!({"delete": {"map": named(name)}}),
        Command::DeleteChain(name) => json!({"delete": {"chain": named(name)}}),
    }
}

fn named(name: &str) -> Json {
    json!({"family": FAMILY, "table": TABLE, "name": name})
}

fn set(name: &str, key: KeyType) -> Json {
    let mut set = named(name);
    let parts = key_parts(key);
    set["type"] = match parts.as_slice() {
        [single] => json!(single),
        several => json!(several),
    };
    if matches!(key, KeyType::Range(_)) {
        set["flags"] = json!(["interval"]);
    }
    if let Some(size) = key.capacity() {
        set["size"] = json!(size);
    }
    set
}

fn chain(name: &str, hook: Option<Hook>) -> Json {
    let mut chain = named(name);
    if let Some(hook) = hook {
        let (kind, hook, priority) = match hook {
            Hook::PreroutingRaw => ("filter", "prerouting", -300),
            Hook::PreroutingRawHost => ("filter", "prerouting", -299),
            Hook::PreroutingMangle => ("filter", "prerouting", -150),
            Hook::Forward => ("filter", "forward", 0),
            Hook::ForwardHost => ("filter", "forward", -10),
            Hook::Input => ("filter", "input", 0),
            Hook::OutputRaw => ("filter", "output", -300),
            Hook::Output => ("filter", "output", 0),
            Hook::PostroutingNat => ("nat", "postrouting", 100),
        };
        chain["type"] = json!(kind);
        chain["hook"] = json!(hook);
        chain["prio"] = json!(priority);
        chain["policy"] = json!("accept");
    }
    chain
}

fn elements(name: &str, elements: &Elements, values: bool) -> Json {
    let list: Vec<Json> = match elements {
        Elements::Set(keys) => keys.iter().map(key).collect(),
        Elements::Map(pairs) if values => pairs
            .iter()
            .map(|(k, v)| json!([key(k), value(v)]))
            .collect(),
        Elements::Map(pairs) => pairs.keys().map(key).collect(),
    };
    let mut element = named(name);
    element["elem"] = json!(list);
    element
}

fn key(key: &Key) -> Json {
    match key {
        Key::Interface(name) => json!(name),
        Key::InterfacePair(both) => json!({"concat": both}),
        Key::Device(number) => json!(number),
        Key::DeviceAddress(both) => json!({"concat": [both.0, both.1]}),
        Key::Address(address) => json!(address),
        Key::Range(ends) => range(ends.0, ends.1),
        Key::Identity(identity) => json!(class_id(*identity)),
        Key::IcmpV6Type(number) => json!(number),
    }
}

fn range(first: IpAddr, last: IpAddr) -> Json {
    if first == last {
        return json!(first);
    }
    json!({"range": [first, last]})
}

fn value(value: &Value) -> Json {
    match value {
        Value::Identity(identity) => json!(class_id(*identity)),
        Value::Verdict(verdict) => self::verdict(verdict),
    }
}

fn verdict(verdict: &Verdict) -> Json {
    match verdict {
        Verdict::Accept => json!({"accept": null}),
        Verdict::Drop => json!({"drop": null}),
        Verdict::Return => json!({"return": null}),
        Verdict::Jump(chain) => json!({"jump": {"target": chain}}),
        Verdict::Goto(chain) => json!({"goto": {"target": chain}}),
    }
}

fn expressions(rule: &Rule) -> Vec<Json> {
    let mut list: Vec<Json> = rule.matches.iter().map(condition).collect();
    if let Action::Log(_) = rule.action {
        list.push(json!({"limit": {
            "rate": Report::RATE, "per": "second", "burst": Report::BURST, "burst_unit": "packets",
        }}));
    }
    list.push(match &rule.action {
        Action::Verdict(verdict) => self::verdict(verdict),
        Action::VerdictMap(keys, map) => {
            json!({"vmap": {"key": fields(keys), "data": format!("@{map}")}})
        }
        Action::Identify(key, map) => json!({"mangle": {
            "key": field(Field::Identity),
            "value": {"map": {"key": field(*key), "data": format!("@{map}")}},
        }}),
        Action::ClearIdentity => {
            json!({"mangle": {"key": field(Field::Identity), "value": class_id(0)}})
        }
        Action::SetMark(mark) => {
            let others = json!({"&": [{"ct": {"key": "mark"}}, !MARK_MASK]});
            json!({"mangle": {
                "key": {"ct": {"key": "mark"}},
                "value": {"|": [others, u32::from(*mark) << 16]},
            }})
        }
        Action::Count => json!({"counter": null}),
        Action::Log(report) => json!({"log": {
            "prefix": report.to_string(), "group": Report::GROUP, "snaplen": Report::SNAPLEN,
        }}),
        Action::NoTrack => json!({"notrack": null}),
        Action::Masquerade => json!({"masquerade": {"flags": "fully-random"}}),
    });
    if let Action::Identify(..) = rule.action {
        list.push(verdict(&Verdict::Return));
    }
    list
}

fn condition(condition: &Match) -> Json {
    let compare = |op: &str, left: Json, right: Json| json!({"match": {"op": op, "left": left, "right": right}});
    match condition {
        Match::Connection(states) => {
            let names: Vec<_> = states
                .iter()
                .map(|state| connection_state(*state))
                .collect();
            compare("in", json!({"ct": {"key": "state"}}), json!(names))
        }
        Match::Reply => compare("==", json!({"ct": {"key": "direction"}}), json!("reply")),
        Match::Mark(mark) => {
            let ours = json!({"&": [{"ct": {"key": "mark"}}, MARK_MASK]});
            compare("==", ours, json!(u32::from(*mark) << 16))
        }
        Match::InterfacePrefix(key, prefix) => {
            compare("==", field(*key), json!(format!("{prefix}*")))
        }
        Match::NotInterfacePrefix(key, prefix) => {
            compare("!=", field(*key), json!(format!("{prefix}*")))
        }
        Match::In(keys, set) => compare("==", fields(keys), json!(format!("@{set}"))),
        Match::NotIn(keys, set) => compare("!=", fields(keys), json!(format!("@{set}"))),
        Match::Network(key, network) => {
            let prefix = json!({"prefix": {"addr": network.network(), "len": network.prefix()}});
            compare("==", field(*key), prefix)
        }
        Match::FromNode => compare(
            "==",
            json!({"fib": {"result": "type", "flags": ["saddr"]}}),
            json!("local"),
        ),
        Match::Protocol(number) => {
            compare("==", json!({"meta": {"key": "l4proto"}}), json!(number))
        }
        Match::ProtocolRange(range) => {
            compare("==", json!({"meta": {"key": "l4proto"}}), numbers(*range))
        }
        Match::Family(family) => compare(
            "==",
            json!({"meta": {"key": "nfproto"}}),
            json!(nfproto(*family)),
        ),
        Match::Port(protocol, range) => compare(
            "==",
            payload(transport(*protocol), "dport"),
            numbers(*range),
        ),
        Match::SourcePort(protocol, range) => compare(
            "==",
            payload(transport(*protocol), "sport"),
            numbers(*range),
        ),
        Match::IcmpType(family, range) => {
            compare("==", payload(icmp(*family), "type"), numbers(*range))
        }
        Match::IcmpCode(family, range) => {
            compare("==", payload(icmp(*family), "code"), numbers(*range))
        }
    }
}

fn numbers(range: PortRange) -> Json {
    if range.first() == range.last() {
        return json!(range.first());
    }
    json!({"range": [range.first(), range.last()]})
}

fn fields(keys: &[Field]) -> Json {
    match keys {
        [single] => field(*single),
        several => json!({"concat": several.iter().map(|key| field(*key)).collect::<Vec<_>>()}),
    }
}

fn payload(protocol: &str, field: &str) -> Json {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn field(field: Field) -> Json {
    let header = |family: Family| match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    match field {
        Field::InInterface => json!({"meta": {"key": "iifname"}}),
        Field::OutInterface => json!({"meta": {"key": "oifname"}}),
        Field::InDevice => json!({"meta": {"key": "iif"}}),
        Field::OutDevice => json!({"meta": {"key": "oif"}}),
        Field::Source(family) => payload(header(family), "saddr"),
        Field::Destination(family) => payload(header(family), "daddr"),
        Field::IcmpV6Type => payload("icmpv6", "type"),
        Field::Identity => json!({"meta": {"key": "priority"}}),
    }
}
