//! The kernel's edge: the few things the dataplane asks of it, as traits.
//!
//! [`NetlinkKernel`] asks the real one over rtnetlink, in the network namespace of the thread
//! that opened it; [`FakeKernel`] is a complete one in memory that refuses what the real one
//! refuses and prints itself as text. No decision is taken on this side of the traits.

mod batch;
mod fake;
mod message;
mod names;
mod netlink;
mod netlink_pod;
mod netlink_routes;
mod next_hop_objects;
mod route_message;
mod socket;

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;

pub use self::fake::FakeKernel;
pub use self::netlink::NetlinkKernel;
use super::error::KernelError;
use super::link::{InterfaceAddress, Link, Mac};
use super::neighbours::{Neighbour, NeighbourChange};
use super::pod_link::{PodSide, PodSideState};
use super::routes::{Route, RouteChange};
use super::sysctl::{DesiredSysctls, SysctlTree};
use super::tunnel::TunnelSpec;

/// What the kernel says about the way to an address (RTM_GETROUTE with a destination).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// It is an address of this node.
    Local,
    /// Out of an interface, through a gateway or straight.
    Unicast {
        /// The interface's name.
        interface: String,
        /// The gateway; none means the address is on the link.
        gateway: Option<IpAddr>,
        /// The source address the kernel would choose.
        source: Option<IpAddr>,
    },
    /// No way: unreachable, prohibited, or swallowed by a blackhole.
    None,
}

/// A change to a link that exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// A new MTU in bytes.
    pub mtu: Option<u32>,
    /// Set up or down.
    pub up: Option<bool>,
}

/// A veth pair to make, its far end straight in another namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethSpec<'a> {
    /// The name of the near end.
    pub host_interface: &'a str,
    /// The hardware address of the near end.
    pub host_mac: Mac,
    /// The namespace of the far end.
    pub namespace: &'a Path,
    /// The name of the far end.
    pub pod_interface: &'a str,
    /// The hardware address of the far end.
    pub pod_mac: Mac,
    /// The MTU of both ends in bytes.
    pub mtu: u32,
}

/// Settings of the node's own namespace, and where they are written.
#[derive(Debug)]
pub struct NodeSettings {
    /// The tree.
    pub tree: SysctlTree,
    /// The settings of something just made.
    pub wanted: DesiredSysctls,
}

/// Links, routes and neighbours of the node's own namespace.
pub trait Kernel: Send + Sync {
    /// Every link.
    fn links(&self) -> impl Future<Output = Result<Vec<Link>, KernelError>> + Send;

    /// The link of this name, or none.
    fn link(&self, name: &str) -> impl Future<Output = Result<Option<Link>, KernelError>> + Send;

    /// Every address.
    fn addresses(&self) -> impl Future<Output = Result<Vec<InterfaceAddress>, KernelError>> + Send;

    /// The way to `address`.
    fn lookup(&self, address: IpAddr) -> impl Future<Output = Result<Lookup, KernelError>> + Send;

    /// Makes a tunnel device, down. Fails when the name is taken or the kernel lacks the kind.
    fn create_tunnel(
        &self,
        spec: &TunnelSpec,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// Changes a link.
    fn set_link(
        &self,
        name: &str,
        change: &LinkChange,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// Gives a link an address (`present`) or takes it away; what is so already is no error.
    fn set_address(
        &self,
        name: &str,
        address: IpAddr,
        present: bool,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// Removes a link; its peer, routes and neighbours go with it.
    fn delete_link(&self, name: &str) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// Our routes (protocol 90) of the table under management, both families.
    fn routes(&self) -> impl Future<Output = Result<Vec<Route>, KernelError>> + Send;

    /// Applies the changes in order without waiting for each; one result a change.
    fn apply_routes(
        &self,
        changes: &[RouteChange],
    ) -> impl Future<Output = Vec<Result<(), KernelError>>> + Send;

    /// The permanent neighbour and forwarding entries of a device.
    fn neighbours(
        &self,
        device: &str,
    ) -> impl Future<Output = Result<Vec<Neighbour>, KernelError>> + Send;

    /// Applies the changes in order without waiting for each; one result a change.
    fn apply_neighbours(
        &self,
        device: &str,
        changes: &[NeighbourChange],
    ) -> impl Future<Output = Vec<Result<(), KernelError>>> + Send;
}

/// What wiring a pod needs beyond [`Kernel`]: the pod's own namespace.
pub trait PodKernel: Kernel {
    /// A pod's namespace, entered. Whoever drops it leaves.
    type Visit: Send;

    /// Makes the pair, both ends down, and gives the number of the node's end. Fails, and leaves
    /// nothing, when either name is taken, the namespace is not one, or it is the node's own.
    fn create_veth(
        &self,
        spec: &VethSpec<'_>,
    ) -> impl Future<Output = Result<u32, KernelError>> + Send;

    /// Writes settings of the node's end, enters the pod's namespace and does what needs no
    /// address: the pod's end is up and has its settings.
    fn enter_pod(
        &self,
        outside: NodeSettings,
        namespace: &Path,
        interface: &str,
    ) -> impl Future<Output = Result<Self::Visit, KernelError>> + Send;

    /// Sets up everything else inside the pod's namespace, and leaves it.
    fn configure_pod(
        &self,
        visit: Self::Visit,
        side: &PodSide,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// What is found inside the pod's namespace under the interface name of `side`.
    fn inspect_pod(
        &self,
        namespace: &Path,
        interface: &str,
    ) -> impl Future<Output = Result<PodSideState, KernelError>> + Send;
}
