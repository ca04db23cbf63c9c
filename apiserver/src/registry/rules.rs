//! What the built-in kinds must fulfil beyond the types of their fields: the mistakes people make, not all of Kubernetes' rules.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::crd as crds;
use crate::error::{FieldError, FieldErrorKind};
use crate::object::{at, name, names, text};

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
}

/// Parses `address/length` and checks the length; host bits may be set, as in Kubernetes.
fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    !length.is_empty()
        && length.bytes().all(|c| c.is_ascii_digit())
        && length.parse::<u8>().is_ok_and(|length| length <= longest)
}

fn check_cidr(value: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    if !is_cidr(text) {
        errors.push(FieldError::invalid(
            path,
            json!(text),
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ));
    }
}

fn check_address(value: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    if text.parse::<IpAddr>().is_err() {
        errors.push(FieldError::invalid(
            path,
            json!(text),
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
}

fn check_port(value: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(number) = value.and_then(Value::as_i64)
        && !(1..=65535).contains(&number)
    {
        errors.push(FieldError::invalid(
            path,
            json!(number),
            "must be between 1 and 65535, inclusive",
        ));
    }
}

fn check_protocol(value: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(protocol) =
        value.filter(|protocol| !["TCP", "UDP", "SCTP"].iter().any(|known| protocol == known))
    {
        let message = "supported values: \"SCTP\", \"TCP\", \"UDP\"";
        errors.push(FieldError {
            value: Some(protocol.clone()),
            ..FieldError::new(FieldErrorKind::Unsupported, path, message)
        });
    }
}

/// Pod address ranges of a node.
pub(super) fn node(object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, cidr) in object
        .get("spec")
        .map(|spec| list(spec, "podCIDRs"))
        .into_iter()
        .flatten()
    {
        check_cidr(Some(cidr), &format!("spec.podCIDRs[{index}]"), &mut errors);
    }
    errors
}

/// Containers and addresses of a pod.
pub(super) fn pod(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(spec) = object.get("spec") else {
        return errors;
    };
    if list(spec, "containers").next().is_none() {
        errors.push(FieldError::required("spec.containers", ""));
    }
    for field in ["containers", "initContainers"] {
        for (index, container) in list(spec, field) {
            let path = format!("spec.{field}[{index}]");
            match text(container, &["name"]) {
                "" => errors.push(FieldError::required(format!("{path}.name"), "")),
                name => errors.extend(names::label(name).map(|problem| {
                    FieldError::invalid(format!("{path}.name"), json!(name), problem)
                })),
            }
            for (port, each) in list(container, "ports") {
                check_port(
                    each.get("containerPort"),
                    &format!("{path}.ports[{port}].containerPort"),
                    &mut errors,
                );
                check_protocol(
                    each.get("protocol"),
                    &format!("{path}.ports[{port}].protocol"),
                    &mut errors,
                );
            }
        }
    }
    for (index, ip) in object
        .get("status")
        .map(|status| list(status, "podIPs"))
        .into_iter()
        .flatten()
    {
        check_address(
            ip.get("ip"),
            &format!("status.podIPs[{index}].ip"),
            &mut errors,
        );
    }
    let bound = old
        .map(|old| text(old, &["spec", "nodeName"]))
        .unwrap_or_default();
    if !bound.is_empty() && bound != text(object, &["spec", "nodeName"]) {
        errors.push(FieldError::forbidden(
            "spec.nodeName",
            "a pod stays on its node; delete it and create it anew",
        ));
    }
    errors
}

/// Keys of a ConfigMap's or Secret's data, and immutability.
pub(super) fn data(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let fits = !key.is_empty()
                && key.len() <= 253
                && key != "."
                && key != ".."
                && key
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
            if !fits {
                let message =
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
                errors.push(FieldError::invalid(
                    format!("{field}[{key}]"),
                    json!(key),
                    message,
                ));
            }
            bytes += value.as_str().map_or(0, str::len);
        }
    }
    if bytes > 1 << 20 {
        errors.push(FieldError::new(
            FieldErrorKind::TooLong,
            "",
            "may not be more than 1048576 bytes",
        ));
    }
    if let Some(old) = old.filter(|old| old.get("immutable") == Some(&json!(true))) {
        for field in ["data", "binaryData"] {
            if old.get(field) != object.get(field) {
                errors.push(FieldError::forbidden(
                    field,
                    "field is immutable when `immutable` is set",
                ));
            }
        }
    }
    errors
}

