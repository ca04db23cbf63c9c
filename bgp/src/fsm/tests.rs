//! One state machine, event by event.

use std::time::{Duration, Instant};

use super::open::build;
use super::*;
use crate::config::AddPath;
use crate::jitter::Jitter;
use crate::types::{Asn, FamilySet, RouterId};
use crate::wire::{Cease, Notification, Open};

const SECOND: Duration = Duration::from_secs(1);

fn settings(id: u32, asn: u32, peer: u32) -> Settings {
    Settings {
        local_asn: Asn(asn),
        router_id: RouterId(id),
        peer_asn: Asn(peer).into(),
        passive: false,
        hold_time: 90,
        keepalive: None,
        send_hold: None,
        connect_retry: 5 * SECOND,
        families: FamilySet::ALL,
        graceful_restart: None,
        helps_restart: false,
        add_path: AddPath::default(),
        extended_next_hop: false,
        role: None,
        role_strict: false,
    }
}

/// The OPEN of a peer with this identifier.
pub(super) fn open_of(id: u32) -> Open {
    build(&settings(id, 64513, 64512))
}

/// A state machine with identifier 5 in AS 64512, and its clock.
pub(super) struct Bench {
    pub(super) fsm: PeerFsm,
    pub(super) now: Instant,
}

impl Bench {
    pub(super) fn new(passive: bool) -> Self {
        let settings = Settings {
            passive,
            ..settings(5, 64512, 64513)
        };
        let mut fsm = PeerFsm::new(settings, Jitter::new(1));
        let now = Instant::now();
        fsm.handle_event(now, Event::ManualStart);
        Self { fsm, now }
    }

    pub(super) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.fsm.poll_action()).collect()
    }

    pub(super) fn event(&mut self, serial: Serial, event: ConnectionEvent) -> Vec<Action> {
        self.fsm.handle_connection_event(self.now, serial, event);
        self.actions()
    }

    fn open(&mut self, serial: Serial, id: u32) -> Vec<Action> {
        self.event(serial, ConnectionEvent::BgpOpen(Box::new(open_of(id))))
    }

    pub(super) fn accept(&mut self) -> Option<Serial> {
        let accepted = self.fsm.accept(self.now);
        self.actions();
        accepted
    }

    /// Jumps to the next timer, and returns how long that took and what it led to.
    pub(super) fn wait(&mut self) -> (Duration, Vec<Action>) {
        let at = self.fsm.poll_timeout().unwrap();
        let took = at - self.now;
        self.now = at;
        self.fsm.handle_timeout(at);
        (took, self.actions())
    }

    /// The outgoing connection, just opened.
    fn connected(&mut self) -> Serial {
        let serial = match self.actions()[..] {
            [Action::Connect(serial)] => serial,
            ref other => panic!("{other:?}"),
        };
        self.event(serial, ConnectionEvent::TcpConnected);
        serial
    }
}

pub(super) fn notification(actions: &[Action]) -> Option<(u8, u8)> {
    actions.iter().find_map(|action| match action {
        Action::Send(_, Outgoing::Notification(n)) => Some((n.code, n.subcode)),
        _ => None,
    })
}

fn closed(actions: &[Action]) -> Vec<Serial> {
    let closed = |action: &Action| match action {
        Action::Close(serial) => Some(*serial),
        _ => None,
    };
    actions.iter().filter_map(closed).collect()
}

pub(super) fn is_up(actions: &[Action]) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::Established(..)))
}

/// The states a connection goes through, by the events that lead to them.
pub(super) fn in_state(state: State) -> (Bench, Serial) {
    let mut bench = Bench::new(false);
    let serial = bench.connected();
    if state >= State::OpenConfirm {
        bench.open(serial, 1);
    }
    if state == State::Established {
        assert!(is_up(&bench.event(serial, ConnectionEvent::KeepAliveMsg)));
    }
    assert_eq!(bench.fsm.state(), state);
    (bench, serial)
}

