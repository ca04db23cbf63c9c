//! The decision process (RFC 4271 section 9.1.2, RFC 4456 section 9).
//!
//! Elimination in steps, as the RFC describes it, and not a pairwise comparison: MED is compared between paths of one
//! neighbouring AS only, so "better than" is not transitive and the result of pairwise comparison would depend on the order
//! of arrival.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::path::{Path, Source};
use crate::types::RouterId;

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
}

/// Marks the best path and those equal to it down to and including the cost of reaching the next hop.
///
/// `neighbor` knows the sources, `cost` the metric to a next hop; `None` from it means the next hop cannot be reached and
/// the path is out (section 9.1.2). Returns whether any mark changed.
pub(super) fn select(
    paths: &mut [Path],
    neighbor: impl Fn(Source) -> Option<Neighbor>,
    cost: impl Fn(&Path) -> Option<u32>,
) -> bool {
    let mut left: Vec<usize> = Vec::with_capacity(paths.len());
    left.extend((0..paths.len()).filter(|i| paths[*i].is_accepted() && cost(&paths[*i]).is_some()));
    if left.len() > 1 {
        eliminate(paths, &mut left, &neighbor, &cost);
    }
    let best = left
        .iter()
        .copied()
        .min_by_key(|i| tie_break(&paths[*i], &neighbor));
    let mut changed = false;
    for (index, path) in paths.iter_mut().enumerate() {
        changed |= path.select(best == Some(index), left.contains(&index));
    }
    changed
}

fn eliminate(
    paths: &[Path],
    left: &mut Vec<usize>,
    neighbor: &impl Fn(Source) -> Option<Neighbor>,
    cost: &impl Fn(&Path) -> Option<u32>,
) {
    // What we originate ourselves is not up for comparison.
    keep_lowest(left, |i| !paths[i].source.is_local());
    keep_lowest(left, |i| Reverse(local_pref(&paths[i])));
    keep_lowest(left, |i| paths[i].effective.attributes.as_path.length());
    keep_lowest(left, |i| paths[i].effective.attributes.origin);
    keep_lowest_med(paths, left);
    keep_lowest(left, |i| {
        neighbor(paths[i].source).is_some_and(|n| n.internal)
    });
    keep_lowest(left, |i| cost(&paths[i]));
}

fn keep_lowest<K: Ord>(left: &mut Vec<usize>, key: impl Fn(usize) -> K) {
    if let Some(lowest) = left.iter().map(|i| key(*i)).min() {
        left.retain(|i| key(*i) == lowest);
    }
}

/// Section 9.1.2.2 c: a path goes if another one of the same neighbouring AS has a lower MED. A missing MED is the lowest.
fn keep_lowest_med(paths: &[Path], left: &mut Vec<usize>) {
    let key = |i: usize| {
        let attributes = &paths[i].effective.attributes;
        (attributes.as_path.neighbor(), attributes.med.unwrap_or(0))
    };
    let all = left.clone();
    left.retain(|i| {
        let (asn, med) = key(*i);
        !all.iter().any(|other| {
            let (other_asn, other_med) = key(*other);
            other_asn == asn && other_med < med
        })
    });
}

/// LOCAL_PREF as the comparison sees it.
#[must_use]
pub fn local_pref(path: &Path) -> u32 {
    path.effective
        .attributes
        .local_pref
        .unwrap_or(DEFAULT_LOCAL_PREF)
}

/// Section 9.1.2.2 f and g with RFC 4456 section 9: identifier of the originator, cluster list, address.
fn tie_break(
    path: &Path,
    neighbor: &impl Fn(Source) -> Option<Neighbor>,
) -> (RouterId, usize, Option<IpAddr>) {
    let from = neighbor(path.source);
    let attributes = &path.effective.attributes;
    let router_id = attributes
        .originator_id
        .or(from.map(|n| n.router_id))
        .unwrap_or_default();
    (
        router_id,
        attributes.cluster_list.len(),
        from.map(|n| n.address),
    )
}

#[cfg(test)]
mod tests;
