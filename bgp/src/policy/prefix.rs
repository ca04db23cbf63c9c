//! Matching a prefix against a network and a range of lengths.

use serde::{Deserialize, Serialize};

use crate::types::Prefix;

/// How a route's prefix must relate to the network of a [`PrefixMatch`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MatchOperator {
    /// The route is exactly the network.
    Equal,
    /// The route is anything but exactly the network.
    NotEqual,
    /// The route is the network or lies inside it.
    #[default]
    In,
    /// The route lies outside the network.
    NotIn,
}

/// A network, how routes relate to it, and which lengths count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PrefixMatch {
    /// The network compared against. A route of the other address family never matches, not even with `NotIn`.
    pub prefix: Prefix,
    /// The relation asked for.
    #[serde(default)]
    pub operator: MatchOperator,
    /// Shortest prefix length that matches, in bits; `None`: no bound.
    #[serde(default)]
    pub min_length: Option<u8>,
    /// Longest prefix length that matches, in bits; `None`: no bound.
    #[serde(default)]
    pub max_length: Option<u8>,
}

impl PrefixMatch {
    /// The network itself and everything inside it.
    #[must_use]
    pub fn within(prefix: Prefix) -> Self {
        Self {
            prefix,
            operator: MatchOperator::In,
            min_length: None,
            max_length: None,
        }
    }

    /// Exactly the network.
    #[must_use]
    pub fn exactly(prefix: Prefix) -> Self {
        Self {
            prefix,
            operator: MatchOperator::Equal,
            min_length: None,
            max_length: None,
        }
    }

    /// Whether `route` matches.
    #[must_use]
    pub fn matches(&self, route: &Prefix) -> bool {
        if self.prefix.family() != route.family() {
            return false;
        }
        let length = route.length();
        if self.min_length.is_some_and(|min| length < min)
            || self.max_length.is_some_and(|max| length > max)
        {
            return false;
        }
        match self.operator {
            MatchOperator::Equal => self.prefix == *route,
            MatchOperator::NotEqual => self.prefix != *route,
            MatchOperator::In => self.prefix.contains(route),
            MatchOperator::NotIn => !self.prefix.contains(route),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn operators_and_length_ranges() {
        use MatchOperator::{Equal, In, NotEqual, NotIn};
        let table = [
            // network, operator, min, max, route, matches
            ("10.0.0.0/8", In, None, None, "10.1.0.0/16", true),
            ("10.0.0.0/8", In, None, None, "10.0.0.0/8", true),
            ("10.0.0.0/8", In, None, None, "10.0.0.0/7", false),
            ("10.0.0.0/8", In, None, None, "11.0.0.0/16", false),
            ("10.0.0.0/8", In, Some(24), Some(26), "10.1.1.0/24", true),
            ("10.0.0.0/8", In, Some(24), Some(26), "10.1.1.0/23", false),
            ("10.0.0.0/8", In, Some(24), Some(26), "10.1.1.0/27", false),
            ("10.0.0.0/8", Equal, None, None, "10.0.0.0/8", true),
            ("10.0.0.0/8", Equal, None, None, "10.0.0.0/9", false),
            ("10.0.0.0/8", NotEqual, None, None, "10.0.0.0/9", true),
            ("10.0.0.0/8", NotIn, None, None, "11.0.0.0/8", true),
            ("10.0.0.0/8", NotIn, None, None, "10.9.0.0/16", false),
            ("10.0.0.0/8", NotIn, None, None, "2001:db8::/32", false),
            ("0.0.0.0/0", In, None, None, "192.0.2.0/24", true),
            ("0.0.0.0/0", In, None, None, "2001:db8::/32", false),
            ("::/0", In, None, Some(64), "2001:db8::/32", true),
            ("2001:db8::/32", In, None, None, "2001:db9::/48", false),
            (
                "2001:db8::/32",
                In,
                None,
                None,
                "2001:db8:ffff::1/128",
                true,
            ),
        ];
        for (network, operator, min_length, max_length, route, expected) in table {
            let rule = PrefixMatch {
                prefix: prefix(network),
                operator,
                min_length,
                max_length,
            };
            assert_eq!(
                rule.matches(&prefix(route)),
                expected,
                "{rule:?} against {route}"
            );
        }
    }
}
