//! BGPPeer: a session from some or all nodes to a router, such as the top of the rack.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bgp_configuration::{DEFAULT_PORT, check_as_number};
use crate::condition::Condition;
use crate::field::{Errors, FieldError};
use crate::selector::Selector;

/// What people write.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "BGPPeer",
    plural = "bgppeers",
    shortname = "bgpp",
    category = "margay",
    status = "BGPPeerStatus",
    derive = "PartialEq",
    printcolumn(name = "Peer", type_ = "string", json_path = ".spec.peerIP"),
    printcolumn(name = "AS", type_ = "integer", json_path = ".spec.asNumber"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(
        name = "NodeSelector",
        type_ = "string",
        json_path = ".spec.nodeSelector"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.node) && has(self.nodeSelector))")
        .message("node and nodeSelector exclude each other: set one or neither")
)]
pub struct BGPPeerSpec {
    /// The one node that has the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node: Option<String>,

    /// The nodes that have the session: a selector over node labels. Neither this nor `node`
    /// means all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub node_selector: Option<String>,

    /// The router: an address, or an address with a port (`192.0.2.1:1790`, `[2001:db8::1]:1790`).
    #[serde(rename = "peerIP")]
    #[schemars(length(min = 2, max = 56))]
    pub peer_ip: String,

    /// The router's AS, 1 to 4294967295.
    #[schemars(range(min = 1))]
    pub as_number: u32,

    /// Seconds without a message after which the session is given up: 0 (never) or 3 to 65535.
    /// The smaller of both sides' values holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<u16>,

    /// Seconds between KEEPALIVEs; a third of the hold time if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keepalive_time: Option<u16>,
}

/// What Margay found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BGPPeerStatus {
    /// `Accepted`: whether the peer is in use, and if not, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Which nodes have a session.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerNodes {
    /// The node of this name.
    Named(String),
    /// Nodes whose labels match.
    Matching(Selector),
}

/// A peer that passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// The object's name.
    pub name: String,
    /// Which nodes have the session.
    pub nodes: PeerNodes,
    /// Where the router is reached.
    pub address: SocketAddr,
    /// The router's AS.
    pub as_number: u32,
    /// The hold time proposed; zero means that the session never times out.
    pub hold_time: Option<Duration>,
    /// The time between KEEPALIVEs, if not a third of the hold time.
    pub keepalive_time: Option<Duration>,
}

impl BGPPeer {
    /// The typed peer, or every field that is wrong.
    pub fn check(&self) -> Result<Peer, Vec<FieldError>> {
        let spec = &self.spec;
        let mut errors = Errors::default();
        let nodes = errors.keep(self.check_nodes());
        let address = errors.keep(check_peer_ip(&spec.peer_ip));
        let as_number = errors.keep(check_as_number("spec.asNumber", spec.as_number));
        if let Some(hold_time @ 1..=2) = spec.hold_time {
            errors.push(FieldError::invalid(
                "spec.holdTime",
                hold_time,
                "must be 0 or at least 3 seconds (RFC 4271 section 4.2)",
            ));
        }
        if let (Some(hold), Some(keepalive)) = (spec.hold_time, spec.keepalive_time)
            && hold != 0
            && keepalive >= hold
        {
            errors.push(FieldError::invalid(
                "spec.keepaliveTime",
                keepalive,
                format!("must be shorter than the hold time of {hold} seconds"),
            ));
        }
        if spec.keepalive_time == Some(0) {
            errors.push(FieldError::invalid(
                "spec.keepaliveTime",
                0,
                "must be at least 1 second",
            ));
        }
        let peer = match (nodes, address, as_number) {
            (Some(nodes), Some(address), Some(as_number)) => Some(Peer {
                name: self.metadata.name.clone().unwrap_or_default(),
                nodes,
                address,
                as_number,
                hold_time: spec
                    .hold_time
                    .map(|seconds| Duration::from_secs(seconds.into())),
                keepalive_time: spec
                    .keepalive_time
                    .map(|seconds| Duration::from_secs(seconds.into())),
            }),
            _ => None,
        };
        errors.finish(peer)
    }

    fn check_nodes(&self) -> Result<PeerNodes, FieldError> {
        match (&self.spec.node, &self.spec.node_selector) {
            (Some(_), Some(selector)) => Err(FieldError::forbidden(
                "spec.nodeSelector",
                selector,
                "node and nodeSelector exclude each other: set one or neither",
            )),
            (Some(node), None) => Ok(PeerNodes::Named(node.clone())),
            (None, Some(selector)) => {
                Selector::parse_field("spec.nodeSelector", selector).map(PeerNodes::Matching)
            }
            (None, None) => Ok(PeerNodes::Matching(Selector::all())),
        }
    }
}

fn check_peer_ip(text: &str) -> Result<SocketAddr, FieldError> {
    let address = match text.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, DEFAULT_PORT),
        Err(_) => text.parse().map_err(|_| {
            FieldError::invalid(
                "spec.peerIP",
                text,
                "must be an address, or address:port with an IPv6 address in brackets",
            )
        })?,
    };
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
        return Err(FieldError::invalid(
            "spec.peerIP",
            text,
            "must be the unicast address of a router, with a port of 1 to 65535",
        ));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(json: serde_json::Value) -> BGPPeer {
        BGPPeer::new("tor", serde_json::from_value(json).unwrap())
    }

    #[test]
    fn addresses_with_and_without_port() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:179"),
            ("192.0.2.1:1790", "192.0.2.1:1790"),
            ("2001:db8::1", "[2001:db8::1]:179"),
            ("[2001:db8::1]:1790", "[2001:db8::1]:1790"),
        ] {
            let checked = peer(serde_json::json!({"peerIP": text, "asNumber": 65001})).check();
            assert_eq!(checked.unwrap().address.to_string(), expected);
        }
    }

    #[test]
    fn wrong_fields_are_named() {
        let cases = [
            (
                serde_json::json!({"peerIP": "tor", "asNumber": 1}),
                "spec.peerIP",
            ),
            (
                serde_json::json!({"peerIP": "0.0.0.0", "asNumber": 1}),
                "spec.peerIP",
            ),
            (
                serde_json::json!({"peerIP": "192.0.2.1", "asNumber": 23456}),
                "AS_TRANS",
            ),
            (
                serde_json::json!({"peerIP": "192.0.2.1", "asNumber": 0}),
                "spec.asNumber",
            ),
            (
                serde_json::json!({"peerIP": "192.0.2.1", "asNumber": 1, "holdTime": 2}),
                "spec.holdTime",
            ),
            (
                serde_json::json!({"peerIP": "192.0.2.1", "asNumber": 1, "holdTime": 9, "keepaliveTime": 9}),
                "spec.keepaliveTime",
            ),
            (
                serde_json::json!({"peerIP": "192.0.2.1", "asNumber": 1, "node": "a", "nodeSelector": "all()"}),
                "exclude each other",
            ),
        ];
        for (spec, expected) in cases {
            let text = crate::field::join(&peer(spec.clone()).check().unwrap_err());
            assert!(text.contains(expected), "{spec}: {text}");
        }
    }
}
