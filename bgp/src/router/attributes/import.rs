//! From the route as received to the route that takes part in the decision process.

use std::net::IpAddr;

use super::operations::apply;
use crate::config::{PeerConfig, SpeakerConfig};
use crate::policy::{Operation, Refusal};
use crate::rib::Route;
use crate::router::peer::Peer;
use crate::types::Prefix;

/// What becomes of the routes of one session. Borrowed from the configuration: made for an UPDATE, at no cost.
#[derive(Clone, Copy)]
pub(in crate::router) struct ImportPolicy<'a> {
    speaker: &'a SpeakerConfig,
    peer: &'a PeerConfig,
    internal: bool,
    /// Our address on the session.
    local: IpAddr,
}

impl<'a> ImportPolicy<'a> {
    /// The policy for an established session; `None` if there is none.
    pub(in crate::router) fn new(speaker: &'a SpeakerConfig, peer: &'a Peer) -> Option<Self> {
        Some(Self {
            speaker,
            peer: &peer.config,
            internal: peer.internal,
            local: peer.session.as_ref()?.local,
        })
    }

    /// Whether something made of these attributes may be used at all: loops (RFC 4271 section 9.1.2, RFC 4456 section 8) and
    /// next hops that cannot be (section 6.3).
    pub(in crate::router) fn check(&self, route: &Route) -> Result<(), Refusal> {
        let attributes = &route.attributes;
        if attributes.as_path.contains(self.speaker.asn) {
            return Err(Refusal::AsLoop);
        }
        if attributes.originator_id == Some(self.speaker.router_id) {
            return Err(Refusal::OriginatorLoop);
        }
        if attributes.cluster_list.contains(&self.speaker.router_id) {
            return Err(Refusal::ClusterLoop);
        }
        match route.next_hop {
            Some(next_hop) if next_hop.address() == self.local => Err(Refusal::NextHopOwn),
            Some(next_hop) if next_hop.is_unicast() => Ok(()),
            _ => Err(Refusal::NextHopInvalid),
        }
    }

    /// What the filter says: the operations for a route that passes. The slice is the same one for the same decision.
    pub(in crate::router) fn filter(
        &self,
        prefix: &Prefix,
        _route: &Route,
    ) -> Result<&'a [Operation], Refusal> {
        if !prefix.is_unicast() {
            return Err(Refusal::PrefixInvalid);
        }
        match &self.peer.import {
            Some(filter) => filter.decide(prefix).ok_or(Refusal::Filter),
            None if self.internal || !self.speaker.require_policy => Ok(&[]),
            None => Err(Refusal::NoFilter),
        }
    }

    /// The route with everything done to it; `None`: it stays as it was received.
    pub(in crate::router) fn transform(
        &self,
        operations: &[Operation],
        route: &Route,
    ) -> Option<Route> {
        // LOCAL_PREF is ours to give to what comes from another AS (RFC 4271 section 5.1.5).
        let foreign_pref = !self.internal && route.attributes.local_pref.is_some();
        if operations.is_empty() && !foreign_pref {
            return None;
        }
        let mut route = route.clone();
        if foreign_pref {
            route.attributes.local_pref = None;
        }
        apply(operations, &mut route.attributes);
        Some(route)
    }
}
