//! The CRD manifests, generated from the types.
//!
//! `gen-crds` writes them to `crds/manifests/`; they are checked in, and CI fails when they are
//! stale.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::cluster_network_policy;
use crate::{
    BGPConfiguration, BGPFilter, BGPPeer, ClusterNetworkPolicy, GlobalNetworkPolicy,
    GlobalNetworkSet, HostEndpoint, IPAMBlock, IPAMConfiguration, IPPool, IPReservation,
    NetworkPolicy, NetworkSet, NodeStatus, Tier,
};

/// Every CRD of ours, ready to be created.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        IPPool::crd(),
        IPReservation::crd(),
        IPAMBlock::crd(),
        IPAMConfiguration::crd(),
        BGPConfiguration::crd(),
        BGPPeer::crd(),
        BGPFilter::crd(),
        NodeStatus::crd(),
        NetworkPolicy::crd(),
        GlobalNetworkPolicy::crd(),
        Tier::crd(),
        NetworkSet::crd(),
        GlobalNetworkSet::crd(),
        HostEndpoint::crd(),
        cluster_network_policy::approved(ClusterNetworkPolicy::crd()),
    ];
    for crd in &mut crds {
        tidy(crd);
    }
    crds
}

/// One YAML document for a CRD.
///
/// # Errors
/// When the CRD cannot be written as YAML, which would be a mistake in the types.
pub fn yaml(crd: &CustomResourceDefinition) -> Result<String, String> {
    // The round trip through Value sorts the keys, so that equal types give equal files.
    let value = serde_json::to_value(crd).map_err(|error| error.to_string())?;
    serde_saphyr::to_string(&value).map_err(|error| error.to_string())
}

/// The JSON schema of a kind's `spec`, for values that hold one: without what only an API server
/// understands, and closed, so that a field written wrong is refused and not dropped. Nothing at
/// all (null) is allowed in place of an object.
pub fn spec_schema(crd: &CustomResourceDefinition) -> Option<Value> {
    let version = crd.spec.versions.first()?;
    let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    let spec = schema.properties.as_ref()?.get("spec")?;
    let mut value = closed(&serde_json::to_value(spec).ok()?);
    value["type"] = json!(["object", "null"]);
    // A pattern's refusal is no sentence; whoever uses the schema says it in words.
    if let Some(Value::Object(cidr)) = value.pointer_mut("/properties/cidr") {
        cidr.remove("pattern");
    }
    Some(value)
}

/// A schema without descriptions, formats and extensions, whose objects take no other fields.
fn closed(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return schema.clone();
    };
    let mut out = Map::new();
    for (key, value) in fields {
        let value = match (key.as_str(), value) {
            ("description" | "format", _) => continue,
            (key, _) if key.starts_with("x-kubernetes") => continue,
            ("properties", Value::Object(properties)) => {
                let each = properties.iter();
                Value::Object(
                    each.map(|(name, one)| (name.clone(), closed(one)))
                        .collect(),
                )
            }
            (_, Value::Array(all)) => Value::Array(all.iter().map(closed).collect()),
            (_, other) => closed(other),
        };
        out.insert(key.clone(), value);
    }
    if out.contains_key("properties") && !out.contains_key("additionalProperties") {
        out.insert("additionalProperties".to_owned(), false.into());
    }
    Value::Object(out)
}

/// What schemars writes and API servers warn about or refuse: formats they do not know, `nullable`
/// on optional fields, which would let an explicit null override a default, and then defaults that
/// are null.
fn tidy(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut() else {
            continue;
        };
        if let Ok(mut value) = serde_json::to_value(&*schema) {
            tidy_schema(&mut value);
            if let Ok(tidied) = serde_json::from_value(value) {
                *schema = tidied;
            }
        }
    }
}

fn tidy_schema(value: &mut Value) {
    match value {
        Value::Object(map) => {
            tidy_integer(map);
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            match map.get_mut("default") {
                Some(Value::Null) => drop(map.remove("default")),
                Some(Value::Object(fields)) => fields.retain(|_, value| !value.is_null()),
                _ => {}
            }
            map.values_mut().for_each(tidy_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy_schema),
        _ => {}
    }
}

fn tidy_integer(map: &mut Map<String, Value>) {
    let (format, largest) = match map.get("format").and_then(Value::as_str) {
        Some("uint8") => ("int32", Some(255)),
        Some("uint16") => ("int32", Some(65_535)),
        Some("uint32") => ("int64", Some(i64::from(u32::MAX))),
        // Its largest number is none that a limit, a float, could say: servers read it as a
        // negative one.
        Some("uint64") => ("int64", None),
        _ => return,
    };
    map.insert("format".into(), format.into());
    map.entry("minimum").or_insert(0.into());
    if let Some(largest) = largest {
        map.entry("maximum").or_insert(largest.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_whole() {
        for crd in all() {
            let text = yaml(&crd).unwrap();
            assert!(!text.contains("uint"), "{text}");
            assert!(text.contains("additionalPrinterColumns"), "{text}");
            assert!(text.contains("shortNames"), "{text}");
        }
    }

    #[test]
    fn checked_in_files_are_current() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests");
        for crd in all() {
            let name = crd.metadata.name.clone().unwrap();
            let file = std::fs::read_to_string(format!("{folder}/{name}.yaml"));
            assert_eq!(
                file.unwrap_or_default(),
                yaml(&crd).unwrap(),
                "{name} is stale: run make generate"
            );
        }
    }
}
