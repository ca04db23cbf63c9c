//! [`Rib`]: the table together with those who feed it.

use std::borrow::Cow;
use std::net::IpAddr;

use super::best::{self, Knowledge, Multipath, Neighbor};
use super::facts::Facts;
use super::path::{Path, Route, Source};
use super::routes::{RouteId, Routes};
use super::source::{Counts, Sources};
use super::table::{DestinationId, Table};
use crate::policy::Refusal;
use crate::types::{Family, FamilySet, Prefix};

/// How many paths to one prefix a source may give (RFC 7911); what is more is not taken, and counted.
pub const MAX_PATHS: usize = 64;

/// Adj-RIBs-In and Loc-RIB.
///
/// Every change returns the destinations whose best paths are not what they were; the caller tells its views and then calls
/// [`Table::collect`] for each of them. Where many are returned they are in the order of their numbers.
#[derive(Debug)]
pub struct Rib {
    pub(super) table: Table,
    pub(super) routes: Routes,
    pub(super) sources: Sources,
    pub(super) multipath: Multipath,
    /// See [`Rib::note_others`].
    others: Option<Vec<DestinationId>>,
}

impl Knowledge for (&Sources, &Routes) {
    fn neighbor(&self, source: Source) -> Option<Neighbor> {
        self.0.get(source).map(|entry| entry.neighbor)
    }

    fn facts(&self, path: &Path) -> Option<&Facts> {
        self.1.facts(path.effective())
    }

    fn cost(&self, facts: &Facts) -> Option<u32> {
        facts.next_hop.map_or(Some(0), |n| self.1.cost(n))
    }
}

