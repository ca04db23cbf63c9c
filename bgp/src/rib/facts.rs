//! [`Facts`]: what the decision process asks of an attribute set, worked out once.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::best::DEFAULT_LOCAL_PREF;
use super::next_hops::NextHopId;
use super::path::Route;
use crate::types::{Asn, Community, RouterId};
use crate::wire::{AsPath, Origin};

/// What the decision process asks of an attribute set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    /// LOCAL_PREF, [`DEFAULT_LOCAL_PREF`] if there is none.
    pub local_pref: u32,
    /// ASes in the path as the decision process counts them (RFC 4271 section 9.1.2.2 a).
    pub path_length: u32,
    /// ORIGIN.
    pub origin: Origin,
    /// Either kind of `LLGR` community (RFC 9494).
    long_lived: LongLived,
    /// How many clusters reflected it (RFC 4456).
    pub clusters: u16,
    /// MULTI_EXIT_DISC, 0 if there is none.
    pub med: u32,
    /// The AS the path starts with, which MED is compared within.
    pub neighbor: Option<Asn>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator: Option<RouterId>,
    /// Equal paths have equal numbers, others nearly never.
    pub path_hash: u64,
    /// The next hop; `None` for an own route without one.
    pub next_hop: Option<NextHopId>,
    /// Octets a second on the way to the next hop (link bandwidth extended community). Finite and above 0.
    pub bandwidth: Option<f32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum LongLived {
    Neither,
    Stale,
    No,
    Both,
}

impl Facts {
    pub(super) fn of(route: &Route, next_hop: Option<NextHopId>) -> Self {
        let attributes = &route.attributes;
        let says = |community| attributes.communities.contains(&community);
        let bandwidths = attributes.extended_communities.iter();
        Self {
            local_pref: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            path_length: u32::try_from(attributes.as_path.length()).unwrap_or(u32::MAX),
            origin: attributes.origin,
            long_lived: match (says(Community::LLGR_STALE), says(Community::NO_LLGR)) {
                (false, false) => LongLived::Neither,
                (true, false) => LongLived::Stale,
                (false, true) => LongLived::No,
                (true, true) => LongLived::Both,
            },
            clusters: u16::try_from(attributes.cluster_list.len()).unwrap_or(u16::MAX),
            med: attributes.med.unwrap_or(0),
            neighbor: attributes.as_path.neighbor(),
            originator: attributes.originator_id,
            path_hash: hash(&attributes.as_path),
            next_hop,
            bandwidth: bandwidths
                .filter_map(|community| community.bandwidth())
                .find(|bandwidth| bandwidth.is_finite() && *bandwidth > 0.0),
        }
    }

    /// Whoever sent it kept it beyond a restart: the least preferred there is (RFC 9494 section 4.3).
    #[must_use]
    pub fn is_long_lived_stale(&self) -> bool {
        matches!(self.long_lived, LongLived::Stale | LongLived::Both)
    }

    /// Not to be kept beyond a restart (RFC 9494 section 4.2).
    #[must_use]
    pub fn forbids_long_lived(&self) -> bool {
        matches!(self.long_lived, LongLived::No | LongLived::Both)
    }
}

/// Paths that differ are taken for equal once in 2^64 times, and then two ways that are equally good are used together.
fn hash(path: &AsPath) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}