#[test]
fn unexpected_messages_are_answered_by_state() {
    use State::{Established, OpenConfirm, OpenSent};
    let open = || ConnectionEvent::BgpOpen(Box::new(open_of(1)));
    for (state, event, expected) in [
        (OpenSent, ConnectionEvent::KeepAliveMsg, (5, 1)),
        (OpenSent, ConnectionEvent::UpdateMsg, (5, 1)),
        (OpenSent, ConnectionEvent::RouteRefreshMsg, (5, 1)),
        (OpenConfirm, open(), (5, 2)),
        (OpenConfirm, ConnectionEvent::UpdateMsg, (5, 2)),
        (Established, open(), (5, 3)),
        (
            OpenSent,
            ConnectionEvent::MessageError(Notification::bad_message_type(9)),
            (1, 3),
        ),
        (
            Established,
            ConnectionEvent::MessageError(Notification::malformed_attribute_list()),
            (3, 1),
        ),
    ] {
        let (mut bench, serial) = in_state(state);
        let actions = bench.event(serial, event);
        assert_eq!(notification(&actions), Some(expected), "{state}");
        assert_eq!(closed(&actions), [serial]);
        assert_eq!(bench.fsm.state(), State::Idle);
        let down = actions.iter().any(|a| matches!(a, Action::Down(_)));
        assert_eq!(down, state == Established);
    }
}

#[test]
fn established_survives_what_belongs_there() {
    let (mut bench, serial) = in_state(State::Established);
    for event in [
        ConnectionEvent::UpdateMsg,
        ConnectionEvent::KeepAliveMsg,
        ConnectionEvent::RouteRefreshMsg,
        ConnectionEvent::TcpConnected,
    ] {
        assert!(bench.event(serial, event).is_empty());
    }
    // Late news of a connection that never was, or is no more.
    assert!(
        bench
            .event(Serial(77), ConnectionEvent::KeepAliveMsg)
            .is_empty()
    );
    assert_eq!(bench.fsm.state(), State::Established);
}

#[test]
fn the_hold_timer_is_exact_in_every_state() {
    for (state, expected) in [
        (State::OpenSent, 60),
        (State::OpenConfirm, 90),
        (State::Established, 90),
    ] {
        let (mut bench, serial) = in_state(state);
        let start = bench.now;
        loop {
            let (_, actions) = bench.wait();
            if notification(&actions) == Some((4, 0)) {
                assert_eq!(closed(&actions), [serial]);
                break;
            }
        }
        assert_eq!(bench.now - start, expected * SECOND, "{state}");
    }
}

#[test]
fn keepalives_come_at_a_third_of_the_hold_time_or_a_bit_earlier() {
    let (mut bench, serial) = in_state(State::Established);
    for _ in 0..50 {
        bench.event(serial, ConnectionEvent::KeepAliveMsg);
        let (took, actions) = bench.wait();
        assert!(matches!(
            actions[..],
            [Action::Send(_, Outgoing::Keepalive)]
        ));
        assert!(took > 22 * SECOND && took <= 30 * SECOND, "{took:?}");
    }
}

#[test]
fn the_connection_opened_by_the_higher_identifier_survives() {
    // Ours is 5. With the peer's lower, our connection stays; with the peer's higher, the peer's.
    for (peer, ours_survives) in [(1, true), (9, false)] {
        for ours_first in [true, false] {
            let mut bench = Bench::new(false);
            let outgoing = bench.connected();
            let incoming = bench.accept().unwrap();
            let order = if ours_first {
                [outgoing, incoming]
            } else {
                [incoming, outgoing]
            };
            let mut actions = bench.open(order[0], peer);
            assert!(
                closed(&actions).is_empty(),
                "undecided until the second OPEN"
            );
            actions.extend(bench.open(order[1], peer));
            let (winner, loser) = if ours_survives {
                (outgoing, incoming)
            } else {
                (incoming, outgoing)
            };
            assert_eq!(closed(&actions), [loser], "{peer} {ours_first}");
            assert_eq!(notification(&actions), Some((6, 7)));
            assert!(is_up(&bench.event(winner, ConnectionEvent::KeepAliveMsg)));
        }
    }
}

