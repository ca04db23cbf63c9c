//! From destinations that changed to a [`Chunk`] of messages, and what is announced from then on.
//!
//! Routes are packed by attribute set. To fill messages whatever order the attribute sets come in, many destinations go
//! into one chunk; to keep the time short, fewer when their attribute sets are many.

use std::collections::HashMap;

use bytes::BytesMut;

use super::chunk::Segment;
use super::sent::{SentPath, path_id};
use super::{Audience, Chunk, Exclusion, GroupKey, Outbound, Reader};
use crate::rib::{Destination, DestinationId, Path, Rib, Source};
use crate::router::export::Export;
use crate::types::{Family, Prefix};
use crate::wire::{self, NextHop, Nlri};

/// Destinations looked at in one go.
const STEP: usize = 1024;
/// Destinations in a chunk at most: IPv4 prefixes of the usual lengths then fill the longest messages there are.
const DESTINATIONS: usize = 16_000;
/// Different sets of attributes in a chunk at most.
const BUNDLES: usize = 2048;
/// A chunk longer than this is not made any longer, in octets.
const OCTETS: usize = 128 * 1024;

/// Routes that go into the same messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Bundle {
    family: Family,
    /// The attributes by their place in [`Export::made`]; `None`: withdrawn.
    made: Option<usize>,
    audience: Audience,
}

/// One route in a bundle.
#[derive(Clone, Copy)]
struct Item {
    bundle: usize,
    destination: usize,
    path_id: u32,
}

/// Makes one chunk.
pub(in crate::router) struct Producer<'a> {
    key: &'a GroupKey,
    /// Only for this one.
    reader: Option<Reader>,
    /// The only member of the group: what is from this one is not looked at.
    lonely: Option<Reader>,
    /// Announcements have to wait.
    resting: bool,
    export: Export,
    bundles: Vec<Bundle>,
    places: HashMap<Bundle, usize>,
    last: Option<(Bundle, usize)>,
    items: Vec<Item>,
    /// The destinations, where in `paths` that is which each had before, and which each has now, begins.
    taken: Vec<(DestinationId, usize, usize)>,
    paths: Vec<SentPath>,
    /// Something was left out because it is from the only member.
    pub(in crate::router) incomplete: bool,
}

impl<'a> Producer<'a> {
    pub(in crate::router) fn new(key: &'a GroupKey, resting: bool) -> Self {
        Self {
            key,
            reader: None,
            lonely: None,
            resting,
            export: Export::default(),
            bundles: Vec::new(),
            places: HashMap::new(),
            last: None,
            items: Vec::new(),
            taken: Vec::new(),
            paths: Vec::new(),
            incomplete: false,
        }
    }

    /// For one peer only.
    pub(in crate::router) fn only_for(mut self, reader: Reader) -> Self {
        self.reader = Some(reader);
        self
    }

    /// For a group with one member: what that member is not given is not worth the work.
    pub(in crate::router) fn lonely(mut self, reader: Option<Reader>) -> Self {
        self.lonely = reader;
        self
    }

    /// The next chunk, and what is announced after it. May be empty although there was work.
    pub(in crate::router) fn produce(
        &mut self,
        rib: &mut Rib,
        out: &mut Outbound,
        anyone: &dyn Fn(&Exclusion) -> bool,
    ) -> Chunk {
        let mut later = Vec::new();
        let (step, bundles, _) = self.limits();
        while self.taken.len() + later.len() < DESTINATIONS && self.bundles.len() < bundles {
            let taken = if self.resting {
                out.pending.take_marked(rib.table(), step)
            } else {
                let sent = &out.sent;
                let known = |id| sent.knows(id);
                out.pending.take(rib.table_mut(), step, known)
            };
            if taken.is_empty() {
                break;
            }
            for id in taken {
                if !self.look_at(rib, out, id, anyone) {
                    later.push(id);
                }
            }
        }
        let chunk = self.write(rib, out);
        for id in later {
            out.pending.put_back(rib.table_mut(), id);
        }
        chunk
    }

