//! The decision process (RFC 4271 section 9.1.2, RFC 4456 section 9, RFC 9494 section 4.2).
//!
//! Elimination in steps, as the RFC describes it, and not a pairwise comparison: MED is compared between paths of one
//! neighbouring AS only, so "better than" is not transitive and the result of pairwise comparison would depend on the order
//! of arrival. Nothing is allocated on the way: who is still in is a mark on the path.

use std::cmp::{Ordering, Reverse};
use std::net::IpAddr;

use super::facts::Facts;
use super::path::{Path, Source};
use crate::types::RouterId;
use crate::wire::Origin;

/// LOCAL_PREF of a path that carries none (RFC 4271 leaves it to the receiver; 100 is what everybody uses).
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the decision process needs to know of whoever gave us a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbor {
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's BGP Identifier.
    pub router_id: RouterId,
    /// The peer is in our AS.
    pub internal: bool,
    /// The peer is a client of ours, to reflect routes for (RFC 4456).
    pub client: bool,
    /// Index of the interface a link-local address of the peer belongs to; 0 for all other addresses.
    pub scope: u32,
}

/// Which paths beside the best one are used with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multipath {
    /// How many different next hops at most, the best path's included. 1: no multipath.
    pub max: usize,
    /// AS paths need only be equally long, not equal (RFC 7938 section 6.1).
    pub relax: bool,
}

impl Default for Multipath {
    fn default() -> Self {
        Self {
            max: usize::MAX,
            relax: true,
        }
    }
}

/// Where the decision process looks things up.
pub(super) trait Knowledge {
    /// What is known of a source.
    fn neighbor(&self, source: Source) -> Option<Neighbor>;
    /// What is known of a path's effective route.
    fn facts(&self, path: &Path) -> Option<&Facts>;
    /// The metric to a path's next hop; `None` means that it cannot be reached.
    fn cost(&self, facts: &Facts) -> Option<u32>;
}

/// Marks the best path and those to be used with it. Returns whether any mark changed.
///
/// A path whose next hop cannot be reached is out (section 9.1.2), as is one that policy refused.
pub(super) fn select(paths: &mut [Path], known: &impl Knowledge, multipath: Multipath) -> bool {
    let eligible = |path: &Path| {
        let reachable = |facts: &Facts| known.cost(facts).is_some();
        path.is_accepted() && known.facts(path).is_some_and(reachable)
    };
    if let [only] = paths {
        let eligible = eligible(only);
        return only.select(eligible, eligible);
    }
    for path in paths.iter_mut() {
        let candidate = eligible(path);
        path.set_candidate(candidate);
    }
    keep_lowest(paths, |path| preference(path, known));
    keep_lowest_med(paths, known);
    keep_lowest(paths, |path| {
        let internal = known.neighbor(path.source()).is_some_and(|n| n.internal);
        (internal, known.facts(path).and_then(|f| known.cost(f)))
    });
    let candidates = paths.iter().enumerate().filter(|(_, p)| p.is_candidate());
    let best = candidates
        .min_by_key(|(_, path)| tie_break(path, known))
        .map(|(index, _)| index);
    if let Some(best) = best {
        restrict(paths, best, known, multipath);
    }
    let mut changed = false;
    for (index, path) in paths.iter_mut().enumerate() {
        let candidate = path.is_candidate();
        changed |= path.select(best == Some(index), candidate);
    }
    changed
}

/// Whether a path that has just come cannot change the selection, whatever the paths are beside the best one: most of those that a
/// second, third, twentieth peer sends. May say no although nothing changes.
///
/// What is behind the best path before MED is compared has no part in what follows. What is behind it afterwards could at most
/// put others out by its MED, and then only in its own neighbouring AS: that is of interest for multipath, for those that are in
/// use `beside` the best path for having its next hop, and to the best path itself.
pub(super) fn is_behind(
    new: &Path,
    best: &Path,
    beside: impl FnOnce() -> bool,
    known: &impl Knowledge,
    multipath: Multipath,
) -> bool {
    let (Some(facts), Some(best_facts)) = (known.facts(new), known.facts(best)) else {
        return false;
    };
    let Some(cost) = known.cost(facts) else {
        return true;
    };
    if !new.is_accepted() {
        return true;
    }
    match preference(new, known).cmp(&preference(best, known)) {
        Ordering::Greater => return true,
        Ordering::Less => return false,
        Ordering::Equal => {}
    }
    // What takes the same next hop is used with the best path in any case.
    if multipath.max > 1 || facts.next_hop == best_facts.next_hop || beside() {
        return false;
    }
    if facts.neighbor == best_facts.neighbor && facts.med < best_facts.med {
        return false;
    }
    let internal = |path: &Path| known.neighbor(path.source()).is_some_and(|n| n.internal);
    let distance = |path: &Path, cost: u32| (internal(path), cost);
    let Some(best_cost) = known.cost(best_facts) else {
        return false;
    };
    match distance(new, cost).cmp(&distance(best, best_cost)) {
        Ordering::Greater => true,
        Ordering::Less => false,
        Ordering::Equal => tie_break(new, known) > tie_break(best, known),
    }
}

