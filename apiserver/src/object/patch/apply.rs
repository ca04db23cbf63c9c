//! Server-side apply, reduced to what one writer needs: a three-way merge of the live object, what this field manager applied
//! last time, and what it applies now.
//!
//! Kept from Kubernetes: fields a manager stops mentioning go away unless another manager applied them too; lists merge by key
//! where the schema says so. Not kept: ownership by plain updates, conflicts (`force` is always on), `managedFields` in answers.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::lists::{ListMerge, ListRules, identity, positions, unite};
use crate::object::root;

/// `live` after `now` was applied by a manager that applied `before` last time; `others` are the last applications of the other
/// managers.
pub fn apply(
    live: &mut Value,
    before: Option<&Value>,
    now: &Value,
    others: &[&Value],
    rules: &dyn ListRules,
) {
    let mut path = Vec::new();
    if let Some(before) = before {
        remove_dropped(live, before, now, others, rules, &mut path);
    }
    merge(live, now, rules, &mut path);
}

/// Removes from `live` what `before` has and neither `now` nor any of `others`.
fn remove_dropped(
    live: &mut Value,
    before: &Value,
    now: &Value,
    others: &[&Value],
    rules: &dyn ListRules,
    path: &mut Vec<String>,
) {
    match (live, before) {
        (Value::Object(live), Value::Object(before)) => {
            for (key, old) in before {
                path.push(key.clone());
                let others: Vec<&Value> =
                    others.iter().filter_map(|other| other.get(key)).collect();
                match (now.get(key), live.get_mut(key)) {
                    (None, Some(_)) if others.is_empty() && !is_tree(old, rules, path) => {
                        live.remove(key);
                    }
                    (new, Some(child)) => {
                        remove_dropped(
                            child,
                            old,
                            new.unwrap_or(&Value::Null),
                            &others,
                            rules,
                            path,
                        );
                        let emptied = match child {
                            Value::Object(map) => map.is_empty(),
                            Value::Array(list) => list.is_empty(),
                            _ => false,
                        };
                        if emptied && new.is_none() && others.is_empty() {
                            live.remove(key);
                        }
                    }
                    (_, None) => {}
                }
                path.pop();
            }
        }
        (Value::Array(live), Value::Array(before)) => match rules.rule(path) {
            ListMerge::Atomic => {}
            ListMerge::Set => {
                let texts = |list: &Value| -> HashSet<String> {
                    entries_of(list).iter().map(Value::to_string).collect()
                };
                let mut dropped: HashSet<String> = before.iter().map(Value::to_string).collect();
                for kept in std::iter::once(now).chain(others.iter().copied()) {
                    dropped = &dropped - &texts(kept);
                }
                live.retain(|entry| !dropped.contains(&entry.to_string()));
            }
            ListMerge::Keys(keys) => {
                remove_dropped_entries(live, before, now, others, &keys, rules, path)
            }
        },
        _ => {}
    }
}

fn remove_dropped_entries(
    live: &mut Vec<Value>,
    before: &[Value],
    now: &Value,
    others: &[&Value],
    keys: &[String],
    rules: &dyn ListRules,
    path: &mut Vec<String>,
) {
    let places = |list: &Value| positions(entries_of(list), keys);
    let (live_places, now_places) = (positions(live, keys), places(now));
    let other_places: Vec<_> = others.iter().map(|other| places(other)).collect();
    let mut gone = HashSet::new();
    for old in before {
        let identity = identity(old, keys);
        let held: Vec<&Value> = others
            .iter()
            .zip(&other_places)
            .filter_map(|(other, places)| entries_of(other).get(*places.get(&identity)?))
            .collect();
        match now_places
            .get(&identity)
            .and_then(|&at| entries_of(now).get(at))
        {
            None if held.is_empty() => {
                gone.insert(identity);
            }
            new => {
                if let Some(entry) = live_places.get(&identity).and_then(|&at| live.get_mut(at)) {
                    remove_dropped(entry, old, new.unwrap_or(&Value::Null), &held, rules, path);
                }
            }
        }
    }
    if !gone.is_empty() {
        live.retain(|entry| !gone.contains(&identity(entry, keys)));
    }
}

fn entries_of(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether the value is merged field by field, so that parts of it may belong to someone else.
fn is_tree(value: &Value, rules: &dyn ListRules, path: &[String]) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(_) => rules.rule(path) != ListMerge::Atomic,
        _ => false,
    }
}

fn merge(live: &mut Value, now: &Value, rules: &dyn ListRules, path: &mut Vec<String>) {
    match now {
        Value::Object(changes) => merge_map(root(live), changes, rules, path),
        Value::Array(entries) => match rules.rule(path) {
            ListMerge::Atomic => *live = now.clone(),
            ListMerge::Set => unite(as_list(live), entries),
            ListMerge::Keys(keys) => {
                let list = as_list(live);
                let mut places = positions(list, &keys);
                for entry in entries {
                    let identity = identity(entry, &keys);
                    match places.get(&identity).and_then(|&at| list.get_mut(at)) {
                        Some(found) => merge(found, entry, rules, path),
                        None => {
                            places.insert(identity, list.len());
                            list.push(entry.clone());
                        }
                    }
                }
            }
        },
        other => *live = other.clone(),
    }
}

fn merge_map(
    live: &mut Map<String, Value>,
    changes: &Map<String, Value>,
    rules: &dyn ListRules,
    path: &mut Vec<String>,
) {
    for (key, change) in changes {
        path.push(key.clone());
        merge(
            live.entry(key.clone()).or_insert(Value::Null),
            change,
            rules,
            path,
        );
        path.pop();
    }
}

fn as_list(slot: &mut Value) -> &mut Vec<Value> {
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(list) => list,
        _ => unreachable!("the slot was just made a list"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::lists::BuiltinRules;
    use super::*;

    #[test]
    fn table() {
        for (what, live, before, now, other, result) in [
            (
                "first application merges",
                json!({"a": 1}),
                None,
                json!({"b": 2}),
                json!({}),
                json!({"a": 1, "b": 2}),
            ),
            (
                "a dropped field goes",
                json!({"a": 1, "b": 2}),
                Some(json!({"b": 2, "a": 1})),
                json!({"a": 1}),
                json!({}),
                json!({"a": 1}),
            ),
            (
                "unless somebody else applied it",
                json!({"a": 1}),
                Some(json!({"a": 1})),
                json!({}),
                json!({"a": 1}),
                json!({"a": 1}),
            ),
            (
                "a dropped map keeps what others put there",
                json!({"labels": {"x": "1", "y": "2"}}),
                Some(json!({"labels": {"x": "1"}})),
                json!({}),
                json!({}),
                json!({"labels": {"y": "2"}}),
            ),
            (
                "an emptied map goes",
                json!({"labels": {"x": "1"}}),
                Some(json!({"labels": {"x": "1"}})),
                json!({}),
                json!({}),
                json!({}),
            ),
            (
                "keyed entries",
                json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}, {"name": "c"}]}),
                Some(json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]})),
                json!({"containers": [{"name": "a"}]}),
                json!({}),
                json!({"containers": [{"name": "a"}, {"name": "c"}]}),
            ),
        ] {
            let mut merged = live;
            apply(&mut merged, before.as_ref(), &now, &[&other], &BuiltinRules);
            assert_eq!(merged, result, "{what}");
        }
    }
}
