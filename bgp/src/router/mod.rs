//! The speaker without its sockets: peers, RIB and policies joined into one value.
//!
//! [`Router`] takes what happened (`handle_*`), and says what is to be done about it (`poll_*` and [`Router::transmit`]).
//! Whoever owns it brings connections, a clock and patience; the tests in this module bring simulated ones.
//!
//! | file | what |
//! |---|---|
//! | `aggregate` | routes of our own that stand for more specific ones |
//! | `attributes` | what becomes of a route on its way in and out |
//! | `barred` | peers whose connections are refused |
//! | `bfd` | sessions that wait for BFD |
//! | `peer` | one peer: its state machine, its connections, its session |
//! | `peers` | all of them, and whom to wake next |
//! | `configure` | from the configuration in force to the one desired |
//! | `deferral` | routes wait after our own restart |
//! | `long_lived` | what is kept of a peer beyond its restart |
//! | `limits` | how much a peer may send |
//! | `dynamic` | peers from ranges |
//! | `entries` | the paths held, in slices |
//! | `receive` | octets to messages to events |
//! | `records` | what is held against peers from ranges that are gone |
//! | `refresh` | routes once more, asked for or announced by the peer |
//! | `faults` | what was wrong with UPDATEs, counted |
//! | `import` | UPDATEs into the RIB |
//! | `export` | which routes peers are given for a destination |
//! | `outbound` | what peers were told, and what they still have to be: the Adj-RIBs-Out |
//! | `observed` | what monitors are told |
//! | `slices` | the RIB piece by piece, for monitors |
//! | `membership` | which peers share one, and what changes do to it |
//! | `transmit` | what is sent on a connection next |
//! | `octets` | the pieces that it is sent in |
//! | `subscribe` | routes for whoever installs them |
//! | `summary` | what people are shown |
//! | `work` | walks over the whole table, a little at a time |
//! | `ways` | next hops, their costs and their weights |

mod aggregate;
mod attributes;
mod barred;
mod bfd;
mod configure;
mod deferral;
mod dynamic;
mod entries;
mod export;
mod faults;
mod import;
mod limits;
mod long_lived;
mod membership;
mod observed;
mod octets;
mod outbound;
#[cfg(test)]
mod pair;
mod peer;
mod peers;
mod receive;
mod records;
mod refresh;
mod slices;
mod subscribe;
mod summary;
#[cfg(test)]
mod tests;
mod transmit;
mod view;
mod ways;
mod work;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::{ConfigError, PeerConfig, Security, SpeakerConfig};
use crate::fsm::{ConnectionEvent, Event, Serial};
use crate::jitter::Jitter;
use crate::observe::DownReason;
use crate::rib::{DestinationId, Rib};
use crate::types::{Prefix, peer_key};
use crate::wire::{Cease, Nlri, Notification};

use aggregate::Aggregates;
use deferral::Deferral;
#[cfg(feature = "speaker")]
pub(crate) use entries::sort as sort_entries;
pub use entries::{RibPrefix, RibQuery, RibSlice};
pub use faults::FaultCounts;
use observed::Watch;
pub use octets::Octets;
use outbound::Groups;
use peer::Peer;
use peers::Peers;
use records::Records;
pub use slices::{AdjInWalk, CountWalk, DumpWalk};
use subscribe::Subscriber;
pub use subscribe::SubscriberId;
pub use view::{
    Agreed, BestPath, FamilySummary, MessageCounts, PeerSummary, RibEntry, RouteBatch, RouteChange,
};
use work::Work;

/// Names a configured peer; a peer that is removed and comes back gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(u32);

/// Names a TCP connection, existing or being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId {
    peer: PeerId,
    serial: Serial,
}

/// How it is known that the way to a peer is dead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Lost {
    /// BFD says so (RFC 5882 section 4).
    #[error("BFD is down: {diagnostic}")]
    Bfd {
        /// Why, for people.
        diagnostic: String,
        /// The peer's BFD survives a restart of its BGP (the C bit), so that forwarding has failed whatever its BGP does.
        independent: bool,
    },
    /// The interface towards the peer has no carrier, is down, or is gone.
    #[error("interface {interface} {what}")]
    Link {
        /// The interface.
        interface: String,
        /// What happened to it, such as `lost carrier`.
        what: Cow<'static, str>,
    },
}

