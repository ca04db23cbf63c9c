//! Reads a cluster from files: a stream of YAML or JSON documents, as `kubectl get -o yaml` or people write them.
//!
//! Kinds that policy does not look at are passed over; kinds that it would have to obey but does not understand are
//! reported, since a verdict that leaves a policy out would be wrong.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    model::Cluster,
    problem::{Problem, Problems},
};

/// Why a stream cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not YAML. The message shows the place.
    #[error("not a stream of YAML or JSON documents: {0}")]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// It is not JSON, though it begins like it.
    #[error("not a stream of YAML or JSON documents: {0}")]
    Json(#[source] serde_json::Error),
}

/// Takes every object of the stream into the cluster, the later of two with one name replacing the earlier. What is wrong
/// with an object is returned; the rest goes on.
///
/// # Errors
/// The stream is neither YAML nor JSON; then nothing of it was taken.
pub fn load(stream: &str, cluster: &mut Cluster) -> Result<Vec<Problem>, LoadError> {
    let mut problems = Vec::new();
    for document in documents(stream)? {
        take(document, cluster, &mut problems);
    }
    Ok(problems)
}

/// JSON documents may follow each other without a separator, which YAML does not know; a JSON-like beginning that is not
/// JSON may still be YAML's flow style.
fn documents(stream: &str) -> Result<Vec<Value>, LoadError> {
    let looks_like_json = stream.trim_start().starts_with(['{', '[']);
    let as_json = || {
        serde_json::Deserializer::from_str(stream)
            .into_iter()
            .collect::<Result<_, _>>()
    };
    let json_error = if looks_like_json {
        match as_json() {
            Ok(documents) => return Ok(documents),
            Err(error) => Some(error),
        }
    } else {
        None
    };
    // A namespace may be called "y" or "on" without quotes, as these are no booleans to kubectl's readers either. The
    // default limits (1,024 documents) are for configuration files; these bound a cluster of 100,000 pods.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_documents: 10_000_000,
            max_events: 200_000_000,
            max_nodes: 200_000_000,
            max_total_scalar_bytes: 2 << 30,
        },
    };
    serde_saphyr::from_multiple_with_options(stream, options).map_err(|error| match json_error {
        Some(json) => LoadError::Json(json),
        None => LoadError::Yaml(Box::new(error)),
    })
}

fn take(document: Value, cluster: &mut Cluster, problems: &mut Vec<Problem>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&document["apiVersion"]), text(&document["kind"]));
    match document {
        Value::Null => {}
        Value::Array(items) => items
            .into_iter()
            .for_each(|item| take(item, cluster, problems)),
        Value::Object(mut list)
            if kind.ends_with("List") && list.get("items").is_some_and(Value::is_array) =>
        {
            let item_kind = kind.trim_end_matches("List");
            for mut item in list
                .remove("items")
                .and_then(into_array)
                .unwrap_or_default()
            {
                // The items of a typed list do not repeat what they are.
                if item["kind"].is_null() && !item_kind.is_empty() && item.is_object() {
                    item["kind"] = item_kind.into();
                    item["apiVersion"] = version.clone().into();
                }
                take(item, cluster, problems);
            }
        }
        object => take_object(&version, &kind, object, cluster, problems),
    }
}

fn into_array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn take_object(
    version: &str,
    kind: &str,
    object: Value,
    cluster: &mut Cluster,
    problems: &mut Vec<Problem>,
) {
    let found = match (version, kind) {
        ("v1", "Namespace") => parsed("Namespace", object, |object| {
            cluster.apply_namespace(&object)
        }),
        ("v1", "Pod") => parsed("Pod", object, |object| cluster.apply_pod(&object)),
        ("v1", "Node") => parsed("Node", object, |object| cluster.apply_node(&object)),
        ("networking.k8s.io/v1", "NetworkPolicy") => parsed("NetworkPolicy", object, |object| {
            cluster.apply_network_policy(&object)
        }),
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => {
            parsed(kind, object, |object| cluster.apply_cluster_policy(&object))
        }
        ("margay.dev/v1", "NetworkPolicy") => {
            parsed(kind, object, |object| cluster.apply_own_policy(&object))
        }
        ("margay.dev/v1", "GlobalNetworkPolicy") => {
            parsed(kind, object, |object| cluster.apply_global_policy(&object))
        }
        ("margay.dev/v1", "Tier") => parsed(kind, object, |object| cluster.apply_tier(&object)),
        ("margay.dev/v1", "NetworkSet") => {
            parsed(kind, object, |object| cluster.apply_network_set(&object))
        }
        ("margay.dev/v1", "GlobalNetworkSet") => parsed(kind, object, |object| {
            cluster.apply_global_network_set(&object)
        }),
        ("margay.dev/v1", "HostEndpoint") => {
            parsed(kind, object, |object| cluster.apply_host_endpoint(&object))
        }
        ("v1", "ServiceAccount") => parsed(kind, object, |object| {
            cluster.apply_service_account(&object)
        }),
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            parsed(kind, object, |object| cluster.apply_endpoint_slice(&object))
        }
        (_, "") => one(
            "object",
            &object,
            "kind",
            "a document without a kind is left out",
        ),
        _ if is_policy(kind) => one(
            kind,
            &object,
            "apiVersion",
            &format!("{kind} of {version:?} is not understood and is left out"),
        ),
        _ => Vec::new(),
    };
    problems.extend(found);
}

