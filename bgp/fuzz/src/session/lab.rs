//! The routers, their connections, virtual time, and what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use margay_bgp::config::SpeakerConfig;
use margay_bgp::observe::Interest;
use margay_bgp::rib::DestinationId;
use margay_bgp::router::{
    ConnectionId, FaultCounts, Lost, Octets, Output, PeerSummary, RibPrefix, RibQuery, Router,
    SubscriberId,
};
use margay_bgp::types::Prefix;
use margay_bgp::wire::HEADER_LENGTH;

use super::settings::{self, BAD, FRIEND, OURS, announcements, bad_address};
use super::speech;

/// What a router may ask for after one input, and how much it may have to send.
const OUTPUTS: usize = 20_000;
/// Connections of one peer: one of each kind (RFC 4271 section 6.8).
const CONNECTIONS: usize = 2;
/// Timers that may be due at one instant.
const AT_ONCE: usize = 200;
/// How long the good peer may take to be back, whatever it was told before.
const RECOVERY: Duration = Duration::from_secs(300);
/// The longest that a chunk may be: a message of RFC 8654 and what was packed before it.
const CHUNK: usize = 256 * 1024;

/// A peer that the script speaks for.
#[derive(Debug, Default)]
struct Bad {
    /// Its connections; the last one is spoken on.
    open: Vec<ConnectionId>,
    /// Attempts of the router to connect.
    asked: Vec<ConnectionId>,
    /// Those with something to send.
    ready: BTreeSet<ConnectionId>,
}

pub(super) struct Lab {
    choice: u8,
    now: Instant,
    router: Router,
    friend: Router,
    /// The connections between the two, by both their names.
    pipes: Vec<(ConnectionId, ConnectionId)>,
    bad: Vec<Bad>,
    /// How what bad peers send is cut.
    piece: usize,
    subscriber: Option<SubscriberId>,
    routes_ready: bool,
}

impl Lab {
    pub(super) fn new(choice: u8) -> Self {
        let now = Instant::now();
        let router =
            Router::new(now, settings::ours(choice), 1).expect("the configuration is good");
        let friend = Router::new(now, settings::friend(choice), 2).expect("and the friend's");
        let mut lab = Self {
            choice,
            now,
            router,
            friend,
            pipes: Vec::new(),
            bad: (0..BAD).map(|_| Bad::default()).collect(),
            piece: usize::MAX,
            subscriber: None,
            routes_ready: false,
        };
        lab.settle();
        lab
    }

    // ===== what a script does =====

    /// A bad peer connects.
    pub(super) fn connect(&mut self, who: usize) {
        let remote = SocketAddr::new(bad_address(who), 40_000);
        let local = SocketAddr::new(OURS, 179);
        if let Some(connection) = self.router.handle_incoming(self.now, remote, local) {
            self.bad[who].open.push(connection);
        }
        self.settle();
    }

    /// The router's attempt to connect comes to something, or not.
    pub(super) fn answer(&mut self, who: usize, yes: bool) {
        let Some(connection) = self.bad[who].asked.pop() else {
            return;
        };
        if yes {
            self.bad[who].open.push(connection);
            let local = SocketAddr::new(OURS, 40_000);
            self.router.handle_connected(self.now, connection, local);
        } else {
            self.router
                .handle_closed(self.now, connection, "refused".to_owned());
        }
        self.settle();
    }

    /// A bad peer sends something on its latest connection.
    pub(super) fn hear(&mut self, who: usize, octets: &[u8]) {
        for piece in octets.chunks(self.piece) {
            let Some(connection) = self.bad[who].open.last().copied() else {
                return;
            };
            self.router.handle_octets(self.now, connection, piece);
            // Outputs are taken only after everything: what has been read is acted on at once.
        }
        self.settle();
    }

    pub(super) fn hear_in_pieces(&mut self, who: usize, piece: usize) {
        self.piece = if who == 0 { usize::MAX } else { piece };
    }

    /// A bad peer goes.
    pub(super) fn hang_up(&mut self, who: usize) {
        if let Some(connection) = self.bad[who].open.pop() {
            self.bad[who].ready.remove(&connection);
            self.router
                .handle_closed(self.now, connection, "connection reset".to_owned());
        }
    }

