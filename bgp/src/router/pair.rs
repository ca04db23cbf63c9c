//! Routers in a simulated network with virtual time: the test driver.
//!
//! Every router has one address. Octets, connections and their ends take [`Lab::latency`] to arrive, in order. Time jumps to
//! whatever happens next; a run that does not come to an end panics after [`STEPS`] steps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{ConnectionId, Output, PeerSummary, RouteBatch, Router, SubscriberId};
use crate::config::{PeerConfig, SpeakerConfig};
use crate::fsm::State;
use crate::types::{Asn, Prefix, RouterId};

/// Bound on the steps of one run: what takes longer is a livelock.
const STEPS: usize = 200_000;

type End = (usize, ConnectionId);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Arrival {
    Syn {
        from: End,
        to: IpAddr,
    },
    Connected {
        at: End,
        from: usize,
    },
    Octets {
        at: End,
        from: usize,
        octets: Bytes,
    },
    Fin {
        at: End,
        from: usize,
        reason: String,
    },
}

pub(super) struct Lab {
    pub(super) routers: Vec<Router>,
    addresses: Vec<IpAddr>,
    pub(super) latency: Duration,
    pub(super) now: Instant,
    sequence: u64,
    arrivals: BinaryHeap<Reverse<(Instant, u64, Arrival)>>,
    pipes: BTreeMap<End, End>,
    /// Nothing from or to these arrives any more.
    pub(super) cut: BTreeSet<usize>,
    /// These do not read: nothing is transmitted to them.
    pub(super) slow: BTreeSet<usize>,
    stalled: BTreeSet<End>,
    ready: BTreeMap<usize, BTreeSet<SubscriberId>>,
}

/// The address of router `index`.
pub(super) fn address(index: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(index).unwrap() + 1])
}

/// A configuration for router `index` in AS `asn` without policy, so that everything passes.
pub(super) fn speaker(index: usize, asn: u32) -> SpeakerConfig {
    let router_id = RouterId(u32::try_from(index).unwrap() + 1);
    SpeakerConfig {
        require_policy: false,
        ..SpeakerConfig::new(Asn(asn), router_id)
    }
}

/// A configuration of peer `index` in AS `asn`.
pub(super) fn peer(index: usize, asn: u32) -> PeerConfig {
    PeerConfig::new(address(index), Asn(asn))
}

pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

impl Lab {
    pub(super) fn new(configs: Vec<SpeakerConfig>) -> Self {
        let now = Instant::now();
        let addresses = (0..configs.len()).map(address).collect();
        let routers = configs
            .into_iter()
            .zip(1..)
            .map(|(config, seed)| Router::new(now, config, seed).unwrap())
            .collect();
        Self {
            routers,
            addresses,
            latency: Duration::from_millis(1),
            now,
            sequence: 0,
            arrivals: BinaryHeap::new(),
            pipes: BTreeMap::new(),
            cut: BTreeSet::new(),
            slow: BTreeSet::new(),
            stalled: BTreeSet::new(),
            ready: BTreeMap::new(),
        }
    }

    /// Routers that all peer with each other, one for each AS number.
    pub(super) fn mesh(asns: &[u32]) -> Self {
        let config = |index: usize| {
            let mut config = speaker(index, asns[index]);
            for (other, asn) in asns.iter().enumerate().filter(|(other, _)| *other != index) {
                config.peers.insert(address(other), peer(other, *asn));
            }
            config
        };
        Self::new((0..asns.len()).map(config).collect())
    }

    fn send(&mut self, arrival: Arrival) {
        self.sequence += 1;
        self.arrivals
            .push(Reverse((self.now + self.latency, self.sequence, arrival)));
    }

    /// Does what all routers ask for, without time passing.
    pub(super) fn settle(&mut self) {
        for index in 0..self.routers.len() {
            while let Some(output) = self.routers[index].poll_output() {
                self.perform(index, output);
            }
        }
    }

