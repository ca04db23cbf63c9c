//! Two GoBGP routers on a segment, as a rack's ToRs: both ways are used at once, and each switch
//! of a BGPPeer does what it says, seen at the router's end.

use margay_e2e::lab::Tor;
use serde_json::{Value, json};

use super::router::Router;
use super::{route, session, status, until_down, until_up, write_peer};
use crate::ground::{Ground, runnable};

const NODE: &str = "node1";
const NODE_ADDRESS: &str = "10.10.1.11";
const NODE_ADDRESS_V6: &str = "fd00:10::11";
/// The routers: name, address and IPv6 address.
const TORS: [(&str, &str, &str); 2] = [
    ("tor-g", "10.10.1.201", "fd00:10::201"),
    ("tor-h", "10.10.1.202", "fd00:10::202"),
];
const TOR_AS: u32 = 65001;
/// What both announce, within the pool's space.
const SHARED: &str = "10.244.201.0/24";
const SHARED_V6: &str = "2001:db8:1::/48";
/// GRACEFUL_SHUTDOWN (RFC 8326) as GoBGP writes it.
const WARNING: &str = "planned-shut";
const MESSAGE: &str = "new optics in row 7";

/// GoBGP for both families, without graceful restart, so that an end is an end.
fn gobgp(address: &str) -> String {
    let families: String = ["ipv4-unicast", "ipv6-unicast"]
        .iter()
        .map(|family| {
            format!(
                "  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"{family}\"\n"
            )
        })
        .collect();
    format!(
        "[global.config]\n  as = {TOR_AS}\n  router-id = \"{address}\"\n\
         [[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{NODE_ADDRESS}\"\n    peer-as = 64512\n  \
         [neighbors.timers.config]\n    connect-retry = 1\n    idle-hold-time-after-reset = 1\n{families}"
    )
}

