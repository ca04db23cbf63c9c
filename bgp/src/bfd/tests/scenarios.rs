//! Two ends that come up, lose each other, restart, and change their minds.

use crate::bfd::{Diagnostic, Packet, Settings, State};

use super::pair::{FAST, Pair, ms};

#[test]
fn two_ends_come_up_in_two_slow_packets() {
    let mut pair = Pair::new([FAST; 2]);
    assert!(pair.run_until(ms(2100), |pair| pair.states() == [State::Up; 2]));
    // Nobody sent faster than once a second before being up, but for the news of a new state.
    let early = pair
        .trace
        .iter()
        .filter(|(.., packet)| packet.state != State::Up);
    assert!(early.clone().count() <= 6, "{:?}", pair.trace);
    assert!(
        early
            .into_iter()
            .all(|(.., p)| p.desired_min_tx >= 1_000_000)
    );
    let paths: Vec<_> = pair
        .events
        .iter()
        .map(|(_, end, c)| (*end, c.from, c.to))
        .collect();
    assert!(
        paths.iter().all(|(_, _, to)| *to != State::Down),
        "{paths:?}"
    );
}

#[test]
fn once_up_both_sides_confirm_the_fast_rate_and_keep_it_with_jitter() {
    let mut pair = Pair::up([FAST; 2]);
    assert_eq!(pair.report(0).transmit_interval, ms(50));
    assert_eq!(pair.report(0).detection_time, Some(ms(150)));
    pair.run(ms(20_000));
    for end in [0, 1] {
        let gaps = pair.gaps(end);
        assert!(
            gaps.iter().all(|g| *g >= ms(37) && *g <= ms(50)),
            "{gaps:?}"
        );
        assert!(gaps.iter().any(|g| *g < ms(40)) && gaps.iter().any(|g| *g > ms(47)));
    }
    assert!(pair.events.is_empty());
}

#[test]
fn a_multiplier_of_one_leaves_a_tenth_of_the_interval_to_the_way() {
    let one = Settings {
        multiplier: 1,
        ..FAST
    };
    let mut pair = Pair::up([one; 2]);
    pair.run(ms(20_000));
    let gaps = pair.gaps(0);
    assert!(
        gaps.iter().all(|g| *g >= ms(37) && *g <= ms(45)),
        "{gaps:?}"
    );
    assert!(pair.events.is_empty());
}

#[test]
fn the_slower_of_both_sides_counts_in_each_direction() {
    let slow = Settings {
        min_tx: 100_000,
        min_rx: 200_000,
        multiplier: 5,
        passive: false,
    };
    let pair = Pair::up([FAST, slow]);
    // We may send every 50 ms, the peer can take one every 200 ms; it sends every 100 ms, and five of them may be missing.
    let (fast, slow) = (pair.report(0), pair.report(1));
    assert_eq!(
        (fast.transmit_interval, fast.detection_time),
        (ms(200), Some(ms(500)))
    );
    assert_eq!(
        (slow.transmit_interval, slow.detection_time),
        (ms(100), Some(ms(600)))
    );
}

#[test]
fn silence_is_noticed_at_the_end_of_the_detection_time_at_both_ends() {
    for seed in 0..20 {
        let mut pair = Pair::up([FAST; 2]);
        pair.run(ms(7 * seed));
        pair.cut = [true; 2];
        let cut = pair.elapsed();
        pair.run(ms(1000));
        let downs: Vec<_> = pair
            .events
            .iter()
            .filter(|(.., c)| c.to == State::Down)
            .collect();
        assert_eq!(downs.len(), 2, "{:?}", pair.events);
        for (at, _, change) in downs {
            let took = *at - cut;
            assert!(took > ms(99) && took <= ms(151), "{took:?}");
            assert!(change.is_failure());
            assert_eq!(change.diagnostic, Diagnostic::TIME_EXPIRED);
        }
        assert_eq!(pair.report(0).failures, 1);
        // The peer is forgotten, and the rate is slow again.
        assert_eq!(pair.report(0).remote_discriminator, 0);
        assert_eq!(pair.report(0).transmit_interval, ms(1000));
        pair.cut = [false; 2];
        assert!(pair.run_until(ms(3000), |pair| pair.states() == [State::Up; 2]));
    }
}

#[test]
fn one_direction_lost_takes_both_ends_down() {
    let mut pair = Pair::up([FAST; 2]);
    pair.cut[0] = true;
    pair.run(ms(200));
    let downs: Vec<_> = pair
        .events
        .iter()
        .map(|(_, end, c)| (*end, c.to, c.diagnostic))
        .collect();
    assert_eq!(
        downs,
        [
            (1, State::Down, Diagnostic::TIME_EXPIRED),
            (0, State::Down, Diagnostic::NEIGHBOR_DOWN),
        ]
    );
    assert!(pair.events.iter().all(|(.., change)| change.is_failure()));
    // The one that is heard by nobody knows that it is not heard, and does not come up.
    pair.run(ms(10_000));
    assert!(pair.states().iter().all(|state| *state != State::Up));
}

#[test]
fn two_lost_packets_are_no_failure() {
    let mut pair = Pair::up([FAST; 2]);
    for _ in 0..20 {
        pair.run(ms(500));
        pair.cut[0] = true;
        // Two packets at the most, since they are at least 37.5 ms apart and never more than 50 ms.
        pair.run(ms(74));
        pair.cut[0] = false;
    }
    assert!(pair.events.is_empty(), "{:?}", pair.events);
}

