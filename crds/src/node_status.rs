//! NodeStatus: what one node's agent is doing, kept current by the agent itself.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;

/// Nothing is asked for: the agent writes the status, named after its node.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "NodeStatus",
    plural = "nodestatuses",
    shortname = "nst",
    category = "margay",
    status = "NodeStatusStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "AS", type_ = "integer", json_path = ".status.bgp.asNumber"),
    printcolumn(name = "Up", type_ = "integer", json_path = ".status.bgp.established"),
    printcolumn(
        name = "Down",
        type_ = "integer",
        json_path = ".status.bgp.notEstablished"
    ),
    printcolumn(name = "Blocks", type_ = "integer", json_path = ".status.blockCount"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.podCount"),
    printcolumn(name = "Drain", type_ = "string", json_path = ".status.drain"),
    printcolumn(name = "Tunnel", type_ = "string", json_path = ".status.tunnel"),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatusSpec {}

/// What the agent sees and does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatusStatus {
    /// The agent's version.
    #[serde(default)]
    pub version: String,
    /// The tunnel devices in use: `none`, `ipip`, `vxlan` or both.
    #[serde(default)]
    pub tunnel: String,
    /// How many blocks the node holds.
    #[serde(default)]
    pub block_count: u32,
    /// How many pods the agent has wired.
    #[serde(default)]
    pub pod_count: u32,
    /// The speaker and its sessions.
    #[serde(default)]
    pub bgp: BgpStatus,
    /// How far the node's drain has come: `Leaving`, `Withdrawn` or `Drained`; empty without one.
    #[serde(default)]
    pub drain: String,
    /// The routes the agent keeps in the kernel.
    #[serde(default)]
    pub routes: RouteCounts,
    /// `Ready`: whether the node's network is in order, and if not, what is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The speaker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpStatus {
    /// The node's AS.
    #[serde(default)]
    pub as_number: u32,
    /// The node's BGP identifier.
    #[serde(default, rename = "routerID")]
    pub router_id: String,
    /// Sessions up.
    #[serde(default)]
    pub established: u32,
    /// Sessions that should be up and are not.
    #[serde(default)]
    pub not_established: u32,
    /// Prefixes announced for Services: ranges, and addresses on their own.
    #[serde(default)]
    pub service_prefixes: u32,
    /// The sessions, 128 at most: those that are not established first, those of the mesh last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerStatus>,
    /// How many more there are.
    #[serde(default)]
    pub peers_left_out: u32,
}

/// One session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The peer's address.
    pub address: String,
    /// The peer's AS.
    pub as_number: u32,
    /// Where the session comes from: `Mesh`, or the BGPPeer's name.
    pub origin: String,
    /// The state as RFC 4271 names it, such as `Established`.
    pub state: String,
    /// Since when, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The last error in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The peer sends nearly as much as it may, or more, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Prefixes in the Adj-RIB-In.
    #[serde(default)]
    pub prefixes_received: u64,
    /// Prefixes announced to the peer.
    #[serde(default)]
    pub prefixes_sent: u64,
}

/// Routes in the kernel by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteCounts {
    /// To pods of this node.
    #[serde(default)]
    pub local: u32,
    /// The node's own blocks.
    #[serde(default)]
    pub blackhole: u32,
    /// To other nodes' blocks over a shared L2 segment.
    #[serde(default)]
    pub direct: u32,
    /// To other nodes' blocks through a tunnel.
    #[serde(default)]
    pub tunnelled: u32,
}
