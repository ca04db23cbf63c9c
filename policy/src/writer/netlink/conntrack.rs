//! Connections that end with their address (linux/netfilter/nfnetlink_conntrack.h).
//!
//! The next pod with the address must not be taken for the earlier one because a tracked connection is. They are listed
//! and ended one by one: ending by filter is much younger than the kernels this runs on.
//!
//! A list is a walk over every bucket of the kernel's table, which is one for all network namespaces: 10 ms of a quarter of
//! a million, however few connections there are. So none is made where there are no connections, and one for many
//! addresses rather than one for each.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    super::Error,
    message::{Attributes, attribute},
    socket::{ACKNOWLEDGED, DUMP, Socket},
};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const STATISTICS: u16 = SUBSYSTEM | 5;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const FILTER: u16 = 25;
/// The filter goes by the source address.
const BY_SOURCE: u32 = 1;
/// How many connections there are (`CTA_STATS_GLOBAL_ENTRIES`).
const ENTRIES: u16 = 1;
/// Within a tuple, its addresses; within them, the sources.
const ADDRESSES: u16 = 1;
const SOURCE_V4: u16 = 1;
const SOURCE_V6: u16 = 3;

/// A walk for one address costs as much as copying this many connections: with fewer for each address, one walk that
/// copies all of them is cheaper.
const WORTH_A_WALK: usize = 5_000;

/// Ends every connection from one of the addresses, or answered from one. Says how many there were.
pub(super) fn forget(socket: &mut Socket, addresses: &BTreeSet<IpAddr>) -> Result<usize, Error> {
    let connections = count(socket)?;
    if connections == 0 || addresses.is_empty() {
        return Ok(0);
    }
    let mut found = BTreeSet::new();
    if connections <= WORTH_A_WALK.saturating_mul(addresses.len()) {
        socket.each((GET, DUMP), 0, &Attributes::default(), |entry| {
            if sources(entry).any(|source| addresses.contains(&source)) {
                found.extend(name(entry));
            }
        })?;
    } else {
        for address in addresses {
            find(socket, *address, &mut found)?;
        }
    }
    end(socket, &found)
}

/// The addresses that connections are from or answered from; none if there are more connections than `limit`.
pub(super) fn tracked(
    socket: &mut Socket,
    limit: usize,
) -> Result<Option<BTreeSet<IpAddr>>, Error> {
    let mut found = BTreeSet::new();
    match count(socket)? {
        0 => return Ok(Some(found)),
        connections if connections > limit => return Ok(None),
        _ => {}
    }
    socket.each((GET, DUMP), 0, &Attributes::default(), |entry| {
        found.extend(sources(entry));
    })?;
    Ok((found.len() <= limit.saturating_mul(2)).then_some(found))
}

/// How many connections of this network namespace are tracked.
fn count(socket: &mut Socket) -> Result<usize, Error> {
    let mut entries = 0;
    let question = (STATISTICS, ACKNOWLEDGED);
    socket.each(question, 0, &Attributes::default(), |entry| {
        let number = attribute(entry, ENTRIES).and_then(|value| value.first_chunk());
        entries = number.map_or(entries, |bytes| u32::from_be_bytes(*bytes) as usize);
    })?;
    Ok(entries)
}

/// What names a connection when it is to be ended: its tuple, and its number, which a later one does not have.
type Connection = (Vec<u8>, Vec<u8>);

fn name(entry: &[u8]) -> Option<Connection> {
    let original = attribute(entry, ORIGINAL)?;
    Some((original.to_vec(), attribute(entry, ID)?.to_vec()))
}

/// Where a connection is from and where it is answered from.
fn sources(entry: &[u8]) -> impl Iterator<Item = IpAddr> {
    [ORIGINAL, REPLY].into_iter().filter_map(|side| {
        let addresses = attribute(attribute(entry, side)?, ADDRESSES)?;
        let v4 = || {
            attribute(addresses, SOURCE_V4)?
                .first_chunk()
                .map(|octets| IpAddr::from(Ipv4Addr::from(*octets)))
        };
        let v6 = || {
            attribute(addresses, SOURCE_V6)?
                .first_chunk::<16>()
                .map(|octets| IpAddr::from(Ipv6Addr::from(*octets)))
        };
        v4().or_else(v6)
    })
}

/// Finds one address's connections with the kernel's own filter (from Linux 5.8).
fn find(
    socket: &mut Socket,
    address: IpAddr,
    found: &mut BTreeSet<Connection>,
) -> Result<(), Error> {
    let (family, kind, octets) = match address {
        IpAddr::V4(address) => (2, SOURCE_V4, address.octets().to_vec()),
        IpAddr::V6(address) => (10, SOURCE_V6, address.octets().to_vec()),
    };
    let mut ip = Attributes::default();
    ip.put(kind, &octets);
    let mut tuple = Attributes::default();
    tuple.nest(ADDRESSES, &ip);
    for side in [ORIGINAL, REPLY] {
        let mut filter = Attributes::default();
        filter.put(side, &BY_SOURCE.to_ne_bytes());
        let mut question = Attributes::default();
        question.nest(side, &tuple).nest(FILTER, &filter);
        socket.each((GET, DUMP), family, &question, |entry| {
            found.extend(name(entry));
        })?;
    }
    Ok(())
}

fn end(socket: &mut Socket, connections: &BTreeSet<Connection>) -> Result<usize, Error> {
    let mut ended = 0;
    for (original, id) in connections {
        let mut order = Attributes::default();
        order.put(ORIGINAL | 0x8000, original).put(ID, id);
        // The family is in the tuple's addresses; the header's must agree.
        let addresses = attribute(original, ADDRESSES).unwrap_or_default();
        let v6 = attribute(addresses, SOURCE_V6).is_some();
        match socket.order(DELETE, if v6 { 10 } else { 2 }, &order) {
            // It ended by itself.
            Ok(()) | Err(Error::Missing(_)) => ended += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}
