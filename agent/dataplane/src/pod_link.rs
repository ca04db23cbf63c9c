//! A pod's wiring: a veth pair with its far end straight in the pod's namespace.
//!
//! Three phases. [`prepare`] makes the pair and all of it that needs no address, while the pod's
//! addresses are still being written down. [`finish`] does the rest inside the pod, and leaves the
//! node's end **down**: without a carrier the pod can send nothing. The caller then commits the pod's policy, and [`activate`]
//! sets the node's end up. The pod's host route has one owner, the
//! route table ([`super::Dataplane`]): the caller adds [`PodLink::host_routes`] to the desired
//! routes and applies; nothing in this module writes routes outside the pod.
//!
//! Inside the pod: the addresses as /32 and /128; a default route through [`GATEWAY_V4`] and
//! [`GATEWAY_V6`], addresses that no pod can own, with a permanent neighbour entry for
//! [`HOST_MAC`], so that a pod's first packet waits for no ARP. The node's end has a permanent
//! entry for the pod's addresses, for the same reason in the other direction. Both entries are a
//! saving, not a need: the node's end also answers ARP for the gateway (proxy_arp), and the pod
//! answers for itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use sha1::{Digest, Sha1};

use super::error::KernelError;
use super::kernel::{LinkChange, NodeSettings, PodKernel, VethSpec};
use super::link::{MAX_INTERFACE_NAME, Mac};
use super::neighbours::{Neighbour, NeighbourChange};
pub use super::pod_check::{Difference, check};
use super::routes::RouteKind;
use super::sysctl::{DesiredSysctls, SysctlTree};

/// What every pod host interface's name begins with.
pub const HOST_PREFIX: &str = "mgy";
/// The hardware address of the node's end of every pair.
pub const HOST_MAC: Mac = Mac([0xee; 6]);
/// The pods' IPv4 gateway: link-local, on no interface (RFC 3927).
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The pods' IPv6 gateway: the link-local address that the kernel derives from [`HOST_MAC`]
/// (modified EUI-64, RFC 4291 appendix A), so the node's end really has it.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// The hardware address of a pod's own end: from the host interface's name, so that a pod that
/// is made anew under its name keeps its address.
pub fn pod_mac(host_interface: &str) -> Mac {
    let hash = Sha1::digest(host_interface);
    Mac([
        (hash[0] & 0xfc) | 0x02,
        hash[1],
        hash[2],
        hash[3],
        hash[4],
        hash[5],
    ])
}

/// The gateway of a pod in the family of `address`.
pub fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}

/// A pod's wiring as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// The name of the node's end: [`HOST_PREFIX`] and what the policy crate makes of the pod's name.
    pub host_interface: String,
    /// The pod's network namespace.
    pub namespace: PathBuf,
    /// The name of the pod's end (CNI_IFNAME).
    pub pod_interface: String,
    /// The hardware address of the pod's end; see [`pod_mac`].
    pub pod_mac: Mac,
    /// The pod's addresses, at most one a family in practice, though nothing here depends on it.
    pub addresses: Vec<IpAddr>,
    /// The MTU of both ends in bytes.
    pub mtu: u32,
}

impl PodLink {
    /// The wiring of a pod whose host interface is to have this name.
    pub fn new(
        host_interface: impl Into<String>,
        namespace: impl Into<PathBuf>,
        pod_interface: impl Into<String>,
        addresses: Vec<IpAddr>,
        mtu: u32,
    ) -> Self {
        let host_interface = host_interface.into();
        Self {
            pod_mac: pod_mac(&host_interface),
            host_interface,
            namespace: namespace.into(),
            pod_interface: pod_interface.into(),
            addresses,
            mtu,
        }
    }

    /// The routes this pod needs in the node's table, for [`super::DesiredRoutes::insert`].
    pub fn host_routes(&self) -> Vec<(IpNetwork, RouteKind)> {
        host_routes(&self.host_interface, &self.addresses)
    }

    fn side(&self) -> PodSide {
        PodSide {
            interface: self.pod_interface.clone(),
            addresses: self.addresses.clone(),
            gateway_mac: HOST_MAC,
        }
    }
}

