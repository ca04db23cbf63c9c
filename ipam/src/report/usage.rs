//! How full a pool is.

use ipnetwork::IpNetwork;
use margay_crds::{IPAMBlock, Pool};
use serde::{Deserialize, Serialize};

use crate::Family;

/// A pool in numbers. Numbers of addresses that do not fit are the largest that does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolUse {
    /// The pool's name.
    pub name: String,
    /// Its range.
    pub cidr: String,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// How many addresses it has.
    pub capacity: u64,
    /// How many of them somebody holds.
    pub used: u64,
    /// How many an IPReservation keeps back and nobody holds.
    pub reserved: u64,
    /// How many are left.
    pub free: u64,
    /// How many blocks it could have.
    pub block_capacity: u64,
    /// How many blocks nodes hold.
    pub blocks: u64,
    /// How many blocks are held but empty.
    pub empty_blocks: u64,
}

impl PoolUse {
    /// The part in use, from 0 to 1.
    pub fn fraction(&self) -> f64 {
        if self.capacity == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "for a bar of some characters")]
        let fraction = self.used as f64 / self.capacity as f64;
        fraction
    }
}

/// Counts the use of each pool, in the pools' order. A block counts for the first pool it lies
/// in.
pub fn pool_use<'a, B>(pools: &[Pool], blocks: B, reserved: &[IpNetwork]) -> Vec<PoolUse>
where
    B: IntoIterator<Item = &'a IPAMBlock> + Clone,
{
    let mut all: Vec<PoolUse> = pools.iter().map(empty).collect();
    for block in blocks.clone() {
        let Ok(range) = block.spec.cidr.parse::<IpNetwork>() else {
            continue;
        };
        let place = pools.iter().position(|pool| contains(pool.cidr, range));
        let Some(counted) = place.and_then(|place| all.get_mut(place)) else {
            continue;
        };
        counted.blocks += 1;
        counted.used += block.spec.allocations.len() as u64;
        counted.empty_blocks += u64::from(block.spec.allocations.is_empty());
    }
    for (pool, counted) in pools.iter().zip(&mut all) {
        let kept_back = reserved_in(pool.cidr, reserved);
        let held = held_of_reserved(pool.cidr, blocks.clone(), reserved);
        counted.reserved = kept_back.saturating_sub(held);
        let taken = counted.used.saturating_add(counted.reserved);
        counted.free = counted.capacity.saturating_sub(taken);
    }
    all
}

fn empty(pool: &Pool) -> PoolUse {
    let bits = Family::of_range(pool.cidr).bits();
    PoolUse {
        name: pool.name.clone(),
        cidr: pool.cidr.to_string(),
        block_size: pool.block_size,
        capacity: power(bits - pool.cidr.prefix()),
        used: 0,
        reserved: 0,
        free: 0,
        block_capacity: power(pool.block_size.saturating_sub(pool.cidr.prefix())),
        blocks: 0,
        empty_blocks: 0,
    }
}

/// Whether one range lies within another.
pub(crate) fn contains(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.is_ipv4() == inner.is_ipv4()
        && outer.prefix() <= inner.prefix()
        && outer.contains(inner.network())
}

fn power(bits: u8) -> u64 {
    1u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX)
}

/// The addresses of a pool that reservations cover, each once.
fn reserved_in(pool: IpNetwork, reserved: &[IpNetwork]) -> u64 {
    let mut within: Vec<IpNetwork> = Vec::new();
    let mut ranges: Vec<IpNetwork> = reserved.to_vec();
    ranges.sort_by_key(|range| range.prefix());
    for range in ranges {
        if contains(range, pool) {
            return power(Family::of_range(pool).bits() - pool.prefix());
        }
        if contains(pool, range) && !within.iter().any(|wider| contains(*wider, range)) {
            within.push(range);
        }
    }
    within.iter().fold(0, |sum: u64, range| {
        sum.saturating_add(power(Family::of_range(*range).bits() - range.prefix()))
    })
}

/// How many addresses are held although they are reserved: those given before the reservation.
fn held_of_reserved<'a>(
    pool: IpNetwork,
    blocks: impl IntoIterator<Item = &'a IPAMBlock>,
    reserved: &[IpNetwork],
) -> u64 {
    if reserved.is_empty() {
        return 0;
    }
    let held = blocks.into_iter().flat_map(|block| &block.spec.allocations);
    let held = held.filter_map(|one| one.address.parse().ok());
    let held = held.filter(|address| {
        pool.contains(*address) && reserved.iter().any(|range| range.contains(*address))
    });
    held.count() as u64
}
