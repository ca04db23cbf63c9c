//! [`Rib`]: the table together with those who feed it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::best::{self, Neighbor};
use super::path::{Interner, Path, Route, Source};
use super::table::{Destination, DestinationId, Table};
use crate::policy::Refusal;
use crate::types::{FamilySet, Prefix};

/// How many routes a source has in the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them, including those policy refused.
    pub received: u64,
    /// Those that take part in the decision process.
    pub accepted: u64,
}

/// Adj-RIBs-In and Loc-RIB.
///
/// Every change returns the destinations whose best paths are not what they were; the caller tells its views and then calls
/// [`Table::collect`] for each of them.
#[derive(Debug)]
pub struct Rib {
    table: Table,
    interner: Interner,
    sources: BTreeMap<Source, (Neighbor, Counts)>,
    /// Metrics of next hops that somebody knows of; every other next hop is reachable at no cost.
    costs: BTreeMap<IpAddr, Option<u32>>,
}

impl Rib {
    /// An empty RIB; `seed` keys its hash map.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            table: Table::new(seed),
            interner: Interner::default(),
            sources: BTreeMap::new(),
            costs: BTreeMap::new(),
        }
    }

    /// The destinations.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The destinations, for views that hold and release their numbers.
    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Shares an attribute set.
    pub fn intern(&mut self, route: Route) -> Arc<Route> {
        self.interner.intern(route)
    }

    /// The set of shared attributes.
    pub fn interner_mut(&mut self) -> &mut Interner {
        &mut self.interner
    }

    /// Makes a peer known as a source of paths, before its first path; a peer that restarted keeps its stale ones.
    pub fn add_source(&mut self, source: Source, neighbor: Neighbor) {
        let known = self
            .sources
            .entry(source)
            .or_insert((neighbor, Counts::default()));
        known.0 = neighbor;
    }

    /// What is known of a source.
    #[must_use]
    pub fn neighbor(&self, source: Source) -> Option<Neighbor> {
        self.sources.get(&source).map(|(neighbor, _)| *neighbor)
    }

    /// The peer that gave the best path of a destination, if a peer did.
    #[must_use]
    pub fn best_neighbor(&self, id: DestinationId) -> Option<Neighbor> {
        let best = self.table.get(id).and_then(Destination::best)?;
        self.neighbor(best.source)
    }

    /// How many routes a source has in the table.
    #[must_use]
    pub fn counts(&self, source: Source) -> Counts {
        self.sources
            .get(&source)
            .map_or_else(Counts::default, |(_, counts)| *counts)
    }

    /// Puts in a path, in place of an earlier one of the same source (implicit withdrawal).
    ///
    /// That the new one may be refused by policy changes nothing about that: the old one is gone either way.
    pub fn announce(&mut self, prefix: Prefix, path: Path) -> Option<DestinationId> {
        let id = self.table.find_or_insert(prefix);
        let (source, accepted) = (path.source, path.is_accepted());
        let destination = self.table.get_mut(id)?;
        let mut existing = destination.paths.as_mut_slice().iter_mut();
        if let Some(old) = existing.find(|p| p.source == source && p.same_as(&path)) {
            old.set_stale(false);
            return None;
        }
        let old = destination.paths.insert(path);
        self.count(source, old.as_ref(), Some(accepted));
        let reselected = self.reselect(id);
        // The replaced path was in the selection, or the new one is: that is a change even if all marks look the same.
        let selected = self.is_selected(id, source) || old.is_some_and(|p| p.is_multipath());
        (reselected || selected).then_some(id)
    }

    /// Takes out the path of a source.
    pub fn withdraw(&mut self, prefix: &Prefix, source: Source) -> Option<DestinationId> {
        let id = self.table.find(prefix)?;
        self.remove(id, source)
    }

    /// Takes out every path of a source and forgets the source.
    pub fn remove_source(&mut self, source: Source) -> Vec<DestinationId> {
        let changed = self.remove_where(source, |_, _| true);
        self.sources.remove(&source);
        changed
    }

    /// The source has gone away for a restart: its paths of these families become stale, the others go.
    pub fn retain_stale(&mut self, source: Source, families: FamilySet) -> Vec<DestinationId> {
        for id in (0..self.table.end().0).map(DestinationId) {
            let Some(destination) = self.table.get_mut(id) else {
                continue;
            };
            let mut paths = destination.paths.as_mut_slice().iter_mut();
            if let Some(path) = paths.find(|p| p.source == source) {
                path.set_stale(true);
            }
        }
        self.remove_where(source, |prefix, _| !families.contains(prefix.family()))
    }

    /// Takes out the paths of these families that are still stale.
    pub fn sweep_stale(&mut self, source: Source, families: FamilySet) -> Vec<DestinationId> {
        self.remove_where(source, |prefix, path| {
            path.is_stale() && families.contains(prefix.family())
        })
    }

    fn remove_where(
        &mut self,
        source: Source,
        condition: impl Fn(&Prefix, &Path) -> bool,
    ) -> Vec<DestinationId> {
        let mut changed = Vec::new();
        // A source without paths needs no walk, which is what a mesh of mostly silent peers is about.
        if self.counts(source).received == 0 {
            return changed;
        }
        for id in (0..self.table.end().0).map(DestinationId) {
            let Some(destination) = self.table.get(id) else {
                continue;
            };
            let mut paths = destination.paths.as_slice().iter();
            let matches =
                |path: &Path| path.source == source && condition(&destination.prefix, path);
            if paths.any(matches)
                && let Some(id) = self.remove(id, source)
            {
                changed.push(id);
            }
        }
        changed
    }

    /// Applies a changed import policy to every path of a source: `decide` says what becomes of the path as received.
    pub fn reconsider(
        &mut self,
        source: Source,
        mut decide: impl FnMut(&mut Interner, &Prefix, &Arc<Route>) -> Result<Arc<Route>, Refusal>,
    ) -> Vec<DestinationId> {
        let mut changed = Vec::new();
        for id in (0..self.table.end().0).map(DestinationId) {
            let Some(destination) = self.table.get(id) else {
                continue;
            };
            let prefix = destination.prefix;
            let path = destination
                .paths
                .as_slice()
                .iter()
                .find(|p| p.source == source);
            let Some(received) = path.map(|p| Arc::clone(&p.received)) else {
                continue;
            };
            let effective = decide(&mut self.interner, &prefix, &received);
            changed.extend(self.announce(prefix, Path::new(source, received, effective)));
        }
        changed
    }

    /// Sets the metric of a next hop (RFC 4271 section 9.1.2.1): `None` if it cannot be reached.
    pub fn set_cost(&mut self, next_hop: IpAddr, cost: Option<u32>) -> Vec<DestinationId> {
        if self.costs.insert(next_hop, cost) == Some(cost) {
            return Vec::new();
        }
        let uses = |destination: &Destination| {
            let mut paths = destination.paths.as_slice().iter();
            paths.any(|p| {
                p.effective
                    .next_hop
                    .is_some_and(|n| n.address() == next_hop)
            })
        };
        (0..self.table.end().0)
            .map(DestinationId)
            .filter(|id| self.table.get(*id).is_some_and(uses))
            .collect::<Vec<_>>()
            .into_iter()
            .filter(|id| self.reselect(*id))
            .collect()
    }

    fn remove(&mut self, id: DestinationId, source: Source) -> Option<DestinationId> {
        let old = self.table.get_mut(id)?.paths.remove(source)?;
        self.count(source, Some(&old), None);
        // A path that was not chosen can still change the choice by leaving: its MED may have kept another one out.
        let changed = self.reselect(id) || old.is_multipath();
        if !changed {
            self.table.collect(id);
        }
        changed.then_some(id)
    }

    fn is_selected(&self, id: DestinationId, source: Source) -> bool {
        self.table.get(id).is_some_and(|destination| {
            let mut paths = destination.paths.as_slice().iter();
            paths.any(|p| p.source == source && p.is_multipath())
        })
    }

    fn count(&mut self, source: Source, old: Option<&Path>, new: Option<bool>) {
        let Some((_, counts)) = self.sources.get_mut(&source) else {
            return;
        };
        if let Some(old) = old {
            counts.received = counts.received.saturating_sub(1);
            counts.accepted = counts.accepted.saturating_sub(old.is_accepted().into());
        }
        if let Some(accepted) = new {
            counts.received += 1;
            counts.accepted += u64::from(accepted);
        }
    }

    fn reselect(&mut self, id: DestinationId) -> bool {
        let (sources, costs) = (&self.sources, &self.costs);
        let Some(destination) = self.table.get_mut(id) else {
            return false;
        };
        best::select(
            destination.paths.as_mut_slice(),
            |source| sources.get(&source).map(|(neighbor, _)| *neighbor),
            |path| {
                let known = path
                    .effective
                    .next_hop
                    .and_then(|n| costs.get(&n.address()));
                known.copied().unwrap_or(Some(0))
            },
        )
    }
}
