//! The desired routes before the kernel has been asked about next hops.
//!
//! Own blocks are blackholes (pods' own routes are the more specific ones; the routing edge knows
//! the pods, [`crate::pods`]), and every other block the speaker knows leads to its next hops, with the
//! pool's encapsulation where the next hop is a node. A route within one of the node's own blocks
//! is never taken from BGP: the block's owner decides (a `/32` under the block would otherwise
//! draw a local pod's packets away), but for an address of it that the block itself says another
//! node has borrowed. A route that covers the block, such as a router's aggregate,
//! does no harm: the block is the more specific one.
//!
//! Routes to Services are never taken either, whoever announces them: packets for a Service's
//! address are for the node's own service proxy, and a route would draw them to another node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use margay_bgp::speaker::{BestPath, RouteBatch};
use margay_bgp::types::Prefix;
use margay_crds::EncapsulationMode;
use margay_crds::bgp_peer::Remote;
use margay_dataplane::{Encapsulation, TunnelMode};
use margay_ipam::Family;

use crate::reconcile::speaker::{is_for, pool_of};
use crate::services::is_service_space;
use crate::view::{ClusterNode, View};

/// The speaker's best paths by prefix, kept current by its batches.
#[derive(Debug, Default)]
pub struct BestPaths {
    paths: BTreeMap<Prefix, Vec<BestPath>>,
    synced: bool,
}

impl BestPaths {
    /// Takes in a batch.
    pub fn handle(&mut self, batch: RouteBatch) {
        for change in batch.changes {
            if change.paths.is_empty() {
                self.paths.remove(&change.prefix);
            } else {
                self.paths.insert(change.prefix, change.paths);
            }
        }
        self.synced |= batch.synced;
    }

    /// Whether all routes that were there when the batches began have been taken in.
    pub fn is_synced(&self) -> bool {
        self.synced
    }
}

/// A route to another node's block or to what a router announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRoute {
    /// The next hops, in order.
    pub next_hops: BTreeSet<IpAddr>,
    /// Link-local next hops with the indexes of their interfaces: routers of unnumbered links.
    pub on_links: BTreeSet<(IpAddr, u32)>,
    /// When the route goes through a tunnel.
    pub encapsulation: Encapsulation,
    /// The metric that a BGPFilter gave it (`setPriority`); none is the kernel's own.
    pub metric: Option<u32>,
}

/// What the routing edge should bring about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteIntent {
    /// This node's addresses in the underlay, at most one a family.
    pub node_addresses: Vec<IpAddr>,
    /// The other nodes' addresses: the far ends of tunnels.
    pub other_nodes: Arc<BTreeSet<IpAddr>>,
    /// The tunnels that the pools ask for.
    pub tunnels: BTreeSet<TunnelMode>,
    /// This node's addresses on its tunnels.
    pub tunnel_addresses: BTreeMap<TunnelMode, BTreeSet<IpAddr>>,
    /// This node's blocks.
    pub blocks: BTreeSet<IpNetwork>,
    /// Routes learned by BGP.
    pub remote: BTreeMap<IpNetwork, RemoteRoute>,
    /// Leave routes that are not wanted (yet) alone: the sessions are not up again.
    pub keep_unwanted: bool,
}

impl RouteIntent {
    /// The same without a route.
    pub fn clone_without_routes(&self) -> Self {
        Self {
            node_addresses: self.node_addresses.clone(),
            other_nodes: Arc::clone(&self.other_nodes),
            tunnels: self.tunnels.clone(),
            tunnel_addresses: self.tunnel_addresses.clone(),
            blocks: BTreeSet::new(),
            remote: BTreeMap::new(),
            keep_unwanted: self.keep_unwanted,
        }
    }
}

/// The addresses of the nodes other than `own`.
pub fn other_nodes(view: &View, own: Option<&ClusterNode>) -> Arc<BTreeSet<IpAddr>> {
    let Some(own) = own else {
        return Arc::default();
    };
    let others = view.nodes().filter(|other| other.name != own.name);
    let addresses = others.flat_map(|other| other.addresses.iter().copied());
    let addresses = addresses.filter(|address| !own.addresses.contains(address));
    Arc::new(addresses.collect())
}

