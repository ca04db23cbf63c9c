//! The table as it is to be, and what has changed in it since somebody was last told.
//!
//! Everything that is written here is noted with what was there before, so that the difference is found among what has
//! been touched, not by comparing whole tables. Something changed and changed back is no difference.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    compile::{
        emit::{self, Sum},
        is_apart,
    },
    ruleset::{
        Chain, Command, Elements, Key, KeyType, Map, Name, Ruleset, Set, Transaction, Value,
        ValueType,
    },
};

/// What was there before the first change.
#[derive(Debug)]
struct Before<K, V> {
    /// The kind, if it was there at all.
    kind: Option<K>,
    /// Of the elements that were touched: what they were.
    elements: BTreeMap<Key, Option<V>>,
}

/// A table and its changes.
#[derive(Debug)]
pub(super) struct Draft {
    table: Ruleset,
    sum: Sum,
    sets: BTreeMap<Name, Before<KeyType, ()>>,
    maps: BTreeMap<Name, Before<(KeyType, ValueType), Value>>,
    chains: BTreeMap<Name, Option<Chain>>,
}

impl Draft {
    /// A table that nobody has been told of: what has changed is all that is in it.
    pub(super) fn new(table: Ruleset) -> Self {
        let sum = Sum::of(&table);
        let chains = table.chains.keys();
        Self {
            sum,
            sets: table.sets.keys().map(fresh).collect(),
            maps: table.maps.keys().map(fresh).collect(),
            chains: chains.map(|name| (name.clone(), None)).collect(),
            table,
        }
    }

    /// The table.
    pub(super) fn table(&self) -> &Ruleset {
        &self.table
    }

    /// Puts an element into a set.
    pub(super) fn put_key(&mut self, name: &str, key: Key) {
        let Some(set) = self.table.sets.get_mut(name) else {
            return;
        };
        if set.elements.contains(&key) {
            return;
        }
        let before = set_before(&mut self.sets, name, set.key);
        before.elements.entry(key.clone()).or_insert(None);
        if !is_apart(name) {
            self.sum.add(&(name, &key));
        }
        set.elements.insert(key);
    }

    /// Takes an element out of a set.
    pub(super) fn cut_key(&mut self, name: &str, key: &Key) {
        let Some(set) = self.table.sets.get_mut(name) else {
            return;
        };
        if !set.elements.remove(key) {
            return;
        }
        let before = set_before(&mut self.sets, name, set.key);
        before.elements.entry(key.clone()).or_insert(Some(()));
        if !is_apart(name) {
            self.sum.subtract(&(name, key));
        }
    }

    /// Puts an element into a map, in the place of what is there under the key.
    pub(super) fn put(&mut self, name: &str, key: Key, value: Value) {
        let Some(map) = self.table.maps.get_mut(name) else {
            return;
        };
        if map.elements.get(&key) == Some(&value) {
            return;
        }
        let counts = !is_apart(name);
        if counts {
            self.sum.add(&(name, (&key, &value)));
        }
        let was = map.elements.insert(key.clone(), value);
        if let Some(was) = was.as_ref().filter(|_| counts) {
            self.sum.subtract(&(name, (&key, was)));
        }
        let before = map_before(&mut self.maps, name, (map.key, map.value));
        before.elements.entry(key).or_insert(was);
    }

    /// Takes an element out of a map.
    pub(super) fn cut(&mut self, name: &str, key: &Key) {
        let Some(map) = self.table.maps.get_mut(name) else {
            return;
        };
        let Some(was) = map.elements.remove(key) else {
            return;
        };
        if !is_apart(name) {
            self.sum.subtract(&(name, (key, &was)));
        }
        let before = map_before(&mut self.maps, name, (map.key, map.value));
        before.elements.entry(key.clone()).or_insert(Some(was));
    }

    /// Makes an empty map, if there is none of the name.
    pub(super) fn add_map(&mut self, name: &str, key: KeyType, value: ValueType) {
        if self.table.maps.contains_key(name) {
            return;
        }
        self.maps
            .entry(name.to_owned())
            .or_insert_with_key(|name| fresh(name).1);
        let elements = BTreeMap::new();
        let map = Map {
            key,
            value,
            elements,
        };
        self.table.maps.insert(name.to_owned(), map);
    }

    /// Takes a map away with all that is in it.
    pub(super) fn drop_map(&mut self, name: &str) {
        let Some(map) = self.table.maps.remove(name) else {
            return;
        };
        let before = map_before(&mut self.maps, name, (map.key, map.value));
        for (key, value) in map.elements {
            if !is_apart(name) {
                self.sum.subtract(&(name, (&key, &value)));
            }
            before.elements.entry(key).or_insert(Some(value));
        }
    }

