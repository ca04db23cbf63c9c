//! What the router shows to others: route changes, peer summaries, RIB entries. Plain values without behaviour.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use serde::Serialize;

use super::faults::FaultCounts;
use crate::fsm::State;
use crate::policy::{Refusal, RefusalCounts};
use crate::types::{Asn, Family, Prefix, RouterId};

/// Most next hops need none.
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands it out like this"
)]
fn no_scope(scope: &u32) -> bool {
    *scope == 0
}

/// The best paths of one prefix after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteChange {
    /// The destination.
    pub prefix: Prefix,
    /// The best path first, then those equal to it for multipath. Empty: the prefix is gone.
    pub paths: Vec<BestPath>,
}

/// One of the best paths of a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BestPath {
    /// Where to send packets. For a route of our own without a next hop of its own: the unspecified address.
    pub next_hop: IpAddr,
    /// Index of the interface a link-local next hop is on; 0 for all other addresses.
    #[serde(skip_serializing_if = "no_scope")]
    pub scope: u32,
    /// The peer it was learned from; the unspecified address for a route of our own.
    pub peer: IpAddr,
    /// Learned over iBGP.
    pub internal: bool,
    /// Originated by this speaker.
    pub local: bool,
    /// An aggregate of this speaker: packets that none of its more specific routes takes lead nowhere.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub aggregate: bool,
    /// LOCAL_PREF used in the comparison.
    pub local_pref: u32,
    /// MULTI_EXIT_DISC, if there was one.
    pub med: Option<u32>,
    /// The metric the import policy gave it for the kernel's table; `None`: it has no opinion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// Number of ASes in the path as the decision process counts them (RFC 4271 section 9.1.2.2 a).
    pub as_path_length: u32,
    /// Which share of the traffic it takes, relative to the other paths, 1 to 255.
    pub weight: u8,
}

/// Some changes for a subscriber, in one batch so that they can be applied in one go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteBatch {
    /// The changes; at most one per prefix.
    pub changes: Vec<RouteChange>,
    /// The routes that were there at the time of subscribing have all been delivered, this batch included.
    pub synced: bool,
}

/// One line about a peer, from counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSummary {
    /// The name in the configuration.
    pub name: String,
    /// The peer's address.
    pub address: IpAddr,
    /// Index of the interface that a link-local address belongs to; 0 for all other addresses.
    pub scope: u32,
    /// The peer's AS: as configured, or as announced on the session where any of several is allowed.
    pub asn: Option<Asn>,
    /// The range it came from, for a peer that is not listed by address.
    pub range: Option<Prefix>,
    /// The state of the session, the further of its two connections.
    pub state: State,
    /// When the session last became established or stopped being it; at first, when the peer was configured.
    pub since: Instant,
    /// Why the session last went down or could not come up.
    pub last_error: Option<String>,
    /// Until when the peer is left alone: after an error, for coming and going too often, or for too many routes.
    pub held_until: Option<Instant>,
    /// Families whose routes the peer is sending once more (RFC 7313): what it does not mention goes when it is done.
    pub refreshing: Vec<Family>,
    /// The peer sends nearly as much as it may, or more.
    pub warning: Option<String>,
    /// The most routes of each family it may send.
    pub max_prefixes: u32,
    /// Address of our end of the connection, while there is one.
    pub local_address: Option<IpAddr>,
    /// The peer's BGP Identifier, while the session is established.
    pub router_id: Option<RouterId>,
    /// Negotiated hold time in seconds, while the session is established.
    pub hold_time: Option<u16>,
    /// The families both sides offer, while the session is established.
    pub families: Vec<FamilySummary>,
    /// What both sides agreed on beyond plain routes, while the session is established.
    pub agreed: Agreed,
    /// Routes held from the peer, including those the import policy refused.
    pub prefixes_received: u64,
    /// Of those, the routes that take part in the decision process.
    pub prefixes_accepted: u64,
    /// Of those received, the ones left over from before a restart or a refresh of the peer, and not confirmed since.
    pub stale_routes: u64,
    /// Of those, the ones kept beyond its restart time, as the last resort (RFC 9494).
    pub long_lived_routes: u64,
    /// When what is stale goes at the latest, unless it is kept for longer.
    pub stale_until: Option<Instant>,
    /// When what is kept beyond the restart time goes.
    pub long_lived_until: BTreeMap<Family, Instant>,
    /// Routes the peer currently has from us.
    pub prefixes_sent: u64,
    /// Messages taken from the peer since the speaker started.
    pub messages_received: MessageCounts,
    /// Messages given to the peer since the speaker started.
    pub messages_sent: MessageCounts,
    /// What was wrong with the peer's UPDATEs since the speaker started (RFC 7606).
    pub faults: FaultCounts,
    /// How many times the session went from Established to something else.
    pub flaps: u64,
    /// The BFD session, which the router does not know: whoever has one puts it here.
    pub bfd: Option<crate::bfd::SessionReport>,
    /// How often routes of the peer were refused since it was configured, by reason. A route is decided on when it arrives and
    /// when the policy changes.
    pub refused: RefusalCounts,
    /// What the policy keeps from happening on this session as a whole, and the way out, for people.
    pub notes: Vec<String>,
}

