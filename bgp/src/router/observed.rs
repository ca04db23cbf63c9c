//! What monitors are told: observations, made only while somebody asks for them.
//!
//! They wait in a bounded queue for whoever owns the router; what does not fit is counted and lost, so that no session ever
//! waits for a monitor.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Bytes, BytesMut};

use super::octets::Octets;
use super::peer::{Line, Peer};
use super::{ConnectionId, PeerId, Router};
use crate::fsm::Serial;
use crate::observe::{DownReason, Interest, MonitoredPeer, Observation, Stage};
use crate::rib::RouteId;
use crate::types::{Asn, Family, FamilySet, Prefix, RouterId};
use crate::wire::{self, Context, Message, Nlri, SessionKind, Update, Verdict};

/// Octets of observations that wait at most. The owner takes them after each event, and one event is one read from a peer.
pub(super) const QUEUE: usize = if cfg!(test) { 1 << 20 } else { 16 << 20 };

/// What is observed, and what waits to be taken.
#[derive(Debug, Default)]
pub(super) struct Watch {
    interest: Interest,
    queue: VecDeque<Observation>,
    weight: usize,
    lost: u64,
}

impl Watch {
    fn push(&mut self, observation: Observation) {
        let weight = observation.weight();
        if self.weight + weight > QUEUE {
            self.lost += 1;
            return;
        }
        self.weight += weight;
        self.queue.push_back(observation);
    }
}

impl Router {
    /// Says what is to be observed from now on. Nothing wanted costs nothing; what waits and is wanted no more goes.
    pub fn observe(&mut self, interest: Interest) {
        if interest == Interest::default() {
            self.watch = None;
            return;
        }
        if self.watch.is_none() {
            for peer in self.peers.values_mut() {
                peer.reported = peer.fsm.state();
                peer.ending = None;
            }
        }
        self.watch.get_or_insert_default().interest = interest;
    }

