//! One session: its state machine and its timers (RFC 5880 section 6.8).

use std::time::{Duration, Instant};

use super::packet::{Diagnostic, Packet, State};
use super::report::{Discards, SessionReport};

/// Fastest rate of a session that is not up (RFC 5880 section 6.8.3), in microseconds.
const SLOW: u32 = 1_000_000;

/// What a session is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Shortest time between two packets we want to send, in microseconds, at least 1.
    pub min_tx: u32,
    /// Shortest time between two packets we can receive, in microseconds, at least 1.
    pub min_rx: u32,
    /// How many of our packets may be missing before the peer calls the session down, at least 1.
    pub multiplier: u8,
    /// Say nothing until the peer speaks (RFC 5880 section 6.1).
    pub passive: bool,
}

/// A change of a session's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Why.
    pub diagnostic: Diagnostic,
    /// What the peer last said of its own state.
    pub remote_state: State,
    /// The peer's BFD survives a restart of its control plane (the C bit of its last packet).
    pub remote_independent: bool,
}

impl Change {
    /// The path has failed: the session was up and is no longer, and nobody did that on purpose. A peer that takes its side
    /// down administratively says nothing about the path (RFC 5882 section 3.2).
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.from == State::Up && self.to == State::Down && self.remote_state != State::AdminDown
    }
}

/// A session. Drawn numbers come in as arguments, 64 bits of evenly spread chance each.
#[derive(Debug)]
pub(super) struct Session {
    settings: Settings,
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    /// Desired Min TX Interval as we announce it.
    desired_min_tx: u32,
    /// The one that decides how fast we send: the older and smaller one until the peer confirmed a larger one.
    tx_in_force: u32,
    /// Required Min RX Interval that decides how long we wait: the older and larger one until the peer confirmed a smaller one.
    rx_in_force: u32,
    poll: Poll,
    final_due: bool,
    send_due: bool,
    last_sent: Option<Instant>,
    next_send: Option<Instant>,
    heard: Option<Instant>,
    /// Up or Init ends, or the peer is forgotten.
    detection: Option<Instant>,
    since: Instant,
    sent: u64,
    received: u64,
    failures: u64,
    last_failure: Option<Diagnostic>,
}

/// The Poll Sequence (section 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    Idle,
    /// Called for; an answer that comes now belongs to an older one.
    Wanted,
    /// A packet with the Poll bit and what is announced now has been sent.
    Sent,
}

/// What the peer's last packet said.
#[derive(Debug, Clone, Copy)]
struct Remote {
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    independent: bool,
    demand: bool,
    multiplier: u8,
    desired_min_tx: u32,
    required_min_rx: u32,
}

impl Remote {
    /// Nothing is known (RFC 5880 section 6.8.1).
    const UNKNOWN: Self = Self {
        discriminator: 0,
        state: State::Down,
        diagnostic: Diagnostic::NONE,
        independent: false,
        demand: false,
        multiplier: 0,
        desired_min_tx: SLOW,
        required_min_rx: 1,
    };
}

