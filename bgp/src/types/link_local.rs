//! Link-local addresses of peers: one address may be a router on every link.
//!
//! Peers are found by their address. Of two routers with one link-local address on two links each is a peer of its own, so
//! the index of the interface is put into the half of the address that is always zero (RFC 4291 section 2.5.6: 54 bits behind
//! `fe80::/10`), as BSD kernels do. Such a key is never seen outside: not on the wire, not by the kernel, not by people.

use std::net::{IpAddr, Ipv6Addr};

/// What a peer is known by: its address, a link-local one with the index of its interface in it. Index 0 is for every other.
#[must_use]
pub fn peer_key(address: IpAddr, interface: u32) -> IpAddr {
    with_index(address, interface, interface)
}

/// The address of the peer with a key.
#[must_use]
pub fn peer_address(key: IpAddr, interface: u32) -> IpAddr {
    with_index(key, interface, 0)
}

fn with_index(address: IpAddr, interface: u32, index: u32) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() && interface != 0 => {
            let mut octets = v6.octets();
            if let Some(place) = octets.get_mut(2..6) {
                place.copy_from_slice(&index.to_be_bytes());
            }
            Ipv6Addr::from(octets).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_link_local_addresses_with_an_interface_have_it_in_them() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let router = address("fe80::1:2:3:4");
        let (first, second) = (peer_key(router, 2), peer_key(router, 0x0001_0002));
        assert_eq!(first, address("fe80:0:2:0:1:2:3:4"));
        assert_eq!(second, address("fe80:1:2:0:1:2:3:4"));
        assert_eq!(peer_address(first, 2), router);
        assert_eq!(peer_address(second, 0x0001_0002), router);
        for other in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(peer_key(address(other), 7), address(other));
            assert_eq!(peer_address(address(other), 7), address(other));
        }
        assert_eq!(peer_key(router, 0), router);
        assert_eq!(peer_address(router, 0), router);
    }
}
