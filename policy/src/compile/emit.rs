//! The ruleset of classes and endpoints. The packet's way:
//!
//! ```text
//! prerouting (raw)  interface and own address? sent · not mgy*? accept · neighbour discovery? accept · drop
//! sent              tunnelled? drop · accept
//! forward           of this generation? accept
//!                   open, related, invalid → tracked: reply of a denied one? drop · reply? accept · related? accept
//!                                                     invalid, of a pod? drop
//!                   from-pods
//! from-pods         interface → class, or on to to-pods · not a pod's? elsewhere
//! to-pods           interface → class, or on to remember · unknown: drop · remember
//! remember          this generation has judged the connection, accept
//! elsewhere         in mgy*, so unknown: drop · interface → class, or on to remember · unknown: drop · accept
//! a class           note the peer's identity → identity → decision · else the default decision
//! a decision        tell (log, pass, staged) · each run of ports → the chain of the rule that decides
//! a rule            allows: count, on to what follows · denies: to itself? remember · count, report, the connection is
//!                   denied, drop
//! ```
//!
//! The generation is a number made of all that decides, kept in the upper half of the connection's mark by the packets
//! that pass. Where it differs, packets of open connections that go the way of the first one are judged anew, as that one
//! was; replies pass until their connection has been denied. The same rules make the same generation, so that neither a
//! restart nor a change and its undoing costs anything.
//!
//! What most packets meet comes first, and in the fewest steps: a rule's condition costs the kernel some 8 ns, an
//! interface's name 40, a set's answer 60 and more (40 from a table of fixed size). So interfaces are known by their
//! numbers where each packet asks, and what is about this node's pods is in tables of fixed size. Packets of connections
//! that this generation has judged pass by their mark alone, a new one is led by what the maps know without its
//! interfaces being asked for their names first, networks are asked only about what is no pod's address, and whether a
//! pod speaks to itself only when it would be denied that.
//!
//! What the source's egress lets through goes on to `to-pods` and so still meets the destination's ingress, also when both
//! pods are on this node; what the ingress lets through goes on to `remember`. Each chain leads to the next (`goto`): a way
//! back to `forward` for each would cost more. Locally generated traffic (the node to its pods) and local delivery (pods to
//! their own node) never pass `forward`; beside the source check they are let through. What IPVS takes in and sends out is
//! neither (`ipvs`).
//!
//! The identity is noted in the packet's priority field. nft has no way to feed one map's answer to the next lookup but
//! through a field of the packet, and the mark is not ours to overwrite: kube-proxy keeps there until postrouting what it
//! must masquerade. A pod's packets come with priority 0 (the kernel clears it between namespaces) and leave with 0; only
//! the first packet of a connection gets here.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    net::Ipv6Addr,
};

use ipnetwork::{IpNetwork, Ipv6Network};

use super::{
    INTERFACE_PREFIX,
    class::{Class, ClassKey, Member},
    host, is_apart, ports,
};
use crate::{
    decision::Decision,
    identity::AddressBook,
    model::Direction,
    numbering::{self, NOBODY},
    origin::RuleId,
    port::{PortRange, Protocol},
    ruleset::{
        Action, Chain, ConnectionState, Family, Field, Hook, Key, KeyType, LogReason, Map, Match,
        Name, Report, Rule, Ruleset, Set, Value, ValueType, Verdict,
    },
};

/// IPv4 in IP: what a pod could reach other nodes' tunnel devices with.
pub(super) const PROTOCOL_IPIP: u8 = 4;
/// The port of the VXLAN device.
pub(super) const PORT_VXLAN: u16 = 4789;

/// ICMPv6 types a pod needs before it has an address to speak from: multicast listener reports (131, 132, 143), router
/// solicitation (133), neighbour solicitation and advertisement (135, 136). Router advertisements and redirects are not
/// among them.
const DISCOVERY_TYPES: [u8; 6] = [131, 132, 133, 135, 136, 143];

