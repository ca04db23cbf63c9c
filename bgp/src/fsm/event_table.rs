//! The table of RFC 4271 section 8.2.2: every state, and every event that can reach it.
//!
//! Events that cannot: 3 to 7 are options of starting that are settings here; 8 is `Stop` or `MessageError`; 9, 12, 13 and 20
//! are timers that do not run in the state, or delay the OPEN, which nobody does; 14 and 15 end in `accept`; 17 is `accept`;
//! 23 is a collision (tested beside this).

use std::time::Duration;

use super::tests::{Bench, in_state, is_up, notification, open_of};
use super::*;
use crate::types::Asn;
use crate::wire::{Cease, Notification};

const SECOND: Duration = Duration::from_secs(1);

/// What happens, by its number in RFC 4271.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    ManualStart1,
    ManualStop2,
    ConnectRetryTimer9,
    HoldTimer10,
    KeepaliveTimer11,
    TcpAcknowledged16,
    TcpAccepted17,
    TcpFails18,
    Open19,
    HeaderError21,
    OpenError22,
    VersionError24,
    Notification25,
    Keepalive26,
    Update27,
    UpdateError28,
    WrongAs22,
}

use What::*;

/// A state machine in a state, and its connection if it has one.
fn at(state: State) -> (Bench, Option<Serial>) {
    let mut bench = Bench::new(false);
    match state {
        State::Idle => {
            bench
                .fsm
                .handle_event(bench.now, Event::Stop { notification: None });
            bench.actions();
            (bench, None)
        }
        State::Connect | State::Active => {
            let serial = match bench.actions()[..] {
                [Action::Connect(serial)] => serial,
                ref other => panic!("{other:?}"),
            };
            if state == State::Active {
                bench.event(
                    serial,
                    ConnectionEvent::TcpConnectionFails("refused".into()),
                );
                return (bench, None);
            }
            (bench, Some(serial))
        }
        _ => {
            let (bench, serial) = in_state(state);
            (bench, Some(serial))
        }
    }
}

/// Lets it happen; `None` if it cannot.
fn apply(bench: &mut Bench, serial: Option<Serial>, what: What) -> Option<Vec<Action>> {
    let event = match what {
        ManualStart1 | ManualStop2 => {
            let event = if what == ManualStart1 {
                Event::ManualStart
            } else {
                let notification = Some(Notification::cease(Cease::AdministrativeShutdown));
                Event::Stop { notification }
            };
            bench.fsm.handle_event(bench.now, event);
            return Some(bench.actions());
        }
        TcpAccepted17 => {
            bench.fsm.accept(bench.now);
            return Some(bench.actions());
        }
        ConnectRetryTimer9 => return Some(bench.wait().1),
        HoldTimer10 => {
            // Nobody answers, whatever else is due until then.
            for _ in 0..10 {
                let (_, actions) = bench.wait();
                if notification(&actions).is_some() {
                    return Some(actions);
                }
            }
            return None;
        }
        KeepaliveTimer11 => return Some(bench.wait().1),
        TcpAcknowledged16 => ConnectionEvent::TcpConnected,
        TcpFails18 => ConnectionEvent::TcpConnectionFails("reset".into()),
        Open19 => ConnectionEvent::BgpOpen(Box::new(open_of(1))),
        WrongAs22 => {
            let mut open = open_of(1);
            open.asn = Asn(1);
            ConnectionEvent::BgpOpen(Box::new(open))
        }
        HeaderError21 => ConnectionEvent::MessageError(Notification::bad_message_type(9)),
        OpenError22 => ConnectionEvent::MessageError(Notification::role_mismatch()),
        VersionError24 => ConnectionEvent::NotifMsg(Notification {
            code: 2,
            subcode: 1,
            data: vec![0, 4].into(),
        }),
        Notification25 => ConnectionEvent::NotifMsg(Notification::cease(Cease::OutOfResources)),
        Keepalive26 => ConnectionEvent::KeepAliveMsg,
        Update27 => ConnectionEvent::UpdateMsg,
        UpdateError28 => ConnectionEvent::MessageError(Notification::malformed_attribute_list()),
    };
    Some(bench.event(serial?, event))
}

