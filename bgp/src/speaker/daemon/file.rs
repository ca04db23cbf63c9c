//! The configuration file's content. What it means for the speaker is in `convert`.

mod convert;
mod filters;
mod install;
mod observe;
mod routing;
mod signing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{
    AddPath, BGP_PORT, BfdConfig, GracefulRestart, LocalAs, Multipath, NextHops, PeerAsn, PeerRole,
    RemovePrivateAs, Secret,
};
use crate::types::{
    Asn, AsnRange, Community, ExtendedCommunity, Family, LargeCommunity, Prefix, RouterId,
};

pub use convert::FileError;
pub use filters::{
    Action, FilterEntry, HostOrNetwork, LengthRange, MatchEntry, PathLengthRange, PrefixEntry,
    PrefixLists, PrependEntry, RuleEntry,
};
pub use install::{InstallEntry, InstallTable};
pub use observe::{DumpsEntry, Monitoring, MrtEntry, StationEntry, UpdatesEntry};
pub use routing::AggregateEntry;
pub use signing::{AoKeyEntry, TcpAoEntry};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    /// The AS of this speaker.
    pub asn: Asn,
    /// Its BGP Identifier.
    pub router_id: RouterId,
    /// Where to accept connections; left out: port 179 of every address.
    #[serde(default = "listen_everywhere")]
    pub listen: Vec<ListenEntry>,
    /// Put the best routes into the kernel's table. Whoever runs the daemon sees to it.
    #[serde(default)]
    pub install: InstallEntry,
    /// The peers.
    #[serde(default)]
    pub neighbors: Vec<NeighborEntry>,
    /// The routes to originate.
    #[serde(default)]
    pub announce: Vec<AnnounceEntry>,
    /// Filters by name. `accept` and `reject` are there already.
    #[serde(default)]
    pub filters: BTreeMap<String, FilterEntry>,
    /// Lists of prefixes for the rules of filters, by name.
    #[serde(default)]
    pub prefix_lists: PrefixLists,
    /// Routes to originate as long as there are more specific ones.
    #[serde(default)]
    pub aggregates: Vec<AggregateEntry>,
    /// The cluster to reflect routes for (RFC 4456); left out: the router id.
    #[serde(default)]
    pub cluster_id: Option<RouterId>,
    /// Networks whose external neighbors are given next hops in them unchanged (RFC 4271 section 5.1.3).
    #[serde(default)]
    pub shared_segments: BTreeSet<Prefix>,
    /// Path of the unix socket that answers questions; left out: none.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// BMP stations (RFC 7854) that are told of sessions and routes.
    #[serde(default)]
    pub bmp: Vec<StationEntry>,
    /// Files in MRT (RFC 6396).
    #[serde(default)]
    pub mrt: Option<MrtEntry>,
    /// A file for everything that goes into the speaker and comes out of it; it is replaced. Counts from the start on.
    #[serde(default)]
    pub record: Option<PathBuf>,
    /// RFC 8212: an eBGP neighbor without a filter gives nothing and is given nothing.
    #[serde(default = "yes")]
    pub require_policy: bool,
    /// Addresses of this host for next hops of a session's other address family.
    #[serde(default)]
    pub next_hop: NextHops,
    /// The longest that routes wait after a restart for the neighbors to send theirs, in seconds; left out: 60.
    #[serde(default)]
    pub selection_deferral: Option<u16>,
    /// How many equally good paths are used at the same time; left out: the best one alone.
    #[serde(default = "best_alone")]
    pub multipath: Multipath,
    /// Have neighbors keep our routes while we restart (RFC 4724), and as a last resort for longer (RFC 9494).
    #[serde(default)]
    pub graceful_restart: Option<GracefulRestart>,
    /// Without that, keep the routes of neighbors that restart.
    #[serde(default = "yes")]
    pub graceful_restart_helper: bool,
}

