//! Clusters to measure on: objects as the API gives them.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Namespace, Pod, PodIP, PodSpec, PodStatus},
    networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule,
        NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
};
use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{LabelSelector, ObjectMeta},
    util::intstr::IntOrString,
};
use margay_policy::{LocalEndpoint, model};

pub(crate) type Labels = BTreeMap<String, String>;

pub(crate) fn labels(pairs: &[(&str, String)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

pub(crate) fn selector(labels: Labels) -> LabelSelector {
    LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        match_expressions: None,
    }
}

fn meta(namespace: Option<&str>, name: String, labels: Labels) -> ObjectMeta {
    ObjectMeta {
        namespace: namespace.map(str::to_owned),
        uid: Some(format!("00000000-0000-0000-0000-{:012x}", name.len())),
        labels: Some(labels),
        name: Some(name),
        ..ObjectMeta::default()
    }
}

pub(crate) fn namespace(name: &str, labels: Labels) -> Namespace {
    Namespace {
        metadata: meta(None, name.to_owned(), labels),
        ..Namespace::default()
    }
}

pub(crate) fn address(number: usize) -> String {
    let [_, a, b, c] = (number as u32 + 1).to_be_bytes();
    format!("10.{a}.{b}.{c}")
}

pub(crate) fn pod(namespace: &str, name: String, labels: Labels, number: usize) -> Pod {
    Pod {
        metadata: meta(Some(namespace), name, labels),
        spec: Some(PodSpec {
            node_name: Some(format!("node-{}", number % 1000)),
            service_account_name: Some("default".to_owned()),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            pod_ips: Some(vec![PodIP {
                ip: address(number),
            }]),
            phase: Some("Running".to_owned()),
            ..PodStatus::default()
        }),
    }
}

pub(crate) fn port(protocol: &str, port: i32, end: Option<i32>) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(port)),
        end_port: end,
    }
}

/// A peer by the labels of its namespace, if any are asked for, and its own.
pub(crate) fn peer(namespaces: Option<Labels>, pods: Labels) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: namespaces.map(selector),
        pod_selector: Some(selector(pods)),
        ip_block: None,
    }
}

pub(crate) fn policy(
    namespace: &str,
    name: String,
    subject: Labels,
    from: Option<(Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)>,
    to: Option<(Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)>,
) -> NetworkPolicy {
    let mut types = Vec::new();
    types.extend(from.is_some().then(|| "Ingress".to_owned()));
    types.extend(to.is_some().then(|| "Egress".to_owned()));
    let ingress = from.map(|(from, ports)| {
        vec![NetworkPolicyIngressRule {
            from: Some(from),
            ports: Some(ports),
        }]
    });
    let egress = to.map(|(to, ports)| {
        vec![NetworkPolicyEgressRule {
            to: Some(to),
            ports: Some(ports),
        }]
    });
    NetworkPolicy {
        metadata: meta(Some(namespace), name, Labels::new()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(subject)),
            policy_types: Some(types),
            ingress,
            egress,
        }),
    }
}

/// Three policies of a namespace of four applications: by label, by namespace and label, by block.
pub(crate) fn three(namespace: &str, number: usize) -> [NetworkPolicy; 3] {
    let app = |app: usize| labels(&[("app", format!("app-{app}"))]);
    let team = labels(&[("team", format!("team-{}", (number + 1) % 500))]);
    let block = NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: "172.16.0.0/12".to_owned(),
            except: Some(vec![format!("172.16.{}.0/24", number % 200)]),
        }),
        ..NetworkPolicyPeer::default()
    };
    [
        policy(
            namespace,
            "by-label".to_owned(),
            app(0),
            Some((vec![peer(None, app(1))], vec![port("TCP", 80, None)])),
            None,
        ),
        policy(
            namespace,
            "by-namespace".to_owned(),
            app(1),
            Some((vec![peer(Some(team), app(2))], vec![port("TCP", 443, None)])),
            None,
        ),
        policy(
            namespace,
            "out".to_owned(),
            Labels::new(),
            None,
            Some((
                vec![block, peer(None, Labels::new())],
                vec![port("UDP", 53, None), port("TCP", 8000, Some(9000))],
            )),
        ),
    ]
}

/// A pod's network on the node that is measured.
pub(crate) fn endpoint(namespace: &str, pod: &str, number: usize) -> LocalEndpoint {
    LocalEndpoint {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        interface: format!("mgy{number:08x}"),
        device: number as u32 + 1,
        addresses: vec![address(number).parse().unwrap()],
        ..LocalEndpoint::default()
    }
}

/// A pod as the cluster keeps it.
pub(crate) fn model(namespace: &str, name: &str, labels: Labels, number: usize) -> model::Pod {
    model::Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: labels.into(),
        service_account: "default".to_owned(),
        addresses: vec![address(number).parse().unwrap()],
        node: Some("other".to_owned()),
        ..model::Pod::default()
    }
}
