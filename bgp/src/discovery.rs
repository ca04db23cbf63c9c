//! Router discovery (RFC 4861), as far as peering without configured addresses needs it: two routers on a link learn each
//! other's link-local address from their router advertisements.
//!
//! This is the codec and its checks, and no more: sending, receiving and remembering is `speaker::unnumbered`. The ICMPv6
//! checksum is the kernel's work. Nothing here makes this host a router for others: advertisements carry no prefixes, and ask
//! to be preferred to no other router (RFC 4191).

use std::net::Ipv6Addr;
use std::time::Duration;

/// ICMPv6 type of a router solicitation.
pub const SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement.
pub const ADVERTISEMENT: u8 = 134;
/// Hop limit of every message: others have been forwarded, and are not from the link (RFC 4861 section 6.1).
pub const HOP_LIMIT: u8 = 255;
/// Time between two advertisements. FRR and others that peer in this way use the same.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// How long an advertisement is good for: three intervals.
pub const LIFETIME: Duration = Duration::from_secs(30);

/// Octets of a solicitation without options.
const SOLICITATION_LENGTH: usize = 8;
/// Octets of an advertisement without options.
const ADVERTISEMENT_LENGTH: usize = 16;
/// Router preference "low" (RFC 4191 section 2.2): hosts on the link that have a router keep it.
const LOW_PREFERENCE: u8 = 0b0001_1000;

/// A message of router discovery that passed all checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks who the routers are.
    Solicitation,
    /// A router is there.
    Advertisement {
        /// For how long; zero: no longer.
        lifetime: Duration,
    },
}

/// Why a message is discarded (RFC 4861 sections 6.1.1 and 6.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// Not a message of router discovery.
    #[error("ICMPv6 type {0} is not of router discovery")]
    Type(u8),
    /// A code that is not 0.
    #[error("code {0} is not 0")]
    Code(u8),
    /// It has been forwarded.
    #[error("hop limit {0} is not 255")]
    HopLimit(u8),
    /// An advertisement from an address that is not a link's.
    #[error("the source address is not link-local")]
    Source,
    /// Shorter than the message has to be.
    #[error("message too short")]
    Short,
    /// An option of length 0, or one that is longer than what is left.
    #[error("an option's length does not fit")]
    Option,
}

/// Reads an ICMPv6 message.
///
/// # Errors
/// A [`DiscoveryError`] for everything RFC 4861 has discarded silently.
pub fn decode(source: Ipv6Addr, hop_limit: u8, octets: &[u8]) -> Result<Message, DiscoveryError> {
    let [kind, code, ..] = *octets else {
        return Err(DiscoveryError::Short);
    };
    if hop_limit != HOP_LIMIT {
        return Err(DiscoveryError::HopLimit(hop_limit));
    }
    let length = match kind {
        SOLICITATION => SOLICITATION_LENGTH,
        ADVERTISEMENT => ADVERTISEMENT_LENGTH,
        other => return Err(DiscoveryError::Type(other)),
    };
    if code != 0 {
        return Err(DiscoveryError::Code(code));
    }
    let Some((fixed, options)) = octets.split_at_checked(length) else {
        return Err(DiscoveryError::Short);
    };
    check_options(options)?;
    if kind == SOLICITATION {
        return Ok(Message::Solicitation);
    }
    if !source.is_unicast_link_local() {
        return Err(DiscoveryError::Source);
    }
    let lifetime = match fixed {
        [_, _, _, _, _, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => return Err(DiscoveryError::Short),
    };
    Ok(Message::Advertisement {
        lifetime: Duration::from_secs(lifetime.into()),
    })
}

/// Options have a type, and a length in units of eight octets that includes both.
fn check_options(mut options: &[u8]) -> Result<(), DiscoveryError> {
    while !options.is_empty() {
        let units = options.get(1).copied().unwrap_or(0);
        let length = usize::from(units) * 8;
        match options.get(length..) {
            Some(rest) if length != 0 => options = rest,
            _ => return Err(DiscoveryError::Option),
        }
    }
    Ok(())
}

/// An advertisement, good for `lifetime` in whole seconds; zero takes earlier ones back.
#[must_use]
pub fn advertisement(lifetime: Duration) -> [u8; ADVERTISEMENT_LENGTH] {
    let seconds = u16::try_from(lifetime.as_secs()).unwrap_or(u16::MAX);
    let [high, low] = seconds.to_be_bytes();
    let mut octets = [0; ADVERTISEMENT_LENGTH];
    octets[0] = ADVERTISEMENT;
    // The usual hop limit of hosts, which this says nothing about otherwise.
    octets[4] = 64;
    octets[5] = LOW_PREFERENCE;
    octets[6] = high;
    octets[7] = low;
    octets
}

/// A question for advertisements.
#[must_use]
pub fn solicitation() -> [u8; SOLICITATION_LENGTH] {
    [SOLICITATION, 0, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    #[test]
    fn what_is_written_is_read() {
        for seconds in [0, 30, 65_535] {
            let lifetime = Duration::from_secs(seconds);
            let expected = Message::Advertisement { lifetime };
            let read = decode(ROUTER, 255, &advertisement(lifetime));
            assert_eq!(read, Ok(expected));
        }
        let read = decode(ROUTER, 255, &solicitation());
        assert_eq!(read, Ok(Message::Solicitation));
    }

    /// As FRR 8.4 sends it: lifetime 30 s, an interval option and its link-layer address.
    #[test]
    fn an_advertisement_with_options() {
        let octets = [
            134, 0, 0x12, 0x34, 64, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0, 0x27, 0x10,
            1, 1, 2, 0, 0, 0, 0, 1,
        ];
        let lifetime = Duration::from_secs(30);
        let read = decode(ROUTER, 255, &octets);
        assert_eq!(read, Ok(Message::Advertisement { lifetime }));
    }

    #[test]
    fn every_check_of_sections_6_1_1_and_6_1_2() {
        let good = advertisement(LIFETIME);
        let global: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let with = |tail: &[u8]| [&good[..], tail].concat();
        let code = |code| {
            let mut octets = good.to_vec();
            octets[1] = code;
            octets
        };
        let cases = [
            (ROUTER, 255, Vec::new(), DiscoveryError::Short),
            (ROUTER, 255, good[..15].to_vec(), DiscoveryError::Short),
            (
                ROUTER,
                255,
                solicitation()[..7].to_vec(),
                DiscoveryError::Short,
            ),
            (ROUTER, 254, good.to_vec(), DiscoveryError::HopLimit(254)),
            (ROUTER, 255, code(1), DiscoveryError::Code(1)),
            (global, 255, good.to_vec(), DiscoveryError::Source),
            (
                ROUTER,
                255,
                with(&[1, 0, 0, 0, 0, 0, 0, 0]),
                DiscoveryError::Option,
            ),
            (
                ROUTER,
                255,
                with(&[1, 2, 0, 0, 0, 0, 0, 0]),
                DiscoveryError::Option,
            ),
            (ROUTER, 255, with(&[1]), DiscoveryError::Option),
            (ROUTER, 255, vec![135; 24], DiscoveryError::Type(135)),
        ];
        for (source, hop_limit, octets, error) in cases {
            assert_eq!(decode(source, hop_limit, &octets), Err(error), "{octets:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_a_panic(
            octets in proptest::collection::vec(any::<u8>(), 0..64),
            kind in 132_u8..136,
        ) {
            let mut octets = octets;
            let _ = decode(ROUTER, 255, &octets);
            if let [first, code, ..] = &mut octets[..] {
                (*first, *code) = (kind, 0);
                let _ = decode(ROUTER, 255, &octets);
            }
        }
    }
}
