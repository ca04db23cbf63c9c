//! The table of destinations: prefix to paths, and a small number for every prefix.
//!
//! One hash map for both families from prefix to a dense number, and a vector of destinations indexed by it. Nothing in BGP
//! asks for the longest match, so a trie would cost cache misses for an order nobody needs; the dense numbers are what makes
//! the Adj-RIBs-Out cheap: a peer's view of a destination is two bits (see [`super::View`]), not a second table.
//! Numbers follow the order of arrival, so neighbours in number tend to share attributes and pack well.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use super::path::{Path, Paths};
use crate::types::Prefix;

/// The number of a destination. Reused once nobody holds it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId(pub u32);

impl DestinationId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A prefix and every path to it: the Adj-RIBs-In and the Loc-RIB in one place.
#[derive(Debug)]
pub struct Destination {
    /// The prefix.
    pub prefix: Prefix,
    /// All paths, accepted or not.
    pub paths: Paths,
    /// How many views (peers, subscribers) still refer to the number.
    holders: u32,
}

impl Destination {
    /// The path the decision process chose.
    #[must_use]
    pub fn best(&self) -> Option<&Path> {
        self.paths.as_slice().iter().find(|path| path.is_best())
    }
}

/// All destinations.
#[derive(Debug)]
pub struct Table {
    index: HashMap<Prefix, DestinationId, Keyed>,
    destinations: Vec<Destination>,
    free: Vec<DestinationId>,
}

impl Table {
    /// An empty table; `seed` keeps peers from choosing prefixes that collide in the hash map.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            index: HashMap::with_hasher(Keyed(seed)),
            destinations: Vec::new(),
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

    /// One more than the highest number in use.
    #[must_use]
    pub fn end(&self) -> DestinationId {
        // The numbers are u32 and handed out by `insert`, so the length fits.
        DestinationId(u32::try_from(self.destinations.len()).unwrap_or(u32::MAX))
    }

    /// The number of `prefix`, if it has one.
    #[must_use]
    pub fn find(&self, prefix: &Prefix) -> Option<DestinationId> {
        self.index.get(prefix).copied()
    }

    /// The number of `prefix`, a new one if it has none.
    pub fn find_or_insert(&mut self, prefix: Prefix) -> DestinationId {
        let (destinations, free) = (&mut self.destinations, &mut self.free);
        *self.index.entry(prefix).or_insert_with(|| {
            let fresh = Destination {
                prefix,
                paths: Paths::default(),
                holders: 0,
            };
            if let Some(id) = free.pop() {
                destinations[id.index()] = fresh;
                return id;
            }
            let id = DestinationId(u32::try_from(destinations.len()).unwrap_or(u32::MAX));
            destinations.push(fresh);
            id
        })
    }

    /// The destination of a number that is in use.
    #[must_use]
    pub fn get(&self, id: DestinationId) -> Option<&Destination> {
        self.destinations.get(id.index())
    }

    pub(super) fn get_mut(&mut self, id: DestinationId) -> Option<&mut Destination> {
        self.destinations.get_mut(id.index())
    }

    /// Notes that one more view refers to the number.
    pub fn hold(&mut self, id: DestinationId) {
        if let Some(destination) = self.destinations.get_mut(id.index()) {
            destination.holders += 1;
        }
    }

    /// Takes back one [`Table::hold`]; the number is free once it has neither holders nor paths.
    pub fn release(&mut self, id: DestinationId) {
        if let Some(destination) = self.destinations.get_mut(id.index()) {
            destination.holders = destination.holders.saturating_sub(1);
        }
        self.collect(id);
    }

    /// Frees the number if nothing refers to it.
    pub fn collect(&mut self, id: DestinationId) {
        let Some(destination) = self.destinations.get(id.index()) else {
            return;
        };
        if destination.holders == 0
            && destination.paths.as_slice().is_empty()
            && self.index.get(&destination.prefix) == Some(&id)
        {
            self.index.remove(&destination.prefix);
            self.free.push(id);
        }
    }

    /// Every destination, in the order of its number.
    pub fn iter(&self) -> impl Iterator<Item = &Destination> {
        self.destinations.iter()
    }
}

/// A keyed multiply-and-fold hash: one multiplication per prefix, not predictable without the key.
#[derive(Debug, Clone)]
struct Keyed(u64);

impl BuildHasher for Keyed {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold(self.0)
    }
}

struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value)
            * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128 as u64 as u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ self.0.rotate_left(23);
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_only_when_nobody_holds_it() {
        let mut table = Table::new(1);
        let a: Prefix = "10.0.0.0/24".parse().unwrap();
        let b: Prefix = "10.0.1.0/24".parse().unwrap();
        let id = table.find_or_insert(a);
        table.hold(id);
        table.collect(id);
        assert_eq!(table.find(&a), Some(id));
        assert_ne!(table.find_or_insert(b), id);
        table.release(id);
        assert_eq!(table.find(&a), None);
        assert_eq!(table.find_or_insert("10.0.2.0/24".parse().unwrap()), id);
    }

    #[test]
    fn hashes_spread_over_neighbouring_prefixes() {
        let keyed = Keyed(0x1234_5678_9abc_def0);
        let low: std::collections::HashSet<u64> = (0..4096_u32)
            .map(|i| Prefix::v4((0x0a00_0000 + (i << 8)).into(), 24).unwrap())
            .map(|prefix| keyed.hash_one(prefix) & 0xfff)
            .collect();
        // 4096 balls in 4096 bins leave about 37 % empty.
        assert!(low.len() > 2300, "{}", low.len());
    }
}
