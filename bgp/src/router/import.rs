//! UPDATEs into the RIB. What becomes of a route is in [`super::attributes`].

use super::attributes::{Admitted, ImportPolicy};
use super::peer::Peer;
use super::{PeerId, Router};
use crate::config::SpeakerConfig;
use crate::policy::{Operation, Refusal, RefusalCounts};
use crate::rib::{Decider, DestinationId, Path, Rib, Route, RouteId, Routes, Task};
use crate::types::Prefix;
use crate::wire::{Nlri, PlainUpdate, Update};

/// How many routes are looked up together: a processor waits for about a dozen places in memory at a time.
const TOGETHER: usize = 32;

/// The import of a peer's routes, with what was found out about the last attribute set: neighbours are mostly alike.
struct Import<'a> {
    policy: ImportPolicy<'a>,
    decider: Decider,
    last: Option<(RouteId, Outcome)>,
    refused: RefusalCounts,
    has_refused: bool,
}

/// What becomes of routes with one attribute set.
enum Outcome {
    /// The same for every prefix.
    Settled(Result<RouteId, Refusal>),
    /// The filter has to look at the prefix. With the last operations it asked for, and what became of the set.
    Filtered(Admitted, Option<(*const [Operation], RouteId)>),
}

impl<'a> Import<'a> {
    fn new(config: &'a SpeakerConfig, id: PeerId, epoch: u32, peer: &'a Peer) -> Option<Self> {
        Some(Self {
            policy: ImportPolicy::new(config, peer)?,
            decider: Decider {
                source: id.source(),
                epoch,
            },
            last: None,
            refused: RefusalCounts::default(),
            has_refused: false,
        })
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
            self.has_refused = true;
        }
        decision
    }

    fn look(
        &mut self,
        routes: &mut Routes,
        prefix: &Prefix,
        received: RouteId,
    ) -> Result<RouteId, Refusal> {
        let outcome = match &mut self.last {
            Some((last, outcome)) if *last == received => outcome,
            last => {
                let outcome = settle(&self.policy, self.decider, routes, received);
                &mut last.insert((received, outcome)).1
            }
        };
        let (admitted, made) = match outcome {
            Outcome::Settled(Err(refusal)) => return Err(*refusal),
            Outcome::Settled(Ok(_)) if !prefix.is_unicast() => {
                return Err(Refusal::PrefixInvalid);
            }
            Outcome::Settled(Ok(effective)) => return Ok(*effective),
            Outcome::Filtered(admitted, made) => (admitted, made),
        };
        let operations = self.policy.filter(admitted, prefix)?;
        if let Some((same, effective)) = made
            && std::ptr::eq(*same, operations)
        {
            return Ok(*effective);
        }
        let transformed = self.policy.transform(operations, &routes.get(received));
        let effective = transformed.map_or(received, |route| routes.intern(route));
        *made = Some((operations, effective));
        Ok(effective)
    }
}

/// Decides about an attribute set; what can be said of it for every prefix is remembered with it.
fn settle(
    policy: &ImportPolicy<'_>,
    decider: Decider,
    routes: &mut Routes,
    received: RouteId,
) -> Outcome {
    if let Some(verdict) = routes.verdict(received, decider) {
        return Outcome::Settled(verdict.map(|()| received));
    }
    let route = routes.get(received);
    let decided = policy
        .check(&route)
        .map(|admitted| (policy.filter_any(&admitted), admitted));
    let operations = match decided {
        Ok((None, admitted)) => return Outcome::Filtered(admitted, None),
        Ok((Some(operations), _)) => operations,
        Err(refusal) => Err(refusal),
    };
    let transformed = match operations {
        Ok(operations) => policy.transform(operations, &route),
        Err(refusal) => {
            routes.set_verdict(received, decider, Err(refusal));
            return Outcome::Settled(Err(refusal));
        }
    };
    match transformed {
        Some(transformed) => Outcome::Settled(Ok(routes.intern(transformed))),
        None => {
            routes.set_verdict(received, decider, Ok(()));
            Outcome::Settled(Ok(received))
        }
    }
}