/// Works out the intent of the node `own` with its blocks and the addresses of these that other
/// nodes have borrowed.
pub fn intent(
    view: &View,
    own: &ClusterNode,
    other_nodes: Arc<BTreeSet<IpAddr>>,
    (own_blocks, lent): (&[IpNetwork], &BTreeSet<IpAddr>),
    best: &BestPaths,
    keep_unwanted: bool,
) -> RouteIntent {
    let pools = view.pools();
    let services = &view.bgp_settings().services;
    let blocks: BTreeSet<IpNetwork> = own_blocks.iter().copied().collect();
    let encapsulation_of = |destination: &IpNetwork, next_hops: &BTreeSet<IpAddr>| {
        // Only a node ends our tunnels; a router beyond the segment is reached as IP reaches it.
        if !next_hops.iter().all(|hop| other_nodes.contains(hop)) {
            return Encapsulation::Never;
        }
        let pool = pool_of(pools, destination.ip());
        pool.map_or(Encapsulation::Never, |pool| {
            encapsulation(pool.ipip_mode, pool.vxlan_mode)
        })
    };
    let learned = best.paths.iter().filter_map(|(prefix, paths)| {
        let destination = IpNetwork::from(*prefix);
        if paths.iter().any(|path| path.local) {
            return None;
        }
        let is_lent = is_host(destination) && lent.contains(&destination.ip());
        if !is_lent && blocks.iter().any(|block| is_within(destination, *block)) {
            return None;
        }
        if is_service_space(prefix, services, pools) {
            return None;
        }
        // The scope is the interface's index, where the next hop means nothing without one.
        let (linked, routed): (Vec<&BestPath>, Vec<&BestPath>) =
            paths.iter().partition(|path| path.scope != 0);
        let on_links = linked.iter().map(|path| (path.next_hop, path.scope));
        let on_links: BTreeSet<(IpAddr, u32)> = on_links.collect();
        let next_hops: BTreeSet<IpAddr> = routed.iter().map(|path| path.next_hop).collect();
        let encapsulation = match on_links.is_empty() {
            true => encapsulation_of(&destination, &next_hops),
            false => Encapsulation::Never,
        };
        let route = RemoteRoute {
            next_hops,
            on_links,
            encapsulation,
            metric: paths.first().and_then(|best| best.metric),
        };
        Some((destination, route))
    });
    let mut remote: BTreeMap<IpNetwork, RemoteRoute> = learned.collect();
    remote.extend(ways_to_peers(view, own));
    let tunnels = pools
        .iter()
        .filter_map(
            |pool| match encapsulation(pool.ipip_mode, pool.vxlan_mode) {
                Encapsulation::Never => None,
                Encapsulation::CrossSubnet(mode) | Encapsulation::Always(mode) => Some(mode),
            },
        )
        .collect();
    RouteIntent {
        node_addresses: own.addresses.clone(),
        other_nodes,
        tunnels,
        tunnel_addresses: BTreeMap::new(),
        blocks,
        remote,
        keep_unwanted,
    }
}

fn is_host(range: IpNetwork) -> bool {
    range.prefix() == if range.is_ipv4() { 32 } else { 128 }
}

/// The tunnels that pools ask for, each with the families of these pools: the node needs an
/// address of each on the tunnel.
pub fn tunnel_families(view: &View) -> BTreeSet<(TunnelMode, Family)> {
    let pools = view.pools().iter();
    let all = pools.filter_map(
        |pool| match encapsulation(pool.ipip_mode, pool.vxlan_mode) {
            Encapsulation::Never => None,
            Encapsulation::CrossSubnet(mode) | Encapsulation::Always(mode) => {
                Some((mode, Family::of_range(pool.cidr)))
            }
        },
    );
    all.collect()
}

