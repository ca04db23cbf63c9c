//! Changes to the table that the kernel takes all or not at all, and their in-memory replay.
//!
//! A transaction is a value: it can be printed (`writer::text`), counted, and [replayed](Transaction::replay) on a
//! ruleset under the kernel's own rules about references. It does not know how to reach a kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Chain, Hook, Key, KeyType, Map, Match, Name, Rule, Ruleset, Set, Value, ValueType,
};

/// Elements to add to a set or map, or to delete from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Of a set.
    Set(BTreeSet<Key>),
    /// Of a map. For a deletion the values are those that are there.
    Map(BTreeMap<Key, Value>),
}

impl Elements {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Set(elements) => elements.len(),
            Self::Map(elements) => elements.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Makes the table if it is not there.
    AddTable,
    /// Deletes the table with all that is in it.
    DeleteTable,
    /// Makes an empty set.
    AddSet(Name, KeyType),
    /// Makes an empty map that takes so many elements, where that is bounded ([`Map::room`]).
    AddMap(Name, KeyType, ValueType, Option<u32>),
    /// Makes an empty chain.
    AddChain(Name, Option<Hook>),
    /// Appends a rule to a chain.
    AddRule(Name, Rule),
    /// Deletes every rule of a chain.
    FlushChain(Name),
    /// Adds elements to the set or map.
    AddElements(Name, Elements),
    /// Deletes elements from the set or map.
    DeleteElements(Name, Elements),
    /// Deletes a set that no rule uses.
    DeleteSet(Name),
    /// Deletes a map that no rule uses.
    DeleteMap(Name),
    /// Deletes a chain that nothing leads to.
    DeleteChain(Name),
}

impl Map {
    /// What makes it, without its elements.
    pub(crate) fn making(&self, name: &Name) -> Command {
        Command::AddMap(name.clone(), self.key, self.value, self.room())
    }
}

/// Commands the kernel takes as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The commands, in an order in which every reference holds.
    pub commands: Vec<Command>,
}

impl Transaction {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// How many commands there are; elements of one set count as one.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// The table as it is after the transaction, if the kernel would take it.
    ///
    /// # Errors
    /// The first command the kernel would refuse.
    pub fn replay(&self, table: &Ruleset) -> Result<Ruleset, ReplayError> {
        let mut table = table.clone();
        for command in &self.commands {
            replay(command, &mut table)?;
        }
        Ok(table)
    }
}

/// Why the kernel would refuse a transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The object is not there.
    #[error("{0}: no such chain, map, set or element")]
    Missing(Name),
    /// The object is there already.
    #[error("{0}: exists already")]
    Exists(Name),
    /// Something still refers to the object.
    #[error("{0}: still in use")]
    Busy(Name),
    /// A set was given map elements, a map set elements, or keys or values are of another type.
    #[error("{0}: elements of another type")]
    Type(Name),
}

fn missing(name: &str) -> ReplayError {
    ReplayError::Missing(name.to_owned())
}

fn replay(command: &Command, table: &mut Ruleset) -> Result<(), ReplayError> {
    match command {
        Command::AddTable => {}
        Command::DeleteTable => *table = Ruleset::new(),
        Command::AddSet(name, key) => {
            free_set_name(table, name)?;
            let set = Set {
                key: *key,
                elements: BTreeSet::new(),
            };
            table.sets.insert(name.clone(), set);
        }
        Command::AddMap(name, key, value, _) => {
            free_set_name(table, name)?;
            let map = Map {
                key: *key,
                value: *value,
                elements: BTreeMap::new(),
            };
            table.maps.insert(name.clone(), map);
        }
        Command::AddChain(name, hook) => {
            if table.chains.contains_key(name) {
                return Err(ReplayError::Exists(name.clone()));
            }
            table.chains.insert(
                name.clone(),
                Chain {
                    hook: *hook,
                    rules: Vec::new(),
                },
            );
        }
        Command::AddRule(chain, rule) => {
            check_rule(table, rule)?;
            table
                .chains
                .get_mut(chain)
                .ok_or_else(|| missing(chain))?
                .rules
                .push(rule.clone());
        }
        Command::FlushChain(name) => {
            table
                .chains
                .get_mut(name)
                .ok_or_else(|| missing(name))?
                .rules
                .clear();
        }
        Command::AddElements(name, elements) => add(table, name, elements)?,
        Command::DeleteElements(name, elements) => delete(table, name, elements)?,
        Command::DeleteSet(name) => {
            set_not_in_use(table, name)?;
            table.sets.remove(name).ok_or_else(|| missing(name))?;
        }
        Command::DeleteMap(name) => {
            set_not_in_use(table, name)?;
            table.maps.remove(name).ok_or_else(|| missing(name))?;
        }
        Command::DeleteChain(name) => {
            chain_not_in_use(table, name)?;
            table.chains.remove(name).ok_or_else(|| missing(name))?;
        }
    }
    Ok(())
}

/// Sets and maps share one name space in the kernel.
fn free_set_name(table: &Ruleset, name: &str) -> Result<(), ReplayError> {
    if table.sets.contains_key(name) || table.maps.contains_key(name) {
        return Err(ReplayError::Exists(name.to_owned()));
    }
    Ok(())
}

