//! Columns of the built-in kinds, as kubectl users know them.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::human;
use crate::object::{at, is_terminating, name, text};

/// Columns (name, type, priority; 1 = only with `-o wide`) and how to fill them.
#[derive(Debug)]
pub struct Layout {
    pub(crate) columns: &'static [(&'static str, &'static str, u8)],
    pub(crate) cells: fn(&Value, Timestamp) -> Vec<Value>,
}

const NONE: &str = "<none>";

fn age(object: &Value, path: &[&str], now: Timestamp) -> Value {
    match text(object, path).parse::<Timestamp>() {
        Ok(then) => json!(human::duration(then, now)),
        Err(_) => json!("<unknown>"),
    }
}

fn created(object: &Value, now: Timestamp) -> Value {
    age(object, &["metadata", "creationTimestamp"], now)
}

fn or(text: &str, otherwise: &str) -> Value {
    json!(if text.is_empty() { otherwise } else { text })
}

fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(",")
}

fn selector(value: Option<&Value>) -> Value {
    let pairs = value.and_then(Value::as_object);
    let pairs: Vec<String> = pairs
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    or(&pairs.join(","), NONE)
}

pub(crate) const PLAIN: Layout = Layout {
    columns: &[("Name", "string", 0), ("Age", "string", 0)],
    cells: |o, now| vec![json!(name(o)), created(o, now)],
};

pub(crate) const NAMESPACE: Layout = Layout {
    columns: &[
        ("Name", "string", 0),
        ("Status", "string", 0),
        ("Age", "string", 0),
    ],
    cells: |o, now| {
        vec![
            json!(name(o)),
            json!(text(o, &["status", "phase"])),
            created(o, now),
        ]
    },
};

pub(crate) const SECRET: Layout = Layout {
    columns: &[
        ("Name", "string", 0),
        ("Type", "string", 0),
        ("Data", "integer", 0),
        ("Age", "string", 0),
    ],
    cells: |o, now| {
        let count = o
            .get("data")
            .and_then(Value::as_object)
            .map_or(0, |data| data.len());
        vec![
            json!(name(o)),
            json!(text(o, &["type"])),
            json!(count),
            created(o, now),
        ]
    },
};

pub(crate) const CONFIG_MAP: Layout = Layout {
    columns: &[
        ("Name", "string", 0),
        ("Data", "integer", 0),
        ("Age", "string", 0),
    ],
    cells: |o, now| {
        let count = |field| {
            o.get(field)
                .and_then(Value::as_object)
                .map_or(0, |data| data.len())
        };
        vec![
            json!(name(o)),
            json!(count("data") + count("binaryData")),
            created(o, now),
        ]
    },
};

pub(crate) const SERVICE_ACCOUNT: Layout = Layout {
    columns: &[
        ("Name", "string", 0),
        ("Secrets", "integer", 0),
        ("Age", "string", 0),
    ],
    cells: |o, now| {
        vec![
            json!(name(o)),
            json!(list(o, &["secrets"]).len()),
            created(o, now),
        ]
    },
};

pub(crate) const LEASE: Layout = Layout {
    columns: &[
        ("Name", "string", 0),
        ("Holder", "string", 0),
        ("Age", "string", 0),
    ],
    cells: |o, now| {
        vec![
            json!(name(o)),
            json!(text(o, &["spec", "holderIdentity"])),
            created(o, now),
        ]
    },
};

pub(crate) const CRD: Layout = Layout {
    columns: &[("Name", "string", 0), ("Created At", "date", 0)],
    cells: |o, _| {
        vec![
            json!(name(o)),
            json!(text(o, &["metadata", "creationTimestamp"])),
        ]
    },
};

pub(crate) const NETWORK_POLICY: Layout = Layout {
    columns: &[
        ("Name", "string", 0),
        ("Pod-Selector", "string", 0),
        ("Age", "string", 0),
    ],
    cells: |o, now| vec![json!(name(o)), pod_selector(o), created(o, now)],
};

