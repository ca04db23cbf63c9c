//! The header of an attribute: flags, type code and length.

use super::attribute_code as code_of;

/// The attribute is not well-known.
pub(super) const OPTIONAL: u8 = 0x80;
/// The attribute goes on to other ASes, also through routers that do not know it.
pub(super) const TRANSITIVE: u8 = 0x40;
/// A router that did not know the attribute has passed it on.
pub(super) const PARTIAL: u8 = 0x20;
/// The length field has two octets.
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

/// The optional and transitive bits an attribute must have; `None` for one without a definition
/// here.
pub(super) const fn specified_flags(code: u8) -> Option<u8> {
    match code {
        code_of::ORIGIN
        | code_of::AS_PATH
        | code_of::NEXT_HOP
        | code_of::LOCAL_PREF
        | code_of::ATOMIC_AGGREGATE => Some(TRANSITIVE),
        code_of::MULTI_EXIT_DISC
        | code_of::ORIGINATOR_ID
        | code_of::CLUSTER_LIST
        | code_of::MP_REACH_NLRI
        | code_of::MP_UNREACH_NLRI => Some(OPTIONAL),
        code_of::AGGREGATOR
        | code_of::COMMUNITIES
        | code_of::EXTENDED_COMMUNITIES
        | code_of::AS4_PATH
        | code_of::AS4_AGGREGATOR
        | code_of::IPV6_EXTENDED_COMMUNITIES
        | code_of::LARGE_COMMUNITIES
        | code_of::ONLY_TO_CUSTOMER
        | code_of::PREFIX_SID => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}

/// One attribute, cut out of the rest.
pub(super) struct Header<'a> {
    pub(super) flags: u8,
    pub(super) code: u8,
    pub(super) value: &'a [u8],
    pub(super) whole: &'a [u8],
    pub(super) rest: &'a [u8],
}

impl<'a> Header<'a> {
    /// `None` when the octets end before the attribute does.
    pub(super) fn split(octets: &'a [u8]) -> Option<Self> {
        let (flags, code, length, after) = match octets {
            [flags, code, high, low, after @ ..] if flags & EXTENDED_LENGTH != 0 => {
                (*flags, *code, u16::from_be_bytes([*high, *low]), after)
            }
            [flags, code, length, after @ ..] if flags & EXTENDED_LENGTH == 0 => {
                (*flags, *code, u16::from(*length), after)
            }
            _ => return None,
        };
        let (value, rest) = after.split_at_checked(usize::from(length))?;
        let (whole, _) = octets.split_at_checked(octets.len() - rest.len())?;
        Some(Self {
            flags,
            code,
            value,
            whole,
            rest,
        })
    }
}
