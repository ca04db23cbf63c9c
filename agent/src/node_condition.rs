//! The Node's condition `NetworkUnavailable`, by which Kubernetes keeps pods from a node that has
//! no network yet: while it is true, the node has the taint
//! `node.kubernetes.io/network-unavailable`.
//!
//! A node without the condition is new: it gets it, true, until everything is in order for the
//! first time. From then on it stays false, whatever happens to the agent: an upgrade or a restart
//! takes nothing away from pods, and a taint would keep them from a node that works. What a cloud
//! set to true before is set to false like our own.
//!
//! Not here: taking it away on uninstall ([`crate::cluster`]).

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::status::node::rfc3339;

/// The condition's type, one that Kubernetes knows.
pub const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";
/// The reasons that Margay gives, by which it knows its own condition again.
pub const REASONS: [&str; 2] = ["MargayIsReady", "MargayIsNotReadyYet"];

/// How long one write may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failure the next write is tried, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What the condition says of a Node: `None` where it has none.
pub fn standing(node: &Node) -> Option<bool> {
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    let found = conditions
        .flatten()
        .find(|one| one.type_ == NETWORK_UNAVAILABLE);
    // Unknown keeps pods away, too.
    found.map(|found| found.status != "False")
}

/// What should be written, if anything: whether the network is unavailable.
pub fn wanted(standing: Option<bool>, is_ready: bool) -> Option<bool> {
    match (standing, is_ready) {
        (None, false) => Some(true),
        (None | Some(true), true) => Some(false),
        (Some(false), _) | (Some(true), false) => None,
    }
}

/// Starts the task that writes what is sent, until it stands there.
pub fn start(client: Client, node: String) -> watch::Sender<Option<bool>> {
    let (sender, wishes) = watch::channel(None);
    tokio::spawn(write_all(client, node, wishes));
    sender
}

async fn write_all(client: Client, node: String, mut wishes: watch::Receiver<Option<bool>>) {
    let api: Api<Node> = Api::all(client);
    while wishes.changed().await.is_ok() {
        let mut wait = RETRY.0;
        // What is wished may become another thing, or nothing, while it cannot be written.
        loop {
            let Some(unavailable) = *wishes.borrow_and_update() else {
                break;
            };
            match write(&api, &node, unavailable).await {
                Ok(()) => break,
                Err(words) if wait == RETRY.0 => tracing::warn!(
                    "Node {node}: condition {NETWORK_UNAVAILABLE} cannot be written, trying \
                     again: {words}"
                ),
                Err(_) => {}
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }
}

async fn write(api: &Api<Node>, node: &str, unavailable: bool) -> Result<(), String> {
    let body = Patch::Strategic(patch(unavailable, &rfc3339(Timestamp::now())));
    let parameters = PatchParams::default();
    let write = api.patch_status(node, &parameters, &body);
    match tokio::time::timeout(TIMEOUT, write).await {
        Ok(Ok(_)) => {
            tracing::info!("Node {node}: {NETWORK_UNAVAILABLE} is {unavailable} now");
            Ok(())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

/// Conditions are merged by their type, so that the kubelet's stay as they are.
fn patch(unavailable: bool, now: &str) -> Value {
    let (status, reason, message) = if unavailable {
        let message = "Margay starts on this node for the first time";
        ("True", REASONS[1], message)
    } else {
        ("False", REASONS[0], "Margay gives pods a network here")
    };
    json!({"status": {"conditions": [{
        "type": NETWORK_UNAVAILABLE, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now, "lastHeartbeatTime": now,
    }]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(status: &str) -> Node {
        let condition = json!({"type": "NetworkUnavailable", "status": status});
        let ready = json!({"type": "Ready", "status": "False"});
        serde_json::from_value(
            json!({"metadata": {}, "status": {"conditions": [ready, condition]}}),
        )
        .unwrap()
    }

    #[test]
    fn a_new_node_is_unavailable_until_it_is_ready_and_never_again() {
        assert_eq!(wanted(None, false), Some(true));
        assert_eq!(wanted(Some(true), false), None);
        assert_eq!(wanted(Some(true), true), Some(false));
        assert_eq!(wanted(Some(false), true), None);
        // An upgrade, a restart, an API server that is away.
        assert_eq!(wanted(Some(false), false), None);
        // Ready at once.
        assert_eq!(wanted(None, true), Some(false));
    }

    #[test]
    fn what_stands_on_a_node_is_read() {
        assert_eq!(standing(&Node::default()), None);
        assert_eq!(standing(&node("False")), Some(false));
        assert_eq!(standing(&node("True")), Some(true));
        assert_eq!(standing(&node("Unknown")), Some(true));
    }

    #[test]
    fn it_is_written_with_a_reason_that_is_known_again() {
        for unavailable in [true, false] {
            let patch = patch(unavailable, "t");
            let condition = &patch["status"]["conditions"][0];
            assert!(REASONS.contains(&condition["reason"].as_str().unwrap()));
            assert_eq!(
                condition["status"],
                if unavailable { "True" } else { "False" }
            );
        }
    }
}
