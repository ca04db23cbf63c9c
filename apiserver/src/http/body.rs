//! Reading request bodies: bounded in size and time, JSON or YAML.

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::{RequestBody, protobuf};
use crate::error::ApiError;

/// The largest body read, as in Kubernetes.
pub(super) const LARGEST: usize = 3 << 20;
/// A body that takes longer than this is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const OBJECTS: &str = "application/json, application/yaml";

/// The media type of the body without parameters; JSON when the client does not say.
pub(super) fn media(headers: &HeaderMap) -> &str {
    let header = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match header.split(';').next().map(str::trim) {
        None | Some("") => "application/json",
        Some(media) => media,
    }
}

/// The whole body.
pub(super) async fn read(body: RequestBody) -> Result<Vec<u8>, ApiError> {
    let collected = tokio::time::timeout(PATIENCE, Limited::new(body, LARGEST).collect());
    match collected.await {
        Err(_) => Err(ApiError::body_timeout()),
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ApiError::too_large(LARGEST))
        }
        Ok(Err(error)) => Err(ApiError::bad_request(format!(
            "the request body cannot be read: {error}"
        ))),
    }
}

/// An object in JSON, YAML, or, of a few kinds, protobuf.
pub(super) async fn object(headers: &HeaderMap, body: RequestBody) -> Result<Value, ApiError> {
    let bytes = read(body).await?;
    decode(media(headers), &bytes)
}

/// Decodes a body by its media type.
pub(super) fn decode(media: &str, bytes: &[u8]) -> Result<Value, ApiError> {
    match media {
        "application/json" => json(bytes),
        "application/yaml" | "text/yaml" | "application/x-yaml" => yaml(bytes),
        protobuf::MEDIA => protobuf::object(bytes),
        other => Err(ApiError::unsupported_media(other, OBJECTS)),
    }
}

pub(super) fn json(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("the request body is not JSON: {error}")))
}

/// YAML, of which JSON is a part.
pub(super) fn yaml(bytes: &[u8]) -> Result<Value, ApiError> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    serde_saphyr::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("the request body is not YAML: {error}")))
}
