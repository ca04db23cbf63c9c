//! What is sent on a connection next: messages of the state machine first, then routes.
//!
//! Which routes, and in which messages, is worked out in [`super::outbound`] for all peers that are given the same; here are
//! the decisions about one peer's place among them: when it leaves its group's log, and when it joins it again.

use bytes::{Bytes, BytesMut};

use super::octets::Octets;
use super::outbound::{Apart, GroupId, Membership, Outbound, Place, Producer, Reader, Sent};
use super::peer::{Peer, Session};
use super::{ConnectionId, Output, PeerId, Router};
use crate::rib::Pending;
use crate::types::{Family, FamilySet};
use crate::wire::{self, Message, RefreshSubtype, RouteRefresh};

/// What came of looking for something to send.
enum Next {
    Octets(Octets),
    /// There is more to do, after others had their turn.
    Wait,
    /// Nothing for now.
    Nothing,
    /// Something has changed: look again.
    Again,
}

impl Router {
    /// The next octets for a connection, some tens of kilobytes at most as a rule. `None`: there is nothing to send for now,
    /// and [`Output::Transmit`] will say when there is.
    pub fn transmit(&mut self, connection: ConnectionId) -> Option<Octets> {
        let octets = self.make(connection);
        if let Some(octets) = &octets {
            self.observe_sent(connection, octets);
        }
        octets
    }

    fn make(&mut self, connection: ConnectionId) -> Option<Octets> {
        let ConnectionId { peer: id, serial } = connection;
        let peer = self.peers.get_mut(&id)?;
        let line = peer.line_mut(serial)?;
        if !line.control.is_empty() {
            return Some(line.control.split().freeze().into());
        }
        if peer.session_on(serial).is_some() && self.deferral.is_none() {
            loop {
                match self.next(id) {
                    Some(Next::Octets(octets)) => return Some(octets),
                    Some(Next::Again) => {}
                    Some(Next::Wait) => {
                        self.outputs.push_back(Output::Transmit(connection));
                        return None;
                    }
                    Some(Next::Nothing) | None => break,
                }
            }
            self.rest(id);
        }
        self.peers.get_mut(&id)?.disarm(serial);
        None
    }

    fn next(&mut self, id: PeerId) -> Option<Next> {
        let session = self.peers.get(&id)?.session.as_ref()?;
        match session.membership.as_ref()?.place {
            Place::Joined(_) => self.next_joined(id),
            Place::Apart(_) => self.next_apart(id),
        }
    }

    /// For a peer that reads its group's log.
    fn next_joined(&mut self, id: PeerId) -> Option<Next> {
        let peer = self.peers.get_mut(&id)?;
        let reader = peer.reader(id);
        let membership = peer.session.as_mut()?.membership.as_mut()?;
        let group_id = membership.group;
        let group = self.groups.get_mut(group_id)?;
        let Place::Joined(cursor) = &mut membership.place else {
            return None;
        };
        if *cursor < group.end() {
            let table = self.rib.table_mut();
            if group.repeats_itself(*cursor) {
                let out = group.part(table, &reader, *cursor);
                membership.place = Place::Apart(Box::new(Apart::new(out)));
                return Some(Next::Again);
            }
            let octets = group.read(table, &reader, cursor, &mut peer.sent.update);
            return Some(octets.map_or(Next::Again, Next::Octets));
        }
        // All of what is done with has been read by now.
        if let Some(octets) = end_of_rib(peer, group.out.pending.done()) {
            return Some(Next::Octets(octets.into()));
        }
        let membership = peer.session.as_mut()?.membership.as_mut()?;
        if group.out.pending.has_work() {
            if group.is_full() {
                // The others get their turn first; who does not read then is left behind.
                if !std::mem::replace(&mut membership.waited, true) {
                    return Some(Next::Wait);
                }
                self.leave_behind(group_id);
                return Some(Next::Again);
            }
            membership.waited = false;
            let resting = group.out.is_resting(self.clock);
            if group.write(&mut self.rib, self.clock) || !resting {
                return Some(Next::Again);
            }
        } else {
            group
                .out
                .rest(self.clock, group.key.interval, &mut self.jitter);
        }
        if let Some(octets) = end_of_rib(peer, FamilySet::ALL) {
            return Some(Next::Octets(octets.into()));
        }
        self.admit(group_id);
        let group = self.groups.get(group_id)?;
        let more = group.out.pending.has_work() && !group.out.is_resting(self.clock);
        Some(if more { Next::Again } else { Next::Nothing })
    }