/// Ports and type of a service.
pub(super) fn service(object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(spec) = object.get("spec") else {
        return errors;
    };
    let kind = text(spec, &["type"]);
    if !["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"].contains(&kind) {
        let message =
            "supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"";
        errors.push(FieldError {
            value: Some(json!(kind)),
            ..FieldError::new(FieldErrorKind::Unsupported, "spec.type", message)
        });
    }
    for field in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        let policy = text(spec, &[field]);
        if !["", "Cluster", "Local"].contains(&policy) {
            let message = "supported values: \"Cluster\", \"Local\"";
            errors.push(FieldError {
                value: Some(json!(policy)),
                ..FieldError::new(
                    FieldErrorKind::Unsupported,
                    format!("spec.{field}"),
                    message,
                )
            });
        }
    }
    let mut several = list(spec, "ports").skip(1);
    let needs_names = several.next().is_some();
    for (index, port) in list(spec, "ports") {
        let path = format!("spec.ports[{index}]");
        if needs_names && text(port, &["name"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        check_port(port.get("port"), &format!("{path}.port"), &mut errors);
        check_port(
            port.get("targetPort"),
            &format!("{path}.targetPort"),
            &mut errors,
        );
        check_protocol(
            port.get("protocol"),
            &format!("{path}.protocol"),
            &mut errors,
        );
    }
    errors
}

/// Addresses of an endpoint slice.
pub(super) fn endpoint_slice(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(object, &["addressType"]);
    if !["IPv4", "IPv6", "FQDN"].contains(&kind) {
        let message = "supported values: \"FQDN\", \"IPv4\", \"IPv6\"";
        errors.push(FieldError {
            value: Some(json!(kind)),
            ..FieldError::new(FieldErrorKind::Unsupported, "addressType", message)
        });
    }
    if old.is_some_and(|old| old.get("addressType") != object.get("addressType")) {
        errors.push(FieldError::invalid(
            "addressType",
            json!(kind),
            "field is immutable",
        ));
    }
    for (index, endpoint) in list(object, "endpoints") {
        for (place, address) in list(endpoint, "addresses").filter(|_| kind != "FQDN") {
            check_address(
                Some(address),
                &format!("endpoints[{index}].addresses[{place}]"),
                &mut errors,
            );
        }
    }
    errors
}

/// Selectors, blocks and ports of a NetworkPolicy.
pub(super) fn network_policy(object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(spec) = object.get("spec") else {
        return errors;
    };
    check_selector(spec.get("podSelector"), "spec.podSelector", &mut errors);
    for (index, kind) in list(spec, "policyTypes") {
        if kind != "Ingress" && kind != "Egress" {
            let path = format!("spec.policyTypes[{index}]");
            let message = "supported values: \"Egress\", \"Ingress\"";
            errors.push(FieldError {
                value: Some(kind.clone()),
                ..FieldError::new(FieldErrorKind::Unsupported, path, message)
            });
        }
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in list(spec, direction) {
            for (place, port) in list(rule, "ports") {
                check_policy_port(
                    port,
                    &format!("spec.{direction}[{index}].ports[{place}]"),
                    &mut errors,
                );
            }
            for (place, peer) in list(rule, peers) {
                check_peer(
                    peer,
                    &format!("spec.{direction}[{index}].{peers}[{place}]"),
                    &mut errors,
                );
            }
        }
    }
    errors
}

fn check_policy_port(port: &Value, path: &str, errors: &mut Vec<FieldError>) {
    check_protocol(port.get("protocol"), &format!("{path}.protocol"), errors);
    check_port(port.get("port"), &format!("{path}.port"), errors);
    check_port(port.get("endPort"), &format!("{path}.endPort"), errors);
    if let Some(end) = port.get("endPort").and_then(Value::as_i64) {
        match port.get("port").and_then(Value::as_i64) {
            None => errors.push(FieldError::invalid(
                format!("{path}.endPort"),
                json!(end),
                "may not be specified when `port` is not specified or not a number",
            )),
            Some(start) if end < start => {
                errors.push(FieldError::invalid(
                    format!("{path}.endPort"),
                    json!(end),
                    "must be greater than or equal to `port`",
                ));
            }
            Some(_) => {}
        }
    }
}

fn check_peer(peer: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let selectors = ["podSelector", "namespaceSelector"];
    for field in selectors {
        check_selector(peer.get(field), &format!("{path}.{field}"), errors);
    }
    let selects = selectors.iter().any(|field| peer.get(field).is_some());
    let Some(block) = peer.get("ipBlock") else {
        if !selects {
            errors.push(FieldError::required(path, "must specify a peer"));
        }
        return;
    };
    if selects {
        errors.push(FieldError::forbidden(
            path,
            "may not specify both ipBlock and another peer",
        ));
    }
    check_cidr(block.get("cidr"), &format!("{path}.ipBlock.cidr"), errors);
    for (index, except) in list(block, "except") {
        check_cidr(
            Some(except),
            &format!("{path}.ipBlock.except[{index}]"),
            errors,
        );
    }
}

fn check_selector(selector: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(selector) = selector else { return };
    for (key, value) in selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let problem =
            names::key(key).or_else(|| names::label_value(value.as_str().unwrap_or_default()));
        errors.extend(problem.map(|problem| {
            FieldError::invalid(format!("{path}.matchLabels"), json!(key), problem)
        }));
    }
    for (index, term) in list(selector, "matchExpressions") {
        let path = format!("{path}.matchExpressions[{index}]");
        let key = text(term, &["key"]);
        errors.extend(
            names::key(key)
                .map(|problem| FieldError::invalid(format!("{path}.key"), json!(key), problem)),
        );
        let some = list(term, "values").next().is_some();
        match text(term, &["operator"]) {
            "In" | "NotIn" if !some => {
                errors.push(FieldError::required(
                    format!("{path}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
            "Exists" | "DoesNotExist" if some => {
                errors.push(FieldError::forbidden(
                    format!("{path}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                format!("{path}.operator"),
                json!(other),
                "not a valid selector operator",
            )),
        }
    }
}

/// A CRD must be servable.
pub(super) fn crd(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (plural, group) = (
        text(object, &["spec", "names", "plural"]),
        text(object, &["spec", "group"]),
    );
    let wanted = format!("{plural}.{group}");
    if name(object) != wanted {
        errors.push(FieldError::invalid(
            "metadata.name",
            json!(name(object)),
            format!("must be spec.names.plural+\".\"+spec.group, here {wanted:?}"),
        ));
    }
    if !group.contains('.') {
        errors.push(FieldError::invalid(
            "spec.group",
            json!(group),
            "should be a domain with at least one dot",
        ));
    }
    if super::builtin::ALL
        .iter()
        .any(|builtin| builtin.group == group)
    {
        errors.push(FieldError::forbidden(
            "spec.group",
            "this group is built in",
        ));
    }
    if text(object, &["spec", "names", "kind"]).is_empty() {
        errors.push(FieldError::required("spec.names.kind", ""));
    }
    let scope = text(object, &["spec", "scope"]);
    if scope != "Namespaced" && scope != "Cluster" {
        let message = "supported values: \"Cluster\", \"Namespaced\"";
        errors.push(FieldError {
            value: Some(json!(scope)),
            ..FieldError::new(FieldErrorKind::Unsupported, "spec.scope", message)
        });
    }
    if let Some(old) = old
        && at(old, &["spec", "scope"]) != at(object, &["spec", "scope"])
    {
        errors.push(FieldError::invalid(
            "spec.scope",
            json!(scope),
            "field is immutable",
        ));
    }
    if text(object, &["spec", "conversion", "strategy"]) == "Webhook" {
        errors.push(FieldError::forbidden(
            "spec.conversion.strategy",
            "conversion webhooks are not supported by the embedded store",
        ));
    }
    let versions = object
        .get("spec")
        .map(|spec| list(spec, "versions").map(|(_, v)| v).collect::<Vec<_>>())
        .unwrap_or_default();
    if versions
        .iter()
        .filter(|version| version.get("storage") == Some(&json!(true)))
        .count()
        != 1
    {
        errors.push(FieldError::invalid(
            "spec.versions",
            json!(versions.len()),
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        if at(version, &["schema", "openAPIV3Schema"]).is_none() {
            errors.push(FieldError::required(path, "schemas are required"));
        } else if text(version, &["schema", "openAPIV3Schema", "type"]) != "object" {
            errors.push(FieldError::invalid(
                format!("{path}.type"),
                json!(text(version, &["schema", "openAPIV3Schema", "type"])),
                "must be object at the root",
            ));
        }
    }
    if errors.is_empty()
        && let Err(problem) = crds::compile(object)
    {
        errors.push(FieldError::invalid(
            "spec.versions",
            json!("schema"),
            problem,
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(errors: &[FieldError]) -> Vec<&str> {
        errors.iter().map(|error| error.path.as_str()).collect()
    }

    #[test]
    fn cidrs() {
        for good in ["10.0.0.0/8", "10.0.0.1/8", "::/0", "2001:db8::/64"] {
            assert!(is_cidr(good), "{good}");
        }
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/+8",
            "x/8",
            "10.0.0.0/",
        ] {
            assert!(!is_cidr(bad), "{bad}");
        }
    }

    #[test]
    fn network_policies() {
        let policy = json!({"spec": {
            "podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "b", "operator": "Near"}]},
            "policyTypes": ["Sideways"],
            "ingress": [{"from": [{}, {"ipBlock": {"cidr": "1.2.3.4"}, "podSelector": {}}], "ports": [{"port": 0}, {"protocol": "ICMP"}, {"port": 9, "endPort": 8}, {"port": "http", "endPort": 8}]}],
        }});
        assert_eq!(
            paths(&network_policy(&policy, None)),
            [
                "spec.podSelector.matchExpressions[0].values",
                "spec.podSelector.matchExpressions[1].operator",
                "spec.policyTypes[0]",
                "spec.ingress[0].ports[0].port",
                "spec.ingress[0].ports[1].protocol",
                "spec.ingress[0].ports[2].endPort",
                "spec.ingress[0].ports[3].endPort",
                "spec.ingress[0].from[0]",
                "spec.ingress[0].from[1]",
                "spec.ingress[0].from[1].ipBlock.cidr",
            ]
        );
    }

    #[test]
    fn pods() {
        assert_eq!(paths(&pod(&json!({"spec": {}}), None)), ["spec.containers"]);
        let bad = json!({"spec": {"containers": [{"name": "A", "ports": [{"containerPort": 70000}]}]}, "status": {"podIPs": [{"ip": "x"}]}});
        assert_eq!(
            paths(&pod(&bad, None)),
            [
                "spec.containers[0].name",
                "spec.containers[0].ports[0].containerPort",
                "status.podIPs[0].ip"
            ]
        );
    }

    #[test]
    fn services() {
        let good = json!({"spec": {"type": "ClusterIP", "internalTrafficPolicy": "Local"}});
        assert!(service(&good, None).is_empty());
        let bad = json!({"spec": {
            "type": "Balancer", "externalTrafficPolicy": "local", "internalTrafficPolicy": "x",
            "ports": [{"port": 80}, {"name": "b", "port": 0}],
        }});
        assert_eq!(
            paths(&service(&bad, None)),
            [
                "spec.type",
                "spec.externalTrafficPolicy",
                "spec.internalTrafficPolicy",
                "spec.ports[0].name",
                "spec.ports[1].port"
            ]
        );
    }

    #[test]
    fn crds_must_be_servable() {
        let bad = json!({"metadata": {"name": "x"}, "spec": {"group": "g", "names": {"plural": "ps"}, "scope": "World", "versions": []}});
        assert_eq!(
            paths(&crd(&bad, None)),
            [
                "metadata.name",
                "spec.group",
                "spec.names.kind",
                "spec.scope",
                "spec.versions"
            ]
        );
    }
}
