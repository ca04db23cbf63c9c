//! Four-octet AS numbers through peers that know only two octets (RFC 6793 §4.2).
//!
//! Such a peer passes on AS4_PATH and AS4_AGGREGATOR untouched beside an AS_PATH and AGGREGATOR
//! where AS_TRANS stands for what it could not write. Here they are joined again.

use crate::types::Asn;

use super::{Aggregator, AsPath, AsSegment};

/// What came for one UPDATE from a two-octet peer, as far as it was well-formed.
pub(super) struct TwoOctetParts {
    pub(super) as_path: AsPath,
    pub(super) aggregator: Option<Aggregator>,
    pub(super) as4_path: Option<AsPath>,
    pub(super) as4_aggregator: Option<Aggregator>,
}

/// Joins the parts into the path and aggregator with four-octet numbers (RFC 6793 §4.2.3).
pub(super) fn join(parts: TwoOctetParts) -> (AsPath, Option<Aggregator>) {
    let TwoOctetParts {
        as_path,
        aggregator,
        as4_path,
        as4_aggregator,
    } = parts;
    match (aggregator, as4_aggregator) {
        // A two-octet router aggregated after the AS4_ attributes were made: they are stale.
        (Some(aggregator), Some(_)) if aggregator.asn != Asn::TRANS => {
            return (as_path, Some(aggregator));
        }
        _ => {}
    }
    let aggregator = match aggregator {
        Some(_) => as4_aggregator.or(aggregator),
        None => None,
    };
    let as_path = match as4_path {
        Some(as4_path) => join_paths(as_path, as4_path),
        None => as_path,
    };
    (as_path, aggregator)
}

/// The part of `as_path` that two-octet routers put in front, then `as4_path`.
fn join_paths(as_path: AsPath, as4_path: AsPath) -> AsPath {
    let Some(mut in_front) = as_path.length().checked_sub(as4_path.length()) else {
        // Longer than the path it is meant to refine: made by a router that is wrong.
        return as_path;
    };
    let mut joined = AsPath::default();
    for segment in as_path.segments() {
        if in_front == 0 {
            break;
        }
        match segment {
            AsSegment::Sequence(asns) => {
                let taken = asns.iter().copied().take(in_front).collect::<Vec<_>>();
                in_front -= taken.len();
                joined.push(AsSegment::Sequence(taken));
            }
            // A set counts one, however many are in it.
            AsSegment::Set(_) => {
                in_front -= 1;
                joined.push(segment.clone());
            }
            AsSegment::ConfedSequence(_) | AsSegment::ConfedSet(_) => joined.push(segment.clone()),
        }
    }
    for segment in as4_path.segments() {
        joined.push(segment.clone());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RouterId;

    fn sequence(asns: &[u32]) -> AsPath {
        AsPath::sequence(asns.iter().copied().map(Asn))
    }

    fn set(asns: &[u32]) -> AsSegment {
        AsSegment::Set(asns.iter().copied().map(Asn).collect())
    }

    fn parts(as_path: AsPath, as4_path: Option<AsPath>) -> TwoOctetParts {
        TwoOctetParts {
            as_path,
            aggregator: None,
            as4_path,
            as4_aggregator: None,
        }
    }

    fn aggregator(asn: u32) -> Aggregator {
        Aggregator {
            asn: Asn(asn),
            router_id: RouterId(1),
        }
    }

    #[test]
    fn paths_join_by_length() {
        let trans = Asn::TRANS.0;
        let with_set = AsPath::new([set(&[7, 8]), AsSegment::Sequence(vec![Asn::TRANS])]);
        for (as_path, as4_path, expected) in [
            (sequence(&[trans, 2]), None, sequence(&[trans, 2])),
            (
                sequence(&[1, trans]),
                Some(sequence(&[70_000])),
                sequence(&[1, 70_000]),
            ),
            (
                sequence(&[trans, 2]),
                Some(sequence(&[70_000, 2])),
                sequence(&[70_000, 2]),
            ),
            // Longer than AS_PATH: ignored.
            (sequence(&[1]), Some(sequence(&[70_000, 2])), sequence(&[1])),
            (
                with_set,
                Some(sequence(&[70_000])),
                AsPath::new([set(&[7, 8]), AsSegment::Sequence(vec![Asn(70_000)])]),
            ),
            (sequence(&[]), Some(sequence(&[])), sequence(&[])),
        ] {
            let (joined, _) = join(parts(as_path, as4_path));
            assert_eq!(joined, expected);
        }
    }

    #[test]
    fn a_two_octet_aggregator_makes_the_four_octet_attributes_stale() {
        let stale = TwoOctetParts {
            aggregator: Some(aggregator(64_512)),
            as4_aggregator: Some(aggregator(70_000)),
            ..parts(sequence(&[1, 23456]), Some(sequence(&[70_000])))
        };
        assert_eq!(
            join(stale),
            (sequence(&[1, 23456]), Some(aggregator(64_512)))
        );
        let good = TwoOctetParts {
            aggregator: Some(aggregator(23456)),
            as4_aggregator: Some(aggregator(70_000)),
            ..parts(sequence(&[1, 23456]), Some(sequence(&[70_000])))
        };
        assert_eq!(
            join(good),
            (sequence(&[1, 70_000]), Some(aggregator(70_000)))
        );
        let alone = TwoOctetParts {
            as4_aggregator: Some(aggregator(70_000)),
            ..parts(sequence(&[1]), None)
        };
        assert_eq!(join(alone), (sequence(&[1]), None));
    }
}