fn pod_selector(object: &Value) -> Value {
    let mut terms: Vec<String> = at(object, &["spec", "podSelector", "matchLabels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for term in list(object, &["spec", "podSelector", "matchExpressions"]) {
        let (key, values) = (
            text(term, &["key"]),
            joined(list(term, &["values"]).iter().filter_map(Value::as_str)),
        );
        terms.push(match text(term, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    or(&terms.join(","), NONE)
}

pub(crate) const ENDPOINT_SLICE: Layout = Layout {
    columns: &[
        ("Name", "string", 0),
        ("AddressType", "string", 0),
        ("Ports", "string", 0),
        ("Endpoints", "string", 0),
        ("Age", "string", 0),
    ],
    cells: |o, now| {
        let ports: Vec<String> = list(o, &["ports"])
            .iter()
            .filter_map(|p| p.get("port"))
            .map(Value::to_string)
            .collect();
        let endpoints = list(o, &["endpoints"])
            .iter()
            .flat_map(|e| list(e, &["addresses"]))
            .filter_map(Value::as_str);
        vec![
            json!(name(o)),
            json!(text(o, &["addressType"])),
            or(&ports.join(","), "<unset>"),
            or(&joined(endpoints), "<unset>"),
            created(o, now),
        ]
    },
};

pub(crate) const SERVICE: Layout = Layout {
    columns: &[
        ("Name", "string", 0),
        ("Type", "string", 0),
        ("Cluster-IP", "string", 0),
        ("External-IP", "string", 0),
        ("Port(s)", "string", 0),
        ("Age", "string", 0),
        ("Selector", "string", 1),
    ],
    cells: |o, now| {
        let ports: Vec<String> = list(o, &["spec", "ports"])
            .iter()
            .map(|port| {
                let node = port
                    .get("nodePort")
                    .and_then(Value::as_i64)
                    .map(|n| format!(":{n}"))
                    .unwrap_or_default();
                format!(
                    "{}{node}/{}",
                    port.get("port").and_then(Value::as_i64).unwrap_or(0),
                    text(port, &["protocol"])
                )
            })
            .collect();
        vec![
            json!(name(o)),
            json!(text(o, &["spec", "type"])),
            or(text(o, &["spec", "clusterIP"]), NONE),
            service_external(o),
            or(&ports.join(","), NONE),
            created(o, now),
            selector(at(o, &["spec", "selector"])),
        ]
    },
};

/// Where a Service is reached from outside: what a load balancer was given, then external IPs.
fn service_external(object: &Value) -> Value {
    let kind = text(object, &["spec", "type"]);
    if kind == "ExternalName" {
        return or(text(object, &["spec", "externalName"]), NONE);
    }
    let balancer = kind == "LoadBalancer";
    let given = list(object, &["status", "loadBalancer", "ingress"])
        .iter()
        .filter(|_| balancer)
        .map(|ingress| match text(ingress, &["ip"]) {
            "" => text(ingress, &["hostname"]),
            ip => ip,
        });
    let external = list(object, &["spec", "externalIPs"])
        .iter()
        .filter_map(Value::as_str);
    let all = joined(given.chain(external).filter(|one| !one.is_empty()));
    or(&all, if balancer { "<pending>" } else { NONE })
}

pub(crate) const NODE: Layout = Layout {
    columns: &[
        ("Name", "string", 0),
        ("Status", "string", 0),
        ("Roles", "string", 0),
        ("Age", "string", 0),
        ("Version", "string", 0),
        ("Internal-IP", "string", 1),
        ("External-IP", "string", 1),
        ("OS-Image", "string", 1),
        ("Kernel-Version", "string", 1),
        ("Container-Runtime", "string", 1),
    ],
    cells: |o, now| {
        let info = |field| text(o, &["status", "nodeInfo", field]);
        let address = |kind: &str| {
            let found = list(o, &["status", "addresses"])
                .iter()
                .find(|a| text(a, &["type"]) == kind);
            or(
                found.map(|a| text(a, &["address"])).unwrap_or_default(),
                NONE,
            )
        };
        vec![
            json!(name(o)),
            json!(node_status(o)),
            or(&node_roles(o), NONE),
            created(o, now),
            json!(info("kubeletVersion")),
            address("InternalIP"),
            address("ExternalIP"),
            or(info("osImage"), "<unknown>"),
            or(info("kernelVersion"), "<unknown>"),
            or(info("containerRuntimeVersion"), "<unknown>"),
        ]
    },
};

fn node_status(object: &Value) -> String {
    let ready = list(object, &["status", "conditions"])
        .iter()
        .find(|c| text(c, &["type"]) == "Ready");
    let mut status = match ready.map(|c| text(c, &["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if at(object, &["spec", "unschedulable"]) == Some(&json!(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn node_roles(object: &Value) -> String {
    let labels = crate::object::labels(object);
    joined(labels.into_iter().flatten().filter_map(|(key, value)| {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            _ => None,
        }
    }))
}

pub(crate) const POD: Layout = Layout {
    columns: &[
        ("Name", "string", 0),
        ("Ready", "string", 0),
        ("Status", "string", 0),
        ("Restarts", "string", 0),
        ("Age", "string", 0),
        ("IP", "string", 1),
        ("Node", "string", 1),
        ("Nominated Node", "string", 1),
        ("Readiness Gates", "string", 1),
    ],
    cells: |o, now| {
        let statuses = list(o, &["status", "containerStatuses"]);
        let ready = statuses
            .iter()
            .filter(|s| s.get("ready") == Some(&json!(true)))
            .count();
        let restarts: i64 = statuses
            .iter()
            .filter_map(|s| s.get("restartCount")?.as_i64())
            .fold(0, i64::saturating_add);
        let ip = match text(o, &["status", "podIP"]) {
            "" => list(o, &["status", "podIPs"])
                .first()
                .map(|ip| text(ip, &["ip"]))
                .unwrap_or_default(),
            ip => ip,
        };
        vec![
            json!(name(o)),
            json!(format!(
                "{ready}/{}",
                list(o, &["spec", "containers"]).len()
            )),
            json!(pod_status(o)),
            json!(restarts.to_string()),
            created(o, now),
            or(ip, NONE),
            or(text(o, &["spec", "nodeName"]), NONE),
            or(text(o, &["status", "nominatedNodeName"]), NONE),
            json!(NONE),
        ]
    },
};

fn pod_status(object: &Value) -> String {
    if is_terminating(object) {
        return "Terminating".into();
    }
    let state = |kind: &'static str| {
        list(object, &["status", "containerStatuses"])
            .iter()
            .map(move |s| text(s, &["state", kind, "reason"]))
            .find(|reason| !reason.is_empty())
    };
    let phase = match text(object, &["status", "reason"]) {
        "" => text(object, &["status", "phase"]),
        reason => reason,
    };
    state("waiting")
        .or_else(|| state("terminated"))
        .unwrap_or(phase)
        .to_owned()
}

pub(crate) const EVENT: Layout = Layout {
    columns: &[
        ("Last Seen", "string", 0),
        ("Type", "string", 0),
        ("Reason", "string", 0),
        ("Object", "string", 0),
        ("Subobject", "string", 1),
        ("Source", "string", 1),
        ("Message", "string", 0),
        ("First Seen", "string", 1),
        ("Count", "string", 1),
        ("Name", "string", 1),
    ],
    cells: |o, now| {
        // The two APIs name the same things differently.
        let either = |a: &'static str, b: &'static str| if o.get(a).is_some() { a } else { b };
        let about = either("involvedObject", "regarding");
        let last = ["lastTimestamp", "deprecatedLastTimestamp", "eventTime"]
            .into_iter()
            .find(|f| !text(o, &[f]).is_empty());
        let first = ["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"]
            .into_iter()
            .find(|f| !text(o, &[f]).is_empty());
        let seen = |field: Option<&str>| match field {
            Some(field) => age(o, &[field], now),
            None => created(o, now),
        };
        let source = either("source", "deprecatedSource");
        let component = match text(o, &[source, "component"]) {
            "" => text(o, &[either("reportingComponent", "reportingController")]),
            component => component,
        };
        let count = o
            .get("count")
            .or_else(|| o.get("deprecatedCount"))
            .and_then(Value::as_i64)
            .unwrap_or(1);
        vec![
            seen(last),
            json!(text(o, &["type"])),
            json!(text(o, &["reason"])),
            json!(format!(
                "{}/{}",
                text(o, &[about, "kind"]).to_ascii_lowercase(),
                text(o, &[about, "name"])
            )),
            json!(text(o, &[about, "fieldPath"])),
            json!(component),
            json!(text(o, &[either("message", "note")]).trim()),
            seen(first),
            json!(count.to_string()),
            json!(name(o)),
        ]
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_service_is_reached() {
        let ingress =
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "x"}]}});
        for (spec, status, expected) in [
            (json!({"type": "ClusterIP"}), json!({}), "<none>"),
            (
                json!({"type": "ClusterIP", "externalIPs": ["192.0.2.9"]}),
                ingress.clone(),
                "192.0.2.9",
            ),
            (json!({"type": "LoadBalancer"}), json!({}), "<pending>"),
            (
                json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.9"]}),
                ingress,
                "192.0.2.1,x,192.0.2.9",
            ),
            (
                json!({"type": "ExternalName", "externalName": "db.example"}),
                json!({}),
                "db.example",
            ),
        ] {
            let service = json!({"spec": spec, "status": status});
            assert_eq!(service_external(&service), expected, "{service}");
        }
    }
}
