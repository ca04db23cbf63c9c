//! The rules of `metadata`: what the server fills in on create, what an update may not change, and when a deletion is finished.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{at, child, names, root};
use crate::error::{FieldError, FieldErrorKind};

/// RFC 3339 with whole seconds, as every Kubernetes `Time`.
pub fn rfc3339(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 with microseconds, as every Kubernetes `MicroTime`.
pub fn rfc3339_micro(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Fields of `metadata` only the server writes.
const SERVER_OWNED: [&str; 9] = [
    // A client may leave it to the URL.
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "selfLink",
    "managedFields",
];

/// Fills in `metadata` of an object about to be created; the caller has already decided the name.
pub fn prepare_create(
    object: &mut Value,
    name: &str,
    namespace: &str,
    uid: String,
    now: Timestamp,
) {
    let meta = child(root(object), "metadata");
    for field in SERVER_OWNED {
        meta.remove(field);
    }
    tidy(meta);
    meta.insert("name".into(), json!(name));
    if namespace.is_empty() {
        meta.remove("namespace");
    } else {
        meta.insert("namespace".into(), json!(namespace));
    }
    meta.insert("uid".into(), json!(uid));
    meta.insert("creationTimestamp".into(), json!(rfc3339(now)));
    meta.insert("generation".into(), json!(1));
}

/// Carries the server's own fields over from `old`, whatever the client sent, and counts `generation` up when `respecified`.
pub fn prepare_update(object: &mut Value, old: &Value, respecified: bool) {
    let empty = Map::new();
    let old_meta = old
        .get("metadata")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let meta = child(root(object), "metadata");
    for field in SERVER_OWNED {
        match old_meta.get(field) {
            Some(value) => meta.insert(field.into(), value.clone()),
            None => meta.remove(field),
        };
    }
    tidy(meta);
    if respecified {
        let generation = old_meta
            .get("generation")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        meta.insert("generation".into(), json!(generation.saturating_add(1)));
    }
}

/// Drops empty maps and lists, so that "no labels" has one spelling.
fn tidy(meta: &mut Map<String, Value>) {
    meta.retain(|_, value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    });
}

/// Marks an object as being deleted. Like a write to the spec, this counts `generation` up.
pub fn mark_deleted(object: &mut Value, now: Timestamp) {
    let meta = child(root(object), "metadata");
    let generation = meta.get("generation").and_then(Value::as_i64).unwrap_or(0);
    meta.insert("generation".into(), json!(generation.saturating_add(1)));
    meta.insert("deletionTimestamp".into(), json!(rfc3339(now)));
    meta.insert("deletionGracePeriodSeconds".into(), json!(0));
}

/// Whether everything but `metadata` and `status` is equal; decides if `generation` moves.
pub fn same_spec(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else {
        return a == b;
    };
    let counts = |map: &Map<String, Value>| {
        map.keys()
            .filter(|key| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
            .count()
    };
    counts(a) == counts(b)
        && a.iter()
            .filter(|(key, _)| {
                !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind")
            })
            .all(|(key, value)| b.get(key) == Some(value))
}

/// Checks labels, annotations, owner references and finalizers.
pub fn check(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let map = |key: &str| at(object, &["metadata", key]).and_then(Value::as_object);
    for (key, value) in map("labels").into_iter().flatten() {
        if let Some(problem) = names::key(key) {
            errors.push(FieldError::invalid("metadata.labels", json!(key), problem));
        }
        if let Some(problem) = names::label_value(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(
                "metadata.labels",
                value.clone(),
                problem,
            ));
        }
    }
    let mut annotation_bytes = 0;
    for (key, value) in map("annotations").into_iter().flatten() {
        if let Some(problem) = names::key(&key.to_ascii_lowercase()) {
            errors.push(FieldError::invalid(
                "metadata.annotations",
                json!(key),
                problem,
            ));
        }
        annotation_bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if annotation_bytes > 256 * 1024 {
        errors.push(FieldError::new(
            FieldErrorKind::TooLong,
            "metadata.annotations",
            "may not be more than 262144 bytes",
        ));
    }
    let owners = at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    for (index, owner) in owners.into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .is_empty()
            {
                let path = format!("metadata.ownerReferences[{index}].{field}");
                errors.push(FieldError::invalid(path, json!(""), "must not be empty"));
            }
        }
    }
    for finalizer in super::finalizers(object) {
        if let Some(problem) = names::key(finalizer) {
            errors.push(FieldError::invalid(
                "metadata.finalizers",
                json!(finalizer),
                problem,
            ));
        }
    }
    errors
}

/// Rules that hold between the stored object and its successor.
pub fn check_update(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        let (new, old) = (
            at(object, &["metadata", field]),
            at(old, &["metadata", field]),
        );
        if new.is_some() && new != old {
            errors.push(FieldError::invalid(
                format!("metadata.{field}"),
                new.cloned().unwrap_or_default(),
                "field is immutable",
            ));
        }
    }
    if super::is_terminating(old) {
        let before = super::finalizers(old);
        let added: Vec<&str> = super::finalizers(object)
            .into_iter()
            .filter(|f| !before.contains(f))
            .collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"),
            ));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05.678901Z".parse().unwrap()
    }

    #[test]
    fn times_are_written_as_kubernetes_does() {
        assert_eq!(rfc3339(now()), "2026-01-02T03:04:05Z");
        assert_eq!(rfc3339_micro(now()), "2026-01-02T03:04:05.678901Z");
    }

    #[test]
    fn create_ignores_what_only_the_server_writes() {
        let mut object = json!({"metadata": {"uid": "forged", "deletionTimestamp": "x", "labels": {}, "generation": 9}});
        prepare_create(&mut object, "a", "", "u".into(), now());
        assert_eq!(
            object["metadata"],
            json!({"name": "a", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z", "generation": 1})
        );
    }

    #[test]
    fn update_keeps_identity_and_counts_generation() {
        let old = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 4, "deletionTimestamp": "t"}});
        let mut new = json!({"metadata": {"name": "a", "uid": "v", "labels": {"a": "b"}}});
        prepare_update(&mut new, &old, true);
        assert_eq!(
            new["metadata"],
            json!({"name": "a", "namespace": "n", "uid": "u", "generation": 5, "deletionTimestamp": "t", "labels": {"a": "b"}})
        );
    }

    #[test]
    fn spec_comparison_ignores_metadata_and_status() {
        let a = json!({"metadata": 1, "status": 1, "spec": {"a": 1}});
        assert!(same_spec(&a, &json!({"spec": {"a": 1}})));
        assert!(!same_spec(&a, &json!({"spec": {"a": 2}})));
        assert!(!same_spec(&a, &json!({"spec": {"a": 1}, "data": {}})));
    }

    #[test]
    fn a_dying_object_takes_no_new_finalizers() {
        let old =
            json!({"metadata": {"name": "a", "deletionTimestamp": "t", "finalizers": ["x/y"]}});
        let new = json!({"metadata": {"name": "a", "finalizers": ["x/y", "x/z"]}});
        assert_eq!(check_update(&new, &old).len(), 1);
        assert!(check_update(&json!({"metadata": {"name": "b"}}), &old)[0].path == "metadata.name");
    }
}
