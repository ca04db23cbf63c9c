//! BGPPeer: sessions from some or all nodes to a router such as the top of the rack, to other
//! nodes (route reflectors), to whatever is found on an interface, or from a whole network.
//!
//! Fields that Calico's BGPPeer has keep its names and meanings.

mod check;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::as_number::AsNumber;
use crate::condition::Condition;
use crate::seconds::Seconds;

pub use check::{AoKey, Bfd, Families, MaxPrefixes, Peer, PeerNodes, Remote};
pub(crate) use check::{LONGEST_LONG_LIVED_TIME, check_tcp_ao};

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
    printcolumn(name = "AS", type_ = "string", json_path = ".spec.asNumber"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(
        name = "NodeSelector",
        type_ = "string",
        json_path = ".spec.nodeSelector"
    ),
    printcolumn(
        name = "PeerSelector",
        type_ = "string",
        json_path = ".spec.peerSelector",
        priority = 1
    ),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "Down", type_ = "integer", json_path = ".status.notEstablished"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].message",
        priority = 1
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
        .message("node and nodeSelector exclude each other: set one or neither"),
    validation = Rule::new("[has(self.peerIP), has(self.peerSelector), has(self.interface), has(self.peerRange)].filter(x, x).size() == 1")
        .message("say who the peer is: exactly one of peerIP, peerSelector, interface and peerRange"),
    validation = Rule::new("!(has(self.peerSelector) && has(self.asNumber))")
        .message("asNumber does not go with peerSelector: each node's own AS counts"),
    validation = Rule::new("!(has(self.peerRange) && has(self.asNumber))")
        .message("asNumber does not go with peerRange: list asNumbers in the range"),
    validation = Rule::new("!(has(self.peerIP) || has(self.interface)) || has(self.asNumber)")
        .message("say which AS the peer is in: asNumber is a number, internal or external"),
    validation = Rule::new("!(has(self.password) && has(self.tcpAo))")
        .message("password (TCP-MD5) and tcpAo exclude each other: set one or neither"),
    validation = Rule::new("!has(self.reachableBy) || has(self.peerIP)")
        .message("reachableBy needs peerIP")
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
    #[serde(default, rename = "peerIP", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 56))]
    pub peer_ip: Option<String>,

    /// The peers are the nodes that this selector over node labels matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub peer_selector: Option<String>,

    /// The peer is the router at the other end of this interface, found by router
    /// advertisements and spoken to at its link-local address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,

    /// The peers are whoever connects from a network. Nobody there is dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_range: Option<PeerRange>,

    /// The peer's AS: a number (64512, or "1.10"), "internal" (the node's own) or "external" (any
    /// other).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,

    /// The AS to present to the peer in place of the node's own.
    #[serde(
        default,
        rename = "localASNumber",
        skip_serializing_if = "Option::is_none"
    )]
    pub local_as_number: Option<AsNumber>,

    /// The password of the connection (TCP-MD5, RFC 2385). While it cannot be had there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,

    /// The keys of the connection (TCP-AO, RFC 5925), which takes Linux 6.7 or newer with CONFIG_TCP_AO. While they cannot be
    /// had there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_ao: Option<TcpAo>,

    /// The source address of the connection.
    #[serde(default)]
    pub source_address: SourceAddress,

    /// How long the peer keeps this node's routes while its agent restarts, in seconds (RFC 4724):
    /// 0 to 4095.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restart_time: Option<Seconds>,

    /// How long the peer keeps this node's routes as a last resort beyond that, in seconds (RFC 9494): 1 to 16777215, and 0
    /// for neither side's routes; absent: as the BGPConfiguration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_lived_restart_time: Option<Seconds>,

    /// Seconds without a message after which the session is given up: 0 (never) or 3 to 65535.
    /// The smaller of both sides' values holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<Seconds>,

    /// Seconds between KEEPALIVEs; a third of the hold time if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<Seconds>,

    /// Seconds the peer may leave unread what it is sent before the session is given up (RFC 9687): longer than the hold time,
    /// at most 86400, or 0 for ever; 8 minutes, or twice the hold time if that is more, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_hold_time: Option<Seconds>,

    /// Seconds between two attempts to connect; 5 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_retry_time: Option<Seconds>,

    /// Which next hop routes to the peer carry.
    #[serde(default)]
    pub next_hop_mode: NextHopMode,

    /// The older word for `nextHopMode: Keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_original_next_hop: Option<bool>,

    /// The most hops the peer may be away; what comes farther is dropped by the kernel (GTSM, RFC 5082).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security: Option<u8>,

    /// The gateway by which the peer is reached: the node gets a route to `peerIP` through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub reachable_by: Option<String>,

    /// How often the node's own AS may be in the AS path of a route from the peer.
    #[serde(
        default,
        rename = "numAllowedLocalASNumbers",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(max = 32))]
    pub num_allowed_local_as_numbers: Option<u8>,

    /// BGPFilters, in order: the first rule that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub filters: Vec<String>,

    /// Whether the nodes that `peerSelector` matches peer back by themselves.
    #[serde(default)]
    pub reverse_peering: ReversePeering,

    /// What is taken from an external peer beside the space of the IPPools.
    #[serde(default, rename = "importCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub import_cidrs: Vec<String>,

    /// How much the peer may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<MaxPrefixesSpec>,

    /// Watch the path with BFD (RFC 5880).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdSpec>,

    /// The address families to offer; absent: that of `peerIP`, between nodes those both have
    /// addresses of, on an interface both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub families: Vec<FamilyName>,

    /// No session until this is taken away again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_down: Option<bool>,

    /// What the peer is told when `adminDown` ends the session (RFC 9003).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub shutdown_message: Option<String>,

    /// The session is about to go for maintenance: routes both ways are marked as the last choice (RFC 8326).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_shutdown: Option<bool>,
}