/// Routes to routers that a BGPPeer says are reached by a gateway (`reachableBy`).
fn ways_to_peers(view: &View, own: &ClusterNode) -> impl Iterator<Item = (IpNetwork, RemoteRoute)> {
    let peers = view.peers().iter().filter(|peer| is_for(peer, own));
    peers.filter_map(|peer| {
        let Remote::Address { address, .. } = &peer.remote else {
            return None;
        };
        let route = RemoteRoute {
            next_hops: [peer.reachable_by?].into(),
            on_links: BTreeSet::new(),
            encapsulation: Encapsulation::Never,
            metric: None,
        };
        Some((IpNetwork::from(address.ip()), route))
    })
}

/// Whether every address of `inner` is one of `outer`.
fn is_within(inner: IpNetwork, outer: IpNetwork) -> bool {
    inner.prefix() >= outer.prefix() && outer.contains(inner.network())
}

/// The two modes of a pool, of which the check allows one, as one.
fn encapsulation(ipip: EncapsulationMode, vxlan: EncapsulationMode) -> Encapsulation {
    let of = |mode, tunnel| match mode {
        EncapsulationMode::Never => None,
        EncapsulationMode::CrossSubnet => Some(Encapsulation::CrossSubnet(tunnel)),
        EncapsulationMode::Always => Some(Encapsulation::Always(tunnel)),
    };
    of(ipip, TunnelMode::Ipip)
        .or_else(|| of(vxlan, TunnelMode::Vxlan))
        .unwrap_or(Encapsulation::Never)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use kube::runtime::watcher::Event;
    use margay_bgp::speaker::RouteChange;
    use margay_crds::{BGPConfiguration, IPPool};

    use super::*;
    use crate::datastore::Change;

    fn view() -> View {
        let mut view = View::default();
        for (name, address) in [("n1", "10.0.0.1"), ("n2", "10.0.0.2")] {
            let node: Node = serde_json::from_value(serde_json::json!({
                "metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]},
            }))
            .unwrap();
            view.handle(Change::Node(Event::Apply(node)));
        }
        let spec = serde_json::json!({"cidr": "10.244.0.0/16", "vxlanMode": "CrossSubnet"});
        let pool = IPPool::new("p", serde_json::from_value(spec).unwrap());
        view.handle(Change::IPPool(Event::Apply(pool)));
        view
    }

    fn intent_of_n1(best: &BestPaths) -> RouteIntent {
        let view = view();
        let own = view.node("n1").unwrap();
        let blocks = ["10.244.1.0/26".parse().unwrap()];
        let lent = ["10.244.1.9".parse().unwrap()].into();
        let others = other_nodes(&view, Some(own));
        intent(&view, own, others, (&blocks, &lent), best, false)
    }

    fn learned(routes: &[(&str, &str)]) -> BestPaths {
        let mut best = BestPaths::default();
        let changes = routes.iter().map(|(prefix, next_hop)| RouteChange {
            prefix: prefix.parse().unwrap(),
            paths: vec![BestPath {
                next_hop: next_hop.parse().unwrap(),
                scope: 0,
                peer: next_hop.parse().unwrap(),
                internal: true,
                local: false,
                local_pref: 100,
                metric: None,
                med: None,
                as_path_length: 0,
                aggregate: false,
                weight: 1,
            }],
        });
        best.handle(RouteBatch {
            changes: changes.collect(),
            synced: true,
        });
        best
    }

    #[test]
    fn a_nodes_block_may_be_tunnelled_and_a_routers_route_may_not() {
        let best = learned(&[
            ("10.244.2.0/26", "10.0.0.2"),
            ("10.244.3.0/26", "10.0.0.254"),
        ]);
        let intent = intent_of_n1(&best);
        let of = |text: &str| intent.remote[&text.parse().unwrap()].encapsulation;
        assert_eq!(
            of("10.244.2.0/26"),
            Encapsulation::CrossSubnet(TunnelMode::Vxlan)
        );
        assert_eq!(of("10.244.3.0/26"), Encapsulation::Never);
        assert_eq!(intent.tunnels, BTreeSet::from([TunnelMode::Vxlan]));
        assert_eq!(intent.blocks.len(), 1);
    }

    #[test]
    fn nothing_learned_overrides_a_local_block() {
        let best = learned(&[("10.244.1.7/32", "10.0.0.2"), ("10.244.1.0/26", "10.0.0.2")]);
        let intent = intent_of_n1(&best);
        assert!(intent.remote.is_empty(), "{:?}", intent.remote);
    }

    #[test]
    fn a_lent_address_is_reached_where_it_is_used() {
        let best = learned(&[("10.244.1.9/32", "10.0.0.2"), ("10.244.1.8/31", "10.0.0.2")]);
        let intent = intent_of_n1(&best);
        let taken: Vec<String> = intent.remote.keys().map(ToString::to_string).collect();
        assert_eq!(taken, ["10.244.1.9/32"]);
    }

    #[test]
    fn a_router_behind_a_gateway_gets_a_route() {
        let mut view = view();
        let spec = serde_json::json!({
            "node": "n1", "peerIP": "192.0.2.1", "asNumber": 65001, "reachableBy": "10.0.0.254",
        });
        let peer = margay_crds::BGPPeer::new("tor", serde_json::from_value(spec).unwrap());
        view.handle(Change::BGPPeer(Event::Apply(peer)));
        let of = |name| {
            let own = view.node(name).unwrap();
            intent(
                &view,
                own,
                other_nodes(&view, Some(own)),
                (&[], &BTreeSet::new()),
                &BestPaths::default(),
                false,
            )
        };
        let route = &of("n1").remote[&"192.0.2.1/32".parse().unwrap()];
        assert_eq!(route.next_hops, ["10.0.0.254".parse().unwrap()].into());
        assert_eq!(route.encapsulation, Encapsulation::Never);
        assert!(of("n2").remote.is_empty());
    }

    #[test]
    fn no_route_to_a_service_is_taken() {
        let mut view = view();
        let spec = serde_json::json!({
            "serviceClusterIPs": [{"cidr": "10.96.0.0/16"}],
            "serviceLoadBalancerIPs": [{"cidr": "10.244.200.0/24"}],
        });
        let settings = BGPConfiguration::new("default", serde_json::from_value(spec).unwrap());
        view.handle(Change::BGPConfiguration(Event::Apply(settings)));
        let best = learned(&[
            ("10.96.0.0/16", "10.0.0.2"),
            ("10.96.0.7/32", "10.0.0.2"),
            ("10.244.200.7/32", "10.0.0.254"),
            ("10.244.2.0/26", "10.0.0.2"),
        ]);
        let own = view.node("n1").unwrap();
        let intent = intent(
            &view,
            own,
            other_nodes(&view, Some(own)),
            (&["10.244.1.0/26".parse().unwrap()], &BTreeSet::new()),
            &best,
            false,
        );
        let taken: Vec<String> = intent.remote.keys().map(ToString::to_string).collect();
        assert_eq!(taken, ["10.244.2.0/26"]);
    }

    #[test]
    fn a_link_local_next_hop_keeps_its_interface_and_takes_no_tunnel() {
        let path = |next_hop: &str, scope| BestPath {
            next_hop: next_hop.parse().unwrap(),
            scope,
            peer: next_hop.parse().unwrap(),
            internal: false,
            local: false,
            local_pref: 100,
            metric: None,
            med: None,
            as_path_length: 1,
            aggregate: false,
            weight: 1,
        };
        let mut best = BestPaths::default();
        best.handle(RouteBatch {
            changes: vec![RouteChange {
                prefix: "10.244.2.0/26".parse().unwrap(),
                // One router on two links, and a node beside it.
                paths: vec![path("fe80::1", 3), path("fe80::1", 4), path("10.0.0.2", 0)],
            }],
            synced: true,
        });
        let intent = intent_of_n1(&best);
        let route = &intent.remote[&"10.244.2.0/26".parse().unwrap()];
        let router = "fe80::1".parse().unwrap();
        assert_eq!(route.on_links, [(router, 3), (router, 4)].into());
        assert_eq!(route.next_hops, ["10.0.0.2".parse().unwrap()].into());
        assert_eq!(route.encapsulation, Encapsulation::Never);
    }

    #[test]
    fn an_aggregate_over_a_local_block_is_taken() {
        let best = learned(&[("10.244.0.0/16", "10.0.0.254")]);
        let intent = intent_of_n1(&best);
        assert_eq!(intent.remote.len(), 1);
    }
}
