//! Where a peer may be and what it may see: whoever connects from a network, a router behind a
//! gateway, another AS for one session. GoBGP and BIRD are the other ends.

use kube::api::Api;
use margay_crds::BGPConfiguration;
use margay_e2e::lab::Tor;
use serde_json::json;

use super::router::Router;
use super::{delete_peer, route, session, status, until_up, write_peer};
use crate::ground::{Ground, runnable};

const BIRD: &str = "10.10.1.201";
const FAR: &str = "192.0.2.1";
const GOBGP: &str = "10.10.1.209";
const NODE1: &str = "10.10.1.11";
/// What the routers announce, within the pool's space.
const FROM_BIRD: &str = "10.244.201.0/24";
const FROM_GOBGP: &str = "10.244.209.0/24";

/// GoBGP in an AS, which dials node 1 as one in `theirs`.
fn gobgp(asn: u32, theirs: u32) -> String {
    format!(
        "[global.config]\n  as = {asn}\n  router-id = \"{GOBGP}\"\n\
         [[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{NODE1}\"\n    peer-as = {theirs}\n  \
         [neighbors.timers.config]\n    connect-retry = 1\n"
    )
}

/// BIRD, which is spoken to at an address behind itself.
fn bird() -> String {
    format!(
        "router id {FAR};\n\
         protocol static {{ ipv4; route {FROM_BIRD} blackhole; }}\n\
         protocol bgp to_node1 {{\n  \
           local {FAR} as 65001;\n  neighbor {NODE1} as 64512;\n  multihop;\n  \
           connect delay time 1;\n  connect retry time 2;\n  error wait time 1, 2;\n  \
           ipv4 {{ import all; export all; next hop address {BIRD}; }};\n}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn netns_peers_in_a_range_behind_a_gateway_and_in_another_as() {
    if !runnable("netns_peers_in_a_range_behind_a_gateway_and_in_another_as") {
        return;
    }
    let mut ground = Ground::prepare("t-places", 2, 1, Tor::None, 2).await;
    let block = ground.blocks_of("node1").await.remove(0);
    let far = Router::on_segment(&mut ground, "far", &["10.10.1.201/24"]);
    far.ip(&format!("addr add {FAR}/32 dev lo"));
    far.start_bird(&mut ground, &bird());
    let dialler = Router::on_segment(&mut ground, "dialler", &["10.10.1.209/24"]);
    a_range(&mut ground, &dialler, &block).await;
    behind_a_gateway(&ground, &far, &block).await;
    another_as(&mut ground, &block).await;
    a_node_has_settings_of_its_own(&ground, &far, &block).await;
}

async fn until_route(ground: &Ground, node: &str, destination: &str, wanted: &str) {
    let what = format!("{node} to have {destination} {wanted}");
    ground
        .until(&what, 20, || async {
            let seen = route(ground, node, destination);
            (seen.contains(wanted) && !seen.is_empty())
                .then_some(())
                .ok_or(seen)
        })
        .await;
}

async fn until_gobgp_has(ground: &Ground, router: &Router, block: &str, path: &str) {
    ground
        .until(&format!("GoBGP to have {block} by {path}"), 20, || async {
            let seen = router.gobgp(&["global", "rib", block])?;
            (seen.contains(block) && seen.contains(path))
                .then_some(())
                .ok_or(seen)
        })
        .await;
}

/// Nobody is dialled; who comes from the network and is in one of the ASes has a session.
async fn a_range(ground: &mut Ground, dialler: &Router, block: &str) {
    let range = json!({"cidr": "10.10.1.208/29", "asNumbers": ["65002-65010"], "limit": 2});
    write_peer(
        ground,
        "range",
        json!({"node": "node1", "peerRange": range}),
    )
    .await;
    dialler.start_gobgp(ground, &gobgp(65002, 64512));
    until_up(ground, "node1", GOBGP).await;
    assert_eq!(session(ground, "node1", GOBGP).unwrap()["origin"], "range");
    dialler
        .gobgp(&["global", "rib", "add", FROM_GOBGP])
        .unwrap();
    until_route(ground, "node1", FROM_GOBGP, GOBGP).await;
    until_gobgp_has(ground, dialler, block, "64512").await;
    ground
        .until("the status of the range", 10, || async {
            let seen = status(ground, "range").await;
            let told = seen
                .sessions
                .iter()
                .any(|one| one.address == GOBGP && one.as_number == 65002);
            told.then_some(()).ok_or(format!("{seen:?}"))
        })
        .await;
    // Another AS is none of those.
    let range = json!({"cidr": "10.10.1.208/29", "asNumbers": [65003]});
    write_peer(
        ground,
        "range",
        json!({"node": "node1", "peerRange": range}),
    )
    .await;
    ground
        .until("GoBGP to be refused", 20, || async {
            let seen = route(ground, "node1", FROM_GOBGP);
            seen.is_empty().then_some(()).ok_or(seen)
        })
        .await;
    delete_peer(ground, "range").await;
}

/// The node has a route to the router's address by the gateway, and a session over it.
async fn behind_a_gateway(ground: &Ground, far: &Router, block: &str) {
    let spec = json!({"node": "node1", "peerIP": FAR, "asNumber": 65001, "connectRetryTime": 1,
        "reachableBy": BIRD});
    write_peer(ground, "far", spec).await;
    until_route(ground, "node1", FAR, BIRD).await;
    until_up(ground, "node1", FAR).await;
    until_route(ground, "node1", FROM_BIRD, BIRD).await;
    ground
        .until("the far router to have the block", 10, || async {
            let seen = far.birdc(&["show", "route", block])?;
            seen.contains(NODE1).then_some(()).ok_or(seen)
        })
        .await;
}

/// One session as if the node were in another AS: that is the AS the router sees, and no other.
async fn another_as(ground: &mut Ground, block: &str) {
    let spec = json!({"node": "node1", "peerIP": "10.10.1.210", "asNumber": 65002,
        "localASNumber": 64999, "connectRetryTime": 1});
    let router = Router::on_segment(ground, "other", &["10.10.1.210/24"]);
    write_peer(ground, "other-as", spec).await;
    router.start_gobgp(ground, &gobgp(65002, 64999).replace(GOBGP, "10.10.1.210"));
    until_up(ground, "node1", "10.10.1.210").await;
    until_gobgp_has(ground, &router, block, "64999").await;
    let seen = router.gobgp(&["global", "rib", block]).unwrap();
    assert!(!seen.contains("64512"), "{seen}");
    delete_peer(ground, "other-as").await;
}

/// `node.node1` has communities of its own for node 1; `default` has them for the others.
async fn a_node_has_settings_of_its_own(ground: &Ground, far: &Router, block: &str) {
    let api: Api<BGPConfiguration> = Api::all(ground.cluster.client.clone());
    let tagged = |community: &str| json!({"prefixAdvertisements": [{"cidr": "10.244.0.0/16", "communities": [community]}]});
    ground
        .patch(&api, "default", json!({"spec": tagged("64512:1")}))
        .await;
    let tags = async |wanted: &str| {
        ground
            .until(&format!("the block with {wanted}"), 10, || async {
                let seen = far.birdc(&["show", "route", block, "all"])?;
                seen.contains(wanted).then_some(()).ok_or(seen)
            })
            .await;
    };
    tags("(64512,1)").await;
    let own = json!({"metadata": {"name": "node.node1"}, "spec": tagged("64512:2")});
    ground.create(&api, own).await;
    tags("(64512,2)").await;
    let seen = far.birdc(&["show", "route", block, "all"]).unwrap();
    assert!(!seen.contains("(64512,1)"), "{seen}");
}