/// Peers that connect from a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerRange {
    /// The network.
    #[schemars(length(max = 49))]
    pub cidr: String,
    /// The ASes they may be in: numbers, ranges such as 64512-64600, "internal" or "external".
    #[schemars(length(min = 1, max = 100))]
    pub as_numbers: Vec<AsNumber>,
    /// The most of them at a time; 100 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub limit: Option<u32>,
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Password {
    /// A key of a Secret in the agent's namespace.
    pub secret_key_ref: SecretKeyRef,
}

/// The keys of a connection (TCP-AO, RFC 5925).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpAo {
    /// The keys, the one to sign with first. Every one of them is taken from the peer.
    #[schemars(length(min = 1, max = 16))]
    pub keys: Vec<TcpAoKey>,
}

/// A key of a connection, in RFC 5925's terms a master key tuple.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpAoKey {
    /// The SendID: the KeyID in what the node sends.
    pub send_id: u8,
    /// The RecvID: the KeyID in what the peer sends.
    pub recv_id: u8,
    /// How segments are signed.
    #[serde(default)]
    pub algorithm: TcpAoAlgorithm,
    /// A key of a Secret in the agent's namespace with the master key: 1 to 80 octets of text.
    pub secret_key_ref: SecretKeyRef,
}

/// How segments are signed with TCP-AO.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum TcpAoAlgorithm {
    /// HMAC-SHA-1-96 (RFC 5926).
    #[default]
    #[serde(rename = "hmac-sha1")]
    HmacSha1,
    /// AES-128-CMAC-96 (RFC 5926).
    #[serde(rename = "cmac-aes128")]
    CmacAes128,
    /// HMAC-SHA-256, which no RFC specifies for TCP-AO yet and other systems have.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
}

/// A key of a Secret.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in its data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The source address of a connection.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum SourceAddress {
    /// The node's address.
    #[default]
    UseNodeIP,
    /// Whatever the kernel takes by its routes.
    None,
}

/// Which next hop routes to a peer carry.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum NextHopMode {
    /// The node on eBGP and for its own routes, unchanged on iBGP (RFC 4271 section 5.1.3).
    #[default]
    Auto,
    /// Always the node.
    #[serde(rename = "Self")]
    SelfAddress,
    /// Unchanged.
    Keep,
}

/// Whether selected nodes peer back.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum ReversePeering {
    /// They do.
    #[default]
    Auto,
    /// Another BGPPeer says so.
    Manual,
}

/// An address family.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum FamilyName {
    /// IPv4.
    #[serde(rename = "ipv4-unicast")]
    Ipv4Unicast,
    /// IPv6.
    #[serde(rename = "ipv6-unicast")]
    Ipv6Unicast,
}

/// How many prefixes of a family a peer may send, refused ones included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaxPrefixesSpec {
    /// The most there may be.
    #[schemars(range(min = 1, max = 10000000))]
    pub limit: u32,
    /// From this share of it on the session's state carries a warning, in percent; 80 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub warn_percent: Option<u8>,
    /// What happens to a session with more.
    #[serde(default)]
    pub action: MaxPrefixesAction,
    /// After how many seconds `Restart` tries again; 300 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_after: Option<Seconds>,
}

/// What happens to a session with too many prefixes.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum MaxPrefixesAction {
    /// It is ended and tried again later.
    #[default]
    Restart,
    /// It is ended and stays down until the BGPPeer changes.
    Teardown,
    /// Nothing but a warning.
    Warn,
}

/// A BFD session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BfdSpec {
    /// Shortest time between two packets to send, in milliseconds, 10 to 60000; 300 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub min_tx: Option<u32>,
    /// Shortest time between two packets that can be taken, in milliseconds, 10 to 60000; 300 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub min_rx: Option<u32>,
    /// How many packets may be missing before the path is down; 3 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub multiplier: Option<u8>,
    /// The peer is not on a link of the node (RFC 5883).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multihop: Option<bool>,
}

/// What Margay found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerStatus {
    /// `Accepted`: whether the peer is in use, and if not, why. `ResolvedRefs`: whether its password
    /// and its filters are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How many nodes have sessions by this object.
    #[serde(default)]
    pub nodes: u32,
    /// How many of `sessions` are not established; with 16 there may be more.
    #[serde(default)]
    pub not_established: u32,
    /// Every session if there are few; otherwise those that are not established, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<PeerSession>,
}

/// One session, as the agent of its node wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerSession {
    /// The node.
    pub node: String,
    /// The peer's address; empty while nobody has been found on an interface.
    #[serde(default)]
    pub address: String,
    /// The peer's AS.
    #[serde(default)]
    pub as_number: u32,
    /// The state as RFC 4271 names it, such as `Established`.
    pub state: String,
    /// Since when the session is up or down, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it last went down or does not come up, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The peer sends nearly as much as it may, or more, in words (`maxPrefixes`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Prefixes from the peer when this was written.
    #[serde(default)]
    pub prefixes_received: u64,
    /// Prefixes announced to it when this was written.
    #[serde(default)]
    pub prefixes_sent: u64,
    /// When this was written, RFC 3339. Counters alone are written every ten minutes.
    #[serde(default)]
    pub updated: String,
}
