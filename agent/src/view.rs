//! What this node knows of the cluster: the watched objects, those that passed their checks as
//! typed values, and for those that did not, what is wrong.
//!
//! Not here: blocks, which the allocator keeps ([`crate::addresses`]), and pods, namespaces and
//! policies, which go to [`crate::enforcement`] as they come.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use margay_crds::{
    BGPConfiguration, BGPPeer, BgpSettings, DEFAULT_NAME, FieldError, IPAMConfiguration, IPPool,
    IpamSettings, Peer, Pool,
};

use crate::datastore::{Change, Kind, Mirror, RosterChange};

/// The cluster as this node sees it.
#[derive(Debug, Default)]
pub struct View {
    pools: Mirror<IPPool>,
    ipam: Mirror<IPAMConfiguration>,
    bgp: Mirror<BGPConfiguration>,
    peers: Mirror<BGPPeer>,
    nodes: Mirror<Node>,
    refused: BTreeMap<(Kind, String), Refusal>,
}

/// An object that is not used because of what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The `metadata.generation` that was checked.
    pub generation: Option<i64>,
    /// Every field that is wrong.
    pub errors: Vec<FieldError>,
}

/// A node of the cluster as the network needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// The Node's name.
    pub name: String,
    /// Its InternalIP addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl ClusterNode {
    /// The node's IPv4 address.
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv4)
    }

    /// The node's address in the family of `other`.
    pub fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        let same = |address: &IpAddr| address.is_ipv4() == other.is_ipv4();
        self.addresses.iter().copied().find(same)
    }
}

/// What a change was about, so that only what depends on it is worked out anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewChange {
    /// A pool came, went or changed.
    Pools,
    /// The IPAM settings.
    Ipam,
    /// The BGP settings or a peer.
    Bgp,
    /// A node.
    Nodes,
}

impl View {
    /// Takes in one event. Kinds that are not kept here change nothing.
    pub fn handle(&mut self, change: Change) -> Vec<ViewChange> {
        match change {
            Change::IPPool(event) => {
                let changes = self.pools.handle(event);
                self.check(Kind::IPPool, &changes, |object| object.check().err());
                changes.iter().map(|_| ViewChange::Pools).collect()
            }
            Change::IPAMConfiguration(event) => {
                let changes = self.ipam.handle(event);
                self.check(Kind::IPAMConfiguration, &changes, |object| {
                    object.check().err()
                });
                changes.iter().map(|_| ViewChange::Ipam).collect()
            }
            Change::BGPConfiguration(event) => {
                let changes = self.bgp.handle(event);
                self.check(Kind::BGPConfiguration, &changes, |object| {
                    object.check().err()
                });
                changes.iter().map(|_| ViewChange::Bgp).collect()
            }
            Change::BGPPeer(event) => {
                let changes = self.peers.handle(event);
                self.check(Kind::BGPPeer, &changes, |object| object.check().err());
                changes.iter().map(|_| ViewChange::Bgp).collect()
            }
            Change::Node(event) => {
                let changes = self.nodes.handle(event);
                changes.iter().map(|_| ViewChange::Nodes).collect()
            }
            Change::IPAMBlock(_)
            | Change::Pod(_)
            | Change::Namespace(_)
            | Change::NetworkPolicy(_) => Vec::new(),
        }
    }

    /// Remembers which of the changed objects are wrong, and says so once each.
    fn check<T: ResourceExt>(
        &mut self,
        kind: Kind,
        changes: &[RosterChange<T>],
        wrong: impl Fn(&T) -> Option<Vec<FieldError>>,
    ) {
        for change in changes {
            match change {
                RosterChange::Gone(key) => {
                    self.refused.remove(&(kind, key.clone()));
                }
                RosterChange::Present(key, object) => {
                    let refusal = wrong(object).map(|errors| Refusal {
                        generation: object.meta().generation,
                        errors,
                    });
                    self.set_refusal(kind, key, refusal);
                }
            }
        }
    }

    fn set_refusal(&mut self, kind: Kind, key: &str, refusal: Option<Refusal>) {
        let at = (kind, key.to_owned());
        match refusal {
            None => {
                self.refused.remove(&at);
            }
            Some(refusal) if self.refused.get(&at) != Some(&refusal) => {
                for error in &refusal.errors {
                    tracing::error!("{kind} {key} is ignored: {error}");
                }
                self.refused.insert(at, refusal);
            }
            Some(_) => {}
        }
    }

