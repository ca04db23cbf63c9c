//! Which of a node's empty blocks are given back, so that other nodes may claim them.
//!
//! An empty block goes when its pool is gone, disabled or no longer meant for the node, and when
//! the node has another empty block of the same pool. The latter must have been empty for the
//! grace period; in either case all addresses must have rested. One empty block a pool stays: the next pod of
//! the node should not wait for a claim, nor the routers for a new route.
//!
//! Not here: addresses whose pods are gone.

use std::collections::HashSet;
use std::time::Duration;

use crate::block::NodeBlock;
use crate::clock::Timestamp;
use crate::view::View;

/// The blocks to give back now.
pub fn surplus(view: &View, now: Timestamp, grace: Duration) -> Vec<NodeBlock> {
    let mut kept = HashSet::new();
    let mut surplus = Vec::new();
    for block in view.own_blocks().filter(|block| block.is_empty()) {
        let pool = view.pool_of(block.cidr());
        let wanted = pool
            .filter(|pool| view.is_open(pool))
            .is_some_and(|pool| kept.insert(pool.name.clone()));
        // What the node may not use any more is of use to nobody here: only the rest counts.
        let is_open = pool.is_some_and(|pool| view.is_open(pool));
        let time = if is_open {
            grace.max(view.cooldown())
        } else {
            view.cooldown()
        };
        if !wanted && has_been_empty(block, now, time) {
            surplus.push(block.clone());
        }
    }
    surplus
}

/// Whether the block has been empty for a time: since its last release, or since its creation.
fn has_been_empty(block: &NodeBlock, now: Timestamp, time: Duration) -> bool {
    let created = block.object().metadata.creation_timestamp.as_ref();
    let since = block.last_release().or(created.map(|created| created.0));
    since.is_none_or(|since| {
        Duration::try_from(now.duration_since(since)).is_ok_and(|empty| empty >= time)
    })
}
