//! Paths: one way to a prefix, and the attribute sets that many of them share.

use std::collections::HashSet;
use std::sync::Arc;

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

/// One path to a prefix: 24 octets, whatever its attributes.
#[derive(Debug, Clone)]
pub struct Path {
    /// Who gave it to us.
    pub source: Source,
    flags: u8,
    refusal: Option<Refusal>,
    /// As it came (Adj-RIB-In before policy), kept so that a changed import filter needs no route refresh.
    pub received: Arc<Route>,
    /// As the import policy made it; the same value as `received` where policy changed nothing.
    pub effective: Arc<Route>,
}

const ACCEPTED: u8 = 1;
const BEST: u8 = 2;
const MULTIPATH: u8 = 4;
const STALE: u8 = 8;

impl Path {
    /// A path; without an effective route it was refused by a loop check or the import policy and only counts as received.
    #[must_use]
    pub fn new(
        source: Source,
        received: Arc<Route>,
        effective: Result<Arc<Route>, Refusal>,
    ) -> Self {
        let (flags, refusal) = match &effective {
            Ok(_) => (ACCEPTED, None),
            Err(refusal) => (0, Some(*refusal)),
        };
        let effective = effective.unwrap_or_else(|_| Arc::clone(&received));
        Self {
            source,
            flags,
            refusal,
            received,
            effective,
        }
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

    /// Sets what the decision process found; returns whether that is news.
    pub(super) fn select(&mut self, best: bool, multipath: bool) -> bool {
        let selection = if best {
            BEST | MULTIPATH
        } else if multipath {
            MULTIPATH
        } else {
            0
        };
        let before = self.flags;
        self.flags = (before & (ACCEPTED | STALE)) | selection;
        before != self.flags
    }

    /// Left over from before the source restarted, and not confirmed since (RFC 4724 section 4.2).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.flags & STALE != 0
    }

    pub(super) fn set_stale(&mut self, stale: bool) {
        self.flags = if stale {
            self.flags | STALE
        } else {
            self.flags & !STALE
        };
    }

    pub(super) fn same_as(&self, other: &Path) -> bool {
        self.is_accepted() == other.is_accepted()
            && self.refusal == other.refusal
            && Arc::ptr_eq(&self.received, &other.received)
            && Arc::ptr_eq(&self.effective, &other.effective)
    }
}

/// The paths of one destination. Nearly every destination has one, which then needs no allocation of its own.
#[derive(Debug, Default)]
pub enum Paths {
    /// No path: the destination only waits for its withdrawal to be sent everywhere.
    #[default]
    None,
    /// One path.
    One(Path),
    /// Several paths, at most one from each source.
    Many(Vec<Path>),
}

impl Paths {
    /// All paths.
    #[must_use]
    pub fn as_slice(&self) -> &[Path] {
        match self {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Paths::None => &mut [],
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths,
        }
    }

    /// Puts in `path`, in place of the one from the same source if there is one, which is returned.
    pub(super) fn insert(&mut self, path: Path) -> Option<Path> {
        let same_source = self
            .as_mut_slice()
            .iter_mut()
            .find(|p| p.source == path.source);
        if let Some(old) = same_source {
            return Some(std::mem::replace(old, path));
        }
        *self = match std::mem::take(self) {
            Paths::None => Paths::One(path),
            Paths::One(first) => Paths::Many(vec![first, path]),
            Paths::Many(mut paths) => {
                paths.push(path);
                Paths::Many(paths)
            }
        };
        None
    }

    /// Takes out the path from `source`.
    pub(super) fn remove(&mut self, source: Source) -> Option<Path> {
        let at = self.as_slice().iter().position(|p| p.source == source)?;
        let removed;
        *self = match std::mem::take(self) {
            Paths::Many(mut paths) => {
                removed = Some(paths.swap_remove(at));
                match (paths.len(), paths.pop()) {
                    (1, Some(last)) => Paths::One(last),
                    (_, Some(last)) => {
                        paths.push(last);
                        Paths::Many(paths)
                    }
                    (_, None) => Paths::None,
                }
            }
            Paths::One(path) => {
                removed = Some(path);
                Paths::None
            }
            Paths::None => return None,
        };
        removed
    }
}

/// Makes equal [`Route`] values one value.
///
/// Values nobody uses any more are dropped in sweeps, when the set has doubled since the last one: the cost is constant per
/// value interned, and the memory at most twice what is in use.
#[derive(Debug, Default)]
pub struct Interner {
    routes: HashSet<Arc<Route>>,
    sweep_at: usize,
}

impl Interner {
    /// The shared value equal to `route`.
    pub fn intern(&mut self, route: Route) -> Arc<Route> {
        if let Some(known) = self.routes.get(&route) {
            return Arc::clone(known);
        }
        if self.routes.len() >= self.sweep_at {
            self.routes.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = (self.routes.len() * 2).max(1024);
        }
        let shared = Arc::new(route);
        self.routes.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(med: u32) -> Route {
        let attributes = PathAttributes {
            med: Some(med),
            ..PathAttributes::default()
        };
        Route {
            next_hop: None,
            attributes,
            metric: None,
        }
    }

    #[test]
    fn stays_small() {
        assert_eq!(size_of::<Path>(), 24);
        assert_eq!(size_of::<Paths>(), 32);
    }

    #[test]
    fn equal_routes_are_one_and_unused_ones_go() {
        let mut interner = Interner::default();
        let a = interner.intern(route(1));
        assert!(Arc::ptr_eq(&a, &interner.intern(route(1))));
        for med in 0..100_000 {
            let _ = interner.intern(route(med));
        }
        assert!(interner.routes.len() <= 2048, "{}", interner.routes.len());
        assert!(Arc::ptr_eq(&a, &interner.intern(route(1))));
    }

    #[test]
    fn one_path_per_source() {
        let shared = Arc::new(route(1));
        let path = |source| Path::new(Source(source), Arc::clone(&shared), Err(Refusal::Filter));
        let mut paths = Paths::default();
        for source in [1, 2, 3, 2] {
            paths.insert(path(source));
        }
        assert_eq!(paths.as_slice().len(), 3);
        assert!(paths.remove(Source(9)).is_none());
        for (source, left) in [(1, 2), (3, 1), (2, 0)] {
            assert_eq!(
                paths.remove(Source(source)).map(|p| p.source),
                Some(Source(source))
            );
            assert_eq!(paths.as_slice().len(), left);
        }
        assert!(matches!(paths, Paths::None));
    }
}
