//! Between netlink messages and the dataplane's links and neighbours. Pure.

use std::net::IpAddr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    InfoData, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{LinkIpIp, LinkUnspec, LinkVxlan};

use super::super::error::KernelError;
use super::super::link::{IpipAttributes, Link, LinkKind, Mac, VxlanAttributes};
use super::super::neighbours::Neighbour;
use super::super::tunnel::{TunnelMode, TunnelSpec, VXLAN_PORT, VXLAN_VNI};

/// The address family of an address.
pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
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
