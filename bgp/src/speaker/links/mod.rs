//! Carrier loss: a peer on a link that is dead is lost now, not when its hold time is over.
//!
//! Which link a peer is on is asked of the kernel when its connection is opened: the interface by which it would send there,
//! if there is no gateway in between. No prefix length or AS number is consulted, so /31 and /32 links are right, and sessions
//! across several hops or with a loopback address do not hang on one link. When a link goes the kernel is asked again: a peer that it now
//! reaches directly over another one stays.
//!
//! The kernel tells of a lost carrier at once, but not twice within a second (its linkwatch holds the second event back). So for
//! a second after each event of a link that peers are on, the link is looked at.

mod event;
mod kernel;

use std::collections::HashMap;
use std::net::IpAddr;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::router::{ConnectionId, Lost};
use event::{LinkEvent, LinkState};
use kernel::Kernel;

/// How long the kernel may keep an event of a link to itself after the one before (net/core/link_watch.c), and some more.
const WITHHELD: Duration = Duration::from_millis(1100);
/// How often the link is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// A peer's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    remote: IpAddr,
    /// Index of the interface.
    index: u32,
    /// The address itself belongs to the interface, and to no other.
    link_local: bool,
}

/// What the owner has to hear.
#[derive(Debug)]
pub(super) enum News {
    /// The kernel told which link a connection's peer is on.
    Found {
        connection: ConnectionId,
        remote: IpAddr,
        /// Index of the interface.
        index: u32,
    },
    /// Something happened to a link, or to any: the kernel had more to tell than could be heard.
    Link(LinkEvent),
    /// A peer cannot be reached over its link any more.
    Lost {
        connection: ConnectionId,
        lost: Lost,
    },
}

/// The links that peers are on.
#[derive(Debug)]
pub(super) struct Links {
    /// None: the kernel cannot be asked, and hold times decide.
    kernel: Option<Kernel>,
    ways: HashMap<ConnectionId, Way>,
    /// Tasks that look at a link, by its index; those that have ended as well.
    looks: HashMap<u32, JoinHandle<()>>,
    sender: mpsc::Sender<News>,
    inbox: mpsc::Receiver<News>,
    listening: Option<JoinHandle<()>>,
}

impl Drop for Links {
    fn drop(&mut self) {
        for task in self.listening.iter().chain(self.looks.values()) {
            task.abort();
        }
    }
}

impl Links {
    /// Listens in the network namespace of the calling thread, within a tokio runtime.
    pub(super) fn open() -> Self {
        let (sender, inbox) = mpsc::channel(64);
        let opened = Kernel::open().and_then(|kernel| Ok((kernel, event::listen()?)));
        let (kernel, listening) = match opened {
            Ok((kernel, socket)) => {
                let task = tokio::spawn(event::run(socket, sender.clone()));
                (Some(kernel), Some(task))
            }
            Err(error) => {
                warn!(%error, "links are not watched: a peer on a dead link is missed when its hold time is over");
                (None, None)
            }
        };
        Self {
            kernel,
            ways: HashMap::new(),
            looks: HashMap::new(),
            sender,
            inbox,
            listening,
        }
    }

    /// Watches the link that the peer of a connection is on. `scope` is the interface's index where the address says it.
    pub(super) fn watch(&mut self, connection: ConnectionId, remote: IpAddr, scope: u32) {
        if scope != 0 {
            let way = Way {
                remote,
                index: scope,
                link_local: true,
            };
            self.ways.insert(connection, way);
            return self.look(scope);
        }
        let Some(kernel) = self.kernel.clone() else {
            return;
        };
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let Some(index) = kernel.link_to(remote).await else {
                return;
            };
            let found = News::Found {
                connection,
                remote,
                index,
            };
            let _ = sender.send(found).await;
        });
    }

    /// A connection is gone.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.ways.remove(&connection);
    }

    /// The next thing that happens.
    pub(super) async fn news(&mut self) -> News {
        match self.inbox.recv().await {
            Some(news) => news,
            // Cannot be: `self` holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Remembers where a peer is. What is lost comes back as [`News::Lost`], once the kernel has been asked whether it really is.
    pub(super) fn heard(&mut self, news: News) {
        match news {
            News::Found {
                connection,
                remote,
                index,
            } => {
                let way = Way {
                    remote,
                    index,
                    link_local: false,
                };
                self.ways.insert(connection, way);
                self.look(index);
            }
            News::Link(event) if event.state == LinkState::Up => {
                if self.ways.values().any(|way| way.index == event.index) {
                    self.look(event.index);
                }
            }
            News::Link(event) => {
                for (connection, way) in &self.ways {
                    if event.index == way.index || event.index == 0 {
                        self.verify(*connection, *way, event.clone());
                    }
                }
            }
            News::Lost { .. } => {}
        }
    }

    /// Looks at a link for a while, and tells when it is dead.
    fn look(&mut self, index: u32) {
        let Some(kernel) = self.kernel.clone() else {
            return;
        };
        let sender = self.sender.clone();
        let task = tokio::spawn(async move {
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let end = tokio::time::Instant::now() + WITHHELD;
            while looks.tick().await < end {
                let (interface, state) = kernel.link(index).await;
                if state != LinkState::Up {
                    let event = LinkEvent {
                        index,
                        interface,
                        state,
                    };
                    let _ = sender.send(News::Link(event)).await;
                    return;
                }
            }
        });
        if let Some(before) = self.looks.insert(index, task) {
            before.abort();
        }
    }

    /// Asks the kernel where a peer is, now that its link is said to be dead.
    fn verify(&self, connection: ConnectionId, way: Way, event: LinkEvent) {
        let Some(kernel) = self.kernel.clone() else {
            return;
        };
        let sender = self.sender.clone();
        let Way { remote, index, .. } = way;
        tokio::spawn(async move {
            let now = match way.link_local {
                true => None,
                false => kernel.link_to(remote).await,
            };
            let news = match now {
                Some(other) if other != index => News::Found {
                    connection,
                    remote,
                    index: other,
                },
                _ => {
                    let (interface, state) = match event.state {
                        LinkState::Unheard => kernel.link(index).await,
                        state => (event.interface, state),
                    };
                    let Some(what) = state.words() else {
                        return;
                    };
                    let what = what.into();
                    let lost = Lost::Link { interface, what };
                    News::Lost { connection, lost }
                }
            };
            let _ = sender.send(news).await;
        });
    }
}
