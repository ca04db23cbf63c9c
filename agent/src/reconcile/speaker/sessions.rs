//! With whom the node has sessions. Several objects may name one peer; then one of them decides, by rank and name, and the
//! others are told of.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_bgp::config::PeerRange;
use margay_bgp::speaker::{PeerConfig, SpeakerConfig};
use margay_bgp::types::{Asn, Family, Prefix, RouterId};
use margay_crds::Peer;
use margay_crds::bgp_peer::{PeerNodes, Remote};

use super::Cluster;
use super::identity::as_number;
use super::{filters, session};
use crate::view::ClusterNode;

/// How many prefixes of a family a router in another AS may send where its BGPPeer does not say: more than any cluster has
/// blocks, and few enough that a router which leaks the whole Internet does no harm.
pub(super) const EXTERNAL_LIMIT: u32 = 200_000;

/// Who decides about a session, the first comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A BGPPeer that says who the peer is.
    Named(Scope),
    /// A BGPPeer that selects nodes as peers.
    Selected(Scope),
    /// The other end of such a one.
    Reverse,
    /// The full mesh.
    Mesh,
}

/// For which nodes a BGPPeer is, the narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    Node,
    Selector,
    All,
}

/// Where a peer is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Address(IpAddr),
    Interface(String),
    Range(Prefix),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Range(prefix) => prefix.fmt(f),
        }
    }
}

/// A session that an object asks for.
pub(super) struct Wanted {
    rank: Rank,
    /// The BGPPeer's name; none for the mesh.
    object: Option<String>,
    place: Place,
    config: PeerConfig,
    /// Of a range.
    limit: usize,
}

/// All that is asked for, several times for one peer perhaps.
pub(super) fn all(cluster: &Cluster<'_>) -> Vec<Wanted> {
    let mut wanted = mesh(cluster);
    for peer in cluster.view.peers() {
        if let Some(scope) = scope(peer, cluster.own) {
            wanted.extend(of_peer(cluster, peer, scope));
        }
        wanted.extend(reverse(cluster, peer));
    }
    wanted
}

/// Puts the sessions that count into the configuration.
pub(super) fn put(mut wanted: Vec<Wanted>, config: &mut SpeakerConfig, problems: &mut Vec<String>) {
    wanted.sort_by(|a, b| (a.rank, &a.object).cmp(&(b.rank, &b.object)));
    let mut owners: BTreeMap<Place, Option<String>> = BTreeMap::new();
    for session in wanted {
        if let Some(owner) = owners.get(&session.place) {
            problems.extend(beaten(&session, owner.as_deref()));
            continue;
        }
        if let Some(words) = mistake(config, &session) {
            problems.push(words);
            continue;
        }
        owners.insert(session.place.clone(), session.object.clone());
        match session.place {
            Place::Address(address) => drop(config.peers.insert(address, session.config)),
            Place::Interface(name) => drop(config.interfaces.insert(name, session.config)),
            Place::Range(prefix) => {
                let range = PeerRange {
                    limit: session.limit,
                    peer: session.config,
                };
                config.ranges.insert(prefix, range);
            }
        }
    }
}

/// That a BGPPeer does not decide about a peer it names. The mesh gives way without a word.
fn beaten(session: &Wanted, owner: Option<&str>) -> Option<String> {
    let (object, owner) = (session.object.as_deref()?, owner?);
    let said = object != owner && matches!(session.rank, Rank::Named(_) | Rank::Selected(_));
    said.then(|| {
        format!(
            "BGPPeer {object} is not used for {}: BGPPeer {owner} has that peer \
             (peerIP comes before peerSelector, node before nodeSelector before all nodes, then the name)",
            session.place
        )
    })
}

/// Why the speaker would refuse a session. The others must not suffer for it.
fn mistake(config: &SpeakerConfig, session: &Wanted) -> Option<String> {
    let mut alone = SpeakerConfig::new(config.asn, config.router_id);
    let address = match session.place {
        Place::Address(address) => address,
        Place::Interface(_) => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]),
        Place::Range(prefix) => prefix.address(),
    };
    alone.peers.insert(address, session.config.clone());
    let error = alone.validate().err()?;
    let object = session.object.as_deref().unwrap_or("of the mesh");
    Some(format!("BGPPeer {object} is not used: {error}"))
}

pub(super) fn scope(peer: &Peer, node: &ClusterNode) -> Option<Scope> {
    match &peer.nodes {
        PeerNodes::Named(name) => (*name == node.name).then_some(Scope::Node),
        PeerNodes::Matching(selector) => selector.matches(&node.labels).then_some(Scope::Selector),
        PeerNodes::All => Some(Scope::All),
    }
}