    /// Speaks on the other connection from now on.
    pub(super) fn switch(&mut self, who: usize) {
        self.bad[who].open.reverse();
    }

    /// A bad peer takes some of what there is for it.
    pub(super) fn read(&mut self, who: usize, chunks: usize) {
        for connection in self.bad[who].ready.clone() {
            for _ in 0..chunks {
                let chunk = self.router.transmit(connection).map(Octets::into_bytes);
                self.router
                    .handle_written(self.now, connection, chunk.is_some());
                match chunk {
                    Some(chunk) => check_framing(&chunk),
                    None => {
                        self.bad[who].ready.remove(&connection);
                        break;
                    }
                }
            }
        }
    }

    /// A bad peer that keeps its session for a while.
    pub(super) fn keep_alive(&mut self, who: usize, seconds: u8) {
        for _ in 0..seconds % 32 {
            self.pass(Duration::from_secs(1));
            self.hear(who, &speech::keepalive());
        }
    }

    pub(super) fn configure(&mut self, change: impl FnOnce(&mut SpeakerConfig)) {
        let before = self.router.config().clone();
        let mut config = before.clone();
        change(&mut config);
        if let Err(error) = self.router.configure(self.now, config) {
            assert!(!error.to_string().is_empty());
            assert!(*self.router.config() == before, "refused, and changed");
        }
    }

    pub(super) fn bfd(&mut self, address: IpAddr, choice: u8) {
        let lost = match choice % 4 {
            0 => return self.router.handle_bfd(self.now, address, true),
            1 => return self.router.handle_bfd(self.now, address, false),
            2 => Lost::Bfd {
                diagnostic: "down".to_owned(),
                independent: choice & 4 != 0,
            },
            _ => Lost::Link {
                interface: "eth0".to_owned(),
                what: "lost carrier".into(),
            },
        };
        self.router.handle_peer_lost(self.now, address, &lost);
    }

    pub(super) fn subscribe(&mut self, choice: u8) {
        match (self.subscriber, choice % 4) {
            (None, _) => self.subscriber = Some(self.router.subscribe()),
            (Some(id), 0) => {
                self.router.unsubscribe(id);
                self.subscriber = None;
            }
            (Some(id), _) if self.routes_ready => {
                self.routes_ready = self.router.poll_routes(id).is_some();
            }
            _ => {}
        }
    }

    pub(super) fn refresh(&mut self, address: IpAddr) {
        self.router.refresh(address);
    }

    /// People ask for the table, some at a time.
    pub(super) fn look(&mut self, choice: u8) {
        let prefix = match choice % 4 {
            0 => None,
            1 => Some(RibPrefix::Exact(settings::pool(choice))),
            _ => Some(RibPrefix::Covering([10, choice, choice, 1].into())),
        };
        let neighbor = (choice & 4 != 0).then(|| bad_address(usize::from(choice >> 7)));
        let query = RibQuery { prefix, neighbor };
        let mut next = Some(DestinationId(0));
        for _ in 0..OUTPUTS {
            let Some(from) = next else {
                return;
            };
            let slice = self.router.rib_slice(&query, from);
            assert!(slice.next.is_none_or(|next| next > from), "no progress");
            next = slice.next;
        }
        panic!("no end of the table");
    }

    /// Monitors come, take some, and go.
    pub(super) fn observe(&mut self, choice: u8) {
        let wants = |bit: u8| choice >> bit & 1 == 1;
        if wants(7) {
            for _ in 0..choice & 63 {
                self.router.poll_observation();
            }
            return;
        }
        self.router.observe(Interest {
            sessions: wants(0),
            states: wants(1),
            received: wants(2),
            sent: wants(3),
            before_policy: wants(4),
            after_policy: wants(5),
        });
    }

    /// Keys cannot be set for a peer, or can again.
    pub(super) fn bar(&mut self, who: usize, choice: u8) {
        let prefix = Prefix::host(bad_address(who));
        let barred = (choice & 1 == 0).then(|| (prefix, "no key".to_owned()));
        self.router.bar(barred.into_iter().collect());
    }

    pub(super) fn cost(&mut self, next_hop: IpAddr, choice: u8) {
        let cost = (!choice.is_multiple_of(4)).then_some(choice.into());
        self.router.set_next_hop_costs([(next_hop, cost)]);
    }

