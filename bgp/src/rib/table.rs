//! The table of destinations: prefix to paths, and a small number for every prefix.
//!
//! A dense vector of 32-octet records in the order of arrival, each with its one path inside (nearly every destination has
//! one), and a hash index of nothing but record numbers, which is compared against the records. Nothing in BGP asks for the
//! longest match, so a trie would cost cache misses for an order nobody needs (docs/bench/bgp-rib.md has the comparison); the
//! dense numbers are what makes the Adj-RIBs-Out cheap: a peer's view of a destination is two bits (see [`super::View`]), not
//! a second table. Numbers follow the order of arrival, so neighbours in number tend to share attributes and pack well.
//!
//! An IPv4 address is in the record; an IPv6 one is beside it, so that a table of IPv4 routes does not pay for it.

use hashbrown::HashTable;

use super::path::{Path, Source};
use super::slab::Slab;
use crate::types::{Family, Prefix};

/// The number of a destination. Reused once nobody holds it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(pub u32);

impl DestinationId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A prefix and every path to it: the Adj-RIBs-In and the Loc-RIB in one place.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    table: &'a Table,
    id: DestinationId,
    record: &'a Record,
}

impl<'a> Destination<'a> {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> DestinationId {
        self.id
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> Prefix {
        self.table.prefix_of(self.record)
    }

    /// The prefix's family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.record.family
    }

    /// All paths, accepted or not.
    #[must_use]
    pub fn paths(&self) -> &'a [Path] {
        self.table.paths_of(self.record)
    }

    /// The path the decision process chose.
    #[must_use]
    pub fn best(&self) -> Option<&'a Path> {
        self.paths().iter().find(|path| path.is_best())
    }
}

/// The paths of a destination.
#[derive(Debug, Clone, Copy, Default)]
enum Paths {
    /// No path: the destination only waits for its withdrawal to be sent everywhere.
    #[default]
    None,
    /// One path.
    One(Path),
    /// Several paths, under this number in [`Table::several`].
    Several(u32),
}

#[derive(Debug, Clone, Copy)]
struct Record {
    /// The IPv4 address, or the number of the IPv6 one in [`Table::wide`].
    address: u32,
    /// How many views (peers, subscribers) still refer to the number.
    holders: u32,
    length: u8,
    family: Family,
    paths: Paths,
}

/// The length of a record nobody uses.
const VACANT: u8 = u8::MAX;

/// From so many destinations on the index doubles when it is full. Before, it becomes four times as large: to fill it again
/// costs more than the little memory it saves.
const MANY: usize = 1 << 18;

/// All destinations.
#[derive(Debug)]
pub struct Table {
    index: HashTable<u32>,
    seed: u64,
    records: Vec<Record>,
    several: Slab<Vec<Path>>,
    wide: Slab<[u8; 16]>,
    free: Vec<DestinationId>,
}

