//! The recorder: a session by hand, replayed, and replayed wrongly.

use std::time::{Duration, Instant};

use super::*;
use crate::config::{PeerConfig, Security};
use crate::router::Output;
use crate::types::{Asn, RouterId};

/// A router that is told of two connections: one that says nothing of use, and one that it opens itself.
fn record() -> String {
    let peer = "10.0.0.2".parse().unwrap();
    let mut config = SpeakerConfig::new(Asn(65000), RouterId(1));
    config.peers.insert(
        peer,
        PeerConfig {
            security: Security {
                password: Some("hunter2".into()),
                ttl_security: None,
                ..Security::default()
            },
            ..PeerConfig::new(peer, Asn(65001))
        },
    );
    let mut now = Instant::now();
    let mut router = Recorded::new(now, config.clone(), 7, true).unwrap();
    let mut outgoing = None;
    let drain = |router: &mut Recorded, outgoing: &mut Option<ConnectionId>| {
        let mut transmit = Vec::new();
        while let Some(output) = router.poll_output() {
            match output {
                Output::Connect { connection, .. } => *outgoing = Some(connection),
                Output::Transmit(connection) => transmit.push(connection),
                _ => {}
            }
        }
        for connection in transmit {
            while router.transmit(connection).is_some() {}
        }
        router.poll_timeout();
    };
    drain(&mut router, &mut outgoing);
    let subscriber = router.subscribe();
    now += Duration::from_millis(3);
    let local = "10.0.0.1:40000".parse().unwrap();
    router.handle_connected(now, outgoing.unwrap(), local);
    drain(&mut router, &mut outgoing);
    let remote = "10.0.0.2:33333".parse().unwrap();
    let incoming = router.handle_incoming(now, remote, "10.0.0.1:179".parse().unwrap());
    router.handle_octets(now, incoming.unwrap(), &[0xff, 0xff, 1]);
    drain(&mut router, &mut outgoing);
    router.add_hint(outgoing.unwrap(), "a hint");
    router.handle_closed(now, outgoing.unwrap(), "gone".to_owned());
    assert!(router.poll_routes(subscriber).is_some());
    config
        .announcements
        .insert("10.1.0.0/16".parse().unwrap(), Default::default());
    router.configure(now, config).unwrap();
    let timer = router.poll_timeout().unwrap();
    router.handle_timeout(timer);
    drain(&mut router, &mut outgoing);
    router.stop(timer, Some(Notification::administrative_shutdown("bye")));
    drain(&mut router, &mut outgoing);
    let tape = router.tape_mut().unwrap();
    tape.end("the test is over");
    tape.write(timer, What::Timeout);
    String::from_utf8(tape.take()).unwrap()
}

#[test]
fn what_was_recorded_happens_again() {
    let recording = record();
    assert!(!recording.contains("hunter2") && recording.contains("***"));
    let replayed = replay(recording.lines()).unwrap();
    assert_eq!(replayed.lines, recording.lines().count());
    assert_eq!(replayed.ended.as_deref(), Some("the test is over"));
    assert!(replayed.time >= Duration::from_millis(3));
}

#[test]
fn a_difference_names_the_line() {
    let recording = record();
    let lines: Vec<_> = recording.lines().collect();
    let changed = |find: &str, from: &str, to: &str| {
        let at = lines.iter().position(|line| line.contains(find)).unwrap();
        let mut lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
        assert!(lines[at].contains(from), "{}", lines[at]);
        lines[at] = lines[at].replacen(from, to, 1);
        (at + 1, replay(lines).unwrap_err().to_string())
    };
    // The marker of the OPEN that was sent.
    let (line, error) = changed("\"do\":{\"transmit\":{\"connection\"", "ffff", "ffef");
    assert!(
        error.starts_with(&format!("line {line}: octets to send: recorded ")),
        "{error}"
    );
    // Another seed is other timers.
    let (_, error) = changed("\"start\"", "\"seed\":7", "\"seed\":8");
    assert!(error.contains("the next timer"), "{error}");
    let (line, error) = changed("{\"octets\"", "{\"octets\":", "{\"octet\":");
    assert!(
        error.starts_with(&format!("line {line}: unknown variant")),
        "{error}"
    );
    let error = replay(&lines[1..]).unwrap_err().to_string();
    assert!(
        error.starts_with("line 1: a recording begins with"),
        "{error}"
    );
    // An output too many.
    let at = lines.iter().position(|line| line.contains("{\"connect\":"));
    let mut without = lines.clone();
    without.remove(at.unwrap());
    let error = replay(&without).unwrap_err().to_string();
    assert!(
        error.contains("an output: recorded null, now {\"connect\":"),
        "{error}"
    );
}

#[test]
fn fields_that_were_not_there_then_are_as_without() {
    let recording = record();
    let mut lines: Vec<_> = recording.lines().map(ToOwned::to_owned).collect();
    for field in ["\"next_hop\":{", "\"min_advertisement_interval\":{"] {
        let line = &mut lines[0];
        let from = line.find(field).unwrap();
        let to = from + line[from..].find("},").unwrap() + 2;
        line.replace_range(from..to, "");
    }
    assert!(!lines[0].contains("min_advertisement"), "{}", lines[0]);
    assert!(replay(&lines).is_ok());
}

#[test]
fn digits_are_octets() {
    let octets: Vec<u8> = (0..=255).collect();
    assert_eq!(from_hex(&to_hex(&octets)), octets);
    assert_eq!(from_hex("00f"), [0]);
    assert_eq!(from_hex("12zz34"), [0x12]);
}
