//! The values of single attributes out of octets: what each may be, and nothing of what its being
//! wrong leads to.

use crate::types::{Asn, LargeCommunity, RouterId};
use crate::wire::{Context, Fault, NextHop};

use super::path_codec::{AsnWidth, decode_as_path};
use super::{Aggregator, AsPath, Origin};

pub(super) fn origin(value: &[u8]) -> Result<Origin, Fault> {
    match value {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        [_] => Err(Fault::Value("value is undefined")),
        _ => Err(Fault::Length(value.len())),
    }
}

pub(super) fn as_path(value: &[u8], context: &Context) -> Result<AsPath, Fault> {
    let path = decode_as_path(value, AsnWidth::of(context.four_octet_asn))?;
    // RFC 5065 §5: only between members of a confederation, which we never are.
    if path.has_confederation() {
        return Err(Fault::Value(
            "confederation segment outside its confederation",
        ));
    }
    // An AS_SET (RFC 9774) is for the import policy to refuse: people may want it otherwise, and see that it was refused.
    Ok(path)
}

pub(super) fn next_hop(value: &[u8]) -> Result<NextHop, Fault> {
    let octets: [u8; 4] = value.try_into().map_err(|_| Fault::Length(value.len()))?;
    let next_hop = NextHop::V4(octets.into());
    if !next_hop.is_unicast() {
        return Err(Fault::Value("not the address of a router"));
    }
    Ok(next_hop)
}

pub(super) fn number(value: &[u8]) -> Result<u32, Fault> {
    let octets = value.try_into().map_err(|_| Fault::Length(value.len()))?;
    Ok(u32::from_be_bytes(octets))
}

/// A list of items of `N` octets; not empty (RFC 7606 §7.8 and its like).
pub(super) fn list<T, const N: usize>(
    value: &[u8],
    item: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, Fault> {
    let (items, left) = value.as_chunks();
    if items.is_empty() || !left.is_empty() {
        return Err(Fault::Length(value.len()));
    }
    Ok(items.iter().map(|octets| item(*octets)).collect())
}

pub(super) fn large_community(octets: [u8; 12]) -> LargeCommunity {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = octets;
    LargeCommunity {
        global: u32::from_be_bytes([a, b, c, d]),
        local1: u32::from_be_bytes([e, f, g, h]),
        local2: u32::from_be_bytes([i, j, k, l]),
    }
}

pub(super) fn aggregator(value: &[u8], width: AsnWidth) -> Result<Aggregator, Fault> {
    let (asn, id) = match (width, value) {
        (AsnWidth::Two, [a, b, id @ ..]) => (u16::from_be_bytes([*a, *b]).into(), id),
        (AsnWidth::Four, [a, b, c, d, id @ ..]) => (u32::from_be_bytes([*a, *b, *c, *d]), id),
        _ => return Err(Fault::Length(value.len())),
    };
    let id = id.try_into().map_err(|_| Fault::Length(value.len()))?;
    // RFC 7607 §2.
    if asn == 0 {
        return Err(Fault::Value("AS 0"));
    }
    Ok(Aggregator {
        asn: Asn(asn),
        router_id: RouterId(u32::from_be_bytes(id)),
    })
}

/// That the TLVs of a Prefix-SID fill it exactly, and the label index has its length
/// (RFC 8669 §3.1, §6).
pub(super) fn check_prefix_sid(mut value: &[u8]) -> Result<(), Fault> {
    const LABEL_INDEX: u8 = 1;
    let length = value.len();
    if value.is_empty() {
        return Err(Fault::Length(length));
    }
    while let [kind, high, low, rest @ ..] = value {
        let inner = usize::from(u16::from_be_bytes([*high, *low]));
        let (_, rest) = rest
            .split_at_checked(inner)
            .ok_or(Fault::Value("TLV runs past the end"))?;
        if *kind == LABEL_INDEX && inner != 7 {
            return Err(Fault::Value("label index is not seven octets"));
        }
        value = rest;
    }
    if value.is_empty() {
        Ok(())
    } else {
        Err(Fault::Length(length))
    }
}
