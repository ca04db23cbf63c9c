//! BFD: packets from anybody, in any order, at any time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use margay_bgp::bfd::{Hops, Packet, Path, Received, Sessions, Settings};
use margay_bgp::jitter::Jitter;

use crate::input::Input;

/// Steps of a script at most.
const STEPS: usize = 300;
/// Packets and events after one step at most: each session has one of each to offer, and a state to report now and then.
const OUTPUTS: usize = 10_000;

struct Lab {
    sessions: Sessions,
    now: Instant,
    /// The discriminator of our side as the packets told.
    known: u32,
}

/// Plays a script of BFD packets, time and configuration to a node's sessions.
pub fn bfd(octets: &[u8]) {
    let mut input = Input::new(octets);
    let mut jitter = Jitter::new(1);
    let mut lab = Lab {
        sessions: Sessions::new(Box::new(move || jitter.next_u64())),
        now: Instant::now(),
        known: 0,
    };
    lab.sessions.configure(lab.now, &wanted(0));
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        lab.step(&mut input);
        lab.settle();
    }
    lab.recovers();
}

fn path(index: u8) -> Path {
    Path {
        remote: IpAddr::from([10, 0, 0, 2 + index % 3]),
        interface: u32::from(index / 3 % 2),
        hops: if index & 0x80 == 0 {
            Hops::Single
        } else {
            Hops::Multi
        },
    }
}

/// The first session is always there.
fn wanted(choice: u8) -> BTreeMap<Path, Settings> {
    let settings = |multiplier: u8| Settings {
        min_tx: 50_000,
        min_rx: 50_000 * u32::from(1 + choice % 4),
        multiplier: multiplier.max(1),
        passive: choice & 0x10 != 0,
    };
    let mut all = BTreeMap::from([(
        path(0),
        Settings {
            passive: false,
            ..settings(3)
        },
    )]);
    all.extend((1..=choice % 8).map(|index| (path(index << 5 | index), settings(choice >> 4))));
    all
}

impl Lab {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.octet() % 6 {
            0 => self.packet(input, 24),
            1 => {
                let length = usize::from(input.octet() % 64);
                self.packet(input, length);
            }
            2 => self.good_packet(input),
            3 => self.pass(Duration::from_millis(input.short().into())),
            4 => self.sessions.configure(self.now, &wanted(input.octet())),
            _ => self.pass(Duration::from_millis(50)),
        }
    }

    fn packet(&mut self, input: &mut Input<'_>, length: usize) {
        let from = received(input.octet());
        let octets = input.octets(length);
        let decoded = Packet::decode(octets);
        if let Ok(packet) = &decoded {
            assert_eq!(Packet::decode(&packet.encode()).as_ref(), Ok(packet));
        }
        self.sessions.handle_packet(self.now, from, octets);
    }

    /// One that mostly is for a session of ours.
    fn good_packet(&mut self, input: &mut Input<'_>) {
        let from = received(0);
        let choice = input.octet();
        let mut octets = [0_u8; 24];
        octets[0] = 0x20 | choice & 0x1f;
        octets[1] = input.octet() & 0xf8;
        octets[2] = input.octet();
        octets[3] = 24;
        octets[7] = 1;
        octets[8..12].copy_from_slice(&self.known.to_be_bytes());
        octets[12..16].copy_from_slice(&input.long().to_be_bytes());
        octets[16..20].copy_from_slice(&input.long().to_be_bytes());
        self.sessions.handle_packet(self.now, from, &octets);
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut still = 0;
        while let Some(at) = self.sessions.poll_timeout().filter(|at| *at <= until) {
            still = if at > self.now { 0 } else { still + 1 };
            assert!(still < 100, "a timer that does not move");
            self.now = self.now.max(at);
            self.sessions.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    fn settle(&mut self) {
        for _ in 0..OUTPUTS {
            let event = self.sessions.poll_event().is_some();
            let packet = self.sessions.poll_packet(self.now);
            if let Some(packet) = &packet {
                let decoded = Packet::decode(&packet.octets).expect("what is sent can be read");
                if packet.path == path(0) {
                    self.known = decoded.my_discriminator;
                }
            }
            if !event && packet.is_none() {
                let _ = self.sessions.report(self.now);
                return;
            }
        }
        panic!("no end of packets and events");
    }

    /// Whatever was before, a peer that does it right gets its session.
    fn recovers(&mut self) {
        use margay_bgp::bfd::State;
        self.sessions.configure(self.now, &wanted(0));
        self.settle();
        // What the peer said before may bind us for as long as it asked for, so it is first let go.
        self.pass(Duration::from_secs(3600));
        let mut state = State::Down;
        for _ in 0..40 {
            self.pass(Duration::from_millis(1000));
            let packet = Packet {
                diagnostic: margay_bgp::bfd::Diagnostic::NONE,
                state,
                poll: false,
                is_final: false,
                independent: false,
                demand: false,
                multiplier: 50,
                my_discriminator: 77,
                your_discriminator: self.known,
                desired_min_tx: 1_000_000,
                required_min_rx: 50_000,
                required_min_echo_rx: 0,
            };
            self.sessions
                .handle_packet(self.now, received(0), &packet.encode());
            self.settle();
            let ours = self.sessions.state(&path(0));
            state = match ours {
                Some(State::Up) if state == State::Up => return,
                Some(State::Up | State::Init) => State::Up,
                _ if self.known != 0 => State::Init,
                _ => State::Down,
            };
        }
        panic!(
            "the session with a good peer does not come up: {:?}",
            self.sessions.report(self.now)
        );
    }
}

fn received(choice: u8) -> Received {
    let Path {
        remote,
        interface,
        hops,
    } = path(choice);
    Received {
        remote,
        interface,
        hop_limit: if choice & 0x40 == 0 { 255 } else { 254 },
        hops,
    }
}
