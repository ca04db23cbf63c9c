//! From wanted routes to routes with every name resolved: what is possible with the links there
//! are, and in words why something is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::link::Link;
use super::onlink::Reach;
use super::routes::{NextHop, RouteTarget};
use super::tunnel::{IPIP_DEVICE, TunnelChange};

/// What the links will be once the tunnels are as planned.
pub(super) struct View<'a> {
    /// None where the kernel was not asked.
    links: Option<BTreeMap<&'a str, &'a Link>>,
    /// Devices that will be made: nothing is on them yet.
    pub(super) fresh: BTreeSet<&'a str>,
    /// Devices that are there and will be made anew.
    pub(super) recreated: BTreeSet<&'a str>,
}

impl<'a> View<'a> {
    pub(super) fn new(links: &'a [Link], tunnels: &'a [TunnelChange]) -> Self {
        let mut fresh = BTreeSet::new();
        let mut recreated = BTreeSet::new();
        for change in tunnels {
            match change {
                TunnelChange::Create(spec) => {
                    fresh.insert(spec.name.as_str());
                }
                TunnelChange::Recreate { spec, .. } => {
                    fresh.insert(spec.name.as_str());
                    recreated.insert(spec.name.as_str());
                }
                TunnelChange::Set { .. }
                | TunnelChange::Address { .. }
                | TunnelChange::Remove { .. } => {}
            }
        }
        let links = links.iter().map(|link| (link.name.as_str(), link));
        Self {
            links: Some(links.collect()),
            fresh,
            recreated,
        }
    }

    /// The links are as whoever wants routes out of them says. Where that is wrong the kernel
    /// refuses the route.
    pub(super) fn unasked() -> Self {
        Self {
            links: None,
            fresh: BTreeSet::new(),
            recreated: BTreeSet::new(),
        }
    }

    pub(super) fn usable(&self, interface: &str) -> Result<(), String> {
        let Some(links) = &self.links else {
            return Ok(());
        };
        match links.get(interface) {
            None => Err(format!("interface {interface} does not exist")),
            Some(link) if !link.up => Err(format!("interface {interface} is down")),
            Some(_) => Ok(()),
        }
    }
}

/// The next hops of a route through a tunnel device, or why it cannot be.
pub(super) fn tunnelled(
    destination: IpNetwork,
    device: &str,
    next_hops: &[IpAddr],
    view: &View<'_>,
) -> Result<RouteTarget, String> {
    if next_hops.is_empty() {
        return Err("it has no next hop".to_owned());
    }
    if device == IPIP_DEVICE && (destination.is_ipv6() || next_hops.iter().any(IpAddr::is_ipv6)) {
        return Err("ipip carries IPv4 over IPv4 only: use vxlan for IPv6 pools".to_owned());
    }
    if destination.is_ipv6() && next_hops.iter().any(IpAddr::is_ipv4) {
        return Err("an IPv6 route needs the node's IPv6 address as next hop".to_owned());
    }
    let exists = |links: &BTreeMap<&str, &Link>| links.contains_key(device);
    let known = view.links.as_ref().is_none_or(exists) || view.fresh.contains(device);
    if !known {
        return Err(format!(
            "tunnel device {device} is not there and not among the wanted tunnels"
        ));
    }
    let hops = next_hops.iter().map(|gateway| NextHop {
        gateway: *gateway,
        interface: device.to_owned(),
        onlink: true,
        extra_weight: 0,
    });
    Ok(RouteTarget::next_hops(hops))
}

/// The next hops whose interface is up, or why there is none.
pub(super) fn unnumbered(
    next_hops: &[(IpAddr, String)],
    view: &View<'_>,
) -> Result<RouteTarget, String> {
    let mut hops = BTreeSet::new();
    let mut reasons = Vec::new();
    for (gateway, interface) in next_hops {
        match view.usable(interface) {
            Ok(()) => {
                hops.insert(NextHop {
                    gateway: *gateway,
                    interface: interface.clone(),
                    onlink: false,
                    extra_weight: 0,
                });
            }
            Err(reason) => reasons.push(reason),
        }
    }
    if hops.is_empty() {
        if reasons.is_empty() {
            reasons.push("it has no next hop".to_owned());
        }
        return Err(reasons.join("; "));
    }
    Ok(RouteTarget::next_hops(hops))
}

/// Why a next hop cannot be that of a direct route, and the way out.
pub(super) fn not_on_link(next_hop: IpAddr, reach: &Reach) -> String {
    match reach {
        Reach::Via { gateway, interface } => format!(
            "next hop {next_hop} shares no segment with this node (it is behind {gateway} on {interface}): use a tunnel, or announce the route with a next hop of this segment"
        ),
        Reach::Local => format!("next hop {next_hop} is this node itself"),
        Reach::Unreachable | Reach::OnLink { .. } => {
            format!("next hop {next_hop} cannot be reached")
        }
    }
}
