//! From the best route to what a peer is given.

use std::net::IpAddr;

use super::Provenance;
use super::operations::apply;
use crate::config::{NextHopMode, SpeakerConfig};
use crate::policy::{Filter, Operation, Refusal};
use crate::rib::{DEFAULT_LOCAL_PREF, Route};
use crate::router::peer::{Peer, Session};
use crate::types::{Asn, Community, Family, FamilySet, Prefix};
use crate::wire::NextHop;

/// Everything of a peer that decides what it is given: peers with equal keys are given the same, but for two things that
/// remain to the caller. A path does not go back to the peer it came from ([`Refusal::Sender`]), and a route whose next hop
/// is the peer itself does not go to it ([`ExportKey::is_for`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::router) struct ExportKey {
    /// Families the session carries.
    families: FamilySet,
    internal: bool,
    asn: Asn,
    next_hop_mode: NextHopMode,
    /// Our own address for each family, as these peers can reach it.
    own_ipv4: Option<IpAddr>,
    own_ipv6: Option<IpAddr>,
    filter: Option<Filter>,
    require_policy: bool,
}

impl ExportKey {
    /// The key of an established session.
    pub(in crate::router) fn new(config: &SpeakerConfig, peer: &Peer, session: &Session) -> Self {
        let own = |family, other| {
            if Family::of(&session.local) == family {
                Some(session.local)
            } else {
                other
            }
        };
        Self {
            families: session.negotiated.families,
            internal: peer.internal,
            asn: config.asn,
            next_hop_mode: peer.config.next_hop,
            own_ipv4: own(Family::Ipv4Unicast, config.next_hop.ipv4.map(IpAddr::V4)),
            own_ipv6: own(Family::Ipv6Unicast, config.next_hop.ipv6.map(IpAddr::V6)),
            filter: peer.config.export.clone(),
            require_policy: config.require_policy,
        }
    }

    /// Whether the peers take routes of a family at all.
    pub(in crate::router) fn carries(&self, family: Family) -> bool {
        self.families.contains(family)
    }

    /// Whether something made of these attributes may be given: RFC 4271 section 9.2 and the well-known communities.
    pub(in crate::router) fn may_pass(
        &self,
        from: Provenance,
        route: &Route,
    ) -> Result<(), Refusal> {
        // Route reflection (RFC 4456) would make its exception here.
        if self.internal && from == Provenance::Internal {
            return Err(Refusal::NotReflected);
        }
        let communities = &route.attributes.communities;
        let says = |community| communities.contains(&community);
        let kept_in = says(Community::NO_EXPORT) || says(Community::NO_EXPORT_SUBCONFED);
        if says(Community::NO_ADVERTISE) || (!self.internal && kept_in) {
            return Err(Refusal::Community);
        }
        Ok(())
    }

    /// What the filter says: the operations for a route that passes. The slice is the same one for the same decision.
    pub(in crate::router) fn filter(
        &self,
        prefix: &Prefix,
        _from: Provenance,
        _route: &Route,
    ) -> Result<&[Operation], Refusal> {
        match &self.filter {
            Some(filter) => filter.decide(prefix).ok_or(Refusal::Filter),
            // RFC 8212: to another AS only what somebody decided to give.
            None if !self.internal && self.require_policy => Err(Refusal::NoFilter),
            None => Ok(&[]),
        }
    }

    /// The route as it is given.
    pub(in crate::router) fn make(
        &self,
        from: Provenance,
        route: &Route,
        operations: &[Operation],
        family: Family,
    ) -> Result<Route, Refusal> {
        let next_hop = self.next_hop(from, route, family)?;
        let mut attributes = route.attributes.clone();
        if self.internal {
            attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        } else {
            // Section 5.1.4: a MED from one neighbouring AS is not for another.
            if from != Provenance::Local {
                attributes.med = None;
            }
            attributes.as_path = attributes.as_path.prepended(self.asn, 1);
            attributes.originator_id = None;
            attributes.cluster_list.clear();
        }
        apply(operations, &mut attributes);
        if !self.internal {
            attributes.local_pref = None;
        }
        Ok(Route {
            next_hop: Some(next_hop),
            attributes,
        })
    }

    /// Whether a route made may go to the peer at `address`: a peer is never told to send packets to itself (RFC 4271
    /// section 5.1.3).
    pub(in crate::router) fn is_for(address: IpAddr, made: &Route) -> bool {
        made.next_hop
            .is_none_or(|next_hop| next_hop.address() != address)
    }

    fn next_hop(
        &self,
        from: Provenance,
        route: &Route,
        family: Family,
    ) -> Result<NextHop, Refusal> {
        let keep = match self.next_hop_mode {
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
            NextHopMode::Auto => self.internal || from == Provenance::Local,
        };
        let own = match family {
            Family::Ipv4Unicast => self.own_ipv4,
            Family::Ipv6Unicast => self.own_ipv6,
        };
        let kept = route.next_hop.filter(|_| keep);
        kept.or(own.map(NextHop::from))
            .filter(|next_hop| Family::of(&next_hop.address()) == family)
            .ok_or(Refusal::NoNextHop)
    }
}
