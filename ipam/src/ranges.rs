//! A set of addresses as disjoint ranges that do not touch: neighbours are one.
//!
//! Twenty thousand blocks of a cluster are a few hundred such ranges, so that the next free place
//! is one look-up away however full a pool is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// A set of addresses of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// From the first address of a range to its last.
    v4: BTreeMap<u128, u128>,
    v6: BTreeMap<u128, u128>,
}

impl Ranges {
    /// The set of all addresses of some ranges.
    pub fn of(ranges: impl IntoIterator<Item = IpNetwork>) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether an address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = number(address);
        let before = self.family(address.is_ipv4()).range(..=number).next_back();
        before.is_some_and(|(_, last)| *last >= number)
    }

    /// The last address, as a number, of the range of this set that shares an address with
    /// `range`; the first such, if there are several.
    pub(crate) fn end_of_overlap(&self, range: IpNetwork) -> Option<u128> {
        let (first, last) = bounds(range);
        let set = self.family(range.is_ipv4());
        let before = set.range(..=first).next_back();
        if let Some((_, end)) = before.filter(|(_, end)| **end >= first) {
            return Some(*end);
        }
        set.range(first..=last).next().map(|(_, end)| *end)
    }

    /// How many addresses of a range are in the set.
    pub fn count_within(&self, range: IpNetwork) -> u128 {
        let (first, last) = bounds(range);
        let set = self.family(range.is_ipv4());
        let before = set.range(..first).next_back();
        let all = before.into_iter().chain(set.range(first..=last));
        let shared = all.filter(|(_, end)| **end >= first).map(|(start, end)| {
            let length = (*end).min(last) - (*start).max(first);
            length.saturating_add(1)
        });
        shared.fold(0, u128::saturating_add)
    }

    /// Puts a range in.
    pub fn insert(&mut self, range: IpNetwork) {
        let (mut first, mut last) = bounds(range);
        let set = self.family_mut(range.is_ipv4());
        let before = set.range(..=first).next_back();
        let before = before.map(|(start, end)| (*start, *end));
        if let Some((start, end)) = before.filter(|(_, end)| end.saturating_add(1) >= first) {
            first = start;
            last = last.max(end);
        }
        let reach = last.saturating_add(1);
        let touched = set.range(first..=reach);
        let touched: Vec<(u128, u128)> = touched.map(|(start, end)| (*start, *end)).collect();
        for (start, end) in touched {
            set.remove(&start);
            last = last.max(end);
        }
        set.insert(first, last);
    }

    /// Takes a range out, whatever put it in.
    pub fn remove(&mut self, range: IpNetwork) {
        let (first, last) = bounds(range);
        let set = self.family_mut(range.is_ipv4());
        let before = set.range(..first).next_back();
        let before = before.into_iter().chain(set.range(first..=last));
        let met = before.filter(|(_, end)| **end >= first);
        let met: Vec<(u128, u128)> = met.map(|(start, end)| (*start, *end)).collect();
        for (start, end) in met {
            set.remove(&start);
            if start < first {
                set.insert(start, first - 1);
            }
            if end > last {
                set.insert(last + 1, end);
            }
        }
    }

    fn family(&self, is_v4: bool) -> &BTreeMap<u128, u128> {
        if is_v4 { &self.v4 } else { &self.v6 }
    }

    fn family_mut(&mut self, is_v4: bool) -> &mut BTreeMap<u128, u128> {
        if is_v4 { &mut self.v4 } else { &mut self.v6 }
    }
}

/// An address as a number within its family.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn bounds(range: IpNetwork) -> (u128, u128) {
    (number(range.network()), number(range.broadcast()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_address_space() {
        let mut set = Ranges::of(["::/0", "0.0.0.0/0"].map(|text| text.parse().unwrap()));
        assert!(set.contains("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap()));
        set.remove(
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"
                .parse()
                .unwrap(),
        );
        set.remove("::/128".parse().unwrap());
        assert!(!set.contains("::".parse().unwrap()));
        assert!(set.contains("::1".parse().unwrap()));
        assert_eq!(set.count_within("10.0.0.0/8".parse().unwrap()), 1 << 24);
        set.remove("::/0".parse().unwrap());
        set.remove("0.0.0.0/0".parse().unwrap());
        assert!(set.is_empty());
    }

    proptest! {
        /// The set is what a plain set of addresses is, and its ranges never touch.
        #[test]
        fn as_a_plain_set(
            steps in proptest::collection::vec((any::<bool>(), 0u8..=255, 24u8..=32), 0..40),
            asked in (0u8..=255, 24u8..=32),
        ) {
            let range = |(offset, prefix): (u8, u8)| {
                let network = IpNetwork::new([10, 0, 0, offset].into(), prefix).unwrap();
                IpNetwork::new(network.network(), prefix).unwrap()
            };
            let mut set = Ranges::default();
            let mut plain = BTreeSet::new();
            for (is_put, offset, prefix) in steps {
                let range = range((offset, prefix));
                if is_put {
                    set.insert(range);
                    plain.extend(range.iter());
                } else {
                    set.remove(range);
                    plain.retain(|address| !range.contains(*address));
                }
                let ends: Vec<_> = set.v4.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| *pair[0].1 + 1 < *pair[1].0));
            }
            for offset in 0..=255 {
                let address = IpAddr::from([10, 0, 0, offset]);
                prop_assert_eq!(set.contains(address), plain.contains(&address));
            }
            let asked = range(asked);
            let within = plain.iter().filter(|address| asked.contains(**address));
            prop_assert_eq!(set.count_within(asked), within.clone().count() as u128);
            prop_assert_eq!(set.end_of_overlap(asked).is_some(), within.count() > 0);
        }
    }
}