/// The routes to a pod with these addresses behind `host_interface`.
pub fn host_routes(host_interface: &str, addresses: &[IpAddr]) -> Vec<(IpNetwork, RouteKind)> {
    let kind = RouteKind::Link {
        interface: host_interface.to_owned(),
    };
    addresses
        .iter()
        .map(|address| (IpNetwork::from(*address), kind.clone()))
        .collect()
}

/// What is set up inside a pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSide {
    /// The interface's name.
    pub interface: String,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The hardware address the gateways get.
    pub gateway_mac: Mac,
}

/// What is found inside a pod's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSideState {
    /// The interface, or none: up, MTU in bytes, hardware address.
    pub link: Option<(bool, u32, Option<Mac>)>,
    /// The interface's addresses, link-local ones left out.
    pub addresses: Vec<IpAddr>,
    /// The gateways of default routes out of the interface.
    pub default_gateways: Vec<IpAddr>,
}

/// What [`prepare`] made.
#[derive(Debug)]
pub struct Prepared<V> {
    visit: V,
    /// The number the kernel gave the node's end.
    pub device: u32,
}

/// Makes the pair and does all that needs no address yet, which is most of what takes the kernel
/// its time: the settings of both ends. The node's end is down. [`finish`] goes on. When anything
/// fails, nothing of the pair is left behind.
///
/// A host interface left over under the same name (of a sandbox that died) is replaced.
///
/// # Errors
/// The name of the pod's interface is taken, the namespace is not one or is the node's own, an
/// interface name is not one, or the kernel refuses.
pub async fn prepare<K: PodKernel>(
    kernel: &K,
    sysctls: &SysctlTree,
    link: &PodLink,
) -> Result<Prepared<K::Visit>, KernelError> {
    check_name(&link.host_interface)?;
    check_name(&link.pod_interface)?;
    remove(kernel, &link.host_interface).await?;
    let spec = VethSpec {
        host_interface: &link.host_interface,
        host_mac: HOST_MAC,
        namespace: &link.namespace,
        pod_interface: &link.pod_interface,
        pod_mac: link.pod_mac,
        mtu: link.mtu,
    };
    // The node's end has just been removed: the name that exists is the one in the pod.
    let made = kernel.create_veth(&spec).await.map_err(|error| {
        let (name, path) = (&link.pod_interface, link.namespace.display());
        error.with_words_if_exists(|| format!("interface {name} in {path}"))
    });
    let device = made?;
    let outside = NodeSettings {
        tree: sysctls.clone(),
        wanted: host_sysctls(&link.host_interface),
    };
    let entered = kernel.enter_pod(outside, &link.namespace, &link.pod_interface);
    let entered = or_remove(kernel, link, entered.await).await;
    entered.map(|visit| Prepared { visit, device })
}

/// Sets up the rest of what [`prepare`] made: the pod's addresses and what follows from them. The
/// node's end stays down. When anything fails, nothing of the pair is left behind.
///
/// # Errors
/// The pair or the namespace is gone, or the kernel refuses.
pub async fn finish<K: PodKernel>(
    kernel: &K,
    sysctls: &SysctlTree,
    link: &PodLink,
    prepared: Prepared<K::Visit>,
) -> Result<(), KernelError> {
    let both = async {
        sysctls.ensure(&family_sysctls(&link.host_interface, &link.addresses))?;
        kernel.configure_pod(prepared.visit, &link.side()).await
    };
    or_remove(kernel, link, both.await).await
}

/// [`prepare`] and [`finish`] in one, for who knows the addresses from the beginning.
///
/// # Errors
/// As both.
pub async fn create<K: PodKernel>(
    kernel: &K,
    sysctls: &SysctlTree,
    link: &PodLink,
) -> Result<(), KernelError> {
    let prepared = prepare(kernel, sysctls, link).await?;
    finish(kernel, sysctls, link, prepared).await
}

/// Removes a pair that could not be made in full.
async fn or_remove<K: PodKernel, T>(
    kernel: &K,
    link: &PodLink,
    result: Result<T, KernelError>,
) -> Result<T, KernelError> {
    // The first error is the one to tell; a pair that cannot be removed either will be replaced by
    // the next attempt.
    if result.is_err()
        && let Err(second) = remove(kernel, &link.host_interface).await
    {
        tracing::warn!(interface = %link.host_interface, error = %second, "cannot remove the half-made pod interface");
    }
    result
}

