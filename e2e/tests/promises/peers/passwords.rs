//! Passwords from Secrets: a session with the right one comes up, with a wrong one or none it does
//! not, and a new one takes the place of the old on the running session.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams};
use margay_crds::{BGPConfiguration, BGPPeer, DEFAULT_NAME};
use margay_e2e::lab::Tor;
use margay_e2e::lab::patience::patience;
use serde_json::json;

use super::router::Router;
use super::{
    NAMESPACE, condition, session, status, until_down, until_up, write_peer, write_secret,
};
use crate::ground::{Ground, runnable};

const ROUTER: &str = "10.10.1.201";
const NODE1: &str = "10.10.1.11";
const NODE2: &str = "10.10.1.12";
const PEER: &str = "guarded";
/// What BIRD announces later.
const LATE: &str = "10.244.222.0/24";
/// Longer than BIRD waits between two attempts.
const SOME_ATTEMPTS: u32 = 5;

fn bird(password: &str) -> String {
    format!(
        "router id {ROUTER};\n\
         protocol bgp to_node1 {{\n  \
           local {ROUTER} as 65001;\n  neighbor {NODE1} as 64512;\n  password \"{password}\";\n  \
           connect delay time 1;\n  connect retry time 2;\n  error wait time 1, 2;\n  \
           ipv4 {{ import all; export all; }};\n}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn netns_passwords_come_from_secrets() {
    if !runnable("netns_passwords_come_from_secrets") {
        return;
    }
    let mut ground = Ground::prepare("t-secrets", 2, 1, Tor::None, 0).await;
    let router = Router::on_segment(&mut ground, "guard", &["10.10.1.201/24"]);
    router.start_bird(&mut ground, &bird("first"));
    missing(&ground).await;
    right_and_rotated(&ground, &router).await;
    wrong(&ground, &router).await;
    taken_away(&ground).await;
    the_mesh_is_rotated_without_a_flap(&mut ground).await;
}

/// The session waits for its Secret, and says so.
async fn missing(ground: &Ground) {
    let reference = json!({"secretKeyRef": {"name": "tor", "key": "password"}});
    let spec = json!({"node": "node1", "peerIP": ROUTER, "asNumber": 65001,
        "connectRetryTime": 1, "password": reference});
    write_peer(ground, PEER, spec).await;
    ground
        .until("the BGPPeer to say what it waits for", 10, || async {
            match condition(ground, PEER, "ResolvedRefs").await {
                Some((false, words)) if words.contains("there is no Secret tor") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    tokio::time::sleep(patience(SOME_ATTEMPTS)).await;
    assert_ne!(
        session(ground, "node1", ROUTER).unwrap()["state"],
        "Established"
    );
    let seen = status(ground, PEER).await;
    assert_eq!((seen.nodes, seen.not_established), (1, 1), "{seen:?}");
}

/// With the right one it comes up; a change on both sides ends with a session that has the new one.
async fn right_and_rotated(ground: &Ground, router: &Router) {
    write_secret(ground, "tor", "first").await;
    let first = until_up(ground, "node1", ROUTER).await;
    ground
        .until("the BGPPeer to say that it is up", 15, || async {
            let seen = status(ground, PEER).await;
            let up = seen.sessions.iter().any(|one| {
                one.node == "node1" && one.address == ROUTER && one.state == "Established"
            });
            let resolved = condition(ground, PEER, "ResolvedRefs").await;
            match up && seen.not_established == 0 && resolved.is_some_and(|(is, _)| is) {
                true => Ok(()),
                false => Err(format!("{seen:?}")),
            }
        })
        .await;
    // The session outlives a change of the Secret: what the other side cannot take yet is sent
    // again until it can.
    write_secret(ground, "tor", "second").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen = session(ground, "node1", ROUTER).unwrap();
    assert_eq!(seen["state"], "Established", "{seen}");
    assert_eq!(seen["since"], first, "{seen}");
    let with_a_route = format!(
        "protocol static {{ ipv4; route {LATE} blackhole; }}\n{}",
        bird("second")
    );
    router.reconfigure_bird(&with_a_route);
    ground
        .until("a route by the new password", 30, || async {
            let seen = super::route(ground, "node1", LATE);
            (!seen.is_empty()).then_some(()).ok_or(seen)
        })
        .await;
    let seen = session(ground, "node1", ROUTER).unwrap();
    let kept = if seen["since"] == first {
        "kept"
    } else {
        "ended by BIRD"
    };
    println!("  a password rotated on both sides: the session was {kept}");
}

/// Another password at the other end: no session, whoever dials.
async fn wrong(ground: &Ground, router: &Router) {
    router.reconfigure_bird(&bird("guess"));
    until_down(ground, "node1", ROUTER).await;
    tokio::time::sleep(patience(SOME_ATTEMPTS)).await;
    assert_ne!(
        session(ground, "node1", ROUTER).unwrap()["state"],
        "Established"
    );
    let protocol = router.birdc(&["show", "protocols", "to_node1"]).unwrap();
    assert!(!protocol.contains("Established"), "{protocol}");
    router.reconfigure_bird(&bird("second"));
    until_up(ground, "node1", ROUTER).await;
}

/// A Secret that goes takes the session with it: never without a password.
async fn taken_away(ground: &Ground) {
    let api: Api<Secret> = Api::namespaced(ground.cluster.client.clone(), NAMESPACE);
    api.delete("tor", &DeleteParams::default()).await.unwrap();
    until_down(ground, "node1", ROUTER).await;
    let peers: Api<BGPPeer> = Api::all(ground.cluster.client.clone());
    peers.delete(PEER, &DeleteParams::default()).await.unwrap();
}

/// Both ends are ours: a new key is put on both sockets, and nothing is seen but some segments that
/// are sent again.
async fn the_mesh_is_rotated_without_a_flap(ground: &mut Ground) {
    write_secret(ground, "mesh", "old").await;
    let settings: Api<BGPConfiguration> = Api::all(ground.cluster.client.clone());
    let reference = json!({"secretKeyRef": {"name": "mesh", "key": "password"}});
    let change = json!({"spec": {"nodeMeshPassword": reference}});
    ground.patch(&settings, DEFAULT_NAME, change).await;
    // The sessions that were there without one may end; those that are there then may not.
    tokio::time::sleep(patience(3)).await;
    let before = [
        until_up(ground, "node1", NODE2).await,
        until_up(ground, "node2", NODE1).await,
    ];
    for password in ["new", "newer"] {
        write_secret(ground, "mesh", password).await;
        tokio::time::sleep(patience(1)).await;
    }
    // Something new passes, on the sockets that were there.
    ground.start_pod("late", "web", "node2").await;
    let block = ground.blocks_of("node2").await.remove(0);
    ground
        .until("node2's block in node1", 20, || async {
            let seen = super::route(ground, "node1", &block);
            (!seen.is_empty()).then_some(()).ok_or(seen)
        })
        .await;
    let after = [
        until_up(ground, "node1", NODE2).await,
        until_up(ground, "node2", NODE1).await,
    ];
    assert_eq!(before, after);
}
