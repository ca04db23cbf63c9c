//! [`Task`]: work on many destinations, done in steps, so that nothing else has to wait for a walk over a large table.
//!
//! What comes of the steps together is what would have come of one, whatever happens to single destinations in between, as
//! long as whoever has the tasks keeps to this: tasks of one source are done in the order in which they were begun, and
//! before the source gives its first path after one of [`removal`](Rib::removal), [`retention`](Rib::retention) and
//! [`longer_retention`](Rib::longer_retention), before paths are marked with [`Rib::mark_stale`], and before the source is
//! added again, its tasks are done ([`Task::source`]).

use std::collections::HashSet;
use std::net::IpAddr;

use super::best::Multipath;
use super::facts::Facts;
use super::loc::Rib;
use super::next_hops::NextHopId;
use super::path::{Path, Source};
use super::routes::{RouteId, Routes};
use super::table::DestinationId;
use crate::policy::Refusal;
use crate::types::{Family, FamilySet, Prefix};

/// What a destination with something to do costs, if one without costs 1; and what each path that it has adds to that, since
/// the choice is made among them.
const TOUCH: usize = 16;
const CHOICE: usize = 8;

/// Work on many destinations, begun by a method of [`Rib`] and done by [`Rib::step`].
#[derive(Debug)]
pub struct Task {
    kind: Kind,
    places: Places,
}

#[derive(Debug)]
enum Kind {
    Remove(Source),
    Retain(Source, FamilySet),
    Sweep(Source, FamilySet),
    RetainLonger(Source, FamilySet),
    Reconsider(Source),
    Costs(HashSet<NextHopId>),
    Select,
}

/// The destinations still to be looked at.
#[derive(Debug)]
struct Places {
    /// `None`: all of them.
    list: Option<Vec<DestinationId>>,
    next: usize,
    end: usize,
}

impl Iterator for Places {
    type Item = DestinationId;

    fn next(&mut self) -> Option<DestinationId> {
        if self.next >= self.end {
            return None;
        }
        let at = self.next;
        self.next += 1;
        match &self.list {
            Some(list) => list.get(at).copied(),
            // The numbers are u32, and so is the end of them.
            None => Some(DestinationId(u32::try_from(at).unwrap_or(u32::MAX))),
        }
    }
}

impl Task {
    /// Whose paths it is about; `None`: everybody's.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        match &self.kind {
            Kind::Remove(source)
            | Kind::Retain(source, _)
            | Kind::Sweep(source, _)
            | Kind::RetainLonger(source, _)
            | Kind::Reconsider(source) => Some(*source),
            Kind::Costs(_) | Kind::Select => None,
        }
    }

    /// Whether its steps are [`Rib::reconsider_step`], and not [`Rib::step`].
    #[must_use]
    pub fn reconsiders(&self) -> bool {
        matches!(self.kind, Kind::Reconsider(_))
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.places.next >= self.places.end
    }

    /// Leaves the rest undone.
    pub fn abandon(&mut self) {
        self.places.next = self.places.end;
    }

    /// Has a task that has not been begun do another one's work as well, if both are about next hops.
    ///
    /// # Errors
    /// The other one, if they are not.
    pub fn absorb(&mut self, other: Self) -> Result<(), Self> {
        match (&mut self.kind, other.kind) {
            (Kind::Costs(news), Kind::Costs(more)) if self.places.next == 0 => {
                news.extend(more);
                self.places.end = self.places.end.max(other.places.end);
                Ok(())
            }
            (_, kind) => Err(Self {
                kind,
                places: other.places,
            }),
        }
    }
}

impl Rib {
    /// To take out every path of a source, and forget the source.
    pub fn removal(&mut self, source: Source) -> Task {
        self.task_of(source, Kind::Remove(source))
    }

    /// To make the paths of these families stale and take out the others: the source has gone away for a restart.
    pub fn retention(&mut self, source: Source, families: FamilySet) -> Task {
        self.task_of(source, Kind::Retain(source, families))
    }

    /// To take out the paths of these families that are still stale.
    pub fn sweeping(&mut self, source: Source, families: FamilySet) -> Task {
        self.task_of(source, Kind::Sweep(source, families))
    }

    /// To keep the stale paths of these families as the last resort, and take out those that do not want that: graceful
    /// restart has given up on the source (RFC 9494 section 4.2). Stale paths of other families stay as they are.
    pub fn longer_retention(&mut self, source: Source, families: FamilySet) -> Task {
        self.task_of(source, Kind::RetainLonger(source, families))
    }