    /// Whether the first list of every kind kept here has been taken in.
    pub fn is_synced(&self) -> bool {
        self.pools.is_synced()
            && self.ipam.is_synced()
            && self.bgp.is_synced()
            && self.peers.is_synced()
            && self.nodes.is_synced()
    }

    /// The pools that passed their checks.
    pub fn pools(&self) -> Vec<Pool> {
        self.pools
            .values()
            .filter_map(|pool| pool.check().ok())
            .collect()
    }

    /// The pools as written, for their status.
    pub fn pool_objects(&self) -> impl Iterator<Item = &IPPool> {
        self.pools.values()
    }

    /// The peers as written, for their status.
    pub fn peer_objects(&self) -> impl Iterator<Item = &BGPPeer> {
        self.peers.values()
    }

    /// The IPAM settings in force.
    pub fn ipam_settings(&self) -> IpamSettings {
        let object = self.ipam.get(DEFAULT_NAME);
        object
            .and_then(|object| object.check().ok())
            .unwrap_or_default()
    }

    /// The BGP settings in force.
    pub fn bgp_settings(&self) -> BgpSettings {
        let object = self.bgp.get(DEFAULT_NAME);
        object
            .and_then(|object| object.check().ok())
            .unwrap_or_default()
    }

    /// The peers that passed their checks.
    pub fn peers(&self) -> Vec<Peer> {
        self.peers
            .values()
            .filter_map(|peer| peer.check().ok())
            .collect()
    }

    /// The nodes that have an address.
    pub fn nodes(&self) -> Vec<ClusterNode> {
        self.nodes.values().map(cluster_node).collect()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<ClusterNode> {
        self.nodes.get(name).map(cluster_node)
    }

    /// What is wrong with an object, if anything is.
    pub fn refusal(&self, kind: Kind, name: &str) -> Option<&Refusal> {
        self.refused.get(&(kind, name.to_owned()))
    }
}

/// The network's part of a Node: the first InternalIP of each family.
fn cluster_node(node: &Node) -> ClusterNode {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let reported = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    for address in reported.filter(|address| address.type_ == "InternalIP") {
        match address.address.parse::<IpAddr>() {
            Ok(parsed)
                if addresses
                    .iter()
                    .all(|known| known.is_ipv4() != parsed.is_ipv4()) =>
            {
                addresses.push(parsed);
            }
            Ok(_) => {}
            Err(_) => tracing::warn!(
                "Node {}: status.addresses: InternalIP {:?} is not an address, ignored",
                node.name_any(),
                address.address
            ),
        }
    }
    ClusterNode {
        name: node.name_any(),
        addresses,
        labels: node.labels().clone(),
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;

    #[test]
    fn a_wrong_object_is_refused_and_the_rest_is_used() {
        let mut view = View::default();
        let pool = |name: &str, cidr: &str| {
            IPPool::new(
                name,
                serde_json::from_value(serde_json::json!({"cidr": cidr})).unwrap(),
            )
        };
        view.handle(Change::IPPool(Event::Apply(pool("good", "10.0.0.0/16"))));
        view.handle(Change::IPPool(Event::Apply(pool("bad", "10.0.0.1/16"))));
        assert_eq!(view.pools().len(), 1);
        let refusal = view.refusal(Kind::IPPool, "bad").unwrap();
        assert_eq!(refusal.errors[0].path, "spec.cidr");
        assert!(view.refusal(Kind::IPPool, "good").is_none());

        view.handle(Change::IPPool(Event::Apply(pool("bad", "10.1.0.0/16"))));
        assert_eq!(view.pools().len(), 2);
        assert!(view.refusal(Kind::IPPool, "bad").is_none());
    }

    #[test]
    fn a_node_has_one_address_a_family() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n1"},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "InternalIP", "address": "10.0.0.2"},
                {"type": "InternalIP", "address": "fd00::1"},
            ]},
        }))
        .unwrap();
        let mut view = View::default();
        view.handle(Change::Node(Event::Apply(node)));
        let node = view.node("n1").unwrap();
        assert_eq!(node.ipv4().unwrap().to_string(), "10.0.0.1");
        assert_eq!(
            node.address_like("::1".parse().unwrap())
                .unwrap()
                .to_string(),
            "fd00::1"
        );
        assert_eq!(node.addresses.len(), 2);
    }
}
