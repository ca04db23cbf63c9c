//! The HTTP door: from a request to a verb of [`crate::service`] and back. No rule about objects lives here.

mod accept;
mod answer;
mod body;
mod discovery;
mod openapi;
mod path;
mod protobuf;
mod query;
mod resources;
mod watch;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::Method;
use http::header::AUTHORIZATION;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::path::Target;
use self::query::Query;
use crate::auth::Token;
use crate::error::ApiError;
use crate::service::Service;

/// Watches that may be open at once, over all clients.
pub const MAX_WATCHES: usize = 4096;

/// Everything a request needs.
#[derive(Debug)]
pub struct App {
    pub(crate) service: Arc<Service>,
    pub(crate) token: Token,
    pub(crate) watches: Arc<Semaphore>,
    pub(crate) shutdown: CancellationToken,
}

/// Answers one request; never fails, every error is a `Status`.
pub async fn handle(app: Arc<App>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = route(&app, request)
        .await
        .unwrap_or_else(|error| answer::error(&error));
    tracing::debug!(%method, path, status = response.status().as_u16(), "request");
    response
}

async fn route(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let target = Target::parse(request.uri().path()).ok_or_else(ApiError::unknown_path)?;
    // Health says nothing but "ok", and load balancers have no token.
    if target == Target::Health {
        return Ok(answer::text("ok"));
    }
    let credentials = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !app.token.admits(credentials) {
        return Err(ApiError::unauthorized());
    }
    let (head, body) = request.into_parts();
    let query = Query::parse(&head.uri);
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    match target {
        Target::Collection(address) => {
            resources::collection(app, &head, &query, body, &address).await
        }
        Target::Object(address) => resources::object(app, &head, &query, body, &address).await,
        _ if !reads => Err(ApiError::method_not_allowed()),
        Target::OpenApiV2 => openapi::v2(&head.headers),
        Target::OpenApiV3Index => Ok(openapi::v3_index(&app.service.registry())),
        Target::OpenApiV3 { group, version } => {
            openapi::v3(&app.service.registry(), &group, &version)
        }
        other => discovery::answer(&app.service.registry(), &head.headers, &other),
    }
}

/// Bodies are read whole; this names the type in one place.
type RequestBody = Body;
