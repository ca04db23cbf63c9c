//! How many ways to a destination are used at the same time.

use serde::{Deserialize, Serialize};

/// Which paths beside the best one are used with it.
///
/// Those that are equal to it down to the cost of reaching the next hop (RFC 4271 section 9.1.2.2 a to e). A change never
/// touches a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Multipath {
    /// How many different next hops at most, the best path's included, 1 or more. 1: only the best path.
    pub max: u16,
    /// AS paths need only be equally long, not equal (RFC 7938 section 6.1).
    pub relax: bool,
    /// Share traffic in proportion to the link bandwidth extended communities, where every path has one
    /// (draft-ietf-idr-link-bandwidth).
    pub weight_by_link_bandwidth: bool,
}

impl Default for Multipath {
    /// Every equally good path, in equal shares.
    fn default() -> Self {
        Self {
            max: u16::MAX,
            relax: true,
            weight_by_link_bandwidth: false,
        }
    }
}

impl Multipath {
    /// Only the best path.
    pub const OFF: Self = Self {
        max: 1,
        relax: false,
        weight_by_link_bandwidth: false,
    };
}