pub(crate) const POD_INTERFACES: &str = "pods";
pub(crate) const FROM_PODS: &str = "from-pods";
pub(crate) const TO_PODS: &str = "to-pods";
pub(crate) const SOURCES: &str = "sources";
pub(crate) const ITSELF: &str = "itself";
const FORWARD: &str = "forward";
pub(super) const TRACKED: &str = "tracked";
pub(super) const ELSEWHERE: &str = "elsewhere";
pub(super) const DISCOVERY: &str = "discovery";
pub(crate) const SENT: &str = "sent";
pub(super) const JUDGED: &str = "judged";
const REMEMBER: &str = "remember";
/// The chain in which what policies deny ends.
pub(super) const DENIED: &str = "denied";

/// The number of an interface that is not known; nothing about it is in the table then, so that nothing passes it.
pub(crate) const UNKNOWN: u32 = 0;
/// Our part of the mark of connections that have been denied.
const DENIED_MARK: u16 = 1;
/// Our part of the mark of connections that a host endpoint's policy let pass before destination NAT.
pub(super) const EARLY_MARK: u16 = 2;
/// The lowest generation; 0 is the mark of connections that nobody has judged.
const FIRST_GENERATION: u16 = 3;

/// The table of a node without endpoints.
pub(crate) fn empty() -> Ruleset {
    let mut ruleset = emit(&[], &BTreeMap::new(), &AddressBook::default());
    emit_generation(&mut ruleset);
    ruleset
}

