//! Standard and large communities (RFC 1997, RFC 8092) and their text forms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ExtendedCommunity;

/// A text that is not a community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("community {text:?} is not of the form {form}")]
pub struct ParseCommunityError {
    text: String,
    form: &'static str,
}

impl ParseCommunityError {
    pub(super) fn new(text: &str, form: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            form,
        }
    }
}

/// A standard community: a two-octet AS number and a two-octet value (RFC 1997).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Community(pub u32);

impl Community {
    /// Asks the receiver to lower its preference: the path is about to go away (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xFFFF_0000);
    /// The route is kept stale for a peer that is away for long (RFC 9494).
    pub const LLGR_STALE: Self = Self(0xFFFF_0006);
    /// The route must not be kept stale for long (RFC 9494).
    pub const NO_LLGR: Self = Self(0xFFFF_0007);
    /// Asks to discard traffic to the prefix (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xFFFF_029A);
    /// Not to be announced outside the AS (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xFFFF_FF01);
    /// Not to be announced to anyone (RFC 1997).
    pub const NO_ADVERTISE: Self = Self(0xFFFF_FF02);
    /// Not to be announced to external peers, confederation members included (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xFFFF_FF03);
    /// Not to be announced over bilateral peering (RFC 3765).
    pub const NO_PEER: Self = Self(0xFFFF_FF04);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
        (Self::LLGR_STALE, "llgr-stale"),
        (Self::NO_LLGR, "no-llgr"),
        (Self::BLACKHOLE, "blackhole"),
        (Self::NO_EXPORT, "no-export"),
        (Self::NO_ADVERTISE, "no-advertise"),
        (Self::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
        (Self::NO_PEER, "no-peer"),
    ];

    /// The community `asn:value`.
    #[must_use]
    pub const fn new(asn: u16, value: u16) -> Self {
        Self(((asn as u32) << 16) | value as u32)
    }

    /// The name of a well-known community.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let found = Self::NAMES.iter().find(|(community, _)| *community == self);
        found.map(|(_, name)| *name)
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xFFFF)
    }
}

impl FromStr for Community {
    type Err = ParseCommunityError;

    /// Reads `ASN:VALUE` (both up to 65535) and the names of the well-known communities.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((community, _)) = Self::NAMES.iter().find(|(_, name)| *name == text) {
            return Ok(*community);
        }
        let parse = || {
            let (asn, value) = text.split_once(':')?;
            Some(Self::new(asn.parse().ok()?, value.parse().ok()?))
        };
        parse().ok_or_else(|| ParseCommunityError {
            text: text.to_owned(),
            form: "ASN:VALUE with both up to 65535, nor a well-known name such as no-export",
        })
    }
}

/// A large community: a four-octet AS number and two four-octet values (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LargeCommunity {
    /// The AS that gives the rest its meaning.
    pub global: u32,
    /// The first value.
    pub local1: u32,
    /// The second value.
    pub local2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseCommunityError;

    /// Reads `ASN:VALUE:VALUE`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (global, rest) = text.split_once(':')?;
            let (local1, local2) = rest.split_once(':')?;
            Some(Self {
                global: global.parse().ok()?,
                local1: local1.parse().ok()?,
                local2: local2.parse().ok()?,
            })
        };
        parse().ok_or_else(|| ParseCommunityError {
            text: text.to_owned(),
            form: "ASN:VALUE:VALUE with each up to 4294967295",
        })
    }
}

macro_rules! string_conversions {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = ParseCommunityError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(community: $type) -> Self {
                community.to_string()
            }
        }
    )*};
}

string_conversions!(Community, LargeCommunity, ExtendedCommunity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_read_what_they_write() {
        for community in [
            Community::new(64512, 100),
            Community::NO_EXPORT,
            Community(0),
        ] {
            assert_eq!(community.to_string().parse(), Ok(community));
        }
        for (community, name) in Community::NAMES {
            assert_eq!(name.parse(), Ok(community));
            assert_eq!(community.name(), Some(name));
        }
        let large = LargeCommunity {
            global: u32::MAX,
            local1: 0,
            local2: 7,
        };
        assert_eq!(large.to_string(), "4294967295:0:7");
        assert_eq!(large.to_string().parse(), Ok(large));
        assert_eq!(
            serde_json::to_string(&Community::new(1, 2)).unwrap(),
            "\"1:2\""
        );
    }

    #[test]
    fn refuses_what_is_no_community() {
        for text in [
            "",
            "1",
            "65536:1",
            "1:65536",
            "1:2:3",
            "a:b",
            "-1:2",
            "no_export",
        ] {
            assert!(text.parse::<Community>().is_err(), "{text:?}");
        }
        for text in ["1:2", "1:2:3:4", "4294967296:0:0"] {
            assert!(text.parse::<LargeCommunity>().is_err(), "{text:?}");
        }
    }
}