    /// Most destinations in one go, bundles and octets. The paths of a destination must go into one chunk all together: with
    /// several of them the octets cannot be limited afterwards.
    fn limits(&self) -> (usize, usize, usize) {
        if self.key.alone.is_some() {
            (32, 128, usize::MAX)
        } else {
            (STEP, BUNDLES, OCTETS)
        }
    }

    /// Compares what a destination was with what it is; false if that has to wait.
    fn look_at(
        &mut self,
        rib: &Rib,
        out: &Outbound,
        id: DestinationId,
        anyone: &dyn Fn(&Exclusion) -> bool,
    ) -> bool {
        let mut before = Vec::new();
        out.sent.before(id, &mut before);
        let place = self.taken.len();
        let begins = self.paths.len();
        let Some(destination) = rib.table().get(id) else {
            self.taken.push((id, begins, begins));
            return true;
        };
        let prefix = destination.prefix();
        let first_item = self.items.len();
        self.paths_now(rib, &destination, &before);
        let now = begins..self.paths.len();
        if self.resting && !now.is_empty() {
            self.paths.truncate(begins);
            self.items.truncate(first_item);
            return false;
        }
        self.taken.push((id, begins, self.paths.len()));
        debug_assert!(
            self.items
                .iter()
                .skip(first_item)
                .all(|i| i.destination == place)
        );
        for path in &before {
            let kept = self.paths[now.clone()].iter().find(|p| p.id == path.id);
            let audience = match kept {
                None => Audience::without(path.exclusion),
                Some(kept) if kept.exclusion == path.exclusion => continue,
                // The best path comes from somebody else: that one must not keep what it had.
                Some(kept) if self.reader.is_none() && anyone(&kept.exclusion) => Audience {
                    without: path.exclusion,
                    among: Some(kept.exclusion),
                },
                Some(_) => continue,
            };
            self.add(
                Bundle {
                    family: prefix.family(),
                    made: None,
                    audience,
                },
                place,
                path.id,
            );
        }
        true
    }

    /// Appends the paths of a destination that are given now.
    fn paths_now(&mut self, rib: &Rib, destination: &Destination<'_>, before: &[SentPath]) {
        let begins = self.paths.len();
        match self.key.paths_of(destination.family()) {
            None => {
                if let Some(path) = destination.best() {
                    self.path_now(rib, destination.prefix(), path, before, begins, false);
                }
            }
            Some(limit) => {
                for path in ranked(rib, destination) {
                    if self.paths.len() - begins >= limit {
                        break;
                    }
                    self.path_now(rib, destination.prefix(), path, before, begins, true);
                }
            }
        }
    }

    fn path_now(
        &mut self,
        rib: &Rib,
        prefix: Prefix,
        path: &Path,
        before: &[SentPath],
        begins: usize,
        adds_paths: bool,
    ) {
        let excluded = |reader: Option<Reader>, exclusion: &Exclusion| {
            reader.is_some_and(|reader| exclusion.has(&reader))
        };
        let source = Exclusion {
            source: path.source(),
            next_hop: None,
        };
        if excluded(self.reader, &source) {
            return;
        }
        if excluded(self.lonely, &source) {
            self.incomplete = true;
            return;
        }
        let Some(made) = self.export.route(&self.key.export, rib, &prefix, path) else {
            return;
        };
        let next_hop = self
            .export
            .made()
            .get(made)
            .and_then(|route| route.next_hop);
        let mut exclusion = Exclusion {
            source: path.source(),
            next_hop: next_hop.map(|next_hop| next_hop.address()),
        };
        if excluded(self.reader, &exclusion) {
            return;
        }
        if excluded(self.lonely, &exclusion) {
            self.incomplete = true;
            return;
        }
        if self.reader.is_some() {
            exclusion = NOBODY;
        }
        let key = (path.source(), path.path_id());
        let id = if adds_paths {
            path_id(key, before, self.paths.get(begins..).unwrap_or_default())
        } else {
            0
        };
        self.paths.push(SentPath { key, id, exclusion });
        let bundle = Bundle {
            family: prefix.family(),
            made: Some(made),
            audience: Audience::without(exclusion),
        };
        self.add(bundle, self.taken.len(), id);
    }

