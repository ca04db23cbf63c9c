//! Extended communities (RFC 4360) and the text of those that people write.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Asn, ParseCommunityError};

/// An extended community: eight octets whose first says what they mean (RFC 4360).
///
/// Written `rt:64512:100` (route target), `ro:64512:100` (route origin) and `lb:64512:125000000` (link bandwidth in octets
/// per second); the administrator may be an IPv4 address, and an AS number below 65536 that is encoded in four octets
/// (RFC 5668) has an `L` behind it. Every other kind is `0x` and 16 hexadecimal digits: most are other families' business and
/// are only carried through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ExtendedCommunity(pub u64);

/// The kinds of extended communities that have a text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtendedKind {
    /// Which VPNs or policies the route is for (RFC 4360 section 4).
    RouteTarget,
    /// Where the route came from (RFC 4360 section 5).
    RouteOrigin,
    /// Bandwidth of the link to the next hop (draft-ietf-idr-link-bandwidth). Not transitive.
    LinkBandwidth,
}

/// Who gives an extended community its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtendedAdministrator {
    /// An AS.
    As(Asn),
    /// A router.
    Address(Ipv4Addr),
}

/// The parts of an extended community of a kind known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExtendedParts {
    /// What it says.
    pub kind: ExtendedKind,
    /// Who says it.
    pub administrator: ExtendedAdministrator,
    /// The value; of a link bandwidth the bits of an IEEE 754 number.
    pub value: u32,
}

const TWO_OCTET_AS: u64 = 0x00;
const ADDRESS: u64 = 0x01;
const FOUR_OCTET_AS: u64 = 0x02;
const NOT_TRANSITIVE_TWO_OCTET_AS: u64 = 0x40;

impl ExtendedKind {
    const ALL: [(Self, &'static str, u64); 3] = [
        (Self::RouteTarget, "rt", 0x02),
        (Self::RouteOrigin, "ro", 0x03),
        (Self::LinkBandwidth, "lb", 0x04),
    ];
}

impl fmt::Display for ExtendedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::ALL.iter().find(|(kind, ..)| kind == self);
        f.pad(known.map_or("", |(_, name, _)| name))
    }
}

impl FromStr for ExtendedKind {
    type Err = ();

    /// Reads `rt`, `ro` (also `soo`, as some routers call it) and `lb`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = if text == "soo" { "ro" } else { text };
        let known = Self::ALL.iter().find(|(_, name, _)| *name == text);
        known.map(|(kind, ..)| *kind).ok_or(())
    }
}

impl ExtendedCommunity {
    /// Whether the community may cross an AS border (RFC 4360 section 2: the T bit is clear).
    #[must_use]
    pub const fn is_transitive(self) -> bool {
        self.0 >> 62 & 1 == 0
    }

    /// The bandwidth of a link of `asn`, in octets per second. An AS that does not fit two octets becomes AS_TRANS.
    #[must_use]
    pub fn link_bandwidth(asn: Asn, octets_per_second: f32) -> Self {
        let asn = u64::from(asn.to_two_octets());
        Self(0x4004 << 48 | asn << 32 | u64::from(octets_per_second.to_bits()))
    }

    /// The bandwidth, in octets per second, if that is what the community says: a number, finite and not negative.
    #[must_use]
    pub fn bandwidth(self) -> Option<f32> {
        // The transitive form (0x0004) is in use as well.
        if self.0 >> 48 & 0xBFFF != 0x0004 {
            return None;
        }
        // The low half.
        let value = f32::from_bits(self.0 as u32);
        (value.is_finite() && value >= 0.0).then_some(value)
    }

    /// The parts, for the kinds that have a text form.
    #[must_use]
    pub fn parts(self) -> Option<ExtendedParts> {
        let (encoding, subtype) = (self.0 >> 56, self.0 >> 48 & 0xFF);
        let (kind, ..) = *ExtendedKind::ALL.iter().find(|(.., s)| *s == subtype)?;
        let bandwidth = kind == ExtendedKind::LinkBandwidth;
        // The low 32 and 16 bits are what is wanted.
        let (long, short) = (self.0 as u32, u32::from(self.0 as u16));
        let (administrator, value) = match encoding {
            TWO_OCTET_AS if !bandwidth => {
                let asn = Asn((self.0 >> 32 & 0xFFFF) as u32);
                (ExtendedAdministrator::As(asn), long)
            }
            NOT_TRANSITIVE_TWO_OCTET_AS if bandwidth && self.bandwidth().is_some() => {
                let asn = Asn((self.0 >> 32 & 0xFFFF) as u32);
                (ExtendedAdministrator::As(asn), long)
            }
            FOUR_OCTET_AS if !bandwidth => {
                let asn = Asn((self.0 >> 16) as u32);
                (ExtendedAdministrator::As(asn), short)
            }
            ADDRESS if !bandwidth => {
                let address = Ipv4Addr::from((self.0 >> 16) as u32);
                (ExtendedAdministrator::Address(address), short)
            }
            _ => return None,
        };
        Some(ExtendedParts {
            kind,
            administrator,
            value,
        })
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(digits) = text.strip_prefix("0x") {
            let plain = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            return u64::from_str_radix(digits, 16)
                .ok()
                .filter(|_| plain)
                .map(Self);
        }
        let (kind, rest) = text.split_once(':')?;
        let kind: ExtendedKind = kind.parse().ok()?;
        let (.., subtype) = *ExtendedKind::ALL.iter().find(|(k, ..)| *k == kind)?;
        let (administrator, value) = rest.rsplit_once(':')?;
        if kind == ExtendedKind::LinkBandwidth {
            let asn: u16 = administrator.parse().ok()?;
            let value: f32 = value.parse().ok()?;
            let plain = value.is_finite() && value >= 0.0;
            return plain.then(|| Self::link_bandwidth(Asn(asn.into()), value));
        }
        let make = |encoding: u64, rest: u64| Self(encoding << 56 | subtype << 48 | rest);
        if let Ok(address) = administrator.parse::<Ipv4Addr>() {
            let value: u16 = value.parse().ok()?;
            let address = u64::from(u32::from(address));
            return Some(make(ADDRESS, address << 16 | u64::from(value)));
        }
        let (asn, wide) = match administrator.strip_suffix('L') {
            Some(asn) => (asn, true),
            None => (administrator, false),
        };
        let asn: u32 = asn.parse().ok()?;
        if wide || asn > u32::from(u16::MAX) {
            let value: u16 = value.parse().ok()?;
            return Some(make(FOUR_OCTET_AS, u64::from(asn) << 16 | u64::from(value)));
        }
        let value: u32 = value.parse().ok()?;
        Some(make(TWO_OCTET_AS, u64::from(asn) << 32 | u64::from(value)))
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ExtendedParts {
            kind,
            administrator,
            value,
        }) = self.parts()
        else {
            return write!(f, "{:#018x}", self.0);
        };
        write!(f, "{kind}:")?;
        match administrator {
            ExtendedAdministrator::Address(address) => write!(f, "{address}:{value}"),
            ExtendedAdministrator::As(asn) if kind == ExtendedKind::LinkBandwidth => {
                write!(f, "{asn}:{}", f32::from_bits(value))
            }
            ExtendedAdministrator::As(asn) => {
                let wide = self.0 >> 56 == FOUR_OCTET_AS && asn.fits_two_octets();
                write!(f, "{asn}{}:{value}", if wide { "L" } else { "" })
            }
        }
    }
}