impl Router {
    /// Applies an UPDATE of an established session.
    pub(super) fn import(&mut self, id: PeerId, update: Update) {
        self.rib.tidy();
        let source = id.source();
        let mut changed = std::mem::take(&mut self.changed);
        for nlri in &update.withdrawn {
            changed.extend(self.rib.withdraw(&nlri.prefix, source, nlri.path_id));
        }
        for reach in &update.reach {
            let received = self.rib.intern(Route {
                next_hop: Some(reach.next_hop),
                attributes: update.attributes.clone(),
                metric: None,
            });
            self.announce(id, received, reach.nlri.iter().copied(), &mut changed);
        }
        self.spread_and_keep(changed);
    }

    /// Applies a message if it is a plain UPDATE of an established session with nothing wrong in it, without reading
    /// attributes that are known; false if it is anything else.
    pub(super) fn import_plain(&mut self, id: PeerId, message: &[u8]) -> bool {
        let session = self.peers.get(&id).and_then(|peer| peer.session.as_ref());
        let Some(context) = session.map(|session| session.context) else {
            return false;
        };
        let Some(update) = PlainUpdate::split(message, &context) else {
            return false;
        };
        self.rib.tidy();
        let routes = self.rib.routes_mut();
        let known = routes.find_octets(update.attributes, &context);
        let Some(received) = known.or_else(|| routes.add_octets(update.attributes, &context))
        else {
            return false;
        };
        let mut changed = std::mem::take(&mut self.changed);
        for nlri in update.withdrawn {
            changed.extend(self.rib.withdraw(&nlri.prefix, id.source(), nlri.path_id));
        }
        self.announce(id, received, update.announced, &mut changed);
        self.spread_and_keep(changed);
        true
    }

    /// Puts routes with one attribute set into the RIB.
    fn announce(
        &mut self,
        id: PeerId,
        received: RouteId,
        mut nlri: impl Iterator<Item = Nlri>,
        changed: &mut Vec<DestinationId>,
    ) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let Some(mut import) = Import::new(&self.config, id, self.epoch, peer) else {
            return;
        };
        let rib = &mut self.rib;
        let mut next = std::mem::take(&mut self.announced);
        loop {
            next.clear();
            next.extend(nlri.by_ref().take(TOGETHER));
            if next.is_empty() {
                break;
            }
            rib.table().warm(next.iter().map(|nlri| &nlri.prefix));
            for Nlri { prefix, path_id } in &next {
                let effective = import.decide(rib.routes_mut(), prefix, received);
                let path = Path::new(id.source(), received, effective).with_path_id(*path_id);
                changed.extend(rib.announce(*prefix, path));
            }
        }
        self.announced = next;
        // Most UPDATEs have nothing to count.
        let refused = import.has_refused.then_some(import.refused);
        if let Some(refused) = refused {
            self.count_refused(id, &refused);
        }
    }

    /// Spreads changes and keeps the memory they were in.
    fn spread_and_keep(&mut self, mut changed: Vec<DestinationId>) {
        self.spread(&changed);
        changed.clear();
        self.changed = changed;
    }

    /// Decides anew about every route of a peer, after its import policy has changed.
    pub(super) fn import_again(&mut self, id: PeerId) {
        self.stop_reconsidering(id);
        let has_session = |peer: &Peer| peer.session.is_some();
        if self.peers.get(&id).is_some_and(has_session) {
            let task = self.rib.reconsideration(id.source());
            self.begin(task);
        }
    }

    pub(super) fn count_refused(&mut self, id: PeerId, refused: &RefusalCounts) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.refused.merge(refused);
        }
    }
}

/// A part of deciding anew about a peer's routes: the destinations that changed, and what was refused. `None` without a
/// session.
pub(super) fn import_step(
    (config, epoch): (&SpeakerConfig, u32),
    (id, peer): (PeerId, &Peer),
    rib: &mut Rib,
    (task, effort): (&mut Task, usize),
) -> Option<(Vec<DestinationId>, RefusalCounts)> {
    let mut import = Import::new(config, id, epoch, peer)?;
    let changed = rib.reconsider_step(task, effort, |routes, prefix, received| {
        import.decide(routes, prefix, received)
    });
    Some((changed, import.refused))
}
