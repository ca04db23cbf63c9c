//! UPDATEs into the RIB. What becomes of a route is in [`super::attributes`].

use super::attributes::{Admitted, ImportPolicy};
use super::peer::Peer;
use super::{PeerId, Router};
use crate::config::SpeakerConfig;
use crate::policy::{Operation, Refusal, RefusalCounts};
use crate::rib::{Path, Rib, Route, RouteId, Routes};
use crate::types::Prefix;
use crate::wire::{PathAttributes, Reach, Update};

/// The import of a peer's routes, with what was found out about the last attribute set: neighbours are mostly alike.
struct Import<'a> {
    policy: ImportPolicy<'a>,
    checked: Option<(RouteId, Result<Admitted, Refusal>)>,
    /// The last operations applied to the route last checked, and what became of it.
    made: Option<(*const [Operation], RouteId)>,
    refused: RefusalCounts,
}

impl<'a> Import<'a> {
    fn new(config: &'a SpeakerConfig, peer: &'a Peer) -> Option<Self> {
        Some(Self {
            policy: ImportPolicy::new(config, peer)?,
            checked: None,
            made: None,
            refused: RefusalCounts::default(),
        })
    }

    fn check(&mut self, routes: &Routes, received: RouteId) {
        if !matches!(self.checked, Some((known, _)) if known == received) {
            self.checked = Some((received, self.policy.check(&routes.get(received))));
            self.made = None;
        }
    }

    /// What becomes of a route as received.
    fn decide(
        &mut self,
        routes: &mut Routes,
        prefix: &Prefix,
        received: RouteId,
    ) -> Result<RouteId, Refusal> {
        let decision = self.look(routes, prefix, received);
        if let Err(refusal) = &decision {
            self.refused.add(*refusal);
        }
        decision
    }

    fn look(
        &mut self,
        routes: &mut Routes,
        prefix: &Prefix,
        received: RouteId,
    ) -> Result<RouteId, Refusal> {
        self.check(routes, received);
        let operations = match &self.checked {
            Some((_, Ok(admitted))) => self.policy.filter(admitted, prefix)?,
            Some((_, Err(refusal))) => return Err(*refusal),
            None => &[],
        };
        if let Some((same, effective)) = &self.made
            && std::ptr::eq(*same, operations)
        {
            return Ok(*effective);
        }
        let effective = match self.policy.transform(operations, &routes.get(received)) {
            Some(route) => routes.intern(route),
            None => received,
        };
        self.made = Some((operations, effective));
        Ok(effective)
    }
}

impl Router {
    /// Applies an UPDATE of an established session.
    pub(super) fn import(&mut self, id: PeerId, update: Update) {
        self.rib.tidy();
        let source = id.source();
        let mut changed = Vec::new();
        for nlri in &update.withdrawn {
            changed.extend(self.rib.withdraw(&nlri.prefix, source, nlri.path_id));
        }
        let Some(import) = self
            .peers
            .get(&id)
            .and_then(|peer| Import::new(&self.config, peer))
        else {
            return;
        };
        let refused = announce(
            &mut self.rib,
            import,
            id,
            update.attributes,
            &update.reach,
            &mut changed,
        );
        self.count_refused(id, &refused);
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
            .reconsider(id.source(), |routes, prefix, received| {
                import.decide(routes, prefix, received)
            });
        let refused = import.refused;
        self.count_refused(id, &refused);
        self.spread(&changed);
    }

    fn count_refused(&mut self, id: PeerId, refused: &RefusalCounts) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.refused.merge(refused);
        }
    }
}

fn announce(
    rib: &mut Rib,
    mut import: Import<'_>,
    id: PeerId,
    attributes: PathAttributes,
    reach: &[Reach],
    changed: &mut Vec<crate::rib::DestinationId>,
) -> RefusalCounts {
    for Reach { next_hop, nlri, .. } in reach {
        let route = Route {
            next_hop: Some(*next_hop),
            attributes: attributes.clone(),
            metric: None,
        };
        let received = rib.intern(route);
        for nlri in nlri {
            let effective = import.decide(rib.routes_mut(), &nlri.prefix, received);
            let path = Path::new(id.source(), received, effective).with_path_id(nlri.path_id);
            changed.extend(rib.announce(nlri.prefix, path));
        }
    }
    import.refused
}
