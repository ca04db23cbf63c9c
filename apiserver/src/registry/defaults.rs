//! What the server fills in for built-in kinds: the defaults clients rely on, and the parts of the status that are its own.

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::object::meta::rfc3339;
use crate::object::{at, child, is_terminating, name, root, text};

fn put(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.entry(key).or_insert(value);
}

/// Calls `each` for every map in the list `key` of `map`.
fn entries(map: &mut Map<String, Value>, key: &str, mut each: impl FnMut(&mut Map<String, Value>)) {
    if let Some(Value::Array(list)) = map.get_mut(key) {
        list.iter_mut()
            .filter_map(Value::as_object_mut)
            .for_each(&mut each);
    }
}

fn tcp(port: &mut Map<String, Value>) {
    put(port, "protocol", json!("TCP"));
}

/// Nodes keep the status they are created with, as kubelets register that way.
pub fn node(object: &mut Value, _old: Option<&Value>, _now: Timestamp) {
    child(root(object), "spec");
}

/// A new pod is pending and has Kubernetes' defaults.
pub fn pod(object: &mut Value, old: Option<&Value>, _now: Timestamp) {
    let pod = root(object);
    let spec = child(pod, "spec");
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("schedulerName", json!("default-scheduler")),
        ("enableServiceLinks", json!(true)),
        ("securityContext", json!({})),
        ("serviceAccountName", json!("default")),
    ] {
        put(spec, key, value);
    }
    for list in ["containers", "initContainers"] {
        entries(spec, list, |container| {
            entries(container, "ports", tcp);
            put(container, "imagePullPolicy", json!("IfNotPresent"));
            put(container, "resources", json!({}));
        });
    }
    if old.is_none() {
        put(child(pod, "status"), "phase", json!("Pending"));
    }
}

/// Namespaces carry their own name as a label and wait, when deleted, for their content to go.
pub fn namespace(object: &mut Value, old: Option<&Value>, _now: Timestamp) {
    let own_name = name(object).to_owned();
    let dying = is_terminating(object);
    let namespace = root(object);
    let labels = child(child(namespace, "metadata"), "labels");
    labels.insert("kubernetes.io/metadata.name".into(), json!(own_name));
    let finalizers = old
        .and_then(|old| at(old, &["spec", "finalizers"]))
        .cloned()
        .unwrap_or_else(|| json!(["kubernetes"]));
    child(namespace, "spec").insert("finalizers".into(), finalizers);
    let phase = if dying { "Terminating" } else { "Active" };
    child(namespace, "status").insert("phase".into(), json!(phase));
}

/// `stringData` is folded into `data`.
pub fn secret(object: &mut Value, _old: Option<&Value>, _now: Timestamp) {
    let secret = root(object);
    put(secret, "type", json!("Opaque"));
    if let Some(Value::Object(plain)) = secret.remove("stringData") {
        let data = child(secret, "data");
        for (key, value) in plain {
            let bytes = ByteString(value.as_str().unwrap_or_default().as_bytes().to_vec());
            // Encoding text as base64 cannot fail.
            data.insert(key, serde_json::to_value(bytes).unwrap_or_default());
        }
    }
}

/// Service defaults. No cluster address is allocated: nothing here would serve it.
pub fn service(object: &mut Value, old: Option<&Value>, _now: Timestamp) {
    let service = root(object);
    let spec = child(service, "spec");
    for (key, value) in [
        ("type", json!("ClusterIP")),
        ("sessionAffinity", json!("None")),
        ("internalTrafficPolicy", json!("Cluster")),
    ] {
        put(spec, key, value);
    }
    entries(spec, "ports", |port| {
        tcp(port);
        if let Some(number) = port.get("port").cloned() {
            put(port, "targetPort", number);
        }
    });
    if old.is_none() {
        child(service, "status").insert("loadBalancer".into(), json!({}));
    }
}

