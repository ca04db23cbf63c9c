//! What a peer is offered beyond plain routes.

use serde::{Deserialize, Serialize};

use crate::wire;

/// Several paths for one prefix (RFC 7911), for every family of the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AddPath {
    /// Take several paths from the peer.
    pub receive: bool,
    /// The most paths of a prefix to give to the peer; 0 and 1: the best one only, without path identifiers.
    pub send: u8,
}

impl AddPath {
    /// Whether several paths are to be sent.
    #[must_use]
    pub fn sends(self) -> bool {
        self.send > 1
    }
}

/// Our part in the relation with the peer (RFC 9234 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PeerRole {
    /// We give transit to the peer.
    Provider,
    /// We are a route server, the peer its client.
    RouteServer,
    /// The peer is a route server, we its client.
    RouteServerClient,
    /// We take transit from the peer.
    Customer,
    /// Neither of the two.
    Peer,
}

impl PeerRole {
    /// As the capability says it.
    #[must_use]
    pub fn capability(self) -> wire::Role {
        match self {
            Self::Provider => wire::Role::Provider,
            Self::RouteServer => wire::Role::RouteServer,
            Self::RouteServerClient => wire::Role::RouteServerClient,
            Self::Customer => wire::Role::Customer,
            Self::Peer => wire::Role::Peer,
        }
    }

    /// Whether the peer's part fits ours (RFC 9234 section 4.2).
    #[must_use]
    pub fn fits(self, theirs: wire::Role) -> bool {
        theirs
            == match self {
                Self::Provider => wire::Role::Customer,
                Self::RouteServer => wire::Role::RouteServerClient,
                Self::RouteServerClient => wire::Role::RouteServer,
                Self::Customer => wire::Role::Provider,
                Self::Peer => wire::Role::Peer,
            }
    }
}
