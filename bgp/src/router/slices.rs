//! The RIB piece by piece, for monitors: what stations are told of at first, dumps, counts.
//!
//! A walk remembers a number of a destination and nothing else of the table, so that the router goes on between two slices. What
//! changes meanwhile is either seen by the walk or told as an observation after the slice that showed how it was before.
//! Each slice is bounded by routes and by destinations looked at, which keeps it well below two milliseconds.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;

use super::observed::RouteWriter;
use super::peer::Peer;
use super::{PeerId, Router};
use crate::fsm::Serial;
use crate::observe::mrt::{self, IndexedPeer, RibPath};
use crate::observe::{Interest, MonitoredPeer, Observation, Stage, Timestamp, bmp};
use crate::rib::{DestinationId, Path, Source};
use crate::types::{Asn, Prefix};
use crate::wire::{self, Context, Message, NextHop};

/// Paths in one slice at most.
const PATHS: usize = 512;
/// Destinations looked at in one slice at most.
const DESTINATIONS: u32 = 16 * 1024;

impl AdjInWalk {
    /// This walk, and when it is over another one.
    #[must_use]
    pub fn and_again(mut self, then: Self) -> Self {
        self.then = Some(Box::new(then));
        self
    }
}

/// A walk over the routes of the sessions that were established when it began.
#[derive(Debug, Clone)]
pub struct AdjInWalk {
    next: u32,
    sessions: BTreeMap<PeerId, Serial>,
    interest: Interest,
    /// The policy has changed since the last walk: what it refuses now may have been told.
    again: bool,
    then: Option<Box<AdjInWalk>>,
}

/// A walk that writes the RIB in MRT's TABLE_DUMP_V2.
#[derive(Debug, Clone)]
pub struct DumpWalk {
    next: u32,
    at: Timestamp,
    sequence: u32,
    peers: BTreeMap<Source, u16>,
}

impl DumpWalk {
    /// How many prefixes have been written.
    #[must_use]
    pub fn prefixes(&self) -> u32 {
        self.sequence
    }
}

/// A walk that counts the destinations with a best path.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountWalk {
    next: u32,
    /// How many there were so far.
    pub found: u64,
}

impl Router {
    /// Begins to tell what the established sessions have sent, of the stages of policy that are wanted.
    #[must_use]
    pub fn walk_adj_in(&self, interest: Interest) -> AdjInWalk {
        let session = |peer: &Peer| peer.session.as_ref().map(|session| session.serial);
        let sessions = self.peers.iter();
        AdjInWalk {
            next: 0,
            sessions: sessions
                .filter_map(|(id, peer)| Some((*id, session(peer)?)))
                .collect(),
            interest,
            again: false,
            then: None,
        }
    }

    /// Begins to tell what a changed import policy makes of all routes, also of those it refuses.
    #[must_use]
    pub fn walk_after_policy(&self) -> AdjInWalk {
        let interest = Interest {
            after_policy: true,
            ..Interest::default()
        };
        AdjInWalk {
            again: true,
            ..self.walk_adj_in(interest)
        }
    }

    /// The next routes of a walk, and at its end an End-of-RIB for each session. False: that was all.
    pub fn adj_in_slice(&self, walk: &mut AdjInWalk, out: &mut Vec<Observation>) -> bool {
        // A session that has gone and come back is told of as it comes.
        walk.sessions.retain(|id, serial| {
            let peer = self.peers.get(id);
            peer.is_some_and(|peer| peer.session_on(*serial).is_some())
        });
        let mut sorter = Sorter {
            router: self,
            walk,
            found: BTreeMap::new(),
        };
        let (next, more) = self.slice(sorter.walk.next, |path, prefix| sorter.take(path, prefix));
        sorter.write(out);
        walk.next = next;
        if !more && !walk.again {
            self.end_of_ribs(walk, out);
        }
        if !more && let Some(then) = walk.then.take() {
            *walk = *then;
            return true;
        }
        more
    }

