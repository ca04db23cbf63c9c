//! UPDATEs into the RIB. What becomes of a route is in [`super::attributes`].

use std::sync::Arc;

use super::attributes::{Admitted, ImportPolicy};
use super::peer::Peer;
use super::{PeerId, Router};
use crate::config::SpeakerConfig;
use crate::policy::{Operation, Refusal, RefusalCounts};
use crate::rib::{Interner, Path, Rib, Route};
use crate::types::Prefix;
use crate::wire::{PathAttributes, Reach, Update};

/// The import of a peer's routes, with what was found out about the last attribute set: neighbours are mostly alike.
struct Import<'a> {
    policy: ImportPolicy<'a>,
    checked: Option<(Arc<Route>, Result<Admitted, Refusal>)>,
    /// The last operations applied to the route last checked, and what became of it.
    made: Option<(*const [Operation], Arc<Route>)>,
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

    fn check(&mut self, received: &Arc<Route>) {
        let known = |(route, _): &(Arc<Route>, _)| Arc::ptr_eq(route, received);
        if !self.checked.as_ref().is_some_and(known) {
            self.checked = Some((Arc::clone(received), self.policy.check(received)));
            self.made = None;
        }
    }

    /// What becomes of a route as received.
    fn decide(
        &mut self,
        interner: &mut Interner,
        prefix: &Prefix,
        received: &Arc<Route>,
    ) -> Result<Arc<Route>, Refusal> {
        let decision = self.look(interner, prefix, received);
        if let Err(refusal) = &decision {
            self.refused.add(*refusal);
        }
        decision
    }

    fn look(
        &mut self,
        interner: &mut Interner,
        prefix: &Prefix,
        received: &Arc<Route>,
    ) -> Result<Arc<Route>, Refusal> {
        self.check(received);
        let operations = match &self.checked {
            Some((_, Ok(admitted))) => self.policy.filter(admitted, prefix)?,
            Some((_, Err(refusal))) => return Err(*refusal),
            None => &[],
        };
        if let Some((same, effective)) = &self.made
            && std::ptr::eq(*same, operations)
        {
            return Ok(Arc::clone(effective));
        }
        let effective = match self.policy.transform(operations, received) {
            Some(route) => interner.intern(route),
            None => Arc::clone(received),
        };
        self.made = Some((operations, Arc::clone(&effective)));
        Ok(effective)
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
            .reconsider(id.source(), |interner, prefix, received| {
                import.decide(interner, prefix, received)
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
            let effective = import.decide(rib.interner_mut(), &nlri.prefix, &received);
            let path = Path::new(id.source(), Arc::clone(&received), effective);
            changed.extend(rib.announce(nlri.prefix, path));
        }
    }
    import.refused
}
