//! The decision process as a table: one step of RFC 4271 section 9.1.2.2 in each row.

use std::sync::Arc;

use super::*;
use crate::rib::Route;
use crate::types::Asn;
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
    };
    change(&mut candidate);
    candidate
}

/// Which candidate is best, and which are equal to it for multipath.
fn decide(candidates: &[Candidate]) -> (Option<usize>, Vec<usize>) {
    let source = |index: usize| {
        if candidates[index].local {
            Source::LOCAL
        } else {
            Source(u32::try_from(index).unwrap())
        }
    };
    let candidate = |source: Source| candidates.get(source.0 as usize);
    let mut paths: Vec<_> = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| {
            let next_hop = NextHop::V4([10, 0, 0, candidate.address].into());
            let attributes = candidate.attributes.clone();
            let route = Arc::new(Route {
                next_hop: Some(next_hop),
                attributes,
                metric: None,
            });
            let effective = candidate.accepted.then(|| Arc::clone(&route));
            Path::new(
                source(index),
                route,
                effective.ok_or(crate::policy::Refusal::Filter),
            )
        })
        .collect();
    let neighbor = |source: Source| {
        candidate(source).map(|c| Neighbor {
            address: IpAddr::from([10, 0, 0, c.address]),
            router_id: RouterId(c.router_id),
            internal: c.internal,
            client: false,
        })
    };
    let cost = |path: &Path| candidate(path.source).map_or(Some(0), |c| c.cost);
    select(&mut paths, neighbor, cost);
    let best = paths.iter().position(Path::is_best);
    let multipath = (0..paths.len())
        .filter(|i| paths[*i].is_multipath())
        .collect();
    (best, multipath)
}

fn as_path(asns: &[u32]) -> AsPath {
    AsPath::sequence(asns.iter().copied().map(Asn))
}

#[test]
fn each_step_decides_and_order_does_not_matter() {
    type Change = fn(&mut Candidate);
    // The winner's change, the loser's change, and whether both are good for multipath. The loser has whatever would make
    // it win in a later step.
    let table: [(&str, Change, Change, bool); 12] = [
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
