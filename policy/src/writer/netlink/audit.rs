//! Whether the kernel's table is still what was committed, and what would make it so again.
//!
//! Elements are compared one by one, with their values. Of a chain's rules it is the number that is compared: what changes
//! a table behind our back deletes, flushes or adds. Only our own table is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    super::{Audit, Error},
    message::{Attributes, INET, SUBSYSTEM, TABLE, attribute, attributes, text},
    socket::Socket,
};
use crate::{
    identity,
    ruleset::{
        Chain, Family, Key, KeyType, Map, Rule, Ruleset, Set, Value, ValueType, Verdict, diff,
    },
};

const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
const GET_ELEMENT: u16 = SUBSYSTEM << 8 | 13;
/// The flag of an element that ends an interval (NFT_SET_ELEM_INTERVAL_END).
const INTERVAL_END: u32 = 1;

pub(super) fn audit(socket: &mut Socket, wanted: &Ruleset) -> Result<Audit, Error> {
    let mut differences = Vec::new();
    let mut held = Ruleset {
        chains: chains(socket, wanted, &mut differences)?,
        ..Ruleset::new()
    };
    for (name, set) in &wanted.sets {
        let Some(found) = found(socket, name, set.key, None, &mut differences)? else {
            continue;
        };
        let elements: BTreeSet<Key> = found.into_keys().collect();
        let less = set.elements.difference(&elements).count();
        let more = elements.difference(&set.elements).count();
        tell(name, less, more, false, &mut differences);
        let key = set.key;
        held.sets.insert(name.clone(), Set { key, elements });
    }
    for (name, map) in &wanted.maps {
        let kind = Some(map.value);
        let Some(found) = found(socket, name, map.key, kind, &mut differences)? else {
            continue;
        };
        let is_in = |one: &BTreeMap<Key, Option<Value>>, key: &Key| one.contains_key(key);
        let less = map.elements.keys().filter(|key| !is_in(&found, key));
        let less = less.count();
        let more = found.keys().filter(|key| !map.elements.contains_key(key));
        let more = more.count();
        let mut both = map.elements.iter();
        let other = both.any(|(key, value)| {
            found
                .get(key)
                .is_some_and(|found| found.as_ref() != Some(value))
        });
        tell(name, less, more, other, &mut differences);
        // A value that cannot be read differs from any of ours.
        let unread = Value::Identity(u32::MAX);
        let elements = found
            .into_iter()
            .map(|(key, value)| (key, value.unwrap_or_else(|| unread.clone())));
        let map = Map {
            key: map.key,
            value: map.value,
            elements: elements.collect(),
        };
        held.maps.insert(name.clone(), map);
    }
    let repair = match differences.is_empty() {
        true => diff(wanted, wanted),
        false => diff(&held, wanted),
    };
    Ok(Audit {
        differences,
        repair,
    })
}

fn tell(name: &str, less: usize, more: usize, other: bool, differences: &mut Vec<String>) {
    if less + more > 0 || other {
        differences.push(format!(
            "set {name}: {less} elements missing, {more} too many{}",
            if other {
                ", others with another value"
            } else {
                ""
            }
        ));
    }
}

/// The chains there are. One with another number of rules than it should have is given that many of no meaning.
fn chains(
    socket: &mut Socket,
    wanted: &Ruleset,
    differences: &mut Vec<String>,
) -> Result<BTreeMap<String, Chain>, Error> {
    let mut counts = rules(socket)?;
    let some = |count| vec![Rule::always(Verdict::Jump(String::new())); count];
    let mut chains = BTreeMap::new();
    for (name, chain) in &wanted.chains {
        let count = counts.remove(name).unwrap_or_default();
        let right = chain.rules.len();
        if count == right {
            chains.insert(name.clone(), chain.clone());
            continue;
        }
        differences.push(format!("chain {name}: {count} rules instead of {right}"));
        if count > 0 || is_there(socket, name)? {
            let mut there = Chain::of(some(count));
            there.hook = chain.hook;
            chains.insert(name.clone(), there);
        }
    }
    for (name, count) in counts {
        differences.push(format!("chain {name}: is not ours"));
        chains.insert(name, Chain::of(some(count)));
    }
    Ok(chains)
}