    /// To decide anew about every path of a source, with [`Rib::reconsider_step`].
    pub fn reconsideration(&mut self, source: Source) -> Task {
        self.task_of(source, Kind::Reconsider(source))
    }

    /// Sets the metrics of next hops (RFC 4271 section 9.1.2.1): `None` for one that cannot be reached. The task is to choose
    /// anew among the paths over them; there is none if none of them is in use and has changed.
    pub fn new_costs(
        &mut self,
        costs: impl IntoIterator<Item = (IpAddr, Option<u32>)>,
    ) -> Option<Task> {
        let next_hops = self.routes.next_hops_mut();
        let news = costs
            .into_iter()
            .filter_map(|(address, cost)| next_hops.set_cost(address, cost));
        let news: HashSet<_> = news.collect();
        (!news.is_empty()).then(|| self.task(None, Kind::Costs(news)))
    }

    /// Changes which paths are used beside the best one. The task is to choose anew everywhere.
    pub fn new_multipath(&mut self, multipath: Multipath) -> Option<Task> {
        if self.multipath == multipath {
            return None;
        }
        self.multipath = multipath;
        Some(self.task(None, Kind::Select))
    }

    /// Does a part of a task: as much as costs `effort`, where looking at a destination costs 1 and changing it 16 and more, and
    /// at least one destination. Returns the destinations whose best paths are not what they were.
    pub fn step(&mut self, task: &mut Task, mut effort: usize) -> Vec<DestinationId> {
        let mut changed = Vec::new();
        let mut going = Vec::new();
        while effort > 0
            && let Some(id) = task.places.next()
        {
            let touched = match &task.kind {
                Kind::Remove(source) => {
                    self.remove_at(id, *source, |_, _| true, &mut going, &mut changed)
                }
                Kind::Retain(source, families) if self.is_in(id, *families) => {
                    self.mark_stale_at(id, *source)
                }
                Kind::Retain(source, _) => {
                    self.remove_at(id, *source, |_, _| true, &mut going, &mut changed)
                }
                Kind::Sweep(source, families) if self.is_in(id, *families) => {
                    let stale = |_: &Routes, path: &Path| path.is_stale();
                    self.remove_at(id, *source, stale, &mut going, &mut changed)
                }
                Kind::RetainLonger(source, families) if self.is_in(id, *families) => {
                    self.retain_longer_at(id, *source, &mut going, &mut changed)
                }
                Kind::Costs(news) => self.select_over(id, news, &mut changed),
                Kind::Select => {
                    if self.reselect(id) {
                        changed.push(id);
                    }
                    true
                }
                Kind::Sweep(..) | Kind::RetainLonger(..) | Kind::Reconsider(_) => false,
            };
            effort = effort.saturating_sub(if touched { self.cost_of(id) } else { 1 });
        }
        self.end_if_done(task);
        changed
    }

    /// As [`step`](Self::step), for a task from [`reconsideration`](Self::reconsideration): `decide` says what becomes of a
    /// path as received.
    pub fn reconsider_step(
        &mut self,
        task: &mut Task,
        mut effort: usize,
        mut decide: impl FnMut(&mut Routes, &Prefix, RouteId) -> Result<RouteId, Refusal>,
    ) -> Vec<DestinationId> {
        let mut changed = Vec::new();
        let Kind::Reconsider(source) = task.kind else {
            return changed;
        };
        let mut own: Vec<Path> = Vec::new();
        while effort > 0
            && let Some(id) = task.places.next()
        {
            effort -= 1;
            let Some(destination) = self.table.get(id) else {
                continue;
            };
            let prefix = destination.prefix();
            let paths = destination.paths().iter();
            own.extend(paths.filter(|p| p.source() == source));
            let mut news = false;
            for path in own.drain(..) {
                let effective = decide(&mut self.routes, &prefix, path.received());
                let mut again = Path::new(source, path.received(), effective)
                    .with_path_id(Some(path.path_id()));
                again.set_stale(path.is_stale());
                again.set_long_lived_stale(path.is_long_lived_stale());
                news |= self.put(id, again).is_some();
                effort = effort.saturating_sub(self.cost_of(id) - 1);
            }
            if news {
                changed.push(id);
            }
        }
        changed
    }

    /// All of a task.
    pub(super) fn all_steps(&mut self, mut task: Task) -> Vec<DestinationId> {
        self.step(&mut task, usize::MAX)
    }

    fn task_of(&mut self, source: Source, kind: Kind) -> Task {
        let places = match self.sources.get_mut(source) {
            // A source without paths needs no walk, which is what a mesh of mostly silent peers is about.
            Some(entry) if entry.counts.received > 0 => entry.places(),
            _ => Some(Vec::new()),
        };
        let mut task = self.task(places, kind);
        self.end_if_done(&mut task);
        task
    }

