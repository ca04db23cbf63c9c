//! Follows packets through a ruleset the way the kernel would, so that tests check the compiled value itself.

use std::{collections::BTreeSet, net::IpAddr};

use crate::compile::stand_in;

use super::{
    Action, Chain, ConnectionState, Family, Field, Hook, Key, KeyType, Match, Report, Rule,
    Ruleset, Value, Verdict,
};

/// A packet as the hooks see it.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) in_interface: String,
    pub(crate) out_interface: String,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The IP protocol number.
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    /// The destination port.
    pub(crate) port: u16,
    /// The ICMP or ICMPv6 type and code.
    pub(crate) icmp: (u8, u8),
    pub(crate) state: Option<ConnectionState>,
    /// Whether it goes the other way than its connection's first packet.
    pub(crate) reply: bool,
    /// Our part of its connection's mark.
    pub(crate) mark: u16,
    /// Whether the source is an address of the node.
    pub(crate) from_node: bool,
}

impl Packet {
    fn is_icmp(&self, family: Family) -> bool {
        let number = match family {
            Family::V4 => 1,
            Family::V6 => 58,
        };
        self.protocol == number
    }
}

/// The packet's priority field, which carries the identity.
struct Walk<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet,
    identity: u32,
    untracked: bool,
    masqueraded: bool,
    reported: BTreeSet<Report>,
    counted: BTreeSet<String>,
    /// The chain that it is in, but for base chains.
    at: String,
    mark: u16,
}

/// How a chain ended.
enum End {
    Accept,
    Drop,
    Fell,
}

/// Whether this hook's base chain lets the packet through. The kernel bounds jumps; a deeper ruleset would be refused.
pub(crate) fn passes(ruleset: &Ruleset, hook: Hook, packet: &Packet) -> bool {
    let (passed, identity) = walk(ruleset, hook, packet);
    assert!(
        !passed || identity == 0,
        "a passed packet kept its identity"
    );
    passed
}

/// Whether the packet leaves with another source address.
pub(crate) fn is_masqueraded(ruleset: &Ruleset, packet: &Packet) -> bool {
    let mut walk = Walk::new(ruleset, packet);
    for chain in ruleset
        .chains
        .values()
        .filter(|chain| chain.hook == Some(Hook::PostroutingNat))
    {
        walk.chain(chain, 0);
    }
    walk.masqueraded
}

/// Whether the forward chain lets the packet through, and our part of its connection's mark after that.
pub(crate) fn forwards(ruleset: &Ruleset, packet: &Packet) -> (bool, u16) {
    let mut walk = Walk::new(ruleset, packet);
    let passed = !matches!(walk.chain(&ruleset.chains["forward"], 0), End::Drop);
    (passed, walk.mark)
}

/// Whether a packet that IPVS sends out gets through; `None` where there is no IPVS.
pub(crate) fn balanced(ruleset: &Ruleset, packet: &Packet) -> Option<bool> {
    let chain = ruleset.chains.get("balanced")?;
    let mut walk = Walk::new(ruleset, packet);
    let passed = !matches!(walk.chain(chain, 0), End::Drop);
    assert!(!passed || walk.identity == 0, "it kept its identity");
    Some(passed)
}

/// Whether this hook's base chains let the packet through, which goes on as they leave it.
pub(crate) fn step(ruleset: &Ruleset, hook: Hook, packet: &mut Packet) -> bool {
    let mut walk = Walk::new(ruleset, packet);
    let of_hook = |chain: &&Chain| chain.hook == Some(hook);
    let dropped = ruleset
        .chains
        .values()
        .filter(of_hook)
        .any(|chain| matches!(walk.chain(chain, 0), End::Drop));
    let (mark, untracked) = (walk.mark, walk.untracked);
    packet.mark = mark;
    if untracked {
        packet.state = Some(ConnectionState::Untracked);
    }
    !dropped
}

/// What the table tells of a packet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) reported: BTreeSet<Report>,
    /// The chains that counted it.
    pub(crate) counted: BTreeSet<String>,
}

