//! Connections end with the address they belong to.
//!
//! A pod must not inherit the connections of whoever had its address before. Ending them takes a walk over the kernel's
//! table of connections, so it is done beside everything else, by one walk for all addresses that wait for it, and a pod's
//! policy counts as in force when its own addresses are done. That is at once for an address that has no connections: none
//! was tracked when the agent started, and those of its pods since have been ended with them.
//!
//! An address that was a pod's on another node may have connections here, to pods that talked to it. They are judged again
//! by their next packet, as this pod's arrival is a new generation of the rules; nothing waits for that.
//!
//! Not here: which addresses are whose, and the walk itself (`margay_policy::writer`).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use margay_policy::writer::{Error, Writer};
use tokio::task::{JoinHandle, spawn_blocking};

use super::edge::Reply;

/// The most connections whose addresses are kept from the start.
const NAMED: usize = 65_536;

/// What a thread was sent out for.
#[derive(Debug)]
pub(super) enum Walked {
    /// The addresses that have connections.
    Listed(Result<Option<BTreeSet<IpAddr>>, Error>),
    /// Those of some addresses have been ended.
    Ended(Result<usize, Error>),
}

/// Whose connections there were before this agent.
#[derive(Debug)]
enum Earlier {
    /// The list is under way.
    Unknown,
    These(BTreeSet<IpAddr>),
    /// Too many to name, or the kernel does not tell.
    Anybodys,
}

/// The connections that have to end, and who waits for it.
#[derive(Debug)]
pub(super) struct Connections {
    earlier: Earlier,
    /// To be ended after the next commit.
    due: BTreeSet<IpAddr>,
    /// Being ended.
    ending: BTreeSet<IpAddr>,
    /// New pods' addresses while it is not known which had connections before.
    unsure: BTreeSet<IpAddr>,
    under_way: Option<JoinHandle<Walked>>,
    waiting: Vec<(Vec<IpAddr>, Reply)>,
}

impl Connections {
    /// Starts by asking whose connections there are.
    pub(super) fn start<W: Writer + 'static>(writer: &Arc<W>) -> Self {
        let writer = Arc::clone(writer);
        Self {
            earlier: Earlier::Unknown,
            due: BTreeSet::new(),
            ending: BTreeSet::new(),
            unsure: BTreeSet::new(),
            under_way: Some(spawn_blocking(move || {
                Walked::Listed(writer.tracked(NAMED))
            })),
            waiting: Vec::new(),
        }
    }

    /// Takes in the addresses of a pod that was not known.
    pub(super) fn handle_new(&mut self, addresses: &[IpAddr]) {
        match &self.earlier {
            Earlier::Unknown => self.unsure.extend(addresses),
            Earlier::These(earlier) => {
                let had = addresses.iter().filter(|one| earlier.contains(one));
                self.due.extend(had);
            }
            Earlier::Anybodys => self.due.extend(addresses),
        }
    }

    /// Takes in the addresses of a pod that is gone.
    pub(super) fn handle_gone(&mut self, addresses: &[IpAddr]) {
        self.due.extend(addresses);
    }

    /// Answers as soon as the addresses have no connections of others.
    pub(super) fn answer(&mut self, addresses: Vec<IpAddr>, reply: Reply) {
        self.waiting.push((addresses, reply));
        self.answer_settled();
    }

    /// Ends what is due; the commit that follows their pods' end must have succeeded, or new ones would begin.
    pub(super) fn end_due<W: Writer + 'static>(&mut self, writer: &Arc<W>) {
        if self.under_way.is_some() || self.due.is_empty() {
            return;
        }
        self.ending = std::mem::take(&mut self.due);
        let (writer, addresses) = (Arc::clone(writer), self.ending.clone());
        self.under_way = Some(spawn_blocking(move || {
            Walked::Ended(writer.forget(&addresses))
        }));
    }

    /// Waits for what is under way, for ever if nothing is. Nothing is lost if it is dropped.
    pub(super) async fn walked(&mut self) -> Walked {
        let Some(under_way) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let walked = under_way.await;
        self.under_way = None;
        walked.unwrap_or_else(|error| Walked::Ended(Err(Error::Refused(error.to_string()))))
    }

    /// Takes in what [`Self::walked`] has returned.
    pub(super) fn handle_walked(&mut self, walked: Walked) {
        match walked {
            Walked::Listed(listed) => {
                self.earlier = match listed {
                    Ok(Some(addresses)) => Earlier::These(addresses),
                    Ok(None) => Earlier::Anybodys,
                    Err(error) => {
                        tracing::warn!("policy: connections cannot be listed: {error}");
                        Earlier::Anybodys
                    }
                };
            }
            Walked::Ended(result) => {
                if let Err(error) = result {
                    let whose = &self.ending;
                    tracing::warn!("policy: connections of {whose:?} cannot be ended: {error}");
                }
                if let Earlier::These(earlier) = &mut self.earlier {
                    earlier.retain(|one| !self.ending.contains(one));
                }
                self.ending.clear();
            }
        }
        if !matches!(self.earlier, Earlier::Unknown) {
            let unsure: Vec<IpAddr> = std::mem::take(&mut self.unsure).into_iter().collect();
            self.handle_new(&unsure);
        }
        self.answer_settled();
    }

    fn is_settled(&self, addresses: &[IpAddr]) -> bool {
        let open = [&self.due, &self.ending, &self.unsure];
        let mut addresses = addresses.iter();
        addresses.all(|one| open.iter().all(|open| !open.contains(one)))
    }

    fn answer_settled(&mut self) {
        let (settled, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(addresses, _)| self.is_settled(addresses));
        self.waiting = waiting;
        for (_, reply) in settled {
            // Whoever asked may have given up.
            let _ = reply.send(Ok(()));
        }
    }
}