fn check_rule(table: &Ruleset, rule: &Rule) -> Result<(), ReplayError> {
    for condition in &rule.matches {
        if let Match::In(_, set) | Match::NotIn(_, set) = condition
            && !table.sets.contains_key(set)
        {
            return Err(missing(set));
        }
    }
    match &rule.action {
        Action::Verdict(verdict) => check_target(table, verdict.target()),
        Action::VerdictMap(_, map) | Action::Identify(_, map) => {
            table.maps.get(map).map(|_| ()).ok_or_else(|| missing(map))
        }
        Action::Count
        | Action::NoTrack
        | Action::ClearIdentity
        | Action::Log(_)
        | Action::SetMark(_)
        | Action::Masquerade => Ok(()),
    }
}

fn check_target(table: &Ruleset, target: Option<&str>) -> Result<(), ReplayError> {
    match target {
        Some(chain) if !table.chains.contains_key(chain) => Err(missing(chain)),
        _ => Ok(()),
    }
}

fn key_type(key: &Key) -> KeyType {
    use super::Family;
    match key {
        Key::Interface(_) => KeyType::Interface,
        Key::InterfacePair(..) => KeyType::InterfacePair,
        Key::Device(_) => KeyType::Device,
        Key::DeviceAddress(both) => KeyType::DeviceAddress(Family::of(both.1)),
        Key::Address(address) => KeyType::Address(Family::of(*address)),
        Key::Range(ends) => KeyType::Range(Family::of(ends.0)),
        Key::Identity(_) => KeyType::Identity,
        Key::IcmpV6Type(_) => KeyType::IcmpV6Type,
    }
}

fn overlaps(key: &Key, present: &Key) -> bool {
    match (key, present) {
        (Key::Range(one), Key::Range(other)) => one.0 <= other.1 && other.0 <= one.1,
        _ => key == present,
    }
}

/// The kernel takes a set's element twice, but not a map's with two values, nor intervals that overlap. Ours never add
/// what is there, so all of it is an error here.
fn add(table: &mut Ruleset, name: &str, elements: &Elements) -> Result<(), ReplayError> {
    let exists = || ReplayError::Exists(name.to_owned());
    let wrong = || ReplayError::Type(name.to_owned());
    match elements {
        Elements::Set(keys) => {
            let set = table.sets.get_mut(name).ok_or_else(|| missing(name))?;
            for key in keys {
                if key_type(key) != set.key {
                    return Err(wrong());
                }
                let taken = match set.key {
                    KeyType::Range(_) => set.elements.iter().any(|present| overlaps(key, present)),
                    _ => set.elements.contains(key),
                };
                if taken {
                    return Err(exists());
                }
                set.elements.insert(key.clone());
            }
        }
        Elements::Map(pairs) => {
            for value in pairs.values() {
                if let Value::Verdict(verdict) = value {
                    check_target(table, verdict.target())?;
                }
            }
            let map = table.maps.get_mut(name).ok_or_else(|| missing(name))?;
            for (key, value) in pairs {
                let fits = matches!(
                    (map.value, value),
                    (ValueType::Identity, Value::Identity(_))
                        | (ValueType::Verdict, Value::Verdict(_))
                );
                if key_type(key) != map.key || !fits {
                    return Err(wrong());
                }
                let taken = match map.key {
                    KeyType::Range(_) => map.elements.keys().any(|present| overlaps(key, present)),
                    _ => map.elements.contains_key(key),
                };
                if taken {
                    return Err(exists());
                }
                map.elements.insert(key.clone(), value.clone());
            }
        }
    }
    Ok(())
}

fn delete(table: &mut Ruleset, name: &str, elements: &Elements) -> Result<(), ReplayError> {
    match elements {
        Elements::Set(keys) => {
            let set = table.sets.get_mut(name).ok_or_else(|| missing(name))?;
            if keys.iter().any(|key| !set.elements.remove(key)) {
                return Err(missing(name));
            }
        }
        Elements::Map(pairs) => {
            let map = table.maps.get_mut(name).ok_or_else(|| missing(name))?;
            if pairs.keys().any(|key| map.elements.remove(key).is_none()) {
                return Err(missing(name));
            }
        }
    }
    Ok(())
}

/// A set or map is in use when a rule asks it.
fn set_not_in_use(table: &Ruleset, name: &str) -> Result<(), ReplayError> {
    if rules(table).any(|rule| uses_set(rule, name)) {
        return Err(ReplayError::Busy(name.to_owned()));
    }
    Ok(())
}

/// A chain is in use when a rule or an element of a map leads to it. A chain and a map may have the same name.
fn chain_not_in_use(table: &Ruleset, name: &str) -> Result<(), ReplayError> {
    let values = table.maps.values().flat_map(|map| map.elements.values());
    let by_map = values
        .filter_map(|value| match value {
            Value::Verdict(verdict) => verdict.target(),
            Value::Identity(_) => None,
        })
        .any(|target| target == name);
    if by_map || rules(table).any(|rule| leads_to(rule, name)) {
        return Err(ReplayError::Busy(name.to_owned()));
    }
    Ok(())
}

fn rules(table: &Ruleset) -> impl Iterator<Item = &Rule> {
    table.chains.values().flat_map(|chain| &chain.rules)
}

fn uses_set(rule: &Rule, name: &str) -> bool {
    let matched = rule.matches.iter().any(|condition| match condition {
        Match::In(_, set) | Match::NotIn(_, set) => set == name,
        _ => false,
    });
    matched
        || matches!(&rule.action, Action::VerdictMap(_, map) | Action::Identify(_, map) if map == name)
}

fn leads_to(rule: &Rule, name: &str) -> bool {
    matches!(&rule.action, Action::Verdict(verdict) if verdict.target() == Some(name))
}
