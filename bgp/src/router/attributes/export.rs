//! From the best route to what a peer is given.

use std::sync::Arc;

use super::next_hop::NextHopPolicy;
use super::operations::{add, apply};
use super::path::PathPolicy;
use super::{Facts, Provenance, only_to_customer, peer_type};
use crate::config::{PeerConfig, PeerRole, SpeakerConfig};
use crate::policy::{Filter, Operation, Prepared, Refusal, Subject};
use crate::rib::{DEFAULT_LOCAL_PREF, Neighbor, Route};
use crate::router::peer::{Peer, Session};
use crate::types::{Community, Family, FamilySet, Prefix, RouterId};
use crate::wire::NextHop;

/// Everything of a peer that decides what it is given: peers with equal keys are given the same, but for two things that
/// remain to the caller. A path does not go back to the peer it came from ([`Refusal::Sender`]), and a route whose next hop
/// is the peer itself does not go to it (RFC 4271 section 5.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::router) struct ExportKey {
    /// Families the session carries.
    families: FamilySet,
    internal: bool,
    /// The peers are clients of ours (RFC 4456).
    client: bool,
    cluster_id: RouterId,
    path: PathPolicy,
    next_hop: NextHopPolicy,
    filter: Option<Filter>,
    /// RFC 8212: there should be a filter, and is none.
    filter_missing: bool,
    graceful_shutdown: bool,
    /// Bilateral peering (RFC 9234), as far as RFC 3765 is concerned.
    lateral: bool,
    /// Our part in the relation with peers in other ASes (RFC 9234).
    role: Option<PeerRole>,
    /// This speaker is a route server, the peers its clients (RFC 7947).
    route_server: bool,
    /// What becomes of routes that are kept beyond a restart.
    long_lived: LongLivedRoutes,
    /// The aggregates whose more specific routes nobody is given.
    summaries: Arc<[Prefix]>,
}

/// What peers are given of routes that are kept beyond a restart (RFC 9494 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum LongLivedRoutes {
    /// Like any other: the peers announced that they know of them, or we know of none ourselves.
    Given,
    /// With NO_EXPORT and the least preference, to internal peers that do not know of them (section 4.6).
    Apart,
    /// Nothing.
    Withheld,
}

impl LongLivedRoutes {
    fn of(config: &SpeakerConfig, facts: &Facts) -> Self {
        let ours = config.graceful_restart.filter(|ours| ours.is_long_lived());
        match ours {
            Some(_) if facts.long_lived => Self::Given,
            Some(ours) if ours.long_lived_partial && facts.internal => Self::Apart,
            Some(_) => Self::Withheld,
            None => Self::Given,
        }
    }
}

/// An attribute set that passed [`ExportKey::may_pass`], with what the filter has to say about it whatever the prefix.
#[derive(Debug, Clone)]
pub(in crate::router) struct Passed(Option<Prepared>);

impl ExportKey {
    /// The key of an established session.
    pub(in crate::router) fn new(config: &SpeakerConfig, peer: &Peer, session: &Session) -> Self {
        let facts = Facts {
            internal: peer.internal,
            peer_asn: session.negotiated.peer_asn,
            families: session.negotiated.families,
            extended_next_hop: session.context.extended_next_hop,
            long_lived: session.negotiated.long_lived.is_some(),
            local: session.local,
            remote: peer.address,
        };
        Self::of(config, &peer.config, &facts)
    }

    /// The key of a session of which these are the facts.
    pub(super) fn of(config: &SpeakerConfig, peer: &PeerConfig, facts: &Facts) -> Self {
        let policy = &peer.policy;
        let names_peer = policy.as_override || policy.remove_private_as.is_some();
        let summaries = config.aggregates.iter();
        let summaries = summaries.filter(|(_, aggregate)| aggregate.summary_only);
        Self {
            families: facts.families,
            internal: facts.internal,
            client: policy.route_reflector_client,
            cluster_id: config.cluster_id(),
            path: PathPolicy {
                asn: config.asn,
                peer_asn: names_peer.then_some(facts.peer_asn),
                local_as: policy.local_as,
                as_override: policy.as_override,
                remove_private: policy.remove_private_as,
            },
            next_hop: NextHopPolicy::new(config, peer.next_hop, facts),
            filter: peer.export.clone(),
            filter_missing: !facts.internal && config.require_policy && peer.export.is_none(),
            graceful_shutdown: policy.graceful_shutdown,
            lateral: peer.role == Some(PeerRole::Peer),
            role: peer.role.filter(|_| !facts.internal),
            route_server: !facts.internal && peer.role == Some(PeerRole::RouteServer),
            long_lived: LongLivedRoutes::of(config, facts),
            summaries: summaries.map(|(prefix, _)| *prefix).collect(),
        }
    }

    /// Whether the peers take routes of a family at all.
    pub(in crate::router) fn carries(&self, family: Family) -> bool {
        self.families.contains(family)
    }

    /// Whether routes of internal peers may concern these peers (RFC 4456 section 6); `client`: such a peer is a client of
    /// ours.
    pub(in crate::router) fn reflects(internal: bool, to_client: bool, from_client: bool) -> bool {
        !internal || to_client || from_client
    }

    /// Whether routes whose best path is from this neighbor may concern the peers at all.
    pub(in crate::router) fn may_concern(&self, from: &Neighbor) -> bool {
        !from.internal || Self::reflects(self.internal, self.client, from.client)
    }

