//! Routes: what Margay wants in table main, compared with what the kernel holds under
//! Margay's protocol number.
//!
//! Pure: resolving an interface or a next hop is [`super::onlink`]'s, talking to the kernel is
//! [`super::kernel`]'s. A route without protocol 90 never enters this module, so it can be
//! neither replaced nor removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

/// The protocol number of every route that Margay installs (`rtm_protocol`).
pub const ROUTE_PROTOCOL: u8 = 90;

/// The metric a route gets in the kernel when none is asked for: 0 for IPv4, 1024 for IPv6.
pub(super) fn default_metric(destination: &IpNetwork) -> u32 {
    if destination.is_ipv4() { 0 } else { 1024 }
}

/// Where packets of a desired route go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteKind {
    /// Nowhere: the node's own block, of which pods' routes are the more specific ones.
    Blackhole,
    /// Out of an interface without a next hop: a pod's address.
    Link {
        /// The interface's name.
        interface: String,
    },
    /// Through next hops on a shared segment; several share the load.
    Direct {
        /// The next hops, each of which the kernel must find on-link.
        next_hops: Vec<IpAddr>,
    },
    /// Through next hops whose interface is known, not looked up: link-local ones of unnumbered
    /// peers, behind which IPv4 destinations may lie too (RFC 8950).
    Unnumbered {
        /// Each next hop with the name of its interface; several share the load.
        next_hops: Vec<(IpAddr, String)>,
    },
    /// Through a tunnel device to nodes that share no segment with this one.
    Tunnel {
        /// The tunnel device's name.
        device: String,
        /// The far ends; several share the load.
        next_hops: Vec<IpAddr>,
    },
}

/// One desired route, apart from its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredRoute {
    /// Where packets go.
    pub kind: RouteKind,
    /// The source address for packets the node itself sends (prefsrc); none leaves it to the
    /// kernel. It must be an address of this node.
    pub source: Option<IpAddr>,
    /// The metric; none is [the kernel's own](Route::new).
    pub metric: Option<u32>,
}

/// The routes Margay wants, one a destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredRoutes {
    routes: BTreeMap<IpNetwork, DesiredRoute>,
}

impl DesiredRoutes {
    /// No routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wants `destination` to go to `kind`, in place of whatever was wanted for it before.
    /// Host bits of the destination are dropped.
    pub fn insert(&mut self, destination: IpNetwork, kind: RouteKind) {
        self.insert_with_source(destination, kind, None);
    }

    /// As [`Self::insert`], with a preferred source address.
    pub fn insert_with_source(
        &mut self,
        destination: IpNetwork,
        kind: RouteKind,
        source: Option<IpAddr>,
    ) {
        let metric = None;
        let route = DesiredRoute {
            kind,
            source,
            metric,
        };
        self.insert_route(destination, route);
    }

    /// As [`Self::insert`], with all there is to say of a route.
    pub fn insert_route(&mut self, destination: IpNetwork, route: DesiredRoute) {
        self.routes.insert(normal(destination), route);
    }

    /// No longer wants `destination`.
    pub fn remove(&mut self, destination: IpNetwork) -> Option<DesiredRoute> {
        self.routes.remove(&normal(destination))
    }

    /// The wanted routes in order of destination.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNetwork, &DesiredRoute)> {
        self.routes.iter()
    }

    /// How many routes are wanted.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether no route is wanted.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

/// The network without host bits.
fn normal(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

/// One way out of a route that has next hops.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The next hop's address.
    pub gateway: IpAddr,
    /// The interface.
    pub interface: String,
    /// Whether the kernel is told to take the next hop as on-link without asking its table.
    pub onlink: bool,
    /// Its share of the load beside the route's other next hops, less one: 0 to 255 for weights
    /// of 1 to 256. Without other next hops the kernel keeps none, and it must be 0.
    pub extra_weight: u8,
}

/// Where packets of a route in the kernel go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteTarget {
    /// Nowhere.
    Blackhole,
    /// Out of an interface without a next hop.
    Link {
        /// The interface's name.
        interface: String,
    },
    /// Through next hops. Shared: most routes of a table go through the same ones.
    NextHops(Arc<BTreeSet<NextHop>>),
    /// Something that Margay never installs, in words; always differs from what is wanted.
    Other(String),
}

