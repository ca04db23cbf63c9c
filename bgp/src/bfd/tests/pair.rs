//! Two ends of a path in virtual time, with a path that can lose packets and be cut.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::bfd::{
    Change, Hops, Packet, Path, Random, Received, SessionReport, Sessions, Settings, State,
};
use crate::jitter::Jitter;

/// Time a packet is under way.
const LATENCY: Duration = Duration::from_millis(1);

pub(super) const FAST: Settings = Settings {
    min_tx: 50_000,
    min_rx: 50_000,
    multiplier: 3,
    passive: false,
};

pub(super) fn random(seed: u64) -> Random {
    let mut jitter = Jitter::new(seed);
    Box::new(move || jitter.next_u64())
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A change of one end, and when.
pub(super) type Event = (Duration, usize, Change);

pub(super) struct Pair {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) ends: [Sessions; 2],
    pub(super) events: Vec<Event>,
    /// Every packet sent: when, by whom, what.
    pub(super) trace: Vec<(Duration, usize, Packet)>,
    /// Packets from this end are lost.
    pub(super) cut: [bool; 2],
    /// How many in 100 packets are lost.
    pub(super) loss: u64,
    under_way: VecDeque<(Instant, usize, Vec<u8>)>,
    chance: Jitter,
}

pub(super) fn address(end: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, 1 + end as u8).into()
}

/// The path to an end.
pub(super) fn path_to(end: usize) -> Path {
    Path {
        remote: address(end),
        interface: 0,
        hops: Hops::Single,
    }
}

impl Pair {
    pub(super) fn new(settings: [Settings; 2]) -> Self {
        let start = Instant::now();
        let mut pair = Self {
            start,
            now: start,
            ends: [1, 2].map(|seed| Sessions::new(random(seed))),
            events: Vec::new(),
            trace: Vec::new(),
            cut: [false; 2],
            loss: 0,
            under_way: VecDeque::new(),
            chance: Jitter::new(99),
        };
        for (end, settings) in settings.into_iter().enumerate() {
            pair.configure(end, Some(settings));
        }
        pair
    }

    /// A pair that is up at both ends, with its intervals agreed on.
    pub(super) fn up(settings: [Settings; 2]) -> Self {
        let mut pair = Self::new(settings);
        pair.run(ms(6000));
        assert_eq!(pair.states(), [State::Up; 2]);
        assert!(!pair.report(0).polling && !pair.report(1).polling);
        pair.events.clear();
        pair.trace.clear();
        pair
    }

    pub(super) fn configure(&mut self, end: usize, settings: Option<Settings>) {
        let wanted: BTreeMap<_, _> = settings
            .map(|s| (path_to(1 - end), s))
            .into_iter()
            .collect();
        self.ends[end].configure(self.now, &wanted);
        self.drain(end);
    }

    /// The process at one end starts anew.
    pub(super) fn restart(&mut self, end: usize, settings: Settings) {
        self.ends[end] = Sessions::new(random(1000 + end as u64));
        self.configure(end, Some(settings));
    }

    pub(super) fn states(&self) -> [State; 2] {
        [0, 1].map(|end| self.ends[end].state(&path_to(1 - end)).unwrap())
    }

    pub(super) fn report(&self, end: usize) -> SessionReport {
        self.ends[end].report(self.now).remove(0).session
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until a condition holds; false if it does not within `time`.
    pub(super) fn run_until(&mut self, time: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time;
        while !condition(self) {
            if !self.step(end) {
                self.now = end;
                return condition(self);
            }
        }
        true
    }

    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.under_way.front().map(|(at, ..)| *at);
        let timers = self.ends.iter().map(Sessions::poll_timeout);
        let Some(at) = timers.chain([arrival]).flatten().min() else {
            return false;
        };
        if at > end {
            return false;
        }
        self.now = at.max(self.now);
        if arrival == Some(at)
            && let Some((_, to, octets)) = self.under_way.pop_front()
        {
            self.deliver(to, &octets);
        }
        for end in [0, 1] {
            self.ends[end].handle_timeout(self.now);
            self.drain(end);
        }
        true
    }

    pub(super) fn deliver(&mut self, to: usize, octets: &[u8]) {
        let from = Received {
            remote: address(1 - to),
            interface: 7,
            hop_limit: 255,
            hops: Hops::Single,
        };
        self.ends[to].handle_packet(self.now, from, octets);
        self.drain(to);
    }

    fn drain(&mut self, end: usize) {
        let elapsed = self.elapsed();
        while let Some((path, change)) = self.ends[end].poll_event() {
            assert_eq!(path, path_to(1 - end));
            self.events.push((elapsed, end, change));
        }
        while let Some(transmit) = self.ends[end].poll_packet(self.now) {
            assert_eq!(transmit.path, path_to(1 - end));
            let packet = Packet::decode(&transmit.octets).unwrap();
            self.trace.push((elapsed, end, packet));
            let lost = self.chance.next_u64() % 100 < self.loss;
            if !lost && !self.cut[end] {
                let octets = transmit.octets.to_vec();
                self.under_way
                    .push_back((self.now + LATENCY, 1 - end, octets));
            }
        }
    }

    /// The times between the packets of an end that are no answers.
    pub(super) fn gaps(&self, end: usize) -> Vec<Duration> {
        let sent = self
            .trace
            .iter()
            .filter(|(_, by, p)| *by == end && !p.is_final);
        let times: Vec<_> = sent.map(|(at, ..)| *at).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}
