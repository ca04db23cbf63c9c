//! The way down: errors, NOTIFICATIONs, lost connections, and what follows.

use std::time::Instant;

use super::words::why_unreadable;
use super::{
    CEASE, IDLE_HOLD_FIRST, IDLE_HOLD_LAST, Next, PROVEN, PeerFsm, RECONNECT, SHORT_LIVED,
};
use crate::fsm::event::{Action, Cause, Down, Outgoing, Serial};
use crate::fsm::{Role, State, Timer};
use crate::wire::{Cease, Notification};

impl PeerFsm {
    pub(super) fn stop(&mut self, notification: Option<Notification>) {
        for role in [Role::Outgoing, Role::Incoming] {
            let was_up = self
                .slot(role)
                .is_some_and(|c| c.state == State::Established);
            if let Some(notification) = notification.as_ref().filter(|_| self.is_open(role)) {
                let notification = self.unmistakable(role, notification);
                self.send(role, Outgoing::Notification(notification));
            }
            self.close(role);
            if was_up {
                let cause = match notification {
                    None => Cause::Lost,
                    Some(_) => Cause::Final,
                };
                self.down("stopped by configuration".to_owned(), cause);
            }
        }
        self.timers.stop_all();
        self.started = false;
        self.errors_in_a_row = 0;
        self.short_lived = 0;
    }

    /// What ends the session for good must not look like the beginning of a restart to a peer that keeps routes over a
    /// NOTIFICATION (RFC 8538 section 3.1).
    fn unmistakable(&self, role: Role, notification: &Notification) -> Notification {
        let restart = self
            .slot(role)
            .and_then(|c| c.negotiated.as_ref())
            .and_then(|negotiated| negotiated.graceful_restart);
        let for_good = [
            Cease::MaximumPrefixes,
            Cease::AdministrativeShutdown,
            Cease::PeerDeconfigured,
        ];
        let kept = restart.is_some_and(|restart| restart.notification);
        if kept && for_good.iter().any(|cease| notification.is_cease(*cease)) {
            Notification::hard_reset(notification)
        } else {
            notification.clone()
        }
    }

    /// The way to the peer is dead: every connection goes, and the next attempt is made as after any other loss.
    pub(super) fn path_down(
        &mut self,
        now: Instant,
        notification: Option<&Notification>,
        reason: &str,
    ) {
        for role in [Role::Outgoing, Role::Incoming] {
            if self.slot(role).is_none() {
                continue;
            }
            if let Some(notification) = notification.filter(|_| self.is_open(role)) {
                self.send(role, Outgoing::Notification(notification.clone()));
            }
            self.ended(now, role, reason.to_owned(), Cause::Final, Next::Retry);
        }
    }

    /// An error of the peer's: tell it, close, and wait.
    pub(super) fn fail(&mut self, now: Instant, role: Role, notification: Notification) {
        let reason = match why_unreadable(&notification) {
            Some(why) => format!("{why}; sent {notification}"),
            None => format!("sent {notification}"),
        };
        self.fail_with(now, role, notification, reason);
    }

    /// An error of the peer's that people are told more about than the peer is.
    pub(super) fn fail_because(
        &mut self,
        now: Instant,
        role: Role,
        notification: Notification,
        why: &str,
    ) {
        let reason = format!("{why}; sent {notification}");
        self.fail_with(now, role, notification, reason);
    }

    fn fail_with(&mut self, now: Instant, role: Role, notification: Notification, reason: String) {
        if self.is_open(role) {
            self.send(role, Outgoing::Notification(notification));
        }
        self.ended(now, role, reason, Cause::Notified, Next::Hold);
    }

    pub(super) fn notified(&mut self, now: Instant, role: Role, received: &Notification) {
        // Cease is an operator's wish or a collision, not a mistake that would only repeat itself.
        let next = if received.code == CEASE {
            Next::Retry
        } else {
            Next::Hold
        };
        let cause = if received.is_cease(Cease::HardReset) {
            Cause::Final
        } else {
            Cause::Notified
        };
        let reason = match self.why_refused_by_peer(received) {
            Some(why) => format!("{why}; received {received}"),
            None => format!("received {received}"),
        };
        self.ended(now, role, reason, cause, next);
    }

    pub(super) fn close_failed(&mut self, now: Instant, serial: Serial, reason: String) {
        if let Some(role) = self.role_of(serial) {
            self.ended(now, role, reason, Cause::Lost, Next::Retry);
        }
    }

    pub(super) fn down(&mut self, reason: String, cause: Cause) {
        self.timers.stop(Timer::SendHold);
        self.established_at = None;
        self.actions.push_back(Action::Down(Down { reason, cause }));
    }

    /// One connection has ended. The other one goes on, if there is one.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        role: Role,
        reason: String,
        cause: Cause,
        next: Next,
    ) {
        let was_up = self
            .slot(role)
            .is_some_and(|c| c.state == State::Established);
        let proven = self
            .established_at
            .is_some_and(|at| now.saturating_duration_since(at) >= PROVEN);
        self.close(role);
        if was_up {
            if proven {
                self.errors_in_a_row = 0;
                self.short_lived = 0;
            } else {
                self.short_lived = self.short_lived.saturating_add(1);
            }
            self.down(reason, cause);
        } else {
            self.actions
                .push_back(Action::Failed(Down { reason, cause }));
        }
        let other = role.other();
        if self.slot(other).is_some_and(|c| c.confirmed) {
            return self.establish(now, other);
        }
        if self.is_open(other) {
            return;
        }
        let flaps = was_up && self.short_lived >= SHORT_LIVED;
        match if flaps { Next::Hold } else { next } {
            Next::Hold => {
                self.close(other);
                self.hold_idle(now);
            }
            // An attempt that is under way has its timer running.
            Next::Retry if self.slot(Role::Outgoing).is_some() || self.settings.passive => {}
            Next::Retry => {
                let wait = self.settings.connect_retry;
                self.start_retry(now, if was_up { wait.min(RECONNECT) } else { wait });
            }
        }
    }

    pub(super) fn hold_idle(&mut self, now: Instant) {
        let doubled = IDLE_HOLD_FIRST.saturating_mul(1 << self.errors_in_a_row.min(16));
        self.errors_in_a_row = self.errors_in_a_row.saturating_add(1);
        self.timers.stop(Timer::ConnectRetry);
        let wait = self.jitter.spread(doubled.min(IDLE_HOLD_LAST));
        self.timers.start(Timer::IdleHold, now, wait);
    }
}