    /// The next observation, in the order things happened.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        let watch = self.watch.as_mut()?;
        let observation = watch.queue.pop_front()?;
        watch.weight = watch.weight.saturating_sub(observation.weight());
        Some(observation)
    }

    /// How many observations did not fit since this was last asked.
    pub fn take_lost_observations(&mut self) -> u64 {
        let watch = self.watch.as_mut();
        watch.map_or(0, |watch| std::mem::take(&mut watch.lost))
    }

    /// Every session that is established, as it was observed when it became that.
    #[must_use]
    pub fn sessions(&self) -> Vec<Observation> {
        let peers = self.peers.values();
        peers.filter_map(|peer| self.up(peer)).collect()
    }

    fn wants(&self, what: impl Fn(&Interest) -> bool) -> bool {
        self.watch.as_ref().is_some_and(|w| what(&w.interest))
    }

    pub(super) fn push_observation(&mut self, observation: Observation) {
        if let Some(watch) = &mut self.watch {
            watch.push(observation);
        }
    }

    /// A peer as monitors name it, on one of its connections or on none.
    pub(super) fn monitored(&self, peer: &Peer, line: Option<&Line>) -> MonitoredPeer {
        let session = peer.session.as_ref();
        let session = session.filter(|session| line.is_none_or(|l| l.serial == session.serial));
        let unspecified = match peer.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let local = session.map(|session| (session.local, session.ports));
        let local = local.or_else(|| line.and_then(|line| Some((line.local?, line.ports))));
        let (local_address, (port, local_port)) = local.unwrap_or((unspecified, (0, 0)));
        let speaker = &self.config;
        let asn = session.map(|session| session.negotiated.peer_asn);
        MonitoredPeer {
            address: peer.address,
            asn: asn.or(peer.config.asn.number()).unwrap_or(Asn::ZERO),
            router_id: session.map_or(RouterId(0), |session| session.negotiated.peer_id),
            port,
            local_address,
            local_port,
            local_asn: peer
                .config
                .policy
                .local_as
                .map_or(speaker.asn, |local| local.asn),
            // Before the OPENs nothing in a message depends on it.
            four_octet_asn: session.is_none_or(|session| session.context.four_octet_asn),
            add_path: session.is_some_and(|s| s.context.add_path_receive != FamilySet::EMPTY),
        }
    }

    fn monitored_on(&self, id: PeerId, serial: Serial) -> Option<MonitoredPeer> {
        let peer = self.peers.get(&id)?;
        let line = peer.lines.iter().find(|line| line.serial == serial);
        Some(self.monitored(peer, line))
    }

    /// The established session, as monitors name it.
    pub(super) fn monitored_session(&self, id: PeerId) -> Option<MonitoredPeer> {
        let peer = self.peers.get(&id)?;
        peer.session.as_ref()?;
        Some(self.monitored(peer, None))
    }

    fn up(&self, peer: &Peer) -> Option<Observation> {
        let session = peer.session.as_ref()?;
        let mut lines = peer.lines.iter();
        let line = lines.find(|line| line.serial == session.serial)?;
        let (sent, received) = line.opens.clone();
        Some(Observation::Up {
            peer: self.monitored(peer, None),
            sent,
            received,
        })
    }

    // ===== sessions =====

    pub(super) fn observe_up(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.ending = None;
        }
        if !self.wants(|interest| interest.sessions) {
            return;
        }
        if let Some(up) = self.peers.get(&id).and_then(|peer| self.up(peer)) {
            self.push_observation(up);
        }
    }

    /// The session has ended, and is still there to be named.
    pub(super) fn observe_down(&mut self, id: PeerId) {
        if !self.wants(|interest| interest.sessions) {
            return;
        }
        let Some(monitored) = self.monitored_session(id) else {
            return;
        };
        let peer = self.peers.get_mut(&id);
        let ending = peer.and_then(|peer| peer.ending.take());
        self.push_observation(Observation::Down {
            peer: monitored,
            reason: ending.unwrap_or(DownReason::Lost),
        });
    }

    /// Why the session, if there is one, is about to end, should it end without a NOTIFICATION.
    pub(super) fn note_ending(&mut self, id: PeerId, reason: DownReason) {
        if self.watch.is_some()
            && let Some(peer) = self.peers.get_mut(&id)
            && peer.session.is_some()
        {
            peer.ending = Some(reason);
        }
    }

    /// A NOTIFICATION on a connection, which is about to end by it.
    pub(super) fn note_notification(&mut self, id: PeerId, serial: Serial, reason: DownReason) {
        let peer = self.peers.get(&id);
        if peer.is_some_and(|peer| peer.session_on(serial).is_some()) {
            self.note_ending(id, reason);
        }
    }

    /// Reports the state of a peer if it is another one than before.
    pub(super) fn observe_state(&mut self, id: PeerId) {
        if !self.wants(|interest| interest.states) {
            return;
        }
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let (old, new) = (peer.reported, peer.fsm.state());
        if old == new {
            return;
        }
        let monitored = self.monitored(peer, peer.lines.first());
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.reported = new;
        }
        self.push_observation(Observation::State {
            peer: monitored,
            old,
            new,
        });
    }

    // ===== messages =====

    pub(super) fn observe_received(&mut self, id: PeerId, serial: Serial, frame: &[u8]) {
        if !self.wants(|interest| interest.received) {
            return;
        }
        if let Some(peer) = self.monitored_on(id, serial) {
            self.push_observation(Observation::Received {
                peer,
                message: Bytes::copy_from_slice(frame),
            });
        }
    }

    pub(super) fn observe_sent(&mut self, connection: ConnectionId, messages: &Octets) {
        if !self.wants(|interest| interest.sent) {
            return;
        }
        if let Some(peer) = self.monitored_on(connection.peer, connection.serial) {
            self.push_sent(connection.peer, peer, messages.clone().into_bytes());
        }
    }

    /// The last words on a connection that is not a peer's any more.
    pub(super) fn observe_last(&mut self, id: PeerId, line: &Line) {
        if line.control.is_empty() || !self.wants(|interest| interest.sent) {
            return;
        }
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let monitored = self.monitored(peer, Some(line));
        let messages = Bytes::copy_from_slice(&line.control);
        self.push_sent(id, monitored, messages);
    }

    fn push_sent(&mut self, id: PeerId, mut peer: MonitoredPeer, messages: Bytes) {
        let session = self.peers.get(&id).and_then(|peer| peer.session.as_ref());
        let add_path = |s: &super::peer::Session| s.context.add_path_send != FamilySet::EMPTY;
        peer.add_path = session.is_some_and(add_path);
        self.push_observation(Observation::Sent { peer, messages });
    }

    // ===== routes =====

    /// What an UPDATE came down to, if that is not what is written in it and somebody wants to know.
    pub(super) fn repaired(&self, id: PeerId, verdict: &Verdict, update: &Update) -> Option<Bytes> {
        if *verdict == Verdict::Accept || !self.wants(|i| i.before_policy || i.after_policy) {
            return None;
        }
        let context = self.peers.get(&id)?.session.as_ref()?.context;
        let mut out = BytesMut::new();
        let message = Message::Update(update.clone());
        wire::encode(&message, &monitoring(&context), &mut out).ok()?;
        Some(out.freeze())
    }

    /// UPDATEs of an established session that have become part of its Adj-RIB-In.
    pub(super) fn observe_routes(&mut self, id: PeerId, messages: &[u8]) {
        if messages.is_empty() || !self.wants(|i| i.before_policy || i.after_policy) {
            return;
        }
        let Some(peer) = self.monitored_session(id) else {
            return;
        };
        if self.wants(|interest| interest.before_policy) {
            self.push_observation(Observation::Routes {
                peer: peer.clone(),
                stage: Stage::BeforePolicy,
                messages: Bytes::copy_from_slice(messages),
            });
        }
        if self.wants(|interest| interest.after_policy) {
            let after = self.after_policy(id, messages);
            if !after.is_empty() {
                self.push_observation(Observation::Routes {
                    peer,
                    stage: Stage::AfterPolicy,
                    messages: after,
                });
            }
        }
    }

    /// What the import policy has made of the routes in UPDATEs that were just taken.
    fn after_policy(&self, id: PeerId, messages: &[u8]) -> Bytes {
        let session = self.peers.get(&id).and_then(|peer| peer.session.as_ref());
        let Some(context) = session.map(|session| session.context) else {
            return Bytes::new();
        };
        let mut writer = RouteWriter::new(&context);
        for message in crate::observe::split(messages) {
            match wire::decode(message, &context).map(|decoded| decoded.message) {
                Ok(Message::Update(update)) => {
                    let reach = update.reach.iter().flat_map(|reach| &reach.nlri);
                    for nlri in update.withdrawn.iter().chain(reach) {
                        self.write_after_policy(id, *nlri, &mut writer);
                    }
                }
                Ok(Message::EndOfRib(_)) => writer.end_of_rib(message),
                _ => {}
            }
        }
        writer.finish(self)
    }

    fn write_after_policy(&self, id: PeerId, nlri: Nlri, writer: &mut RouteWriter) {
        let table = self.rib.table();
        let destination = table.find(&nlri.prefix).and_then(|found| table.get(found));
        let paths = destination.map_or(&[][..], |destination| destination.paths());
        let number = nlri.path_id.unwrap_or(0);
        let path = paths
            .iter()
            .find(|path| path.source() == id.source() && path.path_id() == number);
        match path.filter(|path| path.is_accepted()) {
            Some(path) => writer.announce(path.effective(), nlri),
            None => writer.withdraw(nlri),
        }
    }

    /// What is stale of an established session goes without a word from the peer, so monitors are told.
    pub(super) fn observe_sweep(&mut self, id: PeerId, families: FamilySet) {
        if !self.wants(|i| i.before_policy || i.after_policy) {
            return;
        }
        let session = self.peers.get(&id).and_then(|peer| peer.session.as_ref());
        let Some(context) = session.map(|session| session.context) else {
            return;
        };
        let mut writer = RouteWriter::new(&context);
        for destination in self.rib.table().iter() {
            if !families.contains(destination.family()) {
                continue;
            }
            let paths = destination.paths().iter();
            for path in paths.filter(|path| path.source() == id.source() && path.is_stale()) {
                writer.withdraw(writer.nlri(destination.prefix(), path.path_id()));
            }
        }
        let messages = writer.finish(self);
        let Some(peer) = self.monitored_session(id).filter(|_| !messages.is_empty()) else {
            return;
        };
        for (stage, wanted) in [
            (Stage::BeforePolicy, self.wants(|i| i.before_policy)),
            (Stage::AfterPolicy, self.wants(|i| i.after_policy)),
        ] {
            if wanted {
                self.push_observation(Observation::Routes {
                    peer: peer.clone(),
                    stage,
                    messages: messages.clone(),
                });
            }
        }
    }

    /// The import policy has decided anew about every route of a peer.
    pub(super) fn observe_reconsidered(&mut self, id: PeerId) {
        if !self.wants(|interest| interest.after_policy) {
            return;
        }
        if let Some(peer) = self.monitored_session(id) {
            self.push_observation(Observation::Reconsidered { peer });
        }
    }
}