    /// For a peer that has a state of its own.
    fn next_apart(&mut self, id: PeerId) -> Option<Next> {
        let peer = self.peers.get_mut(&id)?;
        if let Some(octets) = begin_refresh(peer) {
            return Some(Next::Octets(octets.into()));
        }
        if let Some(octets) = end_of_rib(peer, peer.done_apart()) {
            return Some(Next::Octets(octets.into()));
        }
        let reader = peer.reader(id);
        let membership = peer.session.as_mut()?.membership.as_mut()?;
        let group = self.groups.get_mut(membership.group)?;
        let Place::Apart(apart) = &mut membership.place else {
            return None;
        };
        if apart.out.pending.has_work() {
            let resting = apart.out.is_resting(self.clock);
            let mut producer = Producer::new(&group.key, resting).only_for(reader);
            let chunk = producer.produce(&mut self.rib, &mut apart.out, &|_| false);
            let mut pieces = Vec::new();
            peer.sent.update += chunk.read(&reader, &mut pieces);
            chunk.let_go(self.rib.table_mut());
            match Octets::of(pieces) {
                Some(octets) => return Some(Next::Octets(octets)),
                None if resting => return Some(Next::Nothing),
                None => return Some(Next::Again),
            }
        }
        apart
            .out
            .rest(self.clock, group.key.interval, &mut self.jitter);
        if let Some(octets) = end_of_rib(peer, FamilySet::ALL).or_else(|| end_refresh(peer)) {
            return Some(Next::Octets(octets.into()));
        }
        self.try_join(id)
    }

    /// A peer that has been told everything goes on with its group, if that is as far.
    fn try_join(&mut self, id: PeerId) -> Option<Next> {
        let peer = self.peers.get_mut(&id)?;
        let membership = peer.session.as_mut()?.membership.as_mut()?;
        let group_id = membership.group;
        let group = self.groups.get_mut(group_id)?;
        let Place::Apart(apart) = &mut membership.place else {
            return None;
        };
        if !group.out.sent.continues(&apart.out.sent) {
            return Some(Next::Nothing);
        }
        if group.incomplete.is_some_and(|only| only != id) {
            group.incomplete = None;
            group.out.pending.walk_unknown(self.rib.table());
            self.wake(group_id);
            return Some(Next::Again);
        }
        if group.out.pending.has_work() {
            if group.joined() > 0 {
                // Whoever comes to its end admits those who wait.
                return Some(Next::Nothing);
            }
            // Nobody reads what this writes. It may be a whole table, so others have their turn in between.
            group.out.rest_until = None;
            group.write(&mut self.rib, self.clock);
            return Some(Next::Wait);
        }
        let out = Outbound::new(Pending::empty(), Sent::own());
        let apart = std::mem::replace(&mut apart.out, out);
        let cursor = group.join(self.rib.table_mut(), id, apart);
        membership.place = Place::Joined(cursor);
        Some(Next::Nothing)
    }

    /// Lets in the members of a group that wait for it to be where they are. Call when it has no more work.
    fn admit(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(id) else {
            return;
        };
        if group.apart.is_empty() {
            return;
        }
        let waiting: Vec<_> = group.apart.iter().copied().collect();
        for peer in waiting {
            let ready = |session: &Session| match session.membership.as_ref().map(|m| &m.place) {
                Some(Place::Apart(apart)) => {
                    !apart.out.pending.has_work()
                        && apart.refreshing.is_empty()
                        && session.all_sent()
                }
                _ => false,
            };
            let session = self.peers.get(&peer).and_then(|peer| peer.session.as_ref());
            if session.is_some_and(ready) {
                self.try_join(peer);
                self.rest(peer);
            }
        }
    }

    /// Has the slowest members of a group go on with a state of their own.
    fn leave_behind(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        let joined: Vec<_> = group.joined_members().collect();
        while group.is_full() {
            let mut found = false;
            for peer_id in &joined {
                let Some(peer) = self.peers.get_mut(peer_id) else {
                    continue;
                };
                let reader = peer.reader(*peer_id);
                let Some(membership) = peer.membership_mut() else {
                    continue;
                };
                if let Place::Joined(cursor) = membership.place
                    && group.is_last(cursor)
                {
                    let out = group.part(self.rib.table_mut(), &reader, cursor);
                    membership.place = Place::Apart(Box::new(Apart::new(out)));
                    membership.idle = false;
                    group.idle.retain(|idle| idle != peer_id);
                    found = true;
                    break;
                }
            }
            if !found {
                break;
            }
        }
    }

