//! Path attributes into octets, in ascending order of their codes (RFC 4271 §5).

use bytes::{BufMut, BytesMut};

use crate::wire::frame::write_length;
use crate::wire::{Context, EncodeError, NextHop, SessionKind};

use super::attribute_code as code_of;
use super::header::{EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE, specified_flags};
use super::path_codec::{AsnWidth, encode_as_path};
use super::{Aggregator, PathAttributes, UnknownAttribute};

/// Appends the attributes as they go to the peer of `context`, with NEXT_HOP if one is given.
///
/// What only internal peers may see is left out towards external ones. MP_REACH_NLRI and
/// MP_UNREACH_NLRI are not among these: they come first and vary from message to message.
pub(in crate::wire) fn encode_attributes(
    attributes: &PathAttributes,
    next_hop: Option<&NextHop>,
    context: &Context,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let mut writer = Writer::new(attributes, out)?;
    let internal = context.session == SessionKind::Internal;
    let width = AsnWidth::of(context.four_octet_asn);
    writer.put(code_of::ORIGIN, |out| out.put_u8(attributes.origin as u8))?;
    writer.put(code_of::AS_PATH, |out| {
        encode_as_path(attributes.as_path.segments(), width, out);
    })?;
    if let Some(NextHop::V4(address)) = next_hop {
        writer.put(code_of::NEXT_HOP, |out| out.put_slice(&address.octets()))?;
    }
    if let Some(med) = attributes.med {
        writer.put(code_of::MULTI_EXIT_DISC, |out| out.put_u32(med))?;
    }
    if let Some(local_pref) = attributes.local_pref.filter(|_| internal) {
        writer.put(code_of::LOCAL_PREF, |out| out.put_u32(local_pref))?;
    }
    if attributes.atomic_aggregate {
        writer.put(code_of::ATOMIC_AGGREGATE, |_| {})?;
    }
    if let Some(aggregator) = &attributes.aggregator {
        writer.put(code_of::AGGREGATOR, |out| {
            put_aggregator(aggregator, width, out);
        })?;
    }
    writer.put_list(code_of::COMMUNITIES, &attributes.communities, |c, out| {
        out.put_u32(c.0);
    })?;
    if internal {
        if let Some(id) = attributes.originator_id {
            writer.put(code_of::ORIGINATOR_ID, |out| out.put_u32(id.0))?;
        }
        writer.put_list(
            code_of::CLUSTER_LIST,
            &attributes.cluster_list,
            |id, out| {
                out.put_u32(id.0);
            },
        )?;
    }
    let extended = &attributes.extended_communities;
    writer.put_list(code_of::EXTENDED_COMMUNITIES, extended, |c, out| {
        out.put_u64(c.0);
    })?;
    if width == AsnWidth::Two {
        put_four_octet(attributes, &mut writer)?;
    }
    let large = &attributes.large_communities;
    writer.put_list(code_of::LARGE_COMMUNITIES, large, |c, out| {
        out.put_u32(c.global);
        out.put_u32(c.local1);
        out.put_u32(c.local2);
    })?;
    if let Some(asn) = attributes.only_to_customer {
        writer.put(code_of::ONLY_TO_CUSTOMER, |out| out.put_u32(asn.0))?;
    }
    writer.put_unknown_below(None)
}

/// What a two-octet peer passes on for the four-octet ones behind it (RFC 6793 §4.2.2).
fn put_four_octet(
    attributes: &PathAttributes,
    writer: &mut Writer<'_, '_>,
) -> Result<(), EncodeError> {
    if attributes.as_path.asns().any(|asn| !asn.fits_two_octets()) {
        let segments = attributes.as_path.segments().iter();
        let allowed = segments.filter(|segment| !segment.is_confederation());
        writer.put(code_of::AS4_PATH, |out| {
            encode_as_path(allowed, AsnWidth::Four, out);
        })?;
    }
    match &attributes.aggregator {
        Some(aggregator) if !aggregator.asn.fits_two_octets() => {
            writer.put(code_of::AS4_AGGREGATOR, |out| {
                put_aggregator(aggregator, AsnWidth::Four, out);
            })
        }
        _ => Ok(()),
    }
}

