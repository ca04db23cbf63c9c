//! The tunnel devices: which there should be, with which attributes, and whether the kernel can.
//!
//! A tunnel joins nodes that share no segment. IPIP ([`IPIP_DEVICE`]) costs 20 bytes and carries
//! IPv4 over IPv4; VXLAN ([`VXLAN_DEVICE`]) costs 50 (70 over IPv6) and carries both. Neither
//! device has a parent or a fixed far end: the route's next hop, taken as on-link, is the far end.
//! A device whose attributes differ is made anew, since the kernel changes few of them in place.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::error::KernelError;
use super::kernel::{Kernel, LinkChange};
use super::link::{InterfaceAddress, IpipAttributes, Link, LinkKind, Mac, VxlanAttributes};
use super::neighbours::vtep_mac;

/// The IPIP device's name.
pub const IPIP_DEVICE: &str = "margay.ipip";
/// The VXLAN device's name.
pub const VXLAN_DEVICE: &str = "margay.vxlan";
/// The VXLAN network identifier.
pub const VXLAN_VNI: u32 = 4096;
/// The UDP port of VXLAN (RFC 7348 section 5).
pub const VXLAN_PORT: u16 = 4789;
/// The smallest MTU a tunnel or pod may be left with: IPv6 needs it (RFC 8200 section 5).
pub const MINIMUM_MTU: u32 = 1280;
/// The device made and removed again to learn whether the kernel has IPIP.
const PROBE_DEVICE: &str = "margay.probe";

/// Which tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelMode {
    /// IPv4 in IPv4 (RFC 2003).
    Ipip,
    /// Ethernet in UDP (RFC 7348).
    Vxlan,
}

impl TunnelMode {
    /// The device of this mode.
    pub fn device(self) -> &'static str {
        match self {
            Self::Ipip => IPIP_DEVICE,
            Self::Vxlan => VXLAN_DEVICE,
        }
    }

    /// The bytes a tunnelled packet grows by, in an underlay of the family of `underlay`.
    pub fn overhead(self, underlay: IpAddr) -> u32 {
        match (self, underlay) {
            (Self::Ipip, IpAddr::V4(_)) => 20,
            (Self::Ipip, IpAddr::V6(_)) => 40,
            // Ethernet 14 + VXLAN 8 + UDP 8 + IP 20 or 40.
            (Self::Vxlan, IpAddr::V4(_)) => 50,
            (Self::Vxlan, IpAddr::V6(_)) => 70,
        }
    }
}

impl fmt::Display for TunnelMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipip => "ipip",
            Self::Vxlan => "vxlan",
        })
    }
}

/// A tunnel device that should exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSpec {
    /// Which tunnel.
    pub mode: TunnelMode,
    /// The device's name; [`TunnelMode::device`] unless it is a probe.
    pub name: String,
    /// This node's address in the underlay.
    pub local: IpAddr,
    /// The MTU in bytes.
    pub mtu: u32,
    /// The addresses of the device, of this node's own block: what the node itself sends through
    /// the tunnel has one of them as its source, so that the answer comes back by the tunnel.
    pub addresses: BTreeSet<IpAddr>,
}

impl TunnelSpec {
    /// The tunnel of this mode from `local` over an uplink with the MTU `uplink_mtu` (bytes).
    ///
    /// # Errors
    /// IPIP over IPv6 (the device would be an ip6tnl, which is not done yet), and an uplink so
    /// small that less than [`MINIMUM_MTU`] bytes would be left.
    pub fn new(mode: TunnelMode, local: IpAddr, uplink_mtu: u32) -> Result<Self, KernelError> {
        if mode == TunnelMode::Ipip && local.is_ipv6() {
            return Err(KernelError::Unsupported(format!(
                "ipip needs an IPv4 underlay and the node's address is {local}: use vxlan"
            )));
        }
        let mtu = uplink_mtu.saturating_sub(mode.overhead(local));
        if mtu < MINIMUM_MTU {
            return Err(KernelError::Unsupported(format!(
                "{mode} over an uplink with an MTU of {uplink_mtu} leaves {mtu} bytes: raise the uplink's MTU to at least {}",
                MINIMUM_MTU + mode.overhead(local)
            )));
        }
        Ok(Self {
            mode,
            name: mode.device().to_owned(),
            local,
            mtu,
            addresses: BTreeSet::new(),
        })
    }

    /// The hardware address of the device, if its kind has one.
    pub fn mac(&self) -> Option<Mac> {
        (self.mode == TunnelMode::Vxlan).then(|| vtep_mac(self.local))
    }

