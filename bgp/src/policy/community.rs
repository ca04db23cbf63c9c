//! Patterns over the three kinds of communities: fields may be a value, a range or anything.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::{
    Community, ExtendedAdministrator, ExtendedCommunity, ExtendedKind, LargeCommunity,
};

/// A text that is not a pattern over communities.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "community pattern {text:?} is not of the form {form}; each field is a number, a range LOW-HIGH or *"
)]
pub struct ParsePatternError {
    text: String,
    form: &'static str,
}

/// The values of one field that match, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Field {
    low: u32,
    high: u32,
}

impl Field {
    const ANY: Self = Self {
        low: 0,
        high: u32::MAX,
    };

    const fn exactly(value: u32) -> Self {
        Self {
            low: value,
            high: value,
        }
    }

    const fn matches(self, value: u32) -> bool {
        self.low <= value && value <= self.high
    }

    /// `*`, `5` or `5-9`, no value above `max`.
    fn parse(text: &str, max: u32) -> Option<Self> {
        if text == "*" {
            return Some(Self::ANY);
        }
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let field = Self {
            low: low.parse().ok()?,
            high: high.parse().ok()?,
        };
        (field.low <= field.high && field.high <= max).then_some(field)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.low, self.high) {
            (0, u32::MAX) => f.write_str("*"),
            (low, high) if low == high => write!(f, "{low}"),
            (low, high) => write!(f, "{low}-{high}"),
        }
    }
}

/// Standard communities: `64512:100`, `64512:*`, `64512:100-199`, or a well-known name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CommunityPattern {
    asn: Field,
    value: Field,
}

impl CommunityPattern {
    /// Whether a community matches.
    #[must_use]
    pub const fn matches(&self, community: Community) -> bool {
        self.asn.matches(community.0 >> 16) && self.value.matches(community.0 & 0xFFFF)
    }
}

impl From<Community> for CommunityPattern {
    fn from(community: Community) -> Self {
        Self {
            asn: Field::exactly(community.0 >> 16),
            value: Field::exactly(community.0 & 0xFFFF),
        }
    }
}

impl FromStr for CommunityPattern {
    type Err = ParsePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let max = u32::from(u16::MAX);
        let fields = || {
            let (asn, value) = text.split_once(':')?;
            Some(Self {
                asn: Field::parse(asn, max)?,
                value: Field::parse(value, max)?,
            })
        };
        text.parse::<Community>()
            .ok()
            .map(Self::from)
            .or_else(fields)
            .ok_or_else(|| ParsePatternError {
                text: text.to_owned(),
                form: "ASN:VALUE with both up to 65535, nor a well-known name such as no-export",
            })
    }
}

impl fmt::Display for CommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.asn, self.value)
    }
}

/// Large communities: `64512:1:2`, any field a range or `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LargeCommunityPattern {
    global: Field,
    local1: Field,
    local2: Field,
}

impl LargeCommunityPattern {
    /// Whether a community matches.
    #[must_use]
    pub const fn matches(&self, community: LargeCommunity) -> bool {
        self.global.matches(community.global)
            && self.local1.matches(community.local1)
            && self.local2.matches(community.local2)
    }
}

impl FromStr for LargeCommunityPattern {
    type Err = ParsePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fields = || {
            let (global, rest) = text.split_once(':')?;
            let (local1, local2) = rest.split_once(':')?;
            Some(Self {
                global: Field::parse(global, u32::MAX)?,
                local1: Field::parse(local1, u32::MAX)?,
                local2: Field::parse(local2, u32::MAX)?,
            })
        };
        fields().ok_or_else(|| ParsePatternError {
            text: text.to_owned(),
            form: "ASN:VALUE:VALUE with each up to 4294967295",
        })
    }
}

impl fmt::Display for LargeCommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

