//! Peers of every kind that objects can name, on routers of other makes.
//!
//! | file | what |
//! |---|---|
//! | `router` | a router beside the lab's own, running BIRD, FRR or GoBGP |
//! | `passwords` | from Secrets: right, wrong, missing, rotated live |
//! | `places` | ranges, gateways, an AS of its own for one session |
//! | `switches` | two ToRs of GoBGP at once; down, about to go, too many prefixes, families, times |
//! | `fields` | what Calico's objects lack, at BIRD's end: routes kept long, TCP-AO, a priority on the way out |
//! | `farewell` | the planned end of a node at a ToR of GoBGP |
//! | `links` | pods over a fabric without addresses |
//! | `thousand`, `crowd` | one agent in a mesh of a thousand simulated nodes |
//! | `filters`, `table` | BGPFilters edited one after another, and what passes then on both sides |

mod crowd;
mod farewell;
mod fields;
mod filters;
mod links;
mod passwords;
mod places;
mod router;
mod switches;
mod table;
mod thousand;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::Api;
use margay_crds::BGPPeer;
use margay_crds::bgp_peer::BGPPeerStatus;
use serde_json::{Value, json};

use crate::ground::Ground;

/// The agents' namespace.
const NAMESPACE: &str = "margay-system";

/// Writes a BGPPeer, in place of one of this name.
async fn write_peer(ground: &Ground, name: &str, spec: Value) {
    let api: Api<BGPPeer> = Api::all(ground.cluster.client.clone());
    let _ = api.delete(name, &kube::api::DeleteParams::default()).await;
    let object = json!({"metadata": {"name": name}, "spec": spec});
    ground.create(&api, object).await;
}

async fn delete_peer(ground: &Ground, name: &str) {
    let api: Api<BGPPeer> = Api::all(ground.cluster.client.clone());
    let parameters = kube::api::DeleteParams::default();
    api.delete(name, &parameters).await.unwrap();
}

/// What stands in a BGPPeer's status.
async fn status(ground: &Ground, name: &str) -> BGPPeerStatus {
    let api: Api<BGPPeer> = Api::all(ground.cluster.client.clone());
    let object = api.get(name).await.unwrap();
    object.status.unwrap_or_default()
}

/// The message of a condition of a BGPPeer, and whether it is true.
async fn condition(ground: &Ground, name: &str, kind: &str) -> Option<(bool, String)> {
    let status = status(ground, name).await;
    let mut conditions = status.conditions.into_iter();
    let found = conditions.find(|one| one.type_ == kind)?;
    Some((found.status == "True", found.message))
}

/// Writes a Secret with one password.
async fn write_secret(ground: &Ground, name: &str, password: &str) {
    let client = &ground.cluster.client;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    ground
        .create(&namespaces, json!({"metadata": {"name": NAMESPACE}}))
        .await;
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let data = json!({"stringData": {"password": password}});
    if api.get_opt(name).await.unwrap().is_none() {
        let mut object = data;
        object["metadata"] = json!({"name": name});
        ground.create(&api, object).await;
    } else {
        ground.patch(&api, name, data).await;
    }
}

/// The session of a node with an address, as its agent tells it.
fn session(ground: &Ground, node: &str, address: &str) -> Result<Value, String> {
    let answer = ground.ask_agent(node, "bgp")?;
    let peers = answer["peers"].as_array().cloned().unwrap_or_default();
    let mut peers = peers.into_iter();
    peers
        .find(|peer| peer["address"] == address)
        .ok_or_else(|| format!("{node} has no session with {address}: {answer}"))
}

/// Waits until a session is established, and tells since when it is.
async fn until_up(ground: &Ground, node: &str, address: &str) -> String {
    ground
        .until(&format!("{node} to speak with {address}"), 30, || async {
            let seen = session(ground, node, address)?;
            match seen["state"] == "Established" {
                true => Ok(seen["since"].as_str().unwrap_or_default().to_owned()),
                false => Err(seen.to_string()),
            }
        })
        .await
}

/// Waits until a session is not established.
async fn until_down(ground: &Ground, node: &str, address: &str) -> Value {
    ground
        .until(&format!("{node} to lose {address}"), 30, || async {
            let seen = session(ground, node, address)?;
            match seen["state"] == "Established" {
                false => Ok(seen),
                true => Err(seen.to_string()),
            }
        })
        .await
}

/// The kernel's routes of a node that are Margay's and lead to this destination.
fn route(ground: &Ground, node: &str, destination: &str) -> String {
    let namespace = ground.namespace(node);
    let arguments = [
        "-n",
        &namespace,
        "route",
        "show",
        destination,
        "proto",
        "90",
    ];
    margay_e2e::lab::command::run("ip", &arguments).unwrap()
}
