//! The timers of one peer: one enum, one table of deadlines.
//!
//! Nothing here runs by itself. The owner asks for [`TimerTable::next`], waits however it likes, and then takes the timers
//! that are due with [`TimerTable::take_due`].

use std::time::{Duration, Instant};

use super::Role;

/// A timer of RFC 4271 section 8.1.3 (or of the RFC named at the variant).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// Time between two attempts to connect, and the longest time one attempt may take.
    ConnectRetry,
    /// How long the peer stays in Idle after an error (section 8.1.1, DampPeerOscillations).
    IdleHold,
    /// Longest silence of the peer on this connection. Never jittered.
    Hold(Role),
    /// Time until the next KEEPALIVE on this connection.
    Keepalive(Role),
    /// How long an OPEN exchange that is done waits for a collision with the other connection to be decided.
    Collision(Role),
    /// Longest time the peer may leave our data unread (RFC 9687).
    SendHold,
}

impl Timer {
    /// Every timer, in the order in which timers due at the same instant fire.
    ///
    /// Hold comes before Keepalive: a peer that is already dead is not worth another KEEPALIVE.
    pub const ALL: [Timer; 9] = [
        Timer::Hold(Role::Outgoing),
        Timer::Hold(Role::Incoming),
        Timer::SendHold,
        Timer::Collision(Role::Outgoing),
        Timer::Collision(Role::Incoming),
        Timer::Keepalive(Role::Outgoing),
        Timer::Keepalive(Role::Incoming),
        Timer::IdleHold,
        Timer::ConnectRetry,
    ];

    const fn slot(self) -> usize {
        match self {
            Timer::Hold(Role::Outgoing) => 0,
            Timer::Hold(Role::Incoming) => 1,
            Timer::SendHold => 2,
            Timer::Collision(Role::Outgoing) => 3,
            Timer::Collision(Role::Incoming) => 4,
            Timer::Keepalive(Role::Outgoing) => 5,
            Timer::Keepalive(Role::Incoming) => 6,
            Timer::IdleHold => 7,
            Timer::ConnectRetry => 8,
        }
    }
}

/// The deadlines of one peer's timers; a timer that is not running has none.
#[derive(Debug, Clone, Default)]
pub struct TimerTable {
    deadlines: [Option<Instant>; Timer::ALL.len()],
}

impl TimerTable {
    /// Starts `timer`, or starts it anew, to fire `after` from `now`.
    pub fn start(&mut self, timer: Timer, now: Instant, after: Duration) {
        // An unrepresentable deadline is one that never comes.
        self.deadlines[timer.slot()] = now.checked_add(after);
    }

    /// Stops `timer`; a stopped timer does not fire.
    pub fn stop(&mut self, timer: Timer) {
        self.deadlines[timer.slot()] = None;
    }

    /// Stops every timer that belongs to the connection of `role`.
    pub fn stop_connection(&mut self, role: Role) {
        self.stop(Timer::Hold(role));
        self.stop(Timer::Keepalive(role));
        self.stop(Timer::Collision(role));
    }

    /// Stops all timers.
    pub fn stop_all(&mut self) {
        self.deadlines = Default::default();
    }

    /// When `timer` fires, if it runs.
    #[must_use]
    pub fn deadline(&self, timer: Timer) -> Option<Instant> {
        self.deadlines[timer.slot()]
    }

    /// The earliest deadline of all timers.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Stops and returns one timer whose deadline is not after `now`.
    pub fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let due = Timer::ALL
            .into_iter()
            .find(|timer| self.deadline(*timer).is_some_and(|at| at <= now))?;
        self.stop(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_has_a_slot_of_its_own() {
        for (index, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer.slot(), index);
        }
    }

    #[test]
    fn due_timers_come_out_once_and_hold_first() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut table = TimerTable::default();
        table.start(Timer::Keepalive(Role::Outgoing), now, second);
        table.start(Timer::Hold(Role::Outgoing), now, second);
        table.start(Timer::ConnectRetry, now, 2 * second);
        assert_eq!(table.next(), Some(now + second));
        assert_eq!(table.take_due(now), None);
        assert_eq!(
            table.take_due(now + second),
            Some(Timer::Hold(Role::Outgoing))
        );
        assert_eq!(
            table.take_due(now + second),
            Some(Timer::Keepalive(Role::Outgoing))
        );
        assert_eq!(table.take_due(now + second), None);
        assert_eq!(table.next(), Some(now + 2 * second));
    }
}
