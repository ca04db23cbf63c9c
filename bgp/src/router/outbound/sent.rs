//! [`Sent`]: which routes were announced, and to whom not.

use std::collections::HashMap;

use super::{Exclusion, Reader};
use crate::rib::{Bits, DestinationId, Source, Table};

/// Names a path among all paths of a destination: who gave it, and the identifier they gave it.
pub(in crate::router) type PathKey = (Source, u32);

/// One path that was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SentPath {
    pub(super) key: PathKey,
    /// The identifier it has on sessions with ADD-PATH.
    pub(super) id: u32,
    pub(super) exclusion: Exclusion,
}

/// Which destinations were announced. Everything in here holds its number in the table.
#[derive(Debug)]
pub(in crate::router) enum Sent {
    /// By a group: for each destination who was left out.
    Shared(Box<Shared>),
    /// To one peer.
    Own { known: Bits, count: u64 },
    /// With several paths for each destination.
    Paths(Box<ManyPaths>),
}

/// Paths announced with ADD-PATH.
#[derive(Debug, Default)]
pub(in crate::router) struct ManyPaths {
    paths: HashMap<DestinationId, Vec<SentPath>>,
    tally: HashMap<Exclusion, u64>,
    /// How many have an identifier that is not simply the number of their source.
    numbered: u64,
}

/// Where identifiers begin that are not the number of a source.
const NUMBERED: u32 = 1 << 31;

impl ManyPaths {
    fn count(&mut self, paths: &[SentPath], more: bool) {
        for path in paths {
            let numbered = u64::from(path.id >= NUMBERED);
            let tally = self.tally.entry(path.exclusion).or_default();
            if more {
                *tally += 1;
                self.numbered += numbered;
            } else {
                *tally = tally.saturating_sub(1);
                self.numbered = self.numbered.saturating_sub(numbered);
                if *tally == 0 {
                    self.tally.remove(&path.exclusion);
                }
            }
        }
    }

    fn set(&mut self, id: DestinationId, now: &[SentPath]) -> (bool, bool) {
        self.count(now, true);
        let before = match now {
            [] => self.paths.remove(&id),
            _ => self.paths.insert(id, now.to_vec()),
        };
        if let Some(before) = &before {
            self.count(before, false);
        }
        (before.is_some(), !now.is_empty())
    }
}

/// The identifier of a path on sessions with ADD-PATH: the one it has, or the number of its source where the source has one
/// path only, or the lowest free one of the destination. Stays the same as long as the path is announced (RFC 7911 section 3).
pub(super) fn path_id(key: PathKey, before: &[SentPath], now: &[SentPath]) -> u32 {
    if let Some(known) = before.iter().find(|path| path.key == key) {
        return known.id;
    }
    match key {
        (source, 0) if source.is_local() => NUMBERED - 1,
        (source, 0) if source.0 < NUMBERED - 2 => source.0 + 1,
        _ => {
            let taken = |id: u32| before.iter().chain(now).any(|path| path.id == id);
            (NUMBERED..u32::MAX)
                .find(|id| !taken(*id))
                .unwrap_or(u32::MAX)
        }
    }
}

#[derive(Debug, Default)]
pub(in crate::router) struct Shared {
    /// By destination: 0, or one more than the place in `exclusions`. Four octets a destination, for any number of peers.
    slots: Vec<u32>,
    count: u64,
    /// Each with the number of slots that name it.
    exclusions: Vec<(Exclusion, u64)>,
    places: HashMap<Exclusion, u32>,
    free: Vec<u32>,
    /// The last one looked up: neighbours are mostly alike.
    last: Option<(Exclusion, u32)>,
}

impl Shared {
    fn get(&self, id: DestinationId) -> Option<Exclusion> {
        let slot = *self.slots.get(id.0 as usize)?;
        let place = slot.checked_sub(1)?;
        let (exclusion, _) = self.exclusions.get(place as usize)?;
        Some(*exclusion)
    }

    /// Sets a slot; says whether there was something, and whether there is now.
    fn set(&mut self, id: DestinationId, exclusion: Option<Exclusion>) -> (bool, bool) {
        let at = id.0 as usize;
        if at >= self.slots.len() {
            if exclusion.is_none() {
                return (false, false);
            }
            self.slots.resize(at + 1, 0);
        }
        let new = exclusion.map_or(0, |exclusion| self.place(exclusion) + 1);
        let old = std::mem::replace(&mut self.slots[at], new);
        if let Some(place) = old.checked_sub(1) {
            self.drop_place(place);
        }
        (old != 0, new != 0)
    }

    fn place(&mut self, exclusion: Exclusion) -> u32 {
        let known = match self.last {
            Some((last, place)) if last == exclusion => Some(place),
            _ => self.places.get(&exclusion).copied(),
        };
        let place = known.unwrap_or_else(|| {
            let place = self.free.pop().unwrap_or_else(|| {
                self.exclusions.push((exclusion, 0));
                // One for each slot at most, and the slots' numbers are u32.
                u32::try_from(self.exclusions.len() - 1).unwrap_or(u32::MAX)
            });
            self.exclusions[place as usize] = (exclusion, 0);
            self.places.insert(exclusion, place);
            place
        });
        self.last = Some((exclusion, place));
        self.exclusions[place as usize].1 += 1;
        place
    }

