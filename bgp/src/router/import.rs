//! UPDATEs into the RIB: loop checks and import policy.

use std::sync::Arc;

use super::peer::Peer;
use super::{PeerId, Router};
use crate::config::{PeerConfig, SpeakerConfig};
use crate::policy::{Filter, Operation};
use crate::rib::{Interner, Path, Rib, Route};
use crate::types::Prefix;
use crate::wire::{PathAttributes, Reach, Update};

/// What the import of a peer's routes depends on, gathered once for many routes.
pub(super) struct Import<'a> {
    config: &'a SpeakerConfig,
    peer: &'a PeerConfig,
    internal: bool,
    local: std::net::IpAddr,
    /// The last route decided on with the operations that applied, and what became of it: neighbours are mostly alike.
    last: Option<(Arc<Route>, *const [Operation], Arc<Route>)>,
}

impl<'a> Import<'a> {
    pub(super) fn new(config: &'a SpeakerConfig, peer: &'a Peer) -> Option<Self> {
        let local = peer.session.as_ref()?.local;
        Some(Self {
            config,
            peer: &peer.config,
            internal: peer.internal,
            local,
            last: None,
        })
    }

    /// Whether nothing made of these attributes may be used: loops (RFC 4271 section 9.1.2, RFC 4456 section 8) and next hops
    /// that cannot be (section 6.3).
    fn is_unusable(&self, route: &Route) -> bool {
        let attributes = &route.attributes;
        attributes.as_path.contains(self.config.asn)
            || attributes.originator_id == Some(self.config.router_id)
            || attributes.cluster_list.contains(&self.config.router_id)
            || route
                .next_hop
                .is_none_or(|next_hop| !next_hop.is_unicast() || next_hop.address() == self.local)
    }

    /// The filter in force; `None` stands for RFC 8212's default.
    fn filter(&self) -> Option<Option<&'a Filter>> {
        match &self.peer.import {
            Some(filter) => Some(Some(filter)),
            None if self.internal || !self.config.require_policy => Some(None),
            None => None,
        }
    }

    /// What becomes of a route as received; `None` if it is refused.
    pub(super) fn decide(
        &mut self,
        interner: &mut Interner,
        prefix: &Prefix,
        received: &Arc<Route>,
    ) -> Option<Arc<Route>> {
        if !prefix.is_unicast() {
            return None;
        }
        let operations: &[Operation] = match self.filter()? {
            Some(filter) => filter.decide(prefix)?,
            None => &[],
        };
        if let Some((route, same_operations, effective)) = &self.last
            && Arc::ptr_eq(route, received)
            && std::ptr::eq(*same_operations, operations)
        {
            return Some(Arc::clone(effective));
        }
        if self.is_unusable(received) {
            return None;
        }
        // LOCAL_PREF is ours to give to what comes from another AS (RFC 4271 section 5.1.5).
        let foreign_pref = !self.internal && received.attributes.local_pref.is_some();
        let effective = if operations.is_empty() && !foreign_pref {
            Arc::clone(received)
        } else {
            let mut route = Route::clone(received);
            if foreign_pref {
                route.attributes.local_pref = None;
            }
            apply(operations, &mut route.attributes);
            interner.intern(route)
        };
        self.last = Some((Arc::clone(received), operations, Arc::clone(&effective)));
        Some(effective)
    }
}

/// Applies a filter's operations.
pub(super) fn apply(operations: &[Operation], attributes: &mut PathAttributes) {
    for operation in operations {
        match operation {
            Operation::SetLocalPref(value) => attributes.local_pref = Some(*value),
            Operation::SetMed(value) => attributes.med = Some(*value),
            Operation::AddCommunity(community) => {
                if !attributes.communities.contains(community) {
                    attributes.communities.push(*community);
                }
            }
            Operation::AddLargeCommunity(community) => {
                if !attributes.large_communities.contains(community) {
                    attributes.large_communities.push(*community);
                }
            }
        }
    }
}

impl Router {
    /// Applies an UPDATE of an established session.
    pub(super) fn import(&mut self, id: PeerId, update: Update) {
        let source = id.source();
        let mut changed = Vec::new();
        for nlri in &update.withdrawn {
            changed.extend(self.rib.withdraw(&nlri.prefix, source));
        }
        let Some(import) = self
            .peers
            .get(&id)
            .and_then(|peer| Import::new(&self.config, peer))
        else {
            return;
        };
        announce(
            &mut self.rib,
            import,
            id,
            update.attributes,
            &update.reach,
            &mut changed,
        );
        self.spread(&changed);
    }

    /// Decides anew about every route of a peer, after its import policy has changed.
    pub(super) fn import_again(&mut self, id: PeerId) {
        let Some(mut import) = self
            .peers
            .get(&id)
            .and_then(|peer| Import::new(&self.config, peer))
        else {
            return;
        };
        let changed = self
            .rib
            .reconsider(id.source(), |interner, prefix, received| {
                import.decide(interner, prefix, received)
            });
        self.spread(&changed);
    }
}

fn announce(
    rib: &mut Rib,
    mut import: Import<'_>,
    id: PeerId,
    attributes: PathAttributes,
    reach: &[Reach],
    changed: &mut Vec<crate::rib::DestinationId>,
) {
    for Reach { next_hop, nlri, .. } in reach {
        let route = Route {
            next_hop: Some(*next_hop),
            attributes: attributes.clone(),
        };
        let received = rib.intern(route);
        for nlri in nlri {
            let effective = import.decide(rib.interner_mut(), &nlri.prefix, &received);
            let path = Path::new(id.source(), Arc::clone(&received), effective);
            changed.extend(rib.announce(nlri.prefix, path));
        }
    }
}
