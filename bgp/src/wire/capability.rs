//! Capabilities (RFC 5492): what a speaker says in its OPEN it can do.
//!
//! Families the speaker does not carry are left out of the lists inside capabilities when read;
//! capabilities it does not know are kept as they came.

mod codec;

use bytes::Bytes;

use crate::types::{Asn, Family};

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Code 1: routes of this family (RFC 4760).
    Multiprotocol(Family),
    /// Code 2: ROUTE-REFRESH messages (RFC 2918).
    RouteRefresh,
    /// Code 5: next hops of another family (RFC 8950).
    ExtendedNextHop(Vec<ExtendedNextHop>),
    /// Code 6: messages of up to 65,535 octets (RFC 8654).
    ExtendedMessage,
    /// Code 9: the sender's part in the relation of the two ASes (RFC 9234).
    Role(Role),
    /// Code 64: keeps routes over a restart (RFC 4724).
    GracefulRestart(GracefulRestart),
    /// Code 65: the sender's AS number in four octets (RFC 6793).
    FourOctetAsn(Asn),
    /// Code 69: several paths for one prefix (RFC 7911).
    AddPath(Vec<(Family, AddPathMode)>),
    /// Code 70: marks begin and end of a refresh (RFC 7313).
    EnhancedRouteRefresh,
    /// Code 71: keeps routes for long (RFC 9494).
    LongLivedGracefulRestart(Vec<LongLivedFamily>),
    /// Any other code, and code 1 for families the speaker does not carry.
    Unknown {
        /// The capability's code.
        code: u8,
        /// Its value, up to 255 octets.
        value: Bytes,
    },
}

/// Routes of `family` may have a next hop of `next_hop`'s address family (RFC 8950 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExtendedNextHop {
    /// The family of the routes.
    pub family: Family,
    /// The AFI of the next hop, 2 for IPv6.
    pub next_hop_afi: u16,
}

/// A BGP role (RFC 9234 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// 0: the sender provides transit.
    Provider,
    /// 1: the sender is a route server.
    RouteServer,
    /// 2: the sender is a client of a route server.
    RouteServerClient,
    /// 3: the sender buys transit.
    Customer,
    /// 4: the two are peers.
    Peer,
    /// A value without a meaning yet.
    Unknown(u8),
}

/// The content of the graceful restart capability (RFC 4724 §3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted; do not wait for its End-of-RIB before sending routes.
    pub restarting: bool,
    /// N bit: a NOTIFICATION, too, leaves routes in place (RFC 8538).
    pub notification: bool,
    /// How long the sender may be away, in seconds, 0 to 4095.
    pub restart_time: u16,
    /// The families it keeps. An empty list: the sender only helps others restart.
    pub families: Vec<GracefulRestartFamily>,
}

/// A family of the graceful restart capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GracefulRestartFamily {
    /// The family.
    pub family: Family,
    /// F bit: the sender kept forwarding while it restarted.
    pub forwarding: bool,
}

/// What of ADD-PATH the sender can do for a family (RFC 7911 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddPathMode {
    /// 1: it can receive several paths.
    Receive,
    /// 2: it can send several paths.
    Send,
    /// 3: both.
    Both,
}

impl AddPathMode {
    /// Whether the sender of the capability receives several paths.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::Receive | Self::Both)
    }

    /// Whether the sender of the capability sends several paths.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::Send | Self::Both)
    }
}

/// A family of the long-lived graceful restart capability (RFC 9494 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LongLivedFamily {
    /// The family.
    pub family: Family,
    /// F bit: the sender kept forwarding while it restarted.
    pub forwarding: bool,
    /// How long stale routes may be kept, in seconds, 24 bits.
    pub stale_time: u32,
}