    /// Time passes, and every timer fires when it is due.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut at_once = 0;
        loop {
            let due = [self.router.poll_timeout(), self.friend.poll_timeout()];
            let Some(at) = due.into_iter().flatten().min().filter(|at| *at <= until) else {
                break;
            };
            at_once = if at > self.now { 0 } else { at_once + 1 };
            assert!(at_once < AT_ONCE, "a timer that does not move");
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
            self.friend.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    // ===== what follows =====

    /// Does what both routers ask for, without time passing.
    pub(super) fn settle(&mut self) {
        for _ in 0..OUTPUTS {
            if let Some(output) = self.router.poll_output() {
                self.perform(output);
            } else if let Some(output) = self.friend.poll_output() {
                self.perform_friend(output);
            } else {
                return;
            }
        }
        panic!("no end of outputs");
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Connect {
                connection, remote, ..
            } if remote.ip() == FRIEND => {
                let (from, to) = (SocketAddr::new(OURS, 40_000), SocketAddr::new(FRIEND, 179));
                match self.friend.handle_incoming(self.now, from, to) {
                    Some(theirs) => {
                        self.pipes.push((connection, theirs));
                        self.router.handle_connected(self.now, connection, from);
                    }
                    None => self
                        .router
                        .handle_closed(self.now, connection, "refused".to_owned()),
                }
            }
            Output::Connect {
                connection, remote, ..
            } => {
                let who = (0..BAD).find(|who| bad_address(*who) == remote.ip());
                let who = who.expect("nobody else is configured");
                self.bad[who].asked.push(connection);
            }
            Output::Transmit(connection) => self.flow(connection),
            Output::Close { connection, last } => self.close(connection, &last),
            Output::Routes(id) => self.routes_ready |= self.subscriber == Some(id),
        }
    }

    /// Sends to the friend at once, and has the others wait until they read.
    fn flow(&mut self, connection: ConnectionId) {
        let theirs = self.pipes.iter().find(|(ours, _)| *ours == connection);
        let Some((_, theirs)) = theirs.copied() else {
            let mut bad = self.bad.iter_mut();
            if let Some(bad) = bad.find(|bad| bad.open.contains(&connection)) {
                bad.ready.insert(connection);
            }
            return;
        };
        for _ in 0..OUTPUTS {
            let chunk = self.router.transmit(connection).map(Octets::into_bytes);
            self.router
                .handle_written(self.now, connection, chunk.is_some());
            let Some(chunk) = chunk else {
                return;
            };
            check_framing(&chunk);
            self.friend.handle_octets(self.now, theirs, &chunk);
        }
        panic!("no end of what is sent to the friend");
    }

    fn close(&mut self, connection: ConnectionId, last: &[u8]) {
        if let Some(at) = self.pipes.iter().position(|(ours, _)| *ours == connection) {
            let (_, theirs) = self.pipes.remove(at);
            self.friend.handle_octets(self.now, theirs, last);
            self.friend
                .handle_closed(self.now, theirs, "closed".to_owned());
        }
        for bad in &mut self.bad {
            bad.open.retain(|open| *open != connection);
            bad.asked.retain(|asked| *asked != connection);
            bad.ready.remove(&connection);
        }
    }

    fn perform_friend(&mut self, output: Output) {
        match output {
            Output::Connect { connection, .. } => {
                let (from, to) = (SocketAddr::new(FRIEND, 40_000), SocketAddr::new(OURS, 179));
                match self.router.handle_incoming(self.now, from, to) {
                    Some(ours) => {
                        self.pipes.push((ours, connection));
                        self.friend.handle_connected(self.now, connection, from);
                    }
                    None => self
                        .friend
                        .handle_closed(self.now, connection, "refused".to_owned()),
                }
            }
            Output::Transmit(connection) => {
                for _ in 0..OUTPUTS {
                    let chunk = self.friend.transmit(connection).map(Octets::into_bytes);
                    self.friend
                        .handle_written(self.now, connection, chunk.is_some());
                    let Some(chunk) = chunk else {
                        return;
                    };
                    let ours = self.pipes.iter().find(|(_, theirs)| *theirs == connection);
                    if let Some((ours, _)) = ours.copied() {
                        check_complaint(&chunk);
                        self.router.handle_octets(self.now, ours, &chunk);
                    }
                }
                panic!("no end of what the friend sends");
            }
            Output::Close { connection, last } => {
                let at = self
                    .pipes
                    .iter()
                    .position(|(_, theirs)| *theirs == connection);
                if let Some(at) = at {
                    let (ours, _) = self.pipes.remove(at);
                    check_complaint(&last);
                    self.router.handle_octets(self.now, ours, &last);
                    self.router
                        .handle_closed(self.now, ours, "closed".to_owned());
                }
            }
            Output::Routes(_) => {}
        }
    }

