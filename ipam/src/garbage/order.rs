//! What is to be written: releases that name exactly one allocation each.

use std::net::IpAddr;

use margay_crds::Allocation;
use margay_crds::field::join;

use crate::block::{NodeBlock, Release};
use crate::clock::Timestamp;
use crate::store::{Store, StoreError};

/// How often a block is read again because somebody else has written it meanwhile.
const TRIES: u32 = 10;

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

    /// Reads the block, takes the addresses out, and writes it if nobody has written it since;
    /// otherwise looks again what is left to do. Answers the allocations that were taken.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the write may or may not have happened, and the same order
    /// may be carried out again. [`StoreError::Conflict`] after ten tries.
    pub async fn carry_out<S: Store>(
        &self,
        store: &S,
        now: impl Fn() -> Timestamp,
    ) -> Result<Vec<Allocation>, StoreError> {
        for _ in 0..TRIES {
            let Some(object) = store.get(&self.block).await? else {
                return Ok(Vec::new());
            };
            let mut block =
                NodeBlock::parse(object).map_err(|errors| StoreError::Refused(join(&errors)))?;
            let freed = self.apply(&mut block, now());
            if freed.is_empty() {
                return Ok(freed);
            }
            match store.update(block.object()).await {
                Ok(_) => return Ok(freed),
                Err(StoreError::Conflict) => {}
                Err(StoreError::NotFound) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }
}
