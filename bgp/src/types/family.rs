//! Address families: which kind of route is meant, and small sets of them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address family the speaker carries (RFC 4760: AFI and SAFI together).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4 unicast, AFI 1 SAFI 1.
    #[serde(rename = "ipv4-unicast")]
    Ipv4Unicast,
    /// IPv6 unicast, AFI 2 SAFI 1.
    #[serde(rename = "ipv6-unicast")]
    Ipv6Unicast,
}

impl Family {
    /// Every family, in the order of their AFI.
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    /// The address family identifier.
    #[must_use]
    pub const fn afi(self) -> u16 {
        match self {
            Self::Ipv4Unicast => 1,
            Self::Ipv6Unicast => 2,
        }
    }

    /// The subsequent address family identifier.
    #[must_use]
    pub const fn safi(self) -> u8 {
        1
    }

    /// The family of a pair of codes, if the speaker carries it.
    #[must_use]
    pub const fn from_codes(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Self::Ipv4Unicast),
            (2, 1) => Some(Self::Ipv6Unicast),
            _ => None,
        }
    }

    /// The unicast family of an address.
    #[must_use]
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4Unicast,
            IpAddr::V6(_) => Self::Ipv6Unicast,
        }
    }

    /// The longest prefix of the family, in bits.
    #[must_use]
    pub const fn max_length(self) -> u8 {
        match self {
            Self::Ipv4Unicast => 32,
            Self::Ipv6Unicast => 128,
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Ipv4Unicast => 1,
            Self::Ipv6Unicast => 2,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
        })
    }
}

/// A text that names no family the speaker carries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address family {0:?} is unknown: use ipv4-unicast or ipv6-unicast")]
pub struct UnknownFamily(String);

impl FromStr for Family {
    type Err = UnknownFamily;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ipv4-unicast" => Ok(Self::Ipv4Unicast),
            "ipv6-unicast" => Ok(Self::Ipv6Unicast),
            _ => Err(UnknownFamily(text.to_owned())),
        }
    }
}

/// A set of families: one octet, `Copy`, iterated in the order of [`Family::ALL`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FamilySet(u8);

impl FamilySet {
    /// The set with nothing in it.
    pub const EMPTY: Self = Self(0);

    /// The set of every family the speaker carries.
    pub const ALL: Self = Self(3);

    /// The set of one family.
    #[must_use]
    pub const fn only(family: Family) -> Self {
        Self(family.bit())
    }

    /// Whether `family` is in the set.
    #[must_use]
    pub const fn contains(self, family: Family) -> bool {
        self.0 & family.bit() != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many families are in the set.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Adds a family.
    pub fn insert(&mut self, family: Family) {
        self.0 |= family.bit();
    }

    /// Takes a family out.
    pub fn remove(&mut self, family: Family) {
        self.0 &= !family.bit();
    }

    /// What both sets hold.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The families in the set.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL
            .into_iter()
            .filter(move |family| self.contains(*family))
    }
}

impl FromIterator<Family> for FamilySet {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Self::EMPTY;
        for family in families {
            set.insert(family);
        }
        set
    }
}

impl fmt::Debug for FamilySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_survives_text_codes_and_json() {
        for family in Family::ALL {
            assert_eq!(family.to_string().parse(), Ok(family));
            assert_eq!(
                Family::from_codes(family.afi(), family.safi()),
                Some(family)
            );
            let json = serde_json::to_string(&family).unwrap();
            assert_eq!(json, format!("\"{family}\""));
            assert_eq!(serde_json::from_str::<Family>(&json).unwrap(), family);
        }
        assert_eq!(Family::from_codes(1, 128), None);
        assert!("l2vpn-evpn".parse::<Family>().is_err());
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set = FamilySet::only(Family::Ipv6Unicast);
        assert!(set.contains(Family::Ipv6Unicast) && !set.contains(Family::Ipv4Unicast));
        set.insert(Family::Ipv4Unicast);
        assert_eq!(set, FamilySet::ALL);
        assert_eq!(set.iter().collect::<Vec<_>>(), Family::ALL);
        assert_eq!(Family::ALL.into_iter().collect::<FamilySet>(), set);
        set.remove(Family::Ipv6Unicast);
        assert_eq!(set.len(), 1);
        assert!(
            set.intersection(FamilySet::only(Family::Ipv6Unicast))
                .is_empty()
        );
    }
}
