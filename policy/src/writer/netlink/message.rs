//! Transactions as nf_tables messages (linux/netfilter/nf_tables.h), for those that netlink is used for.

use std::net::IpAddr;

use super::expression;
use crate::ruleset::{
    Command, Elements, Key, KeyType, Rule, Transaction, Value, ValueType, Verdict,
};

pub(super) const TABLE: &str = "margay";
/// The family of the table (NFPROTO_INET).
pub(super) const INET: u8 = 1;
/// How many elements go into one message: an attribute's length has 16 bits.
const ELEMENTS: usize = 400;

// Message types and flags.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
pub(super) const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

/// The flag of a set whose elements have values (NFT_SET_MAP).
const MAP: u32 = 8;
/// The kernel's type of verdicts as values (NFT_DATA_VERDICT).
const DATA_VERDICT: u32 = 0xffff_ff00;
/// What nft calls the type of a packet's priority field, which identities are noted in (TYPE_CLASSID).
const TYPE_CLASSID: u32 = 23;
/// What nft, of every release, keeps beside a map of ours to know how its keys are written: records of a kind, a length
/// and a value; the order of bytes is the host's for keys (kind 0) and none for verdicts (kind 1).
const HOST_ORDER: u32 = 1;
const NO_ORDER: u32 = 0;

/// Set on attributes that contain others.
const NESTED: u16 = 0x8000;

/// Attributes, one after the other.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = (4 + value.len()) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    pub(super) fn nest(&mut self, kind: u16, inner: &Attributes) -> &mut Self {
        self.put(kind | NESTED, &inner.0)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// A value as data of an element or an expression.
pub(super) fn data(bytes: &[u8]) -> Attributes {
    let mut data = Attributes::default();
    data.put(1, bytes);
    data
}

/// A verdict as data.
pub(super) fn verdict(verdict: &Verdict) -> Attributes {
    let code: i32 = match verdict {
        Verdict::Drop => 0,
        Verdict::Accept => 1,
        Verdict::Jump(_) => -3,
        Verdict::Goto(_) => -4,
        Verdict::Return => -5,
    };
    let mut inner = Attributes::default();
    inner.put(1, &code.to_be_bytes());
    if let Some(chain) = verdict.target() {
        inner.text(2, chain);
    }
    let mut data = Attributes::default();
    data.nest(2, &inner);
    data
}

/// Messages to be sent as one.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Type, flags and attributes.
    messages: Vec<(u16, u16, Attributes)>,
}

impl Batch {
    /// The transaction as messages of at most `limit` bytes, if it is one for netlink.
    pub(super) fn of(transaction: &Transaction, limit: usize) -> Option<Self> {
        let mut batch = Self::default();
        for command in &transaction.commands {
            batch.add(command)?;
        }
        let length: usize = batch
            .messages
            .iter()
            .map(|(.., body)| body.len() + 20)
            .sum();
        (length <= limit).then_some(batch)
    }

    fn add(&mut self, command: &Command) -> Option<()> {
        match command {
            Command::AddElements(set, elements) => {
                self.elements(NEW_ELEMENT, NLM_F_CREATE, set, elements, true)
            }
            Command::DeleteElements(set, elements) => {
                self.elements(DELETE_ELEMENT, 0, set, elements, false)
            }
            Command::AddChain(name, None) => {
                self.named(NEW_CHAIN, NLM_F_CREATE, 3, name);
                Some(())
            }
            Command::DeleteChain(name) => {
                self.named(DELETE_CHAIN, 0, 3, name);
                Some(())
            }
            // Rules of a chain, without saying which, are all of them.
            Command::FlushChain(name) => {
                self.named(DELETE_RULE, 0, 2, name);
                Some(())
            }
            Command::AddRule(chain, rule) => self.rule(chain, rule),
            Command::AddMap(name, KeyType::Identity, ValueType::Verdict, room) => {
                self.class_map(name, *room);
                Some(())
            }
            Command::DeleteMap(name) => {
                self.named(DELETE_SET, 0, 2, name);
                Some(())
            }
            _ => None,
        }
    }

    fn named(&mut self, kind: u16, flags: u16, attribute: u16, name: &str) {
        let mut body = Attributes::default();
        body.text(1, TABLE).text(attribute, name);
        self.messages.push((kind, flags, body));
    }

    /// The map of a class: the one kind that comes and goes.
    fn class_map(&mut self, name: &str, room: Option<u32>) {
        let mut order = Vec::new();
        for (kind, value) in [(0, HOST_ORDER), (1, NO_ORDER)] {
            order.extend([kind, 4]);
            order.extend(value.to_ne_bytes());
        }
        let mut description = Attributes::default();
        if let Some(room) = room {
            description.number(1, room);
        }
        // Its number in the batch; rules and elements refer to it by its name.
        let number = self.messages.len() as u32 + 1;
        let mut body = Attributes::default();
        body.text(1, TABLE)
            .text(2, name)
            .number(3, MAP)
            .number(4, TYPE_CLASSID)
            .number(5, 4)
            .number(6, DATA_VERDICT)
            .number(7, 0)
            .nest(9, &description)
            .number(10, number)
            .put(13, &order);
        self.messages.push((NEW_SET, NLM_F_CREATE, body));
    }

