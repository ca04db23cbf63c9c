//! Reads Pod and Node objects.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

use super::{NamedPort, Node, Pod};
use crate::problem::{Problem, Problems};

/// The namespace of an object that names none, as `kubectl` would create it.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

pub(super) fn read(pod: &core::Pod) -> (Pod, Vec<Problem>) {
    let metadata = &pod.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let name = metadata.name.clone().unwrap_or_default();
    let mut problems = Problems::of("Pod", namespace, &name);
    let spec = pod.spec.as_ref();
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let model = Pod {
        namespace: namespace.to_owned(),
        name,
        uid: metadata.uid.clone(),
        labels: metadata.labels.as_ref().into(),
        service_account: spec
            .and_then(|spec| spec.service_account_name.clone())
            .filter(|account| !account.is_empty())
            .unwrap_or_else(|| "default".to_owned()),
        addresses: addresses(pod.status.as_ref(), &mut problems),
        node: spec
            .and_then(|spec| spec.node_name.clone())
            .filter(|node| !node.is_empty()),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        ports: spec
            .map(|spec| ports(spec, &mut problems))
            .unwrap_or_default(),
    };
    (model, problems.into_found())
}

/// `status.podIPs`, and `status.podIP` for writers that fill in only that.
fn addresses(status: Option<&core::PodStatus>, problems: &mut Problems) -> Vec<IpAddr> {
    let Some(status) = status else {
        return Vec::new();
    };
    let listed = status
        .pod_ips
        .iter()
        .flatten()
        .map(|entry| ("status.podIPs", &entry.ip));
    let single = status.pod_ip.iter().map(|ip| ("status.podIP", ip));
    let mut addresses = Vec::new();
    for (field, text) in listed.chain(single).filter(|(_, text)| !text.is_empty()) {
        match text.parse() {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(_) => problems.report(field, format!("{text:?} is not an address and is left out")),
        }
    }
    addresses
}

/// The named ports of containers and of init containers that go on running (sidecars).
fn ports(spec: &core::PodSpec, problems: &mut Problems) -> Vec<NamedPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut named = Vec::new();
    for container in spec.containers.iter().chain(sidecars) {
        for port in container.ports.iter().flatten() {
            let Some(name) = port.name.clone() else {
                continue;
            };
            let protocol = port.protocol.as_deref().unwrap_or("TCP").parse();
            let number = u16::try_from(port.container_port)
                .ok()
                .filter(|number| *number > 0);
            match (protocol, number) {
                (Ok(protocol), Some(number)) => named.push(NamedPort {
                    name,
                    protocol,
                    number,
                }),
                (Err(error), _) => {
                    problems.report("spec.containers.ports.protocol", error.to_string())
                }
                (_, None) => problems.report(
                    "spec.containers.ports.containerPort",
                    format!(
                        "{} is not a port: the name {name:?} is left out",
                        port.container_port
                    ),
                ),
            }
        }
    }
    named
}

pub(super) fn read_node(node: &core::Node) -> (Node, Vec<Problem>) {
    let name = node.metadata.name.clone().unwrap_or_default();
    let mut problems = Problems::of("Node", "", &name);
    let mut addresses = Vec::new();
    let listed = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    for entry in listed.filter(|entry| matches!(entry.type_.as_str(), "InternalIP" | "ExternalIP"))
    {
        match entry.address.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => problems.report(
                "status.addresses",
                format!("{:?} is not an address and is left out", entry.address),
            ),
        }
    }
    (Node { name, addresses }, problems.into_found())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::port::Protocol;

    #[test]
    fn a_pod_keeps_what_policy_needs() {
        let object: core::Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {
                "nodeName": "n1",
                "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9}]}],
                "initContainers": [
                    {"name": "mesh", "restartPolicy": "Always", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                    {"name": "once", "ports": [{"name": "gone", "containerPort": 1}]},
                ],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "x"}]},
        }))
        .unwrap();
        let (pod, problems) = read(&object);
        assert_eq!(
            pod.addresses,
            [
                "10.0.0.1".parse::<IpAddr>().unwrap(),
                "fd00::1".parse().unwrap()
            ]
        );
        let ports: Vec<_> = pod
            .ports
            .iter()
            .map(|port| (port.name.as_str(), port.protocol, port.number))
            .collect();
        assert_eq!(
            ports,
            [("http", Protocol::Tcp, 8080), ("dns", Protocol::Udp, 53)]
        );
        assert_eq!(pod.node.as_deref(), Some("n1"));
        assert!(pod.is_selectable());
        assert_eq!(
            problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["Pod shop/web-0: status.podIPs: \"x\" is not an address and is left out"]
        );
    }

    #[test]
    fn an_ended_pod_is_finished_and_a_terminating_one_is_not() {
        for (phase, finished) in [
            ("Running", false),
            ("Pending", false),
            ("Succeeded", true),
            ("Failed", true),
        ] {
            let object: core::Pod = serde_json::from_value(json!({
                "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": phase},
            }))
            .unwrap();
            assert_eq!(read(&object).0.finished, finished, "{phase}");
        }
    }
}
