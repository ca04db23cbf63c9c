//! [`Index`]: which rules of a filter a prefix matches, without looking at every network of every rule.

use std::collections::HashMap;

use super::{MatchOperator, PrefixMatch, Rule};
use crate::types::{Family, Prefix};

/// Networks up to which trying one after the other is the fastest.
const FEW: usize = 12;

/// Every network of a filter's rules that is asked for with `In` or `Equal`, by network.
///
/// A look-up asks the map once for every length networks have, shortest first: filters have few different lengths, however
/// many networks there are.
#[derive(Debug)]
pub(super) struct Index {
    networks: HashMap<Prefix, Vec<Entry>>,
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
    /// The rules the map does not answer for, in order.
    others: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    /// Lengths of routes that match.
    min: u8,
    max: u8,
    rule: usize,
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let count: usize = rules.iter().map(|rule| rule.prefixes.len()).sum();
        let mut index = Self {
            networks: HashMap::new(),
            lengths_v4: Vec::new(),
            lengths_v6: Vec::new(),
            others: Vec::new(),
        };
        for (number, rule) in rules.iter().enumerate() {
            let negative = |m: &PrefixMatch| {
                matches!(m.operator, MatchOperator::NotEqual | MatchOperator::NotIn)
            };
            if count <= FEW || rule.prefixes.is_empty() || rule.prefixes.iter().any(negative) {
                index.others.push(number);
            } else {
                rule.prefixes.iter().for_each(|m| index.add(m, number));
            }
        }
        for lengths in [&mut index.lengths_v4, &mut index.lengths_v6] {
            lengths.sort_unstable();
            lengths.dedup();
        }
        index
    }

    fn add(&mut self, network: &PrefixMatch, rule: usize) {
        let prefix = network.prefix;
        let longest = match network.operator {
            MatchOperator::Equal => prefix.length(),
            _ => prefix.family().max_length(),
        };
        let entry = Entry {
            min: network.min_length.unwrap_or(0),
            max: network.max_length.unwrap_or(longest).min(longest),
            rule,
        };
        match prefix.family() {
            Family::Ipv4Unicast => self.lengths_v4.push(prefix.length()),
            Family::Ipv6Unicast => self.lengths_v6.push(prefix.length()),
        }
        // Rules are added in order, so every list is.
        self.networks.entry(prefix).or_default().push(entry);
    }

    /// The first rule that `prefix` matches, of those `wanted` takes.
    pub(super) fn first(
        &self,
        rules: &[Rule],
        prefix: &Prefix,
        wanted: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut first = usize::MAX;
        let lengths = match prefix.family() {
            Family::Ipv4Unicast => &self.lengths_v4,
            Family::Ipv6Unicast => &self.lengths_v6,
        };
        let length = prefix.length();
        for network in lengths.iter().take_while(|l| **l <= length) {
            let entries = Prefix::new(prefix.address(), *network)
                .ok()
                .and_then(|network| self.networks.get(&network));
            let found = entries.into_iter().flatten().find(|entry| {
                entry.rule >= first
                    || (entry.min <= length && length <= entry.max && wanted(entry.rule))
            });
            first = first.min(found.map_or(usize::MAX, |entry| entry.rule));
        }
        let other = self
            .others
            .iter()
            .take_while(|rule| **rule < first)
            .find(|rule| wanted(**rule) && rules.get(**rule).is_some_and(|r| r.covers(prefix)));
        first = other.copied().unwrap_or(first);
        (first != usize::MAX).then_some(first)
    }
}
