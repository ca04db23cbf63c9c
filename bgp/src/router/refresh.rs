//! Routes once more: what a peer asks of us, and what we ask of it (RFC 2918, RFC 7313).
//!
//! How our own routes are sent again is in [`super::membership`] and [`super::transmit`].

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::peer::{Peer, Session};
use super::{ConnectionId, Output, PeerId, Router};
use crate::types::{Family, FamilySet};
use crate::wire::{self, Message, RefreshSubtype, RouteRefresh};

/// How long a peer that has begun to send its routes again may take to come to an end.
const PATIENCE: Duration = Duration::from_secs(360);

impl Router {
    /// Asks a peer to send all its routes again, in every family of the session (RFC 2918). False if there is nobody to ask:
    /// no session, or a peer that does not understand the question.
    ///
    /// A changed filter does not need this, since routes are kept as they were received; it is for people who doubt.
    pub fn refresh(&mut self, address: IpAddr) -> bool {
        // Of several with one link-local address each is asked.
        let there = self.peers.iter();
        let there = there.filter(|(_, peer)| peer.address == address);
        let ids: Vec<PeerId> = there.map(|(id, _)| *id).collect();
        let asked = ids.into_iter().map(|id| self.refresh_peer(id));
        asked.filter(|one| *one).count() > 0
    }

    fn refresh_peer(&mut self, id: PeerId) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        let Some(session) = peer.session.as_ref() else {
            return false;
        };
        if !session.negotiated.route_refresh {
            return false;
        }
        let (serial, context) = (session.serial, session.context);
        for family in session.negotiated.families.iter() {
            let request = Message::RouteRefresh(RouteRefresh {
                family,
                subtype: RefreshSubtype::Request,
            });
            if let Some(line) = peer.lines.iter_mut().find(|line| line.serial == serial)
                && wire::encode(&request, &context, &mut line.control).is_ok()
            {
                peer.sent.route_refresh += 1;
            }
        }
        if peer.arm(serial) {
            self.outputs
                .push_back(Output::Transmit(ConnectionId { peer: id, serial }));
        }
        true
    }

    /// A ROUTE-REFRESH of an established session.
    pub(super) fn handle_refresh(&mut self, now: Instant, id: PeerId, refresh: RouteRefresh) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let RouteRefresh { family, subtype } = refresh;
        if !session.negotiated.families.contains(family) {
            return;
        }
        let enhanced = session.negotiated.enhanced_refresh;
        match subtype {
            RefreshSubtype::Request => self.feed_again(id, FamilySet::only(family), enhanced),
            // RFC 2918 section 3: to those who know no markers the octet says nothing.
            _ if !enhanced => self.feed_again(id, FamilySet::only(family), false),
            RefreshSubtype::Begin => self.begin_peers_refresh(now, id, family),
            RefreshSubtype::End => self.end_peers_refresh(id, family),
            RefreshSubtype::Unknown(_) => {}
        }
    }

    /// Everything of the family follows: what does not is no more. One that begins over and over starts over each time.
    fn begin_peers_refresh(&mut self, now: Instant, id: PeerId, family: Family) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        // RFC 7313 section 4: before the End-of-RIB the graceful restart decides what is stale.
        if session.negotiated.graceful_restart.is_some()
            && !session.end_of_rib_received.contains(family)
        {
            return;
        }
        let Some(until) = now.checked_add(PATIENCE) else {
            return;
        };
        session.refreshed_by_peer.insert(family, until);
        self.finish(id);
        self.rib.mark_stale(id.source(), FamilySet::only(family));
    }

    /// The end of what was begun; without a beginning it means nothing (RFC 7313 section 4).
    fn end_peers_refresh(&mut self, id: PeerId, family: Family) {
        let begun = self
            .session_mut(id)
            .and_then(|session| session.refreshed_by_peer.remove(&family));
        if begun.is_some() {
            self.sweep(id, FamilySet::only(family));
        }
    }

    /// Ends the refreshes that a peer has begun and does not end.
    pub(super) fn end_late_refreshes(&mut self, now: Instant, id: PeerId) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let begun = session.refreshed_by_peer.iter();
        let late: Vec<_> = begun
            .filter(|(_, until)| **until <= now)
            .map(|(family, _)| *family)
            .collect();
        for family in late {
            self.end_peers_refresh(id, family);
        }
    }

    fn session_mut(&mut self, id: PeerId) -> Option<&mut Session> {
        self.peers.get_mut(&id)?.session.as_mut()
    }
}

impl Peer {
    /// When the first of the refreshes it has begun is late.
    pub(super) fn refresh_timeout(&self) -> Option<Instant> {
        let begun = self.session.as_ref()?.refreshed_by_peer.values();
        begun.min().copied()
    }
}
