//! From octets to messages to what they mean for the session and the RIB.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::peer::Line;
use super::{ConnectionId, PeerId, Router};
use crate::fsm::{ConnectionEvent, Serial};
use crate::observe::DownReason;
use crate::types::{Family, FamilySet};
use crate::wire::{self, Decoded, HEADER_LENGTH, Message, MessageType};

impl Router {
    /// Octets have come in on a connection. Whole messages are acted on at once; less than one message is kept.
    pub fn handle_octets(&mut self, now: Instant, connection: ConnectionId, octets: &[u8]) {
        let ConnectionId { peer: id, serial } = connection;
        let Some(line) = self.line_mut(id, serial) else {
            return;
        };
        // What has come is worked on where it is, unless it completes a message of which a part came before.
        let mut before = std::mem::take(&mut line.input);
        let mut rest = if before.is_empty() {
            octets
        } else {
            before.extend_from_slice(octets);
            &before
        };
        // The connection may be closed by any of its messages.
        while let Some(length) = self.next_frame(now, id, serial, rest) {
            let (frame, after) = rest.split_at(length);
            self.observe_received(id, serial, frame);
            self.handle_frame(now, id, serial, frame);
            rest = after;
        }
        if let Some(line) = self.line_mut(id, serial)
            && !rest.is_empty()
        {
            line.input = BytesMut::from(rest);
        }
    }

    fn line_mut(&mut self, id: PeerId, serial: Serial) -> Option<&mut Line> {
        self.peers.get_mut(&id)?.line_mut(serial)
    }

    /// The length of the message at the start of `octets`, once all of it is there and as long as the connection is.
    fn next_frame(
        &mut self,
        now: Instant,
        id: PeerId,
        serial: Serial,
        octets: &[u8],
    ) -> Option<usize> {
        let peer = self.peers.get_mut(&id)?;
        peer.line_mut(serial)?;
        match wire::frame_length(octets, &peer.context_on(serial)) {
            Ok(length) => length.filter(|length| octets.len() >= *length),
            Err(notification) => {
                self.feed(now, id, serial, ConnectionEvent::MessageError(notification));
                None
            }
        }
    }

    fn handle_frame(&mut self, now: Instant, id: PeerId, serial: Serial, frame: &[u8]) {
        let code = frame.get(HEADER_LENGTH - 1).copied().unwrap_or_default();
        let Some(kind) = MessageType::from_code(code) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.received.count(kind);
        if kind == MessageType::Open
            && let Some(line) = peer.line_mut(serial)
        {
            line.opens.1 = Bytes::copy_from_slice(frame);
        }
        // An UPDATE is read only on an established session; the event may be what makes it one, and with it the context.
        let allowed = match kind {
            MessageType::Update => Some(ConnectionEvent::UpdateMsg),
            MessageType::RouteRefresh => Some(ConnectionEvent::RouteRefreshMsg),
            _ => None,
        };
        if let Some(event) = allowed {
            self.feed(now, id, serial, event);
            if self
                .peers
                .get(&id)
                .is_none_or(|peer| peer.session_on(serial).is_none())
            {
                return;
            }
        }
        if kind == MessageType::Update && self.import_plain(id, frame) {
            self.observe_routes(id, frame);
            return self.enforce_limits(now, id);
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let event = match wire::decode(frame, &peer.context_on(serial)) {
            Err(notification) => ConnectionEvent::MessageError(notification),
            Ok(Decoded { message, verdict }) => {
                peer.faults.count(&verdict);
                match message {
                    Message::Open(open) => ConnectionEvent::BgpOpen(Box::new(open)),
                    Message::Keepalive => ConnectionEvent::KeepAliveMsg,
                    Message::Notification(received) => {
                        self.note_notification(id, serial, DownReason::Received(received.clone()));
                        ConnectionEvent::NotifMsg(received)
                    }
                    Message::Update(update) => {
                        let repaired = self.repaired(id, &verdict, &update);
                        self.import(id, update);
                        self.observe_routes(id, repaired.as_deref().unwrap_or(frame));
                        return self.enforce_limits(now, id);
                    }
                    Message::EndOfRib(family) => {
                        self.observe_routes(id, frame);
                        self.end_of_rib(id, family);
                        return self.reconsider_deferral(now);
                    }
                    Message::RouteRefresh(refresh) => return self.handle_refresh(now, id, refresh),
                    Message::Ignored(_) => return,
                }
            }
        };
        self.feed(now, id, serial, event);
    }

    /// The peer has sent all it had: what it did not mention is no more (RFC 4724 section 4.2).
    fn end_of_rib(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(session) = &mut peer.session else {
            return;
        };
        session.end_of_rib_received.insert(family);
        let kept = peer.long_lived.keeps(family);
        peer.long_lived.complete(family);
        if peer.stale_until.is_none() && !kept {
            return;
        }
        if session.end_of_rib_received == session.negotiated.families {
            peer.stale_until = None;
        }
        self.sweep(id, FamilySet::only(family));
    }
}
