//! Router discovery: what is not a good message is discarded.

use std::net::Ipv6Addr;

use margay_bgp::discovery::{self, Message};

use crate::input::Input;

/// Reads a message of router discovery: one octet says from where, one with which hop limit, the rest is ICMPv6.
pub fn discovery(octets: &[u8]) {
    let mut input = Input::new(octets);
    let from = input.octet();
    let source = match from & 3 {
        0 | 1 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, from.into()),
        2 => Ipv6Addr::LOCALHOST,
        _ => Ipv6Addr::UNSPECIFIED,
    };
    // Mostly the one that counts.
    let hop_limit = 255 - input.octet();
    let octets = input.rest();
    match discovery::decode(source, hop_limit, octets) {
        Ok(Message::Solicitation) => assert!(octets.len() >= 8),
        Ok(Message::Advertisement { lifetime }) => {
            assert_eq!(hop_limit, discovery::HOP_LIMIT);
            assert!(source.is_unicast_link_local());
            let ours = discovery::advertisement(lifetime);
            let again = discovery::decode(source, hop_limit, &ours);
            assert_eq!(again, Ok(Message::Advertisement { lifetime }));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
