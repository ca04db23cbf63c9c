//! Which blocks of a pool a node tries to claim, and in which order.
//!
//! Each node starts at an index that its name decides and walks on from there, so that nodes that
//! boot together rarely try the same block. Blocks known to be taken are skipped; a larger taken
//! range is jumped over in one step. A pool may have 2^128 blocks: nothing is enumerated, each
//! skipped step is paid for by a block that exists.
//!
//! Not here: the claim itself; a candidate may turn out to be taken.

#[cfg(test)]
use std::net::IpAddr;

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

    /// Moves on past `range`, which covers the block at the walk's place (and perhaps more).
    pub fn skip(&mut self, range: IpNetwork) {
        let covered = self.block_size.saturating_sub(range.prefix());
        let length = 1u128.checked_shl(u32::from(covered)).unwrap_or(u128::MAX);
        // From our place to the end of the range: the place need not be its beginning.
        let step = length - (self.next & (length - 1));
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

/// Whether an index that a pool's size needs can be an address at all: used by tests.
#[cfg(test)]
fn distance(pool: IpNetwork, block: IpNetwork) -> u128 {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(Ipv6Addr::from(address)),
    };
    number(block.network()) - number(pool.network())
}
