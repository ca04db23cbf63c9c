//! OpenAPI, as much as clients need: that writes take `fieldValidation` (so kubectl leaves validation to the server), and the
//! schemas of custom resources.
//!
//! Built-in kinds have no schema here. kubectl then falls back to the types it was built with, which is what it needs for
//! strategic merge patches.

use axum::response::Response;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::answer;
use crate::error::ApiError;
use crate::registry::{Model, Registry, Resource};

/// The old, single document. kubectl asks for it as protobuf, which is not served; others take the JSON.
pub(super) fn v2(headers: &HeaderMap) -> Result<Response, ApiError> {
    let accept = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("*/*");
    let json_too = accept.split(',').any(|range| {
        matches!(
            range.split(';').next().map(str::trim),
            Some("application/json" | "*/*" | "application/*")
        )
    });
    if !json_too {
        return Err(ApiError::not_acceptable());
    }
    let document = json!({
        "swagger": "2.0", "info": {"title": "Margay", "version": "v1.33.0+margay"}, "paths": {}, "definitions": {},
    });
    Ok(answer::json(StatusCode::OK, &document))
}

/// The list of documents, one per group and version.
pub(super) fn v3_index(registry: &Registry) -> Response {
    let mut paths = Map::new();
    for resource in registry.all() {
        let path = root(&resource.group, &resource.version);
        // The hash lets clients cache; it changes whenever any CRD does.
        let url = format!("/openapi/v3/{path}?hash={}", registry.made_from);
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    answer::json(StatusCode::OK, &json!({ "paths": paths }))
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// The document of one group and version.
pub(super) fn v3(registry: &Registry, group: &str, version: &str) -> Result<Response, ApiError> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let members = registry
        .all()
        .filter(|resource| resource.group == group && resource.version == version);
    for resource in members {
        let scope = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let base = format!("/{}{scope}/{}", root(group, version), resource.plural);
        paths.insert(
            base.clone(),
            json!({"get": operation(resource, "list"), "post": operation(resource, "post")}),
        );
        paths.insert(
            format!("{base}/{{name}}"),
            json!({
                "get": operation(resource, "get"), "put": operation(resource, "put"),
                "patch": operation(resource, "patch"), "delete": operation(resource, "delete"),
            }),
        );
        if let Model::Custom(custom) = &resource.model {
            schemas.insert(schema_name(resource), schema(resource, &custom.source));
        }
    }
    if paths.is_empty() {
        return Err(ApiError::unknown_path());
    }
    let document = json!({
        "openapi": "3.0.0", "info": {"title": "Margay", "version": "v1.33.0+margay"},
        "paths": paths, "components": {"schemas": schemas},
    });
    Ok(answer::json(StatusCode::OK, &document))
}

fn kind(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn operation(resource: &Resource, action: &str) -> Value {
    let parameters: Vec<Value> = match action {
        "post" | "put" | "patch" => ["dryRun", "fieldManager", "fieldValidation"]
            .iter()
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
            .collect(),
        _ => Vec::new(),
    };
    json!({
        "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind(resource),
        "parameters": parameters, "responses": {"200": {"description": "OK"}},
    })
}

/// `dev.margay.v1.IPPool`: the group's labels reversed.
fn schema_name(resource: &Resource) -> String {
    let group: Vec<&str> = resource.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), resource.version, resource.kind)
}

fn schema(resource: &Resource, source: &Value) -> Value {
    let mut schema = source.clone();
    if let Value::Object(map) = &mut schema {
        map.insert(
            "x-kubernetes-group-version-kind".into(),
            json!([kind(resource)]),
        );
    }
    schema
}
