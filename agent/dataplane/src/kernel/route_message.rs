//! Between netlink messages and the dataplane's routes. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use rtnetlink::{RouteMessageBuilder, RouteNextHopBuilder};

use super::super::error::KernelError;
use super::super::routes::{NextHop, ROUTE_PROTOCOL, Route, RouteKey, RouteTarget, default_metric};
use super::Lookup;
use super::message::family;

/// Interface names by index.
pub(super) type Names = HashMap<u32, String>;
/// Interface indices by name.
pub(super) type Indices = HashMap<String, u32>;

/// Our protocol number as the crate spells it.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(ROUTE_PROTOCOL);

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

/// The table that Margay's routes are in unless asked for another.
pub(super) const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// The dump of our routes in a table.
pub(super) fn routes_request(family: AddressFamily, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.protocol = PROTOCOL;
    set_table(&mut message, table);
    message
}

/// Names the table; a number above 255 does not fit the header.
fn set_table(message: &mut RouteMessage, table: u32) {
    match u8::try_from(table) {
        Ok(short) => message.header.table = short,
        Err(_) => {
            message.header.table = RouteHeader::RT_TABLE_UNSPEC;
            message.attributes.push(RouteAttribute::Table(table));
        }
    }
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

/// The number of the next hop object that a route uses.
pub(super) fn next_hop_object(message: &RouteMessage) -> Option<u32> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::NhId(number) => Some(*number),
            _ => None,
        })
}

/// The index of the interface a route leads out of.
pub(super) fn output_interface(message: &RouteMessage) -> Option<u32> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
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

/// A route of ours in `wanted_table`; none for any other.
pub(super) fn parse_route(
    message: &RouteMessage,
    names: &Names,
    wanted_table: u32,
) -> Option<Route> {
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
    if table != wanted_table {
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
                RouteTarget::next_hops,
            );
        }
        let Some(index) = self.interface else {
            return RouteTarget::Other("without an interface".to_owned());
        };
        let interface = name(index, names);
        match self.gateway {
            None => RouteTarget::Link { interface },
            Some(gateway) => RouteTarget::next_hops([NextHop {
                gateway,
                interface,
                onlink: self.onlink,
                extra_weight: 0,
            }]),
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
        extra_weight: hop.hops,
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

/// The request that puts in a route: with the next hop object of this number, if there is one, in
/// place of the gateway.
pub(super) fn route_message(
    route: &Route,
    indices: &Indices,
    table: u32,
    object: Option<u32>,
) -> Result<RouteMessage, KernelError> {
    let destination = route.destination;
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .protocol(PROTOCOL)
        .table_id(table)
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
    if let Some(number) = object {
        let mut message = builder.build();
        message.attributes.push(RouteAttribute::NhId(number));
        return Ok(message);
    }
    builder = match &route.target {
        RouteTarget::Blackhole => builder.kind(RouteType::BlackHole),
        RouteTarget::Link { interface } => builder
            .scope(RouteScope::Link)
            .output_interface(index(interface, indices)?),
        RouteTarget::NextHops(hops) if hops.len() == 1 => {
            for hop in hops.iter() {
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
        .weight(hop.extra_weight)
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
pub(super) fn delete_message(key: &RouteKey, table: u32) -> RouteMessage {
    let destination = key.destination;
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.network());
    set_table(&mut message, table);
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