#[test]
fn equal_identifiers_in_two_ases_are_decided_by_the_as() {
    // The peer's AS is the higher one.
    let mut bench = Bench::new(false);
    let outgoing = bench.connected();
    let incoming = bench.accept().unwrap();
    bench.open(outgoing, 5);
    assert_eq!(closed(&bench.open(incoming, 5)), [outgoing]);
}

#[test]
fn a_finished_exchange_waits_for_the_preferred_connection_but_not_for_ever() {
    let mut bench = Bench::new(false);
    let outgoing = bench.connected();
    let incoming = bench.accept().unwrap();
    // The peer's identifier is higher: its own connection is the one to survive, and its OPEN is still under way.
    bench.open(outgoing, 9);
    assert!(!is_up(
        &bench.event(outgoing, ConnectionEvent::KeepAliveMsg)
    ));
    let (took, actions) = bench.wait();
    assert_eq!(took, SECOND);
    assert!(is_up(&actions));
    assert_eq!(closed(&actions), [incoming]);
}

#[test]
fn a_finished_exchange_goes_up_at_once_when_the_other_connection_dies() {
    let mut bench = Bench::new(false);
    let outgoing = bench.connected();
    let incoming = bench.accept().unwrap();
    bench.open(outgoing, 9);
    bench.event(outgoing, ConnectionEvent::KeepAliveMsg);
    let gone = ConnectionEvent::TcpConnectionFails("reset".to_owned());
    assert!(is_up(&bench.event(incoming, gone)));
}

#[test]
fn a_peer_that_sends_routes_has_decided_the_collision() {
    let mut bench = Bench::new(false);
    let outgoing = bench.connected();
    let incoming = bench.accept().unwrap();
    bench.open(outgoing, 9);
    bench.event(outgoing, ConnectionEvent::KeepAliveMsg);
    let actions = bench.event(outgoing, ConnectionEvent::UpdateMsg);
    assert!(is_up(&actions));
    assert_eq!(closed(&actions), [incoming]);
}

#[test]
fn a_second_connection_loses_against_an_established_session() {
    let (mut bench, _) = in_state(State::Established);
    assert_eq!(bench.accept(), None);
    assert_eq!(bench.fsm.state(), State::Established);
}

#[test]
fn with_a_new_key_a_second_connection_wins_unless_the_old_one_is_alive() {
    let (mut bench, old) = in_state(State::Established);
    bench.fsm.handle_new_key();
    bench.event(old, ConnectionEvent::KeepAliveMsg);
    assert_eq!(bench.accept(), None, "it was heard with the new key");
    bench.fsm.handle_new_key();
    let new = bench.accept().unwrap();
    assert_ne!(old, new);
    assert_eq!(bench.fsm.state(), State::OpenSent);
}

#[test]
fn a_newer_silent_connection_replaces_an_older_one() {
    let mut bench = Bench::new(true);
    let older = bench.accept().unwrap();
    let newer = bench.fsm.accept(bench.now).unwrap();
    assert_eq!(closed(&bench.actions()), [older]);
    bench.open(newer, 1);
    assert_eq!(bench.accept(), None, "this one is getting somewhere");
    assert!(is_up(&bench.event(newer, ConnectionEvent::KeepAliveMsg)));
}

#[test]
fn failed_attempts_are_repeated_every_few_seconds() {
    let mut bench = Bench::new(false);
    for _ in 0..20 {
        let serial = match bench.actions()[..] {
            [.., Action::Connect(serial)] => serial,
            ref other => panic!("{other:?}"),
        };
        let refused = ConnectionEvent::TcpConnectionFails("refused".to_owned());
        bench.event(serial, refused);
        assert_eq!(bench.fsm.state(), State::Active);
        let at = bench.fsm.poll_timeout().unwrap();
        let took = at - bench.now;
        assert!(took >= 15 * SECOND / 4 && took <= 5 * SECOND, "{took:?}");
        bench.now = at;
        bench.fsm.handle_timeout(at);
    }
}

