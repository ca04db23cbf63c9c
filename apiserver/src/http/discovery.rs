//! Discovery: which groups, versions and resources there are, in the aggregated form and in the older one.

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::accept::{Accepted, Shape};
use super::answer;
use super::path::Target;
use crate::error::ApiError;
use crate::registry::{Registry, Resource};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers `/`, `/version`, `/api`, `/apis` and what is below without being a resource.
pub(super) fn answer(
    registry: &Registry,
    headers: &HeaderMap,
    target: &Target,
) -> Result<Response, ApiError> {
    let aggregated = Accepted::negotiate(headers)?.shape == Shape::Discovery;
    let ok = |value: &Value| Ok(answer::json(StatusCode::OK, value));
    match target {
        Target::Version => ok(&version()),
        Target::Paths => ok(&paths(registry)),
        Target::CoreVersions if aggregated => {
            let group = aggregated_group(registry, "", &["v1".to_owned()]);
            Ok(answer::json_as(AGGREGATED, &aggregated_list(vec![group])))
        }
        Target::Groups if aggregated => {
            let groups = registry.groups();
            let groups = groups
                .iter()
                .map(|(group, versions)| aggregated_group(registry, group, versions))
                .collect();
            Ok(answer::json_as(AGGREGATED, &aggregated_list(groups)))
        }
        Target::CoreVersions => ok(
            &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ),
        Target::Groups => {
            let groups: Vec<Value> = registry
                .groups()
                .iter()
                .map(|(group, versions)| plain_group(group, versions))
                .collect();
            ok(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        Target::Group(name) => {
            let groups = registry.groups();
            let versions = groups.get(name).ok_or_else(ApiError::unknown_path)?;
            let mut group = plain_group(name, versions);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            ok(&group)
        }
        Target::Resources { group, version } => {
            let resources: Vec<Value> = members(registry, group, version)
                .flat_map(plain_resources)
                .collect();
            if resources.is_empty() {
                return Err(ApiError::unknown_path());
            }
            let group_version = if group.is_empty() {
                version.clone()
            } else {
                format!("{group}/{version}")
            };
            ok(
                &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
            )
        }
        _ => Err(ApiError::unknown_path()),
    }
}

/// The Kubernetes version whose API is spoken; clients compare it with their own.
fn version() -> Value {
    // Kubernetes uses Go's names.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1", "minor": "33", "gitVersion": "v1.33.0+margay", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    })
}

fn paths(registry: &Registry) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in registry.groups() {
        paths.push(format!("/apis/{group}"));
        paths.extend(
            versions
                .iter()
                .map(|version| format!("/apis/{group}/{version}")),
        );
    }
    paths.extend(
        [
            "/healthz",
            "/livez",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned),
    );
    json!({ "paths": paths })
}

fn members<'a>(
    registry: &'a Registry,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Resource> {
    registry
        .all()
        .map(AsRef::as_ref)
        .filter(move |resource| resource.group == group && resource.version == version)
}

fn plain_group(name: &str, versions: &[String]) -> Value {
    let entry =
        |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({
        "name": name,
        "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    })
}

fn plain_resources(resource: &Resource) -> Vec<Value> {
    let mut entry = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let status = json!({
        "name": format!("{}/status", resource.plural), "singularName": "", "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": STATUS_VERBS,
    });
    std::iter::once(entry)
        .chain(resource.status.then_some(status))
        .collect()
}

fn aggregated_list(groups: Vec<Value>) -> Value {
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": groups})
}

fn aggregated_group(registry: &Registry, group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = members(registry, group, version)
                .map(aggregated_resource)
                .collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut entry = json!({
        "resource": resource.plural, "responseKind": kind, "singularResource": resource.singular, "verbs": VERBS,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if resource.status {
        entry["subresources"] =
            json!([{"subresource": "status", "responseKind": kind, "verbs": STATUS_VERBS}]);
    }
    entry
}