    fn perform(&mut self, index: usize, output: Output) {
        match output {
            Output::Connect {
                connection, remote, ..
            } => {
                self.send(Arrival::Syn {
                    from: (index, connection),
                    to: remote.ip(),
                });
            }
            Output::Transmit(connection) => self.transmit((index, connection)),
            Output::Close { connection, last } => {
                let end = (index, connection);
                self.stalled.remove(&end);
                if let Some(other) = self.pipes.remove(&end) {
                    self.pipes.remove(&other);
                    if !last.is_empty() {
                        self.send(Arrival::Octets {
                            at: other,
                            from: index,
                            octets: last,
                        });
                    }
                    self.send(Arrival::Fin {
                        at: other,
                        from: index,
                        reason: "closed by the peer".to_owned(),
                    });
                }
            }
            Output::Routes(subscriber) => {
                self.ready.entry(index).or_default().insert(subscriber);
            }
        }
    }

    fn transmit(&mut self, end: End) {
        let Some(other) = self.pipes.get(&end).copied() else {
            return;
        };
        if self.slow.contains(&other.0) {
            self.stalled.insert(end);
            return;
        }
        while let Some(octets) = self.routers[end.0].transmit(end.1) {
            self.send(Arrival::Octets {
                at: other,
                from: end.0,
                octets: octets.into_bytes(),
            });
        }
    }

    /// Octets that router `to` takes for router `from`'s.
    pub(super) fn inject(&mut self, to: usize, from: usize, octets: &[u8]) {
        let mut ends = self.pipes.iter();
        let (end, _) = ends.find(|(a, b)| a.0 == to && b.0 == from).unwrap();
        self.routers[to].handle_octets(self.now, end.1, octets);
        self.settle();
    }

    /// A slow router reads again.
    pub(super) fn hurry(&mut self, index: usize) {
        self.slow.remove(&index);
        for end in std::mem::take(&mut self.stalled) {
            self.transmit(end);
        }
    }

    /// Ends every connection of a router at its peers without a word, as when its process is killed.
    pub(super) fn kill_connections(&mut self, index: usize) {
        for (end, other) in self.pipes.clone() {
            if end.0 == index {
                self.pipes.remove(&end);
                self.pipes.remove(&other);
                for at in [end, other] {
                    self.send(Arrival::Fin {
                        at,
                        from: index,
                        reason: "connection reset".to_owned(),
                    });
                }
            }
        }
    }

