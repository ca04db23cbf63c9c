//! Peers that come and go: those from a range of addresses.
//!
//! They are peers like any other, made from what the range says. One is there from its first connection until its session is
//! over and nothing of it is left: no routes kept for a restart, no wait after an error.

use std::net::IpAddr;
use std::time::Instant;

use super::{PeerId, Router};
use crate::config::PeerConfig;
use crate::fsm::State;
use crate::types::Prefix;

impl Router {
    /// The peer an incoming connection is from; one from a range is made if it may be.
    pub(super) fn peer_from(&mut self, now: Instant, address: IpAddr) -> Option<PeerId> {
        if let Some(id) = self.addresses.get(&address) {
            return Some(*id);
        }
        let host = Prefix::host(address);
        let inside = self.config.ranges.iter().filter(|(p, _)| p.contains(&host));
        let (prefix, range) = inside.max_by_key(|(prefix, _)| prefix.length())?;
        let prefix = *prefix;
        let there = self.peers.values();
        let count = there.filter(|peer| peer.range == Some(prefix)).count();
        if count >= range.limit || range.peer.disabled {
            return None;
        }
        let config = PeerConfig {
            passive: true,
            name: format!("{address} from {prefix}"),
            ..range.peer.clone()
        };
        Some(self.add_peer(now, address, config, Some(prefix)))
    }

    /// Forgets a peer from a range of which nothing is left.
    pub(super) fn forget_if_over(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let over = peer.range.is_some()
            && peer.tried
            && peer.session.is_none()
            && peer.lines.is_empty()
            && peer.stale_until.is_none()
            && peer.long_lived.poll_timeout().is_none()
            && peer.penalty.is_none()
            && peer.fsm.state() == State::Active;
        if over {
            self.addresses.remove(&peer.address);
            self.peers.remove(&id);
        }
    }
}
