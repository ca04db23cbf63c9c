//! Which blocks of a pool a node tries to claim, and in which order.
//!
//! Each node starts at an index that its name decides and walks on from there, so that nodes that
//! boot together rarely try the same block. Blocks known to be taken are skipped; those that
//! lie side by side are jumped over in one step. A pool may have 2^128 blocks: nothing is enumerated.
//!
//! Not here: the claim itself; a candidate may turn out to be taken.

use ipnetwork::IpNetwork;

/// The blocks of one pool in one node's order.
#[derive(Debug, Clone)]
pub struct Candidates {
    pool: IpNetwork,
    block_size: u8,
    /// The index of the last block; the number of blocks itself may not fit.
    last: u128,
    next: u128,
    /// How many candidates remain, less one; `None` when all were given.
    remaining: Option<u128>,
}

impl Candidates {
    /// The candidates of a pool for a node. A block size shorter than the pool's own prefix gives
    /// none.
    pub fn new(pool: IpNetwork, block_size: u8, node: &str) -> Self {
        let bits = block_size.checked_sub(pool.prefix());
        let last = match bits {
            Some(0) | None => 0,
            Some(bits) => u128::MAX >> (128 - u32::from(bits.min(128))),
        };
        Self {
            pool,
            block_size,
            last,
            next: hash(node) & last,
            remaining: bits.map(|_| last),
        }
    }

    /// The block at the walk's place, without moving on.
    pub fn peek(&self) -> Option<IpNetwork> {
        self.remaining?;
        let bits = if self.pool.is_ipv4() { 32 } else { 128 };
        let shift = bits - u32::from(self.block_size);
        // A shift of all bits happens for /0 blocks, whose index is 0.
        let offset = self.next.checked_shl(shift).unwrap_or(0);
        let start = crate::block::nth(self.pool, offset);
        IpNetwork::new(start, self.block_size).ok()
    }

    /// Moves on past the block at the walk's place.
    pub fn skip_one(&mut self) {
        self.advance(1);
    }

    /// Moves on past an address, given as a number, that is not before the block at the walk's
    /// place: the end of what is in the way.
    pub fn skip_past(&mut self, end: u128) {
        let bits = if self.pool.is_ipv4() { 32 } else { 128 };
        let shift = bits - u32::from(self.block_size);
        let start = crate::ranges::number(self.pool.network());
        let index = end.saturating_sub(start).checked_shr(shift).unwrap_or(0);
        let step = index.saturating_sub(self.next).saturating_add(1);
        self.advance(step);
    }

    fn advance(&mut self, step: u128) {
        let to_end = self.last - self.next;
        // Never past the end in one step: the walk goes on at the beginning.
        let step = step.min(to_end.saturating_add(1));
        self.remaining = self.remaining.and_then(|left| left.checked_sub(step));
        self.next = if step > to_end { 0 } else { self.next + step };
    }
}

/// FNV-1a, twice: once for each half of a 128-bit index. The same in every version of the
/// program, so that a node finds its blocks again.
fn hash(node: &str) -> u128 {
    let half = |seed: u64| {
        node.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let low = half(0xcbf2_9ce4_8422_2325);
    (u128::from(half(low)) << 64) | u128::from(low)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::ranges::number;

    fn all(pool: &str, block_size: u8, node: &str) -> Vec<IpNetwork> {
        let mut candidates = Candidates::new(pool.parse().unwrap(), block_size, node);
        let mut found = Vec::new();
        while let Some(candidate) = candidates.peek() {
            found.push(candidate);
            candidates.skip_one();
        }
        found
    }

    #[test]
    fn every_block_once_from_each_nodes_own_start() {
        let first = all("10.0.0.0/20", 26, "node-1");
        let second = all("10.0.0.0/20", 26, "node-2");
        assert_eq!(first.len(), 64);
        assert_ne!(first[0], second[0]);
        let set = |list: &[IpNetwork]| list.iter().copied().collect::<HashSet<_>>();
        assert_eq!(set(&first).len(), 64);
        assert_eq!(set(&first), set(&second));
    }

    #[test]
    fn small_pools() {
        let text = |list: Vec<IpNetwork>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(all("10.0.0.64/26", 26, "n")), ["10.0.0.64/26"]);
        assert_eq!(text(all("10.0.0.1/32", 32, "n")), ["10.0.0.1/32"]);
        assert_eq!(all("10.0.0.0/30", 32, "n").len(), 4);
        assert_eq!(all("10.0.0.0/26", 24, "n"), []);
    }

    #[test]
    fn huge_pools_are_not_enumerated() {
        for (pool, block_size) in [("fd00::/8", 122), ("::/0", 128), ("0.0.0.0/0", 32)] {
            let pool: IpNetwork = pool.parse().unwrap();
            let mut candidates = Candidates::new(pool, block_size, "node");
            let first = candidates.peek().unwrap();
            assert!(pool.contains(first.network()));
            // All of it is taken by one range: one step, or two around the end.
            let mut steps = 0;
            while candidates.peek().is_some() {
                candidates.skip_past(number(pool.broadcast()));
                steps += 1;
            }
            assert!(steps <= 2, "{pool}: {steps}");
        }
    }

    #[test]
    fn a_hundred_nodes_spread() {
        let starts: HashSet<IpNetwork> = (0..100)
            .filter_map(|n| {
                let pool = "10.244.0.0/16".parse().unwrap();
                Candidates::new(pool, 26, &format!("worker-{n}")).peek()
            })
            .collect();
        // 100 random draws of 1024 meet about five times.
        assert!(starts.len() > 85, "{}", starts.len());
    }

    proptest! {
        /// The walk over a pool with taken ranges of any size is the walk over all blocks without
        /// those that overlap.
        #[test]
        fn skipping_is_exact(
            node in "[a-z0-9]{1,12}",
            taken in proptest::collection::vec((0u32..256, 24u8..=32), 0..12),
        ) {
            let pool: IpNetwork = "10.0.0.0/24".parse().unwrap();
            let taken: Vec<IpNetwork> = taken
                .into_iter()
                .map(|(offset, prefix)| {
                    let inside = super::super::block::nth(pool, u128::from(offset));
                    let start = IpNetwork::new(inside, prefix).unwrap().network();
                    IpNetwork::new(start, prefix).unwrap()
                })
                .collect();
            let overlap = |candidate: IpNetwork| {
                crate::ranges::Ranges::of(taken.iter().copied()).end_of_overlap(candidate)
            };
            let mut candidates = Candidates::new(pool, 28, &node);
            let mut found = Vec::new();
            while let Some(candidate) = candidates.peek() {
                match overlap(candidate) {
                    Some(end) => candidates.skip_past(end),
                    None => {
                        found.push(candidate);
                        candidates.skip_one();
                    }
                }
                prop_assert!(found.len() <= 16);
            }
            let mut expected = all("10.0.0.0/24", 28, &node);
            expected.retain(|candidate| overlap(*candidate).is_none());
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn candidates_are_aligned_and_inside(node in "\\PC{0,20}", prefix in 0u8..=32, more in 0u8..=12) {
            let block_size = (prefix + more).min(32);
            let start = IpNetwork::new("10.128.64.32".parse().unwrap(), prefix).unwrap().network();
            let pool = IpNetwork::new(start, prefix).unwrap();
            let block = Candidates::new(pool, block_size, &node).peek().unwrap();
            prop_assert!(pool.contains(block.network()) && pool.contains(block.broadcast()));
            prop_assert_eq!(number(block.network()), number(block.ip()));
        }
    }
}