impl Lost {
    /// What the peer is told: of BFD, that it was BFD (RFC 9384); without a link there is no telling.
    fn notification(&self) -> Option<Notification> {
        match self {
            Self::Bfd { .. } => Some(Notification::cease(Cease::BfdDown)),
            Self::Link { .. } => None,
        }
    }

    /// Whether the routes of a peer that is away for a restart go too. A restart mostly takes BFD along (RFC 5882 section
    /// 4.3.2), unless that runs elsewhere.
    fn ends_restart(&self) -> bool {
        match self {
            Self::Bfd { independent, .. } => *independent,
            Self::Link { .. } => true,
        }
    }
}

/// What the owner of a [`Router`] is asked to do, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Output {
    /// Open a TCP connection and answer with [`Router::handle_connected`] or [`Router::handle_closed`].
    Connect {
        /// What to call it.
        connection: ConnectionId,
        /// Where to.
        remote: SocketAddr,
        /// The source address; `None` leaves it to the system.
        local: Option<IpAddr>,
        /// TTL or hop limit of the packets.
        ttl: u8,
    },
    /// There is something to send: call [`Router::transmit`] as long as the connection takes more. Said once; the owner
    /// has to remember it until `transmit` returned `None`.
    Transmit(ConnectionId),
    /// Send `last` if that is possible without waiting for long, and close the connection; or give up opening it.
    Close {
        /// Which one. Nothing more is said or wanted about it.
        connection: ConnectionId,
        /// What remains to be sent, a NOTIFICATION mostly. May be empty.
        #[serde(serialize_with = "digits")]
        last: Bytes,
    },
    /// There is something to fetch with [`Router::poll_routes`]. Said once, as for `Transmit`.
    Routes(SubscriberId),
}

/// Octets as hexadecimal digits.
fn digits<S: Serializer>(octets: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{octets:x}"))
}

/// One BGP speaker.
///
/// Inputs: [`configure`](Self::configure), [`handle_incoming`](Self::handle_incoming),
/// [`handle_connected`](Self::handle_connected), [`handle_octets`](Self::handle_octets),
/// [`handle_written`](Self::handle_written), [`handle_closed`](Self::handle_closed),
/// [`handle_timeout`](Self::handle_timeout), [`stop`](Self::stop). After any of them take
/// [`poll_output`](Self::poll_output) until it is `None`, and then ask [`poll_timeout`](Self::poll_timeout) when to call
/// `handle_timeout`. `now` must never go backwards.
#[derive(Debug)]
pub struct Router {
    config: SpeakerConfig,
    peers: Peers,
    addresses: BTreeMap<IpAddr, PeerId>,
    next_peer: u32,
    /// Changes with the peers there are, and with how they are configured.
    peers_version: u64,
    next_subscriber: u64,
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    rib: Rib,
    /// Changes with whatever decides about routes: configuration, sessions.
    epoch: u32,
    /// Where changed destinations are collected. Empty between calls.
    changed: Vec<DestinationId>,
    /// The next routes of an UPDATE, kept for its memory.
    announced: Vec<Nlri>,
    aggregates: Aggregates,
    groups: Groups,
    /// The time of the last event.
    clock: Instant,
    jitter: Jitter,
    outputs: VecDeque<Output>,
    work: Work,
    deferral: Option<Deferral>,
    /// Only while somebody asks for observations.
    watch: Option<Box<Watch>>,
    records: Records,
    /// Whose connections are refused, and why.
    barred: BTreeMap<Prefix, String>,
}

