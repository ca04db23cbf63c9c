//! Connections by the thousand, and peers that come and go.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use margay_bgp::fsm::State;
use serde_json::json;

use super::case::{ATTACKER, ATTACKER_ID, From, OBSERVER, OBSERVER_ID, plain, start, start_with};
use super::incidents::runtime;
use super::messages::{GOOD, as_path, message, update};
use super::peer::{PATIENCE, Peer, prefix, socket};

/// Connections a second from each of two sources.
const RATE: u32 = 500;
const TIME: Duration = Duration::from_secs(5);
/// Descriptors of the whole process, both ends of every connection among them.
const DESCRIPTORS: usize = 300;

/// Opens connections at a rate until told to stop; some say nothing for a while, others go at once.
fn flood(from: IpAddr, to: SocketAddr, stop: &AtomicBool, opened: &AtomicU32) {
    let began = Instant::now();
    let mut held = std::collections::VecDeque::<TcpStream>::new();
    for count in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let socket = socket(from);
        let _ = socket.set_linger(Some(Duration::ZERO));
        if socket
            .connect_timeout(&to.into(), Duration::from_millis(100))
            .is_ok()
        {
            opened.fetch_add(1, Ordering::Relaxed);
            held.push_back(socket.into());
        }
        if held.len() > 20 {
            held.pop_front();
        }
        let next = began + Duration::from_secs(1) * (count + 1) / RATE;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

#[test]
fn a_thousand_connections_a_second_leave_a_session_with_a_hold_time_of_3_s_alone() {
    let runtime = runtime();
    let (daemon, address) = start_with(&runtime, From::External, json!({}));
    let mut observer = Peer::connect(OBSERVER.into(), address);
    observer.establish(&Peer::short_open(65002, OBSERVER_ID), true);
    let (stop, opened) = (AtomicBool::new(false), AtomicU32::new(0));
    let most = std::thread::scope(|scope| {
        for from in [IpAddr::from([127, 0, 0, 1]), ATTACKER.into()] {
            let (stop, opened) = (&stop, &opened);
            scope.spawn(move || flood(from, address, stop, opened));
        }
        let began = Instant::now();
        let mut most = 0;
        while began.elapsed() < TIME {
            observer.send(&message(4, &[]));
            observer.drain();
            let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
            most = most.max(open);
            std::thread::sleep(Duration::from_millis(200));
        }
        stop.store(true, Ordering::Relaxed);
        most
    });
    let opened = opened.into_inner();
    eprintln!("{opened} connections in {TIME:?}, {most} descriptors at most");
    assert_eq!(observer.ended, None);
    assert!(opened > 2000, "only {opened} connections were opened");
    assert!(most < DESCRIPTORS, "{most} descriptors");
    let lines = runtime.block_on(daemon.speaker().summary()).unwrap();
    assert_eq!((lines[1].state, lines[1].flaps), (State::Established, 0));
    // And the peer in whose name the flood came has its session as soon as it is over.
    let began = Instant::now();
    let mut attacker = loop {
        let mut attacker = Peer::connect(ATTACKER.into(), address);
        if attacker.try_establish(&Peer::usual_open(65001, ATTACKER_ID)) {
            break attacker;
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", attacker.ended);
        std::thread::sleep(Duration::from_millis(100));
    };
    attacker.send(&update(&[], &plain(From::External), GOOD));
    assert!(observer.wait_until(|peer| peer.routes.contains_key(&prefix("198.51.100.0/24"))));
    runtime.block_on(daemon.shutdown());
}

#[test]
fn connections_of_one_address_are_limited() {
    let runtime = runtime();
    let (daemon, address) = start(&runtime, From::External);
    // The kernel accepts them all; those beyond the limit, and those that others take the place of, are closed.
    let mut streams: Vec<_> = (0..40)
        .map(|_| Peer::connect(ATTACKER.into(), address))
        .collect();
    let began = Instant::now();
    while streams
        .iter_mut()
        .filter(|peer| peer.ended.is_none())
        .count()
        > 1
    {
        for peer in &mut streams {
            peer.drain();
        }
        assert!(began.elapsed() < PATIENCE, "too many are open");
    }
    runtime.block_on(daemon.shutdown());
}

#[test]
fn a_peer_that_flaps_is_held_off_and_its_state_says_until_when() {
    let runtime = runtime();
    let (daemon, address) = start(&runtime, From::External);
    let mut observer = Peer::connect(OBSERVER.into(), address);
    observer.establish(&Peer::usual_open(65002, OBSERVER_ID), true);
    let mut sessions = 0;
    let began = Instant::now();
    let held = loop {
        let mut attacker = Peer::connect(ATTACKER.into(), address);
        if attacker.try_establish(&Peer::usual_open(65001, ATTACKER_ID)) {
            sessions += 1;
            let mut attributes = plain(From::External);
            attributes[1] = as_path(&[65001, 65009]);
            attacker.send(&update(&[], &attributes, GOOD));
            std::thread::sleep(Duration::from_millis(100));
        }
        // Gone without a word.
        drop(attacker);
        std::thread::sleep(Duration::from_millis(100));
        let line = runtime
            .block_on(daemon.speaker().summary())
            .unwrap()
            .remove(0);
        if let Some(held) = line.held_until {
            assert_eq!(line.state, State::Idle);
            break held;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{sessions} sessions"
        );
    };
    assert!((5..10).contains(&sessions), "{sessions} sessions");
    assert!(held > Instant::now() && held < Instant::now() + Duration::from_secs(2));
    // Until then it is not let in, and nobody else is concerned.
    let mut attacker = Peer::connect(ATTACKER.into(), address);
    assert!(!attacker.try_establish(&Peer::usual_open(65001, ATTACKER_ID)));
    observer.drain();
    assert_eq!(observer.ended, None);
    runtime.block_on(daemon.shutdown());
}
