//! The desired speaker: the mesh, the BGPPeers that select this node, its own blocks and its
//! Service addresses.
//!
//! What is announced and taken, by default: a node announces its own blocks, exactly, what
//! [`crate::services`] says, and nothing it learned; from an eBGP peer it takes pool space only, so that a router that leaks a
//! full table cannot hurt the node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnetwork::IpNetwork;
use margay_bgp::policy::{Conditions, Filter, PrefixMatch, RouteSource, Rule, Verdict};
use margay_bgp::speaker::{Announcement, GracefulRestart, NextHops, PeerConfig, SpeakerConfig};
use margay_bgp::types::{Asn, Family, Prefix, RouterId};
use margay_crds::bgp_peer::PeerNodes;
use margay_crds::{BgpSettings, Peer, Pool};

use crate::services::announcement;
use crate::view::{ClusterNode, View};

/// The TTL towards an eBGP peer: it shares a segment with the node. A peer further away needs a
/// field of its own, and has none yet.
const EBGP_TTL: u8 = 1;

/// A speaker's configuration, and where each peer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredSpeaker {
    /// The configuration.
    pub config: SpeakerConfig,
    /// `Mesh`, or the name of the BGPPeer, by the peer's address.
    pub origins: BTreeMap<IpAddr, String>,
}

/// What the speaker of the node `own` should be.
///
/// # Errors
/// The node has no address, in words.
pub fn desired(
    view: &View,
    own: &ClusterNode,
    own_blocks: &[IpNetwork],
    services: &BTreeMap<Prefix, Announcement>,
    restarting: bool,
) -> Result<DesiredSpeaker, String> {
    let settings = view.bgp_settings();
    let router_id = router_id(own)
        .ok_or_else(|| format!("Node {} has no InternalIP in status.addresses", own.name))?;
    let pools = view.pools();

    let mut config = SpeakerConfig::new(Asn(settings.as_number), router_id);
    config.listen = listeners(own, settings.port);
    config.next_hop = next_hops(own);
    config.graceful_restart = Some(GracefulRestart {
        restarting,
        // Routes carry our protocol number and are reconciled, never flushed.
        forwarding_preserved: true,
        ..GracefulRestart::default()
    });
    config.announcements = announcements(own_blocks, pools, settings);
    for (prefix, announcement) in services {
        // A block that somebody wrote a range over is a block all the same.
        let place = config.announcements.entry(*prefix);
        place.or_insert_with(|| announcement.clone());
    }

    let mut origins = BTreeMap::new();
    if settings.mesh {
        for other in view.nodes().filter(|other| other.name != own.name) {
            if let Some((address, peer)) = mesh_peer(own, other, settings) {
                origins.insert(address, "Mesh".to_owned());
                config.peers.insert(address, peer);
            }
        }
    }
    // A BGPPeer that names a node's address replaces the mesh session: it says more.
    for peer in view.peers().iter().filter(|peer| selects(peer, own)) {
        let address = peer.address.ip();
        // A BGPPeer for all nodes may name one of them (a route reflector): not its own peer.
        if own.addresses.contains(&address) {
            continue;
        }
        let session = configured_peer(own, peer, settings, pools);
        origins.insert(address, peer.name.clone());
        config.peers.insert(address, session);
    }
    Ok(DesiredSpeaker { config, origins })
}

/// The node's IPv4 address; a node without one gets a number out of its IPv6 address, unique
/// enough within an AS (RFC 6286 asks for no more).
fn router_id(node: &ClusterNode) -> Option<RouterId> {
    let number = match node.ipv4().or_else(|| node.addresses.first().copied())? {
        IpAddr::V4(address) => u32::from(address),
        IpAddr::V6(address) => {
            let octets = address.octets();
            let chunks = octets.chunks_exact(4);
            chunks.fold(0, |sum, four| {
                let word = four
                    .iter()
                    .fold(0_u32, |word, octet| (word << 8) | u32::from(*octet));
                sum ^ word
            })
        }
    };
    Some(RouterId(number.max(1)))
}