pub(super) fn emit(
    members: &[Member<'_>],
    classes: &BTreeMap<ClassKey, Class>,
    book: &AddressBook,
) -> Ruleset {
    let mut ruleset = Ruleset::new();
    emit_source_check(members, &mut ruleset);
    emit_dispatch(members, &class_names(classes), &mut ruleset);
    emit_identities(book, &mut ruleset);
    emit_classes(classes, &mut ruleset);
    ruleset
}

/// The chains that know the generation. They are all that changes with it. Everything that decides must be there.
pub(super) fn emit_generation(ruleset: &mut Ruleset) {
    let chains = generation_chains(Sum::of(ruleset), ruleset);
    let chains = chains.map(|(name, chain)| Some((name.to_owned(), chain?)));
    ruleset.chains.extend(chains.into_iter().flatten());
}

/// Where a packet goes on that this direction's policies let through.
pub(crate) fn onward(direction: Direction) -> Verdict {
    let next = match direction {
        Direction::Egress => TO_PODS,
        Direction::Ingress => REMEMBER,
    };
    Verdict::Goto(next.to_owned())
}

/// Whether the chain is one of those that know the generation.
pub(crate) fn knows_generation(chain: &str) -> bool {
    [FORWARD, REMEMBER, host::JUDGED, host::REMEMBER].contains(&chain)
}

/// The chains that know the generation, by name; those of host endpoints only where there are such.
pub(crate) fn generation_chains(sum: Sum, ruleset: &Ruleset) -> [(&'static str, Option<Chain>); 4] {
    let generation = sum.generation();
    let is = |states: &[ConnectionState]| Match::Connection(states.to_vec());
    let tracked = [
        ConnectionState::Established,
        ConnectionState::Related,
        ConnectionState::Invalid,
    ];
    let forward = Chain {
        hook: Some(Hook::Forward),
        rules: vec![
            Rule::new([Match::Mark(generation)], Verdict::Accept),
            Rule::new([is(&tracked)], Verdict::Jump(TRACKED.to_owned())),
            Rule::always(Verdict::Goto(FROM_PODS.to_owned())),
        ],
    };
    let judged = || {
        Chain::of([
            Rule::new([Match::Mark(generation)], Verdict::Accept),
            Rule::always(Verdict::Goto(JUDGED.to_owned())),
        ])
    };
    let remember = [
        Rule::always(Action::ClearIdentity),
        Rule::always(Action::SetMark(generation)),
        Rule::always(Verdict::Accept),
    ];
    // The priority of the node's own packets is what their sockets say.
    let of_hosts = || Chain::of([Rule::always(Action::SetMark(generation))]);
    let has_hosts = ruleset.chains.contains_key(host::INPUT);
    [
        (FORWARD, Some(forward)),
        (host::JUDGED, has_hosts.then(judged)),
        (REMEMBER, Some(Chain::of(remember))),
        (host::REMEMBER, has_hosts.then(of_hosts)),
    ]
}

/// What the parts of a ruleset come to: a sum, so that a part that comes or goes is added or taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Of a ruleset without the chains that know the generation, and without what decides nothing.
    pub(crate) fn of(ruleset: &Ruleset) -> Self {
        let mut sum = Self::default();
        for (name, set) in ruleset.sets.iter().filter(|(name, _)| !is_apart(name)) {
            set.elements.iter().for_each(|key| sum.add(&(name, key)));
        }
        for (name, map) in ruleset.maps.iter().filter(|(name, _)| !is_apart(name)) {
            map.elements.iter().for_each(|pair| sum.add(&(name, pair)));
        }
        for (name, chain) in &ruleset.chains {
            if !knows_generation(name) && !is_apart(name) {
                sum.add(&(name, chain));
            }
        }
        sum
    }

    /// With a part more: an element or a chain, with the name of what it is in or its own.
    pub(crate) fn add(&mut self, part: &impl Hash) {
        self.0 = self.0.wrapping_add(numbering::wide_hash(part));
    }

    /// With a part less.
    pub(crate) fn subtract(&mut self, part: &impl Hash) {
        self.0 = self.0.wrapping_sub(numbering::wide_hash(part));
    }

    fn generation(self) -> u16 {
        let [a, b, c, d, e, f, g, h] = self.0.to_le_bytes();
        let folded = [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes);
        let folded = folded.iter().fold(0, |all, part| all ^ part);
        folded.max(FIRST_GENERATION)
    }
}

fn from_pod() -> Match {
    Match::InterfacePrefix(Field::InInterface, INTERFACE_PREFIX.to_owned())
}

fn to_pod() -> Match {
    Match::InterfacePrefix(Field::OutInterface, INTERFACE_PREFIX.to_owned())
}

pub(crate) fn with_family(name: &str, family: Family) -> Name {
    format!("{name}{}", family.digit())
}

fn emit_source_check(members: &[Member<'_>], ruleset: &mut Ruleset) {
    let interfaces = members
        .iter()
        .map(|member| Key::interface(member.endpoint.interface));
    add_set(
        ruleset,
        POD_INTERFACES,
        KeyType::Interface,
        interfaces.collect(),
    );
    let types = DISCOVERY_TYPES
        .iter()
        .map(|number| Key::IcmpV6Type(*number))
        .collect();
    add_set(ruleset, DISCOVERY, KeyType::IcmpV6Type, types);
    let vxlan = Match::Port(Protocol::Udp, PortRange::single(PORT_VXLAN));
    let sent = Chain::of([
        Rule::new([Match::Protocol(PROTOCOL_IPIP)], Verdict::Drop),
        Rule::new([vxlan], Verdict::Drop),
        Rule::always(Verdict::Accept),
    ]);
    ruleset.chains.insert(SENT.to_owned(), sent);
    let mut rules = Vec::new();
    for family in Family::ALL {
        let name = with_family(SOURCES, family);
        let pairs = members.iter().flat_map(|Member { endpoint, .. }| {
            let own = endpoint
                .addresses
                .iter()
                .filter(|address| Family::of(**address) == family);
            let key = |address: &_| Key::device_address(endpoint.device, *address);
            let known = own.filter(|_| endpoint.device != UNKNOWN);
            known.map(move |address| (key(address), Verdict::Goto(SENT.to_owned())))
        });
        let kind = KeyType::DeviceAddress(family);
        add_verdicts(ruleset, &name, kind, pairs.collect());
        let own = vec![Field::InDevice, Field::Source(family)];
        rules.push(Rule::always(Action::VerdictMap(own, name)));
    }
    let is_other = Match::NotInterfacePrefix(Field::InInterface, INTERFACE_PREFIX.to_owned());
    rules.push(Rule::new([is_other], Verdict::Accept));
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    for (address, prefix) in [(link_local, 10), (Ipv6Addr::UNSPECIFIED, 128)] {
        // Both prefixes are in range, so neither is skipped.
        let Ok(network) = Ipv6Network::new(address, prefix) else {
            continue;
        };
        let conditions = [
            Match::In(vec![Field::InInterface], POD_INTERFACES.to_owned()),
            Match::Network(Field::Source(Family::V6), IpNetwork::V6(network)),
            Match::In(vec![Field::IcmpV6Type], DISCOVERY.to_owned()),
        ];
        rules.push(Rule::new(conditions, Verdict::Accept));
    }
    rules.push(Rule::always(Verdict::Drop));
    let prerouting = Chain {
        hook: Some(Hook::PreroutingRaw),
        rules,
    };
    ruleset.chains.insert("prerouting".to_owned(), prerouting);
}

fn emit_dispatch(members: &[Member<'_>], names: &BTreeMap<&ClassKey, Name>, ruleset: &mut Ruleset) {
    let verdict = |class: Option<&ClassKey>, direction| match class.map(|key| names.get(key)) {
        None => onward(direction),
        Some(Some(chain)) => Verdict::Goto(chain.clone()),
        Some(None) => Verdict::Drop,
    };
    let dispatch = |direction| {
        let known = members
            .iter()
            .filter(|member| member.endpoint.device != UNKNOWN);
        let elements = known.map(|member| {
            let device = Key::Device(member.endpoint.device);
            (device, verdict(member.class(direction), direction))
        });
        elements.collect::<Vec<_>>()
    };
    add_verdicts(
        ruleset,
        FROM_PODS,
        KeyType::Device,
        dispatch(Direction::Egress),
    );
    add_verdicts(
        ruleset,
        TO_PODS,
        KeyType::Device,
        dispatch(Direction::Ingress),
    );
    let itself = members.iter().map(|member| {
        let interface = member.endpoint.interface;
        Key::interface_pair(interface, interface)
    });
    add_set(ruleset, ITSELF, KeyType::InterfacePair, itself.collect());

    let to_class = |field, map: &str| Rule::always(Action::VerdictMap(vec![field], map.to_owned()));
    let from_pods = [
        to_class(Field::InDevice, FROM_PODS),
        Rule::always(Verdict::Goto(ELSEWHERE.to_owned())),
    ];
    let to_pods = |rest| {
        [
            to_class(Field::OutDevice, TO_PODS),
            Rule::new([to_pod()], Verdict::Drop),
            Rule::always(rest),
        ]
    };
    // Of what comes from no pod, what goes to one is remembered; the rest is none of ours.
    let elsewhere = [Rule::new([from_pod()], Verdict::Drop)];
    let elsewhere = elsewhere.into_iter().chain(to_pods(Verdict::Accept));
    let is = |state| Match::Connection(vec![state]);
    let tracked = [
        Rule::new(
            [is(ConnectionState::Established)],
            Verdict::Jump(JUDGED.to_owned()),
        ),
        Rule::new([is(ConnectionState::Related)], Verdict::Accept),
        Rule::new([is(ConnectionState::Invalid), from_pod()], Verdict::Drop),
        Rule::new([is(ConnectionState::Invalid), to_pod()], Verdict::Drop),
    ];
    // Those of this generation are through already.
    let judged = [
        Rule::new([Match::Reply, Match::Mark(DENIED_MARK)], Verdict::Drop),
        Rule::new([Match::Reply], Verdict::Accept),
    ];
    let chains = [
        (JUDGED, Chain::of(judged)),
        (FROM_PODS, Chain::of(from_pods)),
        (ELSEWHERE, Chain::of(elsewhere)),
        (TO_PODS, Chain::of(to_pods(onward(Direction::Ingress)))),
        (TRACKED, Chain::of(tracked)),
    ];
    let chains = chains.map(|(name, chain)| (name.to_owned(), chain));
    ruleset.chains.extend(chains);
    let denied = Chain::of(denied_to_pods(None));
    ruleset.chains.insert(DENIED.to_owned(), denied);
}

/// What becomes of packets that a pod's policy denies: [`denied_rules`], but for what a pod sends to itself by way of a
/// Service, which no policy can deny.
pub(super) fn denied_to_pods(rule: Option<RuleId>) -> Vec<Rule> {
    let both = vec![Field::InInterface, Field::OutInterface];
    let to_itself = Match::In(both, ITSELF.to_owned());
    let mut rules = vec![Rule::new([to_itself], Verdict::Goto(REMEMBER.to_owned()))];
    rules.extend(denied_rules(rule));
    rules
}

/// What becomes of denied packets: they are counted and reported, and an open connection of theirs is denied for good.
pub(super) fn denied_rules(rule: Option<RuleId>) -> Vec<Rule> {
    let is_open = Match::Connection(vec![ConnectionState::Established]);
    let report = Report::new(LogReason::Denied, rule);
    vec![
        Rule::new([is_open], Action::SetMark(DENIED_MARK)),
        Rule::always(Action::Count),
        Rule::always(Action::Log(report)),
        Rule::always(Verdict::Drop),
    ]
}

fn emit_identities(book: &AddressBook, ruleset: &mut Ruleset) {
    for family in Family::ALL {
        let elements = book
            .addresses
            .iter()
            .filter(|(address, _)| Family::of(**address) == family)
            .map(|(address, identity)| (Key::Address(*address), identity_value(*identity)));
        let map = Map {
            key: KeyType::Address(family),
            value: ValueType::Identity,
            elements: elements.collect(),
        };
        ruleset.maps.insert(addresses(family).to_owned(), map);
        let elements = book
            .intervals
            .iter()
            .filter(|interval| Family::of(interval.first) == family)
            .map(|interval| {
                (
                    Key::range(interval.first, interval.last),
                    Value::Identity(interval.identity),
                )
            });
        let map = Map {
            key: KeyType::Range(family),
            value: ValueType::Identity,
            elements: elements.collect(),
        };
        ruleset.maps.insert(networks(family).to_owned(), map);
    }
    for (name, field) in [
        ("identify-source", Field::Source as fn(Family) -> Field),
        ("identify-destination", Field::Destination),
    ] {
        let identify = |map: fn(Family) -> &'static str| {
            Family::ALL.map(|family| {
                let map = map(family).to_owned();
                Rule::always(Action::Identify(field(family), map))
            })
        };
        // A single address overrules the interval around it. What an earlier lookup noted is emptied only where the first
        // finds nothing: most find something.
        let mut rules = identify(addresses).to_vec();
        rules.push(Rule::always(Action::ClearIdentity));
        rules.extend(identify(networks));
        ruleset.chains.insert(name.to_owned(), Chain::of(rules));
    }
}

/// What the map from single addresses says of one: that nothing matches it must be said too, lest the interval around it
/// be asked.
pub(crate) fn identity_value(number: u32) -> Value {
    Value::Identity(if number == 0 { NOBODY } else { number })
}

/// The map from single addresses to identities.
pub(crate) const fn addresses(family: Family) -> &'static str {
    match family {
        Family::V4 => "addresses4",
        Family::V6 => "addresses6",
    }
}

/// The map from intervals of addresses to identities.
pub(crate) const fn networks(family: Family) -> &'static str {
    match family {
        Family::V4 => "networks4",
        Family::V6 => "networks6",
    }
}