    fn end_of_ribs(&self, walk: &AdjInWalk, out: &mut Vec<Observation>) {
        for id in walk.sessions.keys() {
            let session = self.peers.get(id).and_then(|peer| peer.session.as_ref());
            let (Some(session), Some(monitored)) = (session, self.monitored_session(*id)) else {
                continue;
            };
            let mut messages = BytesMut::new();
            for family in session.negotiated.families.iter() {
                messages.extend_from_slice(&bmp::octets_of(&Message::EndOfRib(family)));
            }
            let messages = messages.freeze();
            out.extend(stages(walk.interest).map(|stage| Observation::Routes {
                peer: monitored.clone(),
                stage,
                messages: messages.clone(),
            }));
        }
    }

    /// Shows the next paths to `each`; where to go on, and whether there is more.
    fn slice(&self, from: u32, mut each: impl FnMut(&Path, Prefix)) -> (u32, bool) {
        let table = self.rib.table();
        let end = table.end().0;
        let last = end.min(from.saturating_add(DESTINATIONS));
        let mut paths = 0;
        for number in from..last {
            if paths >= PATHS {
                return (number, true);
            }
            let Some(destination) = table.get(DestinationId(number)) else {
                continue;
            };
            paths += destination.paths().len();
            let prefix = destination.prefix();
            destination
                .paths()
                .iter()
                .for_each(|path| each(path, prefix));
        }
        (last, last < end)
    }

    // ===== dumps =====

    /// Begins to write the RIB: the index of the peers that have routes in it goes to `out`. Number 0 is this speaker.
    #[must_use]
    pub fn walk_dump(&self, at: Timestamp, out: &mut BytesMut) -> DumpWalk {
        let mut peers = BTreeMap::from([(Source::LOCAL, 0)]);
        let mut index = vec![IndexedPeer {
            router_id: self.config.router_id,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            asn: self.config.asn,
        }];
        for (id, peer) in self.peers.iter() {
            let Some(neighbor) = self.rib.neighbor(id.source()) else {
                continue;
            };
            let Ok(number) = u16::try_from(index.len()) else {
                break;
            };
            let session = peer.session.as_ref();
            let announced = session.map(|session| session.negotiated.peer_asn);
            peers.insert(id.source(), number);
            index.push(IndexedPeer {
                router_id: neighbor.router_id,
                address: peer.address,
                asn: announced.or(peer.config.asn.number()).unwrap_or(Asn::ZERO),
            });
        }
        mrt::peer_index_table(at, self.config.router_id, &index, out);
        DumpWalk {
            next: 0,
            at,
            sequence: 0,
            peers,
        }
    }

    /// The next prefixes with their accepted paths, as the import policy made them. False: that was all.
    pub fn dump_slice(&self, walk: &mut DumpWalk, out: &mut BytesMut) -> bool {
        let mut open: Option<(Prefix, Vec<RibPath>)> = None;
        let DumpWalk {
            next,
            at,
            sequence,
            peers,
        } = walk;
        let mut close = |open: &mut Option<(Prefix, Vec<RibPath>)>| {
            if let Some((prefix, paths)) = open.take()
                && !paths.is_empty()
            {
                mrt::rib_entries(*at, *sequence, &prefix, &paths, out);
                *sequence = sequence.wrapping_add(1);
            }
        };
        let (after, more) = self.slice(*next, |path, prefix| {
            if open.as_ref().is_none_or(|(known, _)| *known != prefix) {
                close(&mut open);
                open = Some((prefix, Vec::new()));
            }
            let peer = peers.get(&path.source()).copied();
            if let Some((_, paths)) = &mut open
                && let Some(peer) = peer.filter(|_| path.is_accepted())
            {
                paths.push(self.rib_path(path, prefix, peer, *at));
            }
        });
        close(&mut open);
        *next = after;
        more
    }

    fn rib_path(&self, path: &Path, prefix: Prefix, peer: u16, at: Timestamp) -> RibPath {
        let route = self.rib.route(path.effective());
        // An own route without a next hop of its own has each session's address.
        let nowhere = NextHop::V4(Ipv4Addr::UNSPECIFIED);
        let next_hop = route.next_hop.unwrap_or(nowhere);
        let attributes = wire::encode_rib_attributes(&route.attributes, &next_hop);
        RibPath {
            peer,
            // When a route came is not kept.
            originated: at.seconds,
            path_id: self.numbered(path.source(), prefix).then(|| path.path_id()),
            attributes,
        }
    }