    /// The attributes the kernel must report for the device.
    pub fn kind(&self) -> LinkKind {
        match self.mode {
            TunnelMode::Ipip => LinkKind::Ipip(IpipAttributes {
                local: Some(self.local),
                remote: None,
            }),
            TunnelMode::Vxlan => LinkKind::Vxlan(VxlanAttributes {
                vni: VXLAN_VNI,
                port: VXLAN_PORT,
                local: Some(self.local),
                learning: false,
            }),
        }
    }
}

impl fmt::Display for TunnelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mode,
            name,
            local,
            mtu,
            addresses: _,
        } = self;
        match mode {
            TunnelMode::Ipip => write!(f, "{name} type ipip local {local} remote any mtu {mtu}"),
            TunnelMode::Vxlan => write!(
                f,
                "{name} type vxlan id {VXLAN_VNI} dstport {VXLAN_PORT} nolearning local {local} address {} mtu {mtu}",
                vtep_mac(*local)
            ),
        }
    }
}

/// One change to a tunnel device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelChange {
    /// Make the device and set it up.
    Create(TunnelSpec),
    /// Remove the device and make it anew: an attribute differs that cannot be changed.
    Recreate {
        /// What it is to be.
        spec: TunnelSpec,
        /// What differs, in words.
        because: String,
    },
    /// Change MTU or state of the device.
    Set {
        /// The device's name.
        name: String,
        /// What changes.
        change: LinkChange,
    },
    /// Give the device an address, or take one away.
    Address {
        /// The device's name.
        name: String,
        /// The address.
        address: IpAddr,
        /// Whether the device is to have it.
        wanted: bool,
    },
    /// Remove a device of ours that is no longer wanted.
    Remove {
        /// The device's name.
        name: String,
    },
}

impl fmt::Display for TunnelChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(spec) => write!(f, "link add {spec} up"),
            Self::Recreate { spec, because } => write!(f, "link recreate {spec} up ({because})"),
            Self::Set { name, change } => {
                write!(f, "link set {name}")?;
                if let Some(mtu) = change.mtu {
                    write!(f, " mtu {mtu}")?;
                }
                match change.up {
                    Some(true) => f.write_str(" up"),
                    Some(false) => f.write_str(" down"),
                    None => Ok(()),
                }
            }
            Self::Address {
                name,
                address,
                wanted,
            } => {
                let verb = if *wanted { "add" } else { "delete" };
                write!(f, "address {verb} {address} dev {name}")
            }
            Self::Remove { name } => write!(f, "link delete {name}"),
        }
    }
}

/// What turns the links there are into the tunnels there should be.
pub fn diff(desired: &[TunnelSpec], links: &[Link]) -> Vec<TunnelChange> {
    let mut changes = Vec::new();
    for spec in desired {
        match links.iter().find(|link| link.name == spec.name) {
            None => changes.push(TunnelChange::Create(spec.clone())),
            Some(link) => changes.extend(repair(spec, link)),
        }
    }
    for name in [IPIP_DEVICE, VXLAN_DEVICE] {
        let wanted = desired.iter().any(|spec| spec.name == name);
        if !wanted && links.iter().any(|link| link.name == name) {
            changes.push(TunnelChange::Remove {
                name: name.to_owned(),
            });
        }
    }
    changes
}

