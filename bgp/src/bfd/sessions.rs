//! Many sessions: which of them a packet belongs to, and which of them has something to do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::packet::{Packet, State};
use super::report::{Discards, Report};
use super::session::{Change, Session, Settings};
use super::{LENGTH, TTL};

/// A session that was taken away says so for this long at the most.
const FAREWELL: Duration = Duration::from_secs(3);

/// Over how many hops a path may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Hops {
    /// Neighbours on a link (RFC 5881).
    Single,
    /// Any number (RFC 5883).
    Multi,
}

/// What a session watches; there is one session for each path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Path {
    /// The peer's address.
    pub remote: IpAddr,
    /// Index of the interface, for link-local addresses; 0: whichever leads there.
    pub interface: u32,
    /// Over how many hops.
    pub hops: Hops,
}

/// Where a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its source address.
    pub remote: IpAddr,
    /// Index of the interface it came in on.
    pub interface: u32,
    /// Its TTL or hop limit on arrival.
    pub hop_limit: u8,
    /// Which port it came to.
    pub hops: Hops,
}

/// A packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub path: Path,
    /// The UDP payload.
    pub octets: [u8; LENGTH],
}

/// Where chance comes from: 64 bits that nobody outside can foresee.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// All sessions of a node.
///
/// Inputs: [`configure`](Self::configure), [`handle_packet`](Self::handle_packet),
/// [`handle_timeout`](Self::handle_timeout), [`stop`](Self::stop). After any of them take
/// [`poll_event`](Self::poll_event) and [`poll_packet`](Self::poll_packet) until they are `None`, and then ask
/// [`poll_timeout`](Self::poll_timeout) when to call `handle_timeout`. `now` must never go backwards.
///
/// A packet costs two look-ups and at most two packets in return, whoever sends it; what belongs to no session is counted
/// and gets no answer.
pub struct Sessions {
    sessions: BTreeMap<u32, Entry>,
    paths: BTreeMap<Path, u32>,
    deadlines: BTreeSet<(Instant, u32)>,
    /// Those that may have a packet to send; each at most once.
    ready: VecDeque<u32>,
    events: VecDeque<(Path, Change)>,
    discards: Discards,
    random: Random,
}

#[derive(Debug)]
struct Entry {
    path: Path,
    session: Session,
    /// Its place in `deadlines`.
    deadline: Option<Instant>,
    /// It is in `ready`.
    ready: bool,
    /// No longer wanted; gone at this time.
    farewell: Option<Instant>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions")
            .field("sessions", &self.sessions)
            .field("discards", &self.discards)
            .finish_non_exhaustive()
    }
}