impl Rib {
    /// An empty RIB; `seed` keys its index.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            table: Table::new(seed),
            routes: Routes::default(),
            sources: Sources::default(),
            multipath: Multipath::default(),
            others: None,
        }
    }

    /// Has changes of paths that are not selected noted as well: for sessions that are sent several paths (RFC 7911).
    pub fn note_others(&mut self, wanted: bool) {
        if wanted != self.others.is_some() {
            self.others = wanted.then(Vec::new);
        }
    }

    /// The destinations with accepted paths that changed without being selected, since last asked.
    pub fn take_others(&mut self) -> Vec<DestinationId> {
        self.others.as_mut().map(std::mem::take).unwrap_or_default()
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

    /// The attribute sets.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The attribute sets, to put in another, or to hold one.
    pub fn routes_mut(&mut self) -> &mut Routes {
        &mut self.routes
    }

    /// Shares an attribute set. The number lasts until the next [`Rib::tidy`] unless a path uses it.
    pub fn intern(&mut self, route: Route) -> RouteId {
        self.routes.intern(route)
    }

    /// Next hop and attributes under a number. Not free of cost: ask once for many paths with the same number.
    #[must_use]
    pub fn route(&self, id: RouteId) -> Cow<'_, Route> {
        self.routes.get(id)
    }

    /// What the decision process knows of the route under a number, at no cost.
    #[must_use]
    pub fn facts(&self, id: RouteId) -> Option<&Facts> {
        self.routes.facts(id)
    }

    /// Drops attribute sets that nobody uses. Numbers of routes that no path uses are not valid afterwards.
    pub fn tidy(&mut self) {
        self.routes.tidy();
    }

    /// Makes a peer known as a source of paths, before its first path; a peer that restarted keeps its stale ones.
    pub fn add_source(&mut self, source: Source, neighbor: Neighbor) {
        self.sources.add(source, neighbor);
    }

    /// What is known of a source.
    #[must_use]
    pub fn neighbor(&self, source: Source) -> Option<Neighbor> {
        self.sources.get(source).map(|entry| entry.neighbor)
    }

    /// The peer that gave the best path of a destination, if a peer did.
    #[must_use]
    pub fn best_neighbor(&self, id: DestinationId) -> Option<Neighbor> {
        let best = self.table.get(id).and_then(|d| d.best())?;
        self.neighbor(best.source())
    }

    /// How many routes a source has in the table.
    #[must_use]
    pub fn counts(&self, source: Source) -> Counts {
        self.sources
            .get(source)
            .map_or_else(Counts::default, |entry| entry.counts)
    }

    /// Puts in a path, in place of an earlier one of the same source and identifier (implicit withdrawal).
    ///
    /// That the new one may be refused by policy changes nothing about that: the old one is gone either way.
    pub fn announce(&mut self, prefix: Prefix, path: Path) -> Option<DestinationId> {
        let id = self.table.find_or_insert(prefix);
        self.put(id, path)
    }

    pub(super) fn put(&mut self, id: DestinationId, path: Path) -> Option<DestinationId> {
        let source = path.source();
        let same = |p: &&mut Path| p.is_from(source, path.path_id());
        if let Some(old) = self.table.paths_mut(id).iter_mut().find(same) {
            if old.same_as(&path) {
                let before = *old;
                old.set_stale(path.is_stale());
                old.set_long_lived_stale(path.is_long_lived_stale());
                if let Some(entry) = self.sources.get_mut(source) {
                    entry.counts.restamp(&before, &path);
                }
                // What is said of a path in use changes with the mark (RFC 9494 section 4.2).
                let confirmed = before.is_long_lived_stale() != path.is_long_lived_stale();
                let news = confirmed && (self.reselect(id) || before.is_multipath());
                if confirmed && !news && before.is_accepted() {
                    self.note_other(id);
                }
                return news.then_some(id);
            }
        } else if path.path_id() != 0 && self.is_full(id, source) {
            if let Some(entry) = self.sources.get_mut(source) {
                entry.counts.excess += 1;
            }
            return None;
        }
        self.routes.hold(path.received());
        self.routes.hold(path.effective());
        let behind = self.is_behind(id, &path);
        let old = self.table.insert(id, path);
        if let Some(old) = &old {
            self.forget(id, old);
        }
        let ipv6 = u64::from(self.is_ipv6(id));
        if let Some(entry) = self.sources.get_mut(source) {
            if old.is_none() {
                let table = &self.table;
                entry.put(id, |id| has_path_of(table, id, source));
            }
            entry.counts.received += 1;
            entry.counts.ipv6 += ipv6;
            entry.counts.accepted += u64::from(path.is_accepted());
            entry.counts.stamp(&path);
        }
        let reselected = (old.is_some() || !behind) && self.reselect(id);
        // The replaced path was in the selection, or the new one is: that is a change even if all marks look the same.
        let selected = old.is_some_and(|p| p.is_multipath()) || self.is_selected(id, &path);
        if !(reselected || selected) && (path.is_accepted() || old.is_some_and(|p| p.is_accepted()))
        {
            self.note_other(id);
        }
        (reselected || selected).then_some(id)
    }

    pub(super) fn note_other(&mut self, id: DestinationId) {
        if let Some(others) = &mut self.others {
            others.push(id);
        }
    }

    fn is_full(&self, id: DestinationId, source: Source) -> bool {
        let paths = self.table.get(id).map_or(&[][..], |d| d.paths());
        paths.iter().filter(|p| p.source() == source).count() >= MAX_PATHS
    }

    /// Takes out the path of a source with this identifier (RFC 7911); without ADD-PATH it has none.
    pub fn withdraw(
        &mut self,
        prefix: &Prefix,
        source: Source,
        path_id: Option<u32>,
    ) -> Option<DestinationId> {
        let id = self.table.find(prefix)?;
        self.remove(id, source, path_id.unwrap_or(0))
    }

    /// Takes out every path of a source and forgets the source.
    pub fn remove_source(&mut self, source: Source) -> Vec<DestinationId> {
        let task = self.removal(source);
        self.all_steps(task)
    }

    /// The source has gone away for a restart: its paths of these families become stale, the others go.
    pub fn retain_stale(&mut self, source: Source, families: FamilySet) -> Vec<DestinationId> {
        let task = self.retention(source, families);
        self.all_steps(task)
    }

    /// The paths of these families become stale: each of them has to be announced again, or
    /// [`sweep_stale`](Self::sweep_stale) takes it out.
    pub fn mark_stale(&mut self, source: Source, families: FamilySet) {
        for id in self.places(source) {
            let family = self.table.get(id).map(|d| d.family());
            if family.is_some_and(|family| families.contains(family)) {
                self.mark_stale_at(id, source);
            }
        }
    }

    /// Takes out the paths of these families that are still stale.
    pub fn sweep_stale(&mut self, source: Source, families: FamilySet) -> Vec<DestinationId> {
        let task = self.sweeping(source, families);
        self.all_steps(task)
    }

    /// Graceful restart has given up on the source, but its stale paths of these families are to be used where there is
    /// nothing else: see [`longer_retention`](Self::longer_retention).
    pub fn retain_long_lived(&mut self, source: Source, families: FamilySet) -> Vec<DestinationId> {
        let task = self.longer_retention(source, families);
        self.all_steps(task)
    }

    /// Where a source may have paths, in order.
    fn places(&mut self, source: Source) -> Vec<DestinationId> {
        let Some(entry) = self.sources.get_mut(source) else {
            return Vec::new();
        };
        // A source without paths needs no walk, which is what a mesh of mostly silent peers is about.
        if entry.counts.received == 0 {
            return Vec::new();
        }
        let places = entry.places();
        places.unwrap_or_else(|| (0..self.table.end().0).map(DestinationId).collect())
    }

    /// Applies a changed import policy to every path of a source: `decide` says what becomes of the path as received.
    pub fn reconsider(
        &mut self,
        source: Source,
        decide: impl FnMut(&mut Routes, &Prefix, RouteId) -> Result<RouteId, Refusal>,
    ) -> Vec<DestinationId> {
        let mut task = self.reconsideration(source);
        self.reconsider_step(&mut task, usize::MAX, decide)
    }

    /// Sets the metrics of next hops, see [`new_costs`](Self::new_costs). Walks the table once for all of them, if any is in
    /// use and has changed.
    pub fn set_costs(
        &mut self,
        costs: impl IntoIterator<Item = (IpAddr, Option<u32>)>,
    ) -> Vec<DestinationId> {
        let task = self.new_costs(costs);
        task.map_or_else(Vec::new, |task| self.all_steps(task))
    }

    /// Changes which paths are used beside the best one.
    pub fn set_multipath(&mut self, multipath: Multipath) -> Vec<DestinationId> {
        let task = self.new_multipath(multipath);
        task.map_or_else(Vec::new, |task| self.all_steps(task))
    }

    fn remove(&mut self, id: DestinationId, source: Source, path_id: u32) -> Option<DestinationId> {
        let changed = self.take_out(id, source, path_id);
        if !changed {
            self.table.collect(id);
        }
        changed.then_some(id)
    }

    /// Takes out a path; whether that changed the selection.
    pub(super) fn take_out(&mut self, id: DestinationId, source: Source, path_id: u32) -> bool {
        let Some(old) = self.table.remove(id, source, path_id) else {
            return false;
        };
        self.forget(id, &old);
        // A path that was not chosen can still change the choice by leaving: its MED may have kept another one out.
        let changed = self.reselect(id) || old.is_multipath();
        if !changed && old.is_accepted() {
            self.note_other(id);
        }
        changed
    }

    fn is_ipv6(&self, id: DestinationId) -> bool {
        let family = self.table.get(id).map(|destination| destination.family());
        family == Some(Family::Ipv6Unicast)
    }

    /// Undoes what counts a path.
    fn forget(&mut self, id: DestinationId, old: &Path) {
        self.routes.release(old.received());
        self.routes.release(old.effective());
        let ipv6 = u64::from(self.is_ipv6(id));
        if let Some(entry) = self.sources.get_mut(old.source()) {
            let counts = &mut entry.counts;
            counts.received = counts.received.saturating_sub(1);
            counts.ipv6 = counts.ipv6.saturating_sub(ipv6);
            counts.accepted = counts.accepted.saturating_sub(old.is_accepted().into());
            counts.unstamp(old);
        }
    }

    fn is_selected(&self, id: DestinationId, path: &Path) -> bool {
        self.table.get(id).is_some_and(|destination| {
            let mut paths = destination.paths().iter();
            paths.any(|p| p.is_multipath() && p.is_from(path.source(), path.path_id()))
        })
    }

    /// Whether a path that is not there yet cannot change the selection.
    fn is_behind(&self, id: DestinationId, path: &Path) -> bool {
        let known = (&self.sources, &self.routes);
        let Some(destination) = self.table.get(id) else {
            return false;
        };
        let Some(best) = destination.best() else {
            return false;
        };
        let beside = || {
            let mut paths = destination.paths().iter();
            paths.any(|path| path.is_multipath() && !path.is_best())
        };
        best::is_behind(path, best, beside, &known, self.multipath)
    }

    pub(super) fn reselect(&mut self, id: DestinationId) -> bool {
        let known = (&self.sources, &self.routes);
        best::select(self.table.paths_mut(id), &known, self.multipath)
    }
}

fn has_path_of(table: &Table, id: DestinationId, source: Source) -> bool {
    let paths = table.get(id).map_or(&[][..], |d| d.paths());
    paths.iter().any(|path| path.source() == source)
}