/// What turns the addresses there are into those that the tunnels should have. A device that is
/// made anew (`changes`) has none yet. Link-local ones are the kernel's.
pub fn diff_addresses(
    desired: &[TunnelSpec],
    links: &[Link],
    present: &[InterfaceAddress],
    changes: &[TunnelChange],
) -> Vec<TunnelChange> {
    let mut all = Vec::new();
    for spec in desired {
        let is_new = changes.iter().any(|change| match change {
            TunnelChange::Create(new) | TunnelChange::Recreate { spec: new, .. } => {
                new.name == spec.name
            }
            _ => false,
        });
        let link = links.iter().find(|link| link.name == spec.name && !is_new);
        let has = present
            .iter()
            .filter(|one| link.is_some_and(|link| link.index == one.index))
            .map(|one| one.address)
            .filter(|address| !is_link_local(*address));
        let has: BTreeSet<IpAddr> = has.collect();
        let change = |address: &IpAddr, wanted| TunnelChange::Address {
            name: spec.name.clone(),
            address: *address,
            wanted,
        };
        all.extend(spec.addresses.difference(&has).map(|one| change(one, true)));
        all.extend(
            has.difference(&spec.addresses)
                .map(|one| change(one, false)),
        );
    }
    all
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn repair(spec: &TunnelSpec, link: &Link) -> Option<TunnelChange> {
    let because = if link.kind != spec.kind() {
        Some(format!("attributes were {}", describe(&link.kind)))
    } else if spec.mac().is_some() && spec.mac() != link.mac {
        Some("hardware address differs".to_owned())
    } else {
        None
    };
    if let Some(because) = because {
        return Some(TunnelChange::Recreate {
            spec: spec.clone(),
            because,
        });
    }
    let change = LinkChange {
        mtu: (link.mtu != spec.mtu).then_some(spec.mtu),
        up: (!link.up).then_some(true),
    };
    (change != LinkChange::default()).then(|| TunnelChange::Set {
        name: spec.name.clone(),
        change,
    })
}

fn describe(kind: &LinkKind) -> String {
    let any = |address: Option<IpAddr>| address.map_or("any".to_owned(), |a| a.to_string());
    match kind {
        LinkKind::Vxlan(v) => format!(
            "vxlan id {} dstport {} local {} {}learning",
            v.vni,
            v.port,
            any(v.local),
            if v.learning { "" } else { "no" }
        ),
        LinkKind::Ipip(i) => format!("ipip local {} remote {}", any(i.local), any(i.remote)),
        LinkKind::Veth => "veth".to_owned(),
        LinkKind::Other(name) if name.is_empty() => "those of hardware".to_owned(),
        LinkKind::Other(name) => name.clone(),
    }
}

/// Applies one change.
///
/// # Errors
/// Whatever the kernel refuses.
pub async fn apply<K: Kernel>(kernel: &K, change: &TunnelChange) -> Result<(), KernelError> {
    match change {
        TunnelChange::Create(spec) => create(kernel, spec).await,
        TunnelChange::Recreate { spec, .. } => {
            remove(kernel, &spec.name).await?;
            create(kernel, spec).await
        }
        TunnelChange::Set { name, change } => kernel.set_link(name, change).await,
        TunnelChange::Address {
            name,
            address,
            wanted,
        } => kernel.set_address(name, *address, *wanted).await,
        TunnelChange::Remove { name } => remove(kernel, name).await,
    }
}

async fn create<K: Kernel>(kernel: &K, spec: &TunnelSpec) -> Result<(), KernelError> {
    if let Err(error) = kernel.create_tunnel(spec).await {
        return Err(explain(kernel, spec, error).await);
    }
    let up = LinkChange {
        up: Some(true),
        mtu: None,
    };
    kernel.set_link(&spec.name, &up).await
}

/// Names the device that stands in the way: the kernel allows one a VXLAN identifier and port
/// (Calico's has the same), and one an IPIP pair of ends, and says only "already exists".
async fn explain<K: Kernel>(kernel: &K, spec: &TunnelSpec, error: KernelError) -> KernelError {
    if !error.is_exists() {
        return error;
    }
    let in_the_way = |link: &Link| match (&link.kind, spec.mode) {
        (LinkKind::Vxlan(v), TunnelMode::Vxlan) => v.vni == VXLAN_VNI && v.port == VXLAN_PORT,
        (LinkKind::Ipip(_), TunnelMode::Ipip) => link.kind == spec.kind(),
        _ => false,
    };
    let links = kernel.links().await.unwrap_or_default();
    match links.iter().find(|link| in_the_way(link)) {
        Some(link) => KernelError::Unsupported(format!(
            "device {} is {} already and the kernel allows only one such: remove it",
            link.name,
            describe(&link.kind)
        )),
        None => error,
    }
}

async fn remove<K: Kernel>(kernel: &K, name: &str) -> Result<(), KernelError> {
    match kernel.delete_link(name).await {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

/// Whether this kernel can make tunnels of `mode`: makes a device and removes it again.
///
/// # Errors
/// Anything but "not supported", which is the answer `false`.
pub async fn probe<K: Kernel>(kernel: &K, mode: TunnelMode) -> Result<bool, KernelError> {
    // A device of our own answers the question too.
    if kernel.link(mode.device()).await?.is_some() {
        return Ok(true);
    }
    let spec = TunnelSpec {
        mode,
        name: PROBE_DEVICE.to_owned(),
        local: IpAddr::from([127, 0, 0, 1]),
        mtu: MINIMUM_MTU,
        addresses: BTreeSet::new(),
    };
    remove(kernel, PROBE_DEVICE).await?;
    match kernel.create_tunnel(&spec).await {
        Ok(()) => remove(kernel, PROBE_DEVICE).await.map(|()| true),
        Err(error) if error.is_unsupported() => Ok(false),
        // Somebody else's tunnel with the same ends: the kernel knows the kind.
        Err(error) if error.is_exists() => Ok(true),
        Err(error) => Err(error),
    }
}
