//! The decision process as a table: one step of RFC 4271 section 9.1.2.2 in each row.

use super::*;
use crate::rib::Route;
use crate::rib::routes::Routes;
use crate::types::{Asn, Community};
use crate::wire::{AsPath, NextHop, Origin, PathAttributes};

/// A path and whoever gave it.
#[derive(Clone)]
struct Candidate {
    attributes: PathAttributes,
    internal: bool,
    router_id: u32,
    address: u8,
    cost: Option<u32>,
    local: bool,
    accepted: bool,
    /// LLGR-stale (RFC 9494).
    stale: bool,
    /// The last octet of its next hop; its number if `None`.
    next_hop: Option<u8>,
}

/// An external path through AS 100 and AS 200, changed in some respect.
fn path(change: impl FnOnce(&mut Candidate)) -> Candidate {
    let attributes = PathAttributes {
        as_path: AsPath::sequence([Asn(100), Asn(200)]),
        ..PathAttributes::default()
    };
    let mut candidate = Candidate {
        attributes,
        internal: false,
        router_id: 10,
        address: 10,
        cost: Some(0),
        local: false,
        accepted: true,
        stale: false,
        next_hop: None,
    };
    change(&mut candidate);
    candidate
}

struct Lab<'a> {
    candidates: &'a [Candidate],
    routes: Routes,
}

impl Lab<'_> {
    fn candidate(&self, source: Source) -> Option<&Candidate> {
        self.candidates.get(source.0 as usize)
    }
}

impl Knowledge for Lab<'_> {
    fn neighbor(&self, source: Source) -> Option<Neighbor> {
        self.candidate(source).map(|c| Neighbor {
            address: IpAddr::from([10, 0, 0, c.address]),
            router_id: RouterId(c.router_id),
            internal: c.internal,
            client: false,
            scope: 0,
        })
    }

    fn facts(&self, path: &Path) -> Option<&Facts> {
        self.routes.facts(path.effective())
    }

    fn cost(&self, facts: &Facts) -> Option<u32> {
        facts.next_hop.and_then(|n| self.routes.cost(n))
    }
}

/// Which candidate is best, and which are used with it.
fn decide_with(candidates: &[Candidate], multipath: Multipath) -> (Option<usize>, Vec<usize>) {
    let mut routes = Routes::default();
    let mut paths = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let address = IpAddr::from([10, 0, 0, candidate.next_hop.unwrap_or(index as u8)]);
        let route = routes.intern(Route {
            next_hop: Some(NextHop::from(address)),
            attributes: candidate.attributes.clone(),
            metric: None,
        });
        routes.next_hops_mut().set_cost(address, candidate.cost);
        let source = if candidate.local {
            Source::LOCAL
        } else {
            Source(u32::try_from(index).unwrap())
        };
        let effective = if candidate.accepted {
            Ok(route)
        } else {
            Err(crate::policy::Refusal::Filter)
        };
        let mut path = Path::new(source, route, effective);
        path.set_long_lived_stale(candidate.stale);
        paths.push(path);
    }
    select(&mut paths, &Lab { candidates, routes }, multipath);
    let best = paths.iter().position(Path::is_best);
    let multipath = (0..paths.len())
        .filter(|i| paths[*i].is_multipath())
        .collect();
    assert!(
        paths
            .iter()
            .all(|path| !path.is_candidate() || path.is_multipath())
    );
    (best, multipath)
}

fn decide(candidates: &[Candidate]) -> (Option<usize>, Vec<usize>) {
    decide_with(candidates, Multipath::default())
}

fn as_path(asns: &[u32]) -> AsPath {
    AsPath::sequence(asns.iter().copied().map(Asn))
}

