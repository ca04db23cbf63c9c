//! The text `nft -f` reads.
//!
//! Names come from the compiler and interface names have been checked by it, so nothing here can break out of its place;
//! interface names are quoted all the same, since they may look like keywords or numbers.

use std::fmt::{self, Write};

use crate::{
    port::Protocol,
    ruleset::{
        Action, Command, ConnectionState, Elements, Family, Field, Hook, Key, KeyType, MARK_MASK,
        Match, Report, Rule, Ruleset, TABLE, Transaction, Value, ValueType, Verdict,
    },
};

/// A transaction as input for `nft -f -`, one command a line.
pub fn transaction(transaction: &Transaction) -> String {
    let mut text = String::new();
    for command in &transaction.commands {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{}", Line(command));
    }
    text
}

/// A ruleset as input for `nft -f -`: the transaction that replaces the table by it.
pub fn ruleset(ruleset: &Ruleset) -> String {
    transaction(&ruleset.full())
}

struct Line<'a>(&'a Command);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Command::AddTable => write!(f, "add table {TABLE}"),
            Command::DeleteTable => write!(f, "delete table {TABLE}"),
            Command::AddSet(name, key) => {
                write!(
                    f,
                    "add set {TABLE} {name} {{ type {};{} }}",
                    key_type(*key),
                    flags(*key, key.capacity())
                )
            }
            Command::AddMap(name, key, value, room) => {
                let (key_type, value_type) = (key_type(*key), value_type(*value));
                write!(
                    f,
                    "add map {TABLE} {name} {{ type {key_type} : {value_type};{} }}",
                    flags(*key, *room)
                )
            }
            Command::AddChain(name, None) => write!(f, "add chain {TABLE} {name}"),
            Command::AddChain(name, Some(hook)) => {
                write!(
                    f,
                    "add chain {TABLE} {name} {{ {}; policy accept; }}",
                    self::hook(*hook)
                )
            }
            Command::AddRule(chain, rule) => {
                write!(f, "add rule {TABLE} {chain}{}", RuleText(rule))
            }
            Command::FlushChain(name) => write!(f, "flush chain {TABLE} {name}"),
            Command::AddElements(name, elements) => write_elements(f, "add", name, elements, true),
            // A key names the element; its value need not be told.
            Command::DeleteElements(name, elements) => {
                write_elements(f, "delete", name, elements, false)
            }
            Command::DeleteSet(name) => write!(f, "delete set {TABLE} {name}"),
            Command::DeleteMap(name) => write!(f, "delete map {TABLE} {name}"),
            Command::DeleteChain(name) => write!(f, "delete chain {TABLE} {name}"),
        }
    }
}

fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::PreroutingRaw => "type filter hook prerouting priority -300",
        Hook::PreroutingRawHost => "type filter hook prerouting priority -299",
        Hook::PreroutingMangle => "type filter hook prerouting priority -150",
        Hook::Forward => "type filter hook forward priority 0",
        Hook::ForwardHost => "type filter hook forward priority -10",
        Hook::Input => "type filter hook input priority 0",
        Hook::OutputRaw => "type filter hook output priority -300",
        Hook::Output => "type filter hook output priority 0",
        Hook::PostroutingNat => "type nat hook postrouting priority 100",
    }
}

pub(super) fn address_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}

/// The parts of the key, as nft names their types. An identity is kept where a traffic class would be.
pub(super) fn key_parts(key: KeyType) -> Vec<&'static str> {
    match key {
        KeyType::Interface => vec!["ifname"],
        KeyType::InterfacePair => vec!["ifname", "ifname"],
        KeyType::Device => vec!["iface_index"],
        KeyType::DeviceAddress(family) => vec!["iface_index", address_type(family)],
        KeyType::Address(family) | KeyType::Range(family) => vec![address_type(family)],
        KeyType::Identity => vec!["classid"],
        KeyType::IcmpV6Type => vec!["icmpv6_type"],
    }
}

fn key_type(key: KeyType) -> String {
    key_parts(key).join(" . ")
}

pub(super) fn value_type(value: ValueType) -> &'static str {
    match value {
        ValueType::Identity => "classid",
        ValueType::Verdict => "verdict",
    }
}

fn flags(key: KeyType, room: Option<u32>) -> String {
    match (key, room) {
        (KeyType::Range(_), _) => " flags interval;".to_owned(),
        (_, Some(size)) => format!(" size {size};"),
        (_, None) => String::new(),
    }
}

fn write_elements(
    f: &mut fmt::Formatter<'_>,
    verb: &str,
    name: &str,
    elements: &Elements,
    values: bool,
) -> fmt::Result {
    write!(f, "{verb} element {TABLE} {name} {{ ")?;
    match elements {
        Elements::Set(keys) => {
            for (index, key) in keys.iter().enumerate() {
                separate(f, index)?;
                write_key(f, key)?;
            }
        }
        Elements::Map(pairs) => {
            for (index, (key, value)) in pairs.iter().enumerate() {
                separate(f, index)?;
                write_key(f, key)?;
                match value {
                    _ if !values => {}
                    Value::Identity(identity) => write!(f, " : {}", class_id(*identity))?,
                    Value::Verdict(verdict) => write!(f, " : {}", verdict_text(verdict))?,
                }
            }
        }
    }
    f.write_str(" }")
}

