//! [`Operation`]: a change to the attributes of an accepted route.

use serde::{Deserialize, Serialize};

use super::{CommunityPattern, ExtendedCommunityPattern, LargeCommunityPattern};
use crate::types::{Asn, Community, ExtendedCommunity, LargeCommunity};

/// Most times an AS can be prepended by one operation.
pub const MAX_PREPEND: u8 = 32;

/// A change to the attributes of an accepted route. Every operation is about what the route has at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// Set LOCAL_PREF. Has no effect on routes given to an eBGP peer, which carry none.
    SetLocalPref(u32),
    /// Set MULTI_EXIT_DISC.
    SetMed(u32),
    /// Set the metric the route has in the kernel's table. Never sent to a peer.
    SetMetric(u32),
    /// Add a community (RFC 1997).
    AddCommunity(Community),
    /// Add a large community (RFC 8092).
    AddLargeCommunity(LargeCommunity),
    /// Add an extended community (RFC 4360).
    AddExtendedCommunity(ExtendedCommunity),
    /// These in place of all communities.
    SetCommunities(Vec<Community>),
    /// These in place of all large communities.
    SetLargeCommunities(Vec<LargeCommunity>),
    /// These in place of all extended communities.
    SetExtendedCommunities(Vec<ExtendedCommunity>),
    /// Take out the communities that match.
    RemoveCommunities(CommunityPattern),
    /// Take out the large communities that match.
    RemoveLargeCommunities(LargeCommunityPattern),
    /// Take out the extended communities that match.
    RemoveExtendedCommunities(ExtendedCommunityPattern),
    /// Put an AS in front of the AS_PATH. On the way to an eBGP peer the AS that every speaker adds comes in front of that.
    Prepend {
        /// Which AS; `None`: this speaker's own.
        asn: Option<Asn>,
        /// How often, 1 to [`MAX_PREPEND`].
        count: u8,
    },
    /// Put ASes in front of the AS_PATH, the first of them in front.
    PrependPath(Vec<Asn>),
}
