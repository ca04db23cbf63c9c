//! Strategic merge patch, the patch `kubectl edit` and client-side `kubectl apply` send for built-in kinds.
//!
//! A merge patch whose lists may merge by key, plus the directives `$patch`, `$deleteFromPrimitiveList/…`, `$setElementOrder/…`
//! and `$retainKeys`. Custom resources do not take it (Kubernetes answers 415 and clients fall back to a merge patch).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::PatchError;
use super::lists::{ListMerge, ListRules, identity, positions, unite};
use crate::object::root;

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const MOST_COMPARISONS: usize = 4_000_000;
const DELETE: &str = "$deleteFromPrimitiveList/";

/// `target` with `patch` merged in under `rules`.
///
/// # Errors
/// [`PatchError::Malformed`] for an unknown directive or a list entry without its merge key.
pub fn merge(target: &mut Value, patch: &Value, rules: &dyn ListRules) -> Result<(), PatchError> {
    merge_value(target, patch, rules, &mut Vec::new())
}

fn merge_value(
    target: &mut Value,
    patch: &Value,
    rules: &dyn ListRules,
    path: &mut Vec<String>,
) -> Result<(), PatchError> {
    match patch {
        Value::Object(changes) => merge_map(root(target), changes, rules, path),
        other => {
            *target = other.clone();
            Ok(())
        }
    }
}

fn merge_map(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    rules: &dyn ListRules,
    path: &mut Vec<String>,
) -> Result<(), PatchError> {
    match patch.get(PATCH).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *target = patch
                .iter()
                .filter(|(key, _)| !key.starts_with('$'))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some(other) => {
            return Err(PatchError::Malformed(format!(
                "unknown patch directive {other:?}"
            )));
        }
    }
    if let Some(retained) = patch.get(RETAIN).and_then(Value::as_array) {
        target.retain(|key, _| retained.iter().any(|r| r.as_str() == Some(key)));
    }
    for (key, gone) in patch {
        let Some(field) = key.strip_prefix(DELETE) else {
            continue;
        };
        if let (Some(Value::Array(list)), Some(gone)) = (target.get_mut(field), gone.as_array()) {
            let gone: HashSet<String> = gone.iter().map(Value::to_string).collect();
            list.retain(|entry| !gone.contains(&entry.to_string()));
        }
    }
    for (key, change) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        if change.is_null() {
            target.remove(key);
            continue;
        }
        path.push(key.clone());
        let slot = target.entry(key.clone()).or_insert(Value::Null);
        let result = match change {
            Value::Array(entries) => merge_list(slot, entries, rules, path),
            other => merge_value(slot, other, rules, path),
        };
        path.pop();
        result?;
    }
    for (key, order) in patch {
        let Some(field) = key.strip_prefix(ORDER) else {
            continue;
        };
        if let (Some(Value::Array(list)), Some(order)) = (target.get_mut(field), order.as_array()) {
            sort(list, order);
        }
    }
    Ok(())
}

fn merge_list(
    slot: &mut Value,
    entries: &[Value],
    rules: &dyn ListRules,
    path: &mut Vec<String>,
) -> Result<(), PatchError> {
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(list) = slot else {
        return Ok(());
    };
    match rules.rule(path) {
        ListMerge::Atomic => {
            *list = entries
                .iter()
                .filter(|entry| entry.get(PATCH).is_none())
                .cloned()
                .collect();
        }
        ListMerge::Set => unite(list, entries),
        ListMerge::Keys(keys) => merge_keyed(list, entries, &keys, rules, path)?,
    }
    Ok(())
}

