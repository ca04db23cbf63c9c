//! Links as values: hardware addresses, interfaces and the tunnel attributes Margay looks at.
//!
//! Nothing here talks to the kernel.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The longest interface name Linux takes, in bytes (IFNAMSIZ less the terminator).
pub const MAX_INTERFACE_NAME: usize = 15;

/// A 48-bit hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address from a slice of exactly six bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Whether this is a locally administered unicast address (bit 0x02 set, bit 0x01 clear).
    pub fn is_local_unicast(&self) -> bool {
        self.0[0] & 0x03 == 0x02
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six hexadecimal bytes separated by colons.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not a hardware address: write six bytes in hexadecimal, such as 02:00:00:00:00:01"
)]
pub struct InvalidMac(String);

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed: Result<Vec<u8>, _> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16))
            .collect();
        parsed
            .ok()
            .and_then(|bytes| Self::from_slice(&bytes))
            .ok_or_else(|| InvalidMac(text.to_owned()))
    }
}

/// An interface of the namespace, as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface's index; a device made anew under an old name has a new one.
    pub index: u32,
    /// The interface's name.
    pub name: String,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// The hardware address, where it has one of 48 bits.
    pub mac: Option<Mac>,
    /// What sort of device it is.
    pub kind: LinkKind,
}

/// What sort of device a [`Link`] is, with the attributes Margay compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a virtual Ethernet pair.
    Veth,
    /// A VXLAN device.
    Vxlan(VxlanAttributes),
    /// An IPv4-in-IPv4 device.
    Ipip(IpipAttributes),
    /// Anything else, by the kernel's name for it; empty for hardware.
    Other(String),
}

/// The attributes of a VXLAN device that Margay sets and compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanAttributes {
    /// The network identifier, 24 bits.
    pub vni: u32,
    /// The UDP port peers listen on.
    pub port: u16,
    /// The address packets are sent from; none means the kernel chooses.
    pub local: Option<IpAddr>,
    /// Whether the device learns from what it receives. Ours does not: its table is ours.
    pub learning: bool,
}

/// The attributes of an IPIP device that Margay sets and compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpipAttributes {
    /// The address packets are sent from; none means the kernel chooses.
    pub local: Option<IpAddr>,
    /// The fixed far end; ours has none, so the route's next hop is the far end.
    pub remote: Option<IpAddr>,
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's index.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix in bits.
    pub prefix_length: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_read_and_print() {
        let mac: Mac = "ee:ee:0a:00:0f:01".parse().unwrap();
        assert_eq!(mac.to_string(), "ee:ee:0a:00:0f:01");
        assert!(mac.is_local_unicast());
        for bad in ["", "ee:ee", "ee:ee:ee:ee:ee:ee:ee", "zz:00:00:00:00:00"] {
            let error = bad.parse::<Mac>().unwrap_err().to_string();
            assert!(error.contains("02:00:00:00:00:01"), "{error}");
        }
    }
}