    /// Whether a source numbers its paths.
    fn numbered(&self, source: Source, prefix: Prefix) -> bool {
        let session = self
            .peers
            .get(&PeerId(source.0))
            .and_then(|p| p.session.as_ref());
        session.is_some_and(|s| s.context.add_path_receive.contains(prefix.family()))
    }

    // ===== counts =====

    /// Counts on; false: that was all.
    #[must_use]
    pub fn count_slice(&self, walk: &mut CountWalk) -> bool {
        let table = self.rib.table();
        let last = table.end().0.min(walk.next.saturating_add(DESTINATIONS));
        let destinations = (walk.next..last).filter_map(|id| table.get(DestinationId(id)));
        let found = destinations.filter(|destination| destination.best().is_some());
        walk.found += found.count() as u64;
        walk.next = last;
        last < table.end().0
    }

    /// Counters of every established session; `loc_rib` is for the caller to know.
    #[must_use]
    pub fn statistics(&self, loc_rib: u64) -> Vec<(MonitoredPeer, bmp::Statistics)> {
        let established = self.peers.iter();
        let statistics = established.filter_map(|(id, peer)| {
            peer.session.as_ref()?;
            let refused: u64 = peer.refused.iter().map(|(_, count)| count).sum();
            let counts = self.rib.counts(id.source());
            // RFC 7854 has 32 bits for counters, and they wrap.
            let counters = bmp::Statistics {
                rejected: refused as u32,
                treated_as_withdraw: peer.faults.treated_as_withdraw as u32,
                adj_rib_in: counts.received,
                loc_rib,
            };
            Some((self.monitored(peer, None), counters))
        });
        statistics.collect()
    }
}

/// Sorts the paths of a slice by session and stage.
struct Sorter<'a> {
    router: &'a Router,
    walk: &'a AdjInWalk,
    found: BTreeMap<(PeerId, bool), RouteWriter>,
}

impl Sorter<'_> {
    fn take(&mut self, path: &Path, prefix: Prefix) {
        let id = PeerId(path.source().0);
        // What is stale is confirmed by the peer or goes, and either is told.
        if path.is_stale() || !self.walk.sessions.contains_key(&id) {
            return;
        }
        for stage in stages(self.walk.interest) {
            let after = stage == Stage::AfterPolicy;
            let router = self.router;
            let writer = self.found.entry((id, after));
            let writer = writer.or_insert_with(|| RouteWriter::new(&context_of(router, id)));
            let nlri = writer.nlri(prefix, path.path_id());
            match (after, path.is_accepted()) {
                (false, _) => writer.announce(path.received(), nlri),
                (true, true) => writer.announce(path.effective(), nlri),
                (true, false) if self.walk.again => writer.withdraw(nlri),
                (true, false) => {}
            }
        }
    }

    fn write(self, out: &mut Vec<Observation>) {
        for ((id, after), writer) in self.found {
            let messages = writer.finish(self.router);
            let Some(peer) = self.router.monitored_session(id) else {
                continue;
            };
            if messages.is_empty() {
                continue;
            }
            let stage = match after {
                true => Stage::AfterPolicy,
                false => Stage::BeforePolicy,
            };
            out.push(Observation::Routes {
                peer,
                stage,
                messages,
            });
        }
    }
}

fn context_of(router: &Router, id: PeerId) -> Context {
    let session = router.peers.get(&id).and_then(|p| p.session.as_ref());
    session.map_or_else(Context::default, |session| session.context)
}

fn stages(interest: Interest) -> impl Iterator<Item = Stage> {
    let before = interest.before_policy.then_some(Stage::BeforePolicy);
    let after = interest.after_policy.then_some(Stage::AfterPolicy);
    before.into_iter().chain(after)
}
