//! How much a peer may send: the warning, and the end of the session.

use std::time::Instant;

use super::{PeerId, Router};
use crate::config::MaxPrefixesAction;
use crate::fsm::Event;
use crate::types::Family;
use crate::wire::Notification;

/// A peer that sent too much and is kept down for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Penalty {
    /// When it may try again; `None`: when its configuration changes.
    pub(super) until: Option<Instant>,
}

impl Router {
    /// Compares what a peer has sent with what it may.
    pub(super) fn enforce_limits(&mut self, now: Instant, id: PeerId) {
        let counts = self.rib.counts(id.source());
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let limits = peer.config.max_prefixes;
        if peer.warning.is_none() && counts.received < limits.warn_from() {
            return;
        }
        let of = |family| counts.of(family);
        let warned = Family::ALL
            .into_iter()
            .find(|family| of(*family) >= limits.warn_from());
        peer.warning = warned.map(|family| {
            format!(
                "{} {family} prefixes, maxPrefixes is {}",
                of(family),
                limits.limit
            )
        });
        let over = Family::ALL
            .into_iter()
            .find(|family| of(*family) > limits.limit.into());
        let Some(family) = over else {
            return;
        };
        let until = match limits.action {
            MaxPrefixesAction::Warn => return,
            MaxPrefixesAction::Teardown => None,
            MaxPrefixesAction::Restart(after) => now.checked_add(after),
        };
        let next = match limits.action {
            MaxPrefixesAction::Restart(after) => format!("tried again after {} s", after.as_secs()),
            _ => "down until the configuration changes".to_owned(),
        };
        let reason = format!(
            "peer sent more than {} {family} prefixes (maxPrefixes); {next}",
            limits.limit
        );
        let notification = Some(Notification::maximum_prefixes(family, limits.limit));
        peer.fsm.handle_event(now, Event::Stop { notification });
        self.drain(now, id);
        self.end_restart(id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.penalty = Some(Penalty { until });
            peer.warning = None;
            peer.last_notification = Some(reason);
            peer.last_failure = None;
        }
    }

    /// Lets a peer try again whose time is over.
    pub(super) fn end_penalty(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let over = |penalty: &Penalty| penalty.until.is_some_and(|at| at <= now);
        if peer.penalty.as_ref().is_some_and(over) {
            peer.penalty = None;
            peer.fsm.handle_event(now, Event::ManualStart);
            self.drain(now, id);
        }
    }
}