    /// A peer has nothing to send: its group tells it when that changes.
    fn rest(&mut self, id: PeerId) {
        let Some(membership) = self.peers.get_mut(&id).and_then(Peer::membership_mut) else {
            return;
        };
        membership.waited = false;
        if matches!(membership.place, Place::Joined(_))
            && let Some(group) = self.groups.get_mut(membership.group)
            && !std::mem::replace(&mut membership.idle, true)
        {
            group.idle.push(id);
        }
    }

    /// Has the members of a group that read its log look for something to send.
    pub(super) fn wake(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        for peer in std::mem::take(&mut group.idle) {
            if let Some(membership) = self.peers.get_mut(&peer).and_then(Peer::membership_mut) {
                membership.idle = false;
            }
            self.arm(peer);
        }
    }

    /// Has a peer look for something to send.
    pub(super) fn arm(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(serial) = peer.session.as_ref().map(|session| session.serial) else {
            return;
        };
        if peer.arm(serial) {
            self.outputs
                .push_back(Output::Transmit(ConnectionId { peer: id, serial }));
        }
    }
}

impl Peer {
    pub(super) fn membership_mut(&mut self) -> Option<&mut Membership> {
        self.session.as_mut()?.membership.as_mut()
    }

    /// The families of which a peer that has a state of its own has been told everything.
    fn done_apart(&self) -> FamilySet {
        let session = self.session.as_ref();
        let membership = session.and_then(|session| session.membership.as_ref());
        match membership.map(|membership| &membership.place) {
            Some(Place::Apart(apart)) => apart.out.pending.done(),
            _ => FamilySet::EMPTY,
        }
    }

    pub(super) fn reader(&self, id: PeerId) -> Reader {
        Reader {
            id,
            address: self.address,
        }
    }
}

/// Once everything there was of a family at the start has been sent: End-of-RIB (RFC 4724 section 2), which helps the peer's
/// convergence whether or not graceful restart is in use. `done`: the families that this is so for.
fn end_of_rib(peer: &mut Peer, done: FamilySet) -> Option<Bytes> {
    let session = peer.session.as_mut()?;
    let done = done.intersection(session.negotiated.families);
    let before = session.end_of_rib_sent;
    if done.intersection(before) == done {
        return None;
    }
    let mut out = BytesMut::new();
    for family in done.iter().filter(|family| !before.contains(*family)) {
        session.end_of_rib_sent.insert(family);
        if wire::encode(&Message::EndOfRib(family), &session.context, &mut out).is_ok() {
            peer.sent.update += 1;
        }
    }
    (!out.is_empty()).then(|| out.freeze())
}

/// Tells that families are going to be sent again (RFC 7313 section 4).
fn begin_refresh(peer: &mut Peer) -> Option<Bytes> {
    let session = peer.session.as_mut()?;
    // Not before the End-of-RIB: all that is being sent is still the first time.
    if !session.all_sent() {
        return None;
    }
    let Some(Place::Apart(apart)) = session.membership.as_mut().map(|m| &mut m.place) else {
        return None;
    };
    let waiting = apart.refreshing.iter().filter(|(_, begun)| !begun);
    let begun: Vec<_> = waiting.copied().collect();
    apart.refreshing.retain(|(_, begun)| *begun);
    apart
        .refreshing
        .extend(begun.iter().map(|(family, _)| (*family, true)));
    mark(
        peer,
        begun.into_iter().map(|(family, _)| family),
        RefreshSubtype::Begin,
    )
}

/// Tells that families have been sent again (RFC 7313 section 4).
fn end_refresh(peer: &mut Peer) -> Option<Bytes> {
    let session = peer.session.as_mut()?;
    let Some(Place::Apart(apart)) = session.membership.as_mut().map(|m| &mut m.place) else {
        return None;
    };
    let ended = std::mem::take(&mut apart.refreshing);
    mark(
        peer,
        ended.into_iter().map(|(family, _)| family),
        RefreshSubtype::End,
    )
}

fn mark(
    peer: &mut Peer,
    families: impl Iterator<Item = Family>,
    subtype: RefreshSubtype,
) -> Option<Bytes> {
    let session = peer.session.as_ref()?;
    let mut out = BytesMut::new();
    for family in families {
        let message = Message::RouteRefresh(RouteRefresh { family, subtype });
        if wire::encode(&message, &session.context, &mut out).is_ok() {
            peer.sent.route_refresh += 1;
        }
    }
    (!out.is_empty()).then(|| out.freeze())
}

impl Session {
    /// Whether every family's End-of-RIB has been sent.
    fn all_sent(&self) -> bool {
        self.end_of_rib_sent == self.negotiated.families
    }
}

impl Apart {
    pub(super) fn new(out: Outbound) -> Self {
        Self {
            out,
            refreshing: Default::default(),
        }
    }
}
