//! Pods over a fabric without addresses: two leaves, FRR and BIRD, each at the end of a link to
//! every node. Sessions are found by router advertisements, IPv4 goes by IPv6 next hops (RFC
//! 8950), and both leaves share the load.
//!
//! The leaves are in one AS and the nodes in another, as where every rack has the same numbers: one
//! leaf overrides the nodes' AS, of the other the nodes allow their own.

use kube::api::Api;
use margay_crds::{BGPConfiguration, DEFAULT_NAME};
use margay_e2e::lab::Tor;
use margay_e2e::lab::command::run;
use serde_json::{Value, json};

use super::router::{Router, ip};
use super::{route, status, write_peer};
use crate::flow::{self, Flow, SECOND};
use crate::ground::{Ground, runnable};

const LEAF_AS: u32 = 65100;
const NODES: [&str; 2] = ["node1", "node2"];
const LEAVES: [&str; 2] = ["leaf1", "leaf2"];

/// FRR, which writes its own AS over the nodes'.
fn frr() -> String {
    let neighbors: String = NODES
        .iter()
        .map(|node| {
            format!(
                " neighbor {node} interface remote-as external\n \
                  neighbor {node} timers connect 1\n \
                  neighbor {node} advertisement-interval 0\n"
            )
        })
        .collect();
    let overrides: String = NODES
        .iter()
        .map(|node| format!("  neighbor {node} as-override\n"))
        .collect();
    format!(
        "router bgp {LEAF_AS}\n bgp router-id 10.99.0.1\n no bgp ebgp-requires-policy\n{neighbors} \
         address-family ipv4 unicast\n{overrides} exit-address-family\nexit\n"
    )
}

/// BIRD, which gives the nodes' AS on as it is. It waits for the nodes to dial.
fn bird() -> String {
    let mut text = "router id 10.99.0.2;\n\
         protocol kernel { merge paths yes; ipv4 { import none; export all; }; }\n\
         protocol radv { interface \"node*\" { min ra interval 3; max ra interval 4; }; }\n"
        .to_owned();
    for node in NODES {
        text.push_str(&format!(
            "protocol bgp {{\n  local as {LEAF_AS};\n  \
               neighbor range fe80::/10 external;\n  interface \"{node}\";\n  dynamic name \"{node}_\";\n  \
               ipv4 {{ import all; export all; extended next hop on; next hop self; }};\n}}\n"
        ));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn netns_pods_over_links_without_addresses() {
    if !runnable("netns_pods_over_links_without_addresses") {
        return;
    }
    let mut ground = Ground::prepare("t-links", 2, 1, Tor::None, 2).await;
    let leaves = build(&mut ground);
    let settings: Api<BGPConfiguration> = Api::all(ground.cluster.client.clone());
    let change = json!({"spec": {"nodeToNodeMeshEnabled": false}});
    ground.patch(&settings, DEFAULT_NAME, change).await;
    for leaf in LEAVES {
        // The first leaf alone needs no leave: it overrides.
        let allowed = usize::from(leaf == "leaf2");
        let spec = json!({"interface": leaf, "asNumber": "external", "connectRetryTime": 1,
            "numAllowedLocalASNumbers": allowed});
        write_peer(&ground, leaf, spec).await;
    }
    for (node, other) in [("node1", "node2"), ("node2", "node1")] {
        let block = ground.blocks_of(other).await.remove(0);
        until_ways(&ground, node, &block, &LEAVES).await;
    }
    for leaf in LEAVES {
        told(&ground, leaf).await;
    }
    traffic(&ground, &leaves).await;
}

fn build(ground: &mut Ground) -> Vec<Router> {
    let leaves: Vec<Router> = LEAVES
        .iter()
        .map(|leaf| {
            let router = Router::make(ground, leaf);
            for node in NODES {
                router.link(ground, node, node, leaf);
            }
            router
        })
        .collect();
    leaves[0].start_frr(ground, &frr());
    leaves[1].start_bird(ground, &bird());
    leaves
}

/// Waits until a node's route to a block has a link-local next hop on each of these interfaces,
/// and no other.
async fn until_ways(ground: &Ground, node: &str, block: &str, interfaces: &[&str]) {
    let what = format!("{node} to have {block} over {interfaces:?}");
    ground
        .until(&what, 40, || async {
            let seen = route(ground, node, block);
            let all = interfaces
                .iter()
                .all(|one| seen.contains(&format!("dev {one}")));
            let good = all
                && seen.matches("via inet6 fe80::").count() == interfaces.len()
                && seen.matches("via").count() == interfaces.len();
            let agent = ground.ask_agent(node, "bgp")?;
            good.then_some(()).ok_or(format!("{seen}{agent}"))
        })
        .await;
}

/// The BGPPeer tells both nodes' sessions.
async fn told(ground: &Ground, leaf: &str) {
    ground
        .until(&format!("the status of {leaf}"), 20, || async {
            let seen = status(ground, leaf).await;
            let up = |node: &&str| {
                seen.sessions.iter().any(|one| {
                    one.node == **node
                        && one.address.starts_with("fe80::")
                        && one.state == "Established"
                        && one.as_number == LEAF_AS
                })
            };
            let good = NODES.iter().filter(|node| up(node)).count() == 2 && seen.nodes == 2;
            good.then_some(()).ok_or(format!("{seen:?}"))
        })
        .await;
}

fn carried(router: &Router) -> u64 {
    let arguments = ["-n", &router.namespace, "-j", "-s", "link", "show"];
    let shown: Value = serde_json::from_str(&run("ip", &arguments).unwrap()).unwrap();
    let links = shown.as_array().unwrap().iter();
    let links = links.filter(|link| NODES.iter().any(|node| link["ifname"] == *node));
    links
        .map(|link| link["stats64"]["rx"]["packets"].as_u64().unwrap())
        .sum()
}

/// Many flows take both leaves; with one of them gone they take the other, and come back.
async fn traffic(ground: &Ground, leaves: &[Router]) {
    let (from, to) = (ground.pod("web-1"), ground.pod("web-2"));
    let flow = Flow::start(ground, "over links", &from.sandbox.namespace, to.address);
    let back = Flow::start(ground, "back", &to.sandbox.namespace, from.address);
    let running = vec![flow, back];
    let before: Vec<u64> = leaves.iter().map(carried).collect();
    flow::advance_all(ground, &running, SECOND).await;
    let after: Vec<u64> = leaves.iter().map(carried).collect();
    let moved: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
    // Two flows, there and back, 50 a second each.
    assert!(moved >= 4 * 50, "the leaves carried {moved} packets");
    flow::all_came_back(running);

    let block = ground.blocks_of("node2").await.remove(0);
    let node = ground.namespace("node1");
    for (cut, left) in [("leaf1", "leaf2"), ("leaf2", "leaf1")] {
        ip(&format!("-n {node} link set {cut} down"));
        until_ways(ground, "node1", &block, &[left]).await;
        // What comes back from node 2 may still take the leaf that has lost its link, until that says so.
        let home = ground.blocks_of("node1").await.remove(0);
        until_ways(ground, "node2", &home, &[left]).await;
        assert!(ground.reaches(&from.sandbox.namespace, to.address));
        if cut == "leaf2" {
            // BIRD 2.0 takes no session from a range on a link that has been down.
            break;
        }
        ip(&format!("-n {node} link set {cut} up"));
        until_ways(ground, "node1", &block, &LEAVES).await;
        until_ways(ground, "node2", &home, &LEAVES).await;
    }
}