/// RFC 9494 section 4.2, what we originate ourselves, and section 9.1.2.2 a and b.
fn preference(
    path: &Path,
    known: &impl Knowledge,
) -> (bool, bool, Reverse<u32>, u32, Option<Origin>) {
    let facts = known.facts(path);
    let stale = facts.is_some_and(Facts::is_long_lived_stale);
    (
        path.is_long_lived_stale() || stale,
        // What we originate ourselves is not up for comparison.
        !path.source().is_local(),
        Reverse(facts.map_or(0, |facts| facts.local_pref)),
        facts.map_or(0, |facts| facts.path_length),
        facts.map(|facts| facts.origin),
    )
}

fn keep_lowest<K: Ord>(paths: &mut [Path], key: impl Fn(&Path) -> K) {
    let candidates = paths.iter().filter(|path| path.is_candidate());
    let Some(lowest) = candidates.map(&key).min() else {
        return;
    };
    for path in paths.iter_mut().filter(|path| path.is_candidate()) {
        let stays = key(path) == lowest;
        path.set_candidate(stays);
    }
}

/// Section 9.1.2.2 c: a path goes if another one of the same neighbouring AS has a lower MED. A missing MED is the lowest.
fn keep_lowest_med(paths: &mut [Path], known: &impl Knowledge) {
    let key = |path: &Path| known.facts(path).map_or((None, 0), |f| (f.neighbor, f.med));
    let mut meds = paths.iter().filter(|p| p.is_candidate()).map(|p| key(p).1);
    let Some(first) = meds.next() else { return };
    if meds.all(|med| med == first) {
        return;
    }
    // That a path which is out by now was lower than another one does no harm: whoever put it out is lower still.
    for index in 0..paths.len() {
        let Some(path) = paths.get(index).filter(|path| path.is_candidate()) else {
            continue;
        };
        let (asn, med) = key(path);
        let mut others = paths.iter().filter(|other| other.is_candidate()).map(key);
        if others.any(|(other_asn, other_med)| other_asn == asn && other_med < med)
            && let Some(path) = paths.get_mut(index)
        {
            path.set_candidate(false);
        }
    }
}

/// Section 9.1.2.2 f and g with RFC 4456 section 9: identifier of the originator, cluster list, address. Among the paths of
/// one source its own number for them decides.
fn tie_break(path: &Path, known: &impl Knowledge) -> (RouterId, u16, Option<IpAddr>, u32) {
    let from = known.neighbor(path.source());
    let facts = known.facts(path);
    let router_id = facts
        .and_then(|facts| facts.originator)
        .or(from.map(|n| n.router_id))
        .unwrap_or_default();
    (
        router_id,
        facts.map_or(0, |facts| facts.clusters),
        from.map(|n| n.address),
        path.path_id(),
    )
}

/// Leaves only those candidates that are used together with the best path.
fn restrict(paths: &mut [Path], best: usize, known: &impl Knowledge, multipath: Multipath) {
    let hash = |path: &Path| known.facts(path).map(|facts| facts.path_hash);
    if !multipath.relax {
        let same = paths.get(best).and_then(hash);
        for path in paths.iter_mut().filter(|path| path.is_candidate()) {
            let stays = hash(path) == same;
            path.set_candidate(stays);
        }
    }
    let count = paths.iter().filter(|path| path.is_candidate()).count();
    if count <= multipath.max {
        return;
    }
    let candidates = paths.iter().enumerate().filter(|(_, p)| p.is_candidate());
    let mut order: Vec<_> = candidates
        .map(|(index, path)| (tie_break(path, known), index))
        .collect();
    order.sort_unstable();
    // Two paths over one next hop are one way for packets: what is counted is next hops.
    let mut taken = Vec::new();
    for (_, index) in order {
        let Some(path) = paths.get_mut(index) else {
            continue;
        };
        let next_hop = known.facts(path).and_then(|facts| facts.next_hop);
        if taken.contains(&next_hop) {
            continue;
        }
        let stays = taken.len() < multipath.max;
        path.set_candidate(stays);
        if stays {
            taken.push(next_hop);
        }
    }
}

#[cfg(test)]
mod tests;
