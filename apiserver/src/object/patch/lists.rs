//! Which lists of the built-in kinds are merged entry by entry, and by which key.
//!
//! Kubernetes writes this into its Go types (`patchMergeKey`) and its OpenAPI (`x-kubernetes-patch-merge-key`). The kinds served
//! here need only the table below, looked up by the path of field names without list indexes.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

/// What identifies a list entry, as text to hash: long lists must not cost quadratic time.
pub(super) fn identity(entry: &Value, keys: &[String]) -> String {
    let values: Vec<String> = keys
        .iter()
        .map(|key| entry.get(key).unwrap_or(&Value::Null).to_string())
        .collect();
    values.join("\n")
}

/// Where each identity is in a list; of duplicates, the first.
pub(super) fn positions(list: &[Value], keys: &[String]) -> HashMap<String, usize> {
    let mut positions = HashMap::with_capacity(list.len());
    for (at, entry) in list.iter().enumerate() {
        positions.entry(identity(entry, keys)).or_insert(at);
    }
    positions
}

/// Adds to `list` the `entries` it does not hold yet.
pub(super) fn unite(list: &mut Vec<Value>, entries: &[Value]) {
    let mut held: HashSet<String> = list.iter().map(Value::to_string).collect();
    list.extend(
        entries
            .iter()
            .filter(|entry| held.insert(entry.to_string()))
            .cloned(),
    );
}

/// How a list is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListMerge {
    /// The new list replaces the old one.
    Atomic,
    /// Entries are plain values; the union is kept.
    Set,
    /// Entries are maps identified by these keys' values.
    Keys(Vec<String>),
}

/// Where merge rules come from: the built-in table, or a CRD's schema.
pub trait ListRules {
    /// The rule for the list at `path` (field names from the root, no indexes).
    fn rule(&self, path: &[String]) -> ListMerge;
}

/// The rules of the built-in kinds.
#[derive(Debug, Clone, Copy)]
pub struct BuiltinRules;

impl ListRules for BuiltinRules {
    fn rule(&self, path: &[String]) -> ListMerge {
        let field = path.last().map(String::as_str).unwrap_or_default();
        let parent = path
            .iter()
            .rev()
            .nth(1)
            .map(String::as_str)
            .unwrap_or_default();
        let key = match (parent, field) {
            (_, "finalizers" | "podCIDRs") => return ListMerge::Set,
            (_, "ownerReferences") => "uid",
            (
                _,
                "containers"
                | "initContainers"
                | "ephemeralContainers"
                | "env"
                | "volumes"
                | "secrets"
                | "imagePullSecrets",
            ) => "name",
            ("containers" | "initContainers" | "ephemeralContainers", "ports") => "containerPort",
            ("spec", "ports") => "port",
            (_, "volumeMounts") => "mountPath",
            (_, "volumeDevices") => "devicePath",
            (_, "hostAliases" | "podIPs" | "hostIPs") => "ip",
            (_, "topologySpreadConstraints") => "topologyKey",
            ("status", "conditions" | "addresses") => "type",
            (_, "resourceClaims") => "name",
            _ => return ListMerge::Atomic,
        };
        ListMerge::Keys(vec![key.to_owned()])
    }
}
