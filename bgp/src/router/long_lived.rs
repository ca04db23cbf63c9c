//! Long-lived graceful restart (RFC 9494): what a peer left behind is kept beyond its restart time, as the last resort.
//!
//! Each family has its own time. It begins when the restart time is over, at once for a family that graceful restart does not
//! cover, and neither a new session nor another failure touches it: only the peer's End-of-RIB or its own end does. What
//! becomes of the routes for other peers is in [`super::attributes`].
//!
//! A path that is known to be dead ([`Router::handle_peer_lost`]) ends it, too: long-lived or not, routes are kept because the
//! peer is believed to go on forwarding.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{PeerId, Router};
use crate::fsm::PeerLongLived;
use crate::types::{Family, FamilySet};

/// What is kept of a peer beyond its restart time, or will be.
#[derive(Debug, Default)]
pub(super) struct LongLived {
    /// How long each family may be kept from the end of the restart time on, by the session that ended.
    times: BTreeMap<Family, Duration>,
    /// The families that are kept, and until when.
    until: BTreeMap<Family, Instant>,
    /// The families whose time ended on a session that has not come to its End-of-RIB: they are not kept once more.
    ended: FamilySet,
}

impl LongLived {
    /// The session is over: how long which family may be kept. Returns the families that may not, not even for a restart:
    /// those whose time has ended without an End-of-RIB since (RFC 9494 section 4.2).
    pub(super) fn agree(&mut self, agreed: Option<&PeerLongLived>) -> FamilySet {
        self.times = agreed.map_or_else(BTreeMap::new, |agreed| agreed.times.clone());
        let ended = std::mem::take(&mut self.ended);
        for family in ended.iter() {
            self.times.remove(&family);
        }
        ended
    }

    /// The families that may be kept after the restart time.
    pub(super) fn families(&self) -> FamilySet {
        self.times.keys().copied().collect()
    }

    /// The families that are kept.
    pub(super) fn kept(&self) -> FamilySet {
        self.until.keys().copied().collect()
    }

    /// When the time of the first of them ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.until.values().min().copied()
    }

    /// Until when each of them is kept.
    pub(super) fn until(&self) -> &BTreeMap<Family, Instant> {
        &self.until
    }

    /// Whether the family's routes are kept beyond the restart time.
    pub(super) fn keeps(&self, family: Family) -> bool {
        self.until.contains_key(&family)
    }

    /// The family is not kept any more.
    pub(super) fn release(&mut self, family: Family) {
        self.until.remove(&family);
    }

    /// The peer has sent all it had of the family.
    pub(super) fn complete(&mut self, family: Family) {
        self.until.remove(&family);
        self.ended.remove(family);
    }

    /// Nothing is kept, nor will be.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Begins the time of families that may be kept. One that runs already runs on.
    fn begin(&mut self, now: Instant, families: FamilySet) -> FamilySet {
        let mut begun = FamilySet::EMPTY;
        for family in families.iter() {
            let Some(time) = self.times.get(&family) else {
                continue;
            };
            let Some(end) = now.checked_add(*time) else {
                continue;
            };
            self.until.entry(family).or_insert(end);
            begun.insert(family);
        }
        begun
    }

    fn due(&self, now: Instant) -> FamilySet {
        let due = self.until.iter().filter(|(_, until)| **until <= now);
        due.map(|(family, _)| *family).collect()
    }
}

impl Router {
    /// The restart time of a peer that is away is over, for these families: they are kept as the last resort, if that was
    /// agreed on.
    pub(super) fn keep_longer(&mut self, now: Instant, id: PeerId, families: FamilySet) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let begun = peer.long_lived.begin(now, families);
        if !begun.is_empty() {
            let task = self.rib.longer_retention(id.source(), begun);
            self.begin(task);
        }
    }

    /// The restart time is over and the peer is not back.
    pub(super) fn end_restart_time(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let families = peer.long_lived.families();
        if families.is_empty() && peer.long_lived.kept().is_empty() {
            return self.end_restart(id);
        }
        peer.stale_until = None;
        self.keep_longer(now, id, families);
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let kept = peer.long_lived.kept();
        let gone = Family::ALL.into_iter().filter(|f| !kept.contains(*f));
        self.sweep(id, gone.collect());
    }

    /// Ends the time of the families that have been kept for long enough, whether the peer is back by now or not.
    pub(super) fn end_long_lived(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let due = peer.long_lived.due(now);
        if due.is_empty() {
            return;
        }
        let away = peer.session.is_none();
        for family in due.iter() {
            peer.long_lived.release(family);
            if away {
                peer.long_lived.times.remove(&family);
            } else {
                peer.long_lived.ended.insert(family);
            }
        }
        if away && peer.stale_until.is_none() && peer.long_lived.kept().is_empty() {
            peer.long_lived.clear();
            return self.remove_routes(id);
        }
        self.sweep(id, due);
    }

    /// Long-lived graceful restart is not wanted any more: what it has kept goes.
    pub(super) fn drop_long_lived(&mut self) {
        let ids: Vec<_> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let kept = peer.long_lived.kept();
            peer.long_lived.clear();
            if kept.is_empty() {
                continue;
            }
            if peer.session.is_none() && peer.stale_until.is_none() {
                self.remove_routes(id);
            } else {
                self.sweep(id, kept);
            }
        }
    }
}
