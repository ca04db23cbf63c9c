//! The watches, against a server of before `discovery.k8s.io/v1` that is upgraded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::StreamExt;
use serde_json::{Value, json};

use super::*;
use crate::services::Services;

fn groups(versions: &[&str]) -> Value {
    let version = |version: &&str| json!({"groupVersion": format!("discovery.k8s.io/{version}"), "version": version});
    let versions: Vec<_> = versions.iter().map(version).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
        {"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}]},
        {"name": "discovery.k8s.io", "versions": versions},
    ]})
}

#[test]
fn the_older_version_is_for_servers_without_the_newer() {
    for (versions, expected) in [
        (&["v1", "v1beta1"][..], Some(SliceVersion::V1)),
        (&["v1beta1", "v1"], Some(SliceVersion::V1)),
        (&["v1beta1"], Some(SliceVersion::V1beta1)),
        (&[], None),
    ] {
        let groups = serde_json::from_value(groups(versions)).unwrap();
        assert_eq!(newest(&groups), expected, "{versions:?}");
    }
    assert_eq!(newest(&APIGroupList { groups: Vec::new() }), None);
}

#[tokio::test]
async fn without_watches_there_is_nothing_to_wait_for() {
    let mut watching = Watching::default();
    assert!(!watching.is_running() && watching.next_waiting().is_none());
    let wait = Duration::from_millis(10);
    assert!(tokio::time::timeout(wait, watching.next()).await.is_err());
}

/// A server with one Service and one slice of it; `true` once it is upgraded.
type Upgraded = Arc<AtomicBool>;

async fn list_groups(State(upgraded): State<Upgraded>) -> Json<Value> {
    Json(groups(match upgraded.load(Ordering::SeqCst) {
        true => &["v1"],
        false => &["v1beta1"],
    }))
}

async fn slices(
    State(upgraded): State<Upgraded>,
    Path(version): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let is_new = upgraded.load(Ordering::SeqCst);
    if is_new != (version == "v1") {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
            "message": "404 page not found", "code": 404,
        });
        return (StatusCode::NOT_FOUND, Json(status)).into_response();
    }
    let query = query.unwrap_or_default();
    assert!(query.contains("headless"), "{query}");
    if query.contains("watch=true") {
        // Ends when the server goes down for its upgrade.
        let ended = async move {
            while !upgraded.load(Ordering::SeqCst) || is_new {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let nothing = futures::stream::once(ended)
            .filter_map(|()| async { None::<Result<&str, std::io::Error>> });
        return Body::from_stream(nothing).into_response();
    }
    let endpoint = match is_new {
        true => json!({"addresses": ["10.0.0.1"], "nodeName": "n2"}),
        false => json!({"addresses": ["10.0.0.1"], "topology": {"kubernetes.io/hostname": "n1"}}),
    };
    list(
        "EndpointSliceList",
        &format!("discovery.k8s.io/{version}"),
        json!({
            "metadata": {
                "name": "web-1", "namespace": "d",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4", "endpoints": [endpoint], "ports": null,
        }),
    )
}

async fn services(RawQuery(query): RawQuery) -> Response {
    if query.unwrap_or_default().contains("watch=true") {
        let nothing = futures::stream::pending::<Result<&str, std::io::Error>>();
        return Body::from_stream(nothing).into_response();
    }
    let service = json!({
        "metadata": {"name": "web", "namespace": "d"},
        "spec": {"externalIPs": ["192.0.2.7"], "externalTrafficPolicy": "Local"},
    });
    list("ServiceList", "v1", service)
}

fn list(kind: &str, version: &str, item: Value) -> Response {
    Json(json!({
        "kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "1"},
        "items": [item],
    }))
    .into_response()
}

async fn serve(upgraded: Upgraded) -> Client {
    let router = Router::new()
        .route("/apis", get(list_groups))
        .route(
            "/apis/discovery.k8s.io/{version}/endpointslices",
            get(slices),
        )
        .route("/api/v1/services", get(services))
        .with_state(upgraded);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let url = format!("http://{address}").parse().unwrap();
    Client::try_from(kube::Config::new(url)).unwrap()
}

/// Takes in events until this many prefixes are announced.
async fn until_announced(watching: &mut Watching, core: &mut Services, count: usize) {
    let taken = async {
        while core.announcements().len() != count || core.missing().next().is_some() {
            match *watching.next().await {
                ServiceEvent::Service(event) => core.handle_service(event),
                ServiceEvent::EndpointSlice(event) => core.handle_endpoint_slice(event),
            }
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, taken).await.unwrap();
}

#[tokio::test]
async fn an_older_server_is_understood_and_its_upgrade_followed() {
    let upgraded = Upgraded::default();
    let client = serve(Arc::clone(&upgraded)).await;
    let (failures, mut failing) = watch::channel(Failures::new());
    let mut watching = ServiceWatches::new(client, failures).start();
    let mut core = Services::new("n1");
    let spec = json!({"serviceExternalIPs": [{"cidr": "192.0.2.0/24"}]});
    let spec = serde_json::from_value(spec).unwrap();
    let settings = margay_crds::BGPConfiguration::new("default", spec).check();
    core.handle_configuration(&settings.unwrap());
    until_announced(&mut watching, &mut core, 2).await;

    // What is known stays while the server is away, and the new version says otherwise.
    upgraded.store(true, Ordering::SeqCst);
    until_announced(&mut watching, &mut core, 1).await;

    // Nobody wants them any more: the watches end, and their failures with them.
    drop(watching);
    let ended = async { while failing.changed().await.is_ok() {} };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, ended).await.unwrap();
    assert!(failing.borrow().is_empty(), "{:?}", failing.borrow());
}
