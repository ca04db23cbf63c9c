//! The owner task: the one place that holds the router. It never waits for a peer or a subscriber.
//!
//! ```text
//!   Speaker handles ──commands──▶ ┌───────┐ ◀──events── listeners, connectors, connections
//!                                 │ owner │ ──chunks──▶ one bounded channel per connection
//!   RouteStreams ◀────batches──── └───────┘
//! ```
//!
//! Towards connections and subscribers the owner first waits (beside everything else) for a place in their channel, and only
//! then has the router make what goes into it. Whoever reads slowly therefore costs a full channel and nothing more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::admission::Ticket;
use super::bfd::{self, Bfd, News};
use super::flow::{Flow, Progress};
use super::handle::{Shutdown, SpeakerError};
use super::io::{self, Event};
use super::keys;
use super::links::{self, Links};
use super::listen::Listeners;
use super::recording::Sink;
use super::stream::RouteStream;
use super::unnumbered::{Found, Unnumbered};
use super::watch::{Given, WatchId, Watchers, Watching};
use crate::config::{Announcement, Secret, SpeakerConfig};
use crate::fsm::State;
use crate::observe::record::Recorded;
use crate::observe::{MonitoredPeer, Timestamp, bmp};
use crate::rib::DestinationId;
use crate::router::{
    ConnectionId, CountWalk, DumpWalk, Lost, Octets, Output, PeerSummary, RibQuery, RibSlice,
    RouteBatch, SubscriberId,
};
use crate::types::{Prefix, peer_key};
use crate::wire::Notification;

/// Events waiting for the owner, from all connections together. Each holds one read at most, so this bounds memory and makes
/// a flood from one peer slow down the reading from it.
const EVENTS: usize = 64;
/// Chunks waiting to be written on one connection.
const CHUNKS: usize = 2;
/// Batches waiting for one subscriber.
const BATCHES: usize = 4;
/// What the kernel's count of wrong signatures means.
const DROPPED: &str =
    "segments were dropped for their TCP-MD5 signature: is the password the same on both sides?";
/// How long nobody tries to set keys again that could not be set.
const KEYS_AGAIN: Duration = Duration::from_secs(10);
/// How long a shutdown waits for the last words to be written.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What a [`super::Speaker`] handle asks of the owner task.
#[derive(Debug)]
pub(super) enum Command {
    Configure {
        config: Box<SpeakerConfig>,
        reply: oneshot::Sender<Result<(), SpeakerError>>,
    },
    Announce {
        announcements: BTreeMap<Prefix, Announcement>,
        reply: oneshot::Sender<Result<(), SpeakerError>>,
    },
    Subscribe {
        reply: oneshot::Sender<RouteStream>,
    },
    Summary {
        reply: oneshot::Sender<Vec<PeerSummary>>,
    },
    Rib {
        query: RibQuery,
        from: DestinationId,
        reply: oneshot::Sender<RibSlice>,
    },
    /// Begins to observe.
    Watch {
        how: Watching,
        reply: oneshot::Sender<Given>,
    },
    /// Another slice of the routes a monitor is told of at first.
    MoreRoutes {
        id: WatchId,
    },
    /// Another slice of a dump of the RIB, or the first one.
    Dump {
        walk: Option<DumpWalk>,
        at: Timestamp,
        reply: oneshot::Sender<DumpSlice>,
    },
    /// Another slice of the destinations that have a best path.
    Count {
        walk: CountWalk,
        reply: oneshot::Sender<(CountWalk, bool)>,
    },
    Statistics {
        loc_rib: u64,
        reply: oneshot::Sender<Vec<(MonitoredPeer, bmp::Statistics)>>,
    },
    NextHopCosts {
        costs: Vec<(IpAddr, Option<u32>)>,
        reply: oneshot::Sender<()>,
    },
    Refresh {
        address: IpAddr,
        reply: oneshot::Sender<bool>,
    },
    Listening {
        reply: oneshot::Sender<Vec<SocketAddr>>,
    },
    Shutdown {
        how: Shutdown,
        reply: oneshot::Sender<()>,
    },
}

/// Part of a dump.
#[derive(Debug)]
pub(super) struct DumpSlice {
    /// Where to go on.
    pub(super) walk: DumpWalk,
    /// Records.
    pub(super) octets: Bytes,
    /// There is more.
    pub(super) more: bool,
}