/// What this hook's base chain tells of the packet.
pub(crate) fn told(ruleset: &Ruleset, hook: Hook, packet: &Packet) -> Told {
    let mut walk = Walk::new(ruleset, packet);
    let of_hook = |chain: &&Chain| chain.hook == Some(hook);
    for chain in ruleset.chains.values().filter(of_hook) {
        walk.chain(chain, 0);
    }
    Told {
        reported: walk.reported,
        counted: walk.counted,
    }
}

fn walk(ruleset: &Ruleset, hook: Hook, packet: &Packet) -> (bool, u32) {
    let mut walk = Walk::new(ruleset, packet);
    for chain in ruleset
        .chains
        .values()
        .filter(|chain| chain.hook == Some(hook))
    {
        if matches!(walk.chain(chain, 0), End::Drop) {
            return (false, walk.identity);
        }
    }
    (true, walk.identity)
}

impl<'a> Walk<'a> {
    fn new(ruleset: &'a Ruleset, packet: &'a Packet) -> Self {
        Self {
            ruleset,
            packet,
            identity: 0,
            untracked: false,
            masqueraded: false,
            reported: BTreeSet::new(),
            counted: BTreeSet::new(),
            at: String::new(),
            mark: packet.mark,
        }
    }

    fn called(&mut self, name: &str, depth: usize) -> End {
        let chain = &self.ruleset.chains[name];
        let around = std::mem::replace(&mut self.at, name.to_owned());
        let end = self.chain(chain, depth);
        self.at = around;
        end
    }

    fn chain(&mut self, chain: &'a Chain, depth: usize) -> End {
        assert!(depth < 16, "the kernel refuses jumps this deep");
        for rule in &chain.rules {
            let Some(verdict) = self.rule(rule) else {
                continue;
            };
            match verdict {
                Verdict::Accept => return End::Accept,
                Verdict::Drop => return End::Drop,
                Verdict::Return => return End::Fell,
                Verdict::Goto(name) => return self.called(&name, depth + 1),
                Verdict::Jump(name) => match self.called(&name, depth + 1) {
                    End::Fell => {}
                    end => return end,
                },
            }
        }
        End::Fell
    }

    fn rule(&mut self, rule: &Rule) -> Option<Verdict> {
        if !rule.matches.iter().all(|condition| self.matches(condition)) {
            return None;
        }
        match &rule.action {
            Action::Verdict(verdict) => Some(verdict.clone()),
            Action::VerdictMap(fields, map) => match self.map(fields, map)? {
                Value::Verdict(verdict) => Some(*verdict),
                Value::Identity(_) => panic!("{map} is no verdict map"),
            },
            Action::Identify(field, map) => {
                match self.map(&[*field], map)? {
                    Value::Identity(identity) => self.identity = identity,
                    Value::Verdict(_) => panic!("{map} is a verdict map"),
                }
                Some(Verdict::Return)
            }
            Action::ClearIdentity => {
                self.identity = 0;
                None
            }
            Action::SetMark(mark) => {
                self.mark = *mark;
                None
            }
            Action::Count => {
                self.counted.insert(self.at.clone());
                None
            }
            Action::NoTrack => {
                self.untracked = true;
                None
            }
            Action::Log(report) => {
                self.reported.insert(*report);
                None
            }
            Action::Masquerade => {
                self.masqueraded = true;
                Some(Verdict::Accept)
            }
        }
    }

    fn map(&self, fields: &[Field], map: &str) -> Option<Value> {
        let map = &self.ruleset.maps[map];
        let key = self.key(fields, map.key)?;
        match key {
            Key::Range(asked) => map.elements.iter().find_map(|(key, value)| match key {
                Key::Range(ends) if ends.0 <= asked.0 && asked.0 <= ends.1 => Some(value.clone()),
                _ => None,
            }),
            key => map.elements.get(&key).cloned(),
        }
    }

    fn in_set(&self, fields: &[Field], set: &str) -> Option<bool> {
        let set = &self.ruleset.sets[set];
        let key = self.key(fields, set.key)?;
        Some(match key {
            Key::Range(asked) => set.elements.iter().any(|key| match key {
                Key::Range(ends) => ends.0 <= asked.0 && asked.0 <= ends.1,
                _ => false,
            }),
            key => set.elements.contains(&key),
        })
    }