impl FromStr for ExtendedCommunity {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| {
            ParseCommunityError::new(
                text,
                "rt:ASN:VALUE, ro:ASN:VALUE (ASN may be an IPv4 address; above 65535 the value is up to 65535), \
                 lb:ASN:OCTETS-PER-SECOND, or 0x and 16 hexadecimal digits",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_octets() {
        for (octets, text) in [
            (0x0002_fc00_0000_0064, "rt:64512:100"),
            (0x0003_0001_ffff_ffff, "ro:1:4294967295"),
            (0x0202_0001_0000_0064, "rt:65536:100"),
            (0x0202_0000_fc00_0064, "rt:64512L:100"),
            (0x0102_0a00_0001_0005, "rt:10.0.0.1:5"),
            (0x0103_0a00_0001_0005, "ro:10.0.0.1:5"),
            (0x4004_fc00_4cee_6b28, "lb:64512:125000000"),
            (0x4004_fc00_0000_0000, "lb:64512:0"),
            // Not a number that says anything, transitive link bandwidth, other kinds: digits.
            (0x4004_fc00_7fc0_0000, "0x4004fc007fc00000"),
            (0x4004_fc00_ff80_0000, "0x4004fc00ff800000"),
            (0x0004_fc00_4cee_6b28, "0x0004fc004cee6b28"),
            (0x0600_0000_0000_0001, "0x0600000000000001"),
            (0x4002_fc00_0000_0064, "0x4002fc0000000064"),
        ] {
            let community = ExtendedCommunity(octets);
            assert_eq!(community.to_string(), text);
            assert_eq!(text.parse(), Ok(community), "{text}");
        }
        assert_eq!(
            "soo:1:2"
                .parse::<ExtendedCommunity>()
                .map(|c| c.to_string()),
            Ok("ro:1:2".to_owned())
        );
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "rt",
            "rt:1",
            "rt:65536:65536",
            "rt:10.0.0.1:65536",
            "rt:1L:65536",
            "rt:4294967296:1",
            "lb:65536:1",
            "lb:1:-1",
            "lb:1:inf",
            "xx:1:1",
            "0x12",
            "0x+002fc0000000064",
            "0002fc0000000064",
        ] {
            assert!(text.parse::<ExtendedCommunity>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_value_comes_back_from_its_text() {
        let mut value = 1_u64;
        for _ in 0..20_000 {
            // A walk over values of all kinds: xorshift, with the first two octets among those that matter.
            value ^= value << 13;
            value ^= value >> 7;
            value ^= value << 17;
            let kind = [0x0002, 0x0202, 0x0102, 0x4004, 0x0003, value >> 48][(value % 6) as usize];
            let community = ExtendedCommunity(kind << 48 | value >> 16);
            assert_eq!(community.to_string().parse(), Ok(community), "{community}");
        }
    }

    #[test]
    fn bandwidth_is_a_plain_number() {
        let community = ExtendedCommunity::link_bandwidth(Asn(64512), 1.25e9);
        assert_eq!(community.bandwidth(), Some(1.25e9));
        assert!(!community.is_transitive());
        assert_eq!(
            ExtendedCommunity(0x0004_fc00_4cee_6b28).bandwidth(),
            Some(125_000_000.0)
        );
        for bits in [f32::NAN, f32::INFINITY, -1.0].map(f32::to_bits) {
            let community = ExtendedCommunity(0x4004_fc00 << 32 | u64::from(bits));
            assert_eq!(community.bandwidth(), None, "{community}");
        }
    }

    #[test]
    fn transitivity_is_the_second_bit() {
        assert!(ExtendedCommunity(0x0002_0000_0000_0000).is_transitive());
        assert!(!ExtendedCommunity(0x4004_0000_0000_0000).is_transitive());
    }
}