    fn drop_place(&mut self, place: u32) {
        let (exclusion, uses) = &mut self.exclusions[place as usize];
        *uses -= 1;
        if *uses == 0 {
            self.places.remove(exclusion);
            self.free.push(place);
            self.last = None;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (DestinationId, Exclusion)> {
        (0..).zip(&self.slots).filter_map(|(id, slot)| {
            let place = slot.checked_sub(1)?;
            let (exclusion, _) = self.exclusions.get(place as usize)?;
            Some((DestinationId(id), *exclusion))
        })
    }
}

impl Sent {
    pub(in crate::router) fn shared() -> Self {
        Self::Shared(Box::default())
    }

    pub(in crate::router) fn own() -> Self {
        Self::Own {
            known: Bits::default(),
            count: 0,
        }
    }

    pub(in crate::router) fn paths() -> Self {
        Self::Paths(Box::default())
    }

    /// Whether something of the destination was announced to somebody.
    pub(in crate::router) fn knows(&self, id: DestinationId) -> bool {
        match self {
            Self::Shared(shared) => shared.get(id).is_some(),
            Self::Own { known, .. } => known.get(id),
            Self::Paths(many) => many.paths.contains_key(&id),
        }
    }

    /// Whether nothing was announced.
    pub(in crate::router) fn is_empty(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.count == 0,
            Self::Own { count, .. } => *count == 0,
            Self::Paths(many) => many.paths.is_empty(),
        }
    }

    /// How many routes the reader has.
    pub(in crate::router) fn count(&self, reader: &Reader) -> u64 {
        match self {
            Self::Shared(shared) => {
                let left_out = shared.exclusions.iter().filter(|(e, _)| e.has(reader));
                let left_out: u64 = left_out.map(|(_, uses)| uses).sum();
                shared.count.saturating_sub(left_out)
            }
            Self::Own { count, .. } => *count,
            Self::Paths(many) => {
                let heard = many.tally.iter().filter(|(e, _)| !e.has(reader));
                heard.map(|(_, uses)| uses).sum()
            }
        }
    }

    /// The paths announced of a destination. Without ADD-PATH there is one at most, and nothing is known of its key.
    pub(super) fn before(&self, id: DestinationId, to: &mut Vec<SentPath>) {
        to.clear();
        let one = |exclusion| SentPath {
            key: (Source::LOCAL, 0),
            id: 0,
            exclusion,
        };
        let nobody = Exclusion {
            source: Source::LOCAL,
            next_hop: None,
        };
        match self {
            Self::Shared(shared) => to.extend(shared.get(id).map(one)),
            Self::Own { known, .. } => to.extend(known.get(id).then(|| one(nobody))),
            Self::Paths(many) => to.extend(many.paths.get(&id).into_iter().flatten()),
        }
    }

    /// Notes what is announced of a destination now.
    pub(super) fn settle(&mut self, table: &mut Table, id: DestinationId, now: &[SentPath]) {
        let (before, after) = match self {
            Self::Shared(shared) => {
                let (before, after) = shared.set(id, now.first().map(|path| path.exclusion));
                shared.count = shared.count + u64::from(after) - u64::from(before);
                (before, after)
            }
            Self::Own { known, count } => {
                let after = !now.is_empty();
                let before = known.set(id, after);
                *count = *count + u64::from(after) - u64::from(before);
                (before, after)
            }
            Self::Paths(many) => many.set(id, now),
        };
        match (before, after) {
            (false, true) => table.hold(id),
            (true, false) => table.release(id),
            _ => {}
        }
    }

    /// Whether a peer with a state of its own can go on with this one: not if identifiers of paths may differ.
    pub(in crate::router) fn continues(&self, own: &Self) -> bool {
        match (self, own) {
            (Self::Paths(many), Self::Paths(own)) => many.numbered == 0 && own.numbered == 0,
            _ => true,
        }
    }

    /// What one reader of this state knows, as a state of its own.
    pub(super) fn apart(&self, table: &mut Table, reader: &Reader) -> Self {
        match self {
            Self::Shared(shared) => {
                let mut known = Bits::default();
                let mut count = 0;
                for (id, exclusion) in shared.iter() {
                    if !exclusion.has(reader) {
                        known.set(id, true);
                        count += 1;
                        table.hold(id);
                    }
                }
                Self::Own { known, count }
            }
            Self::Own { known, count } => {
                let mut copy = Bits::default();
                for id in known.iter() {
                    copy.set(id, true);
                    table.hold(id);
                }
                Self::Own {
                    known: copy,
                    count: *count,
                }
            }
            Self::Paths(many) => {
                let mut copy = ManyPaths::default();
                for (id, paths) in &many.paths {
                    let heard = paths.iter().filter(|path| !path.exclusion.has(reader));
                    let heard: Vec<_> = heard.copied().collect();
                    if let (_, true) = copy.set(*id, &heard) {
                        table.hold(*id);
                    }
                }
                Self::Paths(Box::new(copy))
            }
        }
    }

    /// Takes it that the reader may have been told of a destination: it is going to be told again, or that it is gone.
    pub(super) fn suppose(&mut self, table: &mut Table, id: DestinationId) {
        if let Self::Own { known, count } = self
            && !known.set(id, true)
        {
            *count += 1;
            table.hold(id);
        }
    }

    /// Gives back every number held.
    pub(in crate::router) fn retire(self, table: &mut Table) {
        match self {
            Self::Shared(shared) => shared.iter().for_each(|(id, _)| table.release(id)),
            Self::Own { known, .. } => known.iter().for_each(|id| table.release(id)),
            Self::Paths(many) => many.paths.into_keys().for_each(|id| table.release(id)),
        }
    }
}
