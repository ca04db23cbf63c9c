//! The tables behind a VXLAN device: which hardware address a next hop has, and behind which
//! node a hardware address lives.
//!
//! Nodes exchange nothing for this: the hardware address of a node's tunnel end follows from
//! the node's address ([`vtep_mac`]). Only permanent entries on our own device are ours; what
//! the kernel learnt by itself is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use sha1::{Digest, Sha1};

use super::link::Mac;

/// The hardware address of the VXLAN end of the node with this address.
///
/// IPv4: `06:4d` and the four octets, so that no two nodes can collide and an operator reads
/// the node out of `bridge fdb`. IPv6: `0a` and the first five bytes of the SHA-1 of the
/// sixteen octets. Both are locally administered unicast addresses, and the families differ in
/// the first byte.
pub fn vtep_mac(node: IpAddr) -> Mac {
    match node {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            Mac([0x06, 0x4d, a, b, c, d])
        }
        IpAddr::V6(v6) => {
            let hash = Sha1::digest(v6.octets());
            Mac([0x0a, hash[0], hash[1], hash[2], hash[3], hash[4]])
        }
    }
}

/// Another node, as the far end of the VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VxlanPeer {
    /// The node's address in the underlay: where packets are sent.
    pub node: IpAddr,
    /// Next hops of routes through the tunnel that stand for this node, besides `node` itself:
    /// its IPv6 address for IPv6 pods over an IPv4 underlay, for instance.
    pub next_hops: BTreeSet<IpAddr>,
}

impl VxlanPeer {
    /// The peer whose next hop is its underlay address.
    pub fn new(node: IpAddr) -> Self {
        Self {
            node,
            next_hops: BTreeSet::new(),
        }
    }

    /// The same peer that also answers for the next hop `address`.
    pub fn with_next_hop(mut self, address: IpAddr) -> Self {
        self.next_hops.insert(address);
        self
    }
}

/// One permanent entry on a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Neighbour {
    /// Next hop `address` has the hardware address `mac`.
    Address {
        /// The next hop.
        address: IpAddr,
        /// Its hardware address.
        mac: Mac,
    },
    /// The hardware address `mac` lives behind the node `node`.
    Forwarding {
        /// The hardware address.
        mac: Mac,
        /// The node's underlay address.
        node: IpAddr,
    },
}

/// What a [`Neighbour`] is replaced by: entries with the same key exclude each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighbourKey {
    /// Of [`Neighbour::Address`].
    Address(IpAddr),
    /// Of [`Neighbour::Forwarding`].
    Forwarding(Mac),
}

impl Neighbour {
    /// The entry's key.
    pub fn key(&self) -> NeighbourKey {
        match self {
            Self::Address { address, .. } => NeighbourKey::Address(*address),
            Self::Forwarding { mac, .. } => NeighbourKey::Forwarding(*mac),
        }
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, mac } => write!(f, "neighbour {address} lladdr {mac}"),
            Self::Forwarding { mac, node } => write!(f, "forwarding {mac} dst {node}"),
        }
    }
}

/// One change to the permanent entries of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeighbourChange {
    /// Add the entry, or replace the one with its key.
    Set(Neighbour),
    /// Remove the entry.
    Remove(Neighbour),
}

/// Two nodes whose derived hardware addresses are the same: only one of them can be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "nodes {first} and {second} have the same tunnel hardware address {mac}; give one of them another address"
)]
pub struct MacCollision {
    /// The node that keeps its entry.
    pub first: IpAddr,
    /// The node that gets none.
    pub second: IpAddr,
    /// The address they share.
    pub mac: Mac,
}

/// The entries that these peers need, and the peers that had to be left out.
pub(super) fn desired_neighbours(peers: &[VxlanPeer]) -> (BTreeSet<Neighbour>, Vec<MacCollision>) {
    let mut owners: BTreeMap<Mac, IpAddr> = BTreeMap::new();
    let mut entries = BTreeSet::new();
    let mut collisions = Vec::new();
    for peer in peers {
        let mac = vtep_mac(peer.node);
        let first = *owners.entry(mac).or_insert(peer.node);
        if first != peer.node {
            collisions.push(MacCollision {
                first,
                second: peer.node,
                mac,
            });
            continue;
        }
        entries.insert(Neighbour::Forwarding {
            mac,
            node: peer.node,
        });
        for address in peer.next_hops.iter().copied().chain([peer.node]) {
            entries.insert(Neighbour::Address { address, mac });
        }
    }
    (entries, collisions)
}

/// What turns `actual` into `desired`: everything to set, then everything to remove.
pub(super) fn diff(desired: &BTreeSet<Neighbour>, actual: &[Neighbour]) -> Vec<NeighbourChange> {
    let present: BTreeSet<&Neighbour> = actual.iter().collect();
    let wanted: BTreeSet<NeighbourKey> = desired.iter().map(Neighbour::key).collect();
    let set = desired
        .iter()
        .filter(|entry| !present.contains(entry))
        .map(|entry| NeighbourChange::Set(entry.clone()));
    let remove = present
        .iter()
        .filter(|entry| !desired.contains(**entry))
        // A forwarding entry has a list of destinations: an old one stays beside the new one
        // unless removed, while a neighbour entry with the same key has been replaced.
        .filter(|entry| {
            matches!(entry, Neighbour::Forwarding { .. }) || !wanted.contains(&entry.key())
        })
        .map(|entry| NeighbourChange::Remove((*entry).clone()));
    set.chain(remove).collect()
}
