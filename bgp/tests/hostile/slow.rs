//! Peers that do not read (RFC 9687).

use std::time::{Duration, Instant};

use margay_bgp::fsm::State;
use serde_json::json;

use super::case::{ATTACKER, ATTACKER_ID, From, OBSERVER, OBSERVER_ID, plain, start_with};
use super::messages::{attribute_extended, message, update};
use super::peer::Peer;

/// Routes of about a thousand octets each: more than the kernel keeps for a peer that does not read.
const ROUTES: u16 = 8000;
/// The most that the process may grow by meanwhile, in kB.
const GROWTH: u64 = 150_000;

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_peer_that_reads_nothing_is_reset_and_nobody_else_notices() {
    let runtime = super::incidents::runtime();
    let fields = json!({ "holdTime": 3, "sendHoldTime": 4 });
    let (daemon, address) = start_with(&runtime, From::External, fields);
    let mut observer = Peer::connect(OBSERVER.into(), address);
    observer.establish(&Peer::usual_open(65002, OBSERVER_ID), true);
    let mut attacker = Peer::connect_reading_little(ATTACKER.into(), address);
    attacker.establish(&Peer::usual_open(65001, ATTACKER_ID), true);

    let before = resident();
    for route in 0..ROUTES {
        let [high, low] = route.to_be_bytes();
        let mut attributes = plain(From::External);
        attributes[1] = super::messages::as_path(&[65002]);
        // No two alike, so that none are packed together.
        let communities = [[253, 0xe8, high, low]].repeat(250).concat();
        attributes.push(attribute_extended(0xc0, 8, &communities));
        observer.send(&update(&[], &attributes, &[24, 10, high, low]));
        if route % 500 == 0 {
            attacker.send(&message(4, &[]));
            observer.drain_at_once();
        }
    }
    // The attacker says that it is there, reads nothing, and is found out.
    let began = Instant::now();
    let line = loop {
        attacker.send(&message(4, &[]));
        observer.drain();
        let lines = runtime.block_on(daemon.speaker().summary()).unwrap();
        assert_eq!(
            lines[1].state,
            State::Established,
            "{:?}",
            lines[1].last_error
        );
        if lines[0].state != State::Established {
            break lines[0].clone();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "never found out");
        std::thread::sleep(Duration::from_millis(100));
    };
    let took = began.elapsed();
    assert_eq!(
        line.last_error.as_deref(),
        Some("the peer read nothing for 4 s; sent send hold timer expired (8/0)")
    );
    assert!(line.held_until.is_some());
    // All of it was taken from the observer, which goes on.
    observer.send(&message(4, &[]));
    let taken = runtime.block_on(daemon.speaker().summary()).unwrap();
    assert_eq!(taken[1].prefixes_received, u64::from(ROUTES));
    assert_eq!((taken[1].flaps, observer.ended.as_ref()), (0, None));
    let grown = resident().saturating_sub(before);
    eprintln!("found out {took:?} after the last route; {grown} kB more");
    assert!(grown < GROWTH, "{grown} kB more");
    runtime.block_on(daemon.shutdown());
}
