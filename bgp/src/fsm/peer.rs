//! The state machine of one peer: both of its connections, and which of them survives.

mod down;
mod up;
mod words;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::{Action, Cause, ConnectionEvent, Down, Event, Negotiated, Outgoing, Serial};
use super::open::{self, Refused, Settings};
use super::{Role, State, Timer, TimerTable};
use crate::jitter::Jitter;
use crate::wire::{Cease, MessageType, Notification};

/// Longest wait for the peer's OPEN. RFC 4271 suggests four minutes; a peer that accepted the connection and then says
/// nothing for one minute is not going to.
const OPEN_HOLD: Duration = Duration::from_secs(60);
/// First wait in Idle after an error; doubles with every error in a row.
const IDLE_HOLD_FIRST: Duration = Duration::from_secs(1);
/// Longest wait in Idle.
const IDLE_HOLD_LAST: Duration = Duration::from_secs(30);
/// A session that lasted this long has proved itself: the next error starts the waits from the beginning.
const PROVEN: Duration = Duration::from_secs(60);
/// So many sessions in a row that ended before they proved themselves are taken for an error, whatever they ended with: a peer
/// that comes and goes each second costs everybody a table each time. One restart, or two, are none.
const SHORT_LIVED: u32 = 5;
/// Wait before reconnecting after a session that was up has ended without an error of the peer's.
const RECONNECT: Duration = Duration::from_secs(1);
/// How long a finished OPEN exchange gives the preferred other connection to finish its own.
const COLLISION_WAIT: Duration = Duration::from_secs(1);
/// Least time the peer may take to read what we sent (RFC 9687 section 4); twice the hold time if that is longer.
const SEND_HOLD: Duration = Duration::from_secs(8 * 60);

/// The error code of Cease (RFC 4271 section 4.5).
const CEASE: u8 = 6;

/// One peer's session as RFC 4271 section 8 describes it, with both connections that section 6.8 speaks of.
///
/// Inputs: [`handle_event`](Self::handle_event), [`accept`](Self::accept),
/// [`handle_connection_event`](Self::handle_connection_event), [`handle_transmit`](Self::handle_transmit) and
/// [`handle_timeout`](Self::handle_timeout). After any of them take [`poll_action`](Self::poll_action) until it is `None`,
/// and then [`poll_timeout`](Self::poll_timeout). `now` must never go backwards.
#[derive(Debug)]
pub struct PeerFsm {
    settings: Settings,
    jitter: Jitter,
    timers: TimerTable,
    started: bool,
    connections: [Option<Connection>; 2],
    next_serial: u32,
    errors_in_a_row: u32,
    /// Sessions in a row that did not last for [`PROVEN`].
    short_lived: u32,
    established_at: Option<Instant>,
    /// The key has changed, and nothing has come from the peer since.
    has_new_key: bool,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Connection {
    serial: Serial,
    state: State,
    negotiated: Option<Box<Negotiated>>,
    /// The peer's KEEPALIVE has come, and only a collision that is not decided yet keeps the session from being up.
    confirmed: bool,
}

/// What is held against a peer, and has it wait in Idle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// Sessions in a row that did not last.
    pub short_lived: u32,
    /// Waits in a row.
    pub errors_in_a_row: u32,
}

/// What follows the end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Try again after the connect-retry time.
    Retry,
    /// Stay in Idle for a while first.
    Hold,
}

impl PeerFsm {
    /// A stopped session; [`Event::ManualStart`] starts it.
    #[must_use]
    pub fn new(settings: Settings, jitter: Jitter) -> Self {
        Self {
            settings,
            jitter,
            timers: TimerTable::default(),
            started: false,
            connections: [None, None],
            next_serial: 0,
            errors_in_a_row: 0,
            short_lived: 0,
            established_at: None,
            has_new_key: false,
            actions: VecDeque::new(),
        }
    }

    /// The state of the session: that of the connection that is further.
    #[must_use]
    pub fn state(&self) -> State {
        let furthest = self.connections.iter().flatten().map(|c| c.state).max();
        match furthest {
            Some(state) => state,
            None if !self.started || self.timers.deadline(Timer::IdleHold).is_some() => State::Idle,
            None => State::Active,
        }
    }

    /// The connection the session is up on.
    #[must_use]
    pub fn established(&self) -> Option<(Serial, &Negotiated)> {
        let up = self
            .connections
            .iter()
            .flatten()
            .find(|c| c.state == State::Established)?;
        Some((up.serial, up.negotiated.as_deref()?))
    }

    /// The key that signs the segments of the connections is another from now on.
    pub fn handle_new_key(&mut self) {
        self.has_new_key = true;
    }

