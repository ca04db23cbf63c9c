//! Why an address could not be given or taken back, in words for the person who waits for a pod.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_crds::Owner;

use crate::Family;
use crate::store::StoreError;

/// Why an operation of the allocator failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// The list of blocks has not arrived yet, so nobody knows which addresses are taken.
    #[error(
        "the list of IPAMBlocks has not been read yet: try again when the API server is reachable"
    )]
    NotReady,
    /// No pool gives addresses of the family to this node; each pool is named with its reason.
    #[error(
        "no IPPool gives {family} addresses to node {node}: {}",
        or_none(reasons, "there is no IPPool of this family; create one")
    )]
    NoPool {
        /// The family asked for.
        family: Family,
        /// The node that asked.
        node: String,
        /// One fragment for each pool of the family.
        reasons: Vec<String>,
    },
    /// Every address of every pool that serves the node is held or rests.
    #[error(
        "IPPool {} has no free {family} address and no free block left ({cooling} released \
         addresses of this node are cooling down): add an IPPool or delete pods",
        pools.join(", ")
    )]
    Exhausted {
        /// The family asked for.
        family: Family,
        /// The pools that were tried, in order.
        pools: Vec<String>,
        /// This node's addresses that were released and still rest.
        cooling: usize,
    },
    /// The node holds as many blocks of the family as it may.
    #[error(
        "node holds {held} {family} blocks and may not claim another (maxBlocksPerHost {limit} in \
         IPAMConfiguration default; pools {}): raise the limit or delete pods on this node",
        pools.join(", ")
    )]
    BlockLimit {
        /// The family asked for.
        family: Family,
        /// `maxBlocksPerHost`.
        limit: u32,
        /// How many the node holds.
        held: usize,
        /// The pools that would have been tried.
        pools: Vec<String>,
    },
    /// The API server did not answer, or not in time. The write may or may not have happened; the
    /// allocator reads the block again before it uses it.
    #[error("the API server did not take the write to {object}: {reason}; try again later")]
    StoreUnavailable {
        /// The block that was written or read.
        object: String,
        /// What the client said.
        reason: String,
    },
    /// The API server refuses the write, and will refuse it again.
    #[error("the API server refused {object}: {reason}")]
    Refused {
        /// The block that was written.
        object: String,
        /// What the API server said.
        reason: String,
    },
    /// Others kept writing the same blocks.
    #[error("gave up after {tries} tries that met other writers' changes; try again later")]
    TooManyConflicts {
        /// How many writes were tried.
        tries: u32,
    },
    /// A given address is not in the block.
    #[error("{address} is not in block {block}")]
    OutsideBlock {
        /// The address.
        address: IpAddr,
        /// The block.
        block: IpNetwork,
    },
    /// A given address is held by someone.
    #[error("{address} is held by {holder}")]
    Held {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        holder: Box<Owner>,
    },
    /// The node may claim no block by itself, and those it has are full.
    #[error(
        "node {node} has no free {family} address in a block of its own and may not claim another \
         (autoAllocateBlocks is false in IPAMConfiguration default; pools {}): make an IPAMBlock \
         for the node, or delete pods on it",
        pools.join(", ")
    )]
    BlocksByHand {
        /// The family asked for.
        family: Family,
        /// The node that asked.
        node: String,
        /// The pools that would have been tried.
        pools: Vec<String>,
    },
    /// What is asked for by name cannot be had, and will not be had as long as nobody changes
    /// what is asked or what there is.
    #[error("{who} asks for {wanted}, but {problem}")]
    Unfulfillable {
        /// Where it is asked, such as `annotation margay.dev/ipv4-pools of Pod default/web`.
        who: String,
        /// The pool or the address.
        wanted: String,
        /// The other side of the conflict.
        problem: String,
    },
    /// An address that is asked for by name is held by another.
    #[error("{who} asks for {address}, but {holder} holds it")]
    Taken {
        /// Where it is asked.
        who: String,
        /// The address.
        address: IpAddr,
        /// Who holds it.
        holder: Box<Owner>,
        /// Whether the holder is an earlier self of who asks, which is about to go: the same pod
        /// by name.
        is_earlier_self: bool,
    },
    /// The allocator's worker has ended.
    #[error("address management has stopped: the agent is shutting down")]
    Stopped,
}

impl IpamError {
    /// Whether the same request may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NotReady
                | Self::StoreUnavailable { .. }
                | Self::TooManyConflicts { .. }
                | Self::Stopped
                | Self::Taken {
                    is_earlier_self: true,
                    ..
                }
        )
    }

    /// Whether asking again is of use only once somebody has changed what was asked: then the
    /// runtime need not try again as it is.
    pub fn is_request_wrong(&self) -> bool {
        matches!(
            self,
            Self::Unfulfillable { .. }
                | Self::Taken {
                    is_earlier_self: false,
                    ..
                }
        )
    }

    /// The error for a store failure that ends the request.
    pub(crate) fn of_store(object: &str, error: &StoreError) -> Self {
        let object = format!("IPAMBlock {object}");
        match error {
            StoreError::Unavailable(reason) => Self::StoreUnavailable {
                object,
                reason: reason.clone(),
            },
            other => Self::Refused {
                object,
                reason: other.to_string(),
            },
        }
    }
}

fn or_none(reasons: &[String], none: &str) -> String {
    if reasons.is_empty() {
        none.to_owned()
    } else {
        reasons.join("; ")
    }
}
