//! From the route as received to the route that takes part in the decision process.

use std::net::{IpAddr, SocketAddr};

use super::operations::apply;
use super::{only_to_customer, peer_type};
use crate::config::{PeerConfig, PeerRole, SpeakerConfig};
use crate::policy::{Operation, Prepared, Refusal, RouteSource, Subject};
use crate::rib::Route;
use crate::router::peer::Peer;
use crate::types::{Asn, Community, Prefix};
use crate::wire::NextHop;

/// What becomes of the routes of one session. Borrowed from the configuration: made for an UPDATE, at no cost.
#[derive(Clone, Copy)]
pub(in crate::router) struct ImportPolicy<'a> {
    pub(super) speaker: &'a SpeakerConfig,
    pub(super) peer: &'a PeerConfig,
    pub(super) internal: bool,
    /// Our address on the session.
    pub(super) local: IpAddr,
    /// The AS the peer has presented.
    pub(super) peer_asn: Asn,
}

/// An attribute set that passed [`ImportPolicy::check`], with what the filter has to say about it whatever the prefix.
#[derive(Debug, Clone)]
pub(in crate::router) struct Admitted(Option<Prepared>);

impl<'a> ImportPolicy<'a> {
    /// The policy for an established session; `None` if there is none.
    pub(in crate::router) fn new(speaker: &'a SpeakerConfig, peer: &'a Peer) -> Option<Self> {
        let session = peer.session.as_ref()?;
        Some(Self {
            speaker,
            peer: &peer.config,
            internal: peer.internal,
            local: session.local,
            peer_asn: session.negotiated.peer_asn,
        })
    }

    /// Whether two configurations of a session decide differently about some route.
    pub(in crate::router) fn differ(
        internal: bool,
        old: (&SpeakerConfig, &PeerConfig),
        new: (&SpeakerConfig, &PeerConfig),
    ) -> bool {
        let required = |(speaker, peer): (&SpeakerConfig, &PeerConfig)| {
            speaker.require_policy && !internal && peer.import.is_none()
        };
        required(old) != required(new)
            || old.1.import != new.1.import
            || old.1.policy != new.1.policy
            || old.0.cluster_id() != new.0.cluster_id()
            || old.0.next_hop != new.0.next_hop
    }

    /// Whether something made of these attributes may be used at all.
    pub(in crate::router) fn check(&self, route: &Route) -> Result<Admitted, Refusal> {
        // RFC 8212 comes first: where nothing is taken, nothing is wrong with any route in particular.
        if self.peer.import.is_none() && !self.internal && self.speaker.require_policy {
            return Err(Refusal::NoFilter);
        }
        self.check_path(route)?;
        self.only_to_customer(route)?;
        self.check_reflection(route)?;
        self.check_next_hop(route)?;
        let prepare = |filter: &crate::policy::Filter| filter.prepare(&self.subject(route));
        Ok(Admitted(self.peer.import.as_ref().map(prepare)))
    }

    /// RFC 4271 sections 6.3 and 9.1.2, RFC 9774. AS 0 (RFC 7607) and confederation segments (RFC 5065) do not get as far as
    /// here: to the decoder they are malformed.
    fn check_path(&self, route: &Route) -> Result<(), Refusal> {
        let path = &route.attributes.as_path;
        let policy = &self.peer.policy;
        if path.has_set() && !policy.accept_as_sets {
            return Err(Refusal::AsSet);
        }
        if !self.internal && path.is_empty() {
            return Err(Refusal::EmptyPath);
        }
        // A route server leaves its AS out (RFC 7947 section 2.2.2.1).
        let enforced =
            policy.enforce_first_as && self.peer.role != Some(PeerRole::RouteServerClient);
        if !self.internal && enforced && path.neighbor() != Some(self.peer_asn) {
            return Err(Refusal::FirstAs);
        }
        let allowed = usize::from(policy.allow_own_as);
        let presented = policy.local_as.map(|local| local.asn);
        let mut own = [Some(self.speaker.asn), presented].into_iter().flatten();
        if own.any(|asn| path.count(asn) > allowed) {
            return Err(Refusal::AsLoop);
        }
        Ok(())
    }

    /// The ONLY_TO_CUSTOMER of the route from here on (RFC 9234 section 5).
    fn only_to_customer(&self, route: &Route) -> Result<Option<Asn>, Refusal> {
        let attribute = route.attributes.only_to_customer;
        match self.peer.role.filter(|_| !self.internal) {
            Some(role) => only_to_customer::received(role, self.peer_asn, attribute),
            None => Ok(attribute),
        }
    }

