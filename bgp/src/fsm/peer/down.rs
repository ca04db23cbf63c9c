//! The way down: errors, NOTIFICATIONs, lost connections, and what follows.

use std::time::Instant;

use super::{CEASE, IDLE_HOLD_FIRST, IDLE_HOLD_LAST, Next, PROVEN, PeerFsm, RECONNECT};
use crate::fsm::event::{Action, Down, Outgoing, Serial};
use crate::fsm::{Role, State, Timer};
use crate::wire::Notification;

impl PeerFsm {
    pub(super) fn stop(&mut self, notification: Option<Notification>) {
        for role in [Role::Outgoing, Role::Incoming] {
            let was_up = self
                .slot(role)
                .is_some_and(|c| c.state == State::Established);
            if let Some(notification) = notification.as_ref().filter(|_| self.is_open(role)) {
                self.send(role, Outgoing::Notification(notification.clone()));
            }
            self.close(role);
            if was_up {
                let silent = notification.is_none();
                self.down("stopped by configuration".to_owned(), silent);
            }
        }
        self.timers.stop_all();
        self.started = false;
        self.errors_in_a_row = 0;
    }

    /// An error of the peer's: tell it, close, and wait.
    pub(super) fn fail(&mut self, now: Instant, role: Role, notification: Notification) {
        let reason = format!("sent {notification}");
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
        self.ended(now, role, reason, false, Next::Hold);
    }

    pub(super) fn notified(&mut self, now: Instant, role: Role, received: &Notification) {
        // Cease is an operator's wish or a collision, not a mistake that would only repeat itself.
        let next = if received.code == CEASE {
            Next::Retry
        } else {
            Next::Hold
        };
        self.ended(now, role, format!("received {received}"), false, next);
    }

    pub(super) fn close_failed(&mut self, now: Instant, serial: Serial, reason: String) {
        if let Some(role) = self.role_of(serial) {
            self.ended(now, role, reason, true, Next::Retry);
        }
    }

    pub(super) fn down(&mut self, reason: String, silent: bool) {
        self.timers.stop(Timer::SendHold);
        self.established_at = None;
        self.actions
            .push_back(Action::Down(Down { reason, silent }));
    }

    /// One connection has ended. The other one goes on, if there is one.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        role: Role,
        reason: String,
        silent: bool,
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
            }
            self.down(reason, silent);
        } else {
            self.actions
                .push_back(Action::Failed(Down { reason, silent }));
        }
        let other = role.other();
        if self.slot(other).is_some_and(|c| c.confirmed) {
            return self.establish(now, other);
        }
        if self.is_open(other) {
            return;
        }
        match next {
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
