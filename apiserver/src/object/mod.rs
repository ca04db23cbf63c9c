//! Kubernetes objects as JSON values: metadata rules, names and patches. Pure; no store, no clock, no I/O.

pub mod entropy;
pub mod meta;
pub mod names;
pub mod patch;

use serde_json::{Map, Value};

/// Walks `path` through nested objects.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// The string at `path`, or the empty string.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The child object `key` of `value`, created when absent or not an object.
pub fn child<'a>(value: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = value
        .entry(key)
        .or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        // The two lines above leave no other variant; a shared empty map would need a static.
        _ => unreachable!("the slot was just made an object"),
    }
}

/// The object's own map, created when the value is no object.
pub fn root(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("the value was just made an object"),
    }
}

/// `metadata.name`.
pub fn name(value: &Value) -> &str {
    text(value, &["metadata", "name"])
}

/// `metadata.namespace`.
pub fn namespace(value: &Value) -> &str {
    text(value, &["metadata", "namespace"])
}

/// `metadata.labels`.
pub fn labels(value: &Value) -> Option<&Map<String, Value>> {
    at(value, &["metadata", "labels"]).and_then(Value::as_object)
}

/// Whether deletion was asked for and waits for finalizers.
pub fn is_terminating(value: &Value) -> bool {
    at(value, &["metadata", "deletionTimestamp"]).is_some_and(|t| !t.is_null())
}

/// `metadata.finalizers`.
pub fn finalizers(value: &Value) -> Vec<&str> {
    at(value, &["metadata", "finalizers"])
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}
