//! From a client's JSON to the stored form: the types of every field are checked and unknown fields dropped.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Decoded;
use super::builtin::Builtin;
use crate::object::root;
use crate::schema::{Schema, join, prune};

/// Reads `value` as a `T` and writes it back, so that only what `T` knows is left.
///
/// # Errors
/// `path: problem`.
pub fn round_trip<T: DeserializeOwned + Serialize>(value: Value) -> Result<Value, String> {
    let typed: T = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        if path == "." {
            error.inner().to_string()
        } else {
            format!("{path}: {}", error.inner())
        }
    })?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// Decodes an object of a built-in kind.
pub(super) fn builtin(mut object: Value, builtin: &Builtin) -> Result<Decoded, String> {
    quantities(&mut object);
    let decoded = (builtin.decode)(object.clone())?;
    let mut unknown = Vec::new();
    dropped(&object, &decoded, "", &mut unknown);
    Ok(Decoded {
        object: decoded,
        unknown,
    })
}

/// Decodes a custom resource: typed metadata, the rest by schema.
pub(super) fn custom(mut object: Value, schema: &Schema) -> Result<Decoded, String> {
    let map = root(&mut object);
    let given = map.remove("metadata").unwrap_or_else(|| json!({}));
    let metadata =
        round_trip::<ObjectMeta>(given.clone()).map_err(|problem| format!("metadata.{problem}"))?;
    let mut unknown = Vec::new();
    dropped(&given, &metadata, "metadata", &mut unknown);
    map.insert("metadata".into(), metadata);
    unknown.extend(prune::prune(&mut object, schema));
    Ok(Decoded { object, unknown })
}

/// Paths that are in `given` and not in `kept`. Nulls mean "absent" and are no loss.
fn dropped(given: &Value, kept: &Value, path: &str, lost: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (field, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                match kept.get(field) {
                    Some(kept) => dropped(value, kept, &join(path, field), lost),
                    None => lost.push(join(path, field)),
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            for (index, (given, kept)) in given.iter().zip(kept).enumerate() {
                dropped(given, kept, &format!("{path}[{index}]"), lost);
            }
        }
        _ => {}
    }
}

/// Quantities may be written as numbers; the typed form wants text.
fn quantities(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (field, child) in map {
                let holds = matches!(
                    field.as_str(),
                    "limits" | "requests" | "capacity" | "allocatable" | "overhead"
                );
                if let (true, Value::Object(amounts)) = (holds, &mut *child) {
                    for amount in amounts.values_mut().filter(|amount| amount.is_number()) {
                        *amount = Value::String(amount.to_string());
                    }
                }
                quantities(child);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(quantities),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn a_wrong_type_is_named_with_its_path() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a", "ports": [{"containerPort": "x"}]}]}});
        let error = round_trip::<Pod>(pod).unwrap_err();
        assert!(
            error.starts_with("spec.containers[0].ports[0].containerPort: invalid type"),
            "{error}"
        );
    }

    #[test]
    fn unknown_fields_are_listed_and_nulls_are_not() {
        let given = json!({"a": 1, "b": null, "c": [{"d": 1, "e": 2}]});
        let mut lost = Vec::new();
        dropped(&given, &json!({"c": [{"d": 1}]}), "", &mut lost);
        assert_eq!(lost, ["a", "c[0].e"]);
    }

    #[test]
    fn numbers_become_quantities() {
        let mut pod = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}});
        quantities(&mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"]["limits"],
            json!({"cpu": "1", "memory": "1Gi"})
        );
    }
}
