//! The node's kernel state: tunnels, routes, neighbours, settings and pods' links.
//!
//! Everything is desired → diff → plan → apply: [`DesiredState`] is what should be,
//! [`Dataplane::plan`] compares it with what the kernel holds and gives a [`Plan`] that can be
//! printed, [`Dataplane::apply`] carries it out, goes on past errors and
//! reports each change and each error. The agent runs in the node's network namespace; a pod's
//! namespace is entered only on a thread that ends there.
//!
//! Not here: packet filtering (the policy crate and its table), who gets which address, and
//! which route is best.

mod apply;
mod error;
mod events;
pub mod kernel;
mod link;
mod monitor;
mod neighbours;
mod onlink;
mod plan;
mod pod_check;
pub mod pod_link;
mod resolve;
mod routes;
mod sysctl;
pub mod tunnel;
pub mod uplink;

pub use self::apply::Dataplane;
pub use self::error::{Errno, KernelError};
pub use self::kernel::{FakeKernel, Kernel, Lookup, NetlinkKernel, PodKernel};
pub use self::link::{
    InterfaceAddress, InvalidMac, IpipAttributes, Link, LinkKind, MAX_INTERFACE_NAME, Mac,
    VxlanAttributes,
};
pub use self::monitor::{Changes, KernelEvents, Monitor};
pub use self::neighbours::{
    MacCollision, Neighbour, NeighbourChange, NeighbourKey, VxlanPeer, vtep_mac,
};
pub use self::onlink::{Encapsulation, Invalidator, Reach, ReachCache};
pub use self::plan::{ApplyError, ApplyReport, DesiredState, Plan, PlanProblem, Step};
pub use self::pod_link::PodLink;
pub use self::routes::{
    DesiredRoute, DesiredRoutes, NextHop, ROUTE_PROTOCOL, Route, RouteChange, RouteKey, RouteKind,
    RouteTarget,
};
pub use self::sysctl::{DesiredSysctls, SysctlChange, SysctlTree};
pub use self::tunnel::{TunnelMode, TunnelSpec};
pub use self::uplink::Uplink;

/// Whether an interface is one of Margay's own: a tunnel device or a pod's host interface.
pub fn is_ours(interface: &str) -> bool {
    is_tunnel(interface) || is_pod_interface(interface)
}

/// Whether an interface is one of Margay's tunnel devices.
pub fn is_tunnel(interface: &str) -> bool {
    interface.starts_with("margay.")
}

/// Whether an interface is the node's end of a pod's pair.
pub fn is_pod_interface(interface: &str) -> bool {
    interface
        .strip_prefix(pod_link::HOST_PREFIX)
        .is_some_and(|rest| rest.len() == 11 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests;
