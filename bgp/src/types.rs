//! The small values every part of the speaker shares: AS numbers, router identifiers, address
//! families, prefixes and communities.
//!
//! Newtypes because mixing two of them up is an outage. They know how to print and parse
//! themselves (which is also how they appear in JSON and YAML); how they look on the wire is
//! `wire`'s business.

mod asn_range;
mod community;
mod extended_community;
mod family;
mod link_local;
mod prefix;

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use asn_range::{AsnRange, ParseAsnRangeError};
pub use community::{Community, LargeCommunity, ParseCommunityError};
pub use extended_community::{
    ExtendedAdministrator, ExtendedCommunity, ExtendedKind, ExtendedParts,
};
pub use family::{Family, FamilySet, UnknownFamily};
pub use link_local::{peer_address, peer_key};
pub use prefix::{ParsePrefixError, Prefix, PrefixLengthError};

/// An autonomous system number, always four octets wide (RFC 6793).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// The number that stands in for a four-octet one towards a peer that knows only two octets
    /// (RFC 6793 §9).
    pub const TRANS: Self = Self(23456);

    /// The number no speaker may use (RFC 7607).
    pub const ZERO: Self = Self(0);

    /// The two-octet form: the number itself, or [`Asn::TRANS`] when it does not fit.
    #[must_use]
    pub fn to_two_octets(self) -> u16 {
        // AS_TRANS itself is below 65536.
        u16::try_from(self.0).unwrap_or(23456)
    }

    /// Whether the number fits two octets.
    #[must_use]
    pub fn fits_two_octets(self) -> bool {
        self.0 <= u32::from(u16::MAX)
    }

    /// Whether the number is reserved for private use (RFC 6996).
    #[must_use]
    pub fn is_private(self) -> bool {
        matches!(self.0, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u32> for Asn {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

/// A text that is not an AS number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("AS number {0:?} is neither a number up to 4294967295 nor of the form HIGH.LOW")]
pub struct ParseAsnError(String);

impl FromStr for Asn {
    type Err = ParseAsnError;

    /// Reads `64512` and the dotted form `1.10` (RFC 5396).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = match text.split_once('.') {
            None => text.parse().ok(),
            Some((high, low)) => match (high.parse::<u16>(), low.parse::<u16>()) {
                (Ok(high), Ok(low)) => Some((u32::from(high) << 16) | u32::from(low)),
                _ => None,
            },
        };
        number
            .map(Self)
            .ok_or_else(|| ParseAsnError(text.to_owned()))
    }
}

/// A BGP identifier: four octets, unique within the AS (RFC 6286). Written like an IPv4 address,
/// which it need not be.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(into = "Ipv4Addr", from = "Ipv4Addr")]
pub struct RouterId(pub u32);

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from(self.0).fmt(f)
    }
}

impl From<Ipv4Addr> for RouterId {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.into())
    }
}

impl From<RouterId> for Ipv4Addr {
    fn from(id: RouterId) -> Self {
        id.0.into()
    }
}

impl FromStr for RouterId {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Ipv4Addr>().map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asn_reads_plain_and_dotted() {
        for (text, number) in [
            ("0", Some(0)),
            ("64512", Some(64512)),
            ("4294967295", Some(u32::MAX)),
            ("1.10", Some(65546)),
            ("4294967296", None),
            ("1.65536", None),
            ("-1", None),
            ("", None),
            ("1.2.3", None),
        ] {
            assert_eq!(text.parse::<Asn>().ok(), number.map(Asn), "{text:?}");
        }
    }

    #[test]
    fn asn_that_does_not_fit_becomes_as_trans() {
        assert_eq!(Asn(65535).to_two_octets(), 65535);
        assert_eq!(Asn(65536).to_two_octets(), 23456);
        assert_eq!(Asn::TRANS.to_two_octets(), 23456);
    }

    #[test]
    fn router_id_is_written_dotted_in_json() {
        let id: RouterId = "10.0.0.1".parse().unwrap();
        assert_eq!(id, RouterId(0x0a00_0001));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"10.0.0.1\"");
        assert_eq!(
            serde_json::from_str::<RouterId>("\"10.0.0.1\"").unwrap(),
            id
        );
        assert!(serde_json::from_str::<RouterId>("\"10.0.0\"").is_err());
    }
}
