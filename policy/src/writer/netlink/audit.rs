//! Whether the kernel's table is still what was committed.
//!
//! Elements are compared byte by byte, except intervals, which the kernel keeps in another form; of a chain's rules it is
//! the number that is compared: what changes a table behind our back deletes, flushes or adds.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::Error,
    message::{
        Attributes, INET, SUBSYSTEM, TABLE, attribute, attributes, data, key_bytes, text, verdict,
    },
    socket::Socket,
};
use crate::ruleset::{Key, Ruleset, Value};

const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
const GET_ELEMENT: u16 = SUBSYSTEM << 8 | 13;

/// Keys, each with the value of a map as it lies in a message.
type Held = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn audit(socket: &mut Socket, ruleset: &Ruleset) -> Result<Vec<String>, Error> {
    let mut differences = Vec::new();
    let counts = rules(socket)?;
    for (name, chain) in &ruleset.chains {
        let found = counts.get(name).copied().unwrap_or_default();
        if found != chain.rules.len() {
            let wanted = chain.rules.len();
            differences.push(format!("chain {name}: {found} rules instead of {wanted}"));
        }
    }
    let sets = ruleset.sets.iter().map(|(name, set)| {
        let keys = set.elements.iter().map(|key| (key, None));
        (name, keys.collect::<Vec<_>>())
    });
    let maps = ruleset.maps.iter().map(|(name, map)| {
        let pairs = map.elements.iter().map(|(key, value)| (key, Some(value)));
        (name, pairs.collect::<Vec<_>>())
    });
    for (name, wanted) in sets.chain(maps) {
        let Some(wanted) = expected(&wanted) else {
            continue;
        };
        let found = match elements(socket, name) {
            Err(Error::Missing(_)) => {
                differences.push(format!("set {name}: is gone"));
                continue;
            }
            found => found?,
        };
        let keys = |held: &Held| held.keys().cloned().collect::<BTreeSet<_>>();
        let (there, here) = (keys(&found), keys(&wanted));
        let (less, more) = (
            here.difference(&there).count(),
            there.difference(&here).count(),
        );
        let mut other = wanted.iter();
        let other = other.any(|(key, value)| found.get(key).is_some_and(|found| found != value));
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
    Ok(differences)
}

/// The elements as the kernel lists them, or none for intervals.
fn expected(elements: &[(&Key, Option<&Value>)]) -> Option<Held> {
    let one = |(key, value): &(&Key, Option<&Value>)| {
        let value = match value {
            None => Vec::new(),
            Some(Value::Identity(identity)) => data(&identity.to_ne_bytes()).bytes().to_vec(),
            Some(Value::Verdict(value)) => verdict(value).bytes().to_vec(),
        };
        Some((key_bytes(key)?, plain(&value)))
    };
    elements.iter().map(one).collect()
}

/// The values of attributes however deep, without what tells of their nesting: the kernel does not flag it everywhere.
fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut values = Vec::new();
    for (kind, value) in attributes(bytes) {
        values.extend(kind.to_ne_bytes());
        // A verdict holds attributes, a value holds bytes.
        values.extend(if kind == 2 && value.len() > 4 {
            plain(value)
        } else {
            value.to_vec()
        });
    }
    values
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

fn elements(socket: &mut Socket, set: &str) -> Result<Held, Error> {
    let mut question = Attributes::default();
    question.text(1, TABLE).text(2, set);
    let mut held = Held::new();
    for message in socket.dump(GET_ELEMENT, INET, &question)? {
        for (_, element) in attribute(&message, 3).map(attributes).unwrap_or_default() {
            let key = attribute(element, 1).and_then(|key| attribute(key, 1));
            let value = attribute(element, 2).unwrap_or_default();
            held.extend(key.map(|key| (key.to_vec(), plain(value))));
        }
    }
    Ok(held)
}