/// Extended communities: `rt:64512:100`, `rt:64512:*`, `rt:10.0.0.1:*`, `ro:*`, `lb:*`, or 16 hexadecimal digits after `0x`.
///
/// An AS number matches however wide it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ExtendedCommunityPattern(Extended);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Extended {
    Exactly(ExtendedCommunity),
    Of {
        kind: ExtendedKind,
        administrator: Administrator,
        value: Field,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Administrator {
    Any,
    As(Field),
    Address(Ipv4Addr),
}

impl ExtendedCommunityPattern {
    /// Whether a community matches.
    #[must_use]
    pub fn matches(&self, community: ExtendedCommunity) -> bool {
        match self.0 {
            Extended::Exactly(this) => this == community,
            Extended::Of {
                kind,
                administrator,
                value,
            } => community.parts().is_some_and(|parts| {
                let from = match (administrator, parts.administrator) {
                    (Administrator::Any, _) => true,
                    (Administrator::As(asns), ExtendedAdministrator::As(asn)) => {
                        asns.matches(asn.0)
                    }
                    (Administrator::Address(this), ExtendedAdministrator::Address(address)) => {
                        this == address
                    }
                    _ => false,
                };
                parts.kind == kind && from && value.matches(parts.value)
            }),
        }
    }
}

impl FromStr for ExtendedCommunityPattern {
    type Err = ParsePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fields = || {
            let (kind, rest) = text.split_once(':')?;
            let (administrator, value) = match rest {
                "*" => ("*", "*"),
                _ => rest.rsplit_once(':')?,
            };
            let administrator = match administrator {
                "*" => Administrator::Any,
                text => match text.parse() {
                    Ok(address) => Administrator::Address(address),
                    Err(_) => Administrator::As(Field::parse(text, u32::MAX)?),
                },
            };
            let kind = kind.parse().ok()?;
            if kind == ExtendedKind::LinkBandwidth && value != "*" {
                return None;
            }
            Some(Self(Extended::Of {
                kind,
                administrator,
                value: Field::parse(value, u32::MAX)?,
            }))
        };
        let exactly = || text.parse().ok().map(Extended::Exactly).map(Self);
        fields().or_else(exactly).ok_or_else(|| ParsePatternError {
            text: text.to_owned(),
            form: "rt:ASN:VALUE, rt:ADDRESS:VALUE, ro:…, lb:… or 0x and 16 hexadecimal digits",
        })
    }
}

impl fmt::Display for ExtendedCommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Extended::Exactly(community) => community.fmt(f),
            Extended::Of {
                kind,
                administrator,
                value,
            } => {
                write!(f, "{kind}:")?;
                match administrator {
                    Administrator::Any => f.write_str("*")?,
                    Administrator::As(field) => field.fmt(f)?,
                    Administrator::Address(address) => address.fmt(f)?,
                }
                write!(f, ":{value}")
            }
        }
    }
}

macro_rules! string_conversions {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = ParsePatternError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(pattern: $type) -> Self {
                pattern.to_string()
            }
        }
    )*};
}

string_conversions!(
    CommunityPattern,
    LargeCommunityPattern,
    ExtendedCommunityPattern
);

/// Which communities of one kind a route must have. Every condition that is not empty must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct CommunityMatch<P> {
    /// One of the route's communities matches one of these.
    pub any: Vec<P>,
    /// Each of these is matched by one of the route's communities.
    pub all: Vec<P>,
    /// None of the route's communities matches any of these.
    pub none: Vec<P>,
}

impl<P> Default for CommunityMatch<P> {
    fn default() -> Self {
        Self {
            any: Vec::new(),
            all: Vec::new(),
            none: Vec::new(),
        }
    }
}

impl<P> CommunityMatch<P> {
    /// One of these.
    #[must_use]
    pub fn any(patterns: Vec<P>) -> Self {
        Self {
            any: patterns,
            ..Self::default()
        }
    }