fn put_aggregator(aggregator: &Aggregator, width: AsnWidth, out: &mut BytesMut) {
    match width {
        AsnWidth::Two => out.put_u16(aggregator.asn.to_two_octets()),
        AsnWidth::Four => out.put_u32(aggregator.asn.0),
    }
    out.put_u32(aggregator.router_id.0);
}

/// Appends the header of an attribute with a length field of two octets, whatever its length will
/// be, and returns where that field is: to be filled in with
/// [`write_length`](crate::wire::frame::write_length).
pub(in crate::wire) fn write_wide_header(code: u8, out: &mut BytesMut) -> usize {
    let flags = specified_flags(code).unwrap_or(OPTIONAL | TRANSITIVE);
    out.put_u8(flags | EXTENDED_LENGTH);
    out.put_u8(code);
    let position = out.len();
    out.put_u16(0);
    position
}

/// Puts attributes out in ascending order, unknown ones between the others.
struct Writer<'a, 'out> {
    unknown: std::iter::Peekable<std::vec::IntoIter<&'a UnknownAttribute>>,
    out: &'out mut BytesMut,
}

impl<'a, 'out> Writer<'a, 'out> {
    fn new(attributes: &'a PathAttributes, out: &'out mut BytesMut) -> Result<Self, EncodeError> {
        let mut unknown: Vec<_> = attributes.unknown.iter().collect();
        // Stable, so that of two with the same code the first stays first, and counts.
        unknown.sort_by_key(|attribute| attribute.code);
        unknown.dedup_by_key(|attribute| attribute.code);
        let known = unknown.iter().find(|attribute| has_field(attribute.code));
        if let Some(known) = known {
            return Err(EncodeError::KnownAttribute { code: known.code });
        }
        Ok(Self {
            unknown: unknown.into_iter().peekable(),
            out,
        })
    }

    fn put(&mut self, code: u8, value: impl FnOnce(&mut BytesMut)) -> Result<(), EncodeError> {
        self.put_unknown_below(Some(code))?;
        let flags = specified_flags(code).unwrap_or(OPTIONAL | TRANSITIVE);
        self.put_whole(flags, code, value)
    }

    /// An empty list is no attribute: RFC 7606 §7.8 and its like have it malformed.
    fn put_list<T>(
        &mut self,
        code: u8,
        items: &[T],
        put: impl Fn(&T, &mut BytesMut),
    ) -> Result<(), EncodeError> {
        if items.is_empty() {
            return Ok(());
        }
        self.put(code, |out| {
            for item in items {
                put(item, out);
            }
        })
    }

    fn put_unknown_below(&mut self, code: Option<u8>) -> Result<(), EncodeError> {
        let is_next = |next: &&UnknownAttribute| code.is_none_or(|code| next.code < code);
        while let Some(unknown) = self.unknown.next_if(is_next) {
            let flags = OPTIONAL | TRANSITIVE | PARTIAL;
            self.put_whole(flags, unknown.code, |out| out.put_slice(&unknown.value))?;
        }
        Ok(())
    }

    fn put_whole(
        &mut self,
        flags: u8,
        code: u8,
        value: impl FnOnce(&mut BytesMut),
    ) -> Result<(), EncodeError> {
        let start = self.out.len();
        self.out.put_u8(flags);
        self.out.put_u8(code);
        self.out.put_u8(0);
        let before = self.out.len();
        value(self.out);
        let length = self.out.len() - before;
        if let Ok(length) = u8::try_from(length) {
            if let Some(place) = self.out.get_mut(before - 1) {
                *place = length;
            }
            return Ok(());
        }
        // Seldom: make room for the second octet of the length.
        let value = self.out.split_off(before);
        self.out.truncate(start);
        self.out.put_u8(flags | EXTENDED_LENGTH);
        self.out.put_u8(code);
        let position = self.out.len();
        self.out.put_u16(0);
        write_length(self.out, position, length, "attribute")?;
        self.out.put_slice(&value);
        Ok(())
    }
}

/// Whether an attribute's content has a field of its own, rather than being carried as it came.
const fn has_field(code: u8) -> bool {
    let carried = matches!(
        code,
        code_of::IPV6_EXTENDED_COMMUNITIES | code_of::PREFIX_SID
    );
    specified_flags(code).is_some() && !carried
}