    /// Replaces the settings; what is part of the OPEN counts from the next session on.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Feeds an event about the whole peer.
    pub fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::ManualStart => {
                if !self.started {
                    self.started = true;
                    self.connect(now);
                }
            }
            Event::Stop { notification } => self.stop(notification),
            Event::PathDown {
                notification,
                reason,
            } => self.path_down(now, notification.as_ref(), &reason),
        }
    }

    /// A TCP connection from the peer was accepted (event 17). `None`: close it at once.
    ///
    /// While we are trying to connect ourselves the connection is used, not parked: the peer may be the only one of us two
    /// that can connect.
    pub fn accept(&mut self, now: Instant) -> Option<Serial> {
        if !self.started || self.state() == State::Idle {
            return None;
        }
        if let Some((serial, negotiated)) = self.established() {
            // A peer that does graceful restart and comes back before we saw it go has restarted (RFC 4724 section 4.2).
            // One that comes with a new key, and has said nothing with it on the old connection, has left that one without
            // our seeing it: its last segments were signed with the old key. Any other new connection loses against the one
            // that works (RFC 4271 section 6.8).
            let restart = negotiated.graceful_restart.as_ref();
            let restarts = restart.is_some_and(|restart| !restart.families.is_empty());
            if !restarts && !self.has_new_key {
                return None;
            }
            self.close_failed(now, serial, "the peer opened a new connection".to_owned());
        }
        match self.slot(Role::Incoming) {
            // The older one has not said a word: the peer may have lost it and tries again.
            Some(older) if older.state == State::OpenSent => self.close(Role::Incoming),
            Some(_) => return None,
            None => {}
        }
        let serial = self.allocate(Role::Incoming, State::Connect);
        self.send_open(now, Role::Incoming);
        Some(serial)
    }

    /// Feeds an event of one connection. Events of connections that are already closed change nothing.
    pub fn handle_connection_event(
        &mut self,
        now: Instant,
        serial: Serial,
        event: ConnectionEvent,
    ) {
        let Some(role) = self.role_of(serial) else {
            return;
        };
        let Some(state) = self.slot(role).map(|c| c.state) else {
            return;
        };
        match (event, state) {
            (ConnectionEvent::TcpConnected, State::Connect) => {
                self.timers.stop(Timer::ConnectRetry);
                self.send_open(now, role);
            }
            (ConnectionEvent::TcpConnected, _) => {}
            (ConnectionEvent::TcpConnectionFails(reason), _) => {
                self.close_failed(now, serial, reason)
            }
            (ConnectionEvent::NotifMsg(received), _) => self.notified(now, role, &received),
            (ConnectionEvent::MessageError(notification), _) => self.fail(now, role, notification),
            (ConnectionEvent::BgpOpen(open), State::OpenSent) => {
                match open::negotiate(&self.settings, &open) {
                    Ok(negotiated) => self.opened(now, role, negotiated),
                    Err(Refused {
                        notification,
                        reason,
                    }) => self.fail_because(now, role, notification, &reason),
                }
            }
            (ConnectionEvent::KeepAliveMsg, State::OpenConfirm) => {
                self.restart_hold(now, role);
                self.confirmed(now, role);
            }
            (
                ConnectionEvent::KeepAliveMsg
                | ConnectionEvent::UpdateMsg
                | ConnectionEvent::RouteRefreshMsg,
                State::Established,
            ) => self.restart_hold(now, role),
            // While the collision is being decided the peer may already send routes; it is then the one to decide.
            (ConnectionEvent::UpdateMsg | ConnectionEvent::RouteRefreshMsg, State::OpenConfirm)
                if self.slot(role).is_some_and(|c| c.confirmed) =>
            {
                self.establish(now, role);
            }
            (
                event @ (ConnectionEvent::BgpOpen(_)
                | ConnectionEvent::KeepAliveMsg
                | ConnectionEvent::UpdateMsg
                | ConnectionEvent::RouteRefreshMsg),
                state,
            ) => self.fail(now, role, unexpected(&event, state)),
        }
    }

    /// Tells how sending goes on the established connection: `outstanding` if the peer still has to read something. Each
    /// call with `outstanding` means progress was made since the last one (RFC 9687).
    pub fn handle_transmit(&mut self, now: Instant, outstanding: bool) {
        match self.send_hold_time() {
            Some(hold) if outstanding => self.timers.start(Timer::SendHold, now, hold),
            _ => self.timers.stop(Timer::SendHold),
        }
    }

    /// How long the peer may leave unread what it is sent; `None`: for ever.
    fn send_hold_time(&self) -> Option<Duration> {
        let (_, negotiated) = self.established()?;
        let default = || match negotiated.hold_time {
            0 => Duration::ZERO,
            hold => Duration::from_secs(2 * u64::from(hold)).max(SEND_HOLD),
        };
        let hold = self.settings.send_hold.unwrap_or_else(default);
        (!hold.is_zero()).then_some(hold)
    }

    /// Until when the peer is left alone after an error or for coming and going too often, if it is.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        self.timers.deadline(Timer::IdleHold)
    }

    /// What is held against the peer.
    #[must_use]
    pub fn record(&self) -> Record {
        Record {
            short_lived: self.short_lived,
            errors_in_a_row: self.errors_in_a_row,
        }
    }

    /// Holds against the peer what was before it was forgotten.
    pub fn remember(&mut self, record: Record) {
        self.short_lived = record.short_lived;
        self.errors_in_a_row = record.errors_in_a_row;
    }

    /// Lets every timer fire that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::ConnectRetry => {
                    if self
                        .slot(Role::Outgoing)
                        .is_some_and(|c| c.state == State::Connect)
                    {
                        self.close(Role::Outgoing);
                        let reason = "the attempt to connect timed out".to_owned();
                        self.actions.push_back(Action::Failed(Down {
                            reason,
                            cause: Cause::Lost,
                        }));
                    }
                    self.connect(now);
                }
                Timer::IdleHold => self.connect(now),
                Timer::Hold(role) => self.fail(now, role, Notification::hold_timer_expired()),
                Timer::Keepalive(role) => self.send_keepalive(now, role),
                Timer::Collision(role) => self.establish(now, role),
                Timer::SendHold => {
                    if let Some(role) = self
                        .established()
                        .and_then(|(serial, _)| self.role_of(serial))
                    {
                        let why = match self.send_hold_time() {
                            Some(hold) => {
                                format!("the peer read nothing for {} s", hold.as_secs())
                            }
                            None => "the peer reads nothing".to_owned(),
                        };
                        let notification = Notification::send_hold_timer_expired();
                        self.fail_because(now, role, notification, &why);
                    }
                }
            }
        }
    }

    /// The next thing to do, in order.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    // ===== connections =====

    fn slot(&self, role: Role) -> Option<&Connection> {
        self.connections[role as usize].as_ref()
    }

    fn role_of(&self, serial: Serial) -> Option<Role> {
        [Role::Outgoing, Role::Incoming]
            .into_iter()
            .find(|role| self.slot(*role).is_some_and(|c| c.serial == serial))
    }

    fn allocate(&mut self, role: Role, state: State) -> Serial {
        let serial = Serial(self.next_serial);
        self.next_serial = self.next_serial.wrapping_add(1);
        let connection = Connection {
            serial,
            state,
            negotiated: None,
            confirmed: false,
        };
        self.connections[role as usize] = Some(connection);
        serial
    }

    fn is_open(&self, role: Role) -> bool {
        self.slot(role).is_some_and(|c| c.state >= State::OpenSent)
    }

    /// Starts an attempt to connect, if one is called for.
    fn connect(&mut self, now: Instant) {
        if self.settings.passive
            || self.slot(Role::Outgoing).is_some()
            || self.is_open(Role::Incoming)
        {
            return;
        }
        let serial = self.allocate(Role::Outgoing, State::Connect);
        self.actions.push_back(Action::Connect(serial));
        // Also the longest time the attempt may take.
        self.start_retry(now, self.settings.connect_retry);
    }

    fn start_retry(&mut self, now: Instant, after: Duration) {
        let after = self.jitter.spread(after);
        self.timers.start(Timer::ConnectRetry, now, after);
    }

    fn send(&mut self, role: Role, message: Outgoing) {
        if let Some(serial) = self.slot(role).map(|c| c.serial) {
            self.actions.push_back(Action::Send(serial, message));
        }
    }

    fn close(&mut self, role: Role) {
        if let Some(connection) = self.connections[role as usize].take() {
            self.actions.push_back(Action::Close(connection.serial));
        }
        self.timers.stop_connection(role);
    }

    /// Closes a connection that lost a collision, or is made needless by one (RFC 4271 section 6.8).
    fn dump(&mut self, role: Role) {
        if self.is_open(role) {
            self.send(
                role,
                Outgoing::Notification(Notification::cease(Cease::ConnectionCollision)),
            );
        }
        self.close(role);
    }
}

/// The FSM error for a message that the state does not allow (RFC 6608).
fn unexpected(event: &ConnectionEvent, state: State) -> Notification {
    let kind = match event {
        ConnectionEvent::BgpOpen(_) => MessageType::Open,
        ConnectionEvent::KeepAliveMsg => MessageType::Keepalive,
        ConnectionEvent::RouteRefreshMsg => MessageType::RouteRefresh,
        _ => MessageType::Update,
    } as u8;
    match state {
        State::OpenConfirm => Notification::unexpected_in_open_confirm(kind),
        State::Established => Notification::unexpected_in_established(kind),
        _ => Notification::unexpected_in_open_sent(kind),
    }
}