/// How a session's routes are written for monitors: as the peer writes them, with what internal peers may see.
fn monitoring(context: &Context) -> Context {
    Context {
        session: SessionKind::Internal,
        add_path_send: context.add_path_receive,
        extended_next_hop: true,
        ..*context
    }
}

/// Collects routes of one session and writes them as few UPDATEs.
pub(super) struct RouteWriter {
    context: Context,
    announced: BTreeMap<(RouteId, bool), Vec<Nlri>>,
    withdrawn: BTreeMap<bool, Vec<Nlri>>,
    markers: BytesMut,
}

impl RouteWriter {
    /// For a session that reads its messages like this.
    pub(super) fn new(context: &Context) -> Self {
        Self {
            context: monitoring(context),
            announced: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
            markers: BytesMut::new(),
        }
    }

    /// A path to a prefix, with its number if the session has numbers.
    pub(super) fn nlri(&self, prefix: Prefix, path_id: u32) -> Nlri {
        let numbered = self.context.add_path_send.contains(prefix.family());
        Nlri {
            prefix,
            path_id: numbered.then_some(path_id),
        }
    }

    pub(super) fn announce(&mut self, route: RouteId, nlri: Nlri) {
        let ipv6 = nlri.prefix.family() == Family::Ipv6Unicast;
        self.announced.entry((route, ipv6)).or_default().push(nlri);
    }

    pub(super) fn withdraw(&mut self, nlri: Nlri) {
        let ipv6 = nlri.prefix.family() == Family::Ipv6Unicast;
        self.withdrawn.entry(ipv6).or_default().push(nlri);
    }

    fn end_of_rib(&mut self, message: &[u8]) {
        self.markers.extend_from_slice(message);
    }

    /// The UPDATEs, withdrawals first. What cannot be written is left out: it came from a peer, so it can.
    pub(super) fn finish(self, router: &Router) -> Bytes {
        let mut out = BytesMut::new();
        let family = |ipv6| match ipv6 {
            true => Family::Ipv6Unicast,
            false => Family::Ipv4Unicast,
        };
        for (ipv6, routes) in self.withdrawn {
            let _ = wire::encode_withdraw(family(ipv6), routes, &self.context, &mut out);
        }
        for ((id, ipv6), routes) in self.announced {
            let route = router.rib.route(id);
            let Some(next_hop) = route.next_hop else {
                continue;
            };
            let attributes = &route.attributes;
            let _ = wire::encode_reach(
                attributes,
                family(ipv6),
                &next_hop,
                routes,
                &self.context,
                &mut out,
            );
        }
        out.extend_from_slice(&self.markers);
        out.freeze()
    }
}
