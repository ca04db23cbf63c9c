//! The core, seen from the node `n1`: tables of what is announced when, what each event changes,
//! and random sequences of events.

mod events;
mod random;
mod tables;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube::runtime::watcher::Event;
use margay_crds::{BGPConfiguration, BgpSettings};
use serde_json::{Value, json};

use super::{EndpointSlice, Services};

/// The node looked from.
const NODE: &str = "n1";

/// Checked settings out of a BGPConfiguration's `spec`.
fn settings(spec: Value) -> BgpSettings {
    let spec = serde_json::from_value(spec).unwrap();
    BGPConfiguration::new("default", spec).check().unwrap()
}

/// A Service of the namespace `d`.
fn service(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "d"}, "spec": spec,
    }))
    .unwrap()
}

/// A Service of type LoadBalancer that was given these addresses.
fn balancer(name: &str, spec: Value, given: &[&str]) -> Service {
    let mut service = service(name, spec);
    service.spec.as_mut().unwrap().type_ = Some("LoadBalancer".to_owned());
    let ingress: Vec<Value> = given.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({"loadBalancer": {"ingress": ingress}});
    service.status = Some(serde_json::from_value(status).unwrap());
    service
}

/// A slice of a Service in `d`; the endpoints are `NODE STATE`.
fn slice(name: &str, service: &str, kind: &str, endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<Value> = endpoints.iter().map(|text| endpoint(text)).collect();
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "d", "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": kind,
        "endpoints": endpoints,
    }))
    .unwrap()
}

fn endpoint(text: &str) -> Value {
    let (node, state) = text.split_once(' ').unwrap();
    let conditions = match state {
        "ready" => json!({"ready": true, "serving": true, "terminating": false}),
        "unready" => json!({"ready": false, "serving": false, "terminating": false}),
        "starting" => json!({"ready": false, "serving": true, "terminating": false}),
        "draining" => json!({"ready": false, "serving": true, "terminating": true}),
        "ended" => json!({"ready": false, "serving": false, "terminating": true}),
        "unknown" => json!({}),
        "old" => json!({"ready": false}),
        other => panic!("{other}"),
    };
    match node {
        "-" => json!({"addresses": ["x"], "conditions": conditions}),
        node => json!({"addresses": ["x"], "conditions": conditions, "nodeName": node}),
    }
}

/// The core with everything there is, given at once.
fn core(
    spec: Value,
    labels: &[(&str, &str)],
    services: &[Service],
    slices: &[EndpointSlice],
) -> Services {
    let mut core = Services::new(NODE);
    core.handle_configuration(&settings(spec));
    core.handle_node(&labels_of(labels));
    for service in services {
        core.handle_service(Event::Apply(service.clone()));
    }
    for slice in slices {
        core.handle_endpoint_slice(Event::Apply(slice.clone()));
    }
    core
}

fn labels_of(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    labels.iter().map(owned).collect()
}

/// What is announced, in order.
fn announced(core: &Services) -> Vec<String> {
    let prefixes = core.announcements().keys();
    prefixes.map(ToString::to_string).collect()
}

/// What has changed: `+` announced, `-` withdrawn.
fn changes(core: &mut Services) -> Vec<String> {
    let changes = core.poll_changes().into_iter();
    let told = changes.map(|change| {
        let sign = match change.announcement {
            Some(_) => '+',
            None => '-',
        };
        format!("{sign}{}", change.prefix)
    });
    told.collect()
}