fn is_there(socket: &mut Socket, chain: &str) -> Result<bool, Error> {
    let mut question = Attributes::default();
    question.text(1, TABLE).text(3, chain);
    match socket.order(GET_CHAIN, INET, &question) {
        Ok(()) => Ok(true),
        Err(Error::Missing(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn rules(socket: &mut Socket) -> Result<BTreeMap<String, usize>, Error> {
    let mut question = Attributes::default();
    question.text(1, TABLE);
    let mut counts = BTreeMap::new();
    for rule in socket.dump(GET_RULE, INET, &question)? {
        let is_ours = attribute(&rule, 1).is_some_and(|table| text(table) == TABLE);
        if let (true, Some(chain)) = (is_ours, attribute(&rule, 2)) {
            *counts.entry(text(chain)).or_default() += 1;
        }
    }
    Ok(counts)
}

/// The elements of a set or map with their values, or nothing when it is gone.
fn found(
    socket: &mut Socket,
    name: &str,
    key: KeyType,
    value: Option<ValueType>,
    differences: &mut Vec<String>,
) -> Result<Option<BTreeMap<Key, Option<Value>>>, Error> {
    let elements = match elements(socket, name) {
        Err(Error::Missing(_)) => {
            differences.push(format!("set {name}: is gone"));
            return Ok(None);
        }
        elements => elements?,
    };
    let read = |bytes: &[u8]| value.and_then(|kind| read_value(kind, bytes));
    if let KeyType::Range(family) = key {
        return Ok(Some(intervals(family, &elements, read)));
    }
    let elements = elements
        .iter()
        .filter_map(|one| Some((read_key(key, &one.key)?, read(&one.value))));
    Ok(Some(elements.collect()))
}

/// An element as the kernel lists it.
struct Element {
    key: Vec<u8>,
    value: Vec<u8>,
    is_end: bool,
}

fn elements(socket: &mut Socket, set: &str) -> Result<Vec<Element>, Error> {
    let mut question = Attributes::default();
    question.text(1, TABLE).text(2, set);
    let mut elements = Vec::new();
    for message in socket.dump(GET_ELEMENT, INET, &question)? {
        for (_, element) in attribute(&message, 3).map(attributes).unwrap_or_default() {
            let Some(key) = attribute(element, 1).and_then(|key| attribute(key, 1)) else {
                continue;
            };
            let flags = attribute(element, 3).and_then(<[u8]>::first_chunk);
            let flags = flags.map_or(0, |bytes| u32::from_be_bytes(*bytes));
            elements.push(Element {
                key: key.to_vec(),
                value: attribute(element, 2).unwrap_or_default().to_vec(),
                is_end: flags & INTERVAL_END != 0,
            });
        }
    }
    Ok(elements)
}

/// Intervals from their starts and ends. An end is the first address after the interval; where the next one begins right
/// there, or nothing comes after, there may be none.
fn intervals(
    family: Family,
    elements: &[Element],
    read: impl Fn(&[u8]) -> Option<Value>,
) -> BTreeMap<Key, Option<Value>> {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |all, byte| all << 8 | u128::from(*byte))
    };
    let highest = match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    };
    let edges: BTreeSet<u128> = elements.iter().map(|one| number(&one.key)).collect();
    let starts = elements.iter().filter(|one| !one.is_end);
    let of = |start: &Element| {
        let first = number(&start.key);
        let after = first
            .checked_add(1)
            .and_then(|next| edges.range(next..).next());
        let last = after.map_or(highest, |after| after - 1);
        let ends = [first, last].map(|one| identity::address(family, one));
        (Key::range(ends[0], ends[1]), read(&start.value))
    };
    starts.map(of).collect()
}

fn read_key(kind: KeyType, bytes: &[u8]) -> Option<Key> {
    let interface = |at: usize| Some(text(bytes.get(at..at + 16)?));
    let device = || Some(u32::from_ne_bytes(*bytes.first_chunk()?));
    Some(match kind {
        KeyType::Interface => Key::interface(&interface(0)?),
        KeyType::InterfacePair => Key::interface_pair(&interface(0)?, &interface(16)?),
        KeyType::Device => Key::Device(device()?),
        KeyType::DeviceAddress(family) => {
            Key::device_address(device()?, read_address(family, bytes.get(4..)?)?)
        }
        KeyType::Address(family) => Key::Address(read_address(family, bytes)?),
        KeyType::Range(_) => return None,
        KeyType::Identity => Key::Identity(u32::from_ne_bytes(*bytes.first_chunk()?)),
        KeyType::IcmpV6Type => Key::IcmpV6Type(*bytes.first()?),
    })
}

fn read_address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => Ipv4Addr::from(*bytes.first_chunk::<4>()?).into(),
        Family::V6 => Ipv6Addr::from(*bytes.first_chunk::<16>()?).into(),
    })
}

fn read_value(kind: ValueType, bytes: &[u8]) -> Option<Value> {
    match kind {
        ValueType::Identity => {
            let value = attribute(bytes, 1)?.first_chunk()?;
            Some(Value::Identity(u32::from_ne_bytes(*value)))
        }
        ValueType::Verdict => {
            let verdict = attribute(bytes, 2)?;
            let code = i32::from_be_bytes(*attribute(verdict, 1)?.first_chunk()?);
            let chain = || attribute(verdict, 2).map(text);
            Some(Value::from(match code {
                0 => Verdict::Drop,
                1 => Verdict::Accept,
                -3 => Verdict::Jump(chain()?),
                -4 => Verdict::Goto(chain()?),
                -5 => Verdict::Return,
                _ => return None,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_with_and_without_ends() {
        let one = |key: [u8; 4], is_end| Element {
            key: key.to_vec(),
            value: Vec::new(),
            is_end,
        };
        let range = |first: &str, last: &str| {
            (
                Key::range(first.parse().unwrap(), last.parse().unwrap()),
                None,
            )
        };
        let elements = [
            one([0, 0, 0, 0], true),
            one([10, 0, 0, 0], false),
            one([10, 0, 1, 0], true),
            one([10, 0, 1, 0], false),
            one([10, 0, 2, 0], false),
            one([10, 0, 3, 0], true),
            one([128, 0, 0, 0], false),
        ];
        assert_eq!(
            intervals(Family::V4, &elements, |_| None),
            BTreeMap::from([
                range("10.0.0.0", "10.0.0.255"),
                range("10.0.1.0", "10.0.1.255"),
                range("10.0.2.0", "10.0.2.255"),
                range("128.0.0.0", "255.255.255.255"),
            ])
        );
    }
}
