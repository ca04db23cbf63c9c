//! One peer as the router sees it: configuration, state machine, connections, session, counters.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::faults::FaultCounts;
use super::limits::Penalty;
use super::long_lived::LongLived;
use super::outbound::Membership;
use super::view::MessageCounts;
use super::{ConnectionId, Output, PeerId, Router};
use crate::config::PeerConfig;
use crate::fsm::{
    Action, Cause, Down, Negotiated, Outgoing, PeerFsm, PeerLongLived, PeerRestart, Serial, State,
};
use crate::observe::DownReason;
use crate::policy::RefusalCounts;
use crate::rib::{Neighbor, Source};
use crate::types::{Family, FamilySet, Prefix};
use crate::wire::{self, Context, Message, MessageType, SessionKind};

/// How long a peer that is back from a restart may take to send all its routes again.
const CONFIRM: Duration = Duration::from_secs(360);

/// A configured peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// What it is found by, see [`crate::types::peer_key`].
    pub(super) key: IpAddr,
    /// The range it came from, if it is not configured by address.
    pub(super) range: Option<Prefix>,
    pub(super) config: PeerConfig,
    /// In our AS.
    pub(super) internal: bool,
    pub(super) fsm: PeerFsm,
    /// The connections the state machine currently has, two at most.
    pub(super) lines: Vec<Line>,
    /// What there is only while the session is established.
    pub(super) session: Option<Session>,
    /// While the peer is away for a restart, and until it has confirmed its routes: when what is stale goes at the latest.
    pub(super) stale_until: Option<Instant>,
    /// What is kept beyond that.
    pub(super) long_lived: LongLived,
    /// A connection was tried since the speaker started and came to nothing, or a session was there and went.
    pub(super) tried: bool,
    /// More routes than it may send keep it down.
    pub(super) penalty: Option<Penalty>,
    /// The peer sends nearly as much as it may, or more.
    pub(super) warning: Option<String>,
    /// What was wrong with its UPDATEs.
    pub(super) faults: FaultCounts,
    pub(super) since: Instant,
    /// What BFD last said; without BFD nothing.
    pub(super) bfd_up: bool,
    /// One from a range that had to wait for BFD: when it is forgotten if it has not come back by then.
    pub(super) forget_at: Option<Instant>,
    /// The last NOTIFICATION either way.
    pub(super) last_notification: Option<String>,
    /// The last connection that ended or failed without one, if that was later.
    pub(super) last_failure: Option<String>,
    pub(super) flaps: u64,
    pub(super) received: MessageCounts,
    pub(super) sent: MessageCounts,
    /// Routes of the peer that were refused, each time they were decided on.
    pub(super) refused: RefusalCounts,
    /// The state that monitors know of.
    pub(super) reported: State,
    /// How the session is about to end, for monitors.
    pub(super) ending: Option<DownReason>,
}

/// One TCP connection of a peer.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) serial: Serial,
    pub(super) local: Option<IpAddr>,
    /// The peer's port, and ours.
    pub(super) ports: (u16, u16),
    /// The OPENs of the connection, ours and the peer's, for monitors that come later.
    pub(super) opens: (Bytes, Bytes),
    /// Received, not yet a whole message.
    pub(super) input: BytesMut,
    /// Messages of the state machine, to be sent before any route.
    pub(super) control: BytesMut,
    /// The owner knows that there is something to send.
    armed: bool,
}

/// An established session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) serial: Serial,
    pub(super) negotiated: Box<Negotiated>,
    pub(super) context: Context,
    /// Our address on the connection.
    pub(super) local: IpAddr,
    /// The peer's port on it, and ours.
    pub(super) ports: (u16, u16),
    /// Its place among those that are told of routes; there from the start, but for the moment it is made.
    pub(super) membership: Option<Membership>,
    pub(super) end_of_rib_sent: FamilySet,
    pub(super) end_of_rib_received: FamilySet,
    /// Families the peer is sending again, and when it is late with the end of that (RFC 7313).
    pub(super) refreshed_by_peer: BTreeMap<Family, Instant>,
}

impl PeerId {
    /// The peer as a source of routes.
    pub(super) fn source(self) -> Source {
        Source(self.0)
    }
}

impl Peer {
    pub(super) fn add_line(&mut self, serial: Serial, local: Option<IpAddr>, ports: (u16, u16)) {
        self.lines.reserve_exact(1);
        self.lines.push(Line {
            serial,
            local,
            ports,
            opens: Default::default(),
            input: BytesMut::new(),
            control: BytesMut::new(),
            armed: false,
        });
    }

