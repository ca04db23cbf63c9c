//! BFD that is up or not, for peers that insist on it.

use std::net::IpAddr;
use std::time::Instant;

use super::Router;
use super::dynamic::RETURN;
use crate::fsm::{Event, State};

impl Router {
    /// BFD to the peer with a key ([`crate::types::peer_key`]) is up, or is not up without this being a failure: a session that insists on BFD may start, or may not.
    /// A session that is up stays (RFC 5882 section 3.2); a failure is told with [`Router::handle_peer_lost`].
    pub fn handle_bfd(&mut self, now: Instant, key: IpAddr, up: bool) {
        let Some(id) = self.addresses.get(&key).copied() else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.bfd_up = up;
        let strict = peer.config.bfd.is_some_and(|bfd| bfd.strict);
        if !strict || peer.config.disabled {
            return;
        }
        if up {
            self.start_peer(now, id);
        } else if peer.fsm.state() != State::Established {
            let stop = Event::Stop { notification: None };
            peer.fsm.handle_event(now, stop);
            if peer.range.is_some() {
                peer.forget_at = now.checked_add(RETURN);
            }
            self.drain(now, id);
        }
    }
}
