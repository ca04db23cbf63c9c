//! What is to be written: releases that name exactly one allocation each.

use std::net::IpAddr;

use margay_crds::Allocation;

use crate::block::{NodeBlock, Release};
use crate::clock::Timestamp;

/// Releases within one block, by block uid, address and sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The block's name.
    pub block: String,
    /// The block's uid: a block of the same name that was claimed later counts its sequence anew.
    pub uid: String,
    /// Addresses with the sequences of their allocations.
    pub addresses: Vec<(IpAddr, i64)>,
}

impl Order {
    /// Takes the addresses out of the block as it was just read; answers those that were taken.
    /// What is not there any more, or is there for somebody else, is left alone.
    pub fn apply(&self, block: &mut NodeBlock, now: Timestamp) -> Vec<Allocation> {
        if block.object().metadata.uid.as_deref() != Some(&self.uid) {
            return Vec::new();
        }
        let releases = self.addresses.iter().map(|(address, sequence)| {
            let which = Release::Address {
                address: *address,
                sequence: Some(*sequence),
            };
            block.release(&which, now)
        });
        releases.flatten().collect()
    }
}