impl Sessions {
    /// No sessions yet. Discriminators and jitter are drawn from `random`.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self {
            sessions: BTreeMap::new(),
            paths: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            discards: Discards::default(),
            random,
        }
    }

    /// Makes these the sessions that are wanted. What stays is not touched, new intervals are agreed on with the peer while
    /// the session stays up, and what goes tells its peer that this is no failure.
    pub fn configure(&mut self, now: Instant, wanted: &BTreeMap<Path, Settings>) {
        let gone = self
            .paths
            .iter()
            .filter(|(path, _)| !wanted.contains_key(path));
        let gone: Vec<_> = gone.map(|(path, number)| (*path, *number)).collect();
        for (path, number) in gone {
            self.paths.remove(&path);
            self.dismiss(now, number);
        }
        for (path, settings) in wanted {
            match self.paths.get(path).copied() {
                Some(number) => {
                    let chance = (self.random)();
                    if let Some(entry) = self.sessions.get_mut(&number) {
                        entry.session.set_settings(now, *settings, chance);
                    }
                    self.settle(now, number);
                }
                None => self.add(now, *path, *settings),
            }
        }
    }

    /// Ends all sessions, telling the peers that this is no failure.
    pub fn stop(&mut self, now: Instant) {
        self.configure(now, &BTreeMap::new());
    }

    fn add(&mut self, now: Instant, path: Path, settings: Settings) {
        // What is still saying farewell on this path must not be mistaken for the new session.
        let old = self.sessions.iter().find(|(_, entry)| entry.path == path);
        if let Some(number) = old.map(|(number, _)| *number) {
            self.remove(number);
        }
        let number = loop {
            let number = ((self.random)() >> 32) as u32;
            if number != 0 && !self.sessions.contains_key(&number) {
                break number;
            }
        };
        let entry = Entry {
            path,
            session: Session::new(now, settings, number),
            deadline: None,
            ready: false,
            farewell: None,
        };
        self.sessions.insert(number, entry);
        self.paths.insert(path, number);
        self.settle(now, number);
    }

    fn dismiss(&mut self, now: Instant, number: u32) {
        if let Some(entry) = self.sessions.get_mut(&number) {
            let time = entry.session.detection_time().unwrap_or_default();
            entry.session.set_admin_down(now, true);
            entry.farewell = now.checked_add(time.min(FAREWELL));
        }
        self.settle(now, number);
    }

    fn remove(&mut self, number: u32) {
        if let Some(entry) = self.sessions.remove(&number)
            && let Some(at) = entry.deadline
        {
            self.deadlines.remove(&(at, number));
        }
    }

    /// Takes in a UDP payload.
    pub fn handle_packet(&mut self, now: Instant, from: Received, octets: &[u8]) {
        // Before anything else: this is the protection against whoever is not on the link (RFC 5881 section 5).
        if from.hops == Hops::Single && from.hop_limit != TTL {
            self.discards.hop_limit += 1;
            return;
        }
        let Ok(packet) = Packet::decode(octets) else {
            self.discards.malformed += 1;
            return;
        };
        let Some(number) = self.session_of(&from, packet.your_discriminator) else {
            self.discards.unknown += 1;
            return;
        };
        let chance = (self.random)();
        let Some(entry) = self.sessions.get_mut(&number) else {
            self.discards.unknown += 1;
            return;
        };
        // The RFC is content with the discriminator. A peer speaks from the address it is spoken to at, so this refuses
        // nobody but those who guess.
        if !entry.path.admits(&from) {
            self.discards.wrong_source += 1;
            return;
        }
        if let Some(change) = entry.session.handle_packet(now, &packet, chance) {
            self.events.push_back((entry.path, change));
        }
        self.settle(now, number);
    }

    fn session_of(&self, from: &Received, discriminator: u32) -> Option<u32> {
        if discriminator != 0 {
            return Some(discriminator);
        }
        let path = |interface| Path {
            remote: from.remote,
            interface,
            hops: from.hops,
        };
        let exact = self.paths.get(&path(from.interface));
        exact.or_else(|| self.paths.get(&path(0))).copied()
    }

    /// Lets every timer fire that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, number)) = self.deadlines.first().copied()
            && at <= now
        {
            let chance = (self.random)();
            let Some(entry) = self.sessions.get_mut(&number) else {
                self.deadlines.remove(&(at, number));
                continue;
            };
            if entry.farewell.is_some_and(|at| at <= now) {
                self.remove(number);
                continue;
            }
            if let Some(change) = entry.session.handle_timeout(now, chance)
                && entry.farewell.is_none()
            {
                self.events.push_back((entry.path, change));
            }
            // A packet that waits to be taken would otherwise keep this deadline in place.
            self.settle(now, number);
            if self.deadlines.first() == Some(&(at, number)) {
                self.deadlines.remove(&(at, number));
                if let Some(entry) = self.sessions.get_mut(&number) {
                    entry.deadline = None;
                }
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The next packet to send.
    #[must_use]
    pub fn poll_packet(&mut self, now: Instant) -> Option<Transmit> {
        while let Some(number) = self.ready.front().copied() {
            let chance = (self.random)();
            let entry = self.sessions.get_mut(&number);
            let packet = entry.and_then(|entry| {
                let packet = entry.session.poll_packet(now, chance)?;
                Some(Transmit {
                    path: entry.path,
                    octets: packet.encode(),
                })
            });
            if packet.is_some() {
                return packet;
            }
            self.ready.pop_front();
            if let Some(entry) = self.sessions.get_mut(&number) {
                entry.ready = false;
            }
            self.plan(number);
        }
        None
    }

    /// The next change of a session's state.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<(Path, Change)> {
        self.events.pop_front()
    }

    /// Sessions that are wanted, ordered by path.
    #[must_use]
    pub fn report(&self, now: Instant) -> Vec<Report> {
        let entries = self
            .paths
            .values()
            .filter_map(|number| self.sessions.get(number));
        let report = |entry: &Entry| Report {
            path: entry.path,
            session: entry.session.report(now),
        };
        entries.map(report).collect()
    }

    /// The state of one session.
    #[must_use]
    pub fn state(&self, path: &Path) -> Option<State> {
        let entry = self.sessions.get(self.paths.get(path)?)?;
        Some(entry.session.state())
    }

    /// Packets that changed nothing.
    #[must_use]
    pub fn discards(&self) -> Discards {
        self.discards
    }

    /// After a session was touched: what is due at once, what later.
    fn settle(&mut self, now: Instant, number: u32) {
        let chance = (self.random)();
        let Some(entry) = self.sessions.get_mut(&number) else {
            return;
        };
        if entry.session.poll_timeout().is_some_and(|at| at <= now)
            && let Some(change) = entry.session.handle_timeout(now, chance)
            && entry.farewell.is_none()
        {
            self.events.push_back((entry.path, change));
        }
        if !std::mem::replace(&mut entry.ready, true) {
            self.ready.push_back(number);
        }
        self.plan(number);
    }

    /// Puts a session's next deadline into the order.
    fn plan(&mut self, number: u32) {
        let Some(entry) = self.sessions.get_mut(&number) else {
            return;
        };
        let own = entry.session.poll_timeout();
        let next = [own, entry.farewell].into_iter().flatten().min();
        if next == entry.deadline {
            return;
        }
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, number));
        }
        if let Some(at) = next {
            self.deadlines.insert((at, number));
        }
        entry.deadline = next;
    }
}

impl Path {
    fn admits(&self, from: &Received) -> bool {
        let interface = self.interface == 0 || self.interface == from.interface;
        self.remote == from.remote && self.hops == from.hops && interface
    }
}
