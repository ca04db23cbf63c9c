//! Which route a peer is given for a destination, if any. What is made of it is in [`super::attributes`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::attributes::{ExportKey, Passed, Provenance};
use super::peer::{Peer, Session};
use crate::config::SpeakerConfig;
use crate::policy::{Operation, Refusal};
use crate::rib::{Destination, Rib, Route, RouteId, Source};
use crate::types::Family;

/// What an attribute set made for a peer depends on: the set it comes from and from where, the operations applied, and the
/// family, which our own next hop depends on.
type Recipe = (RouteId, Provenance, *const [Operation], Family);

/// What a peer is given, worked out for a batch of destinations.
pub(super) struct Export<'a> {
    key: ExportKey,
    source: Source,
    address: IpAddr,
    rib: &'a Rib,
    /// Attribute sets already looked at.
    passed: HashMap<(RouteId, Provenance), Result<Passed, Refusal>>,
    /// Attribute sets already made for this peer: same input, same operations, same output.
    made: HashMap<Recipe, Result<Arc<Route>, Refusal>>,
}

impl<'a> Export<'a> {
    pub(super) fn new(
        config: &'a SpeakerConfig,
        peer: &'a Peer,
        session: &'a Session,
        source: Source,
        rib: &'a Rib,
    ) -> Self {
        Self {
            key: ExportKey::new(config, peer, session),
            source,
            address: peer.address,
            rib,
            passed: HashMap::new(),
            made: HashMap::new(),
        }
    }

    /// The route to give for `destination`; `None` if there is none, or none for this peer. Equal results share one value.
    pub(super) fn route(&mut self, destination: &Destination) -> Option<Arc<Route>> {
        let family = destination.family();
        let path = destination.best()?;
        if path.source() == self.source || !self.key.carries(family) {
            return None;
        }
        let from = Provenance::of(path.source(), self.rib.neighbor(path.source()));
        let (rib, id) = (self.rib, path.effective());
        let passed = self
            .passed
            .entry((id, from))
            .or_insert_with(|| self.key.may_pass(from, &rib.route(id)));
        let operations = self
            .key
            .filter(passed.as_ref().ok()?, &destination.prefix())
            .ok()?;
        let recipe = (id, from, std::ptr::from_ref(operations), family);
        let made = match self.made.get(&recipe) {
            Some(made) => made.clone(),
            None => {
                let route = rib.route(id);
                let made = self.key.make(from, &route, operations, family);
                let made = made.map(Arc::new);
                self.made.insert(recipe, made.clone());
                made
            }
        };
        made.ok()
            .filter(|made| ExportKey::is_for(self.address, made))
    }
}