    /// The fields as a key; `None` when the packet has no such field (another family or protocol) and the rule is over.
    fn key(&self, fields: &[Field], kind: KeyType) -> Option<Key> {
        let interface = |field: Field| match field {
            Field::InInterface => self.packet.in_interface.as_str(),
            Field::OutInterface => self.packet.out_interface.as_str(),
            other => panic!("{other:?} is no interface"),
        };
        let device = |field: Field| match field {
            Field::InDevice => stand_in(&self.packet.in_interface),
            Field::OutDevice => stand_in(&self.packet.out_interface),
            other => panic!("{other:?} is no device"),
        };
        Some(match (kind, fields) {
            (KeyType::Interface, [field]) => Key::interface(interface(*field)),
            (KeyType::InterfacePair, [one, other]) => {
                Key::interface_pair(interface(*one), interface(*other))
            }
            (KeyType::Device, [field]) => Key::Device(device(*field)),
            (KeyType::DeviceAddress(family), [field, address]) => {
                Key::device_address(device(*field), self.address(*address, family)?)
            }
            (KeyType::Address(family), [field]) => Key::Address(self.address(*field, family)?),
            (KeyType::Range(family), [field]) => {
                let address = self.address(*field, family)?;
                Key::range(address, address)
            }
            (KeyType::Identity, [Field::Identity]) => Key::Identity(self.identity),
            (KeyType::IcmpV6Type, [Field::IcmpV6Type]) => {
                (self.packet.protocol == 58).then_some(Key::IcmpV6Type(self.packet.icmp.0))?
            }
            (kind, fields) => panic!("{fields:?} are no key of {kind:?}"),
        })
    }

    fn address(&self, field: Field, family: Family) -> Option<IpAddr> {
        let (address, wanted) = match field {
            Field::Source(family) => (self.packet.source, family),
            Field::Destination(family) => (self.packet.destination, family),
            other => panic!("{other:?} is no address"),
        };
        assert_eq!(wanted, family, "a field of another family than its set");
        (Family::of(address) == family).then_some(address)
    }

    fn matches(&self, condition: &Match) -> bool {
        let packet = self.packet;
        match condition {
            Match::Connection(states) => packet.state.is_some_and(|state| states.contains(&state)),
            Match::Reply => packet.reply,
            Match::Mark(mark) => self.mark == *mark,
            Match::InterfacePrefix(Field::InInterface, prefix) => {
                packet.in_interface.starts_with(prefix)
            }
            Match::InterfacePrefix(_, prefix) => packet.out_interface.starts_with(prefix),
            Match::NotInterfacePrefix(Field::InInterface, prefix) => {
                !packet.in_interface.starts_with(prefix)
            }
            Match::NotInterfacePrefix(_, prefix) => !packet.out_interface.starts_with(prefix),
            Match::In(fields, set) => self.in_set(fields, set) == Some(true),
            Match::NotIn(fields, set) => self.in_set(fields, set) == Some(false),
            Match::Network(field, network) => {
                let family = Family::of(network.network());
                self.address(*field, family)
                    .is_some_and(|address| network.contains(address))
            }
            Match::FromNode => packet.from_node,
            Match::Protocol(number) => packet.protocol == *number,
            Match::ProtocolRange(range) => range.contains(packet.protocol.into()),
            Match::Family(family) => Family::of(packet.source) == *family,
            Match::Port(protocol, range) => {
                packet.protocol == protocol.number() && range.contains(packet.port)
            }
            Match::SourcePort(protocol, range) => {
                packet.protocol == protocol.number() && range.contains(packet.source_port)
            }
            Match::IcmpType(family, range) => {
                packet.is_icmp(*family) && range.contains(packet.icmp.0.into())
            }
            Match::IcmpCode(family, range) => {
                packet.is_icmp(*family) && range.contains(packet.icmp.1.into())
            }
        }
    }
}
