//! What the kernel's events are about, told by their headers and few attributes. Not what changed:
//! the answer to any event is to compare.
//!
//! A pod that comes or goes causes a dozen events about its own interface, all of them our own
//! doing but caused by the kernel's timers, so that no port number tells. They are told apart by
//! the interface's index: neither the ways to next hops nor other pods depend on it.

use std::collections::BTreeSet;

use super::is_pod_interface;
use super::routes::ROUTE_PROTOCOL;

/// The length of a message's header.
const HEADER: usize = 16;
/// Where the protocol number is in a route message, behind the header.
const RTM_PROTOCOL: usize = 5;
/// Where the index is in a link's and an address' message, behind the header.
const INDEX: usize = 4;
/// The lengths of the fixed parts behind the header (linux/if_link.h, linux/rtnetlink.h).
const LINK_PART: usize = 16;
const ROUTE_PART: usize = 12;
/// Attributes: a link's name, the interface a route leads out of.
const IFLA_IFNAME: u16 = 3;
const RTA_OIF: u16 = 4;
/// The bits of an attribute's type that are flags (linux/netlink.h).
const TYPE_MASK: u16 = 0x3fff;

const NLMSG_OVERRUN: u16 = 4;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

pub(super) const LINKS: u8 = 1;
pub(super) const ADDRESSES: u8 = 2;
pub(super) const OUR_ROUTES: u8 = 4;
pub(super) const OTHER_ROUTES: u8 = 8;
pub(super) const LOST: u8 = 16;
pub(super) const PODS: u8 = 32;

/// Sorts events, and knows which interfaces are pods'.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    pods: BTreeSet<u32>,
}

impl Sorter {
    /// What the messages of a datagram are about.
    pub(super) fn sort(&mut self, mut datagram: &[u8]) -> u8 {
        let mut bits = 0;
        while let Some(header) = datagram.get(..HEADER) {
            let length = word(header, 0).map_or(0, |length| length as usize);
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let end = length.clamp(HEADER, datagram.len());
            bits |= self.sort_one(kind, &datagram[HEADER..end]);
            let next = length.max(HEADER).next_multiple_of(4);
            datagram = datagram.get(next..).unwrap_or_default();
        }
        bits
    }

    /// Events were lost: which interfaces are pods' is learnt anew.
    pub(super) fn forget(&mut self) {
        self.pods.clear();
    }

    fn sort_one(&mut self, kind: u16, body: &[u8]) -> u8 {
        match kind {
            RTM_NEWLINK | RTM_DELLINK => self.link(kind, body),
            RTM_NEWADDR | RTM_DELADDR => self.or_pods(ADDRESSES, word(body, INDEX)),
            RTM_NEWROUTE | RTM_DELROUTE => match body.get(RTM_PROTOCOL) {
                Some(&ROUTE_PROTOCOL) => OUR_ROUTES,
                _ => {
                    let out_of = attribute(body, ROUTE_PART, RTA_OIF);
                    self.or_pods(OTHER_ROUTES, out_of.and_then(|value| word(value, 0)))
                }
            },
            NLMSG_OVERRUN => LOST,
            _ => 0,
        }
    }

    fn link(&mut self, kind: u16, body: &[u8]) -> u8 {
        let name = attribute(body, LINK_PART, IFLA_IFNAME).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let is_pod = std::str::from_utf8(name).is_ok_and(is_pod_interface);
        let Some(index) = word(body, INDEX).filter(|_| is_pod) else {
            // The number may have been a pod's before.
            self.pods.remove(&word(body, INDEX).unwrap_or_default());
            return LINKS;
        };
        match kind {
            RTM_NEWLINK => self.pods.insert(index),
            _ => self.pods.remove(&index),
        };
        PODS
    }

    fn or_pods(&self, otherwise: u8, index: Option<u32>) -> u8 {
        match index {
            Some(index) if self.pods.contains(&index) => PODS,
            _ => otherwise,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

/// The value of the first attribute of this type behind the fixed part.
fn attribute(body: &[u8], fixed: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = body.get(fixed..)?;
    loop {
        let header: [u8; 4] = rest.get(..4)?.try_into().ok()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(body);
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap();
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    fn route(kind: u16, protocol: u8, out_of: u32) -> Vec<u8> {
        let mut body = [0; ROUTE_PART];
        body[RTM_PROTOCOL] = protocol;
        message(
            kind,
            &body,
            &[(1, &[10, 0, 0, 1]), (RTA_OIF, &out_of.to_ne_bytes())],
        )
    }

    fn link(kind: u16, index: u32, name: &str) -> Vec<u8> {
        let mut body = [0; LINK_PART];
        body[INDEX..INDEX + 4].copy_from_slice(&index.to_ne_bytes());
        let name = format!("{name}\0");
        message(kind, &body, &[(7, &[1; 5]), (IFLA_IFNAME, name.as_bytes())])
    }

    fn address(index: u32) -> Vec<u8> {
        let mut body = [0; 8];
        body[INDEX..].copy_from_slice(&index.to_ne_bytes());
        message(RTM_NEWADDR, &body, &[])
    }

    const POD: &str = "mgy0123456789a";

    #[test]
    fn events_are_told_by_their_headers() {
        let mut sorter = Sorter::default();
        let mut two = link(RTM_NEWLINK, 2, "eth0");
        two.extend(route(RTM_DELROUTE, ROUTE_PROTOCOL, 2));
        assert_eq!(sorter.sort(&two), LINKS | OUR_ROUTES);
        assert_eq!(sorter.sort(&route(RTM_NEWROUTE, 2, 2)), OTHER_ROUTES);
        assert_eq!(sorter.sort(&address(2)), ADDRESSES);
        assert_eq!(sorter.sort(&message(28, &[0; 12], &[])), 0, "a neighbour");
        for length in 0..two.len() {
            sorter.sort(&two[..length]);
        }
        sorter.sort(&[0; 64]);
        sorter.sort(&[0xff; 64]);
    }

    #[test]
    fn what_is_about_a_pods_interface_is_told_apart() {
        let mut sorter = Sorter::default();
        assert_eq!(sorter.sort(&address(7)), ADDRESSES, "not known yet");
        assert_eq!(sorter.sort(&link(RTM_NEWLINK, 7, POD)), PODS);
        assert_eq!(sorter.sort(&address(7)), PODS);
        assert_eq!(sorter.sort(&route(RTM_NEWROUTE, 2, 7)), PODS);
        // Whoever takes a pod's route away has it back at once.
        let ours = route(RTM_DELROUTE, ROUTE_PROTOCOL, 7);
        assert_eq!(sorter.sort(&ours), OUR_ROUTES);
        assert_eq!(sorter.sort(&address(8)), ADDRESSES);

        assert_eq!(sorter.sort(&link(RTM_DELLINK, 7, POD)), PODS);
        assert_eq!(sorter.sort(&address(7)), ADDRESSES);
        sorter.sort(&link(RTM_NEWLINK, 7, POD));
        assert_eq!(sorter.sort(&link(RTM_NEWLINK, 7, "eth1")), LINKS);
        assert_eq!(
            sorter.sort(&address(7)),
            ADDRESSES,
            "the number is another's"
        );
        sorter.sort(&link(RTM_NEWLINK, 7, POD));
        sorter.forget();
        assert_eq!(sorter.sort(&address(7)), ADDRESSES);
    }
}
