//! Who a node is to other speakers.

use std::net::IpAddr;

use margay_bgp::types::{Asn, RouterId};
use margay_crds::BgpSettings;

use crate::view::ClusterNode;

/// The node's AS: its own, or that of the cluster.
pub(super) fn as_number(node: &ClusterNode, settings: &BgpSettings) -> Asn {
    Asn(node.bgp.as_number.unwrap_or(settings.as_number))
}

/// What the node asks for, or its IPv4 address; a node without one gets a number out of its IPv6 address, unique
/// enough within an AS (RFC 6286 asks for no more).
pub(super) fn router_id(node: &ClusterNode) -> Option<RouterId> {
    if let Some(asked) = node.bgp.router_id {
        return Some(RouterId(asked));
    }
    let number = match node.ipv4().or_else(|| node.addresses.first().copied())? {
        IpAddr::V4(address) => u32::from(address),
        IpAddr::V6(address) => {
            let octets = address.octets();
            let chunks = octets.chunks_exact(4);
            chunks.fold(0, |sum, four| {
                let word = four
                    .iter()
                    .fold(0_u32, |word, octet| (word << 8) | u32::from(*octet));
                sum ^ word
            })
        }
    };
    Some(RouterId(number.max(1)))
}