    fn rule(&mut self, chain: &str, rule: &Rule) -> Option<()> {
        let expressions = expression::of(rule)?;
        let mut body = Attributes::default();
        body.text(1, TABLE).text(2, chain).nest(4, &expressions);
        self.messages
            .push((NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, body));
        Some(())
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        elements: &Elements,
        with_values: bool,
    ) -> Option<()> {
        let mut encoded = Vec::with_capacity(elements.len());
        match elements {
            Elements::Set(keys) => {
                for key in keys {
                    encoded.push(element(key, None)?);
                }
            }
            Elements::Map(pairs) => {
                for (key, value) in pairs {
                    encoded.push(element(key, with_values.then_some(value))?);
                }
            }
        }
        for chunk in encoded.chunks(ELEMENTS) {
            let mut list = Attributes::default();
            for element in chunk {
                list.nest(1, element);
            }
            let mut body = Attributes::default();
            body.text(1, TABLE).text(2, set).nest(3, &list);
            self.messages.push((kind, flags, body));
        }
        Some(())
    }

    /// The bytes, with messages numbered from `first`, and the number of the one that is acknowledged.
    pub(super) fn finish(self, first: u32) -> (Vec<u8>, u32) {
        let mut bytes = Vec::new();
        let mut sequence = first;
        write(&mut bytes, BATCH_BEGIN, 0, sequence, (0, SUBSYSTEM), &[]);
        let count = self.messages.len();
        for (index, (kind, flags, body)) in self.messages.into_iter().enumerate() {
            sequence = sequence.wrapping_add(1);
            let ack = if index + 1 == count { NLM_F_ACK } else { 0 };
            let kind = SUBSYSTEM << 8 | kind;
            write(&mut bytes, kind, flags | ack, sequence, (INET, 0), &body.0);
        }
        let end = sequence.wrapping_add(1);
        write(&mut bytes, BATCH_END, 0, end, (0, SUBSYSTEM), &[]);
        (bytes, sequence)
    }
}

pub(super) fn write(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
    body: &[u8],
) {
    bytes.extend((20 + body.len() as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(body);
}

fn element(key: &Key, value: Option<&Value>) -> Option<Attributes> {
    let mut element = Attributes::default();
    element.nest(1, &data(&key_bytes(key)?));
    match value {
        None => {}
        Some(Value::Identity(identity)) => {
            element.nest(2, &data(&identity.to_ne_bytes()));
        }
        Some(Value::Verdict(value)) => {
            element.nest(2, &verdict(value));
        }
    }
    Some(element)
}

/// The key as the kernel keeps it; none for intervals, which would have to be kept apart from their neighbours.
pub(super) fn key_bytes(key: &Key) -> Option<Vec<u8>> {
    Some(match key {
        Key::Interface(name) => interface(name),
        Key::InterfacePair(both) => both.iter().flat_map(|one| interface(one)).collect(),
        Key::Device(number) => number.to_ne_bytes().to_vec(),
        Key::DeviceAddress(both) => [both.0.to_ne_bytes().to_vec(), address(both.1)].concat(),
        Key::Address(ip) => address(*ip),
        Key::Range(..) => return None,
        Key::Identity(identity) => identity.to_ne_bytes().to_vec(),
        Key::IcmpV6Type(number) => vec![*number],
    })
}

/// The attributes in these bytes: kind, without the flag of nesting, and value.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (bytes.first_chunk::<2>(), bytes.get(2..4)) {
        let length = usize::from(u16::from_ne_bytes(*length));
        let kind = u16::from_ne_bytes([kind[0], kind[1]]) & !NESTED;
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        found.push((kind, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The attribute of this kind.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut found = attributes(bytes).into_iter();
    found.find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// A text that ends at its first zero.
pub(super) fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ruleset::KeyType;

    fn elements(keys: usize) -> Command {
        let keys: BTreeSet<Key> = (0..keys)
            .map(|number| Key::Address(IpAddr::from((0x0a00_0000 + number as u32).to_be_bytes())))
            .collect();
        Command::AddElements("s".to_owned(), Elements::Set(keys))
    }

    fn batch(commands: Vec<Command>) -> Option<Batch> {
        Batch::of(&Transaction { commands }, super::super::LIMIT)
    }

    #[test]
    fn small_changes_are_for_netlink_and_others_are_not() {
        assert!(batch(vec![elements(1000)]).is_some());
        assert!(
            batch(vec![elements(100_000)]).is_none(),
            "too long for one system call"
        );
        let range = Key::range(IpAddr::from([10, 0, 0, 0]), IpAddr::from([10, 0, 0, 9]));
        let range = Elements::Set(BTreeSet::from([range]));
        for command in [
            Command::AddTable,
            Command::AddSet("s".to_owned(), KeyType::Identity),
            Command::AddElements("s".to_owned(), range),
        ] {
            assert!(batch(vec![command.clone()]).is_none(), "{command:?}");
        }
    }

    #[test]
    fn one_element_is_these_bytes() {
        let (bytes, last) = batch(vec![elements(1)]).unwrap().finish(7);
        assert_eq!(last, 8);
        let message = &bytes[20..bytes.len() - 20];
        assert_eq!(
            message[4..8],
            [12, 10, 5, 4],
            "type, and request, ack, create"
        );
        assert_eq!(message[16..20], [1, 0, 0, 0], "inet");
        let expected: &[u8] = &[
            11, 0, 1, 0, b'm', b'a', b'r', b'g', b'a', b'y', 0, 0, // table
            6, 0, 2, 0, b's', 0, 0, 0, // set
            20, 0, 3, 128, 16, 0, 1, 128, 12, 0, 1, 128, 8, 0, 1, 0, 10, 0, 0, 0, // one key
        ];
        assert_eq!(&message[20..], expected);
    }
}