    pub(super) fn holds<C: Copy>(&self, have: &[C], matches: impl Fn(&P, C) -> bool) -> bool {
        let found = |pattern: &P| have.iter().any(|community| matches(pattern, *community));
        (self.any.is_empty() || self.any.iter().any(found))
            && self.all.iter().all(found)
            && !self.none.iter().any(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_patterns() {
        for (pattern, community, expected) in [
            ("64512:100", "64512:100", true),
            ("64512:100", "64512:101", false),
            ("64512:*", "64512:0", true),
            ("*:100", "1:100", true),
            ("*:100", "1:101", false),
            ("64512:100-199", "64512:199", true),
            ("64512:100-199", "64512:200", false),
            ("no-export", "65535:65281", true),
            ("*:*", "0:0", true),
        ] {
            let parsed: CommunityPattern = pattern.parse().unwrap();
            let community = community.parse().unwrap();
            assert_eq!(parsed.matches(community), expected, "{pattern} {community}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
        for text in ["", "1", "65536:1", "1:2:3", "5-4:1", "**:1", "1:-2", "1:2-"] {
            assert!(text.parse::<CommunityPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn large_patterns() {
        for (pattern, community, expected) in [
            ("64512:1:*", "64512:1:4294967295", true),
            ("64512:1:*", "64512:2:1", false),
            ("4200000000-4294967294:*:7", "4200000001:3:7", true),
        ] {
            let parsed: LargeCommunityPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(community.parse().unwrap()), expected);
            assert_eq!(parsed.to_string(), pattern);
        }
        assert!("1:2".parse::<LargeCommunityPattern>().is_err());
    }

    #[test]
    fn extended_patterns() {
        for (pattern, community, expected) in [
            ("rt:64512:100", "rt:64512:100", true),
            // However wide the AS number is encoded.
            ("rt:64512:100", "rt:64512L:100", true),
            ("rt:64512:*", "rt:64512:4294967295", true),
            ("rt:64512:*", "ro:64512:1", false),
            ("rt:*", "rt:10.0.0.1:5", true),
            ("rt:*:5", "rt:10.0.0.1:5", true),
            ("rt:*:5", "rt:10.0.0.1:6", false),
            ("rt:10.0.0.1:*", "rt:10.0.0.1:6", true),
            ("rt:10.0.0.1:*", "rt:10.0.0.2:6", false),
            ("rt:64512:1", "rt:10.0.0.1:1", false),
            ("rt:64512L:1", "rt:64512L:1", true),
            ("rt:64512L:1", "rt:64512:1", false),
            ("lb:*", "lb:64512:125000000", true),
            ("lb:64512:125000000", "lb:64512:125000000", true),
            ("0x0600000000000001", "0x0600000000000001", true),
            ("0x0600000000000001", "0x0600000000000002", false),
        ] {
            let parsed: ExtendedCommunityPattern = pattern.parse().unwrap();
            let community = community.parse().unwrap();
            assert_eq!(parsed.matches(community), expected, "{pattern} {community}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{pattern}");
        }
        for text in ["rt", "rt:", "xy:1:2", "rt:1", "rt:1:2:3:x", "0x12"] {
            assert!(text.parse::<ExtendedCommunityPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn any_all_and_none() {
        let patterns = |texts: &[&str]| -> Vec<CommunityPattern> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let have = [Community::new(1, 1), Community::new(1, 2)];
        for (any, all, none, expected) in [
            (&["1:1", "9:9"][..], &[][..], &[][..], true),
            (&["9:9"], &[], &[], false),
            (&[], &["1:1", "1:2"], &[], true),
            (&[], &["1:1", "1:3"], &[], false),
            (&["1:*"], &["1:2"], &["1:2"], false),
            (&[], &[], &["2:*"], true),
        ] {
            let condition = CommunityMatch {
                any: patterns(any),
                all: patterns(all),
                none: patterns(none),
            };
            let holds = condition.holds(&have, |p, c| p.matches(c));
            assert_eq!(holds, expected, "{any:?} {all:?} {none:?}");
        }
    }
}