/// One listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenEntry {
    /// The local address.
    pub address: IpAddr,
    /// The port; 0 has the system choose one.
    #[serde(default = "bgp_port")]
    pub port: u16,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NeighborEntry {
    /// The address the peer is reached at. Each entry has exactly one of `address`, `range` and `interface`.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Peers that connect to us from this network.
    #[serde(default)]
    pub range: Option<Prefix>,
    /// The most peers from the range at a time; left out: 100.
    #[serde(default)]
    pub limit: Option<usize>,
    /// The AS numbers and ranges of them that peers from the range may have, in place of `asn`.
    #[serde(default)]
    pub asns: Vec<AsnRange>,
    /// The neighbor on this interface, by its link-local address.
    #[serde(default)]
    pub interface: Option<String>,
    /// The AS it must present: a number, `internal`, `external`, or ranges such as `65100-65199`.
    #[serde(default)]
    pub asn: Option<PeerAsn>,
    /// What to call it; left out: its address.
    #[serde(default)]
    pub name: Option<String>,
    /// Its port for outgoing connections.
    #[serde(default = "bgp_port")]
    pub port: u16,
    /// Source address of outgoing connections.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
    /// Only accept connections.
    #[serde(default)]
    pub passive: bool,
    /// Administratively down.
    #[serde(default)]
    pub disabled: bool,
    /// Hold time to propose, in seconds: 0 or at least 3; left out: 90.
    #[serde(default)]
    pub hold_time: Option<u16>,
    /// Seconds between KEEPALIVEs; left out: a third of the hold time.
    #[serde(default)]
    pub keepalive_time: Option<u16>,
    /// Seconds the neighbor may leave what it is sent unread (RFC 9687), more than the hold time; 0: for ever; left out: 480,
    /// or twice the negotiated hold time if that is more.
    #[serde(default)]
    pub send_hold_time: Option<u16>,
    /// Seconds between two attempts to connect; left out: 5.
    #[serde(default)]
    pub connect_retry_time: Option<u16>,
    /// Families to offer; left out: the one the address is of.
    #[serde(default)]
    pub families: BTreeSet<Family>,
    /// TTL or hop limit of packets; left out: 1 on eBGP, 64 on iBGP.
    #[serde(default)]
    pub ttl: Option<u8>,
    /// Name of the filter for what is taken.
    #[serde(default)]
    pub import: Option<String>,
    /// Name of the filter for what is given.
    #[serde(default)]
    pub export: Option<String>,
    /// Next hop of what is given.
    #[serde(default)]
    pub next_hop: NextHopEntry,
    /// Reflect routes to and from this internal neighbor (RFC 4456).
    #[serde(default)]
    pub route_reflector_client: bool,
    /// Another AS to present to this external neighbor.
    #[serde(default)]
    pub local_as: Option<LocalAs>,
    /// How often our AS may be in the AS path of what is taken.
    #[serde(default)]
    pub allow_own_as: u8,
    /// Put our AS in the place of the neighbor's in the AS path of what is given.
    #[serde(default)]
    pub as_override: bool,
    /// Private ASes to take out of the AS path of what is given: `all`, `leading`, or `replace`.
    #[serde(default)]
    pub remove_private_as: Option<RemovePrivateAs>,
    /// The AS path of what is taken begins with the neighbor's AS.
    #[serde(default = "yes")]
    pub enforce_first_as: bool,
    /// Take routes with an AS_SET, which RFC 9774 forbids.
    #[serde(default)]
    pub accept_as_sets: bool,
    /// The session is about to go down for maintenance (RFC 8326).
    #[serde(default)]
    pub graceful_shutdown: bool,
    /// Several paths for one prefix (RFC 7911).
    #[serde(default)]
    pub add_path: AddPath,
    /// Least seconds between two announcements to the neighbor (RFC 4271 section 9.2.1.1), less up to a quarter; withdrawals
    /// never wait. 0: announced at once.
    #[serde(default)]
    pub min_advertisement_interval: u16,
    /// IPv6 next hops for IPv4 routes (RFC 8950); left out: offered on sessions over IPv6.
    #[serde(default)]
    pub extended_next_hop: Option<bool>,
    /// Our part in the relation with the peer (RFC 9234); left out: nothing is said about it.
    #[serde(default)]
    pub role: Option<PeerRole>,
    /// The peer must say its part too.
    #[serde(default)]
    pub role_strict: bool,
    /// Watch the path with BFD; left out: no. `bfd: {}` does with 300 ms x 3.
    #[serde(default)]
    pub bfd: Option<BfdConfig>,
    /// TCP-MD5 password (RFC 2385), 1 to 80 octets.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A file whose content is the password; a newline at its end does not count.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// TCP-AO (RFC 5925), in place of a password; takes Linux 6.7 or newer.
    #[serde(default)]
    pub tcp_ao: Option<TcpAoEntry>,
    /// GTSM (RFC 5082): the most hops the neighbor may be away, 1 for a direct one.
    #[serde(default)]
    pub ttl_security: Option<u8>,
    /// How many prefixes of each family it may send; left out: 2,000,000.
    #[serde(default)]
    pub max_prefixes: MaxPrefixesEntry,
    /// Administratively down, and what the neighbor is told of it (RFC 9003).
    #[serde(default)]
    pub admin_down: Option<String>,
}

/// A limit on what a neighbor may send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaxPrefixesEntry {
    /// The most prefixes of each family; left out: 2,000,000.
    pub limit: Option<u32>,
    /// From this percentage on there is a warning; left out: 80.
    pub warn_percent: Option<u8>,
    /// What happens to a session with more; left out: `restart`.
    pub action: LimitAction,
    /// The pause before another attempt with `restart`, in seconds; left out: 300.
    pub restart_after: Option<u32>,
}

/// What happens to a session with too many routes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LimitAction {
    /// Ended, and tried again after a pause.
    #[default]
    Restart,
    /// Ended, until the configuration changes.
    Teardown,
    /// A warning, nothing else.
    Warn,
}

/// Next hop of routes to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NextHopEntry {
    /// This speaker on eBGP and for its own routes, unchanged on iBGP.
    #[default]
    Auto,
    /// This speaker.
    #[serde(rename = "self")]
    SelfAddress,
    /// Unchanged.
    Keep,
}

/// One route to originate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnnounceEntry {
    /// The destination.
    pub prefix: Prefix,
    /// Its next hop; left out: this speaker.
    #[serde(default)]
    pub next_hop: Option<IpAddr>,
    /// LOCAL_PREF; left out: 100.
    #[serde(default)]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC; left out: none.
    #[serde(default)]
    pub med: Option<u32>,
    /// Communities.
    #[serde(default)]
    pub communities: BTreeSet<Community>,
    /// Large communities.
    #[serde(default)]
    pub large_communities: BTreeSet<LargeCommunity>,
    /// Extended communities.
    #[serde(default)]
    pub extended_communities: BTreeSet<ExtendedCommunity>,
}

fn listen_everywhere() -> Vec<ListenEntry> {
    let any: [IpAddr; 2] = [
        Ipv4Addr::UNSPECIFIED.into(),
        std::net::Ipv6Addr::UNSPECIFIED.into(),
    ];
    any.map(|address| ListenEntry {
        address,
        port: BGP_PORT,
    })
    .to_vec()
}

const fn yes() -> bool {
    true
}

const fn best_alone() -> Multipath {
    Multipath::OFF
}

fn bgp_port() -> u16 {
    BGP_PORT
}

#[cfg(test)]
mod tests;