/// The full mesh. Route reflectors are not in it: their BGPPeers say whom they serve.
fn mesh(cluster: &Cluster<'_>) -> Vec<Wanted> {
    let is_in = |node: &ClusterNode| node.bgp.cluster_id.is_none();
    if !cluster.settings.mesh || !is_in(cluster.own) {
        return Vec::new();
    }
    let others = cluster.view.nodes();
    let others = others.filter(|other| other.name != cluster.own.name && is_in(other));
    let sessions = others.filter_map(|other| {
        let (address, mut config) = to_node(cluster, other)?;
        config.name = format!("Mesh {}", other.name);
        filters::by_default(cluster, &mut config);
        session::set_password(
            cluster,
            cluster.settings.mesh_password.as_ref(),
            &mut config,
        );
        session::set_keys(cluster, &cluster.settings.mesh_tcp_ao, &mut config);
        session::set_long_lived_time(cluster, None, &mut config);
        Some(Wanted {
            rank: Rank::Mesh,
            object: None,
            place: Place::Address(address),
            config,
            limit: 0,
        })
    });
    sessions.collect()
}

/// What a BGPPeer for this node asks for.
fn of_peer(cluster: &Cluster<'_>, peer: &Peer, scope: Scope) -> Vec<Wanted> {
    let one = |rank, place, config, limit: u32| Wanted {
        rank,
        object: Some(peer.name.clone()),
        place,
        config,
        limit: limit as usize,
    };
    match &peer.remote {
        // A BGPPeer for all nodes may name one of them (a route reflector): not its own peer.
        Remote::Address { address, .. } if cluster.own.addresses.contains(&address.ip()) => {
            Vec::new()
        }
        Remote::Address { address, asn } => {
            let config = session::to_address(cluster, peer, *address, *asn);
            let place = Place::Address(address.ip());
            vec![one(Rank::Named(scope), place, config, 0)]
        }
        Remote::Interface { name, asn } => {
            let config = session::on_interface(cluster, peer, name, *asn);
            let place = Place::Interface(name.clone());
            vec![one(Rank::Named(scope), place, config, 0)]
        }
        Remote::Range {
            cidr,
            ases,
            asn,
            limit,
        } => {
            let prefix = Prefix::from(*cidr);
            let config = session::from_range(cluster, peer, prefix, ases, *asn);
            vec![one(
                Rank::Named(scope),
                Place::Range(prefix),
                config,
                *limit,
            )]
        }
        Remote::Nodes { selector, .. } => {
            let nodes = cluster.view.nodes();
            let nodes = nodes.filter(|node| selector.matches(&node.labels));
            nodes
                .filter_map(|node| node_session(cluster, peer, node))
                .map(|(address, config)| {
                    one(Rank::Selected(scope), Place::Address(address), config, 0)
                })
                .collect()
        }
    }
}

/// Whether a node is one of those that a BGPPeer for other nodes selects, and peers back.
pub(super) fn is_peered_back(peer: &Peer, node: &ClusterNode) -> bool {
    match &peer.remote {
        Remote::Nodes { selector, reverse } => *reverse && selector.matches(&node.labels),
        Remote::Address { .. } | Remote::Interface { .. } | Remote::Range { .. } => false,
    }
}

/// This node is one of those that a BGPPeer for other nodes selects as peers: the other end of their sessions.
fn reverse(cluster: &Cluster<'_>, peer: &Peer) -> Vec<Wanted> {
    if !is_peered_back(peer, cluster.own) {
        return Vec::new();
    }
    let nodes = cluster.view.nodes();
    let nodes = nodes.filter(|node| scope(peer, node).is_some());
    nodes
        .filter_map(|node| node_session(cluster, peer, node))
        .map(|(address, config)| Wanted {
            rank: Rank::Reverse,
            object: Some(peer.name.clone()),
            place: Place::Address(address),
            config,
            limit: 0,
        })
        .collect()
}

/// The session of a BGPPeer with another node.
fn node_session(
    cluster: &Cluster<'_>,
    peer: &Peer,
    node: &ClusterNode,
) -> Option<(IpAddr, PeerConfig)> {
    if node.name == cluster.own.name {
        return None;
    }
    let (address, mut config) = to_node(cluster, node)?;
    config.name = format!("{} {}", peer.name, node.name);
    session::shape(cluster, peer, &mut config);
    Some((address, config))
}

/// The bare session to another node: over IPv4 if both have it, else over IPv6, carrying whatever families both have.
fn to_node(cluster: &Cluster<'_>, other: &ClusterNode) -> Option<(IpAddr, PeerConfig)> {
    let own = cluster.own;
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
    let asn: Asn = as_number(other, cluster.settings);
    let mut config = PeerConfig::new(theirs, asn);
    config.port = cluster.view.bgp_port_of(&other.name);
    config.local_address = Some(ours);
    config.families = pairs.iter().map(|(ours, _)| Family::of(ours)).collect();
    // Nodes of two ASes need share no segment.
    config.ttl = Some(session::FAR);
    config.policy.route_reflector_client =
        asn == cluster.asn && session::serves(cluster, other.bgp.cluster_id.map(RouterId));
    Some((theirs, config))
}