    // ===== what must hold =====

    fn line(router: &Router, address: IpAddr) -> PeerSummary {
        let mut lines = router.summary().into_iter();
        lines
            .find(|line| line.address == address)
            .expect("the peer is configured")
    }

    /// After every step.
    pub(super) fn check(&self) {
        for bad in &self.bad {
            assert!(bad.open.len() <= CONNECTIONS, "{bad:?}");
            assert!(bad.open.len() + bad.asked.len() <= CONNECTIONS, "{bad:?}");
        }
        let faults = Self::line(&self.friend, OURS).faults;
        assert_eq!(
            faults,
            FaultCounts::default(),
            "the friend was sent something faulty"
        );
    }

    /// After the script: the bad peers go, and all is well.
    pub(super) fn finish(&mut self) {
        let config = settings::clean(self.choice);
        self.router
            .configure(self.now, config)
            .expect("the configuration is good");
        self.router.bar(BTreeMap::new());
        self.settle();
        for bad in &self.bad {
            assert!(
                bad.open.is_empty() && bad.asked.is_empty(),
                "left behind: {bad:?}"
            );
        }
        let [theirs, ours] = announcements();
        let until = self.now + RECOVERY;
        let has = |router: &Router, prefix| {
            router
                .rib()
                .iter()
                .any(|entry| entry.best && entry.prefix == prefix)
        };
        while !(has(&self.router, theirs) && has(&self.friend, ours)) {
            assert!(
                self.now < until,
                "the session with a good peer does not come up, or passes no routes: {:#?} {:#?}",
                self.router.summary(),
                self.friend.summary()
            );
            self.pass(Duration::from_secs(1));
        }
        self.pass(Duration::from_secs(2));
        self.check();
        let only = |router: &Router| {
            let entries = router.rib().into_iter();
            let others = entries.filter(|entry| ![theirs, ours].contains(&entry.prefix));
            others.collect::<Vec<_>>()
        };
        assert_eq!(only(&self.router), [], "left behind in our table");
        assert_eq!(only(&self.friend), [], "left behind in the friend's table");
        let (sent, received) = (
            Self::line(&self.router, FRIEND),
            Self::line(&self.friend, OURS),
        );
        assert_eq!(sent.prefixes_sent, received.prefixes_received);
        if let Some(id) = self.subscriber.take() {
            let told: Vec<_> = std::iter::from_fn(|| self.router.poll_routes(id))
                .take(OUTPUTS)
                .collect();
            assert!(told.len() < OUTPUTS, "no end of routes");
            self.router.unsubscribe(id);
        }
        self.router.stop(self.now, None);
        self.settle();
        assert_eq!(self.router.established(), 0);
    }
}

/// What is sent consists of whole messages.
fn check_framing(chunk: &[u8]) {
    assert!(
        !chunk.is_empty() && chunk.len() <= CHUNK,
        "a chunk of {} octets",
        chunk.len()
    );
    let mut rest = chunk;
    while !rest.is_empty() {
        assert!(
            rest.len() >= HEADER_LENGTH && rest[..16] == [0xff; 16],
            "{rest:?}"
        );
        let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
        assert!(
            (HEADER_LENGTH..=rest.len()).contains(&length),
            "{length} of {}",
            rest.len()
        );
        rest = &rest[length..];
    }
}

/// A good peer complains only about what is nobody's fault: Cease, and a hold time that is over.
fn check_complaint(chunk: &[u8]) {
    let mut rest = chunk;
    while rest.len() > HEADER_LENGTH {
        let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
        if rest[18] == 3 {
            let code = rest[HEADER_LENGTH];
            assert!(
                [4, 6].contains(&code),
                "the friend complains: {:?}",
                &rest[HEADER_LENGTH..length]
            );
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}
