//! Peers that come and go: those from a range of addresses.
//!
//! They are peers like any other, made from what the range says. One is there from its first connection until its session is
//! over and nothing of it is left: no routes kept for a restart, no wait after an error. BFD watches it that long. Where BFD has
//! to be up first (`strict`) the first connection is refused, and the peer waits for BFD and for another one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{PeerId, Router};
use crate::config::PeerConfig;
use crate::fsm::State;
use crate::types::Prefix;
use crate::wire::{Cease, Notification};

/// How long a peer may take to connect again that was turned away because its BFD was not up yet.
pub(super) const RETURN: Duration = Duration::from_secs(60);

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
            name: match range.peer.name.as_str() {
                "" => format!("{address} from {prefix}"),
                name => format!("{name} {address} from {prefix}"),
            },
            ..range.peer.clone()
        };
        let id = self.add_peer(now, address, config, Some(prefix));
        let record = self.records.take(now, address);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.fsm.remember(record);
            if peer.waits_for_bfd() {
                peer.forget_at = now.checked_add(RETURN);
            }
        }
        Some(id)
    }

    /// Forgets a peer whose BFD was to come up before its session, and that has not come back since.
    pub(super) fn end_waiting(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.forget_at.is_none_or(|at| at > now) {
            return;
        }
        if peer.stale_until.is_some() || peer.long_lived.poll_timeout().is_some() {
            // Away for a restart.
            peer.forget_at = now.checked_add(RETURN);
            return;
        }
        peer.forget_at = None;
        peer.tried = true;
        if peer.lines.is_empty() && peer.session.is_none() && peer.fsm.state() == State::Idle {
            let gone = Notification::cease(Cease::PeerDeconfigured);
            return self.remove_peer(now, id, gone);
        }
        self.forget_if_over(id);
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
            self.peers_version += 1;
            self.addresses.remove(&peer.key);
            if let Some(peer) = self.peers.remove(&id) {
                self.records
                    .keep(self.clock, peer.address, peer.fsm.record());
            }
        }
    }
}