#[test]
fn errors_in_a_row_wait_longer_and_refuse_connections_meanwhile() {
    let mut bench = Bench::new(false);
    let mut serial = bench.connected();
    for expected in [1, 2, 4, 8, 16, 30, 30, 30] {
        let mut wrong = open_of(1);
        wrong.asn = Asn(1);
        let actions = bench.event(serial, ConnectionEvent::BgpOpen(Box::new(wrong)));
        assert_eq!(notification(&actions), Some((2, 2)));
        assert_eq!(bench.accept(), None);
        let (took, actions) = bench.wait();
        assert!(
            took >= expected * SECOND * 3 / 4 && took <= expected * SECOND,
            "{took:?}"
        );
        serial = match actions[..] {
            [Action::Connect(serial)] => serial,
            ref other => panic!("{other:?}"),
        };
        bench.event(serial, ConnectionEvent::TcpConnected);
    }
}

#[test]
fn a_peer_that_flaps_each_second_is_held_off_longer_and_longer() {
    let mut bench = Bench::new(true);
    let mut refused = 0;
    let mut sessions = 0;
    for _ in 0..600 {
        bench.now += SECOND;
        if bench.fsm.poll_timeout().is_some_and(|at| at <= bench.now) {
            bench.fsm.handle_timeout(bench.now);
        }
        let Some(serial) = bench.accept() else {
            refused += 1;
            continue;
        };
        bench.open(serial, 1);
        assert!(is_up(&bench.event(serial, ConnectionEvent::KeepAliveMsg)));
        let lost = ConnectionEvent::TcpConnectionFails("reset".to_owned());
        bench.event(serial, lost);
        sessions += 1;
    }
    assert!((20..40).contains(&sessions), "{sessions}");
    assert!(refused > 500);
    // One session that lasts, and all is forgotten.
    bench.now += 31 * SECOND;
    bench.fsm.handle_timeout(bench.now);
    let serial = bench.accept().unwrap();
    bench.open(serial, 1);
    bench.event(serial, ConnectionEvent::KeepAliveMsg);
    bench.now += 61 * SECOND;
    let lost = ConnectionEvent::TcpConnectionFails("reset".to_owned());
    bench.event(serial, lost);
    assert!(bench.accept().is_some());
}

#[test]
fn cease_is_no_reason_to_wait_in_idle() {
    let (mut bench, serial) = in_state(State::Established);
    let cease = Notification::cease(Cease::AdministrativeReset);
    let actions = bench.event(serial, ConnectionEvent::NotifMsg(cease));
    assert_eq!(closed(&actions), [serial]);
    assert_eq!(bench.fsm.state(), State::Active);
    assert!(bench.accept().is_some());
}

#[test]
fn a_peer_that_reads_nothing_is_dropped_in_the_end() {
    let (mut bench, serial) = in_state(State::Established);
    let start = bench.now;
    bench.fsm.handle_transmit(bench.now, true);
    loop {
        bench.event(serial, ConnectionEvent::KeepAliveMsg);
        let (_, actions) = bench.wait();
        if let Some(sent) = notification(&actions) {
            assert_eq!(sent, (8, 0));
            break;
        }
    }
    assert_eq!(bench.now - start, 8 * 60 * SECOND);
}

#[test]
fn stopping_says_why_or_nothing() {
    for said in [None, Some(Notification::cease(Cease::PeerDeconfigured))] {
        let (mut bench, serial) = in_state(State::Established);
        bench.fsm.handle_event(
            bench.now,
            Event::Stop {
                notification: said.clone(),
            },
        );
        let actions = bench.actions();
        assert_eq!(
            notification(&actions),
            said.as_ref().map(|n| (n.code, n.subcode))
        );
        assert_eq!(closed(&actions), [serial]);
        let cause = actions.iter().find_map(|a| match a {
            Action::Down(down) => Some(down.cause),
            _ => None,
        });
        let expected = if said.is_none() {
            Cause::Lost
        } else {
            Cause::Final
        };
        assert_eq!(cause, Some(expected));
        assert_eq!(bench.fsm.poll_timeout(), None);
        assert_eq!(bench.accept(), None);
    }
}