    fn add(&mut self, bundle: Bundle, destination: usize, path_id: u32) {
        let place = match self.last {
            Some((last, place)) if last == bundle => place,
            _ => {
                let bundles = &mut self.bundles;
                *self.places.entry(bundle).or_insert_with(|| {
                    bundles.push(bundle);
                    bundles.len() - 1
                })
            }
        };
        self.last = Some((bundle, place));
        self.items.push(Item {
            bundle: place,
            destination,
            path_id,
        });
    }

    /// Writes what was found, as much as is good for one chunk, and notes it as announced.
    fn write(&mut self, rib: &mut Rib, out: &mut Outbound) -> Chunk {
        let ranges = self.sort();
        let mut announced = Part::default();
        let mut failed = Vec::new();
        let mut postponed = vec![false; self.taken.len()];
        let (.., limit) = self.limits();
        for (bundle, range) in self.bundles.iter().zip(&ranges) {
            let items = &self.items[range.clone()];
            let Some(made) = bundle.made else { continue };
            if announced.octets.len() >= limit {
                items
                    .iter()
                    .for_each(|item| postponed[item.destination] = true);
                continue;
            }
            let written = self.announce(rib, bundle, made, items, &mut announced.octets);
            match written {
                Some(messages) => announced.end(bundle.audience, messages),
                // The attributes do not fit a message.
                None => failed.extend(items.iter().map(|item| (*item, bundle.audience))),
            }
        }
        out.announced |= !announced.octets.is_empty();
        let mut withdrawn = self.withdraw(rib, &ranges, &postponed);
        self.forget(rib, out, &failed, &mut withdrawn);
        let touched = self.settle(rib, out, &failed, &postponed);
        withdrawn.append(announced);
        Chunk {
            octets: withdrawn.octets.freeze(),
            segments: withdrawn.segments,
            touched,
        }
    }

    /// Orders the items by bundle; returns where each bundle's are.
    fn sort(&mut self) -> Vec<std::ops::Range<usize>> {
        let mut ends = vec![0; self.bundles.len()];
        for item in &self.items {
            ends[item.bundle] += 1;
        }
        let mut next = 0;
        let ranges: Vec<_> = ends
            .iter()
            .map(|count| {
                let start = next;
                next += count;
                start..next
            })
            .collect();
        // Stable, and in order already when each destination has attributes of its own.
        self.items.sort_by_key(|item| item.bundle);
        ranges
    }

    fn nlri(&self, rib: &Rib, item: &Item) -> Option<Nlri> {
        let (id, ..) = self.taken.get(item.destination)?;
        let prefix = rib.table().get(*id)?.prefix();
        let path_id = (item.path_id != 0).then_some(item.path_id);
        Some(Nlri { prefix, path_id })
    }

    fn announce(
        &self,
        rib: &Rib,
        bundle: &Bundle,
        made: usize,
        items: &[Item],
        octets: &mut BytesMut,
    ) -> Option<u64> {
        let route = self.export.made().get(made)?;
        let next_hop: NextHop = route.next_hop?;
        let routes = items.iter().filter_map(|item| self.nlri(rib, item));
        let (family, context) = (bundle.family, &self.key.context);
        let count = wire::encode_reach(
            &route.attributes,
            family,
            &next_hop,
            routes,
            context,
            octets,
        );
        count.ok().map(|count| count as u64)
    }

    fn withdraw(&self, rib: &Rib, ranges: &[std::ops::Range<usize>], postponed: &[bool]) -> Part {
        let mut part = Part::default();
        for (bundle, range) in self.bundles.iter().zip(ranges) {
            if bundle.made.is_some() {
                continue;
            }
            let items = self.items[range.clone()].iter();
            let items = items.filter(|item| !postponed[item.destination]);
            let routes = items.filter_map(|item| self.nlri(rib, item));
            part.withdraw(self.key, bundle.family, bundle.audience, routes);
        }
        part
    }