#[test]
fn a_lossy_path_flaps_and_always_comes_back() {
    let mut pair = Pair::up([FAST; 2]);
    pair.loss = 30;
    pair.run(ms(120_000));
    assert!(pair.report(0).failures > 0);
    pair.loss = 0;
    assert!(pair.run_until(ms(5000), |pair| pair.states() == [State::Up; 2]));
    pair.run(ms(3000));
    let before = pair.events.len();
    pair.run(ms(30_000));
    assert_eq!(pair.events.len(), before);
    assert_eq!(pair.report(0).detection_time, Some(ms(150)));
}

#[test]
fn a_peer_that_restarts_has_a_new_number_and_is_found_by_its_address() {
    let mut pair = Pair::up([FAST; 2]);
    let before = pair.report(0).remote_discriminator;
    pair.restart(1, FAST);
    assert!(pair.run_until(ms(3000), |pair| {
        pair.report(0).remote_discriminator != before && pair.states() == [State::Up; 2]
    }));
    let first = pair.events.iter().find(|(_, end, _)| *end == 0).unwrap().2;
    assert_eq!(
        (first.to, first.diagnostic),
        (State::Down, Diagnostic::NEIGHBOR_DOWN)
    );
    assert!(first.is_failure());
    assert_ne!(pair.report(0).remote_discriminator, 0);
}

#[test]
fn an_end_that_is_taken_away_is_no_failure() {
    let mut pair = Pair::up([FAST; 2]);
    pair.configure(1, None);
    pair.run(ms(100));
    let (_, end, change) = pair.events.remove(0);
    assert_eq!(
        (end, change.to, change.remote_state),
        (0, State::Down, State::AdminDown)
    );
    assert!(!change.is_failure());
    assert_eq!(pair.report(0).failures, 0);
    let last = pair.trace.iter().rfind(|(_, by, _)| *by == 1).unwrap().2;
    assert_eq!(
        (last.state, last.diagnostic),
        (State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN)
    );
    // It goes quiet after the detection time, and nobody keeps it from coming back.
    pair.run(ms(4000));
    assert!(pair.ends[1].poll_timeout().is_none());
    pair.configure(1, Some(FAST));
    assert!(pair.run_until(ms(4000), |pair| pair.states() == [State::Up; 2]));
}

#[test]
fn a_lost_farewell_is_said_again() {
    let slow = Settings {
        min_tx: 800_000,
        min_rx: 800_000,
        ..FAST
    };
    let mut pair = Pair::up([slow; 2]);
    pair.cut[1] = true;
    pair.configure(1, None);
    pair.cut[1] = false;
    pair.run(ms(2400));
    assert!(!pair.events[0].2.is_failure());
}

#[test]
fn timers_change_without_a_flap_and_with_a_poll_sequence() {
    let mut pair = Pair::up([FAST; 2]);
    let changes = [
        (300, 300, 3),
        (20, 300, 3),
        (20, 20, 5),
        (50, 1000, 2),
        (1000, 10, 3),
        (10, 10, 3),
    ];
    for (tx, rx, multiplier) in changes {
        let settings = Settings {
            min_tx: tx * 1000,
            min_rx: rx * 1000,
            multiplier,
            passive: false,
        };
        pair.trace.clear();
        pair.configure(0, Some(settings));
        pair.run(ms(5000));
        assert!(pair.events.is_empty(), "{tx} {rx}: {:?}", pair.events);
        let polled = |(_, by, p): &(_, usize, Packet)| *by == 0 && p.poll;
        let answered = |(_, by, p): &(_, usize, Packet)| *by == 1 && p.is_final;
        assert!(pair.trace.iter().any(polled) && pair.trace.iter().any(answered));
        let report = pair.report(0);
        assert!(!report.polling);
        assert_eq!(report.transmit_interval, ms(u64::from(tx.max(50))));
        assert_eq!(report.detection_time, Some(ms(3 * u64::from(rx.max(50)))));
        let other = pair.report(1);
        assert_eq!(other.transmit_interval, ms(u64::from(rx.max(50))));
        assert_eq!(
            other.detection_time,
            Some(ms(u64::from(multiplier) * u64::from(tx.max(50))))
        );
    }
    // The peer still notices that we are gone.
    pair.cut[0] = true;
    pair.run(ms(200));
    assert!(
        pair.events
            .iter()
            .any(|(_, end, c)| *end == 1 && c.is_failure())
    );
}

#[test]
fn nothing_slows_down_before_the_peer_knows() {
    let mut pair = Pair::up([FAST; 2]);
    pair.cut[0] = true;
    let slower = Settings {
        min_tx: 400_000,
        ..FAST
    };
    pair.configure(0, Some(slower));
    pair.run(ms(60));
    pair.cut[0] = false;
    pair.run(ms(3000));
    assert!(pair.events.is_empty(), "{:?}", pair.events);
    assert_eq!(pair.report(0).transmit_interval, ms(400));
}

#[test]
fn a_passive_end_speaks_when_it_is_spoken_to() {
    let passive = Settings {
        passive: true,
        ..FAST
    };
    let mut pair = Pair::new([passive; 2]);
    pair.run(ms(5000));
    assert!(pair.trace.is_empty());
    let mut pair = Pair::up([passive, FAST]);
    pair.cut = [true; 2];
    pair.run(ms(3000));
    pair.trace.clear();
    pair.run(ms(5000));
    assert!(pair.trace.iter().all(|(_, by, _)| *by == 1));
}

#[test]
fn a_thousand_seconds_bring_no_failure() {
    let tight = Settings {
        min_tx: 10_000,
        min_rx: 10_000,
        ..FAST
    };
    let mut pair = Pair::up([tight, FAST]);
    pair.run(ms(1_000_000));
    assert!(pair.events.is_empty());
}