/// The chain, and the map, of a class with this number.
pub(crate) fn class_name(key: &ClassKey, number: u32) -> Name {
    match key {
        ClassKey::Closed => "closed".to_owned(),
        ClassKey::Isolated { direction, .. } => format!("{}-{number:08x}", direction.as_str()),
    }
}

/// The chain of a decision with this number.
pub(crate) fn decision_name(number: u32) -> Name {
    format!("ports-{number:08x}")
}

/// The chain of a class, whose map is of the same name if it `lists` identities.
pub(crate) fn class_chain(key: &ClassKey, name: &str, lists: bool, default: Verdict) -> Chain {
    let identify = match key {
        ClassKey::Isolated {
            direction: Direction::Egress,
            ..
        } => "identify-destination",
        _ => "identify-source",
    };
    let mut rules = Vec::new();
    if lists {
        rules.push(Rule::always(Verdict::Jump(identify.to_owned())));
        let by_identity = Action::VerdictMap(vec![Field::Identity], name.to_owned());
        rules.push(Rule::always(by_identity));
    }
    rules.push(Rule::always(default));
    Chain::of(rules)
}

fn class_names(classes: &BTreeMap<ClassKey, Class>) -> BTreeMap<&ClassKey, Name> {
    let numbers = numbering::number(classes.keys().collect());
    numbers
        .into_iter()
        .map(|(key, number)| (key, class_name(key, number)))
        .collect()
}