    /// What cannot be announced must not stay announced as it was.
    fn forget(&self, rib: &Rib, out: &Outbound, failed: &[(Item, Audience)], part: &mut Part) {
        let mut before = Vec::new();
        for (item, _) in failed {
            let (Some((id, ..)), Some(nlri)) =
                (self.taken.get(item.destination), self.nlri(rib, item))
            else {
                continue;
            };
            out.sent.before(*id, &mut before);
            if let Some(known) = before.iter().find(|path| path.id == item.path_id) {
                let audience = Audience::without(known.exclusion);
                part.withdraw(self.key, nlri.prefix.family(), audience, [nlri]);
            }
        }
    }

    /// Notes what is announced now and lets go of what was taken, except for the destinations the chunk speaks of, which it
    /// returns: who has not read the chunk may have to be told of them again, and then their numbers must still be theirs.
    fn settle(
        &mut self,
        rib: &mut Rib,
        out: &mut Outbound,
        failed: &[(Item, Audience)],
        postponed: &[bool],
    ) -> Vec<DestinationId> {
        let table = rib.table_mut();
        let mut touched = Vec::with_capacity(self.taken.len());
        let mut left = Vec::new();
        for (place, (id, begin, end)) in self.taken.iter().enumerate() {
            if postponed[place] {
                out.pending.put_back(table, *id);
                continue;
            }
            let mut now = &self.paths[*begin..*end];
            let lost = |path: &SentPath| {
                failed
                    .iter()
                    .any(|(item, _)| item.destination == place && item.path_id == path.id)
            };
            if !failed.is_empty() && now.iter().any(lost) {
                left.clear();
                left.extend(now.iter().filter(|path| !lost(path)));
                now = &left;
            }
            let speaks_of_it = !now.is_empty() || out.sent.knows(*id);
            out.sent.settle(table, *id, now);
            if speaks_of_it {
                touched.push(*id);
            } else {
                table.release(*id);
            }
        }
        touched
    }
}

const NOBODY: Exclusion = Exclusion {
    source: Source::LOCAL,
    next_hop: None,
};

/// Paths that may be given, the best first.
fn ranked<'a>(rib: &Rib, destination: &Destination<'a>) -> Vec<&'a Path> {
    let reachable = |path: &&Path| {
        let facts = rib.facts(path.effective());
        let next_hop = facts.and_then(|facts| facts.next_hop);
        next_hop.is_none_or(|next_hop| rib.routes().cost(next_hop).is_some())
    };
    let paths = destination.paths().iter();
    let paths = paths.filter(|path| path.is_accepted()).filter(reachable);
    let mut paths: Vec<_> = paths.collect();
    paths.sort_by_key(|path| {
        let facts = rib.facts(path.effective());
        let preference = facts.map(|facts| {
            let local_pref = std::cmp::Reverse(facts.local_pref);
            (local_pref, facts.path_length, facts.origin, facts.med)
        });
        let selection = (
            !path.is_best(),
            !path.is_multipath(),
            path.is_long_lived_stale(),
        );
        (selection, preference, path.source(), path.path_id())
    });
    paths
}

/// Messages and who hears them.
#[derive(Default)]
struct Part {
    octets: BytesMut,
    segments: Vec<Segment>,
}

impl Part {
    /// What was written since the last segment is for these.
    fn end(&mut self, audience: Audience, messages: u64) {
        let end = self.octets.len();
        match self.segments.last_mut() {
            Some(last) if last.audience == audience => {
                last.end = end;
                last.messages += messages;
            }
            _ => self.segments.push(Segment {
                end,
                messages,
                audience,
            }),
        }
    }

    fn withdraw(
        &mut self,
        key: &GroupKey,
        family: Family,
        audience: Audience,
        routes: impl IntoIterator<Item = Nlri>,
    ) {
        // Withdrawals have no part that could be too long: they are spread over as many messages as they need.
        let count = wire::encode_withdraw(family, routes, &key.context, &mut self.octets);
        if let Ok(count @ 1..) = count {
            self.end(audience, count as u64);
        }
    }

    fn append(&mut self, other: Self) {
        let start = self.octets.len();
        self.octets.unsplit(other.octets);
        self.segments
            .extend(other.segments.into_iter().map(|segment| Segment {
                end: segment.end + start,
                ..segment
            }));
    }
}