#[test]
fn each_step_decides_and_order_does_not_matter() {
    type Change = fn(&mut Candidate);
    // The winner's change, the loser's change, and whether both are good for multipath. The loser has whatever would make
    // it win in a later step.
    let table: [(&str, Change, Change, bool); 14] = [
        (
            "kept by us beyond a restart",
            |_| {},
            |l| {
                l.stale = true;
                l.attributes.local_pref = Some(900);
            },
            false,
        ),
        (
            "kept by another beyond a restart",
            |_| {},
            |l| {
                l.attributes.communities = vec![Community::LLGR_STALE];
                l.attributes.local_pref = Some(900);
            },
            false,
        ),
        (
            "own route",
            |w| w.local = true,
            |l| l.attributes.local_pref = Some(900),
            false,
        ),
        (
            "LOCAL_PREF",
            |w| {
                w.attributes.local_pref = Some(101);
                w.attributes.as_path = as_path(&[1, 2, 3, 4]);
            },
            |_| {},
            false,
        ),
        (
            "a missing LOCAL_PREF is 100",
            |_| {},
            |l| l.attributes.local_pref = Some(99),
            false,
        ),
        (
            "AS path length",
            |w| w.attributes.origin = Origin::Incomplete,
            |l| l.attributes.as_path = as_path(&[100, 100, 200]),
            false,
        ),
        (
            "ORIGIN",
            |w| w.attributes.med = Some(50),
            |l| l.attributes.origin = Origin::Egp,
            false,
        ),
        (
            "MED",
            |w| {
                w.attributes.med = Some(4);
                w.internal = true;
            },
            |l| l.attributes.med = Some(5),
            false,
        ),
        (
            "a missing MED is 0",
            |w| w.internal = true,
            |l| l.attributes.med = Some(1),
            false,
        ),
        (
            "external over internal",
            |w| w.cost = Some(9),
            |l| l.internal = true,
            false,
        ),
        (
            "cost of the next hop",
            |w| w.router_id = 99,
            |l| l.cost = Some(1),
            false,
        ),
        (
            "identifier",
            |w| {
                w.router_id = 9;
                w.address = 99;
            },
            |_| {},
            true,
        ),
        (
            "identifier of the originator",
            |w| {
                w.attributes.originator_id = Some(RouterId(1));
                w.attributes.cluster_list = vec![RouterId(7)];
                w.router_id = 99;
            },
            |_| {},
            true,
        ),
        (
            "length of the cluster list",
            |w| w.address = 99,
            |l| l.attributes.cluster_list = vec![RouterId(7)],
            true,
        ),
    ];
    for (what, better, worse, multipath) in table {
        let (better, worse) = (path(better), path(worse));
        let all = if multipath { vec![0, 1] } else { vec![0] };
        assert_eq!(
            decide(&[better.clone(), worse.clone()]),
            (Some(0), all),
            "{what}"
        );
        assert_eq!(
            decide(&[worse, better]).0,
            Some(1),
            "{what}, the other way round"
        );
    }
}

#[test]
fn the_lower_address_decides_last() {
    let (low, high) = (path(|p| p.address = 2), path(|p| p.address = 3));
    assert_eq!(decide(&[high, low]), (Some(1), vec![0, 1]));
}

#[test]
fn med_is_compared_within_one_neighbouring_as_only() {
    let low_med = path(|p| p.attributes.med = Some(1));
    let other_as = path(|p| {
        p.attributes.med = Some(500);
        p.attributes.as_path = as_path(&[101, 200]);
        p.router_id = 1;
    });
    assert_eq!(
        decide(&[low_med.clone(), other_as.clone()]),
        (Some(1), vec![0, 1])
    );
    // The classic case in which pairwise comparison depends on the order: a third path loses to the first by MED, although it
    // would have beaten the second.
    let high_med = path(|p| {
        p.attributes.med = Some(9);
        p.router_id = 0;
    });
    let all = [low_med, other_as, high_med];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let ordered: Vec<_> = order.iter().map(|i| all[*i].clone()).collect();
        assert_eq!(decide(&ordered).0.map(|i| order[i]), Some(1), "{order:?}");
    }
}

#[test]
fn refused_and_unreachable_paths_are_out() {
    let refused = path(|p| {
        p.accepted = false;
        p.attributes.local_pref = Some(900);
    });
    let unreachable = path(|p| {
        p.cost = None;
        p.attributes.local_pref = Some(900);
    });
    assert_eq!(
        decide(&[refused.clone(), unreachable.clone(), path(|_| {})]),
        (Some(2), vec![2])
    );
    assert_eq!(decide(&[refused, unreachable]), (None, vec![]));
}

#[test]
fn multipath_takes_equal_paths_unless_relaxed_and_no_more_than_asked_for() {
    let other_path = path(|p| {
        p.attributes.as_path = as_path(&[101, 200]);
        p.router_id = 12;
    });
    let same_path = path(|p| p.router_id = 11);
    let third = path(|p| p.router_id = 13);
    let all = [path(|_| {}), same_path, other_path, third];
    for (max, relax, expected) in [
        (9, true, vec![0, 1, 2, 3]),
        (9, false, vec![0, 1, 3]),
        (4, true, vec![0, 1, 2, 3]),
        (3, true, vec![0, 1, 2]),
        (2, false, vec![0, 1]),
        (1, true, vec![0]),
    ] {
        let decided = decide_with(&all, Multipath { max, relax });
        assert_eq!(decided, (Some(0), expected), "{max} {relax}");
    }
}

#[test]
fn paths_over_one_next_hop_count_once() {
    let at = |router_id, next_hop| {
        path(move |p| {
            p.router_id = router_id;
            p.next_hop = Some(next_hop);
        })
    };
    let all = [at(1, 7), at(2, 7), at(3, 8), at(4, 9)];
    let two = Multipath {
        max: 2,
        relax: true,
    };
    assert_eq!(decide_with(&all, two), (Some(0), vec![0, 1, 2]));
}
