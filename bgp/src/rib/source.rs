//! [`Sources`]: who feeds the table, and where its paths are.

use std::collections::HashMap;

use super::best::Neighbor;
use super::path::{Path, Source};
use super::table::DestinationId;
use crate::types::Family;

/// How many routes a source has in the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them, including those policy refused.
    pub received: u64,
    /// Those of them that are IPv6 routes.
    pub ipv6: u64,
    /// Those that take part in the decision process.
    pub accepted: u64,
    /// Those that are stale: left over from before a restart, or to be confirmed by a refresh.
    pub stale: u64,
    /// Those of them that are kept beyond a restart (RFC 9494).
    pub long_lived: u64,
    /// Paths not taken because the source gave more than [`MAX_PATHS`](super::MAX_PATHS) for one prefix, so far.
    pub excess: u64,
}

impl Counts {
    /// Counts the marks of a path.
    pub(super) fn stamp(&mut self, path: &Path) {
        self.stale += u64::from(path.is_stale());
        self.long_lived += u64::from(path.is_long_lived_stale());
    }

    /// Takes back one [`Counts::stamp`].
    pub(super) fn unstamp(&mut self, path: &Path) {
        let (stale, long_lived) = (path.is_stale(), path.is_long_lived_stale());
        self.stale = self.stale.saturating_sub(stale.into());
        self.long_lived = self.long_lived.saturating_sub(long_lived.into());
    }

    /// The marks of a path have changed.
    pub(super) fn restamp(&mut self, before: &Path, after: &Path) {
        self.unstamp(before);
        self.stamp(after);
    }

    /// The routes of one family, those refused included.
    #[must_use]
    pub fn of(&self, family: Family) -> u64 {
        match family {
            Family::Ipv4Unicast => self.received.saturating_sub(self.ipv6),
            Family::Ipv6Unicast => self.ipv6,
        }
    }
}

/// Beyond so many paths a walk over the table costs no more than remembering where they are.
const SPARSE: usize = 1 << 16;

/// One source.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) neighbor: Neighbor,
    pub(super) counts: Counts,
    /// Where it has paths: at least there, maybe twice, maybe no more. `None` if there were too many to remember.
    places: Option<Vec<DestinationId>>,
}

impl Entry {
    fn new(neighbor: Neighbor) -> Self {
        Self {
            neighbor,
            counts: Counts::default(),
            places: Some(Vec::new()),
        }
    }

    /// Notes a new path. `is_there` says whether there still is one at a place.
    pub(super) fn put(&mut self, id: DestinationId, is_there: impl Fn(DestinationId) -> bool) {
        let received = usize::try_from(self.counts.received).unwrap_or(usize::MAX);
        let Some(places) = &mut self.places else {
            return;
        };
        if received >= SPARSE {
            self.places = None;
            return;
        }
        if places.len() >= 64 + 2 * received {
            // More than half are leftovers of withdrawn paths: what this costs has been paid for by those that came since.
            places.sort_unstable();
            places.dedup();
            places.retain(|id| is_there(*id));
        }
        places.push(id);
    }

    /// Where it may have paths, in order, without duplicates; `None`: anywhere.
    pub(super) fn places(&mut self) -> Option<Vec<DestinationId>> {
        let places = self.places.as_mut()?;
        places.sort_unstable();
        places.dedup();
        Some(places.clone())
    }

    /// After the last path has gone: nowhere.
    pub(super) fn clear_places(&mut self) {
        self.places = Some(Vec::new());
    }
}

/// All sources.
#[derive(Debug, Default)]
pub(super) struct Sources(HashMap<Source, Entry, Fast>);

impl Sources {
    pub(super) fn get(&self, source: Source) -> Option<&Entry> {
        self.0.get(&source)
    }

    pub(super) fn get_mut(&mut self, source: Source) -> Option<&mut Entry> {
        self.0.get_mut(&source)
    }

    /// Makes a source known; one that is known keeps everything else.
    pub(super) fn add(&mut self, source: Source, neighbor: Neighbor) {
        let entry = self.0.entry(source);
        entry.or_insert_with(|| Entry::new(neighbor)).neighbor = neighbor;
    }

    pub(super) fn remove(&mut self, source: Source) {
        self.0.remove(&source);
    }
}

/// Source numbers are ours, handed out in order: nothing a peer could choose, so that one multiplication is hash enough.
#[derive(Debug, Clone, Copy, Default)]
struct Fast;

impl std::hash::BuildHasher for Fast {
    type Hasher = FastHasher;

    fn build_hasher(&self) -> FastHasher {
        FastHasher(0)
    }
}

struct FastHasher(u64);

impl std::hash::Hasher for FastHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        octets
            .iter()
            .for_each(|octet| self.write_u32((*octet).into()));
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