impl Router {
    /// A speaker that starts working on `config` at once. `seed` is where its jitter comes from.
    ///
    /// # Errors
    /// A [`ConfigError`] if the configuration cannot be used.
    pub fn new(now: Instant, config: SpeakerConfig, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        let mut jitter = Jitter::new(seed);
        let empty = SpeakerConfig::new(config.asn, config.router_id);
        let mut router = Self {
            config: empty,
            peers: Peers::default(),
            addresses: BTreeMap::new(),
            next_peer: 0,
            peers_version: 0,
            next_subscriber: 0,
            subscribers: BTreeMap::new(),
            rib: Rib::new(jitter.next_u64()),
            epoch: 0,
            changed: Vec::new(),
            announced: Vec::new(),
            aggregates: Aggregates::default(),
            groups: Groups::default(),
            clock: now,
            jitter,
            outputs: VecDeque::new(),
            work: Work::default(),
            deferral: config
                .graceful_restart
                .filter(|restart| restart.restarting)
                .map(|_| Deferral::new(now, config.selection_deferral)),
            watch: None,
            records: Records::default(),
            barred: BTreeMap::new(),
        };
        router.configure(now, config)?;
        Ok(router)
    }

    /// The peers there are, those from ranges included, and what they are to be like.
    pub fn peer_configs(&self) -> impl Iterator<Item = (IpAddr, &PeerConfig)> {
        self.peers.values().map(|peer| (peer.address, &peer.config))
    }

    /// Changes whenever [`peer_configs`](Self::peer_configs) does.
    #[must_use]
    pub fn peers_version(&self) -> u64 {
        self.peers_version
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// A TCP connection was accepted. `None`: close it, nobody wants it.
    pub fn handle_incoming(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: SocketAddr,
    ) -> Option<ConnectionId> {
        let address = remote.ip().to_canonical();
        if self.barred(address).is_some() {
            return None;
        }
        // The same link-local address on another link is somebody else.
        let key = match remote {
            SocketAddr::V6(remote) => peer_key(address, remote.scope_id()),
            SocketAddr::V4(_) => address,
        };
        let id = match self.addresses.get(&key) {
            Some(id) => *id,
            None => self.peer_from(now, address)?,
        };
        let peer = self.peers.get_mut(&id)?;
        let (local, local_port) = (local.ip().to_canonical(), local.port());
        if peer
            .config
            .local_address
            .is_some_and(|wanted| wanted != local)
        {
            return None;
        }
        if let SocketAddr::V6(remote) = remote
            && peer.config.scope != 0
            && remote.scope_id() != peer.config.scope
        {
            return None;
        }
        let ports = (remote.port(), local_port);
        let serial = peer.fsm.accept(now)?;
        peer.add_line(serial, Some(local), ports);
        self.note_ending(id, DownReason::Closed { event: 17 });
        self.drain(now, id);
        Some(ConnectionId { peer: id, serial })
    }

    /// A connection asked for with [`Output::Connect`] is open.
    pub fn handle_connected(&mut self, now: Instant, connection: ConnectionId, local: SocketAddr) {
        let ConnectionId { peer: id, serial } = connection;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(line) = peer.line_mut(serial) {
            line.local = Some(local.ip().to_canonical());
            line.ports.1 = local.port();
        }
        self.feed(now, id, serial, ConnectionEvent::TcpConnected);
    }

    /// A connection could not be opened, or has ended; `reason` is for people.
    pub fn handle_closed(&mut self, now: Instant, connection: ConnectionId, reason: String) {
        let event = ConnectionEvent::TcpConnectionFails(reason);
        self.feed(now, connection.peer, connection.serial, event);
    }

    /// Something of what [`Router::transmit`] gave has been taken by the peer's side; `outstanding` if not all of it.
    pub fn handle_written(&mut self, now: Instant, connection: ConnectionId, outstanding: bool) {
        self.clock = now;
        if let Some(peer) = self.peers.get_mut(&connection.peer)
            && peer.session_on(connection.serial).is_some()
        {
            peer.fsm.handle_transmit(now, outstanding);
        }
    }

    /// The TTL or hop limit of packets on a connection.
    #[must_use]
    pub fn ttl(&self, connection: ConnectionId) -> Option<u8> {
        self.peers.get(&connection.peer).map(Peer::ttl)
    }

    /// The address of a connection's peer, and the index of the interface it belongs to; 0 for any.
    #[must_use]
    pub fn address(&self, connection: ConnectionId) -> Option<(IpAddr, u32)> {
        let peer = self.peers.get(&connection.peer)?;
        Some((peer.address, peer.config.scope))
    }

    /// What a connection's peer is known by ([`peer_key`]).
    #[must_use]
    pub fn key(&self, connection: ConnectionId) -> Option<IpAddr> {
        Some(self.peers.get(&connection.peer)?.key)
    }

    /// How the packets of a connection's peer are told from those of others, and the peer's address.
    #[must_use]
    pub fn security(&self, connection: ConnectionId) -> Option<(IpAddr, &Security)> {
        let peer = self.peers.get(&connection.peer)?;
        Some((peer.address, &peer.config.security))
    }

    /// Adds to what is known about why a connection could not be opened.
    pub fn add_hint(&mut self, connection: ConnectionId, hint: &str) {
        if let Some(peer) = self.peers.get_mut(&connection.peer) {
            peer.add_hint(hint);
        }
    }

    /// Lets every timer fire that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock = now;
        self.work();
        self.end_rests(now);
        for id in self.peers.due(now) {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            peer.fsm.handle_timeout(now);
            self.drain(now, id);
            self.end_penalty(now, id);
            let stale_until = self.peers.get(&id).and_then(|peer| peer.stale_until);
            if stale_until.is_some_and(|at| at <= now) {
                self.end_stale(now, id);
            }
            self.end_long_lived(now, id);
            self.end_late_refreshes(now, id);
            self.end_waiting(now, id);
        }
        self.reconsider_deferral(now);
    }

