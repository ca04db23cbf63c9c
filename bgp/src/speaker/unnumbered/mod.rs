//! Peers that are known by an interface: found by router advertisements, spoken to at their link-local address.
//!
//! For each interface a task advertises this router and listens for the other one (see `link`). What it finds becomes an
//! ordinary peer of the router: [`Unnumbered::complete`] adds one for each interface whose neighbour is known to the
//! configuration that people wrote.

mod link;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::info;

use crate::config::{PeerConfig, SpeakerConfig};
use crate::types::peer_key;

/// What was found on an interface, or that there is nothing any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) interface: String,
    pub(super) neighbor: Option<Neighbor>,
}

/// The router at the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbor {
    pub(super) address: Ipv6Addr,
    /// Index of the interface.
    pub(super) index: u32,
}

/// The interfaces that are watched, and what is known of them.
#[derive(Debug)]
pub(super) struct Unnumbered {
    tasks: BTreeMap<String, Task>,
    neighbors: BTreeMap<String, Neighbor>,
    sender: mpsc::Sender<Found>,
    inbox: mpsc::Receiver<Found>,
}

/// A task that ends when it is dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Default for Unnumbered {
    fn default() -> Self {
        let (sender, inbox) = mpsc::channel(16);
        Self {
            tasks: BTreeMap::new(),
            neighbors: BTreeMap::new(),
            sender,
            inbox,
        }
    }
}

impl Unnumbered {
    /// Watches these interfaces, and no others. Those that go stop advertising.
    pub(super) fn watch(&mut self, interfaces: &BTreeMap<String, PeerConfig>) {
        self.tasks.retain(|name, _| interfaces.contains_key(name));
        self.neighbors
            .retain(|name, _| interfaces.contains_key(name));
        for name in interfaces.keys() {
            if !self.tasks.contains_key(name) {
                let task = tokio::spawn(link::run(name.clone(), self.sender.clone()));
                self.tasks.insert(name.clone(), Task(task));
            }
        }
    }

    /// The next thing that is found. Never, if nothing is watched.
    pub(super) async fn found(&mut self) -> Found {
        match self.inbox.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }

    /// Remembers what was found; true if it is news.
    pub(super) fn remember(&mut self, found: &Found) -> bool {
        if !self.tasks.contains_key(&found.interface) {
            return false;
        }
        let name = &found.interface;
        let before = match found.neighbor {
            Some(neighbor) => self.neighbors.insert(name.clone(), neighbor),
            None => self.neighbors.remove(name),
        };
        match found.neighbor {
            Some(neighbor) if before != found.neighbor => {
                info!(interface = name, address = %neighbor.address, "found a router on the link");
            }
            None if before.is_some() => info!(interface = name, "the interface is gone"),
            _ => {}
        }
        before != found.neighbor
    }

    /// The configuration with a peer for each neighbour that is known.
    pub(super) fn complete(&self, config: &SpeakerConfig) -> SpeakerConfig {
        let mut config = config.clone();
        for (name, template) in &config.interfaces {
            let Some(neighbor) = self.neighbors.get(name) else {
                continue;
            };
            // On two links there may be one address.
            let key = peer_key(IpAddr::V6(neighbor.address), neighbor.index);
            let peer = PeerConfig {
                scope: neighbor.index,
                ..template.clone()
            };
            config.peers.insert(key, peer);
        }
        config
    }
}