    /// RFC 4456 section 8.
    fn check_reflection(&self, route: &Route) -> Result<(), Refusal> {
        let attributes = &route.attributes;
        if attributes.originator_id == Some(self.speaker.router_id) {
            return Err(Refusal::OriginatorLoop);
        }
        if attributes.cluster_list.contains(&self.speaker.cluster_id()) {
            return Err(Refusal::ClusterLoop);
        }
        Ok(())
    }

    /// RFC 4271 section 6.3: an address of a router, and not ours.
    fn check_next_hop(&self, route: &Route) -> Result<(), Refusal> {
        let Some(next_hop) = route.next_hop else {
            return Err(Refusal::NextHopInvalid);
        };
        let address = next_hop.address();
        let configured = self.speaker.next_hop;
        let own = [
            Some(self.local),
            configured.ipv4.map(IpAddr::V4),
            configured.ipv6.map(IpAddr::V6),
        ];
        let listens = |listener: &SocketAddr| listener.ip() == address;
        if own.contains(&Some(address)) || self.speaker.listen.iter().any(listens) {
            return Err(Refusal::NextHopOwn);
        }
        // Routers on one host may well talk over its loopback interface, and reach each other there.
        let loopback = address.is_loopback() && !self.local.is_loopback();
        if !next_hop.is_unicast() || loopback {
            return Err(Refusal::NextHopInvalid);
        }
        Ok(())
    }

    fn subject<'b>(&self, route: &'b Route) -> Subject<'b> {
        Subject {
            attributes: &route.attributes,
            next_hop: route.next_hop.as_ref().map(NextHop::address),
            metric: route.metric,
            peer_type: peer_type(self.internal),
            source: if self.internal {
                RouteSource::Internal
            } else {
                RouteSource::External
            },
        }
    }

    /// What the filter says about a prefix with attributes that were admitted: the operations for a route that passes. The
    /// slice is the same one for the same decision.
    pub(in crate::router) fn filter(
        &self,
        admitted: &Admitted,
        prefix: &Prefix,
    ) -> Result<&'a [Operation], Refusal> {
        if !prefix.is_unicast() {
            return Err(Refusal::PrefixInvalid);
        }
        match (&self.peer.import, &admitted.0) {
            (Some(filter), Some(prepared)) => {
                filter.decide(prepared, prefix).ok_or(Refusal::Filter)
            }
            _ => Ok(&[]),
        }
    }

    /// What [`filter`](Self::filter) says if that is the same for every unicast prefix; `None`: it depends.
    pub(in crate::router) fn filter_any(
        &self,
        admitted: &Admitted,
    ) -> Option<Result<&'a [Operation], Refusal>> {
        match (&self.peer.import, &admitted.0) {
            (Some(filter), Some(prepared)) => {
                let fixed = filter.decide_any(prepared)?;
                Some(fixed.ok_or(Refusal::Filter))
            }
            _ => Some(Ok(&[])),
        }
    }

    /// The route with everything done to it; `None`: it stays as it was received.
    pub(in crate::router) fn transform(
        &self,
        operations: &[Operation],
        route: &Route,
    ) -> Option<Route> {
        let policy = &self.peer.policy;
        let attributes = &route.attributes;
        // LOCAL_PREF is ours to give to what comes from another AS (RFC 4271 section 5.1.5).
        let foreign_pref = !self.internal && attributes.local_pref.is_some();
        let presented = policy.local_as.filter(|local| !local.no_prepend);
        let leaves = |communities: &[Community]| {
            policy.graceful_shutdown
                || (!self.internal && communities.contains(&Community::GRACEFUL_SHUTDOWN))
        };
        // A leak has been refused before.
        let only_to_customer = self.only_to_customer(route);
        let only_to_customer = only_to_customer.unwrap_or(attributes.only_to_customer);
        if operations.is_empty()
            && only_to_customer == attributes.only_to_customer
            && !foreign_pref
            && presented.is_none()
            && !leaves(&attributes.communities)
        {
            return None;
        }
        let mut route = route.clone();
        route.attributes.only_to_customer = only_to_customer;
        if foreign_pref {
            route.attributes.local_pref = None;
        }
        if let Some(local) = presented {
            route.attributes.as_path = route.attributes.as_path.prepended(local.asn, 1);
        }
        apply(operations, self.speaker.asn, &mut route);
        // RFC 8326: whatever the filter prefers, this path is about to go. A filter that takes the community out does not
        // want to hear of it.
        if leaves(&route.attributes.communities) {
            route.attributes.local_pref = Some(0);
        }
        Some(route)
    }
}
