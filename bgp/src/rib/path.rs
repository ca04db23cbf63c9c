//! Paths: one way to a prefix, as small numbers.

use super::routes::RouteId;
use crate::policy::Refusal;
use crate::wire::{NextHop, PathAttributes};

/// Where a path came from: a peer, or this speaker itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(pub u32);

impl Source {
    /// This speaker's own announcements.
    pub const LOCAL: Source = Source(u32::MAX);

    /// Whether the path is this speaker's own.
    #[must_use]
    pub fn is_local(self) -> bool {
        self == Self::LOCAL
    }
}

/// Next hop and attributes: what all routes of one announcement share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where packets go; `None` for an own route that takes each session's local address.
    pub next_hop: Option<NextHop>,
    /// Everything else.
    pub attributes: PathAttributes,
    /// The metric in the kernel's table, if an import filter set one. Never sent to a peer.
    pub metric: Option<u32>,
}

/// One path to a prefix: 20 octets, whatever its attributes. What its route numbers stand for is in
/// [`Rib::route`](super::Rib::route) and [`Rib::facts`](super::Rib::facts).
#[derive(Debug, Clone, Copy)]
pub struct Path {
    source: Source,
    path_id: u32,
    received: RouteId,
    effective: RouteId,
    flags: u8,
    refusal: Option<Refusal>,
}

const ACCEPTED: u8 = 1;
const BEST: u8 = 2;
const MULTIPATH: u8 = 4;
const STALE: u8 = 8;
const LONG_LIVED_STALE: u8 = 16;
/// Only while the decision process runs.
const CANDIDATE: u8 = 32;

impl Path {
    /// A path; without an effective route it was refused by a loop check or the import policy and only counts as received.
    #[must_use]
    pub fn new(source: Source, received: RouteId, effective: Result<RouteId, Refusal>) -> Self {
        let (flags, refusal) = match effective {
            Ok(_) => (ACCEPTED, None),
            Err(refusal) => (0, Some(refusal)),
        };
        Self {
            source,
            path_id: 0,
            received,
            effective: effective.unwrap_or(received),
            flags,
            refusal,
        }
    }

    /// The same path under the identifier its source gave it (RFC 7911). Without one, as on a session without ADD-PATH, it
    /// is 0.
    #[must_use]
    pub fn with_path_id(self, path_id: Option<u32>) -> Self {
        Self {
            path_id: path_id.unwrap_or(0),
            ..self
        }
    }

    /// Who gave it to us.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Which of its source's paths to the prefix it is (RFC 7911); 0 on a session without ADD-PATH.
    #[must_use]
    pub fn path_id(&self) -> u32 {
        self.path_id
    }

    /// As it came (Adj-RIB-In before policy), kept so that a changed import filter needs no route refresh.
    #[must_use]
    pub fn received(&self) -> RouteId {
        self.received
    }

    /// As the import policy made it; the same as [`received`](Self::received) where policy changed nothing, or refused it.
    #[must_use]
    pub fn effective(&self) -> RouteId {
        self.effective
    }

    /// Why it does not take part in the decision process.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Takes part in the decision process.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.flags & ACCEPTED != 0
    }

    /// Chosen by the decision process.
    #[must_use]
    pub fn is_best(&self) -> bool {
        self.flags & BEST != 0
    }

    /// The best path, or equal to it as far as multipath is concerned.
    #[must_use]
    pub fn is_multipath(&self) -> bool {
        self.flags & MULTIPATH != 0
    }

    /// Left over from before the source restarted, and not confirmed since (RFC 4724 section 4.2).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.flags & STALE != 0
    }

    /// Left over for longer than graceful restart keeps paths: the least preferred there is (RFC 9494 section 4.2).
    #[must_use]
    pub fn is_long_lived_stale(&self) -> bool {
        self.flags & LONG_LIVED_STALE != 0
    }

    /// Whether it is the one path of this source with this identifier.
    #[must_use]
    pub fn is_from(&self, source: Source, path_id: u32) -> bool {
        self.source == source && self.path_id == path_id
    }

    /// Sets what the decision process found; returns whether that is news.
    pub(super) fn select(&mut self, best: bool, multipath: bool) -> bool {
        let selection = if best {
            BEST | MULTIPATH
        } else if multipath {
            MULTIPATH
        } else {
            0
        };
        let before = self.flags & !CANDIDATE;
        self.flags = (before & !(BEST | MULTIPATH)) | selection;
        before != self.flags
    }

    pub(super) fn is_candidate(&self) -> bool {
        self.flags & CANDIDATE != 0
    }

    pub(super) fn set_candidate(&mut self, candidate: bool) {
        self.set(CANDIDATE, candidate);
    }

    pub(super) fn set_stale(&mut self, stale: bool) {
        self.set(STALE, stale);
    }

    pub(super) fn set_long_lived_stale(&mut self, stale: bool) {
        self.set(LONG_LIVED_STALE, stale);
    }

    fn set(&mut self, flag: u8, value: bool) {
        self.flags = if value {
            self.flags | flag
        } else {
            self.flags & !flag
        };
    }

    pub(super) fn same_as(&self, other: &Path) -> bool {
        self.refusal == other.refusal
            && self.received == other.received
            && self.effective == other.effective
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_small() {
        assert_eq!(size_of::<Path>(), 20);
    }
}
