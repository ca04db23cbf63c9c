//! Octets that senders send: UPDATEs made before the clock starts, by hand, so that what is
//! measured does not measure itself.

use std::net::Ipv4Addr;

/// How prefixes share attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// One attribute set, 256 prefixes a message.
    Packed,
    /// An attribute set for every 8 prefixes, 8 prefixes a message.
    Diverse8,
    /// As many attribute sets, but one prefix a message, the sets mixed.
    Scattered,
}

/// Attributes as octets, each with its header.
pub(crate) fn attributes(
    path: &[u32],
    next_hop: Ipv4Addr,
    communities: &[u32],
    ibgp: bool,
) -> Vec<u8> {
    let mut octets = vec![0x40, 1, 1, 0];
    let length = if path.is_empty() {
        0
    } else {
        2 + 4 * path.len()
    };
    octets.extend([0x40, 2, length as u8]);
    if !path.is_empty() {
        octets.extend([2, path.len() as u8]);
        octets.extend(path.iter().flat_map(|asn| asn.to_be_bytes()));
    }
    octets.extend([0x40, 3, 4]);
    octets.extend(next_hop.octets());
    if ibgp {
        octets.extend([0x40, 5, 4]);
        octets.extend(100_u32.to_be_bytes());
    }
    if !communities.is_empty() {
        octets.extend([0xc0, 8, (4 * communities.len()) as u8]);
        octets.extend(communities.iter().flat_map(|value| value.to_be_bytes()));
    }
    octets
}

/// One UPDATE.
pub(crate) fn update(octets: &mut Vec<u8>, attributes: &[u8], prefixes: impl Iterator<Item = u32>) {
    let start = octets.len();
    octets.extend([0xff; 16]);
    octets.extend([0, 0, 2, 0, 0]);
    octets.extend((attributes.len() as u16).to_be_bytes());
    octets.extend(attributes);
    for prefix in prefixes {
        let [a, b, c, _] = prefix.to_be_bytes();
        octets.extend([24, a, b, c]);
    }
    let length = (octets.len() - start) as u16;
    octets[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

/// The n-th /24, from 20.0.0.0/24 on.
pub(crate) fn prefix(number: usize) -> u32 {
    (20 << 24) + ((number as u32) << 8)
}

/// A whole table from one peer.
pub(crate) fn table(profile: Profile, count: usize, asn: u32, next_hop: Ipv4Addr) -> Vec<u8> {
    let mut octets = Vec::new();
    match profile {
        Profile::Packed => {
            let same = attributes(&[asn, 64900, 64901], next_hop, &[], false);
            for first in (0..count).step_by(256) {
                let end = (first + 256).min(count);
                update(&mut octets, &same, (first..end).map(prefix));
            }
        }
        Profile::Diverse8 => {
            for first in (0..count).step_by(8) {
                let set = set(first / 8, asn, next_hop);
                let end = (first + 8).min(count);
                update(&mut octets, &set, (first..end).map(prefix));
            }
        }
        Profile::Scattered => {
            let sets = (count / 8).max(1);
            for place in 0..count {
                // A walk through all places in an order without pattern: the step is prime and
                // larger than any count measured.
                let number = (place * 15_485_863) % count;
                let set = set(number % sets, asn, next_hop);
                update(&mut octets, &set, std::iter::once(prefix(number)));
            }
        }
    }
    octets
}

/// The n-th attribute set: 3 to 6 ASes, two communities.
fn set(number: usize, asn: u32, next_hop: Ipv4Addr) -> Vec<u8> {
    let number = number as u32;
    let hash = number.wrapping_mul(2_654_435_761);
    let mut path = vec![asn];
    for hop in 0..2 + number % 4 {
        path.push(4_200_000_000 + (hash.rotate_left(hop * 7) & 0xff_ffff));
    }
    let communities = [
        (65_000 << 16) + (number & 0xffff),
        (64_999 << 16) + (number >> 16),
    ];
    attributes(&path, next_hop, &communities, false)
}