fn emit_classes(classes: &BTreeMap<ClassKey, Class>, ruleset: &mut Ruleset) {
    let decisions: BTreeSet<(Direction, &Decision)> = classes
        .iter()
        .flat_map(|(key, class)| {
            let decisions = class.by_identity.values().chain([&class.default]);
            decisions.map(|decision| (key.direction(), decision))
        })
        .filter(|(_, decision)| decision.simple().is_none())
        .collect();
    let numbers = numbering::number(decisions);
    let mut of_rules = ports::Chains::new();
    for ((direction, decision), number) in &numbers {
        let chain = ports::chain(decision, *direction, &mut of_rules);
        ruleset.chains.insert(decision_name(*number), chain);
    }
    let mut verdict = |direction, decision: &Decision| {
        let number = numbers.get(&(direction, decision));
        match (decision.simple(), number) {
            (Some((passes, rule)), _) => ports::verdict(passes, rule, direction, &mut of_rules),
            (None, Some(number)) => Verdict::Goto(decision_name(*number)),
            (None, None) => Verdict::Goto(DENIED.to_owned()),
        }
    };
    let names = class_names(classes);
    for (key, class) in classes {
        let Some(name) = names.get(key) else {
            continue;
        };
        if !class.by_identity.is_empty() {
            let elements = class.by_identity.iter().map(|(identity, decision)| {
                (Key::Identity(*identity), verdict(key.direction(), decision))
            });
            add_verdicts(ruleset, name, KeyType::Identity, elements.collect());
        }
        let lists = !class.by_identity.is_empty();
        let chain = class_chain(key, name, lists, verdict(key.direction(), &class.default));
        ruleset.chains.insert(name.clone(), chain);
    }
    ruleset.chains.extend(of_rules);
}

pub(super) fn add_set(ruleset: &mut Ruleset, name: &str, key: KeyType, elements: BTreeSet<Key>) {
    ruleset.sets.insert(name.to_owned(), Set { key, elements });
}

fn add_verdicts(ruleset: &mut Ruleset, name: &str, key: KeyType, elements: Vec<(Key, Verdict)>) {
    let elements = elements
        .into_iter()
        .map(|(key, verdict)| (key, Value::from(verdict)))
        .collect();
    let map = Map {
        key,
        value: ValueType::Verdict,
        elements,
    };
    ruleset.maps.insert(name.to_owned(), map);
}
