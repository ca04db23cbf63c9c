//! The ranges that blocks cover, with the two questions a claim asks: does this overlap another
//! one, and where does what is in the way end?

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::ranges::Ranges;

/// Ranges by prefix length. A cluster uses one or two block sizes, so a look-up is one or two
/// tree look-ups, whatever the number of blocks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    /// How many blocks there are of a range: more than one only where an object bears a name that
    /// is not its range's.
    by_prefix: BTreeMap<(bool, u8), BTreeMap<IpAddr, u32>>,
    all: Ranges,
}

impl Taken {
    pub(crate) fn insert(&mut self, range: IpNetwork) {
        let key = (range.is_ipv4(), range.prefix());
        let starts = self.by_prefix.entry(key).or_default();
        *starts.entry(range.network()).or_default() += 1;
        self.all.insert(range);
    }

    pub(crate) fn remove(&mut self, range: IpNetwork) {
        let key = (range.is_ipv4(), range.prefix());
        let Some(starts) = self.by_prefix.get_mut(&key) else {
            return;
        };
        if let Some(count) = starts.get_mut(&range.network()) {
            *count -= 1;
            if *count > 0 {
                return;
            }
            starts.remove(&range.network());
        }
        if starts.is_empty() {
            self.by_prefix.remove(&key);
        }
        self.all.remove(range);
        // What else covers some of it, which happens where pools were changed under blocks.
        for other in self.overlapping_all(range) {
            self.all.insert(other);
        }
    }

    /// Where the addresses that are taken from within the range on end, as a number.
    pub(crate) fn end_of_overlap(&self, range: IpNetwork) -> Option<u128> {
        self.all.end_of_overlap(range)
    }

    /// A range other than this one that shares an address with it.
    pub(crate) fn overlapping_other(&self, range: IpNetwork) -> Option<IpNetwork> {
        let mut all = self.overlaps(range);
        all.find(|other| other.prefix() != range.prefix())
    }

    /// The block that an address is in; the smallest, should blocks overlap.
    pub(crate) fn around(&self, address: IpAddr) -> Option<IpNetwork> {
        self.overlaps(IpNetwork::from(address)).last()
    }

    fn overlapping_all(&self, range: IpNetwork) -> Vec<IpNetwork> {
        self.overlaps(range).collect()
    }

    /// All ranges that share an address with this one, the largest first.
    fn overlaps(&self, range: IpNetwork) -> impl Iterator<Item = IpNetwork> {
        let family = (range.is_ipv4(), 0)..=(range.is_ipv4(), 128);
        self.by_prefix
            .range(family)
            .flat_map(move |((_, prefix), starts)| {
                // The one range of this length that could contain ours.
                let around = IpNetwork::new(range.network(), *prefix).ok();
                let first = match around.filter(|_| *prefix <= range.prefix()) {
                    Some(around) => around.network(),
                    None => range.network(),
                };
                let last = first.max(range.broadcast());
                let found = starts.range(first..=last);
                found.filter_map(|(start, _)| IpNetwork::new(*start, *prefix).ok())
            })
            .filter(move |found| margay_crds::ip_pool::overlap(*found, range))
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
            let range = text.parse().unwrap();
            let found = taken.overlaps(range).next();
            assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{text}");
            assert_eq!(taken.end_of_overlap(range).is_some(), expected.is_some());
        }
        let own = "10.0.0.64/26".parse().unwrap();
        assert_eq!(taken.overlapping_other(own), None);
        assert_eq!(taken.around("10.0.0.65".parse().unwrap()), Some(own));
        taken.remove(own);
        assert_eq!(taken.overlaps(own).next(), None);
    }

    #[test]
    fn what_covers_a_removed_range_stays_taken() {
        let mut taken = Taken::default();
        let small: IpNetwork = "10.0.0.64/26".parse().unwrap();
        let large: IpNetwork = "10.0.0.0/24".parse().unwrap();
        for range in [small, small, large] {
            taken.insert(range);
        }
        assert_eq!(taken.around("10.0.0.65".parse().unwrap()), Some(small));
        assert_eq!(taken.overlapping_other(small), Some(large));
        taken.remove(large);
        assert_eq!(taken.overlapping_other(small), None);
        assert!(taken.end_of_overlap(small).is_some());
        taken.remove(small);
        assert!(taken.end_of_overlap(small).is_some());
        taken.remove(small);
        assert_eq!(taken.end_of_overlap(large), None);
    }
}