/// Whether an object of this kind, whatever its group, would have a say in what is allowed.
fn is_policy(kind: &str) -> bool {
    kind.ends_with("NetworkPolicy")
        || matches!(
            kind,
            "Namespace"
                | "Pod"
                | "Node"
                | "Tier"
                | "NetworkSet"
                | "GlobalNetworkSet"
                | "HostEndpoint"
        )
}

fn parsed<T: DeserializeOwned>(
    kind: &str,
    object: Value,
    apply: impl FnOnce(T) -> Vec<Problem>,
) -> Vec<Problem> {
    let about = about(&object);
    match serde_json::from_value(object) {
        Ok(object) => apply(object),
        Err(error) => named(kind, about, "", &format!("{error}; the object is left out")),
    }
}

fn about(object: &Value) -> (String, String) {
    let text = |field: &str| {
        object["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (text("namespace"), text("name"))
}

fn one(kind: &str, object: &Value, field: &str, reason: &str) -> Vec<Problem> {
    named(kind, about(object), field, reason)
}

fn named(
    kind: &str,
    (namespace, name): (String, String),
    field: &str,
    reason: &str,
) -> Vec<Problem> {
    let mut problems = Problems::of(kind, &namespace, &name);
    problems.report(field, reason);
    problems.into_found()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectKey;

    fn loaded(stream: &str) -> (Cluster, Vec<String>) {
        let mut cluster = Cluster::new();
        let problems = load(stream, &mut cluster).unwrap();
        (cluster, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn yaml_documents_lists_and_unknown_kinds() {
        let (cluster, problems) = loaded(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n\
             ---\n\
             ---\napiVersion: v1\nkind: List\nitems:\n\
             - {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, status: {podIP: 10.0.0.1}}\n\
             - {apiVersion: v1, kind: Service, metadata: {name: web}}\n\
             - {apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}\n\
             ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\n\
             spec: {podSelector: {}, policyTypes: [Ingress]}\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(cluster.namespace_labels("shop").get("team"), Some("a"));
        assert_eq!(
            cluster
                .namespace_labels("shop")
                .get("kubernetes.io/metadata.name"),
            Some("shop")
        );
        assert!(cluster.pod(&ObjectKey::new("shop", "web")).is_some());
        assert!(cluster.policy(&ObjectKey::new("shop", "deny")).is_some());
        assert_eq!(cluster.node("n1").unwrap().addresses.len(), 1);
    }

    #[test]
    fn json_documents_may_follow_each_other() {
        let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#;
        let list = r#"{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"b","namespace":"x"}}]}"#;
        let (cluster, problems) = loaded(&format!("{pod}\n{list}"));
        assert_eq!(problems, Vec::<String>::new());
        let keys: Vec<_> = cluster.pods().map(|pod| pod.key().to_string()).collect();
        assert_eq!(keys, ["default/a", "x/b"]);
    }

    #[test]
    fn what_cannot_be_obeyed_is_reported() {
        let (_, problems) = loaded(
            "{apiVersion: v2, kind: NetworkPolicy, metadata: {name: p, namespace: s}}\n\
             ---\n{apiVersion: x, kind: ClusterNetworkPolicy, metadata: {name: c}}\n\
             ---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: q, namespace: s}, spec: {ingress: 7}}\n\
             ---\n{metadata: {name: z}}\n",
        );
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert_eq!(
            problems[0],
            "NetworkPolicy s/p: apiVersion: NetworkPolicy of \"v2\" is not understood and is left out"
        );
        assert!(problems[1].starts_with("ClusterNetworkPolicy c: apiVersion:"));
        assert!(
            problems[2].starts_with("NetworkPolicy s/q: "),
            "{}",
            problems[2]
        );
        assert_eq!(
            problems[3],
            "object z: kind: a document without a kind is left out"
        );
    }

    #[test]
    fn names_that_older_yaml_took_for_booleans_are_names() {
        let (cluster, problems) =
            loaded("{apiVersion: v1, kind: Pod, metadata: {name: on, namespace: y}}");
        assert_eq!(problems, Vec::<String>::new());
        assert!(cluster.pod(&ObjectKey::new("y", "on")).is_some());
    }

    #[test]
    fn thousands_of_documents_are_read() {
        let stream: String = (0..3000)
            .map(|number| {
                format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}}}\n")
            })
            .collect();
        assert_eq!(loaded(&stream).0.pods().count(), 3000);
    }

    #[test]
    fn a_broken_stream_shows_the_place() {
        let error = load("kind: [", &mut Cluster::new()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("not a stream of YAML or JSON documents: ")
        );
    }
}
