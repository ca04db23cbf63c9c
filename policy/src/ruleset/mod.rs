//! The kernel's policy table as a value: chains, maps and sets of the one table `inet margay`.
//!
//! A [`Ruleset`] is what the compiler returns, what tests and `margayctl policy render` look at, and what two of are
//! compared to find the [`Transaction`] between them. It is made of only those nf_tables parts the compiler uses, so that
//! every part can be written in each form (`writer`) and followed in tests. It knows nothing of pods or policies.
//! Ordered maps throughout: equal inputs give equal values and equal text.

mod diff;
mod report;
#[cfg(test)]
pub(crate) mod simulate;
mod transaction;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

pub use diff::diff;
pub use report::{LogReason, Report};
pub use transaction::{Command, Elements, ReplayError, Transaction};

use crate::port::{PortRange, Protocol};

/// The table's family and name; no other table is ever read or written.
pub const TABLE: &str = "inet margay";

/// The name of a chain, map or set. Made by the compiler only, never taken from an object.
pub type Name = String;

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets by name.
    pub sets: BTreeMap<Name, Set>,
    /// Maps by name.
    pub maps: BTreeMap<Name, Map>,
    /// Chains by name.
    pub chains: BTreeMap<Name, Chain>,
}

impl Ruleset {
    /// A table with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// `4` or `6`.
    pub const fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

/// What the keys of a set or map are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// An interface name.
    Interface,
    /// The interface a packet came in by and the one it leaves by.
    InterfacePair,
    /// The number of an interface.
    Device,
    /// The number of an interface and an address.
    DeviceAddress(Family),
    /// One address, kept in a hash.
    Address(Family),
    /// An interval of addresses, kept in a tree: never for the addresses of pods, whose changes it would make slow.
    Range(Family),
    /// An identity.
    Identity,
    /// An ICMPv6 type.
    IcmpV6Type,
}

/// The most elements of a set or map about the pods of one node.
pub const POD_ROOM: u32 = 4096;

impl KeyType {
    /// The most elements that a set of this kind takes, if there is such a bound: a table of fixed size answers sooner
    /// than one that grows. It bounds what is about the pods of one node.
    pub const fn capacity(self) -> Option<u32> {
        match self {
            Self::Device | Self::DeviceAddress(_) => Some(POD_ROOM),
            _ => None,
        }
    }
}

/// The key of an element. What is about few elements is boxed: most are single addresses, of which there are many.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Of a [`KeyType::Interface`] set.
    Interface(Box<str>),
    /// Of a [`KeyType::InterfacePair`] set.
    InterfacePair(Box<[String; 2]>),
    /// Of a [`KeyType::Device`] set: the number the kernel gave the interface.
    Device(u32),
    /// Of a [`KeyType::DeviceAddress`] set.
    DeviceAddress(Box<(u32, IpAddr)>),
    /// Of a [`KeyType::Address`] set.
    Address(IpAddr),
    /// Of a [`KeyType::Range`] set: first and last address.
    Range(Box<(IpAddr, IpAddr)>),
    /// Of a [`KeyType::Identity`] map; never 0, which means no identity.
    Identity(u32),
    /// Of a [`KeyType::IcmpV6Type`] set.
    IcmpV6Type(u8),
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What its elements are.
    pub key: KeyType,
    /// Its elements.
    pub elements: BTreeSet<Key>,
}

impl Key {
    /// The interface of this name.
    pub fn interface(name: &str) -> Self {
        Self::Interface(name.into())
    }

    /// The way in by one interface and out by the other.
    pub fn interface_pair(inward: &str, outward: &str) -> Self {
        Self::InterfacePair(Box::new([inward.to_owned(), outward.to_owned()]))
    }

    /// The address at the interface of this number.
    pub fn device_address(device: u32, address: IpAddr) -> Self {
        Self::DeviceAddress(Box::new((device, address)))
    }

    /// The interval from the first to the last address.
    pub fn range(first: IpAddr, last: IpAddr) -> Self {
        Self::Range(Box::new((first, last)))
    }
}

/// What the values of a map are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// An identity.
    Identity,
    /// Where to go on.
    Verdict,
}

/// The value of a map's element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// In a [`ValueType::Identity`] map; never 0. 1 says that nothing matches, whatever a wider map says.
    Identity(u32),
    /// In a [`ValueType::Verdict`] map.
    Verdict(Box<Verdict>),
}

impl From<Verdict> for Value {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(Box::new(verdict))
    }
}

/// A named map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// What its keys are.
    pub key: KeyType,
    /// What its values are.
    pub value: ValueType,
    /// Its elements.
    pub elements: BTreeMap<Key, Value>,
}

/// The least a map is made for whose elements come and go.
const LEAST_ROOM: usize = 64;

impl Map {
    /// The most elements that it is to take when it is made as it is, if it is of a kind that the kernel can keep in a
    /// table of fixed size, which answers sooner. It leaves half as many free as there are, or more; when they are all
    /// taken ([`Full`](crate::writer::Error::Full)) the map is made anew with the whole table.
    pub fn room(&self) -> Option<u32> {
        match self.key {
            KeyType::Address(_) | KeyType::Identity => {
                let elements = self.elements.len();
                let room = LEAST_ROOM.max(elements.saturating_add(elements / 2));
                room.checked_next_power_of_two()?.try_into().ok()
            }
            kind => kind.capacity(),
        }
    }
}

