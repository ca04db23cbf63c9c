//! Aggregates: routes this speaker originates as long as it has more specific ones.
//!
//! Every aggregate knows which destinations contribute to it. A change of destinations costs a look at each aggregate, and
//! nothing else: no walk over the table, but when the configuration changes.

use std::collections::HashSet;

use super::Router;
use crate::config::{Aggregate, SpeakerConfig};
use crate::rib::{DestinationId, Path, Rib, Route, Source};
use crate::types::Prefix;
use crate::wire::{Aggregator, PathAttributes};

/// The aggregates configured.
#[derive(Debug, Default)]
pub(super) struct Aggregates(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    prefix: Prefix,
    /// The route, while it is announced or not.
    route: Route,
    /// The destinations in it that have a best path.
    contributors: HashSet<DestinationId>,
}

impl Entry {
    /// Looks at a destination that changed; true if there is now something to announce or withdraw.
    fn look(&mut self, rib: &Rib, id: DestinationId) -> bool {
        let Some(destination) = rib.table().get(id) else {
            return false;
        };
        let inside = {
            let prefix = destination.prefix();
            prefix != self.prefix && self.prefix.contains(&prefix)
        };
        if !inside {
            return false;
        }
        let before = self.contributors.is_empty();
        if destination.best().is_some() {
            self.contributors.insert(id);
        } else {
            self.contributors.remove(&id);
        }
        before != self.contributors.is_empty()
    }

    /// Announces or withdraws the route, whichever is due.
    fn settle(&self, rib: &mut Rib) -> Option<DestinationId> {
        if self.contributors.is_empty() {
            return rib.withdraw(&self.prefix, Source::LOCAL, None);
        }
        let route = rib.intern(self.route.clone());
        let path = Path::new(Source::LOCAL, route, Ok(route));
        rib.announce(self.prefix, path)
    }
}

impl Aggregates {
    /// Notes that destinations changed; returns those that change with them.
    pub(super) fn follow(
        &mut self,
        rib: &mut Rib,
        changed: &[DestinationId],
    ) -> Vec<DestinationId> {
        let mut more = Vec::new();
        // The longest first: an aggregate is a more specific route of those around it.
        for entry in &mut self.0 {
            let mut due = false;
            for id in changed.iter().chain(&more) {
                due |= entry.look(rib, *id);
            }
            if due {
                more.extend(entry.settle(rib));
            }
        }
        more
    }
}

impl Router {
    /// Withdraws the aggregates that are not wanted any more, or wanted otherwise.
    pub(super) fn drop_aggregates(&mut self, old: &SpeakerConfig) {
        let identity = |config: &SpeakerConfig| (config.asn, config.router_id);
        if old.aggregates == self.config.aggregates && identity(old) == identity(&self.config) {
            return;
        }
        let mut changed = Vec::new();
        for Entry { prefix, .. } in std::mem::take(&mut self.aggregates).0 {
            if !self.config.aggregates.contains_key(&prefix) {
                changed.extend(self.rib.withdraw(&prefix, Source::LOCAL, None));
            }
        }
        self.spread(&changed);
    }

    /// Announces the aggregates that are wanted and were not there before.
    pub(super) fn add_aggregates(&mut self) {
        if self.aggregates.0.len() == self.config.aggregates.len() {
            return;
        }
        let mut entries: Vec<Entry> = self
            .config
            .aggregates
            .iter()
            .map(|(prefix, aggregate)| Entry {
                prefix: *prefix,
                route: originate(&self.config, aggregate),
                contributors: HashSet::new(),
            })
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.prefix.length()));
        let mut changed = Vec::new();
        for entry in &mut entries {
            for id in (0..self.rib.table().end().0).map(DestinationId) {
                entry.look(&self.rib, id);
            }
            // Also where it was announced before, with other attributes or for another reason.
            changed.extend(entry.settle(&mut self.rib));
        }
        self.aggregates = Aggregates(entries);
        self.spread(&changed);
    }
}

/// RFC 4271 section 9.2.2.2 without AS_SET (RFC 9774): the path begins here, which ATOMIC_AGGREGATE and AGGREGATOR say.
fn originate(config: &SpeakerConfig, aggregate: &Aggregate) -> Route {
    Route {
        next_hop: None,
        attributes: PathAttributes {
            local_pref: aggregate.local_pref,
            med: aggregate.med,
            atomic_aggregate: true,
            aggregator: Some(Aggregator {
                asn: config.asn,
                router_id: config.router_id,
            }),
            communities: aggregate.communities.iter().copied().collect(),
            large_communities: aggregate.large_communities.iter().copied().collect(),
            extended_communities: aggregate.extended_communities.iter().copied().collect(),
            ..PathAttributes::default()
        },
        metric: None,
    }
}
