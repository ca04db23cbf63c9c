//! What does not fit a table: defects seen in other implementations, floods, and peers that never settle.
//!
//! The incidents that are a single message are in the tables, under the names they are known by.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use margay_bgp::speaker::daemon::Daemon;

use super::case::{
    ATTACKER, ATTACKER_ID, Case, Expect, From, OBSERVER, OBSERVER_ID, case, establish, plain,
    run_all, start,
};
use super::messages::{GOOD, VICTIM, as_path, attribute, message, update};
use super::peer::{Ended, Peer, prefix};

pub(crate) fn cases() -> Vec<Case> {
    let mut own = plain(From::External);
    own[1] = as_path(&[65001, 65000]);
    let both = [
        update(&[], &own, VICTIM),
        update(&[], &plain(From::External), VICTIM),
    ];
    let mut many = Vec::new();
    for third in 0..=255 {
        many.extend(update(&[], &plain(From::External), &[24, 10, 9, third]));
        many.extend(update(&[24, 10, 9, third], &[], &[]));
    }
    let mut medley = plain(From::External);
    medley.push(attribute(0x80, 4, &[0, 0, 0, 7]));
    vec![
        case(
            "rustybgp, GoBGP",
            "a route withdrawn by a loop comes back",
            both.concat(),
            Expect::Kept,
        ),
        case(
            "flap",
            "256 routes announced and withdrawn at once",
            many,
            Expect::Kept,
        ),
        case(
            "RFC 4271 4.3",
            "a MED from outside is not passed on",
            update(&[], &medley, VICTIM),
            Expect::Announced(|a| a.med.is_none()),
        ),
    ]
}

#[test]
fn known_incidents() {
    run_all(cases());
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A third peer's session is up and new routes get to it.
fn works(daemon: &Daemon, runtime: &tokio::runtime::Runtime, observer: &mut Peer) {
    let summary = runtime.block_on(daemon.speaker().summary()).unwrap();
    assert_eq!(summary.len(), 2);
    observer.drain();
    assert_eq!(observer.ended, None);
}

#[test]
fn a_message_in_single_octets_is_a_message() {
    let runtime = runtime();
    let (daemon, address) = start(&runtime, From::External);
    let mut observer = Peer::connect(OBSERVER.into(), address);
    observer.establish(&Peer::usual_open(65002, OBSERVER_ID), true);
    let mut attacker = Peer::connect(ATTACKER.into(), address);
    establish(&mut attacker, From::External);
    for octet in update(&[], &plain(From::External), GOOD) {
        attacker.send(&[octet]);
    }
    assert!(observer.wait_until(|peer| peer.routes.contains_key(&prefix("198.51.100.0/24"))));
    runtime.block_on(daemon.shutdown());
}

#[test]
fn strangers_and_silent_connections_do_not_starve_a_session() {
    let runtime = runtime();
    let (daemon, address) = start(&runtime, From::External);
    let mut observer = Peer::connect(OBSERVER.into(), address);
    observer.establish(&Peer::usual_open(65002, OBSERVER_ID), true);
    let began = Instant::now();
    let mut open = Vec::new();
    for index in 0..1000_u16 {
        // From 127.0.0.1, which is nobody's peer; every tenth stays open and says nothing.
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else {
            continue;
        };
        let _ = stream.write_all(&[0xff; 8]);
        if index % 10 == 0 {
            open.push(stream);
        }
    }
    let mut attacker = Peer::connect(ATTACKER.into(), address);
    establish(&mut attacker, From::External);
    attacker.send(&update(&[], &plain(From::External), GOOD));
    assert!(observer.wait_until(|peer| peer.routes.contains_key(&prefix("198.51.100.0/24"))));
    works(&daemon, &runtime, &mut observer);
    eprintln!("a thousand connections took {:?}", began.elapsed());
    runtime.block_on(daemon.shutdown());
}

#[test]
fn a_peer_that_connects_a_thousand_times_keeps_its_session() {
    let runtime = runtime();
    let (daemon, address) = start(&runtime, From::External);
    let mut attacker = Peer::connect(ATTACKER.into(), address);
    establish(&mut attacker, From::External);
    // A second connection beside one that works loses (RFC 4271 section 6.8).
    for _ in 0..1000 {
        let mut second = Peer::connect(ATTACKER.into(), address);
        second.send(&message(4, &[]));
    }
    attacker.send(&message(4, &[]));
    attacker.drain();
    assert_eq!(attacker.ended, None);
    runtime.block_on(daemon.shutdown());
}

#[test]
fn a_session_that_is_rebuilt_again_and_again_is_held_back_and_others_go_on() {
    let runtime = runtime();
    let (daemon, address) = start(&runtime, From::External);
    let mut observer = Peer::connect(OBSERVER.into(), address);
    observer.establish(&Peer::usual_open(65002, OBSERVER_ID), true);
    let end = Instant::now() + Duration::from_secs(4);
    let mut rounds = 0;
    while Instant::now() < end {
        let mut attacker = Peer::connect(ATTACKER.into(), address);
        attacker.send(&Peer::usual_open(65001, ATTACKER_ID));
        attacker.send(&message(4, &[]));
        attacker.send(&update(&[], &plain(From::External), VICTIM));
        // An error that ends the session.
        attacker.send(&message(99, &[]));
        if matches!(attacker.end(), Some(Ended::Notified(_))) {
            rounds += 1;
        }
    }
    assert!(rounds >= 1, "the session never came up");
    assert!(
        rounds <= 6,
        "{rounds} sessions in four seconds: nothing holds the peer back"
    );
    assert!(observer.wait_until(|peer| !peer.routes.contains_key(&prefix("203.0.113.0/24"))));
    works(&daemon, &runtime, &mut observer);
    runtime.block_on(daemon.shutdown());
}
