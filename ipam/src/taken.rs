//! The set of ranges that blocks cover, with the one question a claim asks: does this overlap?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Ranges by prefix length. A cluster uses one or two block sizes, so a look-up is one or two
/// tree look-ups, whatever the number of blocks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    by_prefix: BTreeMap<(bool, u8), BTreeSet<IpAddr>>,
}

impl Taken {
    pub(crate) fn insert(&mut self, range: IpNetwork) {
        let key = (range.is_ipv4(), range.prefix());
        let starts = self.by_prefix.entry(key).or_default();
        starts.insert(range.network());
    }

    pub(crate) fn remove(&mut self, range: IpNetwork) {
        let key = (range.is_ipv4(), range.prefix());
        if let Some(starts) = self.by_prefix.get_mut(&key) {
            starts.remove(&range.network());
            if starts.is_empty() {
                self.by_prefix.remove(&key);
            }
        }
    }

    /// A range that shares an address with this one, this very range included.
    pub(crate) fn overlapping(&self, range: IpNetwork) -> Option<IpNetwork> {
        self.search(range, false)
    }

    /// A range other than this one that shares an address with it.
    pub(crate) fn overlapping_other(&self, range: IpNetwork) -> Option<IpNetwork> {
        self.search(range, true)
    }

    fn search(&self, range: IpNetwork, other: bool) -> Option<IpNetwork> {
        let family = (range.is_ipv4(), 0)..=(range.is_ipv4(), 128);
        self.by_prefix
            .range(family)
            .find_map(|((_, prefix), starts)| {
                if other && *prefix == range.prefix() {
                    return None;
                }
                if *prefix <= range.prefix() {
                    // The one range of this length that could contain ours.
                    let around = IpNetwork::new(range.network(), *prefix).ok()?;
                    let start = around.network();
                    return starts
                        .contains(&start)
                        .then(|| IpNetwork::new(start, *prefix).ok())?;
                }
                let first = starts.range(range.network()..=range.broadcast()).next()?;
                IpNetwork::new(*first, *prefix).ok()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_in_both_directions() {
        let mut taken = Taken::default();
        for text in ["10.0.0.64/26", "10.0.4.0/24", "fd00::40/122"] {
            taken.insert(text.parse().unwrap());
        }
        let cases = [
            ("10.0.0.64/26", Some("10.0.0.64/26")),
            ("10.0.0.0/26", None),
            ("10.0.0.0/24", Some("10.0.0.64/26")),
            ("10.0.4.128/26", Some("10.0.4.0/24")),
            ("10.0.0.127/32", Some("10.0.0.64/26")),
            ("10.0.0.128/32", None),
            ("fd00::/64", Some("fd00::40/122")),
            ("fd00::80/122", None),
            ("0.0.0.0/0", Some("10.0.4.0/24")),
        ];
        for (text, expected) in cases {
            let found = taken.overlapping(text.parse().unwrap());
            assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{text}");
        }
        let own = "10.0.0.64/26".parse().unwrap();
        assert_eq!(taken.overlapping_other(own), None);
        taken.remove(own);
        assert_eq!(taken.overlapping(own), None);
    }
}
