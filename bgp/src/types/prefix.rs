//! An IP prefix, small and cheap to compare: the key of every routing table here.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::Family;

/// An IPv4 or IPv6 prefix whose host bits are zero, always: every constructor masks them.
///
/// 18 octets of content in 20 octets of memory. Ordered by family, then address, then length, so
/// that a covering prefix sorts before what it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Prefix(Repr);

// The fields are ordered for the derived `Ord`; the variants are private so that nobody can build
// one with host bits set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Repr {
    V4 { address: u32, length: u8 },
    // Octets rather than a `u128`, whose alignment would cost 12 octets a prefix.
    V6 { address: [u8; 16], length: u8 },
}

/// A prefix length that is longer than the family's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("prefix length {length} is above {max}, the most {family} has")]
pub struct PrefixLengthError {
    /// The family of the address.
    pub family: Family,
    /// The length asked for, in bits.
    pub length: u8,
    /// The longest length of the family, in bits.
    pub max: u8,
}

impl Prefix {
    /// `0.0.0.0/0`.
    pub const DEFAULT_V4: Self = Self(Repr::V4 {
        address: 0,
        length: 0,
    });

    /// `::/0`.
    pub const DEFAULT_V6: Self = Self(Repr::V6 {
        address: [0; 16],
        length: 0,
    });

    /// The prefix of `length` bits that holds `address`.
    ///
    /// # Errors
    /// When `length` is above 32 for IPv4 or 128 for IPv6.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixLengthError> {
        match address {
            IpAddr::V4(address) => Self::v4(address, length),
            IpAddr::V6(address) => Self::v6(address, length),
        }
    }

    /// The IPv4 prefix of `length` bits that holds `address`.
    ///
    /// # Errors
    /// When `length` is above 32.
    pub fn v4(address: Ipv4Addr, length: u8) -> Result<Self, PrefixLengthError> {
        check_length(Family::Ipv4Unicast, length)?;
        Ok(Self(Repr::V4 {
            address: u32::from(address) & mask_v4(length),
            length,
        }))
    }

    /// The IPv6 prefix of `length` bits that holds `address`.
    ///
    /// # Errors
    /// When `length` is above 128.
    pub fn v6(address: Ipv6Addr, length: u8) -> Result<Self, PrefixLengthError> {
        check_length(Family::Ipv6Unicast, length)?;
        Ok(Self(Repr::V6 {
            address: (u128::from(address) & mask_v6(length)).to_be_bytes(),
            length,
        }))
    }

    /// The prefix that holds this one address (/32 or /128).
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self(Repr::V4 {
                address: address.into(),
                length: 32,
            }),
            IpAddr::V6(address) => Self(Repr::V6 {
                address: address.octets(),
                length: 128,
            }),
        }
    }

    /// The unicast family of the prefix.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self.0 {
            Repr::V4 { .. } => Family::Ipv4Unicast,
            Repr::V6 { .. } => Family::Ipv6Unicast,
        }
    }

    /// The network address: the first of the prefix.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self.0 {
            Repr::V4 { address, .. } => Ipv4Addr::from(address).into(),
            Repr::V6 { address, .. } => Ipv6Addr::from(address).into(),
        }
    }

    /// The length in bits.
    #[must_use]
    pub const fn length(&self) -> u8 {
        match self.0 {
            Repr::V4 { length, .. } | Repr::V6 { length, .. } => length,
        }
    }

    /// Whether this is the default route's prefix (length 0).
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.length() == 0
    }

    /// Whether this prefix holds exactly one address.
    #[must_use]
    pub const fn is_host(&self) -> bool {
        self.length() == self.family().max_length()
    }

    /// Whether `other` lies inside this prefix (a prefix contains itself). Never true across
    /// families.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.length() <= other.length() && self.holds_bits(other)
    }

    /// Whether `address` lies inside this prefix.
    #[must_use]
    pub fn contains_address(&self, address: &IpAddr) -> bool {
        self.holds_bits(&Self::host(*address))
    }

    /// Whether the two prefixes share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// Whether unicast routes to this prefix make sense: false for what lies inside loopback,
    /// multicast, link-local IPv6 and the reserved class E, which RFC 4271 §6.3 asks to ignore.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        match self.0 {
            // Only a prefix as long as the special range can lie inside it.
            Repr::V4 { address, length } => {
                !(length >= 8 && address >> 24 == 127 || length >= 3 && address >> 29 == 0b111)
            }
            Repr::V6 { address, length } => {
                let [first, second, ..] = address;
                !(length >= 8 && first == 0xff
                    || length >= 10 && first == 0xfe && second & 0xc0 == 0x80
                    || length == 128 && u128::from_be_bytes(address) <= 1)
            }
        }
    }

    /// The address, filled up with zeros when it is IPv4: what BGP sends is the front of it.
    pub(crate) const fn octets(&self) -> [u8; 16] {
        match self.0 {
            Repr::V4 { address, .. } => {
                let [a, b, c, d] = address.to_be_bytes();
                [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            }
            Repr::V6 { address, .. } => address,
        }
    }

    fn holds_bits(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Repr::V4 { address, length }, Repr::V4 { address: o, .. }) => {
                (address ^ o) & mask_v4(length) == 0
            }
            (Repr::V6 { address, length }, Repr::V6 { address: o, .. }) => {
                let differ = u128::from_be_bytes(address) ^ u128::from_be_bytes(o);
                differ & mask_v6(length) == 0
            }
            _ => false,
        }
    }
}