/// The BGPPeer of a router with these fields beside who it is.
async fn write_tor(ground: &Ground, name: &str, more: Value) {
    let (_, address, _) = TORS.iter().find(|(tor, ..)| *tor == name).unwrap();
    let mut spec = json!({"node": NODE, "peerIP": address, "asNumber": TOR_AS, "connectRetryTime": 1,
        "families": ["ipv4-unicast", "ipv6-unicast"], "importCIDRs": ["2001:db8::/32"]});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    write_peer(ground, name, spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn netns_two_gobgp_tors_and_the_switches_of_a_peer() {
    if !runnable("netns_two_gobgp_tors_and_the_switches_of_a_peer") {
        return;
    }
    let mut ground = Ground::prepare("t-switches", 2, 1, Tor::None, 2).await;
    let block = ground.blocks_of(NODE).await.remove(0);
    let node = ground.namespace(NODE);
    super::router::ip(&format!(
        "-n {node} addr add {NODE_ADDRESS_V6}/64 dev eth0 nodad"
    ));
    let mut tors = Vec::new();
    for (name, address, v6) in TORS {
        let addresses = [format!("{address}/24"), format!("{v6}/64")];
        let addresses = addresses.each_ref().map(String::as_str);
        let tor = Router::on_segment(&mut ground, name, &addresses);
        tor.start_gobgp(&mut ground, &gobgp(address));
        tor.gobgp(&["global", "rib", "add", SHARED]).unwrap();
        // Over a session on IPv4 it would say ::ffff:10.10.1.201.
        let route = [
            "global", "rib", "-a", "ipv6", "add", SHARED_V6, "nexthop", v6,
        ];
        tor.gobgp(&route).unwrap();
        write_tor(&ground, name, json!({})).await;
        tors.push(tor);
    }
    both_ways(&ground, &tors, &block).await;
    a_session_about_to_go(&ground, &tors, &block).await;
    a_session_put_down(&ground, &tors, &block).await;
    too_much(&ground, &tors).await;
    one_family(&ground, &tors).await;
    times_as_written(&ground, &tors).await;
    a_tor_that_dies(&ground, &tors).await;
}

/// Waits until the node's route to what both announce has exactly these next hops.
async fn until_ways(ground: &Ground, wanted: &[&str]) {
    ground
        .until(&format!("{SHARED} by {wanted:?}"), 20, || async {
            let seen = route(ground, NODE, SHARED);
            let all = wanted
                .iter()
                .all(|way| seen.contains(&format!("via {way} ")));
            let good = all && seen.matches("via ").count() == wanted.len();
            let sessions = ground.ask_agent(NODE, "bgp")?;
            good.then_some(()).ok_or(format!("{seen}{sessions}"))
        })
        .await;
}

/// Waits until what a router says of a prefix is `good`.
async fn until_at(ground: &Ground, tor: &Router, prefix: &str, good: impl Fn(&str) -> bool) {
    let what = format!("{} to have {prefix} as it should", tor.machine);
    ground
        .until(&what, 20, || async {
            // A prefix without a route is an error to it.
            let seen = tor.gobgp(&["global", "rib", prefix]);
            let seen = seen.unwrap_or_else(|error| error);
            good(&seen).then_some(()).ok_or(seen)
        })
        .await;
}

/// Both routers' way is used at once, and both have the node's block.
async fn both_ways(ground: &Ground, tors: &[Router], block: &str) {
    until_ways(ground, &[TORS[0].1, TORS[1].1]).await;
    for tor in tors {
        until_at(ground, tor, block, |seen| {
            seen.contains(NODE_ADDRESS) && !seen.contains(WARNING)
        })
        .await;
    }
}

/// `gracefulShutdown`: the router hears that this is the last choice, and so it is for the node;
/// the session stays as it is.
async fn a_session_about_to_go(ground: &Ground, tors: &[Router], block: &str) {
    let since = until_up(ground, NODE, TORS[0].1).await;
    change(ground, TORS[0].0, json!({"gracefulShutdown": true})).await;
    until_at(ground, &tors[0], block, |seen| seen.contains(WARNING)).await;
    until_ways(ground, &[TORS[1].1]).await;
    until_at(ground, &tors[1], block, |seen| !seen.contains(WARNING)).await;
    change(ground, TORS[0].0, json!({"gracefulShutdown": null})).await;
    until_at(ground, &tors[0], block, |seen| !seen.contains(WARNING)).await;
    until_ways(ground, &[TORS[0].1, TORS[1].1]).await;
    assert_eq!(until_up(ground, NODE, TORS[0].1).await, since);
}

/// `adminDown`: the router is told why, has the block no more, and gets no session by dialling.
async fn a_session_put_down(ground: &Ground, tors: &[Router], block: &str) {
    let down = json!({"adminDown": true, "shutdownMessage": MESSAGE});
    change(ground, TORS[0].0, down).await;
    until_down(ground, NODE, TORS[0].1).await;
    until_ways(ground, &[TORS[1].1]).await;
    until_at(ground, &tors[0], block, |seen| !seen.contains(NODE_ADDRESS)).await;
    let log = ground.log_of("gobgpd tor-g");
    assert!(log.contains(MESSAGE), "{log}");
    // It dials each second.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let seen = session(ground, NODE, TORS[0].1).unwrap();
    assert_ne!(seen["state"], "Established", "{seen}");
    change(ground, TORS[0].0, json!({"adminDown": null})).await;
    until_up(ground, NODE, TORS[0].1).await;
    until_ways(ground, &[TORS[0].1, TORS[1].1]).await;
}

/// `maxPrefixes`: one prefix too many is told of, or ends the session until the object changes, or
/// for a while.
async fn too_much(ground: &Ground, tors: &[Router]) {
    let (name, address, _) = TORS[0];
    let extra = "10.244.202.0/24";
    tors[0].gobgp(&["global", "rib", "add", extra]).unwrap();
    let limit =
        |action: &str| json!({"maxPrefixes": {"limit": 1, "action": action, "restartAfter": 2}});
    let since = until_up(ground, NODE, address).await;
    change(ground, name, limit("Warn")).await;
    ground
        .until("the warning", 20, || async {
            let seen = session(ground, NODE, address)?;
            match seen["warning"].is_string() {
                true => Ok(()),
                false => Err(seen.to_string()),
            }
        })
        .await;
    assert_eq!(until_up(ground, NODE, address).await, since);

    change(ground, name, limit("Teardown")).await;
    let ended = until_down(ground, NODE, address).await;
    assert!(ended["lastError"].to_string().contains("prefix"), "{ended}");
    until_ways(ground, &[TORS[1].1]).await;
    ground
        .until("the reason in the BGPPeer", 20, || async {
            let seen = status(ground, name).await;
            let reason = seen.sessions.iter().any(|one| {
                one.state != "Established"
                    && one
                        .last_error
                        .as_deref()
                        .unwrap_or_default()
                        .contains("prefix")
            });
            reason.then_some(()).ok_or(format!("{seen:?}"))
        })
        .await;

    // It comes and goes until the router sends less, without the object being touched.
    change(ground, name, limit("Restart")).await;
    tors[0].gobgp(&["global", "rib", "del", extra]).unwrap();
    until_up(ground, NODE, address).await;
    until_ways(ground, &[TORS[0].1, TORS[1].1]).await;
}

/// `families`: what is not offered is not spoken; a session for both carries both.
async fn one_family(ground: &Ground, tors: &[Router]) {
    let (name, address, v6) = TORS[0];
    let capability = || tors[0].gobgp(&["neighbor", NODE_ADDRESS]).unwrap();
    let both = capability();
    assert!(
        both.contains("ipv6-unicast:\tadvertised and received"),
        "{both}"
    );
    change(
        ground,
        name,
        json!({"maxPrefixes": null, "families": ["ipv4-unicast"]}),
    )
    .await;
    ground
        .until("one family alone", 20, || async {
            let seen = capability();
            let alone = seen.contains("ipv4-unicast:\tadvertised and received")
                && seen.contains("ipv6-unicast:\tadvertised\n");
            alone.then_some(()).ok_or(seen)
        })
        .await;
    until_up(ground, NODE, address).await;
    until_ways(ground, &[TORS[0].1, TORS[1].1]).await;
    let node = ground.namespace(NODE);
    let v6_route = || {
        let arguments = ["-6", "-n", &node, "route", "show", SHARED_V6, "proto", "90"];
        margay_e2e::lab::command::run("ip", &arguments).unwrap()
    };
    ground
        .until("the other router's way alone", 20, || async {
            let seen = v6_route();
            let good = seen.contains(TORS[1].2) && !seen.contains(v6);
            good.then_some(()).ok_or(seen)
        })
        .await;
}

/// `holdTime`: the router has agreed to it.
async fn times_as_written(ground: &Ground, tors: &[Router]) {
    let (name, address, _) = TORS[0];
    change(ground, name, json!({"holdTime": 9, "keepaliveTime": 2})).await;
    ground
        .until("the times of the session", 20, || async {
            let seen = tors[0].gobgp(&["neighbor", NODE_ADDRESS])?;
            let good = seen.contains("Hold time is 9,");
            good.then_some(()).ok_or(seen)
        })
        .await;
    until_up(ground, NODE, address).await;
}

/// A router whose process dies is given up at once and missed by nobody; it comes back.
async fn a_tor_that_dies(ground: &Ground, tors: &[Router]) {
    let record = ground.process("gobgpd tor-h");
    margay_e2e::lab::process::kill(&record);
    until_down(ground, NODE, TORS[1].1).await;
    until_ways(ground, &[TORS[0].1]).await;
    assert!(tors[0].gobgp(&["neighbor"]).is_ok());
}

/// Changes fields of a BGPPeer; null takes one away.
async fn change(ground: &Ground, name: &str, fields: Value) {
    let api: kube::api::Api<margay_crds::BGPPeer> =
        kube::api::Api::all(ground.cluster.client.clone());
    ground.patch(&api, name, json!({"spec": fields})).await;
}