    pub(super) fn line_mut(&mut self, serial: Serial) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.serial == serial)
    }

    /// The session, if it runs on this connection.
    pub(super) fn session_on(&self, serial: Serial) -> Option<&Session> {
        self.session
            .as_ref()
            .filter(|session| session.serial == serial)
    }

    /// What decides how octets on this connection are read.
    pub(super) fn context_on(&self, serial: Serial) -> Context {
        match self.session_on(serial) {
            Some(session) => session.context,
            None => Context {
                session: self.kind(),
                ..Context::default()
            },
        }
    }

    /// A peer in another AS is a neighbour on the link unless configured otherwise (RFC 4271 section 5.1.3).
    pub(super) fn ttl(&self) -> u8 {
        if self.config.security.ttl_security.is_some() {
            return 255;
        }
        self.config
            .ttl
            .unwrap_or(if self.internal { 64 } else { 1 })
    }

    pub(super) fn kind(&self) -> SessionKind {
        if self.internal {
            SessionKind::Internal
        } else {
            SessionKind::External
        }
    }

    /// Where to connect to, with the interface if the address needs one.
    fn socket_address(&self) -> SocketAddr {
        match self.address {
            IpAddr::V4(_) => (self.address, self.config.port).into(),
            IpAddr::V6(address) => {
                SocketAddrV6::new(address, self.config.port, 0, self.config.scope).into()
            }
        }
    }

    /// It insists on BFD, which is not up.
    pub(super) fn waits_for_bfd(&self) -> bool {
        !self.bfd_up && self.config.bfd.is_some_and(|bfd| bfd.strict)
    }

    /// Notes that there is something to send; true if the owner has to be told.
    pub(super) fn arm(&mut self, serial: Serial) -> bool {
        self.line_mut(serial)
            .is_some_and(|line| !std::mem::replace(&mut line.armed, true))
    }

    /// Notes that there is nothing to send any more.
    pub(super) fn disarm(&mut self, serial: Serial) {
        if let Some(line) = self.line_mut(serial) {
            line.armed = false;
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [
            self.fsm.poll_timeout(),
            self.stale_until,
            self.long_lived.poll_timeout(),
            self.refresh_timeout(),
            self.penalty.and_then(|penalty| penalty.until),
            self.forget_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Until when it is left alone.
    pub(super) fn held_until(&self) -> Option<Instant> {
        let penalty = self.penalty.and_then(|penalty| penalty.until);
        penalty.or(self.fsm.held_until())
    }

    fn note(&mut self, down: Down) {
        self.tried = true;
        if down.cause == Cause::Lost {
            self.last_failure = Some(down.reason);
        } else {
            self.last_notification = Some(down.reason);
            self.last_failure = None;
        }
    }

    /// Says more about the last failure, unless it has been said already.
    pub(super) fn add_hint(&mut self, hint: &str) {
        if self.session.is_some() {
            return;
        }
        match &mut self.last_failure {
            Some(failure) if !failure.contains(hint) => {
                failure.push_str("; ");
                failure.push_str(hint);
            }
            Some(_) => {}
            None => self.last_failure = Some(hint.to_owned()),
        }
    }

    /// Why there is no session, for people. A peer that says why it goes is mostly not there for a while afterwards; that must
    /// not hide what it said.
    pub(super) fn last_error(&self) -> Option<String> {
        if self.session.is_none() && self.waits_for_bfd() {
            return Some("waits for BFD to come up, as bfd.strict asks".to_owned());
        }
        match (&self.last_failure, &self.last_notification) {
            (Some(failure), Some(said)) => Some(format!("{failure}; before that: {said}")),
            (failure, said) => failure.clone().or_else(|| said.clone()),
        }
    }

    fn context_of(&self, negotiated: &Negotiated) -> Context {
        Context {
            four_octet_asn: negotiated.four_octet_asn,
            families: negotiated.families,
            extended_messages: negotiated.extended_messages,
            extended_next_hop: negotiated.extended_next_hop,
            add_path_receive: negotiated.add_path_receive,
            add_path_send: negotiated.add_path_send,
            session: self.kind(),
        }
    }
}

impl MessageCounts {
    pub(super) fn count(&mut self, kind: MessageType) {
        match kind {
            MessageType::Open => self.open += 1,
            MessageType::Update => self.update += 1,
            MessageType::Notification => self.notification += 1,
            MessageType::Keepalive => self.keepalive += 1,
            MessageType::RouteRefresh => self.route_refresh += 1,
        }
    }
}

impl Router {
    /// Does what a peer's state machine asks for.
    pub(super) fn drain(&mut self, now: Instant, id: PeerId) {
        while let Some(action) = self
            .peers
            .get_mut(&id)
            .and_then(|peer| peer.fsm.poll_action())
        {
            self.perform(now, id, action);
        }
        self.observe_state(id);
        self.forget_if_over(id);
        self.reconsider_deferral(now);
    }

    fn perform(&mut self, now: Instant, id: PeerId, action: Action) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        match action {
            Action::Connect(serial) => {
                peer.add_line(serial, None, (peer.config.port, 0));
                self.outputs.push_back(Output::Connect {
                    connection: ConnectionId { peer: id, serial },
                    remote: peer.socket_address(),
                    local: peer.config.local_address,
                    ttl: peer.ttl(),
                });
            }
            Action::Send(serial, message) => {
                let context = peer.context_on(serial);
                let message = match message {
                    Outgoing::Open(open) => Message::Open(*open),
                    Outgoing::Keepalive => Message::Keepalive,
                    Outgoing::Notification(notification) => Message::Notification(notification),
                };
                peer.sent.count(message.kind());
                let Some(line) = peer.line_mut(serial) else {
                    return;
                };
                let start = line.control.len();
                // Of these only an OPEN can be too long, with more capabilities than there are.
                let _ = wire::encode(&message, &context, &mut line.control);
                if message.kind() == MessageType::Open {
                    let sent = line.control.get(start..).unwrap_or_default();
                    line.opens.0 = Bytes::copy_from_slice(sent);
                }
                if peer.arm(serial) {
                    self.outputs
                        .push_back(Output::Transmit(ConnectionId { peer: id, serial }));
                }
                if let Message::Notification(notification) = message {
                    self.note_notification(id, serial, DownReason::Sent(notification));
                }
            }
            Action::Close(serial) => {
                let Some(at) = peer.lines.iter().position(|line| line.serial == serial) else {
                    return;
                };
                let line = peer.lines.swap_remove(at);
                self.observe_last(id, &line);
                let last = line.control.freeze();
                let connection = ConnectionId { peer: id, serial };
                self.outputs.push_back(Output::Close { connection, last });
            }
            Action::Established(serial, negotiated) => self.establish(now, id, serial, negotiated),
            Action::Down(down) => {
                let cause = down.cause;
                peer.note(down);
                peer.since = now;
                peer.flaps += 1;
                self.observe_down(id);
                self.end_session(now, id, cause);
            }
            Action::Failed(down) => peer.note(down),
        }
    }

    fn establish(&mut self, now: Instant, id: PeerId, serial: Serial, negotiated: Box<Negotiated>) {
        // What is still being done about its last session must not meet the routes of this one.
        self.finish(id);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(line) = peer.line_mut(serial) else {
            return;
        };
        let ports = line.ports;
        let Some(local) = line.local else {
            return;
        };
        let neighbor = Neighbor {
            address: peer.address,
            router_id: negotiated.peer_id,
            internal: peer.internal,
            client: peer.config.policy.route_reflector_client,
            scope: peer.config.scope,
        };
        // Only the OPEN tells for a peer whose AS was not named.
        peer.internal = negotiated.internal;
        let neighbor = Neighbor {
            internal: negotiated.internal,
            ..neighbor
        };
        let restart = negotiated.graceful_restart;
        let long_lived = negotiated.long_lived.clone();
        self.rib.add_source(id.source(), neighbor);
        self.epoch = self.epoch.wrapping_add(1);
        peer.since = now;
        // From here on the last error is why the session was down before, whatever it was.
        peer.last_failure = peer.last_notification.take().or(peer.last_failure.take());
        peer.session = Some(Session {
            serial,
            context: peer.context_of(&negotiated),
            negotiated,
            local,
            ports,
            membership: None,
            end_of_rib_sent: FamilySet::EMPTY,
            end_of_rib_received: FamilySet::EMPTY,
            refreshed_by_peer: BTreeMap::new(),
        });
        self.observe_up(id);
        self.enter_group(id);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.arm(serial) {
            self.outputs
                .push_back(Output::Transmit(ConnectionId { peer: id, serial }));
        }
        self.confirm_restart(now, id, restart, long_lived);
    }

    /// The peer is back: what it did not keep forwarding for is gone (RFC 4724 section 4.2), the rest has to be confirmed.
    /// For what is kept beyond the restart time its long-lived capability has to say so (RFC 9494 section 4.2).
    fn confirm_restart(
        &mut self,
        now: Instant,
        id: PeerId,
        restart: Option<PeerRestart>,
        long_lived: Option<PeerLongLived>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.stale_until.is_none() && peer.long_lived.kept().is_empty() {
            return;
        }
        peer.stale_until = now.checked_add(CONFIRM);
        let carried = peer
            .session
            .as_ref()
            .map_or(FamilySet::EMPTY, |s| s.negotiated.families);
        let forwarding = restart.map_or(FamilySet::EMPTY, |restart| restart.forwarding);
        let longer = long_lived.map_or(FamilySet::EMPTY, |longer| longer.forwarding);
        let mut lost = FamilySet::EMPTY;
        for family in Family::ALL {
            let says = if peer.long_lived.keeps(family) {
                longer
            } else {
                forwarding
            };
            if !says.intersection(carried).contains(family) {
                peer.long_lived.release(family);
                lost.insert(family);
            }
        }
        self.sweep(id, lost);
    }

    /// The session is over. Its routes go with it, unless the peer may be restarting (RFC 4724 section 4.2).
    fn end_session(&mut self, now: Instant, id: PeerId, cause: Cause) {
        self.finish_reconsidering(id);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(mut session) = peer.session.take() else {
            return;
        };
        let restart = session
            .negotiated
            .graceful_restart
            .filter(|restart| match cause {
                Cause::Lost => true,
                Cause::Notified => restart.notification,
                Cause::Final => false,
            });
        // Long-lived graceful restart is for the same ends of a session (RFC 9494 section 4.2).
        let longer = session.negotiated.long_lived.as_ref();
        let ended = peer.long_lived.agree(longer.filter(|_| restart.is_some()));
        let at_all = |family: &Family| !ended.contains(*family);
        let families = session.negotiated.families;
        let restarts = restart.filter(|restart| !restart.time.is_zero());
        let kept = restarts.map_or(FamilySet::EMPTY, |restart| {
            let families = restart.families.intersection(families);
            families.iter().filter(at_all).collect()
        });
        peer.stale_until = restarts
            .filter(|_| !kept.is_empty())
            .and_then(|restart| now.checked_add(restart.time));
        let longer = peer.long_lived.families();
        let all = kept.iter().chain(longer.iter()).collect::<FamilySet>();
        for family in Family::ALL.into_iter().filter(|f| !all.contains(*f)) {
            peer.long_lived.release(family);
        }
        if let Some(membership) = session.membership.take() {
            self.leave_group(id, membership);
        }
        if all.is_empty() {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.long_lived.clear();
            }
            return self.remove_routes(id);
        }
        let task = self.rib.retention(id.source(), all);
        self.begin(task);
        let at_once = longer.iter().filter(|family| !kept.contains(*family));
        self.keep_longer(now, id, at_once.collect());
    }

    /// Takes out what is stale of these families.
    pub(super) fn sweep(&mut self, id: PeerId, families: FamilySet) {
        self.observe_sweep(id, families);
        let task = self.rib.sweeping(id.source(), families);
        self.begin(task);
    }

    /// Takes out all of a peer that is not there.
    pub(super) fn remove_routes(&mut self, id: PeerId) {
        let task = self.rib.removal(id.source());
        self.begin(task);
    }

    /// The peer did not come back in time, or did not confirm its routes in time.
    pub(super) fn end_stale(&mut self, now: Instant, id: PeerId) {
        match self.peers.get(&id).map(|peer| peer.session.is_some()) {
            Some(false) => self.end_restart_time(now, id),
            _ => self.end_restart(id),
        }
    }

    /// Nothing is kept for the peer any longer: what is stale goes, whatever was agreed on.
    pub(super) fn end_restart(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let longer = !peer.long_lived.kept().is_empty();
        peer.long_lived.clear();
        if peer.stale_until.take().is_none() && !longer {
            return;
        }
        if let Some(session) = &peer.session {
            // What is being refreshed is stale for another reason, and has its own time.
            let late = Family::ALL
                .into_iter()
                .filter(|family| !session.refreshed_by_peer.contains_key(family))
                .collect();
            return self.sweep(id, late);
        }
        self.remove_routes(id);
    }
}
