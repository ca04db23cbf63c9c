//! The verbs on objects and collections.

use std::sync::Arc;

use axum::response::Response;
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::Value;

use super::accept::Accepted;
use super::path::Address;
use super::query::Query;
use super::{App, RequestBody, answer, body, watch};
use crate::error::ApiError;
use crate::registry::Resource;
use crate::service::{DeleteOptions, Deleted, ListQuery, Part, Patch, Place, Selectors};

const PATCHES: &str = "application/json-patch+json, application/merge-patch+json, \
                       application/strategic-merge-patch+json, application/apply-patch+yaml";

fn find(app: &App, address: &Address) -> Result<Arc<Resource>, ApiError> {
    let resource = app
        .service
        .registry()
        .find(&address.group, &address.version, &address.plural)
        .ok_or_else(ApiError::unknown_path)?;
    // A cluster-scoped resource has no place below a namespace, and an object of a namespaced one needs one.
    let fits = match &address.namespace {
        Some(_) => resource.namespaced,
        None => !resource.namespaced || address.name.is_empty(),
    };
    if fits {
        Ok(resource)
    } else {
        Err(ApiError::unknown_path())
    }
}

/// Requests on `/…/plural`.
pub(super) async fn collection(
    app: &Arc<App>,
    head: &Parts,
    query: &Query,
    body: RequestBody,
    address: &Address,
) -> Result<Response, ApiError> {
    let resource = find(app, address)?;
    let accepted = Accepted::negotiate(&head.headers)?;
    match head.method {
        Method::GET | Method::HEAD if query.flag("watch") => {
            watch::open(app, resource, accepted, query, address)
        }
        Method::GET | Method::HEAD => {
            let page = app
                .service
                .list(&resource, &list_query(&resource, query, address)?)?;
            answer::listed(&resource, accepted, query, page)
        }
        Method::POST => {
            let object = body::object(&head.headers, body).await?;
            if resource.namespaced && address.namespace.is_none() {
                return Err(ApiError::method_not_allowed());
            }
            let namespace = address.namespace.as_deref().unwrap_or_default();
            let written = app
                .service
                .create(&resource, namespace, object, &query.write_options()?)
                .await?;
            answer::written(&resource, accepted, query, written)
        }
        Method::DELETE => {
            let options = delete_options(head, query, body).await?;
            let deleted = app
                .service
                .delete_collection(&resource, &list_query(&resource, query, address)?, &options)
                .await?;
            let page = crate::service::ListPage {
                objects: deleted,
                metadata: serde_json::json!({}),
            };
            answer::listed(&resource, accepted, query, page)
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Requests on `/…/plural/name[/status]`.
pub(super) async fn object(
    app: &Arc<App>,
    head: &Parts,
    query: &Query,
    body: RequestBody,
    address: &Address,
) -> Result<Response, ApiError> {
    let resource = find(app, address)?;
    let part = match address.subresource.as_str() {
        "" => Part::Main,
        "status" if resource.status => Part::Status,
        _ => return Err(ApiError::unknown_path()),
    };
    let accepted = Accepted::negotiate(&head.headers)?;
    let place = Place {
        namespace: address.namespace.as_deref().unwrap_or_default(),
        name: &address.name,
    };
    match (&head.method, part) {
        (&Method::GET | &Method::HEAD, _) => {
            let object = app.service.get(&resource, place)?;
            answer::encoded(
                StatusCode::OK,
                accepted,
                &answer::shaped(&resource, accepted, query, object),
            )
        }
        (&Method::PUT, _) => {
            let object = body::object(&head.headers, body).await?;
            let written = app
                .service
                .update(&resource, place, part, object, &query.write_options()?)
                .await?;
            answer::written(&resource, accepted, query, written)
        }
        (&Method::PATCH, _) => {
            let patch = patch(head, body).await?;
            let written = app
                .service
                .patch(&resource, place, part, patch, &query.write_options()?)
                .await?;
            answer::written(&resource, accepted, query, written)
        }
        (&Method::DELETE, Part::Main) => {
            let options = delete_options(head, query, body).await?;
            match app.service.delete(&resource, place, &options).await? {
                Deleted::Gone(object) => answer::encoded(
                    StatusCode::OK,
                    accepted,
                    &crate::service::success(&resource, &object),
                ),
                Deleted::Waiting(object) => answer::encoded(
                    StatusCode::OK,
                    accepted,
                    &answer::shaped(&resource, accepted, query, object),
                ),
            }
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn patch(head: &Parts, body: RequestBody) -> Result<Patch, ApiError> {
    let media = body::media(&head.headers).to_owned();
    let read: fn(Value) -> Patch = match media.as_str() {
        "application/merge-patch+json" => Patch::Merge,
        "application/json-patch+json" => Patch::Json,
        "application/strategic-merge-patch+json" => Patch::Strategic,
        "application/apply-patch+yaml" => Patch::Apply,
        other => return Err(ApiError::unsupported_media(other, PATCHES)),
    };
    let bytes = body::read(body).await?;
    // Only apply patches may be YAML.
    Ok(read(if media.ends_with("+yaml") {
        body::yaml(&bytes)?
    } else {
        body::json(&bytes)?
    }))
}

async fn delete_options(
    head: &Parts,
    query: &Query,
    body: RequestBody,
) -> Result<DeleteOptions, ApiError> {
    let bytes = body::read(body).await?;
    let mut options = if bytes.is_empty() {
        DeleteOptions::default()
    } else {
        DeleteOptions::from_body(&body::decode(body::media(&head.headers), &bytes)?)
    };
    options.dry_run |= query.dry_run();
    Ok(options)
}

fn list_query(
    resource: &Resource,
    query: &Query,
    address: &Address,
) -> Result<ListQuery, ApiError> {
    Ok(ListQuery {
        namespace: address.namespace.clone(),
        selectors: Selectors::parse(
            resource,
            query.text("labelSelector"),
            query.text("fieldSelector"),
        )?,
        limit: usize::try_from(query.number("limit")?).unwrap_or(usize::MAX),
        continue_token: query.text("continue").to_owned(),
        version: query.number("resourceVersion")?,
        exact: query.text("resourceVersionMatch") == "Exact",
    })
}
