//! What people are shown.

use super::peer::Peer;
use super::view::{Agreed, FamilySummary, PeerSummary};
use super::{PeerId, Router};
use crate::fsm::{Negotiated, State};

impl Router {
    /// One line for each peer, ordered by address. Reads counters only, whatever the size of the RIB.
    #[must_use]
    pub fn summary(&self) -> Vec<PeerSummary> {
        let peers = self
            .addresses
            .values()
            .filter_map(|id| Some((*id, self.peers.get(id)?)));
        peers.map(|(id, peer)| self.summarize(id, peer)).collect()
    }

    fn summarize(&self, id: PeerId, peer: &Peer) -> PeerSummary {
        let counts = self.rib.counts(id.source());
        let session = peer.session.as_ref();
        let families = session.map_or_else(Vec::new, |session| {
            let families = session.negotiated.families.iter();
            let summary = |family| FamilySummary {
                family,
                end_of_rib_received: session.end_of_rib_received.contains(family),
                end_of_rib_sent: session.end_of_rib_sent.contains(family),
            };
            families.map(summary).collect()
        });
        PeerSummary {
            name: peer.config.name.clone(),
            address: peer.address,
            scope: peer.config.scope,
            asn: peer
                .config
                .asn
                .number()
                .or(session.map(|session| session.negotiated.peer_asn)),
            range: peer.range,
            state: peer.fsm.state(),
            since: peer.since,
            last_error: self.last_error(peer),
            held_until: peer.held_until(),
            refreshing: session.map_or_else(Vec::new, |session| {
                session.refreshed_by_peer.keys().copied().collect()
            }),
            warning: peer.warning.clone(),
            max_prefixes: peer.config.max_prefixes.limit,
            local_address: peer.lines.iter().find_map(|line| line.local),
            router_id: session.map(|session| session.negotiated.peer_id),
            hold_time: session.map(|session| session.negotiated.hold_time),
            families,
            agreed: session.map_or_else(Agreed::default, |session| agreed(&session.negotiated)),
            prefixes_received: counts.received,
            prefixes_accepted: counts.accepted,
            stale_routes: counts.stale,
            long_lived_routes: counts.long_lived,
            stale_until: peer.stale_until,
            long_lived_until: peer.long_lived.until().clone(),
            prefixes_sent: self.prefixes_sent(id, peer),
            messages_received: peer.received,
            messages_sent: peer.sent,
            faults: peer.faults.clone(),
            flaps: peer.flaps,
            bfd: None,
            refused: peer.refused.clone(),
            notes: self.notes(peer),
        }
    }

    /// Why there is no session, or why there was none before this one.
    fn last_error(&self, peer: &Peer) -> Option<String> {
        match self.barred(peer.address) {
            Some(why) if peer.session.is_none() => Some(match peer.last_error() {
                Some(error) if !error.contains(why) => format!("{why}; {error}"),
                _ => why.to_owned(),
            }),
            _ => peer.last_error(),
        }
    }

    fn notes(&self, peer: &Peer) -> Vec<String> {
        let mut notes = Vec::new();
        if !peer.internal && self.config.require_policy {
            if peer.config.import.is_none() {
                notes.push(
                    "no import filter: nothing is taken (RFC 8212); set import, or requirePolicy: false".to_owned(),
                );
            }
            if peer.config.export.is_none() {
                notes.push(
                    "no export filter: nothing is given (RFC 8212); set export, or requirePolicy: false".to_owned(),
                );
            }
        }
        if peer.config.policy.graceful_shutdown {
            notes.push(
                "graceful shutdown (RFC 8326): routes from and to the neighbor are the last choice"
                    .to_owned(),
            );
        }
        notes
    }

    /// How many peers have an established session.
    #[must_use]
    pub fn established(&self) -> usize {
        self.peers
            .values()
            .filter(|peer| peer.fsm.state() == State::Established)
            .count()
    }
}

fn agreed(negotiated: &Negotiated) -> Agreed {
    Agreed {
        four_octet_asn: negotiated.four_octet_asn,
        route_refresh: negotiated.route_refresh,
        enhanced_refresh: negotiated.enhanced_refresh,
        extended_messages: negotiated.extended_messages,
        extended_next_hop: negotiated.extended_next_hop,
        add_path_receive: negotiated.add_path_receive.iter().collect(),
        add_path_send: negotiated.add_path_send.iter().collect(),
        peer_role: negotiated.peer_role.map(|role| format!("{role:?}")),
        restart_time: negotiated
            .graceful_restart
            .map(|restart| restart.time.as_secs()),
        long_lived_times: negotiated.long_lived.as_ref().map(|agreed| {
            let times = agreed.times.iter();
            times.map(|(f, time)| (*f, time.as_secs())).collect()
        }),
    }
}
