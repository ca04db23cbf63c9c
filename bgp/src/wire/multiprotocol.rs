//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760): routes that travel as attributes.

use std::net::Ipv6Addr;

use bytes::{BufMut, BytesMut};
use nom::bytes::complete::take;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16};
use nom::{IResult, Parser};

use crate::types::Family;

use super::nlri::decode_nlri;
use super::{Context, EncodeError, Fault, NextHop, Nlri, Notification, Reach};

/// What one of the two attributes says.
pub(super) enum Routes {
    /// MP_REACH_NLRI. The fault, if any, is in the next hop: the routes cannot be used but are
    /// told.
    Reach(Reach, Option<Fault>),
    /// MP_UNREACH_NLRI.
    Unreach(Family, Vec<Nlri>),
    /// Either, for a family that was not negotiated: skipped unread (RFC 4760 §7 allows it, and a
    /// session lost over it helps nobody).
    Skipped(Fault),
}

/// Reads MP_REACH_NLRI. `whole` is the attribute with its header, for the data of an error.
///
/// # Errors
/// 3/9 when the routes cannot be told: the attribute is cut off, a prefix is malformed, or the
/// next hop's length is none the family can have (RFC 7606 §7.11).
pub(super) fn decode_reach(
    value: &[u8],
    whole: &[u8],
    context: &Context,
) -> Result<Routes, Notification> {
    let error = || Notification::optional_attribute_error(whole);
    let (nlri, (afi, safi, next_hop)) = reach_head(value).map_err(|_| error())?;
    let Some(family) = carried(afi, safi, context) else {
        return Ok(Routes::Skipped(Fault::Family { afi, safi }));
    };
    let next_hop = decode_next_hop(family, next_hop).ok_or_else(error)?;
    let mut routes = Vec::new();
    let add_path = context.add_path_receive.contains(family);
    decode_nlri(family, add_path, nlri, &mut routes).map_err(|_| error())?;
    let reach = Reach {
        family,
        next_hop,
        nlri: routes,
    };
    Ok(Routes::Reach(
        reach,
        check_next_hop(family, &next_hop, context),
    ))
}

/// Reads MP_UNREACH_NLRI. `whole` is the attribute with its header, for the data of an error.
///
/// # Errors
/// 3/9 when the routes cannot be told.
pub(super) fn decode_unreach(
    value: &[u8],
    whole: &[u8],
    context: &Context,
) -> Result<Routes, Notification> {
    let error = || Notification::optional_attribute_error(whole);
    let (nlri, (afi, safi)) = unreach_head(value).map_err(|_| error())?;
    let Some(family) = carried(afi, safi, context) else {
        return Ok(Routes::Skipped(Fault::Family { afi, safi }));
    };
    let mut routes = Vec::new();
    let add_path = context.add_path_receive.contains(family);
    decode_nlri(family, add_path, nlri, &mut routes).map_err(|_| error())?;
    Ok(Routes::Unreach(family, routes))
}

/// AFI, SAFI and next hop; the NLRI is what remains. The octet between them is reserved.
fn reach_head(octets: &[u8]) -> IResult<&[u8], (u16, u8, &[u8]), ()> {
    (be_u16, be_u8, length_data(be_u8), take(1_usize))
        .map(|(afi, safi, next_hop, _reserved)| (afi, safi, next_hop))
        .parse(octets)
}

fn unreach_head(octets: &[u8]) -> IResult<&[u8], (u16, u8), ()> {
    (be_u16, be_u8).parse(octets)
}

fn carried(afi: u16, safi: u8, context: &Context) -> Option<Family> {
    Family::from_codes(afi, safi).filter(|family| context.families.contains(*family))
}

/// `None` for a length that no next hop of the family has.
fn decode_next_hop(family: Family, octets: &[u8]) -> Option<NextHop> {
    if let (Family::Ipv4Unicast, Ok(octets)) = (family, <[u8; 4]>::try_from(octets)) {
        return Some(NextHop::V4(octets.into()));
    }
    let (global, rest) = octets.split_first_chunk::<16>()?;
    let global = Ipv6Addr::from(*global);
    if rest.is_empty() {
        return Some(NextHop::V6 {
            global,
            link_local: None,
        });
    }
    let second = Ipv6Addr::from(<[u8; 16]>::try_from(rest).ok()?);
    // Some routers fill an address they lack with zeros or with the other one.
    let link_local = Some(second).filter(Ipv6Addr::is_unicast_link_local);
    match link_local {
        Some(link_local) if global.is_unspecified() => Some(NextHop::V6 {
            global: link_local,
            link_local: None,
        }),
        _ => Some(NextHop::V6 { global, link_local }),
    }
}

fn check_next_hop(family: Family, next_hop: &NextHop, context: &Context) -> Option<Fault> {
    let foreign = family == Family::Ipv4Unicast && matches!(next_hop, NextHop::V6 { .. });
    if foreign && !context.extended_next_hop {
        return Some(Fault::Value("IPv6 next hop, which was not negotiated"));
    }
    if !next_hop.is_unicast() {
        return Some(Fault::Value("next hop is not the address of a router"));
    }
    None
}

/// Appends the value of MP_REACH_NLRI up to its NLRI.
pub(super) fn write_reach_head(
    family: Family,
    next_hop: &NextHop,
    context: &Context,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    out.put_u16(family.afi());
    out.put_u8(family.safi());
    match (family, next_hop) {
        (Family::Ipv4Unicast, NextHop::V4(address)) => {
            out.put_u8(4);
            out.put_slice(&address.octets());
        }
        (Family::Ipv4Unicast, NextHop::V6 { .. }) if !context.extended_next_hop => {
            return Err(EncodeError::NextHop { family });
        }
        (_, NextHop::V6 { global, link_local }) => {
            out.put_u8(if link_local.is_some() { 32 } else { 16 });
            out.put_slice(&global.octets());
            if let Some(link_local) = link_local {
                out.put_slice(&link_local.octets());
            }
        }
        (Family::Ipv6Unicast, NextHop::V4(_)) => return Err(EncodeError::NextHop { family }),
    }
    out.put_u8(0);
    Ok(())
}
