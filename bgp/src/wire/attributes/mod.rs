//! Path attributes: what routes of one UPDATE have in common.

mod as_path;
mod decode;
mod encode;
mod four_octet;
mod header;
mod path_codec;
mod values;

use bytes::Bytes;

use crate::types::{Asn, Community, ExtendedCommunity, LargeCommunity, RouterId};

pub use as_path::{AsPath, AsSegment};
pub(super) use decode::{Announced, AttributeReader, Collected, Flow};
pub(super) use encode::{encode_attributes, write_wide_header};

/// Attribute type codes.
pub mod attribute_code {
    /// ORIGIN (RFC 4271).
    pub const ORIGIN: u8 = 1;
    /// AS_PATH (RFC 4271).
    pub const AS_PATH: u8 = 2;
    /// NEXT_HOP (RFC 4271).
    pub const NEXT_HOP: u8 = 3;
    /// MULTI_EXIT_DISC (RFC 4271).
    pub const MULTI_EXIT_DISC: u8 = 4;
    /// LOCAL_PREF (RFC 4271).
    pub const LOCAL_PREF: u8 = 5;
    /// ATOMIC_AGGREGATE (RFC 4271).
    pub const ATOMIC_AGGREGATE: u8 = 6;
    /// AGGREGATOR (RFC 4271).
    pub const AGGREGATOR: u8 = 7;
    /// COMMUNITIES (RFC 1997).
    pub const COMMUNITIES: u8 = 8;
    /// ORIGINATOR_ID (RFC 4456).
    pub const ORIGINATOR_ID: u8 = 9;
    /// CLUSTER_LIST (RFC 4456).
    pub const CLUSTER_LIST: u8 = 10;
    /// MP_REACH_NLRI (RFC 4760).
    pub const MP_REACH_NLRI: u8 = 14;
    /// MP_UNREACH_NLRI (RFC 4760).
    pub const MP_UNREACH_NLRI: u8 = 15;
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    /// AS4_PATH (RFC 6793).
    pub const AS4_PATH: u8 = 17;
    /// AS4_AGGREGATOR (RFC 6793).
    pub const AS4_AGGREGATOR: u8 = 18;
    /// IPv6 Address Specific Extended Community (RFC 5701). Carried unrecognised.
    pub const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    /// LARGE_COMMUNITY (RFC 8092).
    pub const LARGE_COMMUNITIES: u8 = 32;
    /// OTC, Only to Customer (RFC 9234).
    pub const ONLY_TO_CUSTOMER: u8 = 35;
    /// BGP Prefix-SID (RFC 8669). Carried unrecognised, within the AS only.
    pub const PREFIX_SID: u8 = 40;
}

/// The name of an attribute as the RFCs write it.
pub(crate) const fn attribute_name(code: u8) -> Option<&'static str> {
    use attribute_code as code_of;
    Some(match code {
        code_of::ORIGIN => "ORIGIN",
        code_of::AS_PATH => "AS_PATH",
        code_of::NEXT_HOP => "NEXT_HOP",
        code_of::MULTI_EXIT_DISC => "MULTI_EXIT_DISC",
        code_of::LOCAL_PREF => "LOCAL_PREF",
        code_of::ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        code_of::AGGREGATOR => "AGGREGATOR",
        code_of::COMMUNITIES => "COMMUNITIES",
        code_of::ORIGINATOR_ID => "ORIGINATOR_ID",
        code_of::CLUSTER_LIST => "CLUSTER_LIST",
        code_of::MP_REACH_NLRI => "MP_REACH_NLRI",
        code_of::MP_UNREACH_NLRI => "MP_UNREACH_NLRI",
        code_of::EXTENDED_COMMUNITIES => "EXTENDED COMMUNITIES",
        code_of::AS4_PATH => "AS4_PATH",
        code_of::AS4_AGGREGATOR => "AS4_AGGREGATOR",
        code_of::IPV6_EXTENDED_COMMUNITIES => "IPV6 EXTENDED COMMUNITIES",
        code_of::LARGE_COMMUNITIES => "LARGE_COMMUNITY",
        code_of::ONLY_TO_CUSTOMER => "OTC",
        code_of::PREFIX_SID => "PREFIX_SID",
        _ => return None,
    })
}

/// How a route came into BGP (RFC 4271 §5.1.1). Ordered by preference: lower is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    /// 0: from inside the AS.
    #[default]
    Igp = 0,
    /// 1: from EGP.
    Egp = 1,
    /// 2: by other means.
    Incomplete = 2,
}

/// The AGGREGATOR attribute: who joined more specific routes into this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// Its AS.
    pub asn: Asn,
    /// Its identifier.
    pub router_id: RouterId,
}

/// An optional transitive attribute the speaker does not know and passes on, with the Partial bit
/// set (RFC 4271 §5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnknownAttribute {
    /// The attribute's type code.
    pub code: u8,
    /// Its value, as it came.
    pub value: Bytes,
}

/// The path attributes of a route without its next hop, which belongs to the NLRI
/// ([`super::Reach`]): so that equal attributes are equal whatever the route's family.
///
/// AS numbers are four octets wide here whatever the session: AS4_PATH and AS4_AGGREGATOR
/// (RFC 6793) exist on the wire only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathAttributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC: lower is better.
    pub med: Option<u32>,
    /// LOCAL_PREF: higher is better. Only between internal peers.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES, in the order received.
    pub communities: Vec<Community>,
    /// ORIGINATOR_ID: who brought the route into the AS. Only between internal peers.
    pub originator_id: Option<RouterId>,
    /// CLUSTER_LIST: the route reflectors passed, the latest first. Only between internal peers.
    pub cluster_list: Vec<RouterId>,
    /// EXTENDED COMMUNITIES, in the order received.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY, in the order received.
    pub large_communities: Vec<LargeCommunity>,
    /// OTC: the AS that sent the route to a customer, peer or route server client first.
    pub only_to_customer: Option<Asn>,
    /// Optional transitive attributes of other kinds, in the order of their codes.
    pub unknown: Vec<UnknownAttribute>,
}