impl Session {
    pub(super) fn new(now: Instant, settings: Settings, discriminator: u32) -> Self {
        let desired_min_tx = settings.min_tx.max(SLOW);
        Self {
            settings,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: Remote::UNKNOWN,
            desired_min_tx,
            tx_in_force: desired_min_tx,
            rx_in_force: settings.min_rx,
            poll: Poll::Idle,
            final_due: false,
            send_due: false,
            last_sent: None,
            next_send: (!settings.passive).then_some(now),
            heard: None,
            detection: None,
            since: now,
            sent: 0,
            received: 0,
            failures: 0,
            last_failure: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Takes new settings without a change of state: new intervals are agreed on by a Poll Sequence (section 6.8.3).
    pub(super) fn set_settings(&mut self, now: Instant, settings: Settings, chance: u64) {
        if settings == self.settings {
            return;
        }
        let before = std::mem::replace(&mut self.settings, settings);
        if settings.min_rx != before.min_rx {
            self.start_poll();
            if settings.min_rx > self.rx_in_force || self.state != State::Up {
                self.rx_in_force = settings.min_rx;
            }
        }
        self.adapt_rate();
        // What the peer may now do, and how long it may be silent, is worth a packet of its own.
        self.send_due = self.may_send();
        self.restart_detection();
        self.reschedule(now, chance);
    }

    /// Holds the session down, or no longer. `false`: it is as asked for already.
    pub(super) fn set_admin_down(&mut self, now: Instant, down: bool) -> Option<Change> {
        if down == (self.state == State::AdminDown) {
            return None;
        }
        let (state, diagnostic) = if down {
            (State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN)
        } else {
            (State::Down, Diagnostic::NONE)
        };
        Some(self.change(now, state, diagnostic))
    }

    /// Takes in a packet that belongs to this session (section 6.8.6, from "Set bfd.RemoteDiscr").
    pub(super) fn handle_packet(
        &mut self,
        now: Instant,
        packet: &Packet,
        chance: u64,
    ) -> Option<Change> {
        self.received += 1;
        self.remote = Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            independent: packet.independent,
            demand: packet.demand,
            multiplier: packet.multiplier,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
        };
        if packet.is_final && self.poll == Poll::Sent {
            self.poll = Poll::Idle;
            self.tx_in_force = self.desired_min_tx;
        } else if !self.polls() {
            // With the first packet after the answer, not with the answer itself: there are peers that answer at once, but
            // finish the interval they are in before they become faster (FRR 8 does).
            self.rx_in_force = self.settings.min_rx;
        }
        self.heard = Some(now);
        // Whoever is held down by its operator still answers, so that the peer's Poll Sequence ends.
        self.final_due |= packet.poll;
        let change = match self.next_state(packet.state) {
            _ if self.state == State::AdminDown => None,
            Some((state, diagnostic)) => Some(self.change(now, state, diagnostic)),
            None => None,
        };
        self.restart_detection();
        self.reschedule(now, chance);
        change
    }

    /// The state machine of section 6.2 and 6.8.6.
    fn next_state(&self, remote: State) -> Option<(State, Diagnostic)> {
        match (self.state, remote) {
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                Some((State::Down, Diagnostic::NEIGHBOR_DOWN))
            }
            (State::Down, State::Down) => Some((State::Init, Diagnostic::NONE)),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                Some((State::Up, Diagnostic::NONE))
            }
            _ => None,
        }
    }

    /// Lets every timer fire that is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, chance: u64) -> Option<Change> {
        let mut change = None;
        if self.detection.is_some_and(|at| at <= now) {
            self.detection = None;
            // Section 6.8.1: a peer that is silent for that long may come back as another one.
            self.remote = Remote {
                state: self.remote.state,
                diagnostic: self.remote.diagnostic,
                independent: self.remote.independent,
                ..Remote::UNKNOWN
            };
            self.poll = Poll::Idle;
            self.final_due = false;
            if matches!(self.state, State::Init | State::Up) {
                // The peer's own last word is not why: it said nothing.
                self.remote.state = State::Down;
                change = Some(self.change(now, State::Down, Diagnostic::TIME_EXPIRED));
            }
            self.reschedule(now, chance);
        }
        if self.next_send.is_some_and(|at| at <= now) {
            self.next_send = None;
            self.send_due = true;
        }
        change
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.next_send, self.detection].into_iter().flatten().min()
    }

    /// The next packet to send now, if there is one.
    pub(super) fn poll_packet(&mut self, now: Instant, chance: u64) -> Option<Packet> {
        let is_final = std::mem::take(&mut self.final_due);
        if !is_final {
            if !std::mem::take(&mut self.send_due) {
                return None;
            }
            self.last_sent = Some(now);
            self.next_send = None;
            self.reschedule(now, chance);
        }
        self.sent += 1;
        if !is_final && self.polls() {
            self.poll = Poll::Sent;
        }
        Some(Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: !is_final && self.polls(),
            is_final,
            // This runs in the process of the control plane and ends with it.
            independent: false,
            demand: false,
            multiplier: self.settings.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.desired_min_tx,
            required_min_rx: self.settings.min_rx,
            required_min_echo_rx: 0,
        })
    }

    fn change(&mut self, now: Instant, to: State, diagnostic: Diagnostic) -> Change {
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        // Up forgets the diagnostic of what was before; on the way there the peer may still want to know it.
        if to != State::Init {
            self.diagnostic = diagnostic;
        }
        let change = Change {
            from,
            to,
            diagnostic,
            remote_state: self.remote.state,
            remote_independent: self.remote.independent,
        };
        if change.is_failure() {
            self.failures += 1;
            self.last_failure = Some(diagnostic);
        }
        if to != State::Up {
            self.rx_in_force = self.settings.min_rx;
        }
        self.adapt_rate();
        // Section 6.8.7: the peer learns of the new state at once.
        self.send_due = self.may_send();
        change
    }

    /// Announces the interval that belongs to the state (section 6.8.3).
    fn adapt_rate(&mut self) {
        let wanted = match self.state {
            State::Up => self.settings.min_tx,
            _ => self.settings.min_tx.max(SLOW),
        };
        if wanted != self.desired_min_tx {
            self.desired_min_tx = wanted;
            self.start_poll();
        }
        // Slower only once the peer knows; but a session that is not up has nothing to lose.
        if wanted < self.tx_in_force || self.state != State::Up || !self.polls() {
            self.tx_in_force = wanted;
        }
    }

    /// Starts a Poll Sequence, or keeps the one under way; nobody can answer as long as no peer is known.
    fn start_poll(&mut self) {
        if self.remote.discriminator != 0 {
            self.poll = Poll::Wanted;
        }
    }

    fn polls(&self) -> bool {
        self.poll != Poll::Idle
    }

    /// Whether periodic packets may be sent at all (section 6.8.7).
    fn may_send(&self) -> bool {
        let unanswered = self.settings.passive && self.remote.discriminator == 0;
        let demanded =
            self.remote.demand && self.state == State::Up && self.remote.state == State::Up;
        !unanswered && self.remote.required_min_rx != 0 && (!demanded || self.polls())
    }

    /// Plans the next periodic packet: earlier if the interval has become shorter.
    fn reschedule(&mut self, now: Instant, chance: u64) {
        if !self.may_send() {
            self.next_send = None;
            self.send_due = false;
            return;
        }
        let interval = self.transmit_interval();
        let Some(last) = self.last_sent else {
            self.next_send = Some(now);
            return;
        };
        // One that is planned already keeps its place, unless that is too far away now.
        if self
            .next_send
            .is_none_or(|planned| planned > last + interval)
        {
            let jittered = jittered(interval, self.settings.multiplier, chance);
            self.next_send = Some((last + jittered).max(now));
        }
    }

    /// Before jitter (section 6.8.2).
    pub(super) fn transmit_interval(&self) -> Duration {
        let micros = self.tx_in_force.max(self.remote.required_min_rx);
        Duration::from_micros(micros.into())
    }

    /// How long nothing may come before the session is down (section 6.8.4); `None`: nothing has come yet.
    pub(super) fn detection_time(&self) -> Option<Duration> {
        let interval = self.rx_in_force.max(self.remote.desired_min_tx);
        let time = Duration::from_micros(interval.into()) * u32::from(self.remote.multiplier);
        (!time.is_zero()).then_some(time)
    }

    fn restart_detection(&mut self) {
        let at = self.heard.zip(self.detection_time());
        self.detection = at.and_then(|(heard, time)| heard.checked_add(time));
    }

    /// Everything people may want to know.
    pub(super) fn report(&self, now: Instant) -> SessionReport {
        SessionReport {
            state: self.state,
            since: self.since,
            diagnostic: self.diagnostic,
            last_failure: self.last_failure,
            failures: self.failures,
            remote_state: self.remote.state,
            remote_diagnostic: self.remote.diagnostic,
            remote_independent: self.remote.independent,
            remote_demand: self.remote.demand,
            remote_multiplier: self.remote.multiplier,
            remote_min_tx: Duration::from_micros(self.remote.desired_min_tx.into()),
            remote_min_rx: Duration::from_micros(self.remote.required_min_rx.into()),
            discriminator: self.discriminator,
            remote_discriminator: self.remote.discriminator,
            transmit_interval: self.transmit_interval(),
            detection_time: self.detection_time(),
            polling: self.polls(),
            packets_sent: self.sent,
            packets_received: self.received,
            heard: self.heard.map(|at| now.saturating_duration_since(at)),
            last_error: None,
            discards: Discards::default(),
        }
    }
}

/// 75 to 100 % of the interval, at most 90 % with a multiplier of 1 (section 6.8.7).
fn jittered(interval: Duration, multiplier: u8, chance: u64) -> Duration {
    // Thousandths are fine enough, and keep the arithmetic in 64 bits.
    let most = if multiplier == 1 { 150 } else { 250 };
    let thousandths = 750 + chance % (most + 1);
    let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(micros.saturating_mul(thousandths) / 1000)
}