    /// Whether the peers are in our AS.
    pub(in crate::router) fn is_internal(&self) -> bool {
        self.internal
    }

    /// Whether something made of these attributes may be given: RFC 4271 section 9.2, RFC 4456 section 6, RFC 8212, and the
    /// well-known communities.
    pub(in crate::router) fn may_pass(
        &self,
        from: Provenance,
        route: &Route,
    ) -> Result<Passed, Refusal> {
        if self.filter_missing {
            return Err(Refusal::NoFilter);
        }
        if let Provenance::Internal { client, .. } = from
            && !Self::reflects(self.internal, self.client, client)
        {
            return Err(Refusal::NotReflected);
        }
        let communities = &route.attributes.communities;
        let says = |community| communities.contains(&community);
        let kept_in = || says(Community::NO_EXPORT) || says(Community::NO_EXPORT_SUBCONFED);
        let unwanted = || self.lateral && says(Community::NO_PEER);
        if says(Community::NO_ADVERTISE) || (!self.internal && (kept_in() || unwanted())) {
            return Err(Refusal::Community);
        }
        if self.long_lived == LongLivedRoutes::Withheld && says(Community::LLGR_STALE) {
            return Err(Refusal::LongLivedStale);
        }
        let attribute = route.attributes.only_to_customer;
        if self
            .role
            .is_some_and(|role| !only_to_customer::may_leave(role, attribute))
        {
            return Err(Refusal::OnlyToCustomer);
        }
        let subject = Subject {
            attributes: &route.attributes,
            next_hop: route.next_hop.as_ref().map(NextHop::address),
            metric: route.metric,
            peer_type: peer_type(self.internal),
            source: from.route_source(),
        };
        Ok(Passed(self.filter.as_ref().map(|f| f.prepare(&subject))))
    }

    /// What the filter says about a prefix with attributes that may pass: the operations for a route that does. The slice is
    /// the same one for the same decision.
    pub(in crate::router) fn filter(
        &self,
        passed: &Passed,
        prefix: &Prefix,
    ) -> Result<&[Operation], Refusal> {
        let within = |summary: &Prefix| summary != prefix && summary.contains(prefix);
        if self.summaries.iter().any(within) {
            return Err(Refusal::Summarized);
        }
        match (&self.filter, &passed.0) {
            (Some(filter), Some(prepared)) => {
                filter.decide(prepared, prefix).ok_or(Refusal::Filter)
            }
            _ => Ok(&[]),
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
        // A route server is not on the way (RFC 7947 section 2.2); its own routes are like anybody's.
        let transparent = self.route_server && from != Provenance::Local;
        let next_hop = self.next_hop.choose(from, route, family, transparent)?;
        let stale = route
            .attributes
            .communities
            .contains(&Community::LLGR_STALE);
        let mut route = route.clone();
        if self.internal {
            self.stay(from, &mut route);
        } else {
            Self::shed(from, transparent, &mut route);
            if !transparent && self.path.cleans() {
                route.attributes.as_path = self.path.cleaned(&route.attributes.as_path);
            }
        }
        apply(operations, self.path.asn, &mut route);
        if self.graceful_shutdown {
            add(
                &mut route.attributes.communities,
                Community::GRACEFUL_SHUTDOWN,
            );
        }
        if !self.internal {
            route.attributes.local_pref = None;
            if let Some(role) = self.role {
                let attribute = &mut route.attributes.only_to_customer;
                *attribute = only_to_customer::leaving(role, self.path.presented(), *attribute);
            }
            if !transparent {
                route.attributes.as_path = self.path.leaving(&route.attributes.as_path);
            }
        } else if self.graceful_shutdown {
            // RFC 8326 section 4.
            route.attributes.local_pref = Some(0);
        }
        if stale {
            self.mark_stale(&mut route);
        }
        route.next_hop = Some(next_hop);
        // Not for peers, and so nothing to tell routes apart by.
        route.metric = None;
        Ok(route)
    }

    /// Whatever a filter did: the mark stays (RFC 9494 section 4.3).
    fn mark_stale(&self, route: &mut Route) {
        let attributes = &mut route.attributes;
        if self.long_lived == LongLivedRoutes::Apart {
            add(&mut attributes.communities, Community::NO_EXPORT);
            attributes.local_pref = Some(0);
        }
        add(&mut attributes.communities, Community::LLGR_STALE);
    }

    /// For a peer in the AS: what internal routes carry, and what reflection adds (RFC 4456 section 8).
    fn stay(&self, from: Provenance, route: &mut Route) {
        let attributes = &mut route.attributes;
        attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        if let Provenance::Internal { router_id, .. } = from {
            attributes.originator_id.get_or_insert(router_id);
            attributes.cluster_list.insert(0, self.cluster_id);
        }
    }

    /// For a peer in another AS: without what has no meaning there.
    fn shed(from: Provenance, transparent: bool, route: &mut Route) {
        let attributes = &mut route.attributes;
        if from != Provenance::Local && !transparent {
            // RFC 4271 section 5.1.4: a MED from one neighbouring AS is not for another.
            attributes.med = None;
            // RFC 4360 section 6. What we say ourselves, here or in the filter, is ours to send.
            attributes
                .extended_communities
                .retain(|community| community.is_transitive());
        }
        attributes.originator_id = None;
        attributes.cluster_list.clear();
    }
}