    /// The way to the peer with a key ([`peer_key`]) is known to be dead: its session ends now, not when the hold time is over,
    /// and its routes go. A peer that is not there is not lost.
    pub fn handle_peer_lost(&mut self, now: Instant, key: IpAddr, lost: &Lost) {
        let Some(id) = self.addresses.get(&key).copied() else {
            return;
        };
        self.note_ending(id, DownReason::Closed { event: 8 });
        let mut away = false;
        if let Some(peer) = self.peers.get_mut(&id) {
            away = peer.session.is_none();
            let event = Event::PathDown {
                notification: lost.notification(),
                reason: lost.to_string(),
            };
            peer.fsm.handle_event(now, event);
        }
        self.drain(now, id);
        // A path that is dead forwards nothing: what a restart had kept goes as well.
        if !away || lost.ends_restart() {
            self.end_restart(id);
        }
        if matches!(lost, Lost::Bfd { .. }) {
            self.handle_bfd(now, key, false);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    #[must_use]
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let peers = self.peers.poll_timeout();
        let work = self.work.is_pending().then_some(self.clock);
        let others = [self.deferral_timeout(), self.poll_rest(), work];
        others.into_iter().chain([peers]).flatten().min()
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Ends every session, with a NOTIFICATION or, without one, so that peers with graceful restart keep our routes.
    pub fn stop(&mut self, now: Instant, notification: Option<Notification>) {
        let ids: Vec<_> = self.peers.keys().copied().collect();
        for id in ids {
            self.note_ending(id, DownReason::Closed { event: 2 });
            if let Some(peer) = self.peers.get_mut(&id) {
                let notification = notification.clone();
                peer.fsm.handle_event(now, Event::Stop { notification });
            }
            self.drain(now, id);
        }
    }

    /// Feeds an event of a connection to the state machine and does what it asks for.
    fn feed(&mut self, now: Instant, id: PeerId, serial: Serial, event: ConnectionEvent) {
        self.clock = now;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.fsm.handle_connection_event(now, serial, event);
        }
        self.drain(now, id);
    }

    /// Tells every view that these destinations changed.
    fn spread(&mut self, changed: &[DestinationId]) {
        self.spread_others();
        if changed.is_empty() {
            return;
        }
        let more = self.aggregates.follow(&mut self.rib, changed);
        let all: Vec<DestinationId>;
        let changed = if more.is_empty() {
            changed
        } else {
            all = changed.iter().copied().chain(more).collect();
            &all
        };
        self.spread_to_groups(changed);
        for (id, subscriber) in &mut self.subscribers {
            for destination in changed {
                subscriber.view.mark(self.rib.table_mut(), *destination);
            }
            if subscriber.arm() {
                self.outputs.push_back(Output::Routes(*id));
            }
        }
        // Those that have no path left and concern nobody.
        for destination in changed {
            self.rib.table_mut().collect(*destination);
        }
    }
}