impl RouteTarget {
    /// Through these next hops.
    pub fn next_hops(hops: impl IntoIterator<Item = NextHop>) -> Self {
        Self::NextHops(Arc::new(hops.into_iter().collect()))
    }
}

/// A route as the kernel holds it or is to hold it: every name resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination, without host bits.
    pub destination: IpNetwork,
    /// The metric; unless asked for another, 0 for IPv4 and 1024 for IPv6.
    pub metric: u32,
    /// The type of service; Margay installs only 0.
    pub tos: u8,
    /// Where packets go.
    pub target: RouteTarget,
    /// The preferred source address.
    pub source: Option<IpAddr>,
}

impl Route {
    /// A route with the metric and type of service Margay uses.
    pub fn new(destination: IpNetwork, target: RouteTarget) -> Self {
        Self {
            destination: normal(destination),
            metric: default_metric(&destination),
            tos: 0,
            target,
            source: None,
        }
    }

    /// What tells this route from others of the same table.
    pub fn key(&self) -> RouteKey {
        RouteKey {
            destination: self.destination,
            metric: self.metric,
            tos: self.tos,
        }
    }

    /// The interfaces the route leads out of.
    pub fn interfaces(&self) -> Vec<&str> {
        match &self.target {
            RouteTarget::Link { interface } => vec![interface],
            RouteTarget::NextHops(hops) => hops.iter().map(|h| h.interface.as_str()).collect(),
            RouteTarget::Blackhole | RouteTarget::Other(_) => Vec::new(),
        }
    }
}

/// Routes with equal keys exclude each other in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// The destination.
    pub destination: IpNetwork,
    /// The metric.
    pub metric: u32,
    /// The type of service.
    pub tos: u8,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if self.tos != 0 {
            write!(f, " tos {:#x}", self.tos)?;
        }
        if self.metric != default_metric(&self.destination) {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            RouteTarget::Blackhole => write!(f, "blackhole {}", self.key())?,
            RouteTarget::Link { interface } => {
                write!(f, "{} dev {interface} scope link", self.key())?;
            }
            RouteTarget::NextHops(hops) => {
                write!(f, "{}", self.key())?;
                for hop in hops.iter() {
                    let separator = if hops.len() > 1 { " nexthop" } else { "" };
                    write!(f, "{separator} via {} dev {}", hop.gateway, hop.interface)?;
                    if hop.onlink {
                        f.write_str(" onlink")?;
                    }
                    if hop.extra_weight != 0 {
                        write!(f, " weight {}", u16::from(hop.extra_weight) + 1)?;
                    }
                }
            }
            RouteTarget::Other(what) => write!(f, "{what} {}", self.key())?,
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        Ok(())
    }
}

/// One change to the route table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChange {
    /// Put in a route whose key has none of ours as far as is known. Refused when a route of
    /// another owner has the key: a plain replace would silently overwrite that one. A route of
    /// ours that turns out to be there is replaced.
    Add(Route),
    /// Put a route in place of ours with the same key, without a moment in between.
    Replace(Route),
    /// Take out our route with this key.
    Delete(RouteKey),
}

impl RouteChange {
    /// The key of the route concerned.
    pub fn key(&self) -> RouteKey {
        match self {
            Self::Add(route) | Self::Replace(route) => route.key(),
            Self::Delete(key) => *key,
        }
    }
}

impl fmt::Display for RouteChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(route) => write!(f, "route add {route}"),
            Self::Replace(route) => write!(f, "route replace {route}"),
            Self::Delete(key) => write!(f, "route delete {key}"),
        }
    }
}

/// What turns `actual` (our routes in the kernel) into `desired`.
///
/// Every addition and replacement comes before every deletion: a packet that a route about to go
/// would have carried finds the one that takes over already in place.
pub(super) fn diff(desired: &[Route], actual: &[Route]) -> Vec<RouteChange> {
    let mut present: BTreeMap<RouteKey, &Route> = BTreeMap::new();
    for route in actual {
        present.insert(route.key(), route);
    }
    let mut changes = Vec::new();
    for route in desired {
        match present.remove(&route.key()) {
            None => changes.push(RouteChange::Add(route.clone())),
            Some(now) if now != route => changes.push(RouteChange::Replace(route.clone())),
            Some(_) => {}
        }
    }
    changes.extend(present.into_keys().map(RouteChange::Delete));
    changes
}
