//! The way up: OPEN, collision detection (RFC 4271 section 6.8), confirmation, and what keeps a session alive.

use std::time::{Duration, Instant};

use super::{COLLISION_WAIT, OPEN_HOLD, PeerFsm};
use crate::fsm::event::{Action, Negotiated, Outgoing};
use crate::fsm::{Role, State, Timer, open};

impl PeerFsm {
    pub(super) fn send_open(&mut self, now: Instant, role: Role) {
        let open = Box::new(open::build(&self.settings));
        self.send(role, Outgoing::Open(open));
        if let Some(connection) = &mut self.connections[role as usize] {
            connection.state = State::OpenSent;
        }
        self.timers.start(Timer::Hold(role), now, OPEN_HOLD);
    }

    /// The peer's OPEN is acceptable: decide a collision, confirm.
    pub(super) fn opened(&mut self, now: Instant, role: Role, negotiated: Negotiated) {
        let other = role.other();
        match self.slot(other).map(|c| c.state) {
            Some(State::Established) => return self.dump(role),
            Some(State::OpenConfirm) => {
                if self.preferred(&negotiated) != role {
                    self.dump(role);
                    if self.slot(other).is_some_and(|c| c.confirmed) {
                        self.establish(now, other);
                    }
                    return;
                }
                self.dump(other);
            }
            _ => {}
        }
        if let Some(connection) = &mut self.connections[role as usize] {
            connection.state = State::OpenConfirm;
            connection.negotiated = Some(Box::new(negotiated));
        }
        self.restart_hold(now, role);
        self.send_keepalive(now, role);
    }

    /// The connection that survives a collision: the one opened by the speaker with the higher identifier, or with the
    /// higher AS number if the identifiers are equal (RFC 6286 section 2.3).
    pub(super) fn preferred(&self, peer: &Negotiated) -> Role {
        let ours = (self.settings.router_id, self.settings.local_asn);
        if ours > (peer.peer_id, peer.peer_asn) {
            Role::Outgoing
        } else {
            Role::Incoming
        }
    }

    /// The first KEEPALIVE came.
    pub(super) fn confirmed(&mut self, now: Instant, role: Role) {
        let Some(negotiated) = self.slot(role).and_then(|c| c.negotiated.as_deref()) else {
            return;
        };
        let survives = self.preferred(negotiated) == role;
        // We have sent an OPEN on the other connection, and it is the one the peer will keep when that OPEN arrives. Going up
        // on this one now would lose both.
        if !survives
            && self
                .slot(role.other())
                .is_some_and(|c| c.state == State::OpenSent)
        {
            if let Some(connection) = &mut self.connections[role as usize] {
                connection.confirmed = true;
            }
            self.timers
                .start(Timer::Collision(role), now, COLLISION_WAIT);
            return;
        }
        self.establish(now, role);
    }

    pub(super) fn establish(&mut self, now: Instant, role: Role) {
        self.dump(role.other());
        self.timers.stop(Timer::ConnectRetry);
        self.timers.stop(Timer::Collision(role));
        let Some(connection) = &mut self.connections[role as usize] else {
            return;
        };
        let Some(negotiated) = connection.negotiated.clone() else {
            return;
        };
        connection.state = State::Established;
        self.established_at = Some(now);
        self.actions
            .push_back(Action::Established(connection.serial, negotiated));
    }

    pub(super) fn restart_hold(&mut self, now: Instant, role: Role) {
        self.has_new_key = false;
        let hold = self
            .slot(role)
            .and_then(|c| c.negotiated.as_ref())
            .map_or(0, |n| n.hold_time);
        if hold == 0 {
            self.timers.stop(Timer::Hold(role));
        } else {
            self.timers
                .start(Timer::Hold(role), now, Duration::from_secs(hold.into()));
        }
    }

    pub(super) fn send_keepalive(&mut self, now: Instant, role: Role) {
        let Some(negotiated) = self.slot(role).and_then(|c| c.negotiated.as_ref()) else {
            return;
        };
        let (hold, every) = (negotiated.hold_time, negotiated.keepalive);
        self.send(role, Outgoing::Keepalive);
        if hold != 0 {
            let after = self.jitter.spread(every);
            self.timers.start(Timer::Keepalive(role), now, after);
        }
    }
}
