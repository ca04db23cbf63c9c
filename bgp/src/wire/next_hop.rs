//! Next hops: where packets for a route go.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address (RFC 2545), for IPv6 routes and, by RFC 8950, IPv4 ones.
    V6 {
        /// The global address. On unnumbered sessions some routers send a link-local one here.
        global: Ipv6Addr,
        /// The link-local address of the same router, when it shares a link with the peer.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// The address, for IPv6 the global one.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        match self {
            Self::V4(address) => IpAddr::V4(*address),
            Self::V6 { global, .. } => IpAddr::V6(*global),
        }
    }

    /// Whether the address can be one router's: not unspecified, multicast or reserved (RFC 4271
    /// §6.3 "semantically incorrect"). A loopback address can, for routers on one host; that is for
    /// whoever knows where the session runs.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        match self {
            Self::V4(address) => {
                let [first, ..] = address.octets();
                first != 0 && first < 224
            }
            Self::V6 { global, .. } => !(global.is_unspecified() || global.is_multicast()),
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(global) => Self::V6 {
                global,
                link_local: None,
            },
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}