#[test]
fn every_event_in_every_state() {
    use State::{Active, Connect, Established, Idle, OpenConfirm, OpenSent};
    // State, event, the NOTIFICATION it leads to, the state it leads to.
    for (state, what, sent, then) in [
        (Idle, ManualStart1, None, Connect),
        (Idle, ManualStop2, None, Idle),
        (Idle, TcpAccepted17, None, Idle),
        (Connect, ManualStart1, None, Connect),
        (Connect, ManualStop2, None, Idle),
        (Connect, ConnectRetryTimer9, None, Connect),
        (Connect, TcpAcknowledged16, None, OpenSent),
        (Connect, TcpAccepted17, None, OpenSent),
        (Connect, TcpFails18, None, Active),
        (Active, ManualStart1, None, Active),
        (Active, ManualStop2, None, Idle),
        (Active, ConnectRetryTimer9, None, Connect),
        (Active, TcpAccepted17, None, OpenSent),
        (OpenSent, ManualStart1, None, OpenSent),
        (OpenSent, ManualStop2, Some((6, 2)), Idle),
        (OpenSent, HoldTimer10, Some((4, 0)), Idle),
        (OpenSent, TcpAccepted17, None, OpenSent),
        (OpenSent, TcpFails18, None, Active),
        (OpenSent, Open19, None, OpenConfirm),
        (OpenSent, WrongAs22, Some((2, 2)), Idle),
        (OpenSent, HeaderError21, Some((1, 3)), Idle),
        (OpenSent, OpenError22, Some((2, 11)), Idle),
        (OpenSent, VersionError24, None, Idle),
        (OpenSent, Notification25, None, Active),
        (OpenSent, Keepalive26, Some((5, 1)), Idle),
        (OpenSent, Update27, Some((5, 1)), Idle),
        (OpenConfirm, ManualStart1, None, OpenConfirm),
        (OpenConfirm, ManualStop2, Some((6, 2)), Idle),
        (OpenConfirm, HoldTimer10, Some((4, 0)), Idle),
        (OpenConfirm, KeepaliveTimer11, None, OpenConfirm),
        (OpenConfirm, TcpAccepted17, None, OpenConfirm),
        (OpenConfirm, TcpFails18, None, Active),
        (OpenConfirm, Open19, Some((5, 2)), Idle),
        (OpenConfirm, HeaderError21, Some((1, 3)), Idle),
        (OpenConfirm, OpenError22, Some((2, 11)), Idle),
        (OpenConfirm, VersionError24, None, Idle),
        (OpenConfirm, Notification25, None, Active),
        (OpenConfirm, Keepalive26, None, Established),
        (OpenConfirm, Update27, Some((5, 2)), Idle),
        (Established, ManualStart1, None, Established),
        (Established, ManualStop2, Some((6, 2)), Idle),
        (Established, HoldTimer10, Some((4, 0)), Idle),
        (Established, KeepaliveTimer11, None, Established),
        (Established, TcpAccepted17, None, Established),
        (Established, TcpFails18, None, Active),
        (Established, Open19, Some((5, 3)), Idle),
        (Established, HeaderError21, Some((1, 3)), Idle),
        (Established, VersionError24, None, Idle),
        (Established, Notification25, None, Active),
        (Established, Keepalive26, None, Established),
        (Established, Update27, None, Established),
        (Established, UpdateError28, Some((3, 1)), Idle),
    ] {
        let (mut bench, serial) = at(state);
        assert_eq!(bench.fsm.state(), state);
        let actions = apply(&mut bench, serial, what);
        let actions = actions.unwrap_or_else(|| panic!("{state}: {what:?} did not happen"));
        let name = format!("{what:?} in {state}");
        assert_eq!(notification(&actions), sent, "{name}");
        assert_eq!(bench.fsm.state(), then, "{name}");
        let was_up = state == Established;
        let down = actions
            .iter()
            .any(|action| matches!(action, Action::Down(_)));
        assert_eq!(down, was_up && then != Established, "{name}");
        assert_eq!(is_up(&actions), !was_up && then == Established, "{name}");
        if what == KeepaliveTimer11 {
            let keepalive = |a: &Action| matches!(a, Action::Send(_, Outgoing::Keepalive));
            assert!(actions.iter().any(keepalive), "{name}");
        }
        // Whatever happened, a peer that is started has something to wait for: nothing ends for good.
        if what != ManualStop2 && state != Idle {
            assert!(bench.fsm.poll_timeout().is_some(), "{name}");
            let limit = bench.now + 120 * SECOND;
            assert!(bench.fsm.poll_timeout().is_some_and(|at| at <= limit));
        }
    }
}
