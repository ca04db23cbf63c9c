//! Brings transactions to the kernel, and writes them for people.
//!
//! [`text`] and [`json`] are the two forms `nft` reads; [`Nft`] runs it; [`Memory`] is a complete in-memory stand-in that
//! refuses what the kernel would refuse; [`Netlink`] tells the kernel itself what changes from event to event, a thousand
//! times faster than a program that is started for it, and leaves the rest to `nft`.
//!
//! The `nftables` crate's types are not used: they cannot express a named verdict map, which is what dispatch and every
//! class are, and its runner loses what `nft` prints on stderr. What the compiler needs of nftables is small enough to own.

pub mod json;
mod memory;
mod netlink;
mod nft;
pub mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::IpAddr,
    pin::Pin,
    time::Duration,
};

pub use memory::Memory;
pub use netlink::{Logged, Netlink, PacketLog, Reports};
pub use nft::Nft;

use crate::ruleset::{Name, POD_ROOM, ReplayError, Ruleset, Transaction};

/// What a writer's `apply` returns.
pub type Applied<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// What a chain has counted since it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

/// A way to commit transactions.
pub trait Writer: Send + Sync {
    /// Commits the whole transaction or nothing of it. An empty one succeeds without touching anything.
    fn apply<'a>(&'a self, transaction: &'a Transaction) -> Applied<'a>;

    /// Reads the kernel's table and says, for each chain, set and map that differs from `ruleset`, how, and what would
    /// repair it. What cannot be read back by this writer is taken to be as it should.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn audit(&self, _ruleset: &Ruleset) -> Result<Audit, Error> {
        Ok(Audit::default())
    }

    /// What each chain that counts has counted, by the chain's name.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn tallies(&self) -> Result<BTreeMap<Name, Tally>, Error> {
        Ok(BTreeMap::new())
    }

    /// The addresses that have tracked connections; `None` if there are more than `limit` connections, or if this writer
    /// cannot know. It may take tens of milliseconds: not for a thread that others wait for.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn tracked(&self, _limit: usize) -> Result<Option<BTreeSet<IpAddr>>, Error> {
        Ok(None)
    }

    /// Ends every tracked connection of addresses that are nobody's any more, and says how many there were. It may take
    /// tens of milliseconds, as [`Self::tracked`].
    ///
    /// # Errors
    /// The kernel refuses.
    fn forget(&self, _addresses: &BTreeSet<IpAddr>) -> Result<usize, Error> {
        Ok(0)
    }
}

/// What a read-back has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// What differs, in words.
    pub differences: Vec<String>,
    /// What makes the kernel's table what it should be, as far as it could be read. Where the kernel refuses it, only the
    /// whole table helps ([`Ruleset::full`](crate::Ruleset::full)).
    pub repair: Transaction,
}

/// Commits with the `nft` on the path, in the network namespace of the calling thread.
///
/// # Errors
/// See [`Error`]; nothing of the transaction is in force then.
pub async fn apply(transaction: &Transaction) -> Result<(), Error> {
    Nft::default().apply(transaction).await
}

/// Why a transaction is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program could not be started or talked to.
    #[error("nft cannot be run: {0}; install nftables 1.0.6 or later on the node")]
    Run(#[source] std::io::Error),
    /// It did not end in time and was killed. The kernel may have taken the transaction: replace the table.
    #[error("nft did not end within {0:?} and was killed")]
    Timeout(Duration),
    /// The program may not change the ruleset.
    #[error("nft may not change the ruleset: {0}; the agent needs CAP_NET_ADMIN")]
    Permission(String),
    /// The transaction names something the kernel does not have: somebody changed the table. Replace it.
    #[error("the kernel's table differs from what was committed (something is missing): {0}")]
    Missing(String),
    /// The transaction makes something the kernel has already: somebody changed the table. Replace it.
    #[error("the kernel's table differs from what was committed (something is there already): {0}")]
    Exists(String),
    /// The transaction deletes something in use: somebody changed the table. Replace it.
    #[error("the kernel's table differs from what was committed (something is still in use): {0}")]
    Busy(String),
    /// A set or map is full: with the whole table it is made larger, unless it is one about this node's pods.
    #[error(
        "a set or map of the table is full (those about the node's own pods take {room}): {0}",
        room = POD_ROOM
    )]
    Full(String),
    /// Anything else the program or the kernel said.
    #[error("nft refused the transaction: {0}")]
    Refused(String),
}

impl Error {
    /// Whether replacing the whole table ([`Ruleset::full`](crate::Ruleset::full)) can help: what is in the kernel is not,
    /// or perhaps not, what the transaction was made for.
    pub fn wants_replacement(&self) -> bool {
        match self {
            Self::Missing(_)
            | Self::Exists(_)
            | Self::Busy(_)
            | Self::Full(_)
            | Self::Timeout(_) => true,
            Self::Run(_) | Self::Permission(_) | Self::Refused(_) => false,
        }
    }
}

impl From<ReplayError> for Error {
    fn from(error: ReplayError) -> Self {
        let text = error.to_string();
        match error {
            ReplayError::Missing(_) => Self::Missing(text),
            ReplayError::Exists(_) => Self::Exists(text),
            ReplayError::Busy(_) => Self::Busy(text),
            ReplayError::Type(_) => Self::Refused(text),
        }
    }
}

impl Transaction {
    /// The transaction as input for `nft -f -`.
    pub fn to_nft_text(&self) -> String {
        text::transaction(self)
    }

    /// The transaction as input for `nft -j -f -`.
    pub fn to_nft_json(&self) -> serde_json::Value {
        json::transaction(self)
    }
}