    fn task(&self, list: Option<Vec<DestinationId>>, kind: Kind) -> Task {
        let all = self.table.end().index();
        let end = list.as_ref().map_or(all, Vec::len);
        let places = Places { list, next: 0, end };
        Task { kind, places }
    }

    fn end_if_done(&mut self, task: &mut Task) {
        if !task.is_done() {
            return;
        }
        task.places.list = None;
        let Some(source) = task.source() else {
            return;
        };
        if let Kind::Remove(_) = task.kind {
            self.sources.remove(source);
        } else if let Some(entry) = self.sources.get_mut(source)
            && entry.counts.received == 0
        {
            entry.clear_places();
        }
    }

    fn cost_of(&self, id: DestinationId) -> usize {
        let destination = self.table.get(id);
        let paths = destination.map_or(0, |destination| destination.paths().len());
        TOUCH + CHOICE * paths
    }

    fn is_in(&self, id: DestinationId, families: FamilySet) -> bool {
        let family = self.table.get(id).map(|destination| destination.family());
        family.is_some_and(|family: Family| families.contains(family))
    }

    /// Takes out the paths of a source that meet a condition. Whether there were any.
    fn remove_at(
        &mut self,
        id: DestinationId,
        source: Source,
        condition: impl Fn(&Routes, &Path) -> bool,
        going: &mut Vec<u32>,
        changed: &mut Vec<DestinationId>,
    ) -> bool {
        let Some(destination) = self.table.get(id) else {
            return false;
        };
        let matches = |p: &&Path| p.source() == source && condition(&self.routes, p);
        let paths = destination.paths().iter();
        going.extend(paths.filter(matches).map(Path::path_id));
        if going.is_empty() {
            return false;
        }
        let mut news = false;
        for path_id in going.drain(..) {
            news |= self.take_out(id, source, path_id);
        }
        if news {
            changed.push(id);
        } else {
            self.table.collect(id);
        }
        true
    }

    /// Marks the paths of a source as stale. Whether there were any.
    pub(super) fn mark_stale_at(&mut self, id: DestinationId, source: Source) -> bool {
        let mut marked = 0;
        for path in self.table.paths_mut(id) {
            if path.source() == source && !path.is_stale() {
                path.set_stale(true);
                marked += 1;
            }
        }
        if let Some(entry) = self.sources.get_mut(source) {
            entry.counts.stale += marked;
        }
        marked > 0
    }

    fn retain_longer_at(
        &mut self,
        id: DestinationId,
        source: Source,
        going: &mut Vec<u32>,
        changed: &mut Vec<DestinationId>,
    ) -> bool {
        let before = changed.len();
        // As the source sent it, or as our policy wants it.
        let forbids = |routes: &Routes, path: &Path| {
            let mut both = [path.received(), path.effective()].into_iter();
            let forbids = |facts: &Facts| facts.forbids_long_lived();
            path.is_stale() && both.any(|route| routes.facts(route).is_some_and(forbids))
        };
        let mut touched = self.remove_at(id, source, forbids, going, changed);
        let (mut marked, mut news, mut others) = (0, false, false);
        for path in self.table.paths_mut(id) {
            if path.source() == source && path.is_stale() && !path.is_long_lived_stale() {
                path.set_long_lived_stale(true);
                marked += 1;
                // What is said of a path in use has changed, whether or not it stays in use.
                news |= path.is_multipath();
                others |= path.is_accepted();
            }
        }
        if marked == 0 {
            return touched;
        }
        touched = true;
        if let Some(entry) = self.sources.get_mut(source) {
            entry.counts.long_lived += marked;
        }
        let told = changed.len() > before;
        if self.reselect(id) || news {
            if !told {
                changed.push(id);
            }
        } else if others {
            self.note_other(id);
        }
        touched
    }

    /// Chooses anew if there is a path over one of these next hops.
    fn select_over(
        &mut self,
        id: DestinationId,
        news: &HashSet<NextHopId>,
        changed: &mut Vec<DestinationId>,
    ) -> bool {
        let Some(destination) = self.table.get(id) else {
            return false;
        };
        let next_hop = |p: &Path| self.routes.facts(p.effective()).and_then(|f| f.next_hop);
        let mut next_hops = destination.paths().iter().filter_map(next_hop);
        if !next_hops.any(|next_hop| news.contains(&next_hop)) {
            return false;
        }
        if self.reselect(id) {
            changed.push(id);
        }
        true
    }
}
