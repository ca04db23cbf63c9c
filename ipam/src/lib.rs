//! Margay's address management: which address a pod gets, and which node holds which block.
//!
//! The one truth is the `IPAMBlock` object, named after its CIDR. *Creating* it claims the block
//! for a node (the API server's name uniqueness decides the race), *updating* it with the
//! resourceVersion that was read gives or takes addresses (a stale write is refused), *deleting*
//! it with its uid and resourceVersion gives the block back. Everything else here is a cache.
//!
//! From the inside out:
//!
//! - [`block`]: one block as a value: give, take back, cooldown, order of reuse;
//! - [`candidates`]: which blocks of a pool a node tries to claim, and in which order;
//! - [`request`] and [`annotations`]: what a pod wants, by default or by what is written on it;
//! - [`view`]: what one node knows, fed by watch events and by its own writes;
//! - [`batch`]: many requests of one node turned into few writes; a state machine without IO;
//! - [`allocator`]: the shell around it: a handle to ask, a worker that talks to the store;
//! - [`garbage`]: which allocations and blocks nobody holds any more, over time;
//! - [`report`]: how full the pools are and what is wrong, at one moment; [`split`]: halving a pool;
//! - [`store`]: the small trait the worker needs, with an in-memory store for tests
//!   ([`memory`]) and one over a Kubernetes API server (`kube_store`, behind the feature `kube`).
//!
//! Not here: watching (the agent feeds events in), pods' interfaces, routes.

pub mod allocator;
pub mod annotations;
pub mod batch;
mod bits;
pub mod block;
pub mod candidates;
pub mod clock;
pub mod error;
pub mod garbage;
#[cfg(feature = "kube")]
pub mod kube_facts;
#[cfg(feature = "kube")]
pub mod kube_store;
pub mod memory;
pub mod ranges;
pub mod report;
pub mod request;
pub mod split;
pub mod store;
mod taken;
pub mod tidy;
pub mod view;

pub use allocator::{Allocator, Worker};
pub use batch::{Assigned, Operation};
pub use block::{NodeBlock, Release, Rules};
pub use clock::{Clock, SystemClock, Timestamp};
pub use error::IpamError;
#[cfg(feature = "kube")]
pub use kube_store::KubeStore;
pub use memory::MemoryStore;
pub use ranges::Ranges;
pub use request::{Request, Source, Want};
pub use store::{Store, StoreError};
pub use view::{BlockEvent, View};

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// The family of a range.
    pub fn of_range(range: IpNetwork) -> Self {
        Self::of(range.network())
    }

    /// The length of an address in bits: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