fn check_length(family: Family, length: u8) -> Result<(), PrefixLengthError> {
    let max = family.max_length();
    if length > max {
        return Err(PrefixLengthError {
            family,
            length,
            max,
        });
    }
    Ok(())
}

// `checked_shl` because shifting by the full width, which a length of 0 asks for, is an overflow.
fn mask_v4(length: u8) -> u32 {
    u32::MAX
        .checked_shl(32_u32.saturating_sub(u32::from(length)))
        .unwrap_or(0)
}

fn mask_v6(length: u8) -> u128 {
    u128::MAX
        .checked_shl(128_u32.saturating_sub(u32::from(length)))
        .unwrap_or(0)
}

// One or two words for the hasher instead of the derived six calls: tables of a million prefixes
// spend most of their time here.
impl Hash for Prefix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            Repr::V4 { address, length } => {
                state.write_u64((u64::from(address) << 8) | u64::from(length));
            }
            Repr::V6 { address, length } => {
                state.write_u128(u128::from_be_bytes(address));
                state.write_u8(length);
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("prefix {0:?} is not of the form ADDRESS/LENGTH")]
pub struct ParsePrefixError(String);

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    /// Reads `ADDRESS/LENGTH`, masking host bits. A bare address is refused: that a length was
    /// forgotten is likelier than that a host was meant.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, length) = text.split_once('/')?;
            Self::new(address.parse().ok()?, length.parse().ok()?).ok()
        };
        parse().ok_or_else(|| ParsePrefixError(text.to_owned()))
    }
}

impl TryFrom<String> for Prefix {
    type Error = ParsePrefixError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl From<IpNetwork> for Prefix {
    fn from(network: IpNetwork) -> Self {
        // An `IpNetwork` cannot hold a length out of range, so the fallback is never taken.
        Self::new(network.ip(), network.prefix()).unwrap_or_else(|_| Self::host(network.ip()))
    }
}

impl From<Prefix> for IpNetwork {
    fn from(prefix: Prefix) -> Self {
        // A `Prefix` cannot hold a length out of range, so the fallback is never taken.
        Self::new(prefix.address(), prefix.length())
            .unwrap_or_else(|_| Self::from(prefix.address()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn stays_small() {
        assert_eq!(size_of::<Prefix>(), 20);
    }

    #[test]
    fn host_bits_are_masked() {
        for (given, kept) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("fd00::1/64", "fd00::/64"),
            ("fd00::1/128", "fd00::1/128"),
            ("ffff::1/0", "::/0"),
        ] {
            assert_eq!(prefix(given).to_string(), kept);
        }
    }

    #[test]
    fn refuses_what_is_no_prefix() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "/8",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn contains_by_bits_and_never_across_families() {
        for (outer, inner, expected) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/8", "11.0.0.0/16", false),
            ("0.0.0.0/0", "11.0.0.0/16", true),
            ("::/0", "11.0.0.0/16", false),
            ("fd00::/8", "fd12::/64", true),
            ("fd00::/64", "fd00:0:0:1::/64", false),
        ] {
            let (outer, inner) = (prefix(outer), prefix(inner));
            assert_eq!(outer.contains(&inner), expected, "{outer} {inner}");
        }
        assert!(prefix("10.0.0.0/26").contains_address(&"10.0.0.63".parse().unwrap()));
        assert!(!prefix("10.0.0.0/26").contains_address(&"10.0.0.64".parse().unwrap()));
        assert!(prefix("10.0.0.0/26").overlaps(&prefix("10.0.0.0/8")));
    }

    #[test]
    fn sorts_covering_prefix_first_and_v4_before_v6() {
        let mut all = [
            "::/0",
            "10.0.0.0/16",
            "10.0.0.0/8",
            "9.0.0.0/8",
            "0.0.0.0/0",
        ]
        .map(prefix);
        all.sort();
        let text = all.map(|p| p.to_string());
        assert_eq!(
            text,
            [
                "0.0.0.0/0",
                "9.0.0.0/8",
                "10.0.0.0/8",
                "10.0.0.0/16",
                "::/0"
            ]
        );
    }

    #[test]
    fn tells_unicast_from_the_rest() {
        for (text, expected) in [
            ("0.0.0.0/0", true),
            ("10.0.0.0/8", true),
            ("127.0.0.0/8", false),
            ("127.0.0.1/32", false),
            ("224.0.0.0/4", false),
            ("240.0.0.0/4", false),
            ("192.0.0.0/2", true),
            ("::/0", true),
            ("::1/128", false),
            ("fe80::/64", false),
            ("ff02::/16", false),
            ("fd00::/8", true),
        ] {
            assert_eq!(prefix(text).is_unicast(), expected, "{text}");
        }
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        prop_oneof![
            (any::<u32>(), 0..=32_u8).prop_map(|(a, l)| Prefix::v4(a.into(), l).unwrap()),
            (any::<u128>(), 0..=128_u8).prop_map(|(a, l)| Prefix::v6(a.into(), l).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn text_json_and_ipnetwork_give_the_same_prefix(prefix in any_prefix()) {
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
            let json = serde_json::to_string(&prefix).unwrap();
            prop_assert_eq!(serde_json::from_str::<Prefix>(&json).unwrap(), prefix);
            prop_assert_eq!(Prefix::from(IpNetwork::from(prefix)), prefix);
        }
    }
}