/// What both sides agreed on beyond plain routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agreed {
    /// AS numbers of four octets (RFC 6793).
    pub four_octet_asn: bool,
    /// ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Marked refreshes (RFC 7313).
    pub enhanced_refresh: bool,
    /// Messages of 65,535 octets (RFC 8654).
    pub extended_messages: bool,
    /// IPv6 next hops for IPv4 routes (RFC 8950).
    pub extended_next_hop: bool,
    /// The families of which several paths come (RFC 7911).
    pub add_path_receive: Vec<Family>,
    /// The families of which several paths are sent.
    pub add_path_send: Vec<Family>,
    /// The peer's role (RFC 9234).
    pub peer_role: Option<String>,
    /// How long the peer may be away for a restart, in seconds (RFC 4724).
    pub restart_time: Option<u64>,
    /// How long its routes may be kept after that, in seconds (RFC 9494); `None`: not both sides announced it.
    pub long_lived_times: Option<BTreeMap<Family, u64>>,
}

/// One address family on an established session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilySummary {
    /// The family.
    pub family: Family,
    /// The peer has sent its End-of-RIB marker (RFC 4724 section 2).
    pub end_of_rib_received: bool,
    /// Our End-of-RIB marker has been handed to the connection.
    pub end_of_rib_sent: bool,
}

/// Messages by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// ROUTE-REFRESH (RFC 2918).
    pub route_refresh: u64,
}

impl MessageCounts {
    /// All messages together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.open + self.update + self.keepalive + self.notification + self.route_refresh
    }
}

/// One path of the RIB, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RibEntry {
    /// The destination.
    pub prefix: Prefix,
    /// The next hop as received or configured; `None` for an own route that uses the session's address.
    pub next_hop: Option<IpAddr>,
    /// The peer it was learned from; `None` for a route of our own.
    pub peer: Option<IpAddr>,
    /// Which of the peer's paths to the prefix it is (RFC 7911), if it gave that a number other than 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_id: Option<u32>,
    /// Kept although the peer has gone away for a restart (RFC 4724), or for longer than that (RFC 9494).
    pub stale: bool,
    /// Kept for longer than a restart takes, and so the last resort (RFC 9494).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub long_lived_stale: bool,
    /// The path the decision process chose.
    pub best: bool,
    /// Equal to the best path for multipath, or the best path itself.
    pub multipath: bool,
    /// False: kept, but refused by the import policy or a loop check, and so without effect.
    pub accepted: bool,
    /// If not accepted, why: `as loop`, `filter` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// The AS path as text.
    pub as_path: String,
    /// LOCAL_PREF used in the comparison.
    pub local_pref: u32,
    /// MULTI_EXIT_DISC, if there was one.
    pub med: Option<u32>,
    /// Communities as text, `asn:value`.
    pub communities: Vec<String>,
    /// Large communities as text, `asn:value:value`.
    pub large_communities: Vec<String>,
    /// Extended communities as text: `rt:asn:value` and so on, or 16 hexadecimal digits.
    pub extended_communities: Vec<String>,
    /// The metric the import policy gave it for the kernel's table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// Who brought the route into the AS, if a route reflector says so (RFC 4456).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub originator_id: Option<RouterId>,
    /// The route reflectors passed, the latest first (RFC 4456).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster_list: Vec<RouterId>,
}