impl Table {
    /// An empty table; `seed` keeps peers from choosing prefixes that collide in the index.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            index: HashTable::new(),
            seed,
            records: Vec::new(),
            several: Slab::default(),
            wide: Slab::default(),
            free: Vec::new(),
        }
    }

    /// How many prefixes have a destination.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no destination at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether there are destinations of a family.
    #[must_use]
    pub fn has(&self, family: Family) -> bool {
        let ipv6 = self.wide.len();
        match family {
            Family::Ipv4Unicast => self.index.len() > ipv6,
            Family::Ipv6Unicast => ipv6 > 0,
        }
    }

    /// One more than the highest number in use.
    #[must_use]
    pub fn end(&self) -> DestinationId {
        // The numbers are u32 and handed out by `find_or_insert`, so the length fits.
        DestinationId(u32::try_from(self.records.len()).unwrap_or(u32::MAX))
    }

    /// The number of `prefix`, if it has one.
    #[must_use]
    pub fn find(&self, prefix: &Prefix) -> Option<DestinationId> {
        let key = Key::of(prefix);
        let is_it = |id: &u32| key.is(&self.records, &self.wide, *id);
        self.index
            .find(key.hash(self.seed), is_it)
            .copied()
            .map(DestinationId)
    }

    /// Looks for prefixes that are about to be found or inserted, and does nothing with what it sees. Each look waits for
    /// memory, and none for another's: together they wait about as long as one.
    pub fn warm<'a>(&self, prefixes: impl Iterator<Item = &'a Prefix>) {
        let mut seen = 0;
        for prefix in prefixes {
            let look = |id: &u32| {
                let record = self.records.get(*id as usize);
                seen ^= record.map_or(0, |record| record.address);
                false
            };
            self.index.find(Key::of(prefix).hash(self.seed), look);
        }
        // Or the compiler would see that nobody wants it.
        std::hint::black_box(seen);
    }

    /// The number of `prefix`, a new one if it has none.
    pub fn find_or_insert(&mut self, prefix: Prefix) -> DestinationId {
        if self.index.len() == self.index.capacity() {
            self.grow();
        }
        let key = Key::of(&prefix);
        let hash = key.hash(self.seed);
        let Self {
            index,
            records,
            wide,
            seed,
            ..
        } = self;
        let is_it = |id: &u32| key.is(records, wide, *id);
        let rehash = |id: &u32| Key::at(records, wide, *id).hash(*seed);
        let vacant = match index.entry(hash, is_it, rehash) {
            hashbrown::hash_table::Entry::Occupied(known) => return DestinationId(*known.get()),
            hashbrown::hash_table::Entry::Vacant(vacant) => vacant,
        };
        let fresh = Record {
            address: match key.address {
                Address::V4(address) => address,
                Address::V6(address) => wide.insert(address),
            },
            holders: 0,
            length: key.length,
            family: prefix.family(),
            paths: Paths::None,
        };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(record) = records.get_mut(id.index()) {
                    *record = fresh;
                }
                id
            }
            None => {
                let id = DestinationId(u32::try_from(records.len()).unwrap_or(u32::MAX));
                records.push(fresh);
                id
            }
        };
        vacant.insert(id.0);
        id
    }

    /// Makes room in the index, in the order of the records: left to itself it would go through its own order, and wait for
    /// each record's memory in turn. The old one goes first, so that both are never there together.
    fn grow(&mut self) {
        let known = self.index.len();
        let room = (known * if known < MANY { 4 } else { 2 }).max(64);
        self.index = HashTable::new();
        let Self {
            index,
            records,
            wide,
            seed,
            ..
        } = self;
        let rehash = |id: &u32| Key::at(records, wide, *id).hash(*seed);
        index.reserve(room, rehash);
        for (id, record) in (0..).zip(records.iter()) {
            if record.length != VACANT {
                index.insert_unique(rehash(&id), id, rehash);
            }
        }
    }

    /// The destination of a number that is in use.
    #[must_use]
    pub fn get(&self, id: DestinationId) -> Option<Destination<'_>> {
        let record = self.records.get(id.index())?;
        (record.length != VACANT).then_some(Destination {
            table: self,
            id,
            record,
        })
    }

    /// Every destination, in the order of its number.
    pub fn iter(&self) -> impl Iterator<Item = Destination<'_>> {
        (0..self.end().0).filter_map(|id| self.get(DestinationId(id)))
    }

    /// Notes that one more view refers to the number.
    pub fn hold(&mut self, id: DestinationId) {
        if let Some(record) = self.records.get_mut(id.index()) {
            record.holders += 1;
        }
    }

    /// Takes back one [`Table::hold`]; the number is free once it has neither holders nor paths.
    pub fn release(&mut self, id: DestinationId) {
        if let Some(record) = self.records.get_mut(id.index()) {
            record.holders = record.holders.saturating_sub(1);
        }
        self.collect(id);
    }

    /// Frees the number if nothing refers to it.
    pub fn collect(&mut self, id: DestinationId) {
        let Some(record) = self.records.get(id.index()) else {
            return;
        };
        let unused = record.holders == 0 && matches!(record.paths, Paths::None);
        if !unused || record.length == VACANT {
            return;
        }
        let key = Key::at(&self.records, &self.wide, id.0);
        if let Ok(entry) = self
            .index
            .find_entry(key.hash(self.seed), |other| *other == id.0)
        {
            entry.remove();
        }
        if let Some(record) = self.records.get_mut(id.index()) {
            if record.family == Family::Ipv6Unicast {
                self.wide.remove(record.address);
            }
            record.length = VACANT;
        }
        self.free.push(id);
    }

    /// All paths of a destination, to mark them.
    pub(super) fn paths_mut(&mut self, id: DestinationId) -> &mut [Path] {
        match self.records.get_mut(id.index()).map(|r| &mut r.paths) {
            Some(Paths::One(path)) => std::slice::from_mut(path),
            Some(Paths::Several(several)) => self
                .several
                .get_mut(*several)
                .map_or(&mut [], Vec::as_mut_slice),
            Some(Paths::None) | None => &mut [],
        }
    }

    /// Puts in `path`, in place of the one with the same source and identifier if there is one, which is returned.
    pub(super) fn insert(&mut self, id: DestinationId, path: Path) -> Option<Path> {
        let same = |p: &&mut Path| p.is_from(path.source(), path.path_id());
        if let Some(old) = self.paths_mut(id).iter_mut().find(same) {
            return Some(std::mem::replace(old, path));
        }
        let record = self.records.get_mut(id.index())?;
        match record.paths {
            Paths::None => record.paths = Paths::One(path),
            Paths::One(first) => {
                record.paths = Paths::Several(self.several.insert(vec![first, path]));
            }
            Paths::Several(several) => {
                let paths = self.several.get_mut(several)?;
                if paths.len() == paths.capacity() {
                    // Doubling would leave a third of a large table's memory unused.
                    paths.reserve_exact(paths.len().div_ceil(4).max(2));
                }
                paths.push(path);
            }
        }
        None
    }

    /// Takes out the path with this source and identifier.
    pub(super) fn remove(
        &mut self,
        id: DestinationId,
        source: Source,
        path_id: u32,
    ) -> Option<Path> {
        let record = self.records.get_mut(id.index())?;
        match record.paths {
            Paths::One(path) if path.is_from(source, path_id) => {
                record.paths = Paths::None;
                Some(path)
            }
            Paths::One(_) | Paths::None => None,
            Paths::Several(several) => {
                let paths = self.several.get_mut(several)?;
                let at = paths.iter().position(|p| p.is_from(source, path_id))?;
                let removed = paths.swap_remove(at);
                if let [last] = paths.as_slice() {
                    record.paths = Paths::One(*last);
                    self.several.remove(several);
                }
                Some(removed)
            }
        }
    }

    fn prefix_of(&self, record: &Record) -> Prefix {
        let prefix = match record.family {
            Family::Ipv4Unicast => Prefix::v4(record.address.into(), record.length),
            Family::Ipv6Unicast => {
                let address = self.wide.get(record.address).copied().unwrap_or_default();
                Prefix::v6(address.into(), record.length)
            }
        };
        // The length was that of a prefix.
        prefix.unwrap_or(Prefix::DEFAULT_V4)
    }

    fn paths_of<'a>(&'a self, record: &'a Record) -> &'a [Path] {
        match &record.paths {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Several(several) => self.several.get(*several).map_or(&[], Vec::as_slice),
        }
    }
}

