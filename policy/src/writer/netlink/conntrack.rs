//! Connections that end with their address (linux/netfilter/nfnetlink_conntrack.h).
//!
//! The next pod with the address must not be taken for the earlier one because a tracked connection is. They are listed
//! with the kernel's own filter (from Linux 5.8) and ended one by one: ending by filter is much younger.

use std::net::IpAddr;

use super::{
    super::Error,
    message::{Attributes, attribute},
    socket::Socket,
};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const FILTER: u16 = 25;
/// The filter goes by the source address.
const BY_SOURCE: u32 = 1;

/// Ends every connection from the address, or answered from it. Says how many there were.
pub(super) fn forget(socket: &mut Socket, address: IpAddr) -> Result<usize, Error> {
    let (family, kind, octets) = match address {
        IpAddr::V4(address) => (2, 1, address.octets().to_vec()),
        IpAddr::V6(address) => (10, 3, address.octets().to_vec()),
    };
    let mut ip = Attributes::default();
    ip.put(kind, &octets);
    let mut tuple = Attributes::default();
    tuple.nest(1, &ip);
    let mut ended = 0;
    for side in [ORIGINAL, REPLY] {
        let mut filter = Attributes::default();
        filter.put(side, &BY_SOURCE.to_ne_bytes());
        let mut question = Attributes::default();
        question.nest(side, &tuple).nest(FILTER, &filter);
        for entry in socket.dump(GET, family, &question)? {
            let (Some(original), Some(id)) = (attribute(&entry, ORIGINAL), attribute(&entry, ID))
            else {
                continue;
            };
            let mut order = Attributes::default();
            order.put(ORIGINAL | 0x8000, original).put(ID, id);
            match socket.order(DELETE, family, &order) {
                // It ended by itself.
                Ok(()) | Err(Error::Missing(_)) => ended += 1,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ended)
}
