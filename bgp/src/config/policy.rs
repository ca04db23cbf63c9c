//! What happens to routes besides the filters: per peer, and for the whole speaker.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ConfigError, PeerAsn};
use crate::types::{Asn, Community, ExtendedCommunity, LargeCommunity};

/// What happens to the routes from and to one peer besides its filters. A change applies to running sessions, but for
/// [`PeerPolicy::local_as`], which is in the OPEN.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PeerPolicy {
    /// The internal peer is a client of this speaker, which reflects routes to it and from it (RFC 4456).
    pub route_reflector_client: bool,
    /// Present another AS to the external peer.
    pub local_as: Option<LocalAs>,
    /// How often this speaker's AS may be in the AS_PATH of a route taken from the peer; 0: a loop is a loop.
    pub allow_own_as: u8,
    /// Put this speaker's AS in the place of the external peer's in the AS_PATH of routes given to it, for sites that share
    /// one AS.
    pub as_override: bool,
    /// Take private AS numbers (RFC 6996) out of the AS_PATH of routes given to the external peer.
    pub remove_private_as: Option<RemovePrivateAs>,
    /// The AS_PATH of a route from the external peer must begin with its AS (RFC 4271 section 6.3). Route servers leave their
    /// AS out.
    pub enforce_first_as: bool,
    /// Take routes whose AS_PATH has an AS_SET, although RFC 9774 says that they are to be treated as withdrawn.
    pub accept_as_sets: bool,
    /// The session is about to be taken down for maintenance (RFC 8326): what the peer is given says so, and what it gave is
    /// the last choice.
    pub graceful_shutdown: bool,
}

impl Default for PeerPolicy {
    fn default() -> Self {
        Self {
            route_reflector_client: false,
            local_as: None,
            allow_own_as: 0,
            as_override: false,
            remove_private_as: None,
            enforce_first_as: true,
            accept_as_sets: false,
            graceful_shutdown: false,
        }
    }
}

impl PeerPolicy {
    /// Refuses what makes no sense for the kind of session.
    pub(super) fn validate(
        &self,
        peer: IpAddr,
        theirs: &PeerAsn,
        own: Asn,
    ) -> Result<(), ConfigError> {
        // Peers out of a range of ASes are of whichever kind they turn out to be.
        let ranges = matches!(theirs, PeerAsn::OneOf(_));
        let internal = theirs.is_internal(own);
        let misplaced = |field, needs| Err(ConfigError::WrongKind { peer, field, needs });
        if internal {
            if self.local_as.is_some() {
                return misplaced("localAs", "external");
            }
            if self.as_override {
                return misplaced("asOverride", "external");
            }
            if self.remove_private_as.is_some() {
                return misplaced("removePrivateAs", "external");
            }
        } else if self.route_reflector_client && !ranges {
            return misplaced("routeReflectorClient", "internal");
        }
        match self.local_as {
            Some(LocalAs { asn, .. })
                if [Asn::ZERO, Asn::TRANS, own].contains(&asn) || theirs.is_internal(asn) =>
            {
                Err(ConfigError::LocalAs { peer, asn })
            }
            _ => Ok(()),
        }
    }

    /// What cannot change on a running session.
    pub(super) fn keeps_session(&self, new: &PeerPolicy) -> bool {
        self.local_as.map(|local| local.asn) == new.local_as.map(|local| local.asn)
    }
}

/// Another AS to present to a peer, as when an AS is renumbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalAs {
    /// The AS presented.
    pub asn: Asn,
    /// Do not put it in front of the AS_PATH of routes taken from the peer.
    #[serde(default)]
    pub no_prepend: bool,
    /// Routes given to the peer have it in the place of this speaker's own AS, not in front of it.
    #[serde(default)]
    pub replace_as: bool,
}

/// Which private AS numbers (RFC 6996) go. The peer's own AS always stays, for it finds loops by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RemovePrivateAs {
    /// All of them.
    All,
    /// Those before the first public one.
    Leading,
    /// None goes, but each is replaced by the AS this speaker presents, so that the path keeps its length.
    Replace,
}

/// A route this speaker originates as long as it has a best route to a more specific prefix (RFC 4271 section 9.2.2.2).
///
/// It has an AS_PATH of its own (no AS_SET, RFC 9774), ATOMIC_AGGREGATE, and AGGREGATOR with this speaker's AS and
/// identifier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Aggregate {
    /// Give no peer the more specific routes.
    pub summary_only: bool,
    /// LOCAL_PREF inside the AS; `None`: 100.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC; `None`: not sent.
    pub med: Option<u32>,
    /// Communities (RFC 1997).
    pub communities: BTreeSet<Community>,
    /// Large communities (RFC 8092).
    pub large_communities: BTreeSet<LargeCommunity>,
    /// Extended communities (RFC 4360).
    pub extended_communities: BTreeSet<ExtendedCommunity>,
}
