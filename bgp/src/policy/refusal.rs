//! [`Refusal`]: why a route is not used, or not given to a peer.

use std::fmt;

use serde::{Serialize, Serializer};

/// Why a route is not used, or not given to a peer. One octet, so that every path can carry its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// The filter said no.
    Filter,
    /// An eBGP session without a filter (RFC 8212).
    NoFilter,
    /// Our AS is in the AS_PATH more often than allowed (RFC 4271 section 9.1.2).
    AsLoop,
    /// The AS_PATH has an AS_SET (RFC 9774).
    AsSet,
    /// From another AS, and with an empty AS_PATH (RFC 4271 section 6.3).
    EmptyPath,
    /// The AS_PATH does not begin with the AS of the peer (RFC 4271 section 6.3).
    FirstAs,
    /// The ORIGINATOR_ID is ours: the route left from here (RFC 4456 section 8).
    OriginatorLoop,
    /// Our cluster has reflected the route before (RFC 4456 section 8).
    ClusterLoop,
    /// The next hop is missing, or no address of a router (RFC 4271 section 6.3).
    NextHopInvalid,
    /// The next hop is this speaker itself (RFC 4271 section 6.3).
    NextHopOwn,
    /// The destination is not a unicast network.
    PrefixInvalid,
    /// The best path came from the peer itself, and does not go back.
    Sender,
    /// From one internal peer to another, neither of them a client (RFC 4271 section 9.2, RFC 4456 section 6).
    NotReflected,
    /// A well-known community keeps the route from the peer (RFC 1997).
    Community,
    /// There is no address of ours to give as next hop in the route's family.
    NoNextHop,
    /// The next hop is the peer itself (RFC 4271 section 5.1.3).
    NextHopPeer,
    /// An aggregate stands for it (summaryOnly).
    Summarized,
    /// ONLY_TO_CUSTOMER says that the route has been leaked (RFC 9234 section 5).
    RouteLeak,
    /// ONLY_TO_CUSTOMER keeps the route from providers, peers and route servers (RFC 9234 section 5).
    OnlyToCustomer,
    /// Kept beyond a restart, and not for peers that do not know of such routes (RFC 9494 section 4.3).
    LongLivedStale,
}

impl Refusal {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::Filter,
        Self::NoFilter,
        Self::AsLoop,
        Self::AsSet,
        Self::EmptyPath,
        Self::FirstAs,
        Self::OriginatorLoop,
        Self::ClusterLoop,
        Self::NextHopInvalid,
        Self::NextHopOwn,
        Self::PrefixInvalid,
        Self::Sender,
        Self::NotReflected,
        Self::Community,
        Self::NoNextHop,
        Self::NextHopPeer,
        Self::Summarized,
        Self::RouteLeak,
        Self::OnlyToCustomer,
        Self::LongLivedStale,
    ];

    /// In words, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::NoFilter => "no filter (RFC 8212)",
            Self::AsLoop => "as loop",
            Self::AsSet => "AS_SET in the path (RFC 9774)",
            Self::EmptyPath => "empty AS path",
            Self::FirstAs => "first AS is not the peer's",
            Self::OriginatorLoop => "originator loop",
            Self::ClusterLoop => "cluster loop",
            Self::NextHopInvalid => "invalid next hop",
            Self::NextHopOwn => "next hop is this speaker",
            Self::PrefixInvalid => "not a unicast prefix",
            Self::Sender => "came from the peer",
            Self::NotReflected => "internal route to an internal peer",
            Self::Community => "well-known community",
            Self::NoNextHop => "no next hop of our own in this family",
            Self::NextHopPeer => "next hop is the peer",
            Self::Summarized => "part of a summary-only aggregate",
            Self::RouteLeak => "route leak (RFC 9234)",
            Self::OnlyToCustomer => "only to customers (RFC 9234)",
            Self::LongLivedStale => "long-lived stale (RFC 9494)",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_listed_once_and_in_order() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index, "{refusal}");
        }
        assert_eq!(size_of::<Option<Refusal>>(), 1);
    }
}