/// A chain: rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Where the kernel calls it; `None` for a chain that only other rules reach.
    pub hook: Option<Hook>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that only other rules reach.
    pub fn of(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            hook: None,
            rules: rules.into_iter().collect(),
        }
    }
}

/// Where the kernel calls a base chain. Each accepts what its rules let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Before routing and before connection tracking (priority raw, -300), but after defragmentation (-400).
    PreroutingRaw,
    /// As [`Self::PreroutingRaw`], right after it (-299): what is about host endpoints.
    PreroutingRawHost,
    /// Before routing and destination NAT, with connections tracked (priority mangle, -150).
    PreroutingMangle,
    /// Between two interfaces (priority filter, 0), after destination NAT.
    Forward,
    /// As [`Self::Forward`], before it (-10): what is about host endpoints.
    ForwardHost,
    /// To a process of the node (priority filter, 0).
    Input,
    /// From a process of the node, before connection tracking (priority raw, -300).
    OutputRaw,
    /// From a process of the node (priority filter, 0), after destination NAT.
    Output,
    /// Source NAT of what leaves the node (priority srcnat, 100).
    PostroutingNat,
}

/// A rule: when all matches hold, the action is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The conditions, tested in order.
    pub matches: Vec<Match>,
    /// What happens then.
    pub action: Action,
}

impl Rule {
    /// A rule of these conditions and this action.
    pub fn new(matches: impl IntoIterator<Item = Match>, action: impl Into<Action>) -> Self {
        Self {
            matches: matches.into_iter().collect(),
            action: action.into(),
        }
    }

    /// A rule that always acts.
    pub fn always(action: impl Into<Action>) -> Self {
        Self::new([], action)
    }
}

/// Something of a packet that sets and maps are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The name of the interface it came in by.
    InInterface,
    /// The name of the interface it leaves by.
    OutInterface,
    /// The number of the interface it came in by.
    InDevice,
    /// The number of the interface it leaves by.
    OutDevice,
    /// The source address, of a packet of this family.
    Source(Family),
    /// The destination address, of a packet of this family.
    Destination(Family),
    /// The ICMPv6 type, of an ICMPv6 packet.
    IcmpV6Type,
    /// The identity that an earlier rule found and noted in the packet's scratch field.
    Identity,
}

/// The state connection tracking gives a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// Of a connection that has been answered.
    Established,
    /// Of a new connection that belongs to a tracked one, or an ICMP error about one.
    Related,
    /// Of no connection and unable to start one.
    Invalid,
    /// Of none because it is not tracked.
    Untracked,
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// The packet's connection state is one of these.
    Connection(Vec<ConnectionState>),
    /// The packet goes the other way than its connection's first one.
    Reply,
    /// The connection's mark, as far as it is ours ([`MARK_MASK`]), is this.
    Mark(u16),
    /// The interface's name begins so.
    InterfacePrefix(Field, String),
    /// The interface's name begins otherwise.
    NotInterfacePrefix(Field, String),
    /// These fields together are in the set.
    In(Vec<Field>, Name),
    /// These fields together are not in the set.
    NotIn(Vec<Field>, Name),
    /// The address lies in the network.
    Network(Field, IpNetwork),
    /// The source address is one of the node's own.
    FromNode,
    /// The IP protocol number.
    Protocol(u8),
    /// The IP protocol number lies in the range, of numbers up to 255.
    ProtocolRange(PortRange),
    /// The address family.
    Family(Family),
    /// The transport protocol, and its destination port in the range.
    Port(Protocol, PortRange),
    /// The transport protocol, and its source port in the range.
    SourcePort(Protocol, PortRange),
    /// ICMP, or for IPv6 ICMPv6, and its type in the range, of numbers up to 255.
    IcmpType(Family, PortRange),
    /// ICMP, or for IPv6 ICMPv6, and its code in the range, of numbers up to 255.
    IcmpCode(Family, PortRange),
}

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// This hook lets the packet through.
    Accept,
    /// The packet is gone.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// Into the chain, and back when it ends.
    Jump(Name),
    /// Into the chain for good: when it ends, back to where this chain was jumped to from.
    Goto(Name),
}

impl Verdict {
    /// The chain it leads to, if any.
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Accept | Self::Drop | Self::Return => None,
        }
    }
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A fixed verdict.
    Verdict(Verdict),
    /// The verdict the map has for these fields together; without one the next rule is tried.
    VerdictMap(Vec<Field>, Name),
    /// Notes in the packet's scratch field the identity the map has for the field, and returns to the chain that jumped
    /// here; without one nothing changes and the next rule is tried.
    Identify(Field, Name),
    /// Empties the packet's scratch field.
    ClearIdentity,
    /// Sets the part of the connection's mark that is ours, and goes on with the next rule.
    SetMark(u16),
    /// Counts the packet and goes on with the next rule.
    Count,
    /// Reports the packet, if not too many have been reported, and goes on with the next rule.
    Log(Report),
    /// Has the packet's connection not tracked.
    NoTrack,
    /// Rewrites the source address to that of the outgoing interface, with a random source port.
    Masquerade,
}

/// The part of a connection's mark that is ours: the upper half. The lower one is left as it is.
pub const MARK_MASK: u32 = 0xffff_0000;

impl From<Verdict> for Action {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}
