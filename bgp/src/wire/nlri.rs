//! Network layer reachability information: prefixes as an UPDATE lists them.
//!
//! Read by hand rather than with parser combinators: this loop runs once for each route of a full
//! table, and is what a feed's decoding time consists of.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use crate::types::{Family, Prefix};

/// One route as announced or withdrawn: the prefix, and which of the peer's paths to it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// The prefix.
    pub prefix: Prefix,
    /// The path identifier, only where ADD-PATH is negotiated (RFC 7911). When written on a session
    /// without ADD-PATH it is left out; where one is needed and missing, it is written as 0.
    pub path_id: Option<u32>,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Self {
        Self {
            prefix,
            path_id: None,
        }
    }
}

impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path_id {
            None => self.prefix.fmt(f),
            Some(id) => write!(f, "{} path {id}", self.prefix),
        }
    }
}

/// Prefixes that cannot be read: one is longer than its family's addresses, or the octets end
/// inside one (RFC 7606 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedNlri;

/// Reads prefixes until `octets` is used up and appends them to `routes`.
pub(super) fn decode_nlri(
    family: Family,
    add_path: bool,
    mut octets: &[u8],
    routes: &mut Vec<Nlri>,
) -> Result<(), MalformedNlri> {
    // Most prefixes take at least this much, so that the vector seldom grows; never more than the
    // message is long, so that a peer cannot make it large.
    let typical = match family {
        Family::Ipv4Unicast => 4,
        Family::Ipv6Unicast => 6,
    };
    routes.reserve(octets.len().div_ceil(typical));
    while !octets.is_empty() {
        routes.push(next_nlri(family, add_path, &mut octets)?);
    }
    Ok(())
}

/// Takes one route off the front of `octets`.
#[inline]
fn next_nlri(family: Family, add_path: bool, octets: &mut &[u8]) -> Result<Nlri, MalformedNlri> {
    let mut path_id = None;
    if add_path {
        let (id, rest) = octets.split_first_chunk().ok_or(MalformedNlri)?;
        path_id = Some(u32::from_be_bytes(*id));
        *octets = rest;
    }
    let (length, rest) = octets.split_first().ok_or(MalformedNlri)?;
    let (address, after) = rest
        .split_at_checked(octets_of(*length))
        .ok_or(MalformedNlri)?;
    let prefix = match family {
        Family::Ipv4Unicast => Prefix::v4(Ipv4Addr::from(padded(address, rest)), *length),
        Family::Ipv6Unicast => Prefix::v6(Ipv6Addr::from(padded(address, rest)), *length),
    };
    *octets = after;
    Ok(Nlri {
        prefix: prefix.map_err(|_| MalformedNlri)?,
        path_id,
    })
}

/// Routes that are read one by one, after all of them have been looked at and found well-formed.
#[derive(Clone, Debug)]
pub struct NlriReader<'a> {
    family: Family,
    add_path: bool,
    octets: &'a [u8],
}

impl<'a> NlriReader<'a> {
    /// Looks through all of `octets`; `None` if they are malformed.
    pub(super) fn new(family: Family, add_path: bool, octets: &'a [u8]) -> Option<Self> {
        let mut rest = octets;
        while !rest.is_empty() {
            let identifier = if add_path { 4 } else { 0 };
            let length = *rest.get(identifier)?;
            if length > family.max_length() {
                return None;
            }
            rest = rest.get(identifier + 1 + octets_of(length)..)?;
        }
        Some(Self {
            family,
            add_path,
            octets,
        })
    }
}

impl Iterator for NlriReader<'_> {
    type Item = Nlri;

    #[inline]
    fn next(&mut self) -> Option<Nlri> {
        if self.octets.is_empty() {
            return None;
        }
        next_nlri(self.family, self.add_path, &mut self.octets).ok()
    }
}

/// The address octets, filled up to a full address. What fills them is masked away by [`Prefix`],
/// so when enough octets follow they serve as filling: one load instead of a copy of variable
/// length.
fn padded<const N: usize>(address: &[u8], rest: &[u8]) -> [u8; N] {
    if let Some(full) = rest.first_chunk() {
        return *full;
    }
    let mut full = [0; N];
    for (place, octet) in full.iter_mut().zip(address) {
        *place = *octet;
    }
    full
}

/// How many octets a prefix of `length` bits takes.
const fn octets_of(length: u8) -> usize {
    (length as usize).div_ceil(8)
}

/// How many octets `route` takes on the wire.
pub(super) const fn nlri_length(route: &Nlri, add_path: bool) -> usize {
    1 + octets_of(route.prefix.length()) + if add_path { 4 } else { 0 }
}

/// Appends one prefix.
pub(super) fn write_nlri(out: &mut BytesMut, route: &Nlri, add_path: bool) {
    if add_path {
        out.put_u32(route.path_id.unwrap_or(0));
    }
    let length = route.prefix.length();
    out.put_u8(length);
    let address = route.prefix.octets();
    out.put_slice(address.get(..octets_of(length)).unwrap_or(&address));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(family: Family, add_path: bool, octets: &[u8]) -> Result<Vec<String>, MalformedNlri> {
        let mut routes = Vec::new();
        decode_nlri(family, add_path, octets, &mut routes)?;
        let mut written = BytesMut::new();
        for route in &routes {
            let before = written.len();
            write_nlri(&mut written, route, add_path);
            assert_eq!(written.len() - before, nlri_length(route, add_path));
        }
        let mut again = Vec::new();
        decode_nlri(family, add_path, &written, &mut again)?;
        assert_eq!(routes, again);
        Ok(routes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn reads_prefixes_of_every_length_class() {
        for (family, octets, expected) in [
            (Family::Ipv4Unicast, &[0_u8][..], vec!["0.0.0.0/0"]),
            (
                Family::Ipv4Unicast,
                &[8, 10, 26, 192, 0, 2, 64, 32, 10, 0, 0, 1],
                vec!["10.0.0.0/8", "192.0.2.64/26", "10.0.0.1/32"],
            ),
            // Host bits sent are masked, also when octets of the next prefix fill the address.
            (
                Family::Ipv4Unicast,
                &[9, 10, 255, 8, 11],
                vec!["10.128.0.0/9", "11.0.0.0/8"],
            ),
            (
                Family::Ipv6Unicast,
                &[0, 7, 0xff, 16, 0x20, 0x01],
                vec!["::/0", "fe00::/7", "2001::/16"],
            ),
        ] {
            assert_eq!(read(family, false, octets).unwrap(), expected);
        }
    }

    #[test]
    fn reads_path_identifiers() {
        let octets = [0, 0, 0, 7, 8, 10, 0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(
            read(Family::Ipv4Unicast, true, &octets).unwrap(),
            ["10.0.0.0/8 path 7", "0.0.0.0/0 path 4294967295"]
        );
    }

    #[test]
    fn refuses_what_runs_over() {
        for (family, add_path, octets) in [
            (Family::Ipv4Unicast, false, &[33_u8, 1, 2, 3, 4, 5][..]),
            (Family::Ipv4Unicast, false, &[255; 40]),
            (Family::Ipv4Unicast, false, &[24, 10, 0]),
            (Family::Ipv4Unicast, false, &[8, 10, 8]),
            (Family::Ipv6Unicast, false, &[129; 40]),
            (Family::Ipv6Unicast, false, &[128; 16]),
            (Family::Ipv4Unicast, true, &[0, 0, 0]),
            (Family::Ipv4Unicast, true, &[0, 0, 0, 1]),
        ] {
            assert_eq!(
                read(family, add_path, octets),
                Err(MalformedNlri),
                "{octets:?}"
            );
        }
    }
}
