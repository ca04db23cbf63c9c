//! From one ruleset to the next: one transaction with only what changed.
//!
//! Sets and maps change element by element; a chain whose rules changed is flushed and written again (rules have no names
//! to address them by). The order makes every reference hold at every step: new objects, rules, elements, and only then
//! what has gone.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Chain, Command, Elements, Key, KeyType, Map, Name, Ruleset, Set, Transaction, Value, ValueType,
};

impl Ruleset {
    /// The transaction that replaces whatever table there is by this one. The kernel switches from the old to the new in
    /// one step; no packet sees neither.
    pub fn full(&self) -> Transaction {
        let mut commands = vec![Command::AddTable, Command::DeleteTable, Command::AddTable];
        commands.extend(diff(&Self::new(), self).commands);
        Transaction { commands }
    }
}

/// The transaction that turns `old` into `new`; empty when they are equal.
pub fn diff(old: &Ruleset, new: &Ruleset) -> Transaction {
    let mut commands = Vec::new();
    let stale = Stale::between(old, new);
    // An object whose type changed is in the way of its successor of the same name. The compiler makes none, but a diff
    // the kernel refuses would be refused again and again.
    if stale.blocks_successor {
        return new.full();
    }
    create(old, new, &mut commands);
    for (name, chain) in &new.chains {
        write_rules(name, old.chains.get(name), chain, &mut commands);
    }
    for (name, set) in &new.sets {
        change_set(name, old.sets.get(name), set, &mut commands);
    }
    for (name, map) in &new.maps {
        change_map(name, old.maps.get(name), map, &mut commands);
    }
    stale.delete(&mut commands);
    Transaction { commands }
}

/// What is only in the old ruleset.
struct Stale<'a> {
    chains: Vec<&'a Name>,
    maps: Vec<&'a Name>,
    sets: Vec<&'a Name>,
    blocks_successor: bool,
}

impl<'a> Stale<'a> {
    fn between(old: &'a Ruleset, new: &'a Ruleset) -> Self {
        let set_types = set_types(new);
        let retyped = set_types_iter(old)
            .any(|(name, kind)| set_types.get(name).is_some_and(|new| *new != kind));
        let rehooked = old.chains.iter().any(|(name, chain)| {
            new.chains
                .get(name)
                .is_some_and(|new| new.hook != chain.hook)
        });
        Self {
            chains: gone(&old.chains, &new.chains),
            maps: gone(&old.maps, &new.maps),
            sets: gone(&old.sets, &new.sets),
            blocks_successor: retyped || rehooked,
        }
    }

    /// Rules first, then the maps whose elements lead to chains, then the chains.
    fn delete(&self, commands: &mut Vec<Command>) {
        commands.extend(
            self.chains
                .iter()
                .map(|name| Command::FlushChain((*name).clone())),
        );
        commands.extend(
            self.maps
                .iter()
                .map(|name| Command::DeleteMap((*name).clone())),
        );
        commands.extend(
            self.sets
                .iter()
                .map(|name| Command::DeleteSet((*name).clone())),
        );
        commands.extend(
            self.chains
                .iter()
                .map(|name| Command::DeleteChain((*name).clone())),
        );
    }
}

fn gone<'a, T>(old: &'a BTreeMap<Name, T>, new: &BTreeMap<Name, T>) -> Vec<&'a Name> {
    old.keys().filter(|name| !new.contains_key(*name)).collect()
}

type SetType = (KeyType, Option<ValueType>);

fn set_types_iter(ruleset: &Ruleset) -> impl Iterator<Item = (&str, SetType)> {
    let sets = ruleset
        .sets
        .iter()
        .map(|(name, set)| (name.as_str(), (set.key, None)));
    let maps = ruleset
        .maps
        .iter()
        .map(|(name, map)| (name.as_str(), (map.key, Some(map.value))));
    sets.chain(maps)
}

fn set_types(ruleset: &Ruleset) -> BTreeMap<&str, SetType> {
    set_types_iter(ruleset).collect()
}

fn create(old: &Ruleset, new: &Ruleset, commands: &mut Vec<Command>) {
    for (name, set) in new
        .sets
        .iter()
        .filter(|(name, _)| !old.sets.contains_key(*name))
    {
        commands.push(Command::AddSet(name.clone(), set.key));
    }
    for (name, map) in new
        .maps
        .iter()
        .filter(|(name, _)| !old.maps.contains_key(*name))
    {
        commands.push(map.making(name));
    }
    for (name, chain) in new
        .chains
        .iter()
        .filter(|(name, _)| !old.chains.contains_key(*name))
    {
        commands.push(Command::AddChain(name.clone(), chain.hook));
    }
}

fn write_rules(name: &Name, old: Option<&Chain>, new: &Chain, commands: &mut Vec<Command>) {
    let old_rules = old.map_or(&[][..], |chain| &chain.rules);
    if old_rules == new.rules {
        return;
    }
    if !old_rules.is_empty() {
        commands.push(Command::FlushChain(name.clone()));
    }
    commands.extend(
        new.rules
            .iter()
            .map(|rule| Command::AddRule(name.clone(), rule.clone())),
    );
}

fn change_set(name: &Name, old: Option<&Set>, new: &Set, commands: &mut Vec<Command>) {
    let none = BTreeSet::new();
    let old = old.map_or(&none, |set| &set.elements);
    let deleted: BTreeSet<_> = old.difference(&new.elements).cloned().collect();
    let added: BTreeSet<_> = new.elements.difference(old).cloned().collect();
    push_elements(name, Elements::Set(deleted), Elements::Set(added), commands);
}

fn change_map(name: &Name, old: Option<&Map>, new: &Map, commands: &mut Vec<Command>) {
    let none = BTreeMap::new();
    let old = old.map_or(&none, |map| &map.elements);
    let only =
        |these: &BTreeMap<Key, Value>, those: &BTreeMap<Key, Value>| -> BTreeMap<Key, Value> {
            these
                .iter()
                .filter(|(key, value)| those.get(*key) != Some(*value))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
    let deleted = only(old, &new.elements);
    let added = only(&new.elements, old);
    push_elements(name, Elements::Map(deleted), Elements::Map(added), commands);
}

/// Deletions go first: a changed value is the same key deleted and added, which the kernel takes in one transaction.
fn push_elements(name: &Name, deleted: Elements, added: Elements, commands: &mut Vec<Command>) {
    if !deleted.is_empty() {
        commands.push(Command::DeleteElements(name.clone(), deleted));
    }
    if !added.is_empty() {
        commands.push(Command::AddElements(name.clone(), added));
    }
}
