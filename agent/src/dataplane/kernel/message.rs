//! Between netlink messages and the dataplane's values. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    InfoData, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use rtnetlink::{LinkIpIp, LinkUnspec, LinkVxlan, RouteMessageBuilder, RouteNextHopBuilder};

use super::super::error::KernelError;
use super::super::link::{IpipAttributes, Link, LinkKind, Mac, VxlanAttributes};
use super::super::neighbours::Neighbour;
use super::super::routes::{NextHop, ROUTE_PROTOCOL, Route, RouteKey, RouteTarget, default_metric};
use super::super::tunnel::{TunnelMode, TunnelSpec, VXLAN_PORT, VXLAN_VNI};
use super::Lookup;

/// Interface names by index.
pub(super) type Names = HashMap<u32, String>;
/// Interface indices by name.
pub(super) type Indices = HashMap<String, u32>;

/// Our protocol number as the crate spells it.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(ROUTE_PROTOCOL);

/// The address family of an address.
pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn via(address: &RouteVia) -> Option<IpAddr> {
    match address {
        RouteVia::Inet(v4) => Some((*v4).into()),
        RouteVia::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// A link as the kernel describes it; none for one without a name.
pub(super) fn parse_link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        mac: None,
        kind: LinkKind::Other(String::new()),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = Mac::from_slice(bytes),
            LinkAttribute::LinkInfo(info) => link.kind = parse_kind(info),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn parse_kind(info: &[LinkInfo]) -> LinkKind {
    let kind = info.iter().find_map(|part| match part {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    let data = info.iter().find_map(|part| match part {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    match (kind, data) {
        (Some(InfoKind::Veth), _) => LinkKind::Veth,
        (Some(InfoKind::Vxlan), Some(InfoData::Vxlan(parts))) => {
            LinkKind::Vxlan(parse_vxlan(parts))
        }
        (Some(InfoKind::IpIp), Some(InfoData::IpTunnel(parts))) => {
            LinkKind::Ipip(parse_ipip(parts))
        }
        (Some(kind), _) => LinkKind::Other(kind.to_string()),
        (None, _) => LinkKind::Other(String::new()),
    }
}

fn parse_vxlan(parts: &[InfoVxlan]) -> VxlanAttributes {
    let mut vxlan = VxlanAttributes {
        vni: 0,
        port: 0,
        local: None,
        learning: false,
    };
    for part in parts {
        match part {
            InfoVxlan::Id(vni) => vxlan.vni = *vni,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Local(local) => vxlan.local = Some((*local).into()),
            InfoVxlan::Local6(local) => vxlan.local = Some((*local).into()),
            InfoVxlan::Learning(learning) => vxlan.learning = *learning,
            _ => {}
        }
    }
    vxlan
}

fn parse_ipip(parts: &[InfoIpTunnel]) -> IpipAttributes {
    let specified = |address: &IpAddr| (!address.is_unspecified()).then_some(*address);
    let mut ipip = IpipAttributes {
        local: None,
        remote: None,
    };
    for part in parts {
        match part {
            InfoIpTunnel::Local(local) => ipip.local = specified(local),
            InfoIpTunnel::Remote(remote) => ipip.remote = specified(remote),
            _ => {}
        }
    }
    ipip
}

/// The request that makes a tunnel device, down.
pub(super) fn tunnel_message(spec: &TunnelSpec) -> Result<LinkMessage, KernelError> {
    match (spec.mode, spec.local) {
        (TunnelMode::Ipip, IpAddr::V4(local)) => {
            Ok(LinkIpIp::new(&spec.name).local(local).mtu(spec.mtu).build())
        }
        (TunnelMode::Ipip, IpAddr::V6(local)) => Err(KernelError::Unsupported(format!(
            "ipip needs an IPv4 underlay and the node's address is {local}: use vxlan"
        ))),
        (TunnelMode::Vxlan, local) => {
            let mut builder = LinkVxlan::new(&spec.name, VXLAN_VNI)
                .port(VXLAN_PORT)
                .learning(false)
                .mtu(spec.mtu);
            builder = match local {
                IpAddr::V4(v4) => builder.local(v4),
                IpAddr::V6(v6) => builder.local6(v6),
            };
            if let Some(mac) = spec.mac() {
                builder = builder.address(mac.0.to_vec());
            }
            Ok(builder.build())
        }
    }
}

/// The request that changes the link `index`.
pub(super) fn change_message(index: u32, mtu: Option<u32>, up: Option<bool>) -> LinkMessage {
    let mut builder = LinkUnspec::new_with_index(index);
    if let Some(mtu) = mtu {
        builder = builder.mtu(mtu);
    }
    match up {
        Some(true) => builder.up().build(),
        Some(false) => builder.down().build(),
        None => builder.build(),
    }
}

/// The dump of our routes in table main.
pub(super) fn routes_request(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = PROTOCOL;
    message
}

/// The lookup of the way to `address`.
pub(super) fn lookup_request(address: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    message
        .attributes
        .push(RouteAttribute::Destination(address.into()));
    message
}

/// The kernel's answer to a lookup.
pub(super) fn parse_lookup(message: &RouteMessage, names: &Names) -> Lookup {
    match message.header.kind {
        RouteType::Local => return Lookup::Local,
        RouteType::Unicast => {}
        _ => return Lookup::None,
    }
    let mut interface = None;
    let mut gateway = None;
    let mut source = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = names.get(index).cloned(),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(address) => gateway = via(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    match interface {
        Some(interface) => Lookup::Unicast {
            interface,
            gateway,
            source,
        },
        None => Lookup::None,
    }
}

/// The gateway of a default route out of `interface`, whoever made it.
pub(super) fn default_gateway(message: &RouteMessage, interface: u32) -> Option<IpAddr> {
    let mut gateway = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) if *index != interface => return None,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            _ => {}
        }
    }
    gateway.filter(|_| message.header.destination_prefix_length == 0)
}

/// A route of ours in table main; none for any other.
pub(super) fn parse_route(message: &RouteMessage, names: &Names) -> Option<Route> {
    let header = &message.header;
    // The kernel filters already; an old one that ignores the filter must not hand us others'.
    if header.protocol != PROTOCOL || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut destination = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let mut parts = Parts {
        onlink: header.flags.contains(RouteFlags::Onlink),
        ..Parts::default()
    };
    let mut metric = 0;
    let mut source = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Oif(index) => parts.interface = Some(*index),
            RouteAttribute::Gateway(address) => parts.gateway = ip(address),
            RouteAttribute::Via(address) => parts.gateway = via(address),
            RouteAttribute::MultiPath(hops) => parts.hops.clone_from(hops),
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let destination = IpNetwork::new(destination, header.destination_prefix_length).ok()?;
    Some(Route {
        destination,
        metric,
        tos: header.tos,
        target: parts.target(header.kind, names),
        source,
    })
}

#[derive(Default)]
struct Parts {
    interface: Option<u32>,
    gateway: Option<IpAddr>,
    onlink: bool,
    hops: Vec<RouteNextHop>,
}

impl Parts {
    fn target(self, kind: RouteType, names: &Names) -> RouteTarget {
        match kind {
            RouteType::BlackHole => return RouteTarget::Blackhole,
            RouteType::Unicast => {}
            other => return RouteTarget::Other(format!("{other:?}").to_lowercase()),
        }
        if !self.hops.is_empty() {
            let hops: Option<BTreeSet<NextHop>> =
                self.hops.iter().map(|hop| parse_hop(hop, names)).collect();
            return hops.map_or_else(
                || RouteTarget::Other("multipath without gateways".to_owned()),
                RouteTarget::NextHops,
            );
        }
        let Some(index) = self.interface else {
            return RouteTarget::Other("without an interface".to_owned());
        };
        let interface = name(index, names);
        match self.gateway {
            None => RouteTarget::Link { interface },
            Some(gateway) => RouteTarget::NextHops(BTreeSet::from([NextHop {
                gateway,
                interface,
                onlink: self.onlink,
            }])),
        }
    }
}

fn parse_hop(hop: &RouteNextHop, names: &Names) -> Option<NextHop> {
    let gateway = hop
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            RouteAttribute::Via(address) => via(address),
            _ => None,
        })?;
    Some(NextHop {
        gateway,
        interface: name(hop.interface_index, names),
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
    })
}

fn name(index: u32, names: &Names) -> String {
    names
        .get(&index)
        .cloned()
        .unwrap_or_else(|| format!("if{index}"))
}

fn index(name: &str, indices: &Indices) -> Result<u32, KernelError> {
    indices
        .get(name)
        .copied()
        .ok_or_else(|| KernelError::NoDevice(name.to_owned()))
}

/// The request that puts in a route.
pub(super) fn route_message(route: &Route, indices: &Indices) -> Result<RouteMessage, KernelError> {
    let destination = route.destination;
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .protocol(PROTOCOL)
        .tos(route.tos)
        .destination_prefix(destination.network(), destination.prefix())
        .map_err(|error| unsupported(&error))?;
    if route.metric != default_metric(&destination) {
        builder = builder.priority(route.metric);
    }
    if let Some(source) = route.source {
        builder = builder
            .pref_source(source)
            .map_err(|error| unsupported(&error))?;
    }
    builder = match &route.target {
        RouteTarget::Blackhole => builder.kind(RouteType::BlackHole),
        RouteTarget::Link { interface } => builder
            .scope(RouteScope::Link)
            .output_interface(index(interface, indices)?),
        RouteTarget::NextHops(hops) if hops.len() == 1 => {
            for hop in hops {
                builder = builder
                    .gateway(hop.gateway)
                    .map_err(|error| unsupported(&error))?
                    .output_interface(index(&hop.interface, indices)?);
                if hop.onlink {
                    builder = builder.onlink();
                }
            }
            builder
        }
        RouteTarget::NextHops(hops) => {
            let hops: Result<Vec<RouteNextHop>, KernelError> = hops
                .iter()
                .map(|hop| hop_message(hop, destination, indices))
                .collect();
            builder.multipath(hops?)
        }
        RouteTarget::Other(what) => {
            return Err(KernelError::Unsupported(format!(
                "a route that is {what} cannot be installed"
            )));
        }
    };
    Ok(builder.build())
}

fn unsupported(error: &dyn std::fmt::Display) -> KernelError {
    KernelError::Unsupported(error.to_string())
}

fn hop_message(
    hop: &NextHop,
    destination: IpNetwork,
    indices: &Indices,
) -> Result<RouteNextHop, KernelError> {
    let builder = RouteNextHopBuilder::new(family(destination.network()))
        .interface(index(&hop.interface, indices)?)
        .via(hop.gateway)
        .map_err(|error| unsupported(&error))?;
    let builder = if hop.onlink {
        builder.onlink()
    } else {
        builder
    };
    Ok(builder.build())
}

/// The request that takes out our route with this key, whatever it leads to.
pub(super) fn delete_message(key: &RouteKey) -> RouteMessage {
    let destination = key.destination;
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.network());
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    // With the protocol given, the kernel passes over a route of another owner.
    message.header.protocol = PROTOCOL;
    message.header.scope = RouteScope::NoWhere;
    message.header.kind = RouteType::Unspec;
    message.header.tos = key.tos;
    message.header.destination_prefix_length = destination.prefix();
    message
        .attributes
        .push(RouteAttribute::Destination(destination.network().into()));
    if key.metric != 0 {
        message
            .attributes
            .push(RouteAttribute::Priority(key.metric));
    }
    message
}

/// A permanent entry of `device`; none for learnt ones and other devices'.
pub(super) fn parse_neighbour(message: &NeighbourMessage, device: u32) -> Option<Neighbour> {
    let header = &message.header;
    let permanent = u16::from(header.state) & u16::from(NeighbourState::Permanent) != 0;
    if header.ifindex != device || !permanent {
        return None;
    }
    let mut mac = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::from_slice(bytes),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::from(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::from(*v6));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                address = address_from(bytes);
            }
            _ => {}
        }
    }
    let (mac, address) = (mac?, address?);
    match header.family {
        AddressFamily::Inet | AddressFamily::Inet6 => Some(Neighbour::Address { address, mac }),
        AddressFamily::Bridge => Some(Neighbour::Forwarding { mac, node: address }),
        _ => None,
    }
}

/// A forwarding entry's destination comes as bare bytes, since its family is "bridge".
fn address_from(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The request about a permanent entry of `device`.
pub(super) fn neighbour_message(device: u32, entry: &Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    let (mac, address) = match entry {
        Neighbour::Address { address, mac } => {
            message.header.family = family(*address);
            (mac, address)
        }
        Neighbour::Forwarding { mac, node } => {
            message.header.family = AddressFamily::Bridge;
            message.header.flags = NeighbourFlags::Own;
            (mac, node)
        }
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(*v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(*v6),
        }));
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}