fn listeners(node: &ClusterNode, port: u16) -> Vec<SocketAddr> {
    let any = |address: &IpAddr| -> SocketAddr {
        match address {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    };
    node.addresses.iter().map(any).collect()
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

/// The pool an address belongs to.
pub fn pool_of(pools: &[Pool], address: IpAddr) -> Option<&Pool> {
    pools.iter().find(|pool| pool.cidr.contains(address))
}

/// The session to another node: over IPv4 if both have it, else over IPv6, carrying whatever
/// families both have.
fn mesh_peer(
    own: &ClusterNode,
    other: &ClusterNode,
    settings: &BgpSettings,
) -> Option<(IpAddr, PeerConfig)> {
    // A Node left over from before this one got its name has our address; not its own peer.
    let theirs = other.addresses.iter();
    let theirs = theirs.filter(|address| !own.addresses.contains(address));
    let pairs = theirs.filter_map(|theirs| {
        let ours = own.address_like(*theirs)?;
        Some((ours, *theirs))
    });
    let pairs: Vec<(IpAddr, IpAddr)> = pairs.collect();
    let chosen = pairs
        .iter()
        .find(|(ours, _)| ours.is_ipv4())
        .or(pairs.first());
    let (ours, theirs) = *chosen?;
    let mut peer = PeerConfig::new(theirs, Asn(settings.as_number));
    peer.name = format!("Mesh {}", other.name);
    peer.port = settings.port;
    peer.local_address = Some(ours);
    peer.families = pairs
        .iter()
        .map(|(ours, _)| Family::of(ours))
        .collect::<BTreeSet<_>>();
    Some((theirs, peer))
}

fn selects(peer: &Peer, node: &ClusterNode) -> bool {
    match &peer.nodes {
        PeerNodes::Named(name) => *name == node.name,
        PeerNodes::Matching(selector) => selector.matches(&node.labels),
    }
}

fn configured_peer(
    own: &ClusterNode,
    peer: &Peer,
    settings: &BgpSettings,
    pools: &[Pool],
) -> PeerConfig {
    let address = peer.address.ip();
    let internal = peer.as_number == settings.as_number;
    let mut session = PeerConfig::new(address, Asn(peer.as_number));
    session.name.clone_from(&peer.name);
    session.port = peer.address.port();
    session.local_address = own.address_like(address);
    if let Some(hold_time) = peer.hold_time {
        session.hold_time = hold_time;
    }
    session.keepalive_time = peer.keepalive_time;
    if !internal {
        session.ttl = Some(EBGP_TTL);
        let pool_space = pools
            .iter()
            .map(|pool| PrefixMatch::within(Prefix::from(pool.cidr)));
        session.import = Some(Filter::accept_only(pool_space.collect()));
        session.export = Some(own_announcements());
    }
    session
}

/// Lets everything pass that the node itself announces, and nothing that a peer gave it. The same
/// whatever is announced: a filter that named the prefixes would be another with each of them.
fn own_announcements() -> Filter {
    let own = Rule {
        conditions: Conditions {
            source: Some(RouteSource::Local),
            ..Conditions::default()
        },
        ..Rule::new(Verdict::Accept)
    };
    Filter::new(vec![own], Verdict::Reject)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use kube::runtime::watcher::Event;
    use margay_bgp::policy::{PeerType, Subject};
    use margay_bgp::wire::PathAttributes;
    use margay_crds::{BGPConfiguration, BGPPeer, IPPool};

    use super::*;
    use crate::datastore::Change;

    fn node(name: &str, addresses: &[&str], segment: &str) -> Node {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|address| serde_json::json!({"type": "InternalIP", "address": address}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "labels": {"segment": segment}},
            "status": {"addresses": addresses},
        }))
        .unwrap()
    }

    fn view() -> View {
        let mut view = View::default();
        for object in [
            node("n1", &["10.0.0.1"], "a"),
            node("n2", &["10.0.0.2", "fd00::2"], "b"),
        ] {
            view.handle(Change::Node(Event::Apply(object)));
        }
        let spec = serde_json::from_value(serde_json::json!({"cidr": "10.244.0.0/16"})).unwrap();
        view.handle(Change::IPPool(Event::Apply(IPPool::new("p", spec))));
        let spec = serde_json::json!({
            "peerIP": "10.0.0.254", "asNumber": 65001, "nodeSelector": "segment == 'a'",
        });
        let peer = BGPPeer::new("tor-a", serde_json::from_value(spec).unwrap());
        view.handle(Change::BGPPeer(Event::Apply(peer)));
        view
    }

    fn of(view: &View, node: &str, own: &[IpNetwork]) -> Result<DesiredSpeaker, String> {
        desired(view, view.node(node).unwrap(), own, &BTreeMap::new(), false)
    }

    fn blocks(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_node_announces_its_own_blocks_but_for_those_kept_out_of_bgp() {
        let mut view = view();
        let spec = serde_json::json!({"cidr": "10.8.0.0/16", "disableBGPExport": true});
        let pool = IPPool::new("quiet", serde_json::from_value(spec).unwrap());
        view.handle(Change::IPPool(Event::Apply(pool)));
        let own = blocks(&["10.244.1.0/26", "10.8.0.0/26", "10.9.0.0/26"]);
        let desired = of(&view, "n1", &own).unwrap();
        let announced: Vec<String> = desired
            .config
            .announcements
            .keys()
            .map(ToString::to_string)
            .collect();
        // The pool of 10.9.0.0/26 is gone, its pods are not.
        assert_eq!(announced, ["10.9.0.0/26", "10.244.1.0/26"]);
    }

    #[test]
    fn services_are_announced_beside_blocks_and_both_carry_their_communities() {
        let mut view = view();
        let spec = serde_json::json!({"prefixAdvertisements": [
            {"cidr": "10.244.0.0/16", "communities": ["64512:1"]},
        ]});
        let spec = serde_json::from_value(spec).unwrap();
        let settings = BGPConfiguration::new("default", spec);
        view.handle(Change::BGPConfiguration(Event::Apply(settings)));
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let services = ["10.244.1.0/26", "192.0.2.7/32", "fd00:96::/112"]
            .map(|text| (prefix(text), Announcement::default()));
        let own = blocks(&["10.244.1.0/26"]);
        let node = view.node("n1").unwrap();
        let desired = desired(&view, node, &own, &BTreeMap::from(services), false).unwrap();
        let announced = &desired.config.announcements;
        assert_eq!(announced.len(), 3);
        // The block's own announcement.
        assert_eq!(announced[&prefix("10.244.1.0/26")].communities.len(), 1);
        assert!(announced[&prefix("192.0.2.7/32")].communities.is_empty());
        // What is announced makes no peer another.
        let before = of(&view, "n1", &[]).unwrap();
        assert_eq!(before.config.peers, desired.config.peers);
        assert!(desired.config.validate().is_ok());
    }

    #[test]
    fn a_node_is_not_its_own_peer() {
        let mut view = view();
        let spec = serde_json::json!({"peerIP": "10.0.0.1", "asNumber": 64512});
        let reflector = BGPPeer::new("reflector", serde_json::from_value(spec).unwrap());
        view.handle(Change::BGPPeer(Event::Apply(reflector)));
        let left_over = node("old-n1", &["10.0.0.1"], "a");
        view.handle(Change::Node(Event::Apply(left_over)));

        let own: IpAddr = "10.0.0.1".parse().unwrap();
        let n1 = of(&view, "n1", &[]).unwrap();
        assert!(!n1.config.peers.contains_key(&own), "{:?}", n1.origins);
        let n2 = of(&view, "n2", &[]).unwrap();
        assert_eq!(n2.origins[&own], "reflector");
    }

    #[test]
    fn peers_come_from_the_mesh_and_from_selected_objects() {
        let n1 = of(&view(), "n1", &blocks(&["10.244.1.0/26", "10.9.0.0/26"])).unwrap();
        let tor: IpAddr = "10.0.0.254".parse().unwrap();
        assert_eq!(n1.origins.len(), 2);
        assert_eq!(n1.origins[&tor], "tor-a");
        let filter = n1.config.peers[&tor].import.as_ref().unwrap();
        assert!(
            filter
                .decide_plain(&"10.244.9.0/26".parse().unwrap())
                .is_some()
        );
        assert!(filter.decide_plain(&"0.0.0.0/0".parse().unwrap()).is_none());
        let export = n1.config.peers[&tor].export.as_ref().unwrap();
        let exports = |source| {
            let subject = Subject {
                attributes: &PathAttributes::default(),
                next_hop: None,
                metric: None,
                peer_type: PeerType::External,
                source,
            };
            let block = "10.244.1.0/26".parse().unwrap();
            export.decide_once(&subject, &block).is_some()
        };
        assert!(exports(RouteSource::Local));
        assert!(!exports(RouteSource::Internal) && !exports(RouteSource::External));

        let n2 = of(&view(), "n2", &blocks(&["10.244.2.0/26"])).unwrap();
        assert_eq!(n2.origins.values().collect::<Vec<_>>(), ["Mesh"]);
        assert!(n1.config.validate().is_ok() && n2.config.validate().is_ok());
    }

    #[test]
    fn a_node_without_an_address_is_named() {
        let mut bare = View::default();
        bare.handle(Change::Node(Event::Apply(node("n1", &[], "a"))));
        let words = of(&bare, "n1", &[]).unwrap_err();
        assert!(words.contains("Node n1 has no InternalIP"), "{words}");
    }
}
