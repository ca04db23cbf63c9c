//! Fields that Calico's objects lack or mean something in, seen at the end of BIRD: routes kept long after a restart, keys of
//! TCP-AO, and a priority that is a preference for routers in the same AS.

use kube::api::Api;
use margay_crds::{BGPConfiguration, BGPFilter, BGPPeer, DEFAULT_NAME};
use margay_e2e::lab::cluster::agent_name;
use margay_e2e::lab::{Tor, process};
use serde_json::json;

use super::router::Router;
use super::{condition, delete_peer, session, until_up, write_peer, write_secret};
use crate::ground::{Ground, runnable};

const ROUTER: &str = "10.10.1.201";
const NODE1: &str = "10.10.1.11";
const NODE2: &str = "10.10.1.12";
/// As `birdc` writes LLGR_STALE (RFC 9494).
const STALE: &str = "(65535,6)";

/// In another AS than node 1, and in that of node 2.
fn bird() -> String {
    let common = "connect delay time 1;\n  connect retry time 2;\n  error wait time 1, 2;\n  \
                  graceful restart on;\n  long lived graceful restart on;\n  long lived stale time 300;\n  \
                  ipv4 { import all; export none; };";
    format!(
        "router id {ROUTER};\n\
         protocol bgp to_node1 {{\n  local {ROUTER} as 65001;\n  neighbor {NODE1} as 64512;\n  {common}\n}}\n\
         protocol bgp to_node2 {{\n  local {ROUTER} as 64512;\n  neighbor {NODE2} as 64512;\n  {common}\n}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn netns_fields_of_a_peer_at_birds_end() {
    if !runnable("netns_fields_of_a_peer_at_birds_end") {
        return;
    }
    let mut ground = Ground::prepare("t-fields", 2, 1, Tor::None, 2).await;
    let router = Router::on_segment(&mut ground, "keeper", &["10.10.1.201/24"]);
    router.start_bird(&mut ground, &bird());
    let spec = json!({"node": "node1", "peerIP": ROUTER, "asNumber": 65001, "connectRetryTime": 1,
        "maxRestartTime": 2, "longLivedRestartTime": "10m", "sendHoldTime": 240});
    write_peer(&ground, "keeper", spec).await;
    kept_beyond_the_restart(&mut ground, &router).await;
    the_settings_hold_where_the_peer_says_nothing(&ground, &router).await;
    a_priority_is_a_preference(&ground, &router).await;
    keys(&ground).await;
}

/// Waits until what BIRD says of something is `good`.
async fn until_bird(
    ground: &Ground,
    router: &Router,
    question: &[&str],
    good: impl Fn(&str) -> bool,
) {
    let what = format!("birdc {}", question.join(" "));
    ground
        .until(&what, 30, || async {
            // Without a route it is an error to it.
            let seen = router.birdc(question).unwrap_or_else(|error| error);
            good(&seen).then_some(()).ok_or(seen)
        })
        .await;
}

const PROTOCOL: [&str; 4] = ["show", "protocols", "all", "to_node1"];

/// The agent stays away longer than `maxRestartTime`: its routes are the last resort, and are themselves again when it is back.
async fn kept_beyond_the_restart(ground: &mut Ground, router: &Router) {
    until_up(ground, "node1", ROUTER).await;
    let block = ground.blocks_of("node1").await.remove(0);
    let route = ["show", "route", "all", &block, "protocol", "to_node1"];
    until_bird(ground, router, &PROTOCOL, |seen| {
        seen.contains("LL stale time: 600")
    })
    .await;
    until_bird(ground, router, &route, |seen| {
        seen.contains(NODE1) && !seen.contains(STALE)
    })
    .await;
    process::kill(&ground.process(&agent_name("node1")));
    until_bird(ground, router, &route, |seen| {
        seen.contains(NODE1) && seen.contains(STALE)
    })
    .await;
    ground.start_agent("node1").await;
    until_up(ground, "node1", ROUTER).await;
    until_bird(ground, router, &route, |seen| {
        seen.contains(NODE1) && !seen.contains(STALE)
    })
    .await;
}

async fn the_settings_hold_where_the_peer_says_nothing(ground: &Ground, router: &Router) {
    let settings: Api<BGPConfiguration> = Api::all(ground.cluster.client.clone());
    let change = json!({"spec": {"longLivedRestartTime": 900}});
    ground.patch(&settings, DEFAULT_NAME, change).await;
    let peers: Api<BGPPeer> = Api::all(ground.cluster.client.clone());
    let change = json!({"spec": {"longLivedRestartTime": null}});
    ground.patch(&peers, "keeper", change).await;
    until_bird(ground, router, &PROTOCOL, |seen| {
        seen.contains("LL stale time: 900") && seen.contains("Established")
    })
    .await;
    // None on this session, whatever the others have: what the router says of itself is all there is.
    let change = json!({"spec": {"longLivedRestartTime": 0}});
    ground.patch(&peers, "keeper", change).await;
    until_bird(ground, router, &PROTOCOL, |seen| {
        !seen.contains("LL stale time: 900") && seen.contains("Established")
    })
    .await;
}

async fn a_priority_is_a_preference(ground: &Ground, router: &Router) {
    let filters: Api<BGPFilter> = Api::all(ground.cluster.client.clone());
    let rule = |priority: u32| {
        json!({"spec": {"exportV4": [{"action": "Accept",
            "operations": [{"setPriority": {"value": priority}}]}]}})
    };
    let mut object = rule(512);
    object["metadata"] = json!({"name": "sooner"});
    ground.create(&filters, object).await;
    let spec = json!({"node": "node2", "peerIP": ROUTER, "asNumber": 64512, "connectRetryTime": 1,
        "filters": ["sooner"]});
    write_peer(ground, "inside", spec).await;
    let change = json!({"spec": {"filters": ["sooner"]}});
    let peers: Api<BGPPeer> = Api::all(ground.cluster.client.clone());
    ground.patch(&peers, "keeper", change).await;
    let since = until_up(ground, "node2", ROUTER).await;
    let blocks = [
        ground.blocks_of("node1").await.remove(0),
        ground.blocks_of("node2").await.remove(0),
    ];
    let inside = ["show", "route", "all", &blocks[1], "protocol", "to_node2"];
    let outside = ["show", "route", "all", &blocks[0], "protocol", "to_node1"];
    for (priority, preference) in [(512, 612), (1024, 100), (1100, 24), (5000, 0)] {
        ground.patch(&filters, "sooner", rule(priority)).await;
        let wanted = format!("BGP.local_pref: {preference}\n");
        until_bird(ground, router, &inside, |seen| seen.contains(&wanted)).await;
        // BIRD's own for a router in another AS, which is told of none.
        until_bird(ground, router, &outside, |seen| {
            seen.contains("BGP.local_pref: 100\n")
        })
        .await;
    }
    assert_eq!(until_up(ground, "node2", ROUTER).await, since);
    delete_peer(ground, "inside").await;
}

/// TCP-AO between two nodes where the kernel has it; where it has none, no session and a condition that says so.
async fn keys(ground: &Ground) {
    let settings: Api<BGPConfiguration> = Api::all(ground.cluster.client.clone());
    let change = json!({"spec": {"nodeToNodeMeshEnabled": false}});
    ground.patch(&settings, DEFAULT_NAME, change).await;
    // The objects come by watches of their own: the mesh could end after the BGPPeers are seen.
    for (node, address) in [("node1", NODE2), ("node2", NODE1)] {
        let end = format!("the mesh of {node} to end");
        ground
            .until(&end, 30, || async {
                match session(ground, node, address) {
                    Err(words) if words.contains("has no session") => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
    }
    let reference = json!({"name": "chain", "key": "password"});
    for (name, node, address) in [("first", "node1", NODE2), ("second", "node2", NODE1)] {
        let keys = json!([{"sendId": 7, "recvId": 7, "algorithm": "hmac-sha256", "secretKeyRef": reference}]);
        let spec = json!({"node": node, "peerIP": address, "asNumber": 64512, "connectRetryTime": 1,
            "tcpAo": {"keys": keys}});
        write_peer(ground, name, spec).await;
    }
    ground
        .until("the BGPPeer to say what it waits for", 10, || async {
            match condition(ground, "first", "ResolvedRefs").await {
                Some((false, words)) if words.contains("there is no Secret chain") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    // As soon as it is there it is down.
    let down = ground
        .until("the peer without its key", 10, || async {
            session(ground, "node1", NODE2)
        })
        .await;
    assert_ne!(down["state"], "Established", "{down}");
    write_secret(ground, "chain", "a master key").await;
    let has_keys = ground
        .until("a session, or a reason", 90, || async {
            let seen = session(ground, "node1", NODE2)?;
            let stands = condition(ground, "first", "ResolvedRefs").await;
            match &stands {
                _ if seen["state"] == "Established" => Ok(true),
                Some((false, words)) if words.contains("this kernel has no TCP-AO") => Ok(false),
                _ => Err(format!("{stands:?} {seen}")),
            }
        })
        .await;
    if has_keys {
        println!("  TCP-AO: the session is established");
        return;
    }
    println!("  TCP-AO: this kernel has none, and the BGPPeer says so");
    let seen = session(ground, "node1", NODE2).unwrap();
    assert_ne!(seen["state"], "Established", "{seen}");
    let reason = seen["lastError"].to_string();
    assert!(
        reason.contains("TCP-AO") && !reason.contains("master key"),
        "{seen}"
    );
}
