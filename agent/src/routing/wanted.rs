//! From an intent to a desired state: what only the kernel can tell is added here, the uplink and
//! its MTU, which tunnels it can make, and which next hops are on-link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_crds::node_status::RouteCounts;
use margay_dataplane::tunnel::TunnelChange;
use margay_dataplane::uplink::{self, Uplink};
use margay_dataplane::{
    Dataplane, DesiredRoute, DesiredState, DesiredSysctls, Kernel, KernelError, Plan, Reach,
    RouteChange, RouteKind, Step, TunnelMode, TunnelSpec, VxlanPeer,
};

use crate::pods::PodRoutes;
use crate::reconcile::routes::{RemoteRoute, RouteIntent};

/// A desired state with what it means for people.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) state: DesiredState,
    pub(super) pod_mtu: Option<u32>,
    /// The uplink could not be found, so that nothing new is known of the MTU either.
    pub(super) unsure_uplink: bool,
    /// What could not be worked out, in words.
    pub(super) problems: Vec<String>,
    /// Destinations left out because the kernel could not be asked: what it holds for them stays.
    pub(super) unsure_routes: BTreeSet<IpNetwork>,
    /// The same of tunnels: those there are stay.
    pub(super) unsure_tunnels: bool,
}

impl Wanted {
    /// Takes the removals out of a plan that nobody can be sure of: those of things that could
    /// not be worked out, and while sessions are not up again (`keep_unwanted`), those of
    /// anything that an earlier agent left.
    pub(super) fn spare(&self, plan: &mut Plan, keep_unwanted: bool) {
        plan.steps.retain(|step| match step {
            Step::Route(RouteChange::Delete(key)) => {
                !keep_unwanted && !self.unsure_routes.contains(&key.destination)
            }
            Step::Tunnel(TunnelChange::Remove { .. }) => !keep_unwanted && !self.unsure_tunnels,
            _ => true,
        });
    }

    /// The routes by kind, but for those that `failed`.
    pub(super) fn counts(&self, failed: &BTreeSet<IpNetwork>) -> RouteCounts {
        let mut counts = RouteCounts::default();
        let routes = self.state.routes.iter();
        for (_, route) in routes.filter(|(destination, _)| !failed.contains(destination)) {
            match &route.kind {
                RouteKind::Blackhole => counts.blackhole += 1,
                RouteKind::Link { .. } => counts.local += 1,
                RouteKind::Tunnel { .. } => counts.tunnelled += 1,
                RouteKind::Direct { .. } | RouteKind::Unnumbered { .. } => counts.direct += 1,
            }
        }
        counts
    }
}

/// Works out the desired state of an intent and the pods, asking the kernel about next hops and
/// the uplink. What cannot be worked out is left out and named.
pub(super) async fn wanted<K: Kernel>(
    dataplane: &mut Dataplane<K>,
    intent: &RouteIntent,
    pods: &PodRoutes,
) -> Wanted {
    let mut wanted = Wanted::default();
    let has = |test: fn(&IpAddr) -> bool| intent.node_addresses.iter().any(test);
    wanted.state.sysctls = DesiredSysctls::for_node(has(IpAddr::is_ipv4), has(IpAddr::is_ipv6));
    add_uplink(dataplane, intent, &mut wanted).await;
    for block in &intent.blocks {
        wanted.state.routes.insert(*block, RouteKind::Blackhole);
    }
    for (address, interface) in pods {
        let kind = RouteKind::Link {
            interface: interface.clone(),
        };
        wanted.state.routes.insert((*address).into(), kind);
    }
    add_remote(dataplane, intent, &mut wanted).await;
    wanted
}

/// The routes of an intent alone, without those of pods: what [`wanted`] has of them.
pub(super) async fn routes_alone<K: Kernel>(
    dataplane: &mut Dataplane<K>,
    intent: &RouteIntent,
) -> Wanted {
    let mut wanted = Wanted::default();
    for block in &intent.blocks {
        wanted.state.routes.insert(*block, RouteKind::Blackhole);
    }
    add_remote(dataplane, intent, &mut wanted).await;
    wanted
}

async fn add_uplink<K: Kernel>(
    dataplane: &mut Dataplane<K>,
    intent: &RouteIntent,
    wanted: &mut Wanted,
) {
    let Some(address) = intent.node_addresses.first() else {
        wanted.unsure_uplink = true;
        wanted.unsure_tunnels = true;
        return;
    };
    match uplink::find(dataplane.kernel(), *address).await {
        Ok(uplink) => {
            add_tunnels(dataplane, intent, &uplink, wanted).await;
            let tunnels = wanted.state.tunnels.iter();
            let modes: Vec<TunnelMode> = tunnels.map(|spec| spec.mode).collect();
            match uplink.pod_mtu(&modes) {
                Ok(mtu) => wanted.pod_mtu = Some(mtu),
                Err(error) => wanted.problems.push(error.to_string()),
            }
        }
        Err(error) => {
            wanted.unsure_uplink = true;
            wanted.unsure_tunnels = true;
            wanted.problems.push(error.to_string());
        }
    }
}