/// A prefix as the index compares it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    address: Address,
    length: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Address {
    V4(u32),
    V6([u8; 16]),
}

impl Key {
    fn of(prefix: &Prefix) -> Self {
        let octets = prefix.octets();
        let [a, b, c, d, ..] = octets;
        Self {
            address: match prefix.family() {
                Family::Ipv4Unicast => Address::V4(u32::from_be_bytes([a, b, c, d])),
                Family::Ipv6Unicast => Address::V6(octets),
            },
            length: prefix.length(),
        }
    }

    fn at(records: &[Record], wide: &Slab<[u8; 16]>, id: u32) -> Self {
        let Some(record) = records.get(id as usize) else {
            return Self {
                address: Address::V4(0),
                length: VACANT,
            };
        };
        Self {
            address: match record.family {
                Family::Ipv4Unicast => Address::V4(record.address),
                Family::Ipv6Unicast => {
                    Address::V6(wide.get(record.address).copied().unwrap_or_default())
                }
            },
            length: record.length,
        }
    }

    fn is(&self, records: &[Record], wide: &Slab<[u8; 16]>, id: u32) -> bool {
        let Some(record) = records.get(id as usize) else {
            return false;
        };
        if record.length != self.length {
            return false;
        }
        match (self.address, record.family) {
            (Address::V4(address), Family::Ipv4Unicast) => record.address == address,
            (Address::V6(address), Family::Ipv6Unicast) => {
                wide.get(record.address) == Some(&address)
            }
            _ => false,
        }
    }

    /// Keyed multiply and fold: not predictable without the key.
    fn hash(&self, seed: u64) -> u64 {
        let length = u64::from(self.length);
        match self.address {
            Address::V4(address) => fold(seed, (u64::from(address) << 8) | length),
            Address::V6(address) => {
                let address = u128::from_be_bytes(address);
                let high = fold(seed ^ length, (address >> 64) as u64);
                fold(high, address as u64)
            }
        }
    }
}

/// One multiplication of 64 by 64 bits, both halves of the product mixed, twice: all bits of the result depend on all of the
/// input.
pub(super) fn fold(state: u64, word: u64) -> u64 {
    let mix = |value: u64, by: u64| {
        let product = u128::from(value) * u128::from(by);
        (product as u64) ^ ((product >> 64) as u64)
    };
    mix(
        mix(state ^ word, 0x9e37_79b9_7f4a_7c15) ^ state.rotate_left(23),
        0xf39c_c060_5ced_c835,
    )
}

#[cfg(test)]
mod tests;
