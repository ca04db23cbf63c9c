//! Which AS a peer must present.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::{Asn, AsnRange};

/// The AS a peer must present in its OPEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAsn {
    /// This one.
    Number(Asn),
    /// Ours, whatever that is.
    Internal,
    /// Any but ours.
    External,
    /// One of these, both ends included; ours makes the session internal. For peers that come from a range.
    OneOf(Vec<AsnRange>),
}

impl PeerAsn {
    /// Whether a peer in AS `theirs` may have a session with us in AS `ours`. AS 0 (RFC 7607) and AS_TRANS (RFC 6793) never.
    #[must_use]
    pub fn admits(&self, ours: Asn, theirs: Asn) -> bool {
        if theirs == Asn::ZERO || theirs == Asn::TRANS {
            return false;
        }
        match self {
            Self::Number(asn) => *asn == theirs,
            Self::Internal => ours == theirs,
            Self::External => ours != theirs,
            Self::OneOf(ranges) => ranges.iter().any(|range| range.contains(theirs)),
        }
    }

    /// Whether the session is internal, as far as that can be told before the peer's OPEN; ranges count as external until then.
    #[must_use]
    pub fn is_internal(&self, ours: Asn) -> bool {
        match self {
            Self::Number(asn) => *asn == ours,
            Self::Internal => true,
            Self::External | Self::OneOf(_) => false,
        }
    }

    /// The number, if there is one.
    #[must_use]
    pub fn number(&self) -> Option<Asn> {
        match self {
            Self::Number(asn) => Some(*asn),
            _ => None,
        }
    }

    /// The first number in it that nobody may have as an AS of one's own.
    #[must_use]
    pub fn reserved(&self) -> Option<Asn> {
        let reserved = |asn: &Asn| *asn == Asn::ZERO || *asn == Asn::TRANS;
        match self {
            Self::Number(asn) => Some(*asn).filter(reserved),
            Self::OneOf(ranges) => ranges
                .iter()
                .flat_map(|range| [range.low, range.high])
                .find(reserved),
            Self::Internal | Self::External => None,
        }
    }
}

impl From<Asn> for PeerAsn {
    fn from(asn: Asn) -> Self {
        Self::Number(asn)
    }
}

impl fmt::Display for PeerAsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(asn) => asn.fmt(f),
            Self::Internal => f.write_str("internal"),
            Self::External => f.write_str("external"),
            Self::OneOf(ranges) => {
                for (index, range) in ranges.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{range}")?;
                }
                Ok(())
            }
        }
    }
}

/// A number or a word, as files have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u32),
    Text(String),
}

impl<'de> Deserialize<'de> for PeerAsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self::Number(Asn(number))),
            Written::Text(text) => match text.as_str() {
                "internal" => Ok(Self::Internal),
                "external" => Ok(Self::External),
                text => {
                    let ranges: Result<Vec<AsnRange>, _> =
                        text.split(',').map(str::parse).collect();
                    match ranges.map_err(D::Error::custom)?.as_slice() {
                        [one] if one.low == one.high => Ok(Self::Number(one.low)),
                        ranges => Ok(Self::OneOf(ranges.to_vec())),
                    }
                }
            },
        }
    }
}

impl Serialize for PeerAsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(asn) => serializer.serialize_u32(asn.0),
            other => serializer.collect_str(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_admitted() {
        let range = |text: &str| PeerAsn::OneOf(vec![text.parse().unwrap()]);
        for (wanted, theirs, expected) in [
            (PeerAsn::Number(Asn(65001)), 65001, true),
            (PeerAsn::Number(Asn(65001)), 65002, false),
            (PeerAsn::Internal, 65000, true),
            (PeerAsn::Internal, 65001, false),
            (PeerAsn::External, 65001, true),
            (PeerAsn::External, 65000, false),
            (PeerAsn::External, 0, false),
            (PeerAsn::External, 23456, false),
            (range("65100-65199"), 65100, true),
            (range("65100-65199"), 65199, true),
            (range("65100-65199"), 65200, false),
            (range("0-100"), 0, false),
        ] {
            assert_eq!(
                wanted.admits(Asn(65000), Asn(theirs)),
                expected,
                "{wanted} {theirs}"
            );
        }
    }

    #[test]
    fn numbers_words_and_ranges_are_read_and_written() {
        for (text, expected) in [
            ("65001", Ok("65001")),
            ("\"65001\"", Ok("65001")),
            ("\"internal\"", Ok("\"internal\"")),
            ("\"external\"", Ok("\"external\"")),
            ("\"65100-65199,65300\"", Ok("\"65100-65199, 65300\"")),
            ("\"65199-65100\"", Err("lower number")),
            ("\"extern\"", Err("neither an AS number")),
        ] {
            match (serde_json::from_str::<PeerAsn>(text), expected) {
                (Ok(value), Ok(expected)) => {
                    assert_eq!(serde_json::to_string(&value).unwrap(), expected, "{text}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }
}