    /// Forgets a router's connections without its peers noticing.
    pub(super) fn forget(&mut self, index: usize) {
        self.pipes
            .retain(|end, other| end.0 != index && other.0 != index);
        self.arrivals.clear();
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Syn { from, to } => self.syn(from, to),
            Arrival::Connected { at, .. } => {
                let local = SocketAddr::new(self.addresses[at.0], 40_000);
                self.routers[at.0].handle_connected(self.now, at.1, local);
            }
            Arrival::Octets { at, octets, .. } => {
                self.routers[at.0].handle_octets(self.now, at.1, &octets);
            }
            Arrival::Fin { at, reason, .. } => {
                self.routers[at.0].handle_closed(self.now, at.1, reason)
            }
        }
    }

    fn syn(&mut self, from: End, to: IpAddr) {
        let Some(index) = self.addresses.iter().position(|a| *a == to) else {
            return;
        };
        if self.cut.contains(&index) || self.cut.contains(&from.0) {
            return;
        }
        let remote = SocketAddr::new(self.addresses[from.0], 40_000);
        let local = SocketAddr::new(to, 179);
        self.send(Arrival::Connected {
            at: from,
            from: index,
        });
        match self.routers[index].handle_incoming(self.now, remote, local) {
            Some(connection) => {
                self.pipes.insert(from, (index, connection));
                self.pipes.insert((index, connection), from);
            }
            None => self.send(Arrival::Fin {
                at: from,
                from: index,
                reason: "refused".to_owned(),
            }),
        }
    }

    fn is_lost(&self, arrival: &Arrival) -> bool {
        match arrival {
            Arrival::Syn { .. } => false,
            Arrival::Connected { at, from }
            | Arrival::Octets { at, from, .. }
            | Arrival::Fin { at, from, .. } => self.cut.contains(&at.0) || self.cut.contains(from),
        }
    }

    /// Moves on to the next thing that happens before `until`; false if there is none.
    fn step(&mut self, until: Instant) -> bool {
        self.settle();
        let arrival = self.arrivals.peek().map(|Reverse((at, ..))| *at);
        let timers = self.routers.iter_mut().filter_map(Router::poll_timeout);
        let timer = timers.min();
        let Some(next) = arrival
            .into_iter()
            .chain(timer)
            .min()
            .filter(|next| *next <= until)
        else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        if arrival.is_some_and(|at| at <= next) {
            if let Some(Reverse((_, _, arrival))) = self.arrivals.pop()
                && !self.is_lost(&arrival)
            {
                self.arrive(arrival);
            }
        } else {
            self.routers
                .iter_mut()
                .for_each(|router| router.handle_timeout(self.now));
        }
        self.settle();
        true
    }

    /// Lets `time` pass.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..STEPS {
            if !self.step(until) {
                return;
            }
        }
        panic!("no end after {STEPS} steps");
    }

    /// Lets time pass until `condition` holds, at most `limit`; returns how long it took.
    pub(super) fn run_until(
        &mut self,
        limit: Duration,
        condition: impl Fn(&Lab) -> bool,
    ) -> Duration {
        let start = self.now;
        self.settle();
        for _ in 0..STEPS {
            if condition(self) {
                return self.now - start;
            }
            assert!(
                self.step(start + limit),
                "not within {limit:?}: {:#?}",
                self.states()
            );
        }
        panic!("no end after {STEPS} steps");
    }

    /// Runs until every configured session is up.
    pub(super) fn establish(&mut self) -> Duration {
        self.run_until(Duration::from_secs(120), |lab| {
            lab.routers
                .iter()
                .all(|router| router.established() == router.config().peers.len())
        })
    }

    pub(super) fn states(&self) -> Vec<Vec<(IpAddr, State, Option<String>)>> {
        let line = |p: PeerSummary| (p.address, p.state, p.last_error);
        let lines = |router: &Router| router.summary().into_iter().map(line).collect();
        self.routers.iter().map(lines).collect()
    }

    /// What router `index` has to say about peer `other`.
    pub(super) fn summary(&self, index: usize, other: usize) -> PeerSummary {
        let mut all = self.routers[index].summary().into_iter();
        all.find(|line| line.address == address(other)).unwrap()
    }

    /// The best path of a router: `(next hop, AS path)`.
    pub(super) fn best(&self, index: usize, text: &str) -> Option<(Option<IpAddr>, String)> {
        let entries = self.routers[index].rib().into_iter();
        let mut best = entries.filter(|entry| entry.best && entry.prefix == prefix(text));
        best.next().map(|entry| (entry.next_hop, entry.as_path))
    }

    /// Changes a router's configuration.
    pub(super) fn reconfigure(&mut self, index: usize, change: impl FnOnce(&mut SpeakerConfig)) {
        let mut config = self.routers[index].config().clone();
        change(&mut config);
        self.routers[index].configure(self.now, config).unwrap();
        self.settle();
    }

    /// Has a router originate a route.
    pub(super) fn announce(&mut self, index: usize, text: &str) {
        self.reconfigure(index, |config| {
            config
                .announcements
                .insert(prefix(text), Default::default());
        });
    }

    /// Everything a subscriber can be told now.
    pub(super) fn routes(&mut self, index: usize, subscriber: SubscriberId) -> Vec<RouteBatch> {
        self.settle();
        let ready = self.ready.entry(index).or_default().remove(&subscriber);
        let router = &mut self.routers[index];
        std::iter::from_fn(|| router.poll_routes(subscriber))
            .take(if ready { usize::MAX } else { 0 })
            .collect()
    }
}
