//! Numbers for things by their content.
//!
//! Identities, classes and decisions are named in the kernel by a number that follows from what they *are*. Two compiles of
//! the same cluster therefore agree whatever came before, what a command line renders is what the agent commits, and an
//! unchanged thing keeps its number across changes elsewhere without any state being carried along.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

/// FNV-1a, 64 bits: unlike the standard library's hasher it gives the same value in every process and release.
struct StableHasher(u64);

impl Hasher for StableHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// A number made of the value, of which sums can be made: the mixing (SplitMix64's) keeps equal differences from
/// cancelling each other out.
pub(crate) fn wide_hash(value: &impl Hash) -> u64 {
    let mut mixed = stable_hash64(value);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A short number made of the value, the same in every process and release.
pub(crate) fn stable_hash(value: &impl Hash) -> u32 {
    let hash = stable_hash64(value);
    // Folding keeps both halves' share: FNV's low bits alone are weak.
    ((hash >> 32) ^ (hash & 0xffff_ffff)) as u32
}

/// As [`stable_hash`], with all its bits: for names that must not meet by chance and are not numbered beside each other.
pub(crate) fn stable_hash64(value: &impl Hash) -> u64 {
    let mut hasher = StableHasher(0xcbf2_9ce4_8422_2325);
    value.hash(&mut hasher);
    hasher.finish()
}

/// The number of nothing: what an address is said to be that nothing matches.
pub(crate) const NOBODY: u32 = 1;

/// Gives each thing a number of its own, never 0, never [`NOBODY`] and never the highest. Things whose hashes collide (by chance, or by the
/// design of someone who may write policies) are numbered one after the other in their order.
pub(crate) fn number<T: Hash + Ord>(things: BTreeSet<T>) -> BTreeMap<T, u32> {
    let mut taken = BTreeSet::new();
    let mut numbers = BTreeMap::new();
    for thing in things {
        let number = free(&thing, |number| taken.contains(&number));
        taken.insert(number);
        numbers.insert(thing, number);
    }
    numbers
}

/// A number for one more thing.
pub(crate) fn free(thing: &impl Hash, is_taken: impl Fn(u32) -> bool) -> u32 {
    let mut number = stable_hash(thing);
    while number <= NOBODY || number == u32::MAX || is_taken(number) {
        number = number.wrapping_add(1);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes alike, so that only the probing can tell them apart.
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Colliding(u32);

    impl Hash for Colliding {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }

    #[test]
    fn numbers_do_not_depend_on_what_else_is_there() {
        let few = number(BTreeSet::from(["a", "b"]));
        let many = number(BTreeSet::from(["a", "b", "c", "d"]));
        assert_eq!((few["a"], few["b"]), (many["a"], many["b"]));
    }

    #[test]
    fn collisions_get_different_numbers() {
        let numbers = number((0..100).map(Colliding).collect());
        assert_eq!(numbers.values().collect::<BTreeSet<_>>().len(), 100);
        assert!(
            !numbers
                .values()
                .any(|number| *number <= NOBODY || *number == u32::MAX)
        );
    }
}