fn separate(f: &mut fmt::Formatter<'_>, index: usize) -> fmt::Result {
    f.write_str(if index == 0 { "" } else { ", " })
}

/// An identity as nft writes a traffic class: two hexadecimal halves.
pub(super) fn class_id(identity: u32) -> String {
    format!("{:x}:{:x}", identity >> 16, identity & 0xffff)
}

fn write_key(f: &mut fmt::Formatter<'_>, key: &Key) -> fmt::Result {
    match key {
        Key::Interface(name) => write!(f, "\"{name}\""),
        Key::InterfacePair(both) => write!(f, "\"{}\" . \"{}\"", both[0], both[1]),
        Key::Device(number) => write!(f, "{number}"),
        Key::DeviceAddress(both) => write!(f, "{} . {}", both.0, both.1),
        Key::Address(address) => write!(f, "{address}"),
        Key::Range(ends) if ends.0 == ends.1 => write!(f, "{}", ends.0),
        Key::Range(ends) => write!(f, "{}-{}", ends.0, ends.1),
        Key::Identity(identity) => f.write_str(&class_id(*identity)),
        Key::IcmpV6Type(number) => write!(f, "{number}"),
    }
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

struct RuleText<'a>(&'a Rule);

impl fmt::Display for RuleText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.0.matches {
            f.write_str(" ")?;
            write_match(f, condition)?;
        }
        match &self.0.action {
            Action::Verdict(verdict) => write!(f, " {}", verdict_text(verdict)),
            Action::VerdictMap(keys, map) => write!(f, " {} vmap @{map}", fields(keys)),
            Action::Identify(key, map) => {
                let field = field(*key);
                write!(f, " meta priority set {field} map @{map} return")
            }
            Action::ClearIdentity => f.write_str(" meta priority set 0:0"),
            Action::SetMark(mark) => write!(
                f,
                " ct mark set ct mark and {:#010x} or {:#010x}",
                !MARK_MASK,
                u32::from(*mark) << 16
            ),
            Action::Count => f.write_str(" counter"),
            Action::Log(report) => write!(
                f,
                " limit rate {}/second burst {} packets log prefix \"{report}\" group {} snaplen {}",
                Report::RATE,
                Report::BURST,
                Report::GROUP,
                Report::SNAPLEN,
            ),
            Action::NoTrack => f.write_str(" notrack"),
            Action::Masquerade => f.write_str(" masquerade fully-random"),
        }
    }
}

fn write_match(f: &mut fmt::Formatter<'_>, condition: &Match) -> fmt::Result {
    match condition {
        Match::Connection(states) => {
            let names: Vec<_> = states
                .iter()
                .map(|state| connection_state(*state))
                .collect();
            write!(f, "ct state {}", names.join(","))
        }
        Match::Reply => f.write_str("ct direction reply"),
        Match::Mark(mark) => write!(
            f,
            "ct mark and {MARK_MASK:#010x} == {:#010x}",
            u32::from(*mark) << 16
        ),
        Match::InterfacePrefix(key, prefix) => write!(f, "{} \"{prefix}*\"", field(*key)),
        Match::NotInterfacePrefix(key, prefix) => write!(f, "{} != \"{prefix}*\"", field(*key)),
        Match::In(keys, set) => write!(f, "{} @{set}", fields(keys)),
        Match::NotIn(keys, set) => write!(f, "{} != @{set}", fields(keys)),
        Match::Network(key, network) => write!(f, "{} {network}", field(*key)),
        Match::FromNode => f.write_str("fib saddr type local"),
        Match::Protocol(number) => write!(f, "meta l4proto {number}"),
        Match::ProtocolRange(range) => write!(f, "meta l4proto {range}"),
        Match::Family(family) => write!(f, "meta nfproto {}", nfproto(*family)),
        Match::Port(protocol, range) => write!(f, "{} dport {range}", transport(*protocol)),
        Match::SourcePort(protocol, range) => {
            write!(f, "{} sport {range}", transport(*protocol))
        }
        Match::IcmpType(family, range) => write!(f, "{} type {range}", icmp(*family)),
        Match::IcmpCode(family, range) => write!(f, "{} code {range}", icmp(*family)),
    }
}

pub(super) fn connection_state(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Established => "established",
        ConnectionState::Related => "related",
        ConnectionState::Invalid => "invalid",
        ConnectionState::Untracked => "untracked",
    }
}

pub(super) fn nfproto(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

pub(super) fn icmp(family: Family) -> &'static str {
    match family {
        Family::V4 => "icmp",
        Family::V6 => "icmpv6",
    }
}

pub(super) fn transport(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn fields(keys: &[Field]) -> String {
    let texts: Vec<_> = keys.iter().map(|key| field(*key)).collect();
    texts.join(" . ")
}

fn field(field: Field) -> &'static str {
    match field {
        Field::InInterface => "iifname",
        Field::OutInterface => "oifname",
        Field::InDevice => "iif",
        Field::OutDevice => "oif",
        Field::Source(Family::V4) => "ip saddr",
        Field::Source(Family::V6) => "ip6 saddr",
        Field::Destination(Family::V4) => "ip daddr",
        Field::Destination(Family::V6) => "ip6 daddr",
        Field::IcmpV6Type => "icmpv6 type",
        Field::Identity => "meta priority",
    }
}