/// Ports of endpoint slices are TCP unless they say otherwise.
pub fn endpoint_slice(object: &mut Value, _old: Option<&Value>, _now: Timestamp) {
    entries(root(object), "ports", |port| {
        tcp(port);
        put(port, "name", json!(""));
    });
}

/// Policy types follow from the rules that are there; ports are TCP.
pub fn network_policy(object: &mut Value, _old: Option<&Value>, _now: Timestamp) {
    let spec = child(root(object), "spec");
    put(spec, "podSelector", json!({}));
    let egress = spec
        .get("egress")
        .and_then(Value::as_array)
        .is_some_and(|rules| !rules.is_empty());
    if spec
        .get("policyTypes")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        let types = if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
        spec.insert("policyTypes".into(), types);
    }
    for direction in ["ingress", "egress"] {
        entries(spec, direction, |rule| entries(rule, "ports", tcp));
    }
}

/// The finalizer that keeps a CRD until its objects are gone.
pub const CRD_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Names and conditions of a CRD: it is served from the moment it is stored.
pub fn crd(object: &mut Value, old: Option<&Value>, now: Timestamp) {
    let kind = text(object, &["spec", "names", "kind"]).to_owned();
    let dying = is_terminating(object);
    let definition = root(object);
    if old.is_none() {
        let finalizers = child(definition, "metadata")
            .entry("finalizers")
            .or_insert_with(|| json!([]));
        if let Value::Array(list) = finalizers
            && !list.iter().any(|each| each == CRD_FINALIZER)
        {
            list.push(json!(CRD_FINALIZER));
        }
    }
    let spec = child(definition, "spec");
    put(spec, "conversion", json!({"strategy": "None"}));
    let names = child(spec, "names");
    put(names, "listKind", json!(format!("{kind}List")));
    put(names, "singular", json!(kind.to_ascii_lowercase()));
    let accepted = Value::Object(names.clone());
    let storage: Vec<Value> = spec
        .get("versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|version| version.get("storage") == Some(&json!(true)))
        .filter_map(|version| version.get("name").cloned())
        .collect();
    let mut stored = old
        .and_then(|old| at(old, &["status", "storedVersions"]))
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for version in storage {
        if !stored.contains(&version) {
            stored.push(version);
        }
    }
    let since = old
        .and_then(|old| at(old, &["status", "conditions"]))
        .and_then(|conditions| conditions.get(0))
        .and_then(|condition| condition.get("lastTransitionTime"))
        .cloned()
        .unwrap_or_else(|| json!(rfc3339(now)));
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since});
    let mut conditions = vec![
        condition("NamesAccepted", "NoConflicts", "no conflicts found"),
        condition(
            "Established",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        ),
    ];
    if dying {
        conditions.push(condition(
            "Terminating",
            "InstanceDeletionInProgress",
            "objects of this kind are being deleted",
        ));
    }
    let status = child(definition, "status");
    status.insert("acceptedNames".into(), accepted);
    status.insert("conditions".into(), Value::Array(conditions));
    status.insert("storedVersions".into(), Value::Array(stored));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    #[test]
    fn string_data_becomes_data() {
        let mut secret_object = json!({"data": {"a": "eA=="}, "stringData": {"b": "hello"}});
        secret(&mut secret_object, None, now());
        assert_eq!(
            secret_object,
            json!({"type": "Opaque", "data": {"a": "eA==", "b": "aGVsbG8="}})
        );
    }

    #[test]
    fn policy_types_follow_the_rules() {
        let mut policy =
            json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
        network_policy(&mut policy, None, now());
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        let mut plain = json!({"spec": {"podSelector": {}}});
        network_policy(&mut plain, None, now());
        assert_eq!(plain["spec"]["policyTypes"], json!(["Ingress"]));
    }

    #[test]
    fn a_namespace_carries_its_name() {
        let mut object = json!({"metadata": {"name": "blue"}});
        namespace(&mut object, None, now());
        assert_eq!(
            object["metadata"]["labels"]["kubernetes.io/metadata.name"],
            "blue"
        );
        assert_eq!(object["status"]["phase"], "Active");
    }
}
