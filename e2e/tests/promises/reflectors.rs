//! From a full mesh to route reflectors, under traffic: the sessions that stay never end, the
//! routes never move, and no packet is lost.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use margay_crds::{BGPConfiguration, BGPPeer, DEFAULT_NAME};
use margay_e2e::lab::Tor;
use serde_json::{Value, json};

use crate::flow::{self, SECOND};
use crate::ground::{Ground, routes_of, runnable};
use crate::restart::{RouteWatch, flows};

/// One on each segment.
const REFLECTORS: [&str; 2] = ["node1", "node3"];
const CLIENTS: [&str; 2] = ["node2", "node4"];
const OBJECT: &str = "reflectors";

fn address(ground: &Ground, node: &str) -> String {
    let nodes = &ground.lab.plan.nodes;
    let found = nodes.iter().find(|one| one.host.name == node).unwrap();
    found.host.address.ip().to_string()
}

/// The sessions of a node by the peer's address: whose each is, and since when it is up.
fn sessions(ground: &Ground, node: &str) -> Result<BTreeMap<String, (String, String)>, String> {
    let answer = ground.ask_agent(node, "bgp")?;
    let peers = answer["peers"].as_array().cloned().unwrap_or_default();
    let up = peers
        .iter()
        .filter(|peer| peer["state"] == "Established")
        .map(|peer| {
            let text = |name: &str| peer[name].as_str().unwrap_or_default().to_owned();
            (text("address"), (text("origin"), text("since")))
        });
    Ok(up.collect())
}

async fn until_served(ground: &Ground, reflector: &str) {
    let served = address(ground, reflector);
    let others = ground.lab.plan.nodes.iter();
    let others = others.map(|node| node.host.name.clone());
    for node in others.filter(|node| node != reflector) {
        ground
            .until(
                &format!("{node} to be served by {reflector}"),
                20,
                || async {
                    let seen = sessions(ground, &node)?;
                    match seen.get(&served) {
                        Some((origin, _)) if origin == OBJECT => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                },
            )
            .await;
    }
}

async fn appoint(ground: &Ground) {
    let client = &ground.cluster.client;
    let peers: Api<BGPPeer> = Api::all(client.clone());
    let object = json!({
        "metadata": {"name": OBJECT},
        "spec": {"nodeSelector": "all()", "peerSelector": "route-reflector == 'true'"},
    });
    ground.create(&peers, object).await;
    let nodes: Api<Node> = Api::all(client.clone());
    for reflector in REFLECTORS {
        let change = json!({"metadata": {
            "labels": {"route-reflector": "true"},
            "annotations": {"margay.dev/route-reflector-cluster-id": "244.0.0.1"},
        }});
        ground.patch(&nodes, reflector, change).await;
        until_served(ground, reflector).await;
    }
}

async fn set_mesh(ground: &Ground, enabled: bool) {
    let settings: Api<BGPConfiguration> = Api::all(ground.cluster.client.clone());
    let change: Value = json!({"spec": {"nodeToNodeMeshEnabled": enabled}});
    ground.patch(&settings, DEFAULT_NAME, change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_mesh_to_reflectors_without_a_loss() {
    if !runnable("from_the_mesh_to_reflectors_without_a_loss") {
        return;
    }
    let ground = Ground::prepare("t-reflect", 4, 2, Tor::Bird, 6).await;
    let node2 = ground.namespace("node2");
    let routes = routes_of(&node2);
    let before = sessions(&ground, "node2").unwrap();
    assert_eq!(before.len(), 4, "{before:?}");
    let running = flows(&ground);
    flow::advance_all(&ground, &running, SECOND).await;
    // Not the routers: a reflector gives them the nodes' routes, too, and they may like its better.
    let watches: Vec<RouteWatch> = CLIENTS
        .iter()
        .map(|machine| RouteWatch::start(&ground, machine))
        .collect();

    appoint(&ground).await;
    set_mesh(&ground, false).await;
    for client in CLIENTS {
        // Two reflectors and the ToR.
        ground.until_sessions(client, 3).await;
    }
    for reflector in REFLECTORS {
        // All other nodes and the ToR.
        ground.until_sessions(reflector, 4).await;
    }
    flow::advance_all(&ground, &running, 2 * SECOND).await;

    let after = sessions(&ground, "node2").unwrap();
    let stayed = [address(&ground, "node1"), address(&ground, "node3")];
    for peer in stayed {
        assert_eq!(
            after[&peer].1, before[&peer].1,
            "{peer} went down: {after:?}"
        );
    }
    assert!(!after.contains_key(&address(&ground, "node4")), "{after:?}");
    assert_eq!(routes_of(&node2), routes);
    // Node 2 has node 4's block from the reflectors alone now.
    let block = ground.blocks_of("node4").await.remove(0);
    let rib = ground.ask_agent("node2", "rib").unwrap().to_string();
    assert!(rib.contains(&block), "{rib}");
    for watch in &watches {
        let moved = watch.seen("10.244.");
        assert!(moved.is_empty(), "routes moved: {moved:#?}");
    }

    // And back again.
    set_mesh(&ground, true).await;
    ground.until_sessions("node2", 4).await;
    ground.until_sessions("node4", 4).await;
    flow::advance_all(&ground, &running, SECOND).await;
    eprintln!("  {} echoes, none lost", flow::all_came_back(running));
}
