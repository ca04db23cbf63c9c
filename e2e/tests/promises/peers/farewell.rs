//! The planned end of a node as a ToR that runs GoBGP sees it: GRACEFUL_SHUTDOWN, then a withdrawal, then the end of the session
//! with the message. (BIRD at every ToR: [`crate::drain`].)

use std::process::{Command, Stdio};

use margay_e2e::lab::Tor;
use serde_json::json;

use super::router::Router;
use super::{route, session, until_up, write_peer};
use crate::ground::{Ground, runnable};

const NODE: &str = "node1";
const NODE_ADDRESS: &str = "10.10.1.11";
const TOR: &str = "10.10.1.201";
const TOR_AS: u32 = 65001;
/// Within the pool's space.
const ANNOUNCED: &str = "10.244.201.0/24";
/// GRACEFUL_SHUTDOWN (RFC 8326) as GoBGP writes it.
const WARNING: &str = "planned-shut";
const MESSAGE: &str = "new disks on Tuesday";

fn gobgp() -> String {
    format!(
        "[global.config]\n  as = {TOR_AS}\n  router-id = \"{TOR}\"\n\
         [[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{NODE_ADDRESS}\"\n    peer-as = 64512\n  \
         [neighbors.timers.config]\n    connect-retry = 1\n    idle-hold-time-after-reset = 1\n"
    )
}

/// What the ToR has of a prefix.
fn at_the_tor(tor: &Router, prefix: &str) -> String {
    // A prefix without a route is an error to it.
    let seen = tor.gobgp(&["global", "rib", prefix]);
    seen.unwrap_or_else(|error| error)
}

async fn until_at(ground: &Ground, tor: &Router, prefix: &str, good: impl Fn(&str) -> bool) {
    ground
        .until(&format!("{prefix} at the ToR"), 20, || async {
            let seen = at_the_tor(tor, prefix);
            good(&seen).then_some(()).ok_or(seen)
        })
        .await;
}

fn margayctl(ground: &Ground, arguments: &[&str]) -> Command {
    let mut command = Command::new(&ground.binaries.margayctl);
    let kubeconfig = ground.lab.ledger.folder.kubeconfig();
    command.args(arguments).arg("--kubeconfig").arg(kubeconfig);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn netns_a_gobgp_tor_is_told_of_the_end_of_a_node() {
    if !runnable("netns_a_gobgp_tor_is_told_of_the_end_of_a_node") {
        return;
    }
    let mut ground = Ground::prepare("t-farewell", 2, 1, Tor::None, 2).await;
    let block = ground.blocks_of(NODE).await.remove(0);
    let tor = Router::on_segment(&mut ground, "tor-g", &["10.10.1.201/24"]);
    tor.start_gobgp(&mut ground, &gobgp());
    tor.gobgp(&["global", "rib", "add", ANNOUNCED]).unwrap();
    let spec = json!({"node": NODE, "peerIP": TOR, "asNumber": TOR_AS, "connectRetryTime": 1});
    write_peer(&ground, "tor-g", spec).await;
    let since = until_up(&ground, NODE, TOR).await;
    until_at(&ground, &tor, &block, |seen| {
        seen.contains(NODE_ADDRESS) && !seen.contains(WARNING)
    })
    .await;

    let arguments = ["node", "drain", NODE, "--wait", "6", "--force"];
    let mut drain = margayctl(&ground, &arguments);
    let asked = drain.args(["--message", MESSAGE]).spawn().unwrap();
    // It is warned, on the session there is.
    until_at(&ground, &tor, &block, |seen| {
        seen.contains(NODE_ADDRESS) && seen.contains(WARNING)
    })
    .await;
    assert_eq!(
        session(&ground, NODE, TOR).unwrap()["since"],
        since.as_str()
    );
    assert!(!ground.log_of("gobgpd tor-g").contains(MESSAGE));
    // Then the block goes, then the session, with the message.
    until_at(&ground, &tor, &block, |seen| !seen.contains(NODE_ADDRESS)).await;
    let output = tokio::task::spawn_blocking(move || asked.wait_with_output());
    let output = output.await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let stages: Vec<&str> = told.lines().collect();
    assert_eq!(
        stages,
        ["node1: Leaving", "node1: Withdrawn", "node1: Drained"]
    );
    ground
        .until("the message at the ToR", 10, || async {
            let log = ground.log_of("gobgpd tor-g");
            log.contains(MESSAGE).then_some(()).ok_or(log)
        })
        .await;
    let seen = session(&ground, NODE, TOR).unwrap();
    assert_ne!(seen["state"], "Established", "{seen}");
    assert_eq!(route(&ground, NODE, ANNOUNCED), "");

    // It can come back.
    let status = margayctl(&ground, &["node", "undrain", NODE]).status();
    assert!(status.unwrap().success());
    until_up(&ground, NODE, TOR).await;
    until_at(&ground, &tor, &block, |seen| {
        seen.contains(NODE_ADDRESS) && !seen.contains(WARNING)
    })
    .await;
}
