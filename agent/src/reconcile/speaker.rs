//! The desired speaker: the mesh, the BGPPeers that select this node, its own blocks and its
//! Service addresses.
//!
//! What is announced and taken, unless a BGPFilter says otherwise:
//!
//! | | to or from a node or a router in the node's AS | to or from a router in another |
//! |---|---|---|
//! | given | what the node itself announces; a route reflector gives on everything | what the node itself announces; a route reflector gives on what it has of nodes |
//! | taken | everything | the IPPools' space and `importCIDRs`, 200,000 prefixes a family at most |
//!
//! The node announces its own blocks exactly and what [`crate::services`] says. Of its own blocks its own announcement is
//! always the best route, whatever a peer says: a locally originated route comes before all others. What a peer announces
//! within an own block never gets into the kernel ([`super::routes`]): the block's owner decides.
//!
//! | file | what |
//! |---|---|
//! | `identity` | AS, identifier and cluster of a node |
//! | `sessions` | with whom, and which object decides where several name one peer |
//! | `session` | one session out of a BGPPeer |
//! | `filters` | what routes pass |

mod filters;
mod identity;
mod session;
mod sessions;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnetwork::IpNetwork;
use margay_bgp::speaker::{Announcement, GracefulRestart, NextHops, SpeakerConfig};
use margay_bgp::types::{Asn, Prefix, RouterId};
use margay_crds::{BgpSettings, Peer, Pool};

use self::identity::{as_number, router_id};
use crate::services::announcement;
use crate::view::{ClusterNode, View};

/// How long peers are asked to keep the node's routes over a restart, in seconds, where nobody says otherwise.
const RESTART_TIME: u16 = 120;

/// A speaker's configuration. The first word of a peer's name says where it comes from: `Mesh`, or the name of the BGPPeer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredSpeaker {
    /// The configuration.
    pub config: SpeakerConfig,
    /// What could not be made a session as asked, in words.
    pub problems: Vec<String>,
}

/// What sessions are made from.
struct Cluster<'a> {
    view: &'a View,
    own: &'a ClusterNode,
    settings: &'a BgpSettings,
    /// The node's AS.
    asn: Asn,
}

/// What the speaker of the node `own` should be.
///
/// # Errors
/// The node has no address or says something of itself that cannot be, in words.
pub fn desired(
    view: &View,
    own: &ClusterNode,
    own_blocks: &[IpNetwork],
    services: &BTreeMap<Prefix, Announcement>,
    restarting: bool,
) -> Result<DesiredSpeaker, String> {
    let settings = &*view.bgp_settings_of(&own.name);
    if let Some(problem) = own.bgp.problems.first() {
        return Err(format!("Node {}: {problem}", own.name));
    }
    let router_id = router_id(own)
        .ok_or_else(|| format!("Node {} has no InternalIP in status.addresses", own.name))?;
    let asn = as_number(own, settings);
    let mut problems = Vec::new();

    let mut config = SpeakerConfig::new(asn, router_id);
    config.listen = listeners(own, settings);
    config.cluster_id = own.bgp.cluster_id.map(RouterId);
    config.next_hop = next_hops(own);
    config.graceful_restart = Some(GracefulRestart {
        restarting,
        // Routes carry our protocol number and are reconciled, never flushed.
        forwarding_preserved: true,
        restart_time: seconds(settings.mesh_max_restart_time).unwrap_or(RESTART_TIME),
        ..GracefulRestart::default()
    });
    config.announcements = announced(view, own, own_blocks, services);

    let sessions = sessions::all(&Cluster {
        view,
        own,
        settings,
        asn,
    });
    sessions::put(sessions, &mut config, &mut problems);
    let ranges = config.ranges.values().map(|range| &range.peer);
    let peers = config.peers.values().chain(config.interfaces.values());
    let longest = peers.chain(ranges).filter_map(|peer| peer.long_lived_time);
    let longest = longest.max().unwrap_or(0);
    if let Some(restart) = &mut config.graceful_restart {
        restart.long_lived_time = longest;
    }
    config.listen.extend(link_listener(&config, settings));
    Ok(DesiredSpeaker { config, problems })
}

/// What of it the speaker announces: all that changes when a block or a Service does.
pub fn announced(
    view: &View,
    own: &ClusterNode,
    own_blocks: &[IpNetwork],
    services: &BTreeMap<Prefix, Announcement>,
) -> BTreeMap<Prefix, Announcement> {
    let settings = &*view.bgp_settings_of(&own.name);
    let mut announced = announcements(own_blocks, view.pools(), settings);
    for (prefix, announcement) in services {
        // A block that somebody wrote a range over is a block all the same.
        let place = announced.entry(*prefix);
        place.or_insert_with(|| announcement.clone());
    }
    announced
}

fn listeners(node: &ClusterNode, settings: &BgpSettings) -> Vec<SocketAddr> {
    let listener = |address: &IpAddr| -> SocketAddr {
        let any: IpAddr = match address {
            _ if settings.bind_to_node => *address,
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(any, settings.port)
    };
    node.addresses.iter().map(listener).collect()
}

/// Routers on unnumbered links are spoken to over IPv6, which the node itself need not have. A speaker that keeps to the node's
/// addresses only dials them.
fn link_listener(config: &SpeakerConfig, settings: &BgpSettings) -> Option<SocketAddr> {
    let is_wanted = !config.interfaces.is_empty()
        && !settings.bind_to_node
        && config.listen.iter().all(SocketAddr::is_ipv4);
    is_wanted.then(|| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), settings.port))
}

/// A time in whole seconds, for fields of 16 bits.
fn seconds(time: Option<Duration>) -> Option<u16> {
    time.map(|time| u16::try_from(time.as_secs()).unwrap_or(u16::MAX))
}

fn next_hops(node: &ClusterNode) -> NextHops {
    let mut hops = NextHops::default();
    for address in &node.addresses {
        match address {
            IpAddr::V4(address) => hops.ipv4 = Some(*address),
            IpAddr::V6(address) => hops.ipv6 = Some(*address),
        }
    }
    hops
}

/// The node's own blocks, but for those of pools kept out of BGP. A block whose pool is gone is
/// announced as long as it is held: a deleted IPPool must not cut off the pods that run.
fn announcements(
    own_blocks: &[IpNetwork],
    pools: &[Pool],
    settings: &BgpSettings,
) -> BTreeMap<Prefix, Announcement> {
    let exported = own_blocks.iter().filter(|block| {
        let pool = pool_of(pools, block.network());
        pool.is_none_or(|pool| !pool.disable_bgp_export)
    });
    exported
        .map(|block| {
            let prefix = Prefix::from(*block);
            let announcement = announcement(&prefix, &settings.prefix_advertisements);
            (prefix, announcement)
        })
        .collect()
}

/// Whether a node is one of those that a BGPPeer gives sessions.
pub fn is_for(peer: &Peer, node: &ClusterNode) -> bool {
    sessions::scope(peer, node).is_some()
}

/// Whether a node has sessions by a BGPPeer, at either end.
pub fn has_sessions(peer: &Peer, node: &ClusterNode) -> bool {
    is_for(peer, node) || sessions::is_peered_back(peer, node)
}

/// The pool an address belongs to.
pub fn pool_of(pools: &[Pool], address: IpAddr) -> Option<&Pool> {
    pools.iter().find(|pool| pool.cidr.contains(address))
}

#[cfg(test)]
mod tests;