async fn add_remote<K: Kernel>(
    dataplane: &mut Dataplane<K>,
    intent: &RouteIntent,
    wanted: &mut Wanted,
) {
    let mut reached = BTreeMap::new();
    let mut links = Links::default();
    for (destination, route) in &intent.remote {
        let mut hops = Vec::new();
        for hop in &route.next_hops {
            match reach(dataplane, &mut reached, *hop).await {
                Ok(reach) => hops.push((*hop, reach)),
                Err(error) => {
                    let problem = format!("route {destination}: next hop {hop}: {error}");
                    wanted.problems.push(problem);
                    wanted.unsure_routes.insert(*destination);
                }
            }
        }
        let kind = if route.on_links.is_empty() {
            if hops.is_empty() {
                continue;
            }
            route.encapsulation.route_kind(&hops)
        } else {
            match links.of(dataplane).await {
                Ok(links) => over_links(route, &hops, links),
                Err(error) => {
                    let problem = format!("route {destination}: {error}");
                    wanted.problems.push(problem);
                    wanted.unsure_routes.insert(*destination);
                    continue;
                }
            }
        };
        let source = source(intent, &kind, *destination);
        let desired = DesiredRoute {
            kind,
            source,
            metric: route.metric,
        };
        wanted.state.routes.insert_route(*destination, desired);
    }
}

/// The names of the links by index, asked once a pass, and only if somebody needs them.
#[derive(Default)]
struct Links(Option<BTreeMap<u32, String>>);

impl Links {
    async fn of<K: Kernel>(
        &mut self,
        dataplane: &Dataplane<K>,
    ) -> Result<&BTreeMap<u32, String>, KernelError> {
        if self.0.is_none() {
            let all = dataplane.kernel().links().await?.into_iter();
            self.0 = Some(all.map(|link| (link.index, link.name)).collect());
        }
        Ok(self.0.get_or_insert_default())
    }
}

/// The next hops with their interfaces: link-local ones on the links they were heard on, and
/// beside them others that share a segment with this node. One that is farther away is left out
/// as long as there is a nearer one.
fn over_links(
    route: &RemoteRoute,
    hops: &[(IpAddr, Reach)],
    links: &BTreeMap<u32, String>,
) -> RouteKind {
    let linked = route.on_links.iter().map(|(address, index)| {
        let name = links.get(index).cloned();
        (*address, name.unwrap_or_else(|| format!("number {index}")))
    });
    let near = hops.iter().filter_map(|(address, reach)| match reach {
        Reach::OnLink { interface } => Some((*address, interface.clone())),
        Reach::Local | Reach::Via { .. } | Reach::Unreachable => None,
    });
    RouteKind::Unnumbered {
        next_hops: linked.chain(near).collect(),
    }
}

/// The source of what the node itself sends there: through a tunnel its address on the tunnel, to
/// which the answer comes back by the tunnel too; otherwise, and while it has none, its own.
fn source(intent: &RouteIntent, kind: &RouteKind, destination: IpNetwork) -> Option<IpAddr> {
    let same_family = |own: &&IpAddr| own.is_ipv4() == destination.is_ipv4();
    let on_tunnel = match kind {
        RouteKind::Tunnel { device, .. } => {
            let mut all = intent.tunnel_addresses.iter();
            let found = all.find(|(mode, _)| mode.device() == device);
            found.and_then(|(_, addresses)| addresses.iter().find(same_family))
        }
        _ => None,
    };
    let own = || intent.node_addresses.iter().find(same_family);
    on_tunnel.or_else(own).copied()
}

/// The answer for a next hop, asked once a pass: many blocks share one.
async fn reach<K: Kernel>(
    dataplane: &mut Dataplane<K>,
    known: &mut BTreeMap<IpAddr, Reach>,
    hop: IpAddr,
) -> Result<Reach, KernelError> {
    if let Some(reach) = known.get(&hop) {
        return Ok(reach.clone());
    }
    let reach = dataplane.reach(hop).await?;
    known.insert(hop, reach.clone());
    Ok(reach)
}

async fn add_tunnels<K: Kernel>(
    dataplane: &mut Dataplane<K>,
    intent: &RouteIntent,
    uplink: &Uplink,
    wanted: &mut Wanted,
) {
    let Wanted {
        state, problems, ..
    } = wanted;
    for mode in &intent.tunnels {
        match dataplane.supports(*mode).await {
            Ok(true) => {}
            Ok(false) => {
                problems.push(format!(
                    "this kernel has no {mode}: blocks behind another segment are unreachable; \
                     load the module, or use the other tunnel mode in the IPPool"
                ));
                continue;
            }
            Err(error) => {
                wanted.unsure_tunnels = true;
                problems.push(error.to_string());
                continue;
            }
        }
        match TunnelSpec::new(*mode, uplink.address, uplink.mtu) {
            Ok(mut spec) => {
                spec.addresses = intent
                    .tunnel_addresses
                    .get(mode)
                    .cloned()
                    .unwrap_or_default();
                state.tunnels.push(spec);
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    if !state.tunnels.is_empty() && dataplane.sysctls().strict_everywhere().unwrap_or(false) {
        problems.push(
            "net.ipv4.conf.all.rp_filter is not 0: what nodes themselves send to pods behind a \
             tunnel is dropped; set it to 0 and the interfaces' own rp_filter as wanted"
                .to_owned(),
        );
    }
    if state
        .tunnels
        .iter()
        .any(|spec| spec.mode == TunnelMode::Vxlan)
    {
        let same_family = |node: &&IpAddr| node.is_ipv4() == uplink.address.is_ipv4();
        let far_ends = intent.other_nodes.iter().filter(same_family);
        state.vxlan_peers = far_ends.map(|node| VxlanPeer::new(*node)).collect();
    }
}