    /// Makes a set what it is to be; `None` takes it away.
    pub(super) fn set_set(&mut self, name: &str, wanted: Option<&Set>) {
        if wanted.is_some() && !self.table.sets.contains_key(name) {
            self.sets
                .entry(name.to_owned())
                .or_insert_with_key(|name| fresh(name).1);
        }
        let there = self.table.sets.get(name).map(|set| set.elements.clone());
        let none = BTreeSet::new();
        let elements = wanted.map_or(&none, |set| &set.elements);
        for key in there
            .iter()
            .flatten()
            .filter(|key| !elements.contains(*key))
        {
            self.cut_key(name, key);
        }
        let Some(wanted) = wanted else {
            if let Some(set) = self.table.sets.remove(name) {
                set_before(&mut self.sets, name, set.key);
            }
            return;
        };
        self.table.sets.entry(name.to_owned()).or_insert(Set {
            key: wanted.key,
            elements: BTreeSet::new(),
        });
        for key in &wanted.elements {
            self.put_key(name, key.clone());
        }
    }

    /// Makes a map what it is to be; `None` takes it away.
    pub(super) fn set_map(&mut self, name: &str, wanted: Option<Map>) {
        let Some(wanted) = wanted else {
            return self.drop_map(name);
        };
        self.add_map(name, wanted.key, wanted.value);
        let there = self.table.maps.get(name);
        let there = there.into_iter().flat_map(|map| map.elements.keys());
        let gone = there.filter(|key| !wanted.elements.contains_key(*key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.cut(name, &key);
        }
        for (key, value) in wanted.elements {
            self.put(name, key, value);
        }
    }

    /// Makes a chain what it is to be; `None` takes it away.
    pub(super) fn set_chain(&mut self, name: &str, wanted: Option<Chain>) {
        let there = self.table.chains.get(name);
        if there == wanted.as_ref() {
            return;
        }
        if !emit::knows_generation(name) && !is_apart(name) {
            if let Some(chain) = there {
                self.sum.subtract(&(name, chain));
            }
            if let Some(chain) = &wanted {
                self.sum.add(&(name, chain));
            }
        }
        let was = match wanted {
            Some(chain) => self.table.chains.insert(name.to_owned(), chain),
            None => self.table.chains.remove(name),
        };
        self.chains.entry(name.to_owned()).or_insert(was);
    }

    /// What has changed since this was last called, with the generation that it makes.
    pub(super) fn take(&mut self) -> Transaction {
        for (name, chain) in emit::generation_chains(self.sum, &self.table) {
            self.set_chain(name, chain);
        }
        let sets = std::mem::take(&mut self.sets);
        let maps = std::mem::take(&mut self.maps);
        let chains = std::mem::take(&mut self.chains);
        let table = &self.table;
        let rehooked = chains.iter().any(|(name, was)| {
            let now = table.chains.get(name);
            matches!((was, now), (Some(was), Some(now)) if was.hook != now.hook)
        });
        if rehooked {
            // The compiler does not do that; were it to, a new table is what the kernel takes.
            return table.full();
        }
        let mut commands = Vec::new();
        create(table, &sets, &maps, &chains, &mut commands);
        write_rules(table, &chains, &mut commands);
        change_sets(table, &sets, &mut commands);
        let mut gone = Vec::new();
        delete(table, &sets, &maps, &chains, &mut gone);
        change_maps(table, maps, &mut commands);
        commands.append(&mut gone);
        Transaction { commands }
    }
}

fn fresh<K, V>(name: &Name) -> (Name, Before<K, V>) {
    let before = Before {
        kind: None,
        elements: BTreeMap::new(),
    };
    (name.clone(), before)
}

fn set_before<'b>(
    sets: &'b mut BTreeMap<Name, Before<KeyType, ()>>,
    name: &str,
    kind: KeyType,
) -> &'b mut Before<KeyType, ()> {
    sets.entry(name.to_owned()).or_insert_with(|| Before {
        kind: Some(kind),
        elements: BTreeMap::new(),
    })
}

fn map_before<'b>(
    maps: &'b mut BTreeMap<Name, Before<(KeyType, ValueType), Value>>,
    name: &str,
    kind: (KeyType, ValueType),
) -> &'b mut Before<(KeyType, ValueType), Value> {
    maps.entry(name.to_owned()).or_insert_with(|| Before {
        kind: Some(kind),
        elements: BTreeMap::new(),
    })
}

type Sets = BTreeMap<Name, Before<KeyType, ()>>;
type Maps = BTreeMap<Name, Before<(KeyType, ValueType), Value>>;
type Chains = BTreeMap<Name, Option<Chain>>;