/// A connection as the owner sees it.
enum Connection {
    Connecting(AbortHandle),
    Open {
        chunks: mpsc::Sender<Octets>,
        close: oneshot::Sender<Bytes>,
        /// How the writing goes.
        flow: Flow,
        /// The socket itself, for changing its key.
        signed: Option<(OwnedFd, Secret)>,
    },
}

/// A place in a channel, or the news that the other end is gone.
enum Place {
    Connection(ConnectionId, Option<OwnedPermit<Octets>>),
    Subscriber(SubscriberId, Option<OwnedPermit<RouteBatch>>),
}

type Places = FuturesUnordered<Pin<Box<dyn Future<Output = Place> + Send>>>;

struct Owner {
    router: Recorded,
    recording: Option<Sink>,
    watchers: Watchers,
    listeners: Listeners,
    connections: HashMap<ConnectionId, Connection>,
    subscribers: HashMap<SubscriberId, mpsc::Sender<RouteBatch>>,
    places: Places,
    tasks: JoinSet<()>,
    /// Connections that had nothing more to send, but not written everything yet.
    unwritten: HashSet<ConnectionId>,
    /// Keys that could not be set are tried again after this.
    keys_again: Option<std::time::Instant>,
    /// Segments the kernel had dropped for their signature when it was last looked at.
    signature_failures: Option<u64>,
    /// And when the speaker started.
    signature_failures_before: Option<u64>,
    bfd: Bfd,
    /// The version of the peers that BFD knows of.
    peers: Option<u64>,
    /// The configuration as it was asked for, without the peers that were found.
    wanted: SpeakerConfig,
    unnumbered: Unnumbered,
    links: Links,
    events: mpsc::Sender<Event>,
}

/// Opens the listeners and starts the owner task on a thread of its own.
pub(super) async fn start(
    config: SpeakerConfig,
    recording: Option<Sink>,
) -> Result<mpsc::Sender<Command>, SpeakerError> {
    config.validate()?;
    let (commands, inbox) = mpsc::channel(64);
    let (ready, started) = oneshot::channel();
    std::thread::Builder::new()
        .name("bgp".to_owned())
        .spawn(move || serve(config, recording, inbox, ready))
        .map_err(|source| SpeakerError::Thread { source })?;
    // A thread that goes without a word has panicked.
    started.await.unwrap_or(Err(SpeakerError::Stopped))?;
    Ok(commands)
}

