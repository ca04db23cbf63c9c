//! Small changes by netlink: elements, and the chains that change with them, in one system call.
//!
//! What changes from event to event is a few elements and a few short chains; starting `nft` for it takes milliseconds,
//! telling the kernel microseconds. Whole tables, new sets and what else is rare stay `nft`'s: a transaction goes one way
//! or the other as a whole. Of maps only those of classes are made here, with what every `nft` knows to keep beside them.

mod audit;
mod conntrack;
mod expression;
mod log;
mod message;
mod socket;
mod tally;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Applied, Audit, Error, Nft, Tally, Writer};
use crate::ruleset::{Name, Ruleset, Transaction};
pub use log::{Logged, PacketLog, Reports};
use message::Batch;
use socket::Socket;

/// The longest batch, in bytes: what a socket takes without privileges to take more.
const LIMIT: usize = 128 * 1024;

/// Netlink for what is small and simple, `nft` for the rest.
#[derive(Debug)]
pub struct Netlink {
    socket: Mutex<Socket>,
    /// Lists of connections take long: no commit waits for them.
    connections: Mutex<Socket>,
    nft: Nft,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread; `nft` must run in the same one.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open(nft: Nft) -> std::io::Result<Self> {
        Ok(Self {
            socket: Mutex::new(Socket::open()?),
            connections: Mutex::new(Socket::open()?),
            nft,
        })
    }

    /// Commits by netlink alone, if the transaction is one for it. It takes microseconds and does not wait.
    ///
    /// # Errors
    /// See [`Error`]; nothing of the transaction is in force then.
    pub fn apply_small(&self, transaction: &Transaction) -> Option<Result<(), Error>> {
        let batch = Batch::of(transaction, LIMIT)?;
        Some(self.socket().send(batch))
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        held(&self.socket)
    }
}

/// A poisoned lock is one whose holder panicked; the socket itself has no state to spoil.
fn held(socket: &Mutex<Socket>) -> MutexGuard<'_, Socket> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer for Netlink {
    fn apply<'a>(&'a self, transaction: &'a Transaction) -> Applied<'a> {
        if transaction.is_empty() {
            return Box::pin(async { Ok(()) });
        }
        match self.apply_small(transaction) {
            Some(result) => Box::pin(async { result }),
            None => self.nft.apply(transaction),
        }
    }

    fn audit(&self, ruleset: &Ruleset) -> Result<Audit, Error> {
        audit::audit(&mut self.socket(), ruleset)
    }

    fn tallies(&self) -> Result<BTreeMap<Name, Tally>, Error> {
        tally::tallies(&mut self.socket())
    }

    fn tracked(&self, limit: usize) -> Result<Option<BTreeSet<IpAddr>>, Error> {
        conntrack::tracked(&mut held(&self.connections), limit)
    }

    fn forget(&self, addresses: &BTreeSet<IpAddr>) -> Result<usize, Error> {
        conntrack::forget(&mut held(&self.connections), addresses)
    }
}
