//! Building responses.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::accept::{Accepted, Encoding, Shape};
use super::query::Query;
use crate::error::ApiError;
use crate::registry::Resource;
use crate::service::{ListPage, Written};
use crate::table::{self, Include};

fn with_type(status: StatusCode, media: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Plain text, for health checks.
pub(super) fn text(text: &'static str) -> Response {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", text)
}

/// A JSON value as it is.
pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    with_type(status, "application/json", value.to_string())
}

/// JSON under another media type.
pub(super) fn json_as(media: &'static str, value: &Value) -> Response {
    with_type(StatusCode::OK, media, value.to_string())
}

/// An endless JSON stream.
pub(super) fn stream(body: Body) -> Response {
    with_type(StatusCode::OK, "application/json", body)
}

/// A refused request.
pub(super) fn error(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &error.status());
    if error.code == 429 {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A value in the encoding the client accepts.
pub(super) fn encoded(
    status: StatusCode,
    accepted: Accepted,
    value: &Value,
) -> Result<Response, ApiError> {
    match accepted.encoding {
        Encoding::Json => Ok(json(status, value)),
        Encoding::Yaml => {
            let text = serde_saphyr::to_string(value).map_err(ApiError::internal)?;
            Ok(with_type(status, "application/yaml", text))
        }
    }
}

/// One object in the shape the client accepts.
pub(super) fn shaped(
    resource: &Resource,
    accepted: Accepted,
    query: &Query,
    object: Value,
) -> Value {
    match accepted.shape {
        Shape::Table => {
            let version = object
                .pointer("/metadata/resourceVersion")
                .cloned()
                .unwrap_or_default();
            let include = Include::parse(query.text("includeObject"));
            table::table(
                resource,
                &[object],
                json!({"resourceVersion": version}),
                include,
                Timestamp::now(),
            )
        }
        Shape::Partial => table::partial(&object),
        Shape::Plain | Shape::Discovery => object,
    }
}

/// The answer to a write.
pub(super) fn written(
    resource: &Resource,
    accepted: Accepted,
    query: &Query,
    written: Written,
) -> Result<Response, ApiError> {
    let status = if written.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = encoded(
        status,
        accepted,
        &shaped(resource, accepted, query, written.object),
    )?;
    for warning in written.warnings.iter().take(20) {
        let text = format!(
            "299 - \"{}\"",
            warning.replace('\\', "\\\\").replace('"', "\\\"")
        );
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append("warning", value);
        }
    }
    Ok(response)
}

/// A list in the shape the client accepts.
pub(super) fn listed(
    resource: &Resource,
    accepted: Accepted,
    query: &Query,
    page: ListPage,
) -> Result<Response, ApiError> {
    let value = match accepted.shape {
        Shape::Table => {
            let include = Include::parse(query.text("includeObject"));
            table::table(
                resource,
                &page.objects,
                page.metadata,
                include,
                Timestamp::now(),
            )
        }
        Shape::Partial => {
            let items: Vec<Value> = page.objects.iter().map(table::partial).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": page.metadata, "items": items})
        }
        Shape::Plain | Shape::Discovery => json!({
            "kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": page.metadata, "items": page.objects,
        }),
    };
    encoded(StatusCode::OK, accepted, &value)
}
