//! After our own restart: routes wait until the peers have sent theirs (RFC 4724 section 4.1).
//!
//! A speaker that comes back with an empty table must not announce or install what it happens to hear first: its peers keep
//! the routes of before until it says it is done. The wait ends as soon as every peer that can be reached has sent its
//! End-of-RIB. Who is down, does not do graceful restart, or has just restarted itself is not waited for, so that nodes that
//! come back together do not wait for one another.

use std::time::{Duration, Instant};

use super::peer::Peer;
use super::{ConnectionId, Output, Router};
use crate::fsm::State;

/// How long a peer that only connects to us, never we to it, may take to do so.
const PASSIVE: Duration = Duration::from_secs(10);

/// The wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deferral {
    /// The Selection_Deferral_Timer.
    until: Instant,
    /// From here on a peer that has to connect to us and has not counts as unreachable.
    passive_until: Instant,
    passive_over: bool,
}

impl Deferral {
    pub(super) fn new(now: Instant, longest: Duration) -> Self {
        let after = |time| now.checked_add(time).unwrap_or(now);
        Self {
            until: after(longest),
            passive_until: after(longest.min(PASSIVE)),
            passive_over: false,
        }
    }

    fn waits_for(&self, peer: &Peer) -> bool {
        if peer.config.disabled {
            return false;
        }
        if let Some(session) = &peer.session {
            let restart = session.negotiated.graceful_restart;
            return restart.is_some_and(|restart| !restart.restarting)
                && session.end_of_rib_received != session.negotiated.families;
        }
        let trying = peer.fsm.state() >= State::OpenSent;
        if peer.config.passive {
            return trying || (!peer.tried && !self.passive_over);
        }
        trying || !peer.tried
    }
}

impl Router {
    /// Whether routes wait for the peers to send theirs.
    #[must_use]
    pub fn is_deferring(&self) -> bool {
        self.deferral.is_some()
    }

    /// When the wait is to be looked at again even if nothing happens.
    pub(super) fn deferral_timeout(&self) -> Option<Instant> {
        let deferral = self.deferral?;
        Some(if deferral.passive_over {
            deferral.until
        } else {
            deferral.passive_until
        })
    }

    /// Ends the wait if there is nothing more to wait for.
    pub(super) fn reconsider_deferral(&mut self, now: Instant) {
        let Some(deferral) = &mut self.deferral else {
            return;
        };
        deferral.passive_over |= now >= deferral.passive_until;
        let deferral = *deferral;
        let waits = self.peers.values().any(|peer| deferral.waits_for(peer));
        if waits && now < deferral.until {
            return;
        }
        self.deferral = None;
        self.renew_settings();
        for (id, peer) in self.peers.iter_mut() {
            let serial = peer.session.as_ref().map(|session| session.serial);
            if let Some(serial) = serial
                && peer.arm(serial)
            {
                self.outputs
                    .push_back(Output::Transmit(ConnectionId { peer: *id, serial }));
            }
        }
        for (id, subscriber) in &mut self.subscribers {
            if subscriber.arm() {
                self.outputs.push_back(Output::Routes(*id));
            }
        }
    }
}