/// The thread.
fn serve(
    config: SpeakerConfig,
    recording: Option<Sink>,
    commands: mpsc::Receiver<Command>,
    ready: oneshot::Sender<Result<(), SpeakerError>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(source) => return drop(ready.send(Err(SpeakerError::Thread { source }))),
    };
    // Keepalives and withdrawals should not wait behind whatever else keeps the machine busy. Not permitted is no harm.
    if let Err(error) = margay_bgp_sys::nice(-10) {
        debug!(%error, "the speaker runs with ordinary precedence");
    }
    runtime.block_on(async {
        let (events, event_inbox) = mpsc::channel(EVENTS);
        match Owner::new(config, recording, events) {
            Ok(owner) => {
                let _ = ready.send(Ok(()));
                owner.run(commands, event_inbox).await;
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Entropy without a dependency: the keys the standard library draws for its hash maps.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

impl Owner {
    fn new(
        config: SpeakerConfig,
        recording: Option<Sink>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, SpeakerError> {
        let mut listeners = Listeners::new(events.clone());
        let opened = listeners.open_missing(&config.listen)?;
        listeners.keep(opened);
        // Before the first connection is accepted: keys are taken over by it.
        let failures = listeners.set_keys(keys::wanted(&config));
        let mut unnumbered = Unnumbered::default();
        unnumbered.watch(&config.interfaces);
        let mut owner = Self {
            wanted: config.clone(),
            unnumbered,
            links: Links::open(),
            router: Recorded::new(now(), config, seed(), recording.is_some())?,
            recording,
            watchers: Watchers::default(),
            listeners,
            connections: HashMap::new(),
            subscribers: HashMap::new(),
            places: FuturesUnordered::new(),
            tasks: JoinSet::new(),
            unwritten: HashSet::new(),
            keys_again: None,
            signature_failures: keys::failures(),
            signature_failures_before: keys::failures(),
            bfd: Bfd::default(),
            peers: None,
            events,
        };
        owner.bar(failures);
        Ok(owner)
    }

    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut events: mpsc::Receiver<Event>,
    ) {
        let done = loop {
            self.act();
            self.tell();
            let wake = self.router.poll_timeout().map(Instant::from_std);
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Shutdown { how, reply }) => break Some((how, reply)),
                    Some(command) => self.obey(command),
                    None => break None,
                },
                // The channel cannot end: the owner holds a sender.
                Some(event) = events.recv() => self.happened(event),
                news = self.bfd.news() => self.heard(news),
                found = self.unnumbered.found() => self.found(&found),
                news = self.links.news() => self.heard_of_link(news),
                Some(place) = self.places.next() => self.fill(place),
                Some(_) = self.tasks.join_next() => {}
                () = timer => {
                    self.look_at_flows();
                    self.router.handle_timeout(now());
                }
            }
        };
        let (how, reply) = done.unzip();
        self.shut_down(how.unwrap_or(Shutdown::Graceful)).await;
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    fn obey(&mut self, command: Command) {
        // Whoever asked may have stopped waiting for the answer; that is no error.
        match command {
            Command::Configure { config, reply } => drop(reply.send(self.configure(*config))),
            Command::Announce {
                announcements,
                reply,
            } => drop(reply.send(self.announce(announcements))),
            Command::Subscribe { reply } => {
                let (sender, receiver) = mpsc::channel(BATCHES);
                self.subscribers.insert(self.router.subscribe(), sender);
                let _ = reply.send(RouteStream::new(receiver));
            }
            Command::Summary { reply } => self.summarize(reply),
            Command::Rib { query, from, reply } => {
                let _ = reply.send(self.router.rib_slice(&query, from));
            }
            Command::Watch { how, reply } => {
                let _ = reply.send(self.watchers.add(&mut self.router, how));
            }
            Command::MoreRoutes { id } => self.watchers.more(&mut self.router, id),
            Command::Dump { walk, at, reply } => drop(reply.send(self.dump(walk, at))),
            Command::Count { mut walk, reply } => {
                let more = self.router.count_slice(&mut walk);
                let _ = reply.send((walk, more));
            }
            Command::Statistics { loc_rib, reply } => {
                let _ = reply.send(self.router.statistics(loc_rib));
            }
            Command::NextHopCosts { costs, reply } => {
                self.router.set_next_hop_costs(costs);
                let _ = reply.send(());
            }
            Command::Refresh { address, reply } => {
                let _ = reply.send(self.router.refresh(address));
            }
            Command::Listening { reply } => drop(reply.send(self.listeners.addresses())),
            // Ends the loop in `run`.
            Command::Shutdown { reply, .. } => drop(reply.send(())),
        }
    }

    /// Part of a dump of the RIB.
    fn dump(&self, walk: Option<DumpWalk>, at: Timestamp) -> DumpSlice {
        let mut octets = BytesMut::new();
        let mut walk = walk.unwrap_or_else(|| self.router.walk_dump(at, &mut octets));
        let more = self.router.dump_slice(&mut walk, &mut octets);
        DumpSlice {
            walk,
            octets: octets.freeze(),
            more,
        }
    }

    /// Passes on what monitors and the recorder are to know.
    fn tell(&mut self) {
        self.watchers.spread(&mut self.router);
        if let Some(recording) = &self.recording
            && !recording.take(&mut self.router)
        {
            warn!("the recording has ended, its last line says why");
            self.recording = None;
            self.router.stop_recording();
        }
    }

    fn configure(&mut self, config: SpeakerConfig) -> Result<(), SpeakerError> {
        config.validate()?;
        // New listeners first: if one fails, nothing has changed.
        let opened = self.listeners.open_missing(&config.listen)?;
        let wanted = config.listen.clone();
        self.unnumbered.watch(&config.interfaces);
        self.put_in_force(&config)?;
        self.listeners.keep(opened);
        self.change_keys();
        self.listeners.close_unwanted(&wanted);
        self.wanted = config;
        Ok(())
    }

    fn announce(
        &mut self,
        announcements: BTreeMap<Prefix, Announcement>,
    ) -> Result<(), SpeakerError> {
        self.router
            .set_announcements(now(), announcements.clone())?;
        self.wanted.announcements = announcements;
        Ok(())
    }

    /// Makes a configuration the one in force, with the peers that were found for it.
    fn put_in_force(&mut self, config: &SpeakerConfig) -> Result<(), SpeakerError> {
        let config = self.unnumbered.complete(config);
        self.router.configure(now(), config)?;
        Ok(())
    }

    /// Has BFD watch the paths to the peers there are now: those from ranges come and go with their connections.
    fn watch_paths(&mut self) {
        let version = Some(self.router.peers_version());
        if self.peers != version {
            self.peers = version;
            self.bfd.configure(bfd::wanted(self.router.peer_configs()));
        }
    }

    /// A router was found on an interface, or the interface is gone.
    fn found(&mut self, found: &Found) {
        if !self.unnumbered.remember(found) {
            return;
        }
        let config = self.wanted.clone();
        if let Err(error) = self.put_in_force(&config) {
            warn!(interface = found.interface, %error, "the router found cannot be a peer");
        }
        self.change_keys();
    }

    fn happened(&mut self, event: Event) {
        let now = now();
        match event {
            Event::Incoming {
                stream,
                remote,
                local,
                ticket,
            } => match self.router.handle_incoming(now, remote, local) {
                Some(connection) => match self.objection(connection, &stream) {
                    Some(reason) => self.router.handle_closed(now, connection, reason),
                    None => self.attach(connection, stream, Some(ticket)),
                },
                None => {
                    debug!(%remote, "connection refused: no such peer, or not now");
                    self.retry_keys();
                }
            },
            Event::Connected {
                connection,
                stream,
                local,
            } => {
                if !self.connections.contains_key(&connection) {
                    return;
                }
                self.attach(connection, stream, None);
                self.router.handle_connected(now, connection, local);
            }
            Event::Octets { connection, octets } => {
                if self.connections.contains_key(&connection) {
                    self.router.handle_octets(now, connection, &octets);
                }
            }
            Event::Closed { connection, reason } => {
                debug!(?connection, reason, "connection ended");
                self.router.handle_closed(now, connection, reason);
            }
        }
    }

    /// BFD has something to say about a path.
    fn heard(&mut self, News { path, change }: News) {
        let now = now();
        let key = peer_key(path.remote, path.interface);
        if change.is_failure() {
            let lost = Lost::Bfd {
                independent: change.remote_independent,
                diagnostic: change.diagnostic.to_string(),
            };
            self.router.handle_peer_lost(now, key, &lost);
        }
        let up = change.to == bfd::State::Up;
        self.router.handle_bfd(now, key, up);
    }

    /// Something about the link that a peer is on.
    fn heard_of_link(&mut self, news: links::News) {
        match news {
            links::News::Lost { connection, lost } => {
                if self.connections.contains_key(&connection)
                    && let Some(key) = self.router.key(connection)
                {
                    self.router.handle_peer_lost(now(), key, &lost);
                }
            }
            links::News::Found { connection, .. }
                if !self.connections.contains_key(&connection) => {}
            news => self.links.heard(news),
        }
    }

    /// Answers with the summary, and with what BFD knows as soon as that has come.
    fn summarize(&mut self, reply: oneshot::Sender<Vec<PeerSummary>>) {
        let mut lines = self.router.summary();
        self.hint_at_passwords(&mut lines);
        let Some(reports) = self.bfd.report() else {
            let _ = reply.send(lines);
            return;
        };
        self.tasks.spawn(async move {
            for report in reports.await.unwrap_or_default() {
                let mut lines = lines.iter_mut();
                let (remote, interface) = (report.path.remote, report.path.interface);
                let line = lines.find(|l| l.address == remote && l.scope == interface);
                if let Some(line) = line {
                    line.bfd = Some(report.session);
                }
            }
            let _ = reply.send(lines);
        });
    }

    /// Keys could not be set for these: without them nobody is let in.
    fn bar(&mut self, failures: keys::Failures) {
        for (who, why) in &failures {
            if self.keys_again.is_none() {
                warn!(%who, why, "connections are refused");
            }
        }
        self.keys_again = (!failures.is_empty()).then(|| now() + KEYS_AGAIN);
        self.router.bar(failures);
    }

    /// Somebody was refused: perhaps a key can be set now that could not be before.
    fn retry_keys(&mut self) {
        if self.keys_again.is_some_and(|at| at <= now()) {
            let failures = self.listeners.set_keys_again();
            self.bar(failures);
        }
    }

    /// Tells the router what was written since it was last told.
    fn look_at_flows(&mut self) {
        let now = now();
        self.unwritten.retain(|connection| {
            let Some(Connection::Open { flow, .. }) = self.connections.get_mut(connection) else {
                return false;
            };
            let progress = flow.progress();
            if progress != Progress::None {
                let outstanding = progress == Progress::Some;
                self.router.handle_written(now, *connection, outstanding);
            }
            progress != Progress::Done
        });
    }

    /// Puts passwords that have changed on the listeners and on the connections that are open.
    fn change_keys(&mut self) {
        let wanted = keys::wanted(self.router.config());
        let failures = self.listeners.set_keys(wanted);
        self.bar(failures);
        for (connection, state) in &mut self.connections {
            let Some((address, security)) = self.router.security(*connection) else {
                continue;
            };
            let Connection::Open { signed, .. } = state else {
                continue;
            };
            let Some((socket, known)) = signed else {
                continue;
            };
            let wanted = security.password.clone().unwrap_or_default();
            if *known != wanted {
                keys::set_password(&*socket, address, &wanted);
                *known = wanted;
            }
        }
    }

    /// Whoever connects to us with another password is dropped by the kernel, which only counts that.
    fn hint_at_passwords(&self, lines: &mut [PeerSummary]) {
        let peers = &self.router.config().peers;
        let waits = |line: &&mut PeerSummary| {
            let peer = peers.get(&peer_key(line.address, line.scope));
            let signs = peer.is_some_and(|peer| peer.security.password.is_some());
            signs && line.state != State::Established && line.last_error.is_none()
        };
        let mut waiting = lines.iter_mut().filter(waits).peekable();
        if waiting.peek().is_none() || keys::failures() <= self.signature_failures_before {
            return;
        }
        for line in waiting {
            line.last_error = Some(format!("nobody has connected, and {DROPPED}"));
        }
    }

    /// An attempt to connect was given up. With a password there may be more to say about it.
    fn explain(&mut self, connection: ConnectionId) {
        let Some((_, security)) = self.router.security(connection) else {
            return;
        };
        if let Some(hops) = security.ttl_security {
            let hint = format!("ttlSecurity drops what comes from farther than {hops} hops");
            self.router.add_hint(connection, &hint);
        }
        let signs = self.router.security(connection);
        if signs.is_none_or(|(_, security)| security.password.is_none()) {
            return;
        }
        let failures = keys::failures();
        if failures > self.signature_failures {
            self.signature_failures = failures;
            self.router.add_hint(connection, DROPPED);
        } else {
            self.router.add_hint(
                connection,
                "a peer with another TCP-MD5 password does not answer at all",
            );
        }
    }

    /// What speaks against an accepted connection, for people.
    fn objection(
        &self,
        connection: ConnectionId,
        stream: &tokio::net::TcpStream,
    ) -> Option<String> {
        let (address, security) = self.router.security(connection)?;
        if io::is_from_afar(stream, security.least_ttl()) {
            let reason = "the connection came with a lower TTL than ttlSecurity allows";
            return Some(reason.to_owned());
        }
        keys::sign_accepted(stream, address, security).err()
    }

    fn attach(
        &mut self,
        connection: ConnectionId,
        stream: tokio::net::TcpStream,
        ticket: Option<Ticket>,
    ) {
        if let Some((address, scope)) = self.router.address(connection) {
            self.links.watch(connection, address, scope);
        }
        if let Some(ttl) = self.router.ttl(connection) {
            io::set_ttl(&stream, ttl);
        }
        let mut signed = None;
        if let Some((_, security)) = self.router.security(connection) {
            io::require_ttl(&stream, security.least_ttl());
            signed = security.password.clone().and_then(|password| {
                let socket = stream.as_fd().try_clone_to_owned().ok()?;
                Some((socket, password))
            });
        }
        let (chunks, inbox) = mpsc::channel(CHUNKS);
        let (close, closing) = oneshot::channel();
        let flow = Flow::default();
        let given = io::Given {
            chunks: inbox,
            written: flow.written(),
            closing,
            ticket,
        };
        let task = io::run(connection, stream, given, self.events.clone());
        self.tasks.spawn(task);
        self.connections.insert(
            connection,
            Connection::Open {
                chunks,
                close,
                flow,
                signed,
            },
        );
    }

    /// Does what the router asks for.
    fn act(&mut self) {
        let mut given_up = Vec::new();
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Connect {
                    connection,
                    remote,
                    local,
                    ttl,
                } => {
                    let security = self.router.security(connection);
                    let security = security.map(|(_, security)| security.clone());
                    let how = io::How {
                        local,
                        ttl,
                        security: security.unwrap_or_default(),
                    };
                    let task = io::connect(connection, remote, how, self.events.clone());
                    let abort = self.tasks.spawn(task);
                    self.connections
                        .insert(connection, Connection::Connecting(abort));
                }
                Output::Transmit(connection) => self.await_place_on(connection),
                Output::Routes(subscriber) => self.await_place_for(subscriber),
                Output::Close { connection, last } => {
                    self.links.forget(connection);
                    match self.connections.remove(&connection) {
                        Some(Connection::Connecting(abort)) => {
                            abort.abort();
                            given_up.push(connection);
                        }
                        Some(Connection::Open { close, .. }) => drop(close.send(last)),
                        None => {}
                    }
                }
            }
        }
        for connection in given_up {
            self.explain(connection);
        }
        self.watch_paths();
    }

    fn await_place_on(&self, connection: ConnectionId) {
        if let Some(Connection::Open { chunks, .. }) = self.connections.get(&connection) {
            let place = chunks.clone().reserve_owned();
            self.places.push(Box::pin(async move {
                Place::Connection(connection, place.await.ok())
            }));
        }
    }

    fn await_place_for(&self, subscriber: SubscriberId) {
        if let Some(sender) = self.subscribers.get(&subscriber) {
            let place = sender.clone().reserve_owned();
            self.places.push(Box::pin(async move {
                Place::Subscriber(subscriber, place.await.ok())
            }));
        }
    }

    /// There is room in a channel: have the router make something for it.
    fn fill(&mut self, place: Place) {
        match place {
            Place::Connection(connection, Some(permit)) => {
                let chunk = self.router.transmit(connection);
                let Some(Connection::Open { flow, .. }) = self.connections.get_mut(&connection)
                else {
                    return;
                };
                // The peer's time to read runs from when it last read something (RFC 9687), or was given something after
                // it had read everything.
                let progress = flow.progress();
                match chunk {
                    Some(chunk) => {
                        flow.give();
                        permit.send(chunk);
                        if progress != Progress::None {
                            self.router.handle_written(now(), connection, true);
                        }
                        self.await_place_on(connection);
                    }
                    None if progress == Progress::Done => {
                        self.router.handle_written(now(), connection, false);
                    }
                    None => {
                        if progress == Progress::Some {
                            self.router.handle_written(now(), connection, true);
                        }
                        self.unwritten.insert(connection);
                    }
                }
            }
            // The connection's task is gone, and says so itself.
            Place::Connection(_, None) => {}
            Place::Subscriber(subscriber, Some(permit)) => {
                if let Some(batch) = self.router.poll_routes(subscriber) {
                    permit.send(batch);
                    self.await_place_for(subscriber);
                }
            }
            Place::Subscriber(subscriber, None) => {
                self.subscribers.remove(&subscriber);
                self.router.unsubscribe(subscriber);
            }
        }
    }

    async fn shut_down(mut self, how: Shutdown) {
        info!(?how, "speaker is shutting down");
        self.listeners.close_unwanted(&[]);
        let notification = match how {
            Shutdown::Cease { message } => Some(Notification::administrative_shutdown(&message)),
            Shutdown::Graceful => None,
        };
        self.router.stop(now(), notification);
        self.act();
        if let Some(tape) = self.router.tape_mut() {
            tape.end("the speaker was shut down");
        }
        self.tell();
        // The rest of the senders: a connection ends once nobody can give it anything more.
        self.connections.clear();
        self.places.clear();
        // Peers hear that BFD goes on purpose before they miss it.
        drop(std::mem::take(&mut self.bfd));
        let finish = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WORDS, finish).await.is_err() {
            warn!("some connections did not take their last message in time");
        }
    }
}