/// The settings of a pod's host interface.
///
/// - `forwarding` 1: it is a router's interface, whatever `default` says.
/// - `proxy_arp` 1, `proxy_delay` 0: the node answers at once for the gateway address, which is
///   on no interface, should the pod lose its permanent entry.
/// - `rp_filter` 1 (IPv4): a pod sends from its own addresses only; the route to the pod is the
///   proof. (IPv6 has no such setting; the policy table drops spoofed packets in both families.)
/// - `route_localnet` 0: a pod must not reach what listens on the node's 127.0.0.1.
/// - `accept_redirects`, `send_redirects` 0: a pod must not bend the node's routes, and there is
///   never a better next hop on a point-to-point link.
/// - `accept_ra` 0: a pod's router advertisements are nothing to the node.
/// - `accept_dad` 0, `keep_addr_on_down` untouched: two ends, nobody to collide with; the
///   gateway address is usable at once.
pub fn host_sysctls(host_interface: &str) -> DesiredSysctls {
    let mut all = DesiredSysctls::new();
    let v4 = |key: &str| format!("net/ipv4/conf/{host_interface}/{key}");
    let v6 = |key: &str| format!("net/ipv6/conf/{host_interface}/{key}");
    all.set(v4("forwarding"), "1");
    all.set(v4("proxy_arp"), "1");
    all.set(format!("net/ipv4/neigh/{host_interface}/proxy_delay"), "0");
    all.set(v4("rp_filter"), "1");
    all.set(v4("route_localnet"), "0");
    all.set(v4("accept_redirects"), "0");
    all.set(v4("send_redirects"), "0");
    all.set_if_present(v6("accept_ra"), "0");
    all.set_if_present(v6("accept_redirects"), "0");
    all.set_if_present(v6("accept_dad"), "0");
    all
}

/// What the interface of a pod with these addresses needs beyond [`host_sysctls`].
fn family_sysctls(host_interface: &str, addresses: &[IpAddr]) -> DesiredSysctls {
    let mut all = DesiredSysctls::new();
    if addresses.iter().any(IpAddr::is_ipv6) {
        for (key, value) in [("disable_ipv6", "0"), ("forwarding", "1")] {
            all.set(format!("net/ipv6/conf/{host_interface}/{key}"), value);
        }
    }
    all
}

/// Sets the node's end up and enters the pod's addresses there. To be called once the pod's
/// policy is in the kernel, and followed by the pod's routes ([`PodLink::host_routes`]).
/// Repeating it does no harm.
///
/// # Errors
/// The interface is gone, or the kernel refuses.
pub async fn activate<K: PodKernel>(kernel: &K, link: &PodLink) -> Result<(), KernelError> {
    let up = LinkChange {
        up: Some(true),
        mtu: None,
    };
    kernel.set_link(&link.host_interface, &up).await?;
    let entries: Vec<NeighbourChange> = link
        .addresses
        .iter()
        .map(|address| {
            NeighbourChange::Set(Neighbour::Address {
                address: *address,
                mac: link.pod_mac,
            })
        })
        .collect();
    kernel
        .apply_neighbours(&link.host_interface, &entries)
        .await
        .into_iter()
        .collect()
}

/// Removes a pod's pair, and with it both ends' addresses, routes and neighbour entries. No
/// error when there is none.
///
/// # Errors
/// The name is not one of a pod's host interface, or the kernel refuses.
pub async fn remove<K: PodKernel>(kernel: &K, host_interface: &str) -> Result<(), KernelError> {
    if !super::is_pod_interface(host_interface) {
        return Err(KernelError::Unsupported(format!(
            "{host_interface} is not a pod's interface ({HOST_PREFIX} and 11 hexadecimal digits): not removed"
        )));
    }
    match kernel.delete_link(host_interface).await {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

fn check_name(name: &str) -> Result<(), KernelError> {
    let bad = name.is_empty()
        || name.len() > MAX_INTERFACE_NAME
        || name == "."
        || name == ".."
        || name
            .bytes()
            .any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace());
    if bad {
        return Err(KernelError::Unsupported(format!(
            "{name:?} is not an interface name: 1 to {MAX_INTERFACE_NAME} bytes without '/', ':' or spaces"
        )));
    }
    Ok(())
}
