//! What happens to a route on its way in and out: pure functions of what a session is and what a route says.
//!
//! [`ImportPolicy`] makes of a route as received the route that takes part in the decision process, [`ExportKey`] makes of
//! the best route what a peer is given; or each says why not. Nothing here walks a table, caches, or knows a connection:
//! that is for the callers, who also know how many routes have the same attributes. Every step says what it depends on:
//!
//! | step | depends on |
//! |---|---|
//! | `check`, `may_pass` | the attribute set and where it came from |
//! | `filter` | the same, and the prefix |
//! | `transform`, `make` | the attribute set, where it came from, the operations, for `make` the family |

mod export;
mod import;
mod next_hop;
mod only_to_customer;
mod operations;
mod path;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::policy::{PeerType, RouteSource};
use crate::rib::{Neighbor, Source};
use crate::types::{Asn, FamilySet, RouterId};

pub(super) use export::{ExportKey, Passed};
pub(super) use import::{Admitted, ImportPolicy};
pub(super) use operations::add;

/// Where a path came from, as far as policy is concerned. Part of every cache key: it is all of a source that an outcome
/// depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Provenance {
    /// This speaker's own route.
    Local,
    /// An external peer gave it.
    External,
    /// An internal peer gave it.
    Internal {
        /// The peer is a client of ours (RFC 4456).
        client: bool,
        /// Its identifier: the originator of a route that names none.
        router_id: RouterId,
    },
}

impl Provenance {
    /// Where the paths of a source come from; `neighbor` is what the RIB knows of it.
    pub(super) fn of(source: Source, neighbor: Option<Neighbor>) -> Self {
        match neighbor {
            _ if source.is_local() => Self::Local,
            Some(Neighbor {
                internal: true,
                client,
                router_id,
                ..
            }) => Self::Internal { client, router_id },
            _ => Self::External,
        }
    }

    /// As filters see it.
    fn route_source(self) -> RouteSource {
        match self {
            Self::Local => RouteSource::Local,
            Self::External => RouteSource::External,
            Self::Internal { .. } => RouteSource::Internal,
        }
    }
}

/// What is known of an established session besides the configuration.
struct Facts {
    internal: bool,
    /// The AS the peer has presented.
    peer_asn: Asn,
    families: FamilySet,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    extended_next_hop: bool,
    /// Both sides announced long-lived graceful restart (RFC 9494).
    long_lived: bool,
    /// Our address.
    local: IpAddr,
    /// The peer's.
    remote: IpAddr,
}

fn peer_type(internal: bool) -> PeerType {
    if internal {
        PeerType::Internal
    } else {
        PeerType::External
    }
}