fn create(table: &Ruleset, sets: &Sets, maps: &Maps, chains: &Chains, commands: &mut Vec<Command>) {
    for (name, _) in sets.iter().filter(|(_, before)| before.kind.is_none()) {
        let set = table.sets.get(name);
        commands.extend(set.map(|set| Command::AddSet(name.clone(), set.key)));
    }
    for (name, _) in maps.iter().filter(|(_, before)| before.kind.is_none()) {
        let map = table.maps.get(name);
        commands.extend(map.map(|map| map.making(name)));
    }
    for (name, _) in chains.iter().filter(|(_, was)| was.is_none()) {
        let chain = table.chains.get(name);
        commands.extend(chain.map(|chain| Command::AddChain(name.clone(), chain.hook)));
    }
}

fn write_rules(table: &Ruleset, chains: &Chains, commands: &mut Vec<Command>) {
    for (name, was) in chains {
        let Some(now) = table.chains.get(name) else {
            continue;
        };
        let old = was.as_ref().map_or(&[][..], |chain| &chain.rules);
        if old == now.rules {
            continue;
        }
        if !old.is_empty() {
            commands.push(Command::FlushChain(name.clone()));
        }
        let rules = now.rules.iter();
        commands.extend(rules.map(|rule| Command::AddRule(name.clone(), rule.clone())));
    }
}

fn change_sets(table: &Ruleset, sets: &Sets, commands: &mut Vec<Command>) {
    for (name, before) in sets {
        let Some(set) = table.sets.get(name) else {
            continue;
        };
        let touched = before.elements.iter();
        let deleted: BTreeSet<Key> = touched
            .filter(|(key, was)| was.is_some() && !set.elements.contains(*key))
            .map(|(key, _)| key.clone())
            .collect();
        let added: BTreeSet<Key> = match before.kind {
            None => set.elements.clone(),
            Some(_) => before
                .elements
                .iter()
                .filter(|(key, was)| was.is_none() && set.elements.contains(*key))
                .map(|(key, _)| key.clone())
                .collect(),
        };
        push(name, Elements::Set(deleted), Elements::Set(added), commands);
    }
}

/// Takes what was there apart while it goes: of many elements there need not be two lists at once.
fn change_maps(table: &Ruleset, maps: Maps, commands: &mut Vec<Command>) {
    for (name, before) in maps {
        let Some(map) = table.maps.get(&name) else {
            continue;
        };
        let mut deleted = BTreeMap::new();
        let mut added = BTreeMap::new();
        if before.kind.is_none() {
            drop(before.elements);
            added.clone_from(&map.elements);
        } else {
            for (key, was) in before.elements {
                let now = map.elements.get(&key);
                if was.as_ref() == now {
                    continue;
                }
                match (was, now.cloned()) {
                    (Some(was), Some(now)) => {
                        deleted.insert(key.clone(), was);
                        added.insert(key, now);
                    }
                    (Some(was), None) => drop(deleted.insert(key, was)),
                    (None, Some(now)) => drop(added.insert(key, now)),
                    (None, None) => {}
                }
            }
        }
        push(
            &name,
            Elements::Map(deleted),
            Elements::Map(added),
            commands,
        );
    }
}

/// Deletions go first: a changed value is the same key deleted and added, which the kernel takes in one transaction.
fn push(name: &Name, deleted: Elements, added: Elements, commands: &mut Vec<Command>) {
    if !deleted.is_empty() {
        commands.push(Command::DeleteElements(name.clone(), deleted));
    }
    if !added.is_empty() {
        commands.push(Command::AddElements(name.clone(), added));
    }
}

/// Rules first, then the maps whose elements lead to chains, then the chains.
fn delete(table: &Ruleset, sets: &Sets, maps: &Maps, chains: &Chains, commands: &mut Vec<Command>) {
    let gone = || {
        let gone = chains
            .iter()
            .filter(|(name, was)| was.is_some() && !table.chains.contains_key(*name));
        gone.map(|(name, _)| name.clone())
    };
    commands.extend(gone().map(Command::FlushChain));
    let maps = maps
        .iter()
        .filter(|(name, before)| before.kind.is_some() && !table.maps.contains_key(*name));
    commands.extend(maps.map(|(name, _)| Command::DeleteMap(name.clone())));
    let sets = sets
        .iter()
        .filter(|(name, before)| before.kind.is_some() && !table.sets.contains_key(*name));
    commands.extend(sets.map(|(name, _)| Command::DeleteSet(name.clone())));
    commands.extend(gone().map(Command::DeleteChain));
}