fn merge_keyed(
    list: &mut Vec<Value>,
    entries: &[Value],
    keys: &[String],
    rules: &dyn ListRules,
    path: &mut Vec<String>,
) -> Result<(), PatchError> {
    // `- $patch: replace` as an entry of its own means: the other entries are the whole list.
    if entries.iter().any(|entry| {
        entry.get(PATCH).and_then(Value::as_str) == Some("replace")
            && entry.as_object().is_some_and(|m| m.len() == 1)
    }) {
        *list = entries
            .iter()
            .filter(|entry| entry.get(PATCH).is_none())
            .cloned()
            .collect();
        return Ok(());
    }
    let mut places = positions(list, keys);
    let mut gone = HashSet::new();
    for entry in entries {
        if keys.iter().any(|key| entry.get(key).is_none()) {
            let (list, keys) = (path.join("."), keys.join(", "));
            let text = format!("map entry of {list} does not contain declared merge key: {keys}");
            return Err(PatchError::Malformed(text));
        }
        let identity = identity(entry, keys);
        if entry.get(PATCH).and_then(Value::as_str) == Some("delete") {
            gone.insert(identity);
            continue;
        }
        match places.get(&identity).and_then(|&at| list.get_mut(at)) {
            Some(found) => merge_value(found, entry, rules, path)?,
            None => {
                // Merging into nothing strips nulls and directives from what is added.
                let mut added = Value::Null;
                merge_value(&mut added, entry, rules, path)?;
                places.insert(identity, list.len());
                list.push(added);
            }
        }
    }
    if !gone.is_empty() {
        list.retain(|entry| !gone.contains(&identity(entry, keys)));
    }
    Ok(())
}

/// Puts `list` into `order`; entries the order does not know keep their relative place at the end.
fn sort(list: &mut [Value], order: &[Value]) {
    // Ordering is a courtesy; it must not become a way to keep the server busy.
    if list.len().saturating_mul(order.len()) > MOST_COMPARISONS {
        return;
    }
    list.sort_by_cached_key(|entry| {
        let named = order.iter().position(|wanted| match wanted {
            Value::Object(keys) => keys
                .iter()
                .all(|(key, value)| entry.get(key) == Some(value)),
            plain => plain == entry,
        });
        named.unwrap_or(order.len())
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::lists::BuiltinRules;
    use super::*;

    #[test]
    fn table() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]}, {"name": "b"}]}});
        for (what, target, patch, result) in [
            (
                "an entry is merged by its key",
                pod.clone(),
                json!({"spec": {"containers": [{"name": "a", "image": "2"}]}}),
                json!({"spec": {"containers": [{"name": "a", "image": "2", "env": [{"name": "x", "value": "1"}]}, {"name": "b"}]}}),
            ),
            (
                "an entry is added, another deleted",
                pod.clone(),
                json!({"spec": {"containers": [{"name": "b", "$patch": "delete"}, {"name": "c", "image": "3", "x": null}]}}),
                json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]}, {"name": "c", "image": "3"}]}}),
            ),
            (
                "order",
                pod,
                json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "env": null}]}}),
                json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "image": "1"}]}}),
            ),
            (
                "a list without a key is replaced",
                json!({"spec": {"tolerations": [1, 2]}}),
                json!({"spec": {"tolerations": [3]}}),
                json!({"spec": {"tolerations": [3]}}),
            ),
            (
                "finalizers are a set",
                json!({"metadata": {"finalizers": ["a/b", "c/d"]}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"], "finalizers": ["e/f"]}}),
                json!({"metadata": {"finalizers": ["c/d", "e/f"]}}),
            ),
            (
                "a map is replaced",
                json!({"data": {"a": "1", "b": "2"}}),
                json!({"data": {"$patch": "replace", "c": "3"}}),
                json!({"data": {"c": "3"}}),
            ),
            (
                "retained keys",
                json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
                json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
                json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
            ),
            (
                "null deletes",
                json!({"metadata": {"labels": {"a": "b"}}}),
                json!({"metadata": {"labels": {"a": null}}}),
                json!({"metadata": {"labels": {}}}),
            ),
        ] {
            let mut merged = target;
            merge(&mut merged, &patch, &BuiltinRules).unwrap();
            assert_eq!(merged, result, "{what}");
        }
    }

    #[test]
    fn an_entry_without_its_key_is_refused() {
        let patch = json!({"spec": {"containers": [{"image": "2"}]}});
        assert!(merge(&mut json!({}), &patch, &BuiltinRules).is_err());
        assert!(merge(&mut json!({}), &json!({"$patch": "x"}), &BuiltinRules).is_err());
    }
}
